/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/acquire.h"

#include "locking/stamp.h"
#include "sync/commit.h"
#include "sync/dir.h"
#include "sync/dotlock.h"
#include "sync/event.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/interest.h"
#include "sync/locks.h"
#include "sync/name.h"
#include "sync/opened.h"
#include "sync/reaper.h"
#include "sync/recall.h"
#include "sync/rename.h"
#include "sync/ring.h"
#include "sync/table.h"

#include <errno.h>

#define PAGE 1000u /* what an OSD returns at once (osd_max_omap_entries_per_request allows 1024) */
#define ASK_AGAIN_US G_USEC_PER_SEC

/* Ranges of the one read that a lease is taken with. */
enum range {
	RANGE_REAP,
	RANGE_INTENT,
	RANGE_OPEN,
	RANGE_LOCKS,
	RANGE_NAMES, /* of a directory that is not in memory */
	RANGE_RING = RANGE_NAMES,
};

struct taking {
	MfRop *rop;
	struct mf_lease lease;
	GArray *busy, *waiters; /* uint32_t */
};

/* A mailbox is never shared: who looks at it is about to change it. */
static enum mf_lease_mode mode_for(MfRop *rop, enum mf_lease_mode mode)
{
	GBytes *bytes = mf_rop_get_xattr(rop, MF_XATTR_RECORD);
	struct mf_dir_record rec;

	if (mode == MF_LEASE_EXCLUSIVE || !bytes ||
		mf_dir_record_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &rec) < 0)
		return mode;
	if (rec.sub[MF_SPACE_CUR].ino && rec.sub[MF_SPACE_NEW].ino)
		mode = MF_LEASE_EXCLUSIVE;
	/* Somebody has to delete what a dead node did not come to. */
	if (mf_rop_get_range(rop, RANGE_REAP, NULL)->len > 0 && mf_rop_get_range(rop, RANGE_OPEN, NULL)->len == 0)
		mode = MF_LEASE_EXCLUSIVE;
	/* What a dead node left half renamed must be finished before anybody looks. */
	if (mf_rop_get_range(rop, RANGE_INTENT, NULL)->len > 0)
		mode = MF_LEASE_EXCLUSIVE;
	mf_dir_record_clear(&rec);
	return mode;
}

/* One look, and the lease if it is to be had. 0: it is ours, and what was read is what we hold. Without the lock. */
static int look(MfFs *fs, uint64_t ino, enum mf_lease_mode mode, struct taking *t)
{
	g_autofree char *oid = mf_oid_dir(ino, 0);
	g_autoptr(MfWop) wop = mf_wop_new();
	int r = mf_pool_read(fs->pool, MF_POOL_META, oid, t->rop);

	if (r < 0)
		return r;
	mode = mode_for(t->rop, mode);
	GBytes *lease = mf_rop_get_xattr(t->rop, MF_XATTR_LEASE);
	GBytes *last = mf_rop_get_xattr(t->rop, MF_XATTR_LAST);
	g_array_set_size(t->busy, 0);
	g_array_set_size(t->waiters, 0);
	r = last ? mf_lease_examine(fs->node, lease, mode, &t->lease, t->busy, t->waiters) : -EBADMSG;
	if (r <= 0)
		return r;
	r = mf_lease_take(fs->node, wop, lease, mode, &t->lease);
	if (r < 0)
		return r;
	/* What was read is what we hold only if nothing was committed in between. */
	mf_wop_cmpxattr(wop, MF_XATTR_LAST, MF_CMP_EQ, g_bytes_get_data(last, NULL), g_bytes_get_size(last));
	mf_wop_full_force(wop);
	r = mf_pool_write(fs->pool, MF_POOL_META, oid, wop);
	/* Lost the race, or the result is unknown: the next look shows which. */
	return r == -ECANCELED || r == -ETIMEDOUT ? -EINTR : r;
}

static void describe(MfDir *dir, MfRop *rop)
{
	const MfShard *head = dir->shards->pdata[0];

	mf_rop_xattrs(rop);
	mf_rop_omap_range(rop, "", MF_KEY_REAP, PAGE);
	mf_rop_omap_range(rop, "", MF_KEY_INTENT, PAGE);
	mf_rop_omap_range(rop, "", MF_KEY_OPEN, PAGE);
	mf_rop_omap_range(rop, "", MF_KEY_LOCKS, PAGE);
	if (dir->recovered) {
		g_autofree char *after = mf_key_number(MF_KEY_CHANGE, head->version);
		mf_rop_omap_range(rop, after, MF_KEY_CHANGE, MF_RING_CHANGES + 1);
	} else {
		mf_rop_omap_range(rop, "", "", PAGE);
	}
}

/* What lies behind the first page of a range that must be known whole. */
static int read_on(MfDir *dir, const char *prefix, GArray *first, bool more, int (*take)(MfDir *, GArray *))
{
	MfFs *fs = dir->fs;
	g_autofree char *oid = mf_oid_dir(dir->inode->ino, 0);
	g_autofree char *after = first->len > 0 ? g_strdup(g_array_index(first, struct mf_kv, first->len - 1).key) : NULL;
	int r = take(dir, first);

	while (r == 0 && more && after) {
		g_autoptr(MfRop) rop = mf_rop_new();
		mf_rop_omap_range(rop, after, prefix, PAGE);
		g_mutex_unlock(&fs->lock);
		r = mf_pool_read(fs->pool, MF_POOL_META, oid, rop);
		g_mutex_lock(&fs->lock);
		if (r < 0)
			return r;
		GArray *kvs = mf_rop_get_range(rop, 0, &more);
		if (kvs->len == 0)
			break;
		r = take(dir, kvs);
		g_free(after);
		after = g_strdup(g_array_index(kvs, struct mf_kv, kvs->len - 1).key);
	}
	return r;
}

/* What is in memory becomes what was read. */
static int take_content(MfDir *dir, struct taking *t)
{
	MfShard *head = dir->shards->pdata[0];
	bool more, resident = dir->recovered;
	GArray *kvs;

	dir->lease = t->lease;
	int r = mf_dir_take_head(dir, t->rop);
	if (r < 0)
		return r;
	if (resident && head->known) {
		r = mf_ring_catch_up(head, t->rop, RANGE_RING);
	} else if (resident) {
		/* The map of the shards has changed: the ring was asked for a version of other keys. */
		r = mf_ring_catch_up(head, t->rop, UINT_MAX);
	} else {
		r = mf_shard_take_xattrs(head, t->rop);
		kvs = mf_rop_get_range(t->rop, RANGE_NAMES, &more);
		for (unsigned i = 0; r == 0 && i < kvs->len; i++)
			r = mf_dir_attach(head, &g_array_index(kvs, struct mf_kv, i));
		head->complete = !more;
	}
	if (r < 0)
		return r;
	head->stamped = head->loaded = head->known = true;
	mf_dir_merge_record(dir, head);
	mf_interest_take(dir, t->rop);
	if (dir->lease.taken_over)
		mf_event_inherit(dir);
	mf_opened_clear(dir);
	kvs = mf_rop_get_range(t->rop, RANGE_OPEN, &more);
	r = read_on(dir, MF_KEY_OPEN, kvs, more, mf_opened_take);
	if (r == 0) {
		kvs = mf_rop_get_range(t->rop, RANGE_LOCKS, &more);
		r = read_on(dir, MF_KEY_LOCKS, kvs, more, mf_locks_take);
	}
	if (r == 0)
		mf_reaper_recover(head, mf_rop_get_range(t->rop, RANGE_REAP, NULL));
	if (r == 0 && dir->lease.mode == MF_LEASE_EXCLUSIVE)
		r = mf_rename_recover(dir, mf_rop_get_range(t->rop, RANGE_INTENT, NULL));
	return r;
}

/* Waits for those in t->busy to let go. 0: look again. */
static int wait_for_holders(
	MfDir *dir, enum mf_lease_mode mode, struct taking *t, uint64_t grants, int64_t since, int64_t deadline)
{
	MfFs *fs = dir->fs;
	int64_t until = MIN(deadline, g_get_monotonic_time() + ASK_AGAIN_US);
	bool ok = true;

	dir->suspect = 0;
	for (unsigned i = 0; i < t->busy->len; i++)
		mf_recall_send(dir, g_array_index(t->busy, uint32_t, i), mode);
	while (ok && dir->grants == grants && !dir->suspect && !mf_node_is_fenced(fs->node))
		ok = g_cond_wait_until(&dir->cond, &fs->lock, until);
	uint32_t suspect = dir->suspect;
	bool patient = g_get_monotonic_time() - since < fs->conf->recall_timeout_ms * INT64_C(1000);
	if (!suspect && !patient && t->busy->len > 0)
		suspect = g_array_index(t->busy, uint32_t, 0);
	if (suspect) {
		g_mutex_unlock(&fs->lock);
		int r = mf_node_bury(fs->node, suspect, !patient);
		g_mutex_lock(&fs->lock);
		if (r < 0 && r != -EAGAIN)
			return r;
		/* It may have taken all our time, and what we want is free now. */
		if (r == 0)
			deadline = INT64_MAX;
	}
	if (mf_node_is_fenced(fs->node))
		return -ESHUTDOWN;
	return g_get_monotonic_time() < deadline ? 0 : -ETIMEDOUT;
}

static int acquire(MfDir *dir, enum mf_lease_mode mode, int64_t deadline, struct taking *t)
{
	MfFs *fs = dir->fs;
	int64_t since = g_get_monotonic_time();
	int r;

	/* Whom we gave it to has it still, most likely. */
	uint32_t last = dir->passed_to;
	if (last && deadline != MF_ACQUIRE_GRANTED && mf_node_holder(fs->node, last) == MF_HOLDER_LIVE) {
		/* We wait in its queue already. */
		if (!dir->queued)
			g_array_append_val(t->busy, last);
		r = wait_for_holders(dir, mode, t, dir->grants, since, deadline);
		if (r < 0)
			return r;
	}
	for (;;) {
		t->rop = mf_rop_new();
		describe(dir, t->rop);
		/* A grant that comes while we look may be later than what we see. */
		uint64_t grants = dir->grants;
		g_mutex_unlock(&fs->lock);
		r = mf_node_is_fenced(fs->node) ? -ESHUTDOWN : look(fs, dir->inode->ino, mode, t);
		g_mutex_lock(&fs->lock);
		if (r == 0)
			return 0;
		g_clear_pointer(&t->rop, mf_rop_free);
		if (r == -EAGAIN && deadline != MF_ACQUIRE_GRANTED)
			r = wait_for_holders(dir, mode, t, grants, since, deadline);
		else if (r == -EINTR)
			r = g_get_monotonic_time() < deadline ? 0 : -ETIMEDOUT;
		if (r < 0)
			return r;
	}
}

/* What is open here of a directory that somebody else has removed. Messages are read on without a lease; a plain file may
 * have been moved elsewhere. */
static void orphan(MfDir *dir)
{
	g_autoptr(GPtrArray) inodes = mf_table_keys(dir->fs->held);

	for (unsigned i = 0; i < inodes->len; i++) {
		MfInode *inode = inodes->pdata[i];
		if (inode->dir != dir || !inode->published)
			continue;
		while (inode->names && inode->names->dir == dir && !inode->names->local)
			mf_dir_vanish(mf_dir_shard(dir, inode->names->key), inode->names->key);
		if (inode->stray && inode->kind == MF_KIND_MESSAGE) {
			inode->stray = false;
			inode->removed = true;
		}
	}
}

/* What is only here, in its tmp, goes with it. */
static void drop_local(MfDir *dir)
{
	g_autoptr(GPtrArray) names = mf_table_values(dir->entries);

	for (unsigned i = 0; dir->n_local > 0 && i < names->len; i++) {
		MfDentry *name = names->pdata[i];
		if (name->local)
			mf_name_drop(dir, name);
	}
}

/* When it was removed nobody can tell any more: now, for who has it open. */
static void removed(MfInode *inode)
{
	inode->removed = true;
	inode->attr.ctime = MAX(mf_fs_now(), inode->attr.ctime + 1);
}

/* Somebody else has removed it. */
static void gone(MfDir *dir)
{
	drop_local(dir);
	removed(dir->inode);
	dir->lease.mode = MF_LEASE_NONE;
	for (unsigned i = 0; i < dir->shards->len; i++)
		mf_commit_forget(dir->shards->pdata[i]);
	for (enum mf_space s = MF_SPACE_CUR; s < MF_SPACES; s++) {
		if (dir->sub[s])
			removed(dir->sub[s]);
	}
}

int mf_acquire(MfDir *dir, enum mf_lease_mode mode, int64_t deadline)
{
	MfFs *fs = dir->fs;
	struct taking t = {
		.busy = g_array_new(false, false, sizeof(uint32_t)),
		.waiters = g_array_new(false, false, sizeof(uint32_t)),
	};
	MfShard *head = dir->shards->pdata[0];

	g_assert(!dir->acquiring && !dir->draining);
	mf_dir_pin(dir);
	mf_inode_pin(dir->inode);
	dir->acquiring = true;
	dir->upgrading = dir->lease.mode == MF_LEASE_SHARED;
	/* An upgrade: those who read go on, but what they see must not change under them. */
	while (dir->users > 0)
		g_cond_wait(&dir->cond, &fs->lock);
	head->busy = true;
	int r = acquire(dir, mode, deadline, &t);
	dir->upgrading = false;
	if (r == 0) {
		r = take_content(dir, &t);
		if (r == 0) {
			dir->recovered = true;
			dir->held_since = dir->used_at = g_get_monotonic_time();
			mf_recall_queue(dir, t.waiters);
		} else {
			dir->lease.mode = MF_LEASE_NONE; /* what RADOS says we hold is found by the next recall */
			if (r == -ENOENT)
				r = -EIO;
		}
	}
	g_clear_pointer(&t.rop, mf_rop_free);
	g_array_unref(t.busy);
	g_array_unref(t.waiters);
	if (r == -ENOENT) {
		gone(dir);
		orphan(dir);
		/* Who had it last is told when they are closed. */
		if (t.busy->len > 0)
			dir->passed_to = g_array_index(t.busy, uint32_t, 0);
		r = -ESTALE;
	}
	if (r == -ESHUTDOWN)
		mf_node_fence(fs->node);
	if (r == -EBADMSG)
		r = -EIO;
	if (r == -EIO)
		g_warning("d.%016" G_GINT64_MODIFIER "x: the directory cannot be loaded", dir->inode->ino);
	head->busy = false;
	g_cond_broadcast(&head->cond);
	dir->acquiring = false;
	g_cond_broadcast(&dir->cond);
	if (r == 0) {
		mf_commit_kick(head);
		mf_dotlock_remove(dir);
		mf_recall_pending(dir);
	}
	MfInode *inode = dir->inode;
	mf_dir_unpin(dir);
	if (r == 0)
		mf_dir_shrink(fs);
	mf_inode_unpin(fs, inode);
	return r;
}
