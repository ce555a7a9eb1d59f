# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/mail2/faults.py - the same load while something dies, hangs or is cut off.

A fault of a node happens to the last one: what its servers do not acknowledge may be done or not, what they acknowledge
counts. The first node must go on, and how long it could not is printed: a process on each node delivers into one Maildir.
A fault of the cluster happens to both, and to none must anything fail.
"""

import json
import os
import signal
import subprocess
import threading
import time

import failure
import load
import mailfs

INTERRUPTION_S = 15  # the aim is 5
PROBE = "probe"


class Probe(threading.Thread):
    """Delivers into a Maildir, on and on."""

    def __init__(self, box, node):
        super().__init__(daemon=True)
        self.box, self.node = box, node
        self.ended, self.names, self.took, self.errors = False, [], [], []

    def run(self):
        n = 0
        while not self.ended:
            n += 1
            name, began = "%d.%d" % (self.node, n), time.monotonic()
            try:
                failure.deliver(self.box, name)
                self.names.append(name)
            except OSError as error:
                self.errors.append(error)
                time.sleep(0.1)
            self.took.append((began, time.monotonic() - began))
            time.sleep(0.02)

    def longest(self, since):
        return max((t for began, t in self.took if began + t >= since), default=0)


class Faults:
    def __init__(self, run):
        self.run = run
        self.victim = 1
        self.count = 0

    def _load(self, name, fault, heal, outage, node_fails=True):
        """Under load: fault(), @outage seconds later heal(); then all must be there."""
        run, nodes = self.run, self.run.filesystem
        work = run.work()
        if node_fails:
            work.failing.add(self.victim)
        self.count += 1
        box = "%s%d" % (PROBE, self.count)
        failure.make_box(os.path.join(nodes.paths()[0], box))
        probes = [Probe(os.path.join(path, box), node) for node, path in enumerate(nodes.paths())]
        work.start(but=[load.Folders])
        for probe in probes:
            probe.start()
        time.sleep(6)
        calm = probes[0].longest(0)
        began = time.monotonic()
        fault()
        time.sleep(outage)
        healing = time.monotonic()
        heal()
        back = mailfs.wait_for(lambda: self._serves(self.victim, work), "node %d serves mail again" % self.victim, 90)
        took = time.monotonic() - healing
        time.sleep(5)
        for probe in probes:
            probe.ended = True
        work.stop()
        probes[0].join(90)
        work.failing.clear()
        interruption = probes[0].longest(began)
        print("# %s: node 0 waited %.1f s at most (%.1f s before), its longest step of mail was %.1f s (%s); "
              "node %d served again %.1f s after it was healed (%s)" % (
                  name, interruption, calm, *work.longest(0, began), self.victim, took, back), flush=True)
        mailfs.expect(not probes[0].errors, "node 0: %s" % probes[0].errors[:3])
        there = set(os.listdir(os.path.join(nodes.paths()[0], box, "new")))
        missing = [n for probe in probes for n in probe.names if n not in there]
        mailfs.expect(not missing, "%d deliveries of the probe are lost: %s" % (len(missing), missing[:5]))
        run.judge(work)
        mailfs.expect(interruption < INTERRUPTION_S, "node 0 waited %.1f s" % interruption)

    def _serves(self, node, work):
        """A new session, and a message appended."""
        try:
            with load.Client(self.run.servers[node].port("IMAP"), "emil@lmtp.test", "secret") as imap:
                imap.conn.sock.settimeout(20)
                name, data = work.message(work.rng)
                with load.Attempt(lambda: work.ledger.added("emil@lmtp.test", name, sure=False)):
                    imap.append("INBOX", data)
                work.ledger.added("emil@lmtp.test", name)
                return "APPEND"
        except load.BROKEN:
            time.sleep(0.2)
            return None

    def _process(self):
        return self.run.filesystem.mounts[self.victim].process

    def node_killed(self):
        """kill -9 of a daemon, and a new mount in its place."""
        def heal():
            mount = self.run.filesystem.mounts[self.victim]
            subprocess.run(["umount", "-l", "-i", mount.path], check=False)
            mount.start(60)
        self._load("kill -9", lambda: self.run.filesystem.mounts[self.victim].kill(), heal, 12)

    def node_stopped(self):
        """A daemon stands still for 30 s, and comes back by itself."""
        self._load("SIGSTOP", lambda: self._process().send_signal(signal.SIGSTOP),
                   lambda: self._process().send_signal(signal.SIGCONT), 30)

    def node_cut(self):
        """A node without network for 20 s."""
        nodes = self.run.filesystem
        self._load("cut", lambda: nodes.cut(self.victim), lambda: nodes.cut(self.victim, False), 20)

    def _ceph(self, **command):
        import rados
        with rados.Rados(conffile=os.path.join(self.run.ceph, "ceph.conf"), name="client.admin") as cluster:
            code, _, text = cluster.mon_command(json.dumps(command), b"")
        mailfs.expect(code == 0, "%s: %s" % (command, text))

    def _end_daemon(self, name):
        with open(os.path.join(self.run.ceph, "run", name + ".pid"), encoding="ascii") as f:
            os.kill(int(f.read()), signal.SIGKILL)

    def _start_daemon(self, kind, number):
        with open(os.path.join(self.run.ceph, "log", "again.out"), "ab") as log:
            subprocess.run(["ceph-" + kind, "-i", number, "-c", os.path.join(self.run.ceph, "ceph.conf")], check=True,
                           stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def osd_killed(self):
        """kill -9 of an OSD of three, size 2; it comes again if it has kept what it had."""
        mailfs.expect(self.run.options.osds >= 3, "needs --osds 3")
        for pool in ("mailfs_meta", "mailfs_data"):
            self._ceph(prefix="osd pool set", pool=pool, var="size", val="2")
            self._ceph(prefix="osd pool set", pool=pool, var="min_size", val="1")
        def heal():
            if self.run.options.store == "bluestore":
                self._start_daemon("osd", "0")
        self._load("OSD", lambda: self._end_daemon("osd.0"), heal, 15, False)

    def mon_restarted(self):
        """kill -9 of the only monitor, and a new one after 5 s."""
        self._load("monitor", lambda: self._end_daemon("mon.a"), lambda: self._start_daemon("mon", "a"), 5, False)


NAMES = ["node-killed", "node-stopped", "node-cut", "osd-killed", "mon-restarted"]


def tests(run):
    faults = Faults(run)
    return {name: getattr(faults, name.replace("-", "_")) for name in NAMES}
