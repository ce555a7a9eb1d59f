/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/commit.h - changes in memory become one atomic operation on one object.
 *
 * Model:   a commit freezes all changed keys of one shard with their present values (a batch), flushes the bytes that
 *          these keys lead to, then sends one operation: guards (our epoch, the `last' we know), the new `last', the
 *          records, the keys. One batch a shard is in flight, so commits keep their order. When the result is unknown,
 *          `last' is read back: it is ours, or the very same batch is sent again. A batch that surely failed melts back
 *          into the changes and is tried again later.
 *          Whoever needs durability waits for a sequence number of the shard.
 */
#pragma once

#include "sync/model.h"

struct mf_batch;

/* Something of the shard changed: it will be committed within commit_interval. */
void mf_commit_queue(MfShard *shard);
/* Starts a commit now if there is something and none is in flight. */
void mf_commit_start(MfShard *shard);
/* Starts one if somebody waits for it. */
void mf_commit_kick(MfShard *shard);
/* Waits until all that was changed so far is in RADOS. -ETIMEDOUT after op_timeout, or the error of the commit. */
int mf_commit_wait(MfShard *shard);
/* The same for one name: for nothing when it is not changed. */
int mf_commit_wait_key(MfDir *dir, const char *key);
/* Every shard of the directory, then what its ancestors need to lead to it. */
int mf_commit_dir(MfDir *dir);
/* Commits the names of the ancestors down to @dir that are not in RADOS yet. */
int mf_commit_ancestors(MfDir *dir);
/* What makes a new object of the directory: exclusive creation, `last', epoch; for the head also the lease. */
int mf_commit_new_object(MfShard *shard, MfWop *wop, char last[MF_LAST_MAX]);
/* Something of the shard is not in RADOS. */
bool mf_commit_is_needed(const MfShard *shard);
/* Drops what is not committed: the directory is gone. */
void mf_commit_forget(MfShard *shard);

/* Commits all there is. 0 or the first error. */
int mf_commit_all(MfFs *fs);
/* The thread that commits what is due. */
void *mf_commit_flusher(void *fs);

bool mf_batch_has_key(const struct mf_batch *batch, const char *key);
bool mf_batch_key_state(const struct mf_batch *batch, const char *key, bool *ret_sets);
