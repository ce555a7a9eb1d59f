/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/kernel.h - what the kernel may answer from its own cache, and taking that back.
 *
 * Model:   an answer about a directory, a name of one, or a symbolic link may be kept by the kernel for a short time, if
 *          nobody else has asked for the lease of late. Before the lease leaves, the kernel is made to forget; that may
 *          block on locks of the kernel which a request holds that waits for us, so nobody waits for it longer than the
 *          time for which the answers were good. Names and attributes of files are never kept.
 * Threads: fs->lock held.
 */
#pragma once

#include "sync/model.h"

/* Fills the times in @st, for an answer about @inode, found under @key of @parent (NULL: no name is answered). */
void mf_kernel_answer(MfDir *parent, const char *key, MfInode *inode, struct mf_stat *st);
/* It knows the inode, so a process may watch it. */
bool mf_kernel_has(const MfInode *inode);
/* Until this returns what it was given under the lease of @dir is gone from the kernel. Waits. */
void mf_kernel_forget(MfDir *dir);
/* The kernel has the directory here now, and nowhere else. */
void mf_kernel_place(MfDir *dir, MfInode *parent, const char *name);
/* Another node has taken it, a directory perhaps, from this place. */
void mf_kernel_vanished(MfInode *inode, const MfDir *from, const char *key);
/* @inode, a directory, is about to be answered as @name of @parent. If the kernel has it elsewhere, where another node took
 * it from, it would have to move it, and that ends with ESTALE when somebody renames at that moment: always, when it looks it
 * up in order to rename it. So it is made to forget the earlier place. That may be locked by the request which asks; then
 * it gets ESTALE once, lets go, and asks again. Waits, for a moment. */
void mf_kernel_leave(MfInode *inode, uint64_t parent, const char *name);
/* The threads that make it forget. */
GThreadPool *mf_kernel_pool(MfFs *fs);
