/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tools/command-conf.c - mailfsctl conf and mailfsctl key: what the settings come to. */
#include "tools/command.h"

#include <stdio.h>
#include <string.h>

static void print_pair(const struct mf_conf_entry *entry, void *arg)
{
	const gboolean *changed = arg;

	if (!*changed || strcmp(entry->value, entry->default_value))
		printf("%s = %s\n", entry->key, entry->value);
}

int mf_command_conf(const struct mf_command *command, int argc, char **argv)
{
	gboolean changed = FALSE;
	const GOptionEntry entries[] = {
		{ "changed", 0, 0, G_OPTION_ARG_NONE, &changed, "only those that differ from their default", NULL },
		{ NULL },
	};
	g_autoptr(mf_conf) conf = NULL;
	int r;

	r = mf_command_parse(command, argc, argv, entries, &conf, NULL);
	if (r)
		return r == MF_EXIT_DONE ? 0 : r;

	puts("[mailfs]");
	mf_conf_foreach(conf, print_pair, &changed);
	return 0;
}

/* A pool's name may hold what a shell would read. */
static void print_key_command(const struct mf_conf *conf)
{
	g_autoptr(GString) osd = g_string_new(NULL);

	g_string_append_printf(osd, "allow rwx pool=%s namespace=%s", conf->meta_pool, conf->fs);
	if (strcmp(conf->meta_pool, conf->data_pool))
		g_string_append_printf(osd, ", allow rwx pool=%s namespace=%s", conf->data_pool, conf->fs);

	g_autofree char *client = g_shell_quote(conf->client);
	g_autofree char *caps = g_shell_quote(osd->str);

	printf("ceph auth get-or-create %s \\\n"
	       "    mon 'profile simple-rados-client-with-blocklist' \\\n"
	       "    osd %s\n",
		client, caps);
}

int mf_command_key(const struct mf_command *command, int argc, char **argv)
{
	g_autoptr(mf_conf) conf = NULL;
	int r;

	r = mf_command_parse(command, argc, argv, NULL, &conf, NULL);
	if (r)
		return r == MF_EXIT_DONE ? 0 : r;
	print_key_command(conf);
	return 0;
}
