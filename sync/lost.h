/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/lost.h - who must hear that his changes of a directory are gone.
 *
 * Model:   rename(2) and the like return before their change is committed; fsync(2) of the directory says when it is. Dovecot
 *          opens the directory for that afterwards, by its path (fdatasync_path()), so an error cannot wait at a descriptor as
 *          in the kernel's errseq_t. When the incarnation ends in between, the change is gone, and the fsync in the next life
 *          must not succeed: what was delivered would be taken for safe. So each directory notes the processes whose changes are
 *          not committed yet. Those that lose some get -ESTALE from their next fsync there, once.
 *          The requester is mf_hold_requester().
 * Threads: fs->lock held.
 */
#pragma once

#include "sync/model.h"

/* The requester has changed something in @dir. */
void mf_lost_note(MfDir *dir);
/* All changes of @dir are in RADOS. */
void mf_lost_clear(MfDir *dir);
/* The incarnation has ended. */
void mf_lost_end(MfDir *dir);

/* For fsync of the directory @ino, or of a plain file in it: 0, or -ESTALE when the requester has lost changes of it. */
int mf_lost_check(MfFs *fs, uint64_t ino);
