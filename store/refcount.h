/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store/refcount.h - the stock object class `refcount': bytes that several names share.
 *
 * Model:   src/cls/refcount of Ceph. An object that never saw the class has one implicit reference, tag 0 here. A tag
 *          that was put is retired: getting or putting it again changes nothing. The last put removes the object. Putting a tag that was never taken changes
 *          nothing, or answers -EINVAL when the object never saw the class.
 * Threads: any; fills in operations only.
 */
#pragma once

#include "store/pool.h"

void mf_refcount_get(MfWop *wop, uint64_t tag);
void mf_refcount_put(MfWop *wop, uint64_t tag);
void mf_refcount_read(MfRop *rop);
/* How many references the answer in @rop names; -EBADMSG. */
int mf_refcount_count(MfRop *rop);
