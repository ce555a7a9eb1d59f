/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/sim/world.h - nodes that mount the filesystem, and what their users do.
 *
 * Model:   world.c mounts, unmounts, crashes; workload.c is what a client process does, call by call, through the
 *          interface that the kernel's side uses, with the kernel's own locks around the calls. Each answer goes to
 *          check.c.
 * Threads: fibres.
 */
#pragma once

#include "sync/fs.h"
#include "tests/sim/check.h"
#include "tests/sim/sched.h"

struct node {
	unsigned index;
	char name[16];
	struct mf_conf *conf;
	int life; /* of the present mount; 0: none */
	MfPool *pool;
	MfNode *node;
	MfFs *fs;
	int lost; /* the last reign that was seen to be lost */
	bool ending; /* clients are to stop */
	bool closing;
	unsigned clients;
	unsigned budget; /* calls until it is unmounted */
	struct waitq ended;
	/* its kernel */
	GHashTable *inode_locks;
	struct waitq inode_waiters;
	GHashTable *kinodes, *names;
	GPtrArray *watches; /* of watcher.c */
};

struct client {
	struct node *node;
	unsigned id;
	int reign; /* when its present step began */
	GArray *lookups; /* uint64_t: inodes in use until the call is over */
};

struct plan {
	uint64_t seed;
	unsigned nodes, clients, steps;
	bool stalls, partitions, crashes;
	unsigned maildirs;
	bool calm; /* no faults at all */
};
extern struct plan plan;
extern unsigned steps_left;

void world_run(void);
/* What must be true at any moment. */
void world_check(void);
/* No network for @time us, if this world has such trouble. */
void world_cut(struct node *node, int64_t time);

/* What clients work on; made by a first mount. */
void workload_setup(struct node *node);
/* One thing of a client's day. Returns 0, or the error that ended it: -ESHUTDOWN when the mount is over. */
int workload_step(struct client *client);
/* By the last mount: everything is as it may be. */
void workload_verify(struct node *node);
/* After it: no bytes are left that nothing names. */
void workload_check_leaks(void);
