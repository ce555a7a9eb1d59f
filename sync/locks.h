/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/locks.h - file locks across nodes.
 *
 * Model:   who holds a directory exclusively is the lock manager of its inodes: their locks, and the requests that wait, are in
 *          its lock table, whoever owns them. With the lease they move, as records l/<inode>. A request that waits keeps
 *          an id on its own node. When it gets its lock, the lock manager hands the lease to that node, which makes the
 *          grant durable, and says so (MF_NOTICE_LOCK); should that get lost, the next look at the records tells the same, after 5 s at the
 *          latest.
 *          Owners on dead nodes are dropped by whoever has, or takes, the lease.
 * Threads: fs->lock held.
 */
#pragma once

#include "sync/model.h"

/* Records read with the lease: struct mf_kv. */
int mf_locks_take(MfDir *dir, GArray *kvs);
/* Adds to the operation that gives the lease up what RADOS must know. */
void mf_locks_note(MfDir *dir, MfWop *wop);
/* The lease is gone: somebody else is the lock manager. */
void mf_locks_left(MfDir *dir);
/* A file was moved between two directories, both exclusively held: its locks go along. */
void mf_locks_moved(MfDir *from, MfDir *to, uint64_t ino);
/* There is something that the next lock manager must know. */
bool mf_locks_any(MfDir *dir);
/* The lock manager says that request @id has its lock. */
void mf_locks_granted(MfFs *fs, uint64_t id);
/* Other nodes may have ended: drops their owners, and looks after requests of ours that wait at a lock manager that died. */
void mf_locks_check_owners(MfFs *fs);
/* Looks what became of requests of ours that wait at another lock manager, in the background. */
void mf_locks_ask(MfFs *fs);
/* Who keeps others waiting may be dead: incarnations of other nodes that hold locks where requests wait (uint32_t). */
GArray *mf_locks_blockers(MfFs *fs);
/* All that was known is void: this incarnation is over. Requests that wait end with -EIO. */
void mf_locks_reset(MfFs *fs, GArray *done);
/* As mf_filelock_foreach() for all inodes, and then the requests of this node that wait at another lock manager. */
void mf_locks_foreach(MfFs *fs, mf_filelock_func func, void *data);
size_t mf_locks_waiting(MfFs *fs);
/* A handle is closed. May be called without the lease; then the rest is done in the background. */
void mf_locks_release(MfFs *fs, MfInode *inode, uint64_t fh, GArray *done);
