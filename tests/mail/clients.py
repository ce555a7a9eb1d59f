# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/mail/clients.py - other programs that work on a Maildir of their own: mbsync, mutt, notmuch."""

import os
import pty
import select
import signal
import time

from mailtest import (DEADLINE, Failed, equal, expect, maildir_deliver, maildir_files, maildir_flags,
                      maildir_messages, read, same_messages, test)


# Their directory in the mail root.
CLIENTS = "clients.test"


def write(path, text):
    with open(path, "w") as f:
        f.write(text)
    return path


def own_maildir(servers, name):
    """A new directory in the mail root."""
    path = os.path.join(servers.mailroot, CLIENTS, name)
    os.makedirs(path)
    return path


@test("sync@virt.test")
def mbsync(servers, corpus, scratch, user):
    """A Maildir kept in step with a mailbox over IMAP, in both directions."""
    # The messages have to differ: they are told apart by what they hold.
    sent = [b"X-Number: %d\n" % i + data for i, data in enumerate(corpus.some_complete(20))]
    with servers.imap(user) as imap:
        imap.command("create", "lists")
        for i, data in enumerate(sent[:10]):
            imap.append("INBOX" if i < 7 else "lists", data, "\\Seen" if i % 2 else "")
    local = own_maildir(servers, "mbsync")
    conf = write(os.path.join(scratch, "mbsyncrc"), """\
IMAPAccount a
Host 127.0.0.1
Port %d
User %s
Pass %s
SSLType None
AuthMechs LOGIN

IMAPStore far
Account a

MaildirStore near
Path %s/
Inbox %s/INBOX
SubFolders Verbatim

Channel c
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
SyncState *
""" % (servers.port("IMAP"), user, servers.env["MAIL_PASSWORD"], local, local))

    def sync():
        servers.command("mbsync", "-c", conf, "-a")

    def both():
        """(messages, flags) of both sides have to be equal; returns the messages of INBOX."""
        for name, maildir in (("INBOX", "INBOX"), ("lists", "lists")):
            near = {read(f): maildir_flags(f) for f in maildir_files(os.path.join(local, maildir))}
            with servers.imap(user) as imap:
                imap.select(name)
                flags = imap.flags()
                letters = {"\\Seen": "S", "\\Flagged": "F", "\\Answered": "R"}
                far = {b: "".join(sorted(letters[f] for f in flags[u])) for u, b in imap.bodies().items()}
            same_messages([without_tuid(b) for b in near], [without_tuid(b) for b in far], name)
            equal(sorted(near.values()), sorted(far.values()), name + ": flags")
        return own_messages(os.path.join(local, "INBOX"))

    sync()
    same_messages(both(), sent[:7], "INBOX")
    same_messages(own_messages(os.path.join(local, "lists")), sent[7:10], "lists")

    # Changes on both sides: new messages, flags, a deletion.
    for i, data in enumerate(sent[10:15]):
        maildir_deliver(os.path.join(local, "INBOX"), data, "%d.near%d.test" % (1_700_000_000 + i, i))
    names = {without_tuid(read(f)): f for f in maildir_files(os.path.join(local, "INBOX"))}
    gone, marked = names[sent[0]], names[sent[1]]
    for path, letter in ((gone, "T"), (marked, "F")):
        base = os.path.basename(path).partition(":2,")[0]
        flags = "".join(sorted(maildir_flags(path) + letter))
        os.rename(path, os.path.join(local, "INBOX", "cur", base + ":2," + flags))
    with servers.imap(user) as imap:
        for data in sent[15:]:
            imap.append("INBOX", data)
        imap.select()
        uids = {without_tuid(b): u for u, b in imap.bodies().items()}
        imap.store(str(uids[sent[2]]), "+FLAGS", "\\Answered")
        imap.store(str(uids[sent[3]]), "+FLAGS", "\\Deleted")
        imap.expunge()
    sync()
    same_messages(both(), sent[1:3] + sent[4:7] + sent[10:], "INBOX after changes on both sides")
    flags = {without_tuid(read(f)): maildir_flags(f) for f in maildir_files(os.path.join(local, "INBOX"))}
    equal(("F" in flags[sent[1]], "R" in flags[sent[2]]), (True, True), "flags after changes on both sides")

    # Nothing left to do.
    before = sorted(maildir_files(os.path.join(local, "INBOX")))
    sync()
    equal(sorted(maildir_files(os.path.join(local, "INBOX"))), before, "files after one more run")


def without_tuid(data):
    """A message without the header field that mbsync adds to recognise its own uploads."""
    head, sep, body = data.partition(b"\n\n")
    lines = [line for line in head.split(b"\n") if not line.startswith(b"X-TUID: ")]
    return b"\n".join(lines) + sep + body


def own_messages(maildir):
    return [without_tuid(data) for data in maildir_messages(maildir)]


def on_terminal(argv, env, deadline=DEADLINE):
    """Runs a program that wants a terminal until it ends; returns what it wrote there."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execvpe(argv[0], argv, {**os.environ, "TERM": "xterm", **env})
    seen, end = b"", time.monotonic() + deadline
    try:
        while time.monotonic() < end:
            if select.select([fd], [], [], 0.1)[0]:
                try:
                    seen += os.read(fd, 65536)
                except OSError:  # the terminal has been closed: it ended
                    _, status = os.waitpid(pid, 0)
                    pid = 0
                    expect(status == 0, "%s: status %d: %r" % (argv[0], status, seen[-300:]))
                    return seen
        raise Failed("%s does not end: %r" % (argv[0], seen[-300:]))
    finally:
        os.close(fd)
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@test()
def mutt(servers, corpus, scratch):
    """mutt reads all messages, flags one, deletes one, and copies some to another Maildir."""
    maildir = own_maildir(servers, "mutt")
    sent = list(dict.fromkeys(corpus.some_complete(16)))
    for i, data in enumerate(sent):
        maildir_deliver(maildir, data, "%d.mutt%d.test" % (1_700_000_000 + i, i))
    other = os.path.join(servers.mailroot, CLIENTS, "mutt-copy")
    pipe = write(os.path.join(scratch, "pipe"), "#!/bin/sh\nexec cat >$(mktemp %s/seen.XXXXXX)\n" % scratch)
    os.chmod(pipe, 0o755)
    rc = write(os.path.join(scratch, "muttrc"), """\
set sort=mailbox-order mbox_type=Maildir folder=%s
set quit=yes delete=yes confirmappend=no confirmcreate=no wait_key=no move=no mark_old=no
set pipe_split=yes pipe_decode=no pipe_sep='' copy=no header_cache= tmpdir=%s
set maildir_trash=no auto_tag=no
""" % (servers.mailroot, scratch))
    keys = ("<tag-pattern>~A<enter><tag-prefix><pipe-message>%s<enter>"
            "<tag-prefix><copy-message>%s<enter>"
            "<first-entry><flag-message><first-entry><next-entry><delete-message><quit>") % (pipe, other)
    on_terminal(["mutt", "-n", "-F", rc, "-f", maildir, "-e", "push '%s'" % keys], {"HOME": scratch})
    seen = [read(os.path.join(scratch, n)) for n in os.listdir(scratch) if n.startswith("seen.")]
    same_messages(seen, sent, "what mutt read")
    flags = sorted(maildir_flags(f) for f in maildir_files(maildir))
    equal(len(flags), len(sent) - 1, "messages after one was deleted")
    equal(sum("F" in f for f in flags), 1, "flagged messages")
    left = maildir_messages(maildir)
    same_messages(left, [m for m in sent if m in left], "what is left")
    equal(len(maildir_files(other)), len(sent), "copies")


@test()
def notmuch(servers, corpus, scratch):
    """notmuch indexes a Maildir, hands out its messages, and turns tags into flags (renames)."""
    maildir = own_maildir(servers, "notmuch")
    # It tells messages apart by their Message-ID.
    sent = []
    for i, data in enumerate(corpus.some(20)):
        sent.append(b"Message-ID: <notmuch-%d@example.org>\n" % i +
                    b"\n".join(line for line in data.split(b"\n") if not line.lower().startswith(b"message-id:")))
        maildir_deliver(os.path.join(maildir, "inbox"), sent[i], "%d.nm%d.test" % (1_700_000_000 + i, i))
    database = os.path.join(scratch, "database")
    os.mkdir(database)
    conf = write(os.path.join(scratch, "notmuch-config"), """\
[database]
path=%s
mail_root=%s
[user]
name=Ada
primary_email=ada@example.org
[new]
tags=unread
[maildir]
synchronize_flags=true
""" % (database, maildir))

    def notmuch_run(*args):
        return servers.command("notmuch", "--config=" + conf, *args)

    notmuch_run("new")
    equal(int(notmuch_run("count", "--output=files", "*")), len(sent), "files indexed")
    for i, data in enumerate(sent):
        equal(notmuch_run("show", "--format=raw", "id:notmuch-%d@example.org" % i), data, "message %d" % i)
    notmuch_run("tag", "-unread", "+flagged", "--", "id:notmuch-3@example.org or id:notmuch-4@example.org")
    marked = {read(f) for f in maildir_files(os.path.join(maildir, "inbox")) if maildir_flags(f) == "FS"}
    equal(marked, {sent[3], sent[4]}, "messages with flags FS")
    # A flag changed and a message removed behind its back.
    path = next(f for f in maildir_files(os.path.join(maildir, "inbox")) if read(f) == sent[3])
    os.rename(path, path.replace(":2,FS", ":2,RS"))
    os.unlink(next(f for f in maildir_files(os.path.join(maildir, "inbox")) if read(f) == sent[5]))
    notmuch_run("new")
    equal(notmuch_run("search", "--output=messages", "tag:replied").split(), [b"id:notmuch-3@example.org"], "replied")
    equal(int(notmuch_run("count", "--output=files", "*")), len(sent) - 1, "files after a removal")
