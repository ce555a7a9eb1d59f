/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store/lockrecord.h - omap l/: the file locks on one inode, as they move between nodes with the lease of its directory. */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* The values are those of struct mf_filelock. */
struct mf_lock_record {
	bool waiting;
	uint64_t id; /* of a request that waits: its node knows it by that */
	uint64_t owner, fh;
	int64_t start, end;
	uint32_t incarnation;
	int32_t pid;
	uint8_t space, type;
};

/* @records: struct mf_lock_record, those held first, then those that wait, first come first. */
GByteArray *mf_lock_records_encode(GArray *records);
/* -EBADMSG, -EPROTONOSUPPORT */
int mf_lock_records_decode(const void *data, size_t len, GArray **ret_records);
