/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/inode.h - the table of inodes in memory. */
#pragma once

#include "sync/model.h"

MfInode *mf_inode_find(MfFs *fs, uint64_t ino); /* NULL when not in memory */
MfInode *mf_inode_new(MfFs *fs, uint64_t ino, enum mf_kind kind);

/* A pinned inode stays although no name in memory leads to it. */
MfInode *mf_inode_pin(MfInode *inode);
void mf_inode_unpin(MfFs *fs, MfInode *inode);
/* Frees it if nothing needs it any more. */
void mf_inode_settle(MfFs *fs, MfInode *inode);

/* A number never used before in this filesystem. May wait for RADOS. -ENOSPC: this incarnation has used them up. */
int mf_inode_number(MfFs *fs, uint64_t *ret_ino);
/* Until mf_inode_named() the window of numbers that a sweep would look at covers this inode. */
void mf_inode_unnamed(MfFs *fs, MfInode *inode);
void mf_inode_named(MfFs *fs, MfInode *inode);

/* The directory of that number, whether it is in memory yet or not; NULL: it is none, or removed. */
MfInode *mf_inode_dir_of(MfFs *fs, uint64_t ino);
bool mf_inode_is_dir(const MfInode *inode);
/* Somebody here can reach its bytes whatever names go: through a descriptor, or a name in tmp that holds no reference. */
bool mf_inode_is_held(const MfInode *inode);
bool mf_inode_has_local_name(const MfInode *inode);
/* 0 with the inode pinned; -ESTALE when the kernel names one that we do not know. */
int mf_inode_take(MfFs *fs, uint64_t ino, MfInode **ret_inode);

/* Its last name here went on another node: finds out whether it is removed, or where it is now. The directory that it was
 * in is held; 0 with another inode->dir: there, under another lease. May wait. -ESTALE. */
int mf_inode_find_again(MfFs *fs, MfInode *inode);
/* The same of a plain file whose directory is gone. 0: it is in another one, inode->dir. */
int mf_inode_follow(MfFs *fs, MfInode *inode);

/* Fills what stat(2) shows; attributes must be loaded. */
void mf_inode_stat(const MfInode *inode, struct mf_stat *ret);
