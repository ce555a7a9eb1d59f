/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/dotlock.h - lock files whose node has died.
 *
 * A file `*.lock' is what Dovecot and others lock with where they do not trust fcntl(2); they wait for minutes before they take
 * one for stale. Its inode number names the node that made it. When that is lost, the file goes.
 */
#pragma once

#include "sync/model.h"

/* A name that was read: notes that it may be one. */
void mf_dotlock_seen(MfDir *dir, const char *key, enum mf_kind kind, uint64_t ino);
/* Removes those noted, in the background, if the lease is ours to change. */
void mf_dotlock_remove(MfDir *dir);
/* Nodes have ended: looks through the directories that we hold. */
void mf_dotlock_check(MfFs *fs);
