/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tools/command-locks.c - file locks, and who waits for them. */
#include "locking/filelock.h"
#include "sync/inspect.h"
#include "tools/cluster.h"
#include "tools/command.h"
#include "tools/place.h"
#include "tools/table.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static json_int_t number(json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static const char *string(json_t *object, const char *key)
{
	const char *s = json_string_value(json_object_get(object, key));

	return s ? s : "?";
}

/* ---- naming the owners ---- */

/* Adds the node of each lock. Own ones need no cluster (NULL: there is none to ask); where it cannot be asked, the rest
 * stays without a name. */
static void name_owners(const struct mf_conf *conf, json_t *locks, json_t *daemon, struct mf_cluster *cluster)
{
	json_t *lock;
	size_t i;

	json_array_foreach(locks, i, lock)
	{
		json_int_t incarnation = number(lock, "incarnation");
		if (daemon && incarnation == number(daemon, "incarnation")) {
			json_object_set(lock, "node", json_object_get(daemon, "node"));
			continue;
		}
		const struct mf_member *member = NULL;
		if (cluster && mf_cluster_open(conf, "locks", cluster) == 0)
			member = mf_cluster_member(cluster, (uint32_t)incarnation);
		g_autofree char *name = member ? g_utf8_make_valid(member->node, -1) : NULL;
		json_object_set_new(lock, "node", name ? json_string(name) : json_null());
	}
}

/* ---- printing ---- */

static char *range_text(json_t *lock)
{
	json_t *end = json_object_get(lock, "end");
	json_int_t start = number(lock, "start");

	if (json_is_integer(end))
		return g_strdup_printf(
			"%" JSON_INTEGER_FORMAT "-%" JSON_INTEGER_FORMAT, start, json_integer_value(end));
	return start ? g_strdup_printf("%" JSON_INTEGER_FORMAT "-", start) : g_strdup("all");
}

static char *state_text(json_t *lock)
{
	json_int_t position = number(lock, "position");

	if (!position)
		return g_strdup("held");
	if (json_is_true(json_object_get(lock, "elsewhere")))
		return g_strdup("waits");
	return g_strdup_printf("waits %" JSON_INTEGER_FORMAT, position);
}

static void print_locks(json_t *locks)
{
	static const char *const titles[] = { "STATE", "TYPE", "ACCESS", "RANGE", "NODE", "PID", "INODE", "PATH",
		NULL };
	MfTable *table = mf_table_new(titles);
	json_t *lock;
	size_t i;

	json_array_foreach(locks, i, lock)
	{
		json_int_t pid = number(lock, "pid");
		mf_table_add(table, state_text(lock), g_strdup(string(lock, "type")), g_strdup(string(lock, "access")),
			range_text(lock), g_strdup(string(lock, "node")),
			pid > 0 ? g_strdup_printf("%" JSON_INTEGER_FORMAT, pid) : g_strdup("-"),
			g_strdup_printf("%" JSON_INTEGER_FORMAT, number(lock, "inode")),
			g_strdup(string(lock, "path")));
	}
	mf_table_print(table);
}

/* ---- of a path ---- */

static json_t *record_json(const struct mf_inspected_lock *lock, unsigned position)
{
	const struct mf_lock_record *r = &lock->record;

	return json_pack("{s:n, s:I, s:s, s:s, s:I, s:o, s:I, s:I, s:I, s:b}", "path", "inode", (json_int_t)lock->ino,
		"type", r->space == MF_FILELOCK_FLOCK ? "flock" : "fcntl", "access",
		r->type == MF_FILELOCK_WRITE ? "write" : "read", "start", (json_int_t)r->start, "end",
		r->end == INT64_MAX ? json_null() : json_integer(r->end), "incarnation", (json_int_t)r->incarnation,
		"pid", (json_int_t)r->pid, "position", (json_int_t)position, "elsewhere", 0);
}

static int add_records(MfPool *pool, uint64_t dir, json_t *locks)
{
	g_autoptr(GArray) list = NULL;
	unsigned waiting = 0;
	uint64_t ino = 0;
	int r = mf_inspect_locks(pool, dir, &list);

	for (unsigned i = 0; r == 0 && i < list->len; i++) {
		const struct mf_inspected_lock *lock = &g_array_index(list, struct mf_inspected_lock, i);
		if (lock->ino != ino)
			waiting = 0;
		ino = lock->ino;
		json_array_append_new(locks, record_json(lock, lock->record.waiting ? ++waiting : 0));
	}
	return r;
}

/* The record of a request knows its place, which the node that waits does not. */
static bool has_record(json_t *locks, json_t *own)
{
	json_t *lock;
	size_t i;

	json_array_foreach(locks, i, lock)
	{
		if (number(lock, "position") && number(lock, "inode") == number(own, "inode") &&
			number(lock, "incarnation") == number(own, "incarnation") &&
			number(lock, "pid") == number(own, "pid"))
			return true;
	}
	return false;
}

/* The one node that knows all about the file locks of the directory; 0: none. */
static int find_manager(MfPool *pool, uint64_t dir, uint32_t *ret_incarnation)
{
	struct mf_lease_record lease;
	int r = mf_inspect_lease(pool, dir, &lease);

	if (r < 0)
		return r;
	*ret_incarnation = lease.mode == MF_LEASE_EXCLUSIVE && lease.holders->len > 0
				   ? g_array_index(lease.holders, uint32_t, 0)
				   : 0;
	mf_lease_record_clear(&lease);
	return 0;
}

/* The answer of the daemon of @incarnation, if it runs here; the mounts of a machine need not be of one filesystem. */
static json_t *find_daemon(json_t *docs, const char *fs, uint32_t incarnation)
{
	json_t *doc;
	size_t i;

	json_array_foreach(docs, i, doc)
	{
		if (incarnation && number(doc, "incarnation") == incarnation && strcmp(string(doc, "fs"), fs) == 0)
			return doc;
	}
	return NULL;
}

static void add_own(json_t *doc, uint64_t dir, json_t *locks)
{
	json_t *lock;
	size_t i;

	json_array_foreach(json_object_get(doc, "locks"), i, lock)
	{
		if ((uint64_t)number(lock, "directory") == dir && !has_record(locks, lock))
			json_array_append(locks, lock);
	}
}

/* A lease that was handed to a node is its own before it knows: until it takes it up, what is noted in RADOS counts. */
static bool has_taken_up(const struct mf_conf *conf, uint32_t incarnation, uint64_t dir)
{
	json_t *docs = json_array(), *lease;
	bool found = false;
	size_t i;

	mf_place_ask_all(conf->run_dir, "locks", "leases", docs);
	json_array_foreach(json_object_get(find_daemon(docs, conf->fs, incarnation), "leases"), i, lease) found |=
		(uint64_t)number(lease, "inode") == dir && strcmp(string(lease, "mode"), "exclusive") == 0;
	json_decref(docs);
	return found;
}

/* The manager's memory, if it is here, has all; else what is noted in RADOS, and the requests of this machine. */
static int collect(const struct mf_conf *conf, MfPool *pool, const struct mf_inspected *found, json_t *docs,
	json_t *locks, uint32_t *ret_manager)
{
	int r = find_manager(pool, found->dir, ret_manager);
	json_t *manager = find_daemon(docs, conf->fs, *ret_manager), *doc;
	size_t i;

	if (manager && !has_taken_up(conf, *ret_manager, found->dir))
		manager = NULL;
	if (r < 0)
		return r;
	if (manager)
		add_own(manager, found->dir, locks);
	else
		r = add_records(pool, found->dir, locks);
	json_array_foreach(docs, i, doc)
	{
		if (doc != manager && strcmp(string(doc, "fs"), conf->fs) == 0)
			add_own(doc, found->dir, locks);
	}
	/* A path that is no directory means just this one. */
	for (i = json_array_size(locks); !found->is_dir && i > 0; i--) {
		if ((uint64_t)number(json_array_get(locks, i - 1), "inode") != found->ino)
			json_array_remove(locks, i - 1);
	}
	return r;
}

static void print_path(const char *path, json_t *doc)
{
	json_t *manager = json_object_get(doc, "manager");

	if (json_array_size(json_object_get(doc, "locks")))
		print_locks(json_object_get(doc, "locks"));
	else
		printf("no file locks on %s\n", path);
	if (!json_is_true(json_object_get(doc, "complete")))
		printf("they are managed by node %s: ask there for what it has not written\n", string(manager, "node"));
}

static int show_path(const struct mf_conf *conf, const char *path, bool as_json)
{
	g_auto(mf_cluster) cluster = { NULL };
	g_auto(mf_place) place = { NULL };
	json_t *docs = json_array(), *locks = json_array();
	struct mf_inspected found;
	uint32_t manager = 0;
	int r = mf_place_find(conf, "locks", path, &place);

	if (r == 0)
		r = mf_cluster_open(conf, "locks", &cluster);
	if (r == 0) {
		/* A daemon that does not answer has been told of. */
		mf_place_ask_all(conf->run_dir, "locks", "locks", docs);
		r = mf_inspect_path(cluster.pool, place.inside, &found);
		if (r == 0)
			r = collect(conf, cluster.pool, &found, docs, locks, &manager);
		if (r < 0)
			r = mf_command_fail("locks: %s: %s", path, g_strerror(-r));
	}
	if (r == 0) {
		name_owners(conf, locks, NULL, &cluster);
		g_autofree char *valid = g_utf8_make_valid(path, -1);
		json_t *doc = json_pack("{s:s, s:I, s:o, s:b, s:O}", "path", valid, "directory", (json_int_t)found.dir,
			"manager", manager ? mf_cluster_json(&cluster, manager) : json_null(), "complete",
			!manager || find_daemon(docs, conf->fs, manager), "locks", locks);
		if (as_json) {
			json_dumpf(doc, stdout, JSON_INDENT(2));
			putchar('\n');
		} else {
			print_path(path, doc);
		}
		json_decref(doc);
	}
	json_decref(docs);
	json_decref(locks);
	return r;
}

/* ---- of the daemons ---- */

static void print_daemon(json_t *doc)
{
	json_t *locks = json_object_get(doc, "locks");

	printf("%s (node %s, incarnation %" JSON_INTEGER_FORMAT ")\n", string(doc, "mountpoint"), string(doc, "node"),
		number(doc, "incarnation"));
	if (json_array_size(locks))
		print_locks(locks);
	else
		puts("no file locks");
}

static int show_daemons(const struct mf_conf *conf, bool as_json)
{
	g_auto(mf_cluster) cluster = { NULL };
	json_t *docs = json_array(), *doc;
	size_t i;
	int r = mf_place_ask_all(conf->run_dir, "locks", "locks", docs);

	json_array_foreach(docs, i, doc)
	{
		/* The settings are of one filesystem. */
		bool same = strcmp(string(doc, "fs"), conf->fs) == 0;
		name_owners(conf, json_object_get(doc, "locks"), doc, same ? &cluster : NULL);
	}
	mf_place_show_all(conf->run_dir, docs, as_json, r, print_daemon);
	json_decref(docs);
	return r;
}

int mf_command_locks(const struct mf_command *command, int argc, char **argv)
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
