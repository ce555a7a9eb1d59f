/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store/codec.h - the stored form of one stripe of a message: compressed, checked, readable in pieces.
 *
 * Model:   a stripe is up to 4 MiB of plain bytes. Its object explains itself (little-endian):
 *              "mfS1", u8 version (1), u8 codec, u8 block_shift, u8 0, u64 ino, u32 stripe index, u32 plain length,
 *              SHA-256 of the plain stripe, u32 blocks,
 *              per block: u32 stored length (bit 31: stored raw, because it did not shrink), u32 crc32c as stored,
 *              u32 crc32c of all before; then the blocks, one behind the other.
 *          Every block but the last covers 1 << block_shift plain bytes, so a random read needs the header and the
 *          blocks it touches. The crc of a block protects such reads; the SHA-256 protects the stripe as a whole.
 * Threads: any; nothing is shared.
 * Errors:  -EBADMSG: damaged, truncated, or not the stripe that was asked for. -EPROTONOSUPPORT: a version or codec
 *          that this program does not know. -ENOMEM. After an error output buffers hold nothing of use.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/sha256.h"

#define MF_CODEC_PLAIN_MAX (4u << 20)
#define MF_CODEC_BLOCK_SHIFT 16u /* what we write, and the least that we read */
#define MF_CODEC_BLOCKS_MAX (MF_CODEC_PLAIN_MAX >> MF_CODEC_BLOCK_SHIFT)
#define MF_CODEC_HEADER_MIN 64u
#define MF_CODEC_HEADER_MAX (MF_CODEC_HEADER_MIN + 8u * MF_CODEC_BLOCKS_MAX)

enum mf_codec {
	MF_CODEC_NONE = 0,
	MF_CODEC_LZ4 = 1,
};

struct mf_codec_block {
	uint32_t offset; /* in the object */
	uint32_t stored; /* bytes there */
	uint32_t crc;
	bool raw;
};

/* A header that has been checked: every number in it is consistent with every other. */
struct mf_codec_header {
	enum mf_codec codec;
	unsigned block_shift;
	uint64_t ino;
	uint32_t index;
	uint32_t plain_len;
	uint8_t sha256[MF_SHA256_LEN];
	uint32_t header_len; /* where the first block starts */
	uint32_t object_len; /* header and all blocks: the size the object must have */
	uint32_t nblocks;
	struct mf_codec_block block[MF_CODEC_BLOCKS_MAX];
};

/* No object is longer than this for @plain_len bytes. */
size_t mf_codec_bound(size_t plain_len);

/* Makes the object. -EFBIG: more than MF_CODEC_PLAIN_MAX. -EINVAL: no such codec. @ret_sha256 may be NULL.
 * The caller owns *ret_object. */
int mf_codec_encode(enum mf_codec codec, uint64_t ino, uint32_t index, const void *plain, size_t len,
	GBytes **ret_object, uint8_t *ret_sha256);

/* Reads and checks the header from the first @len bytes of an object; MF_CODEC_HEADER_MAX bytes always suffice
 * (fewer when the object is shorter). *ret_header is untouched on failure. */
int mf_codec_header_decode(const void *prefix, size_t len, struct mf_codec_header *ret_header);

/* Decodes a whole stripe into @dst, which holds @plain_len bytes, and proves that it is stripe @index of @ino, has
 * that length, and has the digest its header promises. */
int mf_codec_decode(const void *object, size_t len, uint64_t ino, uint32_t index, void *dst, size_t plain_len);

/* Which bytes of the object are needed for the plain bytes [off, off+len). -EINVAL when these are not all in the
 * stripe. @len 0 needs none. */
int mf_codec_range(const struct mf_codec_header *header, uint32_t off, uint32_t len, uint32_t *ret_object_off,
	uint32_t *ret_object_len);

/* Decodes the plain bytes [off, off+len) into @dst from exactly the bytes that mf_codec_range() named. The caller has
 * compared the header's ino and index with what it wants. */
int mf_codec_decode_range(
	const struct mf_codec_header *header, const void *bytes, size_t nbytes, uint32_t off, uint32_t len, void *dst);
