/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/reopen.h"

#include "sync/handle.h"
#include "sync/inode.h"

/* Of a process that gets no processor; after that it is told ESTALE. */
#define PATIENCE_US G_USEC_PER_SEC

struct reopen {
	uint32_t pid;
	uint64_t dir;
	MfInode *found; /* pinned and counted in opens; NULL: not looked up yet */
	int64_t until;
};

/* Drops the lock when other nodes are told. */
static void let_go(MfFs *fs, MfInode *inode)
{
	if (!inode)
		return;
	mf_handle_uncount(fs, inode);
	mf_inode_unpin(fs, inode);
}

static void drop(MfFs *fs, GList *link)
{
	struct reopen *reopen = link->data;

	g_queue_delete_link(&fs->reopens, link);
	let_go(fs, reopen->found);
	g_free(reopen);
}

/* Runs while there is one. */
static void expire(MfFs *fs, void *arg)
{
	const struct reopen *first;

	(void)arg;
	g_mutex_lock(&fs->lock);
	while ((first = g_queue_peek_head(&fs->reopens))) {
		if (g_get_monotonic_time() >= first->until)
			drop(fs, fs->reopens.head);
		else
			g_cond_wait_until(&fs->reopen_cond, &fs->lock, first->until);
	}
	fs->reopens_expire = false;
	g_mutex_unlock(&fs->lock);
}

void mf_reopen_announce(MfFs *fs, const MfInode *inode, uint32_t pid)
{
	if (!inode->dir || fs->closing)
		return;
	struct reopen *reopen = g_new(struct reopen, 1);
	*reopen = (struct reopen){ pid, inode->dir->inode->ino, NULL, g_get_monotonic_time() + PATIENCE_US };
	g_queue_push_tail(&fs->reopens, reopen);
	if (!fs->reopens_expire) {
		fs->reopens_expire = true;
		mf_fs_work(fs, expire, NULL);
	}
}

void mf_reopen_found(MfDir *dir, MfInode *inode, uint32_t pid)
{
	MfFs *fs = dir->fs;

	if (mf_inode_is_dir(inode))
		return;
	for (GList *link = fs->reopens.head; link; link = link->next) {
		struct reopen *reopen = link->data;
		if (reopen->pid != pid || reopen->dir != dir->inode->ino)
			continue;
		/* What the kernel did not expect to find it looks up once more. */
		MfInode *before = reopen->found;
		mf_handle_count(fs, mf_inode_pin(inode));
		reopen->found = inode;
		let_go(fs, before);
		return;
	}
}

void mf_reopen_done(MfFs *fs, const MfInode *inode, uint32_t pid)
{
	for (GList *link = fs->reopens.head; link; link = link->next) {
		const struct reopen *reopen = link->data;
		if (reopen->found == inode && reopen->pid == pid) {
			drop(fs, link);
			return;
		}
	}
}

void mf_reopen_end(MfFs *fs)
{
	while (fs->reopens.head)
		drop(fs, fs->reopens.head);
	g_cond_broadcast(&fs->reopen_cond);
}
