/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/xattr.h - user.* attributes of what is stored for the first time. */
#pragma once

#include "sync/model.h"

/* Adds those in memory to the operation that makes the object. Call without fs->lock. */
void mf_xattr_add(MfFs *fs, MfInode *inode, MfWop *wop);
