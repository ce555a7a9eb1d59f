/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/outbox.h - events on their way to one other node, about one directory.
 *
 * Model:   the first event goes at once; those that come while it is on its way, or soon after it, go together, and while there
 *          are many of them that lasts longer each time, up to a fifth of a second. More than fit are told as "many". What did
 *          not reach its node is told again, as "many", until it does or the node is dead.
 * Threads: fs->lock held, but for mf_outbox_thread().
 */
#pragma once

#include "store/eventrecord.h"
#include "sync/model.h"

void mf_outbox_init(MfFs *fs);
void mf_outbox_clear(MfFs *fs);

/* Copies @event. @version: as for mf_event_tell(). */
void mf_outbox_add(MfDir *dir, uint32_t to, const struct mf_event *event, uint64_t version);
/* The thread that sends. */
void *mf_outbox_thread(void *fs);
/* At the end: waits until all of it is sent, for a moment. False: it is not. */
bool mf_outbox_drain(MfFs *fs);
/* The incarnation has ended: its events are nobody's. */
void mf_outbox_reset(MfFs *fs);
