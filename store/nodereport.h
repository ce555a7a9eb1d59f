/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store/nodereport.h - what a node says of itself to whoever asks its inbox: the answer to an empty notify.
 *
 * Counts as of `taken'; nothing is decided by them. Never stored, so no part of the format in RADOS.
 */
#pragma once

#include <glib.h>
#include <stddef.h>
#include <stdint.h>

struct mf_nodereport {
	uint32_t incarnation;
	int64_t taken; /* ns since 1970 */
	/* Directories by the lease that it holds; nodes that wait for these; leases that it gave up for others. */
	uint64_t shared, exclusive, waiters, recalls;
	/* File locks that it manages; requests that wait in its table, and its own that wait elsewhere. */
	uint64_t locks, lock_waits;
	uint64_t dirty; /* objects with changes that are not written yet */
};

GByteArray *mf_nodereport_encode(const struct mf_nodereport *report);
/* -EBADMSG, -EPROTONOSUPPORT */
int mf_nodereport_decode(const void *data, size_t len, struct mf_nodereport *ret);
