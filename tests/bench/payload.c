/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/bench/payload.c - see payload.h. */
#include "bench/payload.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <glib.h>

static const char head[] = "From: bench@example.org\nTo: user@example.org\nMIME-Version: 1.0\n"
			   "Content-Transfer-Encoding: base64\nSubject: ";

/* splitmix64: small, and any number is a good seed. */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

char *mf_payload_new(size_t size, uint64_t seed)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *buf = g_malloc(size + 1);
	uint64_t bits = 0;
	unsigned left = 0; /* digits in bits */

	for (size_t at = 0; at < size; at++) {
		if (at % 77 == 76) {
			buf[at] = '\n';
			continue;
		}
		if (left == 0) {
			bits = next_random(&seed);
			left = 10;
		}
		buf[at] = digits[bits & 63];
		bits >>= 6;
		left--;
	}
	return buf;
}

void mf_payload_stamp(char *buf, size_t size, uint64_t number)
{
	char start[sizeof head + 32];
	int n = snprintf(start, sizeof start, "%s%" PRIu64 "\n\n", head, number);

	memcpy(buf, start, MIN((size_t)n, size));
}
