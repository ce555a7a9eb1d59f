/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/daemon.h"

#include "fuse/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef MF_HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

static int parent_fd = -1; /* to the parent that waits; -1 in the foreground and once it was told */

static int pid_open(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* The pipe alone would not show the end of the child: processes that it forked may hold it too. */
static void wait_for_child(pid_t pid, int fd)
{
	int pidfd = pid_open(pid);
	struct pollfd pfds[] = {
		{ .fd = fd, .events = POLLIN },
		{ .fd = pidfd, .events = POLLIN },
	};
	unsigned char code;
	int status;

	while (poll(pfds, 2, -1) < 0 && errno == EINTR)
		;
	if (read(fd, &code, 1) == 1)
		_exit(code);

	if (waitpid(pid, &status, 0) == pid && WIFSIGNALED(status))
		fprintf(stderr, "mailfs: killed by signal %d (%s) before it was ready\n", WTERMSIG(status),
			strsignal(WTERMSIG(status)));
	else
		fprintf(stderr, "mailfs: ended before it was ready\n");
	_exit(1);
}

int mf_daemon_fork(bool foreground)
{
	pid_t parent = getpid();
	int fds[2];
	pid_t pid;

	if (foreground)
		return 0;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid < 0) {
		int r = -errno;

		close(fds[0]);
		close(fds[1]);
		return r;
	}
	if (pid > 0) {
		close(fds[1]);
		/* So that a read after the child's death cannot block. */
		fcntl(fds[0], F_SETFL, O_NONBLOCK);
		wait_for_child(pid, fds[0]);
	}

	close(fds[0]);
	parent_fd = fds[1];
	setsid();
	/* Whoever interrupts the mount before it serves must not find it served later. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	if (chdir("/") < 0)
		return -errno;
	return 0;
}

static void tell_parent(unsigned char code)
{
	prctl(PR_SET_PDEATHSIG, 0);

	void (*old)(int) = signal(SIGPIPE, SIG_IGN);

	if (write(parent_fd, &code, 1) != 1)
		g_debug("nobody waits for the mount any more");
	signal(SIGPIPE, old);
	close(parent_fd);
	parent_fd = -1;
}

static void give_up_stdio(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return;
	fflush(NULL);
	for (int std = STDIN_FILENO; std <= STDERR_FILENO; std++)
		dup2(fd, std);
	if (fd > STDERR_FILENO)
		close(fd);
}

void mf_daemon_ready(const char *status)
{
	if (parent_fd >= 0) {
		mf_log_detach();
		give_up_stdio();
		tell_parent(0);
	}
#ifdef MF_HAVE_SYSTEMD
	sd_notifyf(false, "READY=1\nSTATUS=%s\nMAINPID=%ld", status, (long)getpid());
#endif
}

void mf_daemon_stopping(void)
{
#ifdef MF_HAVE_SYSTEMD
	sd_notify(false, "STOPPING=1\nSTATUS=Writing what is left");
#endif
}

void mf_daemon_failed(int code)
{
	if (parent_fd >= 0)
		tell_parent((unsigned char)code);
}
