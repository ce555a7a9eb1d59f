/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/conf.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#define CONF_GROUP "mailfs"
#define CONF_TEXT_MAX 1024

enum type {
	TYPE_PATH,   /* absolute path */
	TYPE_CLIENT, /* client.NAME */
	TYPE_NAME,   /* [A-Za-z0-9._-]{1,64} */
	TYPE_POOL,   /* any one word */
	TYPE_CHOICE, /* one of `choices'; stored as its index in an enum */
	TYPE_BOOL,
	TYPE_MS,      /* seconds with decimals; stored in ms */
	TYPE_SECONDS, /* whole seconds */
	TYPE_COUNT,
	TYPE_SIZE, /* bytes, K/M/G */
};

struct key {
	const char *name;
	enum type type;
	size_t offset;
	const char *default_value; /* NULL: the host name */
	uint64_t min, max;	   /* in the unit of the field */
	const char *choices[5];
	const char *help;
};

#define FIELD(f) offsetof(struct mf_conf, f)

static const struct key keys[] = {
	{ "ceph_conf", TYPE_PATH, FIELD(ceph_conf), "/etc/ceph/ceph.conf",
		.help = "configuration file of the Ceph cluster" },
	{ "client", TYPE_CLIENT, FIELD(client), "client.mailfs",
		.help = "cephx user; its keyring is named by ceph_conf" },
	{ "fs", TYPE_NAME, FIELD(fs), "mailfs", .help = "the filesystem: a RADOS namespace in the pools" },
	{ "meta_pool", TYPE_POOL, FIELD(meta_pool), "mailfs_meta",
		.help = "replicated pool for directories and plain files" },
	{ "data_pool", TYPE_POOL, FIELD(data_pool), "mailfs_data",
		.help = "pool for messages; may be erasure coded, may equal meta_pool" },
	{ "node", TYPE_NAME, FIELD(node), NULL, .help = "name of this node, unique in the filesystem" },
	{ "run_dir", TYPE_PATH, FIELD(run_dir), "/run/mailfs", .help = "directory of the control sockets" },
	{ "compression", TYPE_CHOICE, FIELD(compression), "lz4", .choices = { "none", "lz4" },
		.help = "how new messages are stored" },
	{ "commit_interval", TYPE_MS, FIELD(commit_interval_ms), "1", 0, 60000,
		.help = "longest time a change without fsync waits in memory" },
	{ "op_timeout", TYPE_MS, FIELD(op_timeout_ms), "60", 1000, 3600000,
		.help = "how long a request may wait for the cluster" },
	{ "watch_timeout", TYPE_SECONDS, FIELD(watch_timeout_s), "3", 1, 60,
		.help = "silence after which a node counts as dead" },
	{ "recall_timeout", TYPE_MS, FIELD(recall_timeout_ms), "30", 1000, 3600000,
		.help = "how long a live node may keep a directory that another one asks for" },
	{ "cache_size", TYPE_SIZE, FIELD(cache_size), "256M", 8 << 20, UINT64_C(1) << 50,
		.help = "memory for cached directories, files and messages" },
	{ "sync_rename", TYPE_BOOL, FIELD(sync_rename), "no",
		.help = "rename(2) out of tmp/ returns only when it is durable" },
	{ "split_entries", TYPE_COUNT, FIELD(split_entries), "50000", 100, 200000,
		.help = "entries a directory object holds before it is split" },
	{ "log_level", TYPE_CHOICE, FIELD(log_level), "info", .choices = { "error", "warning", "info", "debug" },
		.help = "least severe message that is logged" },
};

static const struct key *key_find(const char *name)
{
	for (size_t i = 0; i < G_N_ELEMENTS(keys); i++)
		if (!strcmp(keys[i].name, name))
			return &keys[i];
	return NULL;
}

static void *field(const struct mf_conf *conf, const struct key *key)
{
	return (char *)conf + key->offset;
}

static char *type_text(const struct key *key)
{
	switch (key->type) {
	case TYPE_PATH:
		return g_strdup("path");
	case TYPE_CLIENT:
		return g_strdup("client.NAME");
	case TYPE_NAME:
	case TYPE_POOL:
		return g_strdup("name");
	case TYPE_CHOICE:
		return g_strjoinv("|", (char **)key->choices);
	case TYPE_BOOL:
		return g_strdup("yes|no");
	case TYPE_MS:
	case TYPE_SECONDS:
		return g_strdup("seconds");
	case TYPE_COUNT:
		return g_strdup("number");
	case TYPE_SIZE:
		return g_strdup("bytes");
	}
	g_assert_not_reached();
}

static char *size_text(uint64_t n)
{
	static const char units[] = "KMGT";
	int u = -1;

	while (n && n % 1024 == 0 && u < 3) {
		n /= 1024;
		u++;
	}
	return u < 0 ? g_strdup_printf("%" PRIu64, n) : g_strdup_printf("%" PRIu64 "%c", n, units[u]);
}

static char *ms_text(uint64_t ms)
{
	if (ms % 1000 == 0)
		return g_strdup_printf("%" PRIu64, ms / 1000);

	char *text = g_strdup_printf("%" PRIu64 ".%03u", ms / 1000, (unsigned)(ms % 1000));

	while (g_str_has_suffix(text, "0"))
		text[strlen(text) - 1] = 0;
	return text;
}

static char *number_text(const struct key *key, uint64_t n)
{
	switch (key->type) {
	case TYPE_MS:
		return ms_text(n);
	case TYPE_SIZE:
		return size_text(n);
	default:
		return g_strdup_printf("%" PRIu64, n);
	}
}

static char *value_text(const struct mf_conf *conf, const struct key *key)
{
	switch (key->type) {
	case TYPE_PATH:
	case TYPE_CLIENT:
	case TYPE_NAME:
	case TYPE_POOL:
		return g_strdup(*(char **)field(conf, key));
	case TYPE_CHOICE:
		return g_strdup(key->choices[*(unsigned *)field(conf, key)]);
	case TYPE_BOOL:
		return g_strdup(*(bool *)field(conf, key) ? "yes" : "no");
	case TYPE_SIZE:
		return size_text(*(uint64_t *)field(conf, key));
	case TYPE_MS:
	case TYPE_SECONDS:
	case TYPE_COUNT:
		return number_text(key, *(unsigned *)field(conf, key));
	}
	g_assert_not_reached();
}

static bool name_ok(const char *s)
{
	size_t len = strlen(s);

	return len >= 1 && len <= MF_CONF_NAME_MAX &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == len;
}

static bool graphic(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s <= ' ' || *s == 0x7f)
			return false;
	return true;
}

/* Decimal digits only: neither sign nor blank nor locale. */
static bool parse_uint(const char *s, size_t len, uint64_t *ret)
{
	uint64_t n = 0;

	if (!len)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!g_ascii_isdigit(s[i]))
			return false;
		if (!g_uint64_checked_mul(&n, n, 10) || !g_uint64_checked_add(&n, n, (uint64_t)(s[i] - '0')))
			return false;
	}
	*ret = n;
	return true;
}

static bool parse_ms(const char *s, uint64_t *ret)
{
	size_t len = strlen(s);

	if (!len || len > 16 || strspn(s, "0123456789.") != len || !strpbrk(s, "0123456789"))
		return false;

	char *end;
	double seconds = g_ascii_strtod(s, &end);

	if (*end)
		return false;
	/* Round up: a positive time must not become 0: there 0 has a meaning of its own. */
	*ret = (uint64_t)(seconds * 1000);
	if ((double)*ret < seconds * 1000 - 1e-6)
		(*ret)++;
	return true;
}

static bool parse_size(const char *s, uint64_t *ret)
{
	size_t len = strlen(s);
	unsigned shift = 0;

	if (len) {
		switch (g_ascii_toupper(s[len - 1])) {
		case 'K':
			shift = 10;
			break;
		case 'M':
			shift = 20;
			break;
		case 'G':
			shift = 30;
			break;
		case 'T':
			shift = 40;
			break;
		}
		if (shift)
			len--;
	}
	return parse_uint(s, len, ret) && g_uint64_checked_mul(ret, *ret, UINT64_C(1) << shift);
}

static int parse_bool(const char *s)
{
	static const char *const yes[] = { "yes", "true", "on", "1" };
	static const char *const no[] = { "no", "false", "off", "0" };

	for (size_t i = 0; i < G_N_ELEMENTS(yes); i++) {
		if (!g_ascii_strcasecmp(s, yes[i]))
			return 1;
		if (!g_ascii_strcasecmp(s, no[i]))
			return 0;
	}
	return -1;
}

static int bad(const struct key *key, const char *value, const char *why, char **ret_error)
{
	if (ret_error) {
		g_autofree char *shown = g_strescape(value, NULL);

		*ret_error = g_strdup_printf("bad value '%s' for %s: %s", shown, key->name, why);
	}
	return -EINVAL;
}

static int set_text(struct mf_conf *conf, const struct key *key, const char *value)
{
	char **slot = field(conf, key);

	g_free(*slot);
	*slot = g_strdup(value);
	return 0;
}

static int set_number(struct mf_conf *conf, const struct key *key, const char *value, char **ret_error)
{
	uint64_t n = 0;
	bool ok;

	if (key->type == TYPE_MS)
		ok = parse_ms(value, &n);
	else if (key->type == TYPE_SIZE)
		ok = parse_size(value, &n);
	else
		ok = parse_uint(value, strlen(value), &n);

	if (!ok || n < key->min || n > key->max) {
		g_autofree char *min = number_text(key, key->min);
		g_autofree char *max = number_text(key, key->max);
		g_autofree char *why = g_strdup_printf("a number%s from %s to %s is wanted",
			key->type == TYPE_SIZE	  ? " of bytes"
			: key->type == TYPE_COUNT ? ""
						  : " of seconds",
			min, max);

		return bad(key, value, why, ret_error);
	}
	if (key->type == TYPE_SIZE)
		*(uint64_t *)field(conf, key) = n;
	else
		*(unsigned *)field(conf, key) = (unsigned)n;
	return 0;
}

static int set_choice(struct mf_conf *conf, const struct key *key, const char *value, char **ret_error)
{
	for (unsigned i = 0; key->choices[i]; i++) {
		if (!strcmp(value, key->choices[i])) {
			*(unsigned *)field(conf, key) = i;
			return 0;
		}
	}

	g_autofree char *choices = type_text(key);
	g_autofree char *why = g_strdup_printf("one of %s is wanted", choices);

	return bad(key, value, why, ret_error);
}

static int key_set(struct mf_conf *conf, const struct key *key, const char *value, char **ret_error)
{
	int b;

	if (strlen(value) > CONF_TEXT_MAX || !g_utf8_validate(value, -1, NULL))
		return bad(key, "...", "too long or not UTF-8", ret_error);

	switch (key->type) {
	case TYPE_PATH:
		if (*value != '/')
			return bad(key, value, "an absolute path is wanted", ret_error);
		return set_text(conf, key, value);
	case TYPE_CLIENT:
		if (!g_str_has_prefix(value, "client.") || !value[7] || !graphic(value))
			return bad(key, value, "a cephx user like client.NAME is wanted", ret_error);
		return set_text(conf, key, value);
	case TYPE_NAME:
		if (!name_ok(value))
			return bad(key, value, "1 to 64 characters out of A-Z a-z 0-9 . _ - are wanted", ret_error);
		return set_text(conf, key, value);
	case TYPE_POOL:
		if (!*value || !graphic(value))
			return bad(key, value, "the name of a pool is wanted", ret_error);
		return set_text(conf, key, value);
	case TYPE_CHOICE:
		return set_choice(conf, key, value, ret_error);
	case TYPE_BOOL:
		b = parse_bool(value);
		if (b < 0)
			return bad(key, value, "yes or no is wanted", ret_error);
		*(bool *)field(conf, key) = b;
		return 0;
	case TYPE_MS:
	case TYPE_SECONDS:
	case TYPE_COUNT:
	case TYPE_SIZE:
		return set_number(conf, key, value, ret_error);
	}
	g_assert_not_reached();
}

/* The host name made into a valid `node'. */
static char *host_name(void)
{
	char name[MF_CONF_NAME_MAX + 1] = "";

	if (gethostname(name, sizeof name - 1) < 0 || !*name)
		return g_strdup("localhost");
	g_strcanon(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", '-');
	return g_strdup(name);
}

struct mf_conf *mf_conf_new(void)
{
	struct mf_conf *conf = g_new0(struct mf_conf, 1);
	g_autofree char *host = host_name();

	/* set_choice() and value_text() reach the enums as unsigned. */
	G_STATIC_ASSERT(sizeof(enum mf_conf_compression) == sizeof(unsigned));
	G_STATIC_ASSERT(sizeof(enum mf_conf_log_level) == sizeof(unsigned));

	for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
		int r = key_set(conf, &keys[i], keys[i].default_value ?: host, NULL);

		g_assert(r == 0);
	}
	return conf;
}

struct mf_conf *mf_conf_free(struct mf_conf *conf)
{
	if (!conf)
		return NULL;
	g_free(conf->ceph_conf);
	g_free(conf->client);
	g_free(conf->fs);
	g_free(conf->meta_pool);
	g_free(conf->data_pool);
	g_free(conf->node);
	g_free(conf->run_dir);
	g_free(conf);
	return NULL;
}

bool mf_conf_has_key(const char *key)
{
	return key_find(key) != NULL;
}

int mf_conf_set(struct mf_conf *conf, const char *key, const char *value, char **ret_error)
{
	const struct key *k = key_find(key);

	if (!k) {
		if (ret_error) {
			g_autofree char *shown = g_strescape(key, NULL);

			*ret_error = g_strdup_printf("unknown key '%s'", shown);
		}
		return -ENOENT;
	}
	return key_set(conf, k, value, ret_error);
}

int mf_conf_set_pair(struct mf_conf *conf, const char *pair, char **ret_error)
{
	const char *eq = strchr(pair, '=');
	g_autofree char *key = eq ? g_strndup(pair, (size_t)(eq - pair)) : NULL;

	if (!eq) {
		if (ret_error) {
			g_autofree char *shown = g_strescape(pair, NULL);

			*ret_error = g_strdup_printf(
				mf_conf_has_key(pair) ? "key '%s' wants a value: key=value" : "unknown key '%s'",
				shown);
		}
		return mf_conf_has_key(pair) ? -EINVAL : -ENOENT;
	}
	return mf_conf_set(conf, key, eq + 1, ret_error);
}

/* GLib's messages quote the file's bytes as they are. */
static char *printable(const char *message)
{
	char *text = g_strdup(message);

	for (char *c = text; *c; c++)
		if (g_ascii_iscntrl(*c))
			*c = '?';
	return text;
}

/* Sets every key of @file. Groups other than ours are mistakes. */
static int load_keys(struct mf_conf *conf, GKeyFile *file, char **ret_error)
{
	g_auto(GStrv) groups = g_key_file_get_groups(file, NULL);

	for (unsigned i = 0; groups[i]; i++) {
		if (strcmp(groups[i], CONF_GROUP)) {
			*ret_error = g_strdup_printf("unknown group [%s]; there is only [%s]", groups[i], CONF_GROUP);
			return -EINVAL;
		}
	}

	g_auto(GStrv) names = g_key_file_get_keys(file, CONF_GROUP, NULL, NULL);

	for (unsigned i = 0; names && names[i]; i++) {
		/* As it stands, without GKeyFile's escapes: what is shown and what -o takes has none either. */
		g_autofree char *value = g_key_file_get_value(file, CONF_GROUP, names[i], NULL);
		int r = mf_conf_set(conf, names[i], g_strchomp(value), ret_error);

		if (r < 0)
			return r;
	}
	return 0;
}

/* Moves what @from holds to @to and frees the rest. */
static void conf_replace(struct mf_conf *to, struct mf_conf *from)
{
	struct mf_conf old = *to;

	*to = *from;
	*from = old;
	mf_conf_free(from);
}

static struct mf_conf *conf_copy(const struct mf_conf *conf)
{
	struct mf_conf *copy = mf_conf_new();

	for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
		g_autofree char *value = value_text(conf, &keys[i]);
		int r = key_set(copy, &keys[i], value, NULL);

		g_assert(r == 0);
	}
	return copy;
}

/* GLib does not promise to leave errno as it was. */
static int file_errno(const GError *error)
{
	switch (error->domain == G_FILE_ERROR ? error->code : G_FILE_ERROR_FAILED) {
	case G_FILE_ERROR_NOENT:
		return -ENOENT;
	case G_FILE_ERROR_NOTDIR:
		return -ENOTDIR;
	case G_FILE_ERROR_ACCES:
		return -EACCES;
	case G_FILE_ERROR_PERM:
		return -EPERM;
	case G_FILE_ERROR_ISDIR:
		return -EISDIR;
	case G_FILE_ERROR_LOOP:
		return -ELOOP;
	default:
		return -EIO;
	}
}

int mf_conf_load_file(struct mf_conf *conf, const char *path, char **ret_error)
{
	g_autofree char *text = NULL;
	g_autofree char *error = NULL;
	g_autoptr(GError) gerror = NULL;
	bool optional = !path;
	int r;

	if (!path)
		path = MF_CONF_FILE;

	gsize len;

	/* Not g_key_file_load_from_file(): that refuses whatever is no regular file, /dev/null for one. */
	if (!g_file_get_contents(path, &text, &len, &gerror)) {
		r = file_errno(gerror);
		if (optional && r == -ENOENT)
			return 0;
		if (ret_error)
			*ret_error = g_strdup_printf("cannot read %s: %s", path, g_strerror(-r));
		return r;
	}
	if (!g_utf8_validate(text, (gssize)len, NULL)) { /* refuses NUL as well */
		if (ret_error)
			*ret_error = g_strdup_printf("%s: not a UTF-8 text file", path);
		return -EINVAL;
	}

	g_autoptr(GKeyFile) file = g_key_file_new();

	/* Without the flag "fs[de] = x" would be passed over in silence. */
	if (!g_key_file_load_from_data(file, text, len, G_KEY_FILE_KEEP_TRANSLATIONS, &gerror)) {
		if (ret_error) {
			g_autofree char *shown = printable(gerror->message);

			*ret_error = g_strdup_printf("%s: %s", path, shown);
		}
		return -EINVAL;
	}

	struct mf_conf *copy = conf_copy(conf);

	if (load_keys(copy, file, &error) < 0) {
		if (ret_error)
			*ret_error = g_strdup_printf("%s: %s", path, error);
		mf_conf_free(copy);
		return -EINVAL;
	}
	conf_replace(conf, copy);
	return 0;
}

void mf_conf_foreach(const struct mf_conf *conf, mf_conf_func func, void *arg)
{
	g_autoptr(mf_conf) defaults = mf_conf_new();

	for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
		g_autofree char *value = value_text(conf, &keys[i]);
		g_autofree char *default_value = value_text(defaults, &keys[i]);
		g_autofree char *type = type_text(&keys[i]);
		struct mf_conf_entry entry = {
			.key = keys[i].name,
			.value = value,
			.default_value = default_value,
			.type = type,
			.help = keys[i].help,
		};

		func(&entry, arg);
	}
}
