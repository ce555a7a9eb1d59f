/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/reaper.h - deleting bytes whose name is gone, without a leak and not while somebody reads them.
 *
 * Model:   the commit that drops a name records the inode in the to-delete list of the same object (omap x/). Once that
 *          is in RADOS and nobody has the inode open, the bytes go, then the record. Whoever loads a directory after a
 *          crash does what is left.
 */
#pragma once

#include "sync/model.h"

/* The name @name_key of @inode, with reference @tag, was taken from @shard just now; @on_disk: RADOS knew it. @last: no
 * name is left. */
void mf_reaper_unlinked(MfShard *shard, const char *name_key, MfInode *inode, uint64_t tag, bool on_disk, bool last);
/* @child is removed: what it still had to delete becomes a matter of @shard, in the commit that drops its name. */
void mf_reaper_inherit(MfShard *shard, const char *name_key, MfDir *child, bool on_disk);
/* The record under @key is in RADOS. */
void mf_reaper_committed(MfShard *shard, const char *key);
/* The inode was closed, or lost its last local name. */
void mf_reaper_closed(MfFs *fs, MfInode *inode);
/* No other node has it open any more. */
void mf_reaper_released(MfDir *dir, uint64_t ino);
/* The to-delete list names it. */
bool mf_reaper_has(const MfDir *dir, uint64_t ino);
/* Asks other nodes whether they have it open still, if it is to be deleted. */
void mf_reaper_ask(MfDir *dir, uint64_t ino);
/* The same for all that fs->reaps_wait is set for. */
void mf_reaper_ask_all(MfFs *fs);
/* Records found when the shard was loaded. */
void mf_reaper_recover(MfShard *shard, GArray *kvs);
/* Removes the objects of an inode that nothing leads to. Blocking, without the lock. */
int mf_reaper_remove(MfFs *fs, enum mf_kind kind, uint64_t ino, uint64_t tag, uint64_t size);
/* Another node wants the lease of a directory. If it was removed here, its object goes now, after what names it, and the node
 * is told to look. False: it was not, or its object is gone. */
bool mf_reaper_recalled(MfFs *fs, uint64_t ino, uint32_t incarnation);
GHashTable *mf_reaper_table(void);
/* Waits until all that is queued is done. */
void mf_reaper_drain(MfFs *fs);
