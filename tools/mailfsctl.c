/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tools/mailfsctl.c - makes, shows and unmounts mailfs filesystems; also umount(8)'s helper umount.fuse.mailfs. */
#include "tools/command.h"

#include <locale.h>
#include <stdio.h>
#include <string.h>

static const struct mf_command commands[] = {
	{ "mkfs", mf_command_mkfs, "", "make an empty filesystem in the pools" },
	{ "status", mf_command_status, "", "show the mounts of this machine" },
	{ "nodes", mf_command_nodes, "", "show the nodes of the filesystem, and whether they answer" },
	{ "leases", mf_command_leases, "[PATH]", "show who holds a directory, or what this machine holds" },
	{ "locks", mf_command_locks, "[PATH]", "show file locks, and who waits for them" },
	{ "evict", mf_command_evict, "NODE", "end a node that hangs, so that others get what it holds" },
	{ "umount", mf_command_umount, "MOUNTPOINT", "unmount, and wait until all is written" },
	{ "conf", mf_command_conf, "", "show the settings in force" },
	{ "key", mf_command_key, "", "print the ceph command that makes the key of the nodes" },
};

static void usage(FILE *to)
{
	fprintf(to, "Usage: mailfsctl COMMAND [OPTION...]\n\nCommands:\n");
	for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
		fprintf(to, "  %-18s %s\n", commands[i].name, commands[i].help);
	fprintf(to, "\n\"mailfsctl COMMAND --help\" shows the options of one. See mailfsctl(8).\n");
}

/* What the layers below log is for the daemon; a command says what failed. */
static void ignore(const char *domain, GLogLevelFlags level, const char *message, void *arg)
{
	if (level & G_LOG_FLAG_FATAL)
		g_log_default_handler(domain, level, message, arg);
}

int main(int argc, char **argv)
{
	g_autofree char *name = g_path_get_basename(argc > 0 ? argv[0] : "mailfsctl");

	setlocale(LC_CTYPE, "");
	g_log_set_default_handler(ignore, NULL);
	if (g_str_has_prefix(name, "umount."))
		return mf_command_umount_helper(argc, argv);

	if (argc < 2) {
		usage(stderr);
		return MF_EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		usage(stdout);
		return 0;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		puts("mailfsctl " MF_VERSION);
		return 0;
	}
	for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(&commands[i], argc - 1, argv + 1);

	fprintf(stderr, "mailfsctl: unknown command '%s' (see --help)\n", argv[1]);
	return MF_EXIT_USAGE;
}
