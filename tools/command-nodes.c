/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tools/command-nodes.c - who is a member of the filesystem, and who of them answers. */
#include "tools/cluster.h"
#include "tools/command.h"
#include "tools/table.h"

#include <stdbool.h>
#include <stdio.h>

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static bool is_over(const struct mf_member *member)
{
	return member->state == MF_MEMBER_LOST || member->state == MF_MEMBER_CLEAN;
}

static GArray *choose(const struct mf_cluster *cluster, bool all)
{
	GArray *list = g_array_new(false, false, sizeof(uint32_t));
	GHashTableIter iter;
	gpointer key, value;

	g_hash_table_iter_init(&iter, cluster->members.records);
	while (g_hash_table_iter_next(&iter, &key, &value)) {
		uint32_t incarnation = GPOINTER_TO_UINT(key);
		if (all || !is_over(value))
			g_array_append_val(list, incarnation);
	}
	g_array_sort(list, compare);
	return list;
}

static json_t *report_json(const struct mf_nodereport *report)
{
	return json_pack("{s:I, s:{s:I, s:I, s:I, s:I}, s:{s:I, s:I}, s:I}", "taken",
		(json_int_t)(report->taken / 1000000000), "leases", "shared", (json_int_t)report->shared, "exclusive",
		(json_int_t)report->exclusive, "waiters", (json_int_t)report->waiters, "recalls",
		(json_int_t)report->recalls, "locks", "held", (json_int_t)report->locks, "waiting",
		(json_int_t)report->lock_waits, "dirty", (json_int_t)report->dirty);
}

static json_t *node_json(uint32_t incarnation, const struct mf_member *member)
{
	g_autofree char *node = g_utf8_make_valid(member->node, -1);
	g_autofree char *mountpoint = g_utf8_make_valid(member->mountpoint, -1);

	return json_pack("{s:s, s:I, s:s, s:s, s:s, s:I, s:I, s:n, s:n, s:n}", "node", node, "incarnation",
		(json_int_t)incarnation, "state", mf_cluster_state(member), "address", member->addrs, "mountpoint",
		mountpoint, "since", (json_int_t)(member->since / 1000000000), "watch_timeout",
		(json_int_t)member->watch_timeout_s, "answers", "answered_us", "report");
}

/* Asks those that may live. An exit status. */
static int ask(const struct mf_cluster *cluster, uint32_t incarnation, json_t *doc)
{
	static const char *const words[] = {
		[MF_ANSWER_YES] = "yes",
		[MF_ANSWER_SILENT] = "silent",
		[MF_ANSWER_GONE] = "gone",
	};
	struct mf_cluster_answer answer;
	int r = mf_cluster_ask(cluster, incarnation, &answer);

	if (r < 0)
		return mf_command_fail("nodes: cannot ask incarnation %u: %s", incarnation, g_strerror(-r));
	json_object_set_new(doc, "answers", json_string(words[answer.what]));
	if (answer.what == MF_ANSWER_YES)
		json_object_set_new(doc, "answered_us", json_integer(answer.us));
	if (answer.reported)
		json_object_set_new(doc, "report", report_json(&answer.report));
	return 0;
}

static char *answer_text(json_t *doc)
{
	const char *answers = json_string_value(json_object_get(doc, "answers"));
	json_int_t us = json_integer_value(json_object_get(doc, "answered_us"));

	if (us)
		return g_strdup_printf("%.1f ms", (double)us / 1000);
	return g_strdup(answers ? answers : "-");
}

/* "2+1": of @first and of @second in @group; "-" where there is no report. */
static char *pair_text(json_t *doc, const char *group, const char *first, const char *second)
{
	json_t *counts = json_object_get(json_object_get(doc, "report"), group);

	return counts ? g_strdup_printf("%" JSON_INTEGER_FORMAT "+%" JSON_INTEGER_FORMAT,
				json_integer_value(json_object_get(counts, first)),
				json_integer_value(json_object_get(counts, second)))
		      : g_strdup("-");
}

static char *text(json_t *doc, const char *key)
{
	return g_strdup(json_string_value(json_object_get(doc, key)));
}

static void print(json_t *docs)
{
	static const char *const titles[] = { "NODE", "INCARNATION", "STATE", "AGE", "ANSWERS", "SHARED+EXCL",
		"LOCKS+WAIT", "MOUNTPOINT", "ADDRESS", NULL };
	MfTable *table = mf_table_new(titles);
	json_t *doc;
	size_t i;

	json_array_foreach(docs, i, doc)
	{
		json_int_t incarnation = json_integer_value(json_object_get(doc, "incarnation"));
		mf_table_add(table, text(doc, "node"), g_strdup_printf("%" JSON_INTEGER_FORMAT, incarnation),
			text(doc, "state"), mf_table_age(json_integer_value(json_object_get(doc, "since"))),
			answer_text(doc), pair_text(doc, "leases", "shared", "exclusive"),
			pair_text(doc, "locks", "held", "waiting"), text(doc, "mountpoint"), text(doc, "address"));
	}
	if (json_array_size(docs))
		mf_table_print(table);
	else {
		mf_table_free(table);
		puts("no node serves this filesystem");
	}
}

int mf_command_nodes(const struct mf_command *command, int argc, char **argv)
{
	gboolean all = FALSE, as_json = FALSE;
	const GOptionEntry entries[] = {
		{ "all", 'a', 0, G_OPTION_ARG_NONE, &all, "also those that are over: lost and clean ones", NULL },
		{ "json", 0, 0, G_OPTION_ARG_NONE, &as_json, "print an array of JSON documents", NULL },
		{ NULL },
	};
	g_autoptr(mf_conf) conf = NULL;
	g_auto(mf_cluster) cluster = { NULL };
	int r = mf_command_parse(command, argc, argv, entries, &conf, NULL);

	if (r)
		return r == MF_EXIT_DONE ? 0 : r;
	r = mf_cluster_open(conf, "nodes", &cluster);
	if (r)
		return r;

	g_autoptr(GArray) list = choose(&cluster, all);
	json_t *docs = json_array();
	for (unsigned i = 0; i < list->len; i++) {
		uint32_t incarnation = g_array_index(list, uint32_t, i);
		const struct mf_member *member = mf_cluster_member(&cluster, incarnation);
		json_t *doc = node_json(incarnation, member);

		if (!is_over(member) && ask(&cluster, incarnation, doc))
			r = MF_EXIT_FAILURE;
		json_array_append_new(docs, doc);
	}
	if (as_json) {
		json_dumpf(docs, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		print(docs);
	}
	json_decref(docs);
	return r;
}
