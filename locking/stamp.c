/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "locking/stamp.h"

#include <errno.h>
#include <string.h>

static bool may_still_change(MfRop *rop, const struct mf_lease *lease)
{
	GBytes *stored = mf_rop_get_xattr(rop, MF_XATTR_EPOCH);
	char least[MF_EPOCH_TEXT];

	mf_lease_epoch_text(lease->stamp_below, least);
	return !stored || g_bytes_get_size(stored) != MF_EPOCH_TEXT - 1 ||
	       memcmp(g_bytes_get_data(stored, NULL), least, MF_EPOCH_TEXT - 1) < 0;
}

int mf_lease_read(MfPool *pool, const char *oid, const struct mf_lease *lease, MfRop *rop)
{
	g_autoptr(MfWop) wop = NULL;
	int r = mf_pool_read(pool, MF_POOL_META, oid, rop);

	if (r < 0 || !may_still_change(rop, lease))
		return r;
	wop = mf_wop_new();
	mf_lease_guard(wop, lease, true);
	mf_wop_full_force(wop);
	r = mf_pool_write(pool, MF_POOL_META, oid, wop);
	if (r < 0)
		return r == -ECANCELED ? -ESHUTDOWN : r;
	return mf_pool_read(pool, MF_POOL_META, oid, rop);
}
