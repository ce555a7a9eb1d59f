/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tools/command.h"
#include "tools/place.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_int_t number(json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

/* "?" rather than nothing: a newer or older daemon may say less. */
static const char *string(json_t *object, const char *key)
{
	const char *s = json_string_value(json_object_get(object, key));

	return s ? s : "?";
}

static char *bytes_text(json_int_t n)
{
	return g_format_size_full((guint64)n, G_FORMAT_SIZE_IEC_UNITS);
}

static void print_row(const char *name, const char *format, ...) G_GNUC_PRINTF(2, 3);

static void print_row(const char *name, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("  %-13s ", name);
	vprintf(format, args);
	putchar('\n');
	va_end(args);
}

static void print_cache(json_t *doc)
{
	json_t *cache = json_object_get(doc, "cache");
	g_autofree char *bytes = bytes_text(number(cache, "bytes"));
	g_autofree char *limit = bytes_text(number(cache, "limit"));

	print_row("cached", "%s of %s: %" JSON_INTEGER_FORMAT " inodes, %" JSON_INTEGER_FORMAT " directories", bytes,
		limit, number(doc, "inodes"), number(doc, "directories"));
	print_row("not written", "%" JSON_INTEGER_FORMAT " objects", number(doc, "dirty"));
}

static void print_leases(json_t *doc)
{
	json_t *leases = json_object_get(doc, "leases");
	json_t *locks = json_object_get(doc, "locks");
	json_t *events = json_object_get(doc, "events");

	if (leases)
		print_row("leases",
			"%" JSON_INTEGER_FORMAT " shared, %" JSON_INTEGER_FORMAT " exclusive; %" JSON_INTEGER_FORMAT
			" recalls served",
			number(leases, "shared"), number(leases, "exclusive"), number(leases, "recalls"));
	if (locks)
		print_row("file locks", "%" JSON_INTEGER_FORMAT " held, %" JSON_INTEGER_FORMAT " requests wait",
			number(locks, "held"), number(locks, "waiting"));
	if (events)
		print_row("events", "%" JSON_INTEGER_FORMAT " messages to other nodes, %" JSON_INTEGER_FORMAT " raised here",
			number(events, "told"), number(events, "raised"));
}

static void print_rados(json_t *doc)
{
	json_t *rados = json_object_get(doc, "rados");
	g_autofree char *in = bytes_text(number(rados, "bytes_read"));
	g_autofree char *out = bytes_text(number(rados, "bytes_written"));

	print_row("rados",
		"%" JSON_INTEGER_FORMAT " reads (%s), %" JSON_INTEGER_FORMAT " writes (%s), %" JSON_INTEGER_FORMAT
		" notifies",
		number(rados, "read"), in, number(rados, "write"), out, number(rados, "notify"));
}

/* The calls of the kernel, by name, as many a line as 80 columns hold. */
static void print_ops(json_t *doc)
{
	json_t *ops = json_object_get(doc, "ops");
	g_autoptr(GString) line = g_string_new(NULL);
	const char *label = "calls";
	const char *key;
	json_t *value;

	json_object_foreach(ops, key, value)
	{
		g_autofree char *word = NULL;

		if (!json_is_integer(value) || !json_integer_value(value))
			continue;
		word = g_strdup_printf("%s %" JSON_INTEGER_FORMAT, key, json_integer_value(value));
		if (line->len && line->len + 2 + strlen(word) > 63) {
			print_row(label, "%s", line->str);
			label = "";
			g_string_truncate(line, 0);
		}
		g_string_append_printf(line, "%s%s", line->len ? ", " : "", word);
	}
	if (line->len)
		print_row(label, "%s", line->str);
}

static void print_doc(json_t *doc)
{
	g_autoptr(GDateTime) since = g_date_time_new_from_unix_local(number(doc, "since"));
	g_autofree char *since_text = since ? g_date_time_format(since, "%Y-%m-%d %H:%M:%S %z") : g_strdup("?");

	printf("%s\n", string(doc, "mountpoint"));
	print_row("node", "%s (incarnation %" JSON_INTEGER_FORMAT ")", string(doc, "node"), number(doc, "incarnation"));
	print_row("filesystem", "%s", string(doc, "fs"));
	print_row("state", "%s", string(doc, "state"));
	print_row("since", "%s", since_text);
	print_row("process", "%" JSON_INTEGER_FORMAT ", mailfs %s", number(doc, "pid"), string(doc, "version"));
	print_cache(doc);
	print_leases(doc);
	print_rados(doc);
	print_ops(doc);
}

static void print_docs(const char *run_dir, json_t *docs)
{
	json_t *doc;
	size_t i;

	if (!json_array_size(docs))
		printf("no mailfs is running (no control socket answers in %s)\n", run_dir);
	json_array_foreach(docs, i, doc)
	{
		if (i)
			putchar('\n');
		print_doc(doc);
	}
}

int mf_command_status(const struct mf_command *command, int argc, char **argv)
{
	gboolean as_json = FALSE;
	const GOptionEntry entries[] = {
		{ "json", 0, 0, G_OPTION_ARG_NONE, &as_json, "print an array of JSON documents", NULL },
		{ NULL },
	};
	g_autoptr(mf_conf) conf = NULL;
	json_t *docs;
	int r;

	r = mf_command_parse(command, argc, argv, entries, &conf, NULL);
	if (r)
		return r == MF_EXIT_DONE ? 0 : r;

	docs = json_array();
	r = mf_place_ask_all(conf->run_dir, "status", "status", docs);
	if (as_json) {
		json_dumpf(docs, stdout, JSON_INDENT(2));
		putchar('\n');
	} else if (r == 0 || json_array_size(docs)) {
		print_docs(conf->run_dir, docs);
	}
	json_decref(docs);
	return r;
}
