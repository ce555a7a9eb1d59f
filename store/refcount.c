/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/refcount.h"

#include "store/bytes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Ceph's encoding of a versioned struct: u8 version, u8 compat, u32 length (ENCODE_START in src/include/encoding.h). */
#define STRUCT_HEAD 6u

static void encode(MfEnc *enc, uint64_t tag, bool with_tag, bool implicit)
{
	char text[17] = "";

	/* The implicit reference has the empty tag. */
	if (tag != 0)
		snprintf(text, sizeof(text), "%016" PRIx64, tag);
	mf_enc_u8(enc, 1);
	mf_enc_u8(enc, 1);
	mf_enc_u32(enc, (with_tag ? 4 + strlen(text) : 0) + 1);
	if (with_tag)
		mf_enc_bytes(enc, text, strlen(text));
	mf_enc_u8(enc, implicit);
}

static void exec(MfWop *wop, const char *method, uint64_t tag, bool implicit)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;

	encode(&enc, tag, true, implicit);
	mf_wop_exec(wop, "refcount", method, mf_enc_data(&enc), mf_enc_len(&enc));
}

void mf_refcount_get(MfWop *wop, uint64_t tag)
{
	exec(wop, "get", tag, true);
}

void mf_refcount_put(MfWop *wop, uint64_t tag)
{
	/* With `implicit_ref' the class would drop the first reference in place of a tag that it does not know. */
	exec(wop, "put", tag, tag == 0);
}

void mf_refcount_read(MfRop *rop)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;

	encode(&enc, 0, false, true);
	mf_rop_exec(rop, "refcount", "read", mf_enc_data(&enc), mf_enc_len(&enc));
}

int mf_refcount_count(MfRop *rop)
{
	GBytes *out = mf_rop_get_exec(rop);
	MfDec dec;

	mf_dec_init(&dec, g_bytes_get_data(out, NULL), g_bytes_get_size(out));
	mf_dec_raw(&dec, STRUCT_HEAD);
	uint32_t n = mf_dec_count(&dec, 4);
	if (mf_dec_error(&dec) < 0 || n > INT32_MAX)
		return -EBADMSG;
	return (int)n;
}
