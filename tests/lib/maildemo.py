# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/lib/maildemo.py - the mail client of scripts/demo, and its look into the pools.

usage: maildemo.py send NODE USER | compare USER... | idle NODE OTHER USER | logs | pools --state DIR [--fs FS]

Of each node, DIR/NODE/mail is the mount and DIR/NODE/servers belongs to lib/mail.sh. DIR/ceph belongs to dev-ceph.
"""

import argparse
import collections
import os
import re
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import mailtest  # noqa: E402
from mailtest import equal, expect, wait_for  # noqa: E402


NODES = ("alpha", "beta")


def servers_of(args, node):
    servers = mailtest.Servers(os.path.join(args.state, node, "servers"), os.path.join(args.state, node, "mail"))
    servers.load_env()
    return servers


def summary(args, text):
    """A line for the end of the demo."""
    with open(os.path.join(args.state, "summary"), "a") as f:
        f.write(text + "\n")


def send(args):
    corpus = mailtest.Corpus()
    node, user = args.words
    servers = servers_of(args, node)
    new = os.path.join(servers.maildir(user), "new")
    before = len(os.listdir(new)) if os.path.isdir(new) else 0
    started = time.monotonic()
    servers.send(user, corpus.messages)
    wait_for(lambda: os.path.isdir(new) and len(os.listdir(new)) == before + len(corpus.messages), "all in " + new)
    seconds = time.monotonic() - started
    summary(args, "sent to %s through %s: %d messages, %d bytes, in %.2f s" % (
        user, node, len(corpus.messages), sum(map(len, corpus.messages)), seconds))


def compare(args):
    # All were sent once through each node.
    sent = mailtest.Corpus().messages * len(NODES)
    for user in args.words:
        found = []
        for node in NODES:
            with servers_of(args, node).imap(user) as imap:
                started = time.monotonic()
                equal(imap.select(), len(sent), "%s on %s: messages" % (user, node))
                found.append(imap.bodies())
                seconds = time.monotonic() - started
            mailtest.same_messages(list(found[-1].values()), sent, "%s on %s" % (user, node), delivered=True)
            summary(args, "read by %s on %s over IMAP: %d messages in %.2f s, the same byte for byte but for the header "
                    "fields that delivery adds" % (user, node, len(found[-1]), seconds))
        expect(found[0] == found[1], "%s: other UIDs on %s than on %s" % (user, *NODES))


def idle(args):
    node, other, user = args.words
    with servers_of(args, node).imap(user) as imap:
        count = imap.select()
        imap.idle()
        servers_of(args, other).send(user, [b"Subject: wake up\n\nnow\n"])
        delivered = time.monotonic()
        # Long before Dovecot looks by itself.
        imap.idle_wait(rb"\* %d EXISTS" % (count + 1), deadline=5)
        seconds = time.monotonic() - delivered
        imap.idle_done()
    summary(args, "IDLE on %s told %s of a message %.2f s after the end of SMTP DATA on %s; 0.50 s of it is Dovecot's own "
            "delay" % (node, user, seconds, other))


def logs(args):
    lines = [line for node in NODES for line in servers_of(args, node).log_lines()]
    for node in NODES:
        with open(os.path.join(args.state, node, "mailfs.log"), errors="replace") as f:
            lines += [line.strip() for line in f if re.search(r"^\S+ \S+ (warning|error|fatal): ", line)]
    expect(not lines, "\n".join(lines))


KINDS = (
    ("super", "the filesystem"),
    ("members", "the nodes, and those before them"),
    ("node.", "a mounted node, watched"),
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

    root = os.path.join(args.state, NODES[0], "mail")
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
    parser.add_argument("words", nargs="*")
    parser.add_argument("--state", required=True)
    parser.add_argument("--fs")
    args = parser.parse_args()
    try:
        COMMANDS[args.command](args)
    except mailtest.Failed as error:
        sys.exit("%s: %s" % (args.command, error))


if __name__ == "__main__":
    main()
