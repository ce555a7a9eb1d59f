/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/unit/test_lease.c - who may take a directory's lease, and what a replaced holder can still do.
 *
 * The pool here is one object in memory whose compound operations do what an OSD does with them: the steps in order,
 * nothing at all when one of them fails. Membership is a table. The lease itself is the real one.
 */
#include "locking/lease.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- the object ---- */

struct step {
	bool compare;
	enum mf_cmp cmp;
	char *name;
	GBytes *value;
};

struct MfWop {
	GArray *steps;
};

static GHashTable *object; /* name -> GBytes */

static void step_clear(void *data)
{
	struct step *step = data;

	g_free(step->name);
	g_bytes_unref(step->value);
}

MfWop *mf_wop_new(void)
{
	MfWop *wop = g_new0(MfWop, 1);

	wop->steps = g_array_new(false, true, sizeof(struct step));
	g_array_set_clear_func(wop->steps, step_clear);
	return wop;
}

void mf_wop_unref(MfWop *wop)
{
	if (!wop)
		return;
	g_array_unref(wop->steps);
	g_free(wop);
}

void mf_wop_cmpxattr(MfWop *wop, const char *name, enum mf_cmp cmp, const void *value, size_t len)
{
	struct step step = { true, cmp, g_strdup(name), g_bytes_new(value, len) };

	g_array_append_val(wop->steps, step);
}

void mf_wop_setxattr(MfWop *wop, const char *name, const void *value, size_t len)
{
	struct step step = { false, MF_CMP_EQ, g_strdup(name), g_bytes_new(value, len) };

	g_array_append_val(wop->steps, step);
}

static int operate(const MfWop *wop)
{
	g_autoptr(GHashTable) next = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_bytes_unref);
	GHashTableIter iter;
	gpointer key, value;

	g_hash_table_iter_init(&iter, object);
	while (g_hash_table_iter_next(&iter, &key, &value))
		g_hash_table_insert(next, g_strdup(key), g_bytes_ref(value));
	for (unsigned i = 0; i < wop->steps->len; i++) {
		const struct step *step = &g_array_index(wop->steps, struct step, i);
		GBytes *stored = g_hash_table_lookup(next, step->name);

		if (!step->compare)
			g_hash_table_replace(next, g_strdup(step->name), g_bytes_ref(step->value));
		else if (step->cmp == MF_CMP_EQ && (!stored || !g_bytes_equal(stored, step->value)))
			return -ECANCELED;
		else if (step->cmp == MF_CMP_GTE && stored && g_bytes_compare(step->value, stored) < 0)
			return -ECANCELED;
	}
	g_hash_table_unref(object);
	object = g_steal_pointer(&next);
	return 0;
}

/* ---- the members ---- */

struct MfNode {
	uint32_t incarnation;
	enum mf_holder holder[16]; /* what this node thinks of the others */
};

uint32_t mf_node_incarnation(const MfNode *node)
{
	return node->incarnation;
}

enum mf_holder mf_node_holder(MfNode *node, uint32_t incarnation)
{
	ck_assert_uint_lt(incarnation, G_N_ELEMENTS(node->holder));
	return incarnation == node->incarnation ? MF_HOLDER_SELF : node->holder[incarnation];
}

/* ---- what a node does ---- */

static void setup(void)
{
	object = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_bytes_unref);
}

static void teardown(void)
{
	g_clear_pointer(&object, g_hash_table_unref);
}

static GBytes *stored_lease(void)
{
	GBytes *lease = g_hash_table_lookup(object, MF_XATTR_LEASE);

	return lease ? g_bytes_ref(lease) : NULL;
}

static void store(const struct mf_lease_record *rec)
{
	g_autoptr(GByteArray) bytes = NULL;

	ck_assert_int_eq(mf_lease_record_encode(rec, &bytes), 0);
	g_hash_table_replace(object, g_strdup(MF_XATTR_LEASE), g_bytes_new(bytes->data, bytes->len));
}

static GArray *incarnations(unsigned n, uint32_t a, uint32_t b)
{
	GArray *list = g_array_new(false, false, sizeof(uint32_t));

	if (n > 0)
		g_array_append_val(list, a);
	if (n > 1)
		g_array_append_val(list, b);
	return list;
}

static void store_holders(enum mf_lease_mode mode, uint64_t epoch, unsigned n, uint32_t a, uint32_t b)
{
	g_autoptr(GArray) holders = incarnations(n, a, b);
	g_autoptr(GArray) waiters = incarnations(1, 7, 0);

	store(&(struct mf_lease_record){ (uint8_t)mode, epoch, 3, 40, holders, waiters });
}

/* Takes what is in the object. */
static int take_mode(MfNode *node, enum mf_lease_mode mode, struct mf_lease *ret_lease)
{
	g_autoptr(GBytes) record = stored_lease();
	g_autoptr(MfWop) wop = mf_wop_new();

	ck_assert_int_eq(mf_lease_take(node, wop, record, mode, ret_lease), 0);
	return operate(wop);
}

static int take(MfNode *node, struct mf_lease *ret_lease)
{
	return take_mode(node, MF_LEASE_EXCLUSIVE, ret_lease);
}

static unsigned n_busy, n_waiters; /* of the last look */

static int examine_mode(MfNode *node, enum mf_lease_mode mode, struct mf_lease *ret_lease)
{
	g_autoptr(GBytes) record = stored_lease();
	g_autoptr(GArray) busy = incarnations(0, 0, 0), waiters = incarnations(0, 0, 0);
	int r = mf_lease_examine(node, record, mode, ret_lease, busy, waiters);

	n_busy = busy->len;
	n_waiters = waiters->len;
	return r;
}

static int examine(MfNode *node, struct mf_lease *ret_lease)
{
	return examine_mode(node, MF_LEASE_EXCLUSIVE, ret_lease);
}

static void check_holders(enum mf_lease_mode mode, unsigned n, uint32_t a, uint32_t b)
{
	g_autoptr(GBytes) bytes = stored_lease();
	struct mf_lease_record rec;

	ck_assert_int_eq(mf_lease_record_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &rec), 0);
	ck_assert_int_eq(rec.mode, mode);
	ck_assert_uint_eq(rec.holders->len, n);
	if (n > 0)
		ck_assert_uint_eq(g_array_index(rec.holders, uint32_t, 0), a);
	if (n > 1)
		ck_assert_uint_eq(g_array_index(rec.holders, uint32_t, 1), b);
	mf_lease_record_clear(&rec);
}

/* A change under the lease. */
static int commit(const struct mf_lease *lease, bool stamp, const char *value)
{
	g_autoptr(MfWop) wop = mf_wop_new();

	mf_lease_guard(wop, lease, stamp);
	mf_wop_setxattr(wop, "data", value, strlen(value));
	return operate(wop);
}

static void check_text(const char *name, const char *expected)
{
	GBytes *value = g_hash_table_lookup(object, name);

	ck_assert_ptr_nonnull(value);
	ck_assert_uint_eq(g_bytes_get_size(value), strlen(expected));
	ck_assert_mem_eq(g_bytes_get_data(value, NULL), expected, strlen(expected));
}

/* ---- tests ---- */

/* The least epoch of an incarnation. */
#define FIRST(incarnation) ((uint64_t)(incarnation) << 32)

START_TEST(epoch_text)
{
	char text[MF_EPOCH_TEXT];

	mf_lease_epoch_text(1, text);
	ck_assert_str_eq(text, "0000000000000001");
	mf_lease_epoch_text(UINT64_MAX, text);
	ck_assert_str_eq(text, "ffffffffffffffff");
	/* The OSD compares text, so its order must be that of the numbers. */
	char a[MF_EPOCH_TEXT], b[MF_EPOCH_TEXT];
	for (unsigned bit = 0; bit < 63; bit++) {
		mf_lease_epoch_text((UINT64_C(2) << bit) - 1, a);
		mf_lease_epoch_text(UINT64_C(2) << bit, b);
		ck_assert_int_lt(strcmp(a, b), 0);
	}
}
END_TEST

START_TEST(new_object)
{
	MfNode node = { .incarnation = 5 };
	struct mf_lease lease, again;

	ck_assert_int_eq(take(&node, &lease), 0);
	ck_assert_uint_eq(lease.epoch, FIRST(5));
	ck_assert_uint_eq(lease.stamp_below, 0);
	check_text(MF_XATTR_EPOCH, "0000000500000000");
	ck_assert_int_eq(examine(&node, &again), 0);
	ck_assert_uint_eq(again.epoch, FIRST(5));
	ck_assert_uint_eq(again.stamp_below, 0);
	ck_assert_int_eq(commit(&lease, false, "a"), 0);
}
END_TEST

START_TEST(live_holder_keeps)
{
	MfNode node = { .incarnation = 5, .holder = { [4] = MF_HOLDER_LIVE, [3] = MF_HOLDER_LOST } };
	struct mf_lease lease = { MF_LEASE_NONE, 99, 98, 0 };

	store_holders(MF_LEASE_EXCLUSIVE, 8, 1, 4, 0);
	ck_assert_int_eq(examine(&node, &lease), -EAGAIN);
	/* one of several, wherever it stands */
	store_holders(MF_LEASE_SHARED, 8, 2, 4, 3);
	ck_assert_int_eq(examine(&node, &lease), -EAGAIN);
	store_holders(MF_LEASE_SHARED, 8, 2, 3, 4);
	ck_assert_int_eq(examine(&node, &lease), -EAGAIN);
	store_holders(MF_LEASE_SHARED, 8, 2, 5, 4);
	ck_assert_int_eq(examine(&node, &lease), -EAGAIN);
	ck_assert_uint_eq(lease.epoch, 99);
	ck_assert_uint_eq(lease.stamp_below, 98);
}
END_TEST

/* A shared lease of our own is no right to write: it must be taken. */
START_TEST(shared_is_not_enough)
{
	MfNode node = { .incarnation = 5 };
	struct mf_lease lease;

	store_holders(MF_LEASE_SHARED, 8, 1, 5, 0);
	ck_assert_int_eq(examine(&node, &lease), 1);
	ck_assert_int_eq(take(&node, &lease), 0);
	ck_assert_uint_eq(lease.epoch, FIRST(5));
	ck_assert_int_eq(examine(&node, &lease), 0);
}
END_TEST

/* After a clean end nothing can be under way: no object must be stamped that did not have to be before. */
START_TEST(clean_holder)
{
	MfNode node = { .incarnation = 5, .holder = { [4] = MF_HOLDER_CLEAN } };
	struct mf_lease lease;

	store_holders(MF_LEASE_EXCLUSIVE, 8, 1, 4, 0);
	ck_assert_int_eq(examine(&node, &lease), 1);
	ck_assert_int_eq(take(&node, &lease), 0);
	ck_assert_uint_eq(lease.epoch, FIRST(5));
	ck_assert_uint_eq(lease.stamp_below, 3);
}
END_TEST

START_TEST(lost_holder)
{
	MfNode node = { .incarnation = 5, .holder = { [4] = MF_HOLDER_LOST } };
	struct mf_lease lease, again;

	store_holders(MF_LEASE_EXCLUSIVE, 8, 1, 4, 0);
	ck_assert_int_eq(examine(&node, &lease), 1);
	ck_assert_int_eq(take(&node, &lease), 0);
	ck_assert_uint_eq(lease.epoch, FIRST(5));
	ck_assert_uint_eq(lease.stamp_below, FIRST(5));
	/* the next clean holder still has to stamp what this one did not come to */
	MfNode next = { .incarnation = 6, .holder = { [5] = MF_HOLDER_CLEAN } };
	ck_assert_int_eq(take(&next, &again), 0);
	ck_assert_uint_eq(again.epoch, FIRST(6));
	ck_assert_uint_eq(again.stamp_below, FIRST(5));
}
END_TEST

/* Behind a holder with a higher incarnation the epoch still grows. */
START_TEST(grows_anyway)
{
	MfNode node = { .incarnation = 5, .holder = { [4] = MF_HOLDER_CLEAN } };
	struct mf_lease lease;

	store_holders(MF_LEASE_EXCLUSIVE, FIRST(7), 1, 4, 0);
	ck_assert_int_eq(take(&node, &lease), 0);
	ck_assert_uint_eq(lease.epoch, FIRST(7) + 1);
}
END_TEST

START_TEST(nobody_holds)
{
	MfNode node = { .incarnation = 5 };
	struct mf_lease lease;

	store_holders(MF_LEASE_NONE, 1, 0, 0, 0);
	ck_assert_int_eq(examine(&node, &lease), 1);
	ck_assert_int_eq(take(&node, &lease), 0);
	ck_assert_uint_eq(lease.epoch, FIRST(5));
}
END_TEST

START_TEST(record_after_take)
{
	MfNode node = { .incarnation = 5, .holder = { [4] = MF_HOLDER_CLEAN, [3] = MF_HOLDER_LOST } };
	struct mf_lease_record rec;
	struct mf_lease lease;

	store_holders(MF_LEASE_EXCLUSIVE, 0x1f, 1, 3, 0);
	ck_assert_int_eq(take(&node, &lease), 0);
	ck_assert_uint_eq(lease.serial, 41);
	g_autoptr(GBytes) bytes = stored_lease();
	ck_assert_int_eq(mf_lease_record_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &rec), 0);
	ck_assert_int_eq(rec.mode, MF_LEASE_EXCLUSIVE);
	ck_assert_uint_eq(rec.epoch, FIRST(5));
	ck_assert_uint_eq(rec.stamp_below, FIRST(5));
	ck_assert_uint_eq(rec.holders->len, 1);
	ck_assert_uint_eq(g_array_index(rec.holders, uint32_t, 0), 5);
	ck_assert_uint_eq(rec.waiters->len, 1);
	ck_assert_uint_eq(g_array_index(rec.waiters, uint32_t, 0), 7);
	check_text(MF_XATTR_EPOCH, "0000000500000000");
	mf_lease_record_clear(&rec);
}
END_TEST

/* Two that saw the same record: one gets it, the other learns that it did not, and changed nothing. */
START_TEST(race)
{
	MfNode a = { .incarnation = 5, .holder = { [4] = MF_HOLDER_LOST, [6] = MF_HOLDER_LIVE } };
	MfNode b = { .incarnation = 6, .holder = { [4] = MF_HOLDER_LOST, [5] = MF_HOLDER_LIVE } };
	struct mf_lease a_lease, b_lease;
	g_autoptr(MfWop) a_wop = mf_wop_new(), b_wop = mf_wop_new();

	store_holders(MF_LEASE_EXCLUSIVE, 8, 1, 4, 0);
	g_autoptr(GBytes) seen = stored_lease();
	ck_assert_int_eq(mf_lease_take(&a, a_wop, seen, MF_LEASE_EXCLUSIVE, &a_lease), 0);
	ck_assert_int_eq(mf_lease_take(&b, b_wop, seen, MF_LEASE_EXCLUSIVE, &b_lease), 0);
	ck_assert_int_eq(operate(a_wop), 0);
	g_autoptr(GBytes) won = stored_lease();
	ck_assert_int_eq(operate(b_wop), -ECANCELED);
	g_autoptr(GBytes) after = stored_lease();
	ck_assert(g_bytes_equal(won, after));
	ck_assert_int_eq(examine(&a, &a_lease), 0);
	ck_assert_int_eq(examine(&b, &b_lease), -EAGAIN);
	/* a lost answer: sending the same once more neither takes it twice nor harms */
	ck_assert_int_eq(operate(a_wop), -ECANCELED);
	ck_assert_int_eq(examine(&a, &a_lease), 0);
	ck_assert_uint_eq(a_lease.epoch, FIRST(5));
	ck_assert_uint_eq(a_lease.stamp_below, FIRST(5));
}
END_TEST

/* The point of it all: who was replaced writes nothing more. */
START_TEST(replaced_holder_is_stopped)
{
	MfNode old = { .incarnation = 4 }, taker = { .incarnation = 5, .holder = { [4] = MF_HOLDER_LOST } };
	struct mf_lease old_lease, lease;

	ck_assert_int_eq(take(&old, &old_lease), 0);
	ck_assert_int_eq(commit(&old_lease, false, "old"), 0);
	ck_assert_int_eq(take(&taker, &lease), 0);
	ck_assert_int_eq(commit(&old_lease, false, "late"), -ECANCELED);
	ck_assert_int_eq(commit(&old_lease, true, "late"), -ECANCELED);
	check_text("data", "old");
	ck_assert_int_eq(commit(&lease, false, "new"), 0);
	check_text("data", "new");
}
END_TEST

/* Another object of the directory learns of the takeover only by the stamp. */
START_TEST(stamp)
{
	struct mf_lease old = { MF_LEASE_EXCLUSIVE, 8, 0, 1 }, lease = { MF_LEASE_EXCLUSIVE, 9, 9, 2 };

	ck_assert_int_eq(commit(&old, true, "old"), 0);
	check_text(MF_XATTR_EPOCH, "0000000000000008");
	ck_assert_int_eq(commit(&lease, false, "unstamped"), 0);
	check_text(MF_XATTR_EPOCH, "0000000000000008");
	ck_assert_int_eq(commit(&old, false, "slips in"), 0);
	ck_assert_int_eq(commit(&lease, true, "stamped"), 0);
	check_text(MF_XATTR_EPOCH, "0000000000000009");
	ck_assert_int_eq(commit(&old, true, "late"), -ECANCELED);
	check_text("data", "stamped");
	check_text(MF_XATTR_EPOCH, "0000000000000009");
}
END_TEST

/* Readers share it, under one epoch, until one wants to write. */
START_TEST(sharing)
{
	MfNode a = { .incarnation = 5, .holder = { [6] = MF_HOLDER_LIVE, [4] = MF_HOLDER_CLEAN } };
	MfNode b = { .incarnation = 6, .holder = { [5] = MF_HOLDER_LIVE, [4] = MF_HOLDER_CLEAN } };
	struct mf_lease a_lease, b_lease;

	store_holders(MF_LEASE_EXCLUSIVE, 8, 1, 4, 0);
	ck_assert_int_eq(take_mode(&a, MF_LEASE_SHARED, &a_lease), 0);
	ck_assert_int_eq(examine_mode(&b, MF_LEASE_SHARED, &b_lease), 1);
	ck_assert_int_eq(take_mode(&b, MF_LEASE_SHARED, &b_lease), 0);
	ck_assert_uint_eq(a_lease.epoch, b_lease.epoch);
	check_holders(MF_LEASE_SHARED, 2, 5, 6);
	ck_assert_int_eq(examine_mode(&a, MF_LEASE_SHARED, &a_lease), 0);
	ck_assert_int_eq(examine_mode(&a, MF_LEASE_EXCLUSIVE, &a_lease), -EAGAIN);
	ck_assert_uint_eq(n_busy, 1);
	g_autoptr(GBytes) record = stored_lease();
	g_autoptr(MfWop) wop = mf_wop_new();
	g_autoptr(GArray) list = g_array_new(false, false, sizeof(uint32_t));
	ck_assert_int_eq(mf_lease_quit(&b, wop, record, list), 0);
	ck_assert_int_eq(operate(wop), 0);
	check_holders(MF_LEASE_SHARED, 1, 5, 0);
	/* a copy of that which arrives late finds another record */
	ck_assert_int_eq(operate(wop), -ECANCELED);
	g_autoptr(GBytes) without = stored_lease();
	ck_assert_int_eq(mf_lease_quit(&b, wop, without, list), 1);
	ck_assert_int_eq(take(&a, &b_lease), 0);
	ck_assert_uint_gt(b_lease.epoch, a_lease.epoch);
}
END_TEST

/* One operation takes it from us and gives it to the next, with the queue. */
START_TEST(passing)
{
	MfNode a = { .incarnation = 5, .holder = { [6] = MF_HOLDER_LIVE, [7] = MF_HOLDER_LIVE } };
	MfNode b = { .incarnation = 6, .holder = { [5] = MF_HOLDER_LIVE, [7] = MF_HOLDER_LIVE } };
	struct mf_lease lease, next, got;
	g_autoptr(GArray) queue = incarnations(1, 7, 0);
	g_autoptr(MfWop) wop = mf_wop_new();

	ck_assert_int_eq(take(&a, &lease), 0);
	ck_assert_int_eq(mf_lease_pass(&a, wop, &lease, 6, MF_LEASE_EXCLUSIVE, queue, &next), 0);
	ck_assert_int_eq(operate(wop), 0);
	ck_assert_int_eq(examine(&b, &got), 0);
	ck_assert_uint_gt(got.epoch, lease.epoch);
	ck_assert_uint_eq(n_waiters, 1);
	ck_assert_int_eq(examine(&a, &next), -EAGAIN);
	/* we are out, whatever of ours is still on its way */
	ck_assert_int_eq(commit(&lease, false, "late"), -ECANCELED);
	ck_assert_int_eq(operate(wop), -ECANCELED);
}
END_TEST

START_TEST(passing_a_share)
{
	MfNode a = { .incarnation = 5, .holder = { [6] = MF_HOLDER_LIVE } };
	struct mf_lease lease, next, got;
	g_autoptr(GArray) queue = incarnations(0, 0, 0);
	g_autoptr(MfWop) wop = mf_wop_new();

	ck_assert_int_eq(take(&a, &lease), 0);
	ck_assert_int_eq(mf_lease_pass(&a, wop, &lease, 6, MF_LEASE_SHARED, queue, &next), 0);
	ck_assert_int_eq(operate(wop), 0);
	check_holders(MF_LEASE_SHARED, 2, 5, 6);
	ck_assert_int_eq(examine_mode(&a, MF_LEASE_SHARED, &got), 0);
	ck_assert_uint_eq(got.epoch, next.epoch);
	ck_assert_uint_eq(got.serial, next.serial);
	ck_assert_int_eq(commit(&lease, false, "late"), -ECANCELED);
}
END_TEST

START_TEST(raising)
{
	MfNode a = { .incarnation = 5 };
	struct mf_lease lease, next, got;
	g_autoptr(MfWop) wop = mf_wop_new();

	ck_assert_int_eq(take(&a, &lease), 0);
	ck_assert_int_eq(mf_lease_raise(&a, wop, &lease, FIRST(9), &next), 0);
	ck_assert_int_eq(operate(wop), 0);
	ck_assert_uint_eq(next.epoch, FIRST(9));
	ck_assert_int_eq(examine(&a, &got), 0);
	ck_assert_uint_eq(got.epoch, FIRST(9));
	ck_assert_int_eq(commit(&next, false, "new"), 0);
}
END_TEST

START_TEST(damaged)
{
	MfNode node = { .incarnation = 5 };
	struct mf_lease lease = { MF_LEASE_NONE, 99, 98, 0 };
	g_autoptr(GBytes) rubbish = g_bytes_new_static("rubbish", 7);
	g_autoptr(MfWop) wop = mf_wop_new();

	g_autoptr(GArray) list = incarnations(0, 0, 0);
	ck_assert_int_eq(mf_lease_examine(&node, NULL, MF_LEASE_SHARED, &lease, list, list), -EBADMSG);
	ck_assert_int_eq(mf_lease_examine(&node, rubbish, MF_LEASE_SHARED, &lease, list, list), -EBADMSG);
	ck_assert_int_eq(mf_lease_take(&node, wop, rubbish, MF_LEASE_EXCLUSIVE, &lease), -EBADMSG);
	ck_assert_int_eq(mf_lease_quit(&node, wop, rubbish, list), -EBADMSG);
	ck_assert_int_eq(mf_lease_quit(&node, wop, NULL, list), -EBADMSG);
	ck_assert_uint_eq(lease.epoch, 99);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("lease");
	TCase *tcase = tcase_create("lease");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, epoch_text);
	tcase_add_test(tcase, new_object);
	tcase_add_test(tcase, live_holder_keeps);
	tcase_add_test(tcase, shared_is_not_enough);
	tcase_add_test(tcase, clean_holder);
	tcase_add_test(tcase, lost_holder);
	tcase_add_test(tcase, grows_anyway);
	tcase_add_test(tcase, nobody_holds);
	tcase_add_test(tcase, record_after_take);
	tcase_add_test(tcase, race);
	tcase_add_test(tcase, replaced_holder_is_stopped);
	tcase_add_test(tcase, stamp);
	tcase_add_test(tcase, sharing);
	tcase_add_test(tcase, passing);
	tcase_add_test(tcase, passing_a_share);
	tcase_add_test(tcase, raising);
	tcase_add_test(tcase, damaged);
	suite_add_tcase(suite, tcase);

	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
