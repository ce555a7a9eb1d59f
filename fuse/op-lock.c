/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse/op-lock.c - fcntl(2) locks and flock(2).
 *
 * A request that has to wait is parked in the lock table and holds no thread. Its cookie is the fuse_req_t itself:
 * libfuse keeps that alive while it calls the interrupt function, so the number cannot mean another request there. */
#include "fuse/ops.h"
#include "fuse/reply.h"
#include "locking/filelock.h"

#include <errno.h>

static struct mf_filelock request_of(fuse_req_t req, uint64_t ino, const struct fuse_file_info *fi, int32_t pid)
{
	return (struct mf_filelock){
		.ino = ino,
		.owner = fi->lock_owner,
		.fh = fi->fh,
		.pid = pid,
	};
}

/* A signal. The answer comes from whoever takes the request out of the table. Also called before the request is parked,
 * and after it was answered: then there is nothing to cancel.
 * libfuse holds a lock of the request's own around this, which an answer does not take. */
static void interrupted(fuse_req_t req, void *data)
{
	struct mf_session *session = data;
	g_autoptr(GArray) done = mf_filelock_done_new();

	mf_fs_cancel_lock(session->fs, req, done);
	mf_reply_done(done);
}

static void set(struct mf_session *session, fuse_req_t req, const struct mf_filelock *lock, bool wait)
{
	g_autoptr(GArray) done = mf_filelock_done_new();
	bool park = wait && lock->type != MF_FILELOCK_UNLOCK;

	/* Before it is parked: later another thread may grant and free it at any time. */
	if (park)
		fuse_req_interrupt_func(req, interrupted, session);
	int r = mf_fs_set_lock(session->fs, lock, park ? req : NULL, done);
	if (r != MF_FILELOCK_PARKED)
		mf_reply_err(req, "lock", lock->ino, r);
	mf_reply_done(done);
}

/* Unlocking is done however things stand. */
static struct mf_session *begin(fuse_req_t req, const struct mf_filelock *lock)
{
	if (lock->type != MF_FILELOCK_UNLOCK)
		return mf_session_begin(req, "lock", lock->ino);
	mf_fs_requester(0);
	return mf_session_of(req);
}

void mf_op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *fl)
{
	struct mf_session *session = mf_session_begin(req, "getlk", ino);
	struct mf_filelock lock = request_of(req, ino, fi, fl->l_pid);
	struct mf_filelock holder;
	bool held;
	int r;

	if (!session)
		return;
	r = mf_filelock_from_flock(fl, &lock);
	if (r == 0 && lock.type == MF_FILELOCK_UNLOCK)
		r = -EINVAL;
	if (r < 0) {
		mf_reply_err(req, "getlk", ino, r);
		return;
	}

	r = mf_fs_test_lock(session->fs, &lock, &held, &holder);
	if (r < 0) {
		mf_reply_err(req, "getlk", ino, r);
		return;
	}
	if (held) {
		mf_filelock_to_flock(&holder, fl);
	} else {
		fl->l_type = F_UNLCK;
	}
	mf_reply_lock(req, fl);
}

void mf_op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *fl, int sleep)
{
	struct mf_filelock lock = request_of(req, ino, fi, fl->l_pid);
	struct mf_session *session;
	int r;

	lock.space = MF_FILELOCK_POSIX;
	r = mf_filelock_from_flock(fl, &lock);
	if (r < 0) {
		mf_reply_err(req, "setlk", ino, r);
		return;
	}
	session = begin(req, &lock);
	if (session)
		set(session, req, &lock, sleep);
}

void mf_op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	struct mf_filelock lock = request_of(req, ino, fi, fuse_req_ctx(req)->pid);
	struct mf_session *session;
	bool wait;
	int r;

	r = mf_filelock_from_op(op, &lock, &wait);
	if (r < 0) {
		mf_reply_err(req, "flock", ino, r);
		return;
	}
	session = begin(req, &lock);
	if (session)
		set(session, req, &lock, wait);
}
