/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A file in use here whose last name another node took away: removed, or moved to another directory. */
#include "sync/dir.h"
#include "sync/inode.h"

#include <errno.h>

/* The to-delete list of the directory names it, for as long as somebody has it open. */
static bool is_to_be_deleted(MfDir *dir, uint64_t ino)
{
	g_autofree char *prefix = mf_key_number(MF_KEY_REAP, ino);
	GHashTableIter iter;
	gpointer key;

	for (unsigned i = 0; i < dir->shards->len; i++) {
		g_hash_table_iter_init(&iter, ((MfShard *)dir->shards->pdata[i])->values);
		while (g_hash_table_iter_next(&iter, &key, NULL)) {
			if (g_str_has_prefix(key, prefix))
				return true;
		}
	}
	return false;
}

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

int mf_inode_find_again(MfFs *fs, MfInode *inode)
{
	MfDir *dir = inode->dir;
	uint64_t home;

	if (!inode->stray)
		return 0;
	int r = mf_dir_load_records(dir);
	if (r < 0 || !inode->stray)
		return r;
	if (is_to_be_deleted(dir, inode->ino)) {
		inode->stray = false;
		inode->removed = true;
		return 0;
	}
	if (inode->kind != MF_KIND_FILE) {
		/* Its bytes say the rest; a symbolic link without a name is nothing. */
		if (inode->kind == MF_KIND_SYMLINK)
			return -ESTALE;
		inode->stray = inode->attr_loaded = false;
		return 0;
	}
	r = file_home(fs, inode->ino, &home);
	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	if (!inode->stray)
		return 0;
	if (home != dir->inode->ino)
		return -ESTALE; /* who comes by its path finds it where it is now */
	inode->stray = false;
	inode->removed = true;
	return 0;
}
