/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse/mountinfo.h - what the kernel says is mounted: /proc/self/mountinfo.
 *
 * Model:   reads the table only; never touches a mounted filesystem, so a hung one cannot hold it up.
 * Owns:    struct mf_mount owns its strings; mf_mount_clear().
 * Threads: any.
 * Errors:  0, 1 or -errno.
 */
#ifndef MF_FUSE_MOUNTINFO_H
#define MF_FUSE_MOUNTINFO_H

#include <glib.h>

#define MF_MOUNT_FSTYPE "fuse.mailfs"

typedef struct mf_mount {
	char *path; /* mount point, unescaped */
	char *fstype;
	char *source;
} mf_mount;

void mf_mount_clear(struct mf_mount *mount);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(mf_mount, mf_mount_clear)

/* One line of mountinfo, see proc(5). 0 or -EINVAL. */
int mf_mountinfo_parse(const char *line, struct mf_mount *ret_mount);

/* The uppermost mount exactly at @path (absolute, no symlinks), in @table (the text of mountinfo; NULL: that of this
 * process). 1 if found, 0 if nothing is mounted there, or -errno. */
int mf_mountinfo_find(const char *table, const char *path, struct mf_mount *ret_mount);

/* @path made absolute, with symlinks resolved, without asking the filesystem that may be mounted at its end.
 * 0 or -errno (-ENOENT: some directory above it does not exist). */
int mf_mountinfo_resolve(const char *path, char **ret_path);

#endif
