/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Processes on two nodes add 2,000 each to one counter under a lock: no step is lost, and no two own the lock. */
#include "nodes/nodes.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nodes/filelock.h"

enum { WORKERS = 4, STEPS = 2000, WIDTH = 10 };

static int steps;

struct shared {
	enum mf_filelock kind;
	pthread_barrier_t *gate;
	atomic_int owners, together; /* by memory, past any filesystem */
	atomic_int strangers;	     /* somebody else's name in "who" */
};

static int open_file(const char *name)
{
	int fd = open(name, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		mf_nodes_fail("open %s: %s", name, strerror(errno));
	return fd;
}

static void lock(enum mf_filelock kind, int fd)
{
	if ((kind == MF_DOTLOCK ? mf_dotlock_take("counter.lock") : mf_filelock_set(kind, fd, F_WRLCK, true)) < 0)
		mf_nodes_fail("%s: lock: %s", mf_filelock_names[kind], strerror(errno));
}

static void unlock(enum mf_filelock kind, int fd)
{
	if ((kind == MF_DOTLOCK ? unlink("counter.lock") : mf_filelock_set(kind, fd, F_UNLCK, false)) < 0)
		mf_nodes_fail("%s: unlock: %s", mf_filelock_names[kind], strerror(errno));
}

static long read_number(int fd)
{
	char text[WIDTH + 1] = { 0 };

	if (pread(fd, text, WIDTH, 0) != WIDTH)
		mf_nodes_fail("short read of the counter");
	return atol(text);
}

static void write_number(int fd, long number)
{
	char text[24];

	snprintf(text, sizeof(text), "%0*ld", WIDTH, number);
	if (pwrite(fd, text, WIDTH, 0) != WIDTH)
		mf_nodes_fail("write of the counter: %s", strerror(errno));
}

static int count_up(int worker, void *arg)
{
	struct shared *s = arg;
	int counter = open_file("counter"), who = open_file("who");
	char mine = 'a' + worker, seen;

	pthread_barrier_wait(s->gate);
	for (int i = 0; i < steps; i++) {
		long was;

		lock(s->kind, counter);
		if (atomic_fetch_add(&s->owners, 1) != 0)
			s->together++;
		if (pwrite(who, &mine, 1, 0) != 1)
			mf_nodes_fail("write of who: %s", strerror(errno));
		was = read_number(counter);
		write_number(counter, was + 1);
		if (pread(who, &seen, 1, 0) != 1 || seen != mine)
			s->strangers++;
		atomic_fetch_sub(&s->owners, 1);
		unlock(s->kind, counter);
	}
	close(counter);
	close(who);
	return 0;
}

static void test_increments(enum mf_filelock kind)
{
	struct shared *s = mf_nodes_share(sizeof(*s));
	double start = mf_tap_now();
	char text[32];
	int failed;
	bool same = true;

	s->kind = kind;
	s->gate = mf_nodes_barrier(WORKERS);
	mf_node_put(0, "counter", "0000000000");
	mf_node_put(0, "who", "-");
	failed = mf_nodes_work(WORKERS, count_up, s);
	for (int node = 0; node < mf_nodes_count(); node++) {
		mf_node_get(node, "counter", text, sizeof(text));
		same = same && atol(text) == WORKERS * steps;
	}
	mf_tap_ok(failed == 0 && same, "%s: %d processes add %d each: %s on each node (%.1f s)",
		mf_filelock_names[kind], WORKERS, steps, text, mf_tap_now() - start);
	mf_tap_ok(s->together == 0, "%s: never two owners at once (%d times)", mf_filelock_names[kind], s->together);
	mf_tap_ok(s->strangers == 0, "%s: and none reads another's name in the file (%d times)",
		mf_filelock_names[kind], s->strangers);
}

int main(int argc, char **argv)
{
	mf_nodes_start(argc, argv, "increment");
	steps = mf_nodes_seconds(STEPS);
	for (enum mf_filelock kind = MF_FCNTL; kind <= MF_DOTLOCK; kind++)
		test_increments(kind);
	return mf_tap_done();
}
