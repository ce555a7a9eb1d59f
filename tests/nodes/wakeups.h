/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/nodes/wakeups.h - how soon and how often deliveries of node 0 wake processes on the other nodes that wait for
 * them.
 *
 * Makes Maildirs of its own in the directory of the test, and reports in ok lines.
 */
#ifndef TESTS_NODES_WAKEUPS_H
#define TESTS_NODES_WAKEUPS_H

void mf_wakeups_check(void);

#endif
