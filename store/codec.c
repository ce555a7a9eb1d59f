/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store/codec.c - stripes to objects and back. No length that comes from an object is used before it was checked. */
#include "store/codec.h"

#include <errno.h>
#include <lz4.h>
#include <string.h>

#include "store/bytes.h"
#include "store/crc32c.h"

#define VERSION 1u
#define BLOCK_SHIFT_MAX 22u
#define STORED_RAW (1u << 31)

static const uint8_t magic[4] = { 'm', 'f', 'S', '1' };

static uint32_t blocks_of(uint32_t plain_len, unsigned shift)
{
	return (uint32_t)(((uint64_t)plain_len + (1u << shift) - 1) >> shift);
}

static uint32_t header_len(uint32_t nblocks)
{
	return MF_CODEC_HEADER_MIN + 8 * nblocks;
}

/* How many plain bytes block @i covers. */
static uint32_t block_plain(uint32_t plain_len, unsigned shift, uint32_t i)
{
	return MIN(plain_len - (i << shift), 1u << shift);
}

size_t mf_codec_bound(size_t plain_len)
{
	/* a block that would grow is stored raw */
	return plain_len + MF_CODEC_HEADER_MIN + 8 * ((plain_len >> MF_CODEC_BLOCK_SHIFT) + 1);
}

/* Stores one block at @dst, which has room for @len. Returns the length field. */
static uint32_t encode_block(enum mf_codec codec, const uint8_t *src, uint32_t len, uint8_t *dst)
{
	if (codec == MF_CODEC_LZ4) {
		/* one byte less than the plain block: LZ4 gives up (0) when that does not suffice */
		int n = LZ4_compress_default((const char *)src, (char *)dst, (int)len, (int)len - 1);

		if (n > 0)
			return (uint32_t)n;
	}
	memcpy(dst, src, len);
	return len | STORED_RAW;
}

int mf_codec_encode(enum mf_codec codec, uint64_t ino, uint32_t index, const void *plain, size_t len,
	GBytes **ret_object, uint8_t *ret_sha256)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	g_autofree uint8_t *object = NULL;
	uint8_t sha[MF_SHA256_LEN], *shrunk;
	uint32_t nblocks;
	size_t at;
	int r;

	if (codec != MF_CODEC_NONE && codec != MF_CODEC_LZ4)
		return -EINVAL;
	if (len > MF_CODEC_PLAIN_MAX)
		return -EFBIG;
	r = mf_sha256(plain, len, sha);
	if (r < 0)
		return r;
	object = g_try_malloc(mf_codec_bound(len));
	if (!object)
		return -ENOMEM;

	nblocks = blocks_of((uint32_t)len, MF_CODEC_BLOCK_SHIFT);
	mf_enc_raw(&enc, magic, sizeof(magic));
	mf_enc_u8(&enc, VERSION);
	mf_enc_u8(&enc, (uint8_t)codec);
	mf_enc_u8(&enc, MF_CODEC_BLOCK_SHIFT);
	mf_enc_u8(&enc, 0);
	mf_enc_u64(&enc, ino);
	mf_enc_u32(&enc, index);
	mf_enc_u32(&enc, (uint32_t)len);
	mf_enc_raw(&enc, sha, sizeof(sha));
	mf_enc_u32(&enc, nblocks);

	at = header_len(nblocks);
	for (uint32_t i = 0; i < nblocks; i++) {
		const uint8_t *src = (const uint8_t *)plain + ((size_t)i << MF_CODEC_BLOCK_SHIFT);
		uint32_t field =
			encode_block(codec, src, block_plain((uint32_t)len, MF_CODEC_BLOCK_SHIFT, i), object + at);
		uint32_t stored = field & ~STORED_RAW;

		mf_enc_u32(&enc, field);
		mf_enc_u32(&enc, mf_crc32c(0, object + at, stored));
		at += stored;
	}
	mf_enc_u32(&enc, mf_crc32c(0, mf_enc_data(&enc), mf_enc_len(&enc)));
	g_assert(mf_enc_error(&enc) == 0 && mf_enc_len(&enc) == header_len(nblocks));
	memcpy(object, mf_enc_data(&enc), mf_enc_len(&enc));

	shrunk = g_try_realloc(object, at);
	if (shrunk) {
		(void)g_steal_pointer(&object);
		object = shrunk;
	}
	*ret_object = g_bytes_new_take(g_steal_pointer(&object), at);
	if (ret_sha256)
		memcpy(ret_sha256, sha, sizeof(sha));
	return 0;
}

/* Checks one entry of the block table; false when it cannot be. */
static bool block_valid(const struct mf_codec_header *h, uint32_t i)
{
	uint32_t plain = block_plain(h->plain_len, h->block_shift, i);
	const struct mf_codec_block *b = &h->block[i];

	if (b->raw)
		return b->stored == plain;
	return h->codec != MF_CODEC_NONE && b->stored > 0 && b->stored < plain;
}

int mf_codec_header_decode(const void *prefix, size_t len, struct mf_codec_header *ret_header)
{
	struct mf_codec_header h = { 0 };
	const uint8_t *p, *sha;
	uint8_t codec, reserved;
	uint32_t offset;
	MfDec dec;

	mf_dec_init(&dec, prefix, len);
	p = mf_dec_raw(&dec, sizeof(magic));
	if (!p || memcmp(p, magic, sizeof(magic)) != 0)
		return -EBADMSG;
	/* another version may have its crc elsewhere: nothing behind this byte can be judged */
	if (mf_dec_u8(&dec) != VERSION)
		return mf_dec_error(&dec) ? -EBADMSG : -EPROTONOSUPPORT;
	codec = mf_dec_u8(&dec);
	h.block_shift = mf_dec_u8(&dec);
	reserved = mf_dec_u8(&dec);
	h.ino = mf_dec_u64(&dec);
	h.index = mf_dec_u32(&dec);
	h.plain_len = mf_dec_u32(&dec);
	sha = mf_dec_raw(&dec, MF_SHA256_LEN);
	h.nblocks = mf_dec_u32(&dec);
	if (mf_dec_error(&dec) || reserved != 0 || h.block_shift < MF_CODEC_BLOCK_SHIFT ||
		h.block_shift > BLOCK_SHIFT_MAX || h.plain_len > MF_CODEC_PLAIN_MAX ||
		h.nblocks != blocks_of(h.plain_len, h.block_shift))
		return -EBADMSG;
	memcpy(h.sha256, sha, MF_SHA256_LEN);

	h.header_len = header_len(h.nblocks);
	for (uint32_t i = 0; i < h.nblocks; i++) {
		uint32_t field = mf_dec_u32(&dec);

		h.block[i].stored = field & ~STORED_RAW;
		h.block[i].raw = field & STORED_RAW;
		h.block[i].crc = mf_dec_u32(&dec);
	}
	if (mf_dec_u32(&dec) != mf_crc32c(0, prefix, MIN(len, h.header_len - 4)) || mf_dec_error(&dec))
		return -EBADMSG;
	if (codec != MF_CODEC_NONE && codec != MF_CODEC_LZ4)
		return -EPROTONOSUPPORT;
	h.codec = codec;

	offset = h.header_len;
	for (uint32_t i = 0; i < h.nblocks; i++) {
		if (!block_valid(&h, i))
			return -EBADMSG;
		h.block[i].offset = offset;
		offset += h.block[i].stored; /* at most 4 MiB in all, as each is at most its plain length */
	}
	h.object_len = offset;
	*ret_header = h;
	return 0;
}

/* Decodes block @i, whose stored bytes are @src, into @dst with room for exactly its plain length. */
static int decode_block(const struct mf_codec_header *h, uint32_t i, const uint8_t *src, uint8_t *dst)
{
	uint32_t plain = block_plain(h->plain_len, h->block_shift, i);
	const struct mf_codec_block *b = &h->block[i];

	if (mf_crc32c(0, src, b->stored) != b->crc)
		return -EBADMSG;
	if (b->raw)
		memcpy(dst, src, plain);
	else if (LZ4_decompress_safe((const char *)src, (char *)dst, (int)b->stored, (int)plain) != (int)plain)
		return -EBADMSG;
	return 0;
}

int mf_codec_decode(const void *object, size_t len, uint64_t ino, uint32_t index, void *dst, size_t plain_len)
{
	uint8_t sha[MF_SHA256_LEN];
	struct mf_codec_header h;
	int r;

	r = mf_codec_header_decode(object, len, &h);
	if (r < 0)
		return r;
	if (h.ino != ino || h.index != index || h.plain_len != plain_len || h.object_len != len)
		return -EBADMSG;
	r = mf_codec_decode_range(
		&h, (const uint8_t *)object + h.header_len, h.object_len - h.header_len, 0, h.plain_len, dst);
	if (r < 0)
		return r;
	r = mf_sha256(dst, plain_len, sha);
	if (r < 0)
		return r;
	return memcmp(sha, h.sha256, sizeof(sha)) == 0 ? 0 : -EBADMSG;
}

int mf_codec_range(const struct mf_codec_header *header, uint32_t off, uint32_t len, uint32_t *ret_object_off,
	uint32_t *ret_object_len)
{
	const struct mf_codec_block *first, *last;

	if (off > header->plain_len || len > header->plain_len - off)
		return -EINVAL;
	if (len == 0) {
		*ret_object_off = header->header_len;
		*ret_object_len = 0;
		return 0;
	}
	first = &header->block[off >> header->block_shift];
	last = &header->block[(off + len - 1) >> header->block_shift];
	*ret_object_off = first->offset;
	*ret_object_len = last->offset + last->stored - first->offset;
	return 0;
}

int mf_codec_decode_range(
	const struct mf_codec_header *header, const void *bytes, size_t nbytes, uint32_t off, uint32_t len, void *dst)
{
	const unsigned shift = header->block_shift;
	g_autofree uint8_t *whole = NULL; /* a block of which only a part is wanted */
	uint32_t object_off, object_len;
	uint8_t *out = dst;
	int r;

	r = mf_codec_range(header, off, len, &object_off, &object_len);
	if (r < 0)
		return r;
	if (nbytes != object_len)
		return -EBADMSG;

	while (len > 0) {
		uint32_t i = off >> shift;
		uint32_t plain = block_plain(header->plain_len, shift, i);
		uint32_t skip = off - (i << shift);
		uint32_t n = MIN(len, plain - skip);
		const uint8_t *src = (const uint8_t *)bytes + (header->block[i].offset - object_off);

		if (n == plain) {
			r = decode_block(header, i, src, out);
		} else {
			if (!whole)
				whole = g_try_malloc((size_t)1 << shift);
			if (!whole)
				return -ENOMEM;
			r = decode_block(header, i, src, whole);
			if (r == 0)
				memcpy(out, whole + skip, n);
		}
		if (r < 0)
			return r;
		out += n;
		off += n;
		len -= n;
	}
	return 0;
}
