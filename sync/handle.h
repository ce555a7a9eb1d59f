/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/handle.h - an open file. */
#pragma once

#include "sync/model.h"

struct MfHandle {
	MfFs *fs;
	MfInode *inode; /* pinned and counted in opens */
	bool writes;
};

/* -EPERM: a published message opened for writing. */
int mf_handle_open(MfFs *fs, MfInode *inode, int flags, MfHandle **ret_handle);
