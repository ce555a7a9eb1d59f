/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a kernel keeps of a message (names, attributes, pages, mappings) is right after another node renamed, unlinked
 * or replaced it. */
#include "nodes/nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIZE = 300000, ROUNDS = 20 };

static bool publish(int node, const char *name, uint64_t seed, uint64_t size)
{
	return mf_pattern_write(mf_node_path(node, "M/tmp/one"), size, seed, false) == 0 &&
	       renameat(mf_node_fd(node), "M/tmp/one", mf_node_fd(node), name) == 0;
}

static void *map(int node, const char *name, int *ret_fd)
{
	int fd = openat(mf_node_fd(node), name, O_RDONLY | O_CLOEXEC);
	void *p = fd < 0 ? MAP_FAILED : mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);

	*ret_fd = fd;
	return p == MAP_FAILED ? NULL : p;
}

/* Pages not touched before are read after the change. */
static bool holds(const char *p, uint64_t seed)
{
	return p && mf_pattern_check(p, SIZE, seed, 0) < 0;
}

static bool is_message(int node, const char *name, uint64_t seed, uint64_t size)
{
	return mf_pattern_verify(mf_node_path(node, "%s", name), size, seed) == 0;
}

static void test_mapped(int a, int b)
{
	int fd[3];
	char *half = publish(b, "M/cur/half:2,", 1, SIZE) ? map(a, "M/cur/half:2,", &fd[0]) : NULL;
	char *whole = publish(b, "M/cur/whole:2,", 2, SIZE) ? map(a, "M/cur/whole:2,", &fd[1]) : NULL;
	char *none = publish(b, "M/cur/none:2,", 3, SIZE) ? map(a, "M/cur/none:2,", &fd[2]) : NULL;
	bool ok = half && none && holds(whole, 2) && mf_pattern_check(half, SIZE / 2, 1, 0) < 0;

	mf_tap_ok(ok, "node %d maps three messages", a);
	ok = ok && renameat(mf_node_fd(b), "M/cur/half:2,", mf_node_fd(b), "M/cur/half:2,S") == 0 &&
	     publish(b, "M/cur/whole:2,", 12, SIZE) && unlinkat(mf_node_fd(b), "M/cur/none:2,", 0) == 0;
	mf_tap_ok(ok, "node %d renames one, replaces one, unlinks one", b);
	mf_tap_ok(holds(half, 1) && holds(whole, 2) && holds(none, 3), "the mappings hold what they held");
	ok = is_message(a, "M/cur/half:2,S", 1, SIZE) && is_message(a, "M/cur/whole:2,", 12, SIZE);
	mf_tap_ok(ok, "by name node %d reads what is there now", a);
	mf_tap_ok(openat(mf_node_fd(a), "M/cur/half:2,", O_RDONLY) < 0 && errno == ENOENT &&
			  openat(mf_node_fd(a), "M/cur/none:2,", O_RDONLY) < 0 && errno == ENOENT,
		"and no old name leads anywhere");
	for (int i = 0; i < 3; i++)
		close(fd[i]);
	munmap(half, SIZE);
	munmap(whole, SIZE);
	munmap(none, SIZE);
	unlinkat(mf_node_fd(a), "M/cur/half:2,S", 0);
	unlinkat(mf_node_fd(a), "M/cur/whole:2,", 0);
}

/* The same name is another message each time, of another length; everybody has read the one before. */
static void test_one_name(void)
{
	int bad = 0, n = mf_nodes_count();

	for (int round = 0; round < ROUNDS; round++) {
		uint64_t size = 1000 + (unsigned)round * 7000 % 50000;

		bad += !publish(round % n, "M/cur/name:2,", 100 + round, size);
		for (int node = 0; node < n; node++) {
			struct stat st;

			bad += fstatat(mf_node_fd(node), "M/cur/name:2,", &st, 0) < 0 || st.st_size != (off_t)size;
			bad += !is_message(node, "M/cur/name:2,", 100 + round, size);
		}
	}
	mf_tap_ok(bad == 0, "a name that is another message %d times: each node reads the present one (%d not)", ROUNDS,
		bad);
}

/* Flags go round: each node renames what the one before renamed, and nobody finds an old name. */
static void test_round_trip(void)
{
	static const char *const names[] = { "M/cur/r:2,", "M/cur/r:2,S", "M/cur/r:2,RS", "M/new/r", "M/cur/r:2,T" };
	int bad = 0, n = mf_nodes_count(), count = sizeof(names) / sizeof(names[0]);

	bad += !publish(0, names[0], 5, SIZE);
	for (int round = 0; round < ROUNDS * 2; round++) {
		const char *from = names[round % count], *to = names[(round + 1) % count];

		bad += renameat(mf_node_fd(round % n), from, mf_node_fd(round % n), to) < 0;
		for (int node = 0; node < n; node++) {
			bad += faccessat(mf_node_fd(node), from, F_OK, 0) == 0;
			bad += !is_message(node, to, 5, SIZE);
		}
	}
	mf_tap_ok(bad == 0,
		"a message renamed %d times by all in turn: one name on each node, its bytes always (%d not)",
		ROUNDS * 2, bad);
}

/* A name that was looked for and not there is there when it is made elsewhere, again and again. */
static void test_negative(void)
{
	int bad = 0, n = mf_nodes_count();

	for (int round = 0; round < ROUNDS * 5; round++) {
		int doer = round % n;

		for (int node = 0; node < n; node++)
			bad += faccessat(mf_node_fd(node), "dovecot.lock", F_OK, 0) == 0;
		bad += mf_node_put(doer, "dovecot.lock", "x") != 0;
		for (int node = 0; node < n; node++)
			bad += faccessat(mf_node_fd(node), "dovecot.lock", F_OK, 0) < 0;
		bad += unlinkat(mf_node_fd((doer + 1) % n), "dovecot.lock", 0) < 0;
	}
	mf_tap_ok(bad == 0, "a name that comes and goes is seen as it is by all (%d not)", bad);
}

int main(int argc, char **argv)
{
	int last;

	mf_nodes_start(argc, argv, "cached");
	last = mf_nodes_count() - 1;
	mf_tap_ok(mf_maildir_make("M") == 0, "a Maildir");
	test_mapped(0, last);
	test_mapped(last, 0);
	test_one_name();
	test_round_trip();
	test_negative();
	return mf_tap_done();
}
