/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/options.h"

#include <errno.h>
#include <string.h>

/* What was on the command line, before it is understood. */
struct line {
	char *conf_file;
	char **opts;
	char **words;
	gboolean foreground;
	gboolean fake;
	gboolean help;
	gboolean version;
};

enum generic {
	GENERIC_IGNORE,
	GENERIC_PASS,
	GENERIC_REFUSE,
};

/* Options that are not ours. A name that ends in '*' stands for all that begin so. */
static const struct {
	const char *name;
	enum generic what;
} generics[] = {
	{ "ro", GENERIC_PASS },
	{ "rw", GENERIC_PASS },
	{ "noexec", GENERIC_PASS },
	{ "exec", GENERIC_PASS },
	{ "noatime", GENERIC_PASS },
	{ "dirsync", GENERIC_PASS },
	{ "sync", GENERIC_PASS },
	{ "async", GENERIC_PASS },
	{ "context=*", GENERIC_PASS },
	{ "fscontext=*", GENERIC_PASS },
	{ "defcontext=*", GENERIC_PASS },
	{ "rootcontext=*", GENERIC_PASS },
	/* Always so, whatever is asked for: mount.fuse3 adds dev and suid by itself. */
	{ "nosuid", GENERIC_IGNORE },
	{ "suid", GENERIC_IGNORE },
	{ "nodev", GENERIC_IGNORE },
	{ "dev", GENERIC_IGNORE },
	{ "allow_other", GENERIC_IGNORE },
	{ "default_permissions", GENERIC_IGNORE },
	/* Reading never changes an atime. */
	{ "atime", GENERIC_IGNORE },
	{ "diratime", GENERIC_IGNORE },
	{ "nodiratime", GENERIC_IGNORE },
	{ "relatime", GENERIC_IGNORE },
	{ "norelatime", GENERIC_IGNORE },
	{ "strictatime", GENERIC_IGNORE },
	{ "nostrictatime", GENERIC_IGNORE },
	{ "lazytime", GENERIC_IGNORE },
	{ "nolazytime", GENERIC_IGNORE },
	/* For mount(8), systemd and whoever reads fstab. */
	{ "defaults", GENERIC_IGNORE },
	{ "auto", GENERIC_IGNORE },
	{ "noauto", GENERIC_IGNORE },
	{ "nofail", GENERIC_IGNORE },
	{ "_netdev", GENERIC_IGNORE },
	{ "user", GENERIC_IGNORE },
	{ "user=*", GENERIC_IGNORE },
	{ "nouser", GENERIC_IGNORE },
	{ "users", GENERIC_IGNORE },
	{ "nousers", GENERIC_IGNORE },
	{ "owner", GENERIC_IGNORE },
	{ "group", GENERIC_IGNORE },
	{ "silent", GENERIC_IGNORE },
	{ "loud", GENERIC_IGNORE },
	{ "comment=*", GENERIC_IGNORE },
	{ "x-*", GENERIC_IGNORE },
	{ "X-*", GENERIC_IGNORE },
	{ "remount", GENERIC_REFUSE },
};

static int fail(char **ret_error, const char *format, ...) G_GNUC_PRINTF(2, 3);

static int fail(char **ret_error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (ret_error)
		*ret_error = g_strdup_vprintf(format, args);
	va_end(args);
	return -EINVAL;
}

/* The next option of "a,b=c\,d"; a backslash keeps what follows, as in libfuse. NULL at the end. */
static char *next_opt(const char **pos)
{
	const char *p = *pos;
	GString *opt;

	if (!*p)
		return NULL;
	opt = g_string_new(NULL);
	for (; *p && *p != ','; p++) {
		if (*p == '\\' && p[1])
			p++;
		g_string_append_c(opt, *p);
	}
	*pos = *p ? p + 1 : p;
	return g_string_free(opt, FALSE);
}

static void pass_on(GString *to, const char *opt)
{
	g_string_append_c(to, ',');
	for (; *opt; opt++) {
		if (*opt == ',' || *opt == '\\')
			g_string_append_c(to, '\\');
		g_string_append_c(to, *opt);
	}
}

static bool generic_matches(const char *name, const char *opt)
{
	size_t len = strlen(name);

	if (name[len - 1] == '*')
		return !strncmp(name, opt, len - 1);
	return !strcmp(name, opt);
}

static int apply_generic(const char *opt, GString *mount_options, char **ret_error)
{
	for (size_t i = 0; i < G_N_ELEMENTS(generics); i++) {
		if (!generic_matches(generics[i].name, opt))
			continue;
		switch (generics[i].what) {
		case GENERIC_PASS:
			pass_on(mount_options, opt);
			return 0;
		case GENERIC_REFUSE:
			return fail(ret_error, "option '%s' is not possible: unmount, then mount anew", opt);
		case GENERIC_IGNORE:
			return 0;
		}
	}
	return fail(ret_error, "unknown option '%s'", opt);
}

static int apply_opts(struct mf_options *options, char **opts, char **ret_error)
{
	g_autoptr(GString) mount_options = g_string_new("nosuid,nodev,subtype=mailfs");
	g_autofree char *fsname = g_strdup_printf("fsname=%s", options->source);

	pass_on(mount_options, fsname);
	for (; opts && *opts; opts++) {
		const char *pos = *opts;
		char *next;

		while ((next = next_opt(&pos))) {
			g_autofree char *opt = next;
			g_autofree char *key = g_strndup(opt, strcspn(opt, "="));
			g_autofree char *error = NULL;
			int r = 0;

			if (!*opt) /* "a,,b" */
				continue;
			if (!mf_conf_has_key(key))
				r = apply_generic(opt, mount_options, ret_error);
			else if (mf_conf_set_pair(options->conf, opt, &error) < 0)
				r = fail(ret_error, "-o: %s", error);
			if (r < 0)
				return r;
		}
	}
	options->mount_options = g_strdup(mount_options->str);
	return 0;
}

static void print_key(const struct mf_conf_entry *entry, void *arg)
{
	g_string_append_printf(arg, "  %-16s %s\n  %-16s %s, default %s\n", entry->key, entry->help, "", entry->type,
		strcmp(entry->key, "node") ? entry->default_value : "the host name");
}

static char *help_text(GOptionContext *context)
{
	g_autofree char *options = g_option_context_get_help(context, TRUE, NULL);
	g_autoptr(mf_conf) conf = mf_conf_new();
	g_autoptr(GString) text = g_string_new(options);

	g_string_append(text, "Keys of " MF_CONF_FILE " and of -o:\n");
	mf_conf_foreach(conf, print_key, text);
	g_string_append(text, "\n-o takes the usual options of mount(8) as well. See mailfs(8), mailfs.conf(5).\n");
	return g_strdup(text->str);
}

static int parse_line(bool helper, int argc, char **argv, struct line *line, char **ret_text, char **ret_error)
{
	gboolean ignored = FALSE;
	g_autofree char *ignored_text = NULL;
	g_autofree char *ignored_ns = NULL;
	GOptionEntry own[] = {
		{ "conf", 'c', 0, G_OPTION_ARG_FILENAME, &line->conf_file, "settings, instead of " MF_CONF_FILE,
			"CONF" },
		{ "options", 'o', 0, G_OPTION_ARG_STRING_ARRAY, &line->opts, "settings that override the file",
			"KEY=VALUE,..." },
		{ "foreground", 'f', 0, G_OPTION_ARG_NONE, &line->foreground, "stay in the foreground, log to stderr",
			NULL },
		{ "help", 'h', 0, G_OPTION_ARG_NONE, &line->help, "show this", NULL },
		{ "version", 'V', 0, G_OPTION_ARG_NONE, &line->version, "show the version", NULL },
		{ G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &line->words, NULL, NULL },
		{ NULL },
	};
	GOptionEntry mount[] = {
		{ "options", 'o', 0, G_OPTION_ARG_STRING_ARRAY, &line->opts, "options as in fstab", "OPTION,..." },
		{ "fake", 'f', 0, G_OPTION_ARG_NONE, &line->fake, "check the options, do not mount", NULL },
		{ "sloppy", 's', 0, G_OPTION_ARG_NONE, &ignored, "ignored", NULL },
		{ "no-mtab", 'n', 0, G_OPTION_ARG_NONE, &ignored, "ignored", NULL },
		{ "verbose", 'v', 0, G_OPTION_ARG_NONE, &ignored, "ignored", NULL },
		{ "types", 't', 0, G_OPTION_ARG_STRING, &ignored_text, "ignored", "TYPE" },
		{ "namespace", 'N', 0, G_OPTION_ARG_STRING, &ignored_ns, "ignored", "NS" },
		{ "help", 'h', 0, G_OPTION_ARG_NONE, &line->help, "show this", NULL },
		{ "version", 'V', 0, G_OPTION_ARG_NONE, &line->version, "show the version", NULL },
		{ G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &line->words, NULL, NULL },
		{ NULL },
	};
	g_autoptr(GOptionContext) context = g_option_context_new(helper ? "SPEC DIR" : "MOUNTPOINT");
	g_autoptr(GError) error = NULL;
	g_auto(GStrv) args = g_new0(char *, (size_t)argc + 1);

	/* A copy: GOption takes words out of the array it is given. */
	for (int i = 0; i < argc; i++)
		args[i] = g_strdup(argv[i]);

	g_option_context_set_help_enabled(context, FALSE);
	g_option_context_add_main_entries(context, helper ? mount : own, NULL);
	g_option_context_set_summary(
		context, helper ? "Mounts a mailfs for mount(8). SPEC is the path of a mailfs.conf, or none."
				: "Mounts a filesystem of Maildirs kept in RADOS.");
	if (!g_option_context_parse_strv(context, &args, &error))
		return fail(ret_error, "%s (see --help)", error->message);
	if (line->help)
		*ret_text = help_text(context);
	else if (line->version)
		*ret_text = g_strdup("mailfs " MF_VERSION "\n");
	return 0;
}

/* Finds CONF and MOUNTPOINT among the words. */
static int apply_words(struct mf_options *options, struct line *line, bool helper, char **ret_error)
{
	unsigned n = line->words ? g_strv_length(line->words) : 0;

	if (n == 1 && !helper) {
		options->mountpoint = g_strdup(line->words[0]);
		options->source = line->conf_file ? g_canonicalize_filename(line->conf_file, NULL) : g_strdup("mailfs");
		return 0;
	}
	if (n != 2)
		return fail(ret_error,
			n ? "too many or too few arguments (see --help)" : "no mount point given (see --help)");

	const char *spec = line->words[0];

	if (strchr(spec, '/')) {
		if (line->conf_file)
			return fail(ret_error, "two configuration files given: %s and %s", line->conf_file, spec);
		line->conf_file = g_strdup(spec);
		options->source = g_canonicalize_filename(spec, NULL);
	} else if (strcmp(spec, "none") && strcmp(spec, "mailfs")) {
		return fail(ret_error, "'%s' is neither the path of a mailfs.conf nor 'none'", spec);
	} else {
		options->source = g_strdup(spec);
	}
	options->mountpoint = g_strdup(line->words[1]);
	return 0;
}

static bool called_by_mount(const char *argv0)
{
	g_autofree char *name = g_path_get_basename(argv0);

	return g_str_has_prefix(name, "mount.");
}

static void line_clear(struct line *line)
{
	g_free(line->conf_file);
	g_strfreev(line->opts);
	g_strfreev(line->words);
}

static int understand(struct line *line, bool helper, struct mf_options *options, char **ret_error)
{
	int r;

	options->conf = mf_conf_new();
	options->foreground = line->foreground;
	options->action = line->fake ? MF_OPTIONS_CHECK : MF_OPTIONS_MOUNT;

	r = apply_words(options, line, helper, ret_error);
	if (r < 0)
		return r;
	r = mf_conf_load_file(options->conf, line->conf_file, ret_error);
	if (r < 0)
		return r;
	return apply_opts(options, line->opts, ret_error);
}

int mf_options_parse(int argc, char **argv, struct mf_options **ret_options, char **ret_error)
{
	g_autoptr(mf_options) options = g_new0(struct mf_options, 1);
	bool helper = argc > 0 && called_by_mount(argv[0]);
	struct line line = { 0 };
	int r;

	r = parse_line(helper, argc, argv, &line, &options->text, ret_error);
	if (r == 0) {
		if (options->text)
			options->action = MF_OPTIONS_PRINT;
		else
			r = understand(&line, helper, options, ret_error);
	}
	line_clear(&line);
	if (r < 0)
		return r;
	*ret_options = g_steal_pointer(&options);
	return 0;
}

struct mf_options *mf_options_free(struct mf_options *options)
{
	if (!options)
		return NULL;
	g_free(options->text);
	mf_conf_free(options->conf);
	g_free(options->mountpoint);
	g_free(options->source);
	g_free(options->mount_options);
	g_free(options);
	return NULL;
}
