# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/nodes/nodes.py - several mounts of one filesystem on this machine, each as if it were a machine of its own.

A node has its own settings, directory of sockets and mount point; it has its own boot id, so that no other node can look
into /proc to see whether its process still runs; and, where there is a Bridge, its own network, which can be cut. It
shares the PID namespace with everybody: a FUSE mount refuses locks (EOVERFLOW) to processes that its namespace cannot
number. All of it lies in namespaces of the process that called isolate(), and ends with it.
"""

import os
import re
import subprocess
import sys
import uuid

import mailfs
from mailfs import Skipped, equal, expect, wait_for

INSIDE = "MAILFS_TEST_NODES_INSIDE"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
LET_GO = os.path.join(os.path.dirname(os.path.abspath(mailfs.__file__)), "let-go")
BRIDGE_ADDRESS = "10.213.0.1"

# mount(8) needs the name of a program behind it; the shell makes way for mailfs, which keeps its pid.
AS_OWN_MACHINE = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'


def isolate(network):
    """Goes on in namespaces of its own: for mounts; with `network` also for networks and processes."""
    if INSIDE in os.environ:
        return
    command = ["unshare", "--mount", "--propagation", "private"]
    if network:
        command += ["--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    os.environ[INSIDE] = "1"
    os.execvp("unshare", [*command, LET_GO, sys.executable, *sys.argv])


def ip(*words):
    done = subprocess.run(["ip", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False)
    expect(done.returncode == 0, "ip %s: %s" % (" ".join(words), done.stdout.strip()))


def network_of(pid):
    return os.readlink("/proc/%s/ns/net" % pid)


class Bridge:
    """A network of nodes: a bridge with an address, where Ceph listens, and a cable to each node."""

    def __init__(self):
        self.holders, self.places = [], {}
        ip("link", "set", "lo", "up")
        # An address of its own: otherwise it changes with the cables, and the nodes ask the old one for a while.
        ip("link", "add", "nodes", "address", "02:00:00:00:00:01", "type", "bridge")
        ip("address", "add", BRIDGE_ADDRESS + "/24", "dev", "nodes")
        ip("link", "set", "nodes", "up")

    def plug(self, number):
        """A network with a cable to the bridge; what to write before a command that is to run in it."""
        if number in self.places:
            return self.places[number]
        holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL)
        self.holders.append(holder)
        wait_for(lambda: network_of(holder.pid) != network_of("self"), "a network namespace", 10)
        cable = "node%d" % number
        ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
        ip("link", "set", cable, "master", "nodes", "up")
        inside = ["nsenter", "--net=/proc/%d/ns/net" % holder.pid]
        for words in (["link", "set", "lo", "up"], ["link", "set", "eth0", "up"],
                      ["address", "add", "10.213.0.%d/24" % (number + 10), "dev", "eth0"]):
            subprocess.run([*inside, "ip", *words], check=True)
        self.places[number] = inside
        return inside

    def cut(self, number, cut=True):
        """Takes the cable out of the bridge, or puts it back."""
        ip("link", "set", "node%d" % number, "down" if cut else "up")

    def end(self):
        for holder in self.holders:
            holder.kill()
            holder.wait()


class Nodes:
    """`count` mounts of a new filesystem."""

    def __init__(self, build, ceph_conf, work, name, count, bridge=None, env=None, **options):
        self.work, self.name, self.bridge, self.env = work, name, bridge, env or {}
        self.filesystems, self.mounts = [], []
        os.makedirs(work)
        # What a node mounts in its own mount namespace is to be seen here.
        subprocess.run(["mount", "--bind", work, work], check=True)
        subprocess.run(["mount", "--make-shared", work], check=True)
        for number in range(count):
            place = os.path.join(work, "n%d" % number)
            os.makedirs(place)
            with open(os.path.join(place, "boot_id"), "w") as f:
                f.write("%s\n" % uuid.uuid4())
            self.filesystems.append(mailfs.Filesystem(build, ceph_conf, place, name, node="n%d" % number, **options))
        self.before = [self._before(number) for number in range(count)]

    def _before(self, number):
        place = self.filesystems[number].work
        network = self.bridge.plug(number) if self.bridge else []
        return (*network, "unshare", "--mount", "--propagation", "unchanged", "sh", "-c", AS_OWN_MACHINE, "sh",
                os.path.join(place, "boot_id"), BOOT_ID)

    def mount(self):
        """Makes the filesystem and mounts all."""
        self.filesystems[0].mkfs()
        for number in range(len(self.filesystems)):
            self.mount_one(number)

    def mount_one(self, number):
        mount = self.filesystems[number].mount(wrapper=self.before[number], env=self.env, deadline=60)
        self.mounts[number:number + 1] = [mount]

    def dead(self):
        """What the daemons that have ended said at last."""
        return "; ".join("n%d ended with %d: %s" % (number, mount.process.returncode,
                                                    " | ".join(mount.log_text().splitlines()[-4:]))
                         for number, mount in enumerate(self.mounts) if mount.process.poll() is not None)

    def cut(self, number, cut=True):
        if not self.bridge:
            raise Skipped("the nodes share one network")
        self.bridge.cut(number, cut)

    def paths(self):
        return [os.path.join(fs.work, "mnt") for fs in self.filesystems]

    def umount(self):
        """All, one after the other; all was written."""
        for mount in self.mounts:
            expect(mailfs.is_mounted(mount.path), "%s is not mounted any more: %s" % (mount.path,
                                                                                      mount.log_text()[-1000:]))
            mount.umount(wait=120)

    def logs(self):
        """No daemon has complained."""
        wrong = re.compile(r"^\S+ \S+ (warning|error|fatal): |Sanitizer|runtime error:")
        lines = ["n%d: %s" % (number, line) for number, mount in enumerate(self.mounts)
                 for line in mount.log_text().splitlines() if wrong.search(line)]
        expect(not lines, " | ".join(lines[:20]))

    def empty(self, ceph_conf, deadline=60):
        """What was deleted leaves the pools, with all nodes up."""
        equal([os.listdir(path) for path in self.paths()], [[]] * len(self.paths()), "names left in the root")
        with mailfs.Objects(ceph_conf, self.name) as objects:
            def left():
                return objects.names("data", "m.") + objects.names("meta", "f.") + objects.names("data", "f.")
            try:
                wait_for(lambda: not left(), "no object of a message or file is left", deadline)
            except mailfs.Failed as error:
                raise mailfs.Failed("%s: %d, as %s" % (error, len(left()), left()[:3])) from None

    def end(self):
        for fs in self.filesystems:
            fs.end()
        subprocess.run(["umount", "-l", "-i", self.work], stderr=subprocess.DEVNULL, check=False)
