/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/ops.h"
#include "fuse/reply.h"

void mf_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct mf_session *session;
	struct mf_stat st;
	int r;

	if (mf_replay_lookup(mf_session_of(req)->replay, req, parent, name))
		return;
	session = mf_session_begin(req, "lookup", parent);
	if (!session)
		return;
	r = mf_fs_lookup(session->fs, parent, name, (uint32_t)fuse_req_ctx(req)->pid, &st);
	if (r < 0)
		mf_reply_err(req, "lookup", parent, r);
	else
		mf_reply_entry(req, &st);
}

void mf_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	mf_fs_forget(mf_session_of(req)->fs, ino, nlookup);
	mf_reply_none(req);
}

void mf_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	MfFs *fs = mf_session_of(req)->fs;

	for (size_t i = 0; i < count; i++)
		mf_fs_forget(fs, forgets[i].ino, forgets[i].nlookup);
	mf_reply_none(req);
}
