/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Processes on all nodes do the same exclusive thing at the same time: one wins, and the others are told so. */
#include "nodes/nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum race { RACE_CREATE, RACE_MKDIR, RACE_LINK, RACE_RENAME, RACE_NOREPLACE, RACE_UNLINK, RACE_PUBLISH, RACES };
enum { ROUNDS = 50, WORKERS_MAX = 16 };

static const struct {
	const char *what;
	int loser; /* its errno */
} races[RACES] = {
	[RACE_CREATE] = { "open O_CREAT|O_EXCL of one name", EEXIST },
	[RACE_MKDIR] = { "mkdir of one name", EEXIST },
	[RACE_LINK] = { "link onto one name", EEXIST },
	[RACE_RENAME] = { "rename of one name", ENOENT },
	[RACE_NOREPLACE] = { "rename RENAME_NOREPLACE onto one name", EEXIST },
	[RACE_UNLINK] = { "unlink of one name", ENOENT },
	[RACE_PUBLISH] = { "link out of tmp onto one name", EEXIST },
};

struct shared {
	atomic_int steps, stalled;
	enum race race;
	int workers;
	pthread_barrier_t *gate;
	atomic_int winners[ROUNDS], strange[ROUNDS], unseen;
	int last_strange; /* an errno */
};

static void own_name(char *out, enum race race, int worker)
{
	sprintf(out, race == RACE_PUBLISH ? "M/tmp/own%d" : "own%d", worker);
}

/* What must be there before the race. */
static void prepare(const struct shared *s, int worker, bool first)
{
	char own[64];
	int fd;

	own_name(own, s->race, worker);
	switch (s->race) {
	case RACE_RENAME:
	case RACE_UNLINK:
		fd = first ? open("prize", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -2;
		break;
	case RACE_LINK:
	case RACE_NOREPLACE:
	case RACE_PUBLISH:
		fd = open(own, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		break;
	default:
		return;
	}
	if (fd == -1)
		mf_nodes_fail("%s: prepare: %s", races[s->race].what, strerror(errno));
	if (fd >= 0)
		close(fd);
}

static int attempt(enum race race, int worker)
{
	char own[64];
	int fd;

	own_name(own, race, worker);
	switch (race) {
	case RACE_CREATE:
		fd = open("prize", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		return fd < 0 ? errno : close(fd) < 0 ? errno : 0;
	case RACE_MKDIR:
		return mkdir("prize", 0700) < 0 ? errno : 0;
	case RACE_LINK:
		return link(own, "prize") < 0 ? errno : 0;
	case RACE_RENAME:
		return rename("prize", own) < 0 ? errno : 0;
	case RACE_NOREPLACE:
		return renameat2(AT_FDCWD, own, AT_FDCWD, "prize", RENAME_NOREPLACE) < 0 ? errno : 0;
	case RACE_PUBLISH:
		return link(own, "M/new/prize") < 0 ? errno : 0;
	default:
		return unlink("prize") < 0 ? errno : 0;
	}
}

/* Who waits for a second was told by nobody that it is his turn, and has asked again. */
static void note_step(struct shared *s, double since)
{
	s->steps++;
	if (mf_tap_now() - since > 0.9)
		s->stalled++;
}

/* The prize as everybody must see it after the race; then the winner takes it away. */
static void look_and_clean(struct shared *s, int worker, bool won)
{
	const char *name = s->race == RACE_PUBLISH ? "M/new/prize" : "prize";
	char own[64], taken[64];
	struct stat st;
	bool there = lstat(name, &st) == 0, wanted = s->race != RACE_RENAME && s->race != RACE_UNLINK;

	own_name(own, s->race, worker);
	if (there != wanted)
		s->unseen++;
	pthread_barrier_wait(s->gate);
	double since = mf_tap_now();
	if (won && wanted) {
		snprintf(taken, sizeof(taken), "%s", name);
		if ((s->race == RACE_MKDIR ? rmdir(taken) : unlink(taken)) < 0)
			mf_nodes_fail("%s: the winner cannot remove it: %s", races[s->race].what, strerror(errno));
	}
	if (s->race != RACE_CREATE && s->race != RACE_MKDIR && s->race != RACE_UNLINK)
		unlink(own);
	note_step(s, since);
}

static int contest(int worker, void *arg)
{
	struct shared *s = arg;

	for (int round = 0; round < ROUNDS; round++) {
		double since = mf_tap_now();
		int err;

		prepare(s, worker, round % s->workers == worker);
		note_step(s, since);
		pthread_barrier_wait(s->gate);
		since = mf_tap_now();
		err = attempt(s->race, worker);
		note_step(s, since);
		if (err == 0) {
			s->winners[round]++;
		} else if (err != races[s->race].loser) {
			s->strange[round]++;
			s->last_strange = err;
		}
		pthread_barrier_wait(s->gate);
		look_and_clean(s, worker, err == 0);
		pthread_barrier_wait(s->gate);
	}
	return 0;
}

static void test_race(enum race race, int *steps, int *stalled)
{
	struct shared *s = mf_nodes_share(sizeof(*s));
	int none = 0, several = 0, strange = 0, failed;
	double start = mf_tap_now();

	s->race = race;
	s->workers = mf_nodes_count() > 4 ? mf_nodes_count() : mf_nodes_count() * 2;
	if (s->workers > WORKERS_MAX)
		s->workers = WORKERS_MAX;
	s->gate = mf_nodes_barrier(s->workers);
	failed = mf_nodes_work(s->workers, contest, s);
	for (int round = 0; round < ROUNDS; round++) {
		none += s->winners[round] == 0;
		several += s->winners[round] > 1;
		strange += s->strange[round];
	}
	mf_tap_ok(failed == 0 && none == 0 && several == 0 && strange == 0,
		"%s: one winner in each of %d rounds of %d processes (none %d, several %d; other errors %d, last %s; "
		"%.1f s)",
		races[race].what, ROUNDS, s->workers, none, several, strange,
		s->last_strange ? strerror(s->last_strange) : "none", mf_tap_now() - start);
	mf_tap_ok(s->unseen == 0, "%s: then every process sees what became of it (%d did not)", races[race].what,
		s->unseen);
	*steps += s->steps;
	*stalled += s->stalled;
}

int main(int argc, char **argv)
{
	int steps = 0, stalled = 0;

	mf_nodes_start(argc, argv, "race");
	mf_tap_ok(mf_maildir_make("M") == 0, "a Maildir");
	for (enum race race = 0; race < RACES; race++)
		test_race(race, &steps, &stalled);
	mf_tap_ok(stalled * 200 <= steps, "of %d steps in all, not one in 200 takes a second (%d)", steps, stalled);
	return mf_tap_done();
}
