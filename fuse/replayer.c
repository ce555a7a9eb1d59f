/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/replayer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIMIT_MS 120000 /* longer than any request takes whose lock it may wait for */

/* ---- the process ---- */

/* IN_MODIFY is what the kernel raises when nothing but the time of the last change is set: fsnotify_change(). */
static int modify(int dir, const char *name)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_nsec = UTIME_NOW } };

	return utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW);
}

static int take_step(int dir, const struct mf_replay_step *step)
{
	switch (step->kind) {
	case MF_EVENT_CREATE:
		return step->is_dir ? mkdirat(dir, step->name, 0) : mknodat(dir, step->name, S_IFREG, 0);
	case MF_EVENT_DELETE:
		return unlinkat(dir, step->name, step->is_dir ? AT_REMOVEDIR : 0);
	case MF_EVENT_MOVE:
		return renameat(dir, step->name, dir, step->to);
	case MF_EVENT_MODIFY:
		return modify(dir, step->name);
	case MF_EVENT_MANY:
		break;
	}
	return 0;
}

/* The name that it made in the kernel leads nowhere: looked up once more it is gone, and takes no memory. Not a directory's: one
 * that is there by now may be in use. A thread of the daemon that makes the kernel forget it could wait for a lock whose holder
 * waits for the daemon: killed then, this would never end. */
static void clean_up(int dir, const struct mf_replay_step *step)
{
	struct stat st;

	if (step->kind == MF_EVENT_CREATE && !step->is_dir)
		fstatat(dir, step->name, &st, AT_SYMLINK_NOFOLLOW);
	else if (step->kind == MF_EVENT_MOVE && !step->is_dir)
		fstatat(dir, step->to, &st, AT_SYMLINK_NOFOLLOW);
}

/* Is this the mount of our daemon? Only that knows us, and nothing that we have open can become another one. */
static bool is_ours(int mount, struct mf_replay_job *job)
{
	struct statx st;

	return statx(mount, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_INO, &st) == 0 &&
	       __atomic_load_n(&job->confirmed, __ATOMIC_SEQ_CST);
}

static void work(const char *mountpoint, struct mf_replay_job *job)
{
	int mount = open_tree(AT_FDCWD, mountpoint, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	job->error = mount < 0 ? errno : 0;
	if (mount < 0)
		return;
	/* Unmounted, or hidden by another mount: what is there is not ours to change. */
	if (!is_ours(mount, job)) {
		job->error = ENXIO;
	} else {
		int dir = openat(mount, job->way[0] ? job->way : ".", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		job->error = dir < 0 ? errno : 0;
		for (unsigned i = 0; dir >= 0 && i < job->n; i++) {
			__atomic_store_n(&job->done, i, __ATOMIC_SEQ_CST);
			job->steps[i].error = take_step(dir, &job->steps[i]) < 0 ? errno : 0;
			clean_up(dir, &job->steps[i]);
		}
		if (dir >= 0)
			close(dir);
	}
	close(mount);
}

static void let_go(int fd)
{
	int null = open("/dev/null", O_RDWR);

	for (int std = STDIN_FILENO; null >= 0 && std <= STDERR_FILENO; std++)
		dup2(null, std);
	dup2(fd, STDERR_FILENO + 1);
	closefrom(STDERR_FILENO + 2);
}

static _Noreturn void live(const char *mountpoint, int fd, struct mf_replay_job *job, pid_t parent)
{
	char byte;

	/* The daemon says when it is over, not whoever interrupts its process group. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	prctl(PR_SET_NAME, "mailfs-replay");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	umask(0);
	let_go(fd);
	while (read(STDERR_FILENO + 1, &byte, 1) == 1) {
		work(mountpoint, job);
		if (write(STDERR_FILENO + 1, &byte, 1) != 1)
			break;
	}
	_exit(0);
}

/* ---- the daemon ---- */

int mf_replayer_start(const char *mountpoint, struct mf_replayer *ret)
{
	pid_t parent = getpid();
	int fds[2];

	void *job = mmap(NULL, sizeof(*ret->job), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (job == MAP_FAILED)
		return -errno;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) {
		int r = -errno;
		munmap(job, sizeof(*ret->job));
		return r;
	}
	pid_t pid = fork();
	if (pid == 0)
		live(mountpoint, fds[1], job, parent);
	int r = pid < 0 ? -errno : 0;
	close(fds[1]);
	if (r < 0) {
		close(fds[0]);
		munmap(job, sizeof(*ret->job));
		return r;
	}
	*ret = (struct mf_replayer){ pid, fds[0], job };
	return 0;
}

int mf_replayer_run(struct mf_replayer *replayer)
{
	struct pollfd poll_fd = { .fd = replayer->fd, .events = POLLIN };
	char byte = 0;
	ssize_t n;

	if (send(replayer->fd, &byte, 1, MSG_NOSIGNAL) != 1)
		return -EPIPE;
	/* Stopped by somebody, it would keep the mount from ever going away. */
	do
		n = poll(&poll_fd, 1, LIMIT_MS);
	while (n < 0 && errno == EINTR);
	if (n == 0)
		mf_replayer_kill(replayer);
	do
		n = read(replayer->fd, &byte, 1);
	while (n < 0 && errno == EINTR);
	return n == 1 ? 0 : -EPIPE;
}

void mf_replayer_kill(struct mf_replayer *replayer)
{
	kill(replayer->pid, SIGKILL);
}

void mf_replayer_end(struct mf_replayer *replayer)
{
	mf_replayer_kill(replayer);
	close(replayer->fd);
	while (waitpid(replayer->pid, NULL, 0) < 0 && errno == EINTR)
		;
	munmap(replayer->job, sizeof(*replayer->job));
}
