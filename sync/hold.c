/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/hold.h"

#include "sync/acquire.h"
#include "sync/dir.h"
#include "sync/inode.h"
#include "sync/lostlock.h"
#include "sync/recall.h"

#include <errno.h>

#define HOLDS_MAX 16u /* directories that one operation works in, twice over */

struct hold {
	MfDir *dir;
	unsigned n;
};

struct wanted {
	uint64_t ino;
	enum mf_lease_mode mode;
	MfDir *dir; /* held for the next try */
};

/* What the running operation of this thread has, and what it lacked. */
struct holds {
	uint32_t requester; /* pid of whom it is done for; 0: nobody */
	unsigned n;
	struct hold hold[HOLDS_MAX];
	unsigned n_wanted;
	struct wanted wanted[HOLDS_MAX];
};

static GPrivate holds_private = G_PRIVATE_INIT(g_free);

static struct holds *mine(void)
{
	struct holds *holds = g_private_get(&holds_private);

	if (!holds) {
		holds = g_new0(struct holds, 1);
		g_private_set(&holds_private, holds);
	}
	return holds;
}

void mf_fs_requester(uint32_t pid)
{
	mine()->requester = pid;
}

uint32_t mf_hold_requester(void)
{
	return mine()->requester;
}

static struct hold *find(struct holds *holds, const MfDir *dir)
{
	for (unsigned i = 0; i < holds->n; i++) {
		if (holds->hold[i].dir == dir)
			return &holds->hold[i];
	}
	return NULL;
}

static bool enough(const MfDir *dir, enum mf_lease_mode mode)
{
	return dir->recovered && dir->lease.mode >= mode;
}

MfDir *mf_dir_pin(MfDir *dir)
{
	dir->pins++;
	return dir;
}

static void settle(MfDir *dir)
{
	if (dir->users == 0 && dir->pins == 0 && dir->inode->removed)
		mf_inode_settle(dir->fs, dir->inode);
}

void mf_dir_unpin(MfDir *dir)
{
	g_assert(dir->pins > 0);
	dir->pins--;
	settle(dir);
}

void mf_dir_use(MfDir *dir)
{
	dir->users++;
}

void mf_dir_unuse(MfDir *dir)
{
	g_assert(dir->users > 0);
	dir->users--;
	dir->used_at = g_get_monotonic_time();
	if (dir->users == 0 && (dir->draining || dir->acquiring))
		g_cond_broadcast(&dir->cond);
	settle(dir);
}

static void want(struct holds *holds, uint64_t ino, enum mf_lease_mode mode)
{
	for (unsigned i = 0; i < holds->n_wanted; i++) {
		if (holds->wanted[i].ino == ino) {
			holds->wanted[i].mode = MAX(holds->wanted[i].mode, mode);
			return;
		}
	}
	g_assert(holds->n_wanted < HOLDS_MAX);
	holds->wanted[holds->n_wanted++] = (struct wanted){ ino, mode, NULL };
}

/* May this thread wait for @dir with what it has? Notes all of it if not. */
static bool may_wait(struct holds *holds, const MfDir *dir, enum mf_lease_mode mode)
{
	bool may = true;

	for (unsigned i = 0; i < holds->n; i++)
		may &= holds->hold[i].dir->inode->ino < dir->inode->ino;
	if (may)
		return true;
	for (unsigned i = 0; i < holds->n; i++)
		want(holds, holds->hold[i].dir->inode->ino, holds->hold[i].dir->lease.mode);
	want(holds, dir->inode->ino, mode);
	return false;
}

static void enter(struct holds *holds, MfDir *dir)
{
	struct hold *hold = find(holds, dir);

	if (!hold) {
		g_assert(holds->n < HOLDS_MAX);
		hold = &holds->hold[holds->n++];
		*hold = (struct hold){ dir, 0 };
	}
	hold->n++;
	dir->users++;
	dir->used_at = g_get_monotonic_time();
	g_queue_unlink(&dir->fs->dir_lru, &dir->lru);
	g_queue_push_head_link(&dir->fs->dir_lru, &dir->lru);
}

static int get(MfFs *fs, MfInode *inode, enum mf_lease_mode mode, MfDir **ret_dir)
{
	int64_t deadline = g_get_monotonic_time() + fs->conf->op_timeout_ms * INT64_C(1000);
	struct holds *holds = mine();

	if (mode == MF_LEASE_EXCLUSIVE) {
		int r = mf_lostlock_check(fs, inode->dir ? inode->dir->inode->ino : inode->ino);
		if (r < 0)
			return r;
	}
	for (;;) {
		MfDir *dir = inode->dir;
		if (!dir) {
			if (inode->kind == MF_KIND_SUBDIR || inode->removed)
				return -ESTALE;
			dir = mf_dir_shell(fs, inode);
		}
		struct hold *hold = find(holds, dir);
		bool leaving = dir->draining || mf_recall_is_due(dir);
		if (enough(dir, mode) && (hold || (!leaving && !dir->acquiring))) {
			/* It may have been taken over while we waited. */
			if (mf_node_is_fenced(fs->node))
				return -ESHUTDOWN;
			enter(holds, dir);
			*ret_dir = dir;
			return 0;
		}
		if (inode->removed && inode->kind == MF_KIND_DIR)
			return -ESTALE;
		if (!may_wait(holds, dir, mode))
			return -ERESTART;
		if (dir->acquiring || leaving) {
			mf_dir_pin(dir);
			dir->blocked++;
			bool ok = g_cond_wait_until(&dir->cond, &fs->lock, deadline);
			dir->blocked--;
			mf_dir_unpin(dir);
			if (!ok)
				return -ETIMEDOUT;
			if (mf_node_is_fenced(fs->node))
				return -ESHUTDOWN;
			continue;
		}
		int r = mf_acquire(dir, mode, deadline);
		if (r < 0)
			return r;
	}
}

int mf_dir_get(MfFs *fs, MfInode *inode, enum mf_lease_mode mode, MfDir **ret_dir, enum mf_space *ret_space)
{
	if (!mf_inode_is_dir(inode))
		return -ENOTDIR;
	mf_inode_pin(inode);
	int r = get(fs, inode, mode, ret_dir);
	if (r == 0)
		*ret_space = inode->kind == MF_KIND_SUBDIR ? inode->space : MF_SPACE_SELF;
	mf_inode_unpin(fs, inode);
	return r;
}

int mf_inode_hold(MfFs *fs, MfInode *inode, enum mf_lease_mode mode, MfDir **ret_dir)
{
	enum mf_space space;

	if (mf_inode_is_dir(inode))
		return mf_dir_get(fs, inode, mode, ret_dir, &space);
	for (;;) {
		if (!inode->dir)
			return -ESTALE;
		MfInode *home = inode->dir->inode;
		int r = mf_dir_get(fs, home, mode, ret_dir, &space);
		if (r < 0) {
			/* Who has removed the directory may have moved it elsewhere before. */
			if (r == -ESTALE && inode->dir && inode->dir->inode == home)
				r = mf_inode_follow(fs, inode);
			if (r < 0)
				return r;
			continue;
		}
		if (inode->dir == *ret_dir)
			r = mf_inode_find_again(fs, inode);
		if (r == 0 && inode->dir == *ret_dir)
			return 0;
		/* It moved while we waited, or has moved since we had it. */
		mf_dir_put(g_steal_pointer(ret_dir));
		if (r < 0)
			return r;
	}
}

void mf_dir_put(MfDir *dir)
{
	struct holds *holds = mine();
	struct hold *hold = find(holds, dir);

	g_assert(hold && hold->n > 0);
	if (--hold->n == 0)
		*hold = holds->hold[--holds->n];
	mf_dir_unuse(dir);
}

static void give_back(struct holds *holds)
{
	for (unsigned i = 0; i < holds->n_wanted; i++) {
		MfDir *dir = g_steal_pointer(&holds->wanted[i].dir);
		if (dir)
			mf_dir_put(dir);
	}
}

static int compare_wanted(const void *a, const void *b)
{
	uint64_t x = ((const struct wanted *)a)->ino, y = ((const struct wanted *)b)->ino;

	return x < y ? -1 : x > y;
}

bool mf_hold_again(MfFs *fs, int *r)
{
	struct holds *holds = mine();
	int rr = *r;

	give_back(holds);
	if (rr != -ERESTART) {
		holds->n_wanted = 0;
		return false;
	}
	g_assert(holds->n == 0 && holds->n_wanted > 0);
	/* In the order that nobody can make a cycle with. */
	qsort(holds->wanted, holds->n_wanted, sizeof(holds->wanted[0]), compare_wanted);
	rr = 0;
	for (unsigned i = 0; i < holds->n_wanted && rr == 0; i++) {
		struct wanted *wanted = &holds->wanted[i];
		enum mf_space space;
		MfInode *inode = mf_inode_find(fs, wanted->ino);
		if (inode) /* else the next try finds out by itself */
			rr = mf_dir_get(fs, inode, wanted->mode, &wanted->dir, &space);
	}
	/* One of them is gone, which is for the operation to find out. */
	if (rr == 0 || rr == -ESTALE || rr == -ENOTDIR)
		return true;
	give_back(holds);
	holds->n_wanted = 0;
	*r = rr;
	return false;
}
