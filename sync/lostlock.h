/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/lostlock.h - processes that believe they hold a lock that went with an incarnation.
 *
 * Model:   when a node is declared lost, its file locks and its dotlocks (files *.lock) end, and others take them. A process on
 *          it that was stopped under its lock goes on once the node has joined anew, and would write what it had read before:
 *          over what the others have written meanwhile. So as long as it has not learned that the lock is gone, every change
 *          that it attempts in that directory gives ESTALE. It learns that of a file lock when it gives it up or closes the
 *          file, of a dotlock when it looks at its name, as Dovecot does before it removes it (file_dotlock_delete()) and
 *          before it takes it anew. What it then removes or renames by that name is not there if it is not its own.
 *          A process is known by the pid in its requests. After KEEP nobody is remembered: its number may be another's.
 * Threads: fs->lock held.
 */
#pragma once

#include "sync/model.h"

struct mf_lostlocks;

struct mf_lostlocks *mf_lostlocks_new(void);
void mf_lostlocks_free(struct mf_lostlocks *locks);

/* A process of this node has a file lock, or waits for it. Wherever the lease is: then our table does not say so. */
void mf_lostlock_taken(MfFs *fs, const struct mf_filelock *lock);
/* The file locks of @owner on the file @ino are given up, or those that were taken through the handle @fh; 0: not that. */
void mf_lostlock_dropped(MfFs *fs, uint64_t ino, uint64_t owner, uint64_t fh);

/* The incarnation has ended, and nothing of it has been put away yet. */
void mf_lostlock_end(MfFs *fs);

/* Before the requester changes anything in the directory @ino (its own inode): 0 or -EOWNERDEAD. */
int mf_lostlock_check(MfFs *fs, uint64_t ino);

/* The requester has been told what @name in the directory @ino is now. */
void mf_lostlock_told(MfFs *fs, uint64_t ino, const char *name);
/* He is about to remove or rename it, and it leads to @inode: 0, or -ENOENT if he means a dotlock that is no more. */
int mf_lostlock_own(MfFs *fs, uint64_t ino, const char *name, const MfInode *inode);
