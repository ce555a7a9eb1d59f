#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/nodes/numbers.py - counts on and on in a shared directory, under a lock, as mail servers number their mail.

usage: numbers.py dotlock|fcntl DIR [--sure]

dotlock: the next number is appended to a file, as Dovecot does with its dovecot-uidlist. fcntl: a file with it takes the place of
the last one, as with dovecot.index, and the lock is on another. Each step reads what there is before it adds. What fails
is tried again. --sure: what this process has seen may not be taken back, for its node does not fail.
Ends at SIGTERM, and prints what it did as JSON; "wrong" must be empty.
"""

import fcntl
import json
import os
import random
import signal
import sys
import time


class Ended(Exception):
    pass


def end(*unused):
    raise Ended


class Dotlock:
    """As file_dotlock_create() and file_dotlock_delete() of Dovecot: who removes it has looked whether it is his own."""

    def __init__(self, path):
        self.path = path
        while True:
            try:
                os.lstat(path)
            except FileNotFoundError:
                try:
                    self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                    break
                except FileExistsError:
                    pass
            time.sleep(random.random() * 0.005)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        try:
            if os.path.samestat(os.lstat(self.path), os.fstat(self.fd)):
                os.unlink(self.path)
        except FileNotFoundError:
            pass
        finally:
            os.close(self.fd)


class Counter:
    def __init__(self, directory, sure):
        self.at = lambda name: os.path.join(directory, name)
        self.sure, self.last = sure, 0
        self.pause = 0.003 if sure else 0.06  # a node that is stopped is to be stopped under a lock
        self.did = {"steps": 0, "errors": {}, "wrong": []}

    def seen(self, number):
        if self.sure and number < self.last:
            self.did["wrong"].append("%d after %d" % (number, self.last))
        self.last = number

    def dotlock(self):
        with Dotlock(self.at("list.lock")):
            with open(self.at("list"), "rb", buffering=0) as f:
                numbers = [int(line) for line in f.read(1 << 24).split()]
            if any(b <= a for a, b in zip(numbers, numbers[1:])):
                self.did["wrong"].append("not in order: %s" % [p for p in zip(numbers, numbers[1:]) if p[1] <= p[0]][:3])
            self.seen(numbers[-1] if numbers else 0)
            time.sleep(random.random() * self.pause)
            fd = os.open(self.at("list"), os.O_WRONLY | os.O_APPEND)
            try:
                os.write(fd, b"%d\n" % (self.last + 1))
                self.last += 1
            finally:
                os.close(fd)

    def fcntl(self):
        with open(self.at("index.log"), "rb+", buffering=0) as log:
            fcntl.lockf(log, fcntl.LOCK_EX)
            with open(self.at("index"), "rb", buffering=0) as f:
                self.seen(int(f.read(100)))
            time.sleep(random.random() * self.pause)
            with open(self.at("index.tmp"), "wb", buffering=0) as f:
                f.write(b"%d" % (self.last + 1))
            os.rename(self.at("index.tmp"), self.at("index"))
            self.last += 1

    def run(self, kind):
        signal.signal(signal.SIGTERM, end)
        print("ready", flush=True)
        try:
            while True:
                try:
                    getattr(self, kind)()
                    self.did["steps"] += 1
                except OSError as error:
                    name = error.strerror or str(error)
                    self.did["errors"][name] = self.did["errors"].get(name, 0) + 1
                    time.sleep(0.02)
                time.sleep(random.random() * 0.002)
        except Ended:
            print(json.dumps(self.did))


if __name__ == "__main__":
    Counter(sys.argv[2], "--sure" in sys.argv).run(sys.argv[1])
