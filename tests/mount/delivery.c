/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The ways in which mail software writes a Maildir: Postfix, Dovecot, cp; flags, copies, many at once. */
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SIZE = 5000, WRITERS = 8, EACH = 40 };

static struct stat stat_of(const char *path)
{
	struct stat st = { 0 };

	if (lstat(path, &st) < 0)
		memset(&st, 0, sizeof(st));
	return st;
}

static bool is_later(struct timespec a, struct timespec b)
{
	return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

static void test_postfix(void)
{
	struct stat tmp, now;

	mf_tap_ok(mf_pattern_write("M/tmp/1.p", SIZE, 1, true) == 0, "postfix: write and fsync in tmp");
	tmp = stat_of("M/tmp/1.p");
	mf_tap_ok(mf_count_names("M/new") == 0, "postfix: nothing in new yet");
	mf_tap_ok(link("M/tmp/1.p", "M/new/1.p") == 0, "postfix: link into new");
	mf_tap_ok(link("M/tmp/1.p", "M/new/1.p") < 0 && errno == EEXIST, "postfix: a second link is EEXIST");
	now = stat_of("M/new/1.p");
	mf_tap_ok(now.st_ino == tmp.st_ino && now.st_nlink == 2, "postfix: the same file, two links");
	mf_tap_ok(unlink("M/tmp/1.p") == 0, "postfix: unlink in tmp");
	mf_tap_ok(stat_of("M/new/1.p").st_nlink == 1, "postfix: one link is left");
	mf_tap_ok(mf_count_names("M/tmp") == 0 && mf_count_names("M/new") == 1, "postfix: tmp is empty, new has one");
	mf_tap_ok(mf_pattern_verify("M/new/1.p", SIZE, 1) == 0, "postfix: the bytes are there");
}

static void test_dovecot(void)
{
	struct stat before, after;

	mf_tap_ok(mf_pattern_write("M/tmp/2.d", SIZE, 2, true) == 0, "dovecot: write and fsync in tmp");
	before = stat_of("M/tmp/2.d");
	mf_tap_ok(rename("M/tmp/2.d", "M/new/2.d") == 0 && mf_fsync_dir("M/new") == 0,
		"dovecot: rename into new, fsync it");
	after = stat_of("M/new/2.d");
	mf_tap_ok(after.st_ino == before.st_ino && after.st_size == SIZE &&
			  after.st_mtim.tv_sec == before.st_mtim.tv_sec &&
			  after.st_mtim.tv_nsec == before.st_mtim.tv_nsec,
		"dovecot: inode, size and mtime stay");
	mf_tap_ok(mf_pattern_verify("M/new/2.d", SIZE, 2) == 0, "dovecot: the bytes are there");
	mf_tap_ok(access("M/tmp/2.d", F_OK) < 0 && errno == ENOENT, "dovecot: the name in tmp is gone");
}

static void test_flags(void)
{
	static const char *const names[] = { "M/new/2.d", "M/cur/2.d:2,", "M/cur/2.d:2,S", "M/cur/2.d:2,FS",
		"M/cur/2.d:2,FST", "M/cur/2.d:2,S" };
	ino_t ino = stat_of(names[0]).st_ino;
	bool ok = true, grows = true;

	for (int i = 1; i < 6; i++) {
		struct timespec was = stat_of("M/cur").st_mtim;

		ok = ok && rename(names[i - 1], names[i]) == 0 && stat_of(names[i]).st_ino == ino &&
		     access(names[i - 1], F_OK) < 0 && errno == ENOENT && mf_count_names("M/cur") == 1;
		grows = grows && is_later(stat_of("M/cur").st_mtim, was);
	}
	mf_tap_ok(ok, "flags: new -> cur and four changes, one file all the time");
	if (mf_tap_is_fuse())
		mf_tap_ok(grows, "flags: the mtime of cur grows with every change");
	else
		mf_tap_skip("the mtime of cur need not grow within one tick here");
	mf_tap_ok(
		rename("M/cur/2.d:2,F", "M/cur/2.d:2,FR") < 0 && errno == ENOENT, "flags: a name of before is ENOENT");
	mf_tap_ok(mf_fsync_dir("M/cur") == 0, "flags: fsync of cur");
	mf_tap_ok(mf_pattern_verify("M/cur/2.d:2,S", SIZE, 2) == 0, "flags: the bytes are still there");
}

static void test_published(void)
{
	struct timespec times[2] = { { 1000000000, 5 }, { 1100000000, 123456789 } };
	struct stat st;
	int fd;

	if (mf_tap_is_fuse()) {
		mf_tap_ok(open("M/cur/2.d:2,S", O_WRONLY) < 0 && errno == EPERM, "published: open for write is EPERM");
		mf_tap_ok(open("M/cur/2.d:2,S", O_RDWR | O_TRUNC) < 0 && errno == EPERM, "published: O_TRUNC is EPERM");
		mf_tap_ok(truncate("M/cur/2.d:2,S", 1) < 0 && errno == EPERM, "published: truncate is EPERM");
		fd = open("M/tmp/3.w", O_RDWR | O_CREAT | O_EXCL, 0600);
		mf_tap_ok(fd >= 0 && write(fd, "abc", 3) == 3 && rename("M/tmp/3.w", "M/new/3.w") == 0,
			"published: a file that is still open for write");
		mf_tap_ok(write(fd, "d", 1) < 0 && errno == EPERM,
			"published: write through the old descriptor is EPERM");
		close(fd);
		mf_tap_ok(stat_of("M/new/3.w").st_size == 3, "published: and changed nothing");
		unlink("M/new/3.w");
	} else {
		mf_tap_skip("messages are not sealed here");
	}
	mf_tap_ok(utimensat(AT_FDCWD, "M/cur/2.d:2,S", times, 0) == 0, "published: utimensat");
	st = stat_of("M/cur/2.d:2,S");
	mf_tap_ok(st.st_mtim.tv_sec == 1100000000 && st.st_mtim.tv_nsec == 123456789,
		"published: the time given, to the ns");
	mf_tap_ok(chmod("M/cur/2.d:2,S", 0640) == 0 && (stat_of("M/cur/2.d:2,S").st_mode & 07777) == 0640,
		"published: chmod");
	mf_tap_ok(mf_pattern_verify("M/cur/2.d:2,S", SIZE, 2) == 0, "published: the bytes are untouched");
}

static void test_copies(void)
{
	mf_tap_ok(link("M/cur/2.d:2,S", "N/tmp/2.copy") == 0 && rename("N/tmp/2.copy", "N/cur/2.copy:2,S") == 0,
		"copy: link into another Maildir's tmp, rename into its cur");
	mf_tap_ok(link("M/cur/2.d:2,S", "N/new/2.again") == 0, "copy: link straight into its new");
	mf_tap_ok(
		stat_of("N/new/2.again").st_nlink == 3 && stat_of("M/cur/2.d:2,S").st_nlink == 3, "copy: three links");
	mf_tap_ok(unlink("M/cur/2.d:2,S") == 0, "copy: unlink the first");
	mf_tap_ok(
		mf_pattern_verify("N/cur/2.copy:2,S", SIZE, 2) == 0 && mf_pattern_verify("N/new/2.again", SIZE, 2) == 0,
		"copy: the others keep the bytes");
	mf_tap_ok(unlink("N/cur/2.copy:2,S") == 0 && stat_of("N/new/2.again").st_nlink == 1, "copy: unlink the second");
	mf_tap_ok(rename("N/new/2.again", "M/cur/2.back:2,") == 0 && mf_pattern_verify("M/cur/2.back:2,", SIZE, 2) == 0,
		"copy: rename across Maildirs");
	mf_tap_ok(mf_pattern_write("M/tmp/4", 100, 4, true) == 0 && rename("M/tmp/4", "M/cur/2.back:2,") == 0 &&
			  mf_pattern_verify("M/cur/2.back:2,", 100, 4) == 0,
		"copy: rename over an existing message replaces it");
}

/* cp, rsync, a restore: the file is made under its last name */
static void test_direct(void)
{
	struct timespec times[2] = { { 1200000000, 0 }, { 1200000000, 0 } };
	char buf[16];
	int fd = open("M/cur/5:2,S", O_WRONLY | O_CREAT | O_EXCL, 0600);

	mf_tap_ok(fd >= 0 && write(fd, "one", 3) == 3 && write(fd, "two", 3) == 3, "direct: written in cur");
	mf_tap_ok(futimens(fd, times) == 0 && close(fd) == 0, "direct: times set, closed");
	mf_tap_ok(stat_of("M/cur/5:2,S").st_size == 6 && stat_of("M/cur/5:2,S").st_mtim.tv_sec == 1200000000,
		"direct: size and time stay");
	fd = open("M/cur/5:2,S", O_RDONLY);
	mf_tap_ok(fd >= 0 && read(fd, buf, sizeof(buf)) == 6 && !memcmp(buf, "onetwo", 6), "direct: its bytes");
	close(fd);
	if (mf_tap_is_fuse())
		mf_tap_ok(open("M/cur/5:2,S", O_WRONLY) < 0 && errno == EPERM, "direct: sealed by the close");
	unlink("M/cur/5:2,S");
}

static int deliver_many(int who)
{
	char tmp[64], to[64];

	for (int i = 0; i < EACH; i++) {
		snprintf(tmp, sizeof(tmp), "P/tmp/%d.%d", who, i);
		snprintf(to, sizeof(to), "P/new/%d.%d", who, i);
		if (mf_pattern_write(tmp, 100 + who * 1000 + i, who * 1000 + i, true) < 0)
			return 1;
		if (who % 2 ? rename(tmp, to) < 0 || mf_fsync_dir("P/new") < 0 : link(tmp, to) < 0 || unlink(tmp) < 0)
			return 1;
	}
	return 0;
}

static void test_parallel(void)
{
	pid_t pid[WRITERS];
	bool ok = true;
	char path[64];

	mf_tap_ok(mf_maildir_make("P") == 0, "parallel: a Maildir");
	for (int i = 0; i < WRITERS; i++) {
		pid[i] = fork();
		if (pid[i] == 0)
			_exit(deliver_many(i));
	}
	for (int i = 0; i < WRITERS; i++) {
		int status;

		ok = ok && waitpid(pid[i], &status, 0) == pid[i] && status == 0;
	}
	mf_tap_ok(ok, "parallel: %d deliverers of %d messages each", WRITERS, EACH);
	mf_tap_ok(mf_count_names("P/new") == WRITERS * EACH && mf_count_names("P/tmp") == 0,
		"parallel: all there, tmp empty");
	ok = true;
	for (int who = 0; who < WRITERS; who++)
		for (int i = 0; i < EACH; i++) {
			snprintf(path, sizeof(path), "P/new/%d.%d", who, i);
			ok = ok && mf_pattern_verify(path, 100 + who * 1000 + i, who * 1000 + i) == 0;
		}
	mf_tap_ok(ok, "parallel: each with its own bytes");
}

int main(int argc, char **argv)
{
	mf_tap_start(argv[1], "delivery");
	mf_tap_ok(mf_maildir_make("M") == 0 && mf_maildir_make("N") == 0, "two Maildirs");
	test_postfix();
	test_dovecot();
	test_flags();
	test_published();
	test_copies();
	test_direct();
	test_parallel();
	return mf_tap_done();
}
