/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store/fault.h - the crash tests' hook: die, lose a reply or refuse at the Nth write.
 *
 * Model:   compiled in by -Dfaults=true alone. MAILFS_FAULT=WHAT:N with WHAT one of kill-before, kill-after (SIGKILL to
 *          this process before the write is sent, after its result came), lost (done, but reported as -ETIMEDOUT),
 *          nospc (not done, -ENOSPC). N counts from 1, over the writes made while the file MAILFS_FAULT_ARM exists;
 *          with MAILFS_FAULT_FROM=SUFFIX from the first of them to an object whose name ends so.
 * Threads: any.
 */
#pragma once

#include <stdbool.h>

enum mf_fault_what {
	MF_FAULT_NONE,
	MF_FAULT_KILL_BEFORE,
	MF_FAULT_KILL_AFTER,
	MF_FAULT_LOST,
	MF_FAULT_NOSPC,
};

#ifdef MF_FAULTS
/* The fate of the write to @oid that the caller is about to send. Does not return for MF_FAULT_KILL_BEFORE. */
enum mf_fault_what mf_fault_next(const char *oid);
/* To be called with its result; returns what to report. */
int mf_fault_result(enum mf_fault_what what, int result);
#else
static inline enum mf_fault_what mf_fault_next(const char *oid)
{
	(void)oid;
	return MF_FAULT_NONE;
}
static inline int mf_fault_result(enum mf_fault_what what, int result)
{
	(void)what;
	return result;
}
#endif
