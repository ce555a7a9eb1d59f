/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/nodereport.h"

#include "store/bytes.h"

#define TYPE_REPORT 'P'
#define VERSION 1u

GByteArray *mf_nodereport_encode(const struct mf_nodereport *report)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	size_t frame = mf_enc_begin(&enc, TYPE_REPORT, VERSION, VERSION);

	mf_enc_u32(&enc, report->incarnation);
	mf_enc_i64(&enc, report->taken);
	mf_enc_u64(&enc, report->shared);
	mf_enc_u64(&enc, report->exclusive);
	mf_enc_u64(&enc, report->waiters);
	mf_enc_u64(&enc, report->recalls);
	mf_enc_u64(&enc, report->locks);
	mf_enc_u64(&enc, report->lock_waits);
	mf_enc_u64(&enc, report->dirty);
	mf_enc_end(&enc, frame);
	return mf_enc_steal(&enc);
}

int mf_nodereport_decode(const void *data, size_t len, struct mf_nodereport *ret)
{
	struct mf_nodereport report = { 0 };
	MfDec dec;

	mf_dec_init(&dec, data, len);
	mf_dec_begin(&dec, TYPE_REPORT, VERSION, NULL);
	report.incarnation = mf_dec_u32(&dec);
	report.taken = mf_dec_i64(&dec);
	report.shared = mf_dec_u64(&dec);
	report.exclusive = mf_dec_u64(&dec);
	report.waiters = mf_dec_u64(&dec);
	report.recalls = mf_dec_u64(&dec);
	report.locks = mf_dec_u64(&dec);
	report.lock_waits = mf_dec_u64(&dec);
	report.dirty = mf_dec_u64(&dec);
	int r = mf_dec_end(&dec);
	if (r == 0)
		*ret = report;
	return r;
}
