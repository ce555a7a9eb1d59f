/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define FUSE_MAGIC 0x65735546

static struct {
	char dir[PATH_MAX];
	int tests, failed;
	bool fuse;
	pthread_mutex_t mutex; /* tests, failed, the lines */
} tap = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return remove(path);
}

void mf_tap_remove(const char *path)
{
	nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}

void mf_tap_start(const char *dir, const char *name)
{
	char real[PATH_MAX];
	struct statfs fs;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!dir || !realpath(dir, real)) {
		fprintf(stderr, "usage: %s DIR\n", name);
		exit(2);
	}
	if (snprintf(tap.dir, sizeof(tap.dir), "%s/%s.%d", real, name, getpid()) >= (int)sizeof(tap.dir) ||
		mkdir(tap.dir, 0755) < 0 || chdir(tap.dir) < 0 || statfs(".", &fs) < 0) {
		fprintf(stderr, "%s: %s: %s\n", name, tap.dir, strerror(errno));
		exit(2);
	}
	tap.fuse = fs.f_type == FUSE_MAGIC;
}

int mf_tap_done(void)
{
	if (chdir("/") == 0)
		mf_tap_remove(tap.dir);
	mf_tap_ok(access(tap.dir, F_OK) < 0 && errno == ENOENT, "all that was made can be removed");
	printf("1..%d\n", tap.tests);
	return tap.failed ? 1 : 0;
}

bool mf_tap_ok(bool good, const char *fmt, ...)
{
	int err = errno;
	va_list ap;

	pthread_mutex_lock(&tap.mutex);
	printf("%sok %d - ", good ? "" : "not ", ++tap.tests);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	if (!good) {
		tap.failed++;
		printf(" (errno %d: %s)", err, strerror(err));
	}
	printf("\n");
	pthread_mutex_unlock(&tap.mutex);
	return good;
}

void mf_tap_skip(const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&tap.mutex);
	printf("ok %d # skip ", ++tap.tests);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	pthread_mutex_unlock(&tap.mutex);
}

void mf_tap_note(const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&tap.mutex);
	printf("# ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	pthread_mutex_unlock(&tap.mutex);
}

bool mf_tap_is_fuse(void)
{
	return tap.fuse;
}

double mf_tap_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

void mf_pattern_fill(void *buf, size_t len, uint64_t seed, uint64_t pos)
{
	unsigned char *p = buf;

	for (size_t i = 0; i < len; i++)
		p[i] = mf_pattern_byte(seed, pos + i);
}

int64_t mf_pattern_check(const void *buf, size_t len, uint64_t seed, uint64_t pos)
{
	const unsigned char *p = buf;

	for (size_t i = 0; i < len; i++)
		if (p[i] != mf_pattern_byte(seed, pos + i))
			return pos + i;
	return -1;
}

int mf_pattern_write(const char *path, uint64_t size, uint64_t seed, bool sync)
{
	static __thread unsigned char buf[128 * 1024];
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int r = 0;

	if (fd < 0)
		return -errno;
	for (uint64_t at = 0; r == 0 && at < size;) {
		size_t n = size - at < sizeof(buf) ? size - at : sizeof(buf);
		ssize_t done;

		mf_pattern_fill(buf, n, seed, at);
		done = write(fd, buf, n);
		if (done <= 0)
			r = done < 0 ? -errno : -EIO;
		else
			at += done;
	}
	if (r == 0 && sync && fsync(fd) < 0)
		r = -errno;
	if (close(fd) < 0 && r == 0)
		r = -errno;
	return r;
}

int mf_pattern_verify_fd(int fd, uint64_t size, uint64_t seed)
{
	static __thread unsigned char buf[128 * 1024];
	struct stat st;
	uint64_t at = 0;

	if (fstat(fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size != size) {
		mf_tap_note("size %lld, not %llu", (long long)st.st_size, (unsigned long long)size);
		return -EILSEQ;
	}
	for (;;) {
		ssize_t n = pread(fd, buf, sizeof(buf), at);
		int64_t bad;

		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		bad = mf_pattern_check(buf, n, seed, at);
		if (bad >= 0) {
			mf_tap_note("another byte at %lld", (long long)bad);
			return -EILSEQ;
		}
		at += n;
	}
	if (at != size) {
		mf_tap_note("%llu bytes could be read, not %llu", (unsigned long long)at, (unsigned long long)size);
		return -EILSEQ;
	}
	return 0;
}

int mf_pattern_verify(const char *path, uint64_t size, uint64_t seed)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = mf_pattern_verify_fd(fd, size, seed);
	close(fd);
	return r;
}

int mf_maildir_make(const char *path)
{
	static const char *const sub[] = { "cur", "new", "tmp" };
	char full[PATH_MAX];

	if (mkdir(path, 0700) < 0)
		return -errno;
	for (int i = 0; i < 3; i++) {
		snprintf(full, sizeof(full), "%s/%s", path, sub[i]);
		if (mkdir(full, 0700) < 0)
			return -errno;
	}
	return 0;
}

int mf_count_names(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	int n = 0;

	if (!d)
		return -errno;
	while (errno = 0, (e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			n++;
	if (errno)
		n = -errno;
	closedir(d);
	return n;
}

int mf_fsync_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;

	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0)
		r = -errno;
	close(fd);
	return r;
}

bool mf_wait_in_syscall(pid_t pid, long nr)
{
	double end = mf_tap_now() + 10;
	struct timespec pause = { 0, 1000000 };
	char path[64], line[64];

	snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
	while (mf_tap_now() < end) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);

		if (fd >= 0)
			close(fd);
		if (n > 0) {
			line[n] = 0;
			if (line[0] >= '0' && line[0] <= '9' && atol(line) == nr)
				return true;
		}
		nanosleep(&pause, NULL);
	}
	return false;
}
