# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/mail2/ledger.py - what clients of several nodes did and saw, and what must be true of it.

A message carries an id and a digest of its body. An instance is a message in a mailbox: (user, mailbox, uid). What was
acknowledged counts; of what was not, both outcomes are right: a message has a lowest and a highest number of instances.
Threads: any.
"""

import collections
import hashlib
import re
import threading

ID = re.compile(rb"^X-Test-Id: (\S+)\n", re.M)
DIGEST = re.compile(rb"^X-Test-Digest: (\S+)\n", re.M)


def make_message(rng, name):
    """Its text, with lines ending in LF. Sizes as of mail: most are small."""
    size = rng.choice((200, 800, 3000, 3000, 9000, 60000, 300000))
    body = b"".join(b"%064x\n" % rng.getrandbits(256) for _ in range(size // 65 + 1))
    return b"From: <sender@virt.test>\nSubject: %s\nMessage-ID: <%s@nodes.test>\nX-Test-Id: %s\nX-Test-Digest: %s\n\n%s" % (
        name, name, name, hashlib.sha256(body).hexdigest().encode(), body)


def parse(data):
    """(id, None) of a message as it was read, or (id or None, what is wrong)."""
    found = ID.search(data)
    name = found.group(1).decode() if found else None
    digest = DIGEST.search(data)
    head, empty, body = data.partition(b"\n\n")
    if not found or not digest or not empty:
        return name, "%d bytes without a header of ours: %r" % (len(data), data[:200])
    if hashlib.sha256(body).hexdigest().encode() != digest.group(1):
        return name, "%s is torn: %d bytes, ends with %r" % (name, len(data), data[-100:])
    return name, None


class Box:
    """A mailbox of a user, over its whole life."""

    def __init__(self):
        self.validity = None
        self.floor = 0  # no new message may get a UID below
        self.ids = {}  # uid -> id
        self.gone = set()  # uids whose EXPUNGE was acknowledged


class Ledger:
    def __init__(self):
        self.lock = threading.Lock()
        self.boxes = collections.defaultdict(Box)
        self.low, self.high = collections.Counter(), collections.Counter()  # (user, id) -> instances
        self.flags = {}  # (user, mailbox, uid, flag) -> set or not, as was acknowledged
        self.claimed = set()
        self.wrong, self.done = [], collections.Counter()

    def fail(self, text):
        with self.lock:
            self.wrong.append(text)

    def count(self, what, n=1):
        with self.lock:
            self.done[what] += n

    def added(self, user, name, sure=True):
        """Another instance; not @sure: perhaps."""
        with self.lock:
            self.low[user, name] += sure
            self.high[user, name] += 1

    def removed(self, user, name, sure=True):
        with self.lock:
            self.low[user, name] -= 1
            self.high[user, name] -= sure

    def expunged(self, user, mailbox, uid):
        with self.lock:
            self.boxes[user, mailbox].gone.add(uid)

    def _name(self, box, where, uid, name):
        before = box.ids.setdefault(uid, name)
        if before != name:
            self.wrong.append("%s: UID %d is %s, and was %s" % (where, uid, name, before))

    def assigned(self, user, mailbox, validity, uid, name):
        """A server told the UID of what it took."""
        with self.lock:
            box = self.boxes[user, mailbox]
            self._validity(box, (user, mailbox), validity)
            self._name(box, "%s %s" % (user, mailbox), uid, name)

    def _validity(self, box, key, validity):
        if box.validity not in (None, validity):
            self.wrong.append("%s %s: UIDVALIDITY %d, and was %d" % (*key, validity, box.validity))
        box.validity = validity

    def before(self, user, mailbox):
        """To be called before a mailbox is opened, for seen()."""
        with self.lock:
            box = self.boxes[user, mailbox]
            return box.floor, frozenset(box.ids), frozenset(box.gone)

    def seen(self, user, mailbox, node, validity, uidnext, ids, since):
        """A whole listing, {uid: id}, of a mailbox that was opened after before() gave @since."""
        floor, known, gone = since
        where = "%s %s on node %d" % (user, mailbox, node)
        with self.lock:
            box = self.boxes[user, mailbox]
            self._validity(box, (user, mailbox), validity)
            for uid, name in ids.items():
                self._name(box, where, uid, name)
                if uid < floor and uid not in known:
                    self.wrong.append("%s: the new UID %d is below %d, which was UIDNEXT before" % (where, uid, floor))
                if uid in gone:
                    self.wrong.append("%s: UID %d (%s) is there again after its EXPUNGE" % (where, uid, name))
            box.floor = max(box.floor, uidnext)
            self.done["listings"] += 1

    def claim(self, *instance):
        """True if nobody else works on it in a way that admits one only."""
        with self.lock:
            if instance in self.claimed:
                return False
            self.claimed.add(instance)
            return True

    def flagged(self, user, mailbox, uid, flags, present):
        with self.lock:
            for flag in flags:
                self.flags[user, mailbox, uid, flag] = present

    def unflagged(self, user, mailbox, uid, flags):
        """A STORE without an answer."""
        with self.lock:
            for flag in flags:
                self.flags.pop((user, mailbox, uid, flag), None)

    def compare(self, user, there):
        """@there: every message of the user, as often as it is in a mailbox."""
        found = collections.Counter(there)
        with self.lock:
            for (owner, name), low in self.low.items():
                if owner != user:
                    continue
                high = self.high[owner, name]
                n = found.pop(name, 0)
                if not low <= n <= high:
                    self.wrong.append("%s: %s is there %d times, not %d%s" % (
                        user, name, n, low, " to %d" % high if high != low else ""))
            for name, n in found.items():
                self.wrong.append("%s: %s is there %d times, and nobody sent it" % (user, name, n))
