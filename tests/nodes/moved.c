/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Directories that one node moves while another works in them: the old path ends, the new one leads on, and what is
 * open there, or is the working directory, stays. */
#include "nodes/nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WORKERS = 4, MOVES = 60, DEPTH = 6, TURNS = 40 };

static bool is_gone(int node, const char *name)
{
	return faccessat(mf_node_fd(node), name, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

/* @tail: where getcwd ends. */
static bool stands_in(const char *tail)
{
	char cwd[PATH_MAX];
	size_t n = strlen(tail);

	return getcwd(cwd, sizeof(cwd)) && strlen(cwd) > n && !strcmp(cwd + strlen(cwd) - n, tail);
}

static void test_working_directory(int a, int b)
{
	int fd;
	char text[16];
	bool ok = mkdirat(mf_node_fd(b), "from", 0700) == 0 && mkdirat(mf_node_fd(b), "parent", 0700) == 0 &&
		  mkdirat(mf_node_fd(b), "from/sub", 0700) == 0 && mf_node_put(b, "from/sub/file", "text") == 0;

	fd = openat(mf_node_fd(a), "from/sub", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ok = ok && fd >= 0 && chdir(mf_node_path(a, "from/sub")) == 0 && stands_in("/from/sub");
	mf_tap_ok(ok, "node %d stands in from/sub", a);
	mf_tap_ok(renameat(mf_node_fd(b), "from", mf_node_fd(b), "parent/to") == 0, "node %d moves it to parent/to", b);
	mf_tap_ok(is_gone(a, "from/sub/file") && is_gone(a, "from"), "the old path ends on node %d", a);
	mf_tap_ok(mf_node_get(a, "parent/to/sub/file", text, sizeof(text)) == 0 && !strcmp(text, "text"),
		"the new one leads there");
	ok = access("file", F_OK) == 0 && faccessat(fd, "file", F_OK, 0) == 0 && access("../sub/file", F_OK) == 0;
	mf_tap_ok(ok, "what is open or stands there goes on");
	mf_tap_ok(stands_in("/parent/to/sub"), "getcwd tells the new path");
	ok = access("../../to", F_OK) == 0 && access("../../../parent", F_OK) == 0;
	mf_tap_ok(ok, ".. leads to the new parents");
	fd = openat(fd, "made", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	mf_tap_ok(fd >= 0 && !is_gone(b, "parent/to/sub/made"),
		"what node %d makes there node %d finds by the new path", a, b);
	close(fd);
	mf_node_enter(a);
	mf_tap_remove(mf_node_path(b, "parent"));
}

/* Each moves the directory on, from where the other has taken it. */
static void test_turns(int a, int b)
{
	char from[16], to[16];
	struct stat st;
	int bad = 0, at = 0;

	for (int i = 0; i < 3; i++) {
		sprintf(to, "t%d", i);
		bad += mkdirat(mf_node_fd(a), to, 0700) < 0;
	}
	bad += mkdirat(mf_node_fd(a), "t0/d", 0700) < 0 || mf_node_put(a, "t0/d/file", "x") < 0;
	for (int i = 0; i < TURNS; i++) {
		int mover = i % 2 ? a : b, other = i % 2 ? b : a;

		sprintf(from, "t%d/d", at);
		/* also back to where the mover has seen it last */
		at = (at + (i / 6 % 2 ? 1 : 2)) % 3;
		sprintf(to, "t%d/d", at);
		bad += fstatat(mf_node_fd(other), from, &st, 0) < 0;
		if (renameat(mf_node_fd(mover), from, mf_node_fd(mover), to) < 0) {
			bad++;
			mf_tap_note("turn %d: rename %s %s: %s", i, from, to, strerror(errno));
			break;
		}
	}
	sprintf(to, "t%d/d/file", at);
	bad += faccessat(mf_node_fd(a), to, F_OK, 0) < 0 || faccessat(mf_node_fd(b), to, F_OK, 0) < 0;
	mf_tap_ok(bad == 0, "nodes %d and %d move a directory in turn", a, b);
	for (int i = 0; i < 3; i++) {
		sprintf(to, "t%d", i);
		mf_tap_remove(mf_node_path(a, "%s", to));
	}
}

static bool reads(int fd, const char *text)
{
	char got[32] = { 0 };
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_size == (off_t)strlen(text) && pread(fd, got, sizeof(got) - 1, 0) >= 0 &&
	       !strcmp(got, text);
}

/* Of the open file: with one directory for all nodes, both are the same process and the same file. */
static int lock(int fd)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return fcntl(fd, F_OFD_SETLK, &whole);
}

/* What is open on one node, and locked, while another moves it elsewhere and removes it there. */
static void test_open_file(int a, int b)
{
	char text[32];
	int fd, other;
	bool ok = mkdirat(mf_node_fd(a), "one", 0700) == 0 && mkdirat(mf_node_fd(a), "two", 0700) == 0;

	fd = openat(mf_node_fd(a), "one/f", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ok = ok && fd >= 0 && write(fd, "text", 4) == 4 && lock(fd) == 0;
	ok = ok && renameat(mf_node_fd(b), "one/f", mf_node_fd(b), "two/g") == 0 &&
	     unlinkat(mf_node_fd(b), "one", AT_REMOVEDIR) == 0;
	mf_tap_ok(ok, "node %d moves a file that node %d has open, and removes where it was", b, a);
	ok = reads(fd, "text") && write(fd, ", more", 6) == 6 && mf_node_get(b, "two/g", text, sizeof(text)) == 0 &&
	     !strcmp(text, "text, more");
	mf_tap_ok(ok, "who has it open reads and writes on");
	other = openat(mf_node_fd(b), "two/g", O_RDWR | O_CLOEXEC);
	ok = other >= 0 && lock(other) < 0 && (errno == EAGAIN || errno == EACCES);
	mf_tap_ok(ok, "its lock went along");
	ok = unlinkat(mf_node_fd(b), "two/g", 0) == 0 && pwrite(other, "T", 1, 0) == 1 && close(other) == 0;
	mf_tap_ok(ok && is_gone(a, "two/g") && reads(fd, "Text, more"), "removed there, its bytes stay");
	close(fd);
	mf_tap_ok(unlinkat(mf_node_fd(a), "two", AT_REMOVEDIR) == 0, "and go with it");
}

/* The old name is another directory soon after. */
static void test_exchanged(int a, int b)
{
	char text[16];
	bool ok = mkdirat(mf_node_fd(a), "x", 0700) == 0 && mkdirat(mf_node_fd(a), "y", 0700) == 0 &&
		  mf_node_put(a, "x/which", "x") == 0 && mf_node_put(a, "y/which", "y") == 0 &&
		  mf_node_get(b, "x/which", text, sizeof(text)) == 0 &&
		  mf_node_get(b, "y/which", text, sizeof(text)) == 0;

	ok = ok && renameat(mf_node_fd(a), "x", mf_node_fd(a), "z") == 0 &&
	     renameat(mf_node_fd(a), "y", mf_node_fd(a), "x") == 0 &&
	     renameat(mf_node_fd(a), "z", mf_node_fd(a), "y") == 0;
	mf_tap_ok(ok, "node %d changes the names of x and y", a);
	ok = mf_node_get(b, "x/which", text, sizeof(text)) == 0 && !strcmp(text, "y") &&
	     mf_node_get(b, "y/which", text, sizeof(text)) == 0 && !strcmp(text, "x");
	mf_tap_ok(ok, "node %d follows", b);
	mf_tap_remove(mf_node_path(b, "x"));
	mf_tap_remove(mf_node_path(b, "y"));
}

static void test_maildir(int a, int b)
{
	bool ok = mf_maildir_make(mf_node_path(b, "M")) == 0;

	ok = ok && mf_pattern_write(mf_node_path(a, "M/tmp/one"), 100, 1, false) == 0;
	ok = ok && renameat(mf_node_fd(b), "M", mf_node_fd(b), "N") == 0;
	mf_tap_ok(ok, "node %d moves a folder that node %d delivers into", b, a);
	ok = renameat(mf_node_fd(a), "M/tmp/one", mf_node_fd(a), "M/new/one") < 0 && errno == ENOENT &&
	     renameat(mf_node_fd(a), "N/tmp/one", mf_node_fd(a), "N/new/one") == 0;
	mf_tap_ok(ok && mf_node_lists(b, "N/new", "one"), "its message is delivered by the new path");
	mf_tap_remove(mf_node_path(a, "N"));
}

/* A directory can be moved below another on one node, or the other way round on the other, never both. */
static int nest(int worker, void *arg)
{
	pthread_barrier_t *gate = arg;
	const char *mine = worker % 2 ? "p" : "q", *other = worker % 2 ? "q" : "p";
	char below[64];

	sprintf(below, "%s/%s", other, mine);
	for (int i = 0; i < MOVES; i++) {
		int err;

		pthread_barrier_wait(gate);
		err = rename(mine, below) < 0 ? errno : 0;
		/* EINVAL: the other came in between the lookups */
		if (err && err != ENOENT && err != EINVAL)
			mf_nodes_fail("rename %s %s: %s", mine, below, strerror(err));
		pthread_barrier_wait(gate);
		if (access("p", F_OK) < 0 && access("q", F_OK) < 0)
			mf_nodes_fail("round %d: both directories hang below each other", i);
		pthread_barrier_wait(gate);
		if (err == 0 && rename(below, mine) < 0)
			mf_nodes_fail("rename %s %s: %s", below, mine, strerror(errno));
	}
	return 0;
}

static void test_loop(void)
{
	bool ok = mkdirat(mf_node_fd(0), "p", 0700) == 0 && mkdirat(mf_node_fd(0), "q", 0700) == 0;

	mf_tap_ok(ok && mf_nodes_work(2, nest, mf_nodes_barrier(2)) == 0,
		"two directories, each moved below the other at the same time: never both");
	mf_tap_remove(mf_node_path(0, "p"));
	mf_tap_remove(mf_node_path(0, "q"));
}

/* Moves directories with a file in each at random; each goes along whole. */
static int shuffle(int worker, void *arg)
{
	unsigned state = mf_nodes_random_start(worker);
	atomic_int *moves = arg;

	for (int i = 0; i < MOVES; i++) {
		char from[64], to[64];

		sprintf(from, "s%u/d%u", mf_nodes_random(&state, 3), mf_nodes_random(&state, DEPTH));
		sprintf(to, "s%u/d%u", mf_nodes_random(&state, 3), mf_nodes_random(&state, DEPTH));
		if (rename(from, to) == 0)
			(*moves) += strcmp(from, to) != 0;
		else if (errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST)
			mf_nodes_fail("rename %s %s: %s", from, to, strerror(errno));
	}
	return 0;
}

static void test_shuffle(void)
{
	atomic_int *moves = mf_nodes_share(sizeof(*moves));
	char name[64];
	bool ok = true;
	int failed;

	for (int i = 0; i < 3; i++) {
		sprintf(name, "s%d", i);
		ok = ok && mkdirat(mf_node_fd(i % mf_nodes_count()), name, 0700) == 0;
	}
	for (int i = 0; i < DEPTH; i++) {
		sprintf(name, "s%d/d%d", i % 3, i);
		ok = ok && mkdirat(mf_node_fd(0), name, 0700) == 0;
		sprintf(name, "s%d/d%d/file%d", i % 3, i, i);
		ok = ok && mf_node_put(0, name, "x") == 0;
	}
	failed = mf_nodes_work(WORKERS, shuffle, moves);
	for (int node = 0; node < mf_nodes_count(); node++) {
		int dirs = 0, files[DEPTH] = { 0 }, once = 0;

		for (int i = 0; i < 3 * DEPTH; i++) {
			sprintf(name, "s%d/d%d", i % 3, i / 3);
			dirs += faccessat(mf_node_fd(node), name, F_OK, 0) == 0;
			for (int f = 0; f < DEPTH; f++) {
				sprintf(name, "s%d/d%d/file%d", i % 3, i / 3, f);
				files[f] += faccessat(mf_node_fd(node), name, F_OK, 0) == 0;
			}
		}
		for (int f = 0; f < DEPTH; f++)
			once += files[f] == 1;
		ok = ok && dirs == DEPTH && once == DEPTH;
		if (!ok)
			mf_tap_note("node %d: %d directories, %d files once, of %d", node, dirs, once, DEPTH);
	}
	mf_tap_ok(ok && failed == 0, "%d directories moved %d times by %d processes: each is there once, with its file",
		DEPTH, *moves, WORKERS);
}

int main(int argc, char **argv)
{
	int last;

	mf_nodes_start(argc, argv, "moved");
	last = mf_nodes_count() - 1;
	test_working_directory(0, last);
	test_working_directory(last, 0);
	test_turns(0, last);
	test_open_file(0, last);
	test_open_file(last, 0);
	test_exchanged(0, last);
	test_maildir(0, last);
	test_loop();
	test_shuffle();
	mf_node_enter(0);
	return mf_tap_done();
}
