/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tools/command.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int mf_command_fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("mailfsctl: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	return MF_EXIT_FAILURE;
}

static int load_conf(const char *file, char **opts, struct mf_conf **ret_conf)
{
	g_autoptr(mf_conf) conf = mf_conf_new();
	g_autofree char *error = NULL;

	if (mf_conf_load_file(conf, file, &error) < 0)
		return mf_command_fail("%s", error);
	for (; opts && *opts; opts++) {
		g_auto(GStrv) pairs = g_strsplit(*opts, ",", -1);

		for (char **pair = pairs; *pair; pair++)
			if (**pair && mf_conf_set_pair(conf, *pair, &error) < 0) {
				mf_command_fail("-o: %s", error);
				return MF_EXIT_USAGE;
			}
	}
	*ret_conf = g_steal_pointer(&conf);
	return 0;
}

int mf_command_parse(const struct mf_command *command, int argc, char **argv, const GOptionEntry *entries,
	struct mf_conf **ret_conf, char **ret_argument)
{
	g_autofree char *file = NULL;
	g_auto(GStrv) opts = NULL;
	g_auto(GStrv) words = NULL;
	g_auto(GStrv) args = g_new0(char *, (size_t)argc + 1);
	gboolean help = FALSE;
	const GOptionEntry common[] = {
		{ "conf", 'c', 0, G_OPTION_ARG_FILENAME, &file, "settings, instead of " MF_CONF_FILE, "CONF" },
		{ "options", 'o', 0, G_OPTION_ARG_STRING_ARRAY, &opts, "settings that override the file",
			"KEY=VALUE,..." },
		{ "help", 'h', 0, G_OPTION_ARG_NONE, &help, "show this", NULL },
		{ G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &words, NULL, NULL },
		{ NULL },
	};
	g_autoptr(GOptionContext) context = g_option_context_new(command->arguments);
	g_autoptr(GError) error = NULL;
	g_autofree char *program = g_strdup_printf("mailfsctl %s", command->name);

	args[0] = g_strdup(program);
	for (int i = 1; i < argc; i++)
		args[i] = g_strdup(argv[i]);

	g_set_prgname(program);
	g_option_context_set_help_enabled(context, FALSE);
	g_option_context_set_summary(context, command->help);
	if (entries)
		g_option_context_add_main_entries(context, entries, NULL);
	g_option_context_add_main_entries(context, common, NULL);
	if (!g_option_context_parse_strv(context, &args, &error)) {
		mf_command_fail("%s: %s (see --help)", command->name, error->message);
		return MF_EXIT_USAGE;
	}
	if (help) {
		g_autofree char *text = g_option_context_get_help(context, TRUE, NULL);

		fputs(text, stdout);
		return MF_EXIT_DONE;
	}

	unsigned n = words ? g_strv_length(words) : 0;

	unsigned most = *command->arguments ? 1 : 0;
	unsigned least = *command->arguments == '[' ? 0 : most;

	if (n < least || n > most) {
		mf_command_fail("%s: %s (see --help)", command->name,
			most == 0    ? "no argument is wanted" :
			least == 0 ? "one argument at most is wanted" :
				       "one argument is wanted");
		return MF_EXIT_USAGE;
	}

	int r = load_conf(file, opts, ret_conf);

	if (r == 0 && ret_argument)
		*ret_argument = n ? g_strdup(words[0]) : NULL;
	return r;
}
