/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/rejoin.h"

#include "sync/commit.h"
#include "sync/dir.h"
#include "sync/file.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/interest.h"
#include "sync/locks.h"
#include "sync/lost.h"
#include "sync/lostlock.h"
#include "sync/message.h"
#include "sync/outbox.h"
#include "sync/table.h"

#include <errno.h>

#define LOOK_US (G_USEC_PER_SEC / 2)
#define ASK_US G_USEC_PER_SEC
#define RETRY_US G_USEC_PER_SEC

static GPtrArray *all_dirs(MfFs *fs)
{
	GPtrArray *dirs = g_ptr_array_new();

	for (GList *link = fs->dir_lru.head; link; link = link->next)
		g_ptr_array_add(dirs, link->data);
	return dirs;
}

static bool is_busy(const MfDir *dir)
{
	bool busy = dir->users > 0 || dir->acquiring || dir->yielding || dir->splitting || dir->answering > 0;

	for (unsigned i = 0; i < dir->shards->len; i++) {
		const MfShard *shard = dir->shards->pdata[i];
		busy |= shard->batch || shard->busy || shard->blocked;
	}
	return busy;
}

/* Whoever waits for anything of the old life finds out. */
static void wake_all(MfFs *fs)
{
	for (GList *link = fs->dir_lru.head; link; link = link->next) {
		MfDir *dir = link->data;
		g_cond_broadcast(&dir->cond);
		for (unsigned i = 0; i < dir->shards->len; i++)
			g_cond_broadcast(&((MfShard *)dir->shards->pdata[i])->cond);
	}
	g_cond_broadcast(&fs->reap_cond);
}

/* False: it ends before. */
static bool wait_for_quiet(MfFs *fs)
{
	for (bool busy = true; busy && !fs->stopping;) {
		busy = fs->reaping > 0 || fs->sending > 0 || fs->reserving;
		for (GList *link = fs->dir_lru.head; link && !busy; link = link->next)
			busy = is_busy(link->data);
		if (!busy)
			return true;
		wake_all(fs);
		g_cond_wait_until(&fs->life_cond, &fs->lock, g_get_monotonic_time() + LOOK_US);
	}
	return false;
}

static void drop_local_names(MfFs *fs, MfDir *dir)
{
	g_autoptr(GPtrArray) dentries = mf_table_values(dir->entries);

	for (unsigned i = 0; i < dentries->len; i++) {
		MfDentry *dentry = dentries->pdata[i];
		if (!dentry->local)
			continue;
		MfInode *inode = mf_inode_pin(dentry->inode);
		mf_dir_forget_name(dentry);
		mf_inode_unpin(fs, inode);
	}
}

static void reset_dir(MfFs *fs, MfDir *dir)
{
	/* It was never committed: nobody will ever find it. One that was not read yet is another matter. */
	bool dead = dir->recovered && !dir->created;

	/* Of the life before, if that was not looked into yet: nobody knows what happened in between. */
	dir->kept_serial = dir->lease.mode != MF_LEASE_NONE && !dir->look_anew ? dir->lease.serial : 0;
	for (unsigned i = 0; i < dir->shards->len; i++) {
		MfShard *shard = dir->shards->pdata[i];
		/* What is lost is a change, too. */
		if (mf_commit_is_needed(shard))
			dir->kept_serial = 0;
		mf_commit_forget(shard);
		shard->gone = dead || dir->inode->removed;
		shard->loaded = shard->known = shard->complete = shard->stamped = shard->times_due = false;
		shard->seq_done = shard->seq_wanted = shard->seq;
		shard->failed_error = 0;
	}
	mf_lost_end(dir);
	mf_interest_clear(dir);
	drop_local_names(fs, dir);
	dir->lease = (struct mf_lease){ .mode = MF_LEASE_NONE };
	dir->passed_to = 0;
	g_array_set_size(dir->waiters, 0);
	g_array_set_size(dir->granted, 0);
	g_hash_table_remove_all(dir->noted_open);
	g_hash_table_remove_all(dir->noted_locks);
	g_hash_table_remove_all(dir->foreign_open);
	if (dead)
		dir->inode->removed = true;
}

/* What no commit has named, or whose bytes are not all in RADOS, has died with the old life. */
static void reset_inode(MfFs *fs, MfInode *inode)
{
	inode->locked = inode->xattrs_loaded = false;
	switch (inode->kind) {
	case MF_KIND_DIR:
	case MF_KIND_SUBDIR:
		inode->attr_loaded = false;
		break;
	case MF_KIND_MESSAGE:
		inode->dead |= inode->unnamed || !inode->published || mf_message_is_dirty(inode);
		break;
	case MF_KIND_FILE:
		inode->dead |= inode->unnamed;
		inode->attr_loaded = false;
		if (mf_file_is_dirty(inode))
			inode->whole_since = fs->life + 1;
		if (inode->file)
			mf_file_free(fs, inode);
		break;
	case MF_KIND_SYMLINK:
		inode->dead |= inode->unnamed;
		break;
	}
	inode->unnamed = false;
}

static void fail_locks(MfFs *fs)
{
	g_autoptr(GArray) done = mf_filelock_done_new();

	mf_locks_reset(fs, done);
	g_mutex_unlock(&fs->lock);
	if (fs->kernel)
		fs->kernel->lock_done(done, fs->kernel_arg);
	g_mutex_lock(&fs->lock);
}

static void reset(MfFs *fs)
{
	g_autoptr(GPtrArray) dirs = all_dirs(fs);
	g_autoptr(GPtrArray) inodes = mf_table_values(fs->inodes);

	for (unsigned i = 0; i < inodes->len; i++)
		mf_inode_pin(inodes->pdata[i]);
	for (unsigned i = 0; i < dirs->len; i++)
		reset_dir(fs, dirs->pdata[i]);
	for (unsigned i = 0; i < inodes->len; i++)
		reset_inode(fs, inodes->pdata[i]);
	g_hash_table_remove_all(fs->unnamed);
	g_hash_table_remove_all(fs->references);
	g_hash_table_remove_all(fs->removed);
	mf_outbox_reset(fs);
	/* Numbers carry the incarnation, so they start anew. */
	fs->next_counter = fs->reserved = fs->window_low = 0;
	fs->gains_pending = 0;
	fs->life++;
	for (unsigned i = 0; i < inodes->len; i++)
		mf_inode_unpin(fs, inodes->pdata[i]);
}

static void live_again(MfFs *fs)
{
	g_warning("this node was declared lost: what it had not committed is gone; joining anew");
	if (!wait_for_quiet(fs))
		return;
	mf_lostlock_end(fs);
	reset(fs);
	fail_locks(fs);
	while (!fs->stopping) {
		g_autofree char *error = NULL;
		g_mutex_unlock(&fs->lock);
		int r = mf_node_rejoin(fs->node, &error);
		if (r < 0)
			g_warning("cannot join anew: %s", error ? error : g_strerror(-r));
		g_mutex_lock(&fs->lock);
		if (r == 0) {
			g_message("joined anew as incarnation %u", mf_node_incarnation(fs->node));
			break;
		}
		g_cond_wait_until(&fs->life_cond, &fs->lock, g_get_monotonic_time() + RETRY_US);
	}
	fs->members_changed++;
	if (!fs->stopping && !fs->closing)
		mf_interest_rejoined(fs);
	g_cond_broadcast(&fs->sweep_cond);
	g_cond_broadcast(&fs->life_cond);
}

/* A lease is looked after by who wants it; a file lock of a dead node is in our own table. */
static void ask_blockers(MfFs *fs)
{
	g_autoptr(GArray) list = mf_locks_blockers(fs);

	if (list->len == 0)
		return;
	g_mutex_unlock(&fs->lock);
	for (unsigned i = 0; i < list->len; i++)
		mf_node_bury(fs->node, g_array_index(list, uint32_t, i), false);
	g_mutex_lock(&fs->lock);
}

void *mf_rejoin_thread(void *arg)
{
	MfFs *fs = arg;

	int64_t asked = 0;
	unsigned lost = mf_node_n_lost(fs->node), n;

	g_mutex_lock(&fs->lock);
	while (!fs->stopping) {
		/* Not by the sweeper, which may be busy for long with what an earlier one left. */
		if ((n = mf_node_n_lost(fs->node)) != lost && !fs->closing) {
			lost = n;
			mf_interest_bereaved(fs);
		}
		if (g_get_monotonic_time() - asked > ASK_US) {
			asked = g_get_monotonic_time();
			ask_blockers(fs);
		}
		if (mf_node_is_fenced(fs->node) && !fs->closing)
			live_again(fs);
		else
			g_cond_wait_until(&fs->life_cond, &fs->lock, g_get_monotonic_time() + LOOK_US);
	}
	g_mutex_unlock(&fs->lock);
	return NULL;
}

int mf_fs_await_life(MfFs *fs)
{
	int64_t deadline = g_get_monotonic_time() + fs->conf->op_timeout_ms * INT64_C(1000);

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	while (mf_node_is_fenced(fs->node)) {
		if (fs->closing || !g_cond_wait_until(&fs->life_cond, &fs->lock, deadline))
			return -ESHUTDOWN;
	}
	return 0;
}
