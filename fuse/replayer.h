/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse/replayer.h - a process of its own that repeats on the mount what other nodes did, so that inotify(7) tells of it.
 *
 * Model:   the kernel raises events for calls that it makes itself, so somebody has to make them: mknod(2), rename(2), unlink(2)
 *          with the real names. That cannot be a thread of the daemon: killed while one of its own threads waits for it, a
 *          FUSE daemon never ends. The process is forked before anything else, has no descriptor of the daemon but one
 *          socket, and dies with it.
 *          It works in a mount of its own, cloned for each job, so the one that people use is never busy because of it.
 *          It looks before it leaps: what lies at the mount point by now may be another filesystem, so it asks for the
 *          attributes of the root, and does nothing unless the daemon has seen that very request.
 * Owns:    the caller has to end it with mf_replayer_end().
 * Threads: one at a time.
 */
#ifndef MF_FUSE_REPLAYER_H
#define MF_FUSE_REPLAYER_H

#include "store/eventrecord.h"

#include <limits.h>
#include <sys/types.h>

#define MF_REPLAY_STEPS 64u

/* Paths below the directory of the job. */
struct mf_replay_step {
	enum mf_event_kind kind; /* all but MANY */
	bool is_dir;
	char name[NAME_MAX + 8];
	char to[NAME_MAX + 8]; /* of MOVE */
	int error;	       /* filled in: 0 or errno */
};

/* In memory that both processes share. */
struct mf_replay_job {
	unsigned confirmed; /* atomic: the daemon was asked for the root */
	char way[PATH_MAX]; /* from the root of the mount; "": that itself */
	unsigned n;
	unsigned done; /* atomic: the step that it is at */
	int error;     /* filled in: why the mount, or the directory, could not be reached, 0 or errno */
	struct mf_replay_step steps[MF_REPLAY_STEPS];
};

struct mf_replayer {
	pid_t pid;
	int fd;
	struct mf_replay_job *job;
};

/* Forks; no other thread may run yet. 0 or -errno. */
int mf_replayer_start(const char *mountpoint, struct mf_replayer *ret);
/* Does what stands in replayer->job; blocks. -EPIPE: the process has ended, or was ended because it stood still. */
int mf_replayer_run(struct mf_replayer *replayer);
/* Whatever it is at; any thread. */
void mf_replayer_kill(struct mf_replayer *replayer);
/* Kills it. Its pid may be another process's as soon as this returns. */
void mf_replayer_end(struct mf_replayer *replayer);

#endif
