/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/bench/payload.h - the bytes the benchmarks write: a mail whose body is random base64.
 *
 * Model:   LZ4 cannot shrink random base64, so a compressing store writes as many bytes as the raw floor does.
 *          A buffer is filled once a thread and stamped for each message, so that making bytes is not measured.
 * Errors:  none.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* @size bytes, to be freed with g_free(). */
char *mf_payload_new(size_t size, uint64_t seed);

/* Makes the bytes unlike those of every other @number. */
void mf_payload_stamp(char *buf, size_t size, uint64_t number);
