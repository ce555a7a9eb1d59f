/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store/bytes.h - bounded encoder and decoder for everything that is kept in RADOS or sent between nodes.
 *
 * Model:   little-endian, no padding. A record is framed:
 *              u8 type, u8 version, u8 compat, u8 0, u32 payload length, payload, u32 crc32c of all before.
 *          version = what the writer knew; compat = the oldest reader that may use the record. A version may only
 *          append fields; a reader skips what lies behind the fields it knows. Frames may nest.
 * Owns:    MfEnc owns its buffer; MfDec owns nothing, and what it returns "in place" lives as long as its input.
 * Threads: one user at a time.
 * Errors:  both are sticky: after the first error the encoder adds nothing, the decoder yields zeros, and
 *          mf_enc_error()/mf_dec_error() keeps saying why. So decode everything, then check once.
 *          -EBADMSG: damaged or foreign bytes. -EPROTONOSUPPORT: sound, but made by a newer incompatible version.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MF_FRAME_HEAD 8u      /* bytes before the payload */
#define MF_FRAME_OVERHEAD 12u /* ... and with the crc behind it */
#define MF_DEC_DEPTH 8u	      /* frames inside frames */

/* Fields are private. `g_auto(MfEnc) enc = MF_ENC_INIT;` */
typedef struct MfEnc {
	GByteArray *buf; /* NULL until the first byte */
	unsigned depth;	 /* open frames */
	int error;
} MfEnc;

#define MF_ENC_INIT                                                                                                    \
	{                                                                                                              \
		NULL, 0, 0                                                                                             \
	}

void mf_enc_clear(MfEnc *enc); /* frees; the encoder may be used again */
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(MfEnc, mf_enc_clear)

void mf_enc_u8(MfEnc *enc, uint8_t v);
void mf_enc_u16(MfEnc *enc, uint16_t v);
void mf_enc_u32(MfEnc *enc, uint32_t v);
void mf_enc_u64(MfEnc *enc, uint64_t v);
void mf_enc_i64(MfEnc *enc, int64_t v);
void mf_enc_raw(MfEnc *enc, const void *data, size_t len);   /* no length: both sides know it */
void mf_enc_bytes(MfEnc *enc, const void *data, size_t len); /* u32 length first */
void mf_enc_str(MfEnc *enc, const char *s);		     /* u16 length first, no NUL; longer: -ENAMETOOLONG */

/* Opens a frame; hand the result to mf_enc_end(). Innermost frame ends first. @version >= @compat >= 1. */
size_t mf_enc_begin(MfEnc *enc, uint8_t type, uint8_t version, uint8_t compat);

/* Fills in the length, appends the crc. Returns mf_enc_error(). */
int mf_enc_end(MfEnc *enc, size_t frame);

int mf_enc_error(const MfEnc *enc); /* 0, -ENAMETOOLONG, or -E2BIG (1 GiB) */
const uint8_t *mf_enc_data(const MfEnc *enc);
size_t mf_enc_len(const MfEnc *enc);

/* Hands the buffer to the caller and leaves the encoder empty. Never NULL. All frames must be closed. */
GByteArray *mf_enc_steal(MfEnc *enc);

/* Fields are private. Made by mf_dec_init(), needs no clearing. */
typedef struct MfDec {
	const uint8_t *data;
	size_t pos;
	size_t end; /* of the innermost frame's payload */
	struct {
		size_t outer_end;
		bool newer; /* a tail that we do not know is allowed */
	} frame[MF_DEC_DEPTH];
	unsigned depth;
	int error;
} MfDec;

void mf_dec_init(MfDec *dec, const void *data, size_t len);

uint8_t mf_dec_u8(MfDec *dec);
uint16_t mf_dec_u16(MfDec *dec);
uint32_t mf_dec_u32(MfDec *dec);
uint64_t mf_dec_u64(MfDec *dec);
int64_t mf_dec_i64(MfDec *dec);

/* @len bytes in place; NULL on error (never NULL otherwise). */
const uint8_t *mf_dec_raw(MfDec *dec, size_t len);

/* u32 length and bytes, in place. On error NULL and 0. */
const uint8_t *mf_dec_bytes(MfDec *dec, size_t *ret_len);

/* u16 length and text, in place, not terminated. A NUL in it is an error. On error NULL and 0. */
const char *mf_dec_str_ref(MfDec *dec, size_t *ret_len);

/* The same as a terminated copy for the caller to g_free(); NULL on error. */
char *mf_dec_str(MfDec *dec);

/* A u32 count of items that take at least @item_min (>= 1) bytes each: an error when they cannot all be there, so
 * that the count may be used to allocate. */
uint32_t mf_dec_count(MfDec *dec, size_t item_min);

/* Enters a frame: length and crc first, then @type, then whether a reader that knows @max_known may use it.
 * The frame's version is in *ret_version (may be NULL; untouched on failure). Returns mf_dec_error(). */
int mf_dec_begin(MfDec *dec, uint8_t type, uint8_t max_known, uint8_t *ret_version);

/* Leaves it, behind its crc. Bytes left over are skipped in a newer version and -EBADMSG in one we know.
 * Returns mf_dec_error(). */
int mf_dec_end(MfDec *dec);

/* For readers that want only the first fields: drops what is left of the frame (or of the input). */
void mf_dec_skip(MfDec *dec);

size_t mf_dec_left(const MfDec *dec); /* in the frame, or the input; 0 after an error */
size_t mf_dec_pos(const MfDec *dec);  /* from the start of the input */
int mf_dec_error(const MfDec *dec);   /* 0, -EBADMSG or -EPROTONOSUPPORT */

/* For a caller that finds a decoded value impossible: sets -EBADMSG unless an error is set. */
void mf_dec_fail(MfDec *dec);
