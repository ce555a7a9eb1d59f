/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/sim/kernel.h - what the kernel of a node does around the calls: its locks, what it remembers, lock requests.
 *
 * Model:   a request holds the lock of its parent, also while it waits for a lease. Names that the filesystem lets the
 *          kernel keep are answered from here until they expire or are forgotten, and forgetting one takes the lock of
 *          the parent as well. A lookup counts for as long as a name or a call uses the inode.
 * Threads: fibres.
 */
#pragma once

#include "tests/sim/world.h"

void kernel_start(struct node *node);
/* Once the filesystem is there. */
void kernel_mounted(struct node *node);

void kernel_lock(struct node *node, uint64_t ino, bool writer);
void kernel_unlock(struct node *node, uint64_t ino, bool writer);
/* Two parents, in the order of their numbers. */
void kernel_lock_two(struct node *node, uint64_t a, uint64_t b);
void kernel_unlock_two(struct node *node, uint64_t a, uint64_t b);

/* An answer that names an inode; lock of @parent held. The inode is the client's until kernel_put_all(). */
void kernel_entry(struct client *client, uint64_t parent, const char *name, const struct mf_stat *st);
/* From memory. */
bool kernel_find(struct client *client, uint64_t parent, const char *name, uint64_t *ret_ino);
/* The client has removed or replaced it. */
void kernel_drop(struct node *node, uint64_t parent, const char *name);
void kernel_put_all(struct client *client);
/* For as long as the node is mounted; the client has it in use. */
void kernel_keep(struct node *node, uint64_t ino);

/* A lock request that waits; a cookie. */
struct wait {
	bool done, interrupted;
	int result;
	struct waitq queue;
};
void kernel_answer_locks(GArray *done);
