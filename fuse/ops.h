/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse/ops.h - the handlers of the kernel's requests, one file op-*.c per family.
 *
 * Model:   inode numbers are those of sync/fs.h; the root is FUSE_ROOT_ID; generations are always 0, for no number is
 *          ever used twice.
 * Threads: called from the workers of libfuse.
 */
#ifndef MF_FUSE_OPS_H
#define MF_FUSE_OPS_H

#include "fuse/session.h"

extern const struct fuse_lowlevel_ops mf_ops;

void mf_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void mf_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup);
void mf_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);

void mf_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void mf_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi);
void mf_op_statfs(fuse_req_t req, fuse_ino_t ino);

void mf_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void mf_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void mf_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void mf_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void mf_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void mf_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void mf_op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
MfDirHandle *mf_dirhandle_free(MfDirHandle *handle); /* returns NULL */

void mf_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void mf_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void mf_op_readlink(fuse_req_t req, fuse_ino_t ino);
void mf_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void mf_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name);
void mf_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
	unsigned flags);

void mf_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void mf_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void mf_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void mf_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi);
void mf_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void mf_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void mf_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void mf_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi);
void mf_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);

void mf_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void mf_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void mf_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void mf_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

void mf_op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *fl);
void mf_op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *fl, int sleep);
void mf_op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op);

#endif
