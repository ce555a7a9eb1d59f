/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store/conf.h - the settings of one mount: mailfs.conf and -o key=value.
 *
 * Model:   one table (conf.c) holds each key with its type, default, limits and one line of help. The parser, --help,
 *          "mailfsctl conf" and scripts/check-conf all read that table. The file is read by GKeyFile; its one group
 *          is [mailfs].
 * Owns:    struct mf_conf owns its strings; mf_conf_free() frees them all.
 * Threads: none inside; fill it in before threads start, then treat it as constant.
 * Errors:  0 or -errno. On failure *ret_error (if asked for) is one line to show, without a newline; free with
 *          g_free(). A setting that fails leaves the configuration as it was.
 */
#ifndef MF_STORE_CONF_H
#define MF_STORE_CONF_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define MF_CONF_FILE "/etc/mailfs/mailfs.conf"
#define MF_CONF_NAME_MAX 64 /* bytes in `fs' and `node' */

enum mf_conf_compression {
	MF_CONF_COMPRESSION_NONE,
	MF_CONF_COMPRESSION_LZ4,
};

enum mf_conf_log_level {
	MF_CONF_LOG_ERROR,
	MF_CONF_LOG_WARNING,
	MF_CONF_LOG_INFO,
	MF_CONF_LOG_DEBUG,
};

typedef struct mf_conf {
	char *ceph_conf; /* path of the cluster's ceph.conf */
	char *client;	 /* "client.NAME" */
	char *fs;	 /* RADOS namespace */
	char *meta_pool;
	char *data_pool;
	char *node;    /* this machine, unique among the live nodes of a filesystem */
	char *run_dir; /* control sockets */
	enum mf_conf_compression compression;
	unsigned commit_interval_ms;
	unsigned op_timeout_ms;
	unsigned watch_timeout_s;
	unsigned recall_timeout_ms;
	uint64_t cache_size; /* bytes */
	bool sync_rename;
	unsigned split_entries;
	enum mf_conf_log_level log_level;
} mf_conf;

/* What mf_conf_foreach() shows of one key. Every pointer is valid during the call only. */
struct mf_conf_entry {
	const char *key;
	const char *value;	   /* as it would be written in the file */
	const char *default_value; /* likewise; that of `node' is the host name of this machine */
	const char *type;	   /* "seconds", "yes|no", "lz4|none", ... */
	const char *help;	   /* one line, no full stop */
};

typedef void (*mf_conf_func)(const struct mf_conf_entry *entry, void *arg);

/* The defaults. Never fails. */
struct mf_conf *mf_conf_new(void);

/* NULL ok; returns NULL. */
struct mf_conf *mf_conf_free(struct mf_conf *conf);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(mf_conf, mf_conf_free)

/* Reads @path into @conf; with @path NULL reads MF_CONF_FILE, which then need not exist.
 * -ENOENT and the like when it cannot be read, -EINVAL for what stands in it ("mailfs.conf: unknown key 'foo'"). Of a
 * key given twice the last counts, as GKeyFile has it. */
int mf_conf_load_file(struct mf_conf *conf, const char *path, char **ret_error);

/* Sets one key from its text. -ENOENT: no such key; -EINVAL: bad value. */
int mf_conf_set(struct mf_conf *conf, const char *key, const char *value, char **ret_error);

/* The same from "key=value". */
int mf_conf_set_pair(struct mf_conf *conf, const char *pair, char **ret_error);

/* Is there such a key? */
bool mf_conf_has_key(const char *key);

/* Calls @func for each key in the order of the table. */
void mf_conf_foreach(const struct mf_conf *conf, mf_conf_func func, void *arg);

#endif
