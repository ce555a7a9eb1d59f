/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files that are replaced or removed all the time (Dovecot's indexes and dotlocks), and read by name on all nodes: whoever
 * opens one gets a whole one, whatever has become of the name between the kernel's lookup and its open. */
#include "nodes/nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINES = 400 };

struct shared {
	double seconds;
	atomic_int written, read, none, stale, failed, torn;
	atomic_int seen[MF_NODES_MAX]; /* by the readers of a node: bit w, what worker w wrote */
	int last_error;
};

/* All lines of one writing are the same. */
static bool is_whole(const char *text, ssize_t n, char *first)
{
	char expected[32];

	if (n < 8 || sscanf(text, "%7s", first) != 1)
		return false;
	int len = sprintf(expected, "%s\n", first);
	if (n % len != 0)
		return false;
	for (ssize_t at = 0; at < n; at += len) {
		if (memcmp(text + at, expected, len) != 0)
			return false;
	}
	return true;
}

static void fail(struct shared *s, int error)
{
	s->last_error = error;
	atomic_fetch_add(error == ESTALE ? &s->stale : &s->failed, 1);
}

static void look(struct shared *s, int node, const char *name, int lines)
{
	char text[LINES * 8 + 1], first[8];
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT) {
		atomic_fetch_add(&s->none, 1);
		return;
	}
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));
	if (n < 0) {
		fail(s, errno);
	} else {
		atomic_fetch_add(&s->read, 1);
		if (!is_whole(text, n, first) || n / 8 > lines)
			atomic_fetch_add(&s->torn, 1);
		else
			atomic_fetch_or(&s->seen[node], 1 << (first[0] - 'a'));
	}
	if (fd >= 0)
		close(fd);
}

static bool fill(const char *name, int worker, int round, int lines, int flags)
{
	char text[LINES * 8 + 1];
	int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600), len = 0;

	for (int i = 0; i < lines; i++)
		len += sprintf(text + len, "%c.%05d\n", 'a' + worker, round % 100000);
	bool ok = fd >= 0 && write(fd, text, len) == len;
	int error = errno;
	if (fd >= 0)
		ok &= close(fd) == 0;
	errno = error;
	return ok;
}

/* The first worker of each node writes, the others read. */
static bool writes(int worker)
{
	return worker < mf_nodes_count();
}

static int replace(int worker, void *arg)
{
	struct shared *s = arg;
	double end = mf_tap_now() + s->seconds;
	char own[32];

	sprintf(own, "index.tmp.%d", worker);
	for (int round = 0; mf_tap_now() < end; round++) {
		if (!writes(worker)) {
			look(s, mf_nodes_of(worker), "index", LINES);
			continue;
		}
		if (!fill(own, worker, round, 1 + round % LINES, O_TRUNC) || rename(own, "index") < 0)
			mf_nodes_fail("replace: %s", strerror(errno));
		atomic_fetch_add(&s->written, 1);
	}
	return 0;
}

/* What a dotlock of Dovecot is: made in a file of its own, linked, removed. Others read whose it is. */
static int lock(int worker, void *arg)
{
	struct shared *s = arg;
	double end = mf_tap_now() + s->seconds;
	char own[32];

	sprintf(own, "lock.tmp.%d", worker);
	for (int round = 0; mf_tap_now() < end; round++) {
		if (!writes(worker)) {
			look(s, mf_nodes_of(worker), "list.lock", 1);
			continue;
		}
		if (!fill(own, worker, round, 1, O_EXCL))
			mf_nodes_fail("lock: %s", strerror(errno));
		bool got = link(own, "list.lock") == 0;
		if (!got && errno != EEXIST)
			mf_nodes_fail("link: %s", strerror(errno));
		if (unlink(own) < 0 || (got && unlink("list.lock") < 0))
			mf_nodes_fail("unlink: %s", strerror(errno));
		atomic_fetch_add(&s->written, got);
	}
	return 0;
}

static void run(const char *what, int (*work)(int, void *), bool always)
{
	struct shared *s = mf_nodes_share(sizeof(*s));

	s->seconds = mf_nodes_seconds(20);
	int failed = mf_nodes_work(3 * mf_nodes_count(), work, s);
	mf_tap_ok(failed == 0 && s->written > 0 && s->read > 0, "%s: %d written, %d times read, %d times not there", what,
		s->written, s->read, s->none);
	/* The nodes take turns, so one may never see but its own and that of the node before it. */
	int seen = 0, elsewhere;
	for (int writer = 0; writer < mf_nodes_count(); writer++) {
		elsewhere = 0;
		for (int node = 0; node < mf_nodes_count(); node++)
			elsewhere |= node != writer && s->seen[node] >> writer & 1;
		seen += elsewhere;
	}
	mf_tap_ok(seen == mf_nodes_count(), "%s: that of %d of %d nodes is read on another", what, seen, mf_nodes_count());
	mf_tap_ok(s->torn == 0, "%s: each read shows one whole writing (%d not)", what, s->torn);
	mf_tap_ok(s->failed == 0 && s->stale == 0 && (!always || s->none == 0),
		"%s: no open or read fails (%d do, %d are ESTALE; %s)", what, s->failed, s->stale,
		s->last_error ? strerror(s->last_error) : "no error");
}

int main(int argc, char **argv)
{
	mf_nodes_start(argc, argv, "replaced");
	fill("index", 0, 0, 1, 0);
	run("a file renamed onto", replace, true);
	run("a dotlock", lock, false);
	return mf_tap_done();
}
