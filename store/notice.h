/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store/notice.h - what nodes say to each other, through the inbox of node.<incarnation>.
 *
 * A notice is a hint and idempotent: it may be lost, come late or twice. What is true stands in RADOS.
 */
#pragma once

#include <glib.h>
#include <stdint.h>

/* The values are sent. */
enum mf_notice_kind {
	MF_NOTICE_RECALL = 1,  /* @from wants the lease of directory @ino, in @mode */
	MF_NOTICE_GRANT = 2,   /* look again at the lease of @ino: it may be yours, or free */
	MF_NOTICE_LOCK = 3,    /* the file lock that you wait for on @ino is yours; @arg: the id of the request */
	MF_NOTICE_MEMBERS = 4, /* `members' has changed */
	MF_NOTICE_CLOSED = 5,  /* @from has closed inode @arg of directory @ino: if you want to delete it, ask */
	MF_NOTICE_ASK = 6,     /* inode @arg, removed from directory @ino: do you have it open? */
	MF_NOTICE_UNUSED = 7,  /* no; as it has no name, it never will be */
	MF_NOTICE_FORGOT = 8,  /* the kernel of @from does not have @ino, whose events you told it in epoch @arg */
	MF_NOTICE_AWAY = 9,    /* nobody watches the inbox of incarnation @arg any more */
};

struct mf_notice {
	uint8_t kind;
	uint8_t mode; /* enum mf_lease_mode */
	uint32_t from; /* incarnation */
	uint64_t ino;
	uint64_t arg;
};

GByteArray *mf_notice_encode(const struct mf_notice *notice);
/* -EBADMSG, -EPROTONOSUPPORT */
int mf_notice_decode(const void *data, size_t len, struct mf_notice *ret);
