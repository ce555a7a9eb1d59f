/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tools/ctlclient.h - asks running mounts through their control sockets (fuse/ctlsock.h).
 *
 * Model:   one request, one JSON answer, one connection.
 * Owns:    nothing.
 * Threads: any.
 * Errors:  0 or -errno.
 */
#ifndef MF_TOOLS_CTLCLIENT_H
#define MF_TOOLS_CTLCLIENT_H

#include <glib.h>
#include <jansson.h>

/* The paths of all control sockets in @run_dir, sorted; an empty array when the directory does not exist. */
int mf_ctlclient_list(const char *run_dir, GPtrArray **ret_paths);

/* Sends @request (without newline). The caller owns *ret_answer, an object.
 * -ECONNREFUSED or -ENOENT: that daemon is gone. -ETIMEDOUT: it does not answer. -EPROTO: not JSON, or an error. */
int mf_ctlclient_ask(const char *path, const char *request, unsigned timeout_ms, json_t **ret_answer);

#endif
