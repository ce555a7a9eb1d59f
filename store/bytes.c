/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store/bytes.c - the only place where integers become bytes and bytes become integers. */
#include "store/bytes.h"

#include <errno.h>
#include <string.h>

#include "store/crc32c.h"

/* GByteArray counts in guint and aborts when that overflows; nothing we keep comes near this. */
#define ENC_MAX (1u << 30)

static uint8_t *enc_grow(MfEnc *enc, size_t len)
{
	guint at;

	if (enc->error)
		return NULL;
	if (!enc->buf)
		enc->buf = g_byte_array_new();
	if (len > ENC_MAX - enc->buf->len) {
		enc->error = -E2BIG;
		return NULL;
	}
	at = enc->buf->len;
	g_byte_array_set_size(enc->buf, at + (guint)len);
	return enc->buf->data + at;
}

static void put_le(uint8_t *p, uint64_t v, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get_le(const uint8_t *p, unsigned size)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < size; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static void enc_int(MfEnc *enc, uint64_t v, unsigned size)
{
	uint8_t *p = enc_grow(enc, size);

	if (p)
		put_le(p, v, size);
}

void mf_enc_clear(MfEnc *enc)
{
	g_clear_pointer(&enc->buf, g_byte_array_unref);
	enc->depth = 0;
	enc->error = 0;
}

void mf_enc_u8(MfEnc *enc, uint8_t v)
{
	enc_int(enc, v, 1);
}

void mf_enc_u16(MfEnc *enc, uint16_t v)
{
	enc_int(enc, v, 2);
}

void mf_enc_u32(MfEnc *enc, uint32_t v)
{
	enc_int(enc, v, 4);
}

void mf_enc_u64(MfEnc *enc, uint64_t v)
{
	enc_int(enc, v, 8);
}

void mf_enc_i64(MfEnc *enc, int64_t v)
{
	enc_int(enc, (uint64_t)v, 8);
}

void mf_enc_raw(MfEnc *enc, const void *data, size_t len)
{
	uint8_t *p = len > 0 ? enc_grow(enc, len) : NULL;

	if (p)
		memcpy(p, data, len);
}

void mf_enc_bytes(MfEnc *enc, const void *data, size_t len)
{
	if (len > ENC_MAX) {
		if (!enc->error)
			enc->error = -E2BIG;
		return;
	}
	mf_enc_u32(enc, (uint32_t)len);
	mf_enc_raw(enc, data, len);
}

void mf_enc_str(MfEnc *enc, const char *s)
{
	size_t len = strlen(s);

	if (len > UINT16_MAX) {
		if (!enc->error)
			enc->error = -ENAMETOOLONG;
		return;
	}
	mf_enc_u16(enc, (uint16_t)len);
	mf_enc_raw(enc, s, len);
}

size_t mf_enc_begin(MfEnc *enc, uint8_t type, uint8_t version, uint8_t compat)
{
	size_t frame = mf_enc_len(enc);

	g_assert(compat >= 1 && version >= compat);
	/* the decoder could not read it back */
	g_assert(enc->depth < MF_DEC_DEPTH);
	enc->depth++;
	mf_enc_u8(enc, type);
	mf_enc_u8(enc, version);
	mf_enc_u8(enc, compat);
	mf_enc_u8(enc, 0);
	mf_enc_u32(enc, 0);
	return frame;
}

int mf_enc_end(MfEnc *enc, size_t frame)
{
	size_t len;

	g_assert(enc->depth > 0);
	enc->depth--;
	if (enc->error)
		return enc->error;
	len = enc->buf->len;
	g_assert(frame + MF_FRAME_HEAD <= len);
	put_le(enc->buf->data + frame + 4, len - frame - MF_FRAME_HEAD, 4);
	mf_enc_u32(enc, mf_crc32c(0, enc->buf->data + frame, len - frame));
	return enc->error;
}

int mf_enc_error(const MfEnc *enc)
{
	return enc->error;
}

const uint8_t *mf_enc_data(const MfEnc *enc)
{
	return enc->buf ? enc->buf->data : NULL;
}

size_t mf_enc_len(const MfEnc *enc)
{
	return enc->buf ? enc->buf->len : 0;
}

GByteArray *mf_enc_steal(MfEnc *enc)
{
	GByteArray *buf = g_steal_pointer(&enc->buf);

	g_assert(enc->depth == 0);
	mf_enc_clear(enc);
	return buf ? buf : g_byte_array_new();
}

void mf_dec_init(MfDec *dec, const void *data, size_t len)
{
	memset(dec, 0, sizeof(*dec));
	/* an empty input may come as NULL; pointers into it must still differ from NULL */
	dec->data = data ? data : (const void *)"";
	dec->end = data ? len : 0;
}

void mf_dec_fail(MfDec *dec)
{
	if (!dec->error)
		dec->error = -EBADMSG;
}

const uint8_t *mf_dec_raw(MfDec *dec, size_t len)
{
	const uint8_t *p;

	if (dec->error)
		return NULL;
	if (len > dec->end - dec->pos) {
		mf_dec_fail(dec);
		return NULL;
	}
	p = dec->data + dec->pos;
	dec->pos += len;
	return p;
}

static uint64_t dec_int(MfDec *dec, unsigned size)
{
	const uint8_t *p = mf_dec_raw(dec, size);

	return p ? get_le(p, size) : 0;
}

uint8_t mf_dec_u8(MfDec *dec)
{
	return (uint8_t)dec_int(dec, 1);
}

uint16_t mf_dec_u16(MfDec *dec)
{
	return (uint16_t)dec_int(dec, 2);
}

uint32_t mf_dec_u32(MfDec *dec)
{
	return (uint32_t)dec_int(dec, 4);
}

uint64_t mf_dec_u64(MfDec *dec)
{
	return dec_int(dec, 8);
}

int64_t mf_dec_i64(MfDec *dec)
{
	return (int64_t)dec_int(dec, 8);
}

const uint8_t *mf_dec_bytes(MfDec *dec, size_t *ret_len)
{
	uint32_t len = mf_dec_u32(dec);
	const uint8_t *p = mf_dec_raw(dec, len);

	*ret_len = p ? len : 0;
	return p;
}

const char *mf_dec_str_ref(MfDec *dec, size_t *ret_len)
{
	uint16_t len = mf_dec_u16(dec);
	const uint8_t *p = mf_dec_raw(dec, len);

	if (p && memchr(p, 0, len)) {
		mf_dec_fail(dec);
		p = NULL;
	}
	*ret_len = p ? len : 0;
	return (const char *)p;
}

char *mf_dec_str(MfDec *dec)
{
	size_t len;
	const char *p = mf_dec_str_ref(dec, &len);

	return p ? g_strndup(p, len) : NULL;
}

uint32_t mf_dec_count(MfDec *dec, size_t item_min)
{
	uint32_t n = mf_dec_u32(dec);

	g_assert(item_min > 0);
	if (n > mf_dec_left(dec) / item_min) {
		mf_dec_fail(dec);
		return 0;
	}
	return n;
}

int mf_dec_begin(MfDec *dec, uint8_t type, uint8_t max_known, uint8_t *ret_version)
{
	const uint8_t *head = mf_dec_raw(dec, MF_FRAME_HEAD);
	size_t payload, start = dec->pos;

	if (!head)
		return dec->error;
	payload = (size_t)get_le(head + 4, 4);
	if (payload > mf_dec_left(dec) || mf_dec_left(dec) - payload < 4 || dec->depth >= MF_DEC_DEPTH)
		goto bad;
	if (mf_crc32c(0, head, MF_FRAME_HEAD + payload) != get_le(head + MF_FRAME_HEAD + payload, 4))
		goto bad;
	if (head[0] != type || head[2] == 0 || head[1] < head[2] || head[3] != 0)
		goto bad;
	if (head[2] > max_known) {
		dec->error = -EPROTONOSUPPORT;
		return dec->error;
	}
	dec->frame[dec->depth].outer_end = dec->end;
	dec->frame[dec->depth].newer = head[1] > max_known;
	dec->depth++;
	dec->end = start + payload;
	if (ret_version)
		*ret_version = head[1];
	return 0;
bad:
	mf_dec_fail(dec);
	return dec->error;
}

int mf_dec_end(MfDec *dec)
{
	if (dec->error)
		return dec->error;
	g_assert(dec->depth > 0);
	dec->depth--;
	if (dec->pos != dec->end && !dec->frame[dec->depth].newer) {
		mf_dec_fail(dec);
		return dec->error;
	}
	dec->pos = dec->end + 4;
	dec->end = dec->frame[dec->depth].outer_end;
	return 0;
}

void mf_dec_skip(MfDec *dec)
{
	if (!dec->error)
		dec->pos = dec->end;
}

size_t mf_dec_left(const MfDec *dec)
{
	return dec->error ? 0 : dec->end - dec->pos;
}

size_t mf_dec_pos(const MfDec *dec)
{
	return dec->pos;
}

int mf_dec_error(const MfDec *dec)
{
	return dec->error;
}
