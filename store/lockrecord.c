/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/lockrecord.h"

#include "store/bytes.h"

#define TYPE_LOCKS 'K'
#define VERSION 1u
#define RECORD_LEN 51u /* bytes of one */

GByteArray *mf_lock_records_encode(GArray *records)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	size_t frame = mf_enc_begin(&enc, TYPE_LOCKS, VERSION, VERSION);

	mf_enc_u32(&enc, records->len);
	for (unsigned i = 0; i < records->len; i++) {
		const struct mf_lock_record *rec = &g_array_index(records, struct mf_lock_record, i);
		mf_enc_u8(&enc, rec->waiting);
		mf_enc_u64(&enc, rec->id);
		mf_enc_u64(&enc, rec->owner);
		mf_enc_u64(&enc, rec->fh);
		mf_enc_i64(&enc, rec->start);
		mf_enc_i64(&enc, rec->end);
		mf_enc_u32(&enc, rec->incarnation);
		mf_enc_u32(&enc, (uint32_t)rec->pid);
		mf_enc_u8(&enc, rec->space);
		mf_enc_u8(&enc, rec->type);
	}
	mf_enc_end(&enc, frame);
	return mf_enc_steal(&enc);
}

int mf_lock_records_decode(const void *data, size_t len, GArray **ret_records)
{
	g_autoptr(GArray) records = g_array_new(false, false, sizeof(struct mf_lock_record));
	MfDec dec;

	mf_dec_init(&dec, data, len);
	mf_dec_begin(&dec, TYPE_LOCKS, VERSION, NULL);
	uint32_t n = mf_dec_count(&dec, RECORD_LEN);
	for (uint32_t i = 0; i < n; i++) {
		struct mf_lock_record rec = { 0 };
		uint8_t waiting = mf_dec_u8(&dec);
		if (waiting > 1)
			mf_dec_fail(&dec);
		rec.waiting = waiting;
		rec.id = mf_dec_u64(&dec);
		rec.owner = mf_dec_u64(&dec);
		rec.fh = mf_dec_u64(&dec);
		rec.start = mf_dec_i64(&dec);
		rec.end = mf_dec_i64(&dec);
		rec.incarnation = mf_dec_u32(&dec);
		rec.pid = (int32_t)mf_dec_u32(&dec);
		rec.space = mf_dec_u8(&dec);
		rec.type = mf_dec_u8(&dec);
		g_array_append_val(records, rec);
	}
	mf_dec_end(&dec);
	if (mf_dec_left(&dec) > 0)
		mf_dec_fail(&dec);
	int r = mf_dec_error(&dec);
	if (r == 0)
		*ret_records = g_steal_pointer(&records);
	return r;
}
