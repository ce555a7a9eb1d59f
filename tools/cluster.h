/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tools/cluster.h - the filesystem seen from outside: a client of its own, and what `members' says.
 *
 * Model:   no membership, no lease; reads, and asks nodes.
 * Owns:    mf_cluster_clear() gives all back.
 * Threads: none.
 * Errors:  an exit status; what is wrong has been printed.
 */
#ifndef MF_TOOLS_CLUSTER_H
#define MF_TOOLS_CLUSTER_H

#include "locking/members.h"
#include "store/nodereport.h"

#include <jansson.h>
#include <stdbool.h>

typedef struct mf_cluster {
	MfPool *pool;
	struct mf_members members;
	bool failed;
} mf_cluster;

/* Connects, once; @command: whose failure it is. That is told once. */
int mf_cluster_open(const struct mf_conf *conf, const char *command, struct mf_cluster *cluster);
void mf_cluster_clear(struct mf_cluster *cluster);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(mf_cluster, mf_cluster_clear)

/* NULL: not known. Borrowed. */
const struct mf_member *mf_cluster_member(const struct mf_cluster *cluster, uint32_t incarnation);
const char *mf_cluster_state(const struct mf_member *member);
/* "NODE", or "incarnation N" where there is no record. The caller's. */
char *mf_cluster_name(const struct mf_cluster *cluster, uint32_t incarnation);
/* {"incarnation", "node", "state"}: a new reference. */
json_t *mf_cluster_json(const struct mf_cluster *cluster, uint32_t incarnation);

/* Does the node answer now? At most a second or so. */
struct mf_cluster_answer {
	enum {
		MF_ANSWER_YES,
		MF_ANSWER_SILENT, /* the OSD still knows it, but it does not answer */
		MF_ANSWER_GONE,	  /* nobody is there */
	} what;
	int64_t us; /* that it took */
	bool reported;
	struct mf_nodereport report;
};
/* 0 or -errno. */
int mf_cluster_ask(const struct mf_cluster *cluster, uint32_t incarnation, struct mf_cluster_answer *ret);

#endif
