/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tools/command-leases.c - who holds a directory; what the mounts of this machine hold. */
#include "sync/inspect.h"
#include "tools/cluster.h"
#include "tools/command.h"
#include "tools/ctlclient.h"
#include "tools/place.h"
#include "tools/table.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>

#define ASK_TIMEOUT_MS 5000

static json_int_t number(json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

/* ---- of a path ---- */

/* What the daemon here knows of the directory; NULL: nothing. */
static json_t *ask_daemon(const struct mf_place *place, uint64_t ino)
{
	json_t *doc = NULL, *item, *found = NULL;
	size_t i;

	if (!place->socket || mf_ctlclient_ask(place->socket, "leases", ASK_TIMEOUT_MS, &doc) < 0)
		return NULL;
	json_array_foreach(json_object_get(doc, "leases"), i, item)
	{
		if ((uint64_t)number(item, "inode") == ino)
			found = json_incref(item);
	}
	json_decref(doc);
	return found;
}

static json_t *nodes_json(const struct mf_cluster *cluster, const GArray *incarnations)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < incarnations->len; i++)
		json_array_append_new(array, mf_cluster_json(cluster, g_array_index(incarnations, uint32_t, i)));
	return array;
}

static const char *mode_name(uint8_t mode)
{
	return mode == MF_LEASE_EXCLUSIVE ? "exclusive" : mode == MF_LEASE_SHARED ? "shared" : "none";
}

static json_t *path_json(const char *path, const struct mf_cluster *cluster, const struct mf_inspected *found,
	const struct mf_lease_record *lease, json_t *here)
{
	g_autofree char *valid = g_utf8_make_valid(path, -1);

	return json_pack("{s:s, s:I, s:I, s:s, s:I, s:o, s:o, s:o}", "path", valid, "inode", (json_int_t)found->ino,
		"directory", (json_int_t)found->dir, "mode", mode_name(lease->mode), "epoch", (json_int_t)lease->epoch,
		"holders", nodes_json(cluster, lease->holders), "waiters", nodes_json(cluster, lease->waiters), "here",
		here ? here : json_null());
}

static void print_nodes(const char *label, json_t *nodes)
{
	json_t *node;
	size_t i;

	json_array_foreach(nodes, i, node)
	{
		const char *name = json_string_value(json_object_get(node, "node"));
		printf("  %-10s %s (incarnation %" JSON_INTEGER_FORMAT ", %s)\n", i ? "" : label, name ? name : "?",
			number(node, "incarnation"), json_string_value(json_object_get(node, "state")));
	}
	if (!json_array_size(nodes))
		printf("  %-10s nobody\n", label);
}

static void print_path(const char *path, json_t *doc)
{
	json_t *here = json_object_get(doc, "here");

	printf("%s\n", path);
	printf("  %-10s d.%016" PRIx64 ", inode %" JSON_INTEGER_FORMAT "\n", "directory",
		(uint64_t)number(doc, "directory"), number(doc, "directory"));
	printf("  %-10s %s, epoch %" PRIx64 "\n", "lease", json_string_value(json_object_get(doc, "mode")),
		(uint64_t)number(doc, "epoch"));
	print_nodes("held by", json_object_get(doc, "holders"));
	print_nodes("waiting", json_object_get(doc, "waiters"));
	if (json_is_object(here)) {
		g_autofree char *age = mf_table_age(number(here, "since"));
		printf("  %-10s for %s; %" JSON_INTEGER_FORMAT " operations inside, %zu nodes wait\n", "here", age,
			number(here, "users"), json_array_size(json_object_get(here, "waiters")));
	}
}

static int show_path(const struct mf_conf *conf, const char *path, bool as_json)
{
	g_auto(mf_cluster) cluster = { NULL };
	g_auto(mf_place) place = { NULL };
	struct mf_inspected found;
	struct mf_lease_record lease;
	int r = mf_place_find(conf, "leases", path, &place);

	if (r == 0)
		r = mf_cluster_open(conf, "leases", &cluster);
	if (r)
		return r;
	r = mf_inspect_path(cluster.pool, place.inside, &found);
	if (r == 0)
		r = mf_inspect_lease(cluster.pool, found.dir, &lease);
	if (r < 0)
		return mf_command_fail("leases: %s: %s", path, g_strerror(-r));
	json_t *doc = path_json(path, &cluster, &found, &lease, ask_daemon(&place, found.dir));
	mf_lease_record_clear(&lease);
	if (as_json) {
		json_dumpf(doc, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		print_path(path, doc);
	}
	json_decref(doc);
	return 0;
}

/* ---- of the daemons ---- */

static char *text(json_t *object, const char *key)
{
	const char *s = json_string_value(json_object_get(object, key));

	return g_strdup(s ? s : "?");
}

static char *number_text(json_int_t n)
{
	return g_strdup_printf("%" JSON_INTEGER_FORMAT, n);
}

static void print_daemon(json_t *doc)
{
	static const char *const titles[] = { "MODE", "AGE", "INSIDE", "WAITING", "INODE", "PATH", NULL };
	MfTable *table = mf_table_new(titles);
	g_autofree char *mountpoint = text(doc, "mountpoint");
	g_autofree char *node = text(doc, "node");
	json_t *item;
	size_t i;

	printf("%s (node %s, incarnation %" JSON_INTEGER_FORMAT ")\n", mountpoint, node, number(doc, "incarnation"));
	json_array_foreach(json_object_get(doc, "leases"), i, item) mf_table_add(table, text(item, "mode"),
		mf_table_age(number(item, "since")), number_text(number(item, "users")),
		number_text((json_int_t)json_array_size(json_object_get(item, "waiters"))),
		number_text(number(item, "inode")), text(item, "path"));
	mf_table_print(table);
}

static int show_daemons(const struct mf_conf *conf, bool as_json)
{
	json_t *docs = json_array();
	int r = mf_place_ask_all(conf->run_dir, "leases", "leases", docs);

	mf_place_show_all(conf->run_dir, docs, as_json, r, print_daemon);
	json_decref(docs);
	return r;
}

int mf_command_leases(const struct mf_command *command, int argc, char **argv)
{
	gboolean as_json = FALSE;
	const GOptionEntry entries[] = {
		{ "json", 0, 0, G_OPTION_ARG_NONE, &as_json, "print JSON", NULL },
		{ NULL },
	};
	g_autoptr(mf_conf) conf = NULL;
	g_autofree char *path = NULL;
	int r = mf_command_parse(command, argc, argv, entries, &conf, &path);

	if (r)
		return r == MF_EXIT_DONE ? 0 : r;
	return path ? show_path(conf, path, as_json) : show_daemons(conf, as_json);
}
