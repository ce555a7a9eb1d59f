/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse/log.h - where g_message(), g_warning() and their like go.
 *
 * Model:   in the foreground to stderr, with time and level. As a daemon to syslog, and, until mf_log_detach(), what is
 * a warning or worse to stderr as well, where mount(8) was called. Owns:    the log writer of GLib, for the whole
 * process. Threads: mf_log_start() once, before threads; logging itself from any thread.
 */
#ifndef MF_FUSE_LOG_H
#define MF_FUSE_LOG_H

#include "store/conf.h"

void mf_log_start(bool foreground, enum mf_conf_log_level level);

/* The daemon serves: leave stderr alone from now on. No effect in the foreground. */
void mf_log_detach(void);

#endif
