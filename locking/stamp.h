/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* locking/stamp.h - reading what a lease guards, after a holder that may still have writes under way.
 *
 * Threads: any; blocks.
 */
#pragma once

#include "locking/lease.h"

/* Reads an object that the lease guards (@rop asks for its xattrs, too). When it may still be written by who held the
 * lease before, it is stamped with our epoch first. -ESHUTDOWN: it has a higher one. */
int mf_lease_read(MfPool *pool, const char *oid, const struct mf_lease *lease, MfRop *rop);
