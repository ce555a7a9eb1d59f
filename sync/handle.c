/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Open files: open, read, write, allocate, sync, close. */
#include "sync/handle.h"

#include "sync/attr.h"
#include "sync/commit.h"
#include "sync/dir.h"
#include "sync/file.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/locks.h"
#include "sync/lost.h"
#include "sync/message.h"
#include "sync/opened.h"
#include "sync/reaper.h"
#include "sync/reopen.h"

#include <errno.h>
#include <linux/falloc.h>

void mf_handle_count(MfFs *fs, MfInode *inode)
{
	if (inode->opens++ == 0)
		g_hash_table_add(fs->held, inode);
}

void mf_handle_uncount(MfFs *fs, MfInode *inode)
{
	if (--inode->opens > 0)
		return;
	if (!mf_inode_is_held(inode)) {
		g_hash_table_remove(fs->held, inode);
		mf_opened_closed(fs, inode);
	}
	mf_reaper_closed(fs, inode);
}

int mf_handle_open(MfFs *fs, MfInode *inode, int flags, bool made, MfHandle **ret_handle)
{
	bool writes = (flags & O_ACCMODE) != O_RDONLY;

	if (mf_inode_is_dir(inode))
		return -EISDIR;
	if (inode->kind == MF_KIND_SYMLINK)
		return -ELOOP;
	if (inode->kind == MF_KIND_MESSAGE && (writes || flags & O_TRUNC) &&
		!(mf_message_is_writable(inode) && (made || !inode->published)))
		return -EPERM;
	MfHandle *handle = g_new0(MfHandle, 1);
	handle->fs = fs;
	handle->inode = mf_inode_pin(inode);
	handle->writes = writes;
	handle->life = inode->opened_life = fs->life;
	mf_handle_count(fs, inode);
	inode->writers += writes;
	*ret_handle = handle;
	return 0;
}

int mf_fs_open_file(MfFs *fs, uint64_t ino, int flags, uint32_t pid, MfHandle **ret_handle)
{
	MfInode *inode;
	MfDir *dir;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	int r = mf_inode_take(fs, ino, &inode);
	if (r < 0)
		return r;
	r = mf_attr_hold(fs, inode, MF_LEASE_SHARED, &dir);
	if (r == 0) {
		r = inode->removed && inode->opens == 0 ? -ESTALE : mf_handle_open(fs, inode, flags, false, ret_handle);
		if (dir)
			mf_dir_put(dir);
	}
	if (r == -ESTALE)
		mf_reopen_announce(fs, inode, pid);
	mf_reopen_done(fs, inode, pid);
	mf_inode_unpin(fs, inode);
	return r;
}

/* One that was written where everybody looks is complete at its last close. */
static void seal(MfFs *fs, MfInode *inode)
{
	MfDir *dir;

	if (inode->kind != MF_KIND_MESSAGE || inode->writers > 0 || !inode->published || !inode->message)
		return;
	if (!inode->unsealed) {
		if (!mf_message_is_dirty(inode))
			mf_message_seal(fs, inode);
		return;
	}
	inode->unsealed = false;
	if (inode->removed || mf_inode_hold(fs, inode, MF_LEASE_EXCLUSIVE, &dir) < 0)
		return;
	for (MfDentry *name = inode->names; name; name = name->next_name) {
		if (name->dir == dir)
			mf_dir_dirty_dentry(name);
	}
	mf_dir_put(dir);
}

void mf_fs_release(MfFs *fs, MfHandle *handle, GArray *done)
{
	g_mutex_lock(&fs->lock);
	MfInode *inode = handle->inode;
	mf_locks_release(fs, inode, (uint64_t)(uintptr_t)handle, done);
	inode->writers -= handle->writes;
	if (handle->writes)
		seal(fs, inode);
	mf_handle_uncount(fs, inode);
	mf_inode_unpin(fs, inode);
	mf_file_shrink(fs);
	g_mutex_unlock(&fs->lock);
	g_free(handle);
}

uint64_t mf_handle_ino(const MfHandle *handle)
{
	return handle->inode->ino;
}

bool mf_handle_immutable(const MfHandle *handle)
{
	MfFs *fs = handle->fs;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	return handle->inode->kind == MF_KIND_MESSAGE && handle->inode->published && !handle->inode->unsealed;
}

bool mf_handle_is_old(const MfHandle *handle)
{
	return handle->inode->dead || handle->life < handle->inode->whole_since;
}

/* A message has what it needs once its attributes are here; the bytes of a plain file are good for as long as the lease
 * is held. Undo with end(). */
static int begin(MfFs *fs, MfHandle *handle, enum mf_lease_mode mode, MfDir **ret_dir)
{
	MfInode *inode = handle->inode;
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);

	*ret_dir = NULL;
	if (mf_handle_is_old(handle))
		return -ESTALE;
	handle->unsynced |= mode == MF_LEASE_EXCLUSIVE;
	if (inode->kind == MF_KIND_MESSAGE && inode->attr_loaded && !inode->unsealed)
		return 0;
	int r = mf_attr_hold(fs, inode, mode, ret_dir);
	/* From now on other nodes mind this life's interest in it. */
	if (r == 0 && inode->names)
		inode->opened_life = fs->life;
	return r;
}

static void end(MfFs *fs, MfDir *dir)
{
	if (!dir)
		return;
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	mf_dir_put(dir);
}

static void shrink(MfFs *fs)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);

	mf_file_shrink(fs);
}

ssize_t mf_fs_read(MfFs *fs, MfHandle *handle, void *buf, size_t len, uint64_t offset)
{
	MfInode *inode = handle->inode;
	MfDir *dir;
	ssize_t n = begin(fs, handle, MF_LEASE_SHARED, &dir);

	if (n < 0)
		return n;
	if (inode->kind == MF_KIND_MESSAGE) {
		n = mf_message_read(fs, inode, buf, len, offset);
	} else {
		n = mf_file_read(fs, inode, buf, len, offset);
		shrink(fs);
	}
	end(fs, dir);
	return n;
}

ssize_t mf_fs_write(MfFs *fs, MfHandle *handle, const void *buf, size_t len, uint64_t offset, int flags, uint32_t uid)
{
	MfInode *inode = handle->inode;
	bool append = flags & O_APPEND;
	MfDir *dir;
	ssize_t n = begin(fs, handle, MF_LEASE_EXCLUSIVE, &dir);

	if (n < 0)
		return n;
	if (inode->kind == MF_KIND_MESSAGE) {
		n = mf_message_write(fs, inode, buf, len, offset, append, uid != 0);
	} else {
		n = mf_file_write(fs, inode, buf, len, offset, append, uid != 0);
		shrink(fs);
	}
	end(fs, dir);
	return n;
}

static int allocate(MfFs *fs, MfInode *inode, int mode, uint64_t offset, uint64_t len)
{
	bool message = inode->kind == MF_KIND_MESSAGE;
	int r = 0;

	g_mutex_lock(&fs->lock);
	bool writable = !message || mf_message_is_writable(inode);
	g_mutex_unlock(&fs->lock);
	if (!writable)
		return -EPERM;
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		r = message ? mf_message_zero(fs, inode, offset, len) : mf_file_zero(fs, inode, offset, len);
	g_mutex_lock(&fs->lock);
	uint64_t size = inode->attr.size;
	g_mutex_unlock(&fs->lock);
	if (r == 0 && !(mode & FALLOC_FL_KEEP_SIZE) && offset + len > size)
		r = message ? mf_message_truncate(fs, inode, offset + len) : mf_file_truncate(fs, inode, offset + len);
	return r;
}

int mf_fs_fallocate(MfFs *fs, MfHandle *handle, int mode, uint64_t offset, uint64_t len)
{
	MfInode *inode = handle->inode;
	bool message = inode->kind == MF_KIND_MESSAGE;
	MfDir *dir;

	if (len == 0)
		return -EINVAL;
	if (offset + len < offset || offset + len > (message ? MF_MESSAGE_MAX : MF_FILE_MAX))
		return -EFBIG;
	switch (mode & ~FALLOC_FL_KEEP_SIZE) {
	case 0:
		break;
	case FALLOC_FL_PUNCH_HOLE:
		if (!(mode & FALLOC_FL_KEEP_SIZE))
			return -EOPNOTSUPP;
		break;
	case FALLOC_FL_ZERO_RANGE:
		break;
	default:
		return -EOPNOTSUPP;
	}
	int r = begin(fs, handle, MF_LEASE_EXCLUSIVE, &dir);
	if (r < 0)
		return r;
	r = allocate(fs, inode, mode, offset, len);
	end(fs, dir);
	return r;
}

/* The bytes, then every name that is not in RADOS yet, then what leads to these names. */
static int sync_file(MfFs *fs, MfInode *inode)
{
	MfDir *home = NULL;
	int r = 0;

	/* Without the exclusive lease there is nothing of a plain file that is not in RADOS. */
	if (inode->kind == MF_KIND_MESSAGE) {
		r = mf_message_flush(fs, inode);
	} else if (inode->dir && inode->dir->lease.mode == MF_LEASE_EXCLUSIVE) {
		r = mf_inode_hold(fs, inode, MF_LEASE_EXCLUSIVE, &home);
		if (r == 0) {
			r = mf_file_flush(fs, inode);
			mf_dir_put(home);
		}
	}

	for (MfDentry *name = inode->names; r == 0 && name; name = name->next_name) {
		MfDir *dir = name->dir;
		if (name->local)
			continue;
		g_autofree char *key = g_strdup(name->key);
		mf_dir_pin(dir);
		r = mf_commit_wait_key(dir, key);
		if (r == 0)
			r = mf_commit_ancestors(dir);
		mf_dir_unpin(dir);
		/* That may have waited; the name may be gone. */
		bool there = false;
		for (MfDentry *n = inode->names; n; n = n->next_name)
			there |= n == name;
		if (!there)
			break;
	}
	return r;
}

int mf_fs_fsync(MfFs *fs, MfHandle *handle)
{
	MfInode *inode = handle->inode;
	int r = 0;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	if (mf_handle_is_old(handle))
		return -ESTALE;
	/* What came in later is for the next one. */
	bool unsynced = handle->unsynced;
	handle->unsynced = false;
	/* An unlinked file has nothing that could outlive a crash. */
	if (!inode->removed)
		r = sync_file(fs, inode);
	if (r == 0 && inode->kind == MF_KIND_FILE && inode->dir)
		r = mf_lost_check(fs, inode->dir->inode->ino);
	if (r < 0)
		handle->unsynced |= unsynced;
	return r;
}

bool mf_handle_is_lost(const MfHandle *handle)
{
	MfFs *fs = handle->fs;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	return handle->unsynced && (mf_handle_is_old(handle) || mf_node_is_fenced(fs->node));
}

int mf_fs_fsyncdir(MfFs *fs, uint64_t ino)
{
	MfInode *inode;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	int r = mf_inode_take(fs, ino, &inode);
	if (r < 0)
		return r;
	MfDir *dir = inode->dir;
	if (!mf_inode_is_dir(inode))
		r = -ENOTDIR;
	else
		r = mf_lost_check(fs, dir ? dir->inode->ino : ino);
	if (r == 0 && dir && !inode->removed)
		r = mf_commit_dir(dir); /* not in memory: nothing that is not in RADOS */
	mf_inode_unpin(fs, inode);
	return r;
}
