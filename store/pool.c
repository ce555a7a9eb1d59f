/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/pool.h"

#include "store/fault.h"
#include "store/keys.h"

#include <errno.h>
#include <jansson.h>
#include <rados/librados.h>
#include <stdatomic.h>
#include <string.h>

#define CONNECT_TIMEOUT_S "8" /* with the start of a daemon well within 10 s */

struct client {
	rados_t cluster;
	rados_ioctx_t io[2];
	char *addrs;
	unsigned users; /* operations under way; protected by the pool's lock */
};

struct MfPool {
	GMutex lock;
	GCond idle;
	struct client *client;
	struct client *former; /* a blocklisted one: what was under way on it ends by itself */
	const struct mf_conf *conf;
	char *pool_name[2];
	atomic_uint_fast64_t reads, writes, notifies, upkeep, bytes_read, bytes_written;
};

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
	bool full_force;
	GArray *steps;	   /* struct wop_step */
	GPtrArray *set_keys; /* owned */
	GPtrArray *set_values; /* GBytes */
	GPtrArray *rm_keys;
};

struct rop_range {
	char *after;
	char *prefix;
	unsigned max;
	GArray *result; /* struct mf_kv */
	unsigned char more;
	int rval;
	rados_omap_iter_t iter;
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
	GBytes *exec_in;
	GBytes *exec_out;
	GHashTable *xattrs;
};

struct MfWatch {
	struct client *client; /* ends before its client is replaced a second time */
	char *oid;
	uint64_t cookie;
	mf_watch_func func;
	mf_watch_answer answer;
	void *arg;
};

/* ---- connection ---- */

static int fail(char **ret_error, int error, const char *format, ...) G_GNUC_PRINTF(3, 4);
static int fail(char **ret_error, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	g_autofree char *what = g_strdup_vprintf(format, args);
	va_end(args);
	if (ret_error)
		*ret_error = g_strdup_printf("%s: %s", what, g_strerror(-error));
	return error;
}

static void client_free(struct client *client)
{
	if (!client)
		return;
	for (unsigned i = 0; i < 2; i++) {
		if (client->io[i])
			rados_ioctx_destroy(client->io[i]);
	}
	if (client->cluster)
		rados_shutdown(client->cluster);
	g_free(client->addrs);
	g_free(client);
}

static int configure(rados_t cluster, const struct mf_conf *conf, char **ret_error)
{
	g_autoptr(GString) seconds = g_string_new(NULL);
	int r = rados_conf_read_file(cluster, conf->ceph_conf);

	if (r < 0)
		return fail(ret_error, r, "cannot read ceph_conf '%s'", conf->ceph_conf);
	g_string_printf(seconds, "%u", MAX(conf->op_timeout_ms / 1000, 1));
	/* The error belongs in one line of ours, not in lines of the library, nor in files of its own. */
	static const char *const silent[] = { "log_to_stderr", "false", "err_to_stderr", "false", "log_to_file", "false",
		"log_file", "", "admin_socket", "" };
	for (unsigned i = 0; i < G_N_ELEMENTS(silent); i += 2)
		rados_conf_set(cluster, silent[i], silent[i + 1]);
	/* Pings once a second, so that a watch timeout of a few seconds is safe. */
	if ((r = rados_conf_set(cluster, "objecter_tick_interval", "1")) < 0 ||
		(r = rados_conf_set(cluster, "client_mount_timeout", CONNECT_TIMEOUT_S)) < 0 ||
		(r = rados_conf_set(cluster, "rados_mon_op_timeout", CONNECT_TIMEOUT_S)) < 0 ||
		(r = rados_conf_set(cluster, "rados_osd_op_timeout", seconds->str)) < 0)
		return fail(ret_error, r, "cannot configure the RADOS client");
	return 0;
}

static int connect_client(const struct mf_conf *conf, struct client **ret_client, char **ret_error)
{
	const char *names[2] = { conf->meta_pool, conf->data_pool };
	struct client *client = g_new0(struct client, 1);
	char *addrs = NULL;
	int r = rados_create2(&client->cluster, "ceph", conf->client, 0);

	if (r < 0) {
		g_free(client);
		return fail(ret_error, r, "cannot make a RADOS client '%s'", conf->client);
	}
	r = configure(client->cluster, conf, ret_error);
	if (r < 0)
		goto out;
	r = rados_connect(client->cluster);
	if (r < 0) {
		if (r == -EACCES || r == -EPERM || r == -ENOENT)
			fail(ret_error, r, "the cluster of '%s' refused the key of '%s'", conf->ceph_conf, conf->client);
		else
			fail(ret_error, r, "cannot reach the cluster of '%s' as '%s'", conf->ceph_conf, conf->client);
		goto out;
	}
	for (unsigned i = 0; i < 2; i++) {
		r = rados_ioctx_create(client->cluster, names[i], &client->io[i]);
		if (r < 0) {
			fail(ret_error, r, "cannot use the %s '%s'", i == 0 ? "meta_pool" : "data_pool", names[i]);
			goto out;
		}
		rados_ioctx_set_namespace(client->io[i], conf->fs);
	}
	r = rados_getaddrs(client->cluster, &addrs);
	if (r < 0) {
		fail(ret_error, r, "cannot tell the address of this client");
		goto out;
	}
	client->addrs = g_strdup(addrs);
	rados_buffer_free(addrs);
	*ret_client = client;
	return 0;
out:
	client_free(client);
	return r;
}

/* The client of an operation from here on, whatever is connected meanwhile. */
static struct client *enter(MfPool *pool)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&pool->lock);

	pool->client->users++;
	return pool->client;
}

static void leave(MfPool *pool, struct client *client)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&pool->lock);

	if (--client->users == 0)
		g_cond_broadcast(&pool->idle);
}

int mf_pool_open(const struct mf_conf *conf, MfPool **ret_pool, char **ret_error)
{
	struct client *client;
	int r = connect_client(conf, &client, ret_error);

	if (r < 0)
		return r;
	MfPool *pool = g_new0(MfPool, 1);
	g_mutex_init(&pool->lock);
	g_cond_init(&pool->idle);
	pool->client = client;
	pool->conf = conf;
	pool->pool_name[MF_POOL_META] = g_strdup(conf->meta_pool);
	pool->pool_name[MF_POOL_DATA] = g_strdup(conf->data_pool);
	*ret_pool = pool;
	return 0;
}

int mf_pool_reconnect(MfPool *pool, char **ret_error)
{
	struct client *client;
	int r = connect_client(pool->conf, &client, ret_error);

	if (r < 0)
		return r;
	g_mutex_lock(&pool->lock);
	while (pool->former && pool->former->users > 0)
		g_cond_wait(&pool->idle, &pool->lock);
	struct client *old = pool->former;
	pool->former = pool->client;
	pool->client = client;
	g_mutex_unlock(&pool->lock);
	client_free(old);
	return 0;
}

MfPool *mf_pool_close(MfPool *pool)
{
	if (!pool)
		return NULL;
	client_free(pool->former);
	client_free(pool->client);
	g_free(pool->pool_name[MF_POOL_META]);
	g_free(pool->pool_name[MF_POOL_DATA]);
	g_cond_clear(&pool->idle);
	g_mutex_clear(&pool->lock);
	g_free(pool);
	return NULL;
}

/* ---- write operations ---- */

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
	g_atomic_int_inc(&wop->refs);
	return wop;
}

void mf_wop_unref(MfWop *wop)
{
	if (!wop || !g_atomic_int_dec_and_test(&wop->refs))
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
	wop->full_force = true;
}

static rados_write_op_t wop_build(MfPool *pool, const MfWop *wop)
{
	rados_write_op_t op = rados_create_write_op();
	uint64_t bytes = 0;

	for (unsigned i = 0; i < wop->steps->len; i++) {
		const struct wop_step *step = &g_array_index(wop->steps, struct wop_step, i);
		gsize len = 0;
		const char *data = step->data ? g_bytes_get_data(step->data, &len) : NULL;

		switch (step->kind) {
		case WOP_CREATE:
			rados_write_op_create(op, LIBRADOS_CREATE_EXCLUSIVE, NULL);
			break;
		case WOP_ASSERT_EXISTS:
			rados_write_op_assert_exists(op);
			break;
		case WOP_CMPXATTR:
			rados_write_op_cmpxattr(op, step->name,
				step->cmp == MF_CMP_EQ ? LIBRADOS_CMPXATTR_OP_EQ : LIBRADOS_CMPXATTR_OP_GTE, data, len);
			break;
		case WOP_SETXATTR:
			rados_write_op_setxattr(op, step->name, data, len);
			break;
		case WOP_RMXATTR:
			rados_write_op_rmxattr(op, step->name);
			break;
		case WOP_WRITE_FULL:
			rados_write_op_write_full(op, data, len);
			bytes += len;
			break;
		case WOP_WRITE:
			rados_write_op_write(op, data, len, step->offset);
			bytes += len;
			break;
		case WOP_TRUNCATE:
			rados_write_op_truncate(op, step->offset);
			break;
		case WOP_REMOVE:
			rados_write_op_remove(op);
			break;
		case WOP_EXEC:
			rados_write_op_exec(op, step->name, step->method, data, len, NULL);
			break;
		}
	}
	if (wop->set_keys) {
		unsigned n = wop->set_keys->len;
		g_autofree const char **values = g_new(const char *, n);
		g_autofree size_t *lens = g_new(size_t, n);

		for (unsigned i = 0; i < n; i++) {
			gsize len;
			values[i] = g_bytes_get_data(wop->set_values->pdata[i], &len);
			lens[i] = len;
			bytes += len;
		}
		rados_write_op_omap_set(op, (const char *const *)wop->set_keys->pdata, values, lens, n);
	}
	if (wop->rm_keys)
		rados_write_op_omap_rm_keys(op, (const char *const *)wop->rm_keys->pdata, wop->rm_keys->len);
	atomic_fetch_add(&pool->writes, 1);
	atomic_fetch_add(&pool->bytes_written, bytes);
	return op;
}

/* A pool at its quota answers -EDQUOT, a full cluster -ENOSPC: one thing to a caller. */
static int write_result(int r)
{
	return r == -EDQUOT ? -ENOSPC : r;
}

/* Without FULL_TRY a client waits for ever when the pool is full. */
static int wop_flags(const MfWop *wop)
{
	return wop->full_force ? LIBRADOS_OPERATION_FULL_FORCE : LIBRADOS_OPERATION_FULL_TRY;
}

int mf_pool_write(MfPool *pool, enum mf_pool_which which, const char *oid, MfWop *wop)
{
	enum mf_fault_what fault = mf_fault_next(oid);

	if (fault == MF_FAULT_NOSPC && !wop->full_force)
		return -ENOSPC;
	rados_write_op_t op = wop_build(pool, wop);
	struct client *client = enter(pool);
	int r = rados_write_op_operate2(op, client->io[which], oid, NULL, wop_flags(wop));
	leave(pool, client);
	rados_release_write_op(op);
	return mf_fault_result(fault, write_result(r));
}

struct async_write {
	MfPool *pool;
	struct client *client;
	mf_pool_done done;
	void *arg;
	enum mf_fault_what fault;
};

static void async_write_done(rados_completion_t completion, void *arg)
{
	struct async_write *aw = arg;
	int r = mf_fault_result(aw->fault, write_result(rados_aio_get_return_value(completion)));

	aw->done(r, aw->arg);
	rados_aio_release(completion);
	leave(aw->pool, aw->client);
	g_free(aw);
}

void mf_pool_write_async(
	MfPool *pool, enum mf_pool_which which, const char *oid, MfWop *wop, mf_pool_done done, void *arg)
{
	struct async_write *aw = g_new(struct async_write, 1);
	rados_completion_t completion;

	*aw = (struct async_write){ .pool = pool, .done = done, .arg = arg, .fault = mf_fault_next(oid) };
	if (aw->fault == MF_FAULT_NOSPC && !wop->full_force) {
		done(-ENOSPC, arg);
		g_free(aw);
		return;
	}
	int r = rados_aio_create_completion2(aw, async_write_done, &completion);
	g_assert(r == 0);
	rados_write_op_t op = wop_build(pool, wop);
	aw->client = enter(pool);
	r = rados_aio_write_op_operate(op, aw->client->io[which], completion, oid, NULL, wop_flags(wop));
	rados_release_write_op(op);
	if (r < 0) {
		leave(pool, aw->client);
		rados_aio_release(completion);
		g_free(aw);
		done(r, arg);
	}
}

/* ---- read operations ---- */

static void kv_clear(void *data)
{
	struct mf_kv *kv = data;

	g_free(kv->key);
	g_bytes_unref(kv->value);
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
	g_clear_pointer(&rop->exec_in, g_bytes_unref);
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
	rop->exec_in = g_bytes_new(in, len);
}

static GHashTable *named_bytes_new(void)
{
	return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_bytes_unref);
}

static int take_xattrs(rados_xattrs_iter_t iter, GHashTable *out)
{
	const char *name, *value;
	size_t len;
	int r;

	while ((r = rados_getxattrs_next(iter, &name, &value, &len)) == 0 && name)
		g_hash_table_replace(out, g_strdup(name), g_bytes_new(value, len));
	rados_getxattrs_end(iter);
	return r;
}

static int take_omap(MfPool *pool, rados_omap_iter_t iter, GArray *out)
{
	char *key, *value;
	size_t key_len, len;
	int r;

	while ((r = rados_omap_get_next2(iter, &key, &value, &key_len, &len)) == 0 && key) {
		struct mf_kv kv = { g_strndup(key, key_len), g_bytes_new(value, len) };
		g_array_append_val(out, kv);
		atomic_fetch_add(&pool->bytes_read, len);
	}
	rados_omap_get_end(iter);
	return r;
}

static GArray *kv_array_new(void)
{
	GArray *array = g_array_new(false, false, sizeof(struct mf_kv));

	g_array_set_clear_func(array, kv_clear);
	return array;
}

int mf_pool_read(MfPool *pool, enum mf_pool_which which, const char *oid, MfRop *rop)
{
	rados_read_op_t op = rados_create_read_op();
	rados_xattrs_iter_t xattr_iter = NULL;
	rados_omap_iter_t key_iter = NULL;
	int xattr_rval = 0, key_rval = 0, read_rval = 0, exec_rval = 0;
	g_autofree char *buffer = NULL;
	size_t bytes_read = 0, exec_len = 0;
	char *exec_buf = NULL;
	int r;

	rop_clear_results(rop);
	if (rop->want_read) {
		/* A length that a damaged record may have inflated must not abort. */
		buffer = g_try_malloc(MAX(rop->len, 1));
		if (!buffer) {
			rados_release_read_op(op);
			return -ENOMEM;
		}
		rados_read_op_read(op, rop->offset, rop->len, buffer, &bytes_read, &read_rval);
	}
	if (rop->want_xattrs)
		rados_read_op_getxattrs(op, &xattr_iter, &xattr_rval);
	for (unsigned i = 0; i < rop->n_ranges; i++) {
		struct rop_range *range = &rop->range[i];
		range->iter = NULL;
		rados_read_op_omap_get_vals2(
			op, range->after, range->prefix, range->max, &range->iter, &range->more, &range->rval);
	}
	if (rop->keys)
		rados_read_op_omap_get_vals_by_keys(
			op, (const char *const *)rop->keys->pdata, rop->keys->len, &key_iter, &key_rval);
	if (rop->class_name) {
		gsize len;
		const void *in = g_bytes_get_data(rop->exec_in, &len);
		rados_read_op_exec(op, rop->class_name, rop->method, in, len, &exec_buf, &exec_len, &exec_rval);
	}
	atomic_fetch_add(strcmp(oid, MF_OID_MEMBERS) == 0 ? &pool->upkeep : &pool->reads, 1);
	struct client *client = enter(pool);
	r = rados_read_op_operate(op, client->io[which], oid, LIBRADOS_OPERATION_NOFLAG);
	leave(pool, client);
	if (r < 0) {
		if (xattr_iter)
			rados_getxattrs_end(xattr_iter);
		if (key_iter)
			rados_omap_get_end(key_iter);
		for (unsigned i = 0; i < rop->n_ranges; i++) {
			if (rop->range[i].iter)
				rados_omap_get_end(rop->range[i].iter);
		}
		goto out;
	}
	r = 0;
	if (rop->want_xattrs) {
		rop->xattrs = named_bytes_new();
		r = xattr_rval < 0 ? xattr_rval : take_xattrs(xattr_iter, rop->xattrs);
		xattr_iter = NULL;
	}
	for (unsigned i = 0; i < rop->n_ranges; i++) {
		struct rop_range *range = &rop->range[i];
		range->result = kv_array_new();
		int rr = range->rval < 0 ? range->rval : take_omap(pool, range->iter, range->result);
		if (r == 0)
			r = rr;
	}
	if (rop->keys) {
		g_autoptr(GArray) kvs = kv_array_new();
		int rr = key_rval < 0 ? key_rval : take_omap(pool, key_iter, kvs);
		rop->key_result = named_bytes_new();
		for (unsigned i = 0; i < kvs->len; i++) {
			struct mf_kv *kv = &g_array_index(kvs, struct mf_kv, i);
			g_hash_table_replace(rop->key_result, g_strdup(kv->key), g_bytes_ref(kv->value));
		}
		if (r == 0)
			r = rr;
	}
	if (rop->want_read) {
		if (r == 0 && read_rval < 0)
			r = read_rval;
		rop->data = g_bytes_new_take(g_steal_pointer(&buffer), bytes_read);
		atomic_fetch_add(&pool->bytes_read, bytes_read);
	}
	if (rop->class_name) {
		if (r == 0 && exec_rval < 0)
			r = exec_rval;
		rop->exec_out = g_bytes_new(exec_buf, exec_len);
	}
out:
	if (exec_buf)
		rados_buffer_free(exec_buf);
	rados_release_read_op(op);
	return r;
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

/* ---- watch and notify ---- */

static void on_notify(void *arg, uint64_t notify_id, uint64_t handle, uint64_t notifier_id, void *data, size_t len)
{
	MfWatch *watch = arg;
	g_autoptr(GBytes) answer = len == 0 && watch->answer ? watch->answer(watch->arg) : NULL;
	gsize answer_len = 0;
	const void *bytes = answer ? g_bytes_get_data(answer, &answer_len) : NULL;

	rados_notify_ack(watch->client->io[MF_POOL_META], watch->oid, notify_id, handle, bytes, (int)answer_len);
	if (len > 0)
		watch->func(data, len, watch->arg);
}

/* Nothing to do here: mf_watch_check() reports a lost watch to whoever is about to rely on it. */
static void on_watch_error(void *arg, uint64_t handle, int error)
{
}

int mf_watch_new(MfPool *pool, const char *oid, unsigned timeout_s, mf_watch_func func, mf_watch_answer answer, void *arg,
	MfWatch **ret_watch)
{
	MfWatch *watch = g_new0(MfWatch, 1);

	watch->client = enter(pool);
	watch->func = func;
	watch->answer = answer;
	watch->arg = arg;
	watch->oid = g_strdup(oid);
	int r = rados_watch3(
		watch->client->io[MF_POOL_META], oid, &watch->cookie, on_notify, on_watch_error, timeout_s, watch);
	leave(pool, watch->client);
	if (r < 0) {
		g_free(watch->oid);
		g_free(watch);
		return r;
	}
	*ret_watch = watch;
	return 0;
}

MfWatch *mf_watch_free(MfWatch *watch)
{
	if (!watch)
		return NULL;
	rados_unwatch2(watch->client->io[MF_POOL_META], watch->cookie);
	rados_watch_flush(watch->client->cluster); /* no callback may find the watch freed */
	g_free(watch->oid);
	g_free(watch);
	return NULL;
}

int mf_watch_check(MfWatch *watch)
{
	return rados_watch_check(watch->client->io[MF_POOL_META], watch->cookie);
}

/* librados' own result when a watcher stays silent is -ETIMEDOUT, with a reply that tells who. */
static int count_watchers(
	int r, char *reply, size_t len, GBytes **ret_answer, unsigned *ret_alive, unsigned *ret_silent)
{
	struct notify_timeout_t *timeouts = NULL;
	struct notify_ack_t *acks = NULL;
	size_t n_acks = 0, n_timeouts = 0;

	*ret_alive = *ret_silent = 0;
	if ((r == 0 || r == -ETIMEDOUT) && reply) {
		int rr = rados_decode_notify_response(reply, len, &acks, &n_acks, &timeouts, &n_timeouts);
		if (rr == 0) {
			*ret_alive = n_acks;
			*ret_silent = n_timeouts;
			for (size_t i = 0; ret_answer && i < n_acks && !*ret_answer; i++) {
				if (acks[i].payload_len > 0)
					*ret_answer = g_bytes_new(acks[i].payload, acks[i].payload_len);
			}
			rados_free_notify_response(acks, n_acks, timeouts);
			r = 0;
		}
	}
	if (reply)
		rados_buffer_free(reply);
	return r;
}

struct send {
	MfPool *pool;
	struct client *client;
	mf_send_done done;
	void *arg;
	char *reply;
	size_t reply_len;
	rados_completion_t completion;
};

static void send_done(rados_completion_t completion, void *arg)
{
	struct send *send = arg;
	unsigned alive, silent;
	int r = count_watchers(
		rados_aio_get_return_value(completion), send->reply, send->reply_len, NULL, &alive, &silent);

	send->done(r, alive, silent, send->arg);
	rados_aio_release(send->completion);
	leave(send->pool, send->client);
	g_free(send);
}

void mf_pool_send(
	MfPool *pool, const char *oid, unsigned timeout_s, const void *data, size_t len, mf_send_done done, void *arg)
{
	struct send *send = g_new0(struct send, 1);

	send->done = done;
	send->arg = arg;
	atomic_fetch_add(&pool->notifies, 1);
	int r = rados_aio_create_completion2(send, send_done, &send->completion);
	if (r < 0) {
		done(r, 0, 0, arg);
		g_free(send);
		return;
	}
	send->pool = pool;
	send->client = enter(pool);
	/* librados takes whole seconds. */
	r = rados_aio_notify(send->client->io[MF_POOL_META], oid, send->completion, data, (int)len, (uint64_t)timeout_s * 1000,
		&send->reply, &send->reply_len);
	if (r < 0) {
		leave(pool, send->client);
		rados_aio_release(send->completion);
		done(r, 0, 0, arg);
		g_free(send);
	}
}

static int ask(MfPool *pool, const char *oid, unsigned timeout_s, GBytes **ret_answer, unsigned *ret_alive,
	unsigned *ret_silent)
{
	char *reply = NULL;
	size_t len = 0;

	atomic_fetch_add(&pool->upkeep, 1);
	struct client *client = enter(pool);
	int r = rados_notify2(client->io[MF_POOL_META], oid, NULL, 0, (uint64_t)timeout_s * 1000, &reply, &len);
	leave(pool, client);
	return count_watchers(r, reply, len, ret_answer, ret_alive, ret_silent);
}

int mf_pool_ping(MfPool *pool, const char *oid, unsigned timeout_s, unsigned *ret_alive, unsigned *ret_silent)
{
	return ask(pool, oid, timeout_s, NULL, ret_alive, ret_silent);
}

int mf_pool_ask(MfPool *pool, const char *oid, unsigned timeout_s, GBytes **ret_answer, unsigned *ret_alive,
	unsigned *ret_silent)
{
	*ret_answer = NULL;
	return ask(pool, oid, timeout_s, ret_answer, ret_alive, ret_silent);
}

/* ---- monitors ---- */

int mf_pool_blocklist(MfPool *pool, const char *addrs, unsigned seconds)
{
	/* rados_getaddrs() gives a list "addr/nonce,addr/nonce"; the monitor takes one at a time. */
	g_auto(GStrv) list = g_strsplit(addrs, ",", -1);

	struct client *client = enter(pool);
	int r = 0;

	for (char **addr = list; *addr && r == 0; addr++) {
		if (**addr)
			r = rados_blocklist_add(client->cluster, *addr, seconds);
	}
	if (r == 0)
		r = rados_wait_for_latest_osdmap(client->cluster);
	leave(pool, client);
	return r;
}

const char *mf_pool_addrs(MfPool *pool)
{
	return pool->client->addrs;
}

static int mon_command(MfPool *pool, const char *command, json_t **ret_json)
{
	char *out = NULL, *status = NULL;
	size_t out_len = 0, status_len = 0;
	struct client *client = enter(pool);
	int r = rados_mon_command(client->cluster, &command, 1, NULL, 0, &out, &out_len, &status, &status_len);
	leave(pool, client);

	if (r == 0) {
		*ret_json = json_loadb(out, out_len, 0, NULL);
		if (!*ret_json)
			r = -EBADMSG;
	}
	if (out)
		rados_buffer_free(out);
	if (status)
		rados_buffer_free(status);
	return r;
}

static int pool_stored(MfPool *pool, struct mf_pool_space *space)
{
	json_t *df = NULL, *entry;
	size_t i;
	int r = mon_command(pool, "{\"prefix\":\"df\",\"format\":\"json\"}", &df);

	if (r < 0)
		return r;
	/* A cluster that has just started does not list its pools yet: then what the cluster as a whole has. */
	struct rados_cluster_stat_t whole;
	struct client *client = enter(pool);
	r = rados_cluster_stat(client->cluster, &whole);
	leave(pool, client);
	if (r == 0) {
		space->total = whole.kb * 1024;
		space->free = whole.kb_avail * 1024;
		space->objects = whole.num_objects;
	}
	json_array_foreach(json_object_get(df, "pools"), i, entry) {
		const char *name = json_string_value(json_object_get(entry, "name"));
		json_t *stats = json_object_get(entry, "stats");

		if (g_strcmp0(name, pool->pool_name[MF_POOL_DATA]) != 0)
			continue;
		uint64_t stored = json_integer_value(json_object_get(stats, "stored"));
		space->free = json_integer_value(json_object_get(stats, "max_avail"));
		space->total = stored + space->free;
		space->objects = json_integer_value(json_object_get(stats, "objects"));
		r = 0;
	}
	json_decref(df);
	return r;
}

int mf_pool_space(MfPool *pool, struct mf_pool_space *ret_space)
{
	struct mf_pool_space space = { 0 };
	json_t *quota = NULL;
	int r = pool_stored(pool, &space);

	if (r < 0)
		return r;
	g_autofree char *command = g_strdup_printf("{\"prefix\":\"osd pool get-quota\",\"pool\":\"%s\",\"format\":\"json\"}",
		pool->pool_name[MF_POOL_DATA]);
	r = mon_command(pool, command, &quota);
	if (r < 0 && r != -ENOENT) /* that: no statistics of the pool yet */
		return r;
	uint64_t max = json_integer_value(json_object_get(quota, "quota_max_bytes"));
	json_decref(quota);
	if (max > 0 && max < space.total) {
		uint64_t stored = space.total - space.free;
		space.total = max;
		space.free = max > stored ? max - stored : 0;
	}
	*ret_space = space;
	return 0;
}

void mf_pool_counts(MfPool *pool, struct mf_pool_counts *ret_counts)
{
	*ret_counts = (struct mf_pool_counts){
		atomic_load(&pool->reads),
		atomic_load(&pool->writes),
		atomic_load(&pool->notifies),
		atomic_load(&pool->upkeep),
		atomic_load(&pool->bytes_read),
		atomic_load(&pool->bytes_written),
	};
}
