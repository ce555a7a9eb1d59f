/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lookup, and the operations that make or remove one name. */
#include "sync/name.h"

#include "sync/adopt.h"
#include "sync/attr.h"
#include "sync/commit.h"
#include "sync/dir.h"
#include "sync/file.h"
#include "sync/handle.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/kernel.h"
#include "sync/lostlock.h"
#include "sync/message.h"
#include "sync/opened.h"
#include "sync/reaper.h"
#include "sync/reopen.h"
#include "sync/rename.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define SYMLINK_MAX 4095u /* PATH_MAX less the NUL */

int mf_name_enter(MfFs *fs, uint64_t ino, enum mf_lease_mode mode, struct mf_parent *ret)
{
	int r = mf_inode_take(fs, ino, &ret->inode);

	if (r < 0)
		return r;
	r = ret->inode->removed ? -ENOENT : mf_dir_get(fs, ret->inode, mode, &ret->dir, &ret->space);
	if (r == 0 && ret->inode->removed) {
		mf_dir_put(ret->dir);
		r = -ENOENT;
	}
	if (r == -ESTALE && ret->inode->removed)
		r = -ENOENT; /* by another node */
	if (r < 0)
		mf_inode_unpin(fs, ret->inode);
	return r;
}

void mf_name_leave(MfFs *fs, struct mf_parent *parent)
{
	if (!parent->dir)
		return;
	mf_dir_put(g_steal_pointer(&parent->dir));
	mf_inode_unpin(fs, parent->inode);
}

/* Fills the answer and counts the kernel's reference. A directory has a lease of its own: @parent is left before it is
 * waited for. */
static int answer(MfFs *fs, struct mf_parent *parent, const char *key, MfInode *inode, struct mf_stat *ret)
{
	MfDir *named_in = mf_dir_pin(parent->dir), *own = NULL;
	MfInode *named_under = mf_inode_pin(parent->inode);
	int r;

	mf_inode_pin(inode);
	if (inode->kind == MF_KIND_DIR) {
		mf_name_leave(fs, parent);
		if (key)
			mf_kernel_leave(inode, named_under->ino, key + MF_KEY_PREFIX);
		r = mf_attr_hold(fs, inode, MF_LEASE_SHARED, &own);
	} else {
		r = mf_attr_load(fs, inode);
	}
	if (r == 0) {
		MfDentry *dentry = key ? mf_dir_peek(named_in, key) : NULL;
		mf_inode_stat(inode, ret);
		mf_kernel_answer(named_in, dentry && dentry->inode == inode ? key : NULL, inode, ret);
		if (inode->nlookup++ == 0)
			mf_inode_pin(inode);
		if (inode->kind == MF_KIND_DIR && inode->dir && key)
			mf_kernel_place(inode->dir, named_under, key + MF_KEY_PREFIX);
	}
	if (own)
		mf_dir_put(own);
	mf_inode_unpin(fs, inode);
	mf_inode_unpin(fs, named_under);
	mf_dir_unpin(named_in);
	return r;
}

int mf_fs_lookup(MfFs *fs, uint64_t parent, const char *name, uint32_t pid, struct mf_stat *ret)
{
	struct mf_parent p;
	MfDentry *dentry;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	int r = mf_name_enter(fs, parent, MF_LEASE_SHARED, &p);
	if (r < 0)
		return r;
	if (strcmp(name, ".") == 0) {
		r = answer(fs, &p, NULL, p.inode, ret);
	} else {
		r = mf_name_check(name);
		if (r == 0)
			r = mf_dir_find(p.dir, p.space, name, &dentry);
		if (r == 0) {
			g_autofree char *key = mf_key_entry(p.space, name);
			MfInode *inode = mf_inode_pin(dentry->inode);
			mf_reopen_found(p.dir, inode, pid);
			r = answer(fs, &p, key, inode, ret);
			mf_inode_unpin(fs, inode);
		}
	}
	if (r == 0 || r == -ENOENT)
		mf_lostlock_told(fs, parent, name);
	mf_name_leave(fs, &p);
	return r;
}

void mf_fs_forget(MfFs *fs, uint64_t ino, uint64_t nlookup)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	MfInode *inode = mf_inode_find(fs, ino);

	if (!inode || inode->nlookup == 0)
		return;
	inode->nlookup -= MIN(nlookup, inode->nlookup);
	if (inode->nlookup == 0)
		mf_inode_unpin(fs, inode);
}

/* ---- making ---- */

/* A number, then a last look whether the name is free; no wait between that and the addition. -EEXIST with *ret_found. */
static int prepare(MfFs *fs, struct mf_parent *p, const char *name, uint64_t *ret_ino, MfDentry **ret_found)
{
	int r = mf_name_check(name);

	if (r == 0)
		r = mf_attr_load(fs, p->inode);
	if (r == 0)
		r = mf_inode_number(fs, ret_ino);
	if (r < 0)
		return r;
	for (;;) {
		r = mf_dir_find(p->dir, p->space, name, ret_found);
		if (r == 0)
			return -EEXIST;
		if (r != -ENOENT)
			return r;
		if (p->inode->removed)
			return -ENOENT;
		/* The window of numbers that a sweep looks at may have passed it while we waited. */
		if ((uint32_t)*ret_ino >= fs->window_low)
			return 0;
		r = mf_inode_number(fs, ret_ino);
		if (r < 0)
			return r;
	}
}

static MfInode *make_file(
	MfFs *fs, struct mf_parent *p, const char *key, uint64_t ino, uint32_t mode, const struct mf_cred *cred)
{
	bool message = mf_dir_holds_messages(p->dir, p->space);
	bool local = message && p->space == MF_SPACE_TMP;
	MfInode *inode = mf_inode_new(fs, ino, message ? MF_KIND_MESSAGE : MF_KIND_FILE);

	mf_attr_init(p->inode, mode, cred, &inode->attr);
	inode->attr_loaded = inode->xattrs_loaded = true;
	mf_inode_unnamed(fs, inode);
	mf_dir_add(p->dir, key, inode, local, 0);
	if (message) {
		mf_message_start(fs, inode);
		/* Made where everybody looks: visible at once, sealed at its last close. */
		inode->published = inode->unsealed = !local;
		if (inode->unsealed)
			g_hash_table_add(p->dir->loaded, inode);
	} else {
		inode->published = true;
		inode->maker = cred->pid;
		mf_file_start(fs, inode);
	}
	if (!local)
		mf_dir_dirty(p->dir, key, false);
	mf_dir_touch(p->dir, key);
	mf_dir_shrink(fs);
	mf_file_shrink(fs);
	return inode;
}

int mf_fs_mknod(
	MfFs *fs, uint64_t parent, const char *name, uint32_t mode, const struct mf_cred *cred, struct mf_stat *ret)
{
	struct mf_parent p;
	MfDentry *found;
	uint64_t ino;

	if (!S_ISREG(mode))
		return -EOPNOTSUPP;
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	int r = mf_name_enter(fs, parent, MF_LEASE_EXCLUSIVE, &p);
	if (r < 0)
		return r;
	r = prepare(fs, &p, name, &ino, &found);
	if (r == 0) {
		g_autofree char *key = mf_key_entry(p.space, name);
		MfInode *inode = make_file(fs, &p, key, ino, mode, cred);
		/* Nobody has it open for writing, so it is complete; only in tmp it may still be opened. */
		inode->unsealed = false;
		r = answer(fs, &p, key, inode, ret);
	}
	mf_name_leave(fs, &p);
	return r;
}

int mf_fs_create(MfFs *fs, uint64_t parent, const char *name, uint32_t mode, int flags, const struct mf_cred *cred,
	struct mf_stat *ret, MfHandle **ret_handle)
{
	struct mf_parent p;
	MfDentry *found;
	uint64_t ino;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	int r = mf_name_enter(fs, parent, MF_LEASE_EXCLUSIVE, &p);
	if (r < 0)
		return r;
	r = prepare(fs, &p, name, &ino, &found);
	if (r == 0 || (r == -EEXIST && !(flags & O_EXCL))) {
		g_autofree char *key = mf_key_entry(p.space, name);
		bool made = r == 0;
		MfInode *inode = made ? make_file(fs, &p, key, ino, S_IFREG | (mode & 07777), cred) : found->inode;
		r = answer(fs, &p, key, inode, ret);
		if (r == 0) {
			r = mf_handle_open(fs, inode, flags, made, ret_handle);
			/* As with mknod(2): nobody can write to it, so no close of a writer would complete it. */
			if (made && (flags & O_ACCMODE) == O_RDONLY)
				inode->unsealed = false;
			if (r < 0 && --inode->nlookup == 0)
				mf_inode_unpin(fs, inode);
		}
	}
	mf_name_leave(fs, &p);
	return r;
}

static MfInode *make_dir(
	MfFs *fs, struct mf_parent *p, const char *name, uint64_t ino, uint32_t mode, const struct mf_cred *cred)
{
	g_autofree char *key = mf_key_entry(p->space, name);
	enum mf_space sub = p->space == MF_SPACE_SELF ? mf_space_of_name(name) : MF_SPACE_SELF;
	MfInode *inode = mf_inode_new(fs, ino, sub == MF_SPACE_SELF ? MF_KIND_DIR : MF_KIND_SUBDIR);

	mf_attr_init(p->inode, mode, cred, &inode->attr);
	inode->attr_loaded = inode->xattrs_loaded = true;
	if (sub == MF_SPACE_SELF) {
		mf_inode_unnamed(fs, inode);
		MfDir *dir = mf_dir_new(fs, inode, p->dir->inode->ino);
		mf_dir_add(p->dir, key, inode, false, 0);
		mf_dir_dirty(p->dir, key, false);
		mf_dir_dirty_record(dir);
	} else {
		inode->space = sub;
		inode->dir = p->dir;
		inode->nlink = 2;
		p->dir->sub[sub] = mf_inode_pin(inode);
		mf_dir_add(p->dir, key, inode, false, 0);
		mf_dir_dirty_record(p->dir);
	}
	mf_dir_touch(p->dir, key);
	return inode;
}

int mf_fs_mkdir(
	MfFs *fs, uint64_t parent, const char *name, uint32_t mode, const struct mf_cred *cred, struct mf_stat *ret)
{
	struct mf_parent p;
	MfDentry *found;
	uint64_t ino;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	int r = mf_name_enter(fs, parent, MF_LEASE_EXCLUSIVE, &p);
	if (r < 0)
		return r;
	r = prepare(fs, &p, name, &ino, &found);
	if (r == 0 && p.space == MF_SPACE_TMP && mf_dir_is_maildir(p.dir))
		r = -EOPNOTSUPP;
	if (r == 0) {
		g_autofree char *key = mf_key_entry(p.space, name);
		r = answer(fs, &p, key, make_dir(fs, &p, name, ino, S_IFDIR | (mode & 07777), cred), ret);
	}
	mf_name_leave(fs, &p);
	return r;
}

int mf_fs_symlink(MfFs *fs, uint64_t parent, const char *name, const char *target, const struct mf_cred *cred,
	struct mf_stat *ret)
{
	struct mf_parent p;
	MfDentry *found;
	uint64_t ino;

	if (strlen(target) > SYMLINK_MAX)
		return -ENAMETOOLONG;
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	int r = mf_name_enter(fs, parent, MF_LEASE_EXCLUSIVE, &p);
	if (r < 0)
		return r;
	r = prepare(fs, &p, name, &ino, &found);
	if (r == 0 && p.space == MF_SPACE_TMP && mf_dir_is_maildir(p.dir))
		r = -EOPNOTSUPP;
	if (r == 0) {
		g_autofree char *key = mf_key_entry(p.space, name);
		MfInode *inode = mf_inode_new(fs, ino, MF_KIND_SYMLINK);

		mf_attr_init(p.inode, S_IFLNK | 0777, cred, &inode->attr);
		inode->attr.size = strlen(target);
		inode->attr_loaded = inode->xattrs_loaded = inode->published = true;
		inode->target = g_strdup(target);
		mf_dir_add(p.dir, key, inode, false, 0);
		mf_dir_dirty(p.dir, key, false);
		mf_dir_touch(p.dir, key);
		r = answer(fs, &p, key, inode, ret);
	}
	mf_name_leave(fs, &p);
	return r;
}

int mf_fs_readlink(MfFs *fs, uint64_t ino, char **ret_target)
{
	MfInode *inode;

	/* A target never changes. */
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	int r = mf_inode_take(fs, ino, &inode);
	if (r < 0)
		return r;
	if (inode->kind == MF_KIND_SYMLINK)
		*ret_target = g_strdup(inode->target);
	else
		r = -EINVAL;
	mf_inode_unpin(fs, inode);
	return r;
}

void mf_name_add_record(MfDir *dir, const char *key, const struct mf_dirent_record *rec)
{
	MfInode *inode = mf_inode_find(dir->fs, rec->ino);

	if (!inode) {
		inode = mf_inode_new(dir->fs, rec->ino, rec->kind);
		inode->attr = rec->attr;
		inode->published = true;
		inode->linked = rec->flags & MF_DIRENT_LINKED;
		inode->attr_loaded =
			rec->kind == MF_KIND_SYMLINK || (rec->kind == MF_KIND_MESSAGE && !inode->linked);
		inode->target = g_strdup(rec->target);
	}
	mf_dir_add(dir, key, inode, false, rec->tag);
	mf_dir_dirty(dir, key, false);
}

void mf_name_publish(MfFs *fs, MfInode *inode)
{
	inode->published = true;
	inode->attr.ctime = MAX(mf_fs_now(), inode->attr.ctime + 1);
	mf_message_published(inode);
	if (!mf_message_is_dirty(inode))
		mf_message_seal(fs, inode);
}

/* ---- removing ---- */

void mf_name_drop(MfDir *dir, MfDentry *dentry)
{
	MfFs *fs = dir->fs;
	MfInode *inode = mf_inode_pin(dentry->inode);
	MfShard *shard = mf_dir_shard(dir, dentry->key);
	g_autofree char *key = g_strdup(dentry->key);
	uint64_t tag = dentry->tag;
	bool local = dentry->local;

	mf_dir_touch(dir, key);
	bool on_disk = mf_dir_remove(dir, dentry);
	bool last = inode->names == NULL && !(inode->kind == MF_KIND_MESSAGE && inode->linked && inode->nlink > 0);
	inode->removed = last;
	if (!inode->names && !inode->held_dir) {
		/* Its lease and its epoch are those of the directory for as long as it is open. */
		mf_inode_set_home(inode, dir);
		inode->held_dir = mf_dir_pin(dir);
	}
	if (inode->attr_loaded)
		inode->attr.ctime = MAX(mf_fs_now(), inode->attr.ctime + 1);
	/* Nobody else sees one without a name, but who has it open. */
	if (inode->attr_loaded && (!last || (inode->kind == MF_KIND_FILE && mf_opened_elsewhere(dir, inode->ino))))
		mf_attr_changed(inode);
	if (!local)
		mf_reaper_unlinked(shard, key, inode, tag, on_disk, last);
	else if (tag != 0 && inode->opens == 0)
		mf_name_referenced(fs, inode, dir, false, tag);
	else if (tag != 0)
		mf_reaper_unlinked(shard, key, inode, tag, false, last); /* at the last close */
	else if (last && !inode->published)
		mf_reaper_unlinked(shard, key, inode, tag, false, true);
	else
		mf_reaper_closed(fs, inode);
	mf_inode_unpin(fs, inode);
}

int mf_fs_unlink(MfFs *fs, uint64_t parent, const char *name)
{
	struct mf_parent p;
	MfDentry *dentry;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	int r = mf_name_enter(fs, parent, MF_LEASE_EXCLUSIVE, &p);
	if (r < 0)
		return r;
	r = mf_dir_find(p.dir, p.space, name, &dentry);
	while (r == 0 && (!mf_attr_is_loaded(dentry->inode) || (dentry->inode->kind == MF_KIND_FILE && dentry->inode->linked))) {
		/* How much there is to delete, and whether other names share it. */
		MfInode *inode = mf_inode_pin(dentry->inode);
		if (mf_inode_is_dir(inode)) {
			mf_inode_unpin(fs, inode);
			break;
		}
		r = mf_attr_load(fs, inode);
		bool same = r == 0 && mf_dir_find(p.dir, p.space, name, &dentry) == 0 && dentry->inode == inode;
		mf_inode_unpin(fs, inode);
		if (same)
			break;
		if (r == 0)
			r = mf_dir_find(p.dir, p.space, name, &dentry);
	}
	if (r == 0 && mf_inode_is_dir(dentry->inode))
		r = -EISDIR;
	if (r == 0)
		r = mf_lostlock_own(fs, parent, name, dentry->inode);
	if (r == 0)
		mf_name_drop(p.dir, dentry);
	mf_name_leave(fs, &p);
	return r;
}

static bool has_batch(const MfDir *dir)
{
	for (unsigned i = 0; i < dir->shards->len; i++) {
		const MfShard *shard = dir->shards->pdata[i];
		if (shard->batch || shard->busy || shard->blocked)
			return true;
	}
	return false;
}

static int wait_batch(MfFs *fs, MfDir *dir)
{
	int64_t deadline = g_get_monotonic_time() + fs->conf->op_timeout_ms * INT64_C(1000);

	for (unsigned i = 0; i < dir->shards->len; i++) {
		MfShard *shard = dir->shards->pdata[i];
		while (shard->batch || shard->busy || shard->blocked) {
			if (!g_cond_wait_until(&shard->cond, &fs->lock, deadline))
				return -ETIMEDOUT;
		}
	}
	return 0;
}

int mf_name_check_rmdir(MfDir *dir, MfDentry *dentry)
{
	MfFs *fs = dir->fs;
	MfInode *inode = mf_inode_pin(dentry->inode);
	enum mf_space space;
	MfDir *child;
	int r = mf_dir_get(fs, inode, MF_LEASE_EXCLUSIVE, &child, &space);

	if (r == 0) {
		if (inode->kind == MF_KIND_DIR)
			r = mf_rename_finish_foreign(child);
		/* Whatever waits makes it necessary to look again. */
		while (r == 0) {
			r = mf_dir_complete(child);
			if (r == 0 && !mf_dir_is_empty(child, space))
				r = -ENOTEMPTY;
			if (r < 0 || inode->kind == MF_KIND_SUBDIR)
				break;
			/* Its object must not appear after we said that it is gone. */
			if (mf_rename_is_pending(child))
				r = mf_rename_settle(child);
			else if (has_batch(child))
				r = wait_batch(fs, child);
			else
				break;
		}
		mf_dir_put(child);
	}
	mf_inode_unpin(fs, inode);
	return r;
}

bool mf_name_is_removable(MfDir *dir)
{
	return mf_dir_is_empty(dir, MF_SPACE_SELF) && !mf_rename_is_pending(dir) && !has_batch(dir);
}

void mf_name_drop_dir(MfDir *dir, MfDentry *dentry)
{
	MfFs *fs = dir->fs;
	MfInode *inode = mf_inode_pin(dentry->inode);
	MfShard *shard = mf_dir_shard(dir, dentry->key);
	g_autofree char *key = g_strdup(dentry->key);

	mf_dir_touch(dir, key);
	bool on_disk = mf_dir_remove(dir, dentry);
	inode->removed = true;
	inode->attr.ctime = MAX(mf_fs_now(), inode->attr.ctime + 1);
	if (inode->kind == MF_KIND_SUBDIR) {
		dir->sub[inode->space] = NULL;
		inode->dir = NULL;
		mf_inode_unpin(fs, inode);
	} else {
		mf_reaper_unlinked(shard, key, inode, 0, on_disk, true);
		if (inode->dir)
			mf_reaper_inherit(shard, key, inode->dir, on_disk);
		for (unsigned i = 0; inode->dir && i < inode->dir->shards->len; i++)
			mf_commit_forget(inode->dir->shards->pdata[i]);
	}
	mf_inode_unpin(fs, inode);
}

static int remove_dir(MfFs *fs, uint64_t parent, const char *name)
{
	struct mf_parent p;
	MfDentry *dentry;

	int r = mf_name_enter(fs, parent, MF_LEASE_EXCLUSIVE, &p);
	if (r < 0)
		return r;
	for (;;) {
		r = mf_dir_find(p.dir, p.space, name, &dentry);
		if (r < 0)
			break;
		if (!mf_inode_is_dir(dentry->inode)) {
			r = -ENOTDIR;
			break;
		}
		MfInode *inode = dentry->inode;
		uint64_t ino = inode->ino;
		r = mf_name_check_rmdir(p.dir, dentry);
		if (r < 0)
			break;
		g_autofree char *key = mf_key_entry(p.space, name);
		dentry = mf_dir_peek(p.dir, key);
		if (!dentry || dentry->inode->ino != ino)
			continue;
		mf_name_drop_dir(p.dir, dentry);
		break;
	}
	mf_name_leave(fs, &p);
	return r;
}

int mf_fs_rmdir(MfFs *fs, uint64_t parent, const char *name)
{
	int r;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	do
		r = remove_dir(fs, parent, name);
	while (mf_hold_again(fs, &r));
	return r;
}

/* ---- linking ---- */

int mf_name_commit(MfInode *inode)
{
	const MfDentry *name = inode->names;

	while (name && name->local)
		name = name->next_name;
	if (!inode->unnamed || !name)
		return 0;
	g_autofree char *key = g_strdup(name->key);
	MfDir *dir = mf_dir_pin(name->dir);
	int r = mf_commit_wait_key(dir, key);
	mf_dir_unpin(dir);
	return r;
}

int mf_name_reference(MfFs *fs, MfInode *inode, MfDir *dir, uint64_t *ret_tag)
{
	uint64_t tag;
	int r = mf_inode_number(fs, &tag);

	if (r == 0)
		r = mf_message_flush(fs, inode);
	if (r == 0)
		r = mf_attr_load(fs, inode);
	if (r == 0)
		r = mf_name_commit(inode);
	if (r < 0)
		return r;
	g_hash_table_add(fs->references, g_memdup2(&tag, sizeof(tag)));
	g_mutex_unlock(&fs->lock);
	r = mf_node_note_reference(fs->node, &(struct mf_reference){ tag, dir->inode->ino, inode->ino });
	g_mutex_lock(&fs->lock);
	if (r == 0)
		r = mf_message_mark(fs, inode, tag);
	if (r < 0) {
		mf_name_referenced(fs, inode, dir, false, tag); /* it may have been noted, and taken */
		return r;
	}
	if (!inode->linked) {
		/* From now on what is true of all its names lies with its bytes. */
		inode->nlink = 0;
		for (MfDentry *name = inode->names; name; name = name->next_name)
			inode->nlink += !name->local;
		inode->linked = true;
		/* What is in memory is the truth: nothing must be read again under this lease, least of all a count from which a
		 * reference is about to be taken back. */
		inode->attr_epoch = inode->dir ? inode->dir->lease.epoch : 0;
		mf_attr_changed(inode);
	}
	*ret_tag = tag;
	return 0;
}

struct referenced {
	struct mf_reference reference;
	MfDir *dir; /* a user of it */
	bool named; /* false: no name came of it */
	uint64_t size;
};

/* Without the lock. */
static int settle_reference(MfFs *fs, struct referenced *job)
{
	int r;

	if (job->named) {
		g_mutex_lock(&fs->lock);
		/* It may have another name in there by now. */
		r = mf_commit_dir(job->dir);
		g_mutex_unlock(&fs->lock);
	} else {
		r = mf_reaper_remove(fs, MF_KIND_MESSAGE, job->reference.ino, job->reference.tag, job->size);
	}
	return r < 0 ? r : mf_node_forget_reference(fs->node, &job->reference);
}

static void forget_reference(MfFs *fs, void *arg)
{
	struct referenced *job = arg;

	/* As long as the note is there the name must not go elsewhere: a sweep would take the reference for a lost one. */
	while (settle_reference(fs, job) < 0 && !mf_node_is_fenced(fs->node) && !mf_fs_is_closing(fs))
		g_usleep(G_USEC_PER_SEC);
	g_mutex_lock(&fs->lock);
	g_hash_table_remove(fs->references, &job->reference.tag);
	mf_dir_unpin(job->dir);
	fs->reaping--;
	g_cond_broadcast(&fs->reap_cond);
	g_mutex_unlock(&fs->lock);
	g_free(job);
}

void mf_name_referenced(MfFs *fs, MfInode *inode, MfDir *dir, bool named, uint64_t tag)
{
	struct referenced *job = g_new0(struct referenced, 1);

	job->reference = (struct mf_reference){ tag, dir->inode->ino, inode->ino };
	job->size = MAX(inode->attr.size, mf_message_extent(inode));
	job->dir = mf_dir_pin(dir);
	job->named = named;
	fs->reaping++;
	mf_fs_reap(fs, forget_reference, job);
}

int mf_name_wait_reference(MfFs *fs, uint64_t tag)
{
	int64_t deadline = g_get_monotonic_time() + fs->conf->op_timeout_ms * INT64_C(1000);

	while (g_hash_table_contains(fs->references, &tag)) {
		if (!g_cond_wait_until(&fs->reap_cond, &fs->lock, deadline))
			return -ETIMEDOUT;
	}
	return 0;
}

static int check_link(const MfInode *inode, const struct mf_parent *p)
{
	switch (inode->kind) {
	case MF_KIND_DIR:
	case MF_KIND_SUBDIR:
		return -EPERM;
	case MF_KIND_SYMLINK:
		return -EOPNOTSUPP;
	case MF_KIND_MESSAGE:
		return mf_dir_holds_messages(p->dir, p->space) ? 0 : -EXDEV;
	case MF_KIND_FILE:
		if (inode->dir != p->dir || mf_dir_holds_messages(p->dir, p->space))
			return -EXDEV;
		return 0;
	}
	return -EPERM;
}

/* Undoes a name whose commit failed for sure. */
static void withdraw(MfDir *dir, const char *key, MfInode *inode)
{
	MfDentry *dentry = mf_dir_peek(dir, key);

	if (dentry && dentry->inode == inode)
		mf_name_drop(dir, dentry);
	if (inode->unnamed && inode->naming == 0 && mf_inode_has_local_name(inode))
		inode->published = false;
}

static int link_locked(MfFs *fs, MfInode *inode, struct mf_parent *p, const char *name)
{
	g_autofree char *key = mf_key_entry(p->space, name);
	bool message = inode->kind == MF_KIND_MESSAGE;
	bool local = message && p->space == MF_SPACE_TMP;
	bool publish = message && !local;
	uint64_t tag = 0;
	MfDentry *found;
	int r = mf_name_check(name);

	if (r == 0 && mf_dir_holds_messages(p->dir, p->space))
		r = mf_adopt(fs, inode);
	if (r == 0)
		r = check_link(inode, p);
	if (r == 0)
		r = mf_attr_load(fs, inode);
	if (r == 0)
		r = mf_dir_find(p->dir, p->space, name, &found);
	if (r == 0)
		return -EEXIST;
	if (r != -ENOENT)
		return r;
	bool first = !inode->published;
	/* Also for a name in tmp: other nodes do not see that one, and may remove all the others. */
	if (message && !first) {
		r = mf_name_reference(fs, inode, p->dir, &tag);
		if (r < 0)
			return r;
	}
	/* That may have waited: look again. */
	r = mf_dir_find(p->dir, p->space, name, &found);
	if (r != -ENOENT || p->inode->removed || inode->removed) {
		if (tag != 0)
			mf_name_referenced(fs, inode, p->dir, false, tag);
		return r == 0 ? -EEXIST : r == -ENOENT ? -ENOENT : r;
	}
	mf_dir_add(p->dir, key, inode, local, tag);
	inode->removed = false;
	mf_dir_touch(p->dir, key);
	if (!local)
		mf_dir_dirty(p->dir, key, false);
	if (tag != 0 && !local)
		mf_name_referenced(fs, inode, p->dir, true, tag);
	if (publish && first)
		mf_name_publish(fs, inode);
	else
		inode->attr.ctime = MAX(mf_fs_now(), inode->attr.ctime + 1);
	if (inode->kind == MF_KIND_FILE) {
		/* Every name says that there are others. */
		inode->linked = true;
		for (MfDentry *n = inode->names; n; n = n->next_name)
			mf_dir_dirty_dentry(n);
		mf_attr_changed(inode);
	}
	if (!publish || !first)
		return 0;
	/* Postfix deletes its queue file on the strength of this link(2): durable when it returns. */
	r = mf_commit_wait_key(p->dir, key);
	if (r < 0 && r != -ETIMEDOUT)
		withdraw(p->dir, key, inode);
	return r < 0 ? r : mf_commit_ancestors(p->dir);
}

static int link_held(MfFs *fs, MfInode *inode, uint64_t parent, const char *name, struct mf_stat *ret)
{
	MfDir *home = NULL;
	struct mf_parent p;
	int r = mf_name_enter(fs, parent, MF_LEASE_EXCLUSIVE, &p);

	if (r < 0)
		return r;
	/* The name that it has may have to say that there are others now. */
	if (!mf_inode_is_dir(inode) && inode->dir && inode->dir != p.dir)
		r = mf_inode_hold(fs, inode, MF_LEASE_EXCLUSIVE, &home);
	if (r == 0)
		r = mf_inode_find_again(fs, inode);
	if (r == 0)
		r = link_locked(fs, inode, &p, name);
	if (home)
		mf_dir_put(home);
	if (r == 0)
		r = answer(fs, &p, NULL, inode, ret);
	mf_name_leave(fs, &p);
	return r;
}

int mf_fs_link(MfFs *fs, uint64_t ino, uint64_t parent, const char *name, struct mf_stat *ret)
{
	MfInode *inode;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	int r = mf_inode_take(fs, ino, &inode);
	if (r < 0)
		return r;
	do
		r = link_held(fs, inode, parent, name, ret);
	while (mf_hold_again(fs, &r));
	mf_inode_unpin(fs, inode);
	return r;
}
