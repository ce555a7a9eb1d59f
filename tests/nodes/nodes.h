/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/nodes/nodes.h - what the tests of several nodes share: the same directory through each mount, workers on all.
 *
 * Model:   a program is called with [--seed N] [--short] and one directory for each node. All are the same directory of
 *          one filesystem (so it may be one local directory several times, on which every test must pass too). It works
 *          in a fresh subdirectory, made through the first. "node 1" is the filesystem as the second mount shows it.
 * Threads: the main thread of one process; workers are processes of their own, with memory to share on request.
 * Errors:  what a worker cannot do ends it with a line on stderr and a status that its parent counts.
 */
#ifndef TESTS_NODES_NODES_H
#define TESTS_NODES_NODES_H

#include <dirent.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "mount/tap.h"

enum { MF_NODES_MAX = 16 };

/* Takes the arguments, makes the subdirectory, is in it on node 0. Ends the process with 2 if a node does not show it.
 */
void mf_nodes_start(int argc, char **argv, const char *name);
int mf_nodes_count(void);
/* How long to go on where only time tells: @full, or a tenth of it with --short. */
double mf_nodes_seconds(double full);
/* A stream of numbers of its own for each @stream, the same for the same --seed. */
unsigned mf_nodes_random(unsigned *state, unsigned below);
unsigned mf_nodes_random_start(unsigned stream);

/* The subdirectory as that node shows it: a descriptor for the *at() calls. */
int mf_node_fd(int node);
/* A path in it; one of 16 static buffers. */
const char *mf_node_path(int node, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Works in it from now on. */
void mf_node_enter(int node);

/* Zeroed memory that workers share with us. */
void *mf_nodes_share(size_t size);
pthread_barrier_t *mf_nodes_barrier(unsigned count);
/* Runs @count workers, worker i in the subdirectory on node i % count of nodes; how many did not return 0. */
int mf_nodes_work(int count, int (*work)(int worker, void *arg), void *arg);
/* The same without waiting for them. */
void mf_nodes_work_start(int count, int (*work)(int worker, void *arg), void *arg, pid_t *ret_pids);
int mf_nodes_work_end(int count, const pid_t *pids);
/* Which node a worker is on. */
int mf_nodes_of(int worker);

/* Ends this worker with a line. */
void mf_nodes_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Small files in one call. 0 or -errno; reads end with 0. */
int mf_node_put(int node, const char *name, const char *text);
int mf_node_get(int node, const char *name, char *text, size_t size);
/* Whether a new pass over the directory shows the name. */
bool mf_node_lists(int node, const char *dir, const char *name);

#endif
