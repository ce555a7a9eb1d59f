/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/opened.h - files that a node has in use in a directory whose lease it gave up.
 *
 * Model:   with the lease goes a record o/<inode>.<incarnation> for each file of the directory that is open here, or that
 *          has a name in tmp beside the one that all nodes know (mf_inode_is_held()). Whoever
 *          deletes the last name of such a file leaves its bytes, and the to-delete record, until these are gone, or the
 *          incarnation is.
 * Threads: fs->lock held.
 */
#pragma once

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
/* False: there is no record of it here. */
bool mf_opened_closed_elsewhere(MfDir *dir, uint64_t ino, uint32_t incarnation);
