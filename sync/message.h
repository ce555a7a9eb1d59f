/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/message.h - the bytes of a message: written once, in stripes, then immutable.
 *
 * Model:   while it is being written its stripes lie in memory (a long one keeps only the last of them) and go to
 *          m.<ino>[.<k>] at fsync, at publish, or when memory asks. Stripe 0 goes last and carries the header with the
 *          digests, so that a header never promises bytes that are not there. Afterwards it is read through the
 *          stripe cache; the first read of each stripe checks its digest.
 * Threads: functions marked (unlocked) take message->lock and fs->lock themselves; the others want fs->lock and, where
 *          they block, drop it.
 * Errors:  -EIO: what is stored is not what was written. -EFBIG. -EPERM: sealed.
 */
#pragma once

#include "sync/model.h"

#define MF_MESSAGE_MAX (UINT64_C(64) << 30) /* its header lists a digest a stripe, within the size of an xattr */

void mf_message_start(MfFs *fs, MfInode *inode); /* a new one, open for writing */
void mf_message_free(MfFs *fs, MfInode *inode);	 /* memory only */
bool mf_message_is_dirty(const MfInode *inode);	 /* bytes or header are not in RADOS */
uint64_t mf_message_extent(const MfInode *inode); /* no object lies beyond, whatever the size says */
bool mf_message_is_stored(const MfInode *inode); /* m.<ino> is there */
bool mf_message_may_be_stored(const MfInode *inode); /* a write was sent whose result nobody knows, or more */
bool mf_message_is_writable(const MfInode *inode);

ssize_t mf_message_write(
	MfFs *fs, MfInode *inode, const void *buf, size_t len, uint64_t offset, bool append, bool drop_suid); /* (unlocked) */
/* Into buffers that nobody else knows yet: no check, no change of attributes. */
ssize_t mf_message_append(MfFs *fs, MfInode *inode, const void *buf, size_t len); /* (unlocked) */
int mf_message_truncate(MfFs *fs, MfInode *inode, uint64_t size);			       /* (unlocked) */
int mf_message_zero(MfFs *fs, MfInode *inode, uint64_t offset, uint64_t len);		       /* (unlocked) */
ssize_t mf_message_read(MfFs *fs, MfInode *inode, void *buf, size_t len, uint64_t offset);     /* (unlocked) */

/* Makes the bytes written so far durable. Blocks. */
int mf_message_flush(MfFs *fs, MfInode *inode);
/* It has its first name outside of tmp. */
void mf_message_published(MfInode *inode);
/* No more writing: what is in memory becomes cache. Not before a flush. */
void mf_message_seal(MfFs *fs, MfInode *inode);
/* What was read while its writer, on another node, was not done. */
void mf_message_forget(MfFs *fs, MfInode *inode);
/* Attributes of one with several names, or left unsealed by a crash. Blocks. */
int mf_message_load_attr(MfFs *fs, MfInode *inode);
/* Writes them back. Blocks. */
int mf_message_store_attr(MfFs *fs, MfInode *inode);
/* Notes that it may have a name elsewhere; with @tag != 0 also takes a reference. Blocks. */
int mf_message_mark(MfFs *fs, MfInode *inode, uint64_t tag);
