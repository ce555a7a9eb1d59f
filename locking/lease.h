/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* locking/lease.h - the right to cache (shared) or to cache and change (exclusive) one directory.
 *
 * Model:   the record in xattr `lease' of d.<ino> says who holds it and under which epoch. Every write of the record is a
 *          compare and set on what was read (or on our own epoch), so there is one order of holders. Every object
 *          that it guards carries xattr `epoch'; every change asserts that ours is not below it, so that a holder that
 *          was replaced changes nothing more. doc/LOCKING.md has the state diagram.
 * Owns:    nothing; plain data in, an operation filled in.
 * Threads: any.
 * Errors:  -EAGAIN: live nodes hold it.
 */
#pragma once

#include "locking/node.h"

#define MF_EPOCH_TEXT 17 /* 16 hex digits and a NUL */

void mf_lease_epoch_text(uint64_t epoch, char text[MF_EPOCH_TEXT]);

/* The least epoch that this node gives. */
uint64_t mf_lease_first_epoch(const MfNode *node);

struct mf_lease {
	enum mf_lease_mode mode;
	uint64_t epoch;
	/* Objects of this directory (shards, files) whose stored epoch is below must be stamped before they are read:
	 * the holder of that time may still have writes under way. */
	uint64_t stamp_below;
	uint64_t serial; /* of the record as it is stored */
	bool taken_over; /* the exclusive holder before us died */
};

/* Reads what is stored (@record: the xattr). 0: we hold it in @mode or better, *ret_lease filled. 1: mf_lease_take() may
 * take it. -EAGAIN: those in @ret_busy (uint32_t, appended) must give it up first. @ret_waiters: who else waits. */
int mf_lease_examine(MfNode *node, GBytes *record, enum mf_lease_mode mode, struct mf_lease *ret_lease, GArray *ret_busy,
	GArray *ret_waiters);

/* Adds to @wop the compare with @record and the new lease; *ret_lease is what we hold once the operation has succeeded.
 * @record NULL: a new object, no compare. */
int mf_lease_take(
	MfNode *node, MfWop *wop, GBytes *record, enum mf_lease_mode mode, struct mf_lease *ret_lease);

/* Adds to @wop what ends our exclusive @lease: it goes to @to (0: to nobody) with the queue @waiters. @mode shared: both
 * hold it afterwards, and *ret_lease is ours. */
int mf_lease_pass(MfNode *node, MfWop *wop, const struct mf_lease *lease, uint32_t to, enum mf_lease_mode mode,
	GArray *waiters, struct mf_lease *ret_lease);

/* Adds to @wop the compare with @record and the same without us. 1: we are not in it. @ret_waiters: who waits. */
int mf_lease_quit(MfNode *node, MfWop *wop, GBytes *record, GArray *ret_waiters);

/* Raises the epoch of our exclusive @lease to at least @epoch. */
int mf_lease_raise(MfNode *node, MfWop *wop, const struct mf_lease *lease, uint64_t epoch, struct mf_lease *ret_lease);

/* Adds the assertion that we have not been replaced, and the epoch if the object may not carry it yet (@stamp). */
void mf_lease_guard(MfWop *wop, const struct mf_lease *lease, bool stamp);
