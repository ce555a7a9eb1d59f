/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/dir.h"

#include "locking/stamp.h"
#include "sync/attr.h"
#include "sync/commit.h"
#include "sync/dotlock.h"
#include "sync/event.h"
#include "sync/file.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/kernel.h"
#include "sync/locks.h"
#include "sync/lost.h"
#include "sync/message.h"
#include "sync/opened.h"
#include "sync/reaper.h"
#include "sync/ring.h"
#include "sync/table.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define PAGE_ENTRIES 1000u /* what an OSD returns at once (osd_max_omap_entries_per_request allows 1024) */
#define FIND_TRIES 3
#define SHRINK_DIRS 64	   /* looked at in one go */
#define DENTRY_BYTES 320u  /* a name, its inode and their table slots, roughly */

/* ---- making and freeing ---- */

static MfShard *shard_new(MfDir *dir, const struct mf_shard_ref *ref)
{
	MfShard *shard = g_new0(MfShard, 1);

	shard->dir = dir;
	shard->ref = *ref;
	shard->dirty = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	shard->values = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_byte_array_unref);
	shard->dirty_files = g_hash_table_new(NULL, NULL);
	shard->reaped_names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	shard->doubted = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	g_cond_init(&shard->cond);
	g_ptr_array_add(dir->shards, shard);
	return shard;
}

static void shard_free(void *data)
{
	MfShard *shard = data;

	g_assert(!shard->queued && !shard->batch);
	g_hash_table_unref(shard->dirty);
	g_hash_table_unref(shard->values);
	g_hash_table_unref(shard->dirty_files);
	g_hash_table_unref(shard->reaped_names);
	g_hash_table_unref(shard->doubted);
	g_clear_pointer(&shard->were, g_hash_table_unref);
	g_cond_clear(&shard->cond);
	g_free(shard);
}

static MfDir *dir_alloc(MfFs *fs, MfInode *inode)
{
	MfDir *dir = g_new0(MfDir, 1);

	dir->fs = fs;
	dir->inode = inode;
	dir->shards = g_ptr_array_new_with_free_func(shard_free);
	dir->entries = g_hash_table_new(g_str_hash, g_str_equal);
	dir->waiters = g_array_new(false, false, sizeof(struct mf_waiter));
	dir->granted = g_array_new(false, false, sizeof(struct mf_lock_grant));
	dir->loaded = g_hash_table_new(NULL, NULL);
	dir->interested = g_array_new(false, false, sizeof(uint32_t));
	dir->uninterested = g_array_new(false, false, sizeof(uint32_t));
	dir->noted_open = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	dir->noted_locks = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	dir->foreign_open =
		g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, (GDestroyNotify)g_array_unref);
	g_cond_init(&dir->cond);
	dir->lru.data = dir;
	g_queue_push_head_link(&fs->dir_lru, &dir->lru);
	inode->dir = dir;
	fs->n_dirs++;
	return dir;
}

MfDir *mf_dir_shell(MfFs *fs, MfInode *inode)
{
	MfDir *dir = dir_alloc(fs, inode);

	shard_new(dir, &(struct mf_shard_ref){ 0 });
	return dir;
}

MfShard *mf_dir_add_shard(MfDir *dir, const struct mf_shard_ref *ref)
{
	return shard_new(dir, ref);
}

MfDir *mf_dir_new(MfFs *fs, MfInode *inode, uint64_t parent)
{
	MfDir *dir = dir_alloc(fs, inode);
	MfShard *head = shard_new(dir, &(struct mf_shard_ref){ 0 });

	dir->parent = parent;
	dir->next_shard = 1;
	dir->recovered = true;
	/* What mf_commit_new_object() will write. */
	dir->lease = (struct mf_lease){ MF_LEASE_EXCLUSIVE, mf_lease_first_epoch(fs->node), 0, 1 };
	dir->held_since = dir->used_at = g_get_monotonic_time();
	head->loaded = head->known = head->complete = true;
	head->rec.times[MF_SPACE_SELF] = (struct mf_shard_times){ 0, inode->attr.mtime, inode->attr.ctime };
	inode->attr_loaded = true;
	inode->nlink = 2;
	return dir;
}

void mf_inode_set_home(MfInode *inode, MfDir *dir)
{
	g_assert(!mf_inode_is_dir(inode));
	if (inode->dir == dir)
		return;
	if (inode->dir)
		g_hash_table_remove(inode->dir->loaded, inode);
	inode->dir = dir;
	if (dir && (inode->file || (inode->message && inode->unsealed)))
		g_hash_table_add(dir->loaded, inode);
}

/* Drops a name from memory only. */
static void detach(MfDir *dir, MfDentry *dentry)
{
	MfInode *inode = dentry->inode;
	MfDentry **link = &inode->names;

	while (*link != dentry)
		link = &(*link)->next_name;
	*link = dentry->next_name;
	if (!mf_inode_is_dir(inode) && inode->dir == dir && inode->held_dir != dir)
		mf_inode_set_home(inode, inode->names ? inode->names->dir : NULL);
	g_hash_table_remove(dir->entries, dentry->key);
	dir->n_local -= dentry->local;
	dir->fs->n_dentries--;
	if (dentry->local && !mf_inode_is_held(inode))
		g_hash_table_remove(dir->fs->held, inode);
	g_free(dentry);
}

static bool shard_is_clean(const MfShard *shard)
{
	return !shard->batch && !shard->queued && !shard->busy && !shard->blocked &&
	       g_hash_table_size(shard->dirty) == 0 && g_hash_table_size(shard->values) == 0 &&
	       g_hash_table_size(shard->dirty_files) == 0 && !shard->dirty_record;
}

static bool dir_is_clean(const MfDir *dir)
{
	for (unsigned i = 0; i < dir->shards->len; i++) {
		if (!shard_is_clean(dir->shards->pdata[i]))
			return false;
	}
	return true;
}

static void dir_free(MfDir *dir)
{
	MfFs *fs = dir->fs;

	for (enum mf_space s = MF_SPACE_CUR; s < MF_SPACES; s++) {
		MfInode *sub = g_steal_pointer(&dir->sub[s]);
		if (!sub)
			continue;
		if (sub->names)
			detach(dir, sub->names);
		sub->dir = NULL;
		mf_inode_unpin(fs, sub);
	}
	g_assert(!dir->acquiring && !dir->yielding);
	g_queue_unlink(&fs->dir_lru, &dir->lru);
	g_hash_table_unref(dir->entries);
	g_hash_table_unref(dir->loaded);
	g_hash_table_unref(dir->noted_open);
	g_hash_table_unref(dir->noted_locks);
	g_hash_table_unref(dir->foreign_open);
	g_clear_pointer(&dir->changers, g_hash_table_unref);
	g_clear_pointer(&dir->kernel_inos, g_hash_table_unref);
	g_clear_pointer(&dir->kernel_names, g_hash_table_unref);
	g_free(dir->kernel_place);
	/* No more than that: whoever frees directories is going through their list. */
	if (dir->kernel_parent)
		dir->kernel_parent->pins--;
	g_array_unref(dir->interested);
	g_array_unref(dir->uninterested);
	g_array_unref(dir->waiters);
	g_array_unref(dir->granted);
	g_cond_clear(&dir->cond);
	g_ptr_array_unref(dir->shards);
	if (dir->inode->dir == dir)
		dir->inode->dir = NULL;
	if (!dir->inode->dir && !dir->inode->removed)
		dir->inode->attr_loaded = false;
	g_free(dir);
	fs->n_dirs--;
}

/* Drops the names that nobody holds. @only NULL: of all shards. Clean directories only. */
static void drop_entries(MfDir *dir, const MfShard *only)
{
	g_autoptr(GPtrArray) dentries = mf_table_values(dir->entries);

	for (unsigned i = 0; i < dentries->len; i++) {
		MfDentry *dentry = dentries->pdata[i];
		MfInode *inode = dentry->inode;

		if (dentry->local || inode->pins > 0 || (inode->kind == MF_KIND_DIR && inode->dir))
			continue;
		MfShard *shard = mf_dir_shard(dir, dentry->key);
		if (only && shard != only)
			continue;
		shard->complete = false;
		detach(dir, dentry);
		mf_inode_settle(dir->fs, inode);
	}
}

void mf_dir_drop_unused(MfShard *shard)
{
	drop_entries(shard->dir, shard);
	shard->complete = false;
}

/* Times alone are worth a commit when the directory is to leave memory. Returns whether it must stay for that. */
static bool flush_times(MfDir *dir)
{
	bool any = false;

	if (dir->inode->removed || mf_node_is_fenced(dir->fs->node) || dir->lease.mode != MF_LEASE_EXCLUSIVE)
		return false;
	for (unsigned i = 0; i < dir->shards->len; i++) {
		MfShard *shard = dir->shards->pdata[i];
		if (!shard->dirty_times || shard->gone)
			continue;
		any = shard->times_due = true;
		mf_commit_queue(shard);
	}
	return any;
}

void mf_dir_free_if_unused(MfDir *dir)
{
	if (dir->users > 0 || dir->pins > 0 || dir->inode->pins > 0 || dir->acquiring || dir->yielding)
		return;
	for (enum mf_space s = MF_SPACE_CUR; s < MF_SPACES; s++) {
		if (dir->sub[s] && dir->sub[s]->pins > 1)
			return;
	}
	if (dir->inode->removed) {
		if (dir->n_local > 0)
			return;
		for (unsigned i = 0; i < dir->shards->len; i++) {
			MfShard *shard = dir->shards->pdata[i];
			if (shard->batch || shard->busy)
				return;
			mf_commit_forget(shard);
		}
	} else if (!dir_is_clean(dir)) {
		return;
	}
	/* A lock that ended is in the records until the lease goes. */
	if (dir->lease.mode == MF_LEASE_EXCLUSIVE && !dir->inode->removed && !dir->fs->stopping && mf_locks_any(dir))
		return;
	if (flush_times(dir))
		return;
	drop_entries(dir, NULL);
	unsigned subs = 0;
	for (enum mf_space s = MF_SPACE_CUR; s < MF_SPACES; s++)
		subs += dir->sub[s] != NULL;
	if (g_hash_table_size(dir->entries) > subs)
		return;
	dir_free(dir);
}

void mf_dir_shrink(MfFs *fs)
{
	GList *link = fs->dir_lru.tail;

	for (int n = 0; n < SHRINK_DIRS && link && fs->n_dentries * DENTRY_BYTES > fs->conf->cache_size / 2; n++) {
		MfDir *dir = link->data;
		link = link->prev;
		if (dir->users > 0 || dir->acquiring || dir->yielding || !dir_is_clean(dir) || flush_times(dir))
			continue;
		drop_entries(dir, NULL);
		/* What the kernel holds of it stays; others first the next time. */
		g_queue_unlink(&fs->dir_lru, &dir->lru);
		g_queue_push_head_link(&fs->dir_lru, &dir->lru);
		MfInode *inode = dir->inode;
		if (inode->pins == 0 && dir->pins == 0) {
			mf_dir_free_if_unused(dir);
			mf_inode_settle(fs, inode);
		}
	}
}

/* ---- loading ---- */

bool mf_dir_is_drained(const MfDir *dir)
{
	return dir->draining && dir->users == 0;
}

bool mf_dir_is_maildir(const MfDir *dir)
{
	return dir->sub[MF_SPACE_CUR] && dir->sub[MF_SPACE_NEW];
}

bool mf_dir_holds_messages(const MfDir *dir, enum mf_space space)
{
	return space != MF_SPACE_SELF && mf_dir_is_maildir(dir);
}

MfShard *mf_dir_shard(MfDir *dir, const char *key)
{
	enum mf_space space;

	if (dir->shards->len > 1 && mf_key_is_entry(key, &space)) {
		uint32_t hash = mf_name_hash(key + MF_KEY_PREFIX);
		for (unsigned i = 0; i < dir->shards->len; i++) {
			MfShard *shard = dir->shards->pdata[i];
			uint32_t mask = (1u << shard->ref.depth) - 1;
			if ((hash & mask) == shard->ref.prefix)
				return shard;
		}
	}
	return dir->shards->pdata[0];
}

MfInode *mf_dir_space_inode(MfDir *dir, enum mf_space space)
{
	return space == MF_SPACE_SELF ? dir->inode : dir->sub[space];
}

MfDentry *mf_dir_peek(MfDir *dir, const char *key)
{
	return g_hash_table_lookup(dir->entries, key);
}

static MfDentry *dentry_new(MfDir *dir, const char *key, MfInode *inode, bool local, uint64_t tag)
{
	size_t len = strlen(key) + 1;
	MfDentry *dentry = g_malloc(sizeof(*dentry) + len);

	*dentry = (MfDentry){ .inode = inode, .dir = dir, .next_name = inode->names, .tag = tag, .local = local };
	memcpy(dentry->key, key, len);
	inode->names = dentry;
	inode->stray = false;
	if (inode->kind == MF_KIND_SUBDIR)
		inode->dir = dir;
	else if (inode->kind != MF_KIND_DIR && !inode->held_dir)
		mf_inode_set_home(inode, dir);
	g_hash_table_insert(dir->entries, dentry->key, dentry);
	dir->n_local += local;
	dir->fs->n_dentries++;
	if (mf_inode_is_held(inode))
		g_hash_table_add(dir->fs->held, inode);
	return dentry;
}

/* Attributes that lie in the entry. */
static void renew_attr(MfFs *fs, MfInode *inode, const struct mf_dirent_record *rec)
{
	if (inode->unsealed && inode->kind == MF_KIND_MESSAGE && inode->writers == 0)
		mf_message_forget(fs, inode);
	inode->linked = rec->flags & MF_DIRENT_LINKED;
	inode->unsealed = rec->flags & MF_DIRENT_UNSEALED;
	if (inode->kind != MF_KIND_MESSAGE && inode->kind != MF_KIND_SYMLINK)
		return;
	struct mf_attr before = inode->attr;
	inode->attr = rec->attr;
	/* Its one writer is here, and what he has written is newer than any entry. */
	if (inode->unsealed && inode->writers > 0) {
		inode->attr.size = before.size;
		mf_attr_newer_times(&inode->attr, &before);
		return;
	}
	inode->attr_loaded = !inode->linked && !inode->unsealed;
}

/* All but hard-linked messages have their names in one directory. What is in memory of another one that we do not hold is
 * from before the inode moved here; or it is what a dead node did not come to remove, for who takes that lease to finish. */
static void drop_stale_names(MfInode *inode, const MfDir *dir, bool linked)
{
	mf_inode_pin(inode);
	for (MfDentry *name = inode->names, *next; name; name = next) {
		next = name->next_name;
		if (name->dir != dir && name->dir->lease.mode == MF_LEASE_NONE && !name->local &&
			!(inode->kind == MF_KIND_MESSAGE && linked)) {
			g_hash_table_add(mf_dir_shard(name->dir, name->key)->doubted, g_strdup(name->key));
			detach(name->dir, name);
		}
	}
	inode->pins--;
}

/* A name as read from RADOS; what is in memory already is newer. */
int mf_dir_attach(MfShard *shard, const struct mf_kv *kv)
{
	MfDir *dir = shard->dir;
	struct mf_dirent_record rec;
	enum mf_space space;

	if (!mf_key_is_entry(kv->key, &space) || mf_dir_shard(dir, kv->key) != shard)
		return 0;
	if (mf_dir_peek(dir, kv->key) || g_hash_table_contains(shard->dirty, kv->key) ||
		mf_batch_has_key(shard->batch, kv->key))
		return 0;
	int r = mf_dirent_decode(g_bytes_get_data(kv->value, NULL), g_bytes_get_size(kv->value), &rec);
	if (r < 0) {
		g_warning("d.%016" G_GINT64_MODIFIER "x: entry '%s' is damaged", dir->inode->ino, kv->key);
		return -EIO;
	}
	MfInode *inode = mf_inode_find(dir->fs, rec.ino);
	if (inode && inode->kind != rec.kind) {
		mf_dirent_clear(&rec);
		return -EIO;
	}
	if (inode)
		drop_stale_names(inode, dir, rec.flags & MF_DIRENT_LINKED);
	if (inode && !inode->names && !mf_inode_is_dir(inode)) {
		/* One that was here, or elsewhere, before other nodes moved it. */
		MfDir *held = g_steal_pointer(&inode->held_dir);
		mf_inode_set_home(inode, NULL);
		inode->removed = false;
		if (held)
			mf_dir_unpin(held);
		renew_attr(dir->fs, inode, &rec);
	}
	if (!inode) {
		inode = mf_inode_new(dir->fs, rec.ino, rec.kind);
		inode->attr = rec.attr;
		inode->attr_loaded = rec.kind == MF_KIND_SYMLINK || rec.kind == MF_KIND_MESSAGE;
		inode->published = true;
	}
	if (rec.flags & (MF_DIRENT_LINKED | MF_DIRENT_UNSEALED)) {
		inode->linked |= (rec.flags & MF_DIRENT_LINKED) != 0;
		inode->unsealed |= (rec.flags & MF_DIRENT_UNSEALED) != 0;
		if (!inode->message && inode->kind == MF_KIND_MESSAGE && inode->nlink == 0)
			inode->attr_loaded = false;
	}
	if (!inode->target)
		inode->target = g_steal_pointer(&rec.target);
	dentry_new(dir, kv->key, inode, false, rec.tag);
	mf_dotlock_seen(dir, kv->key, rec.kind, rec.ino);
	mf_dirent_clear(&rec);
	return 0;
}

int mf_dir_renew(MfShard *shard, const struct mf_kv *kv)
{
	MfDir *dir = shard->dir;
	MfDentry *dentry = mf_dir_peek(dir, kv->key);
	struct mf_dirent_record rec;

	int r = mf_dirent_decode(g_bytes_get_data(kv->value, NULL), g_bytes_get_size(kv->value), &rec);
	if (r < 0) {
		g_warning("d.%016" G_GINT64_MODIFIER "x: entry '%s' is damaged", dir->inode->ino, kv->key);
		return -EIO;
	}
	if (dentry && (dentry->inode->ino != rec.ino || dentry->inode->kind != rec.kind)) {
		mf_dir_vanish(shard, kv->key);
		dentry = NULL;
	}
	if (!dentry) {
		r = mf_dir_attach(shard, kv);
		dentry = mf_dir_peek(dir, kv->key);
	}
	/* Also of one that is here under another name still: it was renamed. */
	if (r == 0 && dentry) {
		dentry->tag = rec.tag;
		renew_attr(dir->fs, dentry->inode, &rec);
	}
	mf_dirent_clear(&rec);
	return r;
}

void mf_dir_vanish(MfShard *shard, const char *key)
{
	MfDir *dir = shard->dir;
	MfDentry *dentry = mf_dir_peek(dir, key);

	if (!dentry || dentry->local || dentry->inode->kind == MF_KIND_SUBDIR)
		return;
	MfInode *inode = mf_inode_pin(dentry->inode);
	mf_kernel_vanished(inode, dir, key);
	detach(dir, dentry);
	if (!inode->names && !mf_inode_is_dir(inode) && inode->pins > 1 && !inode->held_dir) {
		/* Somebody here uses it on. */
		mf_inode_set_home(inode, dir);
		inode->held_dir = mf_dir_pin(dir);
		inode->stray = true;
	}
	mf_inode_unpin(dir->fs, inode);
}

void mf_dir_forget_name(MfDentry *dentry)
{
	detach(dentry->dir, dentry);
}

void mf_dir_queue_shared(MfDir *dir)
{
	g_autoptr(GPtrArray) inodes = mf_table_keys(dir->loaded);

	for (unsigned i = 0; i < inodes->len; i++) {
		MfInode *inode = inodes->pdata[i];
		if (inode->kind == MF_KIND_MESSAGE) {
			/* Visible while it is being written: the others see it as it is now. */
			if (inode->unsealed && mf_message_is_dirty(inode))
				mf_attr_changed(inode);
		} else if (inode->removed && mf_file_is_dirty(inode)) {
			mf_dir_dirty_file(inode);
		}
	}
}

void mf_dir_unload(MfDir *dir)
{
	g_autoptr(GPtrArray) inodes = mf_table_keys(dir->loaded);

	for (unsigned i = 0; i < inodes->len; i++) {
		MfInode *inode = inodes->pdata[i];
		if (inode->kind == MF_KIND_MESSAGE)
			continue;
		/* One that only this node has open any more is nobody else's business. */
		if (inode->removed && !mf_opened_elsewhere(dir, inode->ino))
			continue;
		mf_file_unload(dir->fs, inode);
		inode->attr_loaded = false;
	}
}

uint64_t mf_shard_version(GBytes *last)
{
	char text[17] = "";

	memcpy(text, g_bytes_get_data(last, NULL), MIN(g_bytes_get_size(last), sizeof(text) - 1));
	return g_ascii_strtoull(text, NULL, 16);
}

int mf_shard_take_xattrs(MfShard *shard, MfRop *rop)
{
	GBytes *last = mf_rop_get_xattr(rop, MF_XATTR_LAST);
	GBytes *record = mf_rop_get_xattr(rop, MF_XATTR_SHARD);

	if (!last || !record || g_bytes_get_size(last) >= sizeof(shard->last) || g_bytes_get_size(last) < 16)
		return -EIO;
	memset(shard->last, 0, sizeof(shard->last));
	memcpy(shard->last, g_bytes_get_data(last, NULL), g_bytes_get_size(last));
	shard->version = mf_shard_version(last);
	if (mf_shard_record_decode(g_bytes_get_data(record, NULL), g_bytes_get_size(record), &shard->rec) < 0)
		return -EIO;
	return 0;
}

static void make_sub(MfDir *dir, enum mf_space space, uint64_t ino, const struct mf_attr *attr)
{
	MfInode *inode = mf_inode_find(dir->fs, ino);

	if (!inode)
		inode = mf_inode_new(dir->fs, ino, MF_KIND_SUBDIR);
	inode->attr = *attr;
	inode->attr_loaded = true;
	inode->space = space;
	inode->dir = dir;
	inode->nlink = 2;
	dir->sub[space] = mf_inode_pin(inode);
	g_autofree char *key = mf_key_entry(MF_SPACE_SELF, mf_space_name(space));
	dentry_new(dir, key, inode, false, 0);
}

/* Combines what the head and one shard say about times and subdirectories. */
void mf_dir_merge_record(MfDir *dir, const MfShard *shard)
{
	for (enum mf_space s = 0; s < MF_SPACES; s++) {
		const struct mf_shard_times *times = &shard->rec.times[s];
		MfInode *inode = mf_dir_space_inode(dir, s);

		if (!inode)
			continue;
		inode->nlink += shard->rec.n_subdirs[s];
		if (times->gen == dir->mtime_gen[s])
			inode->attr.mtime = MAX(inode->attr.mtime, times->mtime);
		inode->attr.ctime = MAX(inode->attr.ctime, times->ctime);
	}
}

/* cur, new and tmp as the record says. */
static void take_sub(MfDir *dir, enum mf_space space, uint64_t ino, const struct mf_attr *attr)
{
	MfInode *inode = dir->sub[space];

	if (inode && inode->ino != ino) {
		dir->sub[space] = NULL;
		if (inode->names)
			detach(dir, inode->names);
		inode->removed = true;
		inode->dir = NULL;
		mf_inode_unpin(dir->fs, inode);
		inode = NULL;
	}
	if (!ino)
		return;
	if (!inode) {
		make_sub(dir, space, ino, attr);
	} else {
		inode->attr = *attr;
		inode->attr_loaded = true;
		inode->nlink = 2;
	}
	dir->inode->nlink++;
}

static bool same_map(const MfDir *dir, const GArray *refs)
{
	if (dir->shards->len != refs->len)
		return false;
	for (unsigned i = 0; i < refs->len; i++) {
		const struct mf_shard_ref *ref = &g_array_index(refs, struct mf_shard_ref, i);
		bool found = false;
		for (unsigned n = 0; n < dir->shards->len; n++) {
			const struct mf_shard_ref *ours = &((MfShard *)dir->shards->pdata[n])->ref;
			found |= ours->id == ref->id && ours->depth == ref->depth && ours->prefix == ref->prefix;
		}
		if (!found)
			return false;
	}
	return true;
}

/* What is in memory under another map is to be looked at again, shard by shard. */
static void take_map(MfDir *dir, const GArray *refs)
{
	MfShard *head = dir->shards->pdata[0];

	if (same_map(dir, refs))
		return;
	g_ptr_array_set_size(dir->shards, 1);
	head->known = head->complete = false;
	for (unsigned i = 0; i < refs->len; i++) {
		const struct mf_shard_ref *ref = &g_array_index(refs, struct mf_shard_ref, i);
		if (ref->id == 0)
			head->ref = *ref;
		else
			shard_new(dir, ref);
	}
}

int mf_dir_take_head(MfDir *dir, MfRop *rop)
{
	GBytes *record = mf_rop_get_xattr(rop, MF_XATTR_RECORD);
	struct mf_dir_record rec;

	if (!record || mf_dir_record_decode(g_bytes_get_data(record, NULL), g_bytes_get_size(record), &rec) < 0)
		return -EIO;
	dir->inode->attr = rec.attr;
	dir->inode->nlink = 2;
	dir->inode->attr_loaded = true;
	dir->parent = rec.parent;
	dir->created = true;
	dir->next_shard = rec.next_shard;
	memcpy(dir->mtime_gen, rec.mtime_gen, sizeof(dir->mtime_gen));
	take_map(dir, rec.shards);
	for (enum mf_space s = MF_SPACE_CUR; s < MF_SPACES; s++)
		take_sub(dir, s, rec.sub[s].ino, &rec.sub[s].attr);
	mf_dir_record_clear(&rec);
	return 0;
}

int mf_shard_claim(MfShard *shard)
{
	MfFs *fs = shard->dir->fs;
	int64_t deadline = g_get_monotonic_time() + fs->conf->op_timeout_ms * INT64_C(1000);
	bool ok = true;

	shard->claims++;
	while (ok && (shard->busy || shard->batch) && !mf_node_is_fenced(fs->node))
		ok = g_cond_wait_until(&shard->cond, &fs->lock, deadline);
	shard->claims--;
	if (mf_node_is_fenced(fs->node))
		return -ESHUTDOWN;
	if (!ok) {
		mf_commit_kick(shard); /* what the claim held up */
		return -ETIMEDOUT;
	}
	shard->busy = true;
	return 0;
}

void mf_shard_release(MfShard *shard)
{
	shard->busy = false;
	g_cond_broadcast(&shard->cond);
	mf_commit_kick(shard);
}

int mf_shard_load(MfShard *shard)
{
	MfFs *fs = shard->dir->fs;
	int r = 0;

	if (shard->loaded)
		return 0;
	r = mf_shard_claim(shard);
	if (r < 0)
		return r;
	if (!shard->loaded) {
		g_autofree char *oid = mf_oid_dir(shard->dir->inode->ino, shard->ref.id);
		g_autofree char *after = mf_key_number(MF_KEY_CHANGE, shard->version);
		g_autoptr(MfRop) rop = mf_rop_new();

		mf_rop_xattrs(rop);
		mf_rop_omap_range(rop, "", MF_KEY_REAP, PAGE_ENTRIES);
		mf_rop_omap_range(rop, after, MF_KEY_CHANGE, MF_RING_CHANGES + 1);
		struct mf_lease lease = shard->dir->lease;
		g_mutex_unlock(&fs->lock);
		r = mf_lease_read(fs->pool, oid, &lease, rop);
		g_mutex_lock(&fs->lock);
		if (r == 0)
			r = mf_ring_catch_up(shard, rop, 1);
		if (r == 0) {
			shard->loaded = shard->known = true;
			mf_dir_merge_record(shard->dir, shard);
			mf_reaper_recover(shard, mf_rop_get_range(rop, 0, NULL));
		}
	}
	mf_shard_release(shard);
	return r == -ENOENT ? -EIO : r;
}

int mf_dir_load_records(MfDir *dir)
{
	for (unsigned i = 0; i < dir->shards->len; i++) {
		int r = mf_shard_load(dir->shards->pdata[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

int mf_shard_complete(MfShard *shard)
{
	MfFs *fs = shard->dir->fs;
	g_autofree char *oid = mf_oid_dir(shard->dir->inode->ino, shard->ref.id);
	g_autofree char *after = g_strdup("");
	int r = mf_shard_load(shard);

	if (r == 0)
		r = mf_shard_claim(shard);
	if (r < 0)
		return r;
	for (bool more = !shard->complete; more;) {
		g_autoptr(MfRop) rop = mf_rop_new();

		mf_rop_omap_range(rop, after, "", PAGE_ENTRIES);
		g_mutex_unlock(&fs->lock);
		r = mf_pool_read(fs->pool, MF_POOL_META, oid, rop);
		g_mutex_lock(&fs->lock);
		if (r < 0)
			break;
		GArray *kvs = mf_rop_get_range(rop, 0, &more);
		for (unsigned i = 0; r == 0 && i < kvs->len; i++)
			r = mf_dir_attach(shard, &g_array_index(kvs, struct mf_kv, i));
		if (r < 0)
			break;
		if (kvs->len > 0) {
			g_free(after);
			after = g_strdup(g_array_index(kvs, struct mf_kv, kvs->len - 1).key);
		} else if (more) {
			r = -EIO;
			break;
		}
		if (!more)
			shard->complete = true;
	}
	mf_shard_release(shard);
	return r == -ENOENT ? -EIO : r;
}

int mf_dir_complete(MfDir *dir)
{
	/* A split while we wait adds shards behind the ones we have seen; these are complete from the start. */
	for (unsigned i = 0; i < dir->shards->len; i++) {
		MfShard *shard = dir->shards->pdata[i];
		int r = shard->complete && shard->loaded ? 0 : mf_shard_complete(shard);
		if (r < 0)
			return r;
	}
	return 0;
}

int mf_dir_find(MfDir *dir, enum mf_space space, const char *name, MfDentry **ret_dentry)
{
	MfFs *fs = dir->fs;
	g_autofree char *key = mf_key_entry(space, name);

	for (int tries = 0;; tries++) {
		MfDentry *dentry = mf_dir_peek(dir, key);
		MfShard *shard = mf_dir_shard(dir, key);
		/* A busy folder: nobody else for once. A load that finishes a rename has the head to itself already. */
		bool claimed = tries >= FIND_TRIES && !dir->acquiring;
		int r = 0;

		/* Under an earlier lease it was in memory; what other nodes changed since comes first. */
		if (!shard->loaded && !(dentry && dentry->local)) {
			r = mf_shard_load(shard);
			if (r < 0)
				return r;
			continue;
		}
		if (dentry) {
			*ret_dentry = dentry;
			return 0;
		}
		if (shard->complete || g_hash_table_contains(shard->dirty, key) || mf_batch_has_key(shard->batch, key))
			return -ENOENT;
		g_autofree char *oid = mf_oid_dir(dir->inode->ino, shard->ref.id);
		g_autoptr(MfRop) rop = mf_rop_new();
		if (claimed) {
			r = mf_shard_claim(shard);
			if (r < 0)
				return r;
		}
		uint64_t seq = shard->seq;
		mf_rop_omap_key(rop, key);
		g_mutex_unlock(&fs->lock);
		r = mf_pool_read(fs->pool, MF_POOL_META, oid, rop);
		g_mutex_lock(&fs->lock);
		/* Changed meanwhile: what was read may be old. While the shard was ours, changes are still marked. */
		bool stale = mf_dir_shard(dir, key) != shard || mf_dir_peek(dir, key) || (!claimed && seq != shard->seq) ||
			     g_hash_table_contains(shard->dirty, key) || mf_batch_has_key(shard->batch, key);
		GBytes *value = r == 0 ? mf_rop_get_key(rop, key) : NULL;
		if (!stale && value)
			r = mf_dir_attach(shard, &(struct mf_kv){ key, value });
		if (claimed)
			mf_shard_release(shard);
		if (r < 0)
			return r == -ENOENT ? -EIO : r;
		if (!stale && !value)
			return -ENOENT;
	}
}

bool mf_dir_is_empty(MfDir *dir, enum mf_space space)
{
	GHashTableIter iter;
	gpointer key;

	g_hash_table_iter_init(&iter, dir->entries);
	while (g_hash_table_iter_next(&iter, &key, NULL)) {
		enum mf_space s;
		if (mf_key_is_entry(key, &s) && s == space)
			return false;
	}
	return true;
}

/* ---- changing ---- */

static bool is_embedded(const MfDentry *dentry)
{
	return dentry->inode->kind == MF_KIND_SUBDIR;
}

static void count_entry(MfDir *dir, const MfDentry *dentry, int delta)
{
	enum mf_space space = MF_SPACE_SELF;
	MfShard *shard = mf_dir_shard(dir, dentry->key);

	mf_key_is_entry(dentry->key, &space);
	if (mf_inode_is_dir(dentry->inode)) {
		mf_dir_space_inode(dir, space)->nlink += delta;
		if (!is_embedded(dentry))
			shard->rec.n_subdirs[space] += delta;
	}
	if (!dentry->local && !is_embedded(dentry))
		shard->rec.n_entries += delta;
}

MfDentry *mf_dir_add(MfDir *dir, const char *key, MfInode *inode, bool local, uint64_t tag)
{
	MfDentry *dentry = dentry_new(dir, key, inode, local, tag);

	if ((!local || tag != 0) && !mf_inode_is_dir(inode))
		inode->nlink++;
	count_entry(dir, dentry, 1);
	return dentry;
}

/* @ino, @kind: what the key led to before; 0: not known, or nothing. */
static bool dirty(MfDir *dir, const char *key, bool on_disk, uint64_t ino, enum mf_kind kind)
{
	MfShard *shard = mf_dir_shard(dir, key);
	enum mf_on_disk state = GPOINTER_TO_UINT(g_hash_table_lookup(shard->dirty, key));

	g_assert(dir->lease.mode == MF_LEASE_EXCLUSIVE && shard->loaded && !mf_dir_is_drained(dir));
	if (state == 0) {
		bool sets;
		if (mf_batch_key_state(shard->batch, key, &sets))
			on_disk = sets;
		state = on_disk ? MF_ON_DISK_YES : MF_ON_DISK_NO;
		g_hash_table_insert(shard->dirty, g_strdup(key), GUINT_TO_POINTER(state));
		if (on_disk && ino)
			mf_event_note(shard, key, ino, kind);
	}
	shard->seq++;
	mf_lost_note(dir);
	/* Made and gone again before anybody else could see it: nothing to commit. */
	if (state == MF_ON_DISK_NO && !mf_dir_peek(dir, key) && !g_hash_table_contains(shard->values, key) &&
		!mf_batch_has_key(shard->batch, key))
		g_hash_table_remove(shard->dirty, key);
	mf_commit_queue(shard);
	return state == MF_ON_DISK_YES;
}

bool mf_dir_remove(MfDir *dir, MfDentry *dentry)
{
	bool on_disk = false;
	MfInode *inode = dentry->inode;

	if ((!dentry->local || dentry->tag != 0) && !mf_inode_is_dir(inode))
		inode->nlink--;
	count_entry(dir, dentry, -1);
	g_autofree char *key = g_strdup(dentry->key);
	bool local = dentry->local, embedded = is_embedded(dentry);
	uint64_t ino = inode->ino;
	enum mf_kind kind = inode->kind;
	detach(dir, dentry);
	if (embedded)
		mf_dir_dirty_record(dir);
	else if (!local)
		on_disk = dirty(dir, key, true, ino, kind);
	return on_disk;
}

bool mf_dir_dirty(MfDir *dir, const char *key, bool on_disk)
{
	const MfDentry *dentry = on_disk ? mf_dir_peek(dir, key) : NULL;

	return dirty(dir, key, on_disk, dentry ? dentry->inode->ino : 0, dentry ? dentry->inode->kind : MF_KIND_FILE);
}

void mf_dir_dirty_dentry(MfDentry *dentry)
{
	if (is_embedded(dentry))
		mf_dir_dirty_record(dentry->dir);
	else if (!dentry->local)
		mf_dir_dirty(dentry->dir, dentry->key, true);
}

void mf_dir_set_value(MfDir *dir, MfShard *shard, const char *key, GByteArray *value)
{
	g_assert(dir->lease.mode == MF_LEASE_EXCLUSIVE);
	bool had = g_hash_table_contains(shard->values, key);
	enum mf_on_disk state = GPOINTER_TO_UINT(g_hash_table_lookup(shard->dirty, key));

	if (state == 0) {
		bool sets;
		if (mf_batch_key_state(shard->batch, key, &sets))
			had = sets;
		g_hash_table_insert(
			shard->dirty, g_strdup(key), GUINT_TO_POINTER(had ? MF_ON_DISK_YES : MF_ON_DISK_NO));
	}
	if (value)
		g_hash_table_replace(shard->values, g_strdup(key), value);
	else
		g_hash_table_remove(shard->values, key);
	shard->seq++;
	mf_commit_queue(shard);
}

void mf_dir_drop_value(MfDir *dir, MfShard *shard, const char *key)
{
	if (!g_hash_table_contains(shard->values, key))
		g_hash_table_insert(shard->values, g_strdup(key), g_byte_array_new());
	mf_dir_set_value(dir, shard, key, NULL);
}

void mf_dir_dirty_record(MfDir *dir)
{
	MfShard *head = dir->shards->pdata[0];

	g_assert(dir->lease.mode == MF_LEASE_EXCLUSIVE);
	head->dirty_record = true;
	head->seq++;
	mf_lost_note(dir);
	mf_commit_queue(head);
}

void mf_dir_dirty_file(MfInode *inode)
{
	MfDir *dir = inode->dir;

	/* Nobody else can see an unlinked file that only this node has open. */
	if (!dir || (!inode->names && !mf_opened_elsewhere(dir, inode->ino)))
		return;
	g_assert(dir->lease.mode == MF_LEASE_EXCLUSIVE);
	MfShard *head = dir->shards->pdata[0];
	if (g_hash_table_add(head->dirty_files, inode))
		mf_inode_pin(inode);
	head->seq++;
	mf_lost_note(dir);
	mf_commit_queue(head);
}

void mf_dir_touch(MfDir *dir, const char *key)
{
	enum mf_space space = MF_SPACE_SELF;
	MfShard *shard = mf_dir_shard(dir, key);

	mf_key_is_entry(key, &space);
	MfInode *inode = mf_dir_space_inode(dir, space);
	/* Strictly growing: Dovecot takes an equal mtime for "nothing changed". */
	int64_t now = MAX(mf_fs_now(), inode->attr.mtime + 1);
	inode->attr.mtime = now;
	inode->attr.ctime = MAX(now, inode->attr.ctime);
	shard->rec.times[space] = (struct mf_shard_times){ dir->mtime_gen[space], now, inode->attr.ctime };
	/* The end of a mount takes names out of tmp wherever the lease is. */
	shard->dirty_times |= dir->lease.mode == MF_LEASE_EXCLUSIVE && shard->loaded;
}
