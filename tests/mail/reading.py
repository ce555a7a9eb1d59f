# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/mail/reading.py - Dovecot's IMAP, POP3 and doveadm on a Maildir."""

import os
import threading

from mailtest import (DEADLINE, crlf, equal, expect, maildir_deliver, maildir_files, maildir_flags, maildir_messages,
                      read, same_messages, test, wait_for)


def filled(servers, corpus, user, count):
    """A new user with `count` messages, delivered and seen by Dovecot once. Returns what was sent."""
    sent = corpus.some(count)
    with servers.imap(user) as imap:
        for data in sent:
            imap.append("INBOX", data)
    return sent


@test("append@virt.test")
def imap_append(servers, corpus, scratch, user):
    start = 1_700_000_000
    with servers.imap(user) as imap:
        for i, data in enumerate(corpus.messages):
            imap.append("INBOX", data, "\\Seen \\Flagged" if i % 2 else "", start + 60 * i)
        equal(imap.select(), len(corpus.messages), "messages")
        bodies, flags, dates = imap.bodies(), imap.flags(), imap.dates()
    uids = sorted(bodies)
    equal([bodies[u] for u in uids], corpus.messages, "bodies")
    equal([flags[u] for u in uids], [{"\\Seen", "\\Flagged"} if i % 2 else set() for i in range(len(uids))], "flags")
    equal([dates[u] for u in uids], [start + 60 * i for i in range(len(uids))], "dates")
    # A new session, and the files.
    with servers.imap(user) as imap:
        imap.select()
        equal(imap.bodies(), bodies, "bodies in a new session")
    same_messages(maildir_messages(servers.maildir(user)), corpus.messages, "files")
    seen = [f for f in maildir_files(servers.maildir(user), ("cur",)) if maildir_flags(f) == "FS"]
    equal(len(seen), len(uids) // 2, "files with flags FS")
    for path in seen:
        mtime = os.stat(path).st_mtime
        expect(mtime >= start and (mtime - start) % 60 == 0, "%s: mtime %f is not the date given" % (path, mtime))


@test("store@virt.test")
def imap_store(servers, corpus, scratch, user):
    sent = filled(servers, corpus, user, 20)
    wanted = {}
    with servers.imap(user) as imap:
        imap.select()
        uids = imap.uids()
        for i, uid in enumerate(uids):
            names = [n for k, n in enumerate(("\\Seen", "\\Answered", "\\Flagged", "\\Draft", "keyword"))
                     if (i + 1) >> k & 1]
            if names:
                imap.store(str(uid), "FLAGS", " ".join(names))
            wanted[uid] = set(names)
        equal(imap.flags(), wanted, "flags")
        imap.store("1:*", "-FLAGS", "\\Draft")
        wanted = {u: f - {"\\Draft"} for u, f in wanted.items()}
        equal(imap.flags(), wanted, "flags, one removed")
    with servers.imap(user) as imap:
        imap.select()
        equal(imap.flags(), wanted, "flags in a new session")
        equal(sorted(imap.uids("KEYWORD keyword")), sorted(u for u, f in wanted.items() if "keyword" in f), "keyword")
    letters = {"\\Seen": "S", "\\Answered": "R", "\\Flagged": "F", "keyword": "a"}
    equal(sorted(maildir_flags(f) for f in maildir_files(servers.maildir(user))),
          sorted("".join(sorted(letters[n] for n in f)) for f in wanted.values()), "flags in the files' names")
    same_messages(maildir_messages(servers.maildir(user)), sent, "files")


@test("expunge@virt.test")
def imap_expunge(servers, corpus, scratch, user):
    sent = filled(servers, corpus, user, 20)
    with servers.imap(user) as imap, servers.imap(user) as other:
        imap.select()
        other.select()
        uids = imap.uids()
        imap.store(",".join(map(str, uids[::2])), "+FLAGS.SILENT", "\\Deleted")
        imap.expunge()
        equal(imap.uids(), uids[1::2], "what is left")
        # A session that was open before notices.
        other.ok(other.conn.noop(), "NOOP")
        equal(other.uids(), uids[1::2], "what is left for the other session")
        equal(list(other.bodies().values()), sent[1::2], "bodies")
    same_messages(maildir_messages(servers.maildir(user)), sent[1::2], "files")


@test("copy@virt.test")
def imap_copy_move(servers, corpus, scratch, user):
    sent = filled(servers, corpus, user, 20)
    maildir = servers.maildir(user)
    with servers.imap(user) as imap:
        imap.command("create", "Archive")
        imap.select()
        uids = imap.uids()
        imap.store(str(uids[0]), "+FLAGS", "\\Answered")
        imap.uid("COPY", "1:*", '"Archive"')
        imap.uid("MOVE", ",".join(map(str, uids[10:])), '"Archive"')
        equal(imap.uids(), uids[:10], "what is left")
        same_messages(maildir_messages(maildir), sent[:10], "INBOX")
        same_messages(maildir_messages(os.path.join(maildir, ".Archive")), sent + sent[10:], "Archive")
        imap.select("Archive")
        bodies = imap.bodies()
        equal([bodies[u] for u in sorted(bodies)], sent + sent[10:], "bodies")
        equal(imap.flags()[min(bodies)], {"\\Answered"}, "the flags of a copy")
        # A copy is a message of its own.
        imap.store("1:*", "+FLAGS", "\\Deleted")
        imap.expunge()
        imap.select()
        same_messages(list(imap.bodies().values()), sent[:10], "INBOX after the copies have gone")
    equal(maildir_files(os.path.join(maildir, ".Archive")), [], "files of the expunged copies")


@test("boxes@virt.test")
def imap_mailboxes(servers, corpus, scratch, user):
    sent = filled(servers, corpus, user, 6)
    names = ["a", "a/b", "a/b/c", "a/d", "With space", "Entw\u00fcrfe".encode("utf-7").decode().replace("+", "&")]
    with servers.imap(user) as imap:
        for name in names:
            imap.command("create", name)
            imap.command("subscribe", name)
            imap.append(name, sent[len(name) % len(sent)])
        equal(imap.list(), sorted(names + ["INBOX"]), "LIST")
        equal(imap.list("%"), sorted([n for n in names if "/" not in n] + ["INBOX"]), "LIST %")
        equal(imap.list("a/%"), ["a/b", "a/d"], "LIST a/%")
        equal(imap.list("*", "lsub"), sorted(names), "LSUB")
        # The names below move along; the messages stay what they are.
        imap.command("rename", "a", "z/y")
        moved = ["z/y" + n[1:] if n[0] == "a" else n for n in names]
        equal(imap.list(), sorted(moved + ["INBOX"] + ["z"] * ("z" in imap.list())), "LIST after RENAME")
        for old, new in zip(names, moved):
            equal(imap.select(new), 1, new)
            equal(list(imap.bodies().values()), [sent[len(old) % len(sent)]], new)
        imap.select()
        for name in sorted(moved, reverse=True):
            imap.command("delete", name)
        equal([n for n in imap.list() if n != "z"], ["INBOX"], "LIST after DELETE")
        # A name that was deleted can be made again, and is empty.
        imap.command("create", "a/b")
        equal(imap.select("a/b"), 0, "a/b, made again")
    equal(sorted(n for n in os.listdir(servers.maildir(user)) if n.startswith(".a")), [".a.b"], "directories")


@test("idle@lmtp.test")
def imap_idle(servers, corpus, scratch, user):
    """A delivery and another session's changes wake an idling one at once: inotify."""
    sent = filled(servers, corpus, user, 3)
    with servers.imap(user) as idler, servers.imap(user) as other:
        idler.select()
        idler.idle()
        servers.send_lmtp([user], [sent[0]])
        idler.idle_wait(rb"\* 4 EXISTS")
        other.select()
        other.store(str(other.uids()[1]), "+FLAGS", "\\Flagged")
        idler.idle_wait(rb"\* 2 FETCH .*\\Flagged")
        other.store(str(other.uids()[0]), "+FLAGS", "\\Deleted")
        other.expunge()
        idler.idle_wait(rb"\* 1 EXPUNGE")
        maildir_deliver(servers.maildir(user), sent[1], "1700000000.idle.test")
        idler.idle_wait(rb"\* 4 EXISTS")
        idler.idle_done()


@test("busy@lmtp.test")
def imap_parallel(servers, corpus, scratch, user):
    """Sessions that append, flag and expunge in one mailbox, and deliveries into it, all at once."""
    sent = corpus.some(16)
    failures = []

    def session(number):
        with servers.imap(user) as imap:
            imap.select()
            for data in sent:
                imap.append("INBOX", data, "s%d" % number)
                mine = imap.uids("KEYWORD s%d" % number)
                imap.store(str(mine[-1]), "+FLAGS", "\\Seen")
            mine = imap.uids("KEYWORD s%d" % number)
            equal(len(mine), len(sent), "own messages of session %d" % number)
            imap.store(",".join(map(str, mine[::2])), "+FLAGS", "\\Deleted")
            imap.expunge()

    def deliverer():
        servers.send_lmtp([user], sent)

    def guarded(function, *args):
        try:
            function(*args)
        except Exception as error:  # told to the test below
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(session, n)) for n in range(4)]
    threads.append(threading.Thread(target=guarded, args=(deliverer,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(failures, [], "failures")
    left = 4 * sent[1::2] + sent
    with servers.imap(user) as imap:
        equal(imap.select(), len(left), "messages")
        same_messages(list(imap.bodies().values()), left, "bodies", delivered=True)
        equal(len(imap.uids("SEEN")), 4 * len(sent[1::2]), "flagged messages")
    same_messages(maildir_messages(servers.maildir(user)), left, "files", delivered=True)


@test("pop@virt.test")
def pop3(servers, corpus, scratch, user):
    sent = corpus.some(20)
    for i, data in enumerate(sent):
        maildir_deliver(servers.maildir(user), data, "%d.M%d.test" % (1_700_000_000 + i, i))
    servers.command("chown", "-R", "5000:5000", os.path.dirname(servers.maildir(user)))

    def retrieve(session, number):
        return b"".join(line + b"\n" for line in session.retr(number)[1])

    session = servers.pop3(user)
    equal(session.stat(), (len(sent), sum(len(crlf(m)) for m in sent)), "STAT")
    equal([int(line.split()[1]) for line in session.list()[1]], [len(crlf(m)) for m in sent], "LIST")
    names = [line.split()[1] for line in session.uidl()[1]]
    equal(len(set(names)), len(sent), "UIDL")
    for i, data in enumerate(sent):
        equal(retrieve(session, i + 1), data, "RETR %d" % (i + 1))
    head = b"".join(line + b"\n" for line in session.top(1, 0)[1])
    expect(sent[0].startswith(head.rstrip(b"\n")) and head.count(b"\n") > 3, "TOP")
    for i in range(0, len(sent), 2):
        session.dele(i + 1)
    session.quit()

    session = servers.pop3(user)
    equal(session.stat()[0], len(sent) // 2, "STAT after DELE")
    equal([line.split()[1] for line in session.uidl()[1]], names[1::2], "UIDL after DELE")
    for i, data in enumerate(sent[1::2]):
        equal(retrieve(session, i + 1), data, "RETR %d after DELE" % (i + 1))
    # What a session that was not ended with QUIT deleted stays.
    session.dele(1)
    session.close()
    wait_for(lambda: len(maildir_files(servers.maildir(user))) == len(sent) // 2, "files", 5)
    same_messages(maildir_messages(servers.maildir(user)), sent[1::2], "files")


@test("resync@virt.test")
def doveadm_force_resync(servers, corpus, scratch, user):
    sent = filled(servers, corpus, user, 20)
    maildir = servers.maildir(user)
    with servers.imap(user) as imap:
        imap.select()
        imap.store("1:5", "+FLAGS", "\\Flagged")
        uids, flags = imap.uids(), imap.flags()
    servers.doveadm("force-resync", "-u", user, "*")
    with servers.imap(user) as imap:
        imap.select()
        equal((imap.uids(), imap.flags()), (uids, flags), "UIDs and flags after a resync")
    # Without its index Dovecot finds the same UIDs in dovecot-uidlist, the flags in the names.
    indexes = [n for n in os.listdir(maildir) if n.startswith("dovecot.index")]
    expect(indexes, "Dovecot has no index")
    for name in indexes:
        os.unlink(os.path.join(maildir, name))
    servers.doveadm("force-resync", "-u", user, "*")
    with servers.imap(user) as imap:
        imap.select()
        equal((imap.uids(), imap.flags()), (uids, flags), "UIDs and flags without an index")
        equal(list(imap.bodies().values()), sent, "bodies")
    # Without the UID list all is found again, too.
    os.unlink(os.path.join(maildir, "dovecot-uidlist"))
    servers.doveadm("force-resync", "-u", user, "*")
    with servers.imap(user) as imap:
        equal(imap.select(), len(sent), "messages without a UID list")
        same_messages(list(imap.bodies().values()), sent, "bodies without a UID list")
        equal(len(imap.uids("FLAGGED")), 5, "flagged messages")


@test("backup@virt.test", "restored@virt.test")
def doveadm_backup(servers, corpus, scratch, user, other):
    """A mailbox tree copied by Dovecot's dsync to a directory elsewhere and back into a new user."""
    sent = filled(servers, corpus, user, 12)
    with servers.imap(user) as imap:
        imap.command("create", "deep/er")
        imap.select()
        imap.uid("COPY", "1:3", '"deep/er"')
    os.chmod(scratch, 0o755)
    copy = os.path.join(scratch, "copy")
    os.mkdir(copy)
    os.chown(copy, 5000, 5000)
    servers.doveadm("backup", "-u", user, "maildir:" + copy)
    same_messages(maildir_messages(copy), sent, "the copy")
    servers.doveadm("backup", "-R", "-u", other, "maildir:" + copy)
    same_messages(maildir_messages(servers.maildir(other)), sent, "the restored INBOX")
    same_messages(maildir_messages(os.path.join(servers.maildir(other), ".deep.er")), sent[:3], "the restored deep/er")
    with servers.imap(user) as one, servers.imap(other) as two:
        one.select()
        two.select()
        equal((two.uids(), two.bodies()), (one.uids(), one.bodies()), "UIDs and bodies")


@test("search@virt.test")
def doveadm_purge_search(servers, corpus, scratch, user):
    """Full-text search reads every message; expunging by search empties the mailbox."""
    needle = b"X-Needle: unlikely-word-%d-in-a-haystack\n"
    with servers.imap(user) as imap:
        for i, data in enumerate(corpus.some(12)):
            imap.append("INBOX", needle % (i % 3) + data)
        imap.select()
        for k in range(3):
            equal(len(imap.uids('TEXT "%s"' % (needle % k)[10:-1].decode())), 4, "messages found by their text")
    servers.doveadm("expunge", "-u", user, "mailbox", "INBOX", "all")
    equal(maildir_files(servers.maildir(user)), [], "files")
    wait_for(lambda: not os.listdir(os.path.join(servers.maildir(user), "tmp")), "an empty tmp", DEADLINE)
    expect(read(os.path.join(servers.maildir(user), "dovecot-uidlist")).count(b"\n") >= 1, "dovecot-uidlist is empty")
