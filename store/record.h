/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store/record.h - the records that lie in RADOS: plain data here, bytes there.
 *
 * Model:   each record is one frame of store/bytes.h with its own type. Versions: a writer appends fields and raises
 *          the version; it raises `compat' only when an older reader would do harm. doc/FORMAT.md gives every byte.
 * Owns:    a decoded record owns its strings and arrays until mf_*_clear().
 * Threads: any.
 * Errors:  -EBADMSG damaged, -EPROTONOSUPPORT made by an incompatible newer version.
 */
#pragma once

#include "store/keys.h"

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define MF_FORMAT_VERSION 1u
#define MF_FEATURES_INCOMPAT UINT64_C(0) /* all that this version knows */
#define MF_STRIPE_SIZE (4u << 20)	  /* plain bytes of a message an object */
#define MF_FILE_STRIPE (1u << 20)	  /* bytes of a plain file an object */
#define MF_DIGEST_LEN 32u		  /* SHA-256 */

enum mf_kind {
	MF_KIND_DIR = 1,
	MF_KIND_SUBDIR = 2, /* cur, new or tmp: lives inside its parent's object */
	MF_KIND_MESSAGE = 3,
	MF_KIND_FILE = 4,
	MF_KIND_SYMLINK = 5,
};

struct mf_attr {
	uint32_t mode; /* type and permissions, as st_mode */
	uint32_t uid, gid;
	int64_t atime, mtime, ctime; /* ns since 1970 */
	uint64_t size;
};

/* object `super' */
struct mf_super {
	uint8_t uuid[16];
	uint32_t format;
	uint64_t features_compat, features_incompat;
	uint64_t root_ino;
	uint32_t message_stripe, file_stripe;
	int64_t created;
};

/* omap of `members', key: incarnation, 8 hex digits */
enum mf_member_state {
	MF_MEMBER_LIVE = 1,
	MF_MEMBER_EVICTING = 2,
	MF_MEMBER_LOST = 3,
	MF_MEMBER_CLEAN = 4,
};

struct mf_member {
	uint8_t state;
	uint32_t generation; /* of a live record: raised when its node proved itself again after a lost watch */
	uint32_t watch_timeout_s;
	int64_t since; /* ns; of an evicting one: when that began */
	char *node;
	char *addrs; /* to blocklist */
	char *mountpoint;
	char *boot_id; /* these four tell a dead process of the same machine at once */
	uint64_t pid_ns;
	uint32_t pid;
	uint64_t start_ticks;
};

/* node.<incarnation>: inode counters [low, high) that may belong to objects that no directory names yet */
struct mf_window {
	uint32_t low, high;
};

enum mf_lease_mode {
	MF_LEASE_NONE = 0,
	MF_LEASE_SHARED = 1,
	MF_LEASE_EXCLUSIVE = 2,
};

struct mf_lease_record {
	uint8_t mode;
	uint64_t epoch;
	uint64_t stamp_below; /* objects of the directory with an epoch below must be stamped before they are read */
	uint64_t serial;      /* raised by every write, so that no two records of one directory are equal */
	GArray *holders;      /* uint32_t incarnations */
	GArray *waiters;      /* the same: who asked the holder for it, first come first served */
};

struct mf_shard_ref {
	uint32_t id;	 /* of the object: d.<ino>.<id>; 0 is the head itself */
	uint8_t depth;	 /* how many low bits of the name hash count */
	uint32_t prefix; /* their value */
};

/* d.<ino> */
struct mf_dir_record {
	struct mf_attr attr;
	uint64_t parent;
	uint32_t mtime_gen[MF_SPACES]; /* raised by utimens: see mf_shard_times */
	struct {
		uint64_t ino; /* 0: there is none */
		struct mf_attr attr;
	} sub[MF_SPACES]; /* [MF_SPACE_SELF] unused */
	uint32_t next_shard;
	GArray *shards; /* struct mf_shard_ref; at least one */
};

/* Times of one space as changed by the entries of one shard. The directory's time is the latest among the shards and
 * the head that have the highest generation. */
struct mf_shard_times {
	uint32_t gen;
	int64_t mtime, ctime;
};

/* each object of a directory */
struct mf_shard_record {
	uint32_t n_entries;
	uint32_t n_subdirs[MF_SPACES];
	struct mf_shard_times times[MF_SPACES];
	uint64_t ring_low; /* oldest version that the change ring still has */
};

#define MF_DIRENT_LINKED 1u   /* a message with several names: its attributes lie with its bytes */
#define MF_DIRENT_UNSEALED 2u /* was still being written; its header knows its size */

struct mf_dirent_record {
	uint8_t kind;
	uint8_t flags;
	uint64_t ino;
	uint64_t tag;	      /* reference to the bytes that this name holds; 0: the first one */
	struct mf_attr attr;  /* messages and symlinks */
	char *target;	      /* symlinks */
};

/* m.<ino> */
struct mf_message_record {
	uint64_t ino;
	uint64_t dir;

	uint8_t sealed;
	uint8_t codec;
	uint32_t n_stripes;
	struct mf_attr attr;
	uint8_t digest[MF_DIGEST_LEN];
	char *name; /* the first one */
	uint8_t *stripe_digests; /* n_stripes x MF_DIGEST_LEN when n_stripes > 1, else NULL */
};

/* f.<ino>.0 */
struct mf_file_record {
	uint64_t ino;
	uint64_t dir;
	struct mf_attr attr;
};

/* omap x/ */
struct mf_reap_record {
	uint8_t kind;
	uint64_t ino, tag, size;
};

/* omap r/: the name @src_key leaves this directory for @dst_key of @dst_dir */
struct mf_intent_record {
	uint64_t ino; /* what @src_key named */
	uint64_t dst_dir;
	char *src_key, *dst_key;
	GBytes *after; /* a dirent record to put at @src_key (exchange), or NULL */
};

int mf_super_encode(const struct mf_super *rec, GByteArray **ret);
int mf_super_decode(const void *data, size_t len, struct mf_super *ret);
int mf_member_encode(const struct mf_member *rec, GByteArray **ret);
int mf_member_decode(const void *data, size_t len, struct mf_member *ret);
void mf_member_clear(struct mf_member *rec);
int mf_window_encode(const struct mf_window *rec, GByteArray **ret);
int mf_window_decode(const void *data, size_t len, struct mf_window *ret);
int mf_lease_record_encode(const struct mf_lease_record *rec, GByteArray **ret);
int mf_lease_record_decode(const void *data, size_t len, struct mf_lease_record *ret);
void mf_lease_record_clear(struct mf_lease_record *rec);
int mf_dir_record_encode(const struct mf_dir_record *rec, GByteArray **ret);
int mf_dir_record_decode(const void *data, size_t len, struct mf_dir_record *ret);
void mf_dir_record_clear(struct mf_dir_record *rec);
int mf_shard_record_encode(const struct mf_shard_record *rec, GByteArray **ret);
int mf_shard_record_decode(const void *data, size_t len, struct mf_shard_record *ret);
int mf_dirent_encode(const struct mf_dirent_record *rec, GByteArray **ret);
int mf_dirent_decode(const void *data, size_t len, struct mf_dirent_record *ret);
void mf_dirent_clear(struct mf_dirent_record *rec);
int mf_message_record_encode(const struct mf_message_record *rec, GByteArray **ret);
int mf_message_record_decode(const void *data, size_t len, struct mf_message_record *ret);
void mf_message_record_clear(struct mf_message_record *rec);
int mf_file_record_encode(const struct mf_file_record *rec, GByteArray **ret);
int mf_file_record_decode(const void *data, size_t len, struct mf_file_record *ret);
int mf_attr_record_encode(const struct mf_attr *rec, GByteArray **ret);
int mf_attr_record_decode(const void *data, size_t len, struct mf_attr *ret);
int mf_reap_encode(const struct mf_reap_record *rec, GByteArray **ret);
int mf_reap_decode(const void *data, size_t len, struct mf_reap_record *ret);
int mf_intent_encode(const struct mf_intent_record *rec, GByteArray **ret);
int mf_intent_decode(const void *data, size_t len, struct mf_intent_record *ret);
void mf_intent_clear(struct mf_intent_record *rec);
/* omap z/: the keys one commit changed; @keys NULL: too many to name */
int mf_change_encode(GPtrArray *keys, GByteArray **ret);
int mf_change_decode(const void *data, size_t len, GPtrArray **ret_keys);

