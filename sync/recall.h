/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/recall.h - asking for leases, and giving them up: drain, commit, hand over.
 *
 * A recall may be lost, late or double; who waits asks again each second. A node gives a lease up in this order:
 *   1. answers carry no timeouts any more; what the kernel was given is taken back, while we still serve;
 *   2. nobody enters any more, and those inside leave;
 *   3. everything is committed, and what this node has open and locked is noted in the same operation that
 *   4. hands the lease to the first in the queue, with the rest of the queue.
 */
#pragma once

#include "store/notice.h"
#include "sync/model.h"

/* Asks @holder for the lease. */
void mf_recall_send(MfDir *dir, uint32_t holder, enum mf_lease_mode mode);
/* What other nodes say; mf_node_listener. */
void mf_recall_listen(const void *data, size_t len, void *fs);
/* @incarnation is to have the lease as soon as may be. */
void mf_recall_by(MfDir *dir, uint32_t incarnation, enum mf_lease_mode mode);
/* Adds to @wop, the last commit of a directory that is being given up, what hands its lease over. */
int mf_recall_add_pass(MfDir *dir, MfWop *wop);
/* At the end of this node: hands over what others need to know more of than that we left in order. All is committed, and
 * nobody is inside any more. */
void mf_recall_leave(MfFs *fs);
/* Nodes wait for the lease that we have just taken. */
void mf_recall_pending(MfDir *dir);
/* Others wait, and we have had it for long enough: nobody enters any more. */
bool mf_recall_is_due(const MfDir *dir);
/* @waiters (uint32_t) waited for it before those who have asked us. */
void mf_recall_queue(MfDir *dir, const GArray *waiters);
void mf_notice_send(MfFs *fs, uint32_t to, enum mf_notice_kind kind, uint64_t ino, uint64_t arg);
