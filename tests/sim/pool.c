/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/pool.h"

#include "store/record.h"
#include "tests/sim/sched.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MS INT64_C(1000)
#define SECOND INT64_C(1000000)
#define OMAP_MAX 1024u /* osd_max_omap_entries_per_request */
#define MON_TIMEOUT (8 * SECOND)
#define ATTR_REFCOUNT "refcount"

struct cluster_faults cluster_faults;
bool cluster_sabotage_ping;

/* ---- the store ---- */

struct object {
	char *oid;
	enum mf_pool_which which;
	bool exists;
	GByteArray *data;
	GHashTable *xattrs; /* char * -> GBytes; replaced as a whole when it changes */
	GTree *omap;	    /* char * -> GBytes */
	GPtrArray *watches; /* struct registration */
};

struct registration {
	struct client *client;
	uint64_t cookie;
	MfWatch *watch; /* of the client; valid while that lives and has not unwatched */
	struct object *object;
	int64_t heard;
	int64_t timeout;
	bool gone;
	gint refs;
};

/* Of the cluster: what one address stands for. */
struct client {
	int life, reign;
	unsigned id;
	char *addrs;
	uint32_t incarnation;
	int64_t op_timeout;
	bool closed, blocklisted;
	int64_t blocklisted_at;
	int64_t cut_until;	  /* partition */
	int64_t dead_at;	  /* what was to arrive later does not; INT64_MAX */
	GHashTable *last_arrival; /* oid -> int64_t * */
	GQueue ops;		  /* struct op, in the order in which they were sent */
	GQueue finished;	  /* struct op, for the callback fibre */
	GQueue notified;	  /* struct delivery */
	struct waitq finisher, notifier, idle;
	bool notifier_busy;
	MfWatch *notifying;
	unsigned fibres;
};

struct MfPool {
	struct client *client;
	struct client *former; /* a blocklisted one: what was under way on it ends by itself */
	struct mf_pool_counts counts;
};

static GHashTable *objects; /* "which/oid" -> struct object */
static GPtrArray *clients;
static cluster_observer observer;
static unsigned next_client;
static uint64_t operations, next_cookie;

static int compare_keys(const void *a, const void *b, void *arg)
{
	return strcmp(a, b);
}

static GHashTable *xattrs_new(void)
{
	return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_bytes_unref);
}

static GHashTable *xattrs_copy(GHashTable *from)
{
	GHashTable *copy = xattrs_new();
	GHashTableIter iter;
	gpointer key, value;

	g_hash_table_iter_init(&iter, from);
	while (g_hash_table_iter_next(&iter, &key, &value))
		g_hash_table_replace(copy, g_strdup(key), g_bytes_ref(value));
	return copy;
}

static struct object *find(enum mf_pool_which which, const char *oid, bool make)
{
	char key[128];

	if (!objects)
		objects = g_hash_table_new(g_str_hash, g_str_equal);
	g_snprintf(key, sizeof(key), "%d/%s", (int)which, oid);
	struct object *object = g_hash_table_lookup(objects, key);
	if (!object && make) {
		object = g_new0(struct object, 1);
		object->oid = g_strdup(oid);
		object->which = which;
		object->watches = g_ptr_array_new();
		g_hash_table_insert(objects, g_strdup(key), object);
	}
	return object;
}

static void clear_object(struct object *object)
{
	object->exists = false;
	g_clear_pointer(&object->data, g_byte_array_unref);
	g_clear_pointer(&object->xattrs, g_hash_table_unref);
	g_clear_pointer(&object->omap, g_tree_unref);
}

GBytes *cluster_xattr(enum mf_pool_which which, const char *oid, const char *name)
{
	struct object *object = find(which, oid, false);

	return object && object->exists ? g_hash_table_lookup(object->xattrs, name) : NULL;
}

GBytes *cluster_omap(enum mf_pool_which which, const char *oid, const char *key)
{
	struct object *object = find(which, oid, false);

	return object && object->exists ? g_tree_lookup(object->omap, key) : NULL;
}

void cluster_foreach(void (*func)(enum mf_pool_which, const char *, void *), void *arg)
{
	GHashTableIter iter;
	gpointer key, value;

	g_hash_table_iter_init(&iter, objects);
	while (g_hash_table_iter_next(&iter, &key, &value)) {
		struct object *object = value;
		if (object->exists)
			func(object->which, object->oid, arg);
	}
}

void cluster_observe(cluster_observer func)
{
	observer = func;
}

uint64_t cluster_operations(void)
{
	return operations;
}

int cluster_reign_of(const char *addrs, uint32_t incarnation)
{
	for (unsigned i = 0; clients && i < clients->len; i++) {
		struct client *client = clients->pdata[i];
		if (strcmp(client->addrs, addrs) == 0 && client->incarnation == incarnation)
			return client->reign;
	}
	return -1;
}

/* ---- descriptions of operations ---- */

enum wop_kind {
	WOP_CREATE,
	WOP_ASSERT_EXISTS,
	WOP_CMPXATTR,
	WOP_SETXATTR,
	WOP_RMXATTR,
	WOP_WRITE_FULL,
	WOP_WRITE,
	WOP_TRUNCATE,
	WOP_REMOVE,
	WOP_EXEC,
};

struct wop_step {
	enum wop_kind kind;
	enum mf_cmp cmp;
	uint64_t offset;
	char *name;
	char *method;
	GBytes *data;
};

struct MfWop {
	gint refs;
	GArray *steps;
	GPtrArray *set_keys, *set_values, *rm_keys;
};

struct rop_range {
	char *after, *prefix;
	unsigned max;
	GArray *result;
	bool more;
};

struct MfRop {
	bool want_xattrs;
	unsigned n_ranges;
	struct rop_range range[MF_ROP_RANGES];
	GPtrArray *keys;
	GHashTable *key_result;
	bool want_read;
	uint64_t offset;
	size_t len;
	GBytes *data;
	char *class_name, *method;
	GBytes *exec_out;
	GHashTable *xattrs;
};

static void wop_step_clear(void *data)
{
	struct wop_step *step = data;

	g_free(step->name);
	g_free(step->method);
	g_clear_pointer(&step->data, g_bytes_unref);
}

MfWop *mf_wop_new(void)
{
	MfWop *wop = g_new0(MfWop, 1);

	wop->refs = 1;
	wop->steps = g_array_new(false, true, sizeof(struct wop_step));
	g_array_set_clear_func(wop->steps, wop_step_clear);
	return wop;
}

MfWop *mf_wop_ref(MfWop *wop)
{
	wop->refs++;
	return wop;
}

void mf_wop_unref(MfWop *wop)
{
	if (!wop || --wop->refs > 0)
		return;
	g_array_unref(wop->steps);
	g_clear_pointer(&wop->set_keys, g_ptr_array_unref);
	g_clear_pointer(&wop->set_values, g_ptr_array_unref);
	g_clear_pointer(&wop->rm_keys, g_ptr_array_unref);
	g_free(wop);
}

static struct wop_step *wop_add(MfWop *wop, enum wop_kind kind)
{
	g_array_set_size(wop->steps, wop->steps->len + 1);
	struct wop_step *step = &g_array_index(wop->steps, struct wop_step, wop->steps->len - 1);
	step->kind = kind;
	return step;
}

void mf_wop_create(MfWop *wop)
{
	wop_add(wop, WOP_CREATE);
}

void mf_wop_assert_exists(MfWop *wop)
{
	wop_add(wop, WOP_ASSERT_EXISTS);
}

void mf_wop_cmpxattr(MfWop *wop, const char *name, enum mf_cmp cmp, const void *value, size_t len)
{
	struct wop_step *step = wop_add(wop, WOP_CMPXATTR);

	step->name = g_strdup(name);
	step->cmp = cmp;
	step->data = g_bytes_new(value, len);
}

void mf_wop_setxattr(MfWop *wop, const char *name, const void *value, size_t len)
{
	struct wop_step *step = wop_add(wop, WOP_SETXATTR);

	step->name = g_strdup(name);
	step->data = g_bytes_new(value, len);
}

void mf_wop_rmxattr(MfWop *wop, const char *name)
{
	wop_add(wop, WOP_RMXATTR)->name = g_strdup(name);
}

void mf_wop_write_full(MfWop *wop, GBytes *data)
{
	wop_add(wop, WOP_WRITE_FULL)->data = g_bytes_ref(data);
}

void mf_wop_write(MfWop *wop, uint64_t offset, GBytes *data)
{
	struct wop_step *step = wop_add(wop, WOP_WRITE);

	step->offset = offset;
	step->data = g_bytes_ref(data);
}

void mf_wop_truncate(MfWop *wop, uint64_t size)
{
	wop_add(wop, WOP_TRUNCATE)->offset = size;
}

void mf_wop_remove(MfWop *wop)
{
	wop_add(wop, WOP_REMOVE);
}

void mf_wop_exec(MfWop *wop, const char *class_name, const char *method, const void *in, size_t len)
{
	struct wop_step *step = wop_add(wop, WOP_EXEC);

	step->name = g_strdup(class_name);
	step->method = g_strdup(method);
	step->data = g_bytes_new(in, len);
}

void mf_wop_omap_set(MfWop *wop, const char *key, const void *value, size_t len)
{
	if (!wop->set_keys) {
		wop->set_keys = g_ptr_array_new_with_free_func(g_free);
		wop->set_values = g_ptr_array_new_with_free_func((GDestroyNotify)g_bytes_unref);
	}
	g_ptr_array_add(wop->set_keys, g_strdup(key));
	g_ptr_array_add(wop->set_values, g_bytes_new(value, len));
}

void mf_wop_omap_rm(MfWop *wop, const char *key)
{
	if (!wop->rm_keys)
		wop->rm_keys = g_ptr_array_new_with_free_func(g_free);
	g_ptr_array_add(wop->rm_keys, g_strdup(key));
}

void mf_wop_full_force(MfWop *wop)
{
}

MfRop *mf_rop_new(void)
{
	return g_new0(MfRop, 1);
}

static void rop_clear_results(MfRop *rop)
{
	for (unsigned i = 0; i < rop->n_ranges; i++)
		g_clear_pointer(&rop->range[i].result, g_array_unref);
	g_clear_pointer(&rop->key_result, g_hash_table_unref);
	g_clear_pointer(&rop->data, g_bytes_unref);
	g_clear_pointer(&rop->exec_out, g_bytes_unref);
	g_clear_pointer(&rop->xattrs, g_hash_table_unref);
}

void mf_rop_free(MfRop *rop)
{
	if (!rop)
		return;
	rop_clear_results(rop);
	for (unsigned i = 0; i < rop->n_ranges; i++) {
		g_free(rop->range[i].after);
		g_free(rop->range[i].prefix);
	}
	g_clear_pointer(&rop->keys, g_ptr_array_unref);
	g_free(rop->class_name);
	g_free(rop->method);
	g_free(rop);
}

void mf_rop_xattrs(MfRop *rop)
{
	rop->want_xattrs = true;
}

void mf_rop_omap_range(MfRop *rop, const char *after, const char *prefix, unsigned max)
{
	g_assert(rop->n_ranges < MF_ROP_RANGES);
	rop->range[rop->n_ranges++] =
		(struct rop_range){ .after = g_strdup(after), .prefix = g_strdup(prefix), .max = max };
}

void mf_rop_omap_key(MfRop *rop, const char *key)
{
	if (!rop->keys)
		rop->keys = g_ptr_array_new_with_free_func(g_free);
	g_ptr_array_add(rop->keys, g_strdup(key));
}

void mf_rop_read(MfRop *rop, uint64_t offset, size_t len)
{
	rop->want_read = true;
	rop->offset = offset;
	rop->len = len;
}

void mf_rop_exec(MfRop *rop, const char *class_name, const char *method, const void *in, size_t len)
{
	rop->class_name = g_strdup(class_name);
	rop->method = g_strdup(method);
}

GBytes *mf_rop_get_xattr(MfRop *rop, const char *name)
{
	return g_hash_table_lookup(rop->xattrs, name);
}

GHashTable *mf_rop_get_xattrs(MfRop *rop)
{
	return rop->xattrs;
}

GArray *mf_rop_get_range(MfRop *rop, unsigned range, bool *ret_more)
{
	g_assert(range < rop->n_ranges);
	if (ret_more)
		*ret_more = rop->range[range].more;
	return rop->range[range].result;
}

GBytes *mf_rop_get_key(MfRop *rop, const char *key)
{
	return g_hash_table_lookup(rop->key_result, key);
}

GBytes *mf_rop_get_data(MfRop *rop)
{
	return rop->data;
}

GBytes *mf_rop_get_exec(MfRop *rop)
{
	return rop->exec_out;
}

/* ---- class refcount, as src/cls/refcount of Ceph: refs and retired tags, a line each ---- */

struct refs {
	GPtrArray *held, *retired;
};

static void refs_read(GHashTable *xattrs, bool implicit, struct refs *refs)
{
	GBytes *bytes = g_hash_table_lookup(xattrs, ATTR_REFCOUNT);

	*refs = (struct refs){ g_ptr_array_new_with_free_func(g_free), g_ptr_array_new_with_free_func(g_free) };
	if (!bytes) {
		if (implicit)
			g_ptr_array_add(refs->held, g_strdup(""));
		return;
	}
	g_autofree char *text = g_strndup(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
	for (char **line = lines; *line && **line; line++)
		g_ptr_array_add(**line == '+' ? refs->held : refs->retired, g_strdup(*line + 1));
}

static void refs_write(GHashTable *xattrs, const struct refs *refs)
{
	GString *text = g_string_new(NULL);

	for (unsigned i = 0; i < refs->held->len; i++)
		g_string_append_printf(text, "+%s\n", (char *)refs->held->pdata[i]);
	for (unsigned i = 0; i < refs->retired->len; i++)
		g_string_append_printf(text, "-%s\n", (char *)refs->retired->pdata[i]);
	g_hash_table_replace(xattrs, g_strdup(ATTR_REFCOUNT), g_string_free_to_bytes(text));
}

static void refs_clear(struct refs *refs)
{
	g_ptr_array_unref(refs->held);
	g_ptr_array_unref(refs->retired);
}

static bool has_tag(GPtrArray *tags, const char *tag, unsigned *ret_at)
{
	return g_ptr_array_find_with_equal_func(tags, tag, g_str_equal, ret_at);
}

static int refcount_exec(GHashTable *xattrs, const struct wop_step *step, bool *ret_remove)
{
	gsize len;
	const uint8_t *in = g_bytes_get_data(step->data, &len);
	struct refs refs;
	uint32_t tag_len;
	unsigned at;
	int r = 0;

	if (strcmp(step->name, "refcount") != 0 || len < 11)
		return -EOPNOTSUPP;
	memcpy(&tag_len, in + 6, 4);
	if (len != 11 + tag_len)
		return -EINVAL;
	g_autofree char *tag = g_strndup((const char *)in + 10, tag_len);
	bool implicit = in[10 + tag_len];
	refs_read(xattrs, implicit, &refs);
	if (strcmp(step->method, "get") == 0) {
		if (!has_tag(refs.held, tag, NULL) && !has_tag(refs.retired, tag, NULL)) {
			g_ptr_array_add(refs.held, g_strdup(tag));
			refs_write(xattrs, &refs);
		}
	} else if (refs.held->len == 0) {
		r = -EINVAL;
	} else {
		bool found = has_tag(refs.held, tag, &at) || (implicit && has_tag(refs.held, "", &at));
		if (found && !has_tag(refs.retired, tag, NULL)) {
			g_ptr_array_add(refs.retired, g_strdup(tag));
			g_ptr_array_remove_index(refs.held, at);
			if (refs.held->len == 0)
				*ret_remove = true;
			else
				refs_write(xattrs, &refs);
		}
	}
	refs_clear(&refs);
	return r;
}

static GBytes *refcount_read(GHashTable *xattrs)
{
	GByteArray *out = g_byte_array_new();
	uint8_t head[6] = { 1, 1 };
	struct refs refs;

	refs_read(xattrs, true, &refs);
	g_byte_array_append(out, head, sizeof(head));
	uint32_t n = refs.held->len;
	g_byte_array_append(out, (uint8_t *)&n, 4);
	for (unsigned i = 0; i < refs.held->len; i++) {
		uint32_t len = strlen(refs.held->pdata[i]);
		g_byte_array_append(out, (uint8_t *)&len, 4);
		g_byte_array_append(out, refs.held->pdata[i], len);
	}
	n = out->len - sizeof(head);
	memcpy(out->data + 2, &n, 4);
	refs_clear(&refs);
	return g_byte_array_free_to_bytes(out);
}

/* ---- applying ---- */

static int compare(GBytes *given, GBytes *stored, enum mf_cmp cmp)
{
	/* No such xattr compares as an empty one. */
	g_autoptr(GBytes) empty = g_bytes_new_static("", 0);
	int c = g_bytes_compare(given, stored ? stored : empty);

	return (cmp == MF_CMP_EQ ? c == 0 : c >= 0) ? 0 : -ECANCELED;
}

/* The object as it will be, if no step fails. */
struct draft {
	bool exists, removed;
	GByteArray *data;
	GHashTable *xattrs;
	bool own_data, own_xattrs;
};

static void touch(struct draft *d)
{
	if (!d->exists) {
		d->exists = true;
		d->data = g_byte_array_new();
		d->xattrs = xattrs_new();
		d->own_data = d->own_xattrs = true;
	}
	if (!d->own_xattrs) {
		d->xattrs = xattrs_copy(d->xattrs);
		d->own_xattrs = true;
	}
}

static void touch_data(struct draft *d)
{
	touch(d);
	if (!d->own_data) {
		GByteArray *copy = g_byte_array_sized_new(d->data->len);
		g_byte_array_append(copy, d->data->data, d->data->len);
		d->data = copy;
		d->own_data = true;
	}
}

static void resize(GByteArray *data, uint64_t size)
{
	guint old = data->len;

	g_byte_array_set_size(data, size);
	if (size > old)
		memset(data->data + old, 0, size - old);
}

static void draft_remove(struct draft *d)
{
	if (d->own_data)
		g_byte_array_unref(d->data);
	if (d->own_xattrs)
		g_hash_table_unref(d->xattrs);
	*d = (struct draft){ .removed = true };
}

static int run_step(struct draft *d, const struct wop_step *step)
{
	gsize len = 0;
	const void *bytes = step->data ? g_bytes_get_data(step->data, &len) : NULL;
	bool remove = false;
	int r;

	switch (step->kind) {
	case WOP_CREATE:
		if (d->exists)
			return -EEXIST;
		touch(d);
		return 0;
	case WOP_ASSERT_EXISTS:
		return d->exists ? 0 : -ENOENT;
	case WOP_CMPXATTR:
		return d->exists ? compare(step->data, g_hash_table_lookup(d->xattrs, step->name), step->cmp) : -ENOENT;
	case WOP_SETXATTR:
		touch(d);
		g_hash_table_replace(d->xattrs, g_strdup(step->name), g_bytes_ref(step->data));
		return 0;
	case WOP_RMXATTR:
		if (!d->exists)
			return -ENOENT;
		touch(d);
		g_hash_table_remove(d->xattrs, step->name);
		return 0;
	case WOP_WRITE_FULL:
		touch_data(d);
		g_byte_array_set_size(d->data, 0);
		g_byte_array_append(d->data, bytes, len);
		return 0;
	case WOP_WRITE:
		touch_data(d);
		if (d->data->len < step->offset + len)
			resize(d->data, step->offset + len);
		if (len > 0)
			memcpy(d->data->data + step->offset, bytes, len);
		return 0;
	case WOP_TRUNCATE:
		if (d->exists) {
			touch_data(d);
			resize(d->data, step->offset);
		}
		return 0;
	case WOP_REMOVE:
		if (!d->exists)
			return -ENOENT;
		draft_remove(d);
		return 0;
	case WOP_EXEC:
		if (!d->exists)
			return -ENOENT;
		touch(d);
		r = refcount_exec(d->xattrs, step, &remove);
		if (r == 0 && remove)
			draft_remove(d);
		return r;
	}
	return -EOPNOTSUPP;
}

static void watch_gone(struct registration *reg);

static void observe(struct client *client, struct object *object, const MfWop *wop, bool existed, GHashTable *before)
{
	if (!observer)
		return;
	g_autoptr(GPtrArray) keys = g_ptr_array_new();
	for (unsigned i = 0; wop->set_keys && i < wop->set_keys->len; i++)
		g_ptr_array_add(keys, wop->set_keys->pdata[i]);
	for (unsigned i = 0; wop->rm_keys && i < wop->rm_keys->len; i++)
		g_ptr_array_add(keys, wop->rm_keys->pdata[i]);
	observer(&(struct cluster_change){ client->life, client->incarnation, object->which, object->oid, existed,
		object->exists, before, object->xattrs, keys });
}

static int apply_write(struct client *client, enum mf_pool_which which, const char *oid, const MfWop *wop)
{
	struct object *object = find(which, oid, true);
	struct draft d = { object->exists, false, object->data, object->xattrs };
	int r = 0;

	for (unsigned i = 0; r == 0 && i < wop->steps->len; i++)
		r = run_step(&d, &g_array_index(wop->steps, struct wop_step, i));
	if (r == 0 && wop->rm_keys && !d.exists && !wop->set_keys)
		r = -ENOENT;
	if (r == 0 && wop->set_keys)
		touch(&d);
	if (r < 0) {
		if (d.own_data)
			g_byte_array_unref(d.data);
		if (d.own_xattrs)
			g_hash_table_unref(d.xattrs);
		return r;
	}
	bool existed = object->exists;
	g_autoptr(GHashTable) before = object->xattrs ? g_hash_table_ref(object->xattrs) : NULL;
	if (d.removed) {
		clear_object(object);
		for (unsigned i = object->watches->len; i > 0; i--)
			watch_gone(object->watches->pdata[i - 1]);
	}
	if (d.exists) {
		if (d.own_data) {
			g_clear_pointer(&object->data, g_byte_array_unref);
			object->data = d.data;
		}
		if (d.own_xattrs) {
			g_clear_pointer(&object->xattrs, g_hash_table_unref);
			object->xattrs = d.xattrs;
		}
		if (!object->omap)
			object->omap = g_tree_new_full(compare_keys, NULL, g_free, (GDestroyNotify)g_bytes_unref);
		object->exists = true;
		for (unsigned i = 0; wop->set_keys && i < wop->set_keys->len; i++)
			g_tree_replace(object->omap, g_strdup(wop->set_keys->pdata[i]),
				g_bytes_ref(wop->set_values->pdata[i]));
		for (unsigned i = 0; wop->rm_keys && i < wop->rm_keys->len; i++)
			g_tree_remove(object->omap, wop->rm_keys->pdata[i]);
	}
	operations++;
	observe(client, object, wop, existed, before);
	return 0;
}

static void kv_clear(void *data)
{
	struct mf_kv *kv = data;

	g_free(kv->key);
	g_bytes_unref(kv->value);
}

static void read_range(struct object *object, struct rop_range *range)
{
	range->result = g_array_new(false, false, sizeof(struct mf_kv));
	g_array_set_clear_func(range->result, kv_clear);
	range->more = false;
	GTreeNode *node = g_tree_upper_bound(object->omap, range->after);
	if (strcmp(range->prefix, range->after) > 0)
		node = g_tree_lower_bound(object->omap, range->prefix);
	for (; node && g_str_has_prefix(g_tree_node_key(node), range->prefix); node = g_tree_node_next(node)) {
		if (range->result->len >= MIN(range->max, OMAP_MAX)) {
			range->more = true;
			break;
		}
		struct mf_kv kv = { g_strdup(g_tree_node_key(node)), g_bytes_ref(g_tree_node_value(node)) };
		g_array_append_val(range->result, kv);
	}
}

static int apply_read(enum mf_pool_which which, const char *oid, MfRop *rop)
{
	struct object *object = find(which, oid, false);

	rop_clear_results(rop);
	if (!object || !object->exists)
		return -ENOENT;
	if (rop->want_xattrs)
		rop->xattrs = xattrs_copy(object->xattrs);
	for (unsigned i = 0; i < rop->n_ranges; i++)
		read_range(object, &rop->range[i]);
	if (rop->keys) {
		rop->key_result = xattrs_new();
		for (unsigned i = 0; i < rop->keys->len; i++) {
			GBytes *value = g_tree_lookup(object->omap, rop->keys->pdata[i]);
			if (value)
				g_hash_table_replace(
					rop->key_result, g_strdup(rop->keys->pdata[i]), g_bytes_ref(value));
		}
	}
	if (rop->want_read) {
		uint64_t from = MIN(rop->offset, object->data->len);
		rop->data = g_bytes_new(object->data->data + from, MIN(rop->len, object->data->len - from));
	}
	if (rop->class_name)
		rop->exec_out = refcount_read(object->xattrs);
	return 0;
}

/* ---- the way there and back ---- */

enum op_kind {
	OP_WRITE,
	OP_READ,
	OP_WATCH,
	OP_UNWATCH,
	OP_NOTIFY,
};

struct notify;

struct op {
	enum op_kind kind;
	struct client *client;
	enum mf_pool_which which;
	char *oid;
	MfWop *wop;
	MfRop *rop;    /* the caller's: touched only when the answer arrives in time */
	MfRop *answer; /* OP_READ: a description of its own, with the results */
	MfWatch *watch;
	uint64_t cookie;
	struct notify *notify;
	bool sent; /* left the client */
	bool applied;
	bool done;   /* the client has its result */
	bool resend; /* the answer comes with a resend */
	bool lose;   /* the answer does not come */
	int result, answer_result;
	unsigned refs;
	Event *timeout;
	struct waitq waiter;
	mf_pool_done func;
	mf_send_done send_func;
	unsigned alive, silent;
	void *arg;
};

static bool calm;

void cluster_calm(void)
{
	calm = true;
}

static int64_t hop(void)
{
	if (!calm && sched_chance(cluster_faults.slow))
		return sched_between(1 * MS, 400 * MS);
	return sched_between(20, 400);
}

static void op_unref(struct op *op)
{
	if (--op->refs > 0)
		return;
	g_free(op->oid);
	mf_wop_unref(op->wop);
	mf_rop_free(op->answer);
	g_free(op);
}

/* A description of its own for the answer: the caller may be gone when it comes. */
static MfRop *rop_copy(const MfRop *rop)
{
	MfRop *copy = mf_rop_new();

	copy->want_xattrs = rop->want_xattrs;
	for (unsigned i = 0; i < rop->n_ranges; i++)
		mf_rop_omap_range(copy, rop->range[i].after, rop->range[i].prefix, rop->range[i].max);
	for (unsigned i = 0; rop->keys && i < rop->keys->len; i++)
		mf_rop_omap_key(copy, rop->keys->pdata[i]);
	copy->want_read = rop->want_read;
	copy->offset = rop->offset;
	copy->len = rop->len;
	copy->class_name = g_strdup(rop->class_name);
	copy->method = g_strdup(rop->method);
	return copy;
}

static void rop_move(MfRop *to, MfRop *from)
{
	rop_clear_results(to);
	for (unsigned i = 0; i < to->n_ranges; i++) {
		to->range[i].result = g_steal_pointer(&from->range[i].result);
		to->range[i].more = from->range[i].more;
	}
	to->key_result = g_steal_pointer(&from->key_result);
	to->data = g_steal_pointer(&from->data);
	to->exec_out = g_steal_pointer(&from->exec_out);
	to->xattrs = g_steal_pointer(&from->xattrs);
}

/* The client has its result, or gives up. */
static void complete(struct op *op, int result)
{
	if (op->done)
		return;
	op->done = true;
	op->result = result;
	sched_cancel(g_steal_pointer(&op->timeout));
	g_queue_remove(&op->client->ops, op);
	if (op->kind == OP_READ && result == 0)
		rop_move(op->rop, op->answer);
	if (op->func || op->send_func) {
		op->refs++;
		g_queue_push_tail(&op->client->finished, op);
		sched_wake_all(&op->client->finisher);
	} else {
		sched_wake_all(&op->waiter);
	}
	op_unref(op);
}

static void timed_out(void *arg)
{
	struct op *op = arg;

	op->timeout = NULL;
	sched_log("client %u: %s: no answer", op->client->id, op->oid);
	complete(op, -ETIMEDOUT);
}

static void answered(void *arg)
{
	struct op *op = arg;

	/* A connection that broke: it is sent again when it is back, and the OSD answers as before. */
	if (!op->done && op->client->cut_until > sched_now())
		op->resend = true;
	else
		complete(op, op->answer_result);
	op_unref(op);
}

static void answer(struct op *op, int result)
{
	op->answer_result = result;
	if (op->lose || op->resend)
		return;
	op->refs++;
	sched_at(sched_now() + hop(), op->client->life, false, answered, op);
}

static void arrive_watch(struct op *op);
static void arrive_unwatch(struct op *op);
static void arrive_notify(struct op *op);

static void log_write(const struct op *op)
{
	if (!sched_verbose)
		return;
	g_autoptr(GString) keys = g_string_new(NULL);
	const MfWop *wop = op->wop;
	for (unsigned i = 0; wop->set_keys && i < wop->set_keys->len; i++)
		g_string_append_printf(keys, " +%s", (char *)wop->set_keys->pdata[i]);
	for (unsigned i = 0; wop->rm_keys && i < wop->rm_keys->len; i++)
		g_string_append_printf(keys, " -%s", (char *)wop->rm_keys->pdata[i]);
	for (unsigned i = 0; i < wop->steps->len; i++) {
		const struct wop_step *step = &g_array_index(wop->steps, struct wop_step, i);
		struct mf_lease_record rec;
		if (step->kind != WOP_SETXATTR || strcmp(step->name, MF_XATTR_LEASE) != 0 ||
			mf_lease_record_decode(
				g_bytes_get_data(step->data, NULL), g_bytes_get_size(step->data), &rec) < 0)
			continue;
		static const char *const modes[] = { "none", "shared", "exclusive" };
		g_string_append_printf(keys, " lease %s, epoch %lx:", modes[MIN(rec.mode, 2)], (unsigned long)rec.epoch);
		for (unsigned n = 0; n < rec.holders->len; n++)
			g_string_append_printf(keys, " %u", g_array_index(rec.holders, uint32_t, n));
		for (unsigned n = 0; n < rec.waiters->len; n++)
			g_string_append_printf(keys, " (%u)", g_array_index(rec.waiters, uint32_t, n));
		mf_lease_record_clear(&rec);
	}
	sched_log("client %u: write %s: %d%s%s", op->client->id, op->oid, op->answer_result,
		op->done   ? " (late)"
		: op->lose ? " (answer lost)"
			   : "",
		keys->str);
}

static void arrived(void *arg)
{
	struct op *op = arg;
	struct client *client = op->client;
	int64_t now = sched_now();

	if (now >= client->dead_at) {
		op_unref(op); /* did not leave the machine */
		return;
	}
	if (client->cut_until > now) {
		/* In a socket buffer: it comes when the line is back, or never. */
		if (op->done && sched_chance(5000)) {
			op_unref(op);
			return;
		}
		/* All at one moment, so that they keep their order. */
		sched_at(client->cut_until, SCHED_WORLD, false, arrived, op);
		return;
	}
	if (client->blocklisted && op->kind != OP_UNWATCH) {
		answer(op, -ESHUTDOWN);
		op_unref(op);
		return;
	}
	op->applied = true;
	switch (op->kind) {
	case OP_WRITE:
		op->answer_result = apply_write(client, op->which, op->oid, op->wop);
		log_write(op);
		answer(op, op->answer_result);
		break;
	case OP_READ:
		answer(op, apply_read(op->which, op->oid, op->answer));
		break;
	case OP_WATCH:
		arrive_watch(op);
		break;
	case OP_UNWATCH:
		arrive_unwatch(op);
		break;
	case OP_NOTIFY:
		arrive_notify(op);
		break;
	}
	op_unref(op);
}

/* When it gets to the OSD: after all that this client has sent to the object before. */
static int64_t arrival(struct client *client, const char *oid, int64_t at)
{
	int64_t *last = g_hash_table_lookup(client->last_arrival, oid);

	if (!last) {
		last = g_new0(int64_t, 1);
		g_hash_table_insert(client->last_arrival, g_strdup(oid), last);
	}
	*last = MAX(at, *last + 1);
	return *last;
}

struct resending {
	struct op *op;
	bool again; /* the OSD has forgotten that it did it */
};

static void resent(void *arg)
{
	struct resending *rs = arg;
	struct op *op = rs->op;

	op->resend = op->lose = false;
	if (op->client->cut_until > sched_now()) {
		sched_at(op->client->cut_until, SCHED_WORLD, false, resent, rs);
		return;
	}
	if (!op->done && sched_now() < op->client->dead_at) {
		if (op->client->blocklisted) {
			answer(op, -ESHUTDOWN);
		} else {
			if (rs->again && op->kind == OP_WRITE) {
				op->answer_result = apply_write(op->client, op->which, op->oid, op->wop);
				sched_log("client %u: write %s again: %d", op->client->id, op->oid, op->answer_result);
			}
			answer(op, op->answer_result);
		}
	}
	op_unref(op);
	g_free(rs);
}

static void send_op(struct op *op)
{
	struct client *client = op->client;
	int64_t now = sched_now(), at = now + hop();

	op->refs = 1;
	g_queue_push_tail(&client->ops, op);
	op->timeout = sched_at(now + client->op_timeout, client->life, false, timed_out, op);
	if (!calm && (op->kind == OP_WRITE || op->kind == OP_READ)) {
		if (sched_chance(cluster_faults.dropped)) {
			sched_log("client %u: %s will be dropped", client->id, op->oid);
			return;
		}
		if (op->kind == OP_WRITE && sched_chance(cluster_faults.late))
			at = now + client->op_timeout + sched_between(-SECOND / 2, 6 * SECOND);
		else if (sched_chance(cluster_faults.lost))
			op->lose = true;
		else if (sched_chance(cluster_faults.resent))
			op->resend = true;
	}
	if (client->cut_until > now)
		at = client->cut_until + sched_between(1, 2 * MS);
	at = arrival(client, op->oid, at);
	op->refs++;
	sched_at(at, SCHED_WORLD, false, arrived, op);
	if (op->resend) {
		struct resending *rs = g_new(struct resending, 1);
		*rs = (struct resending){ op, sched_chance(cluster_faults.forgotten) };
		op->refs++;
		/* Nothing that was sent later overtakes it. */
		sched_at(arrival(client, op->oid, at + sched_between(10 * MS, 3 * SECOND)), SCHED_WORLD, false, resent,
			rs);
	}
}

void cluster_partition(int life, int64_t until)
{
	for (unsigned i = 0; i < clients->len; i++) {
		struct client *client = clients->pdata[i];
		if (client->life == life && !client->closed)
			client->cut_until = MAX(client->cut_until, until);
	}
}

void cluster_crash(int life)
{
	for (unsigned i = 0; i < clients->len; i++) {
		struct client *client = clients->pdata[i];
		/* What it had in its socket buffers still arrives, up to some moment. */
		if (client->life == life)
			client->dead_at = sched_now() + (sched_chance(3000)	     ? 0
								: sched_chance(7000) ? sched_between(0, 2 * MS)
										     : sched_between(0, 20 * SECOND));
	}
}

/* Operations whose answer a partition swallowed are asked for again. */
static void heal(struct client *client)
{
	bool forgotten = !calm && sched_chance(cluster_faults.forgotten);

	for (GList *link = client->ops.head; link; link = link->next) {
		struct op *op = link->data;
		if (op->resend && op->applied && !op->lose) {
			struct resending *rs = g_new(struct resending, 1);
			*rs = (struct resending){ op, forgotten };
			op->refs++;
			sched_at(arrival(client, op->oid, sched_now() + hop()), SCHED_WORLD, false, resent, rs);
		}
	}
}

/* ---- connection ---- */

static void *finisher(void *arg)
{
	struct client *client = arg;

	for (;;) {
		struct op *op = g_queue_pop_head(&client->finished);
		if (!op) {
			if (client->closed)
				break;
			sched_wait(&client->finisher, "completions", client, -1);
			continue;
		}
		sched_yield_maybe();
		if (op->send_func)
			op->send_func(op->result, op->alive, op->silent, op->arg);
		else
			op->func(op->result, op->arg);
		op_unref(op);
	}
	client->fibres--;
	sched_wake_all(&client->idle);
	return NULL;
}

static void *notifier(void *arg);

static struct client *connect_client(int64_t op_timeout)
{
	struct client *client = g_new0(struct client, 1);

	client->life = sched_life();
	client->reign = sched_reign(client->life);
	client->id = ++next_client;
	client->addrs = g_strdup_printf("sim:/%u", client->id);
	client->op_timeout = op_timeout;
	client->dead_at = INT64_MAX;
	client->last_arrival = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	if (!clients)
		clients = g_ptr_array_new();
	g_ptr_array_add(clients, client);
	client->fibres = 2;
	sched_spawn(client->life, "callbacks", finisher, client, false);
	sched_spawn(client->life, "notifies", notifier, client, false);
	return client;
}

/* The client stays known: its address may still be blocklisted. */
static void disconnect(struct client *client)
{
	if (!g_queue_is_empty(&client->ops))
		sched_fail("client %u is closed with operations under way", client->id);
	client->closed = true;
	sched_wake_all(&client->finisher);
	sched_wake_all(&client->notifier);
	while (client->fibres > 0)
		sched_wait(&client->idle, "callbacks to end", client, -1);
}

int mf_pool_open(const struct mf_conf *conf, MfPool **ret_pool, char **ret_error)
{
	MfPool *pool = g_new0(MfPool, 1);

	sched_sleep(hop() * 4);
	pool->client = connect_client(MAX(conf->op_timeout_ms / 1000, 1) * SECOND);
	*ret_pool = pool;
	return 0;
}

static int ask_monitors(struct client *client);

int mf_pool_reconnect(MfPool *pool, char **ret_error)
{
	int r = ask_monitors(pool->client);

	if (r < 0) {
		*ret_error = g_strdup("the line is cut");
		return r;
	}
	/* Each ends by its timeout. */
	while (pool->former && !g_queue_is_empty(&pool->former->ops))
		sched_sleep(10 * MS);
	if (pool->former)
		disconnect(pool->former);
	pool->former = pool->client;
	sched_new_reign(sched_life());
	pool->client = connect_client(pool->former->op_timeout);
	pool->client->cut_until = pool->former->cut_until;
	return 0;
}

MfPool *mf_pool_close(MfPool *pool)
{
	if (!pool)
		return NULL;
	if (pool->former)
		disconnect(pool->former);
	disconnect(pool->client);
	return NULL;
}

static struct op *op_new_of(struct client *client, enum op_kind kind, enum mf_pool_which which, const char *oid)
{
	struct op *op = g_new0(struct op, 1);

	if (client->closed)
		sched_fail("%s: the pool is closed", oid);
	op->kind = kind;
	op->client = client;
	op->which = which;
	op->oid = g_strdup(oid);
	return op;
}

static struct op *op_new(MfPool *pool, enum op_kind kind, enum mf_pool_which which, const char *oid)
{
	return op_new_of(pool->client, kind, which, oid);
}

static const char *const op_names[] = { "a write to", "a read of", "watching", "unwatching", "a notify to" };

/* Sends and waits. The caller owns a reference. */
static int execute(struct op *op)
{
	send_op(op);
	op->refs++;
	while (!op->done) {
		sched_note("%s", op->oid);
		sched_wait(&op->waiter, op_names[op->kind], op, -1);
	}
	sched_yield_maybe();
	return op->result;
}

int mf_pool_write(MfPool *pool, enum mf_pool_which which, const char *oid, MfWop *wop)
{
	struct op *op = op_new(pool, OP_WRITE, which, oid);

	pool->counts.writes++;
	op->wop = mf_wop_ref(wop);
	int r = execute(op);
	op_unref(op);
	return r;
}

void mf_pool_write_async(
	MfPool *pool, enum mf_pool_which which, const char *oid, MfWop *wop, mf_pool_done done, void *arg)
{
	struct op *op = op_new(pool, OP_WRITE, which, oid);

	pool->counts.writes++;
	op->wop = mf_wop_ref(wop);
	op->func = done;
	op->arg = arg;
	send_op(op);
	sched_yield_maybe();
}

int mf_pool_read(MfPool *pool, enum mf_pool_which which, const char *oid, MfRop *rop)
{
	struct op *op = op_new(pool, OP_READ, which, oid);

	pool->counts.reads++;
	rop_clear_results(rop);
	op->rop = rop;
	op->answer = rop_copy(rop);
	int r = execute(op);
	op_unref(op);
	return r;
}

/* ---- watches ---- */

struct MfWatch {
	struct client *client;
	struct registration *reg;
	char *oid;
	unsigned timeout_s;
	int64_t confirmed;
	bool lost; /* the OSD does not know it any more */
	bool unwatched;
	mf_watch_func func;
	mf_watch_answer answer;
	void *arg;
	Event *tick;
	gint refs;
};

static void watch_unref(MfWatch *watch)
{
	if (--watch->refs > 0)
		return;
	g_free(watch->oid);
	g_free(watch);
}

static void notify_forget(struct registration *reg);

static void watch_gone(struct registration *reg)
{
	if (reg->gone)
		return;
	reg->gone = true;
	g_ptr_array_remove(reg->object->watches, reg);
	notify_forget(reg);
}

static void expire(void *arg)
{
	struct registration *reg = arg;

	if (reg->gone)
		return;
	if (sched_now() >= reg->heard + reg->timeout) {
		sched_log("the watch of client %u on %s is dropped", reg->client->id, reg->object->oid);
		watch_gone(reg);
		return;
	}
	sched_at(reg->heard + reg->timeout, SCHED_WORLD, true, expire, reg);
}

static void arrive_watch(struct op *op)
{
	struct object *object = find(op->which, op->oid, false);

	if (!object || !object->exists) {
		answer(op, -ENOENT);
		return;
	}
	struct registration *reg = g_new0(struct registration, 1);
	reg->client = op->client;
	reg->cookie = op->cookie;
	reg->object = object;
	reg->heard = sched_now();
	reg->timeout = op->watch->timeout_s * SECOND;
	reg->watch = op->watch;
	op->watch->refs++;
	op->watch->reg = reg;
	g_ptr_array_add(object->watches, reg);
	sched_at(reg->heard + reg->timeout, SCHED_WORLD, true, expire, reg);
	answer(op, 0);
}

static void arrive_unwatch(struct op *op)
{
	struct registration *reg = op->watch->reg;

	if (reg)
		watch_gone(reg);
	answer(op, 0);
}

struct ping {
	MfWatch *watch;
	int64_t sent;
	bool known;
};

static void ping_answered(void *arg)
{
	struct ping *ping = arg;
	MfWatch *watch = ping->watch;

	if (!watch->unwatched && watch->client->cut_until <= sched_now()) {
		if (ping->known)
			watch->confirmed = MAX(watch->confirmed, ping->sent);
		else
			watch->lost = true;
	}
	watch_unref(watch);
	g_free(ping);
}

static void ping_arrived(void *arg)
{
	struct ping *ping = arg;
	MfWatch *watch = ping->watch;
	struct client *client = watch->client;

	if (client->cut_until > sched_now() || sched_now() >= client->dead_at) {
		watch_unref(watch);
		g_free(ping);
		return;
	}
	ping->known = watch->reg && !watch->reg->gone && !client->blocklisted;
	if (ping->known)
		watch->reg->heard = sched_now();
	sched_at(sched_now() + hop(), client->life, true, ping_answered, ping);
}

static void tick(void *arg)
{
	MfWatch *watch = arg;

	watch->tick = NULL;
	if (watch->unwatched)
		return;
	if (watch->client->cut_until <= sched_now()) {
		struct ping *ping = g_new0(struct ping, 1);
		*ping = (struct ping){ watch, sched_now(), false };
		watch->refs++;
		sched_at(sched_now() + hop(), SCHED_WORLD, true, ping_arrived, ping);
	}
	watch->tick = sched_at(sched_now() + SECOND, watch->client->life, true, tick, watch);
}

int mf_watch_new(MfPool *pool, const char *oid, unsigned timeout_s, mf_watch_func func, mf_watch_answer tell, void *arg,
	MfWatch **ret_watch)
{
	struct op *op = op_new(pool, OP_WATCH, MF_POOL_META, oid);
	MfWatch *watch = g_new0(MfWatch, 1);

	watch->refs = 2; /* the caller's, the operation's */
	watch->client = pool->client;
	watch->oid = g_strdup(oid);
	watch->timeout_s = timeout_s;
	watch->func = func;
	watch->answer = tell;
	watch->arg = arg;
	op->watch = watch;
	op->cookie = ++next_cookie;
	int64_t sent = sched_now();
	int r = execute(op);
	op_unref(op);
	if (r < 0) {
		/* librados forgets it; the OSD may not have heard of that. */
		watch->unwatched = true;
		watch_unref(watch);
		return r;
	}
	watch->confirmed = sent;
	watch->tick = sched_at(sched_now() + sched_between(1, SECOND), watch->client->life, true, tick, watch);
	*ret_watch = watch;
	return 0;
}

MfWatch *mf_watch_free(MfWatch *watch)
{
	if (!watch)
		return NULL;
	struct client *client = watch->client;
	struct op *op = op_new_of(client, OP_UNWATCH, MF_POOL_META, watch->oid);

	op->watch = watch;
	execute(op);
	op_unref(op);
	watch->unwatched = true;
	sched_cancel(g_steal_pointer(&watch->tick));
	/* No callback may find it freed. */
	while (client->notifying == watch)
		sched_wait(&client->idle, "a callback to end", watch, -1);
	watch_unref(watch);
	return NULL;
}

struct delivery {
	MfWatch *watch;
	struct registration *reg;
	struct notify *notify;
	int64_t queued;
};

int mf_watch_check(MfWatch *watch)
{
	sched_yield_maybe();
	if (watch->lost)
		return -ENOTCONN;
	/* librados counts callbacks that were not run yet. */
	struct delivery *first = g_queue_peek_head(&watch->client->notified);
	int64_t stamp = first ? MIN(first->queued, watch->confirmed) : watch->confirmed;
	return (int)((sched_now() - stamp) / MS);
}

/* ---- notifies ---- */

struct notify {
	struct op *op;
	GPtrArray *waiting; /* registrations that have not answered */
	unsigned alive;
	GBytes *data;
	GBytes *answer; /* the first one; NULL: none yet */
	int64_t timeout; /* us */
	bool finished;
	Event *deadline;
	int refs;
};

static GPtrArray *notifies; /* not finished */

static void notify_unref(struct notify *notify)
{
	if (--notify->refs > 0)
		return;
	g_bytes_unref(notify->data);
	g_clear_pointer(&notify->answer, g_bytes_unref);
	g_ptr_array_unref(notify->waiting);
	g_free(notify);
}

static void notify_finish(struct notify *notify)
{
	if (notify->finished)
		return;
	notify->finished = true;
	sched_cancel(g_steal_pointer(&notify->deadline));
	g_ptr_array_remove(notifies, notify);
	notify->op->alive = notify->alive;
	notify->op->silent = notify->waiting->len;
	answer(notify->op, 0);
	op_unref(notify->op);
	notify_unref(notify);
}

static void notify_late(void *arg)
{
	struct notify *notify = arg;

	notify->deadline = NULL;
	notify_finish(notify);
}

static void notify_forget(struct registration *reg)
{
	for (unsigned i = notifies ? notifies->len : 0; i > 0; i--) {
		struct notify *notify = notifies->pdata[i - 1];
		if (g_ptr_array_remove(notify->waiting, reg) && notify->waiting->len == 0)
			notify_finish(notify);
	}
}

struct ack {
	struct notify *notify;
	struct registration *reg;
	GBytes *answer;
};

static void acked(void *arg)
{
	struct ack *ack = arg;
	struct notify *notify = ack->notify;

	if (ack->reg->client->cut_until <= sched_now() && !notify->finished &&
		g_ptr_array_remove(notify->waiting, ack->reg)) {
		notify->alive++;
		if (!notify->answer)
			notify->answer = g_steal_pointer(&ack->answer);
		if (notify->waiting->len == 0)
			notify_finish(notify);
	}
	notify_unref(notify);
	g_clear_pointer(&ack->answer, g_bytes_unref);
	g_free(ack);
}

static void *notifier(void *arg)
{
	struct client *client = arg;

	for (;;) {
		struct delivery *d = g_queue_pop_head(&client->notified);
		if (!d) {
			if (client->closed)
				break;
			sched_wait(&client->notifier, "notifies", client, -1);
			continue;
		}
		if (!d->watch->unwatched) {
			struct ack *ack = g_new(struct ack, 1);
			client->notifying = d->watch;
			sched_yield_maybe();
			*ack = (struct ack){ d->notify, d->reg, NULL };
			if (g_bytes_get_size(d->notify->data) == 0 && d->watch->answer)
				ack->answer = d->watch->answer(d->watch->arg);
			d->notify->refs++;
			sched_at(sched_now() + hop(), SCHED_WORLD, false, acked, ack);
			if (g_bytes_get_size(d->notify->data) > 0)
				d->watch->func(g_bytes_get_data(d->notify->data, NULL),
					g_bytes_get_size(d->notify->data), d->watch->arg);
			client->notifying = NULL;
			sched_wake_all(&client->idle);
		}
		watch_unref(d->watch);
		notify_unref(d->notify);
		g_free(d);
	}
	client->fibres--;
	sched_wake_all(&client->idle);
	return NULL;
}

static void delivered(void *arg)
{
	struct delivery *d = arg;
	struct client *client = d->reg->client;

	if (client->cut_until > sched_now()) {
		/* Sent again when the watch is back, if anybody still waits for it. */
		if (!d->notify->finished) {
			sched_at(client->cut_until + hop(), client->life, false, delivered, d);
			return;
		}
	} else if (!d->reg->gone && !d->watch->unwatched && !client->closed) {
		d->queued = sched_now();
		g_queue_push_tail(&client->notified, d);
		sched_wake_all(&client->notifier);
		return;
	}
	watch_unref(d->watch);
	notify_unref(d->notify);
	g_free(d);
}

static void arrive_notify(struct op *op)
{
	struct object *object = find(op->which, op->oid, false);
	struct notify *notify = op->notify;

	if (!object || !object->exists) {
		answer(op, -ENOENT);
		notify_unref(notify);
		return;
	}
	if (!notifies)
		notifies = g_ptr_array_new();
	notify->op = op;
	op->refs++;
	g_ptr_array_add(notifies, notify);
	for (unsigned i = 0; i < object->watches->len; i++)
		g_ptr_array_add(notify->waiting, object->watches->pdata[i]);
	if (notify->waiting->len == 0) {
		notify_finish(notify);
		return;
	}
	notify->deadline = sched_at(sched_now() + notify->timeout, SCHED_WORLD, false, notify_late, notify);
	for (unsigned i = 0; i < notify->waiting->len; i++) {
		struct registration *reg = notify->waiting->pdata[i];
		/* What asks whether somebody is there is told the truth. */
		bool unheard = g_bytes_get_size(notify->data) > 0 && sched_chance(cluster_faults.unheard);
		for (int n = unheard ? 0 : sched_chance(cluster_faults.twice) ? 2 : 1; n > 0; n--) {
			struct delivery *d = g_new0(struct delivery, 1);
			*d = (struct delivery){ reg->watch, reg, notify, 0 };
			reg->watch->refs++;
			notify->refs++;
			sched_at(sched_now() + hop(), reg->client->life, false, delivered, d);
		}
	}
}

static struct op *notify_new(MfPool *pool, const char *oid, unsigned timeout_s, const void *data, size_t len)
{
	struct op *op = op_new(pool, OP_NOTIFY, MF_POOL_META, oid);

	pool->counts.notifies++;
	op->notify = g_new0(struct notify, 1);
	op->notify->refs = 1;
	op->notify->data = g_bytes_new(data, len);
	op->notify->timeout = MAX(timeout_s, 1) * SECOND;
	op->notify->waiting = g_ptr_array_new();
	return op;
}

void mf_pool_send(
	MfPool *pool, const char *oid, unsigned timeout_s, const void *data, size_t len, mf_send_done done, void *arg)
{
	struct op *op = notify_new(pool, oid, timeout_s, data, len);

	op->send_func = done;
	op->arg = arg;
	send_op(op);
	sched_yield_maybe();
}

int mf_pool_ask(MfPool *pool, const char *oid, unsigned timeout_s, GBytes **ret_answer, unsigned *ret_alive,
	unsigned *ret_silent)
{
	struct op *op = notify_new(pool, oid, timeout_s, NULL, 0);
	struct notify *notify = op->notify;

	notify->refs++;
	if (cluster_sabotage_ping)
		notify->timeout = SECOND / 10;
	int r = execute(op);
	*ret_answer = g_steal_pointer(&notify->answer);
	notify_unref(notify);

	*ret_alive = op->alive;
	*ret_silent = op->silent;
	if (cluster_sabotage_ping)
		*ret_silent = 0;
	op_unref(op);
	return r;
}

int mf_pool_ping(MfPool *pool, const char *oid, unsigned timeout_s, unsigned *ret_alive, unsigned *ret_silent)
{
	g_autoptr(GBytes) answer = NULL;

	return mf_pool_ask(pool, oid, timeout_s, &answer, ret_alive, ret_silent);
}

/* ---- monitors ---- */

/* Waits for the line to the monitors. */
static int ask_monitors(struct client *client)
{
	int64_t give_up = sched_now() + MON_TIMEOUT;

	sched_sleep(hop() * 2);
	if (client->cut_until <= sched_now())
		return 0;
	sched_sleep(MIN(client->cut_until, give_up) - sched_now());
	return sched_now() >= give_up ? -ETIMEDOUT : 0;
}

int mf_pool_blocklist(MfPool *pool, const char *addrs, unsigned seconds)
{
	g_auto(GStrv) list = g_strsplit(addrs, ",", -1);
	int r = ask_monitors(pool->client);

	if (r < 0)
		return r;
	sched_sleep(sched_between(50 * MS, 900 * MS));
	for (unsigned i = 0; i < clients->len; i++) {
		struct client *client = clients->pdata[i];
		if (!g_strv_contains((const char *const *)list, client->addrs))
			continue;
		sched_log("client %u is blocklisted", client->id);
		client->blocklisted = !cluster_faults.weak_blocklist;
		GHashTableIter iter;
		gpointer key, value;
		g_hash_table_iter_init(&iter, objects);
		while (g_hash_table_iter_next(&iter, &key, &value)) {
			struct object *object = value;
			for (unsigned k = object->watches->len; k > 0; k--) {
				struct registration *reg = object->watches->pdata[k - 1];
				if (reg->client == client)
					watch_gone(reg);
			}
		}
	}
	sched_sleep(sched_between(50 * MS, 400 * MS));
	return 0;
}

const char *mf_pool_addrs(MfPool *pool)
{
	return pool->client->addrs;
}

int mf_pool_space(MfPool *pool, struct mf_pool_space *ret_space)
{
	int r = ask_monitors(pool->client);

	if (r == 0)
		*ret_space = (struct mf_pool_space){ UINT64_C(1) << 40, UINT64_C(1) << 39, g_hash_table_size(objects) };
	return r;
}

void mf_pool_counts(MfPool *pool, struct mf_pool_counts *ret_counts)
{
	*ret_counts = pool->counts;
}

void cluster_set_incarnation(MfPool *pool, uint32_t incarnation)
{
	pool->client->incarnation = incarnation;
}

void cluster_heal(int life)
{
	for (unsigned i = 0; i < clients->len; i++) {
		struct client *client = clients->pdata[i];
		if (client->life == life && !client->closed && client->cut_until <= sched_now())
			heal(client);
	}
}
