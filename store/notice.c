/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/notice.h"

#include "store/bytes.h"

#define TYPE_NOTICE 'N'
#define VERSION 1u

GByteArray *mf_notice_encode(const struct mf_notice *notice)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	size_t frame = mf_enc_begin(&enc, TYPE_NOTICE, VERSION, VERSION);

	mf_enc_u8(&enc, notice->kind);
	mf_enc_u8(&enc, notice->mode);
	mf_enc_u32(&enc, notice->from);
	mf_enc_u64(&enc, notice->ino);
	mf_enc_u64(&enc, notice->arg);
	mf_enc_end(&enc, frame);
	return mf_enc_steal(&enc);
}

int mf_notice_decode(const void *data, size_t len, struct mf_notice *ret)
{
	MfDec dec;

	mf_dec_init(&dec, data, len);
	mf_dec_begin(&dec, TYPE_NOTICE, VERSION, NULL);
	ret->kind = mf_dec_u8(&dec);
	ret->mode = mf_dec_u8(&dec);
	ret->from = mf_dec_u32(&dec);
	ret->ino = mf_dec_u64(&dec);
	ret->arg = mf_dec_u64(&dec);
	mf_dec_end(&dec);
	if (mf_dec_left(&dec) > 0)
		mf_dec_fail(&dec);
	return mf_dec_error(&dec);
}
