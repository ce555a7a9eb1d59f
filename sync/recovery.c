/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Renames between two objects that a dead node left half done. */
#include "sync/rename.h"

#include "sync/commit.h"
#include "sync/dir.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/name.h"

#include <errno.h>

#define GAINS_MAX 1000u /* left by dead nodes in one object */

/* ---- of the source ---- */

/* The lease of the destination, so that no gain of the dead node can still arrive: ours if it is free; with a live node it
 * has an epoch that the dead one never had. Without the lock. */
static int secure(MfFs *fs, uint64_t ino, const char *key, MfRop **ret_rop, struct mf_lease *ret_lease)
{
	g_autofree char *oid = mf_oid_dir(ino, 0);
	int r;

	do {
		g_autoptr(GArray) busy = g_array_new(false, false, sizeof(uint32_t));
		g_autoptr(GArray) waiters = g_array_new(false, false, sizeof(uint32_t));
		g_autoptr(MfRop) rop = mf_rop_new();
		g_autoptr(MfWop) wop = mf_wop_new();
		struct mf_lease_record rec;

		mf_rop_xattrs(rop);
		mf_rop_omap_key(rop, key);
		r = mf_pool_read(fs->pool, MF_POOL_META, oid, rop);
		if (r < 0)
			return r;
		GBytes *lease = mf_rop_get_xattr(rop, MF_XATTR_LEASE);
		r = mf_lease_examine(fs->node, lease, MF_LEASE_EXCLUSIVE, ret_lease, busy, waiters);
		if (r == 1) {
			r = mf_lease_take(fs->node, wop, lease, MF_LEASE_EXCLUSIVE, ret_lease);
			if (r == 0)
				r = mf_pool_write(fs->pool, MF_POOL_META, oid, wop);
			if (r == 0)
				r = -ECANCELED; /* look again, under it */
		} else if (r == -EAGAIN) {
			r = mf_lease_record_decode(g_bytes_get_data(lease, NULL), g_bytes_get_size(lease), &rec);
			if (r == 0) {
				*ret_lease = (struct mf_lease){ .epoch = rec.epoch };
				mf_lease_record_clear(&rec);
			}
		}
		if (r == 0)
			*ret_rop = g_steal_pointer(&rop);
	} while (r == -ECANCELED || r == -ETIMEDOUT);
	return r;
}

/* Which object of the destination holds the marker. 1 found, 0 not, or an error. Without the lock. */
static int find_gain(MfFs *fs, const struct mf_intent_record *rec, const char *gain_key, char **ret_oid)
{
	g_autoptr(MfRop) head = NULL;
	struct mf_lease lease;
	struct mf_dir_record dir;
	int r = secure(fs, rec->dst_dir, gain_key, &head, &lease);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (mf_rop_get_key(head, gain_key)) {
		*ret_oid = mf_oid_dir(rec->dst_dir, 0);
		return 1;
	}
	GBytes *bytes = mf_rop_get_xattr(head, MF_XATTR_RECORD);
	if (!bytes || mf_dir_record_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &dir) < 0)
		return -EIO;
	r = 0;
	for (unsigned i = 0; i < dir.shards->len && r == 0; i++) {
		uint32_t id = g_array_index(dir.shards, struct mf_shard_ref, i).id;
		g_autofree char *oid = mf_oid_dir(rec->dst_dir, id);
		g_autoptr(MfWop) wop = mf_wop_new();
		g_autoptr(MfRop) rop = mf_rop_new();
		if (id == 0)
			continue;
		mf_lease_guard(wop, &lease, true);
		mf_wop_full_force(wop);
		r = mf_pool_write(fs->pool, MF_POOL_META, oid, wop);
		if (r == -ECANCELED)
			r = 0; /* a holder after the one we read about has been here */
		mf_rop_omap_key(rop, gain_key);
		if (r == 0)
			r = mf_pool_read(fs->pool, MF_POOL_META, oid, rop);
		if (r == 0 && mf_rop_get_key(rop, gain_key)) {
			*ret_oid = g_steal_pointer(&oid);
			r = 1;
		}
	}
	mf_dir_record_clear(&dir);
	return r;
}

/* Once the source has committed its loss, the marker has served. */
struct marker {
	MfDir *dir; /* the source, pinned: its lease does not leave before its commits */
	char *oid, *key;
};

static void drop_marker(MfFs *fs, void *arg)
{
	struct marker *marker = arg;
	int r = 0;

	g_mutex_lock(&fs->lock);
	for (unsigned i = 0; i < marker->dir->shards->len && r == 0; i++)
		r = mf_commit_wait(marker->dir->shards->pdata[i]);
	g_mutex_unlock(&fs->lock);
	if (r == 0) {
		g_autoptr(MfWop) wop = mf_wop_new();
		mf_wop_assert_exists(wop);
		mf_wop_omap_rm(wop, marker->key);
		mf_wop_full_force(wop);
		mf_pool_write(fs->pool, MF_POOL_META, marker->oid, wop);
	}
	g_mutex_lock(&fs->lock);
	mf_dir_unpin(marker->dir);
	fs->reaping--;
	g_cond_broadcast(&fs->reap_cond);
	g_mutex_unlock(&fs->lock);
	g_free(marker->oid);
	g_free(marker->key);
	g_free(marker);
}

/* The moved directory notes its new parent, under its own lease. */
struct reparent {
	MfInode *inode; /* pinned */
	uint64_t parent;
};

static void reparent(MfFs *fs, void *arg)
{
	struct reparent *job = arg;
	enum mf_space space;
	MfDir *child;

	g_mutex_lock(&fs->lock);
	if (mf_dir_get(fs, job->inode, MF_LEASE_EXCLUSIVE, &child, &space) == 0) {
		child->parent = job->parent;
		mf_dir_dirty_record(child);
		mf_dir_put(child);
	}
	mf_inode_unpin(fs, job->inode);
	fs->reaping--;
	g_cond_broadcast(&fs->reap_cond);
	g_mutex_unlock(&fs->lock);
	g_free(job);
}

static int finish_loss(MfDir *dir, const struct mf_intent_record *rec)
{
	MfFs *fs = dir->fs;
	enum mf_space space = MF_SPACE_SELF;
	MfDentry *dentry;

	mf_key_is_entry(rec->src_key, &space);
	int r = mf_dir_find(dir, space, rec->src_key + MF_KEY_PREFIX, &dentry);
	if (r == -ENOENT || (r == 0 && dentry->inode->ino != rec->ino))
		return 0;
	if (r < 0)
		return r;
	MfInode *inode = mf_inode_pin(dentry->inode);
	mf_dir_remove(dir, dentry);
	mf_dir_touch(dir, rec->src_key);
	if (rec->after) {
		struct mf_dirent_record after;
		r = mf_dirent_decode(g_bytes_get_data(rec->after, NULL), g_bytes_get_size(rec->after), &after);
		if (r == 0) {
			mf_name_add_record(dir, rec->src_key, &after);
			mf_dirent_clear(&after);
		}
	}
	if (r == 0 && inode->kind == MF_KIND_DIR) {
		struct reparent *job = g_new(struct reparent, 1);
		*job = (struct reparent){ mf_inode_pin(inode), rec->dst_dir };
		fs->reaping++;
		mf_fs_work(fs, reparent, job);
	}
	mf_inode_unpin(fs, inode);
	return r;
}

static int recover_one(MfDir *dir, const struct mf_kv *kv)
{
	MfFs *fs = dir->fs;
	MfShard *head = dir->shards->pdata[0];
	struct mf_intent_record rec;
	char *oid = NULL;
	uint64_t id;
	gsize len;
	const void *data = g_bytes_get_data(kv->value, &len);

	if (!mf_key_parse_number(kv->key, MF_KEY_INTENT, &id) || mf_intent_decode(data, len, &rec) < 0)
		return -EIO;
	g_hash_table_insert(head->values, g_strdup(kv->key), g_byte_array_append(g_byte_array_new(), data, len));
	g_autofree char *gain_key = mf_key_number(MF_KEY_GAIN, id);
	g_mutex_unlock(&fs->lock);
	int r = find_gain(fs, &rec, gain_key, &oid);
	g_mutex_lock(&fs->lock);
	if (r == 1) {
		r = finish_loss(dir, &rec);
		MfShard *shard = mf_dir_shard(dir, rec.src_key);
		if (r == 0 && shard != head)
			r = mf_commit_wait(shard); /* before the intent is gone */
		if (r == 0) {
			struct marker *marker = g_new0(struct marker, 1);
			marker->dir = mf_dir_pin(dir);
			marker->oid = g_steal_pointer(&oid);
			marker->key = g_steal_pointer(&gain_key);
			fs->reaping++;
			mf_fs_reap(fs, drop_marker, marker);
		}
	}
	if (r == 0)
		mf_dir_set_value(dir, head, kv->key, NULL);
	g_free(oid);
	mf_intent_clear(&rec);
	return r;
}

int mf_rename_recover(MfDir *dir, GArray *kvs)
{
	int r = 0;

	for (unsigned i = 0; i < kvs->len && r == 0; i++)
		r = recover_one(dir, &g_array_index(kvs, struct mf_kv, i));
	return r;
}

/* ---- of the destination ---- */

/* Adds the directories from which names came in here, by renames of dead nodes. Ours are in memory. */
static int foreign_gains(MfDir *dir, const MfShard *shard, GArray *ret_sources)
{
	MfFs *fs = dir->fs;
	g_autofree char *oid = mf_oid_dir(dir->inode->ino, shard->ref.id);
	g_autoptr(MfRop) rop = mf_rop_new();

	mf_rop_omap_range(rop, "", MF_KEY_GAIN, GAINS_MAX);
	g_mutex_unlock(&fs->lock);
	int r = mf_pool_read(fs->pool, MF_POOL_META, oid, rop);
	g_mutex_lock(&fs->lock);
	if (r < 0)
		return r;
	GArray *kvs = mf_rop_get_range(rop, 0, NULL);
	for (unsigned i = 0; i < kvs->len; i++) {
		const struct mf_kv *kv = &g_array_index(kvs, struct mf_kv, i);
		g_autofree char *text = g_strndup(g_bytes_get_data(kv->value, NULL), g_bytes_get_size(kv->value));
		uint64_t source = g_ascii_strtoull(text, NULL, 16);
		if (!g_hash_table_contains(shard->values, kv->key))
			g_array_append_val(ret_sources, source);
	}
	return 0;
}

/* Who loads a directory finishes what left it. One that is gone looks for no marker any more. */
static int finish_source(MfFs *fs, uint64_t ino)
{
	MfInode *inode = mf_inode_dir_of(fs, ino);
	enum mf_space space;
	MfDir *dir;

	if (!inode)
		return 0;
	mf_inode_pin(inode);
	int r = mf_dir_get(fs, inode, MF_LEASE_SHARED, &dir, &space);
	if (r == 0) {
		/* Shared: there was nothing to finish. */
		if (dir->lease.mode == MF_LEASE_EXCLUSIVE)
			r = mf_commit_dir(dir);
		mf_dir_put(dir);
	}
	mf_inode_unpin(fs, inode);
	return r == -ESTALE ? 0 : r;
}

int mf_rename_finish_foreign(MfDir *dir)
{
	g_autoptr(GArray) sources = g_array_new(false, false, sizeof(uint64_t));
	int r = 0;

	for (unsigned i = 0; dir->created && i < dir->shards->len && r == 0; i++)
		r = foreign_gains(dir, dir->shards->pdata[i], sources);
	for (unsigned i = 0; i < sources->len && r == 0; i++)
		r = finish_source(dir->fs, g_array_index(sources, uint64_t, i));
	return r;
}
