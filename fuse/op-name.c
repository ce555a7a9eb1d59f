/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/ops.h"
#include "fuse/reply.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

static struct mf_cred cred_of(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct mf_cred){ .uid = ctx->uid, .gid = ctx->gid, .pid = (uint32_t)ctx->pid };
}

static void reply_new(fuse_req_t req, const char *op, uint64_t parent, int r, const struct mf_stat *st)
{
	if (r < 0)
		mf_reply_err(req, op, parent, r);
	else
		mf_reply_entry(req, st);
}

void mf_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct mf_session *session;
	struct mf_cred cred = cred_of(req);
	struct mf_stat st;
	int r = -EOPNOTSUPP;

	if (mf_replay_make(mf_session_of(req)->replay, req, parent, name))
		return;
	session = mf_session_begin(req, "mknod", parent);
	if (!session)
		return;
	if (S_ISREG(mode))
		r = mf_fs_mknod(session->fs, parent, name, mode, &cred, &st);
	reply_new(req, "mknod", parent, r, &st);
}

void mf_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct mf_session *session = mf_session_begin(req, "symlink", parent);
	struct mf_cred cred = cred_of(req);
	struct mf_stat st;
	int r;

	if (!session)
		return;
	r = mf_fs_symlink(session->fs, parent, name, target, &cred, &st);
	reply_new(req, "symlink", parent, r, &st);
}

void mf_op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct mf_session *session = mf_session_begin(req, "readlink", ino);
	g_autofree char *target = NULL;
	int r;

	if (!session)
		return;
	r = mf_fs_readlink(session->fs, ino, &target);
	if (r < 0)
		mf_reply_err(req, "readlink", ino, r);
	else
		mf_reply_readlink(req, target);
}

void mf_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct mf_session *session;

	if (mf_replay_remove(mf_session_of(req)->replay, req, parent, name))
		return;
	session = mf_session_begin(req, "unlink", parent);
	if (session)
		mf_reply_err(req, "unlink", parent, mf_fs_unlink(session->fs, parent, name));
}

void mf_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
	struct mf_session *session = mf_session_begin(req, "link", ino);
	struct mf_stat st;
	int r;

	if (!session)
		return;
	r = mf_fs_link(session->fs, ino, new_parent, new_name, &st);
	reply_new(req, "link", ino, r, &st);
}

void mf_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
	unsigned flags)
{
	struct mf_session *session;
	int r = -EINVAL;

	if (mf_replay_rename(mf_session_of(req)->replay, req, parent, name, new_parent, new_name))
		return;
	session = mf_session_begin(req, "rename", parent);
	if (!session)
		return;
	if (!(flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)))
		r = mf_fs_rename(session->fs, parent, name, new_parent, new_name, flags);
	mf_reply_err(req, "rename", parent, r);
}
