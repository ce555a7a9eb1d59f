/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store/eventrecord.h - what changed in a directory, as its holder tells it to the nodes whose kernels have it.
 *
 * Like a notice it is sent and never stored, may be lost, and may come twice.
 */
#pragma once

#include "store/record.h"

/* The values are sent. */
enum mf_event_kind {
	MF_EVENT_CREATE = 1, /* @key is there now */
	MF_EVENT_DELETE = 2,
	MF_EVENT_MOVE = 3,   /* @key is @to now */
	MF_EVENT_MODIFY = 4, /* the bytes of @key, a plain file */
	MF_EVENT_MANY = 5,   /* something that is not told name by name */
};

/* Names as keys of omap: store/keys.h. */
struct mf_event {
	enum mf_event_kind kind;
	enum mf_kind type; /* of the inode */
	uint64_t ino;
	char *key;	   /* NULL: MANY */
	char *to;	   /* NULL: all but MOVE */
};

struct mf_event *mf_event_new(enum mf_event_kind kind, enum mf_kind type, uint64_t ino, const char *key, const char *to);
void mf_event_free(struct mf_event *event); /* NULL ok */
GPtrArray *mf_events_new(void);		    /* of struct mf_event, which it frees */

struct mf_event_record {
	uint32_t from;	/* incarnation */
	uint64_t ino;	/* of the directory */
	uint64_t epoch; /* of the lease under which they happened */
	/* Versions of d.<ino> itself: when its lease was taken, and with all of these events. Those in between have been told
	 * by now, or say nothing about names. */
	uint64_t base, version;
	GPtrArray *events;
};

GByteArray *mf_event_record_encode(const struct mf_event_record *rec);
/* -EBADMSG, -EPROTONOSUPPORT. The caller's to clear. */
int mf_event_record_decode(const void *data, size_t len, struct mf_event_record *ret);
void mf_event_record_clear(struct mf_event_record *rec);
