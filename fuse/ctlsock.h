/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse/ctlsock.h - the control socket of one running mount.
 *
 * Model:   a unix stream socket RUN_DIR/NAME.sock, mode 0600, served by a thread of its own, one connection after the
 *          other: the client sends one line, gets one JSON document, and the connection is closed. Requests are bounded
 *          in size, and a connection in time.
 * Owns:    the socket file; taken away at the end, unless somebody else put another there.
 * Threads: start and stop from the main thread; @answer runs in the socket's thread and must not wait for the cluster.
 * Errors:  0 or -errno, with one line to show in *ret_error.
 */
#ifndef MF_FUSE_CTLSOCK_H
#define MF_FUSE_CTLSOCK_H

#include <glib.h>
#include <jansson.h>

typedef struct MfCtlsock MfCtlsock;

/* @request: the line, without its newline. Returns a new reference, or NULL if it does not know that request. */
typedef json_t *(*mf_ctlsock_answer)(const char *request, void *arg);

/* "FS@NODE", shortened to what a socket's path can hold. */
char *mf_ctlsock_name(const char *fs, const char *node);

/* Creates @run_dir if need be. A socket that a dead daemon left is replaced. -EADDRINUSE: a live one has that name. */
int mf_ctlsock_start(const char *run_dir, const char *name, mf_ctlsock_answer answer, void *arg, MfCtlsock **ret_sock,
	char **ret_error);

/* Ends the thread; @answer is not called any more once this returned. NULL ok; returns NULL. */
MfCtlsock *mf_ctlsock_stop(MfCtlsock *sock);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MfCtlsock, mf_ctlsock_stop)

#endif
