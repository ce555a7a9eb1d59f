/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A hundred mailboxes, and processes on all nodes that deliver, change flags and expunge at random for 20 s. At the end
 * each acknowledged message is there exactly once on every node, with its bytes, and no expunged one. */
#include "nodes/nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BOXES = 100, SECONDS = 20, WORKERS = 8, MESSAGES_MAX = 200000 };

enum { UNUSED, DELIVERED, EXPUNGED };

struct shared {
	double end;
	atomic_int next; /* message */
	unsigned char box[MESSAGES_MAX];
	_Atomic unsigned char state[MESSAGES_MAX];
	atomic_int deliveries, changes, expunges, lost_races, twice;
};

static unsigned size_of(int id)
{
	return 100 + (unsigned)id * 7919 % 8000;
}

static void deliver(struct shared *s, unsigned *state, int worker)
{
	int id = s->next++, box = mf_nodes_random(state, BOXES);
	char tmp[64], to[64];
	bool by_link = mf_nodes_random(state, 2);

	if (id >= MESSAGES_MAX)
		return;
	sprintf(tmp, "box%d/tmp/m%d", box, id);
	sprintf(to, "box%d/new/m%d", box, id);
	s->box[id] = box;
	if (mf_pattern_write(tmp, size_of(id), id, by_link) < 0 || (by_link ? link(tmp, to) : rename(tmp, to)) < 0)
		mf_nodes_fail("deliver %s: %s", to, strerror(errno));
	/* another process may have met and expunged it already */
	atomic_compare_exchange_strong(&s->state[id], &(unsigned char){ UNUSED }, DELIVERED);
	if (by_link && unlink(tmp) < 0)
		mf_nodes_fail("unlink %s: %s", tmp, strerror(errno));
	s->deliveries++;
}

/* A message of a random mailbox, as a listing shows it. */
static bool pick(unsigned *state, char *path, int *id)
{
	char dir[32];
	struct dirent *e;
	int n = 0;
	DIR *d;

	sprintf(dir, "box%u/%s", mf_nodes_random(state, BOXES), mf_nodes_random(state, 2) ? "new" : "cur");
	d = opendir(dir);
	if (!d)
		mf_nodes_fail("%s: %s", dir, strerror(errno));
	while ((e = readdir(d)))
		if (e->d_name[0] == 'm' && mf_nodes_random(state, ++n) == 0) {
			snprintf(path, 128, "%s/%.64s", dir, e->d_name);
			*id = atoi(e->d_name + 1);
		}
	closedir(d);
	return n > 0;
}

static void change_flags(struct shared *s, unsigned *state)
{
	static const char *const flags[] = { "", "S", "FS", "RS", "ST" };
	char from[128], to[64];
	int id;

	if (!pick(state, from, &id))
		return;
	sprintf(to, "box%d/cur/m%d:2,%s", s->box[id], id, flags[mf_nodes_random(state, 5)]);
	if (rename(from, to) == 0)
		s->changes++;
	else if (errno == ENOENT)
		s->lost_races++;
	else
		mf_nodes_fail("rename %s %s: %s", from, to, strerror(errno));
}

static void expunge(struct shared *s, unsigned *state)
{
	char path[128];
	int id;

	if (!pick(state, path, &id))
		return;
	if (unlink(path) == 0) {
		if (atomic_exchange(&s->state[id], EXPUNGED) == EXPUNGED)
			s->twice++;
		s->expunges++;
	} else if (errno == ENOENT) {
		s->lost_races++;
	} else {
		mf_nodes_fail("unlink %s: %s", path, strerror(errno));
	}
}

static int use_mailboxes(int worker, void *arg)
{
	struct shared *s = arg;
	unsigned state = mf_nodes_random_start(worker);

	while (mf_tap_now() < s->end && s->next < MESSAGES_MAX) {
		unsigned what = mf_nodes_random(&state, 10);

		if (what < 4)
			deliver(s, &state, worker);
		else if (what < 8)
			change_flags(s, &state);
		else
			expunge(s, &state);
	}
	return 0;
}

static void count_box(int node, int box, const char *part, unsigned char *seen, const struct shared *s, int *strange)
{
	int fd =
		openat(mf_node_fd(node), mf_node_path(node, "box%d/%s", box, part), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d) {
		(*strange)++;
		return;
	}
	while ((e = readdir(d))) {
		int id = e->d_name[0] == 'm' ? atoi(e->d_name + 1) : -1;

		if (e->d_name[0] == '.')
			continue;
		if (id < 0 || id >= MESSAGES_MAX || s->box[id] != box || !strcmp(part, "tmp")) {
			(*strange)++;
			continue;
		}
		seen[id]++;
		/* the bytes of some */
		if (id % 7 == node && mf_pattern_verify(mf_node_path(node, "box%d/%s/%s", box, part, e->d_name),
					      size_of(id), id) != 0) {
			mf_tap_note("node %d: bytes of box%d/%s/%s", node, box, part, e->d_name);
			(*strange)++;
		}
	}
	closedir(d);
}

static void check(int node, const struct shared *s)
{
	static unsigned char seen[MESSAGES_MAX];
	int missing = 0, doubled = 0, revenants = 0, strange = 0, there = 0;

	memset(seen, 0, sizeof(seen));
	for (int box = 0; box < BOXES; box++) {
		count_box(node, box, "new", seen, s, &strange);
		count_box(node, box, "cur", seen, s, &strange);
		count_box(node, box, "tmp", seen, s, &strange);
	}
	for (int id = 0; id < s->next && id < MESSAGES_MAX; id++) {
		missing += s->state[id] == DELIVERED && seen[id] == 0;
		doubled += seen[id] > 1;
		revenants += s->state[id] == EXPUNGED && seen[id] > 0;
		there += seen[id] > 0;
	}
	mf_tap_ok(missing == 0 && doubled == 0 && revenants == 0 && strange == 0,
		"node %d: %d messages, none missing (%d), doubled (%d), back from the dead (%d) or wrong (%d)", node,
		there, missing, doubled, revenants, strange);
}

int main(int argc, char **argv)
{
	struct shared *s;
	bool ok = true;
	int failed;

	mf_nodes_start(argc, argv, "mailboxes");
	s = mf_nodes_share(sizeof(*s));
	for (int i = 0; i < BOXES; i++)
		ok = ok && mf_maildir_make(mf_node_path(i % mf_nodes_count(), "box%d", i)) == 0;
	mf_tap_ok(ok, "%d mailboxes", BOXES);
	s->end = mf_tap_now() + mf_nodes_seconds(SECONDS);
	failed = mf_nodes_work(WORKERS, use_mailboxes, s);
	mf_tap_ok(failed == 0, "%d processes: %d deliveries, %d flag changes, %d expunges, %d lost a race", WORKERS,
		s->deliveries, s->changes, s->expunges, s->lost_races);
	mf_tap_ok(s->twice == 0, "no message is expunged twice (%d)", s->twice);
	for (int node = 0; node < mf_nodes_count(); node++)
		check(node, s);
	return mf_tap_done();
}
