/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tells ThreadSanitizer what it cannot see in libraries that are not built with it.
 *
 * The locks of GLib are futexes, and librados hands work over in ways of its own. The linker sends our calls here; the
 * library does what was asked, and the sanitizer is told of the order that this makes, not of more: an order too many
 * would hide a race. A container of GLib is read or written as a whole, for its inside is not seen either.
 * Not instrumented itself. */
#include <glib.h>
#include <rados/librados.h>
#include <sanitizer/tsan_interface.h>

#define CALLER __builtin_return_address(0)

/* ---- locks ---- */

void __real_g_mutex_init(GMutex *mutex);
void __real_g_mutex_clear(GMutex *mutex);
void __real_g_mutex_lock(GMutex *mutex);
gboolean __real_g_mutex_trylock(GMutex *mutex);
void __real_g_mutex_unlock(GMutex *mutex);
void __real_g_cond_wait(GCond *cond, GMutex *mutex);
gboolean __real_g_cond_wait_until(GCond *cond, GMutex *mutex, gint64 end_time);

void __wrap_g_mutex_init(GMutex *mutex)
{
	__real_g_mutex_init(mutex);
	__tsan_mutex_create(mutex, __tsan_mutex_not_static);
}

void __wrap_g_mutex_clear(GMutex *mutex)
{
	__tsan_mutex_destroy(mutex, __tsan_mutex_not_static);
	__real_g_mutex_clear(mutex);
}

void __wrap_g_mutex_lock(GMutex *mutex)
{
	__tsan_mutex_pre_lock(mutex, 0);
	__real_g_mutex_lock(mutex);
	__tsan_mutex_post_lock(mutex, 0, 0);
}

gboolean __wrap_g_mutex_trylock(GMutex *mutex)
{
	__tsan_mutex_pre_lock(mutex, __tsan_mutex_try_lock);
	gboolean locked = __real_g_mutex_trylock(mutex);
	__tsan_mutex_post_lock(mutex, __tsan_mutex_try_lock | (locked ? 0 : __tsan_mutex_try_lock_failed), 0);
	return locked;
}

static void unlocked(GMutex *mutex)
{
	__tsan_mutex_pre_unlock(mutex, 0);
	__tsan_mutex_post_unlock(mutex, 0);
}

static void locked_again(GMutex *mutex)
{
	__tsan_mutex_pre_lock(mutex, 0);
	__tsan_mutex_post_lock(mutex, 0, 0);
}

void __wrap_g_mutex_unlock(GMutex *mutex)
{
	/* Before it: the next owner may free the mutex. */
	unlocked(mutex);
	__real_g_mutex_unlock(mutex);
}

/* A signal orders nothing by itself: what is told with it is told under the mutex. */
void __wrap_g_cond_wait(GCond *cond, GMutex *mutex)
{
	unlocked(mutex);
	__real_g_cond_wait(cond, mutex);
	locked_again(mutex);
}

gboolean __wrap_g_cond_wait_until(GCond *cond, GMutex *mutex, gint64 end_time)
{
	unlocked(mutex);
	gboolean signalled = __real_g_cond_wait_until(cond, mutex, end_time);
	locked_again(mutex);
	return signalled;
}

/* ---- thread pools; threads themselves are made by pthread_create(), which the sanitizer knows ---- */

GThreadPool *__real_g_thread_pool_new(GFunc func, void *arg, int max_threads, gboolean exclusive, GError **error);
gboolean __real_g_thread_pool_push(GThreadPool *pool, void *data, GError **error);
void __real_g_thread_pool_free(GThreadPool *pool, gboolean immediate, gboolean wait);

struct pool {
	GFunc func;
	void *arg;
};

struct job {
	void *data;
};

/* By the address of the GThreadPool, under its own lock: freed with it. */
static GHashTable *pools;
static GMutex pools_lock;

static void do_job(void *data, void *arg)
{
	struct job *job = data;
	struct pool *pool = arg;

	__tsan_acquire(job);
	pool->func(job->data, pool->arg);
	g_free(job);
	__tsan_release(pool);
}

GThreadPool *__wrap_g_thread_pool_new(GFunc func, void *arg, int max_threads, gboolean exclusive, GError **error)
{
	struct pool *pool = g_new(struct pool, 1);

	*pool = (struct pool){ func, arg };
	__tsan_release(pool);
	GThreadPool *thread_pool = __real_g_thread_pool_new(do_job, pool, max_threads, exclusive, error);
	__real_g_mutex_lock(&pools_lock);
	if (!pools)
		pools = g_hash_table_new(NULL, NULL);
	g_hash_table_insert(pools, thread_pool, pool);
	__real_g_mutex_unlock(&pools_lock);
	return thread_pool;
}

gboolean __wrap_g_thread_pool_push(GThreadPool *pool, void *data, GError **error)
{
	struct job *job = g_new(struct job, 1);

	job->data = data;
	__tsan_release(job);
	return __real_g_thread_pool_push(pool, job, error);
}

void __wrap_g_thread_pool_free(GThreadPool *thread_pool, gboolean immediate, gboolean wait)
{
	__real_g_mutex_lock(&pools_lock);
	struct pool *pool = g_hash_table_lookup(pools, thread_pool);
	g_hash_table_remove(pools, thread_pool);
	__real_g_mutex_unlock(&pools_lock);
	__real_g_thread_pool_free(thread_pool, immediate, wait);
	if (wait) {
		__tsan_acquire(pool);
		g_free(pool);
	}
}

/* ---- what is counted within GLib ---- */

/* Whoever frees comes after all others that gave their reference back. That must be told in the order in which it
 * happens: by a lock that the sanitizer does not see, for it would order what is not ordered. */
static GMutex refs_lock;

#define UNREF(function, type)                                                                                          \
	void __real_##function(type *thing);                                                                           \
	void __wrap_##function(type *thing)                                                                            \
	{                                                                                                              \
		__real_g_mutex_lock(&refs_lock);                                                                       \
		__tsan_release(thing);                                                                                 \
		__tsan_acquire(thing);                                                                                 \
		__real_##function(thing);                                                                              \
		__real_g_mutex_unlock(&refs_lock);                                                                     \
	}

UNREF(g_bytes_unref, GBytes)
UNREF(g_byte_array_unref, GByteArray)

/* ---- containers ---- */

#define READ(thing) __tsan_external_read(thing, CALLER, NULL)
#define WRITE(thing) __tsan_external_write(thing, CALLER, NULL)

/* WRAP(READ, gpointer, g_hash_table_lookup, (GHashTable *t, const void *key), (t, key)): the first is what it is about. */
#define FIRST(...) FIRST_(__VA_ARGS__, )
#define FIRST_(first, ...) first
#define WRAP(access, result, function, parameters, arguments)                                                          \
	result __real_##function parameters;                                                                           \
	result __wrap_##function parameters                                                                            \
	{                                                                                                              \
		access(FIRST arguments);                                                                               \
		return __real_##function arguments;                                                                    \
	}

WRAP(READ, gpointer, g_hash_table_lookup, (GHashTable *t, const void *key), (t, key))
WRAP(READ, gboolean, g_hash_table_lookup_extended, (GHashTable *t, const void *key, void **k, void **v), (t, key, k, v))
WRAP(READ, gboolean, g_hash_table_contains, (GHashTable *t, const void *key), (t, key))
WRAP(READ, guint, g_hash_table_size, (GHashTable *t), (t))
WRAP(WRITE, gboolean, g_hash_table_insert, (GHashTable *t, void *key, void *value), (t, key, value))
WRAP(WRITE, gboolean, g_hash_table_replace, (GHashTable *t, void *key, void *value), (t, key, value))
WRAP(WRITE, gboolean, g_hash_table_add, (GHashTable *t, void *key), (t, key))
WRAP(WRITE, gboolean, g_hash_table_remove, (GHashTable *t, const void *key), (t, key))
WRAP(WRITE, void, g_hash_table_remove_all, (GHashTable *t), (t))

void __real_g_hash_table_iter_init(GHashTableIter *iter, GHashTable *table);
gboolean __real_g_hash_table_iter_next(GHashTableIter *iter, void **key, void **value);
void __real_g_hash_table_iter_remove(GHashTableIter *iter);

void __wrap_g_hash_table_iter_init(GHashTableIter *iter, GHashTable *table)
{
	READ(table);
	__real_g_hash_table_iter_init(iter, table);
}

gboolean __wrap_g_hash_table_iter_next(GHashTableIter *iter, void **key, void **value)
{
	READ(iter->dummy1); /* the table */
	return __real_g_hash_table_iter_next(iter, key, value);
}

void __wrap_g_hash_table_iter_remove(GHashTableIter *iter)
{
	WRITE(iter->dummy1);
	__real_g_hash_table_iter_remove(iter);
}

/* What these hold is read without a call. */
WRAP(WRITE, GArray *, g_array_append_vals, (GArray *a, const void *data, guint len), (a, data, len))
WRAP(WRITE, GArray *, g_array_remove_index, (GArray *a, guint i), (a, i))
WRAP(WRITE, GArray *, g_array_set_size, (GArray *a, guint len), (a, len))
WRAP(WRITE, void, g_ptr_array_add, (GPtrArray *a, void *data), (a, data))
WRAP(WRITE, void, g_ptr_array_set_size, (GPtrArray *a, int len), (a, len))
WRAP(WRITE, gpointer, g_ptr_array_remove_index, (GPtrArray *a, guint i), (a, i))
WRAP(WRITE, gpointer, g_ptr_array_steal_index, (GPtrArray *a, guint i), (a, i))
WRAP(WRITE, GByteArray *, g_byte_array_append, (GByteArray *a, const guint8 *data, guint len), (a, data, len))
WRAP(WRITE, GByteArray *, g_byte_array_set_size, (GByteArray *a, guint len), (a, len))
WRAP(WRITE, void, g_queue_push_tail, (GQueue *q, void *data), (q, data))
WRAP(WRITE, void, g_queue_push_head_link, (GQueue *q, GList *link), (q, link))
WRAP(WRITE, void, g_queue_push_tail_link, (GQueue *q, GList *link), (q, link))
WRAP(WRITE, void, g_queue_unlink, (GQueue *q, GList *link), (q, link))
WRAP(WRITE, gboolean, g_queue_remove, (GQueue *q, const void *data), (q, data))
WRAP(READ, gpointer, g_queue_peek_head, (GQueue *q), (q))
WRAP(READ, GSequenceIter *, g_sequence_get_begin_iter, (GSequence *s), (s))
WRAP(READ, gboolean, g_sequence_is_empty, (GSequence *s), (s))
WRAP(READ, GSequenceIter *, g_sequence_search, (GSequence *s, void *data, GCompareDataFunc f, void *arg), (s, data, f, arg))
WRAP(WRITE, GSequenceIter *, g_sequence_insert_sorted, (GSequence *s, void *data, GCompareDataFunc f, void *arg),
	(s, data, f, arg))

void __real_g_sequence_remove(GSequenceIter *iter);
void __wrap_g_sequence_remove(GSequenceIter *iter)
{
	WRITE(g_sequence_iter_get_sequence(iter));
	__real_g_sequence_remove(iter);
}

/* ---- librados: what was done before an operation or a watch is seen by its callback ---- */

int __real_rados_aio_create_completion2(void *arg, rados_callback_t callback, rados_completion_t *completion);
int __real_rados_aio_write_op_operate(
	rados_write_op_t op, rados_ioctx_t io, rados_completion_t completion, const char *oid, time_t *mtime, int flags);
int __real_rados_aio_notify(rados_ioctx_t io, const char *oid, rados_completion_t completion, const char *data, int len,
	uint64_t timeout_ms, char **reply, size_t *reply_len);
int __real_rados_watch3(rados_ioctx_t io, const char *oid, uint64_t *cookie, rados_watchcb2_t watched,
	rados_watcherrcb_t failed, uint32_t timeout, void *arg);
int __real_rados_watch_flush(rados_t cluster);

struct callback {
	rados_callback_t func;
	void *arg;
};

static void completed(rados_completion_t completion, void *arg)
{
	struct callback callback = *(struct callback *)arg;

	__tsan_acquire(completion);
	g_free(arg);
	callback.func(completion, callback.arg);
}

int __wrap_rados_aio_create_completion2(void *arg, rados_callback_t func, rados_completion_t *completion)
{
	struct callback *callback = g_new(struct callback, 1);

	*callback = (struct callback){ func, arg };
	return __real_rados_aio_create_completion2(callback, completed, completion);
}

int __wrap_rados_aio_write_op_operate(
	rados_write_op_t op, rados_ioctx_t io, rados_completion_t completion, const char *oid, time_t *mtime, int flags)
{
	__tsan_release(completion);
	return __real_rados_aio_write_op_operate(op, io, completion, oid, mtime, flags);
}

int __wrap_rados_aio_notify(rados_ioctx_t io, const char *oid, rados_completion_t completion, const char *data, int len,
	uint64_t timeout_ms, char **reply, size_t *reply_len)
{
	__tsan_release(completion);
	return __real_rados_aio_notify(io, oid, completion, data, len, timeout_ms, reply, reply_len);
}

/* Stays for ever, for nobody tells when the last callback was. */
struct watch {
	rados_watchcb2_t notified;
	rados_watcherrcb_t failed;
	void *arg;
};

static int watches;

static void notified(void *arg, uint64_t id, uint64_t cookie, uint64_t notifier, void *data, size_t len)
{
	struct watch *watch = arg;

	__tsan_acquire(watch);
	watch->notified(watch->arg, id, cookie, notifier, data, len);
	__tsan_release(&watches);
}

static void failed(void *arg, uint64_t cookie, int error)
{
	struct watch *watch = arg;

	__tsan_acquire(watch);
	watch->failed(watch->arg, cookie, error);
	__tsan_release(&watches);
}

int __wrap_rados_watch3(rados_ioctx_t io, const char *oid, uint64_t *cookie, rados_watchcb2_t on_notify,
	rados_watcherrcb_t on_error, uint32_t timeout, void *arg)
{
	struct watch *watch = g_new(struct watch, 1);

	*watch = (struct watch){ on_notify, on_error, arg };
	__tsan_release(watch);
	return __real_rados_watch3(io, oid, cookie, notified, failed, timeout, watch);
}

/* Returns when all callbacks have ended. */
int __wrap_rados_watch_flush(rados_t cluster)
{
	int r = __real_rados_watch_flush(cluster);

	__tsan_acquire(&watches);
	return r;
}
