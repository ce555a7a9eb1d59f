/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A directory takes the place of an empty one while others put files into that: either it is no longer empty and stays, or
 * what is put there comes into the new one. What was made is never lost. */
#include "nodes/nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROUNDS = 60, WORKERS_MAX = 16 };

struct shared {
	pthread_barrier_t *gate;
	int workers;
	atomic_int moved, refused, made, lost, strange;
	int last_strange; /* an errno */
};

static void note(struct shared *s, int error)
{
	s->strange++;
	s->last_strange = error;
}

static void make(struct shared *s, const char *name)
{
	if (mkdir(name, 0700) < 0)
		note(s, errno);
}

static void take_place(struct shared *s)
{
	if (rename("b/dir", "a/dir") == 0)
		s->moved++;
	else if (errno == ENOTEMPTY || errno == EEXIST)
		s->refused++;
	else
		note(s, errno);
}

/* True when it was made. */
static bool put(struct shared *s, const char *name)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	/* Looked up before, and gone since. */
	if (fd < 0 && errno != ENOENT && errno != ESTALE)
		note(s, errno);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static int work(int worker, void *arg)
{
	struct shared *s = arg;
	unsigned random = mf_nodes_random_start((unsigned)worker);
	char name[64];

	snprintf(name, sizeof(name), "a/dir/file%d", worker);
	for (int round = 0; round < ROUNDS; round++) {
		bool renames = round % s->workers == worker;
		bool made = false;

		if (renames) {
			make(s, "a/dir");
			make(s, "b/dir");
		}
		pthread_barrier_wait(s->gate);
		/* Now and then one side comes first for sure, or nearly. */
		bool waits = round % 4 == (renames ? 1 : 0);
		usleep(waits ? 200000 : mf_nodes_random(&random, renames ? 500 : 3000));
		if (renames)
			take_place(s);
		else
			made = put(s, name);
		pthread_barrier_wait(s->gate);
		if (made) {
			s->made++;
			if (unlink(name) < 0)
				s->lost++;
		}
		pthread_barrier_wait(s->gate);
		if (renames) {
			if (rmdir("a/dir") < 0)
				note(s, errno);
			if (rmdir("b/dir") < 0 && errno != ENOENT)
				note(s, errno);
		}
		pthread_barrier_wait(s->gate);
	}
	return 0;
}

int main(int argc, char **argv)
{
	mf_nodes_start(argc, argv, "overdir");
	struct shared *s = mf_nodes_share(sizeof(*s));
	double start = mf_tap_now();

	mf_tap_ok(mkdir("a", 0700) == 0 && mkdir("b", 0700) == 0, "two directories");
	s->workers = mf_nodes_count() * 2 > WORKERS_MAX ? WORKERS_MAX : mf_nodes_count() * 2;
	s->gate = mf_nodes_barrier((unsigned)s->workers);
	int failed = mf_nodes_work(s->workers, work, s);
	mf_tap_ok(failed == 0 && s->lost == 0 && s->strange == 0,
		"no file is lost in %d rounds of %d processes (%d of %d are; other errors %d, last %s; %.1f s)", ROUNDS,
		s->workers, s->lost, s->made, s->strange, s->last_strange ? strerror(s->last_strange) : "none",
		mf_tap_now() - start);
	mf_tap_ok(s->moved > 0 && s->refused > 0 && s->made > 0, "it came to both ends (%d moved, %d refused; %d files)",
		s->moved, s->refused, s->made);
	return mf_tap_done();
}
