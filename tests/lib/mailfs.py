# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/lib/mailfs.py - a mailfs to test: its settings, its mounts, its objects, and lines that tell how it went.

Every daemon is started in the foreground, with its log in a file, and is ended by End.now() however the test ends.
Needs Debian's Python: the binding of librados lies there.
"""

import os
import re
import signal
import struct
import subprocess
import sys
import time
import traceback


class Failed(Exception):
    """A test saw something wrong; the text says what."""


class Skipped(Exception):
    """Something that the test needs is not there; the text says what."""


def expect(condition, what):
    if not condition:
        raise Failed(what)


def equal(seen, wanted, what):
    if seen != wanted:
        raise Failed("%s: %.200r, not %.200r" % (what, seen, wanted))


def wait_for(condition, what, deadline):
    """Waits until condition() is true; returns its value."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed("not within %g s: %s" % (deadline, what))
        time.sleep(0.02)


def is_mounted(path):
    """Says the table of mounts; never touches the mount itself."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        points = [line.split(" ")[4] for line in f]
    return path in [re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), p) for p in points]


def daemons(path):
    """The pids of the mailfs processes that were called with this mount point."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                words = f.read().split(b"\0")
        except OSError:
            continue
        # Also one that runs under valgrind.
        if os.fsencode(path) in words and any(os.path.basename(w) == b"mailfs" for w in words):
            found.append(int(pid))
    return found


class Outcome:
    """Runs tests, prints "ok NAME", "not ok NAME why" or "skip NAME why" for each."""

    def __init__(self, wanted=()):
        self.wanted, self.failed, self.count = set(wanted), 0, 0

    def run(self, name, function, *args):
        """True if it was ok. Tests that are not wanted are passed over."""
        if self.wanted and name not in self.wanted:
            return False
        self.count += 1
        started = time.monotonic()
        try:
            function(*args)
        except Skipped as error:
            print("skip %s %s" % (name, error), flush=True)
        except Exception as error:  # a test that breaks is a test that fails
            text = str(error) if isinstance(error, Failed) else "".join(traceback.format_exception(error))
            print("not ok %s %s" % (name, text.strip().replace("\n", " | ")), flush=True)
            self.failed += 1
            return False
        else:
            print("ok %s (%.1f s)" % (name, time.monotonic() - started), flush=True)
        return True

    def status(self):
        if self.count == 0:
            print("not ok nothing was run")
            return 1
        return 1 if self.failed else 0


class Mount:
    """One daemon in the foreground."""

    def __init__(self, fs, path, options, env, wrapper):
        self.fs, self.path, self.env, self.wrapper = fs, path, env, wrapper
        self.options = ",".join("%s=%s" % o for o in options.items())
        self.log = os.path.join(fs.work, "%s.log" % os.path.basename(path))
        self.process = None

    def start(self, deadline=30):
        """Returns when it serves; the seconds that took."""
        os.makedirs(self.path, exist_ok=True) if not is_mounted(self.path) else None
        command = [*self.wrapper, self.fs.program("fuse/mailfs"), "-f", "-c", self.fs.conf]
        command += ["-o", self.options] if self.options else []
        started = time.monotonic()
        begin = os.path.getsize(self.log) if os.path.exists(self.log) else 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([*command, self.path], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True, env={**os.environ, **self.env})
        # A dead mount may still be there: the new one has said that it serves only when its own answers.
        wait_for(lambda: self.process.poll() is not None or self._serves(), "mailfs serves %s" % self.path, deadline)
        if self.process.poll() is not None:
            raise Failed("mailfs ended with %d: %s" % (self.process.returncode, self.log_text(begin).strip()))
        return time.monotonic() - started

    def _serves(self):
        if not is_mounted(self.path):
            return False
        document = self.fs.status(self.path)
        return document is not None and document["pid"] in daemons(self.path)

    def log_text(self, begin=0):
        with open(self.log, "rb") as f:
            f.seek(begin)
            return f.read().decode(errors="replace")

    def umount(self, wait=60, check=True):
        """mailfsctl umount; returns when the daemon has ended. With `check`, all must have been written."""
        done = subprocess.run([self.fs.program("tools/mailfsctl"), "umount", "-c", self.fs.conf, "-w", str(wait),
                               self.path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=wait + 30, text=True, errors="replace")
        stacks = self.stacks() if "still runs" in done.stdout else ""
        try:
            code = self.process.wait(wait)
        except subprocess.TimeoutExpired:
            raise Failed("the daemon of %s does not end: %s%s" % (self.path, done.stdout, stacks)) from None
        expect(not is_mounted(self.path), "%s is mounted still: %s" % (self.path, done.stdout))
        if check:
            expect(done.returncode == 0, "umount: exit %d: %s%s" % (done.returncode, done.stdout, stacks))
            expect(code == 0, "the daemon ended with %d: %s" % (code, self.log_text()[-500:]))
        return code

    def stacks(self):
        """What each thread does: for a daemon that takes too long."""
        done = subprocess.run(["gdb", "-p", str(self.process.pid), "-batch", "-ex", "set pagination off", "-ex",
                               "thread apply all bt"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, timeout=60, text=True, errors="replace")
        ours = [line.split(" in ", 1)[1] for line in done.stdout.splitlines() if " in " in line and line.startswith("#")]
        with open(self.log, "a") as log:
            log.write(done.stdout)
        return " < ".join(line.split(" (")[0] for line in ours if "mf_" in line or "rados_" in line or "fuse_" in line)

    def kill(self):
        """kill -9; the dead mount stays."""
        self.process.kill()
        self.process.wait()


class Filesystem:
    """A namespace in the pools of a cluster, the settings for it, and what was mounted of it."""

    def __init__(self, build, ceph_conf, work, name, **options):
        self.build, self.ceph_conf, self.work, self.name = build, ceph_conf, work, name
        self.conf = os.path.join(work, "mailfs.conf")
        self.mounts = []
        os.makedirs(os.path.join(work, "run"), exist_ok=True)
        self.settings = {"ceph_conf": ceph_conf, "client": "client.mailfs", "fs": name, "node": "first",
                         "run_dir": os.path.join(work, "run"), **options}
        self.write_conf(self.conf)

    def write_conf(self, path, **changed):
        with open(path, "w") as f:
            f.write("[mailfs]\n" + "".join("%s = %s\n" % s for s in {**self.settings, **changed}.items()))
        return path

    def program(self, path):
        return os.path.join(self.build, path)

    def mkfs(self):
        done = subprocess.run([self.program("tools/mailfsctl"), "mkfs", "-c", self.conf], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        expect(done.returncode == 0, "mkfs: exit %d: %s" % (done.returncode, done.stdout))

    def mount(self, name="mnt", env=None, wrapper=(), deadline=30, **options):
        mount = Mount(self, os.path.join(self.work, name), options, env or {}, wrapper)
        self.mounts.append(mount)
        mount.start(deadline)
        return mount

    def status(self, path):
        """What the daemon of that mount point says of itself; None when it does not answer."""
        import json
        done = subprocess.run([self.program("tools/mailfsctl"), "status", "--json", "-c", self.conf],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
        try:
            documents = json.loads(done.stdout)
        except ValueError:
            return None
        return next((d for d in documents if d.get("mountpoint") == path), None)

    def end(self):
        """Ends every daemon and every mount below the directory of work."""
        paths = {m.path for m in self.mounts}
        for mount in self.mounts:
            if mount.process and mount.process.poll() is None:
                mount.process.send_signal(signal.SIGCONT)
                mount.process.kill()
                mount.process.wait()
        for path in paths:
            for pid in daemons(path):
                os.kill(pid, signal.SIGKILL)
            for _ in range(8):
                if not is_mounted(path):
                    break
                subprocess.run(["umount", "-l", "-i", path], stderr=subprocess.DEVNULL, check=False)


class Objects:
    """The objects of a filesystem, past mailfs."""

    def __init__(self, ceph_conf, namespace, client="client.mailfs"):
        import rados
        self.cluster = rados.Rados(conffile=ceph_conf, name=client,
                                   conf={"rados_osd_op_timeout": "60", "client_mount_timeout": "30"})
        self.cluster.connect()
        self.io = {}
        for kind, pool in (("meta", "mailfs_meta"), ("data", "mailfs_data")):
            self.io[kind] = self.cluster.open_ioctx(pool)
            self.io[kind].set_namespace(namespace)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        for io in self.io.values():
            io.close()
        self.cluster.shutdown()

    def names(self, kind, prefix=""):
        return sorted(o.key for o in self.io[kind].list_objects() if o.key.startswith(prefix))

    def flip(self, kind, name, offset):
        """Changes one byte of an object; what it was is what it will be after another flip."""
        byte = self.io[kind].read(name, 1, offset)
        expect(len(byte) == 1, "%s is shorter than %d bytes" % (name, offset + 1))
        self.io[kind].write(name, bytes([byte[0] ^ 0x40]), offset)


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


class Frame:
    """A record as store/bytes.h frames it."""

    def __init__(self, data):
        self.type, self.version, self.compat, _, length = struct.unpack_from("<BBBBI", data)
        self.payload = bytearray(data[8:8 + length])
        expect(len(data) == length + 12, "a frame of %d bytes that says %d" % (len(data), length + 12))
        equal(bytes(data), self.encode(), "a frame, encoded anew")

    def encode(self):
        data = struct.pack("<BBBBI", self.type, self.version, self.compat, 0, len(self.payload)) + self.payload
        return data + struct.pack("<I", crc32c(data))


def main_arguments(doc, extra=()):
    """--build DIR --ceph CONF WORKDIR [TEST...]; prints what is wrong and ends with 2, or 77 without root."""
    import argparse
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True, metavar="DIR", help="build directory with fuse/mailfs")
    for name, options in extra:
        parser.add_argument(name, **options)
    parser.add_argument("work", metavar="WORKDIR", help="new directory for settings, mounts and logs")
    parser.add_argument("tests", metavar="TEST", nargs="*")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("skip %s needs root" % parser.prog)
        sys.exit(77)
    options.build, options.work = os.path.realpath(options.build), os.path.realpath(options.work)
    os.makedirs(options.work, exist_ok=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *unused: sys.exit(1))
    return options
