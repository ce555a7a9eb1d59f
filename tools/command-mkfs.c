/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tools/command.h"

#include "sync/mkfs.h"

#include <stdio.h>

int mf_command_mkfs(const struct mf_command *command, int argc, char **argv)
{
	g_autoptr(mf_conf) conf = NULL;
	g_autofree char *error = NULL;
	int r;

	r = mf_command_parse(command, argc, argv, NULL, &conf, NULL);
	if (r)
		return r == MF_EXIT_DONE ? 0 : r;

	r = mf_mkfs(conf, &error);
	if (r < 0)
		return mf_command_fail("mkfs: %s", error ? error : g_strerror(-r));
	printf("made filesystem %s in the pools %s and %s\n", conf->fs, conf->meta_pool, conf->data_pool);
	return 0;
}
