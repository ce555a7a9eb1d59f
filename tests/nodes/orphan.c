/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files that are open on one node and lose their last name on another: they are there until the last close anywhere.
 * Whoever runs this looks into the pool afterwards: nothing of them is left. */
#include "nodes/nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { SMALL = 5000, LARGE = 9 << 20, MANY = 50 };

static bool publish(int node, const char *name, uint64_t size)
{
	return mf_pattern_write(mf_node_path(node, "M/tmp/one"), size, size, false) == 0 &&
	       renameat(mf_node_fd(node), "M/tmp/one", mf_node_fd(node), name) == 0;
}

static void test_message(int a, int b, uint64_t size, bool warm)
{
	const char *name = "M/cur/one:2,";
	bool ok = publish(b, name, size);
	int fd = openat(mf_node_fd(a), name, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char byte;

	if (warm)
		ok = ok && mf_pattern_verify_fd(fd, size, size) == 0;
	else
		ok = ok && pread(fd, &byte, 1, 0) == 1;
	ok = ok && fd >= 0 && unlinkat(mf_node_fd(b), name, 0) == 0;
	mf_tap_ok(ok, "a message of %llu bytes, open on node %d (%s), unlinked on node %d", (unsigned long long)size, a,
		warm ? "read" : "not read yet", b);
	mf_tap_ok(fstat(fd, &st) == 0 && st.st_nlink == 0 && st.st_size == (off_t)size, "nlink 0, and its size");
	mf_tap_ok(mf_pattern_verify_fd(fd, size, size) == 0, "node %d reads on", a);
	mf_tap_ok(openat(mf_node_fd(a), name, O_RDONLY) < 0 && errno == ENOENT, "but not by name");
	mf_tap_ok(close(fd) == 0, "close");
}

static void test_replaced(int a, int b)
{
	const char *name = "M/cur/replaced:2,";
	bool ok = publish(b, name, SMALL);
	int fd = openat(mf_node_fd(a), name, O_RDONLY | O_CLOEXEC);

	ok = ok && publish(b, name, SMALL * 2);
	mf_tap_ok(ok && mf_pattern_verify_fd(fd, SMALL, SMALL) == 0, "a message open on node %d, replaced on node %d",
		a, b);
	mf_tap_ok(
		mf_pattern_verify(mf_node_path(a, "%s", name), SMALL * 2, SMALL * 2) == 0, "by name it is the new one");
	close(fd);
	unlinkat(mf_node_fd(a), name, 0);
}

static void test_file(int a, int b)
{
	int fd, other;
	char text[32] = { 0 };
	struct stat st;
	bool ok;

	mf_node_put(a, "plain", "before");
	fd = openat(mf_node_fd(a), "plain", O_RDWR | O_CLOEXEC);
	other = openat(mf_node_fd(b), "plain", O_RDWR | O_CLOEXEC);
	ok = fd >= 0 && other >= 0 && unlinkat(mf_node_fd(b), "plain", 0) == 0;
	mf_tap_ok(ok, "a plain file, open on nodes %d and %d, unlinked on node %d", a, b, b);
	ok = pread(fd, text, 6, 0) == 6 && !strcmp(text, "before");
	mf_tap_ok(ok, "node %d reads on", a);
	ok = pwrite(fd, "after!", 6, 0) == 6 && pwrite(fd, "far", 3, 3 << 20) == 3;
	mf_tap_ok(ok && pread(other, text, 6, 0) == 6 && !strcmp(text, "after!"), "and writes, as node %d sees", b);
	mf_tap_ok(fstat(other, &st) == 0 && st.st_size == (3 << 20) + 3 && st.st_nlink == 0, "size and nlink too");
	mf_tap_ok(fchmod(fd, 0640) == 0 && fstat(other, &st) == 0 && (st.st_mode & 07777) == 0640, "and its mode");
	ok = fsetxattr(fd, "user.a", "one", 3, 0) == 0 && fgetxattr(other, "user.a", text, sizeof(text)) == 3;
	ok = ok && fsetxattr(other, "user.b", "two", 3, 0) == 0 && fgetxattr(fd, "user.b", text, sizeof(text)) == 3;
	mf_tap_ok(ok && fgetxattr(fd, "user.a", text, sizeof(text)) == 3, "and its extended attributes");
	mf_tap_ok(mf_node_put(b, "plain", "another") == 0 && pread(fd, text, 6, 0) == 6 && !strcmp(text, "after!"),
		"a new file of that name is another one");
	close(fd);
	ok = pread(other, text, 6, 0) == 6 && !strcmp(text, "after!") && ftruncate(other, 3) == 0 && fsync(other) == 0;
	mf_tap_ok(ok, "node %d goes on when node %d has closed", b, a);
	close(other);
	unlinkat(mf_node_fd(a), "plain", 0);
}

static void test_many(void)
{
	int fd[MANY], n = mf_nodes_count(), bad = 0;
	char name[32];

	for (int i = 0; i < MANY; i++) {
		sprintf(name, "M/cur/many%d:2,", i);
		if (!publish(i % n, name, SMALL + i))
			bad++;
		fd[i] = openat(mf_node_fd((i + 1) % n), name, O_RDONLY | O_CLOEXEC);
	}
	for (int i = 0; i < MANY; i++) {
		sprintf(name, "M/cur/many%d:2,", i);
		bad += unlinkat(mf_node_fd((i + 2) % n), name, 0) < 0;
	}
	for (int i = 0; i < MANY; i++) {
		bad += mf_pattern_verify_fd(fd[i], SMALL + i, SMALL + i) != 0;
		close(fd[i]);
	}
	mf_tap_ok(bad == 0, "%d messages made on one node, open on a second, unlinked on a third (%d bad)", MANY, bad);
}

/* The directory is gone with its messages, and they are still open. */
static void test_directory(int a, int b)
{
	static const char *const sub[] = { "G/cur", "G/new", "G/tmp" };
	bool ok = mf_maildir_make(mf_node_path(b, "G")) == 0 &&
		  mf_pattern_write(mf_node_path(b, "G/tmp/one"), SMALL, 1, false) == 0 &&
		  renameat(mf_node_fd(b), "G/tmp/one", mf_node_fd(b), "G/new/one") == 0;
	int fd = openat(mf_node_fd(a), "G/new/one", O_RDONLY | O_CLOEXEC);
	int dir = openat(mf_node_fd(a), "G/new", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	ok = ok && unlinkat(mf_node_fd(b), "G/new/one", 0) == 0;
	for (int i = 0; i < 3; i++)
		ok = ok && unlinkat(mf_node_fd(b), sub[i], AT_REMOVEDIR) == 0;
	ok = ok && unlinkat(mf_node_fd(b), "G", AT_REMOVEDIR) == 0;
	mf_tap_ok(ok && mf_pattern_verify_fd(fd, SMALL, 1) == 0, "a message whose whole folder was removed on node %d",
		b);
	mf_tap_ok(flock(fd, LOCK_SH | LOCK_NB) == 0, "it can be locked");
	mf_tap_ok(openat(dir, "x", O_WRONLY | O_CREAT, 0600) < 0 && errno == ENOENT,
		"nothing can be made in the removed folder that is open on node %d", a);
	close(fd);
	close(dir);
}

/* A plain file whose directory is removed as well goes on for who has it open; and what one node has in tmp goes with the folder,
 * for the pools to be empty in the end. */
static void test_file_in_directory(int a, int b)
{
	char text[64] = "";
	struct stat st;
	bool ok = mkdirat(mf_node_fd(b), "J", 0700) == 0 && mf_node_put(b, "J/f", "hello") == 0;
	int fd = openat(mf_node_fd(a), "J/f", O_RDWR | O_CLOEXEC);

	ok = ok && fd >= 0 && unlinkat(mf_node_fd(b), "J/f", 0) == 0 && unlinkat(mf_node_fd(b), "J", AT_REMOVEDIR) == 0;
	mf_tap_ok(ok, "a plain file open on node %d is removed on node %d, and its directory", a, b);
	ok = fstat(fd, &st) == 0 && st.st_nlink == 0 && st.st_size == 5;
	mf_tap_ok(ok && pread(fd, text, sizeof(text), 0) == 5 && strcmp(text, "hello") == 0, "it is what it was");
	ok = pwrite(fd, "HE", 2, 0) == 2 && fsync(fd) == 0 && pread(fd, text, sizeof(text), 0) == 5;
	mf_tap_ok(ok && strcmp(text, "HEllo") == 0 && ftruncate(fd, 1) == 0 && fstat(fd, &st) == 0 && st.st_size == 1,
		"it can be written");
	close(fd);

	ok = mf_maildir_make(mf_node_path(b, "K")) == 0 && mf_pattern_write(mf_node_path(a, "K/tmp/one"), SMALL, 1, true) == 0;
	unlinkat(mf_node_fd(b), "K/tmp/one", 0); /* where it is to be seen */
	for (int i = 0; i < 3; i++) {
		static const char *const sub[] = { "K/cur", "K/new", "K/tmp" };
		ok = ok && unlinkat(mf_node_fd(b), sub[i], AT_REMOVEDIR) == 0;
	}
	mf_tap_ok(ok && unlinkat(mf_node_fd(b), "K", AT_REMOVEDIR) == 0, "a Maildir in whose tmp node %d has a file", a);
}

/* Directories that are open, looked at first by fstat. */
static void test_open_directory(int a, int b)
{
	struct stat st;
	int outer, inner;
	bool ok = mkdirat(mf_node_fd(b), "H", 0700) == 0 && mkdirat(mf_node_fd(b), "H/cur", 0700) == 0 &&
		  mkdirat(mf_node_fd(b), "I", 0700) == 0;

	inner = openat(mf_node_fd(a), "H/cur", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	outer = openat(mf_node_fd(a), "I", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ok = ok && inner >= 0 && outer >= 0 && unlinkat(mf_node_fd(b), "H/cur", AT_REMOVEDIR) == 0 &&
	     unlinkat(mf_node_fd(b), "H", AT_REMOVEDIR) == 0 && unlinkat(mf_node_fd(b), "I", AT_REMOVEDIR) == 0;
	ok = ok && fstat(inner, &st) == 0 && st.st_nlink == 0 && fstat(outer, &st) == 0 && st.st_nlink == 0;
	mf_tap_ok(ok, "directories open on node %d, removed on node %d: nlink 0", a, b);
	mf_tap_ok(flock(outer, LOCK_EX | LOCK_NB) == 0 && flock(outer, LOCK_UN) == 0, "and can be locked");
	close(inner);
	close(outer);
}

int main(int argc, char **argv)
{
	int last;

	mf_nodes_start(argc, argv, "orphan");
	last = mf_nodes_count() - 1;
	mf_tap_ok(mf_maildir_make("M") == 0, "a Maildir");
	for (int turn = 0; turn < 2; turn++) {
		int a = turn ? last : 0, b = turn ? 0 : last;

		test_message(a, b, SMALL, false);
		test_message(a, b, SMALL, true);
		test_message(a, b, LARGE, false);
		test_replaced(a, b);
		test_file(a, b);
		test_directory(a, b);
		test_file_in_directory(a, b);
		test_open_directory(a, b);
	}
	test_many();
	return mf_tap_done();
}
