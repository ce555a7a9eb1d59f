/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/model.h - what the files of sync/ share: directories, their shards, names and inodes in memory.
 *
 * Model:   MfFs is a monitor: one lock over everything here but the bytes of files and messages. It is held for
 *          microseconds and never across RADOS; who has to wait for RADOS drops it and looks again afterwards.
 *          A directory (MfDir) is one object d.<ino> plus shards; each of these objects (MfShard) is committed on its
 *          own. A name (MfDentry) leads to an inode; an inode knows its names.
 * Owns:    an inode lives while it has a name in memory or a pin; a directory while its inode does.
 * Threads: functions of sync/ whose comment says nothing else want fs->lock held. They may drop it while they wait.
 *          Order of locks: fs->rename_lock, then a data lock (MfMessage, MfFile), then fs->lock.
 */
#pragma once

#include "locking/filelock.h"
#include "locking/lease.h"
#include "sync/fs.h"

typedef struct MfDir MfDir;
typedef struct MfShard MfShard;
typedef struct MfDentry MfDentry;
typedef struct MfMessage MfMessage;
typedef struct MfFile MfFile;
typedef struct MfStripeCache MfStripeCache;

#define MF_LAST_MAX 48u /* version.incarnation.sequence in hex, and a NUL */

struct mf_reap {
	struct mf_reap_record rec;
	uint64_t dir; /* whose to-delete list has the record; 0: none */
};

struct MfInode {
	uint64_t ino;
	enum mf_kind kind;
	enum mf_space space;  /* MF_KIND_SUBDIR: which one */
	bool attr_loaded;     /* else attr must be fetched from where its authority lies */
	bool xattrs_loaded;
	bool linked;	      /* message: may have names elsewhere; its attributes lie with its bytes */
	bool published;	      /* message: has, or had, a name that other nodes may see */
	bool unsealed;	      /* message: published while it is still being written */
	bool unnamed;	      /* no committed directory entry leads to it yet: keeps the window of inode numbers open */
	unsigned naming;      /* commits in flight that name it first */
	bool removed;	      /* the last name is gone */
	unsigned pins;	      /* operations, handles and the kernel's references */
	unsigned opens;
	unsigned writers;     /* open for writing */
	uint64_t nlookup;
	uint32_t nlink;	      /* names that are not local; directories: 2 + subdirectories */
	struct mf_attr attr;
	uint64_t attr_epoch, xattrs_epoch; /* of the lease that they were read under, where that matters */
	MfDir *dir;	      /* DIR: its own (NULL until loaded); others: where its names are, or were */
	MfDir *held_dir;      /* a pin on it: dir must stay although no name keeps it */
	bool dead;	      /* what it was has been lost with an earlier incarnation of this node */
	bool locked;	      /* processes of this node have, or had, file locks on it */
	unsigned opened_life; /* plain file: of the node, when it was opened or used last */
	unsigned whole_since; /* plain file: the life before lost some of what was written */
	uint32_t maker;	      /* plain file: pid of who made it, in this life */
	bool stray;	      /* its last name here went on another node: removed, or moved elsewhere */
	MfDentry *names;
	char *target;	      /* symlink */
	GHashTable *xattrs;   /* name behind "user." -> GBytes */
	MfMessage *message;
	MfFile *file;
	GArray *reaps;	      /* struct mf_reap: references to drop once nobody has it open */
};

struct MfDentry {
	MfInode *inode;
	MfDir *dir;
	MfDentry *next_name; /* of the same inode */
	uint64_t tag;	     /* the reference to a message's bytes that this name holds */
	bool local;	     /* in a Maildir's tmp and not published: not in RADOS */
	char key[];	     /* as in omap */
};

/* What RADOS holds under a key that was changed in memory. */
enum mf_on_disk {
	MF_ON_DISK_NO = 1,
	MF_ON_DISK_YES,
};

struct mf_batch;

struct MfShard {
	MfDir *dir;
	struct mf_shard_ref ref;
	bool loaded;	/* record and `last' read under the present lease, object stamped where needed */
	bool known;	/* ... under this one or an earlier one: what is in memory is as of `version' */
	bool complete;	/* every entry is in memory */
	bool busy;	/* somebody reads it, or splits it: wait on cond */
	unsigned claims; /* who waits to be busy: no commit may start */
	bool blocked;	/* a rename out of here waits for its other half: no commit may start */
	bool stamped;	/* the object carries our epoch */
	bool gone;	/* its directory was removed */
	uint64_t version;
	char last[MF_LAST_MAX]; /* xattr `last' as stored */
	struct mf_shard_record rec;
	GHashTable *dirty;	 /* key -> enum mf_on_disk */
	GHashTable *values;	 /* reap, intent and gain keys -> GByteArray */
	GHashTable *reaped_names; /* key of a to-delete record that is in no commit yet -> key of the name that goes in the same */
	GHashTable *were;	 /* of event.h: what others see under changed keys; NULL: nobody is interested */
	GHashTable *doubted;	 /* names dropped from memory while the lease was elsewhere: the next catch-up reads them */
	GHashTable *dirty_files; /* MfInode, pinned: bytes or attributes to be flushed with the next commit */
	bool dirty_record;	 /* head: the directory's own record changed */
	bool times_due;		 /* commit dirty_times even so: the directory is to leave memory */
	bool dirty_times;	 /* worth a commit only together with something else */
	bool queued;		 /* in fs->dirty_shards */
	int64_t dirty_since;	 /* monotonic us */
	uint64_t seq;		 /* of the last change */
	uint64_t seq_wanted;	 /* somebody waits for all up to here */
	uint64_t seq_done;	 /* committed up to here */
	unsigned failures;	 /* counts failed commits; the last one: */
	uint64_t failed_seq;
	int failed_error;
	struct mf_batch *batch;	 /* in flight; at most one */
	GCond cond;
};

/* A node that wants our lease. */
struct mf_waiter {
	uint32_t incarnation;
	enum mf_lease_mode mode;
};

/* A request of another node that got its file lock from us: it is told once that is durable, with the lease. */
struct mf_lock_grant {
	uint32_t incarnation;
	uint64_t ino, id;
};

struct MfDir {
	MfFs *fs;
	MfInode *inode; /* its own; not counted as a pin */
	uint64_t parent;
	bool created;	/* d.<ino> is in RADOS */
	MfInode *sub[MF_SPACES]; /* cur, new, tmp that live here; pinned; NULL where there is none */
	uint32_t mtime_gen[MF_SPACES];
	uint32_t next_shard;
	GPtrArray *shards;   /* MfShard; [0] is the head */
	GHashTable *entries; /* key -> MfDentry */
	unsigned n_local;
	bool splitting;
	bool dotlocks;	/* there may be lock files of dead nodes */
	bool recovered; /* read once, and what a crash left half done is finished */
	GList lru; /* in fs->dir_lru */

	/* ---- the lease; mode NONE: what is in memory may be old ---- */
	struct mf_lease lease;
	GCond cond;	     /* any of these has changed */
	unsigned users;	     /* operations that rely on the lease: it stays */
	unsigned pins;	     /* the memory stays */
	bool acquiring;	     /* somebody asks for the lease: nobody enters */
	bool upgrading;	     /* ... for more than the shared one that we have */
	bool yielding;	     /* a job to give it up is queued or runs */
	bool draining;	     /* ... and waits for the users to leave: nobody enters */
	bool stuck;	     /* ... and could not: what comes meanwhile is served */
	GArray *waiters;     /* struct mf_waiter: nodes that want it, first come first served */
	bool passing;	     /* the next commit of the head may hand it over, too */
	bool passed;	     /* ... and has */
	struct mf_lease after; /* what is ours then */
	uint32_t passed_to;  /* the incarnation that we gave it to */
	unsigned n_passed;   /* how many of the waiters know of it by the record */
	bool queued;	     /* ... which names us as well, behind them */
	bool in_burst;	     /* one operation followed the other when it was to be given up */
	bool in_need;	     /* ... and at once when it had been given up, the last time */
	unsigned blocked;    /* operations that wait until somebody here has the lease */
	uint32_t suspect;    /* an incarnation that did not answer our recall */
	uint64_t grants;     /* notices that it may be ours now */
	int64_t held_since, used_at, contended_at; /* monotonic us */

	/* ---- what others must know or forget when it leaves ---- */
	unsigned answering;	  /* answers that the kernel may keep are on their way to it */
	int64_t kernel_until;	  /* monotonic us: until then the kernel may answer by itself */
	GHashTable *kernel_inos;  /* uint64_t: attributes that it may have */
	GHashTable *kernel_names; /* struct mf_kernel_name: names that it may have */
	struct mf_kernel_name *kernel_place; /* the one place where it has, or had, this directory */
	bool kernel_placed;	  /* it has: it was not made to forget it */
	MfInode *kernel_parent;   /* ... in this one; pinned */
	unsigned kernel_leaving;  /* it is being made to forget an earlier one ... */
	unsigned kernel_left;	  /* ... in this directory */
	GHashTable *loaded;	  /* MfInode here whose bytes or xattrs are in memory */
	GHashTable *changers;	  /* processes with changes that may not be in RADOS yet, see lost.h; NULL: none */
	GHashTable *noted_open;	  /* uint64_t: inodes that RADOS knows we have open */
	GHashTable *foreign_open; /* uint64_t -> GArray of uint32_t: who else has them open */
	GArray *interested;	  /* uint32_t: incarnations that are told what changes here, see interest.h */
	GArray *uninterested;	  /* ... whose marks go when the lease does */
	bool noted_interest;	  /* RADOS has ours */
	bool noting_interest;	  /* ... when the lease is given up */
	bool looking;		  /* it waits for a look of interest.h */
	bool look_anew;		  /* ... and then its lease is to be taken */
	uint64_t told_version;	  /* of d.<ino>: all changes up to here were made or raised here */
	uint64_t taken_version;	  /* ... when its lease was taken */
	uint64_t kept_serial;	  /* of the lease that we had, all clean, when our last life ended; 0: we had none */
	GArray *granted;	  /* struct mf_lock_grant */
	GHashTable *noted_locks;  /* uint64_t: inodes whose file locks RADOS has a record of */
};

struct MfFs {
	MfPool *pool;
	MfNode *node;
	const struct mf_conf *conf;
	GMutex rename_lock; /* renames between two directories, one at a time */
	GMutex lock;
	GHashTable *inodes; /* uint64_t * in MfInode -> MfInode */
	MfInode *root;	    /* pinned */
	MfLockTable *locks;	     /* of the inodes whose directories we hold exclusively */
	GHashTable *lock_requests;   /* void * (cookie) -> struct mf_lock_request: those of this node that wait */
	uint64_t lock_request_id;
	const struct mf_kernel_ops *kernel; /* NULL: there is none */
	void *kernel_arg;
	GThreadPool *forgetters; /* make the kernel forget; may block on its locks */
	GHashTable *held;	 /* MfInode of which mf_inode_is_held() */
	GQueue reopens;		 /* of reopen.c */
	bool reopens_expire;	 /* its job runs */
	GCond reopen_cond;
	GHashTable *unused;	 /* "o/..." keys: answers of other nodes about directories that we share */
	bool reaps_wait;	 /* for other nodes to close files: they are to be asked */
	bool local_wait;	 /* names in tmp of directories whose lease is elsewhere: these may be removed */
	bool locks_wait;	 /* requests of lock_requests, at other nodes */
	unsigned sending;	 /* notices whose fate is not known yet */
	GCond sent_cond;
	GHashTable *outboxes;	 /* of outbox.h: a set */
	GSequence *outbox_queue; /* those of which nothing is on its way, by the time when they are due */
	GCond outbox_cond;
	GThread *outbox_thread;
	GQueue dirty_shards; /* by dirty_since */
	GQueue dir_lru;	     /* head: most recently used */
	GQueue file_lru;     /* MfInode with loaded bytes of a plain file */
	uint64_t n_dentries, n_dirs;
	uint64_t commit_seq;
	MfStripeCache *cache;
	uint64_t file_bytes;  /* of plain files, in memory */
	uint64_t write_bytes; /* of messages being written, in memory */
	uint32_t next_counter, reserved;
	uint32_t window_low; /* as written to node.<incarnation> */
	bool reserving;
	GHashTable *unnamed; /* MfInode whose number the window must cover */
	GHashTable *references; /* tags noted in node.<incarnation>: their names are not committed yet */
	gint full;	     /* atomic: the last write answered -ENOSPC */
	bool closing; /* the last commits: a full pool must not lose them */
	bool stopping;
	GCond flusher_cond, reserve_cond;
	GThread *flusher;
	GThread *sweeper;
	GCond sweep_cond;
	GThread *rejoiner;
	GCond life_cond;
	unsigned life; /* how often this node has joined anew */
	GHashTable *lost;      /* inode of a directory -> set of processes: see lost.h */
	struct mf_lostlocks *lostlocks;
	uint64_t members_changed;
	uint64_t recalls; /* leases given up for others */
	uint64_t events_told, events_raised; /* see struct mf_fs_status */
	int64_t handover_us; /* what giving one up takes, on the average */
	GThreadPool *workers; /* blocking work: prerequisites of commits, reaping */
	GThreadPool *lookers; /* of interest.h */
	GThreadPool *reapers; /* blocking work that nobody waits for: deleting */
	unsigned gains_pending; /* renames between two objects that timed out half done */
	GHashTable *removed;  /* uint64_t -> directories removed here whose objects are there still, see reaper.c */
	unsigned reaping;     /* jobs queued or running */
	int unreaped;	      /* why an object without a record could not be removed at the end */
	GCond reap_cond;
	struct mf_pool_space space; /* protected by lock; statfs */
	int64_t space_at;
};

/* time of a change, ns */
int64_t mf_fs_now(void);

/* Queues blocking work; @func runs without the lock. */
typedef void (*mf_work_func)(MfFs *fs, void *arg);
void mf_fs_work(MfFs *fs, mf_work_func func, void *arg);
/* The same on a few threads, for what no commit waits for. */
void mf_fs_reap(MfFs *fs, mf_work_func func, void *arg);

/* Takes the lock. */
bool mf_fs_is_closing(MfFs *fs);

/* Latches -ENOSPC and success of writes. */
int mf_fs_note(MfFs *fs, int result);
