/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/replay.h"

#include "fuse/replayer.h"
#include "fuse/reply.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#define WORKERS 4 /* one that waits for a lock of the kernel must not hold up all */
#define EVENTS_MAX 256u
#define FAKE_FIRST (UINT64_C(1) << 31) /* incarnation 0 has no numbers but the root's */
#define FAKE_LAST (UINT64_C(0xffffffff))

struct event {
	enum mf_event_kind kind;
	bool is_dir;
	uint64_t parent, new_parent, ino;
	char *name, *new_name;
};

/* What is to be raised in one directory. */
struct queue {
	uint64_t dir;
	GPtrArray *events; /* while a worker has it, it is not in replay->due */
};

struct worker {
	MfReplay *replay;
	struct mf_replayer replayer;
	gint pid; /* atomic; 0: it has ended */
	GThread *thread;
	GMutex lock;
	GArray *way;	   /* protected by lock; struct mf_fs_step */
	GPtrArray *events; /* protected by lock; as many as the job has steps */
	/* Protected by lock: the step in which the kernel looked up what it is to work on, and got no real inode, + 1. */
	unsigned faked, missed;
};

struct MfReplay {
	MfFs *fs;
	gint silent; /* atomic: the trouble of complain() was logged */
	struct worker workers[WORKERS];
	GMutex lock;
	GCond cond;
	bool stopping;	 /* protected by lock */
	unsigned living; /* protected by lock; processes */
	GHashTable *queues; /* protected by lock; uint64_t in struct queue -> it */
	GQueue due;	    /* protected by lock */
	uint64_t fake;	    /* protected by lock */
};

static void event_free(void *data)
{
	struct event *event = data;

	g_free(event->name);
	g_free(event->new_name);
	g_free(event);
}

static void queue_free(void *data)
{
	struct queue *queue = data;

	g_ptr_array_unref(queue->events);
	g_free(queue);
}

/* ---- from the filesystem ---- */

static bool is_many(const struct event *event)
{
	return event->kind == MF_EVENT_DELETE && strcmp(event->name, MF_REPLAY_MANY) == 0;
}

static bool has_many(const struct queue *queue, uint64_t parent)
{
	for (unsigned i = 0; i < queue->events->len; i++) {
		const struct event *e = queue->events->pdata[i];
		if (e->parent == parent && is_many(e))
			return true;
	}
	return false;
}

static void add(struct queue *queue, const struct mf_kernel_event *event)
{
	struct event *e = g_new(struct event, 1);

	*e = (struct event){ event->kind, event->is_dir, event->parent, event->new_parent, event->ino,
		g_strdup(event->name), g_strdup(event->new_name) };
	g_ptr_array_add(queue->events, e);
}

static void add_many(struct queue *queue, uint64_t parent)
{
	if (!has_many(queue, parent))
		add(queue, &(struct mf_kernel_event){ .kind = MF_EVENT_DELETE, .parent = parent, .name = MF_REPLAY_MANY });
}

/* In the place of an event of these directories. */
static void wake(struct queue *queue, enum mf_event_kind kind, uint64_t parent, uint64_t new_parent)
{
	add_many(queue, parent);
	if (kind == MF_EVENT_MOVE)
		add_many(queue, new_parent);
}

void mf_replay_raise(MfReplay *replay, uint64_t dir, const struct mf_kernel_event *event)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&replay->lock);
	struct queue *queue = g_hash_table_lookup(replay->queues, &dir);

	if (replay->living == 0)
		return;
	if (!queue) {
		queue = g_new0(struct queue, 1);
		*queue = (struct queue){ .dir = dir, .events = g_ptr_array_new_with_free_func(event_free) };
		g_hash_table_insert(replay->queues, &queue->dir, queue);
		g_queue_push_tail(&replay->due, queue);
		g_cond_signal(&replay->cond);
	}
	if (event->kind != MF_EVENT_MANY && queue->events->len < EVENTS_MAX)
		add(queue, event);
	else
		wake(queue, event->kind, event->parent, event->new_parent);
}

/* ---- to a replayer ---- */

/* The path of a name below the directory of the job, and the step that leads to its parent. False: not there any more. */
static bool describe(struct worker *worker, uint64_t dir, uint64_t parent, const char *name, char path[NAME_MAX + 8])
{
	g_autoptr(GArray) way = NULL;

	if (parent == dir)
		return g_strlcpy(path, name, NAME_MAX + 8) < NAME_MAX + 8;
	/* cur, new or tmp, which lie in it. */
	if (mf_fs_way(worker->replay->fs, parent, &way) < 0 || way->len == 0)
		return false;
	const struct mf_fs_step *last = &g_array_index(way, struct mf_fs_step, way->len - 1);
	if (last->parent != dir)
		return false;
	g_array_append_val(worker->way, *last);
	return g_snprintf(path, NAME_MAX + 8, "%s/%s", last->name, name) < NAME_MAX + 8;
}

static bool describe_step(struct worker *worker, uint64_t dir, const struct event *event, struct mf_replay_step *step)
{
	*step = (struct mf_replay_step){ .kind = event->kind, .is_dir = event->is_dir };
	return describe(worker, dir, event->parent, event->name, step->name) &&
	       (event->kind != MF_EVENT_MOVE || describe(worker, dir, event->new_parent, event->new_name, step->to));
}

/* rename(2) between two directories takes a lock that all such renames of the mount wait for, and with it waits for those of
 * the directories. While a process that waits for the lease may have these, that would hold up every delivery. */
static void part(GPtrArray *events, unsigned i)
{
	struct event *event = events->pdata[i], *made = g_new0(struct event, 1);

	*made = (struct event){ .kind = MF_EVENT_CREATE, .is_dir = event->is_dir, .parent = event->new_parent,
		.name = g_steal_pointer(&event->new_name) };
	event->kind = MF_EVENT_DELETE;
	g_ptr_array_insert(events, (gint)i + 1, made);
}

static void part_moves(MfFs *fs, uint64_t dir, GPtrArray *events)
{
	bool calm = mf_fs_is_calm(fs, dir);

	for (unsigned i = 0; i < events->len && !calm; i++) {
		const struct event *event = events->pdata[i];
		if (event->kind == MF_EVENT_MOVE && event->parent != event->new_parent)
			part(events, i);
	}
}

static bool describe_way(const GArray *steps, char way[PATH_MAX])
{
	g_autoptr(GString) path = g_string_new(NULL);

	for (unsigned i = 0; i < steps->len; i++)
		g_string_append_printf(path, "%s%s", i > 0 ? "/" : "", g_array_index(steps, struct mf_fs_step, i).name);
	return g_strlcpy(way, path->str, PATH_MAX) < PATH_MAX;
}

/* Takes the first events of @events as far as they fit in a job. False: the directory cannot be reached. */
static bool prepare(struct worker *worker, uint64_t dir, GPtrArray *events)
{
	struct mf_replay_job *job = worker->replayer.job;
	MfReplay *replay = worker->replay;
	GArray *way;

	if (mf_fs_way(replay->fs, dir, &way) < 0)
		return false;
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&worker->lock);
	g_clear_pointer(&worker->way, g_array_unref);
	g_ptr_array_set_size(worker->events, 0);
	worker->way = way;
	worker->faked = worker->missed = 0;
	job->n = 0;
	__atomic_store_n(&job->confirmed, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&job->done, 0, __ATOMIC_SEQ_CST);
	if (!describe_way(way, job->way))
		return false;
	while (events->len > 0 && job->n < MF_REPLAY_STEPS) {
		struct event *event = g_ptr_array_steal_index(events, 0);
		if (describe_step(worker, dir, event, &job->steps[job->n])) {
			g_ptr_array_add(worker->events, event);
			job->n++;
		} else {
			event_free(event);
		}
	}
	return true;
}

/* The kernel would not do it, or the way to the directory changed under the walk: who watches is woken all the same.
 * @end: why the replayer did not come to its end, or 0. */
static void note_failures(struct worker *worker, struct queue *queue, int end)
{
	const struct mf_replay_job *job = worker->replayer.job;

	for (unsigned i = 0; i < worker->events->len; i++) {
		const struct event *event = worker->events->pdata[i];
		int error = end ? end : job->error ? job->error : job->steps[i].error;
		if (error == 0 || (is_many(event) && !end))
			continue;
		g_debug("%s: no event of it: %s", event->name, g_strerror(error));
		wake(queue, event->kind, event->parent, event->new_parent);
	}
}

/* Its process has ended, for a reason of its own. */
static void lose(struct worker *worker)
{
	MfReplay *replay = worker->replay;

	/* Nobody has its pid before it is waited for. */
	g_atomic_int_set(&worker->pid, 0);
	g_mutex_lock(&replay->lock);
	unsigned left = --replay->living;
	g_mutex_unlock(&replay->lock);
	if (left == 0)
		g_critical("all processes that raise the events of other nodes have ended: IDLE is not woken by these until the "
			   "filesystem is mounted again");
	else
		g_warning("a process that raises the events of other nodes has ended; %u are left", left);
}

/* Once: it would be said of each event. */
static void complain(MfReplay *replay, int error)
{
	if (error == ENXIO || error == ENOENT || error == ESTALE || error == ENOTDIR || error == ENOTCONN)
		g_debug("there is another mount, or none, where this one was, or the directory is elsewhere: %s",
			g_strerror(error));
	else if (error != 0 && g_atomic_int_compare_and_exchange(&replay->silent, 0, 1))
		g_warning("cannot raise the events of other nodes on this mount: %s", g_strerror(error));
	else if (error == 0)
		g_atomic_int_set(&replay->silent, 0);
}

static void *work(void *arg)
{
	struct worker *worker = arg;
	MfReplay *replay = worker->replay;
	bool alive = true;

	g_mutex_lock(&replay->lock);
	while (!replay->stopping && alive) {
		struct queue *queue = g_queue_pop_head(&replay->due);
		if (!queue) {
			g_cond_wait(&replay->cond, &replay->lock);
			continue;
		}
		g_autoptr(GPtrArray) events = g_steal_pointer(&queue->events);
		queue->events = g_ptr_array_new_with_free_func(event_free);
		g_mutex_unlock(&replay->lock);
		part_moves(replay->fs, queue->dir, events);
		while (alive && events->len > 0 && prepare(worker, queue->dir, events)) {
			alive = mf_replayer_run(&worker->replayer) == 0;
			if (alive)
				complain(replay, worker->replayer.job->error);
			g_mutex_lock(&replay->lock);
			note_failures(worker, queue, alive ? 0 : EPIPE);
			g_mutex_unlock(&replay->lock);
		}
		g_mutex_lock(&replay->lock);
		for (unsigned i = 0; i < events->len && !alive; i++) {
			const struct event *event = events->pdata[i];
			wake(queue, event->kind, event->parent, event->new_parent);
		}
		if (queue->events->len > 0) {
			g_queue_push_tail(&replay->due, queue);
			g_cond_signal(&replay->cond);
		} else {
			g_hash_table_remove(replay->queues, &queue->dir);
		}
	}
	bool ended = !alive && !replay->stopping;
	g_mutex_unlock(&replay->lock);
	if (ended)
		lose(worker);
	return NULL;
}

/* ---- from start to end ---- */

int mf_replay_new(const char *mountpoint, MfReplay **ret_replay)
{
	MfReplay *replay = g_new0(MfReplay, 1);
	int r = 0;

	/* Ignored, which a process may have inherited, the pid of a replayer would be free as soon as that ends. */
	signal(SIGCHLD, SIG_DFL);
	g_mutex_init(&replay->lock);
	g_cond_init(&replay->cond);
	g_queue_init(&replay->due);
	replay->fake = FAKE_FIRST;
	replay->queues = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, queue_free);
	for (unsigned i = 0; i < WORKERS && r == 0; i++) {
		struct worker *worker = &replay->workers[i];
		worker->replay = replay;
		g_mutex_init(&worker->lock);
		worker->events = g_ptr_array_new_with_free_func(event_free);
		r = mf_replayer_start(mountpoint, &worker->replayer);
		if (r == 0) {
			worker->pid = worker->replayer.pid;
			replay->living++;
		}
	}
	if (r < 0)
		mf_replay_free(replay);
	else
		*ret_replay = replay;
	return r;
}

void mf_replay_start(MfReplay *replay, MfFs *fs)
{
	replay->fs = fs;
	for (unsigned i = 0; i < WORKERS; i++)
		replay->workers[i].thread = g_thread_new("mailfs-replay", work, &replay->workers[i]);
}

void mf_replay_halt(MfReplay *replay)
{
	g_mutex_lock(&replay->lock);
	replay->stopping = true;
	g_cond_broadcast(&replay->cond);
	g_mutex_unlock(&replay->lock);
	for (unsigned i = 0; i < WORKERS; i++)
		mf_replayer_kill(&replay->workers[i].replayer);
}

void mf_replay_stop(MfReplay *replay)
{
	mf_replay_halt(replay);
	for (unsigned i = 0; i < WORKERS; i++)
		g_clear_pointer(&replay->workers[i].thread, g_thread_join);
}

MfReplay *mf_replay_free(MfReplay *replay)
{
	if (!replay)
		return NULL;
	for (unsigned i = 0; i < WORKERS; i++) {
		struct worker *worker = &replay->workers[i];
		if (!worker->replay)
			continue;
		g_atomic_int_set(&worker->pid, 0);
		if (worker->replayer.job)
			mf_replayer_end(&worker->replayer);
		g_clear_pointer(&worker->way, g_array_unref);
		g_ptr_array_unref(worker->events);
		g_mutex_clear(&worker->lock);
	}
	g_queue_clear(&replay->due);
	g_hash_table_unref(replay->queues);
	g_cond_clear(&replay->cond);
	g_mutex_clear(&replay->lock);
	g_free(replay);
	return NULL;
}

/* ---- its requests ---- */

static struct worker *worker_of(MfReplay *replay, fuse_req_t req)
{
	pid_t pid = fuse_req_ctx(req)->pid;

	for (unsigned i = 0; i < WORKERS && pid != 0; i++) {
		if (g_atomic_int_get(&replay->workers[i].pid) == pid)
			return &replay->workers[i];
	}
	return NULL;
}

/* The step that the replayer is at. */
static unsigned step_of(const struct worker *worker)
{
	return __atomic_load_n(&worker->replayer.job->done, __ATOMIC_SEQ_CST);
}

static const struct event *present(const struct worker *worker)
{
	unsigned i = step_of(worker);

	return i < worker->events->len ? worker->events->pdata[i] : NULL;
}

static bool is_at(const struct event *event, enum mf_event_kind kind, uint64_t parent, const char *name)
{
	return event && event->kind == kind && event->parent == parent && strcmp(event->name, name) == 0;
}

static bool is_move_to(const struct event *event, uint64_t parent, const char *name)
{
	return event && event->kind == MF_EVENT_MOVE && event->new_parent == parent && strcmp(event->new_name, name) == 0;
}

static bool is_fake(uint64_t ino)
{
	return ino >= FAKE_FIRST && ino <= FAKE_LAST;
}

/* Odd: a directory. */
static void describe_fake(uint64_t ino, struct mf_stat *ret)
{
	bool is_dir = ino & 1;

	*ret = (struct mf_stat){ .ino = ino, .nlink = is_dir ? 2 : 1, .attr.mode = is_dir ? S_IFDIR : S_IFREG };
}

/* An inode that nobody has. */
static void fake(MfReplay *replay, bool is_dir, struct mf_stat *ret)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&replay->lock);

	describe_fake(replay->fake | is_dir, ret);
	replay->fake = replay->fake + 2 < FAKE_LAST ? replay->fake + 2 : FAKE_FIRST;
}

static int find(struct worker *worker, uint64_t parent, const char *name, struct mf_stat *ret)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&worker->lock);
	MfReplay *replay = worker->replay;
	const struct event *event = present(worker);

	for (unsigned i = 0; worker->way && i < worker->way->len; i++) {
		const struct mf_fs_step *step = &g_array_index(worker->way, struct mf_fs_step, i);
		if (step->parent == parent && strcmp(step->name, name) == 0)
			return mf_fs_remind(replay->fs, step->ino, ret);
	}
	/* The file itself, if the kernel has it: it may be watched, too. */
	if (is_at(event, MF_EVENT_MODIFY, parent, name) && mf_fs_remind(replay->fs, event->ino, ret) == 0) {
		if (!S_ISDIR(ret->attr.mode))
			return 0;
		mf_fs_forget(replay->fs, ret->ino, 1);
	}
	if (!is_at(event, MF_EVENT_MODIFY, parent, name) && !is_at(event, MF_EVENT_DELETE, parent, name) &&
		!is_at(event, MF_EVENT_MOVE, parent, name)) {
		if (is_move_to(event, parent, name))
			worker->missed = step_of(worker) + 1;
		return -ENOENT;
	}
	worker->faked = step_of(worker) + 1;
	fake(replay, event->is_dir, ret);
	return 0;
}

bool mf_replay_lookup(MfReplay *replay, fuse_req_t req, uint64_t parent, const char *name)
{
	struct worker *worker = worker_of(replay, req);
	struct mf_stat st;

	if (!worker)
		return false;
	int r = find(worker, parent, name, &st);
	if (r < 0)
		mf_reply_err(req, "lookup", parent, r);
	else
		mf_reply_known_entry(req, &st);
	return true;
}

bool mf_replay_attr(MfReplay *replay, fuse_req_t req, uint64_t ino)
{
	struct worker *worker = worker_of(replay, req);
	struct mf_stat st;
	int r = 0;

	if (!worker)
		return false;
	if (ino == FUSE_ROOT_ID)
		__atomic_store_n(&worker->replayer.job->confirmed, 1, __ATOMIC_SEQ_CST);
	if (is_fake(ino)) {
		describe_fake(ino, &st);
	} else {
		r = mf_fs_remind(replay->fs, ino, &st);
		if (r == 0)
			mf_fs_forget(replay->fs, ino, 1);
	}
	if (r < 0)
		mf_reply_err(req, "getattr", ino, r);
	else
		mf_reply_known_attr(req, &st);
	return true;
}

bool mf_replay_make(MfReplay *replay, fuse_req_t req, uint64_t parent, const char *name)
{
	struct worker *worker = worker_of(replay, req);
	struct mf_stat st;

	if (!worker)
		return false;
	g_mutex_lock(&worker->lock);
	const struct event *event = present(worker);
	bool ok = is_at(event, MF_EVENT_CREATE, parent, name);
	if (ok)
		fake(replay, event->is_dir, &st);
	g_mutex_unlock(&worker->lock);
	if (ok)
		mf_reply_known_entry(req, &st);
	else
		mf_reply_err(req, "mknod", parent, -EPERM);
	return true;
}

/* Directories may be in the kernel with a name that it need not ask for: then it would work on one that lives. Told ESTALE, it
 * looks up the name first, and comes again (retry_estale() in its fs/namei.c). */
static int verdict(bool expected, bool looked_up)
{
	if (!expected)
		return -EPERM;
	return looked_up ? 0 : -ESTALE;
}

bool mf_replay_remove(MfReplay *replay, fuse_req_t req, uint64_t parent, const char *name)
{
	struct worker *worker = worker_of(replay, req);

	if (!worker)
		return false;
	g_mutex_lock(&worker->lock);
	int r = verdict(is_at(present(worker), MF_EVENT_DELETE, parent, name),
		worker->faked == step_of(worker) + 1);
	g_mutex_unlock(&worker->lock);
	mf_reply_err(req, "unlink", parent, r);
	return true;
}

bool mf_replay_rename(
	MfReplay *replay, fuse_req_t req, uint64_t parent, const char *name, uint64_t new_parent, const char *new_name)
{
	struct worker *worker = worker_of(replay, req);

	if (!worker)
		return false;
	g_mutex_lock(&worker->lock);
	const struct event *event = present(worker);
	unsigned step = step_of(worker) + 1;
	int r = verdict(is_at(event, MF_EVENT_MOVE, parent, name) && is_move_to(event, new_parent, new_name),
		worker->faked == step && worker->missed == step);
	g_mutex_unlock(&worker->lock);
	mf_reply_err(req, "rename", parent, r);
	return true;
}
