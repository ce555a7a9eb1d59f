/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tools/place.h - which mount of this machine a path lies in, and what its daemon says.
 *
 * Model:   the mount itself is never touched: it may hang, and a look at a path moves its lease.
 * Owns:    struct mf_place owns its strings; mf_place_clear().
 * Threads: none.
 * Errors:  0 or -errno.
 */
#ifndef MF_TOOLS_PLACE_H
#define MF_TOOLS_PLACE_H

#include "store/conf.h"

#include <jansson.h>

typedef struct mf_place {
	char *mountpoint;
	char *inside;	      /* the path from the root of the filesystem: "/", "/a/b" */
	char *socket;	      /* of its daemon; NULL: none answers */
	uint32_t incarnation; /* of its daemon, or 0 */
} mf_place;

/* An exit status; what is wrong has been printed. */
int mf_place_find(const struct mf_conf *conf, const char *command, const char *path, struct mf_place *ret);
void mf_place_clear(struct mf_place *place);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(mf_place, mf_place_clear)

/* The answers of all daemons of this machine to @request, into the array @docs. An exit status; what is wrong has been
 * printed. */
int mf_place_ask_all(const char *run_dir, const char *command, const char *request, json_t *docs);
/* Shows what came of it, each daemon by @print, or as JSON. @status: of mf_place_ask_all(). */
void mf_place_show_all(const char *run_dir, json_t *docs, bool as_json, int status, void (*print)(json_t *doc));

#endif
