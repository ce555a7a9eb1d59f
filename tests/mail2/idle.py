# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/mail2/idle.py - who is idle on one node is told of what is delivered on the other.

Dovecot learns of it by inotify. It also looks by itself, but with POLL not before any test is over: what was not told
within WAKE_S was missed. Of the time from the end of a delivery to its EXISTS half a second is Dovecot's, which waits
for more. What mailfs takes is seen by a watch of ours on the same directory; less than nothing if the event came before
the answer of the server that delivered.
"""

import collections
import concurrent.futures
import os
import random
import re
import selectors
import smtplib
import subprocess
import threading
import time

import inotify
from mailtest import DEADLINE, SENDER, Imap, expect, wait_for

POLL = "mailbox_idle_check_interval = 30 mins"
WAKE_S = 5
EVENT_P50_MS = 20
CALM_S = 0.7

LMTP_USER, VIRTUAL_USER, HIBERNATED_USER = "ida@lmtp.test", "ida@virt.test", "ines@lmtp.test"
NOTIFIED_USER = "nora@lmtp.test"
MANY = "many%d@lmtp.test"
FIRST_UID = 20000


def users(clients):
    """For mail.sh. A user of the many has a uid of its own: a uid may have 128 inotify instances
    (fs.inotify.max_user_instances), and each session takes one."""
    return [LMTP_USER, VIRTUAL_USER, NOTIFIED_USER, HIBERNATED_USER + "::userdb_imap_hibernate_timeout=1s"] + [
        "%s:%d" % (MANY % n, FIRST_UID + n) for n in range(clients)]


def settings(clients):
    """Of Dovecot: room for a process for each client."""
    return "%s\ndefault_client_limit = %d\nservice imap {\n  process_limit = %d\n}\n" % (
        POLL, clients + 2000, clients + 500)


def new_of(servers, user):
    return os.path.join(servers.maildir(user), "new")


class Watch:
    """An inotify instance; notes when names come into the directories that were added, or some may have."""

    def __init__(self):
        self.fd = inotify.instance()
        self.times = collections.defaultdict(list)

    def fileno(self):
        return self.fd

    def add(self, path):
        return self.times[inotify.add(self.fd, path, inotify.CREATE | inotify.MOVED_TO | inotify.DELETE)]

    def ready(self, now):
        for number, mask, name in inotify.events(self.fd):
            if mask & (inotify.CREATE | inotify.MOVED_TO) or name == inotify.CHANGED:
                self.times[number].append(now)

    def close(self):
        os.close(self.fd)


class Session:
    """A client in IDLE; notes each line it is told. Read by a Listener, not by imaplib, whose buffer is empty then."""

    def __init__(self, servers, user):
        self.user = user
        self.imap = Imap(servers.port("IMAP"), user, servers.env["MAIL_PASSWORD"])
        self.lines, self.rest, self.ended = [], b"", False
        self.begin()
        self.sock = self.imap.conn.sock

    def begin(self):
        self.before = self.imap.select()
        self.imap.idle()

    def fileno(self):
        return self.sock.fileno()

    def ready(self, now):
        data = self.sock.recv(1 << 16)
        self.ended = not data
        *lines, self.rest = (self.rest + data).split(b"\r\n")
        self.lines += [(now, line) for line in lines]

    def told(self, pattern):
        """When the first line that matches came."""
        return next((when for when, line in self.lines if re.match(pattern, line)), None)

    def told_of(self, number):
        """When it was told that there are as many messages more than in the beginning."""
        found = ((when, re.match(rb"\* (\d+) EXISTS", line)) for when, line in self.lines)
        return next((when for when, match in found if match and int(match.group(1)) >= self.before + number), None)

    def close(self):
        # Also the file that imaplib made of it: otherwise the server goes on.
        self.imap.conn.shutdown()


class Notified(Session):
    """A client that has selected no mailbox, and wants to know of all (RFC 5465)."""

    def begin(self):
        self.imap.ok(self.imap.conn.xatom("NOTIFY", "SET", "(personal (MessageNew MessageExpunge))"), "NOTIFY")


class Listener(threading.Thread):
    """Reads from sessions and watches as soon as there is something. Ended, and they closed, with the block."""

    def __init__(self, sources):
        super().__init__(daemon=True)
        self.sources, self.changed, self.ending = sources, threading.Condition(), False
        self.error = None

    def run(self):
        with selectors.DefaultSelector() as selector:
            for source in self.sources:
                selector.register(source, selectors.EVENT_READ, source)
            while not self.ending:
                found = selector.select(0.2)
                now = time.monotonic()
                with self.changed:
                    for key, _ in found:
                        try:
                            key.data.ready(now)
                        except OSError as error:
                            self.error = error
                        if self.error or getattr(key.data, "ended", False):
                            selector.unregister(key.data)
                    self.changed.notify_all()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *unused):
        self.ending = True
        self.join()
        for source in self.sources:
            source.close()

    def wait(self, condition, end):
        """The value of condition() when it is true, or at that time at the latest."""
        with self.changed:
            self.changed.wait_for(lambda: condition() or self.error, max(0, end - time.monotonic()))
            expect(not self.error, "reading: %s" % self.error)
            gone = [s.user for s in self.sources if getattr(s, "ended", False)]
            expect(not gone, "%d sessions were ended by the server: %s" % (len(gone), gone[:5]))
            return condition()


class Sender:
    """A connection to Postfix or to Dovecot's LMTP."""

    def __init__(self, servers, service):
        kind = smtplib.LMTP if service == "LMTP" else smtplib.SMTP
        self.smtp = kind("127.0.0.1", servers.port(service), timeout=DEADLINE)
        self.smtp.ehlo()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def close(self):
        self.smtp.close()

    def send(self, user):
        """When the last answer came: of LMTP, the message is in the mailbox then."""
        answers = [self.smtp.mail(SENDER), self.smtp.rcpt(user), self.smtp.data(b"Subject: wake up\r\n\r\nnow\r\n")]
        now = time.monotonic()
        expect([code for code, _ in answers] == [250] * 3, "%s: %r" % (user, answers))
        return now


class Way:
    """A mailbox with a session on node @here, and deliveries through a server of node @there."""

    def __init__(self, servers, here, there, user, service):
        self.what = "on node %d, %s on node %d" % (here, service, there)
        self.user, self.count = user, 0
        self.session, watch = Session(servers[here], user), Watch()
        self.events = watch.add(new_of(servers[here], user))
        self.sources, self.published = [self.session, watch], None
        if service == "SMTP":
            # Postfix answers before it has delivered. LMTP does not, and nobody looks at the node that delivers.
            self.sources.append(Watch())
            self.published = self.sources[-1].add(new_of(servers[there], user))
        self.sender = Sender(servers[there], service)

    def deliver(self, listener):
        """When it was delivered."""
        self.count += 1
        sent = self.sender.send(self.user)
        if self.published is None:
            return sent
        expect(listener.wait(lambda: len(self.published) >= self.count, sent + DEADLINE), "Postfix does not deliver")
        return self.published[self.count - 1]


def p50(values):
    return sorted(values)[len(values) // 2]


class Figures:
    """What was measured of a kind of delivery, in ms; and what was missed."""

    def __init__(self, what):
        self.what, self.told, self.events, self.missed = what, [], [], []

    def add(self, who, ended, told, event):
        """@told, @event: when, or None; @event False: not looked for."""
        if told is None or told - ended > WAKE_S:
            self.missed.append("word of %s" % who)
        else:
            self.told.append(1000 * (told - ended))
        if event is None or event - ended > WAKE_S:
            self.missed.append("event of %s" % who)
        elif event is not False:
            self.events.append(1000 * (event - ended))

    def print(self):
        def text(values):
            return "p50 %.1f ms, max %.1f ms" % (p50(values), max(values)) if values else "none"
        mailfs = "; mailfs %s (%d)" % (text(self.events), len(self.events)) if self.events else ""
        print("# %s: told after %s (%d)%s; %d missed" % (
            self.what, text(self.told), len(self.told), mailfs, len(self.missed)), flush=True)

    def judge(self):
        expect(not self.missed, "%s: missed %d: %s" % (self.what, len(self.missed), self.missed[:5]))


class Idle:
    def __init__(self, run):
        self.run = run
        self.rng = random.Random(run.options.seed)

    def _judge(self, *all_figures):
        for figures in all_figures:
            figures.print()
        for figures in all_figures:
            figures.judge()

    # ---- one session ----

    def idle(self):
        """Deliveries by LMTP and by virtual(8), one by one and in a row; a flag; one message less; and into both nodes."""
        rounds = 5 if self.run.options.short else 20
        for here, there in ((1, 0), (0, 1)):
            ways = [Way(self.run.servers, here, there, *way) for way in ((LMTP_USER, "LMTP"), (VIRTUAL_USER, "SMTP"))]
            with Listener([source for way in ways for source in way.sources]) as listener:
                self._one_by_one(listener, ways, rounds)
                for way in ways:
                    self._in_a_row(listener, way, 2 * rounds)
                    way.sender.close()
        for here, there in ((1, 0), (0, 1)):
            self._changes(here, there, LMTP_USER)
        self._both(LMTP_USER, 4 * rounds)

    def _one_by_one(self, listener, ways, rounds):
        all_figures = [Figures("idle " + way.what) for way in ways]
        for _ in range(rounds):
            # Half a second after it has moved the one before to cur, Dovecot looks again.
            time.sleep(CALM_S)
            self._deliver(listener, ways, all_figures)
        self._judge(*all_figures)
        for figures in all_figures:
            took = p50(figures.events)
            expect(took < EVENT_P50_MS, "%s: mailfs took %.1f ms (p50)" % (figures.what, took))

    def _deliver(self, listener, ways, all_figures):
        """One message each."""
        began = [(len(way.events), way.deliver(listener)) for way in ways]
        for way, figures, (count, ended) in zip(ways, all_figures, began):
            told = listener.wait(lambda w=way: w.session.told_of(w.count), ended + WAKE_S)
            figures.add(way.count, ended, told, next(iter(way.events[count:]), None))

    def _pause(self):
        """Of no certain length, so that deliveries come while Dovecot waits, looks, and is done."""
        time.sleep(self.rng.random() * 0.15)

    def _in_a_row(self, listener, way, rounds):
        figures, first, count, ended = Figures("in a row " + way.what), way.count + 1, len(way.events), []
        for _ in range(rounds):
            self._pause()
            ended.append(way.deliver(listener))
        listener.wait(lambda: way.session.told_of(way.count), ended[-1] + WAKE_S)
        # One event may stand for several, and what a reader has found before is not told: then none is that of a certain one.
        events = way.events[count:] if len(way.events) == count + rounds else [False] * rounds
        for number, (when, event) in enumerate(zip(ended, events), first):
            figures.add(number, when, way.session.told_of(number), event)
        self._judge(figures)

    def _both(self, user, rounds):
        """A session on each node, and deliveries on the one and on the other."""
        sessions = [Session(servers, user) for servers in self.run.servers]
        with Listener(sessions) as listener, Sender(self.run.servers[0], "LMTP") as first, \
                Sender(self.run.servers[1], "LMTP") as second:
            ended = []
            for _ in range(rounds):
                self._pause()
                ended.append(self.rng.choice((first, second)).send(user))
            listener.wait(lambda: all(s.told_of(rounds) for s in sessions), ended[-1] + WAKE_S)
        for node, session in enumerate(sessions):
            figures = Figures("idle on node %d, LMTP on both" % node)
            for number, when in enumerate(ended, 1):
                figures.add(number, when, session.told_of(number), False)
            self._judge(figures)

    def _changes(self, here, there, user):
        session = Session(self.run.servers[here], user)
        with Listener([session]) as listener, self.run.servers[there].imap(user) as other:
            other.select()
            for what, change, pattern in (
                    ("STORE", lambda: other.store(str(other.uids()[0]), "+FLAGS", "\\Flagged \\Deleted"),
                     rb"\* 1 FETCH .*\\Flagged"),
                    ("EXPUNGE", other.expunge, rb"\* 1 EXPUNGE")):
                change()
                ended = time.monotonic()
                told = listener.wait(lambda p=pattern: session.told(p), ended + WAKE_S)
                expect(told, "%s on node %d is not told on node %d: %s" % (what, there, here, session.lines))
                print("# idle on node %d, %s on node %d: told after %.1f ms" % (
                    here, what, there, 1000 * (told - ended)), flush=True)

    # ---- sessions in imap-hibernate ----

    def _hibernated(self, node, sessions):
        """Those of the sessions whose connection a process of that name has."""
        port = self.run.servers[node].port("IMAP")
        out = subprocess.run(["ss", "-tnpH", "sport", "=", ":%d" % port], check=True, stdout=subprocess.PIPE,
                             text=True).stdout
        there = {int(match.group(1)) for match in re.finditer(r':(\d+)\s+users:\(\("imap-hibernate"', out)}
        return [s for s in sessions if s.sock.getsockname()[1] in there]

    def idle_hibernated(self):
        """The same of a session whose process has handed it to imap-hibernate."""
        for here, there in ((1, 0), (0, 1)):
            way = Way(self.run.servers, here, there, HIBERNATED_USER, "LMTP")
            figures = Figures("hibernated " + way.what)
            with Listener(way.sources) as listener:
                for _ in range(3 if self.run.options.short else 10):
                    wait_for(lambda w=way: self._hibernated(here, [w.session]), "the session hibernates", 15)
                    self._deliver(listener, [way], [figures])
                way.sender.close()
            self._judge(figures)

    # ---- sessions that are told of mailboxes which they have not selected ----

    def idle_notify(self):
        """NOTIFY: the other node delivers; Dovecot sees it in the log of its index, a plain file."""
        for here, there in ((1, 0), (0, 1)):
            session = Notified(self.run.servers[here], NOTIFIED_USER)
            figures = Figures("NOTIFY on node %d, LMTP on node %d" % (here, there))
            with Listener([session]) as listener, Sender(self.run.servers[there], "LMTP") as sender:
                for number in range(3 if self.run.options.short else 10):
                    time.sleep(CALM_S)
                    ended = sender.send(NOTIFIED_USER)
                    told = listener.wait(
                        lambda: next((when for when, line in session.lines
                                      if when > ended and re.match(rb'\* STATUS "?INBOX"? ', line)), None), ended + WAKE_S)
                    figures.add(number, ended, told, False)
            self._judge(figures)

    # ---- many sessions ----

    def idle_many(self):
        """A session in each of many mailboxes on node 1, all told of a delivery on node 0; twice."""
        here, there, clients = 1, 0, self.run.options.clients
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            sessions = list(pool.map(lambda n: Session(self.run.servers[here], MANY % n), range(clients)))
        print("# %d sessions idle on node %d, after %.1f s" % (clients, here, time.monotonic() - began), flush=True)
        watch = Watch()
        events = {s: watch.add(new_of(self.run.servers[here], s.user)) for s in sessions}
        with Listener([watch, *sessions]) as listener, Sender(self.run.servers[there], "LMTP") as sender:
            for turn in (1, 2):
                self.rng.shuffle(sessions)
                counts = {s: len(events[s]) for s in sessions}
                began = time.monotonic()
                ended = {s: sender.send(s.user) for s in sessions}
                took = time.monotonic() - began
                listener.wait(lambda t=turn: all(s.told_of(t) for s in sessions), time.monotonic() + WAKE_S)
                figures = Figures("%d idle on node %d, %.0f deliveries a second on node %d" % (
                    clients, here, clients / took, there))
                for s in sessions:
                    figures.add(s.user, ended[s], s.told_of(turn), next(iter(events[s][counts[s]:]), None))
                self._judge(figures)


NAMES = ["idle", "idle-hibernated", "idle-notify", "idle-many"]


def tests(run):
    idle = Idle(run)
    return {name: getattr(idle, name.replace("-", "_")) for name in NAMES}
