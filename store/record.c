/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/record.h"

#include "store/bytes.h"

#include <errno.h>
#include <string.h>

enum record_type {
	TYPE_SUPER = 'S',
	TYPE_MEMBER = 'M',
	TYPE_WINDOW = 'W',
	TYPE_LEASE = 'L',
	TYPE_DIR = 'D',
	TYPE_SHARD = 'H',
	TYPE_DIRENT = 'E',
	TYPE_MESSAGE = 'B',
	TYPE_FILE = 'F',
	TYPE_ATTR = 'A',
	TYPE_REAP = 'X',
	TYPE_INTENT = 'R',
	TYPE_CHANGE = 'Z',
};

#define VERSION 1
#define COMPAT 1

/* ---- shared pieces ---- */

static int finish(MfEnc *enc, size_t frame, GByteArray **ret)
{
	int r = mf_enc_end(enc, frame);

	if (r == 0)
		*ret = mf_enc_steal(enc);
	return r;
}

static void enc_attr(MfEnc *enc, const struct mf_attr *attr)
{
	mf_enc_u32(enc, attr->mode);
	mf_enc_u32(enc, attr->uid);
	mf_enc_u32(enc, attr->gid);
	mf_enc_i64(enc, attr->atime);
	mf_enc_i64(enc, attr->mtime);
	mf_enc_i64(enc, attr->ctime);
	mf_enc_u64(enc, attr->size);
}

static void dec_attr(MfDec *dec, struct mf_attr *attr)
{
	attr->mode = mf_dec_u32(dec);
	attr->uid = mf_dec_u32(dec);
	attr->gid = mf_dec_u32(dec);
	attr->atime = mf_dec_i64(dec);
	attr->mtime = mf_dec_i64(dec);
	attr->ctime = mf_dec_i64(dec);
	attr->size = mf_dec_u64(dec);
	if (attr->size > INT64_MAX)
		mf_dec_fail(dec);
}

static void enc_incarnations(MfEnc *enc, GArray *list)
{
	unsigned n = list ? list->len : 0;

	mf_enc_u32(enc, n);
	for (unsigned i = 0; i < n; i++)
		mf_enc_u32(enc, g_array_index(list, uint32_t, i));
}

static GArray *dec_incarnations(MfDec *dec)
{
	unsigned n = mf_dec_count(dec, 4);
	GArray *list = g_array_sized_new(false, false, sizeof(uint32_t), n);

	for (unsigned i = 0; i < n; i++) {
		uint32_t v = mf_dec_u32(dec);
		g_array_append_val(list, v);
	}
	return list;
}

/* Starts a decode of one whole record. */
static void dec_open(MfDec *dec, const void *data, size_t len, uint8_t type)
{
	mf_dec_init(dec, data, len);
	mf_dec_begin(dec, type, VERSION, NULL);
}

static int dec_close(MfDec *dec)
{
	mf_dec_end(dec);
	if (mf_dec_left(dec) > 0)
		mf_dec_fail(dec);
	return mf_dec_error(dec);
}

/* ---- super ---- */

int mf_super_encode(const struct mf_super *rec, GByteArray **ret)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	size_t frame = mf_enc_begin(&enc, TYPE_SUPER, VERSION, COMPAT);

	mf_enc_raw(&enc, rec->uuid, sizeof(rec->uuid));
	mf_enc_u32(&enc, rec->format);
	mf_enc_u64(&enc, rec->features_compat);
	mf_enc_u64(&enc, rec->features_incompat);
	mf_enc_u64(&enc, rec->root_ino);
	mf_enc_u32(&enc, rec->message_stripe);
	mf_enc_u32(&enc, rec->file_stripe);
	mf_enc_i64(&enc, rec->created);
	return finish(&enc, frame, ret);
}

int mf_super_decode(const void *data, size_t len, struct mf_super *ret)
{
	struct mf_super rec = { 0 };
	MfDec dec;

	dec_open(&dec, data, len, TYPE_SUPER);
	const uint8_t *uuid = mf_dec_raw(&dec, sizeof(rec.uuid));
	if (uuid)
		memcpy(rec.uuid, uuid, sizeof(rec.uuid));
	rec.format = mf_dec_u32(&dec);
	rec.features_compat = mf_dec_u64(&dec);
	rec.features_incompat = mf_dec_u64(&dec);
	rec.root_ino = mf_dec_u64(&dec);
	rec.message_stripe = mf_dec_u32(&dec);
	rec.file_stripe = mf_dec_u32(&dec);
	rec.created = mf_dec_i64(&dec);
	int r = dec_close(&dec);
	if (r == 0)
		*ret = rec;
	return r;
}

/* ---- members ---- */

int mf_member_encode(const struct mf_member *rec, GByteArray **ret)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	size_t frame = mf_enc_begin(&enc, TYPE_MEMBER, VERSION, COMPAT);

	mf_enc_u8(&enc, rec->state);
	mf_enc_u32(&enc, rec->generation);
	mf_enc_u32(&enc, rec->watch_timeout_s);
	mf_enc_i64(&enc, rec->since);
	mf_enc_str(&enc, rec->node);
	mf_enc_str(&enc, rec->addrs);
	mf_enc_str(&enc, rec->mountpoint);
	mf_enc_str(&enc, rec->boot_id);
	mf_enc_u64(&enc, rec->pid_ns);
	mf_enc_u32(&enc, rec->pid);
	mf_enc_u64(&enc, rec->start_ticks);
	return finish(&enc, frame, ret);
}

int mf_member_decode(const void *data, size_t len, struct mf_member *ret)
{
	struct mf_member rec = { 0 };
	MfDec dec;

	dec_open(&dec, data, len, TYPE_MEMBER);
	rec.state = mf_dec_u8(&dec);
	rec.generation = mf_dec_u32(&dec);
	rec.watch_timeout_s = mf_dec_u32(&dec);
	rec.since = mf_dec_i64(&dec);
	rec.node = mf_dec_str(&dec);
	rec.addrs = mf_dec_str(&dec);
	rec.mountpoint = mf_dec_str(&dec);
	rec.boot_id = mf_dec_str(&dec);
	rec.pid_ns = mf_dec_u64(&dec);
	rec.pid = mf_dec_u32(&dec);
	rec.start_ticks = mf_dec_u64(&dec);
	if (rec.state < MF_MEMBER_LIVE || rec.state > MF_MEMBER_CLEAN)
		mf_dec_fail(&dec);
	int r = dec_close(&dec);
	if (r == 0)
		*ret = rec;
	else
		mf_member_clear(&rec);
	return r;
}

void mf_member_clear(struct mf_member *rec)
{
	g_clear_pointer(&rec->node, g_free);
	g_clear_pointer(&rec->addrs, g_free);
	g_clear_pointer(&rec->mountpoint, g_free);
	g_clear_pointer(&rec->boot_id, g_free);
}

int mf_window_encode(const struct mf_window *rec, GByteArray **ret)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	size_t frame = mf_enc_begin(&enc, TYPE_WINDOW, VERSION, COMPAT);

	mf_enc_u32(&enc, rec->low);
	mf_enc_u32(&enc, rec->high);
	return finish(&enc, frame, ret);
}

int mf_window_decode(const void *data, size_t len, struct mf_window *ret)
{
	struct mf_window rec;
	MfDec dec;

	dec_open(&dec, data, len, TYPE_WINDOW);
	rec.low = mf_dec_u32(&dec);
	rec.high = mf_dec_u32(&dec);
	if (rec.low > rec.high)
		mf_dec_fail(&dec);
	int r = dec_close(&dec);
	if (r == 0)
		*ret = rec;
	return r;
}

/* ---- lease ---- */

int mf_lease_record_encode(const struct mf_lease_record *rec, GByteArray **ret)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	size_t frame = mf_enc_begin(&enc, TYPE_LEASE, VERSION, COMPAT);

	mf_enc_u8(&enc, rec->mode);
	mf_enc_u64(&enc, rec->epoch);
	mf_enc_u64(&enc, rec->stamp_below);
	mf_enc_u64(&enc, rec->serial);
	enc_incarnations(&enc, rec->holders);
	enc_incarnations(&enc, rec->waiters);
	return finish(&enc, frame, ret);
}

int mf_lease_record_decode(const void *data, size_t len, struct mf_lease_record *ret)
{
	struct mf_lease_record rec = { 0 };
	MfDec dec;

	dec_open(&dec, data, len, TYPE_LEASE);
	rec.mode = mf_dec_u8(&dec);
	rec.epoch = mf_dec_u64(&dec);
	rec.stamp_below = mf_dec_u64(&dec);
	rec.serial = mf_dec_u64(&dec);
	rec.holders = dec_incarnations(&dec);
	rec.waiters = dec_incarnations(&dec);
	if (rec.mode > MF_LEASE_EXCLUSIVE || (rec.mode == MF_LEASE_EXCLUSIVE && rec.holders->len != 1))
		mf_dec_fail(&dec);
	int r = dec_close(&dec);
	if (r == 0)
		*ret = rec;
	else
		mf_lease_record_clear(&rec);
	return r;
}

void mf_lease_record_clear(struct mf_lease_record *rec)
{
	g_clear_pointer(&rec->holders, g_array_unref);
	g_clear_pointer(&rec->waiters, g_array_unref);
}

/* ---- directories ---- */

int mf_dir_record_encode(const struct mf_dir_record *rec, GByteArray **ret)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	size_t frame = mf_enc_begin(&enc, TYPE_DIR, VERSION, COMPAT);

	enc_attr(&enc, &rec->attr);
	mf_enc_u64(&enc, rec->parent);
	for (unsigned s = 0; s < MF_SPACES; s++)
		mf_enc_u32(&enc, rec->mtime_gen[s]);
	for (unsigned s = MF_SPACE_CUR; s < MF_SPACES; s++) {
		mf_enc_u64(&enc, rec->sub[s].ino);
		enc_attr(&enc, &rec->sub[s].attr);
	}
	mf_enc_u32(&enc, rec->next_shard);
	mf_enc_u32(&enc, rec->shards->len);
	for (unsigned i = 0; i < rec->shards->len; i++) {
		const struct mf_shard_ref *ref = &g_array_index(rec->shards, struct mf_shard_ref, i);
		mf_enc_u32(&enc, ref->id);
		mf_enc_u8(&enc, ref->depth);
		mf_enc_u32(&enc, ref->prefix);
	}
	return finish(&enc, frame, ret);
}

/* Each hash must lead to exactly one shard: the shares 2^-depth sum up to one and no two overlap. */
static bool shard_map_ok(GArray *shards)
{
	uint64_t sum = 0;
	bool head = false;

	for (unsigned i = 0; i < shards->len; i++) {
		const struct mf_shard_ref *a = &g_array_index(shards, struct mf_shard_ref, i);
		if (a->depth > 24 || a->prefix >> a->depth != 0)
			return false;
		sum += UINT64_C(1) << (32 - a->depth);
		head |= a->id == 0;
		for (unsigned j = 0; j < i; j++) {
			const struct mf_shard_ref *b = &g_array_index(shards, struct mf_shard_ref, j);
			uint32_t mask = (1u << MIN(a->depth, b->depth)) - 1;
			if (a->id == b->id || (a->prefix & mask) == (b->prefix & mask))
				return false;
		}
	}
	return head && sum == UINT64_C(1) << 32;
}

int mf_dir_record_decode(const void *data, size_t len, struct mf_dir_record *ret)
{
	struct mf_dir_record rec = { 0 };
	MfDec dec;

	dec_open(&dec, data, len, TYPE_DIR);
	dec_attr(&dec, &rec.attr);
	rec.parent = mf_dec_u64(&dec);
	for (unsigned s = 0; s < MF_SPACES; s++)
		rec.mtime_gen[s] = mf_dec_u32(&dec);
	for (unsigned s = MF_SPACE_CUR; s < MF_SPACES; s++) {
		rec.sub[s].ino = mf_dec_u64(&dec);
		dec_attr(&dec, &rec.sub[s].attr);
	}
	rec.next_shard = mf_dec_u32(&dec);
	unsigned n = mf_dec_count(&dec, 9);
	rec.shards = g_array_sized_new(false, true, sizeof(struct mf_shard_ref), n);
	for (unsigned i = 0; i < n; i++) {
		struct mf_shard_ref ref = { .id = mf_dec_u32(&dec) };
		ref.depth = mf_dec_u8(&dec);
		ref.prefix = mf_dec_u32(&dec);
		g_array_append_val(rec.shards, ref);
	}
	if (mf_dec_error(&dec) == 0 && (n > 65536 || !shard_map_ok(rec.shards)))
		mf_dec_fail(&dec);
	int r = dec_close(&dec);
	if (r == 0)
		*ret = rec;
	else
		mf_dir_record_clear(&rec);
	return r;
}

void mf_dir_record_clear(struct mf_dir_record *rec)
{
	g_clear_pointer(&rec->shards, g_array_unref);
}

int mf_shard_record_encode(const struct mf_shard_record *rec, GByteArray **ret)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	size_t frame = mf_enc_begin(&enc, TYPE_SHARD, VERSION, COMPAT);

	mf_enc_u32(&enc, rec->n_entries);
	for (unsigned s = 0; s < MF_SPACES; s++) {
		mf_enc_u32(&enc, rec->n_subdirs[s]);
		mf_enc_u32(&enc, rec->times[s].gen);
		mf_enc_i64(&enc, rec->times[s].mtime);
		mf_enc_i64(&enc, rec->times[s].ctime);
	}
	mf_enc_u64(&enc, rec->ring_low);
	return finish(&enc, frame, ret);
}

int mf_shard_record_decode(const void *data, size_t len, struct mf_shard_record *ret)
{
	struct mf_shard_record rec;
	MfDec dec;

	dec_open(&dec, data, len, TYPE_SHARD);
	rec.n_entries = mf_dec_u32(&dec);
	for (unsigned s = 0; s < MF_SPACES; s++) {
		rec.n_subdirs[s] = mf_dec_u32(&dec);
		rec.times[s].gen = mf_dec_u32(&dec);
		rec.times[s].mtime = mf_dec_i64(&dec);
		rec.times[s].ctime = mf_dec_i64(&dec);
	}
	rec.ring_low = mf_dec_u64(&dec);
	int r = dec_close(&dec);
	if (r == 0)
		*ret = rec;
	return r;
}

int mf_dirent_encode(const struct mf_dirent_record *rec, GByteArray **ret)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	size_t frame = mf_enc_begin(&enc, TYPE_DIRENT, VERSION, COMPAT);

	mf_enc_u8(&enc, rec->kind);
	mf_enc_u8(&enc, rec->flags);
	mf_enc_u64(&enc, rec->ino);
	mf_enc_u64(&enc, rec->tag);
	if (rec->kind == MF_KIND_MESSAGE || rec->kind == MF_KIND_SYMLINK)
		enc_attr(&enc, &rec->attr);
	if (rec->kind == MF_KIND_SYMLINK)
		mf_enc_str(&enc, rec->target);
	return finish(&enc, frame, ret);
}

int mf_dirent_decode(const void *data, size_t len, struct mf_dirent_record *ret)
{
	struct mf_dirent_record rec = { 0 };
	MfDec dec;

	dec_open(&dec, data, len, TYPE_DIRENT);
	rec.kind = mf_dec_u8(&dec);
	rec.flags = mf_dec_u8(&dec);
	rec.ino = mf_dec_u64(&dec);
	rec.tag = mf_dec_u64(&dec);
	/* cur, new and tmp have no entry: the directory's own record has them. */
	if (rec.kind < MF_KIND_DIR || rec.kind > MF_KIND_SYMLINK || rec.kind == MF_KIND_SUBDIR || rec.ino == 0)
		mf_dec_fail(&dec);
	if (rec.kind == MF_KIND_MESSAGE || rec.kind == MF_KIND_SYMLINK)
		dec_attr(&dec, &rec.attr);
	if (rec.kind == MF_KIND_SYMLINK)
		rec.target = mf_dec_str(&dec);
	int r = dec_close(&dec);
	if (r == 0)
		*ret = rec;
	else
		mf_dirent_clear(&rec);
	return r;
}

void mf_dirent_clear(struct mf_dirent_record *rec)
{
	g_clear_pointer(&rec->target, g_free);
}

int mf_reap_encode(const struct mf_reap_record *rec, GByteArray **ret)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	size_t frame = mf_enc_begin(&enc, TYPE_REAP, VERSION, COMPAT);

	mf_enc_u8(&enc, rec->kind);
	mf_enc_u64(&enc, rec->ino);
	mf_enc_u64(&enc, rec->tag);
	mf_enc_u64(&enc, rec->size);
	return finish(&enc, frame, ret);
}

int mf_reap_decode(const void *data, size_t len, struct mf_reap_record *ret)
{
	struct mf_reap_record rec;
	MfDec dec;

	dec_open(&dec, data, len, TYPE_REAP);
	rec.kind = mf_dec_u8(&dec);
	rec.ino = mf_dec_u64(&dec);
	rec.tag = mf_dec_u64(&dec);
	rec.size = mf_dec_u64(&dec);
	int r = dec_close(&dec);
	if (r == 0)
		*ret = rec;
	return r;
}

int mf_intent_encode(const struct mf_intent_record *rec, GByteArray **ret)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	size_t frame = mf_enc_begin(&enc, TYPE_INTENT, VERSION, COMPAT);
	gsize len = 0;
	const void *after = rec->after ? g_bytes_get_data(rec->after, &len) : NULL;

	mf_enc_u64(&enc, rec->ino);
	mf_enc_u64(&enc, rec->dst_dir);
	mf_enc_str(&enc, rec->src_key);
	mf_enc_str(&enc, rec->dst_key);
	mf_enc_bytes(&enc, after, len);
	return finish(&enc, frame, ret);
}

int mf_intent_decode(const void *data, size_t len, struct mf_intent_record *ret)
{
	struct mf_intent_record rec = { 0 };
	enum mf_space space;
	size_t after_len;
	MfDec dec;

	dec_open(&dec, data, len, TYPE_INTENT);
	rec.ino = mf_dec_u64(&dec);
	rec.dst_dir = mf_dec_u64(&dec);
	rec.src_key = mf_dec_str(&dec);
	rec.dst_key = mf_dec_str(&dec);
	const uint8_t *after = mf_dec_bytes(&dec, &after_len);
	if (after_len > 0)
		rec.after = g_bytes_new(after, after_len);
	if (mf_dec_error(&dec) == 0 && (!mf_key_is_entry(rec.src_key, &space) || !mf_key_is_entry(rec.dst_key, &space)))
		mf_dec_fail(&dec);
	int r = dec_close(&dec);
	if (r == 0)
		*ret = rec;
	else
		mf_intent_clear(&rec);
	return r;
}

void mf_intent_clear(struct mf_intent_record *rec)
{
	g_clear_pointer(&rec->src_key, g_free);
	g_clear_pointer(&rec->dst_key, g_free);
	g_clear_pointer(&rec->after, g_bytes_unref);
}

int mf_change_encode(GPtrArray *keys, GByteArray **ret)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	size_t frame = mf_enc_begin(&enc, TYPE_CHANGE, VERSION, COMPAT);

	mf_enc_u8(&enc, keys != NULL);
	mf_enc_u32(&enc, keys ? keys->len : 0);
	for (unsigned i = 0; keys && i < keys->len; i++)
		mf_enc_str(&enc, keys->pdata[i]);
	return finish(&enc, frame, ret);
}

int mf_change_decode(const void *data, size_t len, GPtrArray **ret_keys)
{
	g_autoptr(GPtrArray) keys = g_ptr_array_new_with_free_func(g_free);
	MfDec dec;

	dec_open(&dec, data, len, TYPE_CHANGE);
	bool complete = mf_dec_u8(&dec);
	unsigned n = mf_dec_count(&dec, 2);
	for (unsigned i = 0; i < n; i++)
		g_ptr_array_add(keys, mf_dec_str(&dec));
	int r = dec_close(&dec);
	if (r == 0)
		*ret_keys = complete ? g_steal_pointer(&keys) : NULL;
	return r;
}

/* ---- bytes of messages and files ---- */

int mf_message_record_encode(const struct mf_message_record *rec, GByteArray **ret)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	size_t frame = mf_enc_begin(&enc, TYPE_MESSAGE, VERSION, COMPAT);

	mf_enc_u64(&enc, rec->ino);
	mf_enc_u64(&enc, rec->dir);
	mf_enc_u8(&enc, rec->sealed);
	mf_enc_u8(&enc, rec->codec);
	mf_enc_u32(&enc, rec->n_stripes);
	enc_attr(&enc, &rec->attr);
	mf_enc_raw(&enc, rec->digest, MF_DIGEST_LEN);
	mf_enc_str(&enc, rec->name ? rec->name : "");
	if (rec->n_stripes > 1)
		mf_enc_raw(&enc, rec->stripe_digests, (size_t)rec->n_stripes * MF_DIGEST_LEN);
	return finish(&enc, frame, ret);
}

int mf_message_record_decode(const void *data, size_t len, struct mf_message_record *ret)
{
	struct mf_message_record rec = { 0 };
	MfDec dec;

	dec_open(&dec, data, len, TYPE_MESSAGE);
	rec.ino = mf_dec_u64(&dec);
	rec.dir = mf_dec_u64(&dec);
	rec.sealed = mf_dec_u8(&dec);
	rec.codec = mf_dec_u8(&dec);
	rec.n_stripes = mf_dec_u32(&dec);
	dec_attr(&dec, &rec.attr);
	const uint8_t *digest = mf_dec_raw(&dec, MF_DIGEST_LEN);
	if (digest)
		memcpy(rec.digest, digest, MF_DIGEST_LEN);
	rec.name = mf_dec_str(&dec);
	if (rec.n_stripes != (rec.attr.size + MF_STRIPE_SIZE - 1) / MF_STRIPE_SIZE)
		mf_dec_fail(&dec);
	if (rec.n_stripes > 1) {
		const uint8_t *list = mf_dec_raw(&dec, (size_t)rec.n_stripes * MF_DIGEST_LEN);
		if (list)
			rec.stripe_digests = g_memdup2(list, (size_t)rec.n_stripes * MF_DIGEST_LEN);
	}
	int r = dec_close(&dec);
	if (r == 0)
		*ret = rec;
	else
		mf_message_record_clear(&rec);
	return r;
}

void mf_message_record_clear(struct mf_message_record *rec)
{
	g_clear_pointer(&rec->name, g_free);
	g_clear_pointer(&rec->stripe_digests, g_free);
}

int mf_file_record_encode(const struct mf_file_record *rec, GByteArray **ret)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	size_t frame = mf_enc_begin(&enc, TYPE_FILE, VERSION, COMPAT);

	mf_enc_u64(&enc, rec->ino);
	mf_enc_u64(&enc, rec->dir);
	enc_attr(&enc, &rec->attr);
	return finish(&enc, frame, ret);
}

int mf_file_record_decode(const void *data, size_t len, struct mf_file_record *ret)
{
	struct mf_file_record rec;
	MfDec dec;

	dec_open(&dec, data, len, TYPE_FILE);
	rec.ino = mf_dec_u64(&dec);
	rec.dir = mf_dec_u64(&dec);
	dec_attr(&dec, &rec.attr);
	int r = dec_close(&dec);
	if (r == 0)
		*ret = rec;
	return r;
}

int mf_attr_record_encode(const struct mf_attr *rec, GByteArray **ret)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	size_t frame = mf_enc_begin(&enc, TYPE_ATTR, VERSION, COMPAT);

	enc_attr(&enc, rec);
	return finish(&enc, frame, ret);
}

int mf_attr_record_decode(const void *data, size_t len, struct mf_attr *ret)
{
	struct mf_attr rec;
	MfDec dec;

	dec_open(&dec, data, len, TYPE_ATTR);
	dec_attr(&dec, &rec);
	int r = dec_close(&dec);
	if (r == 0)
		*ret = rec;
	return r;
}
