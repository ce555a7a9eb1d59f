/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/interest.h"

#include "sync/dir.h"
#include "sync/event.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/kernel.h"
#include "sync/recall.h"

#include <errno.h>

#define LOOKERS 4

bool mf_interest_is_ours(const MfDir *dir)
{
	bool ours = mf_kernel_has(dir->inode);

	for (enum mf_space s = MF_SPACE_CUR; s < MF_SPACES; s++)
		ours |= dir->sub[s] && mf_kernel_has(dir->sub[s]);
	return ours && dir->fs->kernel;
}

static void drop_marks(MfDir *dir)
{
	g_array_set_size(dir->interested, 0);
	g_array_set_size(dir->uninterested, 0);
	dir->noted_interest = false;
}

void mf_interest_clear(MfDir *dir)
{
	const MfShard *head = dir->shards->pdata[0];

	/* What we did ourselves our kernel knows. */
	if (dir->told_version >= dir->taken_version)
		dir->told_version = MAX(dir->told_version, head->version);
	drop_marks(dir);
}

void mf_interest_take(MfDir *dir, MfRop *rop)
{
	GHashTableIter iter;
	gpointer key;
	const MfShard *head = dir->shards->pdata[0];
	uint32_t incarnation;

	drop_marks(dir);
	dir->taken_version = head->version;
	g_hash_table_iter_init(&iter, mf_rop_get_xattrs(rop));
	while (g_hash_table_iter_next(&iter, &key, NULL)) {
		if (!mf_xattr_parse_interest(key, &incarnation))
			continue;
		switch (mf_node_holder(dir->fs->node, incarnation)) {
		case MF_HOLDER_SELF:
			dir->noted_interest = true;
			break;
		case MF_HOLDER_LIVE:
			g_array_append_val(dir->interested, incarnation);
			break;
		case MF_HOLDER_CLEAN:
		case MF_HOLDER_LOST:
			g_array_append_val(dir->uninterested, incarnation);
			break;
		}
	}
	/* Nobody here could watch it before. */
	if (!dir->noted_interest)
		dir->told_version = dir->taken_version;
}

void mf_interest_note(MfDir *dir, MfWop *wop)
{
	bool ours = mf_interest_is_ours(dir);

	dir->noting_interest = ours;
	if (ours != dir->noted_interest) {
		g_autofree char *xattr = mf_xattr_interest(mf_node_incarnation(dir->fs->node));
		if (ours)
			mf_wop_setxattr(wop, xattr, "1", 1);
		else
			mf_wop_rmxattr(wop, xattr);
	}
	for (unsigned i = 0; i < dir->uninterested->len; i++) {
		g_autofree char *xattr = mf_xattr_interest(g_array_index(dir->uninterested, uint32_t, i));
		mf_wop_rmxattr(wop, xattr);
	}
}

void mf_interest_shared(MfDir *dir)
{
	g_array_set_size(dir->uninterested, 0);
	dir->noted_interest = dir->noting_interest;
}

void mf_interest_forgot(MfFs *fs, uint32_t incarnation, uint64_t ino, uint64_t epoch)
{
	const MfInode *inode = mf_inode_find(fs, ino);
	MfDir *dir = inode && inode->kind == MF_KIND_DIR ? inode->dir : NULL;

	/* Under an earlier lease: it may have had the directory since, and its kernel, too. */
	if (!dir || dir->lease.mode != MF_LEASE_EXCLUSIVE || dir->lease.epoch != epoch)
		return;
	for (unsigned i = 0; i < dir->interested->len; i++) {
		if (g_array_index(dir->interested, uint32_t, i) != incarnation)
			continue;
		g_array_remove_index_fast(dir->interested, i);
		g_array_append_val(dir->uninterested, incarnation);
		return;
	}
}

/* ---- what may have changed unnoticed ---- */

/* What can be seen of a directory without its lease. */
struct sight {
	bool dead;	  /* who has it */
	bool divided;	  /* its version does not tell all */
	uint64_t version; /* of its last commit */
};

static int see(MfFs *fs, uint64_t ino, struct sight *ret)
{
	g_autofree char *oid = mf_oid_dir(ino, 0);
	g_autoptr(MfRop) rop = mf_rop_new();
	struct mf_lease_record lease;
	struct mf_dir_record rec;

	mf_rop_xattrs(rop);
	int r = mf_pool_read(fs->pool, MF_POOL_META, oid, rop);
	if (r < 0)
		return r;
	GBytes *bytes = mf_rop_get_xattr(rop, MF_XATTR_LEASE), *last = mf_rop_get_xattr(rop, MF_XATTR_LAST);
	if (!bytes || !last || mf_lease_record_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &lease) < 0)
		return -EBADMSG;
	*ret = (struct sight){ .version = mf_shard_version(last) };
	for (unsigned i = 0; i < lease.holders->len && lease.mode == MF_LEASE_EXCLUSIVE; i++)
		ret->dead |= mf_node_holder(fs->node, g_array_index(lease.holders, uint32_t, i)) == MF_HOLDER_LOST;
	mf_lease_record_clear(&lease);
	bytes = mf_rop_get_xattr(rop, MF_XATTR_RECORD);
	if (!bytes || mf_dir_record_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &rec) < 0)
		return -EBADMSG;
	ret->divided = rec.shards->len > 1;
	mf_dir_record_clear(&rec);
	return 0;
}

/* Having the lease is being told of everything from now on, and leaving it leaves a mark. -ETIMEDOUT. */
static int take_part(MfFs *fs, MfDir *dir)
{
	uint64_t kept = dir->kept_serial;
	enum mf_space space;
	MfDir *held;

	int r = mf_dir_get(fs, dir->inode, MF_LEASE_SHARED, &held, &space);
	if (r < 0)
		return r;
	if (kept == 0 || held->lease.serial != kept + 1)
		mf_event_many(held);
	held->told_version = held->taken_version;
	held->kept_serial = 0;
	mf_dir_put(held);
	return 0;
}

/* Who died may have given it to another before it told of its last commit. */
static void look_back(MfDir *dir, uint64_t version, bool divided)
{
	if (dir->told_version < version || divided)
		mf_event_many(dir);
	dir->told_version = MAX(dir->told_version, version);
}

static int look_around(MfFs *fs, MfDir *dir)
{
	struct sight sight;

	while (dir->acquiring)
		g_cond_wait(&dir->cond, &fs->lock);
	if (dir->lease.mode != MF_LEASE_NONE) {
		look_back(dir, dir->taken_version, dir->shards->len > 1);
		return 0;
	}
	g_mutex_unlock(&fs->lock);
	int r = see(fs, dir->inode->ino, &sight);
	g_mutex_lock(&fs->lock);
	if (r == 0 && sight.dead)
		r = take_part(fs, dir);
	else if (r == 0 && dir->lease.mode == MF_LEASE_NONE)
		look_back(dir, sight.version, sight.divided);
	return r;
}

static void enqueue(MfDir *dir)
{
	dir->looking = true;
	dir->fs->reaping++;
	g_thread_pool_push(dir->fs->lookers, mf_dir_pin(dir), NULL);
}

static void look(void *data, void *arg)
{
	MfDir *dir = data;
	MfFs *fs = arg;
	int r = 0;

	g_mutex_lock(&fs->lock);
	bool renew = dir->look_anew;
	dir->looking = dir->look_anew = false;
	/* Fenced, there may be many left, and each would wait for the cluster; they come again in the next life. */
	if (!fs->closing && !mf_node_is_fenced(fs->node) && mf_interest_is_ours(dir) && !dir->inode->removed)
		r = renew ? take_part(fs, dir) : look_around(fs, dir);
	/* Behind all others. */
	if (r == -ETIMEDOUT && !fs->closing && !mf_node_is_fenced(fs->node) && !dir->looking) {
		dir->look_anew |= renew;
		enqueue(dir);
	}
	MfInode *inode = mf_inode_pin(dir->inode);
	mf_dir_unpin(dir);
	mf_inode_unpin(fs, inode);
	fs->reaping--;
	g_cond_broadcast(&fs->reap_cond);
	g_mutex_unlock(&fs->lock);
}

GThreadPool *mf_interest_pool(MfFs *fs)
{
	return g_thread_pool_new(look, fs, LOOKERS, false, NULL);
}

/* Each directory waits for a look once, however often there is a reason. */
static void look_at_all(MfFs *fs, bool anew)
{
	for (GList *link = fs->dir_lru.head; link; link = link->next) {
		MfDir *dir = link->data;
		if (!mf_interest_is_ours(dir) || dir->inode->removed)
			continue;
		dir->look_anew |= anew;
		if (!dir->looking)
			enqueue(dir);
	}
}

void mf_interest_rejoined(MfFs *fs)
{
	look_at_all(fs, true);
}

void mf_interest_bereaved(MfFs *fs)
{
	look_at_all(fs, false);
}

void mf_interest_away(MfFs *fs, uint32_t from, uint32_t incarnation)
{
	uint32_t self = mf_node_incarnation(fs->node);
	g_autoptr(GArray) live = mf_node_live(fs->node);

	for (unsigned i = 0; from == self && i < live->len; i++) {
		uint32_t to = g_array_index(live, uint32_t, i);
		if (to != self && to != incarnation)
			mf_notice_send(fs, to, MF_NOTICE_AWAY, 0, incarnation);
	}
	if (!fs->closing)
		mf_interest_bereaved(fs);
}
