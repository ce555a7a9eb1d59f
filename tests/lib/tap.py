# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/lib/tap.py - runs test programs that print TAP, and sums up their lines."""

import os
import subprocess
import threading
import time


class Totals:
    def __init__(self):
        self.ok = self.failed = self.skipped = 0
        self.failures = []

    def add(self, good, name, text, skipped=False):
        print(f"{'ok' if good else 'not ok'} - {name}: {text}", flush=True)
        if skipped:
            self.skipped += 1
        elif good:
            self.ok += 1
        else:
            self.failed += 1
            self.failures.append(f"{name}: {text}")

    def summary(self):
        """Prints the sums; the exit status."""
        print(f"# total: {self.ok} ok, {self.failed} not ok, {self.skipped} skipped")
        for failure in self.failures:
            print(f"# failed: {failure}")
        return 1 if self.failed else 0


def run_tap(totals, name, command, timeout):
    """A program that prints TAP. Less lines than planned, or a bad exit without a "not ok", is a failure as well."""
    start = time.monotonic()
    plan, lines, bad = None, 0, 0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                               start_new_session=True)
    timer = Watchdog(process, timeout)
    for line in process.stdout:
        line = line.rstrip("\n")
        if line.startswith(("ok ", "not ok ")):
            good = line.startswith("ok ")
            text = line.split(" ", 2 if good else 3)[-1]
            text = text[2:] if text.startswith("- ") else text
            totals.add(good, name, text, good and text.startswith("# skip"))
            lines += 1
            bad += not good
        elif line.startswith("1.."):
            plan = int(line[3:])
        else:
            print(f"# {name}: {line}", flush=True)
    status = process.wait()
    timer.stop()
    if timer.fired:
        totals.add(False, name, f"ended after {timeout} s")
    elif plan != lines:
        totals.add(False, name, f"stopped early, status {status}: {lines} results of {plan}")
    elif status and not bad:
        totals.add(False, name, f"status {status}")
    print(f"# {name}: {time.monotonic() - start:.1f} s", flush=True)


class Watchdog:
    """Ends the session of a process after a time: its children, which may hold the pipe open, too."""

    def __init__(self, process, seconds):
        self.fired = False
        self.process = process
        self.timer = threading.Timer(seconds, self.fire)
        self.timer.start()

    def fire(self):
        self.fired = True
        try:
            os.killpg(self.process.pid, 9)
        except ProcessLookupError:
            pass

    def stop(self):
        self.timer.cancel()


def run_difftest(totals, name, command, timeout):
    """A program with one result: the exit status, and what its last line says."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                               start_new_session=True)
    timer = Watchdog(process, timeout)
    output = process.stdout.read().strip().splitlines()
    status = process.wait()
    timer.stop()
    last = output[-1] if output else ""
    totals.add(status == 0, name, f"ended after {timeout} s" if timer.fired else last if status == 0 else f"status {status}")
    if status != 0:
        print("\n".join("# " + line for line in output[-40:]), flush=True)
