/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/unit/test_bytes.c - crc32c, encoder and decoder: round trips, versions, and damage at every byte. */
#include "store/bytes.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/crc32c.h"

enum { TYPE_A = 7, TYPE_B = 9 };

START_TEST(crc_known_vectors)
{
	/* RFC 3720, B.4 */
	uint8_t buf[32];

	memset(buf, 0, 32);
	ck_assert_uint_eq(mf_crc32c(0, buf, 32), 0x8a9136aa);
	ck_assert_uint_eq(mf_crc32c_portable(0, buf, 32), 0x8a9136aa);
	memset(buf, 0xff, 32);
	ck_assert_uint_eq(mf_crc32c(0, buf, 32), 0x62a8ab43);
	for (unsigned i = 0; i < 32; i++)
		buf[i] = (uint8_t)i;
	ck_assert_uint_eq(mf_crc32c(0, buf, 32), 0x46dd794e);
	for (unsigned i = 0; i < 32; i++)
		buf[i] = (uint8_t)(31 - i);
	ck_assert_uint_eq(mf_crc32c(0, buf, 32), 0x113fdb5c);
	ck_assert_uint_eq(mf_crc32c_portable(0, buf, 32), 0x113fdb5c);

	static const uint8_t iscsi_read[48] = { 0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0,
		0, 0x04, 0, 0, 0, 0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0 };
	ck_assert_uint_eq(mf_crc32c(0, iscsi_read, 48), 0xd9963a56);
	ck_assert_uint_eq(mf_crc32c_portable(0, iscsi_read, 48), 0xd9963a56);

	ck_assert_uint_eq(mf_crc32c(0, "123456789", 9), 0xe3069283);
	ck_assert_uint_eq(mf_crc32c(0, "", 0), 0);
}
END_TEST

START_TEST(crc_pieces_and_portable_agree)
{
	uint8_t buf[300];

	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(i * 37 + 11);
	/* every alignment and every tail length, and any split in two */
	for (unsigned off = 0; off < 8; off++) {
		for (unsigned len = 0; off + len <= 64; len++)
			ck_assert_uint_eq(mf_crc32c(0, buf + off, len), mf_crc32c_portable(0, buf + off, len));
	}
	for (unsigned cut = 0; cut <= sizeof(buf); cut++) {
		uint32_t c = mf_crc32c(mf_crc32c(0, buf, cut), buf + cut, sizeof(buf) - cut);

		ck_assert_uint_eq(c, mf_crc32c(0, buf, sizeof(buf)));
		c = mf_crc32c_portable(mf_crc32c_portable(0, buf, cut), buf + cut, sizeof(buf) - cut);
		ck_assert_uint_eq(c, mf_crc32c(0, buf, sizeof(buf)));
	}
}
END_TEST

START_TEST(bytes_on_disk_are_little_endian)
{
	static const uint8_t want[] = { 0x01, 0x03, 0x02, 0x07, 0x06, 0x05, 0x04, 0x0f, 0x0e, 0x0d, 0x0c, 0x0b, 0x0a,
		0x09, 0x08, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x00, 'h', 'i', 0x03, 0, 0, 0, 'x', 0,
		'y', 'r' };
	g_auto(MfEnc) enc = MF_ENC_INIT;
	MfDec dec;
	size_t len;

	mf_enc_u8(&enc, 0x01);
	mf_enc_u16(&enc, 0x0203);
	mf_enc_u32(&enc, 0x04050607);
	mf_enc_u64(&enc, 0x08090a0b0c0d0e0fULL);
	mf_enc_i64(&enc, -2);
	mf_enc_str(&enc, "hi");
	mf_enc_bytes(&enc, "x\0y", 3);
	mf_enc_raw(&enc, "r", 1);
	ck_assert_int_eq(mf_enc_error(&enc), 0);
	ck_assert_uint_eq(mf_enc_len(&enc), sizeof(want));
	ck_assert_mem_eq(mf_enc_data(&enc), want, sizeof(want));

	mf_dec_init(&dec, mf_enc_data(&enc), mf_enc_len(&enc));
	ck_assert_uint_eq(mf_dec_u8(&dec), 0x01);
	ck_assert_uint_eq(mf_dec_u16(&dec), 0x0203);
	ck_assert_uint_eq(mf_dec_u32(&dec), 0x04050607);
	ck_assert_uint_eq(mf_dec_u64(&dec), 0x08090a0b0c0d0e0fULL);
	ck_assert_int_eq(mf_dec_i64(&dec), -2);
	g_autofree char *s = mf_dec_str(&dec);
	ck_assert_str_eq(s, "hi");
	const uint8_t *b = mf_dec_bytes(&dec, &len);
	ck_assert_uint_eq(len, 3);
	ck_assert_mem_eq(b, "x\0y", 3);
	ck_assert_uint_eq(mf_dec_left(&dec), 1);
	ck_assert_mem_eq(mf_dec_raw(&dec, 1), "r", 1);
	ck_assert_uint_eq(mf_dec_left(&dec), 0);
	ck_assert_uint_eq(mf_dec_pos(&dec), sizeof(want));
	ck_assert_int_eq(mf_dec_error(&dec), 0);
}
END_TEST

START_TEST(errors_stick)
{
	MfDec dec;
	size_t len = 99;

	mf_dec_init(&dec, "\x01\x02\x03", 3);
	ck_assert_uint_eq(mf_dec_u8(&dec), 1);
	ck_assert_uint_eq(mf_dec_u32(&dec), 0); /* only two bytes are left */
	ck_assert_int_eq(mf_dec_error(&dec), -EBADMSG);
	ck_assert_uint_eq(mf_dec_u8(&dec), 0); /* one would have been there */
	ck_assert_ptr_null(mf_dec_bytes(&dec, &len));
	ck_assert_uint_eq(len, 0);
	ck_assert_ptr_null(mf_dec_str(&dec));
	ck_assert_ptr_null(mf_dec_raw(&dec, 0));
	ck_assert_uint_eq(mf_dec_left(&dec), 0);
	ck_assert_int_eq(mf_dec_begin(&dec, TYPE_A, 1, NULL), -EBADMSG);
	ck_assert_int_eq(mf_dec_end(&dec), -EBADMSG);

	mf_dec_init(&dec, NULL, 0);
	ck_assert_ptr_nonnull(mf_dec_raw(&dec, 0));
	ck_assert_int_eq(mf_dec_error(&dec), 0);
	mf_dec_u8(&dec);
	ck_assert_int_eq(mf_dec_error(&dec), -EBADMSG);

	/* lengths that lie */
	mf_dec_init(&dec, "\xff\xff\xff\xff xyz", 8);
	ck_assert_ptr_null(mf_dec_bytes(&dec, &len));
	ck_assert_int_eq(mf_dec_error(&dec), -EBADMSG);
	mf_dec_init(&dec, "\x04\x00 xyz", 5);
	ck_assert_ptr_null(mf_dec_str_ref(&dec, &len));
	ck_assert_int_eq(mf_dec_error(&dec), -EBADMSG);
	mf_dec_init(&dec, "\x03\x00x\0z", 5);
	ck_assert_ptr_null(mf_dec_str(&dec));
	ck_assert_int_eq(mf_dec_error(&dec), -EBADMSG);

	/* a count must be possible */
	mf_dec_init(&dec, "\x02\0\0\0abcdefgh", 12);
	ck_assert_uint_eq(mf_dec_count(&dec, 4), 2);
	ck_assert_int_eq(mf_dec_error(&dec), 0);
	mf_dec_init(&dec, "\x03\0\0\0abcdefgh", 12);
	ck_assert_uint_eq(mf_dec_count(&dec, 4), 0);
	ck_assert_int_eq(mf_dec_error(&dec), -EBADMSG);

	mf_dec_init(&dec, "x", 1);
	mf_dec_fail(&dec);
	ck_assert_int_eq(mf_dec_error(&dec), -EBADMSG);
}
END_TEST

START_TEST(encoder_refuses_what_does_not_fit)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	g_autofree char *s = g_strnfill(65536, 'a');
	size_t f;

	f = mf_enc_begin(&enc, TYPE_A, 1, 1);
	mf_enc_str(&enc, s);
	ck_assert_int_eq(mf_enc_error(&enc), -ENAMETOOLONG);
	mf_enc_u64(&enc, 1);
	ck_assert_uint_eq(mf_enc_len(&enc), MF_FRAME_HEAD);
	ck_assert_int_eq(mf_enc_end(&enc, f), -ENAMETOOLONG);

	mf_enc_clear(&enc);
	s[65535] = 0;
	f = mf_enc_begin(&enc, TYPE_A, 1, 1);
	mf_enc_str(&enc, s);
	ck_assert_int_eq(mf_enc_end(&enc, f), 0);

	MfDec dec;
	mf_dec_init(&dec, mf_enc_data(&enc), mf_enc_len(&enc));
	ck_assert_int_eq(mf_dec_begin(&dec, TYPE_A, 1, NULL), 0);
	g_autofree char *back = mf_dec_str(&dec);
	ck_assert_str_eq(back, s);
	ck_assert_int_eq(mf_dec_end(&dec), 0);

	/* the length alone must stop it: there are no such bytes behind the pointer */
	mf_enc_bytes(&enc, s, (size_t)1 << 40);
	ck_assert_int_eq(mf_enc_error(&enc), -E2BIG);
}
END_TEST

START_TEST(steal_leaves_it_empty)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	g_autoptr(GByteArray) none = mf_enc_steal(&enc);

	ck_assert_ptr_nonnull(none);
	ck_assert_uint_eq(none->len, 0);
	mf_enc_bytes(&enc, NULL, 0);
	mf_enc_raw(&enc, NULL, 0);
	g_autoptr(GByteArray) some = mf_enc_steal(&enc);
	ck_assert_uint_eq(some->len, 4);
	ck_assert_uint_eq(mf_enc_len(&enc), 0);
	mf_enc_u8(&enc, 1);
	ck_assert_uint_eq(mf_enc_len(&enc), 1);
}
END_TEST

/* What a writer that knows @version writes: every version appends a field. */
static void put_record(MfEnc *enc, uint8_t version, uint8_t compat)
{
	size_t f = mf_enc_begin(enc, TYPE_A, version, compat);

	for (unsigned v = 1; v <= version; v++)
		mf_enc_u32(enc, v * 100);
	ck_assert_int_eq(mf_enc_end(enc, f), 0);
}

START_TEST(versions)
{
	for (uint8_t version = 1; version <= 4; version++) {
		for (uint8_t compat = 1; compat <= version; compat++) {
			g_auto(MfEnc) enc = MF_ENC_INIT;

			put_record(&enc, version, compat);
			mf_enc_u8(&enc, 0x5a); /* what follows the frame must be found again */
			for (uint8_t known = 1; known <= 4; known++) {
				uint8_t got = 77;
				MfDec dec;
				int r;

				mf_dec_init(&dec, mf_enc_data(&enc), mf_enc_len(&enc));
				r = mf_dec_begin(&dec, TYPE_A, known, &got);
				if (compat > known) {
					ck_assert_int_eq(r, -EPROTONOSUPPORT);
					ck_assert_int_eq(mf_dec_error(&dec), -EPROTONOSUPPORT);
					ck_assert_uint_eq(got, 77);
					continue;
				}
				ck_assert_int_eq(r, 0);
				ck_assert_uint_eq(got, version);
				for (unsigned v = 1; v <= MIN(known, version); v++)
					ck_assert_uint_eq(mf_dec_u32(&dec), v * 100);
				ck_assert_int_eq(mf_dec_end(&dec), 0);
				ck_assert_uint_eq(mf_dec_u8(&dec), 0x5a);
				ck_assert_int_eq(mf_dec_error(&dec), 0);
			}
		}
	}
}
END_TEST

START_TEST(frame_confines_its_reader)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	MfDec dec;

	put_record(&enc, 1, 1);
	put_record(&enc, 1, 1);

	/* overrun: the second record's bytes are not the first one's fields */
	mf_dec_init(&dec, mf_enc_data(&enc), mf_enc_len(&enc));
	ck_assert_int_eq(mf_dec_begin(&dec, TYPE_A, 1, NULL), 0);
	mf_dec_u32(&dec);
	mf_dec_u8(&dec);
	ck_assert_int_eq(mf_dec_end(&dec), -EBADMSG);

	/* left over in a version that we know */
	mf_dec_init(&dec, mf_enc_data(&enc), mf_enc_len(&enc));
	ck_assert_int_eq(mf_dec_begin(&dec, TYPE_A, 1, NULL), 0);
	mf_dec_u16(&dec);
	ck_assert_int_eq(mf_dec_end(&dec), -EBADMSG);

	/* unless skipped on purpose */
	mf_dec_init(&dec, mf_enc_data(&enc), mf_enc_len(&enc));
	ck_assert_int_eq(mf_dec_begin(&dec, TYPE_A, 1, NULL), 0);
	mf_dec_skip(&dec);
	ck_assert_int_eq(mf_dec_end(&dec), 0);
	ck_assert_int_eq(mf_dec_begin(&dec, TYPE_A, 1, NULL), 0);
	ck_assert_uint_eq(mf_dec_u32(&dec), 100);
	ck_assert_int_eq(mf_dec_end(&dec), 0);
	ck_assert_uint_eq(mf_dec_left(&dec), 0);

	/* another type */
	mf_dec_init(&dec, mf_enc_data(&enc), mf_enc_len(&enc));
	ck_assert_int_eq(mf_dec_begin(&dec, TYPE_B, 1, NULL), -EBADMSG);
}
END_TEST

START_TEST(nested_frames)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	uint8_t version;
	MfDec dec;
	size_t outer, inner;

	outer = mf_enc_begin(&enc, TYPE_A, 3, 1);
	mf_enc_u32(&enc, 2);
	for (uint32_t i = 0; i < 2; i++) {
		inner = mf_enc_begin(&enc, TYPE_B, 2, 1);
		mf_enc_u64(&enc, 1000 + i);
		mf_enc_u8(&enc, 1); /* a field of version 2 */
		ck_assert_int_eq(mf_enc_end(&enc, inner), 0);
	}
	mf_enc_str(&enc, "tail of version 3");
	ck_assert_int_eq(mf_enc_end(&enc, outer), 0);

	mf_dec_init(&dec, mf_enc_data(&enc), mf_enc_len(&enc));
	ck_assert_int_eq(mf_dec_begin(&dec, TYPE_A, 1, &version), 0);
	ck_assert_uint_eq(version, 3);
	uint32_t n = mf_dec_count(&dec, MF_FRAME_OVERHEAD + 8);
	ck_assert_uint_eq(n, 2);
	for (uint32_t i = 0; i < n; i++) {
		ck_assert_int_eq(mf_dec_begin(&dec, TYPE_B, 1, NULL), 0);
		ck_assert_uint_eq(mf_dec_u64(&dec), 1000 + i);
		ck_assert_int_eq(mf_dec_end(&dec), 0);
	}
	ck_assert_int_eq(mf_dec_end(&dec), 0);
	ck_assert_uint_eq(mf_dec_left(&dec), 0);

	/* as deep as the encoder allows, and back */
	mf_enc_clear(&enc);
	size_t f[MF_DEC_DEPTH];
	for (unsigned i = 0; i < MF_DEC_DEPTH; i++)
		f[i] = mf_enc_begin(&enc, TYPE_A, 1, 1);
	for (unsigned i = MF_DEC_DEPTH; i-- > 0;)
		ck_assert_int_eq(mf_enc_end(&enc, f[i]), 0);
	mf_dec_init(&dec, mf_enc_data(&enc), mf_enc_len(&enc));
	for (unsigned i = 0; i < MF_DEC_DEPTH; i++)
		ck_assert_int_eq(mf_dec_begin(&dec, TYPE_A, 1, NULL), 0);
	for (unsigned i = 0; i < MF_DEC_DEPTH; i++)
		ck_assert_int_eq(mf_dec_end(&dec), 0);
}
END_TEST

START_TEST(frame_too_deep_for_the_reader)
{
	/* a foreign writer may nest deeper than we do: refused, not overrun */
	g_autoptr(GByteArray) all = g_byte_array_new();
	MfDec dec;
	int r = 0;

	for (unsigned i = 0; i <= MF_DEC_DEPTH; i++) {
		g_auto(MfEnc) enc = MF_ENC_INIT;
		size_t f = mf_enc_begin(&enc, TYPE_A, 1, 1);

		mf_enc_raw(&enc, all->data, all->len);
		ck_assert_int_eq(mf_enc_end(&enc, f), 0);
		g_byte_array_unref(all);
		all = mf_enc_steal(&enc);
	}
	mf_dec_init(&dec, all->data, all->len);
	for (unsigned i = 0; i < MF_DEC_DEPTH; i++)
		ck_assert_int_eq(mf_dec_begin(&dec, TYPE_A, 1, NULL), 0);
	r = mf_dec_begin(&dec, TYPE_A, 1, NULL);
	ck_assert_int_eq(r, -EBADMSG);
}
END_TEST

/* Reads the record of the damage tests; 0 only when every field is as it was written. */
static int read_sample(const uint8_t *data, size_t len)
{
	g_autofree char *s = NULL;
	const uint8_t *b;
	size_t n;
	MfDec dec;
	int r;

	mf_dec_init(&dec, data, len);
	mf_dec_begin(&dec, TYPE_A, 1, NULL);
	uint64_t v = mf_dec_u64(&dec);
	s = mf_dec_str(&dec);
	b = mf_dec_bytes(&dec, &n);
	r = mf_dec_end(&dec);
	if (r < 0)
		return r;
	ck_assert_uint_eq(v, 0x1122334455667788ULL);
	ck_assert_str_eq(s, "1700000000.M1P2.host:2,S");
	ck_assert_uint_eq(n, 5);
	ck_assert_mem_eq(b, "bytes", 5);
	return 0;
}

START_TEST(damage_is_found_at_every_byte)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	size_t f = mf_enc_begin(&enc, TYPE_A, 1, 1);

	mf_enc_u64(&enc, 0x1122334455667788ULL);
	mf_enc_str(&enc, "1700000000.M1P2.host:2,S");
	mf_enc_bytes(&enc, "bytes", 5);
	ck_assert_int_eq(mf_enc_end(&enc, f), 0);

	size_t len = mf_enc_len(&enc);
	ck_assert_int_eq(read_sample(mf_enc_data(&enc), len), 0);
	for (size_t cut = 0; cut < len; cut++) {
		/* an exact copy, so that a sanitizer sees any read behind it */
		g_autofree uint8_t *copy = g_memdup2(mf_enc_data(&enc), MAX(cut, 1));

		ck_assert_int_eq(read_sample(copy, cut), -EBADMSG);
	}
	for (size_t at = 0; at < len; at++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			g_autofree uint8_t *copy = g_memdup2(mf_enc_data(&enc), len);

			copy[at] ^= (uint8_t)(1u << bit);
			ck_assert_int_eq(read_sample(copy, len), -EBADMSG);
		}
	}
}
END_TEST

START_TEST(inner_lengths_may_lie_under_a_good_crc)
{
	/* the crc says that the bytes are what was written, not that they make sense */
	for (unsigned seed = 0; seed < 20000; seed++) {
		g_autoptr(GRand) rnd = g_rand_new_with_seed(seed);
		g_auto(MfEnc) enc = MF_ENC_INIT;
		size_t f = mf_enc_begin(&enc, TYPE_A, 1, 1), n;
		unsigned len = (unsigned)g_rand_int_range(rnd, 0, 40);
		MfDec dec;

		for (unsigned i = 0; i < len; i++)
			mf_enc_u8(&enc, (uint8_t)g_rand_int_range(rnd, 0, g_rand_boolean(rnd) ? 4 : 256));
		ck_assert_int_eq(mf_enc_end(&enc, f), 0);

		g_autofree uint8_t *copy = g_memdup2(mf_enc_data(&enc), mf_enc_len(&enc));
		const uint8_t *end = copy + mf_enc_len(&enc) - 4;
		mf_dec_init(&dec, copy, mf_enc_len(&enc));
		ck_assert_int_eq(mf_dec_begin(&dec, TYPE_A, 1, NULL), 0);
		while (mf_dec_left(&dec) > 0) {
			const uint8_t *p = NULL;

			switch (g_rand_int_range(rnd, 0, 6)) {
			case 0:
				p = mf_dec_bytes(&dec, &n);
				break;
			case 1:
				p = (const uint8_t *)mf_dec_str_ref(&dec, &n);
				break;
			case 2:
				n = mf_dec_count(&dec, 3) * 3;
				p = copy + mf_dec_pos(&dec);
				break;
			case 3:
				mf_dec_begin(&dec, TYPE_A, 1, NULL);
				break;
			case 4:
				mf_dec_u8(&dec);
				break;
			default:
				mf_dec_u32(&dec);
			}
			if (p)
				ck_assert(p >= copy && p <= end && n <= (size_t)(end - p));
		}
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("bytes");
	TCase *tc = tcase_create("bytes");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, crc_known_vectors);
	tcase_add_test(tc, crc_pieces_and_portable_agree);
	tcase_add_test(tc, bytes_on_disk_are_little_endian);
	tcase_add_test(tc, errors_stick);
	tcase_add_test(tc, encoder_refuses_what_does_not_fit);
	tcase_add_test(tc, steal_leaves_it_empty);
	tcase_add_test(tc, versions);
	tcase_add_test(tc, frame_confines_its_reader);
	tcase_add_test(tc, nested_frames);
	tcase_add_test(tc, frame_too_deep_for_the_reader);
	tcase_add_test(tc, damage_is_found_at_every_byte);
	tcase_add_test(tc, inner_lengths_may_lie_under_a_good_crc);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
