# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/lib/mailtest.py - what the mail tests share: messages, comparing, clients.

Every comparison is byte for byte, with lines ending in LF as they lie in a Maildir. A delivery may put
whole header fields before a message (Return-Path, Received...) and change nothing behind them.
"""

import collections
import email.utils
import glob
import imaplib
import os
import poplib
import re
import shlex
import smtplib
import subprocess
import time

SENDER = "sender@virt.test"
# The fields that delivering may put first, and nothing else.
ADDED = re.compile(rb"(?:(?:Return-Path|X-Original-To|Delivered-To|Received):[^\n]*\n(?:[ \t][^\n]*\n)*)*\Z")
DEADLINE = 60

# Python's own limit on a line of POP3 is shorter than what mail holds.
poplib._MAXLINE = 1 << 20


class Failed(Exception):
    """A test saw something wrong; the text says what."""


def expect(condition, what):
    if not condition:
        raise Failed(what)


def equal(seen, wanted, what):
    if seen != wanted:
        raise Failed("%s: %s, not %s" % (what, _short(seen), _short(wanted)))


def _short(value):
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."


def wait_for(condition, what, deadline=DEADLINE):
    """Waits until condition() is true; returns its value."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed("not within %d s: %s" % (deadline, what))
        time.sleep(0.02)


def canonical(data):
    """A message as it lies in a Maildir after a transport: lines end in LF, also the last."""
    data = data.replace(b"\r\n", b"\n")
    return data if data.endswith(b"\n") else data + b"\n"


def crlf(data):
    return canonical(data).replace(b"\n", b"\r\n")


class Corpus:
    """The messages to send: the samples of this project, and those of $MF_CORPUS (or of a directory
    shared/mail-corpus next to the repository), at most $MF_MAIL_COUNT of these (60; 0: all)."""

    def __init__(self):
        here = os.path.dirname(os.path.abspath(__file__))
        beside = os.path.join(here, "..", "..", "..", "shared", "mail-corpus")
        count = int(os.environ.get("MF_MAIL_COUNT", "60"))
        samples = sorted(glob.glob(os.path.join(here, "..", "mail", "samples", "*.eml")))
        more = sorted(glob.glob(os.path.join(os.environ.get("MF_CORPUS") or beside, "*.eml")))
        if 0 < count < len(more):
            more = [more[i * len(more) // count] for i in range(count)]
        self.messages = [canonical(open(f, "rb").read()) for f in samples + more]
        expect(len(samples) >= 12, "the samples are missing")

    def some(self, count):
        """`count` messages, spread over all."""
        return self._spread(self.messages, count)

    def some_complete(self, count):
        """The same of those with an empty line behind the header, for programs that want one."""
        return self._spread([m for m in self.messages if b"\n\n" in m], count)

    @staticmethod
    def _spread(messages, count):
        return [messages[i * len(messages) // count] for i in range(count)]


def strip_added(stored, sent):
    """True if `stored` is `sent` with nothing but added header fields before it."""
    return stored.endswith(sent) and ADDED.match(stored[:len(stored) - len(sent)]) is not None


def _difference(data, sent):
    """Where `data` parts from the one of `sent` that it has the longest end in common with."""
    def common(message):
        return len(os.path.commonprefix([data[::-1], message[::-1]]))
    nearest = max((m for m in sent if sent[m] > 0), key=common, default=b"")
    length = common(nearest)

    def before(message):
        return message[max(0, len(message) - length - 60):len(message) - length]
    return "has %r, sent %r, the %d bytes behind are the same" % (before(data), before(nearest), length)


def same_messages(stored, sent, what, delivered=False):
    """Fails unless `stored` holds exactly the messages of `sent`, in any order, each as often."""
    left = collections.Counter(sent)
    for data in stored:
        if left[data] > 0:
            left[data] -= 1
            continue
        match = next((m for m in left if left[m] > 0 and delivered and strip_added(data, m)), None)
        if match is None:
            raise Failed("%s: a message that was not sent, or changed: %s" % (what, _difference(data, left)))
        left[match] -= 1
    missing = sum(left.values())
    expect(missing == 0, "%s: %d of %d messages missing" % (what, missing, len(sent)))


def read(path):
    with open(path, "rb") as f:
        return f.read()


def maildir_files(maildir, parts=("new", "cur")):
    found = []
    for part in parts:
        folder = os.path.join(maildir, part)
        if os.path.isdir(folder):
            found += [os.path.join(folder, n) for n in sorted(os.listdir(folder)) if not n.startswith(".")]
    return found


def maildir_messages(maildir):
    return [read(f) for f in maildir_files(maildir)]


def maildir_flags(path):
    base = os.path.basename(path)
    return base.partition(":2,")[2]


def maildir_deliver(maildir, data, name):
    """Delivers as a simple deliverer does: tmp, fsync, rename into new."""
    for part in ("", "tmp", "new", "cur"):
        os.makedirs(os.path.join(maildir, part), mode=0o700, exist_ok=True)
    tmp = os.path.join(maildir, "tmp", name)
    fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(tmp, os.path.join(maildir, "new", name))


class Servers:
    """A running Dovecot and Postfix of lib/mail.sh, with their state in `workdir`; on a host of the name `host`, if given,
    and with `settings` of Dovecot."""

    def __init__(self, workdir, mailroot, host="", settings=""):
        self.workdir = os.path.abspath(workdir)
        self.mailroot = os.path.abspath(mailroot)
        self.library = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mail.sh")
        self.host, self.settings = host, settings
        self.env = {}

    def call(self, function, *args):
        """Runs a function of mail.sh. Its output is for the error text: a daemon may hold on to a pipe,
        so a file takes it."""
        os.makedirs(self.workdir, exist_ok=True)
        out = os.path.join(self.workdir, "mail.sh.out")
        with open(out, "wb") as f:
            code = subprocess.call(["bash", "-c", '. "$0"; "$@"', self.library, function, self.workdir, *args],
                                   stdin=subprocess.DEVNULL, stdout=f, stderr=subprocess.STDOUT,
                                   env={**os.environ, "MAIL_HOSTNAME": self.host, "MAIL_DOVECOT_EXTRA": self.settings})
        if code != 0:
            raise Failed("%s: %s" % (function, read(out).decode(errors="replace").strip()))

    def start(self, users):
        self.call("mail_start", self.mailroot, *users)
        self.load_env()

    def load_env(self):
        for line in open(os.path.join(self.workdir, "env")):
            for word in shlex.split(line):
                name, _, value = word.partition("=")
                self.env[name] = value

    def stop(self):
        self.call("mail_stop")

    def maildir(self, user):
        if user == self.env["MAIL_LOCAL_USER"]:
            return os.path.join(self.mailroot, "local", user)
        name, _, domain = user.partition("@")
        return os.path.join(self.mailroot, domain, name, "Maildir")

    def port(self, service):
        return int(self.env["MAIL_%s_PORT" % service])

    def send(self, recipients, messages):
        """Hands messages to Postfix. A recipient or a list of them."""
        with smtplib.SMTP("127.0.0.1", self.port("SMTP"), timeout=DEADLINE) as smtp:
            for data in messages:
                smtp.sendmail(SENDER, recipients, crlf(data))

    def send_lmtp(self, recipients, messages):
        """Hands messages to Dovecot's LMTP, each to all recipients in one transaction."""
        with smtplib.LMTP("127.0.0.1", self.port("LMTP"), timeout=DEADLINE) as lmtp:
            lmtp.ehlo()
            for data in messages:
                answers = [lmtp.mail(SENDER)] + [lmtp.rcpt(r) for r in recipients]
                # One answer a recipient follows the message.
                answers.append(lmtp.data(crlf(data)))
                answers += [lmtp.getreply() for _ in recipients[1:]]
                expect(all(code == 250 for code, _ in answers), "LMTP: %r" % answers)

    def command(self, *args, data=None, user=None):
        """Runs a command; returns its output; fails when it does."""
        done = subprocess.run(args, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=2 * DEADLINE,
                              stdin=None if data is not None else subprocess.DEVNULL)
        if done.returncode != 0:
            raise Failed("%s: exit %d: %s" % (" ".join(args), done.returncode, done.stderr.decode(errors="replace")))
        return done.stdout

    def doveadm(self, *args):
        return self.command("doveadm", "-c", self.env["MAIL_DOVECOT_CONF"], *args)

    def imap(self, user):
        return Imap(self.port("IMAP"), user, self.env["MAIL_PASSWORD"])

    def pop3(self, user):
        pop = poplib.POP3("127.0.0.1", self.port("POP3"), timeout=DEADLINE)
        pop.user(user)
        pop.pass_(self.env["MAIL_PASSWORD"])
        return pop

    def log_lines(self):
        """What Dovecot and Postfix complained about: has to be nothing."""
        lines = read(self.env["MAIL_DOVECOT_ERRORS"]).decode(errors="replace").splitlines()
        if "MAIL_POSTFIX_LOG" not in self.env:
            return lines
        for line in read(self.env["MAIL_POSTFIX_LOG"]).decode(errors="replace").splitlines():
            if re.search(r"\b(warning|error|fatal|panic): |status=(bounced|deferred)", line):
                lines.append(line)
        return lines


class Imap:
    """imaplib with answers that are checked and parsed. Numbers are UIDs."""

    def __init__(self, port, user, password):
        self.conn = imaplib.IMAP4("127.0.0.1", port, timeout=DEADLINE)
        self.ok(self.conn.login(user, password), "LOGIN")

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        try:
            self.conn.logout()
        except (OSError, imaplib.IMAP4.error):
            pass

    @staticmethod
    def ok(answer, what):
        status, data = answer
        if status != "OK":
            raise Failed("IMAP %s: %s %r" % (what, status, data))
        return data

    @staticmethod
    def quote(mailbox):
        return '"%s"' % mailbox.replace("\\", "\\\\").replace('"', '\\"')

    def select(self, mailbox="INBOX"):
        """Returns the number of messages."""
        return int(self.ok(self.conn.select(self.quote(mailbox)), "SELECT " + mailbox)[0])

    def command(self, name, *args):
        """A plain command with mailbox names as arguments."""
        return self.ok(getattr(self.conn, name)(*[self.quote(a) for a in args]), name)

    def uid(self, *args):
        return self.ok(self.conn.uid(*args), "UID " + " ".join(args))

    def append(self, mailbox, data, flags="", when=None):
        stamp = imaplib.Time2Internaldate(when) if when is not None else None
        self.ok(self.conn.append(self.quote(mailbox), flags and "(%s)" % flags, stamp, crlf(data)), "APPEND")

    def uids(self, criteria="ALL"):
        return [int(u) for u in self.uid("SEARCH", criteria)[0].split()]

    def bodies(self, uids="1:*"):
        """{uid: message}, lines ending in LF."""
        found = {}
        for item in self.uid("FETCH", uids, "(UID BODY.PEEK[])"):
            if isinstance(item, tuple):
                uid = int(re.search(rb"UID (\d+)", item[0]).group(1))
                expect(b"\n" not in item[1].replace(b"\r\n", b""), "IMAP sent a line that does not end in CRLF")
                found[uid] = item[1].replace(b"\r\n", b"\n")
        return found

    def flags(self, uids="1:*"):
        """{uid: set of flags}, without \\Recent."""
        found = {}
        for item in self.uid("FETCH", uids, "(UID FLAGS)"):
            if item is None:
                continue
            line = item[0] if isinstance(item, tuple) else item
            uid = int(re.search(rb"UID (\d+)", line).group(1))
            names = re.search(rb"FLAGS \(([^)]*)\)", line).group(1).decode().split()
            found[uid] = set(names) - {"\\Recent"}
        return found

    def dates(self, uids="1:*"):
        """{uid: seconds since the epoch}."""
        found = {}
        for item in self.uid("FETCH", uids, "(UID INTERNALDATE)"):
            uid = int(re.search(rb"UID (\d+)", item).group(1))
            stamp = re.search(rb'INTERNALDATE "([^"]*)"', item).group(1).decode()
            day, clock, zone = stamp.split()
            found[uid] = int(email.utils.mktime_tz(email.utils.parsedate_tz(
                "%s %s %s" % (day.replace("-", " "), clock, zone))))
        return found

    def list(self, pattern="*", command="list"):
        """The names of mailboxes, sorted."""
        names = []
        for line in self.ok(getattr(self.conn, command)('""', self.quote(pattern)), command):
            if line is None:
                continue
            line = b"".join(line) if isinstance(line, tuple) else line
            names.append(re.search(rb'"/" (.*)$', line).group(1).decode().strip('"'))
        return sorted(names)

    def store(self, uids, how, flags):
        self.uid("STORE", uids, how, "(%s)" % flags)

    def expunge(self):
        self.ok(self.conn.expunge(), "EXPUNGE")

    def idle(self):
        """Starts IDLE; returns when the server is idling."""
        self.conn.send(b"IDLE1 IDLE\r\n")
        line = self.conn.readline()
        while not line.startswith(b"+"):
            expect(line.startswith(b"*"), "IDLE: %r" % line)
            line = self.conn.readline()

    def idle_wait(self, pattern, deadline=10):
        """Waits for an untagged line that matches."""
        self.conn.sock.settimeout(deadline)
        try:
            while True:
                line = self.conn.readline()
                expect(line.startswith(b"*"), "IDLE: %r" % line)
                if re.search(pattern, line):
                    return line
        except TimeoutError:
            raise Failed("IDLE: no line like %r within %d s" % (pattern, deadline)) from None
        finally:
            self.conn.sock.settimeout(DEADLINE)

    def idle_done(self):
        self.conn.send(b"DONE\r\n")
        while not self.conn.readline().startswith(b"IDLE1 OK"):
            pass


# (name, users, function) of all tests, in the order in which they were defined.
TESTS = []


def test(*users):
    """Marks a test; its name is the function's, with dashes. It is called with (servers, corpus, a new
    directory outside of the mail root, and each of `users`, who have no mail yet)."""
    def add(function):
        TESTS.append((function.__name__.replace("_", "-"), users, function))
        return function
    return add
