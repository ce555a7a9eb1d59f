/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Two nodes take and drop dotlocks in one directory as fast as they can: each gets its share. */
#include "nodes/nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Long enough for some hundred turns of each. */
enum { SECONDS = 3, NODES = 2, SHARE_PERCENT = 20 };

struct shared {
	pthread_barrier_t *gate;
	bool one_name;
	long done[NODES];
	double slowest[NODES]; /* seconds */
};

static int take_and_drop(int worker, void *arg)
{
	struct shared *s = arg;
	double end, before, now;
	char name[32];

	/* the last node, and the first */
	mf_node_enter(worker ? mf_nodes_count() - 1 : 0);
	sprintf(name, "busy/%d.lock", s->one_name ? 0 : worker);
	pthread_barrier_wait(s->gate);
	now = mf_tap_now();
	end = now + SECONDS;
	for (before = now; now < end; now = mf_tap_now()) {
		int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

		if (fd < 0 && s->one_name && errno == EEXIST)
			continue;
		if (fd < 0 || close(fd) < 0 || unlink(name) < 0)
			mf_nodes_fail("%s: %s", name, strerror(errno));
		s->done[worker]++;
		now = mf_tap_now();
		if (now - before > s->slowest[worker])
			s->slowest[worker] = now - before;
		before = now;
	}
	return 0;
}

static void test_share(bool one_name)
{
	struct shared *s = mf_nodes_share(sizeof(*s));
	const char *what = one_name ? "one dotlock for both" : "a dotlock of each";
	long least;
	int failed;

	s->gate = mf_nodes_barrier(NODES);
	s->one_name = one_name;
	failed = mf_nodes_work(NODES, take_and_drop, s);
	least = s->done[0] < s->done[1] ? s->done[0] : s->done[1];
	mf_tap_note("%s: %ld and %ld a second; the longest wait %.1f and %.1f ms", what, s->done[0] / SECONDS,
		s->done[1] / SECONDS, s->slowest[0] * 1000, s->slowest[1] * 1000);
	/* who polls for one name gets it by chance */
	mf_tap_ok(failed == 0 && (one_name ? s->done[0] + s->done[1] : least) > 0, "%s: %s", what,
		one_name ? "it goes on" : "both go on");
	if (!one_name) {
		/* where a turn takes this long there are too few of them, and what is measured is the machine */
		bool slow = s->slowest[0] > 0.2 || s->slowest[1] > 0.2;

		mf_tap_ok(slow || least * 100 >= (s->done[0] + s->done[1] - least) * SHARE_PERCENT,
			"%s: neither gets below %d %% of the other (%ld and %ld)%s", what, SHARE_PERCENT, s->done[0],
			s->done[1], slow ? ": not judged, the machine is too busy" : "");
		mf_tap_ok(s->slowest[0] < 3 && s->slowest[1] < 3, "%s: nobody waits longer than 3 s", what);
	}
	mf_tap_ok(mf_count_names("busy") == 0, "%s: no lock is left", what);
}

int main(int argc, char **argv)
{
	mf_nodes_start(argc, argv, "fairness");
	mf_tap_ok(mkdirat(mf_node_fd(0), "busy", 0700) == 0, "a directory");
	test_share(false);
	test_share(true);
	return mf_tap_done();
}
