/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One pass over a folder sees every message that exists throughout exactly once, while other nodes change flags, move
 * messages from new to cur, deliver and expunge. On another filesystem than mailfs what is missed is only told. */
#include "nodes/nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STAYING = 600, PASSES = 40, CHANGERS = 2, ENOUGH_S = 40, MOVES_MIN = 3, MOVES_S = 10 };

struct shared {
	atomic_bool stop;
	atomic_int changes, refused;
	atomic_int missed, doubled, passes;
};

static const char *const flags[] = { "", "S", "FS", "RS" };

/* Flags of its own half of the messages; and one that comes through new and goes. */
static int change(int worker, void *arg)
{
	struct shared *s = arg;
	unsigned state = mf_nodes_random_start(worker);
	unsigned char has[STAYING] = { 0 };

	if (mf_nodes_count() > 1) /* not on node 0, which looks */
		mf_node_enter(1 + worker % (mf_nodes_count() - 1));
	for (int n = 0; !s->stop; n++) {
		int id = mf_nodes_random(&state, STAYING / CHANGERS) * CHANGERS + worker;
		int to = mf_nodes_random(&state, 4);
		char from_name[64], to_name[64], fresh[64];

		sprintf(from_name, "M/cur/m%d.x:2,%s", id, flags[has[id]]);
		sprintf(to_name, "M/cur/m%d.x:2,%s", id, flags[to]);
		if (rename(from_name, to_name) < 0)
			s->refused++;
		has[id] = to;
		s->changes++;
		sprintf(from_name, "M/tmp/extra%d", worker);
		sprintf(fresh, "M/new/extra%d.%d", worker, n);
		sprintf(to_name, "M/cur/extra%d.%d:2,", worker, n);
		if (mf_pattern_write(from_name, 20, 1, false) < 0 || rename(from_name, fresh) < 0 ||
			rename(fresh, to_name) < 0 || unlink(to_name) < 0)
			s->refused++;
	}
	return 0;
}

struct linux_dirent64 {
	uint64_t d_ino;
	int64_t d_off;
	unsigned short d_reclen;
	unsigned char d_type;
	char d_name[];
};

static void one_pass(int node, size_t bufsize, int *missed, int *doubled)
{
	static unsigned char seen[STAYING];
	char buf[32768] __attribute__((aligned(8)));
	int fd = openat(mf_node_fd(node), "M/cur", O_RDONLY | O_DIRECTORY | O_CLOEXEC), id;
	long n;

	if (fd < 0)
		mf_nodes_fail("node %d: open cur: %s", node, strerror(errno));
	memset(seen, 0, sizeof(seen));
	while ((n = syscall(SYS_getdents64, fd, buf, bufsize)) > 0)
		for (long at = 0; at < n; at += ((struct linux_dirent64 *)(buf + at))->d_reclen)
			if (sscanf(((struct linux_dirent64 *)(buf + at))->d_name, "m%d.x", &id) == 1 && id >= 0 &&
				id < STAYING)
				seen[id] += seen[id] < 255;
	if (n < 0)
		mf_nodes_fail("node %d: getdents: %s", node, strerror(errno));
	close(fd);
	for (id = 0; id < STAYING; id++) {
		*missed += seen[id] == 0;
		*doubled += seen[id] > 1;
	}
}

/* Node 0 and the first of the changers' nodes look. */
static int look(int worker, void *arg)
{
	struct shared *s = arg;
	double end = mf_tap_now() + ENOUGH_S;

	for (int pass = 0; pass < PASSES && mf_tap_now() < end; pass++) {
		int missed = 0, doubled = 0;

		/* a small buffer makes many reads of one pass */
		one_pass(mf_nodes_of(worker), pass % 2 ? 32768 : 1024, &missed, &doubled);
		s->missed += missed;
		s->doubled += doubled;
		s->passes++;
		/* not before something has changed */
		for (int was = s->changes; s->changes == was && mf_tap_now() < end;)
			sched_yield();
	}
	return 0;
}

/* A message that moves from new to cur is in one of them, whoever looks first at new and then at cur. */
static int look_moving(int worker, void *arg)
{
	struct shared *s = arg;
	char name[64];

	for (int i = 0; !s->stop; i++) {
		bool in_new;

		sprintf(name, "moving%d", s->changes);
		in_new = mf_node_lists(0, "M/new", name);
		if (in_new)
			continue;
		strcat(name, ":2,");
		if (!mf_node_lists(0, "M/cur", name))
			s->missed++;
		s->passes++;
	}
	return 0;
}

static int move(int worker, void *arg)
{
	struct shared *s = arg;
	double begin = mf_tap_now(), end = begin + mf_nodes_seconds(5);
	char from[64], to[64];

	mf_node_enter(mf_nodes_count() - 1);
	/* However slow the machine is, a few times. */
	while (mf_tap_now() < end || (s->changes <= MOVES_MIN && mf_tap_now() < begin + MOVES_S)) {
		int was = s->passes;

		sprintf(from, "M/new/moving%d", s->changes);
		sprintf(to, "M/cur/moving%d:2,", s->changes);
		if (rename(from, to) < 0)
			mf_nodes_fail("%s: %s", from, strerror(errno));
		while (s->passes == was && mf_tap_now() < begin + MOVES_S)
			sched_yield();
		sprintf(from, "M/new/moving%d", s->changes + 1);
		if (mf_pattern_write("M/tmp/moving", 20, 1, false) < 0 || rename("M/tmp/moving", from) < 0)
			mf_nodes_fail("%s: %s", from, strerror(errno));
		s->changes++;
		/* nobody asks for it any more, and cur stays short */
		sprintf(to, "M/cur/moving%d:2,", s->changes - 3);
		unlink(to);
	}
	s->stop = true;
	return 0;
}

static void test_moving(void)
{
	struct shared *s = mf_nodes_share(sizeof(*s));
	pid_t looker, mover;
	int failed;

	mf_pattern_write("M/tmp/moving", 20, 1, false);
	rename("M/tmp/moving", "M/new/moving0");
	mf_nodes_work_start(1, look_moving, s, &looker);
	mf_nodes_work_start(1, move, s, &mover);
	failed = mf_nodes_work_end(2, (pid_t[]){ looker, mover });
	mf_tap_ok(failed == 0 && s->passes > MOVES_MIN && s->changes > MOVES_MIN && s->missed == 0,
		"a message that another node moves from new to cur is in one of them (%d of %d passes missed it)",
		s->missed, s->passes);
}

int main(int argc, char **argv)
{
	struct shared *s;
	int missed = 0, doubled = 0, failed;
	pid_t changers[CHANGERS], lookers[2];
	bool ok = true;

	mf_nodes_start(argc, argv, "listing");
	s = mf_nodes_share(sizeof(*s));
	mf_tap_ok(mf_maildir_make("M") == 0, "a Maildir");
	for (int i = 0; i < STAYING; i++) {
		char to[64];

		sprintf(to, "M/cur/m%d.x:2,", i);
		ok = ok && mf_pattern_write("M/tmp/one", 10, i, false) == 0 && rename("M/tmp/one", to) == 0;
	}
	mf_tap_ok(ok, "%d messages", STAYING);
	mf_nodes_work_start(CHANGERS, change, s, changers);
	mf_nodes_work_start(2, look, s, lookers);
	failed = mf_nodes_work_end(2, lookers);
	s->stop = true;
	failed += mf_nodes_work_end(CHANGERS, changers);
	mf_tap_ok(failed == 0 && s->passes == 2 * PASSES, "%d passes", s->passes);
	mf_tap_ok(s->changes >= PASSES && s->refused == 0, "%d renames meanwhile, none refused (%d)", s->changes,
		s->refused);
	if (mf_tap_is_fuse())
		mf_tap_ok(s->missed == 0 && s->doubled == 0, "none missed (%d), none doubled (%d)", s->missed,
			s->doubled);
	else
		mf_tap_skip("not promised here: %d missed, %d doubled", s->missed, s->doubled);
	for (int node = 0; node < mf_nodes_count(); node++)
		one_pass(node, 1024, &missed, &doubled);
	mf_tap_ok(missed == 0 && doubled == 0, "at rest all are there once on each node");
	test_moving();
	return mf_tap_done();
}
