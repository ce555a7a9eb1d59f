/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/file.h - the bytes of a plain file (dovecot-uidlist, index, log, sieve, dotlock): in memory, written back.
 *
 * Model:   stripes of 1 MiB in objects f.<ino>.<k>; stripe 0 carries the attributes and goes last, so that no size
 *          promises bytes that are not there. Reads and writes meet memory; a flush writes only what changed. Files are
 *          opened with direct I/O, so the kernel has no page of theirs that could be stale.
 * Threads: functions marked (unlocked) take file->lock and fs->lock themselves; the others want fs->lock and, where
 *          they block, drop it.
 */
#pragma once

#include "sync/model.h"

#define MF_FILE_MAX (UINT64_C(1) << 40)

void mf_file_start(MfFs *fs, MfInode *inode); /* a new one: not in RADOS yet */
void mf_file_free(MfFs *fs, MfInode *inode);  /* memory only */
void mf_file_unload(MfFs *fs, MfInode *inode); /* clean: another node may change it from now on */
bool mf_file_is_dirty(const MfInode *inode);
uint64_t mf_file_extent(const MfInode *inode); /* no object lies beyond, whatever the size says */
bool mf_file_is_stored(const MfInode *inode); /* f.<ino>.0 is there */
bool mf_file_may_be_stored(const MfInode *inode); /* a write was sent whose result nobody knows, or more */

ssize_t mf_file_write(MfFs *fs, MfInode *inode, const void *buf, size_t len, uint64_t offset, bool append,
	bool drop_suid);						      /* (unlocked) */
ssize_t mf_file_read(MfFs *fs, MfInode *inode, void *buf, size_t len, uint64_t offset); /* (unlocked) */
int mf_file_truncate(MfFs *fs, MfInode *inode, uint64_t size);			      /* (unlocked) */
int mf_file_zero(MfFs *fs, MfInode *inode, uint64_t offset, uint64_t len);	      /* (unlocked) */

/* Its attributes changed: to be flushed with the directory. */
void mf_file_dirty_attr(MfInode *inode);
/* Reads the attributes from stripe 0 (stamps it first after a takeover). Blocks. */
int mf_file_load_attr(MfFs *fs, MfInode *inode);
/* Makes bytes and attributes durable. Blocks. */
int mf_file_flush(MfFs *fs, MfInode *inode);
/* Drops clean bytes of files that nobody has open until the cache is within its limit. */
void mf_file_shrink(MfFs *fs);
