/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/ops.h"
#include "fuse/reply.h"
#include "locking/filelock.h"

#include <errno.h>
#include <unistd.h>

static MfHandle *handle_of(const struct fuse_file_info *fi)
{
	return (MfHandle *)(uintptr_t)fi->fh;
}

void mf_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mf_session *session = mf_session_begin(req, "open", ino);
	MfHandle *handle;
	int r;

	if (!session)
		return;
	r = mf_fs_open_file(session->fs, ino, fi->flags, (uint32_t)fuse_req_ctx(req)->pid, &handle);
	if (r < 0)
		mf_reply_err(req, "open", ino, r);
	else
		mf_reply_open(req, fi, handle);
}

void mf_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct mf_session *session = mf_session_begin(req, "create", parent);
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct mf_cred cred = { .uid = ctx->uid, .gid = ctx->gid, .pid = (uint32_t)ctx->pid };
	struct mf_stat st;
	MfHandle *handle;
	int r;

	if (!session)
		return;
	r = mf_fs_create(session->fs, parent, name, mode, fi->flags, &cred, &st, &handle);
	if (r < 0)
		mf_reply_err(req, "create", parent, r);
	else
		mf_reply_create(req, &st, fi, handle);
}

void mf_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct mf_session *session = mf_session_begin(req, "read", ino);
	g_autofree char *buf = NULL;
	ssize_t n;

	if (!session)
		return;
	buf = g_try_malloc(size);
	if (!buf && size) {
		mf_reply_err(req, "read", ino, -ENOMEM);
		return;
	}
	do
		n = mf_fs_read(session->fs, handle_of(fi), buf, size, (uint64_t)off);
	while (mf_session_again(session, (int)n));
	if (n < 0)
		mf_reply_err(req, "read", ino, (int)n);
	else
		mf_reply_buf(req, buf, (size_t)n);
}

void mf_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct mf_session *session = mf_session_begin(req, "write", ino);
	ssize_t n;

	if (!session)
		return;
	/* fi->flags are those of now: fcntl(2) may have set or cleared O_APPEND since open(2). */
	n = mf_fs_write(
		session->fs, handle_of(fi), buf, size, (uint64_t)off, fi->flags & O_APPEND, fuse_req_ctx(req)->uid);
	if (n < 0)
		mf_reply_err(req, "write", ino, (int)n);
	else
		mf_reply_write(req, (size_t)n);
}

/* A descriptor is closed: the process loses its fcntl locks on the file, whatever else it has open. */
void mf_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mf_session *session = mf_session_of(req);
	g_autoptr(GArray) done = mf_filelock_done_new();

	mf_fs_requester(0);
	mf_fs_drop_locks(session->fs, ino, fi->lock_owner, done);
	mf_reply_done(done);
	mf_reply_err(req, "flush", ino, mf_handle_is_lost(handle_of(fi)) ? -ESTALE : 0);
}

void mf_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mf_session *session = mf_session_of(req);
	g_autoptr(GArray) done = mf_filelock_done_new();

	mf_session_remove_file(session, handle_of(fi));
	mf_fs_requester(0);
	mf_fs_release(session->fs, handle_of(fi), done);
	mf_reply_done(done);
	mf_reply_err(req, "release", ino, 0);
}

void mf_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct mf_session *session = mf_session_begin(req, "fsync", ino);

	if (session)
		mf_reply_err(req, "fsync", ino, mf_fs_fsync(session->fs, handle_of(fi)));
}

void mf_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
	struct mf_session *session = mf_session_begin(req, "fallocate", ino);
	int r = -EINVAL;

	if (!session)
		return;
	if (offset >= 0 && length > 0)
		r = mf_fs_fallocate(session->fs, handle_of(fi), mode, (uint64_t)offset, (uint64_t)length);
	mf_reply_err(req, "fallocate", ino, r);
}

/* SEEK_DATA and SEEK_HOLE only, the kernel does the rest: the whole file is data. */
void mf_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct mf_session *session = mf_session_begin(req, "lseek", ino);
	struct mf_stat st;
	int r;

	if (!session)
		return;
	r = mf_fs_getattr(session->fs, ino, 0, &st);
	if (r == 0)
		mf_fs_answered(session->fs, &st);
	if (r == 0 && whence != SEEK_DATA && whence != SEEK_HOLE)
		r = -EINVAL;
	if (r == 0 && (off < 0 || (uint64_t)off >= st.attr.size))
		r = -ENXIO;
	if (r < 0)
		mf_reply_err(req, "lseek", ino, r);
	else
		mf_reply_lseek(req, whence == SEEK_DATA ? off : (off_t)st.attr.size);
}
