# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/nodes/inotify.py - what inotify tells of one directory."""

import ctypes
import mmap
import os
import signal
import struct

from mailfs import wait_for

MODIFY, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x2, 0x40, 0x80, 0x100, 0x200
OVERFLOW, IGNORED = 0x4000, 0x8000
NONBLOCK, CLOEXEC = 0o4000, 0o2000000
# What another node may have done while it was too much to tell, or nobody could tell it.
CHANGED = ".mailfs-changed"

libc = ctypes.CDLL(None, use_errno=True)


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def instance():
    return checked(libc.inotify_init1(NONBLOCK | CLOEXEC))


def add(fd, path, mask):
    """Its number."""
    return checked(libc.inotify_add_watch(fd, os.fsencode(path), mask))


def events(fd):
    """(number, mask, name) of those that are there."""
    try:
        data = os.read(fd, 1 << 16)
    except BlockingIOError:
        return
    at = 0
    while at < len(data):
        number, mask, _, length = struct.unpack_from("iIII", data, at)
        yield number, mask, os.fsdecode(data[at + 16:at + 16 + length].rstrip(b"\0"))
        at += 16 + length


class Watch:
    """Never touches the directory after its beginning, so it can be asked whatever has become of the mount."""

    def __init__(self, path):
        self.path, self.names, self.seen, self.count, self.vague = path, set(), set(), 0, 0
        self.fd = instance()
        add(self.fd, path, MODIFY | MOVED_FROM | MOVED_TO | CREATE | DELETE)

    def read(self):
        """How many events there were so far; the names are kept."""
        for _, mask, name in events(self.fd):
            if mask & IGNORED:
                continue
            self.count += 1
            self.vague += bool(mask & OVERFLOW) or name == CHANGED
            self.names.add(name)
            self.seen.add((mask & 0xfff, name))
        return self.count

    def told(self, name):
        self.read()
        return name in self.names

    def wait(self, name, what, deadline):
        wait_for(lambda: self.told(name), "%s: %s is told in %s" % (what, name, self.path), deadline)

    def close(self):
        os.close(self.fd)


class Follower:
    """A process that lists the directory whenever it is told of something, as an IMAP server in IDLE."""

    def __init__(self, path):
        self.told = mmap.mmap(-1, mmap.PAGESIZE)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._follow(path)
            finally:
                os._exit(1)
        wait_for(self.count, "a process watches", 20)

    def _follow(self, path):
        watch = Watch(path)
        struct.pack_into("Q", self.told, 0, 1)
        os.set_blocking(watch.fd, True)
        while True:
            struct.pack_into("Q", self.told, 0, 1 + watch.read())
            try:
                for name in os.listdir(path)[-20:]:
                    os.stat(os.path.join(path, name))
            except OSError:
                pass  # nobody serves it any more, or the message has moved

    def count(self):
        """Events so far, and one when it begins."""
        return struct.unpack_from("Q", self.told, 0)[0]

    def end(self, deadline=10):
        os.kill(self.pid, signal.SIGKILL)
        wait_for(lambda: os.waitpid(self.pid, os.WNOHANG)[0], "the process that watches ends", deadline)
