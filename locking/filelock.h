/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* locking/filelock.h - fcntl byte ranges, open-file-description locks and flock(2), in memory.
 *
 * Model:   a table holds the locks of all inodes whose lock manager this node is. An owner is {incarnation, owner id}:
 *          the kernel derives the id from the process' descriptor table (fcntl), or from the open file (OFD, flock).
 *          fcntl and OFD locks share one space and conflict with each other; flock is a space of its own. Ranges split,
 *          merge, up- and downgrade as in Linux; flock conversion drops the old lock first, and a conversion that
 *          fails or is interrupted has lost it, as in Linux.
 *          Waiting holds no thread: a request is parked with a cookie and comes back in a list of done requests.
 *          No deadlock is ever reported; a waiter that will not be served ends by mf_filelock_cancel().
 * Order:   a waiter is served when nothing held conflicts with it and no conflicting request of another owner waits
 *          before it; so nobody starves behind blocking requests that came later. Two exceptions keep a fair queue
 *          from making a deadlock that a local filesystem does not have: a request that does not wait looks at held
 *          locks only, and so does one whose owner holds a lock on the inode or whose process holds any in the table
 *          (someone may be waiting for it).
 * Owns:    the table copies what it is given. Cookies belong to the caller, who gets each back exactly once: in a done
 *          list, or by a successful cancel.
 * Threads: none of this locks or blocks: protected by the caller, who holds its own lock around each call and answers
 *          the done requests after it dropped that.
 * Errors:  0 or -errno.
 */
#pragma once

#include <fcntl.h>
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mf_filelock_space {
	MF_FILELOCK_POSIX = 0, /* fcntl and OFD */
	MF_FILELOCK_FLOCK = 1,
};

/* The values are persistent: lock state moves between nodes. */
enum mf_filelock_type {
	MF_FILELOCK_UNLOCK = 0,
	MF_FILELOCK_READ = 1,
	MF_FILELOCK_WRITE = 2,
};

/* One lock or one request. For flock: the whole range. */
struct mf_filelock {
	uint64_t ino;
	uint64_t owner;
	uint64_t fh; /* the node's handle through which it was taken */
	int64_t start;
	int64_t end;	      /* the last byte; INT64_MAX: to the end of the file, however it grows */
	uint32_t incarnation; /* of the node whose process it is; owner, fh and pid mean something there only */
	int32_t pid;
	uint8_t space; /* enum mf_filelock_space */
	uint8_t type;  /* enum mf_filelock_type */
};

/* A parked request that has its answer: 0 (it holds the lock now) or -errno. */
struct mf_filelock_done {
	void *cookie;
	int result;
};

#define MF_FILELOCK_PARKED 1

typedef struct MfLockTable MfLockTable;

/* At most @max_locks ranges are held at a time. */
MfLockTable *mf_filelock_new(size_t max_locks);

/* No request may be parked any more (mf_filelock_drop_inode(), or cancel). NULL ok; returns NULL. */
MfLockTable *mf_filelock_free(MfLockTable *table);

void mf_filelock_set_max(MfLockTable *table, size_t max_locks);

/* An empty list for the @done parameters below: struct mf_filelock_done, appended in the order of service. */
GArray *mf_filelock_done_new(void);

/* Looks for what keeps @request (read or write) from being granted. Returns true and the first such lock, else false
 * and leaves *ret_holder. */
bool mf_filelock_test(MfLockTable *table, const struct mf_filelock *request, struct mf_filelock *ret_holder);

/* Sets or clears without waiting. 0; -EAGAIN: somebody else holds it; -ENOLCK: the table is full (a range to clear may
 * need one more, too); -EINVAL: the request makes no sense. */
int mf_filelock_set(MfLockTable *table, const struct mf_filelock *request, GArray *done);

/* The same, but instead of -EAGAIN parks the request and returns MF_FILELOCK_PARKED. @cookie: not NULL, and not parked
 * already. */
int mf_filelock_wait(MfLockTable *table, const struct mf_filelock *request, void *cookie, GArray *done);

/* Takes a parked request back. True: the cookie is the caller's to answer (-EINTR). False: it has been answered. */
bool mf_filelock_cancel(MfLockTable *table, void *cookie, GArray *done);

/* FLUSH: all fcntl and OFD locks that @owner holds on @ino. */
void mf_filelock_drop_owner(MfLockTable *table, uint64_t ino, uint32_t incarnation, uint64_t owner, GArray *done);

/* RELEASE: all that was taken through handle @fh, in both spaces. Requests parked through it end with -EINTR. */
void mf_filelock_drop_handle(MfLockTable *table, uint64_t ino, uint32_t incarnation, uint64_t fh, GArray *done);

/* A node has ended: all its locks; its parked requests end with -ESHUTDOWN. */
void mf_filelock_drop_incarnation(MfLockTable *table, uint32_t incarnation, GArray *done);

/* The same for one inode. */
void mf_filelock_drop_node(MfLockTable *table, uint64_t ino, uint32_t incarnation, GArray *done);

/* Forgets @ino: its parked requests end with @result (-EAGAIN: ask the new lock manager; -EIO...). */
void mf_filelock_drop_inode(MfLockTable *table, uint64_t ino, int result, GArray *done);

/* Puts back a lock that mf_filelock_foreach() named on another node. -EBADMSG: it is malformed or contradicts a lock
 * that is here; -ENOLCK. Importing in the order of foreach keeps the order. */
int mf_filelock_import(MfLockTable *table, const struct mf_filelock *lock);

/* Calls @func for each lock of @ino, or of all inodes when @ino is 0: per inode and space those held, by owner in the
 * order of arrival and then by range (@cookie NULL), then those waiting, first come first. @func must not change the table. */
typedef void (*mf_filelock_func)(const struct mf_filelock *lock, void *cookie, void *data);
void mf_filelock_foreach(MfLockTable *table, uint64_t ino, mf_filelock_func func, void *data);

size_t mf_filelock_held(const MfLockTable *table);
size_t mf_filelock_waiting(const MfLockTable *table);
size_t mf_filelock_inodes(const MfLockTable *table); /* those that have any state here */

/* Between this and the kernel's forms. from_flock fills range and type, -EINVAL for what the kernel would not send;
 * from_op (flock(2): LOCK_SH, LOCK_EX, LOCK_UN, with or without LOCK_NB) also the space. */
int mf_filelock_from_flock(const struct flock *fl, struct mf_filelock *lock);
int mf_filelock_from_op(int op, struct mf_filelock *lock, bool *ret_wait);
void mf_filelock_to_flock(const struct mf_filelock *lock, struct flock *ret_fl);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(MfLockTable, mf_filelock_free)
