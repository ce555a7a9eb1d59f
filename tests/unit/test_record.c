/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/unit/test_record.c - every record as bytes: what they are, that they come back, and that damage is noticed.
 *
 * The golden bytes are the format: when one of these tests fails, an object written by an older mailfs is read wrongly.
 * Do not change a golden line; append fields and raise the version (doc/FORMAT.md).
 * Run with MF_PRINT_GOLDEN=1 the program prints the bytes of each sample as the present encoder makes them.
 */
#include "store/eventrecord.h"
#include "store/lockrecord.h"
#include "store/notice.h"
#include "store/record.h"

#include "store/bytes.h"
#include "store/crc32c.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- samples: no two fields of one record share a value ---- */

#define ATTR(n)                                                                                                        \
	{                                                                                                              \
		.mode = 0100600 + (n), .uid = 5000 + (n), .gid = 6000 + (n), .atime = 1700000000000000001 + (n),       \
		.mtime = 1700000000100000002 + (n), .ctime = 1700000000200000003 + (n), .size = 4321 + (n),            \
	}

static int make_super(GByteArray **ret)
{
	struct mf_super rec = {
		.uuid = { 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f },
		.format = MF_FORMAT_VERSION,
		.features_compat = 0x0102030405060708,
		.features_incompat = 0x1112131415161718,
		.root_ino = MF_ROOT_INO,
		.message_stripe = MF_STRIPE_SIZE,
		.file_stripe = MF_FILE_STRIPE,
		.created = 1700000000123456789,
	};

	return mf_super_encode(&rec, ret);
}

static int make_member(GByteArray **ret)
{
	struct mf_member rec = {
		.state = MF_MEMBER_LIVE,
		.generation = 7,
		.watch_timeout_s = 3,
		.since = 1700000000123456789,
		.node = (char *)"mx1",
		.addrs = (char *)"127.0.0.1:0/42",
		.mountpoint = (char *)"/var/mail",
		.boot_id = (char *)"0b5c",
		.pid_ns = 4026531836,
		.pid = 4711,
		.start_ticks = 987654321,
	};

	return mf_member_encode(&rec, ret);
}

static int make_window(GByteArray **ret)
{
	return mf_window_encode(&(struct mf_window){ 0x0a0b, 0x0c0d0e }, ret);
}

static int make_lease(GByteArray **ret)
{
	uint32_t holder = 9, waiters[] = { 11, 12 };
	g_autoptr(GArray) h = g_array_append_vals(g_array_new(false, false, 4), &holder, 1);
	g_autoptr(GArray) w = g_array_append_vals(g_array_new(false, false, 4), waiters, 2);
	struct mf_lease_record rec = { MF_LEASE_EXCLUSIVE, 0x21, 0x1f, 0x33, h, w };

	return mf_lease_record_encode(&rec, ret);
}

static int encode_dir(const struct mf_shard_ref *refs, unsigned n, GByteArray **ret)
{
	g_autoptr(GArray) shards = g_array_append_vals(g_array_new(false, false, sizeof(*refs)), refs, n);
	struct mf_dir_record rec = {
		.attr = ATTR(0),
		.parent = 0x300000002,
		.mtime_gen = { 1, 2, 3, 4 },
		.next_shard = 3,
		.shards = shards,
	};

	for (unsigned s = MF_SPACE_CUR; s < MF_SPACES; s++) {
		rec.sub[s].ino = 0x300000010 + s;
		rec.sub[s].attr = (struct mf_attr)ATTR(s);
	}
	return mf_dir_record_encode(&rec, ret);
}

static int make_dir(GByteArray **ret)
{
	return encode_dir((const struct mf_shard_ref[]){ { 0, 1, 0 }, { 1, 2, 1 }, { 2, 2, 3 } }, 3, ret);
}

static int make_shard(GByteArray **ret)
{
	struct mf_shard_record rec = { .n_entries = 250, .ring_low = 0x51 };

	for (unsigned s = 0; s < MF_SPACES; s++) {
		rec.n_subdirs[s] = 20 + s;
		rec.times[s] = (struct mf_shard_times){ 30 + s, 1700000000000000040 + s, 1700000000000000050 + s };
	}
	return mf_shard_record_encode(&rec, ret);
}

static int make_dirent_message(GByteArray **ret)
{
	struct mf_dirent_record rec = { MF_KIND_MESSAGE, MF_DIRENT_LINKED | MF_DIRENT_UNSEALED, 0x300000005,
		0x300000006, ATTR(0), NULL };

	return mf_dirent_encode(&rec, ret);
}

static int make_dirent_symlink(GByteArray **ret)
{
	struct mf_dirent_record rec = { MF_KIND_SYMLINK, 0, 0x300000007, 0, ATTR(1), (char *)"../target" };

	return mf_dirent_encode(&rec, ret);
}

static int make_dirent_file(GByteArray **ret)
{
	struct mf_dirent_record rec = { .kind = MF_KIND_FILE, .ino = 0x300000008, .tag = 2 };

	return mf_dirent_encode(&rec, ret);
}

static int make_dirent_dir(GByteArray **ret)
{
	struct mf_dirent_record rec = { .kind = MF_KIND_DIR, .ino = 0x300000009 };

	return mf_dirent_encode(&rec, ret);
}

static void fill_digest(uint8_t *digest, unsigned n, uint8_t first)
{
	for (unsigned i = 0; i < n * MF_DIGEST_LEN; i++)
		digest[i] = (uint8_t)(first + i);
}

static int make_message(GByteArray **ret)
{
	struct mf_message_record rec = {
		.ino = 0x300000005,
		.dir = 0x300000002,
		.sealed = 1,
		.codec = 1,
		.n_stripes = 1,
		.attr = ATTR(0),
		.name = (char *)"1700000000.M1P2.mx1",
	};

	fill_digest(rec.digest, 1, 0x80);
	return mf_message_record_encode(&rec, ret);
}

static int make_message_long(GByteArray **ret)
{
	uint8_t digests[3 * MF_DIGEST_LEN];
	struct mf_message_record rec = {
		.ino = 0x300000005,
		.dir = 0x300000002,
		.codec = 1,
		.n_stripes = 3,
		.attr = ATTR(0),
		.name = (char *)"",
		.stripe_digests = digests,
	};

	rec.attr.size = 2 * (uint64_t)MF_STRIPE_SIZE + 1;
	fill_digest(rec.digest, 1, 0x80);
	fill_digest(digests, 3, 0x01);
	return mf_message_record_encode(&rec, ret);
}

static int make_file(GByteArray **ret)
{
	return mf_file_record_encode(&(struct mf_file_record){ 0x300000008, 0x300000002, ATTR(0) }, ret);
}

static int make_attr(GByteArray **ret)
{
	return mf_attr_record_encode(&(struct mf_attr)ATTR(0), ret);
}

static int make_reap(GByteArray **ret)
{
	return mf_reap_encode(&(struct mf_reap_record){ MF_KIND_MESSAGE, 0x300000005, 0x300000006, 4321 }, ret);
}

static int make_intent(GByteArray **ret)
{
	g_autoptr(GBytes) after = g_bytes_new_static("after", 5);
	struct mf_intent_record rec = { 0x300000005, 0x300000002, (char *)"c/a:2,S", (char *)"e/b", after };

	return mf_intent_encode(&rec, ret);
}

static int make_intent_plain(GByteArray **ret)
{
	struct mf_intent_record rec = { 0x300000005, 0x300000002, (char *)"n/a", (char *)"c/a:2,", NULL };

	return mf_intent_encode(&rec, ret);
}

static int make_change(GByteArray **ret)
{
	g_autoptr(GPtrArray) keys = g_ptr_array_new();

	g_ptr_array_add(keys, (char *)"c/a:2,S");
	g_ptr_array_add(keys, (char *)"n/b");
	return mf_change_encode(keys, ret);
}

static int make_change_many(GByteArray **ret)
{
	return mf_change_encode(NULL, ret);
}

static int make_locks(GByteArray **ret)
{
	struct mf_lock_record recs[] = {
		{ .owner = 0x1112131415161718,
			.fh = 0x7f0000001000,
			.start = 2,
			.end = 0x105,
			.incarnation = 3,
			.pid = 4711,
			.space = 0,
			.type = 1 },
		{ .waiting = true,
			.id = 0x21,
			.owner = 0x31,
			.fh = 0x41,
			.start = 0,
			.end = INT64_MAX,
			.incarnation = 4,
			.pid = 4712,
			.space = 1,
			.type = 2 },
	};
	g_autoptr(GArray) list =
		g_array_append_vals(g_array_new(false, false, sizeof(recs[0])), recs, G_N_ELEMENTS(recs));

	*ret = mf_lock_records_encode(list);
	return 0;
}

static int make_events(GByteArray **ret)
{
	g_autoptr(GPtrArray) events = mf_events_new();

	g_ptr_array_add(events, mf_event_new(MF_EVENT_CREATE, MF_KIND_MESSAGE, 0x300000005, "n/a", NULL));
	g_ptr_array_add(events, mf_event_new(MF_EVENT_MOVE, MF_KIND_MESSAGE, 0x300000006, "n/b", "c/b:2,S"));
	g_ptr_array_add(events, mf_event_new(MF_EVENT_MODIFY, MF_KIND_FILE, 0x300000007, "e/log", NULL));
	g_ptr_array_add(events, mf_event_new(MF_EVENT_DELETE, MF_KIND_DIR, 0x300000008, "e/d", NULL));
	g_ptr_array_add(events, mf_event_new(MF_EVENT_MANY, MF_KIND_FILE, 0, NULL, NULL));
	*ret = mf_event_record_encode(&(struct mf_event_record){ 3, 0x200000001, 0x300000011, 0x21, 0x23, events });
	return 0;
}

static int make_notice(GByteArray **ret)
{
	*ret = mf_notice_encode(
		&(struct mf_notice){ MF_NOTICE_CLOSED, MF_LEASE_NONE, 0x0a0b0c0d, 0x300000001, 0x300000005 });
	return 0;
}

/* ---- decode and encode again: the encoder is known by its golden bytes, so equal bytes prove equal fields ---- */

static void nothing(void *rec)
{
}

/* A failed decode must leave the result alone. */
#define RECODER(NAME, TYPE, DECODE, ENCODE, CLEAR)                                                                     \
	static int recode_##NAME(const void *data, size_t len, GByteArray **ret)                                       \
	{                                                                                                              \
		TYPE rec, untouched;                                                                                   \
		memset(&rec, 0xa5, sizeof(rec));                                                                       \
		memcpy(&untouched, &rec, sizeof(rec));                                                                 \
		int r = DECODE(data, len, &rec);                                                                       \
		if (r < 0) {                                                                                           \
			ck_assert_mem_eq(&rec, &untouched, sizeof(rec));                                               \
			return r;                                                                                      \
		}                                                                                                      \
		ck_assert_int_eq(r, 0);                                                                                \
		r = ENCODE(&rec, ret);                                                                                 \
		CLEAR(&rec);                                                                                           \
		return r;                                                                                              \
	}

RECODER(super, struct mf_super, mf_super_decode, mf_super_encode, nothing)
RECODER(member, struct mf_member, mf_member_decode, mf_member_encode, mf_member_clear)
RECODER(window, struct mf_window, mf_window_decode, mf_window_encode, nothing)
RECODER(lease, struct mf_lease_record, mf_lease_record_decode, mf_lease_record_encode, mf_lease_record_clear)
RECODER(dir, struct mf_dir_record, mf_dir_record_decode, mf_dir_record_encode, mf_dir_record_clear)
RECODER(shard, struct mf_shard_record, mf_shard_record_decode, mf_shard_record_encode, nothing)
RECODER(dirent, struct mf_dirent_record, mf_dirent_decode, mf_dirent_encode, mf_dirent_clear)
RECODER(message, struct mf_message_record, mf_message_record_decode, mf_message_record_encode, mf_message_record_clear)
RECODER(file, struct mf_file_record, mf_file_record_decode, mf_file_record_encode, nothing)
RECODER(attr, struct mf_attr, mf_attr_record_decode, mf_attr_record_encode, nothing)
RECODER(reap, struct mf_reap_record, mf_reap_decode, mf_reap_encode, nothing)
RECODER(intent, struct mf_intent_record, mf_intent_decode, mf_intent_encode, mf_intent_clear)

static int recode_change(const void *data, size_t len, GByteArray **ret)
{
	GPtrArray *keys = (GPtrArray *)ret; /* any pointer but NULL */
	int r = mf_change_decode(data, len, &keys);

	if (r < 0) {
		ck_assert_ptr_eq(keys, ret);
		return r;
	}
	r = mf_change_encode(keys, ret);
	g_clear_pointer(&keys, g_ptr_array_unref);
	return r;
}

static int recode_locks(const void *data, size_t len, GByteArray **ret)
{
	GArray *records = (GArray *)ret; /* any pointer but NULL */
	int r = mf_lock_records_decode(data, len, &records);

	if (r < 0) {
		ck_assert_ptr_eq(records, ret);
		return r;
	}
	*ret = mf_lock_records_encode(records);
	g_array_unref(records);
	return 0;
}

static int recode_events(const void *data, size_t len, GByteArray **ret)
{
	struct mf_event_record rec;
	int r = mf_event_record_decode(data, len, &rec);

	if (r == 0) {
		*ret = mf_event_record_encode(&rec);
		mf_event_record_clear(&rec);
	}
	return r;
}

static int recode_notice(const void *data, size_t len, GByteArray **ret)
{
	struct mf_notice notice;
	int r = mf_notice_decode(data, len, &notice);

	if (r == 0)
		*ret = mf_notice_encode(&notice);
	return r;
}

static const struct sample {
	const char *name;
	char type;
	int (*make)(GByteArray **ret);
	int (*recode)(const void *data, size_t len, GByteArray **ret);
	const char *golden;
} samples[] = {
	{ "super", 'S', make_super, recode_super,
		"530101003c000000101112131415161718191a1b1c1d1e1f010000000807060504030201181716151413121101000000"
		"00000000000040000000100015cd853dfe9c971756d294c2" },
	{ "member", 'M', make_member, recode_member,
		"4d0101004b00000001070000000300000015cd853dfe9c971703006d78310e003132372e302e302e313a302f34320900"
		"2f7661722f6d61696c040030623563fcffffef0000000067120000b168de3a000000002926807d" },
	{ "window", 'W', make_window, recode_window, "57010100080000000b0a00000e0d0c00a65fdc81" },
	{ "lease", 'L', make_lease, recode_lease,
		"4c0101002d0000000221000000000000001f0000000000000033000000000000000100000009000000020000000b0000"
		"000c00000015d860ae" },
	{ "directory", 'D', make_dir, recode_dir,
		"440101000301000080810000881300007017000001002a36fe9c971702e11f3cfe9c971703c21542fe9c9717e1100000"
		"000000000200000003000000010000000200000003000000040000001100000003000000818100008913000071170000"
		"02002a36fe9c971703e11f3cfe9c971704c21542fe9c9717e2100000000000001200000003000000828100008a130000"
		"7217000003002a36fe9c971704e11f3cfe9c971705c21542fe9c9717e310000000000000130000000300000083810000"
		"8b1300007317000004002a36fe9c971705e11f3cfe9c971706c21542fe9c9717e4100000000000000300000003000000"
		"000000000100000000010000000201000000020000000203000000ab569234" },
	{ "shard", 'H', make_shard, recode_shard,
		"480101006c000000fa000000140000001e00000028002a36fe9c971732002a36fe9c9717150000001f00000029002a36"
		"fe9c971733002a36fe9c971716000000200000002a002a36fe9c971734002a36fe9c971717000000210000002b002a36"
		"fe9c971735002a36fe9c971751000000000000000da53fac" },
	{ "entry of a message", 'E', make_dirent_message, recode_dirent,
		"450101003e00000003030500000003000000060000000300000080810000881300007017000001002a36fe9c971702e1"
		"1f3cfe9c971703c21542fe9c9717e1100000000000004e8f6d81" },
	{ "entry of a symlink", 'E', make_dirent_symlink, recode_dirent,
		"450101004900000005000700000003000000000000000000000081810000891300007117000002002a36fe9c971703e1"
		"1f3cfe9c971704c21542fe9c9717e21000000000000009002e2e2f746172676574f0521ef9" },
	{ "entry of a file", 'E', make_dirent_file, recode_dirent,
		"450101001200000004000800000003000000020000000000000065518c8b" },
	{ "entry of a directory", 'E', make_dirent_dir, recode_dirent,
		"450101001200000001000900000003000000000000000000000052ac35d9" },
	{ "message", 'B', make_message, recode_message,
		"42010100770000000500000003000000020000000300000001010100000080810000881300007017000001002a36fe9c"
		"971702e11f3cfe9c971703c21542fe9c9717e110000000000000808182838485868788898a8b8c8d8e8f909192939495"
		"969798999a9b9c9d9e9f1300313730303030303030302e4d3150322e6d7831baaf7765" },
	{ "message of three stripes", 'B', make_message_long, recode_message,
		"42010100c40000000500000003000000020000000300000000010300000080810000881300007017000001002a36fe9c"
		"971702e11f3cfe9c971703c21542fe9c97170100800000000000808182838485868788898a8b8c8d8e8f909192939495"
		"969798999a9b9c9d9e9f00000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324"
		"25262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f5051525354"
		"55565758595a5b5c5d5e5f607c3c09e9" },
	{ "file", 'F', make_file, recode_file,
		"460101003c0000000800000003000000020000000300000080810000881300007017000001002a36fe9c971702e11f3c"
		"fe9c971703c21542fe9c9717e1100000000000002327c9f3" },
	{ "attributes", 'A', make_attr, recode_attr,
		"410101002c00000080810000881300007017000001002a36fe9c971702e11f3cfe9c971703c21542fe9c9717e1100000"
		"0000000069d62ae5" },
	{ "to delete", 'X', make_reap, recode_reap,
		"58010100190000000305000000030000000600000003000000e1100000000000000f228a93" },
	{ "intent of an exchange", 'R', make_intent, recode_intent,
		"5201010027000000050000000300000002000000030000000700632f613a322c530300652f620500000061667465722b"
		"2feb08" },
	{ "intent", 'R', make_intent_plain, recode_intent,
		"52010100210000000500000003000000020000000300000003006e2f610600632f613a322c00000000ebe32428" },
	{ "change", 'Z', make_change, recode_change, "5a0101001300000001020000000700632f613a322c5303006e2f62f3e80b3c" },
	{ "change of many keys", 'Z', make_change_many, recode_change, "5a010100050000000000000000323f38dd" },
	{ "file locks", 'K', make_locks, recode_locks,
		"4b0101006a00000002000000000000000000000000181716151413121100100000007f00000200000000000000050100"
		"000000000003000000671200000001012100000000000000310000000000000041000000000000000000000000000000"
		"ffffffffffffff7f0400000068120000010221effa7e" },
	{ "events", 'V', make_events, recode_events,
		"560101008300000003000000010000000200000011000000030000002100000000000000230000000000000005000000"
		"0103050000000300000003006e2f6100000303060000000300000003006e2f620700632f623a322c5304040700000003"
		"0000000500652f6c6f670000020108000000030000000300652f6400000504000000000000000000000000cae0b28b" },
	{ "notice", 'N', make_notice, recode_notice,
		"4e0101001600000005000d0c0b0a010000000300000005000000030000003d5b23ef" },
};

#define N_SAMPLES ((int)G_N_ELEMENTS(samples))

/* ---- tools ---- */

static GByteArray *golden_bytes(const struct sample *s)
{
	size_t len = strlen(s->golden) / 2;
	GByteArray *bytes = g_byte_array_sized_new((guint)len);

	for (size_t i = 0; i < len; i++) {
		uint8_t b = (uint8_t)(g_ascii_xdigit_value(s->golden[2 * i]) << 4 |
				      g_ascii_xdigit_value(s->golden[2 * i + 1]));
		g_byte_array_append(bytes, &b, 1);
	}
	return bytes;
}

/* Decodes from a copy of exactly that size, so that a sanitizer or valgrind sees the first byte read too much. */
static int recode(const struct sample *s, const void *data, size_t len, GByteArray **ret)
{
	g_autofree uint8_t *copy = malloc(MAX(len, 1));
	int r;

	memcpy(copy, data, len);
	r = s->recode(copy, len, ret);
	return r;
}

/* Expects an error. */
static int refused(const struct sample *s, const void *data, size_t len)
{
	GByteArray *bytes = NULL;
	int r = recode(s, data, len, &bytes);

	if (bytes)
		g_byte_array_unref(bytes);
	return r;
}

/* The frame around another payload, sound as a frame. */
static GByteArray *reframe(const struct sample *s, uint8_t version, uint8_t compat, const void *payload, size_t len)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	size_t frame = mf_enc_begin(&enc, (uint8_t)s->type, version, compat);

	mf_enc_raw(&enc, payload, len);
	ck_assert_int_eq(mf_enc_end(&enc, frame), 0);
	return mf_enc_steal(&enc);
}

static const uint8_t *payload_of(GByteArray *bytes)
{
	return bytes->data + MF_FRAME_HEAD;
}

static size_t payload_len(GByteArray *bytes)
{
	return bytes->len - MF_FRAME_OVERHEAD;
}

static void check_same(const struct sample *s, GByteArray *a, GByteArray *b)
{
	ck_assert_msg(a->len == b->len && memcmp(a->data, b->data, a->len) == 0, "%s: the bytes differ", s->name);
}

/* ---- each of these runs once a sample (loop test) ---- */

START_TEST(golden)
{
	const struct sample *s = &samples[_i];
	g_autoptr(GByteArray) expected = golden_bytes(s), bytes = NULL;

	ck_assert_int_eq(s->make(&bytes), 0);
	check_same(s, bytes, expected);
}
END_TEST

START_TEST(round_trip)
{
	const struct sample *s = &samples[_i];
	g_autoptr(GByteArray) stored = golden_bytes(s), again = NULL;

	ck_assert_int_eq(recode(s, stored->data, stored->len, &again), 0);
	check_same(s, again, stored);
}
END_TEST

START_TEST(truncated)
{
	const struct sample *s = &samples[_i];
	g_autoptr(GByteArray) stored = golden_bytes(s);

	ck_assert_int_eq(s->recode(NULL, 0, &(GByteArray *){ NULL }), -EBADMSG);
	for (size_t len = 0; len < stored->len; len++)
		ck_assert_int_eq(refused(s, stored->data, len), -EBADMSG);
	/* and a sound frame with a part of the payload */
	for (size_t len = 0; len < payload_len(stored); len++) {
		g_autoptr(GByteArray) part = reframe(s, 1, 1, payload_of(stored), len);
		ck_assert_int_eq(refused(s, part->data, part->len), -EBADMSG);
	}
}
END_TEST

START_TEST(bit_flips)
{
	const struct sample *s = &samples[_i];
	g_autoptr(GByteArray) stored = golden_bytes(s);

	for (size_t bit = 0; bit < 8 * (size_t)stored->len; bit++) {
		stored->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		ck_assert_int_eq(refused(s, stored->data, stored->len), -EBADMSG);
		stored->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}
END_TEST

START_TEST(trailing)
{
	const struct sample *s = &samples[_i];
	g_autoptr(GByteArray) stored = golden_bytes(s);
	g_autoptr(GByteArray) behind = g_byte_array_new(), twice = g_byte_array_new();
	g_autoptr(GByteArray) payload = g_byte_array_new(), inside = NULL;

	g_byte_array_append(behind, stored->data, stored->len);
	g_byte_array_append(behind, (const uint8_t *)"", 1);
	ck_assert_int_eq(refused(s, behind->data, behind->len), -EBADMSG);
	g_byte_array_append(twice, stored->data, stored->len);
	g_byte_array_append(twice, stored->data, stored->len);
	ck_assert_int_eq(refused(s, twice->data, twice->len), -EBADMSG);
	/* one byte more in the payload of a version that we know in full */
	g_byte_array_append(payload, payload_of(stored), (guint)payload_len(stored));
	g_byte_array_append(payload, (const uint8_t *)"", 1);
	inside = reframe(s, 1, 1, payload->data, payload->len);
	ck_assert_int_eq(refused(s, inside->data, inside->len), -EBADMSG);
}
END_TEST

START_TEST(newer_compatible)
{
	const struct sample *s = &samples[_i];
	g_autoptr(GByteArray) stored = golden_bytes(s), payload = g_byte_array_new();

	g_byte_array_append(payload, payload_of(stored), (guint)payload_len(stored));
	for (unsigned extra = 0; extra < 40; extra++) {
		g_autoptr(GByteArray) newer = reframe(s, (uint8_t)(2 + extra), 1, payload->data, payload->len);
		g_autoptr(GByteArray) again = NULL;

		ck_assert_int_eq(recode(s, newer->data, newer->len, &again), 0);
		check_same(s, again, stored);
		g_byte_array_append(payload, (const uint8_t *)"\xee", 1);
	}
	/* a newer writer may append, it may not leave out */
	g_autoptr(GByteArray) less = reframe(s, 2, 1, payload->data, payload_len(stored) - 1);
	ck_assert_int_eq(refused(s, less->data, less->len), -EBADMSG);
}
END_TEST

START_TEST(newer_incompatible)
{
	const struct sample *s = &samples[_i];
	g_autoptr(GByteArray) stored = golden_bytes(s);

	for (unsigned compat = 2; compat <= 255; compat++) {
		g_autoptr(GByteArray) newer =
			reframe(s, 255, (uint8_t)compat, payload_of(stored), compat % payload_len(stored));
		ck_assert_int_eq(refused(s, newer->data, newer->len), -EPROTONOSUPPORT);
		/* damaged as well: then nothing it says may be believed */
		newer->data[newer->len - 1] ^= 1;
		ck_assert_int_eq(refused(s, newer->data, newer->len), -EBADMSG);
	}
}
END_TEST

START_TEST(foreign)
{
	const struct sample *s = &samples[_i];

	for (int i = 0; i < N_SAMPLES; i++) {
		g_autoptr(GByteArray) other = golden_bytes(&samples[i]);
		if (samples[i].type != s->type)
			ck_assert_int_eq(refused(s, other->data, other->len), -EBADMSG);
	}
}
END_TEST

/* Payloads made up under a good crc: accepted or refused, and what is accepted comes back the same. */
START_TEST(made_up)
{
	const struct sample *s = &samples[_i];
	g_autoptr(GByteArray) stored = golden_bytes(s);
	g_autoptr(GRand) rand = g_rand_new_with_seed(20240101u + (unsigned)_i);

	for (unsigned round = 0; round < 4000; round++) {
		g_autoptr(GByteArray) payload = g_byte_array_new();
		g_byte_array_append(payload, payload_of(stored), (guint)payload_len(stored));
		for (unsigned n = 1 + round % 4; n > 0; n--)
			payload->data[g_rand_int_range(rand, 0, (gint)payload->len)] =
				round % 3 ? (uint8_t)g_rand_int(rand) : (round & 1 ? 0xff : 0);
		if (round % 5 == 0)
			g_byte_array_set_size(payload, (guint)g_rand_int_range(rand, 0, (gint)payload->len));
		g_autoptr(GByteArray) bytes = reframe(s, 1, 1, payload->data, payload->len), again = NULL;
		int r = recode(s, bytes->data, bytes->len, &again);
		ck_assert_msg(r == 0 || r == -EBADMSG, "%s, round %u: %d", s->name, round, r);
		/* a change ring record says "many" in one byte, any other value reads as "all" */
		if (r == 0 && s->type != 'Z')
			check_same(s, again, bytes);
	}
}
END_TEST

/* ---- values that cannot be ---- */

/* Makes a frame of @type from hex, spaces allowed. */
static int refuse_payload(const char *name, const char *hex)
{
	const struct sample *s = NULL;
	g_autoptr(GByteArray) payload = g_byte_array_new();

	for (int i = 0; i < N_SAMPLES && !s; i++) {
		if (strcmp(samples[i].name, name) == 0)
			s = &samples[i];
	}
	ck_assert_ptr_nonnull(s);
	for (; *hex; hex++) {
		if (*hex == ' ')
			continue;
		uint8_t b = (uint8_t)(g_ascii_xdigit_value(hex[0]) << 4 | g_ascii_xdigit_value(hex[1]));
		g_byte_array_append(payload, &b, 1);
		hex++;
	}
	g_autoptr(GByteArray) bytes = reframe(s, 1, 1, payload->data, payload->len);
	return refused(s, bytes->data, bytes->len);
}

START_TEST(bad_window)
{
	ck_assert_int_eq(refuse_payload("window", "05000000 05000000"), 0);
	ck_assert_int_eq(refuse_payload("window", "06000000 05000000"), -EBADMSG);
}
END_TEST

/* Names from another node are repeated as calls on a mount. */
START_TEST(bad_events)
{
	static const struct mf_event bad[] = {
		{ 0, MF_KIND_FILE, 1, (char *)"e/a", NULL },
		{ MF_EVENT_MANY + 1, MF_KIND_FILE, 1, (char *)"e/a", NULL },
		{ MF_EVENT_CREATE, 0, 1, (char *)"e/a", NULL },
		{ MF_EVENT_CREATE, MF_KIND_SYMLINK + 1, 1, (char *)"e/a", NULL },
		{ MF_EVENT_CREATE, MF_KIND_FILE, 1, NULL, NULL },
		{ MF_EVENT_CREATE, MF_KIND_FILE, 1, (char *)"e/..", NULL },
		{ MF_EVENT_DELETE, MF_KIND_FILE, 1, (char *)"e/a/b", NULL },
		{ MF_EVENT_DELETE, MF_KIND_FILE, 1, (char *)"x/a", NULL },
		{ MF_EVENT_DELETE, MF_KIND_DIR, 1, (char *)"e/cur", NULL },
		{ MF_EVENT_MODIFY, MF_KIND_FILE, 1, (char *)"e/a", (char *)"e/b" },
		{ MF_EVENT_MOVE, MF_KIND_FILE, 1, (char *)"e/a", NULL },
		{ MF_EVENT_MOVE, MF_KIND_FILE, 1, (char *)"e/a", (char *)"e/../b" },
		{ MF_EVENT_MANY, MF_KIND_FILE, 1, (char *)"e/a", NULL },
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
		g_autoptr(GPtrArray) events = mf_events_new();
		struct mf_event_record rec = { .events = events }, back;
		g_ptr_array_add(events, mf_event_new(bad[i].kind, bad[i].type, bad[i].ino, bad[i].key, bad[i].to));
		g_autoptr(GByteArray) bytes = mf_event_record_encode(&rec);
		ck_assert_msg(mf_event_record_decode(bytes->data, bytes->len, &back) == -EBADMSG, "%u", i);
	}
}
END_TEST

START_TEST(bad_member)
{
	struct mf_member rec = { .node = (char *)"", .addrs = (char *)"", .mountpoint = (char *)"", .boot_id = (char *)"" };

	for (unsigned state = 0; state < 256; state++) {
		g_autoptr(GByteArray) bytes = NULL;
		struct mf_member back;
		rec.state = (uint8_t)state;
		ck_assert_int_eq(mf_member_encode(&rec, &bytes), 0);
		int r = mf_member_decode(bytes->data, bytes->len, &back);
		ck_assert_int_eq(r, state >= MF_MEMBER_LIVE && state <= MF_MEMBER_CLEAN ? 0 : -EBADMSG);
		if (r == 0)
			mf_member_clear(&back);
	}
}
END_TEST

START_TEST(bad_lease)
{
	const char *epochs = "0100000000000000 0000000000000000 0500000000000000";
	const char *bad[] = { "02 %s 00000000 00000000", "02 %s 02000000 01000000 02000000 00000000", "03 %s 00000000 00000000",
		"01 %s ffffffff 00000000", "00 %s 00000000 00000040" };
	const char *good[] = { "00 %s 00000000 00000000", "01 %s 02000000 01000000 02000000 00000000",
		"02 %s 01000000 01000000 00000000" };

	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
		g_auto(GStrv) parts = g_strsplit(bad[i], "%s", 2);
		g_autofree char *hex = g_strjoinv(epochs, parts);
		ck_assert_int_eq(refuse_payload("lease", hex), -EBADMSG);
	}
	for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
		g_auto(GStrv) parts = g_strsplit(good[i], "%s", 2);
		g_autofree char *hex = g_strjoinv(epochs, parts);
		ck_assert_int_eq(refuse_payload("lease", hex), 0);
	}
}
END_TEST

static int decode_map(const struct mf_shard_ref *refs, unsigned n)
{
	g_autoptr(GByteArray) bytes = NULL;
	struct mf_dir_record rec;

	ck_assert_int_eq(encode_dir(refs, n, &bytes), 0);
	int r = mf_dir_record_decode(bytes->data, bytes->len, &rec);
	if (r == 0)
		mf_dir_record_clear(&rec);
	return r;
}

#define MAP(...)                                                                                                       \
	decode_map((const struct mf_shard_ref[]){ __VA_ARGS__ },                                                       \
		sizeof((const struct mf_shard_ref[]){ __VA_ARGS__ }) / sizeof(struct mf_shard_ref))

/* Each hash must lead to exactly one shard. */
START_TEST(shard_maps)
{
	ck_assert_int_eq(MAP({ 0, 0, 0 }), 0);
	ck_assert_int_eq(MAP({ 0, 1, 0 }, { 1, 1, 1 }), 0);
	ck_assert_int_eq(MAP({ 0, 2, 0 }, { 1, 1, 1 }, { 2, 2, 2 }), 0);

	ck_assert_int_eq(decode_map(&(struct mf_shard_ref){ 0 }, 0), -EBADMSG);	    /* none */
	ck_assert_int_eq(MAP({ 0, 1, 0 }), -EBADMSG);				    /* half is missing */
	ck_assert_int_eq(MAP({ 0, 1, 0 }, { 1, 2, 1 }), -EBADMSG);		    /* a quarter is missing */
	ck_assert_int_eq(MAP({ 0, 1, 0 }, { 1, 1, 0 }), -EBADMSG);		    /* twice the same half */
	ck_assert_int_eq(MAP({ 0, 1, 0 }, { 1, 2, 0 }, { 2, 2, 2 }), -EBADMSG);	    /* overlap, and sums up */
	ck_assert_int_eq(MAP({ 0, 0, 0 }, { 1, 1, 1 }), -EBADMSG);		    /* one in another */
	ck_assert_int_eq(MAP({ 0, 1, 0 }, { 0, 1, 1 }), -EBADMSG);		    /* one object for both */
	ck_assert_int_eq(MAP({ 0, 0, 1 }), -EBADMSG);				    /* prefix longer than depth */
	ck_assert_int_eq(MAP({ 0, 1, 0 }, { 1, 1, 3 }), -EBADMSG);
	ck_assert_int_eq(MAP({ 0, 25, 0 }, { 1, 25, 1 }), -EBADMSG);		    /* depth */
	ck_assert_int_eq(MAP({ 0, 255, 0 }), -EBADMSG);
	ck_assert_int_eq(MAP({ 0, 32, 0 }, { 1, 33, 0 }), -EBADMSG);
}
END_TEST

START_TEST(large_shard_map)
{
	g_autoptr(GArray) refs = g_array_new(false, false, sizeof(struct mf_shard_ref));

	for (unsigned i = 0; i < 1024; i++)
		g_array_append_vals(refs, &(struct mf_shard_ref){ i, 10, 1023 - i }, 1);
	ck_assert_int_eq(decode_map((void *)refs->data, refs->len), 0);
	ck_assert_int_eq(decode_map((void *)refs->data, refs->len - 1), -EBADMSG);
}
END_TEST

START_TEST(bad_dirent)
{
	for (unsigned kind = 0; kind < 256; kind++) {
		struct mf_dirent_record rec = { .kind = (uint8_t)kind, .ino = 1, .target = (char *)"t" }, back;
		g_autoptr(GByteArray) bytes = NULL;
		ck_assert_int_eq(mf_dirent_encode(&rec, &bytes), 0);
		int r = mf_dirent_decode(bytes->data, bytes->len, &back);
		if (kind != MF_KIND_SUBDIR) /* never stored as an entry */
			ck_assert_int_eq(r, kind >= MF_KIND_DIR && kind <= MF_KIND_SYMLINK ? 0 : -EBADMSG);
		if (r == 0)
			mf_dirent_clear(&back);
	}
	/* inode 0 */
	ck_assert_int_eq(refuse_payload("entry of a file", "04 00 0000000000000000 0000000000000000"), -EBADMSG);
	ck_assert_int_eq(refuse_payload("entry of a file", "04 00 0100000000000000 0000000000000000"), 0);
}
END_TEST

START_TEST(bad_size)
{
	struct mf_attr attr = ATTR(0), back;
	g_autoptr(GByteArray) most = NULL, more = NULL;

	attr.size = INT64_MAX;
	ck_assert_int_eq(mf_attr_record_encode(&attr, &most), 0);
	ck_assert_int_eq(mf_attr_record_decode(most->data, most->len, &back), 0);
	ck_assert_uint_eq(back.size, INT64_MAX);
	attr.size++;
	ck_assert_int_eq(mf_attr_record_encode(&attr, &more), 0);
	ck_assert_int_eq(mf_attr_record_decode(more->data, more->len, &back), -EBADMSG);
}
END_TEST

/* The number of stripes must be what the size makes it. */
START_TEST(bad_message)
{
	static const struct {
		uint64_t size;
		uint32_t stripes;
		int result;
	} cases[] = {
		{ 0, 0, 0 },
		{ 0, 1, -EBADMSG },
		{ 1, 0, -EBADMSG },
		{ 1, 1, 0 },
		{ MF_STRIPE_SIZE, 1, 0 },
		{ MF_STRIPE_SIZE, 2, -EBADMSG },
		{ MF_STRIPE_SIZE + 1, 1, -EBADMSG },
		{ MF_STRIPE_SIZE + 1, 2, 0 },
		{ INT64_MAX, 2, -EBADMSG },
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
		uint8_t digests[2 * MF_DIGEST_LEN] = { 0 };
		struct mf_message_record back, rec = { .ino = 1, .n_stripes = cases[i].stripes,
			.attr.size = cases[i].size, .stripe_digests = digests };
		g_autoptr(GByteArray) bytes = NULL;
		ck_assert_int_eq(mf_message_record_encode(&rec, &bytes), 0);
		int r = mf_message_record_decode(bytes->data, bytes->len, &back);
		ck_assert_int_eq(r, cases[i].result);
		if (r == 0) {
			ck_assert_str_eq(back.name, "");
			ck_assert(!back.stripe_digests == (cases[i].stripes < 2));
			mf_message_record_clear(&back);
		}
	}
}
END_TEST

START_TEST(bad_intent)
{
	static const char *const bad[][2] = { { "a", "e/b" }, { "e/a", "z/0000000000000001" }, { "e/", "e/b" },
		{ "e/a/b", "e/b" }, { "e/a", "e/.." }, { "", "" } };

	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
		struct mf_intent_record back, rec = { 1, 2, (char *)bad[i][0], (char *)bad[i][1], NULL };
		g_autoptr(GByteArray) bytes = NULL;
		ck_assert_int_eq(mf_intent_encode(&rec, &bytes), 0);
		ck_assert_int_eq(mf_intent_decode(bytes->data, bytes->len, &back), -EBADMSG);
	}
}
END_TEST

START_TEST(bad_text)
{
	/* a NUL inside a key of the change ring: "a\0" */
	ck_assert_int_eq(refuse_payload("change", "01 01000000 0200 6162"), 0);
	ck_assert_int_eq(refuse_payload("change", "01 01000000 0200 6100"), -EBADMSG);
	/* counts that cannot be there must not be believed */
	ck_assert_int_eq(refuse_payload("change", "01 ffffffff 0200 6162"), -EBADMSG);
	ck_assert_int_eq(refuse_payload("change", "01 02000000 0200 6162"), -EBADMSG);
}
END_TEST

/* Any byte but NUL and '/' may be in a name, and a name need not be UTF-8. */
START_TEST(names_are_bytes)
{
	char name[256], target[65536];
	g_autoptr(GByteArray) bytes = NULL, too_long = NULL, intent = NULL, link = NULL;
	unsigned n = 0;

	for (unsigned c = 1; c < 256; c++) {
		if (c != '/')
			name[n++] = (char)c;
	}
	name[n] = '\0';
	struct mf_message_record back, rec = { .ino = 1, .name = name };
	ck_assert_int_eq(mf_message_record_encode(&rec, &bytes), 0);
	ck_assert_int_eq(mf_message_record_decode(bytes->data, bytes->len, &back), 0);
	ck_assert_str_eq(back.name, name);
	mf_message_record_clear(&back);

	g_autofree char *src = mf_key_entry(MF_SPACE_CUR, name), *dst = mf_key_entry(MF_SPACE_NEW, name);
	struct mf_intent_record moved, move = { 1, 2, src, dst, NULL };
	ck_assert_int_eq(mf_intent_encode(&move, &intent), 0);
	ck_assert_int_eq(mf_intent_decode(intent->data, intent->len, &moved), 0);
	ck_assert_str_eq(moved.src_key, src);
	ck_assert_str_eq(moved.dst_key, dst);
	mf_intent_clear(&moved);

	/* text has a 16 bit length */
	memset(target, 'x', sizeof(target));
	target[65535] = '\0';
	struct mf_dirent_record there, symlink = { .kind = MF_KIND_SYMLINK, .ino = 1, .target = target };
	ck_assert_int_eq(mf_dirent_encode(&symlink, &link), 0);
	ck_assert_int_eq(mf_dirent_decode(link->data, link->len, &there), 0);
	ck_assert_str_eq(there.target, target);
	mf_dirent_clear(&there);
	g_autofree char *longer = g_strconcat(target, "x", NULL);
	symlink.target = longer;
	ck_assert_int_eq(mf_dirent_encode(&symlink, &too_long), -ENAMETOOLONG);
	ck_assert_ptr_null(too_long);
}
END_TEST

static void print_golden(void)
{
	for (int i = 0; i < N_SAMPLES; i++) {
		g_autoptr(GByteArray) bytes = NULL;
		if (samples[i].make(&bytes) < 0)
			abort();
		printf("%s: ", samples[i].name);
		for (unsigned k = 0; k < bytes->len; k++)
			printf("%02x", bytes->data[k]);
		printf("\n");
	}
}

int main(void)
{
	if (getenv("MF_PRINT_GOLDEN")) {
		print_golden();
		return EXIT_SUCCESS;
	}

	Suite *suite = suite_create("record");
	TCase *each = tcase_create("each record"), *values = tcase_create("values");
	tcase_set_timeout(each, 60);
	tcase_add_loop_test(each, golden, 0, N_SAMPLES);
	tcase_add_loop_test(each, round_trip, 0, N_SAMPLES);
	tcase_add_loop_test(each, truncated, 0, N_SAMPLES);
	tcase_add_loop_test(each, bit_flips, 0, N_SAMPLES);
	tcase_add_loop_test(each, trailing, 0, N_SAMPLES);
	tcase_add_loop_test(each, newer_compatible, 0, N_SAMPLES);
	tcase_add_loop_test(each, newer_incompatible, 0, N_SAMPLES);
	tcase_add_loop_test(each, foreign, 0, N_SAMPLES);
	tcase_add_loop_test(each, made_up, 0, N_SAMPLES);
	suite_add_tcase(suite, each);
	tcase_add_test(values, bad_window);
	tcase_add_test(values, bad_events);
	tcase_add_test(values, bad_member);
	tcase_add_test(values, bad_lease);
	tcase_add_test(values, shard_maps);
	tcase_add_test(values, large_shard_map);
	tcase_add_test(values, bad_dirent);
	tcase_add_test(values, bad_size);
	tcase_add_test(values, bad_message);
	tcase_add_test(values, bad_intent);
	tcase_add_test(values, bad_text);
	tcase_add_test(values, names_are_bytes);
	suite_add_tcase(suite, values);

	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
