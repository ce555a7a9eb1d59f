/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nodes/wakeups.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "nodes/nodes.h"
#include "nodes/watcher.h"

enum { DELIVERIES = 60, BURST = 1000, CROWD = 6000, GROUPS_MAX = 40 };

#define PACE_S 0.03
#define MEDIAN_MAX_S 0.02
/* Without input for that long, who waits has gone to sleep again. */
#define PAUSE_S 0.015
/* From the end of a burst to its last event. */
#define LATEST_S 5.0

static void sleep_until(double when)
{
	struct timespec t = { (time_t)when, (long)(fmod(when, 1) * 1e9) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

static void make_message(const char *name, bool sync)
{
	if (mf_pattern_write(name, 1000, 1, sync) < 0)
		mf_nodes_fail("%s: %s", name, strerror(errno));
}

/* ---- how soon ---- */

struct soon {
	bool by_link;
	pthread_barrier_t *watching;
	atomic_bool over;
	double durable[DELIVERIES]; /* when its durable call returned */
	double told[MF_NODES_MAX][DELIVERIES];
};

static void deliver(struct soon *s, int i)
{
	char tmp[64], name[64];

	sprintf(tmp, "L/tmp/l%d", i);
	sprintf(name, "L/new/l%d%s", i, s->by_link ? "" : "r");
	make_message(tmp, s->by_link);
	if (s->by_link ? link(tmp, name) < 0 : rename(tmp, name) < 0 || mf_fsync_dir("L/new") < 0)
		mf_nodes_fail("%s: %s", name, strerror(errno));
	s->durable[i] = mf_tap_now();
	if (s->by_link)
		unlink(tmp);
}

/* Deliveries on node 0, a process that waits for them on each other one. */
static int soon_work(int worker, void *arg)
{
	struct soon *s = arg;
	int left = DELIVERIES;

	if (worker == 0) {
		double start;

		pthread_barrier_wait(s->watching);
		start = mf_tap_now();
		for (int i = 0; i < DELIVERIES; i++) {
			sleep_until(start + i * PACE_S);
			deliver(s, i);
		}
		s->over = true;
		return 0;
	}
	MfWatcher *watcher = mf_watcher_new();
	struct mf_event e;

	mf_watcher_add(watcher, 0, "L/new");
	pthread_barrier_wait(s->watching);
	while (left > 0) {
		bool over = s->over;
		int i;

		if (!mf_watcher_next(watcher, 2, &e)) {
			if (over)
				break;
			continue;
		}
		i = e.name[0] == 'l' ? atoi(e.name + 1) : -1;
		if (i >= 0 && i < DELIVERIES && s->told[worker][i] == 0) {
			s->told[worker][i] = e.when;
			left--;
		}
	}
	mf_watcher_free(watcher);
	return 0;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void check_soon(bool by_link)
{
	struct soon *s = mf_nodes_share(sizeof(*s));
	static double seconds[MF_NODES_MAX * DELIVERIES];
	int n = 0, missing = 0, failed;
	const char *how = by_link ? "link" : "rename and fsync";

	s->by_link = by_link;
	s->watching = mf_nodes_barrier(mf_nodes_count());
	failed = mf_nodes_work(mf_nodes_count(), soon_work, s);
	for (int node = 1; node < mf_nodes_count(); node++)
		for (int i = 0; i < DELIVERIES; i++) {
			if (s->told[node][i] == 0)
				missing++;
			else if (s->told[node][i] < s->durable[i])
				seconds[n++] = 0; /* before the call could return */
			else
				seconds[n++] = s->told[node][i] - s->durable[i];
		}
	qsort(seconds, n, sizeof(seconds[0]), by_value);
	mf_tap_ok(failed == 0 && missing == 0, "%d deliveries by %s, told by name on all other nodes (%d not)",
		DELIVERIES, how, missing);
	mf_tap_ok(n > 0 && seconds[n / 2] < MEDIAN_MAX_S,
		"from the return of %s to the event: p50 %.1f ms, p90 %.1f ms, max %.1f ms of %d", how,
		n ? seconds[n / 2] * 1000 : 0, n ? seconds[n * 9 / 10] * 1000 : 0, n ? seconds[n - 1] * 1000 : 0, n);
}

/* ---- how often ---- */

struct burst {
	const char *dir; /* where all appears */
	int count;
	double pace; /* s; 0: as fast as it goes */
	bool looks;  /* who waits lists the directory after each group of events */
	pthread_barrier_t *watching;
	atomic_bool over;
	double seconds; /* that it took */
	struct {
		int events, names, groups, vague, listed;
		double last; /* event, after the end of the burst */
	} of[MF_NODES_MAX];
	double ended;
};

static void burst_make(struct burst *s)
{
	bool is_mail = !strcmp(s->dir, "B/new");
	double start;
	char tmp[64], name[64];

	for (int i = 0; is_mail && i < s->count; i++) {
		sprintf(tmp, "B/tmp/b%d", i);
		make_message(tmp, false);
	}
	pthread_barrier_wait(s->watching);
	start = mf_tap_now();
	for (int i = 0; i < s->count; i++) {
		sprintf(tmp, "B/tmp/b%d", i);
		sprintf(name, "%s/b%d", s->dir, i);
		if (s->pace > 0)
			sleep_until(start + i * s->pace);
		if (is_mail ? rename(tmp, name) < 0 : mf_node_put(0, name, "") < 0)
			mf_nodes_fail("%s: %s", name, strerror(errno));
	}
	if (mf_fsync_dir(s->dir) < 0)
		mf_nodes_fail("fsync: %s", strerror(errno));
	s->ended = mf_tap_now();
	s->seconds = s->ended - start;
	s->over = true;
}

/* Whether all is known, to somebody who knows nothing but what he was told. */
static bool burst_known(struct burst *s, int node)
{
	if (s->looks)
		return s->of[node].listed == s->count;
	return s->of[node].names == s->count || s->of[node].vague > 0;
}

static void burst_take(struct burst *s, int node, bool *seen, const struct mf_event *e)
{
	int i = e->name[0] == 'b' ? atoi(e->name + 1) : -1;

	s->of[node].events++;
	s->of[node].vague += mf_event_is_vague(e);
	s->of[node].last = e->when;
	if (i >= 0 && i < s->count && !seen[i]) {
		seen[i] = true;
		s->of[node].names++;
	}
}

static void burst_watch(struct burst *s, int node)
{
	MfWatcher *watcher = mf_watcher_new();
	bool *seen = calloc(s->count, sizeof(*seen));
	struct mf_event e;

	mf_watcher_add(watcher, 0, s->dir);
	pthread_barrier_wait(s->watching);
	for (;;) {
		bool over = s->over;

		/* a vague event may come before the last change, and again after it: only time tells */
		if (over && s->of[node].vague == 0 && burst_known(s, node))
			break;
		if (!mf_watcher_next(watcher, over ? s->ended + LATEST_S - mf_tap_now() : PACE_S, &e)) {
			if (over)
				break;
			continue;
		}
		s->of[node].groups++;
		do {
			burst_take(s, node, seen, &e);
		} while (mf_watcher_next(watcher, PAUSE_S, &e));
		if (s->looks)
			s->of[node].listed = mf_count_names(s->dir);
	}
	if (!s->looks)
		s->of[node].listed = mf_count_names(s->dir);
	free(seen);
	mf_watcher_free(watcher);
}

static int burst_work(int worker, void *arg)
{
	if (worker == 0)
		burst_make(arg);
	else
		burst_watch(arg, worker);
	return 0;
}

static struct burst *check_burst(const char *dir, int count, double pace, bool looks)
{
	struct burst *s = mf_nodes_share(sizeof(*s));
	const char *what = looks ? "who lists after each group of events" : "who lists after the last event";
	int failed;

	s->dir = dir;
	s->count = count;
	s->pace = pace;
	s->looks = looks;
	s->watching = mf_nodes_barrier(mf_nodes_count());
	failed = mf_nodes_work(mf_nodes_count(), burst_work, s);
	mf_tap_ok(failed == 0, "%d names in %s, made in %.2f s", count, dir, s->seconds);
	for (int node = 1; node < mf_nodes_count(); node++)
		mf_tap_ok(burst_known(s, node) && s->of[node].listed == count,
			"node %d: %d events (%d names, %d times that something changed) in %d groups, the last one "
			"%.0f ms after; %s sees %d",
			node, s->of[node].events, s->of[node].names, s->of[node].vague, s->of[node].groups,
			fmax(s->of[node].last - s->ended, 0) * 1000, what, s->of[node].listed);
	return s;
}

static void clear(const char *dir)
{
	mf_tap_ok(mf_nodes_count() > 0 && (mf_tap_remove(dir), access(dir, F_OK) < 0), "%s is removed", dir);
}

void mf_wakeups_check(void)
{
	struct burst *s;

	mf_tap_ok(mf_maildir_make("L") == 0 && mf_maildir_make("B") == 0 && mkdir("C", 0700) == 0, "more directories");
	check_soon(true);
	check_soon(false);
	s = check_burst("B/new", BURST, 1.0 / BURST, false);
	for (int node = 1; node < mf_nodes_count(); node++)
		mf_tap_ok(s->of[node].groups > 0 && s->of[node].groups <= GROUPS_MAX * fmax(s->seconds, 1),
			"%d deliveries wake node %d %d times", BURST, node, s->of[node].groups);
	clear("B");
	mf_tap_ok(mf_maildir_make("B") == 0, "B again");
	check_burst("B/new", BURST, 1.0 / BURST, true);
	check_burst("C", mf_nodes_seconds(10) < 10 ? CROWD / 3 : CROWD, 0, false);
}
