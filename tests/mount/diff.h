/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/mount/diff.h - the parts of difftest: one operation done on two trees, and the comparison of what it did.
 *
 * Model:   side 0 (A) is the filesystem under test, side 1 (B) a local one that is believed. A `struct op` is plain
 *          data; an actor (this process, or one of the forked helpers, so that POSIX locks have several owners)
 *          executes it on one side and answers with a `struct result`. Every path is relative to the tree's root,
 *          and the actor is in a chroot of that tree while it works, so no link leads out of it.
 *          Side A may be mounted several times, each mount a node: an operation is done on one and looked at on
 * another. Threads: none; one step at a time.
 */
#ifndef TESTS_MOUNT_DIFF_H
#define TESTS_MOUNT_DIFF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

enum { SIDE_A, SIDE_B, NSIDES };
/* one slot more than steps use: what a rule tries on B goes there */
enum { NACTORS = 8, NSLOTS = 8, SLOT_DRY = NSLOTS, NCREDS = 4, PATH_CAP = 3000, NAME_CAP = 300, NNODES = NACTORS };

enum op_kind {
	OP_LSTAT,
	OP_STAT,
	OP_ACCESS,
	OP_CHMOD,
	OP_FCHMOD,
	OP_CHOWN,
	OP_LCHOWN,
	OP_FCHOWN,
	OP_UTIMENS,
	OP_LUTIMENS,
	OP_FUTIMENS,
	OP_TRUNCATE,
	OP_FTRUNCATE,
	OP_MKNOD,
	OP_MKDIR,
	OP_UNLINK,
	OP_RMDIR,
	OP_SYMLINK,
	OP_READLINK,
	OP_RENAME,
	OP_LINK,
	OP_OPEN,
	OP_CLOSE,
	OP_READ,
	OP_PREAD,
	OP_WRITE,
	OP_PWRITE,
	OP_LSEEK,
	OP_SEEKDATA,
	OP_SETFL,
	OP_FALLOCATE,
	OP_FSYNC,
	OP_FDATASYNC,
	OP_READDIR,
	OP_STATFS,
	OP_SETXATTR,
	OP_GETXATTR,
	OP_LISTXATTR,
	OP_REMOVEXATTR,
	OP_FSETXATTR,
	OP_FGETXATTR,
	OP_POSIX_LOCK,
	OP_POSIX_GETLK,
	OP_OFD_LOCK,
	OP_OFD_GETLK,
	OP_FLOCK,
	OP_SNAPFD, /* only fstat(slot); part of no step of its own */
	OP_KINDS
};

struct op {
	enum op_kind kind;
	int actor, cred, slot;
	int node; /* where A does it; what a slot holds is on the node that the actor is on */
	mode_t umask;
	char path[PATH_CAP];  /* also the symlink's text's place, the link's or rename's source */
	char path2[PATH_CAP]; /* rename/link: target; symlink: the text */
	char name[NAME_CAP];  /* xattr name */
	int flags;	      /* open, rename, fallocate, xattr, access, flock, lock type */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	int whence;
	off_t off, len;
	struct timespec ts[2];
	uint64_t seed; /* of the bytes written */
	bool together; /* one of several steps that make or remove a Maildir */
};

struct result {
	int err;     /* 0 or errno */
	int64_t ret; /* count or offset where the call has one */
	uint64_t hash;
	int lock_type;
	int64_t lock_start, lock_len;
	pid_t lock_pid;
	bool have_fd; /* the slot was open: fd_pre, fd_post, pos are set */
	struct stat fd_pre, fd_post;
	int64_t pos;
	struct stat named; /* of the file that utimensat named, before anything reads it */
	char note[400];	   /* not empty: this side contradicts itself */
};

/* What one slot of one actor holds, as the driver knows it. */
struct slot {
	bool open;
	int accmode;
	int flags;
	mode_t type;
	ino_t ino_b;	    /* the inode on side B */
	bool direct_writer; /* created in cur/ or new/ and not closed since */
	char path[PATH_CAP];
};

struct cred {
	uid_t uid;
	gid_t gid;
	int ngroups;
	gid_t groups[3];
};

enum rules { RULES_AUTO, RULES_POSIX, RULES_MAILFS };

struct features {
	bool user_xattr, zero_range, punch_hole, exchange, fine_time;
};

struct world {
	const char *dir[NSIDES];
	int root[NSIDES]; /* the tree; of A: on the node that looks */
	int actors;	  /* of NACTORS; actor i opens and locks on node i % nodes */
	int nodes;	  /* mounts of A */
	const char *node_dir[NNODES];
	int node_root[NNODES];
	int view;	    /* the node that looks */
	int backup;	    /* a directory on side B outside of the tree */
	pid_t pid[NACTORS]; /* who owns which lock */
	struct slot slot[NACTORS][NSLOTS + 1];
	struct features feat[NSIDES], use;
	enum rules rules;
	bool maildir, verbose, emulate;
	bool lacks_removed_dirs; /* an open directory that was removed keeps no attributes on A */
	bool avoid[OP_KINDS];
	const char *remount; /* a command that unmounts and mounts A */
	int home;	     /* the root directory outside of the trees */
	uint64_t seed, rng;
	unsigned step;
	unsigned entries; /* in the tree, at the last full comparison */
	unsigned kind_ok[OP_KINDS], kind_err[OP_KINDS], ruled[OP_KINDS], skipped;
	char why[4000]; /* the first difference of this step */
};

extern const struct cred mf_diff_creds[NCREDS];
extern const char *const mf_diff_kind_names[OP_KINDS];

/* diff-exec.c */
int mf_exec_start(struct world *w);
void mf_exec_stop(struct world *w);
void mf_exec_enter(struct world *w, int side); /* chroot and chdir to that tree */
void mf_exec_op(struct world *w, int side, const struct op *op, struct result *ret);
bool mf_exec_set_perturb(const char *spec);
void mf_fill(unsigned char *buf, size_t len, uint64_t seed);
uint64_t mf_hash(const void *buf, size_t len, uint64_t h);

/* diff-gen.c */
uint64_t mf_rand(struct world *w);
unsigned mf_rand_below(struct world *w, unsigned n);
void mf_gen_op(struct world *w, struct op *op);

/* diff-rules.c: what mailfs answers otherwise than a local filesystem */
struct ruling {
	bool skip;     /* the answer is not promised: leave the step out */
	int err[2];    /* what A must answer where B succeeds; any of the two that is set */
	bool no_b;     /* do not even try it on B */
	struct op dry; /* what to try on B in its place */
};
void mf_rules_judge(struct world *w, const struct op *op, struct ruling *ret);
void mf_rules_prepare_undo(struct world *w, const struct op *dry);
void mf_rules_forget_undo(struct world *w);
void mf_rules_undo(struct world *w, const struct op *dry);
void mf_rules_learn(struct world *w, const struct op *op); /* after a success on both; an open: only if it created */

/* The tmp directories of Maildirs, by their inodes of B, that @path is or lies in, followed or not; how many. */
enum { TMPS_MAX = 8 };
int mf_rules_tmps(struct world *w, const char *path, ino_t ret[TMPS_MAX]);
bool mf_rules_is_message(struct world *w, const char *path, struct stat *ret_st);

/* What lies in the tmp directories of Maildirs and nowhere else does not outlive the mount: off B with it. */
void mf_rules_drop_volatile(struct world *w);

/* diff-nodes.c */
struct touched;
void mf_nodes_set_up(struct world *w);
void mf_nodes_tear_down(struct world *w);
void mf_nodes_view(struct world *w, int node);
/* Draws where the step is done and who looks. False: left out, it is on two nodes at once. */
bool mf_nodes_choose(struct world *w, struct op *op);
/* The one node that may look at @path, or @other. */
int mf_nodes_viewer(struct world *w, const char *path, int other);
void mf_nodes_learn(struct world *w, const struct op *op); /* after a success on both */
/* Its nlink and ctime are not the same on all nodes now: it has or had a name in a tmp, or is a message that has or had
 * several names. */
bool mf_nodes_differ_in_links(struct world *w, const struct stat *b);
/* All nodes show the same inodes. */
bool mf_nodes_compare(struct world *w, const struct touched *t);

/* diff-remount.c */
bool mf_remount(struct world *w);

/* diff-state.c */
struct touched {
	int n;
	struct {
		char path[PATH_CAP];
		bool follow;
		int err[NSIDES];
		struct stat st[NSIDES];
	} at[12];
};
void mf_state_touch(struct world *w, const struct op *op, struct touched *t);
void mf_state_restat(struct world *w, struct touched *t);
bool mf_state_compare_stat(struct world *w, const char *what, const struct stat *a, const struct stat *b);
bool mf_state_compare_path(struct world *w, const char *path);
bool mf_state_compare_fd(struct world *w, const struct op *op);
bool mf_state_compare_tree(struct world *w);
bool mf_state_differs(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *mf_show(const char *path); /* printable; one of a few static buffers */
void mf_parent(const char *path, char *ret);

static inline bool mf_ts_equal(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

#endif
