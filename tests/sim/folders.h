/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/sim/folders.h - directories that are made, filled, renamed from one parent to another, and removed.
 *
 * Model:   two registers for each: where it is, under which name; and what lies in it, one file. Where there is no directory
 *          there can be no file.
 * Threads: fibres.
 */
#pragma once

#include "tests/sim/world.h"

/* One thing that is done to one of them. 0, or the error that ended it. */
int folders_step(struct client *client);
/* By the last mount. */
int folders_verify(struct client *client);
