/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/acquire.h - taking the lease of a directory, and bringing what is in memory up to date. */
#pragma once

#include "sync/model.h"

/* Makes the lease ours in @mode or better, reads the directory, or what changed in it since we had it. Asks live holders
 * to give it up and takes the place of dead ones. Nobody else may be acquiring or giving it up. May wait until @deadline
 * (monotonic us), or MF_ACQUIRE_GRANTED: -EAGAIN if a live node has it. */
#define MF_ACQUIRE_GRANTED 0
int mf_acquire(MfDir *dir, enum mf_lease_mode mode, int64_t deadline);
