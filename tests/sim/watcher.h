/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/sim/watcher.h - processes with inotify(7): are they told what other nodes change?
 *
 * Model:   a watch keeps its directory in the kernel of its node for as long as that is mounted. Each name in it that
 *          somebody else's commit changes is owed to it, until an event of that name, or one of "many", is raised. Before
 *          the node unmounts it waits, and then must owe nothing: whatever was lost, cut off or killed meanwhile.
 *          And whoever has a watch in its kernel has the lease, or its mark is in the directory (I1 of doc/LOCKING.md).
 * Threads: fibres.
 */
#pragma once

#include "tests/sim/world.h"

void watcher_start(struct node *node);
/* A client watches some directory from now on. */
int watcher_step(struct client *client);
void watcher_raise(struct node *node, const struct mf_kernel_event *event);
/* Waits until nothing is owed. */
void watcher_settle(struct node *node);

/* Of the cluster; @nodes: all there are. */
void watcher_change(struct node *nodes, unsigned n, const struct cluster_change *change);
