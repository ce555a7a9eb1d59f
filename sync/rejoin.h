/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/rejoin.h - a node that was declared lost comes back as a new incarnation.
 *
 * Model:   fenced, nothing of the old life may reach RADOS any more, nor be answered from. Its operations end with errors;
 *          when the last one has, all that is in memory is taken for old: leases are gone, changes that were not committed
 *          are lost, names are read again. What only the old life knew (names in tmp, files and directories never committed,
 *          file locks) gives ESTALE on everything but close, as do handles of plain files that lost something; other
 *          handles go on. Who lost changes or locks is told so: lost.h, lostlock.h. Requests that come meanwhile wait.
 */
#pragma once

#include "sync/model.h"

/* The thread that waits for the end of an incarnation. */
void *mf_rejoin_thread(void *fs);
