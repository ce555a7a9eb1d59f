/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse/mountpoint.h - is this directory fit to be mounted on?
 *
 * Model:   it must exist, be a directory, be empty and not carry a mailfs. What a dead mailfs left mounted there is
 *          taken away, with a warning in the log.
 * Owns:    nothing.
 * Threads: call before any thread exists: it forks.
 * Errors:  0 or -errno, with one line to show in *ret_error.
 */
#ifndef MF_FUSE_MOUNTPOINT_H
#define MF_FUSE_MOUNTPOINT_H

/* *ret_path: absolute, as /proc/self/mountinfo will show it. Waits for at most about 5 s, even if a mount hangs.
 * -EBUSY: a mailfs is mounted there; -ENOTEMPTY; -ENOTDIR; -ENOENT; ... */
int mf_mountpoint_prepare(const char *path, char **ret_path, char **ret_error);

#endif
