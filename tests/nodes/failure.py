# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/nodes/failure.py - a node dies, hangs, loses its network or leaves: the others go on within seconds.

The node with the last number is the one it happens to. What it holds is held by processes on its mount; what asks a
mount that may not answer is a process too, and is left behind when it does not.
"""

import fcntl
import os
import pickle
import signal
import subprocess
import time

import mailfs
from mailfs import Failed, equal, expect, wait_for

# From the loss of a node to the service of what it held; DESIGN aims at 5 s.
TAKEOVER_S = 15
MESSAGES = 20


def within(seconds, function, *args):
    """What function() returns in a process of its own; Failed when it takes longer or fails."""
    here, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = (None, function(*args))
        except Exception as error:  # told to the parent
            answer = (error, None)
        os.write(there, pickle.dumps(answer))
        os._exit(0)
    os.close(there)
    os.set_blocking(here, False)
    try:
        def answered():
            try:
                return os.read(here, 65536)
            except BlockingIOError:
                return None
        error, value = pickle.loads(wait_for(answered, "%s returns" % function.__name__, seconds))
    except Failed:
        # It may not end before the daemon does: nobody waits for it.
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(here)
    os.waitpid(pid, 0)
    if error:
        raise error
    return value


def message(name):
    return b"Subject: %s\n\n" % name.encode() + name.encode() * 200


def put(path, data):
    with open(path, "wb", buffering=0) as f:
        f.write(data)
        os.fsync(f.fileno())


def get(path):
    with open(path, "rb", buffering=0) as f:
        return f.read(1 << 20)


def deliver(box, name):
    tmp = os.path.join(box, "tmp", name)
    put(tmp, message(name))
    os.link(tmp, os.path.join(box, "new", name))
    os.unlink(tmp)


def make_box(box):
    os.mkdir(box)
    for part in ("cur", "new", "tmp"):
        os.mkdir(os.path.join(box, part))


def can_lock(path, call):
    with open(path, "rb+", buffering=0) as f:
        try:
            call(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


class Holder:
    """A process that holds locks on a mount until it is ended."""

    def __init__(self, box):
        here, there = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                files = [open(os.path.join(box, name), "rb+", buffering=0) for name in ("by-fcntl", "by-flock")]
                fcntl.lockf(files[0], fcntl.LOCK_EX)
                fcntl.flock(files[1], fcntl.LOCK_EX)
                os.close(os.open(os.path.join(box, "dovecot.lock"), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                os.write(there, b"y")
                signal.pause()
            finally:
                os._exit(1)
        os.close(there)
        equal(os.read(here, 1), b"y", "a process that holds locks")
        os.close(here)

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        wait_for(lambda: os.waitpid(self.pid, os.WNOHANG)[0], "the holder of locks ends", 20)


class Failures:
    def __init__(self, filesystem):
        self.nodes = filesystem
        self.victim = len(filesystem.paths()) - 1
        self.count = 0
        self.box = None

    def on(self, node, *names):
        return os.path.join(self.nodes.paths()[node], self.box, *names)

    def prepare(self):
        """A mailbox that the victim has in use, with locks, and messages that it delivered."""
        self.count += 1
        self.box = "box%d" % self.count
        make_box(self.on(0))
        for name in ("by-fcntl", "by-flock", "index"):
            put(self.on(0, name), b"first")
        for i in range(MESSAGES):
            deliver(self.on(self.victim), "m%d" % i)
        for i in range(0, MESSAGES, 4):
            os.rename(self.on(self.victim, "new", "m%d" % i), self.on(self.victim, "cur", "m%d:2,S" % i))
        put(self.on(self.victim, "index"), b"by the victim")
        return Holder(self.on(self.victim))

    def takeover(self):
        """On node 0: locks are free, all is there, work goes on."""
        started = time.monotonic()
        for name, call in (("by-fcntl", fcntl.lockf), ("by-flock", fcntl.flock)):
            path = self.on(0, name)
            wait_for(lambda: within(TAKEOVER_S, can_lock, path, call), "the lock %s is free" % name, TAKEOVER_S)
        within(TAKEOVER_S, deliver, self.on(0), "after")
        seconds = time.monotonic() - started
        self.all_there(0)
        equal(within(TAKEOVER_S, get, self.on(0, "index")), b"by the victim", "what it wrote with fsync")
        print("# %s: service after %.1f s" % (self.box, seconds), flush=True)

    def all_there(self, node):
        def listing():
            return os.listdir(self.on(node, "new")) + os.listdir(self.on(node, "cur"))
        found = sorted(name.split(":")[0] for name in within(TAKEOVER_S, listing))
        equal(found, sorted(["after"] + ["m%d" % i for i in range(MESSAGES)]), "messages on node %d" % node)
        for name in ("m1", "m5", "after"):
            equal(within(TAKEOVER_S, get, self.on(node, "new", name)), message(name), "message " + name)

    def dotlock_goes(self):
        wait_for(lambda: not within(5, os.path.lexists, self.on(0, "dovecot.lock")), "the dotlock of the dead goes",
                 TAKEOVER_S)

    def never_again(self):
        """The victim is back without knowing what happened: it changes nothing, and tells nothing that is not so."""
        within(TAKEOVER_S, put, self.on(0, "index"), b"by the others")

        def told():
            try:
                return get(self.on(self.victim, "index"))
            except OSError as error:
                return error.errno
        answer = within(TAKEOVER_S, told)
        expect(isinstance(answer, int) or answer == b"by the others", "the victim reads %r" % answer)
        # Longer than any commit of its takes.
        end = time.monotonic() + 3
        while time.monotonic() < end:
            equal(within(TAKEOVER_S, get, self.on(0, "index")), b"by the others", "what the others wrote")
            time.sleep(0.2)
        self.all_there(0)

    def remount(self):
        """The victim comes again, as a new one."""
        mount = self.nodes.mounts[self.victim]
        if mount.process.poll() is None:
            mount.process.kill()
        mount.process.wait()
        for _ in range(8):
            if mailfs.is_mounted(mount.path):
                subprocess.run(["umount", "-l", "-i", mount.path], check=False)
        mount.start(60)
        self.all_there(self.victim)

    def killed(self):
        """kill -9 of a daemon."""
        holder = self.prepare()
        self.nodes.mounts[self.victim].kill()
        self.takeover()
        self.dotlock_goes()
        holder.end()
        self.remount()

    def stopped(self):
        """A daemon that stands still, and goes on after the others took its place."""
        holder = self.prepare()
        process = self.nodes.mounts[self.victim].process
        process.send_signal(signal.SIGSTOP)
        try:
            self.takeover()
        finally:
            process.send_signal(signal.SIGCONT)
        self.never_again()
        holder.end()
        self.remount()

    def cut(self):
        """A node without network, and with it again."""
        holder = self.prepare()
        self.nodes.cut(self.victim)
        try:
            self.takeover()
        finally:
            self.nodes.cut(self.victim, False)
        self.never_again()
        holder.end()
        self.remount()

    def left(self):
        """A clean unmount while another node waits for what it held."""
        holder = self.prepare()
        expect(not can_lock(self.on(0, "by-fcntl"), fcntl.lockf), "the lock is held")
        holder.end()
        self.nodes.mounts[self.victim].umount()
        os.unlink(self.on(0, "dovecot.lock"))
        self.takeover()
        self.remount()

    def one_by_one(self):
        """Each node dies in turn while the others deliver; no acknowledged message is lost."""
        self.count += 1
        self.box = "box%d" % self.count
        make_box(self.on(0))
        names, last = [], self.victim
        try:
            for number in range(last, -1, -1):
                self.victim = number
                for node in range(last + 1):
                    name = "n%d.%d" % (number, node)
                    within(TAKEOVER_S, deliver, self.on(node), name)
                    names.append(name)
                self.nodes.mounts[number].kill()
                other = (number + 1) % (last + 1)
                wait_for(lambda: sorted(within(TAKEOVER_S, os.listdir, self.on(other, "new"))) == sorted(names),
                         "all messages on node %d" % other, TAKEOVER_S)
                mount = self.nodes.mounts[number]
                subprocess.run(["umount", "-l", "-i", mount.path], check=False)
                mount.start(60)
        finally:
            self.victim = last

    TESTS = (left, killed, stopped, cut, one_by_one)
