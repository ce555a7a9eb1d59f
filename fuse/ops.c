/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/ops.h"

#define MAX_WRITE (1u << 20)
#define MAX_BACKGROUND 64u

static void init(void *userdata, struct fuse_conn_info *conn)
{
	/* Not among them, on purpose: WRITEBACK_CACHE (a write must reach us before write(2) returns),
	 * ATOMIC_O_TRUNC (truncation comes as setattr, which knows what may be truncated), HANDLE_KILLPRIV,
	 * AUTO_INVAL_DATA (would drop the pages of messages for nothing), DONT_MASK, splice (costs more than it
	 * saves at the size of mail). */
	conn->want = conn->capable & (FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS |
					     FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_ASYNC_READ | FUSE_CAP_READDIRPLUS |
					     FUSE_CAP_READDIRPLUS_AUTO);
	conn->max_write = MAX_WRITE;
	conn->max_background = MAX_BACKGROUND;
	conn->congestion_threshold = MAX_BACKGROUND * 3 / 4;
	conn->time_gran = 1;
}

const struct fuse_lowlevel_ops mf_ops = {
	.init = init,
	.lookup = mf_op_lookup,
	.forget = mf_op_forget,
	.forget_multi = mf_op_forget_multi,
	.getattr = mf_op_getattr,
	.setattr = mf_op_setattr,
	.statfs = mf_op_statfs,
	.mkdir = mf_op_mkdir,
	.rmdir = mf_op_rmdir,
	.opendir = mf_op_opendir,
	.readdir = mf_op_readdir,
	.readdirplus = mf_op_readdirplus,
	.releasedir = mf_op_releasedir,
	.fsyncdir = mf_op_fsyncdir,
	.mknod = mf_op_mknod,
	.symlink = mf_op_symlink,
	.readlink = mf_op_readlink,
	.unlink = mf_op_unlink,
	.link = mf_op_link,
	.rename = mf_op_rename,
	.open = mf_op_open,
	.create = mf_op_create,
	.read = mf_op_read,
	.write = mf_op_write,
	.flush = mf_op_flush,
	.release = mf_op_release,
	.fsync = mf_op_fsync,
	.fallocate = mf_op_fallocate,
	.lseek = mf_op_lseek,
	.setxattr = mf_op_setxattr,
	.getxattr = mf_op_getxattr,
	.listxattr = mf_op_listxattr,
	.removexattr = mf_op_removexattr,
	.getlk = mf_op_getlk,
	.setlk = mf_op_setlk,
	.flock = mf_op_flock,
};
