/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* locking/node.h - this mount as a member of its filesystem: incarnation, session, fencing.
 *
 * Model:   each mount is a new incarnation, a number never used again. Its session is a watch on node.<incarnation>;
 *          its record in `members' is the one cell that decides whether it is still right: (live, g), compared and set.
 *          Each node pings the one after it in a ring of all; a dead one is declared lost, blocklisted, and its
 *          leases may be taken (doc/LOCKING.md).
 *          Join order: watch, members, leases.
 * Owns:    the caller of mf_node_join() owns the node until mf_node_leave().
 * Threads: any, but join, rejoin and leave. May block for op_timeout; call with no lock held.
 * Errors:  -ESHUTDOWN: this incarnation is over; write nothing more, serve nothing from memory.
 */
#pragma once

#include "store/pool.h"
#include "store/record.h"

typedef struct MfNode MfNode;

/* Refuses with -EBUSY while a node of the same name lives; ends the record of a dead one first, for which it waits no
 * longer than its watch timeout (not at all for a dead process of this very machine). *ret_error is one line. */
int mf_node_join(
	MfPool *pool, const struct mf_conf *conf, const char *mountpoint, MfNode **ret_node, char **ret_error);

/* A fenced node comes back as a new incarnation, with a new client of the cluster. Nothing of the old life may be under
 * way. */
int mf_node_rejoin(MfNode *node, char **ret_error);

/* @clean: everything is committed; whoever comes next takes our leases without asking. Frees. */
void mf_node_leave(MfNode *node, bool clean);

uint32_t mf_node_incarnation(const MfNode *node);
int64_t mf_node_since(const MfNode *node); /* ns since 1970 */

/* What other nodes send. Called on a thread of the pool, one message at a time: must not block. The same message may
 * come twice. NULL: nobody listens, and when this returns nobody runs any more. */
typedef void (*mf_node_listener)(const void *data, size_t len, void *arg);
void mf_node_listen(MfNode *node, mf_node_listener listener, void *arg);
/* To the inbox of @incarnation; see mf_pool_send(). */
void mf_node_send(MfNode *node, uint32_t incarnation, const void *data, size_t len, mf_send_done done, void *arg);

/* What whoever asks this node is told; the caller's to unref, NULL: nothing. Called about once a second on a thread of the
 * node, with no lock held. NULL: nobody reports, and when this returns nobody runs any more. */
typedef GBytes *(*mf_node_reporter)(void *arg);
void mf_node_report(MfNode *node, mf_node_reporter reporter, void *arg);

/* May we serve from memory and write? 0; -ESHUTDOWN; -ETIMEDOUT: the cluster cannot be asked, keep what you have. */
int mf_node_check(MfNode *node);

/* Latches the end of this incarnation: a guard failed, so somebody else has taken over. */
void mf_node_fence(MfNode *node);
bool mf_node_is_fenced(const MfNode *node);

/* For people. Does not block. */
enum mf_node_condition {
	MF_NODE_SERVING,
	MF_NODE_WAITING, /* the cluster has not answered for too long: nothing is served from memory */
	MF_NODE_FENCED,
	MF_NODE_REJOINING,
};
enum mf_node_condition mf_node_condition(MfNode *node);

/* The last confirmed ping is too old to answer from memory: mf_node_check() first. */
bool mf_node_is_due(const MfNode *node);

/* What a lease of @incarnation is worth now, as far as we know. Does not block. */
enum mf_holder {
	MF_HOLDER_SELF,
	MF_HOLDER_CLEAN, /* left in order: take its lease */
	MF_HOLDER_LOST,	 /* died, and can write no more: take it over and stamp before reading */
	MF_HOLDER_LIVE,	 /* or not known to be dead: ask it, then mf_node_bury() */
};
enum mf_holder mf_node_holder(MfNode *node, uint32_t incarnation);

/* Incarnations that live, as far as we know, ourselves included: uint32_t, for g_array_unref(). Does not block. */
GArray *mf_node_live(MfNode *node);
/* How many are known to be lost: others than before, when the number has changed. Does not block. */
unsigned mf_node_n_lost(MfNode *node);

/* Makes sure that @incarnation, which does not answer, is dead: 0, from now on mf_node_holder() says clean or lost. -EAGAIN:
 * it lives, or may. @evict: then it is made to end. Blocks for its watch timeout and a bit. */
int mf_node_bury(MfNode *node, uint32_t incarnation, bool evict);

/* Publishes the window of our inode counters that may belong to unnamed objects. */
int mf_node_set_window(MfNode *node, const struct mf_window *window);

/* Lost incarnations whose windows are ours to sweep; each is named once. uint32_t, for g_array_unref(). After a notice that
 * members have changed there may be more. */
GArray *mf_node_unswept(MfNode *node);
int mf_node_read_window(MfNode *node, uint32_t incarnation, struct mf_window *ret_window);
/* A reference to a message's bytes that is about to be taken for a name in @dir: noted first, and forgotten once the
 * name is committed, so that a crash in between leaks none. */
struct mf_reference {
	uint64_t tag, dir, ino;
};
int mf_node_note_reference(MfNode *node, const struct mf_reference *reference);
int mf_node_forget_reference(MfNode *node, const struct mf_reference *reference);
/* Those that @incarnation left: struct mf_reference, for g_array_unref(). */
int mf_node_read_references(MfNode *node, uint32_t incarnation, GArray **ret_references);
/* Nothing unnamed of it is left. */
int mf_node_swept(MfNode *node, uint32_t incarnation);
