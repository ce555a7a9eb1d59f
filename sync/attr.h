/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/attr.h - attributes of inodes: fetch them from where their authority lies, change them, name them. */
#pragma once

#include "sync/model.h"

/* Makes attr and nlink of the inode true; the directory whose lease guards it is held. May wait. Pin the inode. */
int mf_attr_load(MfFs *fs, MfInode *inode);
/* It was, under this lease; and so were all its names, which change with it. */
bool mf_attr_is_loaded(const MfInode *inode);
/* The same as mf_attr_load(), and holds that directory: mf_dir_put(), unless *ret_dir is NULL, for what nobody else can see needs no lease. */
int mf_attr_hold(MfFs *fs, MfInode *inode, enum mf_lease_mode mode, MfDir **ret_dir);
/* Its attributes changed in memory: to be committed where they belong. */
void mf_attr_changed(MfInode *inode);
/* The same for a message with several names blocks and may fail. */
int mf_attr_store(MfFs *fs, MfInode *inode);
/* Attributes of a new inode in @dir: group and SGID come from a SGID directory. */
void mf_attr_init(const MfInode *parent, uint32_t mode, const struct mf_cred *cred, struct mf_attr *ret);

/* Two copies of one inode's: mtime and ctime of the one that was changed last. */
void mf_attr_newer_times(struct mf_attr *attr, const struct mf_attr *other);

/* A write by somebody without privileges, as file_remove_privs() of Linux: SGID only where it means "run as". */
void mf_attr_drop_suid(struct mf_attr *attr);

/* Path within the filesystem as far as it is in memory; for messages to the administrator. g_free(). */
char *mf_inode_path(MfFs *fs, const MfInode *inode);
