/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/reply.h"

#include "fuse/ops.h"
#include "locking/filelock.h"

#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

#define BLOCK_SIZE 4096u
#define LOG_EVERY_US G_USEC_PER_SEC

static void log_damage(const char *op, uint64_t ino, int r)
{
	static GMutex lock;
	static int64_t last;	   /* protected by lock */
	static unsigned unwritten; /* protected by lock */
	int64_t now = g_get_monotonic_time();
	unsigned others = 0;
	bool write;

	g_mutex_lock(&lock);
	write = !last || now - last >= LOG_EVERY_US;
	if (write) {
		others = unwritten;
		unwritten = 0;
		last = now;
	} else {
		unwritten++;
	}
	g_mutex_unlock(&lock);

	if (write && others)
		g_warning("%s of inode %" G_GINT64_MODIFIER "x: %s (and %u more such errors before)", op, ino,
			g_strerror(-r), others);
	else if (write)
		g_warning("%s of inode %" G_GINT64_MODIFIER "x: %s", op, ino, g_strerror(-r));
}

/* To what the system calls document. */
static int errno_of(int r)
{
	switch (r) {
	case -ESHUTDOWN:
	case -EOWNERDEAD:
		return ESTALE;
	case -EBADMSG:
	case -EPROTONOSUPPORT:
	case -ECANCELED:
		return EIO;
	default:
		return r > 0 ? EIO : -r;
	}
}

/* What cannot be done here and now may be elsewhere, or later. Postfix bounces the message that it delivers at EIO and at
 * ETIMEDOUT, and keeps it for another try at EAGAIN and at ESTALE (mbox_dsn() in its src/global/mbox_open.c). A name is
 * looked up once more at ESTALE, which is to the good after this node has joined anew, and else a second time to wait. For
 * a write EAGAIN would mean another thing. */
static int to_be_tried_again(const char *op, int error, bool fenced)
{
	static const char *const writing[] = { "write", "flush", "fsync", "fsyncdir", "fallocate", NULL };
	static const char *const naming[] = { "lookup", "getattr", "setattr", "open", "create", "mknod", "mkdir",
		"symlink", "link", "unlink", "rmdir", "rename", NULL };

	if (error == EIO && (fenced || g_strv_contains(writing, op)))
		return ESTALE;
	if (error == ETIMEDOUT && g_strv_contains(writing, op))
		return ESTALE;
	return error == ETIMEDOUT && g_strv_contains(naming, op) ? EAGAIN : error;
}

void mf_reply_err(fuse_req_t req, const char *op, uint64_t ino, int r)
{
	int error = errno_of(r);
	bool fenced = error == EIO && mf_node_is_fenced(mf_session_of(req)->node);

	/* Being taken over is logged once, by session.c. */
	if (error == EIO && !fenced)
		log_damage(op, ino, r);
	fuse_reply_err(req, to_be_tried_again(op, error, fenced));
}

void mf_reply_none(fuse_req_t req)
{
	fuse_reply_none(req);
}

static struct timespec timespec_of(int64_t ns)
{
	int64_t sec = ns / 1000000000;
	int64_t rest = ns % 1000000000;

	if (rest < 0) {
		sec--;
		rest += 1000000000;
	}
	return (struct timespec){ .tv_sec = sec, .tv_nsec = rest };
}

static void fill_stat(const struct mf_stat *st, struct stat *ret)
{
	*ret = (struct stat){
		.st_ino = st->ino,
		.st_mode = st->attr.mode,
		.st_nlink = st->nlink,
		.st_uid = st->attr.uid,
		.st_gid = st->attr.gid,
		.st_size = (off_t)st->attr.size,
		.st_blocks = (blkcnt_t)((st->attr.size + 511) / 512),
		.st_blksize = BLOCK_SIZE,
		.st_atim = timespec_of(st->attr.atime),
		.st_mtim = timespec_of(st->attr.mtime),
		.st_ctim = timespec_of(st->attr.ctime),
	};
}

/* The node was stopped while it worked on the request, and somebody else may hold by now what the answer was read from. */
static bool is_too_late(fuse_req_t req, const char *op, uint64_t ino)
{
	MfNode *node = mf_session_of(req)->node;

	if (G_LIKELY(!mf_node_is_due(node)) || mf_node_check(node) == 0)
		return false;
	mf_reply_err(req, op, ino, -ESTALE); /* a walk along a path starts anew */
	return true;
}

void mf_reply_fill_entry(const struct mf_stat *st, struct fuse_entry_param *ret_entry)
{
	*ret_entry = (struct fuse_entry_param){
		.ino = st->ino,
		.attr_timeout = st->attr_ms / 1000.0,
		.entry_timeout = st->name_ms / 1000.0,
	};
	fill_stat(st, &ret_entry->attr);
}

void mf_reply_entry(fuse_req_t req, const struct mf_stat *st)
{
	struct mf_session *session = mf_session_of(req);
	struct fuse_entry_param entry;

	mf_reply_fill_entry(st, &entry);
	if (is_too_late(req, "lookup", st->ino) || fuse_reply_entry(req, &entry) < 0)
		mf_fs_forget(session->fs, st->ino, 1);
	mf_fs_answered(session->fs, st);
}

void mf_reply_attr(fuse_req_t req, const struct mf_stat *st)
{
	struct mf_session *session = mf_session_of(req);
	struct stat attr;

	fill_stat(st, &attr);
	if (!is_too_late(req, "getattr", st->ino))
		fuse_reply_attr(req, &attr, st->attr_ms / 1000.0);
	mf_fs_answered(session->fs, st);
}

void mf_reply_known_entry(fuse_req_t req, const struct mf_stat *st)
{
	struct mf_session *session = mf_session_of(req);
	struct fuse_entry_param entry;

	mf_reply_fill_entry(st, &entry);
	entry.attr_timeout = entry.entry_timeout = 0;
	if (fuse_reply_entry(req, &entry) < 0)
		mf_fs_forget(session->fs, st->ino, 1);
}

void mf_reply_known_attr(fuse_req_t req, const struct mf_stat *st)
{
	struct stat attr;

	fill_stat(st, &attr);
	fuse_reply_attr(req, &attr, 0);
}

static void close_file(struct mf_session *session, MfHandle *handle)
{
	g_autoptr(GArray) done = mf_filelock_done_new();

	mf_session_remove_file(session, handle);
	mf_fs_release(session->fs, handle, done);
	mf_reply_done(done);
}

static void prepare_open(struct mf_session *session, struct fuse_file_info *fi, MfHandle *handle)
{
	/* Pages of anything but a sealed message could become stale. */
	if (mf_handle_immutable(handle))
		fi->keep_cache = 1;
	else
		fi->direct_io = 1;
	fi->fh = (uintptr_t)handle;
	mf_session_add_file(session, handle);
}

void mf_reply_open(fuse_req_t req, struct fuse_file_info *fi, MfHandle *handle)
{
	struct mf_session *session = mf_session_of(req);

	prepare_open(session, fi, handle);
	if (fuse_reply_open(req, fi) < 0)
		close_file(session, handle);
}

void mf_reply_create(fuse_req_t req, const struct mf_stat *st, struct fuse_file_info *fi, MfHandle *handle)
{
	struct mf_session *session = mf_session_of(req);
	struct fuse_entry_param entry;

	mf_reply_fill_entry(st, &entry);
	prepare_open(session, fi, handle);
	if (fuse_reply_create(req, &entry, fi) < 0) {
		close_file(session, handle);
		mf_fs_forget(session->fs, st->ino, 1);
	}
	mf_fs_answered(session->fs, st);
}

void mf_reply_opendir(fuse_req_t req, struct fuse_file_info *fi, MfDirHandle *handle)
{
	struct mf_session *session = mf_session_of(req);

	fi->fh = (uintptr_t)handle;
	mf_session_add_dir(session, handle);
	if (fuse_reply_open(req, fi) < 0) {
		mf_session_remove_dir(session, handle);
		mf_dirhandle_free(handle);
	}
}

void mf_reply_dir(fuse_req_t req, const char *buf, size_t len, const GArray *counted)
{
	struct mf_session *session = mf_session_of(req);

	if ((!is_too_late(req, "readdir", 0) && fuse_reply_buf(req, buf, len) == 0) || !counted)
		return;
	for (guint i = 0; i < counted->len; i++)
		mf_fs_forget(session->fs, g_array_index(counted, uint64_t, i), 1);
}

void mf_reply_buf(fuse_req_t req, const void *buf, size_t len)
{
	if (!is_too_late(req, "read", 0))
		fuse_reply_buf(req, buf, len);
}

void mf_reply_write(fuse_req_t req, size_t len)
{
	fuse_reply_write(req, len);
}

void mf_reply_readlink(fuse_req_t req, const char *target)
{
	fuse_reply_readlink(req, target);
}

void mf_reply_statfs(fuse_req_t req, const struct mf_fs_space *space)
{
	fsblkcnt_t left = space->free / BLOCK_SIZE;
	struct statvfs st = {
		.f_bsize = BLOCK_SIZE,
		.f_frsize = BLOCK_SIZE,
		.f_blocks = space->total / BLOCK_SIZE,
		.f_bfree = left,
		.f_bavail = left,
		/* There is no table of inodes: as many as there is room for. */
		.f_files = space->files + left,
		.f_ffree = left,
		.f_favail = left,
		.f_namemax = NAME_MAX,
	};

	fuse_reply_statfs(req, &st);
}

void mf_reply_xattr_size(fuse_req_t req, size_t len)
{
	fuse_reply_xattr(req, len);
}

void mf_reply_lock(fuse_req_t req, const struct flock *fl)
{
	fuse_reply_lock(req, fl);
}

void mf_reply_lseek(fuse_req_t req, off_t offset)
{
	fuse_reply_lseek(req, offset);
}

void mf_reply_done(GArray *done)
{
	for (guint i = 0; i < done->len; i++) {
		const struct mf_filelock_done *d = &g_array_index(done, struct mf_filelock_done, i);

		fuse_reply_err(d->cookie, errno_of(d->result));
	}
	g_array_set_size(done, 0);
}
