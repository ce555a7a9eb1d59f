/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/unit/test_stripecache.c - what is put comes back, the least recently used goes, the limit holds. */
#include "sync/stripecache.h"

#include <check.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

G_DEFINE_AUTOPTR_CLEANUP_FUNC(MfStripeCache, mf_stripecache_free)

#define PLAIN 4096u

static GBytes *make(uint64_t ino, uint32_t index, size_t len)
{
	uint8_t *data = g_malloc(MAX(len, 1));

	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)(ino * 7 + index * 13 + i);
	return g_bytes_new_take(data, len);
}

static void put(MfStripeCache *cache, uint64_t ino, uint32_t index, size_t len)
{
	g_autoptr(GBytes) plain = make(ino, index, len);

	mf_stripecache_put(cache, ino, index, plain);
}

/* Whether it is there; fails if it is there with other bytes. Counts as a use. */
static bool has(MfStripeCache *cache, uint64_t ino, uint32_t index, size_t len)
{
	g_autoptr(GBytes) got = mf_stripecache_get(cache, ino, index), expected = make(ino, index, len);

	ck_assert(!got || g_bytes_equal(got, expected));
	return got != NULL;
}

/* What one entry of PLAIN bytes counts. */
static uint64_t one(void)
{
	g_autoptr(MfStripeCache) cache = mf_stripecache_new(1 << 20);

	put(cache, 1, 0, PLAIN);
	uint64_t bytes = mf_stripecache_bytes(cache);
	ck_assert_uint_ge(bytes, PLAIN);
	ck_assert_uint_le(bytes, PLAIN + 512);
	return bytes;
}

START_TEST(keeps)
{
	g_autoptr(MfStripeCache) cache = mf_stripecache_new(1 << 20);

	ck_assert_ptr_null(mf_stripecache_get(cache, 1, 0));
	ck_assert_uint_eq(mf_stripecache_bytes(cache), 0);
	put(cache, 1, 0, 10);
	put(cache, 1, 1, 20);
	put(cache, 2, 0, 30);
	put(cache, UINT64_MAX, UINT32_MAX, 0);
	ck_assert(has(cache, 1, 0, 10));
	ck_assert(has(cache, 1, 1, 20));
	ck_assert(has(cache, 2, 0, 30));
	ck_assert(has(cache, UINT64_MAX, UINT32_MAX, 0));
	ck_assert(!has(cache, 2, 1, 0));
	ck_assert(!has(cache, 3, 0, 0));
	/* numbers that differ in the upper half only, as those of two incarnations do */
	put(cache, UINT64_C(5) << 32 | 9, 0, 40);
	ck_assert(has(cache, UINT64_C(5) << 32 | 9, 0, 40));
	ck_assert(!has(cache, UINT64_C(9) << 32 | 5, 0, 40));
}
END_TEST

/* A message is immutable: a second reader that comes with the same stripe changes and costs nothing. */
START_TEST(put_twice)
{
	g_autoptr(MfStripeCache) cache = mf_stripecache_new(1 << 20);
	g_autoptr(GBytes) first = make(1, 0, PLAIN);

	mf_stripecache_put(cache, 1, 0, first);
	uint64_t bytes = mf_stripecache_bytes(cache);
	put(cache, 1, 0, PLAIN);
	ck_assert_uint_eq(mf_stripecache_bytes(cache), bytes);
	g_autoptr(GBytes) got = mf_stripecache_get(cache, 1, 0);
	ck_assert_ptr_eq(got, first);
}
END_TEST

START_TEST(oldest_goes)
{
	const unsigned n = 8;
	g_autoptr(MfStripeCache) cache = mf_stripecache_new(n * one());

	for (unsigned i = 0; i < n; i++)
		put(cache, 100 + i, 0, PLAIN);
	ck_assert_uint_eq(mf_stripecache_bytes(cache), n * one());
	for (unsigned i = 0; i < n; i++)
		ck_assert(has(cache, 100 + i, 0, PLAIN));
	put(cache, 200, 0, PLAIN);
	ck_assert_uint_eq(mf_stripecache_bytes(cache), n * one());
	ck_assert(!has(cache, 100, 0, PLAIN));
	for (unsigned i = 1; i < n; i++)
		ck_assert(has(cache, 100 + i, 0, PLAIN));
	ck_assert(has(cache, 200, 0, PLAIN));
}
END_TEST

START_TEST(use_keeps)
{
	const unsigned n = 8;
	g_autoptr(MfStripeCache) cache = mf_stripecache_new(n * one());

	for (unsigned i = 0; i < n; i++)
		put(cache, i, 0, PLAIN);
	ck_assert(has(cache, 0, 0, PLAIN));
	ck_assert(has(cache, 3, 0, PLAIN));
	for (unsigned i = 0; i < n - 2; i++)
		put(cache, 100 + i, 0, PLAIN);
	ck_assert(has(cache, 0, 0, PLAIN));
	ck_assert(has(cache, 3, 0, PLAIN));
	for (unsigned i = 0; i < n; i++)
		ck_assert(i == 0 || i == 3 || !has(cache, i, 0, PLAIN));
}
END_TEST

/* What somebody still reads from stays valid when the cache lets it go, and when the cache itself goes. */
START_TEST(reference_outlives)
{
	MfStripeCache *cache = mf_stripecache_new(2 * one());
	g_autoptr(GBytes) expected = make(1, 0, PLAIN);

	put(cache, 1, 0, PLAIN);
	g_autoptr(GBytes) held = mf_stripecache_get(cache, 1, 0);
	for (unsigned i = 2; i < 10; i++)
		put(cache, i, 0, PLAIN);
	ck_assert(!has(cache, 1, 0, PLAIN));
	ck_assert(g_bytes_equal(held, expected));
	ck_assert_ptr_null(mf_stripecache_free(cache));
	ck_assert(g_bytes_equal(held, expected));
	ck_assert_ptr_null(mf_stripecache_free(NULL));
}
END_TEST

/* Many small ones count for more than their bytes, so that the limit is one of memory. */
START_TEST(limit_holds)
{
	const uint64_t limit = 256 << 10;
	g_autoptr(MfStripeCache) cache = mf_stripecache_new(limit);
	g_autoptr(GRand) rand = g_rand_new_with_seed(99);
	unsigned kept = 0;

	for (unsigned i = 0; i < 20000; i++) {
		put(cache, i, i % 3, i % 2 ? 0 : (size_t)g_rand_int_range(rand, 0, 8192));
		ck_assert_uint_le(mf_stripecache_bytes(cache), limit);
	}
	for (unsigned i = 0; i < 20000; i += 2) {
		g_autoptr(GBytes) got = mf_stripecache_get(cache, i + 1, (i + 1) % 3);
		kept += got != NULL;
	}
	ck_assert_uint_gt(kept, 0);
	ck_assert_uint_lt(kept, limit / 64);
}
END_TEST

START_TEST(no_room)
{
	g_autoptr(MfStripeCache) none = mf_stripecache_new(0);

	put(none, 1, 0, PLAIN);
	put(none, 1, 1, 0);
	ck_assert(!has(none, 1, 0, PLAIN));
	ck_assert_uint_eq(mf_stripecache_bytes(none), 0);
}
END_TEST

struct racer {
	MfStripeCache *cache;
	unsigned seed, hits;
	bool wrong;
};

static void *race(void *arg)
{
	struct racer *racer = arg;
	g_autoptr(GRand) rand = g_rand_new_with_seed(racer->seed);

	for (unsigned i = 0; i < 20000; i++) {
		uint64_t ino = (uint64_t)g_rand_int_range(rand, 0, 64);
		uint32_t index = (uint32_t)g_rand_int_range(rand, 0, 2);
		g_autoptr(GBytes) expected = make(ino, index, 512);
		g_autoptr(GBytes) got = mf_stripecache_get(racer->cache, ino, index);
		if (got) {
			racer->hits++;
			racer->wrong |= !g_bytes_equal(got, expected);
		} else {
			mf_stripecache_put(racer->cache, ino, index, expected);
		}
	}
	return NULL;
}

START_TEST(threads)
{
	g_autoptr(MfStripeCache) cache = mf_stripecache_new(64 * 512);
	struct racer racers[4];
	GThread *thread[4];

	for (unsigned i = 0; i < 4; i++) {
		racers[i] = (struct racer){ cache, 1000 + i, 0, false };
		thread[i] = g_thread_new("racer", race, &racers[i]);
	}
	for (unsigned i = 0; i < 4; i++) {
		g_thread_join(thread[i]);
		ck_assert(!racers[i].wrong);
		ck_assert_uint_gt(racers[i].hits, 0);
	}
	ck_assert_uint_le(mf_stripecache_bytes(cache), 64 * 512);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("stripecache");
	TCase *tcase = tcase_create("stripecache");

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, keeps);
	tcase_add_test(tcase, put_twice);
	tcase_add_test(tcase, oldest_goes);
	tcase_add_test(tcase, use_keeps);
	tcase_add_test(tcase, reference_outlives);
	tcase_add_test(tcase, limit_holds);
	tcase_add_test(tcase, no_room);
	tcase_add_test(tcase, threads);
	suite_add_tcase(suite, tcase);

	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
