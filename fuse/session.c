/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/session.h"

#include "fuse/answer.h"
#include "fuse/ops.h"
#include "fuse/reply.h"
#include "locking/filelock.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

void mf_session_init(struct mf_session *session)
{
	memset(session, 0, sizeof *session);
	g_mutex_init(&session->asking);
	g_mutex_init(&session->lock);
	session->files = g_hash_table_new(NULL, NULL);
	session->dirs = g_hash_table_new(NULL, NULL);
}

void mf_session_clear(struct mf_session *session)
{
	g_hash_table_unref(session->files);
	g_hash_table_unref(session->dirs);
	g_mutex_clear(&session->lock);
	g_mutex_clear(&session->asking);
}

struct mf_session *mf_session_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* Logs the change only: every request meets the same trouble. */
static int check(struct mf_session *session)
{
	int r;

	/* Taken over: this node joins anew by itself, and then the request is as good as any other. */
	while ((r = mf_node_check(session->node)) == -ESHUTDOWN) {
		if (mf_fs_await_life(session->fs) < 0)
			return r;
	}
	if (G_LIKELY(r == 0)) {
		if (G_UNLIKELY(g_atomic_int_get(&session->silent)) &&
			g_atomic_int_compare_and_exchange(&session->silent, 1, 0))
			g_message("the cluster answers again");
	} else if (g_atomic_int_compare_and_exchange(&session->silent, 0, 1)) {
		g_warning("the cluster does not answer: requests fail until it does");
	}
	return r;
}

struct mf_session *mf_session_begin(fuse_req_t req, const char *op, uint64_t ino)
{
	struct mf_session *session = mf_session_of(req);
	int r = check(session);

	mf_fs_requester((uint32_t)fuse_req_ctx(req)->pid);
	if (r < 0) {
		mf_reply_err(req, op, ino, r);
		return NULL;
	}
	return session;
}

bool mf_session_again(struct mf_session *session, int r)
{
	return r == -ESHUTDOWN && check(session) == 0;
}

void mf_session_add_file(struct mf_session *session, MfHandle *handle)
{
	g_mutex_lock(&session->lock);
	g_hash_table_add(session->files, handle);
	g_mutex_unlock(&session->lock);
}

void mf_session_add_dir(struct mf_session *session, MfDirHandle *handle)
{
	g_mutex_lock(&session->lock);
	g_hash_table_add(session->dirs, handle);
	g_mutex_unlock(&session->lock);
}

void mf_session_remove_file(struct mf_session *session, MfHandle *handle)
{
	g_mutex_lock(&session->lock);
	g_hash_table_remove(session->files, handle);
	g_mutex_unlock(&session->lock);
}

void mf_session_remove_dir(struct mf_session *session, MfDirHandle *handle)
{
	g_mutex_lock(&session->lock);
	g_hash_table_remove(session->dirs, handle);
	g_mutex_unlock(&session->lock);
}

void mf_session_drain(struct mf_session *session)
{
	g_autoptr(GArray) done = mf_filelock_done_new();
	GHashTableIter iter;
	gpointer handle;

	mf_fs_end_locks(session->fs, done);

	/* One thread is left: the tables need no lock. */
	g_hash_table_iter_init(&iter, session->files);
	while (g_hash_table_iter_next(&iter, &handle, NULL))
		mf_fs_release(session->fs, handle, done);
	g_hash_table_remove_all(session->files);

	g_hash_table_iter_init(&iter, session->dirs);
	while (g_hash_table_iter_next(&iter, &handle, NULL))
		mf_dirhandle_free(handle);
	g_hash_table_remove_all(session->dirs);

	mf_reply_done(done);
}

/* A node that was declared lost has joined anew. Locked. */
static void note_life(struct mf_session *session)
{
	session->incarnation = mf_node_incarnation(session->node);
	session->since_s = mf_node_since(session->node) / 1000000000;
}

void mf_session_stopping(struct mf_session *session)
{
	g_mutex_lock(&session->asking);
	g_mutex_lock(&session->lock);
	session->stopping = true;
	session->fenced = mf_node_is_fenced(session->node);
	note_life(session);
	mf_fs_status(session->fs, &session->status);
	g_mutex_unlock(&session->lock);
	g_mutex_unlock(&session->asking);
}

static const char *condition(MfNode *node)
{
	switch (mf_node_condition(node)) {
	case MF_NODE_WAITING:
		return "waiting for the cluster";
	case MF_NODE_FENCED:
		return "fenced";
	case MF_NODE_REJOINING:
		return "rejoining";
	default:
		return "serving";
	}
}

static json_t *status(struct mf_session *session)
{
	struct mf_pool_counts counts;
	struct mf_fs_status fs;
	const char *state;

	g_mutex_lock(&session->lock);
	if (session->stopping) {
		fs = session->status;
		state = session->fenced ? "fenced" : "stopping";
	} else {
		mf_fs_status(session->fs, &fs);
		state = condition(session->node);
		note_life(session);
	}
	uint32_t incarnation = session->incarnation;
	int64_t since_s = session->since_s;
	g_mutex_unlock(&session->lock);
	mf_pool_counts(session->pool, &counts);

	return json_pack("{s:o, s:o, s:o, s:I, s:I, s:I, s:s, s:s, s:{s:I, s:I}, s:I, s:I, s:I,"
			 " s:{s:I, s:I, s:I, s:I, s:I}, s:I, s:{s:I, s:I, s:I, s:I}, s:{s:I, s:I},"
			 " s:{s:I, s:I}}",
		"node", mf_answer_text(session->conf->node), "mountpoint", mf_answer_text(session->mountpoint), "fs",
		mf_answer_text(session->conf->fs), "incarnation", (json_int_t)incarnation, "since", (json_int_t)since_s,
		"pid", (json_int_t)getpid(), "version", MF_VERSION, "state", state, "cache", "limit",
		(json_int_t)session->conf->cache_size, "bytes", (json_int_t)fs.cached_bytes, "inodes",
		(json_int_t)fs.inodes, "directories", (json_int_t)fs.directories, "dirty", (json_int_t)fs.dirty,
		"rados", "read", (json_int_t)counts.reads, "write", (json_int_t)counts.writes, "notify",
		(json_int_t)counts.notifies, "bytes_read", (json_int_t)counts.bytes_read, "bytes_written",
		(json_int_t)counts.bytes_written, "upkeep", (json_int_t)counts.upkeep, "leases", "shared",
		(json_int_t)fs.shared, "exclusive",
		(json_int_t)fs.exclusive, "waiters", (json_int_t)fs.waiters, "recalls", (json_int_t)fs.recalls, "locks",
		"held", (json_int_t)fs.locks, "waiting", (json_int_t)fs.lock_waits, "events", "told",
		(json_int_t)fs.events_told, "raised", (json_int_t)fs.events_raised);
}

/* Who it is, and a list of what it holds. */
static json_t *listing(struct mf_session *session, const char *name, json_t *(*list)(MfFs *fs))
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&session->asking);

	g_mutex_lock(&session->lock);
	if (!session->stopping)
		note_life(session);
	uint32_t incarnation = session->incarnation;
	g_mutex_unlock(&session->lock);
	return json_pack("{s:o, s:o, s:o, s:I, s:o}", "node", mf_answer_text(session->conf->node), "mountpoint",
		mf_answer_text(session->mountpoint), "fs", mf_answer_text(session->conf->fs), "incarnation",
		(json_int_t)incarnation, name, session->stopping ? json_array() : list(session->fs));
}

json_t *mf_session_answer(const char *request, void *arg)
{
	if (strcmp(request, "status") == 0)
		return status(arg);
	if (strcmp(request, "leases") == 0)
		return listing(arg, request, mf_answer_leases);
	if (strcmp(request, "locks") == 0)
		return listing(arg, request, mf_answer_locks);
	return NULL;
}
