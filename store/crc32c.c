/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store/crc32c.c - SSE 4.2 where the processor has it, else slicing by eight. */
#include "store/crc32c.h"

#include <endian.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

#define POLY 0x82f63b78U /* 0x1edc6f41, bits reversed */

static uint32_t table[8][256]; /* written once, under init_once */
static bool have_sse42;	       /* the same */
static pthread_once_t init_once = PTHREAD_ONCE_INIT;

static void init(void)
{
	for (unsigned i = 0; i < 256; i++) {
		uint32_t c = i;

		for (unsigned bit = 0; bit < 8; bit++)
			c = (c >> 1) ^ (c & 1 ? POLY : 0);
		table[0][i] = c;
	}
	for (unsigned i = 0; i < 256; i++)
		for (unsigned k = 1; k < 8; k++)
			table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 0xff];
#if defined(__x86_64__)
	have_sse42 = __builtin_cpu_supports("sse4.2");
#endif
}

static uint32_t run_portable(uint32_t c, const uint8_t *p, size_t len)
{
	for (; len >= 8; p += 8, len -= 8) {
		uint64_t v;

		memcpy(&v, p, sizeof(v));
		v = le64toh(v) ^ c;
		c = table[7][v & 0xff] ^ table[6][(v >> 8) & 0xff] ^ table[5][(v >> 16) & 0xff] ^
		    table[4][(v >> 24) & 0xff] ^ table[3][(v >> 32) & 0xff] ^ table[2][(v >> 40) & 0xff] ^
		    table[1][(v >> 48) & 0xff] ^ table[0][v >> 56];
	}
	for (; len > 0; p++, len--)
		c = (c >> 8) ^ table[0][(c ^ *p) & 0xff];
	return c;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t run_sse42(uint32_t c, const uint8_t *p, size_t len)
{
	uint64_t wide = c;

	for (; len >= 8; p += 8, len -= 8) {
		uint64_t v;

		memcpy(&v, p, sizeof(v));
		wide = _mm_crc32_u64(wide, v);
	}
	c = (uint32_t)wide;
	for (; len > 0; p++, len--)
		c = _mm_crc32_u8(c, *p);
	return c;
}
#endif

uint32_t mf_crc32c_portable(uint32_t crc, const void *data, size_t len)
{
	pthread_once(&init_once, init);
	return ~run_portable(~crc, data, len);
}

uint32_t mf_crc32c(uint32_t crc, const void *data, size_t len)
{
	pthread_once(&init_once, init);
#if defined(__x86_64__)
	if (have_sse42)
		return ~run_sse42(~crc, data, len);
#endif
	return ~run_portable(~crc, data, len);
}
