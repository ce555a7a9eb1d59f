/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is open outlives its name: messages stay readable, plain files also writable. */
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIZE = 5 * 1024 * 1024 };

static void test_message(void)
{
	struct stat st;
	unsigned char *p;
	int fd;

	mf_tap_ok(mf_pattern_write("M/tmp/a", SIZE, 1, true) == 0 && rename("M/tmp/a", "M/new/a") == 0,
		"a message of 5 MiB");
	fd = open("M/new/a", O_RDONLY);
	p = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
	mf_tap_ok(fd >= 0 && p != MAP_FAILED, "open and mapped");
	mf_tap_ok(unlink("M/new/a") == 0 && mf_count_names("M/new") == 0 && mf_fsync_dir("M/new") == 0,
		"expunged, durable");
	mf_tap_ok(fstat(fd, &st) == 0 && st.st_nlink == 0 && st.st_size == SIZE, "fstat: no link, the size");
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	mf_tap_ok(mf_pattern_verify_fd(fd, SIZE, 1) == 0, "all bytes can be read");
	mf_tap_ok(p != MAP_FAILED && mf_pattern_check(p, SIZE, 1, 0) < 0, "and seen through the mapping");
	close(fd);
	mf_tap_ok(p != MAP_FAILED && mf_pattern_check(p, SIZE, 1, 0) < 0, "which alone keeps them too");
	munmap(p, SIZE);
}

static void test_replaced(void)
{
	int fd;

	mf_tap_ok(
		mf_pattern_write("M/tmp/b", 70000, 2, true) == 0 && rename("M/tmp/b", "M/cur/b:2,") == 0, "a message");
	fd = open("M/cur/b:2,", O_RDONLY);
	mf_tap_ok(mf_pattern_write("M/tmp/c", 80000, 3, true) == 0 && rename("M/tmp/c", "M/cur/b:2,") == 0,
		"replaced by rename");
	mf_tap_ok(mf_pattern_verify_fd(fd, 70000, 2) == 0, "the open one has the old bytes");
	mf_tap_ok(mf_pattern_verify("M/cur/b:2,", 80000, 3) == 0, "the name has the new ones");
	close(fd);
	unlink("M/cur/b:2,");
}

static void test_unpublished(void)
{
	int fd = open("M/tmp/d", O_RDWR | O_CREAT | O_EXCL, 0600);
	char buf[8];

	mf_tap_ok(fd >= 0 && write(fd, "abc", 3) == 3 && unlink("M/tmp/d") == 0,
		"a file in tmp, given up while it is written");
	mf_tap_ok(write(fd, "def", 3) == 3 && fsync(fd) == 0 && pread(fd, buf, 8, 0) == 6 && !memcmp(buf, "abcdef", 6),
		"can still be written and read");
	close(fd);
}

static void test_plain(void)
{
	struct stat st;
	char buf[8];
	int fd = open("plain", O_RDWR | O_CREAT | O_EXCL, 0600), again;

	mf_tap_ok(fd >= 0 && write(fd, "abc", 3) == 3 && fsync(fd) == 0 && unlink("plain") == 0,
		"a plain file without a name");
	mf_tap_ok(pwrite(fd, "def", 3, 3) == 3 && ftruncate(fd, 5) == 0 && fchmod(fd, 0640) == 0 && fsync(fd) == 0,
		"write, truncate, chmod, fsync");
	again = open("plain", O_RDWR | O_CREAT | O_EXCL, 0600);
	mf_tap_ok(again >= 0 && write(again, "xyz", 3) == 3, "another file under its name");
	mf_tap_ok(pread(fd, buf, 8, 0) == 5 && !memcmp(buf, "abcde", 5), "is not mixed up with it");
	mf_tap_ok(fstat(fd, &st) == 0 && st.st_nlink == 0 && st.st_size == 5 && (st.st_mode & 07777) == 0640,
		"fstat shows the one without a name");
	close(fd);
	close(again);
	mf_tap_ok(mf_pattern_write("one", 9000, 6, false) == 0 && mf_pattern_write("two", 8000, 7, false) == 0,
		"two files");
	fd = open("two", O_RDONLY);
	mf_tap_ok(rename("one", "two") == 0 && mf_pattern_verify_fd(fd, 8000, 7) == 0 &&
			  mf_pattern_verify("two", 9000, 6) == 0,
		"rename over an open file");
	close(fd);
	unlink("two");
}

static void test_directory(void)
{
	struct stat st;
	int fd;

	mkdir("gone", 0700);
	fd = open("gone", O_RDONLY | O_DIRECTORY);
	mf_tap_ok(rmdir("gone") == 0 && fstat(fd, &st) == 0 && st.st_nlink == 0, "an open directory is removed");
	mf_tap_ok(openat(fd, "x", O_WRONLY | O_CREAT, 0600) < 0 && errno == ENOENT, "nothing can be made in it");
	close(fd);
}

int main(int argc, char **argv)
{
	mf_tap_start(argv[1], "unlinked");
	mf_tap_ok(mf_maildir_make("M") == 0, "a Maildir");
	test_message();
	test_replaced();
	test_unpublished();
	test_plain();
	test_directory();
	return mf_tap_done();
}
