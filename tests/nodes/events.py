# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/nodes/events.py - what a node tells inotify of the others' changes, while one of them fails; and what it costs.

Node 0 makes the changes, the node with the last number is told; the other way round where the one that makes them dies.
"""

import json
import os
import signal
import subprocess
import sys
import time

import failure
import inotify
import mailfs
from failure import TAKEOVER_S, deliver, get, make_box, put, within
from inotify import Follower, Watch
from mailfs import Failed, Skipped, equal, expect, wait_for

# From a change to its event where nothing fails: what nobody commits is committed after 1 s.
TOLD_S = 3
# From the death of a node to the event of its last delivery.
TOLD_OF_DEAD_S = 12
# From its resumption until a node that was declared lost has joined anew and tells so.
REJOIN_S = 30
# From the death of a daemon until nothing is left of it.
GONE_S = 10
IMPOSTOR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "impostor.py")
NAMES = 150
BY_NODE, BY_IMPOSTOR = b"by node 0", b"by the impostor"
KILLS = 3
STORM = 100  # events that were told when the daemon dies
DROP_CACHES = "/proc/sys/vm/drop_caches"


def processes():
    """pid: (its name, its state, its parent, its session)"""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % pid, encoding="utf-8", errors="replace") as f:
                begin, rest = f.read().rsplit(")", 1)
        except OSError:
            continue
        state, parent, _, session = rest.split()[:4]
        found[int(pid)] = (begin.split("(", 1)[1], state, int(parent), int(session))
    return found


def with_descendants(pid):
    table, family = processes(), {pid}
    while True:
        more = {pid for pid, (_, _, parent, _) in table.items() if parent in family} - family
        if not more:
            return family
        family |= more


def drop_caches():
    try:
        with open(DROP_CACHES, "w") as f:
            f.write("2\n")
    except OSError as error:
        raise Skipped("caches cannot be dropped here: %s" % error) from None


def sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


class Storm:
    """A process that delivers s0, s1... until it is ended."""

    def __init__(self, box):
        self.box = box
        self.pid = os.fork()
        if self.pid == 0:
            try:
                number = 0
                while True:
                    deliver(box, "s%d" % number)
                    number += 1
            finally:
                os._exit(1)

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        wait_for(lambda: os.waitpid(self.pid, os.WNOHANG)[0], "deliveries end", TAKEOVER_S)


class Events(failure.Failures):
    place = "new"  # of the box
    number = 0  # of messages

    def new_box(self):
        if self.nodes.mounts[self.victim].process.poll() is not None:
            self.restart()  # a test before has failed
        self.count += 1
        self.box = "box%d" % self.count
        make_box(self.on(0))

    def told_again(self, node, maker):
        """Deliveries are told by name, to a watch that begins now."""
        watch = Watch(self.on(node, "new"))
        name = "again%d" % self.count
        within(TAKEOVER_S, deliver, self.on(maker), name)
        watch.wait(name, "afterwards", TOLD_S)
        watch.close()

    # ---- a daemon dies while it tells ----

    def left_of(self, mount, family):
        """Of a daemon and its children; what has ended and nobody has waited for does not count."""
        family = family | set(mailfs.daemons(mount.path))
        return ["%s[%d] in state %s" % (name, pid, state) for pid, (name, state, _, session) in processes().items()
                if state != "Z" and (pid in family or session == mount.process.pid)]

    def kill_in_storm(self, mount, followers):
        wait_for(lambda: min(f.count() for f in followers) > STORM, "a storm is told", 30)
        family = with_descendants(mount.process.pid)
        mount.kill()
        try:
            wait_for(lambda: not self.left_of(mount, family), "nothing is left of the daemon", GONE_S)
        except Failed as error:
            raise Failed("%s: %s" % (error, self.left_of(mount, family))) from None

        def stuck():
            table = processes()
            return [f.pid for f in followers if table[f.pid][1] == "D"]
        wait_for(lambda: not stuck(), "who watched does not hang", GONE_S)

    def events_killed(self):
        """kill -9 of a daemon that tells of a storm of deliveries: nothing hangs or is left, it can come again."""
        mount = self.nodes.mounts[self.victim]
        for _ in range(KILLS):
            self.new_box()
            followers = [Follower(self.on(self.victim, "new")) for _ in range(3)]
            storm = Storm(self.on(0))
            try:
                self.kill_in_storm(mount, followers)
            finally:
                storm.end()
                for follower in followers:
                    follower.end()
            done = subprocess.run(["umount", "-i", mount.path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, timeout=30)
            equal(done.returncode, 0, "exit status of umount: " + done.stdout.strip())
            expect(not mailfs.is_mounted(mount.path), "%s is mounted still" % mount.path)
            mount.start(60)
            names = [sorted(within(TAKEOVER_S, os.listdir, self.on(node, "new"))) for node in (0, self.victim)]
            equal(names[1], names[0], "messages on the node that came again")
            self.told_again(self.victim, 0)

    # ---- a node is away while others make changes ----

    def away(self, leave, come):
        """It is told that something has changed in each directory, once it has joined anew."""
        holder = self.prepare()
        os.mkdir(self.on(self.victim, "folder"))
        for part in ("new", "cur"):
            sync(self.on(self.victim, part))
        changed = {"new": "after", "cur": "m0:2,FS", "folder": "made", ".": "index"}
        watches = {part: Watch(self.on(self.victim, part)) for part in changed}
        leave()
        try:
            # Its locks are free: it has been declared lost.
            self.takeover()
            within(TAKEOVER_S, os.rename, self.on(0, "cur", "m0:2,S"), self.on(0, "cur", "m0:2,FS"))
            within(TAKEOVER_S, put, self.on(0, "folder", "made"), b"")
            within(TAKEOVER_S, put, self.on(0, "index"), b"by the others")
            before = {part: (watch.read(), watch.vague)[1] for part, watch in watches.items()}
        finally:
            come()
        for part, watch in watches.items():
            wait_for(lambda: watch.told(changed[part]) or watch.vague > before[part],
                     "something is told in %s after it has joined anew" % watch.path, REJOIN_S)
            print("# %s: told of %s" % (watch.path, ", ".join(sorted(watch.names)[:8])), flush=True)
        self.never_again()
        holder.end()
        self.told_again(self.victim, 0)
        # And those that were there before.
        within(TAKEOVER_S, put, self.on(0, "folder", "later"), b"")
        watches["new"].wait("again%d" % self.count, "a watch from before", TOLD_S)
        watches["folder"].wait("later", "a watch from before", TOLD_S)
        for watch in watches.values():
            watch.close()
        within(TAKEOVER_S, os.unlink, self.on(0, "new", "again%d" % self.count))
        self.remount()

    def events_away(self):
        """A daemon stands still, with its children."""
        mount, stopped = self.nodes.mounts[self.victim], []

        def leave():
            mount.process.send_signal(signal.SIGSTOP)
            stopped.extend(with_descendants(mount.process.pid) - {mount.process.pid})
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)

        def come():
            for pid in stopped:
                try:
                    os.kill(pid, signal.SIGCONT)
                except ProcessLookupError:
                    pass
            mount.process.send_signal(signal.SIGCONT)
        self.away(leave, come)

    def events_cut(self):
        """A node without network."""
        self.away(lambda: self.nodes.cut(self.victim), lambda: self.nodes.cut(self.victim, False))

    # ---- who made a change dies ----

    def events_dead(self):
        """kill -9 right after a delivery has returned: the others are told of it all the same."""
        mount = self.nodes.mounts[self.victim]
        for _ in range(2):
            self.new_box()
            watch = Watch(self.on(0, "new"))
            deliver(self.on(self.victim), "first")
            watch.wait("first", "a delivery before", TOLD_S)
            put(self.on(self.victim, "tmp", "last"), failure.message("last"))
            os.link(self.on(self.victim, "tmp", "last"), self.on(self.victim, "new", "last"))
            mount.process.kill()
            wait_for(lambda: watch.told("last") or watch.vague, "the last delivery of the dead is told", TOLD_OF_DEAD_S)
            equal(sorted(within(TAKEOVER_S, os.listdir, self.on(0, "new"))), ["first", "last"], "messages on node 0")
            watch.close()
            self.restart()
            self.told_again(0, self.victim)

    # ---- who does the same as the daemon does for itself ----

    def impostor(self, what, kind):
        """In the mount namespace of the victim's daemon, under its name."""
        command = ["nsenter", "--mount=/proc/%d/ns/mnt" % self.nodes.mounts[self.victim].process.pid, "bash", "-c",
                   'exec -a mailfs "$@"', "bash", sys.executable, IMPOSTOR, what, kind,
                   self.on(self.victim, self.place), str(NAMES)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        equal(process.stdout.readline(), "ready\n", "the first line of an impostor")
        return process

    def change_names(self, kinds, reached):
        """What the impostors know of, with commits between; returns which of the changes worked."""
        def at(name, i):
            return self.on(0, self.place, "%s%d" % (name, i))

        def make(i):
            with open(at("made", i), "xb", buffering=0) as f:
                f.write(BY_NODE)
        changes = {"made": make, "gone": lambda i: os.unlink(at("gone", i)), "dir": lambda i: os.mkdir(at("dir", i)),
                   "moved": lambda i: os.rename(at("move", i), at("moved", i))}
        did = {}
        for i in range(NAMES):
            for kind in kinds:
                try:
                    changes[kind](i)
                    did[kind, i] = 1
                except (FileExistsError, FileNotFoundError):
                    did[kind, i] = 0
            reached()
            if i % 10 == 0:
                sync(self.on(0, self.place))
        # No impostor knows this one: if it is told, node 0's changes are.
        put(self.on(0, self.place, "last"), b"")
        sync(self.on(0, self.place))
        return did

    def imitate(self, what, kinds):
        """Runs them; what node 0 did, and what each of them says that it did."""
        for name in ("gone", "move"):
            for i in range(NAMES):
                put(self.on(0, self.place, "%s%d" % (name, i)), BY_NODE)
        watch = Watch(self.on(self.victim, self.place))
        os.listdir(watch.path)
        impostors = {kind: self.impostor(what, kind) for kind in kinds}

        def reached():
            for process in impostors.values():
                process.stdin.write("\n")
                process.stdin.flush()
        try:
            did = self.change_names(kinds, reached)
            answers = {kind: json.loads(process.communicate(timeout=120)[0]) for kind, process in impostors.items()}
        finally:
            for process in impostors.values():
                process.kill()
                process.wait()
        strange = {kind: list(answer["strange"].items())[:5] for kind, answer in answers.items() if answer["strange"]}
        expect(not strange, "%s: errors of the impostors: %s" % (what, strange))
        wait_for(lambda: watch.told("last") or watch.vague, "node 0's changes are told beside the impostors'", TOLD_S)
        watch.close()
        os.unlink(self.on(0, self.place, "last"))
        return did, {(kind, int(i)): n for kind, answer in answers.items() for i, n in answer["did"].items()}

    def files(self, wanted):
        """Both nodes have these files, with these bytes, and directories where None is wanted."""
        def wrong(node):
            found = set(os.listdir(self.on(node, self.place)))
            return (sorted(found ^ set(wanted))[:10],
                    [name for name in found & set(wanted) if wanted[name] is not None and
                     get(self.on(node, self.place, name)) != wanted[name]][:10])
        for node in (0, self.victim):
            equal(within(60, wrong, node), ([], []), "names too many or too few, and with wrong bytes, on node %d" % node)

    def events_imitate(self):
        """Another process of that node does the same at the same time: what it was told is done, is done, and once."""
        for part, kinds in (("folder", ("made", "gone", "moved", "dir")), ("cur", ("made", "gone", "moved"))):
            self.new_box()
            os.mkdir(self.on(0, "folder"))
            self.place = part
            self.imitate("undo", kinds)
            final = {"made": BY_IMPOSTOR, "gone": BY_IMPOSTOR, "moved": BY_NODE, "dir": None}
            self.files({"%s%d" % (kind, i): final[kind] for kind in kinds for i in range(NAMES)})

            self.new_box()
            os.mkdir(self.on(0, "folder"))
            did, also = self.imitate("race", kinds)
            wrong = {change: (did[change], also[change]) for change in did if did[change] + also[change] != 1}
            expect(not wrong, "how often node 0 and the impostor did: %s" % list(wrong.items())[:5])
            print("# %s: %d changes by node 0, %d by impostors" % (self.box, sum(did.values()), sum(also.values())),
                  flush=True)
            final = {"made": ("made", BY_NODE), "moved": ("moved", BY_NODE), "dir": ("dir", None)}
            also_final = {**final, "made": ("made", BY_IMPOSTOR), "moved": ("taken", BY_NODE)}
            names = [(i, (final if one else also_final)[kind]) for (kind, i), one in did.items() if kind != "gone"]
            self.files({"%s%d" % (name, i): text for i, (name, text) in names})

    # ---- a name has another life by the time that its end is told ----

    def events_live(self):
        """A directory was removed, or renamed, and made anew here before that is told: what is here stays what it is."""
        cases = ("gone", "renamed")
        self.new_box()
        for case in cases:
            os.makedirs(self.on(0, case, "x"))
            os.stat(self.on(self.victim, case, "x"))
        watches = {case: Watch(self.on(self.victim, case)) for case in cases}
        for case in cases:
            put(self.on(0, case, "first"), b"takes the lease")
            watches[case].wait("first", "a file", TOLD_S)
        # The kernel keeps names only where nobody else has asked for the lease of late (doc/ARCHITECTURE.md: 10 s).
        time.sleep(11)
        raised = self.raised()
        daemon = self.nodes.mounts[self.victim].process.pid
        helpers = with_descendants(daemon) - {daemon}
        expect(helpers, "nobody raises events")
        for pid in helpers:
            os.kill(pid, signal.SIGSTOP)
        try:
            os.rmdir(self.on(0, "gone", "x"))
            os.rename(self.on(0, "renamed", "x"), self.on(0, "renamed", "y"))
            wait_for(lambda: self.raised() >= raised + 2, "both are told", TAKEOVER_S)
            # Nor does it keep them while the other node is in a burst and wants the lease back.
            time.sleep(0.2)
            held = []
            for case in cases:
                os.mkdir(self.on(self.victim, case, "x"))
                held.append(os.open(self.on(self.victim, case, "x"), os.O_RDONLY))
        finally:
            for pid in helpers:
                os.kill(pid, signal.SIGCONT)
        for (case, watch), event in zip(watches.items(), ((inotify.DELETE, "x"), (inotify.MOVED_TO, "y"))):
            wait_for(lambda: watch.read() and event in watch.seen, "its end is told", TOLD_S)
            put(self.on(self.victim, case, "x", "file"), b"into the new one")
            watch.close()
        for case in cases:
            equal(os.listdir(self.on(0, case, "x")), ["file"], "what is in the new directory")
        equal(os.listdir(self.on(0, "renamed", "y")), [], "what is in the renamed one")
        for fd in held:
            os.close(fd)

    def raised(self):
        return self.nodes.filesystems[self.victim].status(self.nodes.paths()[self.victim])["events"]["raised"]

    # ---- what it costs ----

    def notifies(self, node):
        return self.nodes.filesystems[node].status(self.nodes.paths()[node])["rados"]["notify"]

    def deliveries(self, count):
        """How many notifies they cost."""
        before = self.notifies(0)
        for _ in range(count):
            self.number += 1
            deliver(self.on(0), "d%d" % self.number)
        return self.notifies(0) - before

    def events_forget(self):
        """Who has a directory in no cache is told nothing of it, and costs nothing."""
        self.new_box()
        drop_caches()
        watch = Watch(self.on(self.victim, "new"))
        self.deliveries(1)
        watch.wait("d%d" % self.number, "a delivery", TOLD_S)
        watched = self.deliveries(200)
        watch.wait("d%d" % self.number, "the last delivery", TOLD_S)
        expect(0 < watched < 100, "200 deliveries in a row cost %d notifies, one is told of them" % watched)
        # A watch keeps the inode, when its names are dropped.
        drop_caches()
        self.deliveries(1)
        watch.wait("d%d" % self.number, "a delivery after caches were dropped", TOLD_S)
        watch.close()
        costs = []

        def forgotten():
            if not costs or costs[-1] > 0:
                drop_caches()
            costs.append(self.deliveries(20))
            return costs[-3:] == [0, 0, 0]
        wait_for(forgotten, "deliveries that nobody is told of cost nothing", 30)
        print("# %s: notifies of 20 deliveries each once caches were dropped: %s" % (self.box, costs), flush=True)
        self.told_again(self.victim, 0)

    # ---- who is marked ----

    def marks(self):
        """The incarnations that whoever changes the mailbox tells of it."""
        with mailfs.Objects(self.nodes.filesystems[0].ceph_conf, self.nodes.name) as objects:
            xattrs = objects.io["meta"].get_xattrs("d.%016x" % os.stat(self.on(0)).st_ino)
            return {int(name[2:], 16) for name, _ in xattrs if name.startswith("i.")}

    def incarnation(self, node):
        return self.nodes.filesystems[node].status(self.nodes.paths()[node])["incarnation"]

    def events_marks(self):
        """A mark is there while the kernel of its node has the directory, and goes when it has forgotten it or is dead."""
        self.new_box()
        marked = self.box
        drop_caches()
        for dead in (False, True):
            victim = self.incarnation(self.victim)
            watch = Watch(self.on(self.victim, "new"))
            self.deliveries(1)
            watch.wait("d%d" % self.number, "a delivery", TOLD_S)
            expect(victim in self.marks(), "%d watches, and is not among %s" % (victim, self.marks()))
            if dead:
                # With a lease that somebody wants, or it would be given up for dead only after a while.
                self.new_box()
                deliver(self.on(self.victim), "held")
                self.nodes.mounts[self.victim].kill()
                within(TAKEOVER_S, deliver, self.on(0), "wanted")
                self.box = marked
            watch.close()

            def gone():
                # Who has the lease learns that nobody listens, and says so when it gives it up.
                drop_caches()
                wait_for(lambda: self.deliveries(5) == 0, "deliveries that nobody is told of", TAKEOVER_S)
                self.number += 1
                deliver(self.on(1), "d%d" % self.number)
                return victim not in self.marks()
            wait_for(gone, "the mark of %d goes" % victim, TAKEOVER_S)
        self.restart()

    TESTS = (*failure.Failures.TESTS, events_killed, events_away, events_cut, events_dead, events_imitate,
             events_forget, events_marks, events_live)
