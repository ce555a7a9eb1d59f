/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/inspect.h"

#include <errno.h>
#include <string.h>

#define PAGE 1000u

static int read_dir(MfPool *pool, uint64_t ino, struct mf_dir_record *ret)
{
	g_autofree char *oid = mf_oid_dir(ino, 0);
	g_autoptr(MfRop) rop = mf_rop_new();

	mf_rop_xattrs(rop);
	int r = mf_pool_read(pool, MF_POOL_META, oid, rop);
	if (r < 0)
		return r;
	GBytes *bytes = mf_rop_get_xattr(rop, MF_XATTR_RECORD);
	return bytes ? mf_dir_record_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), ret) : -EBADMSG;
}

static uint32_t shard_of(const struct mf_dir_record *dir, const char *name)
{
	uint32_t hash = mf_name_hash(name);

	for (unsigned i = 0; dir->shards->len > 1 && i < dir->shards->len; i++) {
		const struct mf_shard_ref *ref = &g_array_index(dir->shards, struct mf_shard_ref, i);
		if ((hash & ((1u << ref->depth) - 1)) == ref->prefix)
			return ref->id;
	}
	return 0;
}

static int read_entry(MfPool *pool, uint64_t dir, uint32_t shard, const char *key, struct mf_dirent_record *ret)
{
	g_autofree char *oid = mf_oid_dir(dir, shard);
	g_autoptr(MfRop) rop = mf_rop_new();

	mf_rop_omap_key(rop, key);
	int r = mf_pool_read(pool, MF_POOL_META, oid, rop);
	if (r < 0)
		return r;
	GBytes *bytes = mf_rop_get_key(rop, key);
	return bytes ? mf_dirent_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), ret) : -ENOENT;
}

/* Where a walk is: in @dir, or in the cur, new or tmp that lives in it. */
struct walk {
	uint64_t dir;
	enum mf_space space;
	struct mf_inspected found;
	uint8_t kind;
};

static int step(MfPool *pool, struct walk *walk, const char *name)
{
	struct mf_dir_record dir;
	struct mf_dirent_record entry;

	if (walk->kind == MF_KIND_SYMLINK)
		return -ELOOP;
	if (!walk->found.is_dir)
		return -ENOTDIR;
	int r = read_dir(pool, walk->dir, &dir);
	if (r < 0)
		return r;
	enum mf_space sub = walk->space == MF_SPACE_SELF ? mf_space_of_name(name) : MF_SPACE_SELF;
	if (sub != MF_SPACE_SELF && dir.sub[sub].ino) {
		walk->space = sub;
		walk->found.ino = dir.sub[sub].ino;
		mf_dir_record_clear(&dir);
		return 0;
	}
	g_autofree char *key = mf_key_entry(walk->space, name);
	r = read_entry(pool, walk->dir, shard_of(&dir, name), key, &entry);
	mf_dir_record_clear(&dir);
	if (r < 0)
		return r;
	walk->kind = entry.kind;
	walk->found = (struct mf_inspected){ entry.ino, walk->dir, entry.kind == MF_KIND_DIR };
	if (walk->found.is_dir) {
		walk->dir = walk->found.dir = entry.ino;
		walk->space = MF_SPACE_SELF;
	}
	mf_dirent_clear(&entry);
	return 0;
}

int mf_inspect_path(MfPool *pool, const char *path, struct mf_inspected *ret)
{
	g_auto(GStrv) names = g_strsplit(path, "/", -1);
	struct walk walk = {
		.dir = MF_ROOT_INO,
		.found = { MF_ROOT_INO, MF_ROOT_INO, true },
		.kind = MF_KIND_DIR,
	};

	for (char **name = names; *name; name++) {
		int r = !**name || !strcmp(*name, ".") ? 0 : mf_name_check(*name);
		if (r == 0 && **name && strcmp(*name, "."))
			r = step(pool, &walk, *name);
		if (r < 0)
			return r;
	}
	*ret = walk.found;
	return 0;
}

int mf_inspect_lease(MfPool *pool, uint64_t dir, struct mf_lease_record *ret)
{
	g_autofree char *oid = mf_oid_dir(dir, 0);
	g_autoptr(MfRop) rop = mf_rop_new();

	mf_rop_xattrs(rop);
	int r = mf_pool_read(pool, MF_POOL_META, oid, rop);
	if (r < 0)
		return r;
	GBytes *bytes = mf_rop_get_xattr(rop, MF_XATTR_LEASE);
	return bytes ? mf_lease_record_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), ret) : -EBADMSG;
}

static int take_locks(GArray *kvs, GArray *locks)
{
	for (unsigned i = 0; i < kvs->len; i++) {
		const struct mf_kv *kv = &g_array_index(kvs, struct mf_kv, i);
		g_autoptr(GArray) records = NULL;
		struct mf_inspected_lock lock;
		gsize len;
		const void *data = g_bytes_get_data(kv->value, &len);

		if (!mf_key_parse_number(kv->key, MF_KEY_LOCKS, &lock.ino))
			continue;
		int r = mf_lock_records_decode(data, len, &records);
		if (r < 0)
			return r;
		for (unsigned n = 0; n < records->len; n++) {
			lock.record = g_array_index(records, struct mf_lock_record, n);
			g_array_append_val(locks, lock);
		}
	}
	return 0;
}

int mf_inspect_locks(MfPool *pool, uint64_t dir, GArray **ret_locks)
{
	g_autoptr(GArray) locks = g_array_new(false, false, sizeof(struct mf_inspected_lock));
	g_autofree char *oid = mf_oid_dir(dir, 0);
	g_autofree char *after = g_strdup("");

	for (bool more = true; more;) {
		g_autoptr(MfRop) rop = mf_rop_new();
		mf_rop_omap_range(rop, after, MF_KEY_LOCKS, PAGE);
		int r = mf_pool_read(pool, MF_POOL_META, oid, rop);
		if (r < 0)
			return r;
		GArray *kvs = mf_rop_get_range(rop, 0, &more);
		r = take_locks(kvs, locks);
		if (r < 0)
			return r;
		if (kvs->len == 0)
			break;
		g_free(after);
		after = g_strdup(g_array_index(kvs, struct mf_kv, kvs->len - 1).key);
	}
	*ret_locks = g_steal_pointer(&locks);
	return 0;
}
