/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tools/cluster.h"

#include "sync/fs.h"
#include "tools/command.h"

#include <errno.h>

#define ASK_SECONDS 1

int mf_cluster_open(const struct mf_conf *conf, const char *command, struct mf_cluster *cluster)
{
	g_autofree char *error = NULL;

	if (cluster->failed || cluster->members.records)
		return cluster->failed ? MF_EXIT_FAILURE : 0;
	int r = mf_pool_open(conf, &cluster->pool, &error);
	if (r == 0)
		r = mf_fs_check(cluster->pool, conf, &error);
	if (r == 0) {
		r = mf_members_read(cluster->pool, &cluster->members);
		if (r < 0)
			error = g_strdup_printf("cannot read the list of nodes: %s", g_strerror(-r));
	}
	cluster->failed = r < 0;
	return r < 0 ? mf_command_fail("%s: %s", command, error ? error : g_strerror(-r)) : 0;
}

void mf_cluster_clear(struct mf_cluster *cluster)
{
	mf_members_clear(&cluster->members);
	cluster->pool = mf_pool_close(cluster->pool);
}

const struct mf_member *mf_cluster_member(const struct mf_cluster *cluster, uint32_t incarnation)
{
	GHashTable *records = cluster->members.records;

	return records ? g_hash_table_lookup(records, GUINT_TO_POINTER(incarnation)) : NULL;
}

const char *mf_cluster_state(const struct mf_member *member)
{
	static const char *const names[] = {
		[MF_MEMBER_LIVE] = "live",
		[MF_MEMBER_EVICTING] = "evicting",
		[MF_MEMBER_LOST] = "lost",
		[MF_MEMBER_CLEAN] = "clean",
	};

	return member && member->state < G_N_ELEMENTS(names) && names[member->state] ? names[member->state] : "unknown";
}

char *mf_cluster_name(const struct mf_cluster *cluster, uint32_t incarnation)
{
	const struct mf_member *member = mf_cluster_member(cluster, incarnation);

	return member ? g_strdup(member->node) : g_strdup_printf("incarnation %u", incarnation);
}

json_t *mf_cluster_json(const struct mf_cluster *cluster, uint32_t incarnation)
{
	const struct mf_member *member = mf_cluster_member(cluster, incarnation);
	g_autofree char *name = member ? g_utf8_make_valid(member->node, -1) : NULL;

	return json_pack("{s:I, s:s?, s:s}", "incarnation", (json_int_t)incarnation, "node", name, "state",
		mf_cluster_state(member));
}

int mf_cluster_ask(const struct mf_cluster *cluster, uint32_t incarnation, struct mf_cluster_answer *ret)
{
	g_autofree char *oid = mf_oid_node(incarnation);
	g_autoptr(GBytes) bytes = NULL;
	unsigned alive = 0, silent = 0;
	int64_t begin = g_get_monotonic_time();
	int r = mf_pool_ask(cluster->pool, oid, ASK_SECONDS, &bytes, &alive, &silent);

	if (r < 0 && r != -ENOENT)
		return r;
	*ret = (struct mf_cluster_answer){
		.what = alive > 0    ? MF_ANSWER_YES
			: silent > 0 ? MF_ANSWER_SILENT
				     : MF_ANSWER_GONE,
		.us = g_get_monotonic_time() - begin,
	};
	if (bytes)
		ret->reported =
			mf_nodereport_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &ret->report) == 0;
	return 0;
}
