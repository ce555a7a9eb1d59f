/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/rename.h - rename(2), also between two objects.
 *
 * Model:   within one object a rename is one commit. Between two: an intent in the source's head; then the gain in the
 *          destination, which carries a marker; then the loss in the source, which clears the intent; then the marker
 *          goes. Whoever loads a directory with an intent finishes it if the marker is there and drops it if not.
 */
#pragma once

#include "sync/model.h"

/* Finishes what a crash left half done. May wait. */
int mf_rename_recover(MfDir *dir, GArray *kvs);
/* Waits until no rename into @dir needs it any more, so that it may be removed. */
int mf_rename_settle(MfDir *dir);
/* Renames into @dir, exclusively held, that a dead node has not finished: their sources commit the loss. For when the marker
 * goes with @dir. May wait. */
int mf_rename_finish_foreign(MfDir *dir);
bool mf_rename_is_pending(MfDir *dir);
/* A rename between two objects, one of which is this directory's, is not over: its names must stay in their objects. */
bool mf_rename_is_between(MfDir *dir);
