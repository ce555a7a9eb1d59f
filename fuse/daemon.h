/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse/daemon.h - going into the background, and telling whoever waits when the mount serves.
 *
 * Model:   mf_daemon_fork() returns in the child only. The parent, which mount(8) waits for, ends with 0 at
 *          mf_daemon_ready(), with the given status at mf_daemon_failed(), and with 1 when the child dies before
 * either. The child keeps stderr until it is ready: what goes wrong at the start is seen where the mount was asked for.
 *          In the foreground nothing is forked, and systemd is told instead (sd_notify).
 * Owns:    one pipe end, for the whole process.
 * Threads: mf_daemon_fork() before any thread and before rados; the others from the main thread.
 * Errors:  0 or -errno.
 */
#ifndef MF_FUSE_DAEMON_H
#define MF_FUSE_DAEMON_H

#include <stdbool.h>

/* -errno: nothing was forked. */
int mf_daemon_fork(bool foreground);

/* The mount serves: lets the parent go, gives up the terminal. @status: one line for systemd, e.g. "Serving /var/mail".
 */
void mf_daemon_ready(const char *status);

/* The unmount was asked for: what is dirty is being written. */
void mf_daemon_stopping(void);

/* The start failed, and the reason is logged: lets the parent go with @code. The caller then exits. */
void mf_daemon_failed(int code);

#endif
