/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/message.h"

#include "store/codec.h"
#include "store/refcount.h"
#include "sync/attr.h"
#include "sync/dir.h"
#include "sync/inode.h"
#include "sync/stripecache.h"
#include "sync/xattr.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

#define KEEP_STRIPES 2u		    /* of one being written, in memory */
#define RANGE_READ_MAX (256u << 10) /* smaller reads of a checked stripe fetch only their blocks */

struct stripe {
	GByteArray *plain; /* may end before the stripe does: zeros follow */
	bool dirty;
	bool stored;  /* its object is there */
	bool checked; /* against its digest, since this inode is in memory */
	bool known;   /* digest is valid */
	uint8_t digest[MF_DIGEST_LEN];
};

struct MfMessage {
	GMutex lock;	  /* held across RADOS: it orders the writes to one message's objects */
	GArray *stripes;  /* struct stripe; protected by lock */
	uint64_t size;	  /* protected by lock; while writing the authority, copied to attr.size */
	bool writing;	  /* protected by lock; buffers are the authority, not RADOS */
	bool stored;	  /* m.<ino> is there */
	bool maybe_stored; /* ... or may be: it was sent, whatever came back */
	bool dirty;	  /* written to since the last flush; protected by fs->lock */
	bool flushing;	  /* still dirty to everybody but the one who flushes; protected by fs->lock */
	unsigned stored_stripes; /* objects beyond the end must be removed */
	EVP_MD_CTX *sum;  /* of all stripes before summed; protected by lock */
	unsigned summed;
	uint64_t header_dir; /* as the stored header says; protected by fs->lock */
	bool sum_broken;  /* something before was written again */
};

static void stripe_clear(void *data)
{
	g_clear_pointer(&((struct stripe *)data)->plain, g_byte_array_unref);
}

static MfMessage *message_new(void)
{
	MfMessage *m = g_new0(MfMessage, 1);

	g_mutex_init(&m->lock);
	m->stripes = g_array_new(false, true, sizeof(struct stripe));
	g_array_set_clear_func(m->stripes, stripe_clear);
	return m;
}

void mf_message_start(MfFs *fs, MfInode *inode)
{
	inode->message = message_new();
	inode->message->writing = true;
	inode->message->dirty = true;
}

static struct stripe *stripe_at(MfMessage *m, unsigned k)
{
	if (k >= m->stripes->len)
		g_array_set_size(m->stripes, k + 1);
	return &g_array_index(m->stripes, struct stripe, k);
}

static void drop_plain(MfFs *fs, struct stripe *s)
{
	if (!s->plain)
		return;
	g_mutex_lock(&fs->lock);
	fs->write_bytes -= s->plain->len;
	g_mutex_unlock(&fs->lock);
	g_clear_pointer(&s->plain, g_byte_array_unref);
}

void mf_message_free(MfFs *fs, MfInode *inode)
{
	MfMessage *m = g_steal_pointer(&inode->message);

	for (unsigned i = 0; i < m->stripes->len; i++) {
		struct stripe *s = stripe_at(m, i);
		if (s->plain && m->writing)
			fs->write_bytes -= s->plain->len;
	}
	g_array_unref(m->stripes);
	EVP_MD_CTX_free(m->sum);
	g_mutex_clear(&m->lock);
	g_free(m);
}

bool mf_message_is_dirty(const MfInode *inode)
{
	return inode->message && inode->message->writing && (inode->message->dirty || inode->message->flushing);
}

uint64_t mf_message_extent(const MfInode *inode)
{
	return inode->message ? (uint64_t)inode->message->stored_stripes * MF_STRIPE_SIZE : 0;
}

bool mf_message_may_be_stored(const MfInode *inode)
{
	return !inode->message || !inode->message->writing || inode->message->maybe_stored;
}

bool mf_message_is_stored(const MfInode *inode)
{
	return !inode->message || !inode->message->writing || inode->message->stored;
}

bool mf_message_is_writable(const MfInode *inode)
{
	return inode->message && inode->message->writing && (!inode->published || inode->unsealed);
}

/* Plain bytes in stripe @k of a message of @size bytes. */
static size_t stripe_len(uint64_t size, unsigned k)
{
	uint64_t start = (uint64_t)k * MF_STRIPE_SIZE;

	return size <= start ? 0 : MIN(size - start, MF_STRIPE_SIZE);
}

static unsigned stripe_count(uint64_t size)
{
	return (size + MF_STRIPE_SIZE - 1) / MF_STRIPE_SIZE;
}

static int damaged(MfFs *fs, MfInode *inode, unsigned k, const char *why)
{
	g_autofree char *path = NULL;

	g_mutex_lock(&fs->lock);
	path = mf_inode_path(fs, inode);
	g_mutex_unlock(&fs->lock);
	g_warning("message %s (inode %016" G_GINT64_MODIFIER "x, stripe %u) is damaged: %s", path, inode->ino, k, why);
	return -EIO;
}

/* Reads and checks one whole stripe. @digest NULL: the caller has none yet. */
static int fetch(MfFs *fs, MfInode *inode, unsigned k, MfRop *rop, size_t len, const uint8_t *digest, GBytes **ret)
{
	g_autofree char *oid = mf_oid_message(inode->ino, k);
	struct mf_codec_header header;

	mf_rop_read(rop, 0, mf_codec_bound(len));
	int r = mf_pool_read(fs->pool, MF_POOL_DATA, oid, rop);
	if (r == -ENOENT)
		return damaged(fs, inode, k, "its object is missing");
	if (r < 0)
		return r;
	gsize object_len;
	const void *object = g_bytes_get_data(mf_rop_get_data(rop), &object_len);
	g_autofree uint8_t *plain = g_try_malloc(MAX(len, 1));
	if (!plain)
		return -ENOMEM;
	r = mf_codec_header_decode(object, object_len, &header);
	if (r == 0)
		r = mf_codec_decode(object, object_len, inode->ino, k, plain, len);
	if (r == -ENOMEM)
		return r;
	if (r < 0)
		return damaged(fs, inode, k, "it does not decode to the bytes its digest promises");
	if (digest && memcmp(digest, header.sha256, MF_DIGEST_LEN) != 0)
		return damaged(fs, inode, k, "its digest is not that of the message");
	*ret = g_bytes_new_take(g_steal_pointer(&plain), len);
	return 0;
}

/* ---- writing; with m->lock ---- */

static int load_plain(MfFs *fs, MfInode *inode, unsigned k)
{
	MfMessage *m = inode->message;
	struct stripe *s = stripe_at(m, k);

	if (s->plain)
		return 0;
	if (s->stored) {
		g_autoptr(MfRop) rop = mf_rop_new();
		g_autoptr(GBytes) plain = NULL;
		int r = fetch(fs, inode, k, rop, stripe_len(m->size, k), s->digest, &plain);
		if (r < 0)
			return r;
		s->plain = g_bytes_unref_to_array(g_steal_pointer(&plain));
	} else {
		s->plain = g_byte_array_new();
	}
	g_mutex_lock(&fs->lock);
	fs->write_bytes += s->plain->len;
	g_mutex_unlock(&fs->lock);
	return 0;
}

static void grow(MfFs *fs, struct stripe *s, size_t len)
{
	size_t old = s->plain->len;

	if (len <= old)
		return;
	g_byte_array_set_size(s->plain, len);
	memset(s->plain->data + old, 0, len - old);
	g_mutex_lock(&fs->lock);
	fs->write_bytes += len - old;
	g_mutex_unlock(&fs->lock);
}

static enum mf_codec codec_of(MfFs *fs)
{
	return fs->conf->compression == MF_CONF_COMPRESSION_LZ4 ? MF_CODEC_LZ4 : MF_CODEC_NONE;
}

static int encode_stripe(MfFs *fs, MfInode *inode, unsigned k, GBytes **ret_object)
{
	MfMessage *m = inode->message;
	int r = load_plain(fs, inode, k);

	if (r < 0)
		return r;
	struct stripe *s = stripe_at(m, k);
	grow(fs, s, stripe_len(m->size, k));
	r = mf_codec_encode(codec_of(fs), inode->ino, k, s->plain->data, s->plain->len, ret_object, s->digest);
	s->known = r == 0;
	return r;
}

/* Adds stripes to the running sum of the whole as they become final. */
static int sum_up_to(MfFs *fs, MfInode *inode, unsigned k)
{
	MfMessage *m = inode->message;

	if (m->sum_broken || !m->sum) {
		if (!m->sum)
			m->sum = EVP_MD_CTX_new();
		if (!m->sum || EVP_DigestInit_ex(m->sum, EVP_sha256(), NULL) != 1)
			return -ENOMEM;
		m->summed = 0;
		m->sum_broken = false;
	}
	for (; m->summed < k; m->summed++) {
		bool had = stripe_at(m, m->summed)->plain != NULL;
		int r = load_plain(fs, inode, m->summed);
		if (r < 0)
			return r;
		struct stripe *s = stripe_at(m, m->summed);
		grow(fs, s, stripe_len(m->size, m->summed));
		if (EVP_DigestUpdate(m->sum, s->plain->data, s->plain->len) != 1)
			return -ENOMEM;
		if (!had && !s->dirty)
			drop_plain(fs, s);
	}
	return 0;
}

/* The digest of all: with one stripe it is that stripe's. */
static int whole_digest(MfFs *fs, MfInode *inode, uint8_t digest[MF_DIGEST_LEN])
{
	MfMessage *m = inode->message;
	unsigned n = stripe_count(m->size);

	if (n <= 1) {
		memcpy(digest, stripe_at(m, 0)->digest, MF_DIGEST_LEN);
		return 0;
	}
	/* The last stripe may still grow, so it goes into a copy. */
	int r = sum_up_to(fs, inode, n - 1);
	if (r == 0)
		r = load_plain(fs, inode, n - 1);
	if (r < 0)
		return r;
	struct stripe *last = stripe_at(m, n - 1);
	EVP_MD_CTX *copy = EVP_MD_CTX_new();
	bool ok = copy && EVP_MD_CTX_copy_ex(copy, m->sum) == 1 &&
		  EVP_DigestUpdate(copy, last->plain->data, last->plain->len) == 1 &&
		  EVP_DigestFinal_ex(copy, digest, NULL) == 1;
	EVP_MD_CTX_free(copy);
	return ok ? 0 : -ENOMEM;
}

/* Stripe @k > 0 to its own object. */
static int store_stripe(MfFs *fs, MfInode *inode, unsigned k)
{
	g_autofree char *oid = mf_oid_message(inode->ino, k);
	g_autoptr(MfWop) wop = mf_wop_new();
	g_autoptr(GBytes) object = NULL;
	int r = encode_stripe(fs, inode, k, &object);

	if (r < 0)
		return r;
	mf_wop_write_full(wop, object);
	inode->message->stored_stripes = MAX(inode->message->stored_stripes, k + 1);
	inode->message->maybe_stored = true;
	r = mf_fs_note(fs, mf_pool_write(fs->pool, MF_POOL_DATA, oid, wop));
	if (r == 0) {
		struct stripe *s = stripe_at(inode->message, k);
		s->dirty = false;
		s->stored = true;
	}
	return r;
}

static int remove_beyond(MfFs *fs, MfInode *inode, unsigned n)
{
	MfMessage *m = inode->message;

	for (; m->stored_stripes > MAX(n, 1); m->stored_stripes--) {
		g_autofree char *oid = mf_oid_message(inode->ino, m->stored_stripes - 1);
		g_autoptr(MfWop) wop = mf_wop_new();
		mf_wop_remove(wop);
		mf_wop_full_force(wop);
		int r = mf_pool_write(fs->pool, MF_POOL_DATA, oid, wop);
		if (r < 0 && r != -ENOENT)
			return r;
	}
	return 0;
}

static int encode_header(MfFs *fs, MfInode *inode, GByteArray **ret)
{
	MfMessage *m = inode->message;
	unsigned n = stripe_count(m->size);
	g_autofree uint8_t *digests = n > 1 ? g_malloc((size_t)n * MF_DIGEST_LEN) : NULL;
	struct mf_message_record rec = {
		.ino = inode->ino,
		.codec = codec_of(fs),
		.n_stripes = n,
		.stripe_digests = digests,
	};
	int r = whole_digest(fs, inode, rec.digest);

	if (r < 0)
		return r;
	for (unsigned k = 0; digests && k < n; k++)
		memcpy(digests + (size_t)k * MF_DIGEST_LEN, stripe_at(m, k)->digest, MF_DIGEST_LEN);
	g_mutex_lock(&fs->lock);
	rec.dir = m->header_dir = inode->dir ? inode->dir->inode->ino : 0;
	rec.sealed = inode->writers == 0;
	rec.attr = inode->attr;
	rec.name = g_strdup(inode->names ? inode->names->key + MF_KEY_PREFIX : "");
	g_mutex_unlock(&fs->lock);
	rec.attr.size = m->size;
	r = mf_message_record_encode(&rec, ret);
	g_free(rec.name);
	return r;
}

static int store_head(MfFs *fs, MfInode *inode)
{
	MfMessage *m = inode->message;
	g_autofree char *oid = mf_oid_message(inode->ino, 0);
	g_autoptr(MfWop) wop = mf_wop_new();
	g_autoptr(GBytes) object = NULL;
	g_autoptr(GByteArray) header = NULL;
	bool first = !m->stored || stripe_at(m, 0)->dirty;
	int r = 0;

	if (first)
		r = encode_stripe(fs, inode, 0, &object);
	if (r == 0)
		r = encode_header(fs, inode, &header);
	if (r < 0)
		return r;
	if (object)
		mf_wop_write_full(wop, object);
	else
		mf_wop_assert_exists(wop);
	mf_wop_setxattr(wop, MF_XATTR_RECORD, header->data, header->len);
	if (!m->stored)
		mf_xattr_add(fs, inode, wop);
	m->stored_stripes = MAX(m->stored_stripes, 1);
	m->maybe_stored = true;
	r = mf_fs_note(fs, mf_pool_write(fs->pool, MF_POOL_DATA, oid, wop));
	if (r == 0) {
		m->stored = true;
		stripe_at(m, 0)->dirty = false;
		stripe_at(m, 0)->stored = true;
	}
	return r;
}

static int flush(MfFs *fs, MfInode *inode)
{
	MfMessage *m = inode->message;
	int r = 0;

	g_mutex_lock(&fs->lock);
	bool dirty = m->writing && m->dirty;
	m->dirty = false;
	m->flushing = dirty;
	g_mutex_unlock(&fs->lock);
	if (!dirty)
		return 0;
	unsigned n = stripe_count(m->size);
	for (unsigned k = 1; k < n && r == 0; k++) {
		if (stripe_at(m, k)->dirty || !stripe_at(m, k)->stored)
			r = store_stripe(fs, inode, k);
		/* A long one, of holes perhaps, must not come into memory as a whole. */
		if (r == 0 && k + KEEP_STRIPES < n) {
			r = sum_up_to(fs, inode, k + 1);
			drop_plain(fs, stripe_at(m, k));
		}
	}
	if (r == 0)
		r = store_head(fs, inode);
	if (r == 0)
		r = remove_beyond(fs, inode, n);
	g_mutex_lock(&fs->lock);
	m->flushing = false;
	m->dirty |= r < 0;
	g_mutex_unlock(&fs->lock);
	return r;
}

int mf_message_flush(MfFs *fs, MfInode *inode)
{
	MfMessage *m = inode->message;

	if (!m || !m->writing)
		return 0;
	mf_inode_pin(inode);
	g_mutex_unlock(&fs->lock);
	g_mutex_lock(&m->lock);
	int r = flush(fs, inode);
	g_mutex_unlock(&m->lock);
	g_mutex_lock(&fs->lock);
	mf_inode_unpin(fs, inode);
	return r;
}

/* A long message keeps only its end in memory; so does each when there are many. */
static int spill(MfFs *fs, MfInode *inode, unsigned current)
{
	MfMessage *m = inode->message;

	g_mutex_lock(&fs->lock);
	bool tight = fs->write_bytes > fs->conf->cache_size / 4;
	g_mutex_unlock(&fs->lock);
	for (unsigned k = 0; k < m->stripes->len; k++) {
		struct stripe *s = stripe_at(m, k);
		if (!s->plain || k == current || (!tight && k + KEEP_STRIPES > current))
			continue;
		int r = 0;
		if (k > 0 && s->dirty) {
			if (k == m->summed && stripe_len(m->size, k) == MF_STRIPE_SIZE)
				r = sum_up_to(fs, inode, k + 1);
			if (r == 0)
				r = store_stripe(fs, inode, k);
		} else if (k == 0 && s->dirty) {
			/* Stripe 0 would need the header; it stays until the flush. */
			continue;
		}
		if (r < 0)
			return r;
		drop_plain(fs, stripe_at(m, k));
	}
	return 0;
}

static void set_size(MfFs *fs, MfInode *inode, uint64_t size, bool drop_suid)
{
	inode->message->size = size;
	g_mutex_lock(&fs->lock);
	inode->attr.size = size;
	inode->attr.mtime = mf_fs_now();
	inode->attr.ctime = MAX(inode->attr.mtime, inode->attr.ctime + 1);
	inode->message->dirty = true;
	if (drop_suid)
		mf_attr_drop_suid(&inode->attr);
	g_mutex_unlock(&fs->lock);
}

static int begin_change(MfFs *fs, MfInode *inode)
{
	g_mutex_lock(&fs->lock);
	bool writable = mf_message_is_writable(inode);
	g_mutex_unlock(&fs->lock);
	return writable ? 0 : -EPERM;
}

/* With m->lock. Returns how much came in; *ret_error says why not all. */
static size_t put(MfFs *fs, MfInode *inode, const uint8_t *from, size_t len, uint64_t offset, int *ret_error)
{
	MfMessage *m = inode->message;
	size_t done = 0;
	int r = 0;

	/* A hole: the stripe that was the last one grows by zeros. */
	if (offset > m->size && m->size > 0) {
		unsigned last = stripe_count(m->size) - 1;
		r = load_plain(fs, inode, last);
		stripe_at(m, last)->dirty = true;
		if (last < m->summed)
			m->sum_broken = true;
	}
	while (done < len && r == 0) {
		uint64_t at = offset + done;
		unsigned k = at / MF_STRIPE_SIZE;
		size_t in = at % MF_STRIPE_SIZE, n = MIN(len - done, MF_STRIPE_SIZE - in);

		r = load_plain(fs, inode, k);
		if (r < 0)
			break;
		struct stripe *s = stripe_at(m, k);
		grow(fs, s, in + n);
		memcpy(s->plain->data + in, from + done, n);
		s->dirty = true;
		if (k < m->summed)
			m->sum_broken = true;
		done += n;
		m->size = MAX(m->size, offset + done);
		r = spill(fs, inode, k);
	}
	*ret_error = r;
	return done;
}

ssize_t mf_message_write(
	MfFs *fs, MfInode *inode, const void *buf, size_t len, uint64_t offset, bool append, bool drop_suid)
{
	MfMessage *m = inode->message;

	if (!m)
		return -EPERM;
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&m->lock);
	int r = begin_change(fs, inode);
	if (r < 0)
		return r;
	if (append)
		offset = m->size;
	if (offset > MF_MESSAGE_MAX || len > MF_MESSAGE_MAX - offset)
		return -EFBIG;
	size_t done = put(fs, inode, buf, len, offset, &r);
	if (done > 0)
		set_size(fs, inode, m->size, drop_suid);
	return done > 0 && r != -ENOSPC ? (ssize_t)done : r;
}

ssize_t mf_message_append(MfFs *fs, MfInode *inode, const void *buf, size_t len)
{
	MfMessage *m = inode->message;
	int r;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&m->lock);
	size_t done = put(fs, inode, buf, len, m->size, &r);
	return r < 0 ? r : (ssize_t)done;
}

int mf_message_truncate(MfFs *fs, MfInode *inode, uint64_t size)
{
	MfMessage *m = inode->message;

	if (!m)
		return -EPERM;
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&m->lock);
	int r = begin_change(fs, inode);
	if (r < 0)
		return r;
	if (size > MF_MESSAGE_MAX)
		return -EFBIG;
	unsigned n = stripe_count(size), last = n > 0 ? n - 1 : 0;
	/* The stripe that is cut, or grows, must be in memory with its present length before the size changes. */
	unsigned old_last = m->size > 0 ? stripe_count(m->size) - 1 : 0;
	if (size != m->size) {
		r = load_plain(fs, inode, MIN(last, old_last));
		if (r < 0)
			return r;
		stripe_at(m, MIN(last, old_last))->dirty = true;
	}
	if (MIN(last, old_last) < m->summed)
		m->sum_broken = true;
	for (unsigned k = MAX(n, 1); k < m->stripes->len; k++)
		drop_plain(fs, stripe_at(m, k));
	if (m->stripes->len > MAX(n, 1))
		g_array_set_size(m->stripes, MAX(n, 1));
	struct stripe *s = stripe_at(m, last);
	size_t keep = stripe_len(size, last);
	if (s->plain && s->plain->len > keep) {
		g_mutex_lock(&fs->lock);
		fs->write_bytes -= s->plain->len - keep;
		g_mutex_unlock(&fs->lock);
		g_byte_array_set_size(s->plain, keep);
	}
	for (unsigned k = old_last + 1; k < n; k++)
		stripe_at(m, k)->dirty = true;
	set_size(fs, inode, size, false);
	return 0;
}

int mf_message_zero(MfFs *fs, MfInode *inode, uint64_t offset, uint64_t len)
{
	MfMessage *m = inode->message;

	if (!m)
		return -EPERM;
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&m->lock);
	int r = begin_change(fs, inode);
	uint64_t end = MIN(offset + len, m->size);

	while (r == 0 && offset < end) {
		unsigned k = offset / MF_STRIPE_SIZE;
		size_t in = offset % MF_STRIPE_SIZE, n = MIN(end - offset, MF_STRIPE_SIZE - in);

		r = load_plain(fs, inode, k);
		if (r < 0)
			break;
		struct stripe *s = stripe_at(m, k);
		if (in < s->plain->len)
			memset(s->plain->data + in, 0, MIN(n, s->plain->len - in));
		s->dirty = true;
		if (k < m->summed)
			m->sum_broken = true;
		offset += n;
	}
	if (r == 0)
		set_size(fs, inode, m->size, false);
	return r;
}

void mf_message_published(MfInode *inode)
{
	MfMessage *m = inode->message;

	/* A sweep after a crash looks for its name where the header says that it was made. */
	if (m && m->writing && m->maybe_stored && m->header_dir != inode->dir->inode->ino)
		m->dirty = true;
}

void mf_message_seal(MfFs *fs, MfInode *inode)
{
	MfMessage *m = inode->message;

	if (!m || !m->writing || m->dirty || m->flushing)
		return;
	/* Somebody is in the middle of it: then it stays as it is until the next commit or close. */
	if (!g_mutex_trylock(&m->lock))
		return;
	unsigned n = stripe_count(m->size);
	for (unsigned k = 0; k < m->stripes->len; k++) {
		struct stripe *s = stripe_at(m, k);
		if (!s->plain)
			continue;
		fs->write_bytes -= s->plain->len;
		if (k < n && s->plain->len == stripe_len(m->size, k)) {
			g_autoptr(GBytes) plain = g_byte_array_free_to_bytes(g_steal_pointer(&s->plain));
			mf_stripecache_put(fs->cache, inode->ino, k, plain);
			s->checked = true;
		} else {
			g_clear_pointer(&s->plain, g_byte_array_unref);
		}
	}
	m->writing = false;
	g_clear_pointer(&m->sum, EVP_MD_CTX_free);
	g_mutex_unlock(&m->lock);
}

/* ---- reading ---- */

static int read_header(MfFs *fs, MfInode *inode, MfRop *rop, struct mf_message_record *ret)
{
	GBytes *bytes = mf_rop_get_xattr(rop, MF_XATTR_RECORD);

	if (!bytes || mf_message_record_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), ret) < 0)
		return damaged(fs, inode, 0, "its header does not decode");
	if (ret->ino != inode->ino) {
		mf_message_record_clear(ret);
		return damaged(fs, inode, 0, "its header is that of another message");
	}
	return 0;
}

static void keep_digests(MfMessage *m, const struct mf_message_record *rec)
{
	for (unsigned k = 0; k < rec->n_stripes; k++) {
		struct stripe *s = stripe_at(m, k);
		memcpy(s->digest, rec->n_stripes > 1 ? rec->stripe_digests + (size_t)k * MF_DIGEST_LEN : rec->digest,
			MF_DIGEST_LEN);
		s->known = true;
	}
}

/* Only the blocks that are asked for, of a stripe whose digest was checked before. */
static int read_range(MfFs *fs, MfInode *inode, unsigned k, size_t in, size_t len, void *buf)
{
	g_autofree char *oid = mf_oid_message(inode->ino, k);
	g_autoptr(MfRop) head = mf_rop_new(), blocks = mf_rop_new();
	struct mf_codec_header header;
	uint32_t off, n;

	mf_rop_read(head, 0, MF_CODEC_HEADER_MAX);
	int r = mf_pool_read(fs->pool, MF_POOL_DATA, oid, head);
	if (r < 0)
		return r == -ENOENT ? damaged(fs, inode, k, "its object is missing") : r;
	gsize size;
	const void *data = g_bytes_get_data(mf_rop_get_data(head), &size);
	r = mf_codec_header_decode(data, size, &header);
	if (r < 0 || header.ino != inode->ino || header.index != k ||
		memcmp(header.sha256, stripe_at(inode->message, k)->digest, MF_DIGEST_LEN) != 0 ||
		mf_codec_range(&header, in, len, &off, &n) < 0)
		return damaged(fs, inode, k, "its block table is not that of the message");
	mf_rop_read(blocks, off, n);
	r = mf_pool_read(fs->pool, MF_POOL_DATA, oid, blocks);
	if (r < 0)
		return r;
	data = g_bytes_get_data(mf_rop_get_data(blocks), &size);
	r = mf_codec_decode_range(&header, data, size, in, len, buf);
	return r == -EBADMSG ? damaged(fs, inode, k, "a block does not decode") : r;
}

/* With m->lock, so that the digests in m are stable. */
static int read_stored(MfFs *fs, MfInode *inode, unsigned k, uint64_t size, GBytes **ret)
{
	MfMessage *m = inode->message;
	g_autoptr(MfRop) rop = mf_rop_new();

	if (k < m->stripes->len && stripe_at(m, k)->known)
		return fetch(fs, inode, k, rop, stripe_len(size, k), stripe_at(m, k)->digest, ret);
	/* First the header; that of a short message comes with its bytes in one operation. */
	struct mf_message_record rec;
	g_autoptr(GBytes) plain = NULL;
	int r;
	mf_rop_xattrs(rop);
	if (k == 0) {
		r = fetch(fs, inode, 0, rop, stripe_len(size, 0), NULL, &plain);
	} else {
		g_autofree char *oid = mf_oid_message(inode->ino, 0);
		r = mf_pool_read(fs->pool, MF_POOL_DATA, oid, rop);
		if (r == -ENOENT)
			r = damaged(fs, inode, 0, "its object is missing");
	}
	if (r == 0)
		r = read_header(fs, inode, rop, &rec);
	if (r < 0)
		return r;
	if (rec.attr.size != size)
		r = damaged(fs, inode, 0, "its header and its folder disagree about its size");
	else
		keep_digests(m, &rec);
	if (r == 0 && plain) {
		struct mf_codec_header header;
		gsize n;
		const void *data = g_bytes_get_data(mf_rop_get_data(rop), &n);
		if (mf_codec_header_decode(data, n, &header) < 0 ||
			(size > 0 && memcmp(header.sha256, stripe_at(m, 0)->digest, MF_DIGEST_LEN) != 0))
			r = damaged(fs, inode, 0, "its digest is not that of the message");
		else
			*ret = g_steal_pointer(&plain);
	}
	mf_message_record_clear(&rec);
	if (r == 0 && k > 0) {
		g_autoptr(MfRop) again = mf_rop_new();
		r = fetch(fs, inode, k, again, stripe_len(size, k), stripe_at(m, k)->digest, ret);
	}
	return r;
}

static int read_piece(MfFs *fs, MfInode *inode, unsigned k, size_t in, size_t n, uint64_t size, uint8_t *buf)
{
	MfMessage *m = inode->message;
	g_autoptr(GBytes) plain = NULL;
	int r = 0;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&m->lock);
	if (m->writing) {
		r = load_plain(fs, inode, k);
		if (r < 0)
			return r;
		struct stripe *s = stripe_at(m, k);
		size_t have = in < s->plain->len ? MIN(n, s->plain->len - in) : 0;
		if (have > 0)
			memcpy(buf, s->plain->data + in, have);
		memset(buf + have, 0, n - have);
		return 0;
	}
	plain = mf_stripecache_get(fs->cache, inode->ino, k);
	if (!plain) {
		if (k < m->stripes->len && stripe_at(m, k)->checked && n <= RANGE_READ_MAX &&
			stripe_len(size, k) > 2 * RANGE_READ_MAX)
			return read_range(fs, inode, k, in, n, buf);
		r = read_stored(fs, inode, k, size, &plain);
		if (r < 0)
			return r;
		stripe_at(m, k)->checked = true;
		mf_stripecache_put(fs->cache, inode->ino, k, plain);
	}
	memcpy(buf, (const uint8_t *)g_bytes_get_data(plain, NULL) + in, n);
	return 0;
}

ssize_t mf_message_read(MfFs *fs, MfInode *inode, void *buf, size_t len, uint64_t offset)
{
	size_t done = 0;

	g_mutex_lock(&fs->lock);
	if (!inode->message)
		inode->message = message_new();
	uint64_t size = inode->attr.size;
	g_mutex_unlock(&fs->lock);
	if (offset >= size)
		return 0;
	len = MIN(len, size - offset);
	while (done < len) {
		uint64_t at = offset + done;
		size_t in = at % MF_STRIPE_SIZE, n = MIN(len - done, MF_STRIPE_SIZE - in);
		int r = read_piece(fs, inode, at / MF_STRIPE_SIZE, in, n, size, (uint8_t *)buf + done);
		if (r < 0)
			return done > 0 ? (ssize_t)done : r;
		done += n;
	}
	return done;
}

/* ---- attributes and references ---- */

void mf_message_forget(MfFs *fs, MfInode *inode)
{
	MfMessage *m = inode->message;

	for (unsigned k = 0; m && !m->writing && k < m->stripes->len; k++)
		mf_stripecache_drop(fs->cache, inode->ino, k);
	if (m && !m->writing && g_mutex_trylock(&m->lock)) {
		g_array_set_size(m->stripes, 0);
		g_mutex_unlock(&m->lock);
	}
}

int mf_message_load_attr(MfFs *fs, MfInode *inode)
{
	g_autofree char *oid = mf_oid_message(inode->ino, 0);
	g_autoptr(MfRop) rop = mf_rop_new();
	struct mf_message_record rec;
	struct mf_attr attr;

	mf_rop_xattrs(rop);
	mf_refcount_read(rop);
	mf_inode_pin(inode);
	/* The kernel may ask for what another node has removed. */
	bool named = inode->names || inode->opens > 0;
	g_mutex_unlock(&fs->lock);
	int r = mf_pool_read(fs->pool, MF_POOL_DATA, oid, rop);
	int count = r == 0 ? mf_refcount_count(rop) : 0;
	if (r == -ENOENT && !named)
		r = -ESTALE;
	if (r == -ENOENT)
		r = damaged(fs, inode, 0, "its object is missing");
	if (r == 0)
		r = read_header(fs, inode, rop, &rec);
	g_mutex_lock(&fs->lock);
	if (r == 0 && !inode->attr_loaded) {
		GBytes *linked = mf_rop_get_xattr(rop, MF_XATTR_LINKED);
		if (inode->unsealed) {
			/* What the header says is what there is; a node that is dead will not write more. */
			mf_message_forget(fs, inode);
			inode->attr.size = rec.attr.size;
			mf_attr_newer_times(&inode->attr, &rec.attr);
			enum mf_holder writer = mf_node_holder(fs->node, (uint32_t)(inode->ino >> 32));
			if (writer != MF_HOLDER_LIVE && inode->dir && inode->dir->lease.mode == MF_LEASE_EXCLUSIVE) {
				inode->unsealed = false;
				mf_attr_changed(inode);
			}
		}
		if (linked && mf_attr_record_decode(g_bytes_get_data(linked, NULL), g_bytes_get_size(linked), &attr) == 0)
			inode->attr = attr;
		inode->nlink = MAX(count, 1);
		inode->attr_loaded = true;
	}
	if (r == 0)
		mf_message_record_clear(&rec);
	mf_inode_unpin(fs, inode);
	return r;
}

static int update(MfFs *fs, MfInode *inode, MfWop *wop)
{
	g_autofree char *oid = mf_oid_message(inode->ino, 0);

	mf_inode_pin(inode);
	g_mutex_unlock(&fs->lock);
	int r = mf_fs_note(fs, mf_pool_write(fs->pool, MF_POOL_DATA, oid, wop));
	g_mutex_lock(&fs->lock);
	mf_inode_unpin(fs, inode);
	return r;
}

int mf_message_store_attr(MfFs *fs, MfInode *inode)
{
	g_autoptr(MfWop) wop = mf_wop_new();
	g_autoptr(GByteArray) bytes = NULL;
	int r = mf_attr_record_encode(&inode->attr, &bytes);

	if (r < 0)
		return r;
	mf_wop_assert_exists(wop);
	mf_wop_setxattr(wop, MF_XATTR_LINKED, bytes->data, bytes->len);
	return update(fs, inode, wop);
}

int mf_message_mark(MfFs *fs, MfInode *inode, uint64_t tag)
{
	g_autoptr(MfWop) wop = mf_wop_new();

	mf_wop_assert_exists(wop);
	mf_wop_setxattr(wop, MF_XATTR_PUBLISHED, "1", 1);
	if (tag != 0)
		mf_refcount_get(wop, tag);
	return update(fs, inode, wop);
}
