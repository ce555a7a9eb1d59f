#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/nodes/impostor.py - does what a daemon may do for itself while it tells events, under its name: it is done.

usage: impostor.py undo|race KIND DIR COUNT

Another node makes made0.. and dir0.., removes gone0.., renames move0.. to moved0.. (KIND: made, dir, gone, moved).
undo: takes back each change as soon as it meets it, and makes it again; what is to be there then, is. race: tries the very same changes,
those around the number of lines that it got, again and again until its input ends. Each is tried by a process of its own,
which calls itself mailfs. Prints "ready", and at the end as JSON how often the same change worked ("did", by number), and
errors that nothing explains ("strange").
"""

import ctypes
import errno
import json
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
LATEST_S = 60
TEXT = b"by the impostor"
libc = ctypes.CDLL(None)


def put(path):
    """With a name that nobody has."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, TEXT)
    os.close(fd)


class Kind:
    def __init__(self, directory, kind):
        self.at = lambda name, i: os.path.join(directory, "%s%d" % (name, i))
        self.kind = kind

    def same(self, i):
        """What the other node does; it works once."""
        if self.kind == "made":
            put(self.at("made", i))
        elif self.kind == "dir":
            os.mkdir(self.at("dir", i))
        elif self.kind == "gone":
            os.unlink(self.at("gone", i))
        else:
            # Not to moved: for two names that it takes for those of one file, the kernel has nothing to do.
            os.rename(self.at("move", i), self.at("taken", i))

    def first(self, i):
        """Works when the other node has done it."""
        if self.kind == "made":
            os.unlink(self.at("made", i))
        elif self.kind == "dir":
            os.rmdir(self.at("dir", i))
        elif self.kind == "gone":
            put(self.at("gone", i))
        else:
            os.rename(self.at("moved", i), self.at("back", i))

    def then(self, i):
        """Works after that: the very same change once more, and for what was removed its contrary."""
        if self.kind == "made":
            put(self.at("made", i))
        elif self.kind == "dir":
            os.mkdir(self.at("dir", i))
            put(os.path.join(self.at("dir", i), "inside"))
        elif self.kind == "gone":
            os.unlink(self.at("gone", i))
            put(self.at("gone", i))
        else:
            os.rename(self.at("back", i), self.at("move", i))
            os.rename(self.at("move", i), self.at("moved", i))

    def undo(self, i):
        end = time.monotonic() + LATEST_S
        while True:
            try:
                self.first(i)
                break
            except (FileNotFoundError, FileExistsError):
                if time.monotonic() > end:
                    return errno.ETIMEDOUT
                time.sleep(0.0005)
        self.then(i)
        return 0


def elsewhere(function, *args):
    """In a process of its own: 0, or an errno."""
    pid = os.fork()
    if pid == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        status = 255
        try:
            status = function(*args) or 0
        except OSError as error:
            status = error.errno
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def race(kind, count):
    did, strange, reached = dict.fromkeys(range(count), 0), {}, 0

    def attempt(numbers):
        for i in numbers:
            error = elsewhere(kind.same, i)
            did[i] += error == 0
            if error not in (0, errno.ENOENT, errno.EEXIST):
                strange[i] = error
    while True:
        if select.select([0], [], [], 0)[0]:
            lines = os.read(0, 4096)
            if not lines:
                break
            reached += lines.count(b"\n")
        # Changes of the other node that may be told just now, and some that are to come.
        attempt(range(max(reached - 12, 0), min(reached + 2, count)))
    attempt(range(count))
    return {"did": did, "strange": strange}


def undo(kind, count):
    errors = [elsewhere(kind.undo, i) for i in range(count)]
    while os.read(0, 4096):
        pass
    return {"did": {}, "strange": {i: error for i, error in enumerate(errors) if error}}


if __name__ == "__main__":
    libc.prctl(PR_SET_NAME, b"mailfs", 0, 0, 0)
    print("ready", flush=True)
    what = {"undo": undo, "race": race}[sys.argv[1]]
    print(json.dumps(what(Kind(sys.argv[3], sys.argv[2]), int(sys.argv[4]))), flush=True)
