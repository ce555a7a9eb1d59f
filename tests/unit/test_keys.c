/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/unit/test_keys.c - names in RADOS: what they look like for ever, and which names a file may have. */
#include "store/keys.h"

#include <check.h>
#include <errno.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>

/* ---- objects ---- */

#define CHECK_STR(expr, expected)                                                                                      \
	do {                                                                                                           \
		g_autofree char *got = expr;                                                                           \
		ck_assert_str_eq(got, expected);                                                                       \
	} while (0)

START_TEST(objects)
{
	CHECK_STR(mf_oid_dir(1, 0), "d.0000000000000001");
	CHECK_STR(mf_oid_dir(UINT64_C(0x123456789abcdef0), 0), "d.123456789abcdef0");
	CHECK_STR(mf_oid_dir(0x300000002, 0x1f), "d.0000000300000002.1f");
	CHECK_STR(mf_oid_message(0x300000002, 0), "m.0000000300000002");
	CHECK_STR(mf_oid_message(0x300000002, 16383), "m.0000000300000002.3fff");
	CHECK_STR(mf_oid_file(0x300000002, 0), "f.0000000300000002.0");
	CHECK_STR(mf_oid_file(0x300000002, 10), "f.0000000300000002.a");
	CHECK_STR(mf_oid_node(0xbeef), "node.0000beef");
	CHECK_STR(mf_oid_node(UINT32_MAX), "node.ffffffff");
}
END_TEST

/* ---- keys ---- */

START_TEST(entries)
{
	static const struct {
		enum mf_space space;
		const char *name, *key;
	} cases[] = {
		{ MF_SPACE_SELF, "dovecot-uidlist", "e/dovecot-uidlist" },
		{ MF_SPACE_SELF, ".Sent", "e/.Sent" },
		{ MF_SPACE_SELF, "cur", "e/cur" },
		{ MF_SPACE_CUR, "1.a.h:2,S", "c/1.a.h:2,S" },
		{ MF_SPACE_NEW, "1.a.h", "n/1.a.h" },
		{ MF_SPACE_TMP, "1.a.h", "t/1.a.h" },
		{ MF_SPACE_SELF, "z", "e/z" },
		{ MF_SPACE_CUR, "...", "c/..." },
		{ MF_SPACE_CUR, " ", "c/ " },
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
		enum mf_space space = MF_SPACES;
		g_autofree char *key = mf_key_entry(cases[i].space, cases[i].name);
		ck_assert_str_eq(key, cases[i].key);
		ck_assert(mf_key_is_entry(key, &space));
		ck_assert_int_eq(space, cases[i].space);
		ck_assert_str_eq(key + MF_KEY_PREFIX, cases[i].name);
	}
}
END_TEST

START_TEST(no_entries)
{
	static const char *const keys[] = { "", "e", "e/", "/", "//", "x", "e/a/b", "e/.", "e/..", "E/a", "ee/a", "ex", "a/b",
		"z/0000000000000001", "x/0000000300000002.0000000000000000", "r/0000000000000001", "g/0000000000000001" };

	for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++) {
		enum mf_space space = MF_SPACES;
		ck_assert_msg(!mf_key_is_entry(keys[i], &space), "'%s'", keys[i]);
		ck_assert_int_eq(space, MF_SPACES);
	}
}
END_TEST

/* Every byte that a file name may have comes back from its key, in every space. */
START_TEST(any_byte)
{
	for (unsigned c = 1; c < 256; c++) {
		const char name[] = { 'a', (char)c, 'b', '\0' };
		if (c == '/') {
			ck_assert_int_eq(mf_name_check(name), -EINVAL);
			continue;
		}
		ck_assert_int_eq(mf_name_check(name), 0);
		ck_assert_int_eq(mf_name_check(name + 1), 0);
		for (enum mf_space s = 0; s < MF_SPACES; s++) {
			enum mf_space space;
			g_autofree char *key = mf_key_entry(s, name);
			ck_assert(mf_key_is_entry(key, &space));
			ck_assert_int_eq(space, s);
			ck_assert_str_eq(key + MF_KEY_PREFIX, name);
		}
	}
}
END_TEST

START_TEST(numbers)
{
	static const uint64_t values[] = { 0, 1, 0x51, UINT64_C(0x0123456789abcdef), INT64_MAX, UINT64_MAX };
	static const char *const prefixes[] = { MF_KEY_CHANGE, MF_KEY_REAP, MF_KEY_INTENT, MF_KEY_GAIN };

	for (unsigned p = 0; p < G_N_ELEMENTS(prefixes); p++) {
		for (unsigned i = 0; i < G_N_ELEMENTS(values); i++) {
			uint64_t back = ~values[i];
			g_autofree char *key = mf_key_number(prefixes[p], values[i]);
			ck_assert_uint_eq(strlen(key), MF_KEY_PREFIX + 16);
			ck_assert(mf_key_parse_number(key, prefixes[p], &back));
			ck_assert_uint_eq(back, values[i]);
		}
	}
	CHECK_STR(mf_key_number(MF_KEY_CHANGE, 0xab), "z/00000000000000ab");
	CHECK_STR(mf_key_reap(0x300000002, 0xfedcba9876543210), "x/0000000300000002.fedcba9876543210");
	CHECK_STR(mf_key_pair(MF_KEY_REFERENCE, 0x300000006, 0x300000002), "k/0000000300000006.0000000300000002");
	uint64_t ino = 0;
	ck_assert(mf_key_parse_number("x/0000000300000002.fedcba9876543210", MF_KEY_REAP, &ino));
	ck_assert_uint_eq(ino, 0x300000002);

	/* the order of the keys is that of the numbers: the ring is read from a version on */
	g_autofree char *a = mf_key_number(MF_KEY_CHANGE, 0xff), *b = mf_key_number(MF_KEY_CHANGE, 0x100);
	ck_assert_int_lt(strcmp(a, b), 0);
}
END_TEST

START_TEST(interest)
{
	static const char *const others[] = { "", "i.", "i.0000000", "i.000000010", "i.0000000g", "i.+0000001", "u.00000001",
		"epoch" };
	uint32_t incarnation = 77;

	CHECK_STR(mf_xattr_interest(0xfedcba98), "i.fedcba98");
	for (unsigned i = 0; i < G_N_ELEMENTS(others); i++)
		ck_assert_msg(!mf_xattr_parse_interest(others[i], &incarnation), "'%s'", others[i]);
	ck_assert_uint_eq(incarnation, 77);
	ck_assert(mf_xattr_parse_interest("i.fedcba98", &incarnation));
	ck_assert_uint_eq(incarnation, 0xfedcba98);
}
END_TEST

START_TEST(no_numbers)
{
	static const char *const keys[] = { "", "z", "z/", "z/0", "z/000000000000000", "z/00000000000000000",
		"z/000000000000000g", "z/ 000000000000001", "z/-000000000000001", "z/0x00000000000001", "x/0000000000000001",
		"e/0000000000000001" };

	for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++) {
		uint64_t number = 77;
		ck_assert_msg(!mf_key_parse_number(keys[i], MF_KEY_CHANGE, &number), "'%s'", keys[i]);
		ck_assert_uint_eq(number, 77);
	}
}
END_TEST

START_TEST(spaces)
{
	ck_assert_int_eq(mf_space_of_name("cur"), MF_SPACE_CUR);
	ck_assert_int_eq(mf_space_of_name("new"), MF_SPACE_NEW);
	ck_assert_int_eq(mf_space_of_name("tmp"), MF_SPACE_TMP);
	for (enum mf_space s = MF_SPACE_CUR; s < MF_SPACES; s++)
		ck_assert_int_eq(mf_space_of_name(mf_space_name(s)), s);
	ck_assert_int_eq(mf_space_of_name(""), MF_SPACE_SELF);
	ck_assert_int_eq(mf_space_of_name("Cur"), MF_SPACE_SELF);
	ck_assert_int_eq(mf_space_of_name("curs"), MF_SPACE_SELF);
	ck_assert_int_eq(mf_space_of_name(".cur"), MF_SPACE_SELF);
	ck_assert_int_eq(mf_space_of_name("cu"), MF_SPACE_SELF);
}
END_TEST

/* ---- names ---- */

START_TEST(name_length)
{
	char name[300];

	memset(name, 'x', sizeof(name));
	name[255] = '\0';
	ck_assert_int_eq(mf_name_check(name), 0);
	g_autofree char *key = mf_key_entry(MF_SPACE_CUR, name);
	enum mf_space space;
	ck_assert_uint_eq(strlen(key), MF_KEY_PREFIX + 255);
	ck_assert(mf_key_is_entry(key, &space));

	name[255] = 'x';
	name[256] = '\0';
	ck_assert_int_eq(mf_name_check(name), -ENAMETOOLONG);
	g_autofree char *longer = mf_key_entry(MF_SPACE_CUR, name);
	ck_assert(!mf_key_is_entry(longer, &space));

	/* bytes count, not characters: 128 of two bytes each */
	for (unsigned i = 0; i < 256; i += 2)
		memcpy(name + i, "\xc3\xa4", 2);
	ck_assert_int_eq(mf_name_check(name), -ENAMETOOLONG);
	name[254] = '\0';
	ck_assert_int_eq(mf_name_check(name), 0);
}
END_TEST

START_TEST(name_forms)
{
	static const char *const good[] = { "a", "...", "..a", ".a", "-", "~", " ", "\n", "a\nb", ":2,", ":", "\xff\xfe",
		"\xc3", "\xed\xa0\x80", "1700000000.M1P2.mx1,S=5,W=7:2,RS", ".Archiv.2024", "dovecot.index.log" };
	static const char *const bad[] = { "", ".", "..", "/", "a/", "/a", "../a", "cur/a" };

	for (unsigned i = 0; i < G_N_ELEMENTS(good); i++)
		ck_assert_msg(mf_name_check(good[i]) == 0, "'%s'", good[i]);
	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
		ck_assert_msg(mf_name_check(bad[i]) == -EINVAL, "'%s'", bad[i]);
}
END_TEST

START_TEST(base_names)
{
	static const struct {
		const char *name;
		size_t len;
	} cases[] = {
		{ "1700000000.M1P2.mx1", 19 },
		{ "1700000000.M1P2.mx1:2,", 19 },
		{ "1700000000.M1P2.mx1:2,FRS", 19 },
		{ "1700000000.M1P2.mx1,S=5,W=7:2,S", 27 },
		{ ".Sent", 5 },
		{ ".a:2,S", 2 },
		{ "a:1,x", 5 },  /* experimental info: no flags that change */
		{ "a:2", 3 },
		{ "a:b:2,S", 3 },
		{ "a:2,S:2,T", 1 },
		{ ":2,S", 0 },
		{ "a,2:S", 5 },
		{ "a\n\xff:2,S", 3 },
		{ "", 0 },
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++)
		ck_assert_msg(mf_maildir_base_len(cases[i].name) == cases[i].len, "'%s'", cases[i].name);
}
END_TEST

/* ---- the hash that chooses a shard ---- */

/* Values of FNV-1a 64, its halves xored. They lie in RADOS as shard prefixes: never to change. */
START_TEST(hash_values)
{
	static const struct {
		const char *name;
		uint32_t hash;
	} cases[] = {
		{ "", 0x4fd0bfc1 },
		{ "a", 0x296230c0 },
		{ "dovecot-uidlist", 0x7574b587 },
		{ ".Sent", 0xebea67b1 },
		{ "1700000000.M1P2.mx1", 0x490440d9 },
		{ "1700000000.M1P2.mx1:2,FS", 0x490440d9 },
		{ "1700000000.M1P2.mx1,S=5,W=7:2,", 0x3e95eabb },
		{ "\xff\xfe\n:", 0xa8bcc939 },
		{ ":2,S", 0x4fd0bfc1 },
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++)
		ck_assert_msg(mf_name_hash(cases[i].name) == cases[i].hash, "'%s': %08x", cases[i].name,
			mf_name_hash(cases[i].name));
}
END_TEST

START_TEST(hash_keeps_with_flags)
{
	static const char *const infos[] = { ":2,", ":2,S", ":2,RS", ":2,FST", ":2,abcdefghijklmnopqrstuvwxyz", ":2,\xff" };
	g_autoptr(GRand) rand = g_rand_new_with_seed(4711);

	for (unsigned round = 0; round < 2000; round++) {
		char base[64];
		unsigned len = (unsigned)g_rand_int_range(rand, 1, 60);
		for (unsigned i = 0; i < len; i++)
			base[i] = (char)g_rand_int_range(rand, 0x30, 0x7f);
		base[len] = '\0';
		if (strstr(base, ":2,"))
			continue;
		for (unsigned i = 0; i < G_N_ELEMENTS(infos); i++) {
			g_autofree char *name = g_strconcat(base, infos[i], NULL);
			ck_assert_uint_eq(mf_name_hash(name), mf_name_hash(base));
		}
	}
}
END_TEST

/* The low bits choose: names that differ in a counter must spread over all shards. */
START_TEST(hash_spreads)
{
	unsigned count[64] = { 0 };
	const unsigned n = 64 * 400;

	for (unsigned i = 0; i < n; i++) {
		g_autofree char *name = g_strdup_printf("1700000000.M%uP1234.mx1,S=5,W=7:2,S", i);
		count[mf_name_hash(name) % 64]++;
	}
	for (unsigned i = 0; i < 64; i++)
		ck_assert_msg(count[i] > 280 && count[i] < 520, "shard %u got %u of %u names", i, count[i], n);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("keys");
	TCase *tcase = tcase_create("keys");

	tcase_add_test(tcase, objects);
	tcase_add_test(tcase, entries);
	tcase_add_test(tcase, no_entries);
	tcase_add_test(tcase, any_byte);
	tcase_add_test(tcase, numbers);
	tcase_add_test(tcase, interest);
	tcase_add_test(tcase, no_numbers);
	tcase_add_test(tcase, spaces);
	tcase_add_test(tcase, name_length);
	tcase_add_test(tcase, name_forms);
	tcase_add_test(tcase, base_names);
	tcase_add_test(tcase, hash_values);
	tcase_add_test(tcase, hash_keeps_with_flags);
	tcase_add_test(tcase, hash_spreads);
	suite_add_tcase(suite, tcase);

	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
