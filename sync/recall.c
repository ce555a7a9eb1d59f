/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/recall.h"

#include "store/notice.h"
#include "sync/acquire.h"
#include "sync/commit.h"
#include "sync/dir.h"
#include "sync/event.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/interest.h"
#include "sync/kernel.h"
#include "sync/locks.h"
#include "sync/opened.h"
#include "sync/reaper.h"
#include "sync/sweep.h"

#include <errno.h>

/* A node that is busy in a directory keeps its lease for several times what a hand-over costs, or two that both are would
 * do little else than hand it over. No operation for a part of that: not busy. */
#define HOLD_COSTS 4
#define HOLD_MIN_US 1000
#define HOLD_MAX_US 20000
#define IDLE_COSTS 4 /* a fourth */
#define IDLE_MIN_US 100
#define IDLE_MAX_US 2000
#define RETRY_US G_USEC_PER_SEC

/* ---- notices ---- */

struct sending {
	MfFs *fs;
	uint64_t ino;
	uint32_t to;
	bool recall;
};

static void sent(int result, unsigned alive, unsigned silent, void *arg)
{
	struct sending *sending = arg;
	MfFs *fs = sending->fs;

	g_mutex_lock(&fs->lock);
	MfInode *inode = sending->recall ? mf_inode_find(fs, sending->ino) : NULL;
	/* Nobody took it, so perhaps nobody is there; who waits looks into it. */
	if (inode && inode->kind == MF_KIND_DIR && inode->dir && inode->dir->acquiring &&
		(result == -ENOENT || (result == 0 && alive == 0))) {
		inode->dir->suspect = sending->to;
		g_cond_broadcast(&inode->dir->cond);
	}
	fs->sending--;
	g_cond_broadcast(&fs->sent_cond);
	g_mutex_unlock(&fs->lock);
	g_free(sending);
}

static void notify(MfFs *fs, uint32_t to, const struct mf_notice *notice)
{
	g_autoptr(GByteArray) bytes = mf_notice_encode(notice);
	struct sending *sending = g_new(struct sending, 1);

	*sending = (struct sending){ fs, notice->ino, to, notice->kind == MF_NOTICE_RECALL };
	fs->sending++;
	/* The answer may come before this returns, and it takes the lock. */
	g_mutex_unlock(&fs->lock);
	mf_node_send(fs->node, to, bytes->data, bytes->len, sent, sending);
	g_mutex_lock(&fs->lock);
}

void mf_recall_send(MfDir *dir, uint32_t holder, enum mf_lease_mode mode)
{
	MfFs *fs = dir->fs;

	notify(fs, holder,
		&(struct mf_notice){
			.kind = MF_NOTICE_RECALL,
			.mode = mode,
			.from = mf_node_incarnation(fs->node),
			.ino = dir->inode->ino,
		});
}

void mf_notice_send(MfFs *fs, uint32_t to, enum mf_notice_kind kind, uint64_t ino, uint64_t arg)
{
	notify(fs, to, &(struct mf_notice){ .kind = kind, .from = mf_node_incarnation(fs->node), .ino = ino, .arg = arg });
}

/* ---- who waits ---- */

/* Each node once, where it came first. */
static void add_waiter(MfDir *dir, uint32_t incarnation, enum mf_lease_mode mode)
{
	if (incarnation == mf_node_incarnation(dir->fs->node))
		return;
	for (unsigned i = 0; i < dir->waiters->len; i++) {
		struct mf_waiter *waiter = &g_array_index(dir->waiters, struct mf_waiter, i);
		if (waiter->incarnation == incarnation) {
			waiter->mode = MAX(waiter->mode, mode);
			return;
		}
	}
	struct mf_waiter waiter = { incarnation, mode };
	g_array_append_val(dir->waiters, waiter);
}

void mf_recall_queue(MfDir *dir, const GArray *waiters)
{
	g_autoptr(GArray) asked = g_array_copy(dir->waiters);

	g_array_set_size(dir->waiters, 0);
	for (unsigned i = 0; i < waiters->len; i++)
		add_waiter(dir, g_array_index(waiters, uint32_t, i), MF_LEASE_EXCLUSIVE);
	for (unsigned i = 0; i < asked->len; i++) {
		struct mf_waiter waiter = g_array_index(asked, struct mf_waiter, i);
		add_waiter(dir, waiter.incarnation, waiter.mode);
	}
}

/* ---- giving up ---- */

static int64_t hold_us(const MfFs *fs)
{
	return CLAMP(fs->handover_us * HOLD_COSTS, HOLD_MIN_US, HOLD_MAX_US);
}

/* Since @started, when the directory was let go. */
static void note_cost(MfFs *fs, int64_t started)
{
	int64_t cost = MIN(g_get_monotonic_time() - started, HOLD_MAX_US);

	fs->handover_us += (cost - fs->handover_us) / 8;
}

/* A node in the middle of a burst of operations goes on for a moment. */
static void hold_for_a_while(MfDir *dir)
{
	MfFs *fs = dir->fs;
	int64_t idle_us = CLAMP(fs->handover_us / IDLE_COSTS, IDLE_MIN_US, IDLE_MAX_US);
	int64_t end = dir->held_since + hold_us(fs), least = MAX(end, g_get_monotonic_time());

	for (;;) {
		int64_t now = g_get_monotonic_time();
		int64_t idle = (dir->users > 0 ? now : dir->used_at) + idle_us;
		int64_t until = MIN(end, idle);
		/* We may have been woken late. */
		dir->in_burst = idle > MIN(now, least);
		/* Who has its lock already waits for nothing else. */
		if (now >= until || fs->stopping || dir->granted->len > 0)
			return;
		g_cond_wait_until(&dir->cond, &fs->lock, until);
	}
}

/* The job that gives it up may get the processor late. What the kernel keeps is taken back while we still serve. */
bool mf_recall_is_due(const MfDir *dir)
{
	return dir->yielding && !dir->stuck && dir->waiters->len > 0 && dir->lease.mode == MF_LEASE_EXCLUSIVE && !dir->fs->stopping &&
	       dir->answering == 0 && !dir->kernel_inos && !dir->kernel_names &&
	       g_get_monotonic_time() >= dir->held_since + hold_us(dir->fs);
}

/* It ends by itself, in a fence at the latest. */
static void wait_for_batch(MfShard *shard)
{
	while (shard->batch)
		g_cond_wait(&shard->cond, &shard->dir->fs->lock);
}

/* Nobody is inside and nobody enters: all changes to RADOS. */
static int commit_all(MfDir *dir)
{
	for (bool any = true; any && !dir->passed;) {
		any = false;
		for (unsigned i = 0; i < dir->shards->len; i++) {
			MfShard *shard = dir->shards->pdata[i];
			if (!mf_commit_is_needed(shard) || dir->passed)
				continue;
			any = true;
			/* What is in flight may be the operation that gives the lease up: no other follows that one. */
			if (shard->batch) {
				wait_for_batch(shard);
				continue;
			}
			shard->seq++; /* times are no change of their own */
			int r = mf_commit_wait(shard);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

static void forget_content(MfDir *dir)
{
	mf_dir_unload(dir); /* what it keeps depends on who else has it open */
	mf_opened_clear(dir);
	mf_interest_clear(dir);
	for (unsigned i = 0; i < dir->shards->len; i++) {
		MfShard *shard = dir->shards->pdata[i];
		shard->known = shard->loaded;
		shard->loaded = shard->stamped = false;
		g_hash_table_remove_all(shard->values);
	}
	dir->lease.mode = MF_LEASE_NONE;
	if (dir->n_local > 0)
		mf_sweep_ask(dir->fs, &dir->fs->local_wait);
}

/* What the record says about our lease after a write whose result is unknown. 1: it is not ours any more. */
static int still_ours(MfFs *fs, const char *oid, const struct mf_lease *lease)
{
	g_autoptr(GArray) busy = g_array_new(false, false, sizeof(uint32_t));
	g_autoptr(GArray) waiters = g_array_new(false, false, sizeof(uint32_t));
	g_autoptr(MfRop) rop = mf_rop_new();
	struct mf_lease now;

	mf_rop_xattrs(rop);
	int r = mf_pool_read(fs->pool, MF_POOL_META, oid, rop);
	if (r < 0)
		return r;
	r = mf_lease_examine(fs->node, mf_rop_get_xattr(rop, MF_XATTR_LEASE), lease->mode, &now, busy, waiters);
	return r == 0 && now.serial == lease->serial ? 0 : 1;
}

/* Who is served next: the first in the queue that lives. */
static struct mf_waiter next_waiter(MfDir *dir)
{
	while (dir->waiters->len > 0) {
		struct mf_waiter waiter = g_array_index(dir->waiters, struct mf_waiter, 0);
		if (mf_node_holder(dir->fs->node, waiter.incarnation) == MF_HOLDER_LIVE)
			return waiter;
		g_array_remove_index(dir->waiters, 0);
	}
	return (struct mf_waiter){ 0, MF_LEASE_NONE };
}

static bool is_to_be_shared(const MfDir *dir, struct mf_waiter to)
{
	return to.mode == MF_LEASE_SHARED && !mf_dir_is_maildir(dir);
}

int mf_recall_add_pass(MfDir *dir, MfWop *wop)
{
	g_autoptr(GArray) queue = g_array_new(false, false, sizeof(uint32_t));
	struct mf_waiter to = next_waiter(dir);
	uint32_t self = mf_node_incarnation(dir->fs->node);
	bool share = is_to_be_shared(dir, to);

	/* Readers need no queue: they all may enter. */
	for (unsigned i = 1; i < dir->waiters->len && !share; i++)
		g_array_append_val(queue, g_array_index(dir->waiters, struct mf_waiter, i).incarnation);
	/* A notice takes far longer than a burst of operations, the more so when the machine is busy: whoever gets the lease
	 * would have it until ours arrives. */
	dir->queued = to.incarnation && !share && !dir->fs->stopping && (dir->in_burst || dir->in_need || dir->blocked > 0);
	if (dir->queued)
		g_array_append_val(queue, self);
	mf_opened_note(dir, wop);
	mf_interest_note(dir, wop);
	mf_locks_note(dir, wop);
	mf_wop_full_force(wop);
	dir->passed_to = to.incarnation;
	dir->n_passed = share ? 0 : dir->waiters->len;
	return mf_lease_pass(dir->fs->node, wop, &dir->lease, to.incarnation,
		share ? MF_LEASE_SHARED : MF_LEASE_EXCLUSIVE, queue, &dir->after);
}

/* Without the lock. */
static bool must_end(MfFs *fs)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);

	return fs->stopping || mf_node_is_fenced(fs->node);
}

/* Nothing was left to be committed: an operation of its own. */
static int pass(MfDir *dir)
{
	MfFs *fs = dir->fs;
	MfShard *head = dir->shards->pdata[0];
	g_autofree char *oid = mf_oid_dir(dir->inode->ino, 0);
	g_autoptr(MfWop) wop = mf_wop_new();

	/* Who commits after us asserts it: what has been said here must be the last word. */
	mf_wop_cmpxattr(wop, MF_XATTR_LAST, MF_CMP_EQ, head->last, strlen(head->last));
	int r = mf_recall_add_pass(dir, wop);
	if (r < 0)
		return r;
	struct mf_lease ours = dir->lease;
	/* No commit either, not of times alone: this could not succeed any more, nor fail. */
	dir->passed = true;
	g_mutex_unlock(&fs->lock);
	for (bool unknown = false;;) {
		r = mf_pool_write(fs->pool, MF_POOL_META, oid, wop);
		unknown |= r == -ETIMEDOUT;
		if (r == -ECANCELED || r == -ETIMEDOUT) {
			int rr = still_ours(fs, oid, &ours);
			r = rr == 1 ? 0 : rr == 0 ? -EAGAIN : rr;
		}
		/* One whose result is unknown may yet arrive: nobody may enter before it surely has, or cannot. A refusal says
		 * nothing either, for it may be that of a copy: the record must have been read. */
		bool open = r == -ETIMEDOUT || (unknown && r == -EAGAIN);
		if (!open || must_end(fs))
			break;
		g_usleep(RETRY_US / 10);
	}
	g_mutex_lock(&fs->lock);
	dir->passed = false;
	return r;
}

/* Steps 3 and 4 for an exclusive lease. */
static int hand_over(MfDir *dir)
{
	MfFs *fs = dir->fs;

	/* What is still to be noted is a change like any other: not of a directory that nobody may change any more. */
	mf_dir_use(dir);
	mf_dir_queue_shared(dir);
	mf_dir_unuse(dir);
	dir->passing = true;
	MfShard *head = dir->shards->pdata[0];
	int r = commit_all(dir);
	/* One under way may pass the lease at any moment: nobody may enter before it is known whether it did. */
	wait_for_batch(head);
	dir->passing = false;
	if (dir->passed)
		r = 0;
	else if (r == 0)
		r = mf_commit_is_needed(head) ? -EAGAIN : pass(dir);
	dir->passed = false;
	if (r < 0) {
		g_cond_broadcast(&dir->cond);
		for (unsigned i = 0; i < dir->shards->len; i++)
			mf_commit_kick(dir->shards->pdata[i]);
		return r;
	}
	bool share = dir->after.mode == MF_LEASE_SHARED;
	dir->in_need = dir->blocked > 0;
	mf_locks_left(dir);
	if (share) {
		dir->lease = dir->after;
		mf_interest_shared(dir);
	} else {
		forget_content(dir);
	}
	/* All who may enter now: with a shared lease every reader, without one the first. The queue is in the record; who came
	 * later than that was written has to look there whom to ask. */
	for (unsigned i = 0; i < dir->waiters->len; i++) {
		struct mf_waiter waiter = g_array_index(dir->waiters, struct mf_waiter, i);
		if (waiter.incarnation == dir->passed_to || i >= dir->n_passed)
			mf_notice_send(fs, waiter.incarnation, MF_NOTICE_GRANT, dir->inode->ino, 0);
	}
	g_array_set_size(dir->waiters, 0);
	return 0;
}

/* Our upgrade was faster than the recall of the share. */
static bool is_upgraded(MfFs *fs, GBytes *record)
{
	uint32_t self = mf_node_incarnation(fs->node);
	struct mf_lease_record rec;

	if (!record || mf_lease_record_decode(g_bytes_get_data(record, NULL), g_bytes_get_size(record), &rec) < 0)
		return false;
	bool upgraded = rec.mode == MF_LEASE_EXCLUSIVE && g_array_index(rec.holders, uint32_t, 0) == self;
	mf_lease_record_clear(&rec);
	return upgraded;
}

/* Leaves a lease that we share, or one that we were given and do not use. -EAGAIN: our upgrade was faster. */
static int quit(MfDir *dir)
{
	MfFs *fs = dir->fs;
	g_autoptr(GArray) queue = g_array_new(false, false, sizeof(uint32_t));
	g_autofree char *oid = mf_oid_dir(dir->inode->ino, 0);
	int r;

	/* Nobody enters. The upgrade may get its lease before we have our answer, which is then not ours to forget. */
	bool upgrading = dir->upgrading;
	if (upgrading) {
		forget_content(dir);
		dir->upgrading = false;
	}
	g_mutex_unlock(&fs->lock);
	for (bool unknown = false;;) {
		g_autoptr(MfRop) rop = mf_rop_new();
		g_autoptr(MfWop) wop = mf_wop_new();
		mf_rop_xattrs(rop);
		r = mf_pool_read(fs->pool, MF_POOL_META, oid, rop);
		/* We may have left already. */
		if (r == -ETIMEDOUT && unknown && !must_end(fs))
			continue;
		/* Without an upgrade it is what we were given after we had left, or what an upgrade got that did not know it. */
		if (r == 0 && upgrading && is_upgraded(fs, mf_rop_get_xattr(rop, MF_XATTR_LEASE)))
			r = -EAGAIN;
		g_array_set_size(queue, 0);
		if (r == 0)
			r = mf_lease_quit(fs->node, wop, mf_rop_get_xattr(rop, MF_XATTR_LEASE), queue);
		if (r != 0)
			break;
		g_mutex_lock(&fs->lock);
		mf_opened_note(dir, wop);
		mf_interest_note(dir, wop);
		g_mutex_unlock(&fs->lock);
		mf_wop_full_force(wop);
		r = mf_pool_write(fs->pool, MF_POOL_META, oid, wop);
		unknown |= r == -ETIMEDOUT || r == -ECANCELED;
		if (r != -ECANCELED && (r != -ETIMEDOUT || must_end(fs)))
			break;
	}
	g_mutex_lock(&fs->lock);
	if (r < 0 && r != -ENOENT)
		return r;
	if (!upgrading && dir->lease.mode != MF_LEASE_NONE)
		forget_content(dir);
	mf_recall_queue(dir, queue);
	for (unsigned i = 0; i < dir->waiters->len; i++) {
		struct mf_waiter waiter = g_array_index(dir->waiters, struct mf_waiter, i);
		mf_notice_send(fs, waiter.incarnation, MF_NOTICE_GRANT, dir->inode->ino, 0);
	}
	g_array_set_size(dir->waiters, 0);
	return 0;
}

static void drain(MfDir *dir)
{
	dir->draining = true;
	while (dir->users > 0 || dir->splitting)
		g_cond_wait(&dir->cond, &dir->fs->lock);
}

/* Directory pinned. */
static void yield(MfFs *fs, void *arg)
{
	MfDir *dir = arg;
	int r = -EAGAIN;

	g_mutex_lock(&fs->lock);
	dir->contended_at = g_get_monotonic_time();
	while (r < 0 && !fs->closing && !mf_node_is_fenced(fs->node) && !dir->inode->removed) {
		if (dir->lease.mode == MF_LEASE_EXCLUSIVE && !dir->acquiring) {
			hold_for_a_while(dir);
			int64_t started = g_get_monotonic_time();
			mf_kernel_forget(dir);
			if (dir->lease.mode != MF_LEASE_EXCLUSIVE || dir->acquiring)
				continue;
			drain(dir);
			/* The last to leave may have removed it. */
			if (!dir->inode->removed)
				r = hand_over(dir);
			if (r == 0)
				note_cost(fs, started);
		} else if (dir->acquiring && !dir->upgrading) {
			/* Whoever acquires it goes on with the queue. */
			r = 0;
			break;
		} else if (dir->lease.mode == MF_LEASE_NONE && dir->waiters->len == 0) {
			/* It may start what the end of this mount waits for. */
			fs->reaping++;
			mf_acquire(dir, MF_LEASE_SHARED, MF_ACQUIRE_GRANTED);
			fs->reaping--;
			g_cond_broadcast(&fs->reap_cond);
			break;
		} else {
			/* One who upgrades lets go as well, or two of them would wait for each other. */
			mf_kernel_forget(dir);
			bool upgrading = dir->upgrading;
			if (!upgrading) {
				if (dir->acquiring)
					continue;
				drain(dir);
			}
			while (dir->users > 0 && upgrading == dir->upgrading)
				g_cond_wait(&dir->cond, &fs->lock);
			if (dir->lease.mode == MF_LEASE_EXCLUSIVE || upgrading != dir->upgrading)
				continue; /* the upgrade came through meanwhile */
			/* Should the upgrade fail, the next to come would still read our name in the record. */
			dir->draining = true;
			r = quit(dir);
			while (r == -EAGAIN && upgrading && dir->acquiring)
				g_cond_wait(&dir->cond, &fs->lock);
		}
		/* Blocklisted: an earlier copy of what was refused may have come through, so the lease may be elsewhere. */
		if (r == -ESHUTDOWN)
			mf_node_fence(fs->node);
		dir->draining = false;
		dir->stuck = r < 0 && r != -EAGAIN;
		g_cond_broadcast(&dir->cond);
		if (dir->stuck) {
			g_mutex_unlock(&fs->lock);
			g_usleep(RETRY_US);
			g_mutex_lock(&fs->lock);
		}
	}
	if (r == 0 && dir->lease.mode != MF_LEASE_EXCLUSIVE)
		fs->recalls++;
	dir->yielding = dir->draining = dir->stuck = false;
	g_cond_broadcast(&dir->cond);
	/* Nobody gets the lease of what is removed. */
	for (unsigned i = 0; dir->inode->removed && !fs->closing && i < dir->waiters->len; i++)
		mf_reaper_recalled(fs, dir->inode->ino, g_array_index(dir->waiters, struct mf_waiter, i).incarnation);
	if (dir->inode->removed)
		g_array_set_size(dir->waiters, 0);
	if (dir->waiters->len > 0 && dir->lease.mode != MF_LEASE_NONE && !fs->closing && !dir->acquiring)
		mf_recall_pending(dir);
	MfInode *inode = mf_inode_pin(dir->inode);
	mf_dir_unpin(dir);
	mf_inode_unpin(fs, inode);
	g_mutex_unlock(&fs->lock);
}

static void start_yield(MfDir *dir)
{
	/* Fenced: there is nothing to give up, and the end of this life waits for such jobs to end. */
	if (dir->yielding || dir->fs->closing || mf_node_is_fenced(dir->fs->node))
		return;
	dir->yielding = true;
	mf_fs_work(dir->fs, yield, mf_dir_pin(dir));
}

void mf_recall_pending(MfDir *dir)
{
	if (dir->waiters->len > 0)
		start_yield(dir);
}

void mf_recall_by(MfDir *dir, uint32_t incarnation, enum mf_lease_mode mode)
{
	add_waiter(dir, incarnation, mode);
	dir->contended_at = g_get_monotonic_time();
	mf_recall_pending(dir);
}

void mf_recall_leave(MfFs *fs)
{
	g_autoptr(GPtrArray) dirs = g_ptr_array_new();

	for (GList *link = fs->dir_lru.head; link; link = link->next) {
		MfDir *dir = link->data;
		if (dir->lease.mode == MF_LEASE_EXCLUSIVE && dir->created && !dir->inode->removed &&
			(dir->waiters->len > 0 || mf_locks_any(dir)))
			g_ptr_array_add(dirs, mf_dir_pin(dir));
	}
	for (unsigned i = 0; i < dirs->len; i++) {
		MfDir *dir = dirs->pdata[i];
		/* A sweep may be about to take it: what is in memory is not yet that of its lease. */
		while (dir->yielding || dir->acquiring)
			g_cond_wait(&dir->cond, &fs->lock);
		int r = -EAGAIN;
		while (r == -EAGAIN && dir->lease.mode == MF_LEASE_EXCLUSIVE && !mf_node_is_fenced(fs->node))
			r = hand_over(dir);
		mf_dir_unpin(dir);
	}
}

/* Who waits looks at the record itself. */
static void may_be_ours(MfDir *dir)
{
	dir->passed_to = 0;
	dir->queued = false;
	dir->grants++;
	g_cond_broadcast(&dir->cond);
}

static void granted(MfFs *fs, uint64_t ino)
{
	MfInode *inode = mf_inode_dir_of(fs, ino);

	if (!inode)
		return;
	MfDir *dir = inode->dir ? inode->dir : mf_dir_shell(fs, inode);
	may_be_ours(dir);
	/* Served otherwise, or not waiting any more: those in the queue would wait for us. Or it comes with a file lock, whose
	 * owner is about to use it, and whose own notice may be lost. */
	if (dir->lease.mode == MF_LEASE_NONE && !dir->acquiring)
		start_yield(dir);
}

static void recalled(MfFs *fs, const struct mf_notice *notice)
{
	if (fs->closing || mf_reaper_recalled(fs, notice->ino, notice->from))
		return;
	MfInode *inode = mf_inode_dir_of(fs, notice->ino);
	if (!inode)
		return;
	MfDir *dir = inode->dir ? inode->dir : mf_dir_shell(fs, inode);
	/* They believe that we have it, and may be right. */
	if (dir->lease.mode == MF_LEASE_NONE)
		may_be_ours(dir);
	mf_recall_by(dir, notice->from, notice->mode);
}

void mf_recall_listen(const void *data, size_t len, void *arg)
{
	MfFs *fs = arg;
	struct mf_notice notice;

	g_mutex_lock(&fs->lock);
	/* At the end there is nobody any more who could do anything about it. */
	if (fs->stopping || mf_event_listen(fs, data, len) || mf_notice_decode(data, len, &notice) < 0) {
		g_mutex_unlock(&fs->lock);
		return;
	}
	switch (notice.kind) {
	case MF_NOTICE_RECALL:
		recalled(fs, &notice);
		break;
	case MF_NOTICE_GRANT:
		granted(fs, notice.ino);
		break;
	case MF_NOTICE_LOCK:
		mf_locks_granted(fs, notice.arg);
		break;
	case MF_NOTICE_MEMBERS:
		fs->members_changed++;
		g_cond_broadcast(&fs->sweep_cond);
		break;
	case MF_NOTICE_CLOSED:
	case MF_NOTICE_ASK:
	case MF_NOTICE_UNUSED:
		mf_opened_listen(fs, &notice);
		break;
	case MF_NOTICE_AWAY:
		mf_interest_away(fs, notice.from, (uint32_t)notice.arg);
		break;
	case MF_NOTICE_FORGOT:
		mf_interest_forgot(fs, notice.from, notice.ino, notice.arg);
		break;
	default: /* of a newer version: a hint that we do without */
		break;
	}
	g_mutex_unlock(&fs->lock);
}
