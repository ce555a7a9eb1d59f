/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/unit/test_filelock.c - file locks: the running kernel is the reference for what is granted and what splits and
 * merges; queueing is checked by hand and by invariants over random sequences. MF_TEST_SEED repeats a run. */
#include "locking/filelock.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

enum { R = MF_FILELOCK_READ, W = MF_FILELOCK_WRITE, U = MF_FILELOCK_UNLOCK };

#define INO 77
#define EOF_END INT64_MAX

static MfLockTable *table;
static GArray *done;

static void setup(void)
{
	table = mf_filelock_new(100000);
	done = mf_filelock_done_new();
}

static void teardown(void)
{
	table = mf_filelock_free(table);
	g_clear_pointer(&done, g_array_unref);
}

static guint32 test_seed(const char *name)
{
	const char *env = g_getenv("MF_TEST_SEED");
	guint32 seed = env ? (guint32)g_ascii_strtoull(env, NULL, 0) : g_random_int();

	printf("%s: MF_TEST_SEED=%u\n", name, seed);
	return seed;
}

/* Every owner is a process of its own, unless a test says otherwise. */
static struct mf_filelock posix_lock(unsigned owner, int type, int64_t start, int64_t end)
{
	return (struct mf_filelock){ .ino = INO,
		.owner = owner,
		.fh = owner,
		.incarnation = 1,
		.pid = (int32_t)(1000 + owner),
		.space = MF_FILELOCK_POSIX,
		.type = (uint8_t)type,
		.start = start,
		.end = end };
}

static struct mf_filelock flock_lock(unsigned owner, int type)
{
	struct mf_filelock l = posix_lock(owner, type, 0, EOF_END);

	l.space = MF_FILELOCK_FLOCK;
	return l;
}

static int set_lock(struct mf_filelock l)
{
	return mf_filelock_set(table, &l, done);
}

static int set(unsigned owner, int type, int64_t start, int64_t end)
{
	return set_lock(posix_lock(owner, type, start, end));
}

static int wait_lock(struct mf_filelock l, unsigned cookie)
{
	return mf_filelock_wait(table, &l, GUINT_TO_POINTER(cookie), done);
}

static int wait_for(unsigned owner, int type, int64_t start, int64_t end, unsigned cookie)
{
	return wait_lock(posix_lock(owner, type, start, end), cookie);
}

static bool cancel(unsigned cookie)
{
	return mf_filelock_cancel(table, GUINT_TO_POINTER(cookie), done);
}

/* Compares and empties the done list: "3 5" = cookies 3, then 5 granted; "3!110" = 3 ended with -110. */
static void expect_done(const char *want)
{
	g_autoptr(GString) got = g_string_new(NULL);

	for (guint i = 0; i < done->len; i++) {
		const struct mf_filelock_done *d = &g_array_index(done, struct mf_filelock_done, i);

		g_string_append_printf(got, "%s%u", i ? " " : "", GPOINTER_TO_UINT(d->cookie));
		if (d->result)
			g_string_append_printf(got, "!%d", -d->result);
	}
	g_array_set_size(done, 0);
	ck_assert_str_eq(got->str, want);
}

static void append_state(const struct mf_filelock *l, void *waiting, void *data)
{
	GString *s = data;

	g_string_append_printf(s, "%s%s%s%u%c[%d,", s->len ? " " : "", waiting ? "?" : "",
		l->space == MF_FILELOCK_FLOCK ? "f" : "", (unsigned)l->owner, "-RW"[l->type], (int)l -> start);
	if (l->end == EOF_END)
		g_string_append(s, "eof]");
	else
		g_string_append_printf(s, "%d]", (int)l->end);
}

/* "1R[0,9] 2W[20,eof] ?3W[0,0]": owner 1 and 2 hold, 3 waits. */
static void expect_state(const char *want)
{
	g_autoptr(GString) got = g_string_new(NULL);

	mf_filelock_foreach(table, INO, append_state, got);
	ck_assert_str_eq(got->str, want);
}

/* ---- ranges of one owner ---- */

START_TEST(ranges_merge_and_split)
{
	ck_assert_int_eq(set(1, R, 0, 9), 0);
	ck_assert_int_eq(set(1, R, 20, 29), 0);
	expect_state("1R[0,9] 1R[20,29]");
	ck_assert_int_eq(set(1, R, 10, 19), 0); /* touches both */
	expect_state("1R[0,29]");
	ck_assert_int_eq(set(1, W, 10, 12), 0); /* upgrade inside */
	expect_state("1R[0,9] 1W[10,12] 1R[13,29]");
	ck_assert_int_eq(set(1, U, 5, 14), 0);
	expect_state("1R[0,4] 1R[15,29]");
	ck_assert_int_eq(set(1, W, 0, EOF_END), 0); /* swallows all */
	expect_state("1W[0,eof]");
	ck_assert_int_eq(set(1, R, 5, 5), 0);
	expect_state("1W[0,4] 1R[5,5] 1W[6,eof]");
	ck_assert_int_eq(set(1, W, 5, 5), 0);
	expect_state("1W[0,eof]");
	ck_assert_int_eq(set(1, U, 100, EOF_END), 0);
	expect_state("1W[0,99]");
	ck_assert_int_eq(set(1, W, EOF_END - 1, EOF_END), 0);
	ck_assert_int_eq(set(1, U, EOF_END - 1, EOF_END - 1), 0);
	ck_assert_int_eq(set(1, R, EOF_END - 2, EOF_END - 1), 0);
	ck_assert_uint_eq(mf_filelock_held(table), 3);
	ck_assert_int_eq(set(1, U, 0, EOF_END), 0);
	expect_state("");
	ck_assert_uint_eq(mf_filelock_held(table), 0);
	ck_assert_uint_eq(mf_filelock_inodes(table), 0);
	ck_assert_int_eq(set(1, U, 0, EOF_END), 0); /* nothing there: no error */
	ck_assert_uint_eq(mf_filelock_inodes(table), 0);
	expect_done("");
}
END_TEST

START_TEST(conflicts_and_test)
{
	struct mf_filelock q, holder;

	ck_assert_int_eq(set(1, R, 0, 9), 0);
	ck_assert_int_eq(set(2, R, 5, 14), 0);
	ck_assert_int_eq(set(3, W, 9, 9), -EAGAIN);
	ck_assert_int_eq(set(1, W, 0, 9), -EAGAIN); /* 2 reads, too */
	ck_assert_int_eq(set(1, W, 0, 4), 0);
	expect_state("1W[0,4] 1R[5,9] 2R[5,14]");

	q = posix_lock(3, W, 7, 20);
	ck_assert(mf_filelock_test(table, &q, &holder));
	ck_assert_uint_eq(holder.owner, 1);
	ck_assert_int_eq(holder.pid, 1001);
	ck_assert_int_eq(holder.type, R);
	ck_assert_int_eq(holder.start, 5);
	ck_assert_int_eq(holder.end, 9);
	q = posix_lock(3, R, 5, EOF_END);
	ck_assert(!mf_filelock_test(table, &q, &holder));
	q = posix_lock(1, W, 0, 4);
	ck_assert(!mf_filelock_test(table, &q, &holder));
	q = posix_lock(3, W, 0, 4);
	q.ino = INO + 1;
	ck_assert(!mf_filelock_test(table, &q, &holder));
	q = posix_lock(1, W, 0, 9); /* the same id on another node is another owner */
	q.incarnation = 2;
	ck_assert(mf_filelock_test(table, &q, &holder));
	ck_assert_uint_eq(holder.incarnation, 1);

	/* flock is a space of its own */
	ck_assert_int_eq(set_lock(flock_lock(5, W)), 0);
	ck_assert_int_eq(set_lock(flock_lock(6, R)), -EAGAIN);
	ck_assert_int_eq(set(5, W, 30, 40), 0);
	expect_done("");
}
END_TEST

START_TEST(senseless_requests)
{
	struct mf_filelock l;

	ck_assert_int_eq(set(1, W, -1, 5), -EINVAL);
	ck_assert_int_eq(set(1, W, 5, 4), -EINVAL);
	ck_assert_int_eq(set(1, 3, 0, 4), -EINVAL);
	l = posix_lock(1, W, 0, 1);
	l.space = 2;
	ck_assert_int_eq(set_lock(l), -EINVAL);
	l = flock_lock(1, W);
	l.end = 5;
	ck_assert_int_eq(set_lock(l), -EINVAL);
	ck_assert_int_eq(wait_for(1, W, 5, 4, 1), -EINVAL);
	ck_assert_uint_eq(mf_filelock_inodes(table), 0);
	ck_assert_uint_eq(mf_filelock_waiting(table), 0);
}
END_TEST

START_TEST(table_limit)
{
	mf_filelock_set_max(table, 3);
	ck_assert_int_eq(set(1, R, 0, 9), 0);
	ck_assert_int_eq(set(2, R, 0, 9), 0);
	ck_assert_int_eq(set(1, W, 100, 109), 0);
	ck_assert_int_eq(set(3, R, 0, 9), -ENOLCK);
	ck_assert_int_eq(set(1, U, 104, 104), -ENOLCK); /* would split */
	ck_assert_int_eq(set(1, R, 104, 104), -ENOLCK); /* would make three of one */
	expect_state("1R[0,9] 1W[100,109] 2R[0,9]");
	ck_assert_int_eq(set(1, R, 100, 109), 0); /* no more than before */
	ck_assert_int_eq(set(1, R, 10, 99), 0);	  /* fewer */
	expect_state("1R[0,109] 2R[0,9]");
	ck_assert_int_eq(set_lock(flock_lock(3, W)), 0);
	ck_assert_int_eq(set_lock(flock_lock(3, R)), 0); /* conversion needs no room */
	ck_assert_int_eq(set_lock(flock_lock(4, R)), -ENOLCK);
	ck_assert_int_eq(set(1, U, 0, 50), 0);
	expect_done("");

	/* a waiter whose turn comes when there is no room is told, and the one behind it goes on */
	ck_assert_int_eq(set(1, U, 0, EOF_END), 0);
	ck_assert_int_eq(set(1, W, 200, 209), 0);
	ck_assert_int_eq(wait_for(5, W, 200, 203, 50), MF_FILELOCK_PARKED);
	ck_assert_int_eq(wait_for(2, R, 10, 205, 20), MF_FILELOCK_PARKED); /* will merge: needs no room */
	mf_filelock_set_max(table, 2);
	ck_assert_int_eq(set(1, U, 200, 209), 0);
	expect_done("50!37 20");
	expect_state("2R[0,205] f3R[0,eof]");

	/* ... also when what it waits for is not near what has just been freed */
	ck_assert_int_eq(set(2, U, 100, EOF_END), 0);
	mf_filelock_set_max(table, 3);
	ck_assert_int_eq(set(1, W, 200, 209), 0);
	ck_assert_int_eq(wait_for(5, W, 200, 309, 50), MF_FILELOCK_PARKED);
	ck_assert_int_eq(wait_lock(posix_lock(6, W, 300, 309), 60), MF_FILELOCK_PARKED);
	mf_filelock_set_max(table, 2);
	ck_assert_int_eq(set(1, U, 200, 209), 0);
	expect_done("50!37 60!37");
}
END_TEST

/* ---- queue ---- */

START_TEST(first_come_first_served)
{
	ck_assert_int_eq(set(1, W, 0, 9), 0);
	ck_assert_int_eq(wait_for(2, R, 0, 9, 2), MF_FILELOCK_PARKED);
	ck_assert_int_eq(wait_for(3, R, 0, 9, 3), MF_FILELOCK_PARKED);
	ck_assert_int_eq(wait_for(4, W, 0, 9, 4), MF_FILELOCK_PARKED);
	ck_assert_int_eq(wait_for(5, R, 0, 9, 5), MF_FILELOCK_PARKED);
	ck_assert_int_eq(wait_for(6, W, 20, 29, 6), 0); /* elsewhere in the file */
	ck_assert_int_eq(wait_for(7, R, 5, 25, 7), MF_FILELOCK_PARKED);
	ck_assert_uint_eq(mf_filelock_waiting(table), 5);
	expect_state("1W[0,9] 6W[20,29] ?2R[0,9] ?3R[0,9] ?4W[0,9] ?5R[0,9] ?7R[5,25]");
	expect_done("");

	ck_assert_int_eq(set(1, U, 0, 9), 0);
	expect_done("2 3"); /* both readers; the writer, and the reader behind it, stay */
	ck_assert_int_eq(set(6, U, 0, EOF_END), 0);
	expect_done(""); /* 7 is behind 4 */
	ck_assert_int_eq(set(2, U, 0, 9), 0);
	expect_done("");
	ck_assert_int_eq(set(3, U, 0, 9), 0);
	expect_done("4");
	ck_assert_int_eq(set(4, R, 0, 9), 0); /* downgrade lets readers in */
	expect_done("5 7");
	expect_state("4R[0,9] 5R[0,9] 7R[5,25]");
}
END_TEST

START_TEST(partial_unlock_serves_whom_it_frees)
{
	ck_assert_int_eq(set(1, W, 0, 99), 0);
	ck_assert_int_eq(wait_for(2, W, 0, 9, 2), MF_FILELOCK_PARKED);
	ck_assert_int_eq(wait_for(3, W, 50, 59, 3), MF_FILELOCK_PARKED);
	ck_assert_int_eq(wait_for(4, W, 55, 70, 4), MF_FILELOCK_PARKED);
	ck_assert_int_eq(wait_for(5, R, 65, 70, 5), MF_FILELOCK_PARKED);
	ck_assert_int_eq(set(1, U, 40, 60), 0);
	expect_done("3");
	ck_assert_int_eq(set(1, R, 61, 99), 0);
	expect_done(""); /* 5 could read, but 4 is before it */
	expect_state("1W[0,39] 1R[61,99] 3W[50,59] ?2W[0,9] ?4W[55,70] ?5R[65,70]");
	ck_assert(cancel(4));
	expect_done("5");
	ck_assert_int_eq(set(1, U, 0, EOF_END), 0);
	expect_done("2");
}
END_TEST

START_TEST(stream_of_readers_does_not_starve_a_writer)
{
	unsigned served = 0;

	ck_assert_int_eq(set(1, R, 0, EOF_END), 0);
	ck_assert_int_eq(wait_for(500, W, 0, EOF_END, 500), MF_FILELOCK_PARKED);
	for (unsigned i = 2; i < 20; i++) {
		ck_assert_int_eq(wait_for(i, R, 0, EOF_END, i), MF_FILELOCK_PARKED);
		if (i == 10)
			ck_assert_int_eq(set(1, U, 0, EOF_END), 0);
	}
	expect_done("500");
	ck_assert_int_eq(set(500, U, 0, EOF_END), 0);
	for (guint i = 0; i < done->len; i++, served++)
		ck_assert_uint_eq(GPOINTER_TO_UINT(g_array_index(done, struct mf_filelock_done, i).cookie), i + 2);
	ck_assert_uint_eq(served, 18);
}
END_TEST

START_TEST(fair_queue_makes_no_deadlock)
{
	struct mf_filelock l;

	/* asking without waiting is about what is held */
	ck_assert_int_eq(set(1, R, 0, 9), 0);
	ck_assert_int_eq(wait_for(2, W, 0, 9, 2), MF_FILELOCK_PARKED);
	ck_assert_int_eq(set(3, R, 0, 9), 0);

	/* 1 is whom 2 waits for: it must get more */
	ck_assert_int_eq(wait_for(1, R, 5, 19, 1), 0);
	expect_state("1R[0,19] 3R[0,9] ?2W[0,9]");

	/* another owner of the same process (OFD) counts as well, and one that holds something elsewhere */
	l = posix_lock(4, R, 0, 9);
	l.pid = 1001;
	ck_assert_int_eq(wait_lock(l, 4), 0);
	l = posix_lock(5, W, 0, 0);
	l.ino = INO + 1;
	ck_assert_int_eq(set_lock(l), 0);
	ck_assert_int_eq(wait_for(5, R, 0, 9, 5), 0);

	/* a descriptor that a child inherited: the owner holds, though the process does not */
	l = posix_lock(3, R, 0, 15);
	l.pid = 4711;
	ck_assert_int_eq(wait_lock(l, 6), 0);

	/* and it stays so while parked: 9 and 10 wait for 8, 10 came first, but it needs what 9 has */
	ck_assert_int_eq(set(8, W, 100, 109), 0);
	ck_assert_int_eq(set(9, R, 120, 129), 0);
	ck_assert_int_eq(wait_for(10, W, 100, 129, 10), MF_FILELOCK_PARKED);
	ck_assert_int_eq(wait_for(9, R, 105, 109, 9), MF_FILELOCK_PARKED);
	ck_assert_int_eq(set(8, U, 100, 109), 0);
	expect_done("9");
	mf_filelock_drop_owner(table, INO, 1, 9, done);
	expect_done("10");

	/* the same pid on another node is another process */
	l = posix_lock(7, R, 0, 9);
	l.pid = 1001;
	l.incarnation = 2;
	ck_assert_int_eq(wait_lock(l, 7), MF_FILELOCK_PARKED);

	/* who let go of everything has to queue */
	l = posix_lock(5, U, 0, EOF_END);
	ck_assert_int_eq(set_lock(l), 0);
	l.ino = INO + 1;
	ck_assert_int_eq(set_lock(l), 0);
	ck_assert_int_eq(wait_for(5, R, 0, 9, 8), MF_FILELOCK_PARKED);
	ck_assert(cancel(2));
	expect_done("7 8");
}
END_TEST

START_TEST(cancel_leaves_nothing)
{
	ck_assert(!cancel(9));
	ck_assert_int_eq(set(1, W, 0, 9), 0);
	ck_assert_int_eq(wait_for(2, W, 0, 9, 2), MF_FILELOCK_PARKED);
	ck_assert(cancel(2));
	ck_assert(!cancel(2));
	expect_state("1W[0,9]");
	ck_assert_uint_eq(mf_filelock_waiting(table), 0);
	ck_assert_int_eq(set(1, U, 0, 9), 0);
	expect_done("");
	ck_assert_uint_eq(mf_filelock_inodes(table), 0);

	/* too late: it has been granted */
	ck_assert_int_eq(set(1, W, 0, 9), 0);
	ck_assert_int_eq(wait_for(2, W, 0, 9, 2), MF_FILELOCK_PARKED);
	ck_assert_int_eq(set(1, U, 0, 9), 0);
	ck_assert(!cancel(2));
	expect_done("2");

	/* the queue moves up when the one in front goes */
	ck_assert_int_eq(set(2, R, 0, 9), 0);
	ck_assert_int_eq(wait_for(3, W, 0, 9, 3), MF_FILELOCK_PARKED);
	ck_assert_int_eq(wait_for(4, R, 0, 9, 4), MF_FILELOCK_PARKED);
	ck_assert_int_eq(wait_for(5, R, 0, 9, 5), MF_FILELOCK_PARKED);
	ck_assert(cancel(3));
	expect_done("4 5");

	/* the only state of the inode is a waiter: impossible; but the last one leaves together with the inode */
	ck_assert_int_eq(set(2, U, 0, 9), 0);
	ck_assert_int_eq(set(4, U, 0, 9), 0);
	ck_assert_int_eq(set(5, U, 0, 9), 0);
	ck_assert_uint_eq(mf_filelock_inodes(table), 0);
}
END_TEST

START_TEST(never_edeadlk)
{
	/* two readers upgrade, and two owners cross over: they wait until somebody interrupts one */
	ck_assert_int_eq(set(1, R, 0, 9), 0);
	ck_assert_int_eq(set(2, R, 0, 9), 0);
	ck_assert_int_eq(wait_for(1, W, 0, 9, 1), MF_FILELOCK_PARKED);
	ck_assert_int_eq(wait_for(2, W, 0, 9, 2), MF_FILELOCK_PARKED);
	expect_state("1R[0,9] 2R[0,9] ?1W[0,9] ?2W[0,9]"); /* an upgrade that waits keeps what it has */
	ck_assert(cancel(1));
	expect_done("");
	ck_assert_int_eq(set(1, U, 0, 9), 0);
	expect_done("2");
	expect_state("2W[0,9]");

	ck_assert_int_eq(set(1, W, 20, 29), 0);
	ck_assert_int_eq(wait_for(1, W, 0, 9, 3), MF_FILELOCK_PARKED);
	ck_assert_int_eq(wait_for(2, W, 20, 29, 4), MF_FILELOCK_PARKED);
	ck_assert(cancel(3));
	mf_filelock_drop_owner(table, INO, 1, 1, done);
	expect_done("4");
}
END_TEST

START_TEST(grant_that_downgrades_frees_one_before_it)
{
	ck_assert_int_eq(set(1, W, 0, 9), 0);
	ck_assert_int_eq(set(2, W, 10, 19), 0);
	ck_assert_int_eq(wait_for(3, R, 0, 9, 3), MF_FILELOCK_PARKED); /* for 1 */
	ck_assert_int_eq(
		wait_for(1, R, 0, 19, 1), MF_FILELOCK_PARKED); /* for 2; gives up 1's write lock when granted */
	ck_assert_int_eq(set(2, U, 10, 19), 0);
	expect_done("1 3");
	expect_state("1R[0,19] 3R[0,9]");
}
END_TEST

/* ---- flock ---- */

START_TEST(flock_conversion)
{
	ck_assert_int_eq(set_lock(flock_lock(1, R)), 0);
	ck_assert_int_eq(set_lock(flock_lock(1, R)), 0);
	ck_assert_int_eq(set_lock(flock_lock(2, R)), 0);
	/* not waiting: fails, and the old lock is gone */
	ck_assert_int_eq(set_lock(flock_lock(1, W)), -EAGAIN);
	expect_state("f2R[0,eof]");
	ck_assert_int_eq(set_lock(flock_lock(2, W)), 0);
	ck_assert_int_eq(set_lock(flock_lock(1, R)), -EAGAIN);
	ck_assert_int_eq(wait_lock(flock_lock(1, R), 1), MF_FILELOCK_PARKED);
	ck_assert_int_eq(set_lock(flock_lock(2, R)), 0);
	expect_done("1");
	/* waiting: the old lock goes at once; so two who upgrade do not block each other. The second one is served on
	 * the spot, as in Linux: it asks before those whom its old lock let wake up */
	ck_assert_int_eq(wait_lock(flock_lock(1, W), 11), MF_FILELOCK_PARKED);
	expect_state("f2R[0,eof] ?f1W[0,eof]");
	ck_assert_int_eq(wait_lock(flock_lock(2, W), 12), 0);
	expect_done("");
	ck_assert_int_eq(set_lock(flock_lock(2, U)), 0);
	expect_done("11");
	/* interrupted: the old lock does not come back */
	ck_assert_int_eq(set_lock(flock_lock(1, R)), 0);
	ck_assert_int_eq(set_lock(flock_lock(2, R)), 0);
	ck_assert_int_eq(wait_lock(flock_lock(1, W), 13), MF_FILELOCK_PARKED);
	ck_assert(cancel(13));
	expect_state("f2R[0,eof]");
	ck_assert_int_eq(set_lock(flock_lock(2, U)), 0);
	ck_assert_int_eq(set_lock(flock_lock(1, U)), 0);
	ck_assert_int_eq(set_lock(flock_lock(1, U)), 0);
	ck_assert_uint_eq(mf_filelock_inodes(table), 0);

	/* the old lock of a failed conversion was somebody's turn */
	ck_assert_int_eq(set_lock(flock_lock(1, R)), 0);
	ck_assert_int_eq(set_lock(flock_lock(2, R)), 0);
	ck_assert_int_eq(wait_lock(flock_lock(3, W), 3), MF_FILELOCK_PARKED);
	ck_assert_int_eq(set_lock(flock_lock(2, U)), 0);
	ck_assert_int_eq(wait_lock(flock_lock(1, W), 1), 0); /* alone: converts before those who wait, as in Linux */
	ck_assert_int_eq(set_lock(flock_lock(1, U)), 0);
	expect_done("3");
}
END_TEST

START_TEST(kernel_forms)
{
	struct mf_filelock l = { 0 };
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5 };
	bool wait;

	ck_assert_int_eq(mf_filelock_from_flock(&fl, &l), 0);
	ck_assert_int_eq(l.type, W);
	ck_assert_int_eq(l.start, 10);
	ck_assert_int_eq(l.end, 14);
	l.pid = 55;
	mf_filelock_to_flock(&l, &fl);
	ck_assert(fl.l_type == F_WRLCK && fl.l_start == 10 && fl.l_len == 5 && fl.l_pid == 55);

	fl.l_len = 0;
	fl.l_type = F_RDLCK;
	ck_assert_int_eq(mf_filelock_from_flock(&fl, &l), 0);
	ck_assert(l.end == EOF_END && l.type == R);
	mf_filelock_to_flock(&l, &fl);
	ck_assert(fl.l_type == F_RDLCK && fl.l_len == 0);

	fl = (struct flock){ .l_type = F_UNLCK, .l_start = 1, .l_len = INT64_MAX };
	ck_assert_int_eq(mf_filelock_from_flock(&fl, &l), 0);
	ck_assert(l.type == U && l.end == INT64_MAX);
	fl.l_start = 2;
	ck_assert_int_eq(mf_filelock_from_flock(&fl, &l), -EINVAL);
	fl = (struct flock){ .l_type = F_UNLCK, .l_start = -1 };
	ck_assert_int_eq(mf_filelock_from_flock(&fl, &l), -EINVAL);
	fl = (struct flock){ .l_type = F_UNLCK, .l_start = 5, .l_len = -1 };
	ck_assert_int_eq(mf_filelock_from_flock(&fl, &l), -EINVAL);
	fl = (struct flock){ .l_type = 77 };
	ck_assert_int_eq(mf_filelock_from_flock(&fl, &l), -EINVAL);

	ck_assert_int_eq(mf_filelock_from_op(LOCK_EX | LOCK_NB, &l, &wait), 0);
	ck_assert(l.space == MF_FILELOCK_FLOCK && l.type == W && l.start == 0 && l.end == EOF_END && !wait);
	ck_assert_int_eq(mf_filelock_from_op(LOCK_SH, &l, &wait), 0);
	ck_assert(l.type == R && wait);
	ck_assert_int_eq(mf_filelock_from_op(LOCK_UN, &l, &wait), 0);
	ck_assert(l.type == U);
	ck_assert_int_eq(mf_filelock_from_op(0, &l, &wait), -EINVAL);
	ck_assert_int_eq(mf_filelock_from_op(LOCK_SH | LOCK_EX, &l, &wait), -EINVAL);
}
END_TEST

/* ---- dropping and moving ---- */

START_TEST(flush_drops_an_owner)
{
	ck_assert_int_eq(set(1, W, 0, 9), 0);
	ck_assert_int_eq(set(1, R, 20, 29), 0);
	ck_assert_int_eq(set(2, R, 20, 29), 0);
	ck_assert_int_eq(set_lock(flock_lock(1, W)), 0);
	ck_assert_int_eq(wait_for(3, W, 0, 29, 3), MF_FILELOCK_PARKED);
	ck_assert_int_eq(wait_for(4, W, 5, 5, 4), MF_FILELOCK_PARKED);
	mf_filelock_drop_owner(table, INO, 2, 1, done);
	mf_filelock_drop_owner(table, INO + 1, 1, 1, done);
	mf_filelock_drop_owner(table, INO, 1, 99, done);
	expect_done("");
	mf_filelock_drop_owner(table, INO, 1, 1, done);
	expect_done("");
	expect_state("2R[20,29] ?3W[0,29] ?4W[5,5] f1W[0,eof]"); /* flock is not FLUSH's business */
	mf_filelock_drop_owner(table, INO, 1, 2, done);
	expect_done("3");
	mf_filelock_drop_owner(table, INO, 1, 3, done);
	expect_done("4");
}
END_TEST

START_TEST(release_drops_a_handle)
{
	struct mf_filelock l;

	l = posix_lock(1, W, 0, 9);
	l.fh = 100;
	ck_assert_int_eq(set_lock(l), 0);
	l = posix_lock(1, W, 20, 29);
	l.fh = 101;
	ck_assert_int_eq(set_lock(l), 0);
	l = flock_lock(2, W);
	l.fh = 100;
	ck_assert_int_eq(set_lock(l), 0);
	l = posix_lock(3, W, 40, 49); /* the same handle number on another node */
	l.fh = 100;
	l.incarnation = 2;
	ck_assert_int_eq(set_lock(l), 0);
	ck_assert_int_eq(wait_for(4, R, 0, 9, 4), MF_FILELOCK_PARKED);
	ck_assert_int_eq(wait_lock(flock_lock(5, R), 5), MF_FILELOCK_PARKED);
	l = posix_lock(6, W, 20, 29);
	l.fh = 100;
	ck_assert_int_eq(wait_lock(l, 6), MF_FILELOCK_PARKED);
	mf_filelock_drop_handle(table, INO, 1, 99, done);
	expect_done("");
	mf_filelock_drop_handle(table, INO, 1, 100, done);
	expect_done("6!4 4 5");
	expect_state("1W[20,29] 3W[40,49] 4R[0,9] f5R[0,eof]");
}
END_TEST

START_TEST(dead_node_is_dropped_everywhere)
{
	for (unsigned ino = 1; ino <= 50; ino++) {
		struct mf_filelock l = posix_lock(1, W, 0, 9);

		l.ino = ino;
		l.incarnation = 7;
		ck_assert_int_eq(set_lock(l), 0);
		if (ino % 2) {
			l.incarnation = 8;
			l.pid = (int32_t)ino;
			ck_assert_int_eq(wait_lock(l, ino), MF_FILELOCK_PARKED);
			l = flock_lock(1, W);
			l.ino = ino;
			l.incarnation = 8;
			ck_assert_int_eq(set_lock(l), 0);
			l.incarnation = 7;
			ck_assert_int_eq(wait_lock(l, 100 + ino), MF_FILELOCK_PARKED);
		}
	}
	ck_assert_uint_eq(mf_filelock_inodes(table), 50);
	mf_filelock_drop_incarnation(table, 7, done);
	ck_assert_uint_eq(done->len, 50);
	for (guint i = 0; i < done->len; i++) {
		const struct mf_filelock_done *d = &g_array_index(done, struct mf_filelock_done, i);

		ck_assert_int_eq(d->result, GPOINTER_TO_UINT(d->cookie) > 100 ? -ESHUTDOWN : 0);
	}
	ck_assert_uint_eq(mf_filelock_inodes(table), 25);
	ck_assert_uint_eq(mf_filelock_held(table), 50);
	ck_assert_uint_eq(mf_filelock_waiting(table), 0);
	mf_filelock_drop_incarnation(table, 8, done);
	ck_assert_uint_eq(mf_filelock_inodes(table), 0);
	ck_assert_uint_eq(mf_filelock_held(table), 0);
}
END_TEST

static void collect(const struct mf_filelock *l, void *waiting, void *data)
{
	if (!waiting)
		g_array_append_val((GArray *)data, *l);
}

START_TEST(state_moves_to_another_table)
{
	g_autoptr(GArray) all = g_array_new(FALSE, FALSE, sizeof(struct mf_filelock));
	g_autoptr(GString) before = g_string_new(NULL), after = g_string_new(NULL);
	g_autoptr(MfLockTable) other = mf_filelock_new(8);
	struct mf_filelock bad;

	ck_assert_int_eq(set(2, R, 0, 9), 0);
	ck_assert_int_eq(set(1, R, 5, 20), 0);
	ck_assert_int_eq(set(1, W, 10, 12), 0);
	ck_assert_int_eq(set(2, W, 100, EOF_END), 0);
	ck_assert_int_eq(set_lock(flock_lock(3, R)), 0);
	ck_assert_int_eq(set_lock(flock_lock(1, R)), 0);
	mf_filelock_foreach(table, INO, append_state, before);
	ck_assert_int_eq(wait_for(3, W, 0, 5, 3), MF_FILELOCK_PARKED);
	ck_assert_int_eq(wait_lock(flock_lock(4, W), 4), MF_FILELOCK_PARKED);
	mf_filelock_foreach(table, 0, collect, all);
	ck_assert_uint_eq(all->len, 7);

	mf_filelock_drop_inode(table, INO, -EAGAIN, done);
	expect_done("3!11 4!11");
	ck_assert_uint_eq(mf_filelock_inodes(table), 0);
	ck_assert_uint_eq(mf_filelock_held(table), 0);

	for (guint i = 0; i < all->len; i++)
		ck_assert_int_eq(mf_filelock_import(other, &g_array_index(all, struct mf_filelock, i)), 0);
	mf_filelock_foreach(other, INO, append_state, after);
	ck_assert_str_eq(after->str, before->str);
	/* the rest of what a lock is */
	g_autoptr(GArray) again = g_array_new(FALSE, FALSE, sizeof(struct mf_filelock));
	mf_filelock_foreach(other, INO, collect, again);
	for (guint i = 0; i < all->len; i++) {
		const struct mf_filelock *a = &g_array_index(all, struct mf_filelock, i);
		const struct mf_filelock *b = &g_array_index(again, struct mf_filelock, i);

		ck_assert(a->ino == b->ino && a->fh == b->fh && a->pid == b->pid && a->incarnation == b->incarnation);
	}

	/* what comes from elsewhere is not believed */
	bad = posix_lock(9, W, 11, 11);
	ck_assert_int_eq(mf_filelock_import(other, &bad), -EBADMSG);
	bad = posix_lock(9, U, 50, 51);
	ck_assert_int_eq(mf_filelock_import(other, &bad), -EBADMSG);
	bad = posix_lock(9, R, 51, 50);
	ck_assert_int_eq(mf_filelock_import(other, &bad), -EBADMSG);
	bad = posix_lock(9, R, 50, 51);
	ck_assert_int_eq(mf_filelock_import(other, &bad), 0);
	bad = posix_lock(10, R, 50, 51);
	ck_assert_int_eq(mf_filelock_import(other, &bad), -ENOLCK);
	bad.ino = INO + 1;
	ck_assert_int_eq(mf_filelock_import(other, &bad), -ENOLCK);
	ck_assert_uint_eq(mf_filelock_inodes(other), 1);
}
END_TEST

/* ---- against the kernel ---- */

#define OWNERS 6
#define BYTES 40

struct reference {
	int memfd;
	int fd[OWNERS + 1]; /* open files of one tmpfs file: each is an owner; the last only asks */
};

static int ref_open(const struct reference *ref)
{
	g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", ref->memfd);
	int fd = open(path, O_RDWR | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static struct flock to_ofd(int type, int64_t start, int64_t end)
{
	return (struct flock){ .l_type = type == R   ? F_RDLCK
					 : type == W ? F_WRLCK
						     : F_UNLCK,
		.l_whence = SEEK_SET,
		.l_start = start,
		.l_len = end == EOF_END ? 0 : end - start + 1 };
}

static void compare_getlk(const struct reference *ref, unsigned owner, int type, int64_t start, int64_t end)
{
	struct mf_filelock q = posix_lock(owner, type, start, end), holder;
	struct flock want = to_ofd(type, start, end), got;

	ck_assert_int_eq(fcntl(ref->fd[owner], F_OFD_GETLK, &want), 0);
	if (!mf_filelock_test(table, &q, &holder)) {
		ck_assert_msg(
			want.l_type == F_UNLCK, "kernel: [%ld,+%ld] is held", (long)want.l_start, (long)want.l_len);
		return;
	}
	mf_filelock_to_flock(&holder, &got);
	ck_assert_msg(got.l_type == want.l_type && got.l_start == want.l_start && got.l_len == want.l_len,
		"kernel: type %d [%ld,+%ld], here: type %d [%ld,+%ld]", want.l_type, (long)want.l_start,
		(long)want.l_len, got.l_type, (long)got.l_start, (long)got.l_len);
}

START_TEST(random_sequences_match_the_kernel)
{
	g_autoptr(GRand) rnd = g_rand_new_with_seed(test_seed("random_sequences_match_the_kernel"));
	struct reference ref;
	unsigned granted = 0, refused = 0;

	ref.memfd = memfd_create("locks", MFD_CLOEXEC);
	ck_assert_int_ge(ref.memfd, 0);
	for (unsigned i = 0; i <= OWNERS; i++)
		ref.fd[i] = ref_open(&ref);

	for (unsigned step = 0; step < 20000; step++) {
		unsigned owner = (unsigned)g_rand_int_range(rnd, 0, OWNERS),
			 what = (unsigned)g_rand_int_range(rnd, 0, 100);
		int type = g_rand_int_range(rnd, 0, 10);
		int64_t start, end;
		int want, got;

		/* mostly short ranges, so that there is much to split, merge and grant */
		type = type < 4 ? R : type < 7 ? W : U;
		start = g_rand_int_range(rnd, 0, BYTES);
		end = what % 16 == 0 ? EOF_END : start + g_rand_int_range(rnd, 0, what % 5 == 0 ? BYTES : 6);

		if (what < 75) {
			struct flock fl = to_ofd(type, start, end);

			want = fcntl(ref.fd[owner], F_OFD_SETLK, &fl) < 0 ? -errno : 0;
			got = set(owner, type, start, end);
			ck_assert_msg(got == want, "step %u: kernel %d, here %d", step, want, got);
			granted += got == 0;
			refused += got != 0;
		} else if (what < 97) {
			int op = type == R ? LOCK_SH : type == W ? LOCK_EX : LOCK_UN;

			want = flock(ref.fd[owner], op | LOCK_NB) < 0 ? -errno : 0;
			got = set_lock(flock_lock(owner, type));
			ck_assert_msg(got == want, "step %u: kernel flock %d, here %d", step, want, got);
		} else {
			/* close: everything that was taken through this open file */
			close(ref.fd[owner]);
			ref.fd[owner] = ref_open(&ref);
			mf_filelock_drop_handle(table, INO, 1, owner, done);
		}

		compare_getlk(
			&ref, (unsigned)g_rand_int_range(rnd, 0, OWNERS + 1), g_rand_boolean(rnd) ? R : W, start, end);
		if (step % 16 == 0) {
			for (int64_t b = 0; b < 2 * BYTES + 4; b++) {
				compare_getlk(&ref, OWNERS, W, b, b);
				compare_getlk(&ref, OWNERS, R, b, b);
			}
		}
		ck_assert_uint_eq(done->len, 0);
	}
	/* a test in which hardly anything is granted, or hardly anything refused, compares nothing */
	ck_assert_uint_gt(granted, 2000);
	ck_assert_uint_gt(refused, 2000);
	for (unsigned i = 0; i <= OWNERS; i++)
		close(ref.fd[i]);
	close(ref.memfd);
	mf_filelock_drop_incarnation(table, 1, done);
	ck_assert_uint_eq(mf_filelock_inodes(table), 0);
}
END_TEST

/* ---- invariants of the queue ---- */

struct snapshot {
	GArray *held[2], *waiting[2];
};

static void snap(const struct mf_filelock *l, void *waiting, void *data)
{
	struct snapshot *s = data;

	g_array_append_val(waiting ? s->waiting[l->space] : s->held[l->space], *l);
}

static bool clash(const struct mf_filelock *a, const struct mf_filelock *b)
{
	if (a->owner == b->owner && a->incarnation == b->incarnation)
		return false;
	return (a->type == W || b->type == W) && a->start <= b->end && b->start <= a->end;
}

/* No two held locks clash; ranges of an owner are merged; whoever waits has a reason; nothing is lost. */
static void check_invariants(unsigned parked)
{
	struct snapshot s;
	unsigned waiting = 0;

	for (unsigned i = 0; i < 2; i++) {
		s.held[i] = g_array_new(FALSE, FALSE, sizeof(struct mf_filelock));
		s.waiting[i] = g_array_new(FALSE, FALSE, sizeof(struct mf_filelock));
	}
	mf_filelock_foreach(table, 0, snap, &s);
	for (unsigned i = 0; i < 2; i++) {
		const struct mf_filelock *h = (const void *)s.held[i]->data, *w = (const void *)s.waiting[i]->data;

		for (guint a = 0; a < s.held[i]->len; a++) {
			for (guint b = a + 1; b < s.held[i]->len; b++)
				ck_assert(!clash(&h[a], &h[b]));
			if (a > 0 && h[a].owner == h[a - 1].owner && h[a].incarnation == h[a - 1].incarnation) {
				ck_assert_int_gt(h[a].start, h[a - 1].end);
				ck_assert(h[a].type != h[a - 1].type || h[a].start > h[a - 1].end + 1);
			}
		}
		for (guint a = 0; a < s.waiting[i]->len; a++, waiting++) {
			bool reason = false;

			for (guint b = 0; b < s.held[i]->len; b++)
				reason |= clash(&w[a], &h[b]);
			for (guint b = 0; b < a; b++)
				reason |= clash(&w[a], &w[b]);
			ck_assert_msg(reason, "owner %u waits for nothing", (unsigned)w[a].owner);
		}
		g_array_unref(s.held[i]);
		g_array_unref(s.waiting[i]);
	}
	ck_assert_uint_eq(waiting, parked);
	ck_assert_uint_eq(mf_filelock_waiting(table), parked);
}

#define COOKIES 24

START_TEST(random_queues_keep_their_promises)
{
	g_autoptr(GRand) rnd = g_rand_new_with_seed(test_seed("random_queues_keep_their_promises"));
	bool parked[COOKIES + 1] = { false };
	unsigned nparked = 0, granted_later = 0, cancelled = 0;

	for (unsigned step = 0; step < 30000; step++) {
		struct mf_filelock l = posix_lock((unsigned)g_rand_int_range(rnd, 0, 8), g_rand_int_range(rnd, 0, 3),
			g_rand_int_range(rnd, 0, 20), 0);
		unsigned what = (unsigned)g_rand_int_range(rnd, 0, 100);
		unsigned cookie = (unsigned)g_rand_int_range(rnd, 1, COOKIES + 1);

		l.end = what % 7 == 0 ? EOF_END : l.start + g_rand_int_range(rnd, 0, 8);
		l.incarnation = 1 + l.owner % 2;
		if (what % 3 == 0) {
			struct mf_filelock f = flock_lock((unsigned)l.owner, l.type);

			f.incarnation = l.incarnation;
			l = f;
		}
		if (what < 40) {
			ck_assert_int_le(set_lock(l), 0);
		} else if (what < 80) {
			if (!parked[cookie] && wait_lock(l, cookie) == MF_FILELOCK_PARKED) {
				parked[cookie] = true;
				nparked++;
			}
		} else if (what < 90) {
			bool was = parked[cookie];

			ck_assert_int_eq(cancel(cookie), was);
			parked[cookie] = false;
			nparked -= was;
			cancelled += was;
		} else if (what < 95) {
			mf_filelock_drop_owner(table, INO, l.incarnation, l.owner, done);
		} else if (what < 99) {
			mf_filelock_drop_handle(table, INO, l.incarnation, l.fh, done);
		} else {
			mf_filelock_drop_incarnation(table, l.incarnation, done);
		}
		for (guint i = 0; i < done->len; i++) {
			const struct mf_filelock_done *d = &g_array_index(done, struct mf_filelock_done, i);
			unsigned c = GPOINTER_TO_UINT(d->cookie);

			ck_assert(parked[c]); /* once, and only who waited */
			parked[c] = false;
			nparked--;
			granted_later += d->result == 0;
		}
		g_array_set_size(done, 0);
		check_invariants(nparked);
	}
	ck_assert_uint_gt(granted_later, 500);
	ck_assert_uint_gt(cancelled, 300);
	mf_filelock_drop_inode(table, INO, -EIO, done);
	ck_assert_uint_eq(done->len, nparked);
	ck_assert_uint_eq(mf_filelock_inodes(table), 0);
	ck_assert_uint_eq(mf_filelock_held(table), 0);
}
END_TEST

/* ---- many ---- */

#define MANY 10000

/* Ten thousand of each sort; the time limit of this case is what fails when something here is quadratic and slow. */
START_TEST(many_ranges_of_one_owner)
{
	/* in an order that is neither up nor down; every second byte, so that nothing merges */
	for (unsigned i = 0; i < MANY; i++)
		ck_assert_int_eq(
			set(1, i % 2 ? W : R, (int64_t)(i * 7919ull % MANY) * 2, (int64_t)(i * 7919ull % MANY) * 2), 0);
	ck_assert_uint_eq(mf_filelock_held(table), MANY);
	for (unsigned i = 0; i < MANY; i++)
		ck_assert_int_eq(set(2, W, (int64_t)i * 2, (int64_t)i * 2), -EAGAIN);
	for (unsigned i = 0; i < MANY; i += 2)
		ck_assert_int_eq(set(1, U, (int64_t)i * 2, (int64_t)i * 2), 0);
	ck_assert_uint_eq(mf_filelock_held(table), MANY / 2);
	mf_filelock_drop_owner(table, INO, 1, 1, done);
	ck_assert_uint_eq(mf_filelock_inodes(table), 0);
}
END_TEST

START_TEST(many_owners)
{
	for (unsigned i = 0; i < MANY; i++)
		ck_assert_int_eq(set(i, W, i, i), 0);
	for (unsigned i = 0; i < MANY; i++)
		ck_assert_int_eq(set_lock(flock_lock(i, R)), 0);
	ck_assert_uint_eq(mf_filelock_held(table), 2 * MANY);
	for (unsigned i = 0; i < MANY; i++)
		mf_filelock_drop_owner(table, INO, 1, i, done);
	for (unsigned i = 0; i < MANY; i++)
		ck_assert_int_eq(set_lock(flock_lock(i, U)), 0);
	ck_assert_uint_eq(mf_filelock_inodes(table), 0);
}
END_TEST

START_TEST(many_waiters)
{
	ck_assert_int_eq(set(0, W, 0, EOF_END), 0);
	for (unsigned i = 1; i <= MANY; i++)
		ck_assert_int_eq(wait_for(i, i % 10 ? R : W, 0, EOF_END, i), MF_FILELOCK_PARKED);
	ck_assert_int_eq(set(0, U, 0, EOF_END), 0);
	/* each lets go as soon as it was served: all are, in order */
	for (unsigned i = 0; i < done->len; i++) {
		unsigned c = GPOINTER_TO_UINT(g_array_index(done, struct mf_filelock_done, i).cookie);

		ck_assert_uint_eq(c, i + 1);
		ck_assert_int_eq(set(c, U, 0, EOF_END), 0);
	}
	ck_assert_uint_eq(done->len, MANY);
	ck_assert_uint_eq(mf_filelock_inodes(table), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("filelock");
	TCase *tc = tcase_create("filelock");
	TCase *many = tcase_create("many");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, ranges_merge_and_split);
	tcase_add_test(tc, conflicts_and_test);
	tcase_add_test(tc, senseless_requests);
	tcase_add_test(tc, table_limit);
	tcase_add_test(tc, first_come_first_served);
	tcase_add_test(tc, partial_unlock_serves_whom_it_frees);
	tcase_add_test(tc, stream_of_readers_does_not_starve_a_writer);
	tcase_add_test(tc, fair_queue_makes_no_deadlock);
	tcase_add_test(tc, cancel_leaves_nothing);
	tcase_add_test(tc, never_edeadlk);
	tcase_add_test(tc, grant_that_downgrades_frees_one_before_it);
	tcase_add_test(tc, flock_conversion);
	tcase_add_test(tc, kernel_forms);
	tcase_add_test(tc, flush_drops_an_owner);
	tcase_add_test(tc, release_drops_a_handle);
	tcase_add_test(tc, dead_node_is_dropped_everywhere);
	tcase_add_test(tc, state_moves_to_another_table);
	tcase_add_test(tc, random_sequences_match_the_kernel);
	tcase_add_test(tc, random_queues_keep_their_promises);
	suite_add_tcase(s, tc);

	tcase_add_checked_fixture(many, setup, teardown);
	tcase_set_timeout(many, 30);
	tcase_add_test(many, many_ranges_of_one_owner);
	tcase_add_test(many, many_owners);
	tcase_add_test(many, many_waiters);
	suite_add_tcase(s, many);

	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
