/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store/pool.h - the seam to RADOS: compound operations on one object, watches, the few commands to the monitors.
 *
 * Model:   a connection with two pools, one namespace. An operation is described first (MfWop, MfRop) and then executed;
 *          the description may be executed again, a new librados operation is built each time (operating one librados
 *          operation twice returns 0 and does nothing). No file but pool.c includes librados.h.
 * Owns:    descriptions copy or reference what they are given; results live in the MfRop.
 * Threads: any thread may call. Nothing here takes a lock of mailfs. Synchronous calls block for at most op_timeout;
 *          callbacks come on a thread of librados and must not block.
 * Errors:  0 or -errno as the OSD answers. -ECANCELED: a guard (cmpxattr) failed. -ENOENT: no such object; also a guard
 *          on a missing object. -ENOSPC: pool full or at its quota. -ETIMEDOUT: result unknown. -ESHUTDOWN: this client
 *          is blocklisted.
 */
#pragma once

#include "store/conf.h"

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct MfPool MfPool;
typedef struct MfWop MfWop;
typedef struct MfRop MfRop;

enum mf_pool_which {
	MF_POOL_META,
	MF_POOL_DATA,
};

enum mf_cmp {
	MF_CMP_EQ,
	MF_CMP_GTE, /* passes when the given value >= the stored one, or none is stored */
};

/* Connects within 10 s; @conf must outlive it. On failure *ret_error is one line for the administrator. */
int mf_pool_open(const struct mf_conf *conf, MfPool **ret_pool, char **ret_error);
/* A new client of the cluster in the place of one that was blocklisted. What is under way on the old one fails by itself; the
 * one before that is waited for and goes. */
int mf_pool_reconnect(MfPool *pool, char **ret_error);
MfPool *mf_pool_close(MfPool *pool); /* NULL ok; returns NULL. All operations must have ended. */

/* ---- writing ---- */

MfWop *mf_wop_new(void);
MfWop *mf_wop_ref(MfWop *wop);
void mf_wop_unref(MfWop *wop); /* NULL ok */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MfWop, mf_wop_unref)

void mf_wop_create(MfWop *wop); /* exclusive: -EEXIST when the object is there */
void mf_wop_assert_exists(MfWop *wop);
void mf_wop_cmpxattr(MfWop *wop, const char *name, enum mf_cmp cmp, const void *value, size_t len);
void mf_wop_setxattr(MfWop *wop, const char *name, const void *value, size_t len);
void mf_wop_rmxattr(MfWop *wop, const char *name);
void mf_wop_write_full(MfWop *wop, GBytes *data);
void mf_wop_write(MfWop *wop, uint64_t offset, GBytes *data);
void mf_wop_truncate(MfWop *wop, uint64_t size);
void mf_wop_remove(MfWop *wop);
void mf_wop_omap_set(MfWop *wop, const char *key, const void *value, size_t len); /* all sets are one step */
void mf_wop_omap_rm(MfWop *wop, const char *key);				   /* all removals are one step */
void mf_wop_exec(MfWop *wop, const char *class_name, const char *method, const void *in, size_t len);
/* May exceed a full pool: for what frees space. Everything else answers -ENOSPC there. */
void mf_wop_full_force(MfWop *wop);

int mf_pool_write(MfPool *pool, enum mf_pool_which which, const char *oid, MfWop *wop);

typedef void (*mf_pool_done)(int result, void *arg);
/* @done is called exactly once, also for what fails at once. Takes its own reference on @wop. */
void mf_pool_write_async(
	MfPool *pool, enum mf_pool_which which, const char *oid, MfWop *wop, mf_pool_done done, void *arg);

/* ---- reading ---- */

#define MF_ROP_RANGES 8u

struct mf_kv {
	char *key;
	GBytes *value;
};

MfRop *mf_rop_new(void);
void mf_rop_free(MfRop *rop); /* NULL ok */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MfRop, mf_rop_free)

void mf_rop_xattrs(MfRop *rop);
/* At most @max pairs behind @after whose key starts with @prefix; at most MF_ROP_RANGES of these. */
void mf_rop_omap_range(MfRop *rop, const char *after, const char *prefix, unsigned max);
void mf_rop_omap_key(MfRop *rop, const char *key); /* may be repeated */
void mf_rop_read(MfRop *rop, uint64_t offset, size_t len);
void mf_rop_exec(MfRop *rop, const char *class_name, const char *method, const void *in, size_t len);

int mf_pool_read(MfPool *pool, enum mf_pool_which which, const char *oid, MfRop *rop);

/* Results, valid after mf_pool_read() returned 0 and until the next one or mf_rop_free(). */
GBytes *mf_rop_get_xattr(MfRop *rop, const char *name);		   /* borrowed, NULL when absent */
GHashTable *mf_rop_get_xattrs(MfRop *rop);			   /* borrowed: char * -> GBytes * */
GArray *mf_rop_get_range(MfRop *rop, unsigned range, bool *ret_more); /* borrowed: struct mf_kv */
GBytes *mf_rop_get_key(MfRop *rop, const char *key);		   /* borrowed, NULL when absent */
GBytes *mf_rop_get_data(MfRop *rop);				   /* borrowed */
GBytes *mf_rop_get_exec(MfRop *rop);				   /* borrowed */

/* ---- liveness ---- */

typedef struct MfWatch MfWatch;
/* What mf_pool_send() sent to the watched object. May come twice. */
typedef void (*mf_watch_func)(const void *data, size_t len, void *arg);
/* What goes back to whoever sent an empty notify; NULL: nothing but the acknowledgement. The caller's to unref. */
typedef GBytes *(*mf_watch_answer)(void *arg);
/* Acknowledges every notify by itself; one that carries data then goes to @func. Blocks. @timeout_s: the OSD drops the
 * watch when it hears nothing so long. @answer: NULL ok. */
int mf_watch_new(MfPool *pool, const char *oid, unsigned timeout_s, mf_watch_func func, mf_watch_answer answer, void *arg,
	MfWatch **ret_watch);
MfWatch *mf_watch_free(MfWatch *watch); /* unwatches; NULL ok; returns NULL */
/* Milliseconds since the OSD last confirmed the watch, or -errno (-ENOTCONN: it is gone). */
int mf_watch_check(MfWatch *watch);

/* @result: 0, or -errno when nothing is known. @alive: watchers that have it; @silent: that were there but did not answer
 * within the timeout. Neither: nobody watches. */
typedef void (*mf_send_done)(int result, unsigned alive, unsigned silent, void *arg);
/* Sends @data to whoever watches @oid. @done is called exactly once. */
void mf_pool_send(
	MfPool *pool, const char *oid, unsigned timeout_s, const void *data, size_t len, mf_send_done done, void *arg);
/* The same, empty and waiting. Who watches @oid: counts of watchers that answered, and that were there but did not within @timeout_s. */
int mf_pool_ping(MfPool *pool, const char *oid, unsigned timeout_s, unsigned *ret_alive, unsigned *ret_silent);
/* The same, and what the first that had something to say said: *ret_answer is the caller's, NULL if nobody had. */
int mf_pool_ask(MfPool *pool, const char *oid, unsigned timeout_s, GBytes **ret_answer, unsigned *ret_alive,
	unsigned *ret_silent);

/* ---- the rest ---- */

int mf_pool_blocklist(MfPool *pool, const char *addrs, unsigned seconds);
const char *mf_pool_addrs(MfPool *pool); /* of this client, as mf_pool_blocklist() takes them */

struct mf_pool_space {
	uint64_t total;
	uint64_t free;
	uint64_t objects;
};
/* Of the data pool: what it holds and may still take, its quota included. Asks the monitors. */
int mf_pool_space(MfPool *pool, struct mf_pool_space *ret_space);

struct mf_pool_counts {
	uint64_t reads, writes, notifies;
	uint64_t upkeep; /* what goes on whether anybody works or not: looks at `members', pings. In none of the others */
	uint64_t bytes_read, bytes_written;
};
void mf_pool_counts(MfPool *pool, struct mf_pool_counts *ret_counts);
