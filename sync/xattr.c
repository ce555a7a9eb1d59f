/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* user.* attributes: in memory once asked for, written through to the object that carries the inode's attributes. */
#include "sync/xattr.h"

#include "sync/attr.h"
#include "sync/commit.h"
#include "sync/dir.h"
#include "sync/file.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/message.h"

#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#define NAME_MAX_LEN (255u - 5u) /* XATTR_NAME_MAX less "user." */
#define VALUE_MAX 65536u	 /* XATTR_SIZE_MAX */

/* Where they lie, and under which prefix: those of cur, new and tmp share the object of their parent. */
static char *place(const MfInode *inode, enum mf_pool_which *ret_which, char **ret_prefix)
{
	*ret_which = MF_POOL_META;
	*ret_prefix = g_strdup(MF_XATTR_USER);
	switch (inode->kind) {
	case MF_KIND_DIR:
		return mf_oid_dir(inode->ino, 0);
	case MF_KIND_SUBDIR:
		g_free(*ret_prefix);
		*ret_prefix = g_strdup_printf("s%016" G_GINT64_MODIFIER "x.", inode->ino);
		return mf_oid_dir(inode->dir->inode->ino, 0);
	case MF_KIND_MESSAGE:
		*ret_which = MF_POOL_DATA;
		return mf_oid_message(inode->ino, 0);
	case MF_KIND_FILE:
		return mf_oid_file(inode->ino, 0);
	case MF_KIND_SYMLINK:
		break;
	}
	return NULL;
}

/* Its object is there, so that changes must be written to it. */
static bool is_stored(const MfInode *inode)
{
	switch (inode->kind) {
	case MF_KIND_DIR:
	case MF_KIND_SUBDIR:
		return inode->dir && inode->dir->created;
	case MF_KIND_MESSAGE:
		return mf_message_is_stored(inode);
	case MF_KIND_FILE:
		return mf_file_is_stored(inode);
	case MF_KIND_SYMLINK:
		break;
	}
	return false;
}

void mf_xattr_add(MfFs *fs, MfInode *inode, MfWop *wop)
{
	GHashTableIter iter;
	gpointer key, value;

	g_mutex_lock(&fs->lock);
	if (inode->xattrs) {
		g_hash_table_iter_init(&iter, inode->xattrs);
		while (g_hash_table_iter_next(&iter, &key, &value)) {
			g_autofree char *name = g_strconcat(MF_XATTR_USER, key, NULL);
			gsize len;
			const void *data = g_bytes_get_data(value, &len);
			mf_wop_setxattr(wop, name, data, len);
		}
	}
	g_mutex_unlock(&fs->lock);
}

static void give_back(MfFs *fs, MfInode *inode, MfDir *dir)
{
	if (dir)
		mf_dir_put(dir);
	mf_inode_unpin(fs, inode);
}

static int take(MfFs *fs, uint64_t ino, enum mf_lease_mode mode, MfInode **ret_inode, MfDir **ret_dir)
{
	int r = mf_inode_take(fs, ino, ret_inode);

	*ret_dir = NULL;
	if (r < 0)
		return r;
	MfInode *inode = *ret_inode;
	if (inode->kind == MF_KIND_SYMLINK)
		r = -EPERM; /* xattr(7): user attributes are for files and directories */
	else
		r = mf_attr_hold(fs, inode, mode, ret_dir);
	/* Another node may have changed them since we had this lease. */
	if (r == 0 && *ret_dir && inode->xattrs_epoch != (*ret_dir)->lease.epoch) {
		inode->xattrs_loaded &= !is_stored(inode);
		inode->xattrs_epoch = (*ret_dir)->lease.epoch;
	}
	/* One that is only open any more keeps what is in memory. */
	if (r == 0 && inode->removed && mf_inode_is_dir(inode))
		inode->xattrs_loaded = true;
	if (r == 0 && !inode->xattrs_loaded && is_stored(inode)) {
		enum mf_pool_which which;
		g_autofree char *prefix = NULL;
		g_autofree char *oid = place(inode, &which, &prefix);
		g_autoptr(MfRop) rop = mf_rop_new();
		g_autoptr(GHashTable) table = g_hash_table_new_full(
			g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_bytes_unref);
		GHashTableIter iter;
		gpointer key, value;

		mf_rop_xattrs(rop);
		g_mutex_unlock(&fs->lock);
		r = mf_pool_read(fs->pool, which, oid, rop);
		g_mutex_lock(&fs->lock);
		if (r == 0 && !inode->xattrs_loaded) {
			g_hash_table_iter_init(&iter, mf_rop_get_xattrs(rop));
			while (g_hash_table_iter_next(&iter, &key, &value)) {
				if (g_str_has_prefix(key, prefix))
					g_hash_table_replace(
						table, g_strdup((char *)key + strlen(prefix)), g_bytes_ref(value));
			}
			g_clear_pointer(&inode->xattrs, g_hash_table_unref);
			inode->xattrs = g_steal_pointer(&table);
			inode->xattrs_loaded = true;
		}
		if (r == -ENOENT)
			r = -EIO;
	}
	if (r < 0)
		give_back(fs, inode, *ret_dir);
	return r;
}

/* NULL value removes. */
static int write_through(MfFs *fs, MfInode *inode, const char *name, const void *value, size_t len)
{
	enum mf_pool_which which;
	g_autofree char *prefix = NULL;
	g_autofree char *oid = place(inode, &which, &prefix);
	g_autofree char *key = g_strconcat(prefix, name, NULL);
	g_autoptr(MfWop) wop = mf_wop_new();

	if (which == MF_POOL_META)
		mf_lease_guard(wop, &inode->dir->lease, false);
	else
		mf_wop_assert_exists(wop);
	if (value)
		mf_wop_setxattr(wop, key, value, len);
	else
		mf_wop_rmxattr(wop, key);
	g_mutex_unlock(&fs->lock);
	int r = mf_fs_note(fs, mf_pool_write(fs->pool, which, oid, wop));
	g_mutex_lock(&fs->lock);
	return r == -ECANCELED ? -EIO : r;
}

/* What has no name any more lives in memory, but a plain file in a directory that is still there: other nodes may have it
 * open, and with the lease its memory goes. */
static bool is_shared(const MfInode *inode, const MfDir *dir)
{
	return !inode->removed || (inode->kind == MF_KIND_FILE && dir && is_stored(inode));
}

static int change(MfFs *fs, MfInode *inode, MfDir *dir, const char *name, const void *value, size_t len)
{
	int r = 0;

	/* A new one may be on its way to RADOS with the attributes it had when that began. */
	if (!inode->removed && !is_stored(inode)) {
		if (inode->kind == MF_KIND_MESSAGE)
			r = mf_message_flush(fs, inode);
		else if (inode->kind == MF_KIND_FILE)
			r = mf_file_flush(fs, inode);
		else
			r = mf_commit_wait(inode->dir->shards->pdata[0]);
	}
	if (r == 0 && is_shared(inode, dir))
		r = write_through(fs, inode, name, value, len);
	if (r < 0)
		return r;
	if (!inode->xattrs)
		inode->xattrs =
			g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_bytes_unref);
	if (value)
		g_hash_table_replace(inode->xattrs, g_strdup(name), g_bytes_new(value, len));
	else
		g_hash_table_remove(inode->xattrs, name);
	inode->attr.ctime = MAX(mf_fs_now(), inode->attr.ctime + 1);
	mf_attr_changed(inode);
	return 0;
}

int mf_fs_setxattr(MfFs *fs, uint64_t ino, const char *name, const void *value, size_t len, int flags)
{
	MfInode *inode;
	MfDir *dir;

	if (name[0] == '\0' || strlen(name) > NAME_MAX_LEN)
		return name[0] ? -ERANGE : -EINVAL;
	if (len > VALUE_MAX)
		return -E2BIG;
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	int r = take(fs, ino, MF_LEASE_EXCLUSIVE, &inode, &dir);
	if (r < 0)
		return r;
	bool there = inode->xattrs && g_hash_table_contains(inode->xattrs, name);
	if (there && flags & XATTR_CREATE)
		r = -EEXIST;
	else if (!there && flags & XATTR_REPLACE)
		r = -ENODATA;
	else
		r = change(fs, inode, dir, name, value, len);
	give_back(fs, inode, dir);
	return r;
}

int mf_fs_removexattr(MfFs *fs, uint64_t ino, const char *name)
{
	MfInode *inode;
	MfDir *dir;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	int r = take(fs, ino, MF_LEASE_EXCLUSIVE, &inode, &dir);
	if (r < 0)
		return r;
	if (inode->xattrs && g_hash_table_contains(inode->xattrs, name))
		r = change(fs, inode, dir, name, NULL, 0);
	else
		r = -ENODATA;
	give_back(fs, inode, dir);
	return r;
}

int mf_fs_getxattr(MfFs *fs, uint64_t ino, const char *name, GBytes **ret_value)
{
	MfInode *inode;
	MfDir *dir;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	int r = take(fs, ino, MF_LEASE_SHARED, &inode, &dir);
	if (r < 0)
		return r == -EPERM ? -ENODATA : r;
	GBytes *value = inode->xattrs ? g_hash_table_lookup(inode->xattrs, name) : NULL;
	if (value)
		*ret_value = g_bytes_ref(value);
	else
		r = -ENODATA;
	give_back(fs, inode, dir);
	return r;
}

int mf_fs_listxattr(MfFs *fs, uint64_t ino, GPtrArray **ret_names)
{
	MfInode *inode;
	MfDir *dir;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	int r = take(fs, ino, MF_LEASE_SHARED, &inode, &dir);
	if (r < 0 && r != -EPERM)
		return r;
	GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
	if (r == 0 && inode->xattrs) {
		GHashTableIter iter;
		gpointer key;
		g_hash_table_iter_init(&iter, inode->xattrs);
		while (g_hash_table_iter_next(&iter, &key, NULL))
			g_ptr_array_add(names, g_strdup(key));
	}
	*ret_names = names;
	if (r == 0)
		give_back(fs, inode, dir);
	return 0;
}
