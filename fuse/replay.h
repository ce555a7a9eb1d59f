/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse/replay.h - events of other nodes on their way into this node's kernel.
 *
 * Model:   what mf_replay_raise() is given waits in a queue of its directory. A few threads, each with a replayer
 *          (replayer.h), repeat it; one directory is in the hands of one thread at a time, so its events keep their order.
 *          The requests that this brings about are recognized by the pid of a replayer, which the kernel fills in and which no
 *          other process can have while the replayer is not waited for, and by what it was told to do at the moment.
 *          They are answered here, without a lease and without waiting for anything; nothing is changed. Names lead to inodes
 *          that do not exist, and nothing may be kept: the next to come looks them up anew. What the kernel would do to
 *          an inode that it did not look up for it is refused.
 * Owns:    mf_replay_new() to mf_replay_free().
 * Threads: mf_replay_raise() and the answers: any. The answers take fs->lock for a moment. mf_replay_raise() does not, and
 *          may be called with it held.
 */
#ifndef MF_FUSE_REPLAY_H
#define MF_FUSE_REPLAY_H

#include "sync/fs.h"

#include <fuse_lowlevel.h>

/* The name of an event that stands for more than could be told one by one. */
#define MF_REPLAY_MANY ".mailfs-changed"

typedef struct MfReplay MfReplay;

/* Forks the replayers: before any other thread runs, and before /dev/fuse is open. */
int mf_replay_new(const char *mountpoint, MfReplay **ret_replay);
/* It is mounted. */
void mf_replay_start(MfReplay *replay, MfFs *fs);
/* No request is answered any more: no event either. */
void mf_replay_halt(MfReplay *replay);
/* The connection is closed. Waits for what is under way. */
void mf_replay_stop(MfReplay *replay);
MfReplay *mf_replay_free(MfReplay *replay); /* NULL ok; returns NULL */

/* @arg: the MfReplay. As mf_kernel_ops has it. */
void mf_replay_raise(MfReplay *replay, uint64_t dir, const struct mf_kernel_event *event);

/* False: the request is not of a replayer. Else it is answered. */
bool mf_replay_lookup(MfReplay *replay, fuse_req_t req, uint64_t parent, const char *name);
bool mf_replay_attr(MfReplay *replay, fuse_req_t req, uint64_t ino);
/* mknod(2) and mkdir(2). */
bool mf_replay_make(MfReplay *replay, fuse_req_t req, uint64_t parent, const char *name);
/* unlink(2) and rmdir(2). */
bool mf_replay_remove(MfReplay *replay, fuse_req_t req, uint64_t parent, const char *name);
bool mf_replay_rename(
	MfReplay *replay, fuse_req_t req, uint64_t parent, const char *name, uint64_t new_parent, const char *new_name);

#endif
