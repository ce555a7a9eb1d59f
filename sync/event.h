/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/event.h - what a commit changes in the eyes of other nodes, and what they tell us: inotify(7) across nodes.
 *
 * Model:   a change is told once it is committed, never before, and nobody waits for that. What a commit did is found by
 *          comparing, key by key, what the others saw before it with what they see after it; so names made and removed in
 *          between raise nothing, and several renames of one message are one.
 *          On the other side each event goes to the kernel as it is (struct mf_kernel_ops); memory is not touched, for that is
 *          brought up to date when the lease comes.
 * Threads: fs->lock held.
 */
#pragma once

#include "store/eventrecord.h"
#include "sync/model.h"

/* @key, which others see as a name of (@ino, @kind), is about to change. */
void mf_event_note(MfShard *shard, const char *key, uint64_t ino, enum mf_kind kind);
/* @key belongs to shard @to now. */
void mf_event_divide(MfShard *from, MfShard *to, const char *key);
/* What the changed keys of @shard (key -> enum mf_on_disk) are to others: struct mf_event; NULL: nobody is interested.
 * *ret_were: what was noted of them, to be given back if the commit does not come about. */
GPtrArray *mf_event_freeze(MfShard *shard, GHashTable *changed, GHashTable **ret_were);
void mf_event_melt(MfShard *shard, GHashTable *were);

/* They are committed. @version: of the head with them; 0: it is another shard. */
void mf_event_tell(MfDir *dir, const GPtrArray *events, uint64_t version);
/* The lease was that of a dead node, which may not have come to telling its last changes. */
void mf_event_inherit(MfDir *dir);
/* Bytes of a plain file are in RADOS. */
void mf_event_modified(MfInode *inode);

/* From another node. False: it is no record of events. */
bool mf_event_listen(MfFs *fs, const void *data, size_t len);
/* To the kernel of this node: something may have changed in @dir that nobody told us. */
void mf_event_many(MfDir *dir);
