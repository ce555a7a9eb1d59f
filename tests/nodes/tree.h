/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/nodes/tree.h - a tree as text: each name with its type, inode, owner, times and bytes, in order.
 *
 * Left out is what differs between nodes: the device, and when something was read.
 */
#ifndef TESTS_NODES_TREE_H
#define TESTS_NODES_TREE_H

#include <stdbool.h>

/* To be freed. Ends the process if something cannot be read. */
char *mf_tree_text(const char *path);
/* Notes the first line that differs. */
bool mf_tree_equal(const char *text, const char *other, const char *what);

#endif
