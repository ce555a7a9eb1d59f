/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/name.h - what sync/name.c and sync/rename.c share about taking names away. */
#pragma once

#include "sync/model.h"

/* Removes a name of something that is no directory, with all that follows for its bytes. */
void mf_name_drop(MfDir *dir, MfDentry *dentry);
/* Is the directory behind @dentry empty, so that it may be removed? Its commits have ended when this returns 0. May wait,
 * so look the name up again. -ENOTEMPTY, -EBUSY. */
int mf_name_check_rmdir(MfDir *dir, MfDentry *dentry);
/* Is it still so, of a DIR that is held since then? Waits for nothing. */
bool mf_name_is_removable(MfDir *dir);
void mf_name_drop_dir(MfDir *dir, MfDentry *dentry);
/* A new name for a message outside of tmp: from now on it is immutable. */
void mf_name_publish(MfFs *fs, MfInode *inode);
/* What a sweep is told to leave alone must have a name that survives a crash: commits one of @inode. Blocks. */
int mf_name_commit(MfInode *inode);
/* A durable name, to be made in @dir, of a message that has or had one already takes a reference of its own. Blocks. */
int mf_name_reference(MfFs *fs, MfInode *inode, MfDir *dir, uint64_t *ret_tag);
/* A name in @dir now holds it; or (not @named) none will. */
void mf_name_referenced(MfFs *fs, MfInode *inode, MfDir *dir, bool named, uint64_t tag);
/* Waits until the name that holds @tag is committed. -ETIMEDOUT. */
int mf_name_wait_reference(MfFs *fs, uint64_t tag);
/* Adds a name as @rec describes it, as a change. */
void mf_name_add_record(MfDir *dir, const char *key, const struct mf_dirent_record *rec);
/* The parent directory of an operation: pinned inode, loaded directory. Undo with mf_name_leave(). */
struct mf_parent {
	MfInode *inode;
	MfDir *dir;
	enum mf_space space;
};
int mf_name_enter(MfFs *fs, uint64_t ino, enum mf_lease_mode mode, struct mf_parent *ret);
/* Does nothing the second time. */
void mf_name_leave(MfFs *fs, struct mf_parent *parent);
