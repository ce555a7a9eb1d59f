/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse/answer.h - what a node holds, as JSON for the control socket.
 *
 * Model:   sync/report.h in the words of mailfsctl(8).
 * Owns:    the caller gets a new reference.
 * Threads: any; nothing waits for the cluster.
 * Errors:  none.
 */
#ifndef MF_FUSE_ANSWER_H
#define MF_FUSE_ANSWER_H

#include "sync/fs.h"

#include <jansson.h>

/* A path need not be UTF-8; JSON must. NULL becomes null. */
json_t *mf_answer_text(const char *s);

json_t *mf_answer_leases(MfFs *fs);
json_t *mf_answer_locks(MfFs *fs);

#endif
