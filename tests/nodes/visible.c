/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a system call on one node did, the next system call on any other node sees. */
#include "nodes/nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { ROUNDS = 5 };

static int A, B; /* who does, who looks */
static int number;

/* Everything of these that a kernel or a node may keep is kept by B before A works. */
static void warm(const char *name)
{
	struct stat st;
	char text[64];

	fstatat(mf_node_fd(B), name, &st, AT_SYMLINK_NOFOLLOW);
	mf_node_lists(B, ".", name);
	mf_node_lists(B, "M/new", name);
	mf_node_lists(B, "M/cur", name);
	mf_node_get(B, name, text, sizeof(text));
}

static bool there(const char *path)
{
	struct stat st;

	return fstatat(mf_node_fd(B), path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static bool gone(const char *path)
{
	struct stat st;

	return fstatat(mf_node_fd(B), path, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

static struct stat stat_on(int node, const char *path)
{
	struct stat st = { 0 };

	if (fstatat(mf_node_fd(node), path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		memset(&st, 0, sizeof(st));
	return st;
}

static bool deliver(const char *base, bool by_link)
{
	const char *tmp = mf_node_path(A, "M/tmp/%s", base), *to = mf_node_path(A, "M/new/%s", base);

	if (mf_pattern_write(tmp, 3000, number, true) < 0)
		return false;
	if (by_link)
		return link(tmp, to) == 0 && unlink(tmp) == 0;
	return rename(tmp, to) == 0 && mf_fsync_dir(mf_node_path(A, "M/new")) == 0;
}

static bool delivery(bool by_link)
{
	char base[32], path[64];
	bool ok;

	sprintf(base, "d%d", number);
	sprintf(path, "M/new/%s", base);
	warm(path);
	ok = deliver(base, by_link) && (number % 2 ? mf_node_lists(B, "M/new", base) : there(path));
	ok = ok && there(path) && mf_node_lists(B, "M/new", base) &&
	     mf_pattern_verify(mf_node_path(B, "%s", path), 3000, number) == 0;
	return ok;
}

static bool delivery_by_link(void)
{
	return delivery(true);
}

static bool delivery_by_rename(void)
{
	return delivery(false);
}

static bool rename_without_fsync(void)
{
	const char *tmp = mf_node_path(A, "M/tmp/f%d", number), *to = mf_node_path(A, "M/new/f%d", number);
	char base[32];

	sprintf(base, "f%d", number);
	warm(base);
	return mf_pattern_write(tmp, 3000, number, false) == 0 && rename(tmp, to) == 0 &&
	       mf_node_lists(B, "M/new", base) &&
	       mf_pattern_verify(mf_node_path(B, "M/new/%s", base), 3000, number) == 0;
}

static bool flag_change(void)
{
	char was[64], is[64];

	sprintf(was, "M/cur/g%d:2,", number);
	sprintf(is, "M/cur/g%d:2,S", number);
	if (mf_pattern_write(mf_node_path(A, "M/tmp/g"), 100, 1, false) < 0 ||
		renameat(mf_node_fd(A), "M/tmp/g", mf_node_fd(A), was) < 0)
		return false;
	warm(was);
	return there(was) && renameat(mf_node_fd(A), was, mf_node_fd(A), is) == 0 && gone(was) && there(is) &&
	       mf_node_lists(B, "M/cur", is + 6) && !mf_node_lists(B, "M/cur", was + 6);
}

static bool expunge(void)
{
	char name[64];

	sprintf(name, "M/cur/e%d:2,", number);
	if (mf_pattern_write(mf_node_path(A, "M/tmp/e"), 100, 1, false) < 0 ||
		renameat(mf_node_fd(A), "M/tmp/e", mf_node_fd(A), name) < 0)
		return false;
	warm(name);
	return there(name) && unlinkat(mf_node_fd(A), name, 0) == 0 && !mf_node_lists(B, "M/cur", name + 6) &&
	       gone(name);
}

/* Made where everybody looks, and seen as it is while it is open, and after. */
static bool message_written_in_place(void)
{
	char name[64], text[32];
	int fd;
	bool ok;

	sprintf(name, "M/cur/w%d:2,", number);
	warm(name);
	fd = openat(mf_node_fd(A), name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ok = fd >= 0 && there(name) && stat_on(B, name).st_size == 0;
	ok = ok && write(fd, "first", 5) == 5 && stat_on(B, name).st_size == 5 &&
	     mf_node_get(B, name, text, sizeof(text)) == 0 && !strcmp(text, "first");
	ok = ok && write(fd, " and more", 9) == 9 && mf_node_get(B, name, text, sizeof(text)) == 0 &&
	     !strcmp(text, "first and more") && stat_on(B, name).st_size == 14;
	ok = ok && ftruncate(fd, 3) == 0 && stat_on(B, name).st_size == 3 &&
	     mf_node_get(B, name, text, sizeof(text)) == 0 && !strcmp(text, "fir");
	ok = ok && pwrite(fd, "2nd", 3, 0) == 3;
	close(fd);
	return ok && mf_node_get(B, name, text, sizeof(text)) == 0 && !strcmp(text, "2nd") &&
	       unlinkat(mf_node_fd(B), name, 0) == 0;
}

/* Who links out of tmp has the bytes until that name goes, too. */
static bool name_in_tmp(void)
{
	char tmp[64], name[64], text[32];
	bool ok;

	sprintf(tmp, "M/tmp/t%d", number);
	sprintf(name, "M/new/t%d", number);
	ok = mf_node_put(A, tmp, "text") == 0 && linkat(mf_node_fd(A), tmp, mf_node_fd(A), name, 0) == 0 &&
	     mf_node_get(B, name, text, sizeof(text)) == 0 && unlinkat(mf_node_fd(B), name, 0) == 0;
	ok = ok && gone(name) && mf_node_put(B, "other", "x") == 0;
	memset(text, 0, sizeof(text));
	ok = ok && stat_on(A, tmp).st_nlink == 1 && mf_node_get(A, tmp, text, sizeof(text)) == 0 && !strcmp(text, "text");
	return ok && renameat(mf_node_fd(A), tmp, mf_node_fd(A), name) == 0 &&
	       mf_node_get(B, name, text, sizeof(text)) == 0 && !strcmp(text, "text") &&
	       unlinkat(mf_node_fd(B), name, 0) == 0;
}

static bool file_made_and_removed(void)
{
	char name[32], text[32];
	bool ok;

	sprintf(name, "plain%d", number);
	warm(name);
	ok = mf_node_put(A, name, "first") == 0 && mf_node_get(B, name, text, sizeof(text)) == 0 &&
	     !strcmp(text, "first") && mf_node_lists(B, ".", name);
	ok = ok && mf_node_put(A, name, "again, longer") == 0 && stat_on(B, name).st_size == 13 &&
	     mf_node_get(B, name, text, sizeof(text)) == 0 && !strcmp(text, "again, longer");
	ok = ok && unlinkat(mf_node_fd(A), name, 0) == 0 && gone(name) && !mf_node_lists(B, ".", name);
	return ok;
}

/* Without any close in between. */
static bool write_through_open_files(void)
{
	int a = openat(mf_node_fd(A), "open", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int b = openat(mf_node_fd(B), "open", O_RDWR | O_CLOEXEC);
	char text[16];
	struct stat st;
	bool ok = a >= 0 && b >= 0;

	for (int i = 0; ok && i < 20; i++) {
		int from = i % 2 ? a : b, to = i % 2 ? b : a;

		sprintf(text, "%08d", i);
		ok = pwrite(from, text, 8, i * 8) == 8 && fstat(to, &st) == 0 && st.st_size == (i + 1) * 8;
		memset(text, 0, sizeof(text));
		ok = ok && pread(to, text, 8, i * 8) == 8 && atoi(text) == i;
	}
	ok = ok && ftruncate(a, 4) == 0 && fstat(b, &st) == 0 && st.st_size == 4 && pread(b, text, 8, 0) == 4;
	close(a);
	close(b);
	return ok;
}

static bool directory_made_and_removed(void)
{
	char name[32], sub[64];
	nlink_t links = stat_on(B, ".").st_nlink;

	sprintf(name, "dir%d", number);
	sprintf(sub, "%s/below", name);
	warm(name);
	return mkdirat(mf_node_fd(A), name, 0711) == 0 && mf_node_lists(B, ".", name) &&
	       (stat_on(B, name).st_mode & 07777) == 0711 && (links == 1 || stat_on(B, ".").st_nlink == links + 1) &&
	       mkdirat(mf_node_fd(B), sub, 0700) == 0 && unlinkat(mf_node_fd(A), name, AT_REMOVEDIR) < 0 &&
	       errno == ENOTEMPTY && unlinkat(mf_node_fd(A), sub, AT_REMOVEDIR) == 0 && gone(sub) &&
	       unlinkat(mf_node_fd(A), name, AT_REMOVEDIR) == 0 && gone(name) && !mf_node_lists(B, ".", name);
}

static bool directory_renamed(void)
{
	char from[32], to[32], text[32], inside[64];
	bool ok;

	sprintf(from, "from%d", number);
	sprintf(to, "to%d", number);
	sprintf(inside, "%s/file", from);
	if (mkdirat(mf_node_fd(A), from, 0700) < 0 || mf_node_put(A, inside, "x") < 0)
		return false;
	warm(inside);
	ok = renameat(mf_node_fd(A), from, mf_node_fd(A), to) == 0 && gone(inside) && gone(from);
	sprintf(inside, "%s/file", to);
	ok = ok && mf_node_get(B, inside, text, sizeof(text)) == 0 && !strcmp(text, "x") &&
	     !mf_node_lists(B, ".", from) && mf_node_lists(B, ".", to);
	unlinkat(mf_node_fd(A), inside, 0);
	unlinkat(mf_node_fd(A), to, AT_REMOVEDIR);
	return ok;
}

static bool attributes(void)
{
	static const char *const names[] = { "attr.file", "attr.dir", "M/cur/attr:2,", "M/cur" };
	const struct timespec times[2] = { { 1000000000 + number, 1 }, { 1100000000 + number, 999999999 } };
	bool ok = true;

	mf_node_put(A, names[0], "x");
	mkdirat(mf_node_fd(A), names[1], 0700);
	if (!there(names[2]) && (mf_pattern_write(mf_node_path(A, "M/tmp/attr"), 10, 1, false) < 0 ||
					renameat(mf_node_fd(A), "M/tmp/attr", mf_node_fd(A), names[2]) < 0))
		return false;
	for (int i = 0; i < 4; i++) {
		const char *path = mf_node_path(A, "%s", names[i]);
		struct stat st, after;

		warm(names[i]);
		ok = ok && chmod(path, 0710 + number % 8) == 0;
		ok = ok && (stat_on(B, names[i]).st_mode & 07777) == (mode_t)(0710 + number % 8);
		ok = ok && utimensat(AT_FDCWD, path, times, 0) == 0;
		st = stat_on(B, names[i]);
		ok = ok && st.st_mtim.tv_sec == times[1].tv_sec && st.st_mtim.tv_nsec == times[1].tv_nsec &&
		     st.st_atim.tv_sec == times[0].tv_sec;
		ok = ok && chown(path, 61001, 61002) == 0;
		after = stat_on(B, names[i]);
		ok = ok && after.st_uid == 61001 && after.st_gid == 61002 && st.st_ino == after.st_ino;
		ok = ok && chown(path, 0, 0) == 0 && chmod(path, 0700) == 0;
	}
	return ok;
}

static bool truncated(void)
{
	struct stat st;
	bool ok;

	mf_node_put(A, "trunc", "0123456789");
	warm("trunc");
	ok = truncate(mf_node_path(A, "trunc"), 3) == 0;
	st = stat_on(B, "trunc");
	ok = ok && st.st_size == 3 && truncate(mf_node_path(A, "trunc"), 2000000) == 0;
	return ok && stat_on(B, "trunc").st_size == 2000000;
}

static bool links(void)
{
	char text[64] = { 0 }, target[32];
	bool ok;

	sprintf(target, "target%d", number);
	unlinkat(mf_node_fd(A), "sym", 0);
	unlinkat(mf_node_fd(A), "hard", 0);
	warm("sym");
	ok = symlinkat(target, mf_node_fd(A), "sym") == 0 &&
	     readlinkat(mf_node_fd(B), "sym", text, sizeof(text) - 1) == (ssize_t)strlen(target) &&
	     !strcmp(text, target);
	mf_node_put(A, "linked", "x");
	warm("linked");
	ok = ok && linkat(mf_node_fd(A), "linked", mf_node_fd(A), "hard", 0) == 0 &&
	     stat_on(B, "linked").st_nlink == 2 && stat_on(B, "hard").st_ino == stat_on(B, "linked").st_ino;
	ok = ok && unlinkat(mf_node_fd(A), "hard", 0) == 0 && stat_on(B, "linked").st_nlink == 1 && gone("hard");
	return ok;
}

static bool replaced(void)
{
	char text[32];
	ino_t was;

	mf_node_put(A, "index", "old");
	mf_node_put(A, "index.new", "new");
	warm("index");
	was = stat_on(B, "index").st_ino;
	return renameat(mf_node_fd(A), "index.new", mf_node_fd(A), "index") == 0 &&
	       mf_node_get(B, "index", text, sizeof(text)) == 0 && !strcmp(text, "new") &&
	       stat_on(B, "index").st_ino != was && gone("index.new");
}

static bool xattrs(void)
{
	const char *a = mf_node_path(A, "xattr"), *b = mf_node_path(B, "xattr");
	char value[16] = { 0 };

	mf_node_put(A, "xattr", "x");
	warm("xattr");
	return getxattr(b, "user.a", value, sizeof(value)) < 0 && setxattr(a, "user.a", "1", 1, 0) == 0 &&
	       getxattr(b, "user.a", value, sizeof(value)) == 1 && value[0] == '1' && removexattr(a, "user.a") == 0 &&
	       getxattr(b, "user.a", value, sizeof(value)) < 0 && errno == ENODATA;
}

static const struct {
	const char *what;
	bool (*check)(void);
} checks[] = {
	{ "a delivery by link", delivery_by_link },
	{ "a delivery by rename and fsync", delivery_by_rename },
	{ "a rename out of tmp without any fsync", rename_without_fsync },
	{ "a change of flags", flag_change },
	{ "an expunged message", expunge },
	{ "a message written in cur", message_written_in_place },
	{ "a message that was removed, its name in tmp not", name_in_tmp },
	{ "a plain file made, replaced and removed", file_made_and_removed },
	{ "writes through files that stay open", write_through_open_files },
	{ "mkdir and rmdir", directory_made_and_removed },
	{ "a directory renamed", directory_renamed },
	{ "chmod, chown and utimens", attributes },
	{ "truncate", truncated },
	{ "symlink, link and their unlink", links },
	{ "a file that another one replaced", replaced },
	{ "xattrs", xattrs },
};

int main(int argc, char **argv)
{
	int n;

	mf_nodes_start(argc, argv, "visible");
	n = mf_nodes_count();
	mf_tap_ok(mf_maildir_make("M") == 0, "a Maildir");
	for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		int bad = 0, done = 0, first = -1;
		double start = mf_tap_now();

		for (int round = 0; round < ROUNDS; round++)
			for (A = 0; A < n; A++)
				for (int step = 1; step < n || step == 1; step++) {
					B = (A + step) % n;
					number++;
					done++;
					if (!checks[i].check()) {
						bad++;
						first = first < 0 ? A * 100 + B : first;
					}
				}
		mf_tap_ok(bad == 0,
			"%s: seen at once by the others (%d of %d not; first from node %d to %d; %.1f ms each)",
			checks[i].what, bad, done, first < 0 ? -1 : first / 100, first < 0 ? -1 : first % 100,
			(mf_tap_now() - start) * 1000 / done);
	}
	return mf_tap_done();
}
