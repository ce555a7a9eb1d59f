/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tools/command.h - what the commands of mailfsctl share.
 *
 * Model:   a command gets its own argc and argv (argv[0] is its name), prints results to stdout and errors, one line
 *          each, to stderr, and returns the exit status.
 * Owns:    nothing.
 * Threads: none.
 * Errors:  the exit status.
 */
#ifndef MF_TOOLS_COMMAND_H
#define MF_TOOLS_COMMAND_H

#include "store/conf.h"

enum {
	MF_EXIT_FAILURE = 1,
	MF_EXIT_USAGE = 2,
	MF_EXIT_DONE = -1, /* mf_command_parse(): help was shown, nothing is left to do */
};

struct mf_command {
	const char *name;
	int (*run)(const struct mf_command *command, int argc, char **argv);
	const char *arguments; /* "MOUNTPOINT", "[PATH]" for one that may be left out, "" for none */
	const char *help;
};

int mf_command_mkfs(const struct mf_command *command, int argc, char **argv);
int mf_command_status(const struct mf_command *command, int argc, char **argv);
int mf_command_umount(const struct mf_command *command, int argc, char **argv);
int mf_command_nodes(const struct mf_command *command, int argc, char **argv);
int mf_command_leases(const struct mf_command *command, int argc, char **argv);
int mf_command_locks(const struct mf_command *command, int argc, char **argv);
int mf_command_evict(const struct mf_command *command, int argc, char **argv);
int mf_command_conf(const struct mf_command *command, int argc, char **argv);
int mf_command_key(const struct mf_command *command, int argc, char **argv);

/* Called as umount.fuse.mailfs DIR [-flnrv] [-t TYPE] [-N NS]. */
int mf_command_umount_helper(int argc, char **argv);

/* Parses -c, -o, --help and the command's own @entries (NULL for none). The command takes one argument if it names one.
 * 0 with *ret_conf (the caller's) and *ret_argument (the caller's; NULL if none), or an exit status, or MF_EXIT_DONE.
 */
int mf_command_parse(const struct mf_command *command, int argc, char **argv, const GOptionEntry *entries,
	struct mf_conf **ret_conf, char **ret_argument);

/* "mailfsctl: ..." to stderr; returns MF_EXIT_FAILURE. */
int mf_command_fail(const char *format, ...) G_GNUC_PRINTF(1, 2);

#endif
