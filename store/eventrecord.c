/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/eventrecord.h"

#include "store/bytes.h"
#include "store/keys.h"

#define TYPE_EVENTS 'V'
#define VERSION 1u
#define EVENT_MIN 14u /* bytes of one without names */

struct mf_event *mf_event_new(enum mf_event_kind kind, enum mf_kind type, uint64_t ino, const char *key, const char *to)
{
	struct mf_event *event = g_new(struct mf_event, 1);

	*event = (struct mf_event){ kind, type, ino, g_strdup(key), g_strdup(to) };
	return event;
}

void mf_event_free(struct mf_event *event)
{
	if (!event)
		return;
	g_free(event->key);
	g_free(event->to);
	g_free(event);
}

GPtrArray *mf_events_new(void)
{
	return g_ptr_array_new_with_free_func((GDestroyNotify)mf_event_free);
}

GByteArray *mf_event_record_encode(const struct mf_event_record *rec)
{
	g_auto(MfEnc) enc = MF_ENC_INIT;
	size_t frame = mf_enc_begin(&enc, TYPE_EVENTS, VERSION, VERSION);

	mf_enc_u32(&enc, rec->from);
	mf_enc_u64(&enc, rec->ino);
	mf_enc_u64(&enc, rec->epoch);
	mf_enc_u64(&enc, rec->base);
	mf_enc_u64(&enc, rec->version);
	mf_enc_u32(&enc, rec->events->len);
	for (unsigned i = 0; i < rec->events->len; i++) {
		const struct mf_event *event = rec->events->pdata[i];
		mf_enc_u8(&enc, event->kind);
		mf_enc_u8(&enc, event->type);
		mf_enc_u64(&enc, event->ino);
		mf_enc_str(&enc, event->key ? event->key : "");
		mf_enc_str(&enc, event->to ? event->to : "");
	}
	mf_enc_end(&enc, frame);
	return mf_enc_steal(&enc);
}

/* What is replayed is a name in a directory, and nothing else. */
static bool is_sound(const struct mf_event *event)
{
	enum mf_space space;
	bool is_dir = event->type == MF_KIND_DIR || event->type == MF_KIND_SUBDIR;
	bool named = event->key && mf_key_is_entry(event->key, &space);

	if (event->type < MF_KIND_DIR || event->type > MF_KIND_SYMLINK)
		return false;
	/* These are no entries. */
	if (named && is_dir && space == MF_SPACE_SELF && mf_space_of_name(event->key + MF_KEY_PREFIX) != MF_SPACE_SELF)
		return false;
	switch (event->kind) {
	case MF_EVENT_CREATE:
	case MF_EVENT_DELETE:
	case MF_EVENT_MODIFY:
		return named && !event->to;
	case MF_EVENT_MOVE:
		return named && event->to && mf_key_is_entry(event->to, &space);
	case MF_EVENT_MANY:
		return !event->key && !event->to;
	}
	return false;
}

static char *name_or_null(MfDec *dec)
{
	char *name = mf_dec_str(dec);

	if (name && !name[0])
		g_clear_pointer(&name, g_free);
	return name;
}

int mf_event_record_decode(const void *data, size_t len, struct mf_event_record *ret)
{
	g_autoptr(GPtrArray) events = mf_events_new();
	MfDec dec;

	mf_dec_init(&dec, data, len);
	mf_dec_begin(&dec, TYPE_EVENTS, VERSION, NULL);
	ret->from = mf_dec_u32(&dec);
	ret->ino = mf_dec_u64(&dec);
	ret->epoch = mf_dec_u64(&dec);
	ret->base = mf_dec_u64(&dec);
	ret->version = mf_dec_u64(&dec);
	uint32_t n = mf_dec_count(&dec, EVENT_MIN);
	for (uint32_t i = 0; i < n && mf_dec_error(&dec) == 0; i++) {
		struct mf_event *event = g_new0(struct mf_event, 1);
		event->kind = mf_dec_u8(&dec);
		event->type = mf_dec_u8(&dec);
		event->ino = mf_dec_u64(&dec);
		event->key = name_or_null(&dec);
		event->to = name_or_null(&dec);
		if (!is_sound(event))
			mf_dec_fail(&dec);
		g_ptr_array_add(events, event);
	}
	mf_dec_end(&dec);
	if (mf_dec_left(&dec) > 0)
		mf_dec_fail(&dec);
	int r = mf_dec_error(&dec);
	if (r == 0)
		ret->events = g_steal_pointer(&events);
	return r;
}

void mf_event_record_clear(struct mf_event_record *rec)
{
	g_clear_pointer(&rec->events, g_ptr_array_unref);
}
