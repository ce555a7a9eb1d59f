/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/unit/test_codec.c - stripes: round trips, random reads, and damage that must never become wrong bytes. */
#include "store/codec.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/bytes.h"
#include "store/crc32c.h"

#define INO 0x0000000700000042ULL
#define INDEX 3u

enum kind { TEXT, NOISE, MIXED, NKINDS };

/* Text shrinks, noise does not, mixed has blocks of both sorts. */
static uint8_t *make_plain(enum kind kind, size_t len)
{
	g_autoptr(GRand) rnd = g_rand_new_with_seed((guint32)(len * 3 + kind));
	uint8_t *p = g_malloc(MAX(len, 1));

	for (size_t i = 0; i < len; i++) {
		bool noise = kind == NOISE || (kind == MIXED && (i >> 16) % 2 == 1);

		p[i] = noise ? (uint8_t)g_rand_int(rnd) : (uint8_t) "Received: by mx.example.org; "[i % 29];
	}
	return p;
}

static GBytes *encode(enum mf_codec codec, const void *plain, size_t len)
{
	GBytes *object = NULL;

	ck_assert_int_eq(mf_codec_encode(codec, INO, INDEX, plain, len, &object, NULL), 0);
	ck_assert_uint_le(g_bytes_get_size(object), mf_codec_bound(len));
	return object;
}

static int decode(const void *object, size_t len, void *dst, size_t plain_len)
{
	return mf_codec_decode(object, len, INO, INDEX, dst, plain_len);
}

START_TEST(round_trips)
{
	static const size_t sizes[] = { 0, 1, 2, 100, 65535, 65536, 65537, 131072, 1000003, MF_CODEC_PLAIN_MAX - 1,
		MF_CODEC_PLAIN_MAX };

	for (unsigned s = 0; s < G_N_ELEMENTS(sizes); s++) {
		for (enum kind kind = 0; kind < NKINDS; kind++) {
			for (enum mf_codec codec = MF_CODEC_NONE; codec <= MF_CODEC_LZ4; codec++) {
				size_t len = sizes[s], size;
				g_autofree uint8_t *plain = make_plain(kind, len);
				g_autofree uint8_t *back = g_malloc(MAX(len, 1));
				g_autoptr(GBytes) object = NULL;
				uint8_t sha[MF_SHA256_LEN], want[MF_SHA256_LEN];
				struct mf_codec_header h;

				ck_assert_int_eq(mf_codec_encode(codec, INO, INDEX, plain, len, &object, sha), 0);
				const uint8_t *o = g_bytes_get_data(object, &size);
				ck_assert_uint_le(size, mf_codec_bound(len));
				ck_assert_int_eq(decode(o, size, back, len), 0);
				ck_assert(len == 0 || memcmp(plain, back, len) == 0);

				/* the header alone says it all */
				ck_assert_int_eq(mf_codec_header_decode(o, MIN(size, MF_CODEC_HEADER_MAX), &h), 0);
				ck_assert_uint_eq(h.ino, INO);
				ck_assert_uint_eq(h.index, INDEX);
				ck_assert_uint_eq(h.plain_len, len);
				ck_assert_uint_eq(h.object_len, size);
				ck_assert_uint_eq(h.nblocks, (len + 65535) / 65536);
				ck_assert_int_eq(mf_sha256(plain, len, want), 0);
				ck_assert_mem_eq(sha, want, sizeof(sha));
				ck_assert_mem_eq(h.sha256, want, sizeof(want));

				if (codec == MF_CODEC_LZ4 && kind == TEXT && len >= 65535)
					ck_assert_uint_lt(size, len / 10);
				if (codec == MF_CODEC_NONE || kind == NOISE)
					ck_assert_uint_eq(size, MF_CODEC_HEADER_MIN + 8 * h.nblocks + len);
				for (uint32_t b = 0; codec == MF_CODEC_LZ4 && kind == MIXED && b < h.nblocks; b++)
					if (len % 65536 == 0)
						ck_assert_int_eq(h.block[b].raw, b % 2 == 1);
			}
		}
	}
}
END_TEST

START_TEST(format_is_pinned)
{
	/* what is stored today must be readable for ever: these bytes may only change with the version */
	static const uint8_t sha_abc[] = { 0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d,
		0xae, 0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00,
		0x15, 0xad };
	static const uint8_t head[] = { 'm', 'f', 'S', '1', 1, 1, 16, 0, 0x42, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0,
		0 };
	static const uint8_t table[] = { 1, 0, 0, 0, 3, 0, 0, 0x80, 0xb7, 0x3f, 0x4b, 0x36 };
	g_autoptr(GBytes) object = encode(MF_CODEC_LZ4, "abc", 3);
	size_t size;
	const uint8_t *o = g_bytes_get_data(object, &size);

	ck_assert_uint_eq(size, 64 + 8 + 3);
	ck_assert_mem_eq(o, head, sizeof(head));
	ck_assert_mem_eq(o + 24, sha_abc, 32);
	ck_assert_mem_eq(o + 56, table, sizeof(table));
	uint32_t crc = mf_crc32c(0, o, 68);
	ck_assert_uint_eq(o[68] | o[69] << 8 | o[70] << 16 | (uint32_t)o[71] << 24, crc);
	ck_assert_mem_eq(o + 72, "abc", 3);
}
END_TEST

START_TEST(refusals)
{
	g_autoptr(GBytes) object = encode(MF_CODEC_LZ4, "hello", 5);
	GBytes *none = NULL;
	size_t size;
	const uint8_t *o = g_bytes_get_data(object, &size);
	uint8_t back[6];

	ck_assert_int_eq(mf_codec_decode(o, size, INO + 1, INDEX, back, 5), -EBADMSG);
	ck_assert_int_eq(mf_codec_decode(o, size, INO, INDEX + 1, back, 5), -EBADMSG);
	ck_assert_int_eq(decode(o, size, back, 4), -EBADMSG);
	ck_assert_int_eq(decode(o, size, back, 6), -EBADMSG);
	ck_assert_int_eq(decode(NULL, 0, back, 5), -EBADMSG);
	g_autofree uint8_t *longer = g_malloc0(size + 1);
	memcpy(longer, o, size);
	ck_assert_int_eq(decode(longer, size + 1, back, 5), -EBADMSG);

	g_autofree uint8_t *big = g_malloc0(MF_CODEC_PLAIN_MAX + 1);
	ck_assert_int_eq(mf_codec_encode(MF_CODEC_LZ4, 1, 0, big, MF_CODEC_PLAIN_MAX + 1, &none, NULL), -EFBIG);
	ck_assert_int_eq(mf_codec_encode((enum mf_codec)2, 1, 0, big, 1, &none, NULL), -EINVAL);
	ck_assert_ptr_null(none);
}
END_TEST

/* Makes a changed header pass its crc again: what a buggy or newer writer could have left. */
static void seal_header(uint8_t *o, uint32_t header_len)
{
	uint32_t crc = mf_crc32c(0, o, header_len - 4);

	for (unsigned i = 0; i < 4; i++)
		o[header_len - 4 + i] = (uint8_t)(crc >> (8 * i));
}

START_TEST(a_good_crc_proves_nothing_but_itself)
{
	static const struct {
		unsigned at;
		uint8_t value;
		int want;
	} cases[] = {
		{ 0, 'x', -EBADMSG },	    /* magic */
		{ 4, 2, -EPROTONOSUPPORT }, /* version */
		{ 4, 0, -EPROTONOSUPPORT }, /* version */
		{ 5, 2, -EPROTONOSUPPORT }, /* codec */
		{ 5, 0, -EBADMSG },	    /* codec none, but a block that shrank */
		{ 6, 15, -EBADMSG },	    /* block size */
		{ 6, 17, -EBADMSG },	    /* ... not that of the table */
		{ 6, 23, -EBADMSG },	    /* ... too large */
		{ 6, 255, -EBADMSG },	    /* ... not even a shift */
		{ 7, 1, -EBADMSG },	    /* reserved */
		{ 20, 0, -EBADMSG },	    /* plain length: the raw block no longer fits */
		{ 22, 0, -EBADMSG },	    /* plain length: one block, a table of two */
		{ 23, 1, -EBADMSG },	    /* plain length: 16 MiB */
		{ 23, 0xff, -EBADMSG },	    /* plain length: nearly 4 GiB */
		{ 56, 1, -EBADMSG },	    /* blocks */
		{ 56, 0, -EBADMSG },	    /* blocks */
		{ 59, 0xff, -EBADMSG },	    /* blocks */
		{ 62, 1, -EBADMSG },	    /* the first block is not smaller than its plain bytes */
		{ 63, 0x80, -EBADMSG },	    /* ... is raw but not as long */
		{ 63, 0x7f, -EBADMSG },	    /* ... is 2 GiB */
		{ 68, 9, -EBADMSG },	    /* the second is raw but not as long */
		{ 71, 0, -EBADMSG },	    /* the second is not raw but did not shrink */
	};
	g_autofree uint8_t *plain = make_plain(MIXED, 65536 + 10);
	g_autoptr(GBytes) object = encode(MF_CODEC_LZ4, plain, 65536 + 10);
	struct mf_codec_header h, untouched;
	size_t size;
	const uint8_t *o = g_bytes_get_data(object, &size);

	ck_assert_int_eq(mf_codec_header_decode(o, size, &h), 0);
	ck_assert_uint_eq(h.header_len, 80);
	ck_assert(!h.block[0].raw && h.block[1].raw && h.block[1].stored == 10);
	untouched = h;
	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree uint8_t *copy = g_memdup2(o, size);

		copy[cases[i].at] = cases[i].value;
		seal_header(copy, 80);
		ck_assert_msg(mf_codec_header_decode(copy, size, &h) == cases[i].want, "case %u", i);
		ck_assert_mem_eq(&h, &untouched, sizeof(h));
	}

	/* the digest is the last word, even when every crc is right */
	g_autofree uint8_t *copy = g_memdup2(o, size);
	g_autofree uint8_t *back = g_malloc(65536 + 10);
	copy[24] ^= 1;
	seal_header(copy, 80);
	ck_assert_int_eq(mf_codec_header_decode(copy, size, &h), 0);
	ck_assert_int_eq(decode(copy, size, back, 65536 + 10), -EBADMSG);
	copy[24] ^= 1;
	seal_header(copy, 80);
	ck_assert_int_eq(decode(copy, size, back, 65536 + 10), 0);
}
END_TEST

START_TEST(lz4_garbage_under_a_good_crc)
{
	/* the decompressor itself must stay inside its buffers and the result must be refused */
	g_autofree uint8_t *plain = make_plain(TEXT, 3000);
	g_autoptr(GBytes) object = encode(MF_CODEC_LZ4, plain, 3000);
	struct mf_codec_header h;
	size_t size;
	const uint8_t *o = g_bytes_get_data(object, &size);
	guint32 seed = 20240601;
	g_autoptr(GRand) rnd = g_rand_new_with_seed(seed);

	ck_assert_int_eq(mf_codec_header_decode(o, size, &h), 0);
	ck_assert(!h.block[0].raw);
	for (unsigned round = 0; round < 5000; round++) {
		g_autofree uint8_t *copy = g_memdup2(o, size);
		g_autofree uint8_t *back = g_malloc(3000);
		unsigned hits = (unsigned)g_rand_int_range(rnd, 1, 6);

		for (unsigned i = 0; i < hits; i++)
			copy[h.header_len + g_rand_int_range(rnd, 0, (gint32)h.block[0].stored)] =
				(uint8_t)g_rand_int(rnd);
		uint32_t crc = mf_crc32c(0, copy + h.header_len, h.block[0].stored);
		for (unsigned i = 0; i < 4; i++)
			copy[64 + i] = (uint8_t)(crc >> (8 * i));
		seal_header(copy, h.header_len);
		int r = decode(copy, size, back, 3000);
		if (r == 0)
			ck_assert_mem_eq(back, plain, 3000);
		else
			ck_assert_int_eq(r, -EBADMSG);
	}
}
END_TEST

START_TEST(truncation_at_every_byte)
{
	g_autofree uint8_t *plain = make_plain(NOISE, 300);
	g_autoptr(GBytes) object = encode(MF_CODEC_LZ4, plain, 300);
	struct mf_codec_header h;
	size_t size;
	const uint8_t *o = g_bytes_get_data(object, &size);
	uint8_t back[300];

	for (size_t cut = 0; cut < size; cut++) {
		/* an exact copy, so that a sanitizer sees any read behind it */
		g_autofree uint8_t *copy = g_memdup2(o, MAX(cut, 1));

		ck_assert_int_eq(decode(copy, cut, back, 300), -EBADMSG);
		ck_assert_int_eq(mf_codec_header_decode(copy, cut, &h), cut < 72 ? -EBADMSG : 0);
	}
}
END_TEST

static void flip_all(const uint8_t *plain, size_t len)
{
	g_autoptr(GBytes) object = encode(MF_CODEC_LZ4, plain, len);
	g_autofree uint8_t *back = g_malloc(len);
	struct mf_codec_header h;
	size_t size;
	const uint8_t *o = g_bytes_get_data(object, &size);
	g_autofree uint8_t *copy = g_memdup2(o, size);

	for (size_t at = 0; at < size; at++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			int want = at == 4 ? -EPROTONOSUPPORT : -EBADMSG;

			copy[at] ^= (uint8_t)(1u << bit);
			ck_assert_int_eq(decode(copy, size, back, len), want);
			/* a random read has no digest of the whole to rely on */
			if (mf_codec_header_decode(copy, size, &h) == 0) {
				ck_assert_uint_ge(at, h.header_len);
				ck_assert_int_eq(mf_codec_decode_range(&h, copy + h.header_len, size - h.header_len, 1,
							 (uint32_t)len - 1, back),
					-EBADMSG);
			}
			copy[at] ^= (uint8_t)(1u << bit);
		}
	}
	ck_assert_int_eq(decode(copy, size, back, len), 0);
}

START_TEST(flips_at_every_bit)
{
	g_autofree uint8_t *text = make_plain(TEXT, 2000);
	g_autofree uint8_t *noise = make_plain(NOISE, 200);

	flip_all(text, 2000);
	flip_all(noise, 200);
}
END_TEST

START_TEST(random_range_reads)
{
	const uint32_t len = 10 * 65536 + 777;
	const char *env = g_getenv("MF_TEST_SEED");
	guint32 seed = env ? (guint32)g_ascii_strtoull(env, NULL, 0) : g_random_int();
	g_autoptr(GRand) rnd = g_rand_new_with_seed(seed);
	uint32_t object_off, object_len;

	printf("random_range_reads: MF_TEST_SEED=%u\n", seed);
	for (enum mf_codec codec = MF_CODEC_NONE; codec <= MF_CODEC_LZ4; codec++) {
		g_autofree uint8_t *plain = make_plain(MIXED, len);
		g_autoptr(GBytes) object = encode(codec, plain, len);
		struct mf_codec_header h;
		size_t size;
		const uint8_t *o = g_bytes_get_data(object, &size);

		ck_assert_int_eq(mf_codec_header_decode(o, MF_CODEC_HEADER_MAX, &h), 0);
		for (unsigned round = 0; round < 600; round++) {
			uint32_t off = (uint32_t)g_rand_int_range(rnd, 0, (gint32)len + 1), n;

			if (round % 4 == 0)
				off &= ~65535u;
			n = (uint32_t)g_rand_int_range(
				rnd, 0, (gint32)(round % 2 ? MIN(200, len - off) : len - off) + 1);
			ck_assert_int_eq(mf_codec_range(&h, off, n, &object_off, &object_len), 0);
			ck_assert_uint_le(object_off + object_len, size);
			/* only the named bytes may be looked at, and only n written */
			g_autofree uint8_t *part = g_memdup2(o + object_off, MAX(object_len, 1));
			g_autofree uint8_t *dst = g_malloc(MAX(n, 1));
			ck_assert_int_eq(mf_codec_decode_range(&h, part, object_len, off, n, dst), 0);
			ck_assert(n == 0 || memcmp(dst, plain + off, n) == 0);
			/* touches no more blocks than it must */
			if (n > 0 && codec == MF_CODEC_NONE)
				ck_assert_uint_le(object_len, (((off + n - 1) >> 16) - (off >> 16) + 1) << 16);
			ck_assert_int_eq(mf_codec_decode_range(&h, part, object_len + 1, off, n, dst), -EBADMSG);
		}
		ck_assert_int_eq(mf_codec_range(&h, len, 0, &object_off, &object_len), 0);
		ck_assert_uint_eq(object_len, 0);
		ck_assert_int_eq(mf_codec_range(&h, len, 1, &object_off, &object_len), -EINVAL);
		ck_assert_int_eq(mf_codec_range(&h, 1, len, &object_off, &object_len), -EINVAL);
		ck_assert_int_eq(mf_codec_range(&h, UINT32_MAX, 2, &object_off, &object_len), -EINVAL);
		ck_assert_int_eq(mf_codec_range(&h, 2, UINT32_MAX, &object_off, &object_len), -EINVAL);
	}
}
END_TEST

START_TEST(larger_blocks_are_readable)
{
	/* a later writer may choose them without a new version: build such an object by hand */
	const uint32_t len = 300000;
	g_autofree uint8_t *plain = make_plain(NOISE, len);
	g_autofree uint8_t *back = g_malloc(len);
	g_auto(MfEnc) enc = MF_ENC_INIT;
	uint8_t sha[MF_SHA256_LEN];

	ck_assert_int_eq(mf_sha256(plain, len, sha), 0);
	mf_enc_raw(&enc, "mfS1\x01\x00\x12\x00", 8); /* 256 KiB */
	mf_enc_u64(&enc, INO);
	mf_enc_u32(&enc, INDEX);
	mf_enc_u32(&enc, len);
	mf_enc_raw(&enc, sha, sizeof(sha));
	mf_enc_u32(&enc, 2);
	mf_enc_u32(&enc, 262144 | 1u << 31);
	mf_enc_u32(&enc, mf_crc32c(0, plain, 262144));
	mf_enc_u32(&enc, (len - 262144) | 1u << 31);
	mf_enc_u32(&enc, mf_crc32c(0, plain + 262144, len - 262144));
	mf_enc_u32(&enc, mf_crc32c(0, mf_enc_data(&enc), mf_enc_len(&enc)));
	mf_enc_raw(&enc, plain, len);
	ck_assert_int_eq(decode(mf_enc_data(&enc), mf_enc_len(&enc), back, len), 0);
	ck_assert_mem_eq(back, plain, len);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("codec");
	TCase *tc = tcase_create("codec");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, round_trips);
	tcase_add_test(tc, format_is_pinned);
	tcase_add_test(tc, refusals);
	tcase_add_test(tc, a_good_crc_proves_nothing_but_itself);
	tcase_add_test(tc, lz4_garbage_under_a_good_crc);
	tcase_add_test(tc, truncation_at_every_byte);
	tcase_add_test(tc, flips_at_every_bit);
	tcase_add_test(tc, random_range_reads);
	tcase_add_test(tc, larger_blocks_are_readable);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
