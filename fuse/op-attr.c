/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/ops.h"
#include "fuse/reply.h"

void mf_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mf_session *session;
	struct mf_stat st;
	int r;

	if (mf_replay_attr(mf_session_of(req)->replay, req, ino))
		return;
	session = mf_session_begin(req, "getattr", ino);
	if (!session)
		return;
	do
		r = mf_fs_getattr(session->fs, ino, (uint32_t)fuse_req_ctx(req)->pid, &st);
	while (mf_session_again(session, r));
	if (r < 0)
		mf_reply_err(req, "getattr", ino, r);
	else
		mf_reply_attr(req, &st);
}

static unsigned set_of(int to_set)
{
	static const struct {
		int kernel;
		unsigned ours;
	} map[] = {
		{ FUSE_SET_ATTR_MODE, MF_SET_MODE },
		{ FUSE_SET_ATTR_UID, MF_SET_UID },
		{ FUSE_SET_ATTR_GID, MF_SET_GID },
		{ FUSE_SET_ATTR_SIZE, MF_SET_SIZE },
		{ FUSE_SET_ATTR_ATIME, MF_SET_ATIME },
		{ FUSE_SET_ATTR_MTIME, MF_SET_MTIME },
		{ FUSE_SET_ATTR_ATIME_NOW, MF_SET_ATIME_NOW },
		{ FUSE_SET_ATTR_MTIME_NOW, MF_SET_MTIME_NOW },
		{ FUSE_SET_ATTR_CTIME, MF_SET_CTIME },
	};
	unsigned set = 0;

	for (size_t i = 0; i < G_N_ELEMENTS(map); i++)
		if (to_set & map[i].kernel)
			set |= map[i].ours;
	/* The kernel sets both bits for "now". */
	if (set & MF_SET_ATIME_NOW)
		set &= ~MF_SET_ATIME;
	if (set & MF_SET_MTIME_NOW)
		set &= ~MF_SET_MTIME;
	return set;
}

static int64_t ns_of(const struct timespec *ts)
{
	int64_t ns;

	/* Beyond what 64 bits of ns can tell: the nearest that they can. */
	if (__builtin_mul_overflow((int64_t)ts->tv_sec, INT64_C(1000000000), &ns) ||
		__builtin_add_overflow(ns, (int64_t)ts->tv_nsec, &ns))
		return ts->tv_sec < 0 ? INT64_MIN : INT64_MAX;
	return ns;
}

void mf_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct mf_session *session;
	struct mf_attr wanted = {
		.mode = attr->st_mode,
		.uid = attr->st_uid,
		.gid = attr->st_gid,
		.size = (uint64_t)attr->st_size,
		.atime = ns_of(&attr->st_atim),
		.mtime = ns_of(&attr->st_mtim),
		.ctime = ns_of(&attr->st_ctim),
	};
	struct mf_stat st;
	int r;

	if (mf_replay_attr(mf_session_of(req)->replay, req, ino))
		return;
	session = mf_session_begin(req, "setattr", ino);
	if (!session)
		return;
	r = mf_fs_setattr(session->fs, ino, &wanted, set_of(to_set) | (fi ? MF_SET_BY_HANDLE : 0), &st);
	if (r < 0)
		mf_reply_err(req, "setattr", ino, r);
	else
		mf_reply_attr(req, &st);
}

void mf_op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct mf_session *session = mf_session_begin(req, "statfs", ino);
	struct mf_fs_space space;
	int r;

	if (!session)
		return;
	r = mf_fs_statfs(session->fs, &space);
	if (r < 0)
		mf_reply_err(req, "statfs", ino, r);
	else
		mf_reply_statfs(req, &space);
}
