/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/sweep.h"

#include "sync/commit.h"
#include "sync/dir.h"
#include "sync/dotlock.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/locks.h"
#include "sync/reaper.h"
#include "sync/stray.h"
#include "sync/table.h"

#include <errno.h>

#define ANY_TAG UINT64_MAX
#define ASK_US (5 * G_USEC_PER_SEC)
#define AGAIN_US (30 * G_USEC_PER_SEC) /* after a sweep that did not come to its end; then twice that ... */
#define AGAIN_MAX_US (INT64_C(3600) * G_USEC_PER_SEC)

static bool has_name(MfFs *fs, uint64_t ino, uint64_t tag)
{
	const MfInode *inode = mf_inode_find(fs, ino);

	for (const MfDentry *name = inode ? inode->names : NULL; name; name = name->next_name) {
		if (tag == ANY_TAG || name->tag == tag)
			return true;
	}
	/* Deleted, and on its way out by the to-delete list. */
	return tag == ANY_TAG && inode && inode->pins > 0;
}

/* Does @dir_ino, once loaded, name the inode, with that reference? 1 yes, 0 no, nor will it after a crash. The load also
 * finishes renames and the to-delete list. */
static int is_named(MfFs *fs, uint64_t dir_ino, uint64_t ino, uint64_t tag)
{
	enum mf_space space;
	MfDir *dir;
	int r;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	MfInode *inode = mf_inode_find(fs, dir_ino);
	if (inode && !mf_inode_is_dir(inode))
		return 0;
	if (!inode)
		inode = mf_inode_new(fs, dir_ino, MF_KIND_DIR);
	mf_inode_pin(inode);
	r = mf_dir_get(fs, inode, MF_LEASE_SHARED, &dir, &space);
	if (r == 0) {
		r = mf_dir_complete(dir);
		if (r == 0)
			r = has_name(fs, ino, tag);
		/* A name that was removed just now is still in RADOS, and must not come back without its bytes. */
		if (r == 0 && dir->lease.mode == MF_LEASE_EXCLUSIVE) {
			r = mf_commit_dir(dir);
			if (r == 0)
				r = has_name(fs, ino, tag);
		}
		mf_dir_put(dir);
	}
	mf_inode_unpin(fs, inode);
	return r;
}

static int object_exists(MfFs *fs, uint64_t dir_ino)
{
	g_autofree char *oid = mf_oid_dir(dir_ino, 0);
	g_autoptr(MfRop) rop = mf_rop_new();

	mf_rop_xattrs(rop);
	int r = mf_pool_read(fs->pool, MF_POOL_META, oid, rop);
	return r == -ENOENT ? 0 : r < 0 ? r : 1;
}

/* What the object says of itself: the directory it was made in and its extent. -ENODATA: leave it alone. */
static int origin(enum mf_kind kind, MfRop *rop, uint64_t *ret_dir, uint64_t *ret_size)
{
	GBytes *bytes = mf_rop_get_xattr(rop, MF_XATTR_RECORD);
	int r = -EBADMSG;

	if (mf_rop_get_xattr(rop, MF_XATTR_PUBLISHED))
		return -ENODATA;
	if (!bytes)
		return -ENODATA;
	gsize len;
	const void *data = g_bytes_get_data(bytes, &len);
	if (kind == MF_KIND_MESSAGE) {
		struct mf_message_record rec;
		r = mf_message_record_decode(data, len, &rec);
		if (r == 0) {
			*ret_dir = rec.dir;
			*ret_size = rec.attr.size;
			mf_message_record_clear(&rec);
		}
	} else if (kind == MF_KIND_FILE) {
		struct mf_file_record rec;
		r = mf_file_record_decode(data, len, &rec);
		if (r == 0) {
			*ret_dir = rec.dir;
			*ret_size = rec.attr.size;
		}
	} else {
		struct mf_dir_record rec;
		r = mf_dir_record_decode(data, len, &rec);
		if (r == 0) {
			*ret_dir = rec.parent;
			*ret_size = 0;
			mf_dir_record_clear(&rec);
		}
	}
	return r;
}

static int sweep_object(MfFs *fs, enum mf_kind kind, uint64_t ino)
{
	enum mf_pool_which which = kind == MF_KIND_MESSAGE ? MF_POOL_DATA : MF_POOL_META;
	g_autofree char *oid = kind == MF_KIND_MESSAGE ? mf_oid_message(ino, 0) :
			       kind == MF_KIND_FILE    ? mf_oid_file(ino, 0) :
							 mf_oid_dir(ino, 0);
	uint64_t dir = 0, size = 0, asked = 0;

	for (bool again = true; again;) {
		g_autoptr(MfRop) rop = mf_rop_new();
		mf_rop_xattrs(rop);
		int r = mf_pool_read(fs->pool, which, oid, rop);
		if (r < 0)
			return r == -ENOENT ? 0 : r;
		r = origin(kind, rop, &dir, &size);
		if (r == -ENODATA || r == -EBADMSG || r == -EPROTONOSUPPORT)
			return 0;
		/* Who moves it says so in the object before the name leaves its directory. So what was read before the
		 * directory was asked must be read again. */
		again = dir != 0 && dir != asked;
		asked = dir;
		r = again ? object_exists(fs, dir) : 0;
		if (r == 1)
			r = is_named(fs, dir, ino, ANY_TAG);
		if (r != 0)
			return r < 0 ? r : 0;
	}
	g_debug("%s: no directory names it: removed", oid);
	return mf_reaper_remove(fs, kind, ino, 0, size);
}

/* Stripes of a message whose head was never written. */
static int sweep_stripes(MfFs *fs, uint64_t ino)
{
	g_autofree char *head = mf_oid_message(ino, 0);

	for (uint32_t k = 1;; k++) {
		g_autofree char *oid = mf_oid_message(ino, k);
		g_autoptr(MfRop) rop = mf_rop_new();
		g_autoptr(MfWop) wop = mf_wop_new();
		mf_rop_xattrs(rop);
		int r = mf_pool_read(fs->pool, MF_POOL_DATA, oid, rop);
		if (r < 0)
			return r == -ENOENT ? 0 : r;
		if (k == 1) {
			g_autoptr(MfRop) head_rop = mf_rop_new();
			mf_rop_xattrs(head_rop);
			r = mf_pool_read(fs->pool, MF_POOL_DATA, head, head_rop);
			if (r != -ENOENT)
				return r < 0 ? r : 0;
		}
		mf_wop_remove(wop);
		mf_wop_full_force(wop);
		r = mf_pool_write(fs->pool, MF_POOL_DATA, oid, wop);
		if (r < 0 && r != -ENOENT)
			return r;
	}
}

static bool stopping(MfFs *fs)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);

	return fs->stopping || mf_node_is_fenced(fs->node);
}

/* Does a name in the directory hold the reference? */
static int is_referenced(MfFs *fs, const struct mf_reference *reference)
{
	int r = object_exists(fs, reference->dir);

	return r == 1 ? is_named(fs, reference->dir, reference->ino, reference->tag) : r;
}

/* References taken for names that never came. Putting one that was not taken, or twice, changes nothing. */
static int sweep_references(MfFs *fs, uint32_t incarnation)
{
	g_autoptr(GArray) list = NULL;
	int r = mf_node_read_references(fs->node, incarnation, &list);

	for (unsigned i = 0; r == 0 && i < list->len; i++) {
		const struct mf_reference *reference = &g_array_index(list, struct mf_reference, i);
		r = is_referenced(fs, reference);
		if (r == 0) {
			r = mf_reaper_remove(fs, MF_KIND_MESSAGE, reference->ino, reference->tag, 0);
			if (r == 0)
				r = sweep_stripes(fs, reference->ino); /* if that was the last one */
		} else if (r == 1) {
			r = 0;
		}
	}
	return r;
}

static int sweep(MfFs *fs, uint32_t incarnation)
{
	struct mf_window window;
	int r = mf_node_read_window(fs->node, incarnation, &window), failed = 0;

	if (r == -ENOENT)
		return 0;
	/* One damaged directory must not keep the rest from being looked at. */
	for (uint64_t n = window.low; r == 0 && n < window.high; n++) {
		uint64_t ino = (uint64_t)incarnation << 32 | n;
		if (stopping(fs))
			return -EINTR;
		int rr = sweep_object(fs, MF_KIND_MESSAGE, ino);
		if (rr == 0)
			rr = sweep_stripes(fs, ino);
		if (rr == 0)
			rr = sweep_object(fs, MF_KIND_FILE, ino);
		if (rr == 0)
			rr = sweep_object(fs, MF_KIND_DIR, ino);
		if (rr < 0)
			failed = rr;
	}
	if (r == 0)
		r = failed;
	if (r == 0)
		r = sweep_references(fs, incarnation);
	return r < 0 ? r : mf_node_swept(fs->node, incarnation);
}

/* What waits for the end of nodes. */
static void check_dirs(MfFs *fs)
{
	g_autoptr(GPtrArray) dirs = g_ptr_array_new();

	for (GList *link = fs->dir_lru.head; link; link = link->next) {
		MfDir *dir = link->data;
		if (dir->lease.mode == MF_LEASE_EXCLUSIVE && !dir->draining && g_hash_table_size(dir->foreign_open) > 0)
			g_ptr_array_add(dirs, dir);
	}
	for (unsigned i = 0; i < dirs->len; i++) {
		MfDir *dir = dirs->pdata[i];
		g_autoptr(GPtrArray) inos = mf_table_keys(dir->foreign_open);
		for (unsigned n = 0; n < inos->len; n++)
			mf_reaper_released(dir, *(uint64_t *)inos->pdata[n]);
	}
}

void mf_sweep_ask(MfFs *fs, bool *wait)
{
	if (*wait)
		return;
	*wait = true;
	g_cond_broadcast(&fs->sweep_cond);
}

void *mf_sweep_thread(void *arg)
{
	MfFs *fs = arg;
	uint64_t seen = UINT64_MAX;
	int64_t again = INT64_MAX, ask = INT64_MAX, pause = AGAIN_US;
	g_autoptr(GArray) due = g_array_new(false, false, sizeof(uint32_t)); /* incarnations */

	g_mutex_lock(&fs->lock);
	while (!fs->stopping) {
		if ((fs->reaps_wait || fs->locks_wait || fs->local_wait) && ask == INT64_MAX)
			ask = g_get_monotonic_time() + ASK_US;
		if (g_get_monotonic_time() >= ask) {
			mf_reaper_ask_all(fs);
			mf_locks_ask(fs);
			mf_stray_ask(fs);
			ask = INT64_MAX;
			continue;
		}
		if (seen == fs->members_changed && g_get_monotonic_time() < again) {
			int64_t until = MIN(again, ask);
			if (until == INT64_MAX)
				g_cond_wait(&fs->sweep_cond, &fs->lock);
			else
				g_cond_wait_until(&fs->sweep_cond, &fs->lock, until);
			continue;
		}
		if (seen != fs->members_changed)
			pause = AGAIN_US;
		seen = fs->members_changed;
		again = INT64_MAX;
		mf_locks_check_owners(fs);
		mf_dotlock_check(fs);
		check_dirs(fs);
		g_mutex_unlock(&fs->lock);
		g_autoptr(GArray) list = mf_node_unswept(fs->node);
		g_array_append_vals(due, list->data, list->len);
		for (unsigned i = 0; i < due->len;) {
			uint32_t incarnation = g_array_index(due, uint32_t, i);
			int r = sweep(fs, incarnation);
			if (r == 0) {
				g_array_remove_index(due, i);
				continue;
			}
			if (r != -EINTR)
				g_info("incarnation %u: not all of what it left could be looked at (%s), later again",
					incarnation, g_strerror(-r));
			i++;
		}
		if (due->len > 0) {
			again = g_get_monotonic_time() + pause;
			pause = MIN(pause * 2, AGAIN_MAX_US);
		}
		g_mutex_lock(&fs->lock);
	}
	g_mutex_unlock(&fs->lock);
	return NULL;
}
