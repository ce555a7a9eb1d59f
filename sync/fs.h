/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/fs.h - the filesystem as the kernel's side sees it: operations on inode numbers.
 *
 * Model:   POSIX semantics over Maildirs in RADOS. Messages are immutable once published; tmp of a Maildir is local to
 *          this node; everything else is applied in memory and committed in order (doc/ARCHITECTURE.md).
 * Owns:    the caller owns MfFs, handles and listings until it closes them. Each successful call that fills a
 *          struct mf_entry counts as one lookup of that inode, to be given back by mf_fs_forget().
 * Threads: any thread; calls take the lock of the filesystem themselves and may block on RADOS for op_timeout.
 * Errors:  0 or -errno as the system call documents; -ETIMEDOUT: the cluster did not answer; -EIO: damaged data, or
 *          this mount was taken over meanwhile; -ESTALE, -EOWNERDEAD: what was lost with that, see rejoin.h.
 */
#pragma once

#include "locking/node.h"
#include "store/eventrecord.h"
#include "store/keys.h"

#include <fcntl.h>
#include <sys/types.h>

typedef struct MfFs MfFs;
typedef struct MfInode MfInode;
typedef struct MfHandle MfHandle;
typedef struct MfListing MfListing;

/* @conf, @pool and @node must outlive it. mf_fs_check() comes first. */
int mf_fs_open(MfPool *pool, MfNode *node, const struct mf_conf *conf, MfFs **ret_fs, char **ret_error);
/* Is there a filesystem that this version can serve? *ret_error is one line. */
int mf_fs_check(MfPool *pool, const struct mf_conf *conf, char **ret_error);
/* For whom this thread works from now on, by its pid; 0: nobody. His fsync says so when changes of his were lost with an
 * incarnation. */
void mf_fs_requester(uint32_t pid);
/* After -ESHUTDOWN of mf_node_check(): waits until this node has joined anew. 0, or -ESHUTDOWN when it does not come to that. */
int mf_fs_await_life(MfFs *fs);
/* Commits everything and frees. 0, or the error that kept changes from being committed, or objects of no name from being
 * removed. -EREMOTEIO: all that was done, but a node that lives could not be told of the last changes. It is when it finds
 * this one to have died: do not leave in order. */
int mf_fs_close(MfFs *fs);

struct mf_stat {
	uint64_t ino;
	uint32_t nlink;
	struct mf_attr attr;
	/* How long the kernel may keep the name and the attributes. Not 0: say mf_fs_answered() once it has them. */
	uint32_t name_ms, attr_ms;
	struct MfDir *answers[2];
};
void mf_fs_answered(MfFs *fs, const struct mf_stat *st);

/* What another node changed in directory @parent (its inode, be it only a cur, new or tmp), for whoever watches that. */
struct mf_kernel_event {
	enum mf_event_kind kind; /* MANY: no names */
	bool is_dir;
	uint64_t parent, new_parent; /* new_*: of MOVE */
	const char *name, *new_name;
	uint64_t ino; /* what bears the name, as far as that is known */
};

/* What the kernel is told. The first two are called on threads of their own, with no lock held, and may block. */
struct mf_kernel_ops {
	void (*forget_attr)(uint64_t ino, void *arg);
	void (*forget_name)(uint64_t parent, const char *name, void *arg);
	/* A signal has come for the lock request @cookie; called with fs->lock held. */
	bool (*is_interrupted)(void *cookie);
	/* Thread @b belongs to the process of thread @a: 1, 0, or -ESRCH when @b has ended. fs->lock held. */
	int (*same_process)(uint32_t a, uint32_t b);
	void (*lock_done)(GArray *done, void *arg); /* struct mf_filelock_done: requests to be answered */
	/* Events of one object @dir come in their order. fs->lock held. */
	void (*raise)(uint64_t dir, const struct mf_kernel_event *event, void *arg);
};
void mf_fs_set_kernel(MfFs *fs, const struct mf_kernel_ops *ops, void *arg); /* NULL: no kernel any more */

struct mf_cred {
	uint32_t uid, gid;
	uint32_t pid;
};

/* @pid: who asks, to be recognized when it opens what it found; 0: nobody. */
int mf_fs_lookup(MfFs *fs, uint64_t parent, const char *name, uint32_t pid, struct mf_stat *ret);
void mf_fs_forget(MfFs *fs, uint64_t ino, uint64_t nlookup);
/* What is known of an inode that the kernel has or had, without its lease: for whoever only needs the kernel to find it. Counts
 * as a lookup. -ESTALE: nothing. */
int mf_fs_remind(MfFs *fs, uint64_t ino, struct mf_stat *ret);
/* The names that lead from the root to a directory, as the kernel had them last: struct mf_fs_step. -ESTALE: not known. */
struct mf_fs_step {
	uint64_t parent;
	uint64_t ino;
	char name[MF_NAME_MAX + 1];
};
int mf_fs_way(MfFs *fs, uint64_t ino, GArray **ret_steps);
/* Nobody is, or waits, in it. A hint. */
bool mf_fs_is_calm(MfFs *fs, uint64_t ino);
/* @pid: as above. */
int mf_fs_getattr(MfFs *fs, uint64_t ino, uint32_t pid, struct mf_stat *ret);

#define MF_SET_MODE 1u
#define MF_SET_UID 2u
#define MF_SET_GID 4u
#define MF_SET_SIZE 8u
#define MF_SET_ATIME 16u
#define MF_SET_MTIME 32u
#define MF_SET_ATIME_NOW 64u
#define MF_SET_MTIME_NOW 128u
#define MF_SET_CTIME 256u
#define MF_SET_BY_HANDLE 512u /* through an open file: its writer may cut a message that others see already */
int mf_fs_setattr(MfFs *fs, uint64_t ino, const struct mf_attr *attr, unsigned set, struct mf_stat *ret);

/* @mode with type; regular files only. */
int mf_fs_mknod(
	MfFs *fs, uint64_t parent, const char *name, uint32_t mode, const struct mf_cred *cred, struct mf_stat *ret);
int mf_fs_create(MfFs *fs, uint64_t parent, const char *name, uint32_t mode, int flags, const struct mf_cred *cred,
	struct mf_stat *ret, MfHandle **ret_handle);
int mf_fs_mkdir(
	MfFs *fs, uint64_t parent, const char *name, uint32_t mode, const struct mf_cred *cred, struct mf_stat *ret);
int mf_fs_symlink(MfFs *fs, uint64_t parent, const char *name, const char *target, const struct mf_cred *cred,
	struct mf_stat *ret);
int mf_fs_readlink(MfFs *fs, uint64_t ino, char **ret_target);
int mf_fs_unlink(MfFs *fs, uint64_t parent, const char *name);
int mf_fs_rmdir(MfFs *fs, uint64_t parent, const char *name);
int mf_fs_link(MfFs *fs, uint64_t ino, uint64_t parent, const char *name, struct mf_stat *ret);
int mf_fs_rename(
	MfFs *fs, uint64_t parent, const char *name, uint64_t new_parent, const char *new_name, unsigned flags);

/* -ESTALE: removed since @pid looked it up; who looks up its name again and opens what that gives does not meet this a second
 * time. */
int mf_fs_open_file(MfFs *fs, uint64_t ino, int flags, uint32_t pid, MfHandle **ret_handle);
/* Drops the locks taken through it, too; waiters to answer are appended to @done, see
 * mf_filelock_done_new(). */
void mf_fs_release(MfFs *fs, MfHandle *handle, GArray *done);
uint64_t mf_handle_ino(const MfHandle *handle);
/* A published, sealed message: its pages can never become stale. */
bool mf_handle_immutable(const MfHandle *handle);
ssize_t mf_fs_read(MfFs *fs, MfHandle *handle, void *buf, size_t len, uint64_t offset);
/* @flags: of this write; O_APPEND places at the end of file. @uid: who writes, to drop SUID and SGID. */
ssize_t mf_fs_write(
	MfFs *fs, MfHandle *handle, const void *buf, size_t len, uint64_t offset, int flags, uint32_t uid);
int mf_fs_fallocate(MfFs *fs, MfHandle *handle, int mode, uint64_t offset, uint64_t len);
/* -ESTALE: what was written, or changed in the directory, was lost when this node was declared lost. */
int mf_fs_fsync(MfFs *fs, MfHandle *handle);
int mf_fs_fsyncdir(MfFs *fs, uint64_t ino);
/* Something was written through it since its last fsync, and the incarnation ended before that was surely in RADOS. */
bool mf_handle_is_lost(const MfHandle *handle);

/* A snapshot of the names at this moment. */
struct mf_listed {
	const char *name; /* valid while the listing is */
	uint64_t ino;
	uint32_t mode; /* type bits */
};
int mf_fs_list(MfFs *fs, uint64_t ino, MfListing **ret_listing);
MfListing *mf_listing_free(MfListing *listing); /* NULL ok */
bool mf_listing_get(MfListing *listing, uint64_t index, struct mf_listed *ret);

/* @name behind "user." */
int mf_fs_setxattr(MfFs *fs, uint64_t ino, const char *name, const void *value, size_t len, int flags);
int mf_fs_getxattr(MfFs *fs, uint64_t ino, const char *name, GBytes **ret_value);
int mf_fs_listxattr(MfFs *fs, uint64_t ino, GPtrArray **ret_names);
int mf_fs_removexattr(MfFs *fs, uint64_t ino, const char *name);

struct mf_fs_space {
	uint64_t total, free, files;
};
int mf_fs_statfs(MfFs *fs, struct mf_fs_space *ret);

struct mf_fs_status {
	uint64_t inodes, directories, dirty, cached_bytes;
	uint64_t shared, exclusive; /* directories by the lease that this node holds */
	uint64_t waiters;	    /* nodes that wait for these */
	uint64_t recalls;	    /* leases given up for others */
	uint64_t events_told;	    /* messages to other nodes about what changed here */
	uint64_t events_raised;	    /* events of other nodes that the kernel was given */
	uint64_t locks, lock_waits; /* file locks that this node manages; requests that wait here, and those of this node */
};
void mf_fs_status(MfFs *fs, struct mf_fs_status *ret);

/* File locks, as locking/filelock.h has them; the lock manager of an inode is the node that holds its directory. Requests
 * of processes of this node; the incarnation is filled in. What is to be answered is appended to @done (struct
 * mf_filelock_done), or comes through lock_done of the kernel's operations. */
struct mf_filelock;
int mf_fs_test_lock(MfFs *fs, const struct mf_filelock *request, bool *ret_held, struct mf_filelock *ret_holder);
/* @cookie NULL: without waiting. MF_FILELOCK_PARKED: its answer comes later. */
int mf_fs_set_lock(MfFs *fs, const struct mf_filelock *request, void *cookie, GArray *done);
/* A signal: the request is answered soon, with -EINTR if it does not have its lock by then. */
void mf_fs_cancel_lock(MfFs *fs, void *cookie, GArray *done);
/* FLUSH: fcntl and OFD locks of @owner. */
void mf_fs_drop_locks(MfFs *fs, uint64_t ino, uint64_t owner, GArray *done);
/* All requests that wait end with -EINTR: nobody is there any more who could be answered. */
void mf_fs_end_locks(MfFs *fs, GArray *done);
