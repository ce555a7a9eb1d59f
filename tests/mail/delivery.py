# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/mail/delivery.py - each way in which Postfix and Dovecot deliver into a Maildir."""

import os
import pwd
import stat
import threading

from mailtest import equal, expect, maildir_files, maildir_messages, same_messages, test, wait_for


def check_maildir(maildir, sent, uid, gid, what):
    """All of `sent` lies in new/, owned by uid:gid, for nobody else; nothing is left in tmp/."""
    def arrived():
        return len(maildir_files(maildir)) >= len(sent) and not os.listdir(os.path.join(maildir, "tmp"))
    wait_for(arrived, "%s: %d messages in new" % (what, len(sent)))
    same_messages(maildir_messages(maildir), sent, what, delivered=True)
    for path in maildir_files(maildir):
        st = os.stat(path)
        equal((st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)), (uid, gid, 0o600), path)
        expect(stat.S_ISREG(st.st_mode), path + " is no file")
    equal(os.listdir(os.path.join(maildir, "cur")), [], what + ": cur")


def check_imap(servers, user, sent, what):
    with servers.imap(user) as imap:
        equal(imap.select(), len(sent), what + " over IMAP")
        same_messages(list(imap.bodies().values()), sent, what + " over IMAP", delivered=True)


@test("virtual@virt.test")
def postfix_virtual(servers, corpus, scratch, user):
    servers.send(user, corpus.messages)
    check_maildir(servers.maildir(user), corpus.messages, 5000, 5000, "virtual(8)")
    check_imap(servers, user, corpus.messages, "virtual(8)")


@test()
def postfix_local(servers, corpus, scratch):
    user = servers.env["MAIL_LOCAL_USER"]
    owner = pwd.getpwnam(user)
    servers.send(user + "@local.test", corpus.messages)
    check_maildir(servers.maildir(user), corpus.messages, owner.pw_uid, owner.pw_gid, "local(8)")
    check_imap(servers, user, corpus.messages, "local(8)")


@test(*["many%d@virt.test" % i for i in range(8)])
def postfix_many_recipients(servers, corpus, scratch, *users):
    sent = corpus.some(10)
    # One message at a time to all: the deliveries of each run in parallel.
    servers.send(users, sent)
    for user in users:
        check_maildir(servers.maildir(user), sent, 5000, 5000, user)


@test("parallel@virt.test")
def postfix_parallel(servers, corpus, scratch, user):
    """Several senders into one mailbox at the same time."""
    sent = corpus.some(40)
    failures = []

    def sender(part):
        try:
            servers.send(user, part)
        except Exception as error:  # told to the test below
            failures.append(error)

    threads = [threading.Thread(target=sender, args=(sent[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(failures, [], "senders")
    check_maildir(servers.maildir(user), sent, 5000, 5000, "parallel deliveries")


@test("lmtp@lmtp.test")
def postfix_to_lmtp(servers, corpus, scratch, user):
    servers.send(user, corpus.messages)
    check_maildir(servers.maildir(user), corpus.messages, 5000, 5000, "Postfix and LMTP")
    check_imap(servers, user, corpus.messages, "Postfix and LMTP")


@test("twin1@lmtp.test", "twin2@lmtp.test")
def lmtp_two_recipients(servers, corpus, scratch, *users):
    """Dovecot saves once and copies (hard links) for the second recipient."""
    sent = corpus.some(10)
    servers.send_lmtp(users, sent)
    for user in users:
        check_maildir(servers.maildir(user), sent, 5000, 5000, user)
        check_imap(servers, user, sent, user)
    # One's copy outlives the other's.
    with servers.imap(users[0]) as imap:
        imap.select()
        imap.store("1:*", "+FLAGS", "\\Deleted")
        imap.expunge()
    equal(maildir_files(servers.maildir(users[0])), [], "the expunged copies")
    same_messages(maildir_messages(servers.maildir(users[1])), sent, "the other recipient's copies", delivered=True)


@test("lda@virt.test")
def dovecot_lda(servers, corpus, scratch, user):
    sent = corpus.some(20)
    lda = ["/usr/lib/dovecot/dovecot-lda", "-c", servers.env["MAIL_DOVECOT_CONF"], "-d", user, "-f", "sender@virt.test"]
    for data in sent:
        servers.command(*lda, data=data)
    check_maildir(servers.maildir(user), sent, 5000, 5000, "dovecot-lda")
    # Into a nested mailbox, which it has to make first.
    for data in sent[:5]:
        servers.command(*lda, "-o", "lda_mailbox_autocreate=yes", "-m", "lists/boats", data=data)
    folder = os.path.join(servers.maildir(user), ".lists.boats")
    check_maildir(folder, sent[:5], 5000, 5000, "dovecot-lda into a mailbox")
    with servers.imap(user) as imap:
        equal(imap.select("lists/boats"), 5, "lists/boats")
        same_messages(list(imap.bodies().values()), sent[:5], "lists/boats", delivered=True)
