/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store/keys.h - names of objects, of xattrs and of omap keys, and how Maildir names are read.
 *
 * Model:   the one place that spells a name that lies in RADOS (doc/FORMAT.md lists them).
 * Owns:    strings returned are the caller's to g_free().
 * Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MF_OID_SUPER "super"
#define MF_OID_MEMBERS "members"
#define MF_ROOT_INO UINT64_C(1)
#define MF_NAME_MAX 255u /* bytes in a file name */

/* xattrs */
#define MF_XATTR_RECORD "rec"	/* super; node.*; m.* header; f.*.0 attributes; d.* attributes */
#define MF_XATTR_EPOCH "epoch"	/* 16 hex digits: d.*, f.* */
#define MF_XATTR_LAST "last"	/* version, incarnation, sequence of the last commit: d.* */
#define MF_XATTR_SHARD "shard"	/* counts and times of what lies in this object's omap: d.* */
#define MF_XATTR_LEASE "lease"	/* d.* */
#define MF_XATTR_LINKED "linked" /* attributes of a message with several names: m.* */
#define MF_XATTR_PUBLISHED "published" /* had a name that may be elsewhere now, so no orphan of a crash: m.* */
#define MF_XATTR_OWNER "owner"	/* addresses of the client that made it: node.* */
#define MF_XATTR_VERSION "version" /* compare-and-set counter: members */
#define MF_XATTR_INTEREST "i." /* + incarnation, 8 hex: its kernel has the directory, and it does not have the lease: d.* */
#define MF_XATTR_USER "u."	/* + what stands behind "user." */

/* Whose entries: a directory's own, or those of the cur, new and tmp that live inside it. */
enum mf_space {
	MF_SPACE_SELF,
	MF_SPACE_CUR,
	MF_SPACE_NEW,
	MF_SPACE_TMP,
	MF_SPACES,
};

/* omap keys of a directory; "<letter>/" and then */
#define MF_KEY_CHANGE "z/" /* ring: version, 16 hex */
#define MF_KEY_REAP "x/"   /* to delete: inode.tag, 16 hex each */
#define MF_KEY_INTENT "r/" /* a rename that leaves this directory: operation id, 16 hex */
#define MF_KEY_GAIN "g/"   /* a rename that came in and whose intent is still there */
#define MF_KEY_OPEN "o/"   /* a node that gave up the lease has the inode open: inode.incarnation, 16 hex each */
#define MF_KEY_LOCKS "l/"  /* file locks held, and waited for, on an inode: its number, 16 hex */
#define MF_KEY_REFERENCE "k/" /* node.*: a reference taken for a name that may not be there yet: tag.directory */
#define MF_KEY_PREFIX 2u   /* length of these and of "e/", "c/", "n/", "t/" */

char *mf_oid_dir(uint64_t ino, uint32_t shard); /* d.<ino>, d.<ino>.<shard> */
char *mf_oid_message(uint64_t ino, uint32_t stripe);
char *mf_oid_file(uint64_t ino, uint32_t stripe);
char *mf_oid_node(uint32_t incarnation);

char *mf_key_entry(enum mf_space space, const char *name);
bool mf_key_is_entry(const char *key, enum mf_space *ret_space); /* name = key + MF_KEY_PREFIX */
char *mf_key_pair(const char *prefix, uint64_t first, uint64_t second);
char *mf_key_reap(uint64_t ino, uint64_t tag);
char *mf_key_number(const char *prefix, uint64_t number);
/* 16 hex digits behind @prefix. */
bool mf_key_parse_number(const char *key, const char *prefix, uint64_t *ret_number);

char *mf_xattr_interest(uint32_t incarnation);
bool mf_xattr_parse_interest(const char *xattr, uint32_t *ret_incarnation);

/* The space that a directory of this name inside another one is; MF_SPACE_SELF for any other name. */
enum mf_space mf_space_of_name(const char *name);
const char *mf_space_name(enum mf_space space);

/* The base of a Maildir name: what stands before ":2," (Dovecot and the Maildir specification put flags behind it), so
 * that a message keeps it when its flags change. Returns the length. */
size_t mf_maildir_base_len(const char *name);

/* Hash of the base name, for the choice of a shard. Stable for ever: FNV-1a 64, folded to 32 bits. */
uint32_t mf_name_hash(const char *name);

/* 0, -ENAMETOOLONG, or -EINVAL for "", ".", ".." and names with '/'. */
int mf_name_check(const char *name);
