/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store/crc32c.h - CRC-32C (Castagnoli, RFC 3720), the checksum of every persistent record.
 *
 * Model:   finds accidental damage; it is no protection against somebody who wants to deceive.
 * Threads: any.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Continues @crc over @len bytes. Start with 0; the result of one piece is the start of the next. */
uint32_t mf_crc32c(uint32_t crc, const void *data, size_t len);

/* The same without special instructions: what other machines run, and what the tests compare with. */
uint32_t mf_crc32c_portable(uint32_t crc, const void *data, size_t len);
