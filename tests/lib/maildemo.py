# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/lib/maildemo.py - the mail client of scripts/demo, and its look into the pools.

usage: maildemo.py send USER | compare USER... | idle USER | logs | pools --state DIR [--fs FS]

DIR/mail is the mount, DIR/servers belongs to lib/mail.sh, DIR/ceph to dev-ceph.
"""

import argparse
import collections
import os
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import mailtest  # noqa: E402
from mailtest import equal, expect, wait_for  # noqa: E402


def servers_of(args):
    servers = mailtest.Servers(os.path.join(args.state, "servers"), os.path.join(args.state, "mail"))
    servers.load_env()
    return servers


def summary(args, text):
    """A line for the end of the demo."""
    with open(os.path.join(args.state, "summary"), "a") as f:
        f.write(text + "\n")


def send(args):
    corpus = mailtest.Corpus()
    user = args.users[0]
    servers = servers_of(args)
    started = time.monotonic()
    servers.send(user, corpus.messages)
    new = os.path.join(servers.maildir(user), "new")
    wait_for(lambda: os.path.isdir(new) and len(os.listdir(new)) == len(corpus.messages), "all in " + new)
    seconds = time.monotonic() - started
    summary(args, "sent to %s: %d messages, %d bytes, in %.2f s" % (
        user, len(corpus.messages), sum(map(len, corpus.messages)), seconds))


def compare(args):
    corpus = mailtest.Corpus()
    for user in args.users:
        with servers_of(args).imap(user) as imap:
            started = time.monotonic()
            equal(imap.select(), len(corpus.messages), user + ": messages")
            bodies = imap.bodies()
            seconds = time.monotonic() - started
        mailtest.same_messages(list(bodies.values()), corpus.messages, user, delivered=True)
        summary(args, "read by %s over IMAP: %d messages in %.2f s, the same byte for byte but for the header "
                "fields that delivery adds" % (user, len(bodies), seconds))


def idle(args):
    user = args.users[0]
    servers = servers_of(args)
    with servers.imap(user) as imap:
        count = imap.select()
        imap.idle()
        # LMTP answers when the message is in the mailbox.
        servers.send_lmtp([user], [b"Subject: wake up\n\nnow\n"])
        delivered = time.monotonic()
        imap.idle_wait(rb"\* %d EXISTS" % (count + 1))
        seconds = time.monotonic() - delivered
        imap.idle_done()
    summary(args, "IDLE told of a delivery after %.2f s (Dovecot itself waits 0.5 s)" % seconds)


def logs(args):
    lines = servers_of(args).log_lines()
    expect(not lines, "\n".join(lines))


KINDS = (
    ("super", "the filesystem"),
    ("members", "the node, and those before it"),
    ("node.", "the mounted node, watched"),
    ("d.", "a directory (a Maildir is one)"),
    ("f.", "a stripe of a plain file"),
    ("m.", "a message"),
)


def pools(args):
    """Objects by kind, and what the messages take against what they hold."""
    import rados  # Debian's; not needed by the rest
    cluster = rados.Rados(conffile=os.path.join(args.state, "ceph", "ceph.conf"), name="client.mailfs")
    cluster.connect()
    found = collections.OrderedDict((prefix, [0, 0]) for prefix, _ in KINDS)
    others = []
    for pool in ("mailfs_meta", "mailfs_data"):
        io = cluster.open_ioctx(pool)
        io.set_namespace(args.fs)
        for item in io.list_objects():
            kind = next((p for p in found if item.key == p or p.endswith(".") and item.key.startswith(p)), None)
            if kind is None:
                others.append(item.key)
                continue
            try:
                found[kind][1] += item.stat()[0]
            except rados.ObjectNotFound:  # the servers go on, and so do removals
                continue
            found[kind][0] += 1
    cluster.shutdown()

    root = os.path.join(args.state, "mail")
    count = plain = 0
    for folder, _, names in os.walk(root):
        if os.path.basename(folder) in ("new", "cur"):
            count += len(names)
            plain += sum(os.stat(os.path.join(folder, name)).st_size for name in names)

    print("In the pools:")
    print("  %-9s %8s %12s" % ("objects", "number", "bytes"))
    for prefix, meaning in KINDS:
        print("  %-9s %8d %12d  %s" % (prefix + ("*" if prefix.endswith(".") else ""), *found[prefix], meaning))
    if others:
        print("  other     %8d %12s  %s" % (len(others), "", " ".join(sorted(others)[:5])))
    stored = found["m."][1]
    print("  %d messages of %d bytes lie in %d bytes: %.0f %%" % (count, plain, stored, 100.0 * stored / max(plain, 1)))


COMMANDS = {"send": send, "compare": compare, "idle": idle, "logs": logs, "pools": pools}


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1])
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("users", nargs="*")
    parser.add_argument("--state", required=True)
    parser.add_argument("--fs")
    args = parser.parse_args()
    try:
        COMMANDS[args.command](args)
    except mailtest.Failed as error:
        sys.exit("%s: %s" % (args.command, error))


if __name__ == "__main__":
    main()
