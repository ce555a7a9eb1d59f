/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/handle.h - an open file. */
#pragma once

#include "sync/model.h"

struct MfHandle {
	MfFs *fs;
	MfInode *inode; /* pinned and counted in opens */
	bool writes;
	unsigned life; /* of the node, when it was opened */
	bool unsynced; /* what was written through it since the last fsync may not be in RADOS */
};

/* @made: the caller has just made the file. -EPERM: a published message opened for writing; one that is written where
 * everybody looks has a single writer, who made it. */
int mf_handle_open(MfFs *fs, MfInode *inode, int flags, bool made, MfHandle **ret_handle);

/* Of a file that has died with an earlier incarnation, or of a plain file that was opened in one which lost some of what had
 * been written to it: who has read that would take what others wrote in its place for the rest. What is to be done with it
 * gives -ESTALE, which says what it says of an NFS server that has forgotten a file: open it again. */
bool mf_handle_is_old(const MfHandle *handle);

/* One more has it open, or may at any moment; one less. */
void mf_handle_count(MfFs *fs, MfInode *inode);
void mf_handle_uncount(MfFs *fs, MfInode *inode);
