# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/mail2/load.py - clients at work on the servers of several nodes, all on the same mailboxes.

Each worker is a thread with a kind of work, a node and a user. What it did goes to the ledger when the server has
acknowledged it. A flag belongs to a node: what it last stored is what must be there at the end.
"""

import imaplib
import poplib
import random
import re
import smtplib
import threading
import time

import ledger
from mailtest import SENDER, Failed, Imap, crlf, expect

FOLDERS = ["INBOX", "work", "work/deep", "archive"]
# Of the first node and of the second.
FLAGS = [["\\Flagged", "\\Answered", "$First"], ["\\Seen", "\\Draft", "$Second"]]
BROKEN = (OSError, EOFError, imaplib.IMAP4.error, smtplib.SMTPException, poplib.error_proto, Failed)


class Gone(Exception):
    """Another session has expunged what was asked for."""


class Client(Imap):
    """An IMAP session; what it did is written down by its user."""

    def uid(self, *args):
        status, data = self.conn.uid(*args)
        if status == "NO" and b"EXPUNGEISSUED" in data[0]:
            raise Gone
        return self.ok((status, data), "UID " + " ".join(args))

    def response(self, name):
        """The numbers of an untagged or tagged response code, the last one."""
        data = self.conn.response(name)[1]
        return data[-1] if data and data[-1] is not None else None

    def open(self, mailbox):
        """UIDVALIDITY and UIDNEXT."""
        self.select(mailbox)
        return int(self.response("UIDVALIDITY")), int(self.response("UIDNEXT"))

    def ids(self, uids="1:*"):
        """{uid: (id, flags)}"""
        found = {}
        for item in self.uid("FETCH", uids, "(UID FLAGS BODY.PEEK[HEADER.FIELDS (X-Test-Id)])"):
            if not isinstance(item, tuple):
                continue
            uid = int(re.search(rb"UID (\d+)", item[0]).group(1))
            flags = set(re.search(rb"FLAGS \(([^)]*)\)", item[0]).group(1).decode().split()) - {"\\Recent"}
            name = ledger.ID.search(item[1].replace(b"\r\n", b"\n"))
            expect(name, "UID %d has no id: %r" % (uid, item[1][:200]))
            found[uid] = (name.group(1).decode(), flags)
        return found

    def copied(self):
        """[(validity, from, to)] of the last COPY or MOVE; it may have found nothing any more."""
        code = self.response("COPYUID")
        if code is None:
            return []
        validity, source, target = code.split()
        return [(int(validity), a, b) for a, b in zip(numbers(source), numbers(target), strict=True)]


def numbers(text):
    """1:3,7 as 1, 2, 3, 7."""
    for part in text.decode().split(","):
        first, _, last = part.partition(":")
        step = 1 if int(last or first) >= int(first) else -1
        yield from range(int(first), int(last or first) + step, step)


class Worker(threading.Thread):
    """Does one thing after the other until it is told to stop. What breaks while its node may fail is passed over."""

    pause = 0.02

    def __init__(self, load, node, user, number):
        super().__init__(name="%s n%d %s" % (type(self).__name__, node, user), daemon=True)
        self.load, self.node, self.user = load, node, user
        self.ledger, self.servers = load.ledger, load.servers[node]
        self.rng = random.Random("%d %d" % (load.seed, number))
        self.connection = None

    def run(self):
        while not self.load.stopping.is_set():
            started = time.monotonic()
            try:
                self.step()
                self.load.took(self.node, self.name, started)
            except Gone:
                self.ledger.count("expunged by others meanwhile")
            except BROKEN as error:
                self.drop()
                if not self.load.may_fail(self.node):
                    self.ledger.fail("%s after %.1f s: %s: %.300s" % (self.name, time.monotonic() - started,
                                                                     type(error).__name__, error))
                self.ledger.count("broken off on node %d" % self.node)
                time.sleep(0.2)
            time.sleep(self.pause * self.rng.random() * 2)
        self.drop()

    def step(self):
        raise NotImplementedError

    def drop(self):
        if self.connection:
            try:
                self.connection.conn.shutdown()
            except OSError:
                pass
        self.connection = None

    def imap(self):
        """A session that is used for a while."""
        if self.connection and self.rng.random() < 0.1:
            self.connection.conn.logout()
            self.connection = None
        if not self.connection:
            self.connection = Client(self.servers.port("IMAP"), self.user, "secret")
        return self.connection

    def message(self):
        return self.load.message(self.rng)

    def sure(self):
        return not self.load.may_fail(self.node)

    def folder(self):
        return self.rng.choice(FOLDERS)


class Attempt:
    """Around a command: written down as perhaps done if it breaks."""

    def __init__(self, undone):
        self.undone = undone

    def __enter__(self):
        return self

    def __exit__(self, kind, *unused):
        if kind:
            self.undone()


class Lmtp(Worker):
    def step(self):
        name, data = self.message()
        with smtplib.LMTP("127.0.0.1", self.servers.port("LMTP"), timeout=self.load.timeout) as lmtp:
            lmtp.ehlo()
            expect(lmtp.mail(SENDER)[0] == 250, "LMTP MAIL")
            expect(lmtp.rcpt(self.user)[0] == 250, "LMTP RCPT")
            with Attempt(lambda: self.ledger.added(self.user, name, sure=False)):
                answer = lmtp.data(crlf(data))
                expect(answer[0] == 250, "LMTP DATA: %r" % (answer,))
            self.ledger.added(self.user, name)
        self.ledger.count("LMTP")


class Smtp(Worker):
    """Through Postfix: virtual(8), or LMTP."""

    pause = 0.1

    def step(self):
        name, data = self.message()
        with smtplib.SMTP("127.0.0.1", self.servers.port("SMTP"), timeout=self.load.timeout) as smtp:
            with Attempt(lambda: self.ledger.added(self.user, name, sure=False)):
                smtp.sendmail(SENDER, self.user, crlf(data))
            self.ledger.added(self.user, name)
            if not self.sure():
                # Postfix tries again what failed: at least once.
                self.ledger.removed(self.user, name, sure=False)
                self.ledger.added(self.user, name)
                self.ledger.added(self.user, name, sure=False)
        self.ledger.count("SMTP")


class Append(Worker):
    pause = 0.1

    def step(self):
        name, data = self.message()
        imap, mailbox = self.imap(), self.folder()
        with Attempt(lambda: self.ledger.added(self.user, name, sure=False)):
            imap.append(mailbox, data, self.rng.choice(("", "\\Seen", "\\Flagged")))
        self.ledger.added(self.user, name)
        validity, uid = imap.response("APPENDUID").split()
        self.ledger.assigned(self.user, mailbox, int(validity), int(uid), name)
        self.ledger.count("APPEND")


class Reader(Worker):
    """Lists mailboxes whole, and reads some messages."""

    pause = 0.2

    def step(self):
        imap, mailbox = self.imap(), self.folder()
        since = self.ledger.before(self.user, mailbox)
        validity, uidnext = imap.open(mailbox)
        found = imap.ids()
        self.ledger.seen(self.user, mailbox, self.node, validity, uidnext, {u: f[0] for u, f in found.items()}, since)
        if found:
            some = self.rng.sample(sorted(found), min(4, len(found)))
            for uid, data in imap.bodies(",".join(map(str, some))).items():
                name, wrong = ledger.parse(data)
                if wrong or name != found[uid][0]:
                    self.ledger.fail("%s: %s UID %d: %s" % (self.name, mailbox, uid, wrong or "is %s, listed as %s" % (
                        name, found[uid][0])))


class Change(Worker):
    """STORE, COPY, MOVE and EXPUNGE."""

    pause = 0.1

    def step(self):
        imap, mailbox = self.imap(), self.folder()
        validity, _ = imap.open(mailbox)
        found = imap.ids()
        for uid, (name, _) in found.items():
            self.ledger.assigned(self.user, mailbox, validity, uid, name)
        for _ in range(3):
            if found:
                uid = self.rng.choice(sorted(found))
                work = self.rng.choice((self.store, self.store, self.store, self.copy, self.move, self.expunge))
                work(imap, mailbox, uid, found[uid][0])
                if work in (self.move, self.expunge):
                    found.pop(uid)

    def store(self, imap, mailbox, uid, name):
        flags = self.rng.sample(FLAGS[self.node], self.rng.randrange(1, 3))
        present = self.rng.random() < 0.7
        if not self.ledger.claim(self.user, mailbox, uid, "flags", self.node):
            return
        try:
            with Attempt(lambda: self.ledger.unflagged(self.user, mailbox, uid, flags)):
                imap.store(str(uid), "+FLAGS" if present else "-FLAGS", " ".join(flags))
            if self.sure():
                self.ledger.flagged(self.user, mailbox, uid, flags, present)
            self.ledger.count("STORE")
        finally:
            with self.ledger.lock:
                self.ledger.claimed.discard((self.user, mailbox, uid, "flags", self.node))

    def _copy(self, command, imap, mailbox, uid, name):
        """To where, or None. It may be gone: another session expunged it."""
        other = self.rng.choice([f for f in FOLDERS if f != mailbox])
        imap.conn.untagged_responses.pop("COPYUID", None)
        with Attempt(lambda: self.ledger.added(self.user, name, sure=False)):
            status, data = imap.conn.uid(command, str(uid), imap.quote(other))
            if status == "NO" and b"EXPUNGEISSUED" in data[0]:
                return None
            expect(status == "OK", "%s: %s %r" % (command, status, data))
        for validity, _, to in imap.copied():
            self.ledger.added(self.user, name)
            self.ledger.assigned(self.user, other, validity, to, name)
            return other
        return None

    def copy(self, imap, mailbox, uid, name):
        if self._copy("COPY", imap, mailbox, uid, name):
            self.ledger.count("COPY")

    def move(self, imap, mailbox, uid, name):
        if not self.ledger.claim(self.user, mailbox, uid, "end"):
            return
        sure = self.sure()
        with Attempt(lambda: self.ledger.removed(self.user, name, sure=False)):
            if not self._copy("MOVE", imap, mailbox, uid, name):
                return
        self.ledger.removed(self.user, name, sure and self.sure())
        if sure:
            self.ledger.expunged(self.user, mailbox, uid)
        self.ledger.count("MOVE")

    def expunge(self, imap, mailbox, uid, name):
        if not self.ledger.claim(self.user, mailbox, uid, "end"):
            return
        sure = self.sure()
        with Attempt(lambda: self.ledger.removed(self.user, name, sure=False)):
            imap.store(str(uid), "+FLAGS", "\\Deleted")
            imap.uid("EXPUNGE", str(uid))
        self.ledger.removed(self.user, name, sure and self.sure())
        if sure:
            self.ledger.expunged(self.user, mailbox, uid)
        self.ledger.count("EXPUNGE")


class Pop(Worker):
    """Fetches and deletes from INBOX."""

    pause = 0.3

    def step(self):
        pop = self.servers.pop3(self.user)
        pop.sock.settimeout(self.load.timeout)
        deleted = []
        try:
            uidl = dict(line.split() for line in pop.uidl()[1])
            for number in self.rng.sample(sorted(uidl, key=int), min(5, len(uidl))):
                data = b"\n".join(pop.retr(int(number))[1]) + b"\n"
                name, wrong = ledger.parse(data)
                # Dovecot ends what it cannot read on as if it were whole (fetch_callback() in its pop3-commands.c).
                if wrong and not self.sure():
                    raise Failed(wrong)
                if wrong:
                    self.ledger.fail("%s: %s" % (self.name, wrong))
                # Dovecot: %08Xu%08Xv
                uid, validity = int(uidl[number][:8], 16), int(uidl[number][8:], 16)
                self.ledger.assigned(self.user, "INBOX", validity, uid, name)
                self.ledger.count("RETR")
                if self.rng.random() < 0.5 and self.ledger.claim(self.user, "INBOX", uid, "end"):
                    pop.dele(int(number))
                    deleted.append((uid, name))
        except BROKEN as error:
            # Without a QUIT nothing is deleted.
            pop.close()
            if isinstance(error, poplib.error_proto) and re.search(r"Message \d+ expunged", str(error)):
                raise Gone from None
            raise
        try:
            pop.quit()
        except BROKEN:
            for _, name in deleted:
                self.ledger.removed(self.user, name, sure=False)
            raise
        for uid, name in deleted:
            self.ledger.removed(self.user, name, self.sure())
            if self.sure():
                self.ledger.expunged(self.user, "INBOX", uid)
            self.ledger.count("DELE")


class Idle(Worker):
    """Is told of new messages, on whichever node they come."""

    def step(self):
        imap = self.connection = Client(self.servers.port("IMAP"), self.user, "secret")
        imap.select("INBOX")
        imap.idle()
        imap.conn.sock.settimeout(1)
        # Not the buffered file of imaplib: it is of no use after a timeout.
        sock, rest, since = imap.conn.sock, b"", time.monotonic()
        while not self.load.stopping.is_set():
            try:
                data = sock.recv(65536)
            except TimeoutError:
                if self.load.may_fail(self.node) and time.monotonic() - since > 20:
                    break
                continue
            expect(data, "IDLE: the server ended it")
            since = time.monotonic()
            lines = (rest + data).split(b"\r\n")
            rest = lines.pop()
            for line in lines:
                expect(line.startswith(b"*") and not line.startswith(b"* BYE"), "IDLE: %r" % line)
                if line.endswith(b" EXISTS"):
                    self.ledger.count("EXISTS while idle on node %d" % self.node)
        self.drop()


class Folders(Worker):
    """Makes mailboxes on its node, and lets the other node fill, rename, look into and delete them."""

    pause = 0.3
    made = 0

    def step(self):
        other = self.load.servers[1 - self.node]
        name = "made-%d-%d" % (self.node, self.made)
        self.made += 1
        message_id, data = self.message()
        with Client(self.servers.port("IMAP"), self.user, "secret") as here, \
                Client(other.port("IMAP"), self.user, "secret") as there:
            try:
                here.command("create", name)
            except Failed as error:
                # Dovecot says so, on a local directory too, when a Reader opens the mailbox while it is being made.
                if "[ALREADYEXISTS]" not in str(error):
                    raise
            expect(name in there.list(), "%s is not listed on the other node" % name)
            there.append(name, data)
            expect(here.select(name) == 1, "%s is empty on the other node" % name)
            parsed, wrong = ledger.parse(here.bodies()[1])
            expect(parsed == message_id and not wrong, "%s: %s" % (name, wrong))
            here.ok(here.conn.unselect(), "UNSELECT")
            there.command("rename", name, name + "-b")
            here.command("subscribe", name + "-b")
            expect(name + "-b" in there.list(command="lsub"), "the subscription is not seen")
            expect(here.select(name + "-b") == 1, "%s-b is empty" % name)
            here.store("1", "+FLAGS", "\\Deleted")
            here.expunge()
            here.ok(here.conn.unselect(), "UNSELECT")
            expect(there.select(name + "-b") == 0, "%s-b has a message that was expunged" % name)
            there.ok(there.conn.unselect(), "UNSELECT")
            there.command("unsubscribe", name + "-b")
            there.command("delete", name + "-b")
            names = [n for n in here.list() if n.startswith(name)]
            expect(not names, "%s are listed after DELETE" % names)
        self.ledger.count("mailboxes made and deleted")


# user -> what is done to its mailboxes on each node.
USERS = {
    "anna@lmtp.test": [Lmtp, Append, Reader, Change, Change, Idle],
    "bert@virt.test": [Smtp, Append, Reader, Change, Idle],
    "cora@lmtp.test": [Lmtp, Pop, Pop],
    "dora@virt.test": [Smtp, Pop],
    "emil@lmtp.test": [Folders, Lmtp, Reader],
}


class Load:
    """Work of all kinds until stop()."""

    timeout = 60

    def __init__(self, servers, seed, users=None):
        self.servers, self.seed = servers, seed
        self.users = users or USERS
        self.ledger = ledger.Ledger()
        self.stopping = threading.Event()
        self.failing = set()
        self.rng = random.Random(seed)
        self.workers, self.rounds = [], 0
        self.lock = threading.Lock()
        self.serial = 0
        self.slow = {node: [] for node in range(len(servers))}  # (began, took, what)

    def message(self, rng):
        with self.lock:
            self.serial += 1
            name = "m%d.%d" % (self.seed, self.serial)
        return name, ledger.make_message(rng, name.encode())

    def may_fail(self, node):
        return node in self.failing

    def took(self, node, what, started):
        seconds = time.monotonic() - started
        with self.lock:
            self.slow[node].append((started, seconds, what))

    def longest(self, node, since=0, but="Idle"):
        """(seconds, what) of the longest step on a node that ended after a time."""
        with self.lock:
            return max(((t, w) for s, t, w in self.slow[node] if s + t >= since and not w.startswith(but)),
                       default=(0, "nothing"))

    def prepare(self):
        """The folders, from the first node."""
        for user in self.users:
            with Client(self.servers[0].port("IMAP"), user, "secret") as imap:
                there = imap.list()
                for folder in FOLDERS[1:]:
                    if folder not in there:
                        imap.command("create", folder)

    def start(self, but=()):
        """@but: kinds of work that are left out."""
        self.stopping.clear()
        self.rounds += 1
        self.workers = [kind(self, node, user, 1000 * self.rounds + 100 * n + 10 * i + node)
                        for n, (user, kinds) in enumerate(self.users.items())
                        for i, kind in enumerate(kinds) if kind not in but for node in range(len(self.servers))]
        for worker in self.workers:
            worker.start()

    def stop(self):
        self.stopping.set()
        for worker in self.workers:
            worker.join(2 * self.timeout + 30)
            if worker.is_alive():
                self.ledger.fail("%s does not end" % worker.name)

    # ---- at the end ----

    def check(self):
        """Everything, from each node: the same mailboxes, messages and flags; and all as the ledger has it."""
        for user in self.users:
            states = [self._state(node, user) for node in range(len(self.servers))]
            for node, state in enumerate(states[1:], 1):
                for mailbox in sorted(set(states[0]) | set(state)):
                    a, b = states[0].get(mailbox), state.get(mailbox)
                    if a != b:
                        self.ledger.fail("%s %s differs on nodes 0 and %d: %.300s" % (user, mailbox, node, difference(a, b)))
            self.ledger.compare(user, [name for _, found in states[0].values() for name, _ in found.values()])
            self._check_flags(user, states[0])

    def _state(self, node, user):
        """{mailbox: (validity, {uid: (id, flags)})}; reads all messages."""
        state = {}
        with Client(self.servers[node].port("IMAP"), user, "secret") as imap:
            for mailbox in imap.list():
                since = self.ledger.before(user, mailbox)
                validity, uidnext = imap.open(mailbox)
                found = imap.ids()
                self.ledger.seen(user, mailbox, node, validity, uidnext, {u: f[0] for u, f in found.items()}, since)
                for uid, data in imap.bodies().items():
                    name, wrong = ledger.parse(data)
                    if wrong or name != found.get(uid, (None,))[0]:
                        self.ledger.fail("%s %s UID %d on node %d: %s" % (user, mailbox, uid, node, wrong or "is %s" % name))
                state[mailbox] = (validity, found)
        return state

    def _check_flags(self, user, state):
        for (owner, mailbox, uid, flag), present in self.ledger.flags.items():
            if owner != user or uid not in state.get(mailbox, (0, {}))[1]:
                continue
            if (flag in state[mailbox][1][uid][1]) != present:
                self.ledger.fail("%s %s UID %d: %s is %s, and was %s last" % (
                    user, mailbox, uid, flag, "not there" if present else "there", "set" if present else "cleared"))
            self.ledger.done["flags compared"] += 1


def difference(a, b):
    if a is None or b is None or a[0] != b[0]:
        return "%.100r and %.100r" % (a, b)
    return ", ".join("UID %d: %s and %s" % (u, a[1].get(u), b[1].get(u)) for u in sorted(set(a[1]) | set(b[1]))
                     if a[1].get(u) != b[1].get(u))
