/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* locking/lease.h - the right to cache and change one directory.
 *
 * Model:   the record in xattr `lease' of d.<ino> says who holds it and under which epoch; taking it is one compare and
 *          set on what was read. Every object that it guards carries xattr `epoch'; every change asserts that ours is
 *          not below it, so that a holder that was replaced changes nothing more.
 * Owns:    nothing; plain data in, an operation filled in.
 * Threads: any.
 * Errors:  -EAGAIN: a live node holds it.
 */
#pragma once

#include "locking/node.h"

#define MF_EPOCH_TEXT 17 /* 16 hex digits and a NUL */

void mf_lease_epoch_text(uint64_t epoch, char text[MF_EPOCH_TEXT]);

/* The least epoch that this node gives: epochs grow with incarnations, so that a plain file that moves between two
 * directories of one holder meets the epoch it had. */
uint64_t mf_lease_first_epoch(const MfNode *node);

struct mf_lease {
	uint64_t epoch;
	/* Objects of this directory (shards, files) whose stored epoch is below must be stamped before they are read:
	 * the holder of that time may still have writes under way. */
	uint64_t stamp_below;
};

/* Reads what is stored (@record: the xattr, NULL when absent). 0: it is ours, *ret_lease filled. 1: it is free, take it
 * with mf_lease_take(). */
int mf_lease_examine(MfNode *node, GBytes *record, struct mf_lease *ret_lease);

/* Adds to @wop the compare with @record and the new lease, exclusive for this node; *ret_lease is what we hold once the
 * operation has succeeded. @record NULL: a new object, no compare. */
int mf_lease_take(MfNode *node, MfWop *wop, GBytes *record, struct mf_lease *ret_lease);

/* Adds the assertion that we have not been replaced, and the epoch if the object may not carry it yet (@stamp). */
void mf_lease_guard(MfWop *wop, const struct mf_lease *lease, bool stamp);
