/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dotlocks by O_EXCL and by link(2), contended by eight processes: one holder at a time. */
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PROCESSES = 8, EACH = 60, LIMIT_S = 120 };

static void a_moment(void)
{
	struct timespec t = { 0, 300000 };

	nanosleep(&t, NULL);
}

static int take_exclusive(const char *lock, int who)
{
	int fd = open(lock, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	char text[16];
	int n = snprintf(text, sizeof(text), "%d", who);

	if (fd < 0)
		return -errno;
	if (write(fd, text, n) != n || close(fd) < 0)
		return -EIO;
	return 0;
}

/* as over NFS: what counts is the link count of one's own file */
static int take_by_link(const char *lock, int who)
{
	char mine[64], text[16];
	struct stat st;
	int fd, n = snprintf(text, sizeof(text), "%d", who), err;

	snprintf(mine, sizeof(mine), "%s.%d", lock, who);
	fd = open(mine, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -EIO;
	if (write(fd, text, n) != n || close(fd) < 0)
		return -EIO;
	err = link(mine, lock) < 0 ? errno : 0;
	if (stat(mine, &st) < 0)
		return -EIO;
	if ((st.st_nlink == 2) != (err == 0))
		return -EPROTO;
	if (unlink(mine) < 0)
		return -EIO;
	return -err;
}

/* In the critical section: the lock is ours, and the counter loses nothing. */
static int work(const char *lock, int who)
{
	char buf[32] = { 0 };
	int fd = open(lock, O_RDONLY | O_CLOEXEC), n;

	if (fd < 0 || read(fd, buf, sizeof(buf) - 1) < 1 || atoi(buf) != who || close(fd) < 0)
		return -EPROTO;
	memset(buf, 0, sizeof(buf));
	fd = open("counter", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || read(fd, buf, sizeof(buf) - 1) < 0)
		return -EIO;
	n = snprintf(buf, sizeof(buf), "%d\n", atoi(buf) + 1);
	a_moment();
	if (pwrite(fd, buf, n, 0) != n || close(fd) < 0)
		return -EIO;
	return unlink(lock) < 0 ? -EIO : 0;
}

static int contend(int (*take)(const char *, int), const char *lock, int who, const int gate[2])
{
	double end = mf_tap_now() + LIMIT_S;
	char c;

	close(gate[1]);
	if (read(gate[0], &c, 1) != 0) /* till all are there */
		return 1;
	for (int i = 0; i < EACH;) {
		int r = take(lock, who);

		if (r == -EEXIST && mf_tap_now() < end) {
			a_moment();
			continue;
		}
		if (r == 0)
			r = work(lock, who);
		if (r < 0) {
			fprintf(stderr, "dotlock: process %d, round %d: %s\n", who, i, strerror(-r));
			return 1;
		}
		i++;
	}
	return 0;
}

static void test(const char *what, int (*take)(const char *, int))
{
	pid_t pid[PROCESSES];
	char buf[32] = { 0 };
	bool ok = true;
	double start = mf_tap_now(), took;
	int fd, gate[2];

	unlink("counter");
	if (pipe(gate) < 0)
		return;
	for (int i = 0; i < PROCESSES; i++) {
		pid[i] = fork();
		if (pid[i] == 0)
			_exit(contend(take, "dovecot-uidlist.lock", i + 1, gate));
	}
	close(gate[0]);
	close(gate[1]);
	for (int i = 0; i < PROCESSES; i++) {
		int status;

		ok = waitpid(pid[i], &status, 0) == pid[i] && status == 0 && ok;
	}
	took = mf_tap_now() - start;
	mf_tap_ok(ok, "%s: %d processes took it %d times each (%.2f s)", what, PROCESSES, EACH, took);
	fd = open("counter", O_RDONLY);
	ok = fd >= 0 && read(fd, buf, sizeof(buf) - 1) > 0 && atoi(buf) == PROCESSES * EACH;
	mf_tap_ok(ok, "%s: the counter says %d", what, atoi(buf));
	close(fd);
	mf_tap_ok(access("dovecot-uidlist.lock", F_OK) < 0 && errno == ENOENT, "%s: no lock is left", what);
}

int main(int argc, char **argv)
{
	mf_tap_start(argv[1], "dotlock");
	test("O_EXCL", take_exclusive);
	test("link", take_by_link);
	return mf_tap_done();
}
