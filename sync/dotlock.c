/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/dotlock.h"

#include "sync/dir.h"
#include "sync/event.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/name.h"
#include "sync/table.h"

static bool is_left(MfFs *fs, const char *key, enum mf_kind kind, uint64_t ino)
{
	enum mf_space space;

	return kind == MF_KIND_FILE && g_str_has_suffix(key, ".lock") && mf_key_is_entry(key, &space) &&
	       space == MF_SPACE_SELF && mf_node_holder(fs->node, (uint32_t)(ino >> 32)) == MF_HOLDER_LOST;
}

void mf_dotlock_seen(MfDir *dir, const char *key, enum mf_kind kind, uint64_t ino)
{
	if (is_left(dir->fs, key, kind, ino))
		dir->dotlocks = true;
}

/* Directory pinned. */
static void remove_left(MfFs *fs, void *arg)
{
	MfDir *dir = arg, *held;
	enum mf_space space;
	bool any = false;

	g_mutex_lock(&fs->lock);
	dir->dotlocks = false;
	int r = mf_dir_get(fs, dir->inode, MF_LEASE_EXCLUSIVE, &held, &space);
	if (r == 0) {
		g_autoptr(GPtrArray) keys = mf_table_keys(dir->entries);
		for (unsigned i = 0; i < keys->len; i++)
			keys->pdata[i] = g_strdup(keys->pdata[i]);
		g_ptr_array_set_free_func(keys, g_free);
		for (unsigned i = 0; i < keys->len; i++) {
			const char *key = keys->pdata[i];
			MfDentry *dentry = mf_dir_peek(dir, key);
			if (!dentry || !is_left(fs, key, dentry->inode->kind, dentry->inode->ino))
				continue;
			if (mf_dir_find(dir, MF_SPACE_SELF, key + MF_KEY_PREFIX, &dentry) == 0 &&
				is_left(fs, key, dentry->inode->kind, dentry->inode->ino)) {
				mf_name_drop(dir, dentry);
				any = true;
			}
		}
		/* Done by no process, it raises nothing by itself. */
		if (any)
			mf_event_many(dir);
		mf_dir_put(held);
	}
	mf_dir_unpin(dir);
	fs->reaping--;
	g_cond_broadcast(&fs->reap_cond);
	g_mutex_unlock(&fs->lock);
}

void mf_dotlock_remove(MfDir *dir)
{
	MfFs *fs = dir->fs;

	if (!dir->dotlocks || fs->closing)
		return;
	fs->reaping++;
	mf_fs_work(fs, remove_left, mf_dir_pin(dir));
}

void mf_dotlock_check(MfFs *fs)
{
	g_autoptr(GPtrArray) dirs = g_ptr_array_new();

	for (GList *link = fs->dir_lru.head; link; link = link->next) {
		MfDir *dir = link->data;
		if (dir->lease.mode == MF_LEASE_EXCLUSIVE)
			g_ptr_array_add(dirs, dir);
	}
	for (unsigned i = 0; i < dirs->len; i++) {
		MfDir *dir = dirs->pdata[i];
		GHashTableIter iter;
		gpointer key, value;

		g_hash_table_iter_init(&iter, dir->entries);
		while (g_hash_table_iter_next(&iter, &key, &value)) {
			const MfInode *inode = ((MfDentry *)value)->inode;
			mf_dotlock_seen(dir, key, inode->kind, inode->ino);
		}
		mf_dotlock_remove(dir);
	}
}
