/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/rename.h"

#include "sync/adopt.h"
#include "sync/attr.h"
#include "sync/commit.h"
#include "sync/dir.h"
#include "sync/file.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/kernel.h"
#include "sync/locks.h"
#include "sync/lostlock.h"
#include "sync/message.h"
#include "sync/name.h"
#include "sync/opened.h"
#include "sync/reaper.h"
#include "sync/table.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define RETRY_US G_USEC_PER_SEC

struct op {
	MfFs *fs;
	struct mf_parent src, dst;
	const char *src_name, *dst_name;
	char *src_key, *dst_key;
	unsigned flags;
	MfDentry *from, *to; /* as found last; to may be NULL */
	MfDir *child[2];     /* directories that move, held */
	MfDir *over;	     /* an empty directory that goes, held: so no other node puts anything into it */
	bool moves_dir;	     /* ... to another parent: with the root held, so one at a time in the whole cluster */
};

/* ---- may it be ---- */

/* What may lie where: messages only in the message spaces of Maildirs, plain files elsewhere. */
static int check_place(const MfInode *inode, const struct mf_parent *at, const struct mf_parent *to)
{
	bool messages = mf_dir_holds_messages(to->dir, to->space);

	switch (inode->kind) {
	case MF_KIND_MESSAGE:
		return messages ? 0 : -EXDEV;
	case MF_KIND_FILE:
		if (!messages)
			/* Names of one file share the object of their directory; it is all in memory when there are several. */
			return inode->names->next_name && at->dir != to->dir ? -EXDEV : 0;
		/* One that was there before its directory became a Maildir may move within it. */
		return at->dir == to->dir && at->space != MF_SPACE_SELF && to->space != MF_SPACE_TMP ? 0 : -EXDEV;
	case MF_KIND_SUBDIR:
		return -EXDEV;
	case MF_KIND_DIR:
	case MF_KIND_SYMLINK:
		return messages && to->space == MF_SPACE_TMP ? -EOPNOTSUPP : 0;
	}
	return -EXDEV;
}

static int find_both(struct op *op)
{
	int r = mf_dir_find(op->src.dir, op->src.space, op->src_name, &op->from);

	if (r < 0)
		return r;
	r = mf_dir_find(op->dst.dir, op->dst.space, op->dst_name, &op->to);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == -ENOENT)
		op->to = NULL;
	/* The second look may have waited. */
	op->from = mf_dir_peek(op->src.dir, op->src_key);
	return op->from ? 0 : -ENOENT;
}

static int check(struct op *op)
{
	MfInode *from = op->from->inode, *to = op->to ? op->to->inode : NULL;
	int r;

	if (op->src.inode->removed || op->dst.inode->removed)
		return -ENOENT;
	if (to && op->flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (!to && op->flags & RENAME_EXCHANGE)
		return -ENOENT;
	r = check_place(from, &op->src, &op->dst);
	if (r < 0)
		return r;
	if (!to)
		return 0;
	if (op->flags & RENAME_EXCHANGE)
		return check_place(to, &op->dst, &op->src);
	if (mf_inode_is_dir(from) && !mf_inode_is_dir(to))
		return -ENOTDIR;
	if (!mf_inode_is_dir(from) && mf_inode_is_dir(to))
		return -EISDIR;
	return to->kind == MF_KIND_SUBDIR ? -EXDEV : 0;
}

static bool replaces_dir(const struct op *op)
{
	return op->to && op->to->inode->kind == MF_KIND_DIR && !(op->flags & RENAME_EXCHANGE);
}

static bool holds_over(const struct op *op)
{
	return op->over && op->over->inode == op->to->inode;
}

/* ---- doing it in memory ---- */

static void touched(MfInode *inode)
{
	if (!inode->attr_loaded)
		return;
	inode->attr.ctime = MAX(mf_fs_now(), inode->attr.ctime + 1);
	mf_attr_changed(inode);
}

static void new_parent(MfInode *inode, MfDir *dir)
{
	if (inode->kind != MF_KIND_DIR || !inode->dir || inode->dir->parent == dir->inode->ino)
		return;
	inode->dir->parent = dir->inode->ino;
	mf_dir_dirty_record(inode->dir);
}

static void move_name(MfDir *from_dir, MfDentry *from, MfDir *to_dir, const char *key, bool local, uint64_t tag)
{
	MfInode *inode = mf_inode_pin(from->inode);

	mf_dir_remove(from_dir, from);
	mf_dir_add(to_dir, key, inode, local, tag);
	if (!local)
		mf_dir_dirty(to_dir, key, false);
	new_parent(inode, to_dir);
	touched(inode);
	mf_inode_unpin(from_dir->fs, inode);
}

static void exchange(struct op *op)
{
	MfInode *a = mf_inode_pin(op->from->inode), *b = mf_inode_pin(op->to->inode);
	uint64_t a_tag = op->from->tag, b_tag = op->to->tag;
	bool a_local = op->from->local, b_local = op->to->local;

	mf_dir_remove(op->src.dir, op->from);
	mf_dir_remove(op->dst.dir, op->to);
	mf_dir_add(op->src.dir, op->src_key, b, b_local, b_tag);
	mf_dir_add(op->dst.dir, op->dst_key, a, a_local, a_tag);
	if (!b_local)
		mf_dir_dirty(op->src.dir, op->src_key, false);
	if (!a_local)
		mf_dir_dirty(op->dst.dir, op->dst_key, false);
	new_parent(a, op->dst.dir);
	new_parent(b, op->src.dir);
	touched(a);
	touched(b);
	mf_inode_unpin(op->fs, a);
	mf_inode_unpin(op->fs, b);
}

/* @tag: the reference that the new name holds. */
static void apply(struct op *op, bool local, uint64_t tag)
{
	MfInode *inode = mf_inode_pin(op->from->inode);
	bool publish = inode->kind == MF_KIND_MESSAGE && !inode->published && !local;

	mf_dir_touch(op->src.dir, op->src_key);
	mf_dir_touch(op->dst.dir, op->dst_key);
	if (op->flags & RENAME_EXCHANGE) {
		exchange(op);
	} else {
		if (op->to && mf_inode_is_dir(op->to->inode))
			mf_name_drop_dir(op->dst.dir, op->to);
		else if (op->to)
			mf_name_drop(op->dst.dir, op->to);
		move_name(op->src.dir, op->from, op->dst.dir, op->dst_key, local, tag);
	}
	if (publish)
		mf_name_publish(op->fs, inode);
	/* So does the kernel when it has our answer. */
	if (op->child[0])
		mf_kernel_place(op->child[0], op->dst.inode, op->dst_name);
	if (op->child[1])
		mf_kernel_place(op->child[1], op->src.inode, op->src_name);
	mf_inode_unpin(op->fs, inode);
}

/* ---- one object ---- */

/* Out of tmp, or within one object. */
static int rename_one(struct op *op)
{
	MfInode *inode = op->from->inode;
	bool local = op->from->local && mf_dir_holds_messages(op->dst.dir, op->dst.space) &&
		     op->dst.space == MF_SPACE_TMP;
	bool publish = op->from->local && !local;
	uint64_t tag = op->from->tag, old_tag = 0;
	int r = 0;

	/* The reference that a link(2) into tmp took is noted for a name there. A name in tmp from which the message got
	 * its first other name has none. */
	if (publish && inode->published && (tag == 0 || op->src.dir != op->dst.dir)) {
		MfDir *home = NULL;
		old_tag = tag;
		mf_inode_pin(inode);
		/* The name that it has may have to say that there are others now. */
		if (!inode->linked)
			r = mf_inode_hold(op->fs, inode, MF_LEASE_EXCLUSIVE, &home);
		if (r == 0)
			r = mf_name_reference(op->fs, inode, op->dst.dir, &tag);
		if (home)
			mf_dir_put(home);
		if (r < 0) {
			mf_inode_unpin(op->fs, inode);
			return r;
		}
		r = find_both(op);
		if (r == 0 && op->from->inode != inode)
			r = -ENOENT;
		if (r == 0)
			r = check(op);
		if (r < 0)
			mf_name_referenced(op->fs, inode, op->dst.dir, false, tag);
		mf_inode_unpin(op->fs, inode);
		if (r < 0)
			return r;
	}
	bool referenced = publish && inode->published;
	apply(op, local, tag);
	if (referenced)
		mf_name_referenced(op->fs, inode, op->dst.dir, true, tag);
	if (referenced && old_tag != 0)
		mf_name_referenced(op->fs, inode, op->src.dir, false, old_tag);
	/* What other nodes removed waits for the name in tmp as well. */
	if (publish)
		mf_reaper_closed(op->fs, inode);
	if (!publish)
		return 0;
	MfShard *shard = mf_dir_shard(op->dst.dir, op->dst_key);
	if (op->fs->conf->sync_rename) {
		r = mf_commit_wait_key(op->dst.dir, op->dst_key);
		return r < 0 ? r : mf_commit_ancestors(op->dst.dir);
	}
	/* Starts at once; fsync of the file or the directory waits for it. */
	shard->seq_wanted = shard->seq;
	mf_commit_start(shard);
	return 0;
}

/* ---- two objects ---- */

/* The end of a rename between two objects: the loss follows the gain, the marker goes last. */
struct tail {
	MfShard *src_shard, *src_head, *dst_shard; /* with a user on each directory */
	MfDir *child[2];			   /* directories whose parent changed, or NULL; with a user */
	MfDir *root;				   /* with a user, while directories move */
	char *intent_key, *gain_key;
	bool gained;
};

/* A rename that has begun must end: only the end of this mount lets it go, and then the next one goes on. */
static int until_committed(MfShard *shard)
{
	MfFs *fs = shard->dir->fs;
	int r;

	while ((r = mf_commit_wait(shard)) < 0 && !mf_node_is_fenced(fs->node) && !fs->stopping) {
		g_mutex_unlock(&fs->lock);
		g_usleep(RETRY_US);
		g_mutex_lock(&fs->lock);
	}
	return r;
}

/* The directory was lost, with this incarnation or by itself: who finds the rename half done goes on with it. */
static bool is_lost(const MfShard *shard)
{
	return shard->gone || shard->dir->lease.mode != MF_LEASE_EXCLUSIVE;
}

static void finish_tail(MfFs *fs, void *arg)
{
	struct tail *tail = arg;
	int r = 0;

	g_mutex_lock(&fs->lock);
	if (!tail->gained) {
		r = until_committed(tail->dst_shard);
		fs->gains_pending--;
	}
	for (unsigned i = 0; r == 0 && i < 2; i++) {
		if (tail->child[i])
			r = until_committed(tail->child[i]->shards->pdata[0]);
	}
	tail->src_shard->blocked = false;
	/* The loss first: without the intent nobody would make up for it. In one object they go together. */
	if (r == 0 && tail->src_head != tail->src_shard)
		r = until_committed(tail->src_shard);
	if (r == 0 && is_lost(tail->src_head))
		r = -EIO;
	if (r == 0) {
		mf_dir_set_value(tail->src_head->dir, tail->src_head, tail->intent_key, NULL);
		r = until_committed(tail->src_head);
	}
	if (r == 0 && !is_lost(tail->dst_shard))
		mf_dir_set_value(tail->dst_shard->dir, tail->dst_shard, tail->gain_key, NULL);
	g_cond_broadcast(&tail->src_shard->cond);
	g_cond_broadcast(&tail->dst_shard->cond);
	mf_dir_unuse(tail->src_shard->dir);
	mf_dir_unuse(tail->dst_shard->dir);
	for (unsigned i = 0; i < 2; i++) {
		if (tail->child[i])
			mf_dir_unuse(tail->child[i]);
	}
	if (tail->root)
		mf_dir_unuse(tail->root);
	fs->reaping--;
	g_cond_broadcast(&fs->reap_cond);
	g_mutex_unlock(&fs->lock);
	g_free(tail->intent_key);
	g_free(tail->gain_key);
	g_free(tail);
}

/* No sweep after a crash may take it for an orphan of the directory that it came from. */
static int mark_moved(MfFs *fs, MfInode *inode)
{
	int r = mf_name_commit(inode);

	if (r < 0)
		return r;
	switch (inode->kind) {
	case MF_KIND_MESSAGE:
		r = mf_message_flush(fs, inode);
		return r < 0 ? r : mf_message_mark(fs, inode, 0);
	case MF_KIND_FILE:
		r = mf_file_flush(fs, inode);
		break;
	case MF_KIND_DIR:
		if (!inode->dir->created)
			r = mf_commit_wait(inode->dir->shards->pdata[0]);
		break;
	case MF_KIND_SUBDIR:
	case MF_KIND_SYMLINK:
		return 0;
	}
	if (r < 0)
		return r;
	g_autofree char *oid =
		inode->kind == MF_KIND_FILE ? mf_oid_file(inode->ino, 0) : mf_oid_dir(inode->ino, 0);
	g_autoptr(MfWop) wop = mf_wop_new();
	mf_wop_assert_exists(wop);
	mf_wop_setxattr(wop, MF_XATTR_PUBLISHED, "1", 1);
	g_mutex_unlock(&fs->lock);
	r = mf_pool_write(fs->pool, MF_POOL_META, oid, wop);
	g_mutex_lock(&fs->lock);
	return r;
}

static int encode_intent(struct op *op, GByteArray **ret)
{
	struct mf_intent_record rec = {
		.ino = op->from->inode->ino,
		.dst_dir = op->dst.dir->inode->ino,
		.src_key = op->src_key,
		.dst_key = op->dst_key,
	};
	g_autoptr(GByteArray) after = NULL;
	g_autoptr(GBytes) after_bytes = NULL;
	int r = 0;

	if (op->flags & RENAME_EXCHANGE) {
		MfInode *to = op->to->inode;
		struct mf_dirent_record dirent = {
			.kind = to->kind,
			.flags = to->linked ? MF_DIRENT_LINKED : 0,
			.ino = to->ino,
			.tag = op->to->tag,
			.attr = to->attr,
			.target = to->target,
		};
		r = mf_dirent_encode(&dirent, &after);
		if (r < 0)
			return r;
		after_bytes = g_bytes_new(after->data, after->len);
		rec.after = after_bytes;
	}
	return mf_intent_encode(&rec, ret);
}

/* The end of an earlier rename out of here, or out of where this one goes: their order is that of the renames. */
/* A split that is under way would part the name from its marker, or its intent. */
static int wait_for_splits(struct op *op)
{
	MfFs *fs = op->fs;
	int64_t deadline = g_get_monotonic_time() + fs->conf->op_timeout_ms * INT64_C(1000);

	while (op->src.dir->splitting || op->dst.dir->splitting) {
		if (!g_cond_wait_until(&fs->reap_cond, &fs->lock, deadline))
			return -ETIMEDOUT;
	}
	return 0;
}

static int wait_unblocked(struct op *op)
{
	MfFs *fs = op->fs;
	int64_t deadline = g_get_monotonic_time() + fs->conf->op_timeout_ms * INT64_C(1000);

	for (;;) {
		MfShard *src = mf_dir_shard(op->src.dir, op->src_key), *dst = mf_dir_shard(op->dst.dir, op->dst_key);
		if (!src->blocked && !dst->blocked)
			return 0;
		if (!g_cond_wait_until(src->blocked ? &src->cond : &dst->cond, &fs->lock, deadline))
			return -ETIMEDOUT;
	}
}

/* Is @ino what @dir lies in? Read in RADOS: under the lease of the root nobody else moves directories. */
static int is_ancestor(MfFs *fs, uint64_t ino, uint64_t dir)
{
	int r = 0;

	g_mutex_unlock(&fs->lock);
	while (r == 0 && dir != MF_ROOT_INO) {
		g_autofree char *oid = mf_oid_dir(dir, 0);
		g_autoptr(MfRop) rop = mf_rop_new();
		struct mf_dir_record rec;

		if (dir == ino) {
			r = 1;
			break;
		}
		mf_rop_xattrs(rop);
		r = mf_pool_read(fs->pool, MF_POOL_META, oid, rop);
		GBytes *bytes = r == 0 ? mf_rop_get_xattr(rop, MF_XATTR_RECORD) : NULL;
		if (r == 0 && (!bytes || mf_dir_record_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &rec) < 0))
			r = -EIO;
		if (r == 0) {
			dir = rec.parent;
			mf_dir_record_clear(&rec);
		}
	}
	g_mutex_lock(&fs->lock);
	return r;
}

/* The kernel's own check that a directory does not come to lie in itself knows only what this node has looked up. */
static int check_move(struct op *op)
{
	MfDir *to[2] = { op->dst.dir, op->src.dir };
	int r = 0;

	for (unsigned i = 0; op->moves_dir && r == 0 && i < 2; i++) {
		if (!op->child[i])
			continue;
		/* An ancestor that is new itself is not in RADOS yet. */
		if (!to[i]->created)
			r = mf_commit_wait(to[i]->shards->pdata[0]);
		if (r == 0)
			r = mf_commit_ancestors(to[i]);
		if (r == 0)
			r = is_ancestor(op->fs, op->child[i]->inode->ino, to[i]->inode->ino);
		if (r == 1)
			r = -EINVAL;
	}
	return r;
}

/* The objects of a plain file carry the epoch of the directory that it was in: the new one must not be below that. */
static int raise_epoch(MfDir *from, MfDir *to)
{
	MfFs *fs = to->fs;
	MfShard *head = to->shards->pdata[0];
	g_autofree char *oid = mf_oid_dir(to->inode->ino, 0);
	g_autoptr(MfWop) wop = mf_wop_new();
	struct mf_lease next;

	if (to->lease.epoch >= from->lease.epoch)
		return 0;
	/* No commit of it may be under way with the old one. */
	int r = mf_shard_claim(head);
	if (r < 0)
		return r;
	r = mf_lease_raise(fs->node, wop, &to->lease, from->lease.epoch, &next);
	g_mutex_unlock(&fs->lock);
	if (r == 0)
		r = mf_pool_write(fs->pool, MF_POOL_META, oid, wop);
	g_mutex_lock(&fs->lock);
	/* Raised or not: a second time does no harm. */
	if (r == 0)
		to->lease = next;
	mf_shard_release(head);
	return r == -ECANCELED ? -EAGAIN : r;
}

/* What nodes have of a file goes with it: file locks, and who has it open. */
static void moved(MfDir *from, MfDir *to, const MfInode *inode)
{
	if (from == to || mf_inode_is_dir(inode))
		return;
	mf_locks_moved(from, to, inode->ino);
	mf_opened_moved(from, to, inode);
}

static GByteArray *marker_from(const MfDir *dir)
{
	g_autofree char *text = g_strdup_printf("%016" G_GINT64_MODIFIER "x", dir->inode->ino);

	return g_byte_array_append(g_byte_array_new(), (const guint8 *)text, 16);
}

/* Called with rename_lock: one at a time, so two of them cannot wait for each other's directories. */
static int rename_two(struct op *op)
{
	MfFs *fs = op->fs;
	MfInode *inode = mf_inode_pin(op->from->inode);
	MfInode *other = op->to && op->flags & RENAME_EXCHANGE ? mf_inode_pin(op->to->inode) : NULL;
	MfShard *src_head = op->src.dir->shards->pdata[0];
	g_autoptr(GByteArray) intent = NULL;
	g_autofree char *intent_key = NULL, *gain_key = NULL;
	uint64_t id;
	int r = 0;

	r = check_move(op);
	/* While a gain is under way its source does not commit: two of them could wait for each other. */
	int64_t deadline = g_get_monotonic_time() + fs->conf->op_timeout_ms * INT64_C(1000);
	while (fs->gains_pending > 0 && r == 0) {
		if (!g_cond_wait_until(&fs->reap_cond, &fs->lock, deadline))
			r = -ETIMEDOUT;
	}
	/* What leads to the new place must be there before the old one lets go. */
	if (r == 0 && !op->dst.dir->created)
		r = mf_commit_wait(op->dst.dir->shards->pdata[0]);
	if (r == 0)
		r = mf_commit_ancestors(op->dst.dir);
	if (r == 0 && other && !op->src.dir->created)
		r = mf_commit_wait(op->src.dir->shards->pdata[0]);
	if (r == 0)
		r = find_both(op);
	if (r < 0)
		goto out;
	/* The note of a reference says where its name is made: it must be gone before the name is elsewhere. */
	r = mf_name_wait_reference(fs, op->from->tag);
	if (r == 0 && other)
		r = find_both(op);
	if (r == 0 && other && op->to)
		r = mf_name_wait_reference(fs, op->to->tag);
	if (r == 0)
		r = mark_moved(fs, inode);
	if (r == 0 && other)
		r = mark_moved(fs, other);
	if (r == 0 && inode->kind == MF_KIND_FILE)
		r = raise_epoch(op->src.dir, op->dst.dir);
	if (r == 0 && other && other->kind == MF_KIND_FILE)
		r = raise_epoch(op->dst.dir, op->src.dir);
	if (r == 0)
		r = mf_inode_number(fs, &id);
	if (r == 0)
		r = find_both(op);
	if (r == 0 && (op->from->inode != inode || (other && (!op->to || op->to->inode != other))))
		r = -ENOENT;
	if (r == 0)
		r = check(op);
	if (r == 0)
		r = encode_intent(op, &intent);
	if (r < 0)
		goto out;
	intent_key = mf_key_number(MF_KEY_INTENT, id);
	gain_key = mf_key_number(MF_KEY_GAIN, id);
	/* From the intent on no split begins: mf_rename_is_between(). That of the destination is looked at again below. */
	r = wait_for_splits(op);
	if (r == 0)
		r = find_both(op);
	if (r < 0)
		goto out;
	mf_dir_set_value(op->src.dir, src_head, intent_key, g_byte_array_ref(intent));
	r = mf_commit_wait(src_head);
	if (r == 0)
		r = mf_commit_wait_key(op->src.dir, op->src_key);
	if (r == 0)
		r = wait_unblocked(op);
	if (r == 0)
		r = find_both(op);
	if (r == 0 && op->dst.dir->splitting)
		r = -EAGAIN;
	if (r == 0 && (mf_dir_shard(op->src.dir, op->src_key)->blocked || mf_dir_shard(op->dst.dir, op->dst_key)->blocked))
		r = -EAGAIN;
	if (r == 0 && (op->from->inode != inode || (other && (!op->to || op->to->inode != other))))
		r = -ENOENT;
	if (r == 0)
		r = check(op);
	/* A process here may have made something in it meanwhile. */
	if (r == 0 && replaces_dir(op) && !(holds_over(op) && mf_name_is_removable(op->over)))
		r = -EAGAIN;
	if (r < 0) {
		mf_dir_set_value(op->src.dir, src_head, intent_key, NULL);
		goto out;
	}
	struct tail *tail = g_new0(struct tail, 1);
	tail->src_head = src_head;
	tail->src_shard = mf_dir_shard(op->src.dir, op->src_key);
	tail->dst_shard = mf_dir_shard(op->dst.dir, op->dst_key);
	tail->intent_key = g_steal_pointer(&intent_key);
	tail->gain_key = g_steal_pointer(&gain_key);
	for (unsigned i = 0; i < 2; i++) {
		tail->child[i] = op->moves_dir ? op->child[i] : NULL;
		if (tail->child[i])
			mf_dir_use(tail->child[i]);
	}
	if (op->moves_dir) {
		tail->root = fs->root->dir;
		mf_dir_use(tail->root);
	}
	mf_dir_use(op->src.dir);
	mf_dir_use(op->dst.dir);
	tail->src_shard->blocked = true;
	mf_dir_set_value(op->dst.dir, tail->dst_shard, tail->gain_key, marker_from(op->src.dir));
	apply(op, false, op->from->tag);
	moved(op->src.dir, op->dst.dir, inode);
	if (other)
		moved(op->dst.dir, op->src.dir, other);
	r = mf_commit_wait(tail->dst_shard);
	tail->gained = r == 0;
	fs->gains_pending += !tail->gained;
	fs->reaping++;
	mf_fs_work(fs, finish_tail, tail);
out:
	mf_inode_unpin(fs, inode);
	if (other)
		mf_inode_unpin(fs, other);
	return r;
}

static bool has_intent(MfShard *head)
{
	g_autoptr(GPtrArray) keys = mf_table_keys(head->dirty);

	for (unsigned i = 0; i < keys->len; i++) {
		if (g_str_has_prefix(keys->pdata[i], MF_KEY_INTENT))
			return true;
	}
	return false;
}

static bool has_value(const MfShard *shard, const char *prefix)
{
	GHashTableIter iter;
	gpointer key;

	g_hash_table_iter_init(&iter, shard->values);
	while (g_hash_table_iter_next(&iter, &key, NULL)) {
		if (g_str_has_prefix(key, prefix))
			return true;
	}
	return false;
}

static bool has_gain(const MfShard *shard)
{
	return has_value(shard, MF_KEY_GAIN);
}

bool mf_rename_is_pending(MfDir *dir)
{
	for (unsigned i = 0; i < dir->shards->len; i++) {
		if (has_gain(dir->shards->pdata[i]))
			return true;
	}
	return has_intent(dir->shards->pdata[0]);
}

bool mf_rename_is_between(MfDir *dir)
{
	for (unsigned i = 0; i < dir->shards->len; i++) {
		if (((MfShard *)dir->shards->pdata[i])->blocked)
			return true;
	}
	return has_value(dir->shards->pdata[0], MF_KEY_INTENT) || mf_rename_is_pending(dir);
}

int mf_rename_settle(MfDir *dir)
{
	MfFs *fs = dir->fs;
	int64_t deadline = g_get_monotonic_time() + fs->conf->op_timeout_ms * INT64_C(1000);

	for (unsigned i = 0; i < dir->shards->len; i++) {
		MfShard *shard = dir->shards->pdata[i];
		while (has_gain(shard)) {
			if (!g_cond_wait_until(&shard->cond, &fs->lock, deadline))
				return -ETIMEDOUT;
		}
	}
	/* Nor may an intent come to light again after its marker is gone. */
	return has_intent(dir->shards->pdata[0]) ? mf_commit_wait(dir->shards->pdata[0]) : 0;
}

/* ---- rename(2) ---- */

static void release_children(struct op *op)
{
	for (unsigned i = 0; i < 2; i++) {
		if (op->child[i])
			mf_dir_put(g_steal_pointer(&op->child[i]));
	}
	if (op->over)
		mf_dir_put(g_steal_pointer(&op->over));
	if (op->moves_dir)
		mf_dir_put(op->fs->root->dir);
	op->moves_dir = false;
}

/* The directory that goes, and those that get another name, and the root when that is in another parent. */
static int hold_children(struct op *op, bool *ret_waited)
{
	MfDentry *moves[2] = { op->from, op->flags & RENAME_EXCHANGE ? op->to : NULL };
	MfFs *fs = op->fs;
	enum mf_space space;
	MfDir *root;
	int r = 0;

	for (unsigned i = 0; i < 2; i++) {
		MfInode *inode = moves[i] ? moves[i]->inode : NULL;
		if (!inode || inode->kind != MF_KIND_DIR || (op->child[i] && op->child[i]->inode == inode))
			continue;
		*ret_waited = true;
		if (op->child[i])
			mf_dir_put(g_steal_pointer(&op->child[i]));
		if (op->src.dir != op->dst.dir && !op->moves_dir) {
			r = mf_dir_get(fs, fs->root, MF_LEASE_EXCLUSIVE, &root, &space);
			op->moves_dir = r == 0;
		}
		if (r == 0)
			r = mf_dir_get(fs, inode, MF_LEASE_EXCLUSIVE, &op->child[i], &space);
		return r;
	}
	if (replaces_dir(op) && !holds_over(op)) {
		*ret_waited = true;
		if (op->over)
			mf_dir_put(g_steal_pointer(&op->over));
		r = mf_dir_get(fs, op->to->inode, MF_LEASE_EXCLUSIVE, &op->over, &space);
	}
	return r;
}

/* Those of a directory lie in itself, under a lease of its own; only what is overwritten needs it. */
static int load_attr(MfFs *fs, MfInode *inode)
{
	return inode->kind == MF_KIND_DIR ? 0 : mf_attr_load(fs, inode);
}

static int run(struct op *op, bool *ret_two)
{
	for (;;) {
		int r = find_both(op);
		if (r < 0)
			return r;
		if (op->to && op->to->inode == op->from->inode)
			return 0; /* two names of one file: POSIX wants nothing done */
		if (op->from->inode->kind == MF_KIND_FILE && mf_dir_holds_messages(op->dst.dir, op->dst.space)) {
			r = mf_adopt(op->fs, op->from->inode);
			if (r == 0)
				r = find_both(op);
			if (r < 0)
				return r;
		}
		MfInode *from = mf_inode_pin(op->from->inode);
		r = load_attr(op->fs, from);
		if (r == 0)
			r = find_both(op);
		if (r == 0 && op->from->inode == from)
			r = check(op);
		uint64_t to_ino = r == 0 && op->to ? op->to->inode->ino : 0;
		if (r == 0 && to_ino) {
			MfInode *to = mf_inode_find(op->fs, to_ino);
			if (to) {
				mf_inode_pin(to);
				r = load_attr(op->fs, to);
				op->to = mf_dir_peek(op->dst.dir, op->dst_key);
				if (r == 0 && op->to && mf_inode_is_dir(to) && !(op->flags & RENAME_EXCHANGE))
					r = mf_name_check_rmdir(op->dst.dir, op->to);
				mf_inode_unpin(op->fs, to);
			}
		}
		/* All of that may have waited: everything as it was? */
		MfDentry *now_from = mf_dir_peek(op->src.dir, op->src_key);
		MfDentry *now_to = mf_dir_peek(op->dst.dir, op->dst_key);
		bool same = now_from && now_from->inode == from && (now_to ? now_to->inode->ino : 0) == to_ino;
		mf_inode_unpin(op->fs, from);
		if (r < 0)
			return r;
		if (!same)
			continue;
		op->from = now_from;
		op->to = now_to;
		/* What a directory says of itself changes with its name. That may wait, so look again. */
		bool waited = false;
		r = hold_children(op, &waited);
		if (r < 0)
			return r;
		if (waited)
			continue;
		bool local = op->from->local || (op->flags & RENAME_EXCHANGE && op->to->local);
		if (local && op->flags & RENAME_EXCHANGE && !(op->from->local && op->to->local))
			return -EOPNOTSUPP;
		if (local || mf_dir_shard(op->src.dir, op->src_key) == mf_dir_shard(op->dst.dir, op->dst_key))
			return rename_one(op);
		*ret_two = true;
		return 0;
	}
}

static int rename_held(struct op *op, uint64_t parent, uint64_t new_parent)
{
	MfFs *fs = op->fs;
	bool two = false;
	int r = mf_name_enter(fs, parent, MF_LEASE_EXCLUSIVE, &op->src);

	if (r < 0)
		return r;
	r = mf_name_enter(fs, new_parent, MF_LEASE_EXCLUSIVE, &op->dst);
	if (r < 0) {
		mf_name_leave(fs, &op->src);
		return r;
	}
	op->src_key = mf_key_entry(op->src.space, op->src_name);
	op->dst_key = mf_key_entry(op->dst.space, op->dst_name);
	MfDentry *from;
	r = mf_dir_find(op->src.dir, op->src.space, op->src_name, &from);
	if (r == 0)
		r = mf_lostlock_own(fs, parent, op->src_name, from->inode);
	if (r == 0)
		r = run(op, &two);
	if (two) {
		/* Ranks before the other locks; the look around is done again under it. */
		g_mutex_unlock(&fs->lock);
		g_mutex_lock(&fs->rename_lock);
		g_mutex_lock(&fs->lock);
		two = false;
		do {
			r = run(op, &two);
			if (two)
				r = rename_two(op);
		} while (r == -EAGAIN);
		g_mutex_unlock(&fs->rename_lock);
	}
	release_children(op);
	mf_name_leave(fs, &op->dst);
	mf_name_leave(fs, &op->src);
	g_clear_pointer(&op->src_key, g_free);
	g_clear_pointer(&op->dst_key, g_free);
	return r;
}

int mf_fs_rename(
	MfFs *fs, uint64_t parent, const char *name, uint64_t new_parent, const char *new_name, unsigned flags)
{
	struct op op = { .fs = fs, .src_name = name, .dst_name = new_name, .flags = flags };
	int r = mf_name_check(name);

	if (r == 0)
		r = mf_name_check(new_name);
	if (r < 0)
		return r;
	if (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	do
		r = rename_held(&op, parent, new_parent);
	while (mf_hold_again(fs, &r));
	return r;
}
