/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A directory's names at one moment, so that a pass of readdir(3) never misses and never doubles one. */
#include "sync/dir.h"
#include "sync/hold.h"
#include "sync/inode.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

struct item {
	uint64_t ino;
	uint32_t mode;
	uint32_t name; /* offset in names */
};

struct MfListing {
	GArray *items;
	GByteArray *names;
};

static uint32_t type_of(const MfInode *inode)
{
	if (mf_inode_is_dir(inode))
		return S_IFDIR;
	return inode->kind == MF_KIND_SYMLINK ? S_IFLNK : S_IFREG;
}

static MfListing *snapshot(MfDir *dir, enum mf_space space)
{
	MfListing *listing = g_new0(MfListing, 1);
	GHashTableIter iter;
	gpointer key, value;

	listing->items = g_array_new(false, false, sizeof(struct item));
	listing->names = g_byte_array_new();
	g_hash_table_iter_init(&iter, dir->entries);
	while (g_hash_table_iter_next(&iter, &key, &value)) {
		const MfDentry *dentry = value;
		enum mf_space s;
		if (!mf_key_is_entry(key, &s) || s != space)
			continue;
		const char *name = (const char *)key + MF_KEY_PREFIX;
		struct item item = { dentry->inode->ino, type_of(dentry->inode), listing->names->len };
		g_array_append_val(listing->items, item);
		g_byte_array_append(listing->names, (const guint8 *)name, strlen(name) + 1);
	}
	return listing;
}

int mf_fs_list(MfFs *fs, uint64_t ino, MfListing **ret_listing)
{
	enum mf_space space;
	MfInode *inode;
	MfDir *dir;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	int r = mf_inode_take(fs, ino, &inode);
	if (r < 0)
		return r;
	r = inode->removed ? -ENOENT : mf_dir_get(fs, inode, MF_LEASE_SHARED, &dir, &space);
	if (r == 0) {
		r = mf_dir_complete(dir);
		if (r == 0)
			*ret_listing = snapshot(dir, space);
		mf_dir_put(dir);
	}
	mf_inode_unpin(fs, inode);
	return r;
}

MfListing *mf_listing_free(MfListing *listing)
{
	if (!listing)
		return NULL;
	g_array_unref(listing->items);
	g_byte_array_unref(listing->names);
	g_free(listing);
	return NULL;
}

bool mf_listing_get(MfListing *listing, uint64_t index, struct mf_listed *ret)
{
	if (index >= listing->items->len)
		return false;
	const struct item *item = &g_array_index(listing->items, struct item, index);
	*ret = (struct mf_listed){ (const char *)listing->names->data + item->name, item->ino, item->mode };
	return true;
}
