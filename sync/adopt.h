/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/adopt.h - a plain file in tmp that was written before its directory became a Maildir.
 *
 * Postfix makes tmp alone, writes the message, and makes cur and new only when its link(2) fails (src/virtual/maildir.c):
 * the first message of each mailbox is such a file. */
#pragma once

#include "sync/model.h"

/* If @inode is one, makes it a message with a name local to tmp, as if it had been made there. 0 also when it is none.
 * May wait. */
int mf_adopt(MfFs *fs, MfInode *inode);
