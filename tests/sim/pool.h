/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/sim/pool.h - the cluster behind the simulated pool: what the driver does to it and what it tells the checks.
 *
 * Model:   pool.c implements all of store/pool.h on one store in memory. An operation travels to the OSD and back, each
 *          way with a delay; it is applied at once and as a whole when it arrives. Operations of one client on one
 *          object keep their order. Each mf_pool_open() and mf_pool_reconnect() is one client, of the life that called it.
 * Threads: fibres.
 */
#pragma once

#include "store/pool.h"

/* Chances per 10,000 operations. */
struct cluster_faults {
	unsigned slow;	     /* takes up to a few hundred ms */
	unsigned lost;	     /* done, but the answer never comes */
	unsigned dropped;    /* never arrives */
	unsigned late;	     /* arrives after the client gave up */
	unsigned resent;     /* the answer comes after a resend only */
	unsigned forgotten;  /* of those resent: the OSD does it again */
	unsigned twice;	     /* of notifies: delivered twice */
	unsigned unheard;    /* of notices: never delivered */
	bool weak_blocklist; /* the blocklist lets writes through that were sent before: the epochs must hold */
};
extern struct cluster_faults cluster_faults;

/* The break of the product's protocol that was asked for: see sabotage.c. */
extern bool cluster_sabotage_ping;

/* All that life @life sends or is sent waits, until @until. */
void cluster_partition(int life, int64_t until);
/* When a partition has ended: what was not answered is sent again. */
void cluster_heal(int life);
/* The life is dead: what it has sent arrives or not. */
void cluster_crash(int life);

/* From now on no more faults. */
void cluster_calm(void);

/* Called after each operation that was applied. */
struct cluster_change {
	int life;
	uint32_t incarnation; /* 0: of none that is known */
	enum mf_pool_which which;
	const char *oid;
	bool existed, exists;
	GHashTable *xattrs_before; /* char * -> GBytes; NULL: there was no object */
	GHashTable *xattrs;
	GPtrArray *keys; /* omap keys set or removed; NULL ok */
};
typedef void (*cluster_observer)(const struct cluster_change *change);
void cluster_observe(cluster_observer observer);

/* What is stored now. */
GBytes *cluster_xattr(enum mf_pool_which which, const char *oid, const char *name);
GBytes *cluster_omap(enum mf_pool_which which, const char *oid, const char *key);
void cluster_foreach(void (*func)(enum mf_pool_which which, const char *oid, void *arg), void *arg);
/* The reign of a client by its address, as in `members'; -1: unknown, or not that incarnation (any more, or yet). */
int cluster_reign_of(const char *addrs, uint32_t incarnation);
uint64_t cluster_operations(void);
void cluster_set_incarnation(MfPool *pool, uint32_t incarnation);
