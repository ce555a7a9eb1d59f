/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse/reply.h - every answer to the kernel.
 *
 * Model:   the only place where the sign of an error flips, and where timeouts are chosen. What was counted for the
 *          kernel (a lookup, an open handle) is given back when the answer does not reach it.
 * Threads: any; call with no lock held. The request is gone afterwards.
 */
#ifndef MF_FUSE_REPLY_H
#define MF_FUSE_REPLY_H

#include "fuse/session.h"

/* @r: 0 or -errno. @op and @ino: for the log, which tells damaged data. */
void mf_reply_err(fuse_req_t req, const char *op, uint64_t ino, int r);
void mf_reply_none(fuse_req_t req);

void mf_reply_entry(fuse_req_t req, const struct mf_stat *st);
void mf_reply_attr(fuse_req_t req, const struct mf_stat *st);
/* The same of what is known without a lease: whatever this node may do, and not to be kept. */
void mf_reply_known_entry(fuse_req_t req, const struct mf_stat *st);
void mf_reply_known_attr(fuse_req_t req, const struct mf_stat *st);
/* Each takes over @handle. */
void mf_reply_open(fuse_req_t req, struct fuse_file_info *fi, MfHandle *handle);
void mf_reply_create(fuse_req_t req, const struct mf_stat *st, struct fuse_file_info *fi, MfHandle *handle);
void mf_reply_opendir(fuse_req_t req, struct fuse_file_info *fi, MfDirHandle *handle);

/* @counted: uint64_t inode numbers whose lookups lie in @buf; NULL: none. */
void mf_reply_dir(fuse_req_t req, const char *buf, size_t len, const GArray *counted);
void mf_reply_buf(fuse_req_t req, const void *buf, size_t len);
void mf_reply_write(fuse_req_t req, size_t len);
void mf_reply_readlink(fuse_req_t req, const char *target);
void mf_reply_statfs(fuse_req_t req, const struct mf_fs_space *space);
void mf_reply_xattr_size(fuse_req_t req, size_t len);
void mf_reply_lock(fuse_req_t req, const struct flock *fl);
void mf_reply_lseek(fuse_req_t req, off_t offset);

/* The lock requests of struct mf_filelock_done, whose cookies are fuse_req_t. */
void mf_reply_done(GArray *done);

/* For readdirplus, which packs its entries itself. */
void mf_reply_fill_entry(const struct mf_stat *st, struct fuse_entry_param *ret_entry);

#endif
