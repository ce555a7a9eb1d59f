/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/report.h - what this node holds, for people: leases and file locks, with the paths that it knows.
 *
 * Model:   a look at memory; nothing is asked of RADOS or of other nodes, and no lease is taken. It is taken in pieces,
 *          so that it holds nobody up: what changes meanwhile may show as it was before or after.
 * Owns:    lists belong to the caller: g_ptr_array_unref().
 * Threads: any; take fs->lock themselves, but for mf_report_count().
 */
#pragma once

#include "locking/filelock.h"
#include "sync/fs.h"

struct mf_report_lease {
	uint64_t ino;
	char *path; /* from the root of the filesystem; NULL: no name of it is in memory */
	enum mf_lease_mode mode;
	uint64_t epoch;
	int64_t since;	 /* s since 1970 */
	unsigned users;	 /* operations inside */
	GArray *waiters; /* uint32_t: incarnations that want it, first come first served */
};

struct mf_report_lock {
	struct mf_filelock lock;
	char *path;
	uint64_t dir;	   /* whose lease guards it; 0: not known here */
	unsigned position; /* 0: held; else its place among those that wait for the inode */
	bool elsewhere;	   /* waits at another lock manager, which knows its place */
};

GPtrArray *mf_report_leases(MfFs *fs); /* struct mf_report_lease, by path */
GPtrArray *mf_report_locks(MfFs *fs); /* struct mf_report_lock, by path; those of an inode as the lock table has them */

/* Fills the counts of leases, recalls and file locks. Lock held. */
void mf_report_count(MfFs *fs, struct mf_fs_status *status);
/* mf_node_reporter */
GBytes *mf_report_encode(void *fs);
