/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "locking/lease.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

void mf_lease_epoch_text(uint64_t epoch, char text[MF_EPOCH_TEXT])
{
	snprintf(text, MF_EPOCH_TEXT, "%016" PRIx64, epoch);
}

uint64_t mf_lease_first_epoch(const MfNode *node)
{
	return (uint64_t)mf_node_incarnation(node) << 32;
}

static int decode(GBytes *record, struct mf_lease_record *ret)
{
	return mf_lease_record_decode(g_bytes_get_data(record, NULL), g_bytes_get_size(record), ret);
}

static GArray *list_new(void)
{
	return g_array_new(false, false, sizeof(uint32_t));
}

static bool has(const GArray *list, uint32_t incarnation)
{
	for (unsigned i = 0; i < list->len; i++) {
		if (g_array_index(list, uint32_t, i) == incarnation)
			return true;
	}
	return false;
}

static bool is_live(MfNode *node, uint32_t incarnation)
{
	enum mf_holder state = mf_node_holder(node, incarnation);

	return state == MF_HOLDER_LIVE || state == MF_HOLDER_SELF;
}

int mf_lease_examine(MfNode *node, GBytes *record, enum mf_lease_mode mode, struct mf_lease *ret_lease, GArray *ret_busy,
	GArray *ret_waiters)
{
	uint32_t self = mf_node_incarnation(node);
	struct mf_lease_record rec;

	if (!record)
		return -EBADMSG;
	int r = decode(record, &rec);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < rec.waiters->len; i++) {
		uint32_t waiter = g_array_index(rec.waiters, uint32_t, i);
		if (waiter != self && is_live(node, waiter))
			g_array_append_val(ret_waiters, waiter);
	}
	r = 1;
	if (has(rec.holders, self) && (rec.mode == MF_LEASE_EXCLUSIVE || rec.mode == mode)) {
		*ret_lease = (struct mf_lease){ rec.mode, rec.epoch, rec.stamp_below, rec.serial };
		r = 0;
	}
	for (unsigned i = 0; r == 1 && i < rec.holders->len; i++) {
		uint32_t holder = g_array_index(rec.holders, uint32_t, i);
		if (holder != self && is_live(node, holder) && (rec.mode == MF_LEASE_EXCLUSIVE || mode == MF_LEASE_EXCLUSIVE))
			g_array_append_val(ret_busy, holder);
	}
	mf_lease_record_clear(&rec);
	return r == 1 && ret_busy->len > 0 ? -EAGAIN : r;
}

/* The record and the epoch. */
static int set_lease(MfWop *wop, const struct mf_lease *lease, GArray *holders, GArray *waiters)
{
	g_autoptr(GByteArray) bytes = NULL;
	struct mf_lease_record rec = {
		.mode = lease->mode,
		.epoch = lease->epoch,
		.stamp_below = lease->stamp_below,
		.serial = lease->serial,
		.holders = holders,
		.waiters = waiters,
	};

	int r = mf_lease_record_encode(&rec, &bytes);
	if (r < 0)
		return r;
	mf_wop_setxattr(wop, MF_XATTR_LEASE, bytes->data, bytes->len);
	char epoch[MF_EPOCH_TEXT];
	mf_lease_epoch_text(lease->epoch, epoch);
	mf_wop_setxattr(wop, MF_XATTR_EPOCH, epoch, MF_EPOCH_TEXT - 1);
	return 0;
}

static void compare(MfWop *wop, GBytes *record)
{
	gsize len;
	const void *data = g_bytes_get_data(record, &len);

	mf_wop_cmpxattr(wop, MF_XATTR_LEASE, MF_CMP_EQ, data, len);
}

int mf_lease_take(MfNode *node, MfWop *wop, GBytes *record, enum mf_lease_mode mode, struct mf_lease *ret_lease)
{
	uint32_t self = mf_node_incarnation(node);
	g_autoptr(GArray) holders = list_new();
	g_autoptr(GArray) waiters = list_new();
	struct mf_lease_record old = { 0 };
	struct mf_lease lease;
	int r;

	if (record) {
		r = decode(record, &old);
		if (r < 0)
			return r;
		compare(wop, record);
	}
	lease = (struct mf_lease){ mode, MAX(old.epoch + 1, mf_lease_first_epoch(node)), old.stamp_below, old.serial + 1 };
	/* Those who share it keep their epoch: none of them writes. */
	if (mode == MF_LEASE_SHARED && old.mode == MF_LEASE_SHARED)
		lease.epoch = old.epoch;
	for (unsigned i = 0; old.holders && i < old.holders->len; i++) {
		uint32_t holder = g_array_index(old.holders, uint32_t, i);
		if (old.mode == MF_LEASE_EXCLUSIVE && mf_node_holder(node, holder) == MF_HOLDER_LOST)
			lease.taken_over = true;
		if (old.mode == MF_LEASE_SHARED && mode == MF_LEASE_SHARED && holder != self && is_live(node, holder))
			g_array_append_val(holders, holder);
	}
	if (lease.taken_over)
		lease.stamp_below = lease.epoch;
	g_array_append_val(holders, self);
	for (unsigned i = 0; old.waiters && i < old.waiters->len; i++) {
		uint32_t waiter = g_array_index(old.waiters, uint32_t, i);
		if (waiter != self && is_live(node, waiter))
			g_array_append_val(waiters, waiter);
	}
	r = set_lease(wop, &lease, holders, waiters);
	mf_lease_record_clear(&old);
	if (r == 0)
		*ret_lease = lease;
	return r;
}

int mf_lease_pass(MfNode *node, MfWop *wop, const struct mf_lease *lease, uint32_t to, enum mf_lease_mode mode,
	GArray *waiters, struct mf_lease *ret_lease)
{
	uint32_t self = mf_node_incarnation(node);
	g_autoptr(GArray) holders = list_new();
	struct mf_lease next = { to ? mode : MF_LEASE_NONE, lease->epoch + 1, lease->stamp_below, lease->serial + 1 };

	if (to && mode == MF_LEASE_SHARED)
		g_array_append_val(holders, self);
	if (to)
		g_array_append_val(holders, to);
	mf_lease_guard(wop, lease, false);
	int r = set_lease(wop, &next, holders, waiters);
	if (r == 0)
		*ret_lease = next;
	return r;
}

int mf_lease_quit(MfNode *node, MfWop *wop, GBytes *record, GArray *ret_waiters)
{
	uint32_t self = mf_node_incarnation(node);
	g_autoptr(GArray) holders = list_new();
	struct mf_lease_record old;
	int r = record ? decode(record, &old) : -EBADMSG;

	if (r < 0)
		return r;
	for (unsigned i = 0; i < old.holders->len; i++) {
		uint32_t holder = g_array_index(old.holders, uint32_t, i);
		if (holder != self)
			g_array_append_val(holders, holder);
	}
	if (holders->len == old.holders->len) {
		r = 1;
	} else {
		/* Nothing of ours may be under way: a later epoch keeps even a copy of this very operation from coming true
		 * after somebody else has taken the lease. */
		struct mf_lease next = {
			holders->len > 0 ? old.mode : MF_LEASE_NONE,
			old.mode == MF_LEASE_EXCLUSIVE ? old.epoch + 1 : old.epoch,
			old.stamp_below,
			old.serial + 1,
		};
		g_array_append_vals(ret_waiters, old.waiters->data, old.waiters->len);
		compare(wop, record);
		r = set_lease(wop, &next, holders, old.waiters);
	}
	mf_lease_record_clear(&old);
	return r;
}

int mf_lease_raise(MfNode *node, MfWop *wop, const struct mf_lease *lease, uint64_t epoch, struct mf_lease *ret_lease)
{
	uint32_t self = mf_node_incarnation(node);
	g_autoptr(GArray) holders = list_new();
	g_autoptr(GArray) waiters = list_new();
	struct mf_lease next = { lease->mode, MAX(epoch, lease->epoch + 1), lease->stamp_below, lease->serial + 1 };

	g_array_append_val(holders, self);
	mf_lease_guard(wop, lease, false);
	int r = set_lease(wop, &next, holders, waiters);
	if (r == 0)
		*ret_lease = next;
	return r;
}

void mf_lease_guard(MfWop *wop, const struct mf_lease *lease, bool stamp)
{
	char epoch[MF_EPOCH_TEXT];

	mf_lease_epoch_text(lease->epoch, epoch);
	mf_wop_cmpxattr(wop, MF_XATTR_EPOCH, MF_CMP_GTE, epoch, MF_EPOCH_TEXT - 1);
	if (stamp)
		mf_wop_setxattr(wop, MF_XATTR_EPOCH, epoch, MF_EPOCH_TEXT - 1);
}
