/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse/options.h - the command line of mailfs, and of mailfs called as a helper of mount(8).
 *
 * Model:   mailfs [-c CONF] [-o key=value,...] [-f] MOUNTPOINT
 *          mailfs SPEC DIR [-o ...]                     (run by mount.fuse3)
 *          mount.mailfs SPEC DIR [-sfnv] [-o ...]       (run by mount(8); also as mount.fuse.mailfs)
 *          SPEC is the path of a configuration file, or "none" or "mailfs" for the default one.
 *          An option of -o is a key of mailfs.conf, an option of the kernel's, or one that only mount(8) cares about.
 * Owns:    struct mf_options owns all it points to; mf_options_free().
 * Threads: none.
 * Errors:  0 or -errno, with one line to show in *ret_error.
 */
#ifndef MF_FUSE_OPTIONS_H
#define MF_FUSE_OPTIONS_H

#include "store/conf.h"

enum mf_options_action {
	MF_OPTIONS_MOUNT,
	MF_OPTIONS_CHECK, /* "mount -f": all was parsed, do not mount, exit 0 */
	MF_OPTIONS_PRINT, /* --help, --version: show text on stdout, exit 0; nothing else is set */
};

typedef struct mf_options {
	enum mf_options_action action;
	char *text;
	struct mf_conf *conf;
	char *mountpoint;    /* as given */
	char *source;	     /* what the table of mounts shows: SPEC, or the path of CONF, or "mailfs" */
	char *mount_options; /* for fuse_session_new(): fsname, subtype, nosuid, nodev, what else was asked for */
	bool foreground;
} mf_options;

/* -EINVAL for a command line or setting that is wrong, else what reading the configuration file gave. */
int mf_options_parse(int argc, char **argv, struct mf_options **ret_options, char **ret_error);

/* NULL ok; returns NULL. */
struct mf_options *mf_options_free(struct mf_options *options);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(mf_options, mf_options_free)

#endif
