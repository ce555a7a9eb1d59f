/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/sim/wrap.c - GLib's threads and the clocks as the product's object files see them: the linker sends each call
 * of these here (--wrap), so the objects are those of the daemon. */
#include "tests/sim/wrap.h"

#include "tests/sim/sched.h"

#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define REAL_BASE_US INT64_C(1700000000000000)
#define BOOT_BASE_US INT64_C(1000000000)
#define SPURIOUS 20 /* of 10,000 waits end for no reason */

/* The prototypes are GLib's, under the names that the linker makes of them. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wmissing-declarations"

/* ---- mutexes ---- */

struct mutex {
	Fibre *owner;
	struct waitq waiters;
};

static struct mutex *mutex_of(GMutex *mutex)
{
	if (!mutex->p)
		mutex->p = calloc(1, sizeof(struct mutex));
	return mutex->p;
}

void __wrap_g_mutex_init(GMutex *mutex)
{
	mutex->p = NULL;
	mutex_of(mutex);
}

void __wrap_g_mutex_clear(GMutex *mutex)
{
	struct mutex *m = mutex_of(mutex);

	if (m->owner || m->waiters.first)
		sched_fail("a mutex is cleared while %s has it", sched_name(m->owner));
	free(m);
	mutex->p = NULL;
}

static void acquire(struct mutex *m)
{
	while (m->owner) {
		if (m->owner == sched_current())
			sched_fail("a mutex is taken twice by %s", sched_name(m->owner));
		sched_note("held by %s", sched_name(m->owner));
		sched_wait(&m->waiters, "a mutex", m, -1);
	}
	m->owner = sched_current();
}

static void give_up(struct mutex *m)
{
	if (m->owner != sched_current())
		sched_fail("%s unlocks a mutex of %s", sched_name(sched_current()), sched_name(m->owner));
	m->owner = NULL;
	sched_wake_all(&m->waiters);
}

void __wrap_g_mutex_lock(GMutex *mutex)
{
	sched_yield_maybe();
	acquire(mutex_of(mutex));
}

gboolean __wrap_g_mutex_trylock(GMutex *mutex)
{
	struct mutex *m = mutex_of(mutex);

	sched_yield_maybe();
	if (m->owner)
		return FALSE;
	m->owner = sched_current();
	return TRUE;
}

void __wrap_g_mutex_unlock(GMutex *mutex)
{
	give_up(mutex_of(mutex));
	sched_yield_maybe();
}

/* ---- conditions ---- */

struct cond {
	struct waitq waiters;
};

static struct cond *cond_of(GCond *cond)
{
	if (!cond->p)
		cond->p = calloc(1, sizeof(struct cond));
	return cond->p;
}

void __wrap_g_cond_init(GCond *cond)
{
	cond->p = NULL;
	cond_of(cond);
}

void __wrap_g_cond_clear(GCond *cond)
{
	struct cond *c = cond_of(cond);

	if (c->waiters.first)
		sched_fail("a condition is cleared while somebody waits for it");
	free(c);
	cond->p = NULL;
}

static bool wait(GCond *cond, GMutex *mutex, int64_t until)
{
	struct cond *c = cond_of(cond);
	struct mutex *m = mutex_of(mutex);
	bool woken = true;

	give_up(m);
	if (sched_chance(SPURIOUS))
		sched_yield_maybe();
	else
		woken = sched_wait(&c->waiters, "a condition", c, until);
	acquire(m);
	return woken;
}

void __wrap_g_cond_wait(GCond *cond, GMutex *mutex)
{
	wait(cond, mutex, -1);
}

gboolean __wrap_g_cond_wait_until(GCond *cond, GMutex *mutex, gint64 end)
{
	int64_t until = end - BOOT_BASE_US;

	return wait(cond, mutex, until > sched_now() ? until : sched_now());
}

void __wrap_g_cond_signal(GCond *cond)
{
	sched_wake_one(&cond_of(cond)->waiters);
}

void __wrap_g_cond_broadcast(GCond *cond)
{
	sched_wake_all(&cond_of(cond)->waiters);
}

/* ---- threads ---- */

GThread *__wrap_g_thread_new(const char *name, GThreadFunc func, void *data)
{
	return (GThread *)sched_spawn(
		sched_life(), g_str_has_prefix(name, "mailfs-") ? name + 7 : name, func, data, true);
}

void *__wrap_g_thread_join(GThread *thread)
{
	return sched_join((Fibre *)thread);
}

/* The product has one of these. */
void *__wrap_g_private_get(GPrivate *key)
{
	return *sched_local();
}

void __wrap_g_private_set(GPrivate *key, void *value)
{
	*sched_local() = value;
}

struct pool {
	GThreadPool public;
	int max, running;
	GQueue tasks;
	struct waitq idle;
};

static void *work(void *arg)
{
	struct pool *pool = arg;

	while (!g_queue_is_empty(&pool->tasks)) {
		/* Which of two threads comes first nobody knows. */
		void *task = g_queue_pop_nth(&pool->tasks, sched_below(MIN(g_queue_get_length(&pool->tasks), 3)));
		pool->public.func(task, pool->public.user_data);
		sched_yield_maybe();
	}
	pool->running--;
	sched_wake_all(&pool->idle);
	return NULL;
}

GThreadPool *__wrap_g_thread_pool_new(GFunc func, void *user_data, int max, gboolean exclusive, GError **error)
{
	struct pool *pool = g_new0(struct pool, 1);

	pool->public = (GThreadPool){ func, user_data, exclusive };
	pool->max = max;
	g_queue_init(&pool->tasks);
	return &pool->public;
}

gboolean __wrap_g_thread_pool_push(GThreadPool *public, void *data, GError **error)
{
	struct pool *pool = (struct pool *)public;

	g_queue_push_tail(&pool->tasks, data);
	if (pool->max < 0 || pool->running < pool->max) {
		pool->running++;
		sched_spawn(sched_life(), "worker", work, pool, false);
	}
	return TRUE;
}

void __wrap_g_thread_pool_free(GThreadPool *public, gboolean immediate, gboolean wait_for)
{
	struct pool *pool = (struct pool *)public;

	while (pool->running > 0)
		sched_wait(&pool->idle, "workers", pool, -1);
	g_free(pool);
}

/* ---- time ---- */

void __wrap_g_usleep(gulong us)
{
	sched_sleep((int64_t)us);
}

gint64 __wrap_g_get_monotonic_time(void)
{
	return BOOT_BASE_US + sched_now();
}

gint64 __wrap_g_get_real_time(void)
{
	return REAL_BASE_US + sched_now();
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
	int64_t us = sched_now() + (clock == CLOCK_REALTIME ? REAL_BASE_US : BOOT_BASE_US);

	*ts = (struct timespec){ us / 1000000, us % 1000000 * 1000 };
	return 0;
}

/* ---- which machine and process this is ---- */

int __wrap_RAND_bytes(unsigned char *buf, int n)
{
	for (int i = 0; i < n; i++)
		buf[i] = (unsigned char)sched_random();
	return 1;
}

pid_t __wrap_getpid(void)
{
	return 1000 + sched_life();
}

static int machines[SCHED_LIVES];

void wrap_set_machine(int life, int machine)
{
	machines[life] = machine;
}

/* Each node has a machine of its own, where its processes can be seen, dead or alive. */
gboolean __wrap_g_file_get_contents(const char *path, char **ret_text, gsize *ret_len, GError **error)
{
	int pid = 0;

	if (g_str_has_suffix(path, "/boot_id")) {
		*ret_text = g_strdup_printf("machine-%d\n", machines[sched_life()]);
	} else if (sscanf(path, "/proc/%d/stat", &pid) == 1) {
		int life = pid - 1000;
		if (life < 0 || life >= SCHED_LIVES || sched_is_dead(life))
			return FALSE;
		*ret_text = g_strdup_printf("%d (mailfs) S 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 %d 0", pid, 5000 + life);
	} else {
		return FALSE;
	}
	if (ret_len)
		*ret_len = strlen(*ret_text);
	return TRUE;
}
