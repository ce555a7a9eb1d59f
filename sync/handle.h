/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/handle.h - an open file. */
#pragma once

#include "sync/model.h"

struct MfHandle {
	MfFs *fs;
	MfInode *inode; /* pinned and counted in opens */
	bool writes;
	unsigned life; /* of the node, when it was opened */
};

/* @made: the caller has just made the file. -EPERM: a published message opened for writing; one that is written where
 * everybody looks has a single writer, who made it. */
int mf_handle_open(MfFs *fs, MfInode *inode, int flags, bool made, MfHandle **ret_handle);

/* One more has it open, or may at any moment; one less. */
void mf_handle_count(MfFs *fs, MfInode *inode);
void mf_handle_uncount(MfFs *fs, MfInode *inode);
