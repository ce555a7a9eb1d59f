/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/split.h"

#include "sync/commit.h"
#include "sync/dir.h"
#include "sync/event.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/rename.h"

#include <errno.h>
#include <string.h>

#define DEPTH_MAX 16u
#define PAGE 1000u /* keys in one operation */

/* Does this key belong to the upper half of @shard? */
static bool moves(const MfShard *shard, const char *key)
{
	enum mf_space space;

	return mf_key_is_entry(key, &space) &&
	       (mf_name_hash(key + MF_KEY_PREFIX) & ((1u << shard->ref.depth) - 1)) == shard->ref.prefix &&
	       mf_name_hash(key + MF_KEY_PREFIX) >> shard->ref.depth & 1;
}

/* Copies the upper half into the object of @to. What a copy that died left there is overwritten. */
static int copy(MfFs *fs, MfShard *from, MfShard *to, const struct mf_lease *lease, MfWop *create, GPtrArray *moved)
{
	uint64_t ino = from->dir->inode->ino;
	g_autofree char *from_oid = mf_oid_dir(ino, from->ref.id), *to_oid = mf_oid_dir(ino, to->ref.id);
	g_autofree char *after = g_strdup("");
	int r = mf_pool_write(fs->pool, MF_POOL_META, to_oid, create);
	if (r == -EEXIST) {
		/* Of a copy that died; no map leads to it. */
		g_autoptr(MfWop) wop = mf_wop_new();
		mf_wop_remove(wop);
		r = mf_pool_write(fs->pool, MF_POOL_META, to_oid, wop);
		if (r == 0)
			r = mf_pool_write(fs->pool, MF_POOL_META, to_oid, create);
	}
	if (r < 0)
		return r;
	to->version++;
	for (bool more = true; more && r == 0;) {
		g_autoptr(MfRop) rop = mf_rop_new();
		g_autoptr(MfWop) wop = mf_wop_new();
		bool any = false;

		mf_rop_omap_range(rop, after, "", PAGE);
		r = mf_pool_read(fs->pool, MF_POOL_META, from_oid, rop);
		if (r < 0)
			break;
		GArray *kvs = mf_rop_get_range(rop, 0, &more);
		for (unsigned i = 0; i < kvs->len; i++) {
			struct mf_kv *kv = &g_array_index(kvs, struct mf_kv, i);
			gsize len;
			const void *value = g_bytes_get_data(kv->value, &len);
			if (moves(from, kv->key)) {
				mf_wop_omap_set(wop, kv->key, value, len);
				g_ptr_array_add(moved, g_strdup(kv->key));
				any = true;
			}
			if (i + 1 == kvs->len) {
				g_free(after);
				after = g_strdup(kv->key);
			}
		}
		mf_lease_guard(wop, lease, false);
		if (any)
			r = mf_pool_write(fs->pool, MF_POOL_META, to_oid, wop);
	}
	return r;
}

static int new_object(MfShard *shard, MfWop *wop)
{
	g_autoptr(GByteArray) record = NULL;
	int r = mf_commit_new_object(shard, wop, shard->last);

	if (r == 0)
		r = mf_shard_record_encode(&shard->rec, &record);
	if (r == 0)
		mf_wop_setxattr(wop, MF_XATTR_SHARD, record->data, record->len);
	return r;
}

/* The old object still has what moved: readers ignore it, the space need not wait. */
static void remove_moved(MfFs *fs, MfShard *from, GPtrArray *moved)
{
	g_autofree char *oid = mf_oid_dir(from->dir->inode->ino, from->ref.id);

	for (unsigned i = 0; i < moved->len;) {
		g_autoptr(MfWop) wop = mf_wop_new();
		mf_lease_guard(wop, &from->dir->lease, false);
		mf_wop_full_force(wop);
		for (unsigned n = 0; n < PAGE && i < moved->len; n++)
			mf_wop_omap_rm(wop, moved->pdata[i++]);
		if (mf_pool_write(fs->pool, MF_POOL_META, oid, wop) < 0)
			return;
	}
}

static bool is_large(const MfShard *shard)
{
	return shard->rec.n_entries > shard->dir->fs->conf->split_entries && shard->ref.depth < DEPTH_MAX;
}

/* A to-delete record belongs to the half that its name was in: both go in one commit. Where that is not known, to the half that
 * commits last, for bytes must not go before their name has. */
static bool reap_moves(const MfShard *from, const char *key, gpointer state)
{
	const char *name_key = g_hash_table_lookup(from->reaped_names, key);

	return g_str_has_prefix(key, MF_KEY_REAP) && GPOINTER_TO_UINT(state) == MF_ON_DISK_NO &&
	       g_hash_table_contains(from->values, key) && (!name_key || moves(from, name_key));
}

/* Entries of the new shard among those that the commits know. */
static void divide(MfShard *from, MfShard *to)
{
	GHashTableIter iter;
	gpointer key, value;

	g_hash_table_iter_init(&iter, from->dirty);
	while (g_hash_table_iter_next(&iter, &key, &value)) {
		if (reap_moves(from, key, value)) {
			GByteArray *record = g_byte_array_ref(g_hash_table_lookup(from->values, key));
			g_hash_table_insert(to->values, g_strdup(key), record);
			const char *name_key = g_hash_table_lookup(from->reaped_names, key);
			if (name_key)
				g_hash_table_insert(to->reaped_names, g_strdup(key), g_strdup(name_key));
			g_hash_table_remove(from->reaped_names, key);
			g_hash_table_remove(from->values, key);
		} else if (!moves(from, key)) {
			continue;
		}
		mf_event_divide(from, to, key);
		g_hash_table_insert(to->dirty, g_strdup(key), value);
		to->seq++; /* or who waits for it would find nothing to wait for */
		g_hash_table_iter_remove(&iter);
	}
	for (enum mf_space s = 0; s < MF_SPACES; s++)
		from->rec.n_subdirs[s] = to->rec.n_subdirs[s] = 0;
	from->rec.n_entries = to->rec.n_entries = 0;
	g_hash_table_iter_init(&iter, from->dir->entries);
	while (g_hash_table_iter_next(&iter, &key, &value)) {
		const MfDentry *dentry = value;
		enum mf_space space = MF_SPACE_SELF;
		/* All entries of a large folder, and everybody waits: one of another shard costs its hash, no more. */
		uint32_t hash = mf_name_hash((const char *)key + MF_KEY_PREFIX);
		if ((hash & ((1u << from->ref.depth) - 1)) != from->ref.prefix || dentry->local ||
			dentry->inode->kind == MF_KIND_SUBDIR)
			continue;
		mf_key_is_entry(key, &space);
		MfShard *owner = hash >> from->ref.depth & 1 ? to : from;
		owner->rec.n_entries++;
		owner->rec.n_subdirs[space] += mf_inode_is_dir(dentry->inode);
	}
}

/* The map and the lower half's record, in one operation on the head. */
static int flip(MfShard *head)
{
	head->dirty_record = true;
	head->seq++;
	return mf_commit_wait(head);
}

static void split(MfFs *fs, void *arg)
{
	MfShard *shard = arg;
	MfDir *dir = shard->dir;
	MfShard *head = dir->shards->pdata[0];
	g_autoptr(GPtrArray) moved = g_ptr_array_new_with_free_func(g_free);

	g_mutex_lock(&fs->lock);
	/* Every entry in memory, so that the counts of both halves are true. Not those of other shards. */
	int r = mf_shard_complete(shard);
	bool have_head = r == 0 && mf_shard_claim(head) == 0;
	bool have = have_head && (shard == head || mf_shard_claim(shard) == 0);
	/* A gain and its marker must stay in one object, and a loss in that which is blocked. */
	if (have && is_large(shard) && !dir->inode->removed && dir->created && !mf_rename_is_between(dir)) {
		struct mf_shard_ref ref = {
			dir->next_shard++,
			shard->ref.depth + 1,
			shard->ref.prefix | 1u << shard->ref.depth,
		};
		/* Not in dir->shards yet: nobody's keys lead to it. */
		MfShard *upper = mf_dir_add_shard(dir, &ref);
		g_ptr_array_steal_index(dir->shards, dir->shards->len - 1);
		upper->rec = shard->rec;
		upper->rec.ring_low = 0;
		g_autoptr(MfWop) create = mf_wop_new();
		struct mf_lease lease = dir->lease;
		r = new_object(upper, create);
		g_mutex_unlock(&fs->lock);
		if (r == 0)
			r = copy(fs, shard, upper, &lease, create, moved);
		g_mutex_lock(&fs->lock);
		if (r == 0) {
			divide(shard, upper);
			shard->ref.depth++;
			upper->loaded = upper->known = upper->complete = upper->stamped = true;
			upper->dirty_times = shard->dirty_times = true;
			/* No commit of either half may be acknowledged before the map leads to it. */
			upper->busy = true;
			g_ptr_array_add(dir->shards, upper);
			mf_shard_release(head);
			while ((r = flip(head)) < 0 && !mf_node_is_fenced(fs->node) && !fs->stopping) {
				g_mutex_unlock(&fs->lock);
				g_usleep(G_USEC_PER_SEC);
				g_mutex_lock(&fs->lock);
			}
			if (shard != head)
				mf_shard_release(shard);
			mf_shard_release(upper);
			mf_commit_queue(upper);
			if (r == 0) {
				g_mutex_unlock(&fs->lock);
				remove_moved(fs, shard, moved);
				g_mutex_lock(&fs->lock);
			}
		} else {
			g_ptr_array_add(dir->shards, upper);
			g_ptr_array_remove_index(dir->shards, dir->shards->len - 1);
			if (shard != head)
				mf_shard_release(shard);
			mf_shard_release(head);
		}
	} else {
		/* Not now; the next commit that finds it large comes here again. */
		if (have && shard != head)
			mf_shard_release(shard);
		if (have_head)
			mf_shard_release(head);
	}
	dir->splitting = false;
	mf_dir_unuse(dir);
	fs->reaping--;
	g_cond_broadcast(&fs->reap_cond);
	g_mutex_unlock(&fs->lock);
}

void mf_split_if_large(MfShard *shard)
{
	MfFs *fs = shard->dir->fs;

	if (!is_large(shard) || shard->dir->splitting || shard->dir->inode->removed || fs->closing ||
		shard->dir->draining)
		return;
	shard->dir->splitting = true;
	mf_dir_use(shard->dir);
	fs->reaping++;
	mf_fs_work(fs, split, shard);
}
