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

int mf_lease_examine(MfNode *node, GBytes *record, struct mf_lease *ret_lease)
{
	struct mf_lease_record rec;
	int r;

	if (!record)
		return -EBADMSG;
	r = decode(record, &rec);
	if (r < 0)
		return r;
	r = 1;
	for (unsigned i = 0; i < rec.holders->len; i++) {
		switch (mf_node_holder(node, g_array_index(rec.holders, uint32_t, i))) {
		case MF_HOLDER_LIVE:
			r = -EAGAIN;
			break;
		case MF_HOLDER_SELF:
			if (rec.mode == MF_LEASE_EXCLUSIVE) {
				*ret_lease = (struct mf_lease){ rec.epoch, rec.stamp_below };
				r = 0;
			}
			break;
		case MF_HOLDER_CLEAN:
		case MF_HOLDER_LOST:
			break;
		}
	}
	mf_lease_record_clear(&rec);
	return r;
}

/* The record and the epoch of an exclusive lease of this node. */
static int set_lease(MfNode *node, MfWop *wop, const struct mf_lease *lease, GArray *waiters)
{
	uint32_t self = mf_node_incarnation(node);
	g_autoptr(GArray) holders = g_array_new(false, false, sizeof(uint32_t));
	g_autoptr(GByteArray) bytes = NULL;
	struct mf_lease_record rec = {
		.mode = MF_LEASE_EXCLUSIVE,
		.epoch = lease->epoch,
		.stamp_below = lease->stamp_below,
		.holders = holders,
		.waiters = waiters,
	};

	g_array_append_val(holders, self);
	int r = mf_lease_record_encode(&rec, &bytes);
	if (r < 0)
		return r;
	mf_wop_setxattr(wop, MF_XATTR_LEASE, bytes->data, bytes->len);
	char epoch[MF_EPOCH_TEXT];
	mf_lease_epoch_text(lease->epoch, epoch);
	mf_wop_setxattr(wop, MF_XATTR_EPOCH, epoch, MF_EPOCH_TEXT - 1);
	return 0;
}

int mf_lease_take(MfNode *node, MfWop *wop, GBytes *record, struct mf_lease *ret_lease)
{
	struct mf_lease_record old = { 0 };
	struct mf_lease lease;
	int r;

	if (record) {
		r = decode(record, &old);
		if (r < 0)
			return r;
		gsize len;
		const void *data = g_bytes_get_data(record, &len);
		mf_wop_cmpxattr(wop, MF_XATTR_LEASE, MF_CMP_EQ, data, len);
	}
	lease = (struct mf_lease){ MAX(old.epoch + 1, mf_lease_first_epoch(node)), old.stamp_below };
	for (unsigned i = 0; old.holders && i < old.holders->len; i++) {
		if (mf_node_holder(node, g_array_index(old.holders, uint32_t, i)) == MF_HOLDER_LOST)
			lease.stamp_below = lease.epoch;
	}
	r = set_lease(node, wop, &lease, old.waiters);
	mf_lease_record_clear(&old);
	if (r == 0)
		*ret_lease = lease;
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
