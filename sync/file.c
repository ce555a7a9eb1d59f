/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/file.h"

#include "locking/stamp.h"
#include "sync/attr.h"
#include "sync/dir.h"
#include "sync/event.h"
#include "sync/inode.h"
#include "sync/xattr.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

struct stripe {
	GByteArray *data; /* may end before the stripe does: zeros follow; NULL: not in memory */
	size_t dirty_from, dirty_to;
	bool stored;  /* its object is there */
	bool stamped; /* ... with our epoch */
	bool cut;     /* the object is longer than data: truncate it first */
};

struct MfFile {
	GMutex lock;	 /* held across RADOS: it orders the writes to one file's objects */
	GArray *stripes; /* struct stripe; protected by lock */
	unsigned stored_stripes; /* objects that may be there; changed with both locks, read with either */
	uint64_t cut_size;	 /* smallest size since the last flush: what is beyond must go; protected by lock */
	bool stored;		 /* f.<ino>.0 is there; with both locks, as the next */
	bool maybe_stored;	 /* ... or may be: it was sent, whatever came back */
	bool dirty;		 /* protected by fs->lock */
	bool flushing;		 /* still dirty to everybody but the one who flushes; protected by fs->lock */
	bool dirty_attr;	 /* protected by fs->lock */
	uint64_t bytes;		 /* in memory; protected by fs->lock */
	GList lru;		 /* in fs->file_lru while bytes > 0; protected by fs->lock */
};

static void stripe_clear(void *data)
{
	g_clear_pointer(&((struct stripe *)data)->data, g_byte_array_unref);
}

static MfFile *file_new(MfInode *inode)
{
	MfFile *f = g_new0(MfFile, 1);

	g_mutex_init(&f->lock);
	f->stripes = g_array_new(false, true, sizeof(struct stripe));
	g_array_set_clear_func(f->stripes, stripe_clear);
	f->cut_size = UINT64_MAX;
	f->lru.data = inode;
	return f;
}

/* With fs->lock. */
static void account(MfFs *fs, MfFile *f, int64_t delta)
{
	bool had = f->bytes > 0;

	f->bytes += delta;
	fs->file_bytes += delta;
	if (had)
		g_queue_unlink(&fs->file_lru, &f->lru);
	if (f->bytes > 0)
		g_queue_push_head_link(&fs->file_lru, &f->lru);
}

static void account_unlocked(MfFs *fs, MfFile *f, int64_t delta)
{
	g_mutex_lock(&fs->lock);
	account(fs, f, delta);
	g_mutex_unlock(&fs->lock);
}

/* Its bytes are good under the lease of the directory only. */
static void attach_file(MfInode *inode)
{
	inode->file = file_new(inode);
	if (inode->dir)
		g_hash_table_add(inode->dir->loaded, inode);
}

void mf_file_start(MfFs *fs, MfInode *inode)
{
	attach_file(inode);
	inode->file->dirty = true;
}

void mf_file_free(MfFs *fs, MfInode *inode)
{
	MfFile *f = g_steal_pointer(&inode->file);

	if (inode->dir)
		g_hash_table_remove(inode->dir->loaded, inode);
	account(fs, f, -(int64_t)f->bytes);
	g_array_unref(f->stripes);
	g_mutex_clear(&f->lock);
	g_free(f);
}

void mf_file_unload(MfFs *fs, MfInode *inode)
{
	MfFile *f = inode->file;

	/* Nobody is in the middle of anything: the lease is being given up. */
	g_assert(!mf_file_is_dirty(inode));
	bool locked = g_mutex_trylock(&f->lock);
	g_assert(locked);
	g_array_set_size(f->stripes, 0);
	account(fs, f, -(int64_t)f->bytes);
	f->stored_stripes = 0;
	g_mutex_unlock(&f->lock);
}

bool mf_file_is_dirty(const MfInode *inode)
{
	return inode->file && (inode->file->dirty || inode->file->dirty_attr || inode->file->flushing);
}

uint64_t mf_file_extent(const MfInode *inode)
{
	return inode->file ? (uint64_t)inode->file->stored_stripes * MF_FILE_STRIPE : 0;
}

bool mf_file_may_be_stored(const MfInode *inode)
{
	return !inode->file || inode->file->stored || inode->file->maybe_stored;
}

bool mf_file_is_stored(const MfInode *inode)
{
	return !inode->file || inode->file->stored;
}

static struct stripe *stripe_at(MfFile *f, unsigned k)
{
	if (k >= f->stripes->len) {
		unsigned old = f->stripes->len;
		g_array_set_size(f->stripes, k + 1);
		for (; old <= k; old++)
			g_array_index(f->stripes, struct stripe, old).stored = old < f->stored_stripes;
	}
	return &g_array_index(f->stripes, struct stripe, k);
}

static unsigned stripe_count(uint64_t size)
{
	return (size + MF_FILE_STRIPE - 1) / MF_FILE_STRIPE;
}

/* ---- reading RADOS ---- */

static int lease_of(MfFs *fs, MfInode *inode, struct mf_lease *ret)
{
	int r = 0;

	g_mutex_lock(&fs->lock);
	if (inode->dir)
		*ret = inode->dir->lease;
	else
		r = -EIO;
	g_mutex_unlock(&fs->lock);
	return r;
}

/* Without a lease there are no others to mind: the file was removed, and its directory. */
static int read_object(MfFs *fs, const char *oid, const struct mf_lease *lease, MfRop *rop)
{
	return lease->mode == MF_LEASE_NONE ? mf_pool_read(fs->pool, MF_POOL_META, oid, rop) :
					      mf_lease_read(fs->pool, oid, lease, rop);
}

/* The kernel may ask for what has been removed; that an earlier life has it open is known to nobody. */
static int missing(const MfFs *fs, const MfInode *inode)
{
	return inode->names || (inode->opens > 0 && inode->opened_life == fs->life) ? -EIO : -ESTALE;
}

/* With f->lock: stripe @k in memory. */
static int load(MfFs *fs, MfInode *inode, unsigned k)
{
	MfFile *f = inode->file;
	struct stripe *s = stripe_at(f, k);
	struct mf_lease lease;

	if (s->data)
		return 0;
	if (!s->stored) {
		s->data = g_byte_array_new();
		return 0;
	}
	int r = lease_of(fs, inode, &lease);
	if (r < 0)
		return r;
	g_autofree char *oid = mf_oid_file(inode->ino, k);
	g_autoptr(MfRop) rop = mf_rop_new();
	mf_rop_xattrs(rop);
	mf_rop_read(rop, 0, MF_FILE_STRIPE);
	r = read_object(fs, oid, &lease, rop);
	if (r == -ENOENT && k > 0) {
		s->stored = false; /* a hole */
		s->data = g_byte_array_new();
		return 0;
	}
	if (r == -ENOENT) {
		g_mutex_lock(&fs->lock);
		r = missing(fs, inode);
		g_mutex_unlock(&fs->lock);
	}
	if (r < 0)
		return r;
	s->data = g_byte_array_new();
	gsize len;
	const void *bytes = g_bytes_get_data(mf_rop_get_data(rop), &len);
	g_byte_array_append(s->data, bytes, len);
	account_unlocked(fs, f, len);
	return 0;
}

int mf_file_load_attr(MfFs *fs, MfInode *inode)
{
	g_autofree char *oid = mf_oid_file(inode->ino, 0);
	g_autoptr(MfRop) rop = mf_rop_new();
	struct mf_file_record rec;
	struct mf_lease lease = inode->dir->lease;

	mf_rop_xattrs(rop);
	mf_inode_pin(inode);
	g_mutex_unlock(&fs->lock);
	int r = read_object(fs, oid, &lease, rop);
	g_mutex_lock(&fs->lock);
	if (r == 0 && !inode->attr_loaded) {
		GBytes *bytes = mf_rop_get_xattr(rop, MF_XATTR_RECORD);
		if (!bytes || mf_file_record_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &rec) < 0 ||
			rec.ino != inode->ino)
			r = -EIO;
		if (r == 0) {
			inode->attr = rec.attr;
			inode->attr_loaded = true;
			if (!inode->file)
				attach_file(inode);
			inode->file->stored = true;
			inode->file->stored_stripes = MAX(inode->file->stored_stripes, MAX(stripe_count(rec.attr.size), 1));
		}
	}
	if (r == -ENOENT)
		r = missing(fs, inode);
	if (r == -EIO)
		g_warning("%s: the attributes of the file cannot be read", oid);
	mf_inode_unpin(fs, inode);
	return r;
}

/* ---- changing memory; with f->lock ---- */

static void mark(struct stripe *s, size_t from, size_t to)
{
	if (s->dirty_to == s->dirty_from) {
		s->dirty_from = from;
		s->dirty_to = to;
	} else {
		s->dirty_from = MIN(s->dirty_from, from);
		s->dirty_to = MAX(s->dirty_to, to);
	}
}

static void grow(MfFs *fs, MfFile *f, struct stripe *s, size_t len)
{
	size_t old = s->data->len;

	if (len <= old)
		return;
	g_byte_array_set_size(s->data, len);
	memset(s->data->data + old, 0, len - old);
	mark(s, old, len); /* the object may be longer after a cut */
	account_unlocked(fs, f, len - old);
}

static void changed(MfFs *fs, MfInode *inode, uint64_t size, bool drop_suid)
{
	g_mutex_lock(&fs->lock);
	inode->attr.size = size;
	inode->attr.mtime = inode->attr.ctime = mf_fs_now();
	if (drop_suid)
		mf_attr_drop_suid(&inode->attr);
	inode->file->dirty = true;
	mf_dir_dirty_file(inode);
	g_mutex_unlock(&fs->lock);
}

static uint64_t size_of(MfFs *fs, MfInode *inode)
{
	g_mutex_lock(&fs->lock);
	uint64_t size = inode->attr.size;
	g_mutex_unlock(&fs->lock);
	return size;
}

static int flush(MfFs *fs, MfInode *inode);

ssize_t mf_file_write(
	MfFs *fs, MfInode *inode, const void *buf, size_t len, uint64_t offset, bool append, bool drop_suid)
{
	MfFile *f = inode->file;
	const uint8_t *from = buf;
	size_t done = 0;
	int r = 0;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&f->lock);
	uint64_t size = size_of(fs, inode);
	if (append)
		offset = size;
	if (offset > MF_FILE_MAX || len > MF_FILE_MAX - offset)
		return -EFBIG;
	while (done < len) {
		uint64_t at = offset + done;
		unsigned k = at / MF_FILE_STRIPE;
		size_t in = at % MF_FILE_STRIPE, n = MIN(len - done, MF_FILE_STRIPE - in);

		r = load(fs, inode, k);
		if (r < 0)
			break;
		struct stripe *s = stripe_at(f, k);
		grow(fs, f, s, in + n);
		memcpy(s->data->data + in, from + done, n);
		mark(s, in, in + n);
		done += n;
	}
	if (done == 0 && len > 0)
		return r;
	changed(fs, inode, MAX(size, offset + done), drop_suid);
	g_mutex_lock(&fs->lock);
	/* A full pool must show at write(2), and memory must not fill with what cannot be dropped. */
	bool through = g_atomic_int_get(&fs->full) || fs->file_bytes > fs->conf->cache_size / 2;
	g_mutex_unlock(&fs->lock);
	if (through) {
		r = flush(fs, inode);
		if (r == -ENOSPC)
			return r;
	}
	return done;
}

ssize_t mf_file_read(MfFs *fs, MfInode *inode, void *buf, size_t len, uint64_t offset)
{
	MfFile *f = inode->file;
	uint8_t *to = buf;
	size_t done = 0;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&f->lock);
	uint64_t size = size_of(fs, inode);
	if (offset >= size)
		return 0;
	len = MIN(len, size - offset);
	while (done < len) {
		uint64_t at = offset + done;
		unsigned k = at / MF_FILE_STRIPE;
		size_t in = at % MF_FILE_STRIPE, n = MIN(len - done, MF_FILE_STRIPE - in);
		int r = load(fs, inode, k);
		if (r < 0)
			return done > 0 ? (ssize_t)done : r;
		struct stripe *s = stripe_at(f, k);
		size_t have = in < s->data->len ? MIN(n, s->data->len - in) : 0;
		if (have > 0)
			memcpy(to + done, s->data->data + in, have);
		memset(to + done + have, 0, n - have);
		done += n;
	}
	return done;
}

int mf_file_truncate(MfFs *fs, MfInode *inode, uint64_t size)
{
	MfFile *f = inode->file;

	if (size > MF_FILE_MAX)
		return -EFBIG;
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&f->lock);
	uint64_t old = size_of(fs, inode);
	if (size < old) {
		unsigned n = stripe_count(size);
		size_t keep = size % MF_FILE_STRIPE;
		/* The stripe that is cut must be known, or its tail would come back when the file grows again. */
		if (keep > 0) {
			int r = load(fs, inode, n - 1);
			if (r < 0)
				return r;
			struct stripe *s = stripe_at(f, n - 1);
			if (s->data->len > keep) {
				account_unlocked(fs, f, -(int64_t)(s->data->len - keep));
				g_byte_array_set_size(s->data, keep);
				s->dirty_to = MIN(s->dirty_to, keep);
				s->dirty_from = MIN(s->dirty_from, s->dirty_to);
				s->cut = true;
			}
		}
		for (unsigned k = n; k < MAX(f->stripes->len, f->stored_stripes); k++) {
			struct stripe *s = stripe_at(f, k);
			if (s->data)
				account_unlocked(fs, f, -(int64_t)s->data->len);
			g_clear_pointer(&s->data, g_byte_array_unref);
			s->data = g_byte_array_new(); /* zeros from now on, whatever the object holds */
			s->dirty_from = s->dirty_to = 0;
			s->cut = true;
		}
		f->cut_size = MIN(f->cut_size, size);
	}
	changed(fs, inode, size, false);
	return 0;
}

int mf_file_zero(MfFs *fs, MfInode *inode, uint64_t offset, uint64_t len)
{
	MfFile *f = inode->file;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&f->lock);
	uint64_t size = size_of(fs, inode), end = MIN(offset + len, size);
	while (offset < end) {
		unsigned k = offset / MF_FILE_STRIPE;
		size_t in = offset % MF_FILE_STRIPE, n = MIN(end - offset, MF_FILE_STRIPE - in);
		int r = load(fs, inode, k);
		if (r < 0)
			return r;
		struct stripe *s = stripe_at(f, k);
		if (in < s->data->len) {
			size_t m = MIN(n, s->data->len - in);
			memset(s->data->data + in, 0, m);
			mark(s, in, in + m);
		}
		offset += n;
	}
	changed(fs, inode, size, false);
	return 0;
}

void mf_file_dirty_attr(MfInode *inode)
{
	inode->file->dirty_attr = true;
	mf_dir_dirty_file(inode);
}

/* ---- flushing; with f->lock ---- */

static int add_record(MfInode *inode, const struct mf_attr *attr, uint64_t size, uint64_t dir, MfWop *wop)
{
	struct mf_file_record rec = { .ino = inode->ino, .dir = dir, .attr = *attr };
	g_autoptr(GByteArray) bytes = NULL;

	rec.attr.size = size;
	int r = mf_file_record_encode(&rec, &bytes);
	if (r == 0)
		mf_wop_setxattr(wop, MF_XATTR_RECORD, bytes->data, bytes->len);
	return r;
}

struct snapshot {
	struct mf_attr attr;
	struct mf_lease lease;
	uint64_t dir;
};

/* One stripe's changes; for stripe 0 also the attributes with @size. @exclusive: the object is not there yet. */
static int write_stripe(MfFs *fs, MfInode *inode, unsigned k, const struct snapshot *snap, uint64_t size, bool exclusive)
{
	MfFile *f = inode->file;
	struct stripe *s = stripe_at(f, k);
	g_autofree char *oid = mf_oid_file(inode->ino, k);
	g_autoptr(MfWop) wop = mf_wop_new();
	int r = 0;

	if (exclusive) {
		char epoch[MF_EPOCH_TEXT];
		mf_wop_create(wop);
		mf_lease_epoch_text(snap->lease.epoch, epoch);
		mf_wop_setxattr(wop, MF_XATTR_EPOCH, epoch, MF_EPOCH_TEXT - 1);
	} else {
		mf_lease_guard(wop, &snap->lease, !s->stamped);
	}
	if (s->cut && s->data)
		mf_wop_truncate(wop, s->data->len); /* what grew again since is dirty, so it is written below */
	if (s->data && s->dirty_to > s->dirty_from) {
		g_autoptr(GBytes) bytes = g_bytes_new(s->data->data + s->dirty_from, s->dirty_to - s->dirty_from);
		mf_wop_write(wop, s->dirty_from, bytes);
	}
	if (k == 0) {
		r = add_record(inode, &snap->attr, size, snap->dir, wop);
		if (exclusive)
			mf_xattr_add(fs, inode, wop);
	}
	g_mutex_lock(&fs->lock);
	if (inode->dir && inode->dir->draining)
		mf_wop_full_force(wop); /* others wait for it */
	f->maybe_stored = true;
	f->stored_stripes = MAX(f->stored_stripes, k + 1);
	g_mutex_unlock(&fs->lock);
	if (r == 0)
		r = mf_fs_note(fs, mf_pool_write(fs->pool, MF_POOL_META, oid, wop));
	if (r == -EEXIST && exclusive)
		return write_stripe(fs, inode, k, snap, size, false); /* an earlier try came through */
	if (r == -ECANCELED) {
		g_critical("%s: another node has taken over: this mount is fenced", oid);
		mf_node_fence(fs->node);
		return -EIO;
	}
	if (r == 0) {
		s->stored = s->stamped = true;
		s->cut = false;
		s->dirty_from = s->dirty_to = 0;
		if (k == 0) {
			g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
			f->stored = true;
		}
	}
	return r;
}

/* Objects behind the smallest size of late: the size first, so that it never promises what is gone. */
static int remove_beyond(MfFs *fs, MfInode *inode, const struct snapshot *snap)
{
	MfFile *f = inode->file;
	unsigned keep = MAX(stripe_count(f->cut_size), 1);

	if (f->cut_size == UINT64_MAX || f->stored_stripes <= keep) {
		f->cut_size = UINT64_MAX;
		return 0;
	}
	int r = write_stripe(fs, inode, 0, snap, MIN(f->cut_size, snap->attr.size), !f->stored);
	for (unsigned k = f->stored_stripes; r == 0 && k > keep; k--) {
		g_autofree char *oid = mf_oid_file(inode->ino, k - 1);
		g_autoptr(MfWop) wop = mf_wop_new();
		mf_lease_guard(wop, &snap->lease, false);
		mf_wop_remove(wop);
		mf_wop_full_force(wop);
		r = mf_pool_write(fs->pool, MF_POOL_META, oid, wop);
		if (r == -ENOENT)
			r = 0;
		if (r == 0) {
			struct stripe *s = stripe_at(f, k - 1);
			s->stored = s->stamped = s->cut = false;
			g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
			f->stored_stripes = k - 1;
		}
	}
	if (r == 0)
		f->cut_size = UINT64_MAX;
	return r;
}

static int flush(MfFs *fs, MfInode *inode)
{
	MfFile *f = inode->file;
	struct snapshot snap = { 0 };
	int r = 0;

	g_mutex_lock(&fs->lock);
	bool modified = f->dirty, dirty = f->dirty || f->dirty_attr;
	f->dirty = f->dirty_attr = false;
	f->flushing = dirty;
	snap.attr = inode->attr;
	if (inode->dir) {
		snap.lease = inode->dir->lease;
		snap.dir = inode->dir->inode->ino;
	}
	g_mutex_unlock(&fs->lock);
	if (!dirty)
		return 0;
	if (mf_node_is_fenced(fs->node) || !snap.dir || snap.lease.mode == MF_LEASE_NONE)
		r = -EIO;
	if (r == 0)
		r = remove_beyond(fs, inode, &snap);
	for (unsigned k = 1; k < f->stripes->len && r == 0; k++) {
		struct stripe *s = stripe_at(f, k);
		if (s->dirty_to > s->dirty_from || (s->cut && s->stored))
			r = write_stripe(fs, inode, k, &snap, 0, !s->stored);
	}
	if (r == 0)
		r = write_stripe(fs, inode, 0, &snap, snap.attr.size, !f->stored);
	g_mutex_lock(&fs->lock);
	f->flushing = false;
	f->dirty |= r < 0;
	if (r == 0 && modified)
		mf_event_modified(inode);
	g_mutex_unlock(&fs->lock);
	return r;
}

int mf_file_flush(MfFs *fs, MfInode *inode)
{
	MfFile *f = inode->file;

	if (!f)
		return 0;
	mf_inode_pin(inode);
	g_mutex_unlock(&fs->lock);
	g_mutex_lock(&f->lock);
	int r = flush(fs, inode);
	g_mutex_unlock(&f->lock);
	g_mutex_lock(&fs->lock);
	mf_inode_unpin(fs, inode);
	return r;
}

void mf_file_shrink(MfFs *fs)
{
	GList *link = fs->file_lru.tail;

	while (link && fs->file_bytes > fs->conf->cache_size / 4) {
		MfInode *inode = link->data;
		MfFile *f = inode->file;

		link = link->prev;
		if (f->dirty || f->dirty_attr || f->flushing || !g_mutex_trylock(&f->lock))
			continue;
		for (unsigned k = 0; k < f->stripes->len; k++)
			g_clear_pointer(&stripe_at(f, k)->data, g_byte_array_unref);
		account(fs, f, -(int64_t)f->bytes);
		g_mutex_unlock(&f->lock);
	}
}
