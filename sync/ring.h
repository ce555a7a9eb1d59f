/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/ring.h - catching up with what other nodes changed in a shard.
 *
 * Model:   each commit notes the keys that it changed under z/<version>, for a number of versions. Who had the shard in
 *          memory at one of these reads just these keys again. If the ring does not reach back so far, names that
 *          nobody uses are forgotten, and the others are read again.
 * Threads: fs->lock held; may drop it. The shard must be claimed, or its directory being acquired.
 */
#pragma once

#include "sync/model.h"

#define MF_RING_CHANGES 64u /* versions that it keeps */
#define MF_RING_KEYS 256u   /* a commit of more keys is only noted as "many" */

/* @rop: xattrs of the shard as they are, and the ring behind shard->version in @range. Makes names in memory, record and
 * version of the shard what RADOS has. */
int mf_ring_catch_up(MfShard *shard, MfRop *rop, unsigned range);
