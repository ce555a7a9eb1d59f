/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/reopen.h - the second try of an open(2) that came too late.
 *
 * Model:   between the kernel's lookup of a name and its open of the inode the file may be removed, by a process here or by
 *          another node, and its bytes with it. The open is answered with ESTALE, on which the kernel looks the name up
 *          again and opens what it finds (do_filp_open() in Linux' fs/namei.c), once. What that lookup finds counts as open
 *          from then on, so that this time it cannot go.
 * Threads: fs->lock held.
 */
#pragma once

#include "sync/model.h"

/* An open of the inode by thread @pid ends with ESTALE: a lookup comes next. */
void mf_reopen_announce(MfFs *fs, const MfInode *inode, uint32_t pid);
/* A lookup by @pid in @dir, which is held, has found it. */
void mf_reopen_found(MfDir *dir, MfInode *inode, uint32_t pid);
/* The open has come, whatever became of it. */
void mf_reopen_done(MfFs *fs, const MfInode *inode, uint32_t pid);
/* Nobody is expected any more: the unmount. */
void mf_reopen_end(MfFs *fs);
