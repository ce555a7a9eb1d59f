# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/nodes/failure.py - a node dies, hangs, loses its network or leaves: the others go on within seconds.

The node with the last number is the one it happens to. What it holds is held by processes on its mount; what asks a
mount that may not answer is a process too, and is left behind when it does not.
"""

import errno
import fcntl
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time

import mailfs
from mailfs import Failed, equal, expect, wait_for

# From the loss of a node to the service of what it held; DESIGN aims at 5 s.
TAKEOVER_S = 15
STOPS = 2
NUMBERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "numbers.py")
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
    """A process that holds locks and files on a mount until it is ended."""

    def __init__(self, box):
        self.box = box
        (commands, self.commands), (self.answers, answers) = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.commands)
                os.close(self.answers)
                self._work(commands, answers)
            finally:
                os._exit(1)
        os.close(commands)
        os.close(answers)
        equal(self._answer(), "ready", "a process that holds locks")

    def _work(self, commands, answers):
        self.at = lambda name: os.path.join(self.box, name)
        self.files = [open(self.at(name), "rb+", buffering=0) for name in ("by-fcntl", "by-flock")]
        fcntl.lockf(self.files[0], fcntl.LOCK_EX)
        fcntl.flock(self.files[1], fcntl.LOCK_EX)
        os.close(os.open(self.at("dovecot.lock"), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        self.index, self.log = (open(self.at(name), "rb+", buffering=0) for name in ("index", "log"))
        self.directory = os.open(self.box, os.O_RDONLY)
        os.write(answers, pickle.dumps("ready"))
        while command := os.read(commands, 1):
            answer = {b"c": self._change, b"t": self._tell}[command]()
            os.write(answers, pickle.dumps(answer))

    def _change(self):
        """What is not in RADOS for a while."""
        os.fsync(self.directory)
        self.log.write(b"lost")
        os.close(os.open(self.at("lost"), os.O_CREAT | os.O_EXCL | os.O_WRONLY))

    def _tell(self):
        """How it fares with what it had, each with an errno or 0."""
        def error(function, *args):
            try:
                function(*args)
            except OSError as error:
                return error.errno
            return 0
        told = {"read of a file that lost nothing": error(self.index.read),
                "read of a file that lost something": error(self.log.read),
                "fsync of that": error(os.fsync, self.log.fileno()),
                "fsync of the directory": error(os.fsync, self.directory),
                "fsync of the directory again": error(os.fsync, self.directory),
                "another lock": error(fcntl.lockf, self.index, fcntl.LOCK_EX | fcntl.LOCK_NB),
                "a change under locks that are gone": error(os.mkdir, self.at("under-a-lock"))}
        for file in self.files:
            file.close()
        told["a change, its file locks given up"] = error(os.mkdir, self.at("under-a-dotlock"))
        told["its dotlock"] = error(os.unlink, self.at("dovecot.lock"))
        told["a change without locks"] = error(os.rmdir, self.at("nowhere"))
        return told

    def _answer(self):
        os.set_blocking(self.answers, False)

        def got():
            try:
                return os.read(self.answers, 65536)
            except BlockingIOError:
                return None
        return pickle.loads(wait_for(got, "an answer of the holder of locks", TAKEOVER_S))

    def change(self):
        os.write(self.commands, b"c")
        self._answer()

    def outlived(self):
        """Its node has joined anew: nothing that it lost is hidden from it, and it spoils nothing."""
        os.write(self.commands, b"t")
        stale, gone = errno.ESTALE, errno.ENOENT
        equal(self._answer(), {"read of a file that lost nothing": 0, "read of a file that lost something": stale,
                               "fsync of that": stale, "fsync of the directory": stale,
                               "fsync of the directory again": 0, "another lock": stale,
                               "a change under locks that are gone": stale,
                               "a change, its file locks given up": stale, "its dotlock": gone,
                               "a change without locks": gone}, "what a process is told that outlives its incarnation")

    def end(self):
        os.close(self.commands)
        os.close(self.answers)
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
        for name in ("by-fcntl", "by-flock", "index", "log"):
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

    def restart(self):
        """The victim comes again, as a new one."""
        mount = self.nodes.mounts[self.victim]
        if mount.process.poll() is None:
            mount.process.kill()
        mount.process.wait()
        for _ in range(8):
            if mailfs.is_mounted(mount.path):
                subprocess.run(["umount", "-l", "-i", mount.path], check=False)
        mount.start(60)

    def remount(self):
        self.restart()
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
        holder.change()
        process.send_signal(signal.SIGSTOP)
        try:
            self.takeover()
        finally:
            process.send_signal(signal.SIGCONT)
        self.never_again()
        holder.outlived()
        holder.end()
        self.remount()

    def cut(self):
        """A node without network, and with it again."""
        holder = self.prepare()
        holder.change()
        self.nodes.cut(self.victim)
        try:
            self.takeover()
        finally:
            self.nodes.cut(self.victim, False)
        self.never_again()
        holder.outlived()
        holder.end()
        self.remount()

    def counting(self):
        """A daemon stands still under the locks of processes that go on afterwards: they spoil nothing."""
        self.count += 1
        self.box = "box%d" % self.count
        os.mkdir(self.on(0))
        for name, data in (("list", b""), ("index.log", b""), ("index", b"0")):
            put(self.on(0, name), data)
        counters = []
        for node in (0, self.victim):
            for kind in ("dotlock", "fcntl"):
                for _ in range(2):
                    command = [sys.executable, NUMBERS, kind, self.on(node), *(["--sure"] if node == 0 else [])]
                    counters.append(subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True))
                    equal(counters[-1].stdout.readline(), "ready\n", "the first line of a counter")
        process = self.nodes.mounts[self.victim].process
        try:
            for _ in range(STOPS):
                time.sleep(1 + random.random())
                process.send_signal(signal.SIGSTOP)
                time.sleep(6)
                process.send_signal(signal.SIGCONT)
            wait_for(lambda: within(TAKEOVER_S, os.listdir, self.on(self.victim)), "the victim serves again", 30)
            time.sleep(1)
        finally:
            process.send_signal(signal.SIGCONT)
            for counter in counters:
                counter.terminate()
        did = [json.loads(counter.communicate(timeout=90)[0]) for counter in counters]
        steps = [sum(d["steps"] for d in did[i:i + 4]) for i in (0, 4)]
        print("# %s: %d steps on node 0, %d on the victim" % (self.box, *steps), flush=True)
        wrong = [text for d in did for text in d["wrong"]]
        expect(not wrong, "%d wrong: %s" % (len(wrong), wrong[:5]))
        errors = [d["errors"] for d in did[:4] if d["errors"]]
        expect(not errors, "errors on node 0: %s" % errors)
        expect(min(d["steps"] for d in did) > 2, "some did next to nothing: %s" % [d["steps"] for d in did])
        # A descriptor of the earlier life, and a lock that was lost.
        told = sum(d["errors"].get("Stale file handle", 0) for d in did[4:])
        expect(told > 0, "no process on the victim was told that its lock is gone")
        strange = [d["errors"] for d in did[4:] if set(d["errors"]) - {"Stale file handle", "No such file or directory"}]
        expect(not strange, "other errors on the victim: %s" % strange)

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

    TESTS = (left, killed, stopped, counting, cut, one_by_one)
