/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/dir.h - one directory in memory: find, add and remove names, note what changed. sync/hold.h enters it.
 *
 * Errors: besides those of RADOS: -EIO when its object is damaged or held by a live node, -ESTALE when it is gone.
 */
#pragma once

#include "sync/model.h"

/* Nothing of it is in memory yet, and no lease held; mf_dir_get() fills it. */
MfDir *mf_dir_shell(MfFs *fs, MfInode *inode);
/* A directory that is not in RADOS yet; its first commit creates it. */
MfDir *mf_dir_new(MfFs *fs, MfInode *inode, uint64_t parent);
MfShard *mf_dir_add_shard(MfDir *dir, const struct mf_shard_ref *ref);
void mf_dir_free_if_unused(MfDir *dir); /* frees it, and clears inode->dir, if nothing in it is needed */

/* cur and new live in it, so files in cur, new and tmp are messages. */
bool mf_dir_is_maildir(const MfDir *dir);
/* Its lease is being given up, and nobody is inside any more: what it says must not change. */
bool mf_dir_is_drained(const MfDir *dir);
bool mf_dir_holds_messages(const MfDir *dir, enum mf_space space);

MfShard *mf_dir_shard(MfDir *dir, const char *key);
/* Reads the shard's record (stamps it first after a takeover). May wait. */
int mf_shard_load(MfShard *shard);
/* No commit of the shard runs between these two. May wait; -ETIMEDOUT. */
int mf_shard_claim(MfShard *shard);
void mf_shard_release(MfShard *shard);
/* Reads every entry of the shard, and of every shard. May wait. */
int mf_shard_complete(MfShard *shard);
int mf_dir_complete(MfDir *dir);
/* Reads every shard's record, so that times and link count are true. May wait. */
int mf_dir_load_records(MfDir *dir);

/* 0 with *ret_dentry, -ENOENT. May wait for RADOS when the directory is not all in memory. */
int mf_dir_find(MfDir *dir, enum mf_space space, const char *name, MfDentry **ret_dentry);
/* Without waiting: only what is in memory. */
MfDentry *mf_dir_peek(MfDir *dir, const char *key);
bool mf_dir_is_empty(MfDir *dir, enum mf_space space); /* call mf_dir_complete() first */

/* ---- what RADOS has ---- */

/* Record of the directory and map of its shards from the xattrs of its head; -EIO. */
int mf_dir_take_head(MfDir *dir, MfRop *rop);
/* What stands in xattr `last'. */
uint64_t mf_shard_version(GBytes *last);
/* Version, `last' and record of a shard. */
int mf_shard_take_xattrs(MfShard *shard, MfRop *rop);
/* Adds what a shard says about times and subdirectories, once after it was read. */
void mf_dir_merge_record(MfDir *dir, const MfShard *shard);
/* A name as read; what is in memory already is newer. */
int mf_dir_attach(MfShard *shard, const struct mf_kv *kv);
/* The same, but what was read is newer; and a name that is not there any more. */
int mf_dir_renew(MfShard *shard, const struct mf_kv *kv);
void mf_dir_vanish(MfShard *shard, const char *key);
/* Drops names of the shard that nobody uses. */
void mf_dir_drop_unused(MfShard *shard);
/* Out of memory, whatever it is. */
void mf_dir_forget_name(MfDentry *dentry);
/* Changed bytes of removed files that other nodes have open, too: to be flushed before the lease goes. */
void mf_dir_queue_shared(MfDir *dir);
/* The lease goes: what else is in memory of its files, others may change. All is committed. */
void mf_dir_unload(MfDir *dir);
/* Where the names of an inode that is no directory are, or were. */
void mf_inode_set_home(MfInode *inode, MfDir *dir);

/* Adds a name; not yet marked as changed. */
MfDentry *mf_dir_add(MfDir *dir, const char *key, MfInode *inode, bool local, uint64_t tag);
/* Takes a name away and marks the change. Returns whether RADOS has, or will have, the name before the next commit. */
bool mf_dir_remove(MfDir *dir, MfDentry *dentry);
/* Notes that the key must be written (or removed) by the next commit; @on_disk: it is in RADOS now, if nobody noted a
 * change of it before. Returns whether it is, or will be. */
bool mf_dir_dirty(MfDir *dir, const char *key, bool on_disk);
void mf_dir_dirty_dentry(MfDentry *dentry); /* its record changed */
/* A value that is no entry (reap, intent, gain); NULL removes it. Takes @value. */
void mf_dir_set_value(MfDir *dir, MfShard *shard, const char *key, GByteArray *value);
/* Removes one that RADOS has, whether it is in memory or not. */
void mf_dir_drop_value(MfDir *dir, MfShard *shard, const char *key);
void mf_dir_dirty_record(MfDir *dir);
void mf_dir_dirty_file(MfInode *inode);
/* Entries under @key's space changed just now: times of that directory. */
void mf_dir_touch(MfDir *dir, const char *key);

/* inode of @space of @dir: the directory itself, or its cur, new, tmp. */
MfInode *mf_dir_space_inode(MfDir *dir, enum mf_space space);

/* Drops what nobody uses until the caches are within their limit. */
void mf_dir_shrink(MfFs *fs);
