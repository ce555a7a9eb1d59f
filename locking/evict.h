/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* locking/evict.h - the end of an incarnation that does not end by itself: in `members' and in the blocklist.
 *
 * Model:   live -> lost, when nobody holds its watch any more (its process is gone, or the OSD has given it up);
 *          live -> evicting -> lost, when it is made to end: blocklisted first, then left alone for as long as its own
 *          clock may trust its last ping.
 *          Whoever ends it need not be a member. Several may do it at the same time; `members' decides who did.
 * Owns:    nothing.
 * Threads: any, with no lock held. Blocks; where that is more than op_timeout, it says so.
 * Errors:  0 or -errno.
 */
#pragma once

#include "store/pool.h"
#include "store/record.h"

struct mf_ending {
	uint32_t incarnation;
	/* Its process is surely gone: no watch needs to time out. NULL: that cannot be told. */
	bool (*is_dead)(const struct mf_member *member, void *arg);
	void *arg;
	bool waited; /* since it is evicting: its watch timeout, with it blocklisted */

	/* What was found and done. */
	enum mf_member_state state; /* in the end: clean or lost */
	bool evicting;		    /* set and blocklisted by this step */
	bool ours;		    /* declared lost by this step: what it left is ours to sweep */
	bool swept;		    /* there is nothing left to sweep */
};

/* One look at the record and one step. 0: it is over, and this client of the cluster sees nothing of it any more. 1:
 * look again. -EAGAIN: it lives, or may (without @evict), or has no record. Takes its watch timeout, and a bit, where
 * it has to be waited for. */
int mf_evict_step(MfPool *pool, struct mf_ending *ending, bool evict);

/* It is lost: its writes end here, whatever its own clock says. 1: that was done before, and what it left is swept. */
int mf_evict_cut_off(MfPool *pool, uint32_t incarnation, const struct mf_member *member);
