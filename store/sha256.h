/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store/sha256.h - the digest of plain bytes.
 *
 * Threads: any.
 * Errors:  0, -ENOMEM, or -ENOTSUP when the crypto library offers no SHA-256.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define MF_SHA256_LEN 32u

int mf_sha256(const void *data, size_t len, uint8_t ret_digest[MF_SHA256_LEN]);
