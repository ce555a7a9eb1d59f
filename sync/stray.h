/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/stray.h - names of this node alone, in the tmp of a directory that another node may have removed.
 *
 * Threads: fs->lock held.
 */
#pragma once

#include "sync/model.h"

/* Looks whether such directories are still there, in the background. Of one that is gone the names go, and their bytes when nobody
 * has them open. */
void mf_stray_ask(MfFs *fs);
