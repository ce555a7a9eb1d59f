/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/commit.h"

#include "sync/dir.h"
#include "sync/event.h"
#include "sync/file.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/lost.h"
#include "sync/message.h"
#include "sync/opened.h"
#include "sync/reaper.h"
#include "sync/recall.h"
#include "sync/ring.h"
#include "sync/table.h"
#include "sync/split.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define FULL_INTERVAL_US (100 * 1000)
#define RETRY_US G_USEC_PER_SEC /* between two tries of a batch whose result is unknown */

struct mf_batch {
	MfShard *shard;
	MfWop *wop; /* NULL: only bytes to flush */
	char last[MF_LAST_MAX];
	uint64_t version;
	uint64_t seq;
	GHashTable *keys;  /* key -> on_disk before | BATCH_SETS */
	GPtrArray *inodes; /* pinned: their bytes go first */
	GPtrArray *files;  /* pinned: files with bytes to flush whose names do not change */
	GPtrArray *named;  /* pinned: have a name in RADOS once this is done */
	GPtrArray *reaps;  /* keys x/... set by this batch */
	GPtrArray *events; /* struct mf_event, for others; NULL: nobody is interested */
	GHashTable *were;  /* of the shard, for these */
	bool record, times, creates;
	bool passes; /* the lease goes with it */
	uint64_t ring_low; /* before it */
	int64_t give_up;
};

#define BATCH_SETS 16u

bool mf_batch_has_key(const struct mf_batch *batch, const char *key)
{
	return batch && g_hash_table_contains(batch->keys, key);
}

bool mf_batch_key_state(const struct mf_batch *batch, const char *key, bool *ret_sets)
{
	gpointer value;

	if (!batch || !g_hash_table_lookup_extended(batch->keys, key, NULL, &value))
		return false;
	*ret_sets = GPOINTER_TO_UINT(value) & BATCH_SETS;
	return true;
}

static void batch_free(MfFs *fs, struct mf_batch *batch)
{
	mf_wop_unref(batch->wop);
	g_hash_table_unref(batch->keys);
	for (unsigned i = 0; i < batch->inodes->len; i++)
		mf_inode_unpin(fs, batch->inodes->pdata[i]);
	for (unsigned i = 0; i < batch->files->len; i++)
		mf_inode_unpin(fs, batch->files->pdata[i]);
	for (unsigned i = 0; i < batch->named->len; i++) {
		MfInode *inode = batch->named->pdata[i];
		inode->naming--;
		mf_inode_unpin(fs, inode);
	}
	g_ptr_array_unref(batch->files);
	g_ptr_array_unref(batch->inodes);
	g_ptr_array_unref(batch->named);
	g_ptr_array_unref(batch->reaps);
	g_clear_pointer(&batch->events, g_ptr_array_unref);
	g_clear_pointer(&batch->were, g_hash_table_unref);
	g_free(batch);
}

static bool has_changes(const MfShard *shard)
{
	return g_hash_table_size(shard->dirty) > 0 || g_hash_table_size(shard->dirty_files) > 0 || shard->dirty_record;
}

bool mf_commit_is_needed(const MfShard *shard)
{
	return !shard->gone && (shard->batch || has_changes(shard) || shard->dirty_times);
}

/* ---- queue of shards that are due some time ---- */

void mf_commit_queue(MfShard *shard)
{
	MfFs *fs = shard->dir->fs;

	if (shard->queued || shard->gone)
		return;
	if (!has_changes(shard) && !shard->dirty_times)
		return;
	shard->queued = true;
	shard->dirty_since = g_get_monotonic_time();
	g_queue_push_tail(&fs->dirty_shards, shard);
	if (fs->dirty_shards.length == 1)
		g_cond_signal(&fs->flusher_cond);
}

static void unqueue(MfShard *shard)
{
	if (!shard->queued)
		return;
	shard->queued = false;
	g_queue_remove(&shard->dir->fs->dirty_shards, shard);
}

void mf_commit_forget(MfShard *shard)
{
	MfFs *fs = shard->dir->fs;
	GHashTableIter iter;
	gpointer key;

	shard->gone = true;
	unqueue(shard);
	g_hash_table_remove_all(shard->dirty);
	g_hash_table_remove_all(shard->values);
	g_clear_pointer(&shard->were, g_hash_table_unref);
	g_cond_broadcast(&shard->cond);
	shard->dirty_record = shard->dirty_times = false;
	g_hash_table_iter_init(&iter, shard->dirty_files);
	while (g_hash_table_iter_next(&iter, &key, NULL)) {
		g_hash_table_iter_steal(&iter);
		mf_inode_unpin(fs, key);
	}
}

/* ---- freezing ---- */

static int encode_dirent(const MfDentry *dentry, GByteArray **ret)
{
	const MfInode *inode = dentry->inode;
	struct mf_dirent_record rec = {
		.kind = inode->kind,
		.ino = inode->ino,
		.tag = dentry->tag,
		.attr = inode->attr,
		.target = inode->target,
	};

	if (inode->linked)
		rec.flags |= MF_DIRENT_LINKED;
	if (inode->unsealed)
		rec.flags |= MF_DIRENT_UNSEALED;
	return mf_dirent_encode(&rec, ret);
}

/* What the bytes of this name need before it may be committed. */
static void add_prerequisite(struct mf_batch *batch, MfInode *inode)
{
	bool needed = false;

	switch (inode->kind) {
	case MF_KIND_MESSAGE:
		needed = mf_message_is_dirty(inode);
		break;
	case MF_KIND_FILE:
		needed = mf_file_is_dirty(inode);
		break;
	case MF_KIND_DIR:
		needed = inode->dir && !inode->dir->created;
		break;
	case MF_KIND_SUBDIR:
	case MF_KIND_SYMLINK:
		break;
	}
	if (needed)
		g_ptr_array_add(batch->inodes, mf_inode_pin(inode));
	if (inode->unnamed || (inode->kind == MF_KIND_MESSAGE && inode->message)) {
		g_ptr_array_add(batch->named, mf_inode_pin(inode));
		inode->naming++;
	}
}

static int freeze_key(struct mf_batch *batch, const char *key, enum mf_on_disk on_disk)
{
	MfShard *shard = batch->shard;
	g_autoptr(GByteArray) bytes = NULL;
	MfDentry *dentry = mf_dir_peek(shard->dir, key);
	unsigned state = on_disk;

	if (dentry && !dentry->local) {
		int r = encode_dirent(dentry, &bytes);
		if (r < 0)
			return r;
		add_prerequisite(batch, dentry->inode);
	} else {
		GByteArray *value = g_hash_table_lookup(shard->values, key);
		if (value) {
			bytes = g_byte_array_ref(value);
			if (g_str_has_prefix(key, MF_KEY_REAP))
				g_ptr_array_add(batch->reaps, g_strdup(key));
		}
	}
	if (bytes) {
		mf_wop_omap_set(batch->wop, key, bytes->data, bytes->len);
		state |= BATCH_SETS;
	} else if (on_disk == MF_ON_DISK_YES) {
		mf_wop_omap_rm(batch->wop, key);
	} else {
		return 0;
	}
	g_hash_table_insert(batch->keys, g_strdup(key), GUINT_TO_POINTER(state));
	return 0;
}

static int add_dir_record(MfShard *head, MfWop *wop)
{
	MfDir *dir = head->dir;
	g_autoptr(GByteArray) bytes = NULL;
	g_autoptr(GArray) shards = g_array_new(false, false, sizeof(struct mf_shard_ref));
	struct mf_dir_record rec = {
		.attr = dir->inode->attr,
		.parent = dir->parent,
		.next_shard = dir->next_shard,
		.shards = shards,
	};

	memcpy(rec.mtime_gen, dir->mtime_gen, sizeof(rec.mtime_gen));
	for (enum mf_space s = MF_SPACE_CUR; s < MF_SPACES; s++) {
		if (!dir->sub[s])
			continue;
		rec.sub[s].ino = dir->sub[s]->ino;
		rec.sub[s].attr = dir->sub[s]->attr;
	}
	for (unsigned i = 0; i < dir->shards->len; i++)
		g_array_append_val(shards, ((MfShard *)dir->shards->pdata[i])->ref);
	int r = mf_dir_record_encode(&rec, &bytes);
	if (r == 0)
		mf_wop_setxattr(wop, MF_XATTR_RECORD, bytes->data, bytes->len);
	return r;
}

static int add_ring(struct mf_batch *batch)
{
	MfShard *shard = batch->shard;
	g_autoptr(GPtrArray) keys = NULL;
	g_autoptr(GByteArray) bytes = NULL;
	g_autofree char *key = mf_key_number(MF_KEY_CHANGE, batch->version);

	if (g_hash_table_size(batch->keys) <= MF_RING_KEYS)
		keys = mf_table_keys(batch->keys);
	int r = mf_change_encode(keys, &bytes);
	if (r < 0)
		return r;
	mf_wop_omap_set(batch->wop, key, bytes->data, bytes->len);
	if (shard->rec.ring_low == 0)
		shard->rec.ring_low = batch->version;
	if (batch->version - shard->rec.ring_low >= MF_RING_CHANGES) {
		g_autofree char *oldest = mf_key_number(MF_KEY_CHANGE, shard->rec.ring_low);
		mf_wop_omap_rm(batch->wop, oldest);
		shard->rec.ring_low++;
	}
	return 0;
}

static int add_shard_record(MfShard *shard, MfWop *wop)
{
	g_autoptr(GByteArray) bytes = NULL;
	int r = mf_shard_record_encode(&shard->rec, &bytes);

	if (r == 0)
		mf_wop_setxattr(wop, MF_XATTR_SHARD, bytes->data, bytes->len);
	return r;
}

/* Unique for every batch there ever is, so that `last' says for sure whose it was. */
static void make_last(MfShard *shard, uint64_t version, char last[MF_LAST_MAX])
{
	MfFs *fs = shard->dir->fs;

	g_snprintf(last, MF_LAST_MAX, "%016" PRIx64 ".%08x.%016" PRIx64, version, mf_node_incarnation(fs->node),
		++fs->commit_seq);
}

int mf_commit_new_object(MfShard *shard, MfWop *wop, char last[MF_LAST_MAX])
{
	MfDir *dir = shard->dir;

	mf_wop_create(wop);
	make_last(shard, shard->version + 1, last);
	mf_wop_setxattr(wop, MF_XATTR_LAST, last, strlen(last));
	if (shard == dir->shards->pdata[0]) {
		struct mf_lease lease;
		return mf_lease_take(dir->fs->node, wop, NULL, MF_LEASE_EXCLUSIVE, &lease);
	}
	char epoch[MF_EPOCH_TEXT];
	mf_lease_epoch_text(dir->lease.epoch, epoch);
	mf_wop_setxattr(wop, MF_XATTR_EPOCH, epoch, MF_EPOCH_TEXT - 1);
	return 0;
}

/* Guards first: an OSD stops at the first step that fails. */
static int add_guards(struct mf_batch *batch)
{
	MfShard *shard = batch->shard;

	if (batch->creates)
		return mf_commit_new_object(shard, batch->wop, batch->last);
	mf_lease_guard(batch->wop, &shard->dir->lease, !shard->stamped);
	mf_wop_cmpxattr(batch->wop, MF_XATTR_LAST, MF_CMP_EQ, shard->last, strlen(shard->last));
	make_last(shard, batch->version, batch->last);
	mf_wop_setxattr(batch->wop, MF_XATTR_LAST, batch->last, strlen(batch->last));
	return 0;
}

static struct mf_batch *batch_new(MfShard *shard)
{
	struct mf_batch *batch = g_new0(struct mf_batch, 1);

	batch->shard = shard;
	batch->wop = mf_wop_new();
	batch->version = shard->version + 1;
	batch->seq = shard->seq;
	batch->keys = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	batch->inodes = g_ptr_array_new();
	batch->files = g_ptr_array_new();
	batch->named = g_ptr_array_new();
	batch->reaps = g_ptr_array_new_with_free_func(g_free);
	return batch;
}

static bool others_are_clean(const MfShard *head)
{
	for (unsigned i = 1; i < head->dir->shards->len; i++) {
		if (mf_commit_is_needed(head->dir->shards->pdata[i]))
			return false;
	}
	return true;
}

/* Takes all changes of the shard as they are now. */
static int freeze(MfShard *shard, struct mf_batch **ret_batch)
{
	MfDir *dir = shard->dir;
	bool is_head = shard == dir->shards->pdata[0];
	struct mf_batch *batch = batch_new(shard);
	g_autoptr(GHashTable) dirty = g_steal_pointer(&shard->dirty);
	GHashTableIter iter;
	gpointer key, value;
	bool removes = false;
	int r = 0;

	shard->dirty = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	batch->record = shard->dirty_record;
	batch->times = shard->dirty_times;
	batch->ring_low = shard->rec.ring_low;
	batch->creates = is_head && !dir->created;
	r = add_guards(batch);
	g_hash_table_iter_init(&iter, dirty);
	while (r == 0 && g_hash_table_iter_next(&iter, &key, &value)) {
		r = freeze_key(batch, key, GPOINTER_TO_UINT(value));
		/* A gain takes no space that its loss does not give back. */
		removes |= (GPOINTER_TO_UINT(value) == MF_ON_DISK_YES && !mf_dir_peek(dir, key)) ||
			   g_str_has_prefix(key, MF_KEY_GAIN);
	}
	if (r == 0 && is_head && (batch->record || batch->creates))
		r = add_dir_record(shard, batch->wop);
	/* Nothing but flushed bytes: no operation on the index. */
	bool index = g_hash_table_size(batch->keys) > 0 || batch->record || batch->creates ||
		     (shard->dirty_times && g_hash_table_size(shard->dirty_files) == 0);
	if (r == 0 && index && g_hash_table_size(batch->keys) > 0)
		r = add_ring(batch);
	if (r == 0 && index)
		r = add_shard_record(shard, batch->wop);
	if (r == 0 && index && is_head && dir->passing && !batch->creates && others_are_clean(shard)) {
		r = mf_recall_add_pass(dir, batch->wop);
		batch->passes = r == 0;
	}
	if (r < 0) {
		g_hash_table_unref(shard->dirty);
		shard->dirty = g_steal_pointer(&dirty);
		batch_free(dir->fs, batch);
		return r;
	}
	batch->events = mf_event_freeze(shard, dirty, &batch->were);
	if (index) {
		shard->dirty_record = shard->dirty_times = shard->times_due = false;
		/* What frees space must get through when the pool is full, and what the end of a rename or a split needs. */
		if (removes || batch->record || dir->fs->closing || dir->draining)
			mf_wop_full_force(batch->wop);
	} else {
		mf_wop_unref(g_steal_pointer(&batch->wop));
	}
	g_hash_table_iter_init(&iter, shard->dirty_files);
	while (g_hash_table_iter_next(&iter, &key, NULL)) {
		g_hash_table_iter_steal(&iter);
		g_ptr_array_add(batch->files, key); /* with its pin */
	}
	*ret_batch = batch;
	return 0;
}

/* ---- the end of a batch ---- */

static void fail(MfShard *shard, uint64_t seq, int error)
{
	shard->failures++;
	shard->failed_seq = seq;
	shard->failed_error = error;
}

/* It surely did not happen: its keys are changes again. */
static void melt(struct mf_batch *batch)
{
	MfShard *shard = batch->shard;
	GHashTableIter iter;
	gpointer key, value;

	g_hash_table_iter_init(&iter, batch->keys);
	while (g_hash_table_iter_next(&iter, &key, &value)) {
		enum mf_on_disk before = GPOINTER_TO_UINT(value) & ~BATCH_SETS;
		g_hash_table_replace(shard->dirty, g_strdup(key), GUINT_TO_POINTER(before));
	}
	mf_event_melt(shard, batch->were);
	shard->dirty_record |= batch->record;
	shard->dirty_times |= batch->times;
	shard->rec.ring_low = batch->ring_low;
	for (unsigned i = 0; i < batch->files->len; i++) {
		MfInode *inode = batch->files->pdata[i];
		if ((inode->names || mf_opened_elsewhere(inode->dir, inode->ino)) && mf_file_is_dirty(inode) &&
			g_hash_table_add(shard->dirty_files, inode))
			mf_inode_pin(inode);
	}
}

static void note_clean(MfDir *dir)
{
	for (unsigned i = 0; i < dir->shards->len; i++) {
		const MfShard *shard = dir->shards->pdata[i];
		if (shard->batch || has_changes(shard))
			return;
	}
	mf_lost_clear(dir);
}

/* The batch is done with: @result 0 committed, else it surely was not. -ERESTART: not tried, for it is out of date. */
static void finish(struct mf_batch *batch, int result)
{
	MfShard *shard = batch->shard;
	MfDir *dir = shard->dir;
	MfFs *fs = dir->fs;

	mf_fs_note(fs, result);
	shard->batch = NULL;
	if (result == 0) {
		if (batch->wop) {
			g_strlcpy(shard->last, batch->last, sizeof(shard->last));
			shard->version = batch->version;
			shard->stamped = true;
			if (batch->creates)
				dir->created = true;
			dir->passed |= batch->passes;
			if (batch->events)
				mf_event_tell(dir, batch->events, shard == dir->shards->pdata[0] ? batch->version : 0);
		}
		shard->seq_done = batch->seq;
		shard->failed_error = 0;
		for (unsigned i = 0; i < batch->named->len; i++) {
			MfInode *inode = batch->named->pdata[i];
			if (inode->unnamed)
				mf_inode_named(fs, inode);
			/* Published and stored: its buffers become cache. */
			if (inode->kind == MF_KIND_MESSAGE && inode->writers == 0 && !inode->unsealed &&
				!mf_message_is_dirty(inode))
				mf_message_seal(fs, inode);
		}
		for (unsigned i = 0; i < batch->reaps->len; i++)
			mf_reaper_committed(shard, batch->reaps->pdata[i]);
		note_clean(dir);
	} else {
		melt(batch);
		if (result != -ERESTART)
			fail(shard, batch->seq, result);
	}
	if (has_changes(shard))
		mf_commit_queue(shard);
	g_cond_broadcast(&shard->cond);
	mf_dir_pin(dir);
	batch_free(fs, batch);
	if (result == 0) {
		mf_split_if_large(shard);
		mf_commit_kick(shard);
	} else if (result == -ERESTART) {
		mf_commit_start(shard);
	}
	mf_dir_unpin(dir);
}

static void submit(struct mf_batch *batch);

/* The guard failed or the answer was lost: `last' tells. Blocking. */
static void resolve(MfFs *fs, void *arg)
{
	struct mf_batch *batch = arg;
	MfShard *shard = batch->shard;
	g_autofree char *oid = mf_oid_dir(shard->dir->inode->ino, shard->ref.id);
	g_autoptr(MfRop) rop = mf_rop_new();

	mf_rop_xattrs(rop);
	int r = mf_pool_read(fs->pool, MF_POOL_META, oid, rop);
	GBytes *last = r == 0 ? mf_rop_get_xattr(rop, MF_XATTR_LAST) : NULL;
	bool ours = last && g_bytes_get_size(last) == strlen(batch->last) &&
		    memcmp(g_bytes_get_data(last, NULL), batch->last, strlen(batch->last)) == 0;
	bool before = (r == -ENOENT && batch->creates) ||
		      (!batch->creates && last && g_bytes_get_size(last) == strlen(shard->last) &&
			      memcmp(g_bytes_get_data(last, NULL), shard->last, strlen(shard->last)) == 0);

	/* A guard on the epoch may have failed while `last' is still what we know. */
	char epoch[MF_EPOCH_TEXT];
	mf_lease_epoch_text(shard->dir->lease.epoch, epoch);
	GBytes *stored = r == 0 ? mf_rop_get_xattr(rop, MF_XATTR_EPOCH) : NULL;
	bool replaced = stored && g_bytes_get_size(stored) == MF_EPOCH_TEXT - 1 &&
			memcmp(g_bytes_get_data(stored, NULL), epoch, MF_EPOCH_TEXT - 1) > 0;

	g_mutex_lock(&fs->lock);
	if (ours) {
		finish(batch, 0);
	} else if ((r < 0 && r != -ENOENT && r != -ESHUTDOWN) || (before && !replaced)) {
		/* Waiters have their own deadline; the batch stays as it is, for it may still arrive. */
		fail(shard, batch->seq, -ETIMEDOUT);
		g_cond_broadcast(&shard->cond);
		if (fs->stopping && g_get_monotonic_time() > batch->give_up) {
			finish(batch, -ETIMEDOUT);
		} else {
			if (before) {
				submit(batch);
			} else {
				g_mutex_unlock(&fs->lock);
				g_usleep(RETRY_US);
				g_mutex_lock(&fs->lock);
				mf_fs_work(fs, resolve, batch);
			}
		}
	} else if (r == -ESHUTDOWN || r == 0) {
		/* Somebody else committed, so somebody else holds the lease. */
		g_critical("%s: another node has taken over (last is '%.*s', not '%s'): this mount is fenced", oid,
			last ? (int)g_bytes_get_size(last) : 1, last ? (const char *)g_bytes_get_data(last, NULL) : "?",
			shard->last);
		mf_node_fence(fs->node);
		finish(batch, -EIO);
	} else {
		finish(batch, r == -ENOENT ? -EIO : r);
	}
	g_mutex_unlock(&fs->lock);
}

static void submitted(int result, void *arg)
{
	struct mf_batch *batch = arg;
	MfFs *fs = batch->shard->dir->fs;

	g_mutex_lock(&fs->lock);
	switch (result) {
	case -ECANCELED:
	case -EEXIST:
	case -ENOENT:
	case -ETIMEDOUT:
		mf_fs_work(fs, resolve, batch);
		break;
	case -ESHUTDOWN:
		g_critical("this node is blocklisted by the cluster: this mount is fenced");
		mf_node_fence(fs->node);
		finish(batch, -EIO);
		break;
	default:
		finish(batch, result);
		break;
	}
	g_mutex_unlock(&fs->lock);
}

static void submit(struct mf_batch *batch)
{
	MfShard *shard = batch->shard;
	MfFs *fs = shard->dir->fs;
	g_autofree char *oid = mf_oid_dir(shard->dir->inode->ino, shard->ref.id);

	/* The callback may come before this returns, and it takes the lock. */
	g_mutex_unlock(&fs->lock);
	mf_pool_write_async(fs->pool, MF_POOL_META, oid, batch->wop, submitted, batch);
	g_mutex_lock(&fs->lock);
}

static void submit_or_finish(struct mf_batch *batch)
{
	if (batch->wop)
		submit(batch);
	else
		finish(batch, 0);
}

/* Bytes before names, children before their entry. Blocking. */
static void flush_prerequisites(MfFs *fs, void *arg)
{
	struct mf_batch *batch = arg;
	int r = 0;

	g_mutex_lock(&fs->lock);
	/* New directories side by side. */
	for (unsigned i = 0; i < batch->inodes->len; i++) {
		MfInode *inode = batch->inodes->pdata[i];
		if (inode->kind == MF_KIND_DIR && inode->dir && !inode->dir->created)
			mf_commit_start(inode->dir->shards->pdata[0]);
	}
	for (unsigned i = 0; i < batch->inodes->len && r == 0; i++) {
		MfInode *inode = batch->inodes->pdata[i];
		switch (inode->kind) {
		case MF_KIND_MESSAGE:
			r = mf_message_flush(fs, inode);
			break;
		case MF_KIND_FILE:
			r = mf_file_flush(fs, inode);
			break;
		case MF_KIND_DIR:
			if (inode->dir && !inode->dir->created)
				r = mf_commit_wait(inode->dir->shards->pdata[0]);
			/* Removed since we froze, so it will never be. After a crash its name would be there, and lead
			 * nowhere. */
			if (r == 0 && inode->dir && !inode->dir->created && !inode->names)
				r = -ERESTART;
			break;
		case MF_KIND_SUBDIR:
		case MF_KIND_SYMLINK:
			break;
		}
	}
	for (unsigned i = 0; i < batch->files->len && r == 0; i++) {
		MfInode *inode = batch->files->pdata[i];
		if (inode->removed && !mf_opened_elsewhere(inode->dir, inode->ino)) /* perhaps its objects are, too */
			continue;
		/* No name depends on it: it must not hold up the names, and is tried again. */
		int rr = mf_file_flush(fs, inode);
		if (rr < 0 && (fs->closing || batch->shard->dir->draining))
			r = rr; /* there is no later */
		else if (rr < 0 && inode->names)
			mf_dir_dirty_file(inode);
	}
	if (r < 0)
		finish(batch, r);
	else
		submit_or_finish(batch);
	g_mutex_unlock(&fs->lock);
}

void mf_commit_start(MfShard *shard)
{
	MfFs *fs = shard->dir->fs;
	struct mf_batch *batch;

	if (shard->batch || shard->busy || shard->claims > 0 || shard->blocked || shard->gone || shard->dir->passed)
		return;
	if (!has_changes(shard) && !shard->dirty_times) {
		shard->seq_done = shard->seq;
		g_cond_broadcast(&shard->cond);
		return;
	}
	unqueue(shard);
	int r = mf_node_is_fenced(fs->node) ? -EIO : freeze(shard, &batch);
	if (r < 0) {
		fail(shard, shard->seq, r);
		g_cond_broadcast(&shard->cond);
		return;
	}
	batch->give_up = g_get_monotonic_time() + fs->conf->op_timeout_ms * INT64_C(1000);
	shard->batch = batch;
	if (batch->inodes->len > 0 || batch->files->len > 0)
		mf_fs_work(fs, flush_prerequisites, batch);
	else
		submit_or_finish(batch);
}

void mf_commit_kick(MfShard *shard)
{
	if (shard->seq_wanted > shard->seq_done || (shard->dir->fs->stopping && has_changes(shard)))
		mf_commit_start(shard);
}

/* ---- waiting ---- */

int mf_commit_wait(MfShard *shard)
{
	MfDir *dir = shard->dir;
	MfFs *fs = dir->fs;
	uint64_t seq = shard->seq;
	unsigned failures = shard->failures;
	int64_t deadline = g_get_monotonic_time() + fs->conf->op_timeout_ms * INT64_C(1000);
	int r = 0;

	mf_dir_pin(dir);
	shard->seq_wanted = MAX(shard->seq_wanted, seq);
	mf_commit_start(shard);
	/* With the lease went all that there was. */
	while (shard->seq_done < seq && !shard->gone && !dir->passed) {
		if (shard->failures != failures && shard->failed_seq >= seq && shard->failed_error != -ETIMEDOUT) {
			r = shard->failed_error;
			break;
		}
		if (!g_cond_wait_until(&shard->cond, &fs->lock, deadline)) {
			r = -ETIMEDOUT;
			break;
		}
		if (mf_node_is_fenced(fs->node) && !shard->batch) {
			r = -EIO;
			break;
		}
		if (!shard->batch)
			mf_commit_start(shard);
	}
	if (shard->gone && r == 0 && shard->seq_done < seq)
		r = 0; /* nothing is left to be made durable */
	mf_dir_unpin(dir);
	return r;
}

int mf_commit_wait_key(MfDir *dir, const char *key)
{
	for (;;) {
		MfShard *shard = mf_dir_shard(dir, key);

		if (!g_hash_table_contains(shard->dirty, key) && !mf_batch_has_key(shard->batch, key))
			return 0;
		int r = mf_commit_wait(shard);
		/* A split may have taken the key to another shard meanwhile. */
		if (r < 0 || mf_dir_shard(dir, key) == shard)
			return r;
	}
}

int mf_commit_ancestors(MfDir *dir)
{
	MfFs *fs = dir->fs;
	MfInode *inode = mf_inode_pin(dir->inode);
	int r = 0;

	while (r == 0 && inode->ino != MF_ROOT_INO && inode->names) {
		MfDir *parent = inode->names->dir;
		MfInode *next = mf_inode_pin(parent->inode);

		mf_dir_pin(parent);
		r = mf_commit_wait_key(parent, inode->names->key);
		mf_dir_unpin(parent);
		mf_inode_unpin(fs, inode);
		inode = next;
	}
	mf_inode_unpin(fs, inode);
	return r;
}

int mf_commit_dir(MfDir *dir)
{
	int r = 0;

	mf_dir_pin(dir);
	for (unsigned i = 0; i < dir->shards->len && r == 0; i++) {
		MfShard *shard = dir->shards->pdata[i];
		/* Times alone are no change that somebody could miss. */
		if (shard->batch || has_changes(shard))
			r = mf_commit_wait(shard);
	}
	if (r == 0)
		r = mf_commit_ancestors(dir);
	mf_dir_unpin(dir);
	return r;
}

int mf_commit_all(MfFs *fs)
{
	int r = 0;

	for (;;) {
		g_autoptr(GPtrArray) dirs = g_ptr_array_new();
		unsigned n = 0;

		for (GList *link = fs->dir_lru.head; link; link = link->next) {
			MfDir *dir = link->data;
			mf_dir_pin(dir);
			g_ptr_array_add(dirs, dir);
		}
		for (unsigned i = 0; i < dirs->len; i++) {
			MfDir *dir = dirs->pdata[i];
			/* Its lease went with a commit, which who hands it over has yet to see. */
			while (dir->passed)
				g_cond_wait(&dir->cond, &fs->lock);
			for (unsigned j = 0; j < dir->shards->len; j++) {
				MfShard *shard = dir->shards->pdata[j];
				if (shard->gone || dir->inode->removed)
					continue;
				if (shard->batch || has_changes(shard) || shard->dirty_times) {
					shard->seq++; /* times are no change of their own */
					int rr = r == 0 ? mf_commit_wait(shard) : r;
					r = r < 0 ? r : rr;
					n++;
				}
			}
			mf_dir_unpin(dir);
		}
		/* A commit may leave work for another one: to-delete entries, intents. */
		if (n == 0 || r < 0)
			return r;
	}
}

void *mf_commit_flusher(void *arg)
{
	MfFs *fs = arg;

	g_mutex_lock(&fs->lock);
	while (!fs->stopping) {
		MfShard *shard = g_queue_peek_head(&fs->dirty_shards);
		int64_t interval = fs->conf->commit_interval_ms * INT64_C(1000);
		/* When the pool is full, what frees space should not wait. */
		if (g_atomic_int_get(&fs->full))
			interval = MIN(interval, FULL_INTERVAL_US);

		if (!shard) {
			g_cond_wait(&fs->flusher_cond, &fs->lock);
			continue;
		}
		int64_t due = shard->dirty_since + MAX(interval, shard->failed_error ? RETRY_US : 0);
		if (g_get_monotonic_time() < due) {
			g_cond_wait_until(&fs->flusher_cond, &fs->lock, due);
			continue;
		}
		unqueue(shard);
		/* Times alone wait for company, or for the directory to leave memory. */
		if (has_changes(shard) || shard->times_due) {
			if (shard->batch || shard->busy || shard->claims > 0 || shard->blocked)
				shard->seq_wanted = shard->seq; /* goes on when that is over */
			else
				mf_commit_start(shard);
		}
	}
	g_mutex_unlock(&fs->lock);
	return NULL;
}
