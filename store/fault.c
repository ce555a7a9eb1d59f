/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/fault.h"

#ifdef MF_FAULTS
#include <errno.h>
#include <glib.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const names[] = {
	[MF_FAULT_KILL_BEFORE] = "kill-before:",
	[MF_FAULT_KILL_AFTER] = "kill-after:",
	[MF_FAULT_LOST] = "lost:",
	[MF_FAULT_NOSPC] = "nospc:",
};

enum mf_fault_what mf_fault_next(const char *oid)
{
	static gint count, begun;
	const char *spec = getenv("MAILFS_FAULT");
	const char *arm = getenv("MAILFS_FAULT_ARM");
	const char *from = getenv("MAILFS_FAULT_FROM");

	if (!spec || !arm || access(arm, F_OK) < 0)
		return MF_FAULT_NONE;
	if (!from || g_str_has_suffix(oid, from))
		g_atomic_int_set(&begun, 1);
	if (!g_atomic_int_get(&begun))
		return MF_FAULT_NONE;
	int n = g_atomic_int_add(&count, 1) + 1;
	for (unsigned i = MF_FAULT_KILL_BEFORE; i < G_N_ELEMENTS(names); i++) {
		if (!g_str_has_prefix(spec, names[i]) || n != atoi(spec + strlen(names[i])))
			continue;
		if (i == MF_FAULT_KILL_BEFORE)
			kill(getpid(), SIGKILL);
		return i;
	}
	return MF_FAULT_NONE;
}

int mf_fault_result(enum mf_fault_what what, int result)
{
	if (what == MF_FAULT_KILL_AFTER)
		kill(getpid(), SIGKILL);
	return what == MF_FAULT_LOST ? -ETIMEDOUT : result;
}
#endif
