/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Locks that one node holds and another asks for: refused, shared, waited for, named by F_GETLK, and gone when they
 * must be: by unlock, close, exec and the end of a process. */
#include "nodes/nodes.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "nodes/filelock.h"

enum { WAKE_S = 10, QUIET_MS = 100 };

static const char *program; /* this one, for exec */

struct holder {
	pid_t pid;
	int answer; /* a byte when the lock call has returned: 'y', or the errno */
};

static void on_signal(int sig)
{
}

/* A process on @node that opens the file, waits for the lock, answers, and holds it until it is ended. */
static struct holder start_holder(int node, enum mf_filelock kind, const char *name, int type)
{
	struct holder h;
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		exit(2);
	fflush(stdout);
	h.pid = fork();
	if (h.pid == 0) {
		struct sigaction sa = { .sa_handler = on_signal };
		unsigned char byte = 'y';
		int fd;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		sigaction(SIGUSR1, &sa, NULL); /* no SA_RESTART */
		fd = openat(mf_node_fd(node), name, O_RDWR | O_CLOEXEC);
		for (int i = 3; i < 64; i++) /* an inherited description would keep the OFD and BSD lock it has */
			if (i != p[1] && i != fd)
				close(i);
		if (fd < 0 || mf_filelock_set(kind, fd, type, true) < 0)
			byte = errno;
		if (write(p[1], &byte, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(p[1]);
	h.answer = p[0];
	return h;
}

/* -1: nothing within @ms */
static int answer_of(const struct holder *h, int ms)
{
	struct pollfd pfd = { .fd = h->answer, .events = POLLIN };
	unsigned char byte;

	if (poll(&pfd, 1, ms) <= 0 || read(h->answer, &byte, 1) != 1)
		return -1;
	return byte;
}

static void end_holder(struct holder *h)
{
	kill(h->pid, SIGKILL);
	waitpid(h->pid, NULL, 0);
	close(h->answer);
}

/* Whether a new process on that node could have it at once. */
static bool is_free(int node, enum mf_filelock kind, const char *name, int type)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		int fd = openat(mf_node_fd(node), name, O_RDWR | O_CLOEXEC);

		_exit(fd >= 0 && mf_filelock_set(kind, fd, type, false) == 0 ? 0 : 1);
	}
	return waitpid(pid, &status, 0) == pid && status == 0;
}

static bool is_free_within(int node, enum mf_filelock kind, const char *name, double seconds)
{
	double end = mf_tap_now() + seconds;

	while (!is_free(node, kind, name, F_WRLCK))
		if (mf_tap_now() > end)
			return false;
	return true;
}

static int open_on(int node, const char *name)
{
	return openat(mf_node_fd(node), name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

static void test_wait(enum mf_filelock kind, int a, int b)
{
	const char *what = mf_filelock_names[kind];
	int fd = open_on(a, "wait");
	struct holder h, second;
	double start;
	bool ok;

	mf_tap_ok(fd >= 0 && mf_filelock_set(kind, fd, F_WRLCK, true) == 0, "%s: node %d locks a free file", what, a);
	mf_tap_ok(!is_free(b, kind, "wait", F_WRLCK) && !is_free(b, kind, "wait", F_RDLCK),
		"%s: node %d is refused at once", what, b);
	h = start_holder(b, kind, "wait", F_WRLCK);
	ok = mf_wait_in_syscall(h.pid, mf_filelock_syscalls[kind]) && answer_of(&h, QUIET_MS) == -1;
	mf_tap_ok(ok, "%s: or waits", what);
	start = mf_tap_now();
	ok = mf_filelock_set(kind, fd, F_UNLCK, false) == 0 && answer_of(&h, WAKE_S * 1000) == 'y';
	mf_tap_ok(ok, "%s: the unlock wakes it (%.1f ms)", what, (mf_tap_now() - start) * 1000);
	mf_tap_ok(mf_filelock_set(kind, fd, F_WRLCK, false) < 0 && errno == EAGAIN, "%s: now node %d is refused", what,
		a);
	end_holder(&h);
	mf_tap_ok(is_free_within(a, kind, "wait", 5), "%s: the end of the process frees it on node %d", what, a);

	mf_filelock_set(kind, fd, F_RDLCK, true);
	h = start_holder(b, kind, "wait", F_RDLCK);
	mf_tap_ok(answer_of(&h, WAKE_S * 1000) == 'y', "%s: readers of two nodes share", what);
	second = start_holder(b, kind, "wait", F_WRLCK);
	ok = mf_wait_in_syscall(second.pid, mf_filelock_syscalls[kind]) && answer_of(&second, QUIET_MS) == -1;
	mf_tap_ok(ok, "%s: a writer waits for both", what);
	end_holder(&h);
	mf_tap_ok(answer_of(&second, QUIET_MS) == -1, "%s: still for one", what);
	close(fd);
	mf_tap_ok(answer_of(&second, WAKE_S * 1000) == 'y', "%s: close lets it in", what);
	end_holder(&second);
}

static void test_signal(enum mf_filelock kind, int a, int b)
{
	const char *what = mf_filelock_names[kind];
	int fd = open_on(a, "signal");
	struct holder h;
	bool ok;

	mf_filelock_set(kind, fd, F_WRLCK, true);
	h = start_holder(b, kind, "signal", F_WRLCK);
	ok = mf_wait_in_syscall(h.pid, mf_filelock_syscalls[kind]) && answer_of(&h, QUIET_MS) == -1;
	kill(h.pid, SIGUSR1);
	mf_tap_ok(ok && answer_of(&h, WAKE_S * 1000) == EINTR, "%s: a signal ends the wait with EINTR", what);
	mf_filelock_set(kind, fd, F_UNLCK, false);
	mf_tap_ok(is_free(a, kind, "signal", F_WRLCK), "%s: the interrupted one holds nothing", what);
	end_holder(&h);

	mf_filelock_set(kind, fd, F_WRLCK, true);
	h = start_holder(b, kind, "signal", F_WRLCK);
	ok = mf_wait_in_syscall(h.pid, mf_filelock_syscalls[kind]) && answer_of(&h, QUIET_MS) == -1;
	end_holder(&h);
	ok = ok && mf_filelock_set(kind, fd, F_UNLCK, false) == 0;
	mf_tap_ok(ok && is_free(a, kind, "signal", F_WRLCK) && is_free(b, kind, "signal", F_WRLCK),
		"%s: a waiter that was killed leaves nothing", what);
	close(fd);
}

static bool getlk(int node, int cmd, int type, off_t start, off_t len, struct flock *ret)
{
	int fd = openat(mf_node_fd(node), "ranges", O_RDWR | O_CLOEXEC);
	bool ok;

	*ret = (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };
	ok = fd >= 0 && fcntl(fd, cmd, ret) == 0;
	close(fd);
	return ok;
}

/* The asker is another process: for one process that asks through two mounts we promise nothing. */
static bool child_says(bool (*check)(int node), int node)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0)
		_exit(check(node) ? 0 : 1);
	return waitpid(pid, &status, 0) == pid && status == 0;
}

static bool sees_ranges(int node)
{
	struct flock fl;

	return getlk(node, F_GETLK, F_WRLCK, 0, 5, &fl) && fl.l_type == F_UNLCK &&
	       getlk(node, F_GETLK, F_WRLCK, 0, 0, &fl) && fl.l_type == F_WRLCK && fl.l_start == 10 && fl.l_len == 20 &&
	       getlk(node, F_GETLK, F_RDLCK, 50, 10, &fl) && fl.l_type == F_UNLCK &&
	       getlk(node, F_GETLK, F_WRLCK, 50, 10, &fl) && fl.l_type == F_RDLCK && fl.l_start == 50 &&
	       fl.l_len == 0 && getlk(node, F_OFD_GETLK, F_WRLCK, 15, 1, &fl) && fl.l_type == F_WRLCK;
}

static bool can_lock_beside(int node)
{
	int fd = openat(mf_node_fd(node), "ranges", O_RDWR | O_CLOEXEC);
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 30, .l_len = 20 };
	bool ok = fd >= 0 && fcntl(fd, F_SETLK, &fl) == 0;

	fl.l_start = 29;
	ok = ok && fcntl(fd, F_SETLK, &fl) < 0 && errno == EAGAIN;
	fl.l_start = 60;
	fl.l_type = F_RDLCK;
	return ok && fcntl(fd, F_SETLK, &fl) == 0;
}

static void test_ranges(int a, int b)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 20 };
	int fd = open_on(a, "ranges");
	bool ok = fcntl(fd, F_SETLK, &fl) == 0;

	fl = (struct flock){ .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 50 };
	mf_tap_ok(ok && fcntl(fd, F_SETLK, &fl) == 0, "ranges: two on node %d", a);
	mf_tap_ok(child_says(sees_ranges, b), "ranges: F_GETLK on node %d names them", b);
	mf_tap_ok(child_says(can_lock_beside, b), "ranges: node %d locks beside them, not over them", b);
	close(openat(mf_node_fd(a), "ranges", O_RDONLY | O_CLOEXEC));
	mf_tap_ok(is_free(b, MF_FCNTL, "ranges", F_WRLCK), "ranges: closing another descriptor drops fcntl locks");
	close(fd);
}

/* Of a lock taken before a fork: what the child does with the description it inherited. */
static void test_fork(enum mf_filelock kind, int a, int b)
{
	int fd = open_on(a, "fork"), p[2], status;
	const char *what = mf_filelock_names[kind];
	char byte;
	pid_t pid;

	mf_filelock_set(kind, fd, F_WRLCK, true);
	if (pipe2(p, O_CLOEXEC) < 0)
		exit(2);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		close(p[1]);
		/* close alone: of a POSIX lock the child has none, the others are the description's */
		_exit(read(p[0], &byte, 1) < 0 || close(fd) < 0);
	}
	close(p[0]);
	mf_tap_ok(!is_free(b, kind, "fork", F_WRLCK), "%s: held after a fork", what);
	if (kind == MF_FCNTL) {
		close(p[1]);
		waitpid(pid, &status, 0);
		mf_tap_ok(!is_free(b, kind, "fork", F_WRLCK), "%s: the child's close drops nothing", what);
		close(fd);
	} else {
		close(fd);
		mf_tap_ok(!is_free(b, kind, "fork", F_WRLCK), "%s: the child's copy keeps it", what);
		close(p[1]);
		waitpid(pid, &status, 0);
	}
	mf_tap_ok(is_free_within(b, kind, "fork", 5), "%s: the last close frees it on node %d", what, b);
}

/* What was held goes with close-on-exec, and stays without. */
static void test_exec(enum mf_filelock kind, int a, int b, bool cloexec)
{
	const char *what = mf_filelock_names[kind];
	int in[2], out[2], fd;
	char byte;
	pid_t pid;

	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
		exit(2);
	close(open_on(a, "exec"));
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		fd = openat(mf_node_fd(a), "exec", O_RDWR | (cloexec ? O_CLOEXEC : 0));
		if (fd < 0 || mf_filelock_set(kind, fd, F_WRLCK, false) < 0 || dup2(in[0], 0) < 0 ||
			dup2(out[1], 1) < 0)
			_exit(1);
		execl(program, program, "--echo", NULL);
		_exit(1);
	}
	close(in[0]);
	close(out[1]);
	if (read(out[0], &byte, 1) != 1)
		mf_tap_note("the program did not start");
	mf_tap_ok(cloexec ? is_free_within(b, kind, "exec", 5) : !is_free(b, kind, "exec", F_WRLCK),
		"%s: after exec %s", what, cloexec ? "with close-on-exec it is free" : "it is held");
	close(in[1]);
	waitpid(pid, NULL, 0);
	close(out[0]);
	mf_tap_ok(is_free_within(b, kind, "exec", 5), "%s: and free at the end of that program", what);
}

/* Says that it runs, and ends when nobody wants it any more. */
static int echo(void)
{
	char byte = 'y';

	if (write(1, &byte, 1) != 1)
		return 1;
	return read(0, &byte, 1) < 0;
}

int main(int argc, char **argv)
{
	int last;

	if (argc == 2 && !strcmp(argv[1], "--echo"))
		return echo();
	program = realpath("/proc/self/exe", NULL);
	mf_nodes_start(argc, argv, "lock");
	last = mf_nodes_count() - 1;
	for (int turn = 0; turn < 2; turn++) {
		int a = turn ? last : 0, b = turn ? 0 : last;

		for (enum mf_filelock kind = 0; kind < MF_FILELOCKS; kind++) {
			test_wait(kind, a, b);
			test_signal(kind, a, b);
			test_fork(kind, a, b);
			test_exec(kind, a, b, false);
			test_exec(kind, a, b, true);
		}
		test_ranges(a, b);
	}
	return mf_tap_done();
}
