/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/interest.h - which other nodes are told what changes in a directory: those whose kernels have it.
 *
 * Model:   a process may watch only what its kernel has. While a node has the lease nobody else changes anything; when the
 *          lease leaves, the operation that gives it up marks the directory with i.<incarnation> if the kernel has it, or its
 *          cur, new or tmp, and takes an earlier mark away if not. So whoever changes it has read all marks with the lease
 *          (doc/LOCKING.md, A10). What the kernel forgets later costs one notice: its node answers FORGOT.
 * Threads: fs->lock held.
 */
#pragma once

#include "sync/model.h"

/* The kernel of this node has it. */
bool mf_interest_is_ours(const MfDir *dir);

/* The marks, as read with the lease. */
void mf_interest_take(MfDir *dir, MfRop *rop);
/* To the operation that gives the lease up. */
void mf_interest_note(MfDir *dir, MfWop *wop);
/* That came through, and left us a shared one: from now on others may leave their marks again. */
void mf_interest_shared(MfDir *dir);
void mf_interest_clear(MfDir *dir);
/* The kernel of @incarnation does not have directory @ino, of whose changes it was told in @epoch. */
void mf_interest_forgot(MfFs *fs, uint32_t incarnation, uint64_t ino, uint64_t epoch);

/* This node has joined anew: nobody knows of its kernel, and it does not know what others did meanwhile. Takes the leases of
 * all that the kernel has, in the background. */
void mf_interest_rejoined(MfFs *fs);
/* A node died, perhaps before it could tell of its last changes: looks for these, and takes the leases that it had. */
void mf_interest_bereaved(MfFs *fs);
/* The same of one that may have. All nodes are told, if this one has found out. */
void mf_interest_away(MfFs *fs, uint32_t from, uint32_t incarnation);
/* The threads that do so. */
GThreadPool *mf_interest_pool(MfFs *fs);
