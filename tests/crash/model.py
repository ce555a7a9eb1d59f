# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/crash/model.py - what a tree may be after a crash.

A scenario is a list of steps, each one system call or a few on one file. After each step the tree would be in a known
state; a crash may leave the state after any step from the last durable one to the last one that was begun, and no
other one.
"""

import os


class State:
    """Directories, and files with the bytes that must and that may be there: (must, may), a prefix each of the next.

    What is `loose` (a message in tmp that is not published, a file that was never fsynced) may also be missing.
    """

    def __init__(self, dirs=(), files=None, loose=()):
        self.dirs, self.files, self.loose = set(dirs), dict(files or {}), set(loose)

    def copy(self):
        return State(self.dirs, self.files, self.loose)

    def move(self, old, new):
        """A file, or a directory with all below it."""
        def moved(path):
            return new + path[len(old):] if path == old or path.startswith(old + "/") else path
        for path in [p for p in self.files if p == new]:
            del self.files[path]
            self.loose.discard(path)
        self.dirs = {moved(p) for p in self.dirs}
        self.files = {moved(p): content for p, content in self.files.items()}
        self.loose = {moved(p) for p in self.loose}

    def remove(self, path):
        self.files.pop(path, None)
        self.loose.discard(path)
        self.dirs.discard(path)

    def mismatch(self, tree):
        """None, or the first thing in which @tree is not this state."""
        for path in sorted(self.dirs ^ tree.dirs):
            return "directory %s is %s" % (path, "missing" if path in self.dirs else "there")
        for path in sorted(set(tree.files) - set(self.files)):
            return "%s is there" % path
        for path in sorted(self.files):
            must, may = self.files[path]
            if path not in tree.files:
                if path in self.loose:
                    continue
                return "%s is missing" % path
            seen = tree.files[path]
            if path in self.loose:
                must = b""
            if not seen.startswith(must) or not may.startswith(seen):
                return "%s has %d bytes, %r..., not %d to %d" % (path, len(seen), seen[:20], len(must), len(may))
        return None


class Tree:
    """What lies below @root, read through the mount."""

    def __init__(self, root):
        self.dirs, self.files, self.inodes, self.messages = set(), {}, {}, set()
        self._walk(root, "")

    def _walk(self, root, below):
        names = []
        with os.scandir(os.path.join(root, below)) as entries:
            names = [(e.name, e.is_dir(follow_symlinks=False)) for e in entries]
        if len({n for n, _ in names}) != len(names):
            raise AssertionError("%s lists a name twice" % below)
        maildir = {n for n, is_dir in names if is_dir} >= {"cur", "new"}
        for name, is_dir in names:
            path = os.path.join(below, name)
            if is_dir:
                self.dirs.add(path)
                if maildir and name in ("cur", "new", "tmp"):
                    self.messages.add(path)
                self._walk(root, path)
            else:
                with open(os.path.join(root, path), "rb") as f:
                    self.files[path] = f.read()
                    self.inodes[path] = os.fstat(f.fileno()).st_ino

    def lasting(self):
        """What a clean unmount keeps."""
        return self.dirs, {path: data for path, data in self.files.items() if not is_volatile(path)}

    def is_message(self, path):
        return os.path.dirname(path) in self.messages

    def objects(self):
        """How many objects of each kind this tree justifies."""
        return {"d": 1 + len(self.dirs - self.messages),
                "m": len({i for p, i in self.inodes.items() if self.is_message(p)}),
                "f": len({i for p, i in self.inodes.items() if not self.is_message(p)})}


def is_volatile(path):
    """A name in a Maildir's tmp does not outlive the daemon."""
    return os.path.basename(os.path.dirname(path)) == "tmp"


class Step:
    """One thing to do: @action(root) does it, @change(state) says what it does. @durable: once it has returned, it and
    all before it survive a crash."""

    def __init__(self, label, action, change=None, durable=False):
        self.label, self.action, self.change, self.durable = label, action, change, durable


def states(initial, steps):
    """The state before the first step, after the first, ..."""
    result = [initial]
    for step in steps:
        state = result[-1].copy()
        if step.change:
            step.change(state)
        result.append(state)
    return result


# ---- steps ----

def write_file(path, data, sync=True, flags=os.O_CREAT | os.O_EXCL):
    """A new file with these bytes. Without a name in an index it may be lost, also when it was fsynced: so it is loose
    until a later step makes it firm."""
    def action(root):
        fd = os.open(os.path.join(root, path), os.O_WRONLY | flags, 0o600)
        try:
            if os.write(fd, data) != len(data):
                raise OSError(5, "short write")
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def change(state):
        state.files[path] = (b"", data)
        state.loose.add(path)
    return Step("write %s" % path, action, change)


def publish_by_link(old, new, durable=True):
    def change(state):
        state.files[new] = (state.files[old][1],) * 2
        if is_volatile(new):
            state.loose.add(new)
    return Step("link %s %s" % (old, new), lambda root: os.link(os.path.join(root, old), os.path.join(root, new)), change,
                durable)


def rename(old, new):
    def change(state):
        state.move(old, new)
        if new in state.files:
            state.files[new] = (state.files[new][1],) * 2
            state.loose.discard(new)
    return Step("rename %s %s" % (old, new), lambda root: os.rename(os.path.join(root, old), os.path.join(root, new)),
                change)


def move_dir(old, new):
    return Step("rename %s %s" % (old, new), lambda root: os.rename(os.path.join(root, old), os.path.join(root, new)),
                lambda state: state.move(old, new))


def unlink(path):
    return Step("unlink %s" % path, lambda root: os.unlink(os.path.join(root, path)), lambda state: state.remove(path))


def mkdir(path):
    return Step("mkdir %s" % path, lambda root: os.mkdir(os.path.join(root, path), 0o700),
                lambda state: state.dirs.add(path))


def rmdir(path):
    return Step("rmdir %s" % path, lambda root: os.rmdir(os.path.join(root, path)), lambda state: state.remove(path))


def append(path, data):
    """With fdatasync: firm when it returns."""
    def action(root):
        fd = os.open(os.path.join(root, path), os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, data)
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def change(state):
        old = state.files[path][1]
        state.files[path] = (old, old + data)
    return [Step("append %s" % path, action, change, durable=False),
            Step("appended %s" % path, lambda root: None,
                 lambda state: state.files.update({path: (state.files[path][1],) * 2}), durable=True)]


def sync_dir(path, durable=True):
    def action(root):
        fd = os.open(os.path.join(root, path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    return Step("fsync %s" % path, action, None, durable)
