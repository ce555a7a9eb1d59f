/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tools/command-evict.c - ends a node that does not end by itself. */
#include "locking/evict.h"
#include "tools/cluster.h"
#include "tools/command.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define TRIES 20
/* The node before it in the ring of nodes ends it as well, and then sweeps what it left; so it goes first. */
#define GRACE_S 4

struct eviction {
	struct mf_cluster *cluster;
	uint32_t incarnation;
	bool as_json;
	bool force;
	int64_t begin;
};

static void say(const struct eviction *e, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void say(const struct eviction *e, const char *format, ...)
{
	va_list args;

	if (e->as_json)
		return;
	va_start(args, format);
	vprintf(format, args);
	putchar('\n');
	fflush(stdout);
	va_end(args);
}

static bool is_over(const struct mf_member *member)
{
	return !member || member->state == MF_MEMBER_LOST || member->state == MF_MEMBER_CLEAN;
}

/* By name, or else by number. 0: there is no such live one. */
static uint32_t find(const struct mf_cluster *cluster, const char *argument)
{
	GHashTableIter iter;
	gpointer key, value;
	guint64 number = 0;

	g_hash_table_iter_init(&iter, cluster->members.records);
	while (g_hash_table_iter_next(&iter, &key, &value)) {
		if (!is_over(value) && strcmp(((const struct mf_member *)value)->node, argument) == 0)
			return GPOINTER_TO_UINT(key);
	}
	if (!g_ascii_string_to_unsigned(argument, 10, 1, UINT32_MAX, &number, NULL))
		return 0;
	return is_over(mf_cluster_member(cluster, (uint32_t)number)) ? 0 : (uint32_t)number;
}

/* Waits until somebody else has declared it lost, or until it is surely safe that we do. */
static int wait_for_end(const struct eviction *e, const struct mf_member *member)
{
	int64_t until = g_get_monotonic_time() + (member->watch_timeout_s + GRACE_S) * G_USEC_PER_SEC;

	for (;;) {
		struct mf_members members;
		int r = mf_members_read(e->cluster->pool, &members);

		if (r < 0)
			return r;
		bool over = is_over(g_hash_table_lookup(members.records, GUINT_TO_POINTER(e->incarnation)));
		mf_members_clear(&members);
		if (over || g_get_monotonic_time() >= until)
			return 0;
		g_usleep(G_USEC_PER_SEC / 4);
	}
}

static int evict(struct eviction *e, const struct mf_member *member, struct mf_ending *ending)
{
	int r = 1;

	*ending = (struct mf_ending){ .incarnation = e->incarnation };
	if (member->state == MF_MEMBER_EVICTING)
		say(e, "it is evicting already: waiting up to %u s", member->watch_timeout_s);
	for (int i = 0; r == 1 && i < TRIES; i++) {
		r = mf_evict_step(e->cluster->pool, ending, true);
		if (r != 1 || !ending->evicting)
			continue;
		say(e, "blocklisted %s", member->addrs);
		say(e, "waiting until its own clock cannot trust it any more: %u s", member->watch_timeout_s);
		r = wait_for_end(e, member);
		if (r < 0)
			return r;
		ending->waited = true;
		r = 1;
	}
	return r == 1 ? -ETIMEDOUT : r;
}

/* Does anybody need it? An exit status. */
static int check(const struct eviction *e, const struct mf_member *member)
{
	struct mf_cluster_answer answer;
	int r = mf_cluster_ask(e->cluster, e->incarnation, &answer);

	if (r < 0)
		return mf_command_fail("evict: cannot ask node '%s': %s", member->node, g_strerror(-r));
	if (answer.what == MF_ANSWER_YES && !e->force)
		return mf_command_fail(
			"evict: node '%s' (incarnation %u, on %s) answers: it is alive; --force evicts it even so",
			member->node, e->incarnation, member->mountpoint);
	return 0;
}

static void print_json(const struct eviction *e, const struct mf_member *member, const struct mf_ending *ending)
{
	g_autofree char *node = g_utf8_make_valid(member->node, -1);
	json_t *doc = json_pack("{s:s, s:I, s:s, s:s, s:f}", "node", node, "incarnation", (json_int_t)e->incarnation,
		"state", ending->state == MF_MEMBER_CLEAN ? "clean" : "lost", "address", member->addrs, "seconds",
		(double)(g_get_monotonic_time() - e->begin) / G_USEC_PER_SEC);

	json_dumpf(doc, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(doc);
}

static int run(struct eviction *e, const char *argument)
{
	struct mf_ending ending;

	e->incarnation = find(e->cluster, argument);
	if (!e->incarnation)
		return mf_command_fail("evict: there is no live node '%s' (see mailfsctl nodes)", argument);
	const struct mf_member *member = mf_cluster_member(e->cluster, e->incarnation);
	int r = member->state == MF_MEMBER_LIVE ? check(e, member) : 0;
	if (r)
		return r;

	say(e, "evicting node '%s' (incarnation %u, on %s)", member->node, e->incarnation, member->mountpoint);
	r = evict(e, member, &ending);
	if (r < 0)
		return mf_command_fail("evict: node '%s' (incarnation %u): %s", member->node, e->incarnation,
			r == -EACCES || r == -EPERM ? "the key may not change the blocklist (see mailfsctl key)"
						    : g_strerror(-r));
	if (e->as_json)
		print_json(e, member, &ending);
	else if (ending.state == MF_MEMBER_CLEAN)
		puts("it has left in order meanwhile");
	else
		puts("it is lost: other nodes take what it held");
	return 0;
}

int mf_command_evict(const struct mf_command *command, int argc, char **argv)
{
	gboolean force = FALSE, as_json = FALSE;
	const GOptionEntry entries[] = {
		{ "force", 'f', 0, G_OPTION_ARG_NONE, &force, "even if it answers", NULL },
		{ "json", 0, 0, G_OPTION_ARG_NONE, &as_json, "print a JSON document at the end", NULL },
		{ NULL },
	};
	g_autoptr(mf_conf) conf = NULL;
	g_autofree char *argument = NULL;
	g_auto(mf_cluster) cluster = { NULL };
	int r = mf_command_parse(command, argc, argv, entries, &conf, &argument);

	if (r)
		return r == MF_EXIT_DONE ? 0 : r;
	r = mf_cluster_open(conf, "evict", &cluster);
	if (r)
		return r;
	struct eviction e = {
		.cluster = &cluster,
		.as_json = as_json,
		.force = force,
		.begin = g_get_monotonic_time(),
	};
	return run(&e, argument);
}
