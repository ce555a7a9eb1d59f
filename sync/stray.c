/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A file in use here whose last name another node took away: removed, or moved to another directory. */
#include "sync/stray.h"

#include "sync/dir.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/reaper.h"

#include <errno.h>

static int file_home(MfFs *fs, uint64_t ino, uint64_t *ret_dir)
{
	g_autofree char *oid = mf_oid_file(ino, 0);
	g_autoptr(MfRop) rop = mf_rop_new();
	struct mf_file_record rec;

	mf_rop_xattrs(rop);
	g_mutex_unlock(&fs->lock);
	int r = mf_pool_read(fs->pool, MF_POOL_META, oid, rop);
	g_mutex_lock(&fs->lock);
	if (r < 0)
		return r;
	GBytes *bytes = mf_rop_get_xattr(rop, MF_XATTR_RECORD);
	if (!bytes || mf_file_record_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &rec) < 0)
		return -EIO;
	*ret_dir = rec.dir;
	return 0;
}

/* It lies in another directory now, under another lease. */
static int follow(MfFs *fs, MfInode *inode, uint64_t home)
{
	MfInode *dir_inode = mf_inode_dir_of(fs, home);

	if (!dir_inode)
		return -ESTALE;
	MfDir *dir = mf_dir_pin(dir_inode->dir ? dir_inode->dir : mf_dir_shell(fs, dir_inode));
	MfDir *held = inode->held_dir;
	mf_inode_set_home(inode, dir);
	inode->held_dir = dir;
	if (held)
		mf_dir_unpin(held);
	return 0;
}

int mf_inode_follow(MfFs *fs, MfInode *inode)
{
	const MfDir *dir = inode->dir;
	uint64_t home;

	if (!inode->stray || inode->kind != MF_KIND_FILE)
		return -ESTALE;
	int r = file_home(fs, inode->ino, &home);
	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	/* Found meanwhile, by somebody else. */
	if (!inode->stray || inode->dir != dir)
		return 0;
	if (home != dir->inode->ino)
		return follow(fs, inode, home);
	/* It was removed, and then its directory. */
	inode->stray = false;
	inode->removed = true;
	return -ESTALE;
}

/* The bytes of a plain file say in which directory it is. */
static int find_file(MfFs *fs, MfInode *inode, MfDir *dir)
{
	int r = mf_inode_follow(fs, inode);

	if (r != -ESTALE || !inode->stray || inode->dir != dir)
		return r;
	/* Here, under a name that has not been read; or it is gone. */
	r = mf_dir_complete(dir);
	if (r == 0 && inode->stray && inode->dir == dir) {
		inode->stray = false;
		inode->removed = true;
	}
	return r;
}

int mf_inode_find_again(MfFs *fs, MfInode *inode)
{
	MfDir *dir = inode->dir;

	if (!inode->stray)
		return 0;
	int r = mf_dir_load_records(dir);
	if (r < 0 || !inode->stray || inode->dir != dir)
		return r;
	/* For as long as somebody has it open. */
	if (mf_reaper_has(dir, inode->ino)) {
		inode->stray = false;
		inode->removed = true;
		return 0;
	}
	if (inode->kind == MF_KIND_FILE)
		return find_file(fs, inode, dir);
	/* Its bytes say the rest; a symbolic link without a name is nothing. */
	if (inode->kind == MF_KIND_SYMLINK)
		return -ESTALE;
	inode->stray = inode->attr_loaded = false;
	return 0;
}

/* ---- directories ---- */

static void look_after(MfFs *fs, void *arg)
{
	MfInode *inode = arg;
	g_autofree char *oid = mf_oid_dir(inode->ino, 0);
	g_autoptr(MfRop) rop = mf_rop_new();
	enum mf_space space;
	MfDir *dir;

	mf_rop_xattrs(rop);
	int r = mf_pool_read(fs->pool, MF_POOL_META, oid, rop);
	g_mutex_lock(&fs->lock);
	/* Who asks for the lease of what is gone cleans up. */
	if (r == -ENOENT && mf_dir_get(fs, inode, MF_LEASE_SHARED, &dir, &space) == 0)
		mf_dir_put(dir);
	mf_inode_unpin(fs, inode);
	fs->reaping--;
	g_cond_broadcast(&fs->reap_cond);
	g_mutex_unlock(&fs->lock);
}

void mf_stray_ask(MfFs *fs)
{
	fs->local_wait = false;
	for (GList *link = fs->dir_lru.head; link; link = link->next) {
		const MfDir *dir = link->data;
		if (dir->n_local == 0 || dir->lease.mode != MF_LEASE_NONE || dir->inode->removed)
			continue;
		fs->local_wait = true;
		fs->reaping++;
		mf_fs_work(fs, look_after, mf_inode_pin(dir->inode));
	}
}
