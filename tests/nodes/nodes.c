/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nodes/nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
	const char *name;
	int count;
	char dir[MF_NODES_MAX][PATH_MAX];
	int fd[MF_NODES_MAX];
	uint64_t seed;
	bool brief;
} nodes;

void mf_nodes_start(int argc, char **argv, const char *name)
{
	char first[PATH_MAX];
	int at = 1;

	nodes.name = name;
	nodes.seed = 1;
	if (argc > at + 1 && !strcmp(argv[at], "--seed")) {
		nodes.seed = strtoull(argv[at + 1], NULL, 0);
		at += 2;
	}
	if (argc > at && !strcmp(argv[at], "--short")) {
		nodes.brief = true;
		at++;
	}
	nodes.count = argc - at;
	if (nodes.count < 1 || nodes.count > MF_NODES_MAX) {
		fprintf(stderr, "usage: nodes-%s [--seed N] [--short] DIR_OF_NODE_0 DIR_OF_NODE_1...\n", name);
		exit(2);
	}
	mf_tap_start(argv[at], name);
	if (!getcwd(first, sizeof(first)))
		exit(2);
	for (int i = 0; i < nodes.count; i++) {
		char real[PATH_MAX];

		if (!realpath(argv[at + i], real) ||
			snprintf(nodes.dir[i], PATH_MAX, "%s%s", real, strrchr(first, '/')) >= PATH_MAX ||
			(nodes.fd[i] = open(nodes.dir[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
			fprintf(stderr, "%s: node %d does not show %s, made on node 0: %s\n", name, i, nodes.dir[i],
				strerror(errno));
			exit(2);
		}
	}
	mf_tap_note("%d nodes, seed %llu", nodes.count, (unsigned long long)nodes.seed);
}

int mf_nodes_count(void)
{
	return nodes.count;
}

double mf_nodes_seconds(double full)
{
	return nodes.brief ? full / 10 : full;
}

unsigned mf_nodes_random_start(unsigned stream)
{
	return (unsigned)(nodes.seed * 2654435761u + stream * 40503u + 1);
}

unsigned mf_nodes_random(unsigned *state, unsigned below)
{
	return (unsigned)rand_r(state) % below;
}

int mf_node_fd(int node)
{
	return nodes.fd[node];
}

const char *mf_node_path(int node, const char *fmt, ...)
{
	static char out[16][PATH_MAX];
	static unsigned next;
	char *path = out[next++ % 16], name[PATH_MAX / 2];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(name, sizeof(name), fmt, ap);
	va_end(ap);
	if (snprintf(path, PATH_MAX, "%s/%s", nodes.dir[node], name) >= PATH_MAX)
		mf_nodes_fail("a path that is too long");
	return path;
}

void mf_node_enter(int node)
{
	if (fchdir(nodes.fd[node]) < 0)
		mf_nodes_fail("node %d: fchdir: %s", node, strerror(errno));
}

void *mf_nodes_share(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		mf_nodes_fail("no memory to share");
	return p;
}

pthread_barrier_t *mf_nodes_barrier(unsigned count)
{
	pthread_barrier_t *barrier = mf_nodes_share(sizeof(*barrier));
	pthread_barrierattr_t attr;

	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(barrier, &attr, count);
	return barrier;
}

int mf_nodes_of(int worker)
{
	return worker % nodes.count;
}

void mf_nodes_work_start(int count, int (*work)(int worker, void *arg), void *arg, pid_t *ret_pids)
{
	fflush(stdout);
	for (int i = 0; i < count; i++) {
		ret_pids[i] = fork();
		if (ret_pids[i] < 0)
			mf_nodes_fail("fork: %s", strerror(errno));
		if (ret_pids[i] == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			mf_node_enter(mf_nodes_of(i));
			_exit(work(i, arg) ? 1 : 0);
		}
	}
}

int mf_nodes_work_end(int count, const pid_t *pids)
{
	int failed = 0, ended = 0, status;

	while (ended < count) {
		pid_t pid = wait(&status);

		if (pid < 0)
			return count;
		for (int i = 0; i < count; i++) {
			if (pids[i] != pid)
				continue;
			ended++;
			if (status == 0)
				continue;
			/* the others may wait at a barrier for the one that is gone */
			if (failed++ == 0)
				for (int k = 0; k < count; k++)
					kill(pids[k], SIGKILL);
		}
	}
	return failed;
}

int mf_nodes_work(int count, int (*work)(int worker, void *arg), void *arg)
{
	pid_t pids[64];

	if (count > (int)(sizeof(pids) / sizeof(pids[0])))
		mf_nodes_fail("%d workers", count);
	mf_nodes_work_start(count, work, arg, pids);
	return mf_nodes_work_end(count, pids);
}

void mf_nodes_fail(const char *fmt, ...)
{
	char text[PATH_MAX + 200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "# %s (process %d): %s\n", nodes.name, getpid(), text);
	_exit(3);
}

int mf_node_put(int node, const char *name, const char *text)
{
	int fd = openat(nodes.fd[node], name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), r = 0;
	size_t len = strlen(text);

	if (fd < 0)
		return -errno;
	if (write(fd, text, len) != (ssize_t)len)
		r = -errno;
	if (close(fd) < 0 && r == 0)
		r = -errno;
	return r;
}

int mf_node_get(int node, const char *name, char *text, size_t size)
{
	int fd = openat(nodes.fd[node], name, O_RDONLY | O_CLOEXEC), r = 0;
	ssize_t n;

	text[0] = 0;
	if (fd < 0)
		return -errno;
	n = pread(fd, text, size - 1, 0);
	if (n < 0)
		r = -errno;
	else
		text[n] = 0;
	close(fd);
	return r;
}

bool mf_node_lists(int node, const char *dir, const char *name)
{
	int fd = openat(nodes.fd[node], dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	bool found = false;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	while ((e = readdir(d)))
		found = found || !strcmp(e->d_name, name);
	closedir(d);
	return found;
}
