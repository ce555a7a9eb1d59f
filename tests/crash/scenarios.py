# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/crash/scenarios.py - what is going on when the daemon dies. Each: what is there before, and the steps."""

import os

import model
from model import (append, mkdir, move_dir, publish_by_link, rename, rmdir, sync_dir, unlink, write_file)


def body(name, size=3000):
    return (b"Subject: %s\n\n" % name.encode()) + (name.encode() * (size // len(name)))


class Scenario:
    def __init__(self, name, dirs=(), files=None, steps=()):
        self.name, self.steps = name, []
        for step in steps:
            self.steps += step if isinstance(step, list) else [step]
        self.initial = model.State(dirs, {path: (data, data) for path, data in (files or {}).items()})

    def prepare(self, root):
        """Makes the state before the first step."""
        for path in sorted(self.initial.dirs):
            os.mkdir(os.path.join(root, path), 0o700)
        for path, (data, _) in self.initial.files.items():
            folder, name = os.path.split(path)
            box, part = os.path.split(folder)
            tmp = os.path.join(root, box, "tmp", name) if part in ("cur", "new") else os.path.join(root, path)
            fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, data)
            os.fsync(fd)
            os.close(fd)
            if part in ("cur", "new"):
                os.rename(tmp, os.path.join(root, path))


def maildir(path):
    return [path, path + "/cur", path + "/new", path + "/tmp"]


def across_maildirs():
    """The message's header says that it was made in A, and it is in B."""
    return Scenario("deliver-across-maildirs", maildir("A") + maildir("B"), {}, [
        write_file("A/tmp/3.a", body("across")), rename("A/tmp/3.a", "B/new/3.a"), sync_dir("B/new")])


def to_removed_folder():
    """The message goes from M to F, which will be removed."""
    return Scenario("move-to-removed-folder", maildir("F") + maildir("M"), {"M/cur/1.old:2,": body("old")}, [
        rename("M/cur/1.old:2,", "F/cur/1.old:2,"), sync_dir("F/cur"), sync_dir("M/cur")])


def scenarios():
    """By name."""
    old = {"M/cur/1.old:2,": body("old"), "M/cur/2.old:2,S": body("older")}
    big = body("big", 9 << 20)
    found = [
        Scenario("postfix-delivery", maildir("M"), old, [
            write_file("M/tmp/3.p", body("post")), publish_by_link("M/tmp/3.p", "M/new/3.p"), unlink("M/tmp/3.p")]),
        Scenario("dovecot-delivery", maildir("M"), old, [
            write_file("M/tmp/3.d", body("dove")), rename("M/tmp/3.d", "M/new/3.d"), sync_dir("M/new")]),
        Scenario("large-delivery", maildir("M"), {}, [
            write_file("M/tmp/3.b", big), rename("M/tmp/3.b", "M/new/3.b"), sync_dir("M/new")]),
        Scenario("delivery-and-fetch", maildir("M"), {}, [
            write_file("M/tmp/3.f", body("fetch")), publish_by_link("M/tmp/3.f", "M/new/3.f"), unlink("M/tmp/3.f"),
            rename("M/new/3.f", "M/cur/3.f:2,"), rename("M/cur/3.f:2,", "M/cur/3.f:2,S"), sync_dir("M/cur")]),
        Scenario("new-folder-delivery", maildir("M"), {}, [
            mkdir("M/.Sub"), mkdir("M/.Sub/cur"), mkdir("M/.Sub/new"), mkdir("M/.Sub/tmp"),
            write_file("M/.Sub/tmp/1.n", body("new")), publish_by_link("M/.Sub/tmp/1.n", "M/.Sub/new/1.n"),
            unlink("M/.Sub/tmp/1.n")]),
        Scenario("flag-change", maildir("M"), old, [
            rename("M/cur/1.old:2,", "M/cur/1.old:2,S"), sync_dir("M/cur"),
            rename("M/cur/1.old:2,S", "M/cur/1.old:2,ST"), rename("M/cur/2.old:2,S", "M/cur/2.old:2,FS"),
            sync_dir("M/cur")]),
        Scenario("expunge", maildir("M"), old, [
            unlink("M/cur/1.old:2,"), sync_dir("M/cur"), unlink("M/cur/2.old:2,S"), sync_dir("M/cur")]),
        Scenario("replace-message", maildir("M"), old, [
            write_file("M/tmp/3.r", body("repl")), rename("M/tmp/3.r", "M/cur/1.old:2,"), sync_dir("M/cur")]),
        Scenario("copy-by-link", maildir("M") + maildir("N"), old, [
            publish_by_link("M/cur/1.old:2,", "N/tmp/9.c", durable=False), rename("N/tmp/9.c", "N/cur/9.c:2,"),
            sync_dir("N/cur"), unlink("M/cur/1.old:2,"), sync_dir("M/cur")]),
        Scenario("move-between-maildirs", maildir("M") + maildir("N"), old, [
            rename("M/cur/1.old:2,", "N/cur/1.old:2,"), sync_dir("N/cur"), sync_dir("M/cur")]),
        across_maildirs(),
        Scenario("rename-folder", ["P"] + maildir("P/A"), {"P/A/cur/1.x:2,": body("x"), "P/A/uidlist": body("u", 200)}, [
            move_dir("P/A", "P/B"), sync_dir("P")]),
        Scenario("move-folder", ["P", "Q"] + maildir("P/A"), {"P/A/cur/1.x:2,": body("x"), "P/A/uidlist": body("u", 200)}, [
            move_dir("P/A", "Q/B"), sync_dir("Q"), sync_dir("P")]),
        Scenario("remove-folder", ["P"] + maildir("P/A"), {"P/A/cur/1.x:2,": body("x"), "P/A/uidlist": body("u", 200)}, [
            unlink("P/A/cur/1.x:2,"), unlink("P/A/uidlist"), rmdir("P/A/tmp"), rmdir("P/A/new"), rmdir("P/A/cur"),
            rmdir("P/A"), sync_dir("P")]),
        # As Dovecot removes one: its old name is in RADOS until all is gone.
        Scenario("remove-renamed-folder", ["P"] + maildir("P/A"),
            {"P/A/cur/1.x:2,": body("x"), "P/A/uidlist": body("u", 200)}, [
            move_dir("P/A", "P/B"), unlink("P/B/cur/1.x:2,"), unlink("P/B/uidlist"), rmdir("P/B/tmp"), rmdir("P/B/new"),
            rmdir("P/B/cur"), rmdir("P/B"), sync_dir("P")]),
        Scenario("replace-file", ["P"], {"P/uidlist": body("one", 500)}, [
            write_file("P/uidlist.tmp", body("two", 90000)), rename("P/uidlist.tmp", "P/uidlist"), sync_dir("P")]),
        Scenario("replace-file-unsynced", ["P"], {"P/uidlist": body("one", 90000)}, [
            write_file("P/uidlist.tmp", body("two", 500), sync=False), rename("P/uidlist.tmp", "P/uidlist"), sync_dir("P")]),
        Scenario("move-file", ["P"], {"P/sieve": body("sv", 500)}, [
            mkdir("Q"), rename("P/sieve", "Q/sieve"), append("Q/sieve", body("a", 100)), sync_dir("Q"), sync_dir("P")]),
        Scenario("move-to-new-folder", maildir("M"), old, [
            mkdir("N"), mkdir("N/cur"), mkdir("N/new"), mkdir("N/tmp"), rename("M/cur/1.old:2,", "N/cur/1.old:2,"),
            sync_dir("M/cur"), sync_dir("N/cur")]),
        Scenario("move-folder-into-new", ["P"] + maildir("P/A"), {"P/A/cur/1.x:2,": body("x")}, [
            mkdir("Q"), move_dir("P/A", "Q/A"), sync_dir("P"), sync_dir("Q")]),
        Scenario("copy-to-new-folder", maildir("M"), old, [
            mkdir("N"), mkdir("N/cur"), mkdir("N/new"), mkdir("N/tmp"),
            publish_by_link("M/cur/1.old:2,", "N/cur/1.old:2,", durable=False), sync_dir("N/cur"),
            unlink("M/cur/1.old:2,"), sync_dir("M/cur")]),
        Scenario("append", ["P"], {"P/log": body("log", 300)}, [
            append("P/log", body("a", 100)), append("P/log", body("b", 70000)), append("P/log", body("c", 50))]),
        Scenario("dotlock", ["P"], {"P/uidlist": body("one", 500)}, [
            write_file("P/uidlist.lock", b"me", sync=False), append("P/uidlist", body("two", 100)), unlink("P/uidlist.lock"),
            sync_dir("P")]),
    ]
    return {s.name: s for s in found}
