/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* locking/members.h - the object `members': one record for each incarnation there ever was.
 *
 * Model:   a record is the one cell that decides whether its node is still right. All changes go through one compare and
 *          set on the version of the whole object.
 * Owns:    what mf_members_read() fills belongs to the caller until mf_members_clear().
 * Threads: any. Block for op_timeout.
 */
#pragma once

#include "store/pool.h"
#include "store/record.h"

struct mf_members {
	char *version;
	GHashTable *records; /* incarnation -> struct mf_member * */
	uint32_t highest;
};

int mf_members_read(MfPool *pool, struct mf_members *ret);
void mf_members_clear(struct mf_members *members);

/* Sets one record if nobody changed `members' since it was read. -ECANCELED: read again. */
int mf_members_set(MfPool *pool, struct mf_members *members, uint32_t inc, const struct mf_member *member);

/* Changes the record of @inc through @change until it was done on an unchanged object. @change returns false to stop:
 * -ESTALE, as when there is none. An unknown result needs no care of its own: every change may be made twice. */
typedef bool (*mf_member_func)(struct mf_member *member, void *arg);
int mf_members_update(MfPool *pool, uint32_t inc, mf_member_func change, void *arg);
