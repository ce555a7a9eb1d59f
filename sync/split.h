/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/split.h - large directories grow by shards, online.
 *
 * Model:   extendible hashing on the base name: a shard that has too many entries keeps those whose next hash bit is 0
 *          and gives the others to a new object. Copy first, then one guarded operation on the head flips the map; what
 *          lies on in the old object is ignored by its hash and removed afterwards.
 */
#pragma once

#include "sync/model.h"

/* After a commit: starts a split in the background when the shard has grown too large. */
void mf_split_if_large(MfShard *shard);
