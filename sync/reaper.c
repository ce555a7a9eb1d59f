/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/reaper.h"

#include "store/refcount.h"
#include "sync/commit.h"
#include "sync/dir.h"
#include "sync/file.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/message.h"
#include "sync/opened.h"
#include "sync/recall.h"
#include "sync/sweep.h"
#include "sync/table.h"

#include <errno.h>

#define RETRY_US G_USEC_PER_SEC

struct job {
	struct mf_reap_record rec;
	MfDir *dir; /* pinned; NULL: there is no record to clear */
	char *key;
};

/* ---- removing objects; blocking, without the lock ---- */

static int remove_object(MfFs *fs, enum mf_pool_which which, const char *oid)
{
	g_autoptr(MfWop) wop = mf_wop_new();

	mf_wop_remove(wop);
	mf_wop_full_force(wop);
	int r = mf_pool_write(fs->pool, which, oid, wop);
	return r == -ENOENT ? 0 : r;
}

static int remove_stripes(MfFs *fs, enum mf_pool_which which, char *(*name)(uint64_t, uint32_t), uint64_t ino,
	uint64_t size, uint64_t stripe)
{
	int r = 0;

	for (uint64_t k = (size + stripe - 1) / stripe; k > 1 && r == 0; k--) {
		g_autofree char *oid = name(ino, k - 1);
		r = remove_object(fs, which, oid);
	}
	return r;
}

/* Other names may share the bytes, so the stripes go only when the last reference has taken the head. */
static int remove_message(MfFs *fs, uint64_t ino, uint64_t tag, uint64_t size)
{
	g_autofree char *oid = mf_oid_message(ino, 0);
	g_autoptr(MfWop) wop = mf_wop_new();
	g_autoptr(MfRop) rop = mf_rop_new();

	mf_wop_assert_exists(wop);
	mf_refcount_put(wop, tag);
	mf_wop_full_force(wop);
	int r = mf_pool_write(fs->pool, MF_POOL_DATA, oid, wop);
	if (r == -EINVAL && tag != 0)
		r = 0; /* never taken */
	if ((r < 0 && r != -ENOENT) || size <= MF_STRIPE_SIZE)
		return r == -ENOENT ? 0 : r;
	mf_rop_xattrs(rop);
	r = mf_pool_read(fs->pool, MF_POOL_DATA, oid, rop);
	return r == -ENOENT ? remove_stripes(fs, MF_POOL_DATA, mf_oid_message, ino, size, MF_STRIPE_SIZE) : r;
}

static int remove_dir(MfFs *fs, uint64_t ino)
{
	g_autofree char *oid = mf_oid_dir(ino, 0);
	g_autoptr(MfRop) rop = mf_rop_new();
	struct mf_dir_record rec;

	mf_rop_xattrs(rop);
	int r = mf_pool_read(fs->pool, MF_POOL_META, oid, rop);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	GBytes *bytes = mf_rop_get_xattr(rop, MF_XATTR_RECORD);
	if (bytes && mf_dir_record_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &rec) == 0) {
		/* next_shard also covers one that a crash cut off before the map named it. */
		for (uint32_t id = 1; id <= rec.next_shard && r == 0; id++) {
			g_autofree char *shard = mf_oid_dir(ino, id);
			if (rec.next_shard > 1)
				r = remove_object(fs, MF_POOL_META, shard);
		}
		mf_dir_record_clear(&rec);
	}
	return r < 0 ? r : remove_object(fs, MF_POOL_META, oid);
}

int mf_reaper_remove(MfFs *fs, enum mf_kind kind, uint64_t ino, uint64_t tag, uint64_t size)
{
	switch (kind) {
	case MF_KIND_DIR:
		return remove_dir(fs, ino);
	case MF_KIND_MESSAGE:
		return remove_message(fs, ino, tag, size);
	case MF_KIND_FILE: {
		g_autofree char *oid = mf_oid_file(ino, 0);
		int r = remove_stripes(fs, MF_POOL_META, mf_oid_file, ino, size, MF_FILE_STRIPE);
		return r < 0 ? r : remove_object(fs, MF_POOL_META, oid);
	}
	case MF_KIND_SUBDIR:
	case MF_KIND_SYMLINK:
		return 0;
	}
	return 0;
}

/* ---- removed directories ---- */

/* The lease of one is not given away: others would find in its object what it had, and fill it. */
struct removed {
	uint64_t ino;	 /* the key */
	uint64_t parent; /* whose commit drops the name */
	GArray *waiters; /* uint32_t: incarnations; NULL: nobody asked yet */
};

static void removed_free(void *data)
{
	struct removed *removed = data;

	g_clear_pointer(&removed->waiters, g_array_unref);
	g_free(removed);
}

GHashTable *mf_reaper_table(void)
{
	return g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, removed_free);
}

static void note_removed(MfFs *fs, uint64_t ino, uint64_t parent)
{
	struct removed *removed = g_new(struct removed, 1);

	*removed = (struct removed){ ino, parent, NULL };
	g_hash_table_replace(fs->removed, &removed->ino, removed);
}

/* Its name must not come back without it. */
static int commit_parent(MfFs *fs, uint64_t ino)
{
	const struct removed *removed;

	/* One that was removed as well has left its to-delete list to its own parent. */
	while ((removed = g_hash_table_lookup(fs->removed, &ino)))
		ino = removed->parent;
	MfInode *inode = mf_inode_find(fs, ino);
	return inode && inode->dir && !inode->removed ? mf_commit_dir(inode->dir) : 0;
}

static void end_removed(MfFs *fs, void *arg)
{
	uint64_t *ino = arg;

	g_mutex_lock(&fs->lock);
	int r = commit_parent(fs, *ino);
	/* Else it is done, or was undone by the end of this life. */
	if (r == 0 && g_hash_table_contains(fs->removed, ino)) {
		g_mutex_unlock(&fs->lock);
		r = mf_reaper_remove(fs, MF_KIND_DIR, *ino, 0, 0);
		g_mutex_lock(&fs->lock);
	}
	struct removed *removed = g_hash_table_lookup(fs->removed, ino);
	if (removed) {
		g_autoptr(GArray) waiters = g_steal_pointer(&removed->waiters);
		if (r == 0)
			g_hash_table_remove(fs->removed, ino);
		/* After a failure they ask again. */
		for (unsigned i = 0; r == 0 && i < waiters->len; i++)
			mf_notice_send(fs, g_array_index(waiters, uint32_t, i), MF_NOTICE_GRANT, *ino, 0);
	}
	fs->reaping--;
	g_cond_broadcast(&fs->reap_cond);
	g_mutex_unlock(&fs->lock);
	g_free(ino);
}

bool mf_reaper_recalled(MfFs *fs, uint64_t ino, uint32_t incarnation)
{
	struct removed *removed = g_hash_table_lookup(fs->removed, &ino);

	if (!removed)
		return false;
	if (!removed->waiters) {
		removed->waiters = g_array_new(false, false, sizeof(uint32_t));
		fs->reaping++;
		mf_fs_work(fs, end_removed, g_memdup2(&ino, sizeof(ino)));
	}
	g_array_append_val(removed->waiters, incarnation);
	return true;
}

/* ---- jobs ---- */

static bool may_change(const MfDir *dir)
{
	return dir->lease.mode == MF_LEASE_EXCLUSIVE && !dir->draining;
}

/* Which shard has the record, if it is in memory. */
static MfShard *shard_with(MfDir *dir, const char *key)
{
	for (unsigned i = 0; i < dir->shards->len; i++) {
		MfShard *shard = dir->shards->pdata[i];
		if (g_hash_table_contains(shard->values, key))
			return shard;
	}
	return NULL;
}

static void run(MfFs *fs, void *arg)
{
	struct job *job = arg;
	int r = -ESHUTDOWN;

	/* What has no record must succeed here, or nobody comes back to it before a crash does. */
	while (!mf_node_is_fenced(fs->node)) {
		r = mf_reaper_remove(fs, job->rec.kind, job->rec.ino, job->rec.tag, job->rec.size);
		if (r == 0 || job->dir || mf_fs_is_closing(fs))
			break;
		g_usleep(RETRY_US);
	}
	g_mutex_lock(&fs->lock);
	if (r == 0 && job->rec.kind == MF_KIND_DIR)
		g_hash_table_remove(fs->removed, &job->rec.ino);
	if (job->dir) {
		/* On failure, or when the lease is gone, the record stays: the next who takes the lease tries again. */
		MfShard *shard = shard_with(job->dir, job->key);
		if (r == 0 && shard && !shard->gone && may_change(job->dir))
			mf_dir_set_value(job->dir, shard, job->key, NULL);
		else if (!fs->closing)
			mf_sweep_ask(fs, &fs->reaps_wait);
		mf_dir_unpin(job->dir);
	} else if (r < 0 && fs->closing) {
		fs->unreaped = r;
	}
	fs->reaping--;
	g_cond_broadcast(&fs->reap_cond);
	g_mutex_unlock(&fs->lock);
	g_free(job->key);
	g_free(job);
}

static void start(MfFs *fs, const struct mf_reap_record *rec, MfShard *shard)
{
	struct job *job = g_new0(struct job, 1);

	job->rec = *rec;
	if (shard) {
		job->dir = mf_dir_pin(shard->dir);
		job->key = mf_key_reap(rec->ino, rec->tag);
	}
	fs->reaping++;
	mf_fs_reap(fs, run, job);
}

/* mf_reaper_released() comes back to it. */
static bool is_in_use_elsewhere(MfDir *dir, uint64_t ino)
{
	bool used = mf_opened_elsewhere(dir, ino);

	if (used)
		mf_sweep_ask(dir->fs, &dir->fs->reaps_wait);
	return used;
}

/* Somebody on any node can reach its bytes. */
static bool is_in_use(MfDir *dir, const MfInode *inode, uint64_t ino)
{
	return (inode && mf_inode_is_held(inode)) || is_in_use_elsewhere(dir, ino);
}

static bool may_be_stored(const MfInode *inode)
{
	switch (inode->kind) {
	case MF_KIND_MESSAGE:
		return mf_message_may_be_stored(inode);
	case MF_KIND_FILE:
		return mf_file_may_be_stored(inode);
	case MF_KIND_DIR:
		return inode->dir && inode->dir->created;
	case MF_KIND_SUBDIR:
	case MF_KIND_SYMLINK:
		break;
	}
	return false;
}

/* Stripes that may exist: of a file more than its size says, when it was cut and not flushed since. */
static uint64_t extent_of(const MfInode *inode)
{
	return inode->kind == MF_KIND_FILE ? MAX(inode->attr.size, mf_file_extent(inode)) :
		inode->kind == MF_KIND_MESSAGE ? MAX(inode->attr.size, mf_message_extent(inode)) : 0;
}

/* Under whatever key. It may have moved to one that no commit knows, and be in RADOS under the one before: what may go without a
 * record is only what no commit has named, or names now. */
static bool may_be_named(const MfInode *inode)
{
	return !inode->unnamed || inode->naming > 0;
}

/* A split between the two must not part them. */
static void note_name(MfShard *shard, const char *key, const char *name_key)
{
	g_hash_table_insert(shard->reaped_names, g_strdup(key), g_strdup(name_key));
}

void mf_reaper_unlinked(MfShard *shard, const char *name_key, MfInode *inode, uint64_t tag, bool on_disk, bool last)
{
	MfFs *fs = shard->dir->fs;
	bool only_name = on_disk;

	if (inode->kind == MF_KIND_SYMLINK || inode->kind == MF_KIND_SUBDIR)
		return;
	/* Plain files share their bytes among the names of one directory; only the last one takes them away. */
	if (inode->kind == MF_KIND_FILE && !last)
		return;
	struct mf_reap_record rec = { inode->kind, inode->ino, tag, extent_of(inode) };
	on_disk |= may_be_named(inode) || tag != 0;
	if (!on_disk) {
		/* No commit ever named it; a crash leaves it to the sweep of unnamed numbers. While it is open it may yet
		 * be stored. */
		if (!last || (!mf_inode_is_held(inode) && !may_be_stored(inode)))
			return;
	}
	if (inode->kind == MF_KIND_DIR)
		note_removed(fs, inode->ino, shard->dir->inode->ino);
	if (on_disk) {
		g_autoptr(GByteArray) bytes = NULL;
		g_autofree char *key = mf_key_reap(inode->ino, tag);
		if (only_name)
			note_name(shard, key, name_key);
		if (mf_reap_encode(&rec, &bytes) == 0)
			mf_dir_set_value(shard->dir, shard, key, g_steal_pointer(&bytes));
	}
	if (mf_inode_is_held(inode)) {
		if (!inode->reaps)
			inode->reaps = g_array_new(false, false, sizeof(struct mf_reap));
		struct mf_reap reap = { rec, on_disk ? shard->dir->inode->ino : 0 };
		g_array_append_val(inode->reaps, reap);
	} else if (!on_disk) {
		start(fs, &rec, NULL);
	}
	/* Else: when the record is committed. */
}

void mf_reaper_inherit(MfShard *shard, const char *name_key, MfDir *child, bool on_disk)
{
	MfFs *fs = child->fs;
	bool only_name = on_disk;

	/* Or a crash would bring it back with names in it whose bytes are gone. */
	on_disk |= may_be_named(child->inode);
	for (unsigned i = 0; i < child->shards->len; i++) {
		MfShard *from = child->shards->pdata[i];
		GHashTableIter iter;
		gpointer key, value;

		g_hash_table_iter_init(&iter, from->values);
		while (g_hash_table_iter_next(&iter, &key, &value)) {
			GByteArray *bytes = value;
			struct mf_reap_record rec;

			if (!g_str_has_prefix(key, MF_KEY_REAP) || mf_reap_decode(bytes->data, bytes->len, &rec) < 0)
				continue;
			MfInode *inode = mf_inode_find(fs, rec.ino);
			bool held = inode && inode->reaps && mf_inode_is_held(inode);
			for (unsigned n = 0; held && n < inode->reaps->len; n++) {
				struct mf_reap *reap = &g_array_index(inode->reaps, struct mf_reap, n);
				if (reap->dir == child->inode->ino)
					reap->dir = on_disk ? shard->dir->inode->ino : 0;
			}
			if (on_disk) {
				if (only_name)
					note_name(shard, key, name_key);
				mf_dir_set_value(shard->dir, shard, key, g_byte_array_ref(bytes));
				mf_opened_inherit(shard->dir, child, rec.ino);
			} else if (!held) {
				start(fs, &rec, NULL);
			}
		}
	}
}

void mf_reaper_committed(MfShard *shard, const char *key)
{
	MfFs *fs = shard->dir->fs;
	GByteArray *value = g_hash_table_lookup(shard->values, key);
	struct mf_reap_record rec;

	g_hash_table_remove(shard->reaped_names, key);
	if (!value || mf_reap_decode(value->data, value->len, &rec) < 0)
		return;
	MfInode *inode = mf_inode_find(fs, rec.ino);
	if (inode && inode->reaps && mf_inode_is_held(inode))
		return; /* mf_reaper_closed() comes back to it */
	if (is_in_use_elsewhere(shard->dir, rec.ino))
		return;
	start(fs, &rec, shard);
}

void mf_reaper_closed(MfFs *fs, MfInode *inode)
{
	g_autoptr(GArray) reaps = NULL;

	if (!inode->reaps || mf_inode_is_held(inode))
		return;
	reaps = g_steal_pointer(&inode->reaps);
	for (unsigned i = 0; i < reaps->len; i++) {
		struct mf_reap *reap = &g_array_index(reaps, struct mf_reap, i);
		MfInode *dir_inode = reap->dir ? mf_inode_find(fs, reap->dir) : NULL;

		if (!reap->dir) {
			if (!may_be_stored(inode))
				continue;
			reap->rec.size = MAX(reap->rec.size, extent_of(inode)); /* written to since */
			start(fs, &reap->rec, NULL);
			continue;
		}
		/* A directory that left memory finds the record when it is loaded again. */
		if (!dir_inode || !dir_inode->dir)
			continue;
		MfDir *dir = dir_inode->dir;
		g_autofree char *key = mf_key_reap(reap->rec.ino, reap->rec.tag);
		for (unsigned s = 0; s < dir->shards->len; s++) {
			MfShard *shard = dir->shards->pdata[s];
			if (!g_hash_table_contains(shard->values, key))
				continue;
			/* Not committed yet: the end of that commit starts the job. */
			if (g_hash_table_contains(shard->dirty, key) || mf_batch_has_key(shard->batch, key))
				continue;
			reap->rec.size = MAX(reap->rec.size, extent_of(inode));
			if (!is_in_use_elsewhere(dir, reap->rec.ino))
				start(fs, &reap->rec, shard);
		}
	}
}

static bool has_reap(const MfInode *inode, const struct mf_reap_record *rec)
{
	for (unsigned i = 0; inode->reaps && i < inode->reaps->len; i++) {
		if (g_array_index(inode->reaps, struct mf_reap, i).rec.tag == rec->tag)
			return true;
	}
	return false;
}

void mf_reaper_recover(MfShard *shard, GArray *kvs)
{
	MfFs *fs = shard->dir->fs;

	for (unsigned i = 0; i < kvs->len; i++) {
		struct mf_kv *kv = &g_array_index(kvs, struct mf_kv, i);
		struct mf_reap_record rec;
		gsize len;
		const void *data = g_bytes_get_data(kv->value, &len);

		if (mf_reap_decode(data, len, &rec) < 0)
			continue;
		/* Known under a shared lease it was nobody's to work on. */
		bool known = g_hash_table_contains(shard->values, kv->key);
		if (known && (g_hash_table_contains(shard->dirty, kv->key) || mf_batch_has_key(shard->batch, kv->key)))
			continue;
		if (!known)
			g_hash_table_insert(
				shard->values, g_strdup(kv->key), g_byte_array_append(g_byte_array_new(), data, len));
		MfInode *inode = mf_inode_find(fs, rec.ino);
		if (inode && mf_inode_is_held(inode)) {
			if (has_reap(inode, &rec))
				continue;
			if (!inode->reaps)
				inode->reaps = g_array_new(false, false, sizeof(struct mf_reap));
			struct mf_reap reap = { rec, shard->dir->inode->ino };
			g_array_append_val(inode->reaps, reap);
			continue;
		}
		if (is_in_use(shard->dir, inode, rec.ino))
			continue;
		/* Who only reads may not change the list; perhaps somebody else soon does. */
		if (shard->dir->lease.mode == MF_LEASE_EXCLUSIVE)
			start(fs, &rec, shard);
		else
			mf_sweep_ask(fs, &fs->reaps_wait);
	}
}

/* Of a directory that everybody reads: with the exclusive lease comes what is to be deleted. */
static void take_exclusively(MfFs *fs, void *arg)
{
	MfInode *inode = arg;
	enum mf_space space;
	MfDir *dir;

	g_mutex_lock(&fs->lock);
	/* If it fails, the next who takes the lease does it. */
	if (!inode->removed && mf_dir_get(fs, inode, MF_LEASE_EXCLUSIVE, &dir, &space) == 0)
		mf_dir_put(dir);
	mf_inode_unpin(fs, inode);
	fs->reaping--;
	g_cond_broadcast(&fs->reap_cond);
	g_mutex_unlock(&fs->lock);
}

void mf_reaper_released(MfDir *dir, uint64_t ino)
{
	g_autofree char *prefix = mf_key_number(MF_KEY_REAP, ino);

	if (dir->lease.mode == MF_LEASE_SHARED) {
		if (mf_reaper_has(dir, ino) && !is_in_use(dir, mf_inode_find(dir->fs, ino), ino)) {
			dir->fs->reaping++;
			mf_fs_work(dir->fs, take_exclusively, mf_inode_pin(dir->inode));
		}
		return;
	}
	for (unsigned i = 0; i < dir->shards->len; i++) {
		MfShard *shard = dir->shards->pdata[i];
		GHashTableIter iter;
		gpointer key, value;

		g_hash_table_iter_init(&iter, shard->values);
		while (g_hash_table_iter_next(&iter, &key, &value)) {
			struct mf_reap_record rec;
			const GByteArray *bytes = value;
			if (!g_str_has_prefix(key, prefix) || mf_reap_decode(bytes->data, bytes->len, &rec) < 0)
				continue;
			if (g_hash_table_contains(shard->dirty, key) || mf_batch_has_key(shard->batch, key))
				continue; /* the end of its commit comes back to it */
			if (!is_in_use(dir, mf_inode_find(dir->fs, ino), ino))
				start(dir->fs, &rec, shard);
		}
	}
}

bool mf_reaper_has(const MfDir *dir, uint64_t ino)
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

void mf_reaper_ask(MfDir *dir, uint64_t ino)
{
	if (dir->lease.mode != MF_LEASE_NONE && !dir->draining && mf_reaper_has(dir, ino))
		mf_opened_ask(dir, ino);
}

/* Inodes of its to-delete list that nobody here has open. */
static GArray *waiting(MfDir *dir)
{
	GArray *inos = g_array_new(false, false, sizeof(uint64_t));
	GHashTableIter iter;
	gpointer key;

	for (unsigned i = 0; i < dir->shards->len; i++) {
		g_hash_table_iter_init(&iter, ((MfShard *)dir->shards->pdata[i])->values);
		while (g_hash_table_iter_next(&iter, &key, NULL)) {
			uint64_t ino;
			if (!mf_key_parse_number(key, MF_KEY_REAP, &ino))
				continue;
			const MfInode *inode = mf_inode_find(dir->fs, ino);
			if (!inode || !mf_inode_is_held(inode))
				g_array_append_val(inos, ino);
		}
	}
	return inos;
}

void mf_reaper_ask_all(MfFs *fs)
{
	g_autoptr(GPtrArray) dirs = g_ptr_array_new();

	fs->reaps_wait = false;
	for (GList *link = fs->dir_lru.head; link; link = link->next) {
		MfDir *dir = link->data;
		bool shared = dir->lease.mode == MF_LEASE_SHARED;
		if (shared || (dir->lease.mode == MF_LEASE_EXCLUSIVE && g_hash_table_size(dir->foreign_open) > 0))
			g_ptr_array_add(dirs, mf_dir_pin(dir));
	}
	for (unsigned i = 0; i < dirs->len; i++) {
		MfDir *dir = dirs->pdata[i];
		g_autoptr(GArray) inos = waiting(dir);
		for (unsigned n = 0; n < inos->len; n++) {
			uint64_t ino = g_array_index(inos, uint64_t, n);
			if (is_in_use_elsewhere(dir, ino))
				mf_opened_ask(dir, ino);
			else if (dir->lease.mode == MF_LEASE_SHARED)
				mf_reaper_released(dir, ino);
		}
		mf_dir_unpin(dir);
	}
}

void mf_reaper_drain(MfFs *fs)
{
	while (fs->reaping > 0)
		g_cond_wait(&fs->reap_cond, &fs->lock);
}
