/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/sweep.h - what dead nodes left without a name: bytes that were durable before their publish, objects made before
 * their directory entry.
 *
 * Model:   the window of inode numbers in node.<incarnation> says which may be. Each object of the window tells the
 *          directory it was made in; if that does not name it, nobody does. One that was moved or linked elsewhere is
 *          marked, and left alone.
 */
#pragma once

#include "sync/model.h"

/* What *@wait stands for, a flag of MfFs, waits for a notice that may be lost: to be asked for from time to time. */
void mf_sweep_ask(MfFs *fs, bool *wait);
/* Sweeps the windows of all lost incarnations; a thread of its own. */
void *mf_sweep_thread(void *fs);
