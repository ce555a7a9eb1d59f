/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/hold.h - holding directories: who works in one has its lease, and it stays until he has left.
 *
 * Model:   mf_dir_get() waits until this node has the lease in the mode asked for, and makes the caller a user; a lease is
 *          given up only when no user is left. A thread that has one directory may enter it again at any time.
 *          Deadlock: a thread that holds directories waits only for one with a higher inode number than all of
 *          these. Otherwise the call gives -ERESTART: leave everything, mf_hold_again(), start anew with all of them.
 * Threads: fs->lock held. May wait for RADOS and for other nodes, for op_timeout in all.
 * Errors:  -ENOTDIR; -ESTALE: removed, perhaps by another node; -ETIMEDOUT: a live node does not give it up, or the cluster
 *          does not answer; -ERESTART as above; -EIO: its object is damaged;
 *          -EOWNERDEAD: to be changed, by who believes that he holds a lock, see lostlock.h.
 */
#pragma once

#include "sync/model.h"

/* The directory that holds the entries of @inode (DIR or SUBDIR); *ret_space says which of them are meant. A Maildir is
 * always taken exclusively: who reads a mailbox is about to change it. Undo with mf_dir_put(), in the same thread. */
int mf_dir_get(MfFs *fs, MfInode *inode, enum mf_lease_mode mode, MfDir **ret_dir, enum mf_space *ret_space);
void mf_dir_put(MfDir *dir);

/* The directory whose lease guards @inode itself: its own, or the one that its name is in. */
int mf_inode_hold(MfFs *fs, MfInode *inode, enum mf_lease_mode mode, MfDir **ret_dir);

/* A user on behalf of a job: may be given back by another thread. The caller is a user itself, or the lease cannot leave
 * for another reason. */
void mf_dir_use(MfDir *dir);
void mf_dir_unuse(MfDir *dir);

/* Keeps the memory of the directory, not the lease. */
MfDir *mf_dir_pin(MfDir *dir);
void mf_dir_unpin(MfDir *dir);

/* For whom this thread works, by mf_fs_requester(). */
uint32_t mf_hold_requester(void);

/* `do { ... } while (mf_hold_again(fs, &r));` around an operation on several directories, with nothing held. True: the
 * operation ended with -ERESTART, and the directories that it lacked are held for it now. Else what was held for it is
 * given back. */
bool mf_hold_again(MfFs *fs, int *r);
