/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse/op-dir.c - directories: making, removing, listing.
 *
 * A listing is one snapshot, taken at offset 0 (so rewinddir(3) takes a new one). Offsets: 1 and 2 lie behind "." and
 * "..", and i + 3 behind the i-th name. */
#include "fuse/ops.h"
#include "fuse/reply.h"

#include <errno.h>
#include <sys/stat.h>

#define FIRST_ENTRY 2

struct MfDirHandle {
	uint64_t ino;
	GMutex lock;
	MfListing *listing; /* protected by lock */
};

/* A buffer that readdir fills. */
struct fill {
	fuse_req_t req;
	MfFs *fs;
	bool plus;
	char *buf;
	size_t size, used;
	GArray *counted; /* uint64_t */
};

void mf_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct mf_session *session;
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct mf_cred cred = { .uid = ctx->uid, .gid = ctx->gid, .pid = (uint32_t)ctx->pid };
	struct mf_stat st;
	int r;

	if (mf_replay_make(mf_session_of(req)->replay, req, parent, name))
		return;
	session = mf_session_begin(req, "mkdir", parent);
	if (!session)
		return;
	r = mf_fs_mkdir(session->fs, parent, name, mode, &cred, &st);
	if (r < 0)
		mf_reply_err(req, "mkdir", parent, r);
	else
		mf_reply_entry(req, &st);
}

void mf_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct mf_session *session;

	if (mf_replay_remove(mf_session_of(req)->replay, req, parent, name))
		return;
	session = mf_session_begin(req, "rmdir", parent);
	if (session)
		mf_reply_err(req, "rmdir", parent, mf_fs_rmdir(session->fs, parent, name));
}

MfDirHandle *mf_dirhandle_free(MfDirHandle *handle)
{
	mf_listing_free(handle->listing);
	g_mutex_clear(&handle->lock);
	g_free(handle);
	return NULL;
}

void mf_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	MfDirHandle *handle;

	if (!mf_session_begin(req, "opendir", ino))
		return;
	handle = g_new0(MfDirHandle, 1);
	handle->ino = ino;
	g_mutex_init(&handle->lock);
	mf_reply_opendir(req, fi, handle);
}

void mf_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	MfDirHandle *handle = (MfDirHandle *)(uintptr_t)fi->fh;

	mf_session_remove_dir(mf_session_of(req), handle);
	mf_dirhandle_free(handle);
	mf_reply_err(req, "releasedir", ino, 0);
}

void mf_op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct mf_session *session = mf_session_begin(req, "fsyncdir", ino);

	if (session)
		mf_reply_err(req, "fsyncdir", ino, mf_fs_fsyncdir(session->fs, ino));
}

/* Without attributes: for the kernel that is a name and no lookup. False when it does not fit. */
static bool add_name(struct fill *fill, const char *name, uint64_t ino, uint32_t mode, off_t next)
{
	struct fuse_entry_param entry = { .attr = { .st_ino = ino, .st_mode = mode } };
	char *at = fill->buf + fill->used;
	size_t left = fill->size - fill->used;
	size_t need = fill->plus ? fuse_add_direntry_plus(fill->req, at, left, name, &entry, next)
				 : fuse_add_direntry(fill->req, at, left, name, &entry.attr, next);

	if (need > left)
		return false;
	fill->used += need;
	return true;
}

/* 1 when it went in, 0 when it does not fit, or -errno.
 * A name that has gone meanwhile, or leads elsewhere, is listed as it was: perhaps only its flags changed, and a
 * message that exists throughout must not be missed. */
static int add_plus(struct fill *fill, uint64_t parent, const struct mf_listed *listed, off_t next)
{
	size_t left = fill->size - fill->used;
	struct fuse_entry_param entry;
	struct mf_stat st;
	size_t need;
	int r;

	/* Do not look up what cannot fit. */
	if (fuse_add_direntry_plus(fill->req, NULL, 0, listed->name, NULL, 0) > left)
		return 0;
	r = mf_fs_lookup(fill->fs, parent, listed->name, 0, &st);
	if (r == -ESHUTDOWN || r == -ETIMEDOUT)
		return r;
	/* The answer goes out with many others: the kernel may not keep it. */
	if (r == 0) {
		mf_fs_answered(fill->fs, &st);
		st.name_ms = st.attr_ms = 0;
	}
	if (r == 0 && st.ino != listed->ino) {
		mf_fs_forget(fill->fs, st.ino, 1);
		r = -ENOENT;
	}
	if (r < 0)
		return add_name(fill, listed->name, listed->ino, listed->mode, next);

	mf_reply_fill_entry(&st, &entry);
	need = fuse_add_direntry_plus(fill->req, fill->buf + fill->used, left, listed->name, &entry, next);
	if (need > left) {
		mf_fs_forget(fill->fs, st.ino, 1);
		return 0;
	}
	fill->used += need;
	g_array_append_val(fill->counted, st.ino);
	return 1;
}

/* handle->lock is held. What is in the buffer counts more than an error behind it: that comes again. */
static int fill_locked(struct fill *fill, MfDirHandle *handle, off_t off)
{
	struct mf_listed listed;
	int r;

	if (off == 0 || !handle->listing) {
		MfListing *listing;

		r = mf_fs_list(fill->fs, handle->ino, &listing);
		if (r < 0)
			return r;
		mf_listing_free(handle->listing);
		handle->listing = listing;
	}

	if (off == 0) {
		if (!add_name(fill, ".", handle->ino, S_IFDIR, 1))
			return 0;
		off = 1;
	}
	if (off == 1) {
		/* The kernel knows the parent better than we do; getcwd(3) and the like do not rely on this. */
		if (!add_name(fill, "..", FUSE_ROOT_ID, S_IFDIR, 2))
			return 0;
		off = 2;
	}
	for (; mf_listing_get(handle->listing, (uint64_t)off - FIRST_ENTRY, &listed); off++) {
		if (fill->plus)
			r = add_plus(fill, handle->ino, &listed, off + 1);
		else
			r = add_name(fill, listed.name, listed.ino, listed.mode, off + 1);
		if (r <= 0)
			return fill->used ? 0 : r;
	}
	return 0;
}

static void read_dir(fuse_req_t req, uint64_t ino, size_t size, off_t off, struct fuse_file_info *fi, bool plus)
{
	struct mf_session *session = mf_session_begin(req, "readdir", ino);
	MfDirHandle *handle = (MfDirHandle *)(uintptr_t)fi->fh;
	struct fill fill = { .req = req, .plus = plus, .size = size };
	int r;

	if (!session)
		return;
	fill.fs = session->fs;
	fill.buf = g_try_malloc(size);
	if (!fill.buf) {
		mf_reply_err(req, "readdir", ino, -ENOMEM);
		return;
	}
	if (plus)
		fill.counted = g_array_new(FALSE, FALSE, sizeof(uint64_t));

	g_mutex_lock(&handle->lock);
	do
		r = off < 0 ? -EINVAL : fill_locked(&fill, handle, off);
	while (mf_session_again(session, r));
	g_mutex_unlock(&handle->lock);

	if (r < 0)
		mf_reply_err(req, "readdir", ino, r);
	else
		mf_reply_dir(req, fill.buf, fill.used, fill.counted);
	g_clear_pointer(&fill.counted, g_array_unref);
	g_free(fill.buf);
}

void mf_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	read_dir(req, ino, size, off, fi, false);
}

void mf_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	read_dir(req, ino, size, off, fi, true);
}
