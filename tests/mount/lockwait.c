/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Blocking lock waits: fcntl, OFD and flock waiters are woken, are interrupted by a signal with EINTR, leave nothing
 * behind when they are killed, and however many wait, other work goes on. */
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum lock { LOCK_FCNTL, LOCK_OFD, LOCK_FLOCK, LOCK_KINDS };

static const char *const names[LOCK_KINDS] = { "fcntl", "OFD", "flock" };
static const long syscalls[LOCK_KINDS] = { SYS_fcntl, SYS_fcntl, SYS_flock };

enum { MANY = 200, WAKE_S = 10 };

/* type: F_RDLCK, F_WRLCK, F_UNLCK */
static int lock(enum lock kind, int fd, int type, bool wait)
{
	struct flock fl = { .l_type = type, .l_whence = SEEK_SET };

	switch (kind) {
	case LOCK_FCNTL:
		return fcntl(fd, wait ? F_SETLKW : F_SETLK, &fl);
	case LOCK_OFD:
		return fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &fl);
	default:
		return flock(fd, (type == F_RDLCK	   ? LOCK_SH
					 : type == F_WRLCK ? LOCK_EX
							   : LOCK_UN) |
					 (wait ? 0 : LOCK_NB));
	}
}

static void on_signal(int sig)
{
}

struct waiter {
	pid_t pid;
	int answer; /* a byte when the lock call has returned: 'y', or the errno */
};

/* A process that opens @path and waits for the lock; it then answers, holds for ever (hold) or exits. */
static struct waiter start_waiter(enum lock kind, const char *path, int type, bool hold)
{
	struct waiter w;
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		exit(2);
	w.pid = fork();
	if (w.pid == 0) {
		struct sigaction sa = { .sa_handler = on_signal };
		unsigned char byte = 'y';
		int fd;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (int i = 3; i < 64; i++) /* an inherited description would keep the OFD and BSD lock it has */
			if (i != p[1])
				close(i);
		sigaction(SIGUSR1, &sa, NULL); /* no SA_RESTART */
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0 || lock(kind, fd, type, true) < 0)
			byte = errno;
		if (write(p[1], &byte, 1) != 1)
			_exit(1);
		while (hold)
			pause();
		_exit(0);
	}
	close(p[1]);
	w.answer = p[0];
	return w;
}

/* -1: nothing within @ms */
static int answer_of(const struct waiter *w, int ms)
{
	struct pollfd pfd = { .fd = w->answer, .events = POLLIN };
	unsigned char byte;

	if (poll(&pfd, 1, ms) <= 0 || read(w->answer, &byte, 1) != 1)
		return -1;
	return byte;
}

static void end_waiter(struct waiter *w)
{
	kill(w->pid, SIGKILL);
	waitpid(w->pid, NULL, 0);
	close(w->answer);
}

static bool try_in_another_process(enum lock kind, const char *path)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		int fd = open(path, O_RDWR | O_CLOEXEC);

		_exit(fd >= 0 && lock(kind, fd, F_WRLCK, false) == 0 ? 0 : 1);
	}
	return waitpid(pid, &status, 0) == pid && status == 0;
}

static void test_wake(enum lock kind, const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	struct waiter w, w2;
	double start;
	bool ok;

	mf_tap_ok(fd >= 0 && lock(kind, fd, F_WRLCK, true) == 0, "%s: lock a free file", names[kind]);
	mf_tap_ok(!try_in_another_process(kind, path), "%s: another process cannot", names[kind]);
	w = start_waiter(kind, path, F_WRLCK, false);
	mf_tap_ok(mf_wait_in_syscall(w.pid, syscalls[kind]), "%s: a process waits", names[kind]);
	mf_tap_ok(answer_of(&w, 100) == -1, "%s: and goes on waiting", names[kind]);
	start = mf_tap_now();
	ok = lock(kind, fd, F_UNLCK, false) == 0 && answer_of(&w, WAKE_S * 1000) == 'y';
	mf_tap_ok(ok, "%s: woken by the unlock", names[kind]);
	mf_tap_ok(mf_tap_now() - start < 1, "%s: within a second", names[kind]);
	end_waiter(&w);
	mf_tap_ok(try_in_another_process(kind, path), "%s: the end of the process frees it", names[kind]);

	/* two readers come in at once, a writer does not; the last close of the holder lets the writer in */
	lock(kind, fd, F_RDLCK, true);
	w = start_waiter(kind, path, F_RDLCK, true);
	mf_tap_ok(answer_of(&w, WAKE_S * 1000) == 'y', "%s: readers share", names[kind]);
	w2 = start_waiter(kind, path, F_WRLCK, false);
	mf_tap_ok(mf_wait_in_syscall(w2.pid, syscalls[kind]) && answer_of(&w2, 50) == -1, "%s: a writer waits for both",
		names[kind]);
	end_waiter(&w);
	mf_tap_ok(answer_of(&w2, 50) == -1, "%s: still for one", names[kind]);
	close(fd);
	mf_tap_ok(answer_of(&w2, WAKE_S * 1000) == 'y', "%s: close lets it in", names[kind]);
	end_waiter(&w2);
}

static void test_signal(enum lock kind, const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), again;
	struct waiter w;

	lock(kind, fd, F_WRLCK, true);
	w = start_waiter(kind, path, F_WRLCK, true);
	mf_tap_ok(mf_wait_in_syscall(w.pid, syscalls[kind]) && answer_of(&w, 50) == -1, "%s: a process waits",
		names[kind]);
	kill(w.pid, SIGUSR1);
	mf_tap_ok(answer_of(&w, WAKE_S * 1000) == EINTR, "%s: a signal ends the wait with EINTR", names[kind]);
	lock(kind, fd, F_UNLCK, false);
	mf_tap_ok(try_in_another_process(kind, path), "%s: the interrupted one holds nothing", names[kind]);
	end_waiter(&w);

	lock(kind, fd, F_WRLCK, true);
	w = start_waiter(kind, path, F_WRLCK, true);
	mf_tap_ok(mf_wait_in_syscall(w.pid, syscalls[kind]) && answer_of(&w, 50) == -1, "%s: a process waits",
		names[kind]);
	end_waiter(&w); /* returns only when it is gone */
	mf_tap_ok(lock(kind, fd, F_UNLCK, false) == 0 && try_in_another_process(kind, path),
		"%s: a killed waiter leaves nothing", names[kind]);
	close(fd);
	again = open(path, O_RDWR | O_CLOEXEC);
	mf_tap_ok(lock(kind, again, F_WRLCK, false) == 0, "%s: and the file can be locked again", names[kind]);
	close(again);
}

/* What one holder of the lock does: the counter would lose steps if two held it. */
static int count_up(const char *path)
{
	char buf[16] = { 0 };
	int fd = open(path, O_RDWR | O_CLOEXEC), n;

	if (fd < 0 || pread(fd, buf, sizeof(buf) - 1, 0) < 0)
		return 1;
	n = snprintf(buf, sizeof(buf), "%010d", atoi(buf) + 1);
	if (pwrite(fd, buf, n, 0) != n || close(fd) < 0)
		return 1;
	return 0;
}

static bool other_work(void)
{
	for (int i = 0; i < 20; i++) {
		int fd = open("work", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		char c;

		if (fd < 0 || write(fd, "x", 1) != 1 || pread(fd, &c, 1, 0) != 1 || c != 'x' || fsync(fd) < 0)
			return false;
		close(fd);
		if (rename("work", "worked") < 0 || mf_count_names(".") < 1 || unlink("worked") < 0)
			return false;
	}
	return true;
}

static void test_many(enum lock kind)
{
	static pid_t pid[MANY];
	char buf[16] = { 0 };
	int fd = open("many", O_RDWR | O_CREAT | O_CLOEXEC, 0600), waiting = 0, failed = 0;
	int counter = open("counter", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	double start, took;
	bool ok;

	lock(kind, fd, F_WRLCK, true);
	for (int i = 0; i < MANY; i++) {
		pid[i] = fork();
		if (pid[i] == 0) {
			int f = open("many", O_RDWR | O_CLOEXEC);

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(fd);
			if (f < 0 || lock(kind, f, F_WRLCK, true) < 0)
				_exit(2);
			_exit(count_up("counter") || lock(kind, f, F_UNLCK, false) < 0);
		}
	}
	for (int i = 0; i < MANY; i++)
		waiting += mf_wait_in_syscall(pid[i], syscalls[kind]);
	mf_tap_ok(waiting == MANY, "%s: %d of %d processes wait", names[kind], waiting, MANY);
	start = mf_tap_now();
	mf_tap_ok(other_work(), "%s: other work is done meanwhile", names[kind]);
	took = mf_tap_now() - start;
	mf_tap_ok(took < 10, "%s: at once (%.2f s)", names[kind], took);
	start = mf_tap_now();
	lock(kind, fd, F_UNLCK, false);
	for (int i = 0; i < MANY; i++) {
		int status;

		if (waitpid(pid[i], &status, 0) != pid[i] || status != 0)
			failed++;
	}
	mf_tap_ok(failed == 0, "%s: every one of them got it in turn (%.2f s, %d failed)", names[kind],
		mf_tap_now() - start, failed);
	ok = pread(counter, buf, 15, 0) > 0 && atoi(buf) == MANY;
	mf_tap_ok(ok, "%s: one at a time (%s)", names[kind], buf);
	close(fd);
	close(counter);
	unlink("many");
	unlink("counter");
}

/* POSIX ranges: a waiter for the middle is not held up by the ends. */
static void test_ranges(void)
{
	int fd = open("ranges", O_RDWR | O_CREAT | O_CLOEXEC, 0600), status;
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 100 };
	pid_t pid;

	fcntl(fd, F_SETLK, &fl);
	fl.l_type = F_UNLCK;
	fl.l_start = 40;
	fl.l_len = 20;
	mf_tap_ok(fcntl(fd, F_SETLK, &fl) == 0, "ranges: unlock the middle of a lock");
	pid = fork();
	if (pid == 0) {
		int f = open("ranges", O_RDWR | O_CLOEXEC);

		fl.l_type = F_WRLCK;
		if (fcntl(f, F_SETLK, &fl) < 0)
			_exit(1);
		fl.l_start = 39;
		fl.l_len = 1;
		if (fcntl(f, F_SETLK, &fl) == 0)
			_exit(2);
		fl.l_start = 60;
		if (fcntl(f, F_GETLK, &fl) < 0 || fl.l_type != F_WRLCK || fl.l_start != 60 || fl.l_len != 40 ||
			fl.l_pid != getppid())
			_exit(3);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid)
		status = -1;
	mf_tap_ok(status == 0, "ranges: the middle is free, the ends are not (%d)", status);
	/* any close of the process drops its fcntl locks */
	close(open("ranges", O_RDONLY | O_CLOEXEC));
	mf_tap_ok(try_in_another_process(LOCK_FCNTL, "ranges"), "ranges: closing another descriptor drops fcntl locks");
	close(fd);
}

/* A description shared by dup and fork holds its OFD and BSD locks till the last of them closes. */
static void test_shared(enum lock kind)
{
	int fd = open("shared", O_RDWR | O_CREAT | O_CLOEXEC, 0600), copy;

	lock(kind, fd, F_WRLCK, true);
	copy = dup(fd);
	close(fd);
	mf_tap_ok(!try_in_another_process(kind, "shared"), "%s: held while a duplicate is open", names[kind]);
	close(open("shared", O_RDONLY | O_CLOEXEC));
	mf_tap_ok(!try_in_another_process(kind, "shared"), "%s: closing another description does not matter",
		names[kind]);
	close(copy);
	mf_tap_ok(try_in_another_process(kind, "shared"), "%s: the last close frees it", names[kind]);
}

int main(int argc, char **argv)
{
	mf_tap_start(argv[1], "lockwait");
	for (enum lock kind = 0; kind < LOCK_KINDS; kind++) {
		test_wake(kind, "file");
		test_signal(kind, "file");
	}
	test_ranges();
	test_shared(LOCK_OFD);
	test_shared(LOCK_FLOCK);
	for (enum lock kind = 0; kind < LOCK_KINDS; kind++)
		test_many(kind);
	return mf_tap_done();
}
