/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/inspect.h - what RADOS says of a path, its lease and its file locks: read past all mounts, with nothing changed.
 *
 * A mount need not answer for that, and no lease moves; what a node has not committed yet is not seen.
 * Threads: any. Block for op_timeout, several times for long paths.
 * Errors:  -ENOENT, -ENOTDIR; -ELOOP: a symlink on the way (none is followed); -EBADMSG and others of store/record.h.
 */
#pragma once

#include "locking/lease.h"
#include "store/lockrecord.h"

struct mf_inspected {
	uint64_t ino;
	uint64_t dir; /* whose lease guards it: itself, the Maildir of a cur, new or tmp, or the directory that names it
		       */
	bool is_dir;
};

/* @path: from the root of the filesystem. */
int mf_inspect_path(MfPool *pool, const char *path, struct mf_inspected *ret);
/* Clear with mf_lease_record_clear(). */
int mf_inspect_lease(MfPool *pool, uint64_t dir, struct mf_lease_record *ret);

struct mf_inspected_lock {
	uint64_t ino;
	struct mf_lock_record record;
};
/* As the last lock manager noted them: struct mf_inspected_lock, by inode, those held before those that wait. */
int mf_inspect_locks(MfPool *pool, uint64_t dir, GArray **ret_locks);
