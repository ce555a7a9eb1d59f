/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/opened.h - files that a node has in use in a directory whose lease it gave up.
 *
 * Model:   with the lease goes a record o/<inode>.<incarnation> for each file of the directory that is open here, or that
 *          has a name in tmp beside the one that all nodes know (mf_inode_is_held()). Whoever
 *          deletes the last name of such a file leaves its bytes, and the to-delete record, until these are gone, or the
 *          incarnation is. A node that closes one tells whom it gave the lease (CLOSED); but that may be lost, come late
 *          when it has the file open again, or come when the lease is on its way. So who has something to delete asks
 *          (ASK), then and from time to time, and only the answer (UNUSED) counts: it stays true, since nobody can open
 *          what has no name.
 * Threads: fs->lock held.
 */
#pragma once

#include "store/notice.h"
#include "sync/model.h"

/* Records read with the lease: struct mf_kv. */
int mf_opened_take(MfDir *dir, GArray *kvs);
/* Adds to the operation that gives the lease up what RADOS must know. */
void mf_opened_note(MfDir *dir, MfWop *wop);
/* The lease is gone. */
void mf_opened_clear(MfDir *dir);
/* A node that lives has it open. */
bool mf_opened_elsewhere(MfDir *dir, uint64_t ino);
/* @child is removed; what is to be deleted of it is a matter of @dir now, and who has it open as well. */
void mf_opened_inherit(MfDir *dir, MfDir *child, uint64_t ino);
/* A name of @inode went from here to there, both exclusively held. */
void mf_opened_moved(MfDir *from, MfDir *to, const MfInode *inode);
/* The last descriptor on this node is closed. */
void mf_opened_closed(MfFs *fs, MfInode *inode);
/* Who else has open what was deleted from the directory, but for that: they are asked. */
void mf_opened_ask(MfDir *dir, uint64_t ino);
/* A notice about files that are, or were, open on other nodes. */
void mf_opened_listen(MfFs *fs, const struct mf_notice *notice);
