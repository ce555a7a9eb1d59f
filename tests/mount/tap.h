/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/mount/tap.h - what the mount tests share: ok lines, files with bytes that can be checked, waiting for a
 * condition.
 *
 * Model:   a test program gets a directory, works in a fresh subdirectory of it, prints "ok N - what" or
 *          "not ok N - what" and at last the plan "1..N". Exit status 0 only if all were ok.
 * Threads: mf_tap_ok may be called by any thread of the process that called mf_tap_start.
 */
#ifndef TESTS_MOUNT_TAP_H
#define TESTS_MOUNT_TAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Makes and enters DIR/NAME.<pid>. */
void mf_tap_start(const char *dir, const char *name);
/* Removes it, prints the plan; the exit status. */
int mf_tap_done(void);
/* Also says errno when not ok. Returns @good. */
bool mf_tap_ok(bool good, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void mf_tap_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void mf_tap_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The filesystem under test is a FUSE one: what only mailfs promises is asked of it. */
bool mf_tap_is_fuse(void);
double mf_tap_now(void); /* seconds, monotonic */
/* Removes a tree. */
void mf_tap_remove(const char *path);

/* The byte at @pos of a file named by @seed; cheap to compute anywhere in a large one. */
static inline unsigned char mf_pattern_byte(uint64_t seed, uint64_t pos)
{
	uint64_t x = (pos >> 3) * 0x9e3779b97f4a7c15u + seed;

	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9u;
	x ^= x >> 32;
	return x >> ((pos & 7) * 8);
}
void mf_pattern_fill(void *buf, size_t len, uint64_t seed, uint64_t pos);
/* -1, or the first position (from @pos) that differs. */
int64_t mf_pattern_check(const void *buf, size_t len, uint64_t seed, uint64_t pos);
/* Creates @path O_EXCL with @size bytes; 0 or -errno. */
int mf_pattern_write(const char *path, uint64_t size, uint64_t seed, bool sync);
/* 0, -errno, -EILSEQ: other bytes, or another size. */
int mf_pattern_verify(const char *path, uint64_t size, uint64_t seed);
int mf_pattern_verify_fd(int fd, uint64_t size, uint64_t seed);

/* mkdir PATH, PATH/cur, PATH/new, PATH/tmp; 0 or -errno. */
int mf_maildir_make(const char *path);
/* How many names but . and .. ; -errno. */
int mf_count_names(const char *path);
int mf_fsync_dir(const char *path);
/* Waits until the task sits in the system call @nr. False: not within 10 s. */
bool mf_wait_in_syscall(pid_t pid, long nr);

#endif
