/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/ring.h"

#include "sync/dir.h"

#include <errno.h>
#include <string.h>

#define KEYS_AT_ONCE 500u

/* Keys changed behind shard->version. False: the ring does not tell them all. */
static bool changed_keys(const MfShard *shard, MfRop *rop, unsigned range, uint64_t ring_low, GHashTable *keys)
{
	bool more;
	GArray *kvs = mf_rop_get_range(rop, range, &more);

	if (more || ring_low == 0 || ring_low > shard->version + 1)
		return false;
	for (unsigned i = 0; i < kvs->len; i++) {
		const struct mf_kv *kv = &g_array_index(kvs, struct mf_kv, i);
		g_autoptr(GPtrArray) list = NULL;
		gsize len;
		const void *data = g_bytes_get_data(kv->value, &len);

		if (mf_change_decode(data, len, &list) < 0 || !list)
			return false;
		for (unsigned n = 0; n < list->len; n++)
			g_hash_table_add(keys, g_strdup(list->pdata[n]));
	}
	return true;
}

/* All names of the shard that stay in memory. */
static void pinned_keys(MfShard *shard, GHashTable *keys)
{
	MfDir *dir = shard->dir;
	GHashTableIter iter;
	gpointer key, value;

	mf_dir_drop_unused(shard);
	g_hash_table_iter_init(&iter, dir->entries);
	while (g_hash_table_iter_next(&iter, &key, &value)) {
		const MfDentry *dentry = value;
		if (!dentry->local && dentry->inode->kind != MF_KIND_SUBDIR && mf_dir_shard(dir, key) == shard)
			g_hash_table_add(keys, g_strdup(key));
	}
}

/* Additions first, so that what was only renamed is never without a name. */
static int apply(MfShard *shard, GPtrArray *keys, MfRop *rop)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < keys->len; i++) {
		GBytes *value = mf_rop_get_key(rop, keys->pdata[i]);
		if (value)
			r = mf_dir_renew(shard, &(struct mf_kv){ keys->pdata[i], value });
	}
	for (unsigned i = 0; r == 0 && i < keys->len; i++) {
		if (!mf_rop_get_key(rop, keys->pdata[i]))
			mf_dir_vanish(shard, keys->pdata[i]);
	}
	return r;
}

static int read_again(MfShard *shard, GHashTable *keys)
{
	MfFs *fs = shard->dir->fs;
	g_autofree char *oid = mf_oid_dir(shard->dir->inode->ino, shard->ref.id);
	g_autoptr(GPtrArray) page = g_ptr_array_new();
	GHashTableIter iter;
	enum mf_space space;
	gpointer key;
	int r = 0;

	g_hash_table_iter_init(&iter, keys);
	for (bool more = true; r == 0 && more;) {
		g_autoptr(MfRop) rop = mf_rop_new();

		g_ptr_array_set_size(page, 0);
		while (page->len < KEYS_AT_ONCE && (more = g_hash_table_iter_next(&iter, &key, NULL))) {
			if (!mf_key_is_entry(key, &space) || mf_dir_shard(shard->dir, key) != shard)
				continue;
			g_ptr_array_add(page, key);
			mf_rop_omap_key(rop, key);
		}
		if (page->len == 0)
			break;
		g_mutex_unlock(&fs->lock);
		r = mf_pool_read(fs->pool, MF_POOL_META, oid, rop);
		g_mutex_lock(&fs->lock);
		if (r == 0)
			r = apply(shard, page, rop);
	}
	return r;
}

static gboolean move_key(gpointer key, gpointer value, gpointer keys)
{
	(void)value;
	g_hash_table_add(keys, key);
	return true;
}

int mf_ring_catch_up(MfShard *shard, MfRop *rop, unsigned range)
{
	g_autoptr(GHashTable) keys = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	GBytes *last = mf_rop_get_xattr(rop, MF_XATTR_LAST);
	GBytes *record = mf_rop_get_xattr(rop, MF_XATTR_SHARD);
	struct mf_shard_record rec;

	if (!last || !record ||
		mf_shard_record_decode(g_bytes_get_data(record, NULL), g_bytes_get_size(record), &rec) < 0)
		return -EIO;
	bool same = shard->known && g_bytes_get_size(last) == strlen(shard->last) &&
		    memcmp(g_bytes_get_data(last, NULL), shard->last, strlen(shard->last)) == 0;
	if (!same && !(shard->known && range != UINT_MAX && changed_keys(shard, rop, range, rec.ring_low, keys))) {
		g_hash_table_remove_all(keys);
		pinned_keys(shard, keys);
	} else {
		g_hash_table_foreach_steal(shard->doubted, move_key, keys);
	}
	g_hash_table_remove_all(shard->doubted);
	int r = read_again(shard, keys);
	if (r == 0)
		r = mf_shard_take_xattrs(shard, rop);
	/* The ring tells its part again, from the same version on. */
	if (r < 0)
		g_hash_table_foreach_steal(keys, move_key, shard->doubted);
	return r;
}
