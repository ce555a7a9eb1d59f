/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/attr.h"

#include "sync/dir.h"
#include "sync/file.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/kernel.h"
#include "sync/message.h"
#include "sync/opened.h"
#include "sync/reopen.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* A name of an earlier lease, of which other nodes may know more. */
static MfShard *unloaded_name(const MfInode *inode)
{
	for (const MfDentry *name = inode->names; name; name = name->next_name) {
		MfShard *shard = mf_dir_shard(name->dir, name->key);
		if (name->dir->lease.mode != MF_LEASE_NONE && !name->local && !shard->loaded)
			return shard;
	}
	return NULL;
}

/* Its own directory is held by the caller, or it is removed. */
static int load_named(MfFs *fs, MfInode *inode)
{
	MfShard *shard;
	int r = 0;

	/* Loading may wait, so look again. */
	while (r == 0 && (shard = unloaded_name(inode)))
		r = mf_shard_load(shard);
	return r;
}

bool mf_attr_is_loaded(const MfInode *inode)
{
	return inode->attr_loaded && !unloaded_name(inode);
}

/* Attributes of a message with several names lie with its bytes, and other nodes may have changed them since. */
static bool is_old(const MfInode *inode)
{
	return inode->linked && inode->dir && inode->attr_epoch != inode->dir->lease.epoch;
}

int mf_attr_load(MfFs *fs, MfInode *inode)
{
	int r = 0;

	switch (inode->kind) {
	case MF_KIND_DIR:
	case MF_KIND_SUBDIR:
		/* One that was removed has no object any more, but may still be open. */
		return inode->removed || !inode->dir ? 0 : mf_dir_load_records(inode->dir);
	case MF_KIND_MESSAGE:
		if (inode->published)
			r = load_named(fs, inode);
		if (r == 0 && inode->published && !inode->removed && is_old(inode)) {
			inode->attr_loaded = false;
			inode->attr_epoch = inode->dir->lease.epoch;
		}
		return r < 0 || inode->attr_loaded ? r : mf_message_load_attr(fs, inode);
	case MF_KIND_FILE:
		if (inode->linked && !inode->removed && inode->dir) {
			/* Its link count is the number of its names, so they must all be in memory. */
			r = mf_dir_complete(inode->dir);
			if (r < 0)
				return r;
		}
		return inode->attr_loaded ? 0 : mf_file_load_attr(fs, inode);
	case MF_KIND_SYMLINK:
		return load_named(fs, inode);
	}
	return -EIO;
}

int mf_attr_hold(MfFs *fs, MfInode *inode, enum mf_lease_mode mode, MfDir **ret_dir)
{
	*ret_dir = NULL;
	/* Nobody else can see these. */
	bool ours = inode->kind == MF_KIND_MESSAGE && (!inode->published || inode->removed) && inode->attr_loaded;
	bool dead = mf_inode_is_dir(inode) && inode->removed && inode->attr_loaded;
	if (ours || dead)
		return 0;
	/* The bytes of a message outlive its names here. */
	if (inode->kind == MF_KIND_MESSAGE && !inode->dir)
		return mf_attr_load(fs, inode);
	int r = mf_inode_hold(fs, inode, mode, ret_dir);
	/* Its directory is gone as well, and with it the lease: of a plain file each node that has it open has a copy now. */
	if (r == -ESTALE && inode->removed &&
		(inode->kind == MF_KIND_MESSAGE || (inode->kind == MF_KIND_FILE && inode->opens > 0)))
		return mf_attr_load(fs, inode);
	/* Another node has removed it, as we have just learned. */
	if (r == -ESTALE && mf_inode_is_dir(inode) && inode->removed && inode->attr_loaded)
		return 0;
	if (r == 0)
		r = mf_attr_load(fs, inode);
	if (r < 0 && *ret_dir)
		mf_dir_put(g_steal_pointer(ret_dir));
	return r;
}

void mf_attr_changed(MfInode *inode)
{
	switch (inode->kind) {
	case MF_KIND_DIR:
	case MF_KIND_SUBDIR:
		if (inode->dir && !inode->removed)
			mf_dir_dirty_record(inode->dir);
		break;
	case MF_KIND_FILE:
		mf_file_dirty_attr(inode);
		break;
	case MF_KIND_MESSAGE:
	case MF_KIND_SYMLINK:
		/* Names of a linked one in directories that are not ours just now, or not read since they are, or on their
		 * way out, do not carry its attributes. */
		for (MfDentry *name = inode->names; name; name = name->next_name) {
			if (!name->local && name->dir->lease.mode == MF_LEASE_EXCLUSIVE && !mf_dir_is_drained(name->dir) &&
				mf_dir_shard(name->dir, name->key)->loaded)
				mf_dir_dirty_dentry(name);
		}
		break;
	}
}

int mf_attr_store(MfFs *fs, MfInode *inode)
{
	if (inode->kind == MF_KIND_MESSAGE && inode->linked && inode->published)
		return mf_message_store_attr(fs, inode);
	return 0;
}

void mf_attr_init(const MfInode *parent, uint32_t mode, const struct mf_cred *cred, struct mf_attr *ret)
{
	int64_t now = mf_fs_now();

	*ret = (struct mf_attr){
		.mode = mode, .uid = cred->uid, .gid = cred->gid, .atime = now, .mtime = now, .ctime = now
	};
	if (parent->attr.mode & S_ISGID) {
		ret->gid = parent->attr.gid;
		if (S_ISDIR(mode))
			ret->mode |= S_ISGID;
	}
}

void mf_attr_drop_suid(struct mf_attr *attr)
{
	attr->mode &= ~S_ISUID;
	if (attr->mode & S_IXGRP)
		attr->mode &= ~S_ISGID;
}

void mf_attr_newer_times(struct mf_attr *attr, const struct mf_attr *other)
{
	if (other->ctime <= attr->ctime)
		return;
	attr->mtime = other->mtime;
	attr->ctime = other->ctime;
}

char *mf_inode_path(MfFs *fs, const MfInode *inode)
{
	GString *path = g_string_new(NULL);

	for (int depth = 0; inode && inode->ino != MF_ROOT_INO && depth < 100; depth++) {
		if (!inode->names) {
			g_string_prepend(path, "/?");
			break;
		}
		const MfDentry *name = inode->names;
		enum mf_space space = MF_SPACE_SELF;
		mf_key_is_entry(name->key, &space);
		g_string_prepend(path, name->key + MF_KEY_PREFIX);
		g_string_prepend_c(path, '/');
		if (space != MF_SPACE_SELF) {
			g_string_prepend(path, mf_space_name(space));
			g_string_prepend_c(path, '/');
		}
		inode = name->dir->inode;
	}
	if (path->len == 0)
		g_string_append_c(path, '/');
	return g_string_free(path, false);
}

static int change_size(MfFs *fs, MfInode *inode, uint64_t size, bool by_handle)
{
	bool message = inode->kind == MF_KIND_MESSAGE;
	int r;

	if (mf_inode_is_dir(inode))
		return -EISDIR;
	if (inode->kind == MF_KIND_SYMLINK)
		return -EINVAL;
	if (message && inode->published && !by_handle)
		return -EPERM;
	g_mutex_unlock(&fs->lock);
	r = message ? mf_message_truncate(fs, inode, size) : mf_file_truncate(fs, inode, size);
	g_mutex_lock(&fs->lock);
	return r;
}

static void change(MfInode *inode, const struct mf_attr *attr, unsigned set)
{
	int64_t now = mf_fs_now();

	if (set & MF_SET_MODE)
		inode->attr.mode = (inode->attr.mode & S_IFMT) | (attr->mode & 07777);
	if (set & MF_SET_UID)
		inode->attr.uid = attr->uid;
	if (set & MF_SET_GID)
		inode->attr.gid = attr->gid;
	if (set & (MF_SET_ATIME | MF_SET_ATIME_NOW))
		inode->attr.atime = set & MF_SET_ATIME_NOW ? now : attr->atime;
	if (set & (MF_SET_MTIME | MF_SET_MTIME_NOW)) {
		inode->attr.mtime = set & MF_SET_MTIME_NOW ? now : attr->mtime;
		/* An older mtime must win over what the shards remember. */
		if (mf_inode_is_dir(inode) && !inode->removed)
			inode->dir->mtime_gen[inode->kind == MF_KIND_SUBDIR ? inode->space : MF_SPACE_SELF]++;
	}
	inode->attr.ctime = set & MF_SET_CTIME ? attr->ctime : MAX(now, inode->attr.ctime + 1);
}

static int set_attr(MfFs *fs, MfInode *inode, const struct mf_attr *attr, unsigned set)
{
	MfDir *dir;
	int r = mf_attr_hold(fs, inode, MF_LEASE_EXCLUSIVE, &dir);

	if (r < 0)
		return r;
	if (set & MF_SET_SIZE)
		r = change_size(fs, inode, attr->size, set & MF_SET_BY_HANDLE);
	if (r == 0 && set & ~(MF_SET_SIZE | MF_SET_BY_HANDLE)) {
		change(inode, attr, set);
		/* One that is only open any more, and only here, has nothing to be committed. */
		if (!inode->removed || (inode->kind == MF_KIND_FILE && mf_opened_elsewhere(inode->dir, inode->ino))) {
			mf_attr_changed(inode);
			r = mf_attr_store(fs, inode);
		}
	}
	if (dir)
		mf_dir_put(dir);
	return r;
}

int mf_fs_setattr(MfFs *fs, uint64_t ino, const struct mf_attr *attr, unsigned set, struct mf_stat *ret)
{
	MfInode *inode;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	int r = mf_inode_take(fs, ino, &inode);
	if (r < 0)
		return r;
	r = set_attr(fs, inode, attr, set);
	if (r == 0)
		mf_inode_stat(inode, ret);
	mf_inode_unpin(fs, inode);
	return r;
}

int mf_fs_getattr(MfFs *fs, uint64_t ino, uint32_t pid, struct mf_stat *ret)
{
	MfInode *inode;
	MfDir *dir;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	int r = mf_inode_take(fs, ino, &inode);
	if (r < 0)
		return r;
	r = mf_attr_hold(fs, inode, MF_LEASE_SHARED, &dir);
	if (r == 0) {
		mf_inode_stat(inode, ret);
		if (dir) {
			mf_kernel_answer(dir, NULL, inode, ret);
			mf_dir_put(dir);
		}
	}
	/* The kernel asks for the permissions before it opens. */
	if (r == -ESTALE)
		mf_reopen_announce(fs, inode, pid);
	mf_inode_unpin(fs, inode);
	return r;
}
