/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One pass over a folder sees every message that exists throughout exactly once, while others rename, add and expunge.
 * A promise of mailfs: on another filesystem what is missed or doubled is only told. */
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STAYING = 1500, PASSES = 40 };

static atomic_bool stop;
static atomic_int changes, refused;

static void name_of(char *out, size_t size, int i, int flags)
{
	static const char *const f[] = { "", "S", "FS", "RS" };

	snprintf(out, size, "M/cur/m%d.x:2,%s", i, f[flags]);
}

/* Renames random messages of its half, in the folder and out of it and back. */
static void *renamer(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	int half = seed % 2, n = 0;
	unsigned char state[STAYING] = { 0 };

	while (!stop) {
		int i = rand_r(&seed) % (STAYING / 2) * 2 + half, to = rand_r(&seed) % 4;
		char from_name[64], to_name[64], extra[64];

		name_of(from_name, sizeof(from_name), i, state[i]);
		name_of(to_name, sizeof(to_name), i, to);
		if (rename(from_name, to_name) == 0) {
			state[i] = to;
			changes++;
		} else {
			refused++;
		}
		/* and one that comes and goes */
		snprintf(extra, sizeof(extra), "M/cur/extra%d.%d:2,", half, n++ % 50);
		if (unlink(extra) < 0) {
			int fd;

			snprintf(from_name, sizeof(from_name), "M/tmp/extra%d", half);
			fd = open(from_name, O_WRONLY | O_CREAT | O_EXCL, 0600);
			if (fd < 0 || close(fd) < 0 || rename(from_name, extra) < 0)
				refused++;
		}
	}
	return NULL;
}

struct linux_dirent64 {
	uint64_t d_ino;
	int64_t d_off;
	unsigned short d_reclen;
	unsigned char d_type;
	char d_name[];
};

static int one_pass(size_t bufsize, int *missed, int *doubled)
{
	static unsigned char seen[STAYING];
	char buf[32768] __attribute__((aligned(8)));
	int fd = open("M/cur", O_RDONLY | O_DIRECTORY | O_CLOEXEC), id;

	if (fd < 0)
		return -errno;
	memset(seen, 0, sizeof(seen));
	for (;;) {
		long n = syscall(SYS_getdents64, fd, buf, bufsize);

		if (n < 0) {
			close(fd);
			return -EIO;
		}
		if (n == 0)
			break;
		for (long at = 0; at < n; at += ((struct linux_dirent64 *)(buf + at))->d_reclen)
			if (sscanf(((struct linux_dirent64 *)(buf + at))->d_name, "m%d.x", &id) == 1 && id >= 0 &&
				id < STAYING)
				seen[id] += seen[id] < 255;
	}
	close(fd);
	for (id = 0; id < STAYING; id++) {
		*missed += seen[id] == 0;
		*doubled += seen[id] > 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	pthread_t thread[2];
	int missed = 0, doubled = 0, r = 0;
	bool ok = true;
	double start;

	mf_tap_start(argv[1], "snapshot");
	mf_tap_ok(mf_maildir_make("M") == 0, "a Maildir");
	for (int i = 0; i < STAYING; i++) {
		char tmp[64], to[64];

		snprintf(tmp, sizeof(tmp), "M/tmp/m%d", i);
		name_of(to, sizeof(to), i, 0);
		ok = ok && mf_pattern_write(tmp, 10, i, false) == 0 && rename(tmp, to) == 0;
	}
	mf_tap_ok(ok, "%d messages", STAYING);
	for (uintptr_t i = 0; i < 2; i++)
		pthread_create(&thread[i], NULL, renamer, (void *)(i + 2));
	start = mf_tap_now();
	for (int pass = 0; pass < PASSES && r == 0 && mf_tap_now() < start + 60; pass++) {
		/* a small buffer makes many reads of one pass */
		r = one_pass(pass % 2 ? 32768 : 1024, &missed, &doubled);
		/* not before something has changed */
		for (int was = changes; changes == was && mf_tap_now() < start + 60;)
			sched_yield();
	}
	stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	mf_tap_ok(r == 0, "%d passes", PASSES);
	mf_tap_ok(changes >= PASSES && refused == 0, "%d renames meanwhile, none refused (%d)", changes, refused);
	if (mf_tap_is_fuse())
		mf_tap_ok(missed == 0 && doubled == 0, "none missed (%d), none doubled (%d)", missed, doubled);
	else
		mf_tap_skip("not promised here: %d missed, %d doubled", missed, doubled);
	missed = doubled = 0;
	mf_tap_ok(one_pass(1024, &missed, &doubled) == 0 && missed == 0 && doubled == 0, "at rest all are there once");
	return mf_tap_done();
}
