/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse/session.h - one mount: what every request handler needs, and what the kernel holds of it.
 *
 * Model:   filled in by main before requests come. Handles that the kernel has are remembered, because after an abort
 *          or a detaching unmount it never gives them back.
 * Owns:    the tables of handles; pool, node, fs and conf belong to main and outlive the loop of requests.
 * Threads: any, after the start. `lock' is innermost: nothing is called with it held but what reads counters.
 * Errors:  0 or -errno.
 */
#ifndef MF_FUSE_SESSION_H
#define MF_FUSE_SESSION_H

#include "fuse/replay.h"
#include "sync/fs.h"

#include <fuse_lowlevel.h>
#include <jansson.h>

typedef struct MfDirHandle MfDirHandle;

struct mf_session {
	const struct mf_conf *conf;
	const char *mountpoint;
	MfPool *pool;
	MfNode *node;
	MfFs *fs;
	struct fuse_session *se;
	MfReplay *replay;
	int silent; /* atomic: the trouble of mf_session_check() was logged */

	GMutex asking;		    /* held while a list is made: fs must stay; before lock */
	GMutex lock;
	bool stopping;		    /* protected by asking and lock; node and fs are not asked any more */
	bool fenced;		    /* protected by lock; once stopping */
	struct mf_fs_status status; /* protected by lock; once stopping */
	uint32_t incarnation; /* protected by lock, as is since_s: of the present life, or the last one */
	int64_t since_s;
	GHashTable *files; /* protected by lock; MfHandle */
	GHashTable *dirs;  /* protected by lock; MfDirHandle */
};

void mf_session_init(struct mf_session *session);
void mf_session_clear(struct mf_session *session);

/* Of the request's mount, when this node may serve: else answers @req and returns NULL. */
struct mf_session *mf_session_begin(fuse_req_t req, const char *op, uint64_t ino);
/* After what only reads and gave @r: this node was taken over meanwhile, and has joined anew: do it again. What goes by a path
 * needs no such thing, for then the kernel tries again at ESTALE (retry_estale() in its fs/namei.c). */
bool mf_session_again(struct mf_session *session, int r);
/* For what must be done however things stand. */
struct mf_session *mf_session_of(fuse_req_t req);

void mf_session_add_file(struct mf_session *session, MfHandle *handle);
void mf_session_add_dir(struct mf_session *session, MfDirHandle *handle);
/* The caller then closes it. */
void mf_session_remove_file(struct mf_session *session, MfHandle *handle);
void mf_session_remove_dir(struct mf_session *session, MfDirHandle *handle);

/* No request comes any more: ends the waiting ones, closes what the kernel left open. The connection is still there. */
void mf_session_drain(struct mf_session *session);
/* From here on mf_session_answer() shows the last state and does not touch node and fs. */
void mf_session_stopping(struct mf_session *session);

/* For fuse/ctlsock.h: "status", "leases", "locks". @arg: the session. */
json_t *mf_session_answer(const char *request, void *arg);

#endif
