/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/locks.h"

#include "store/lockrecord.h"
#include "sync/dir.h"
#include "sync/handle.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/lostlock.h"
#include "sync/recall.h"
#include "sync/sweep.h"
#include "sync/table.h"

#include <errno.h>
#include <string.h>

/* What the lock table knows a waiting request by. */
struct mf_lock_request {
	uint32_t incarnation; /* whose it is */
	uint64_t id;
	void *cookie; /* NULL: of another node */
	bool parked;  /* in our table */
	bool granted; /* by another node, which got the lease from us although we do not know yet that it has it */
	bool cancelled;
	struct mf_filelock lock;
};

static struct mf_lock_request *request_new(MfFs *fs, const struct mf_filelock *lock, uint64_t id, void *cookie)
{
	struct mf_lock_request *request = g_new0(struct mf_lock_request, 1);

	request->incarnation = lock->incarnation;
	request->id = id;
	request->cookie = cookie;
	request->lock = *lock;
	if (cookie)
		g_hash_table_insert(fs->lock_requests, cookie, request);
	return request;
}

static struct mf_lock_request *find_request(MfFs *fs, uint64_t id)
{
	GHashTableIter iter;
	gpointer value;

	g_hash_table_iter_init(&iter, fs->lock_requests);
	while (g_hash_table_iter_next(&iter, NULL, &value)) {
		if (((struct mf_lock_request *)value)->id == id)
			return value;
	}
	return NULL;
}

static void answer(MfFs *fs, struct mf_lock_request *request, int result, GArray *done)
{
	struct mf_filelock_done item = { request->cookie, result };

	g_array_append_val(done, item);
	g_hash_table_remove(fs->lock_requests, request->cookie);
	g_free(request);
}

/* ---- answers that come when nobody of the kernel's side is here ---- */

static void reply(MfFs *fs, void *arg)
{
	GArray *done = arg;

	if (fs->kernel)
		fs->kernel->lock_done(done, fs->kernel_arg);
	g_array_unref(done);
}

static void reply_later(MfFs *fs, GArray *done)
{
	if (done->len > 0)
		mf_fs_work(fs, reply, g_array_ref(done));
}

/* ---- records ---- */

static void add_record(const struct mf_filelock *lock, void *cookie, void *data)
{
	struct mf_lock_record rec = {
		.waiting = cookie != NULL,
		.owner = lock->owner,
		.fh = lock->fh,
		.start = lock->start,
		.end = lock->end,
		.incarnation = lock->incarnation,
		.pid = lock->pid,
		.space = lock->space,
		.type = lock->type,
	};

	if (cookie)
		rec.id = ((const struct mf_lock_request *)cookie)->id;
	g_array_append_val((GArray *)data, rec);
}

/* NULL: there are none. */
static GByteArray *encode(MfFs *fs, uint64_t ino)
{
	g_autoptr(GArray) records = g_array_new(false, false, sizeof(struct mf_lock_record));

	mf_filelock_foreach(fs->locks, ino, add_record, records);
	return records->len > 0 ? mf_lock_records_encode(records) : NULL;
}

static void add_ino(const struct mf_filelock *lock, void *cookie, void *data)
{
	g_hash_table_add(data, g_memdup2(&lock->ino, sizeof(lock->ino)));
}

/* Inodes of the directory, and itself, that have locks in the table. */
static GHashTable *locked_inodes(MfDir *dir)
{
	MfFs *fs = dir->fs;
	g_autoptr(GHashTable) all = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	GHashTable *here = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	GHashTableIter iter;
	gpointer key;

	if (mf_filelock_inodes(fs->locks) == 0)
		return here;
	mf_filelock_foreach(fs->locks, 0, add_ino, all);
	g_hash_table_iter_init(&iter, all);
	while (g_hash_table_iter_next(&iter, &key, NULL)) {
		const MfInode *inode = mf_inode_find(fs, *(uint64_t *)key);
		if (inode && inode->dir ? inode->dir == dir : g_hash_table_contains(dir->noted_locks, key))
			g_hash_table_add(here, g_memdup2(key, sizeof(uint64_t)));
	}
	return here;
}

void mf_locks_note(MfDir *dir, MfWop *wop)
{
	g_autoptr(GHashTable) here = locked_inodes(dir);
	GHashTableIter iter;
	gpointer key;

	g_hash_table_iter_init(&iter, here);
	while (g_hash_table_iter_next(&iter, &key, NULL)) {
		g_autofree char *name = mf_key_number(MF_KEY_LOCKS, *(uint64_t *)key);
		g_autoptr(GByteArray) bytes = encode(dir->fs, *(uint64_t *)key);
		mf_wop_omap_set(wop, name, bytes->data, bytes->len);
	}
	g_hash_table_iter_init(&iter, dir->noted_locks);
	while (g_hash_table_iter_next(&iter, &key, NULL)) {
		g_autofree char *name = mf_key_number(MF_KEY_LOCKS, *(uint64_t *)key);
		if (!g_hash_table_contains(here, key))
			mf_wop_omap_rm(wop, name);
	}
}

/* Out of the table without an answer. */
static void forget(MfFs *fs, uint64_t ino)
{
	g_autoptr(GArray) done = mf_filelock_done_new();

	mf_filelock_drop_inode(fs->locks, ino, -EAGAIN, done);
	for (unsigned i = 0; i < done->len; i++) {
		struct mf_lock_request *request = g_array_index(done, struct mf_filelock_done, i).cookie;
		request->parked = false;
		if (!request->cookie)
			g_free(request);
	}
}

static void answer_granted(MfFs *fs)
{
	g_autoptr(GPtrArray) requests = mf_table_values(fs->lock_requests);
	g_autoptr(GArray) done = mf_filelock_done_new();

	for (unsigned i = 0; i < requests->len; i++) {
		struct mf_lock_request *request = requests->pdata[i];
		if (request->parked)
			continue;
		if (request->granted)
			answer(fs, request, 0, done);
		else
			mf_sweep_ask(fs, &fs->locks_wait);
	}
	reply_later(fs, done);
}

void mf_locks_left(MfDir *dir)
{
	g_autoptr(GHashTable) here = locked_inodes(dir);
	GHashTableIter iter;
	gpointer key;

	g_hash_table_iter_init(&iter, here);
	while (g_hash_table_iter_next(&iter, &key, NULL))
		forget(dir->fs, *(uint64_t *)key);
	g_hash_table_remove_all(dir->noted_locks);
	answer_granted(dir->fs);
	for (unsigned i = 0; i < dir->granted->len; i++) {
		const struct mf_lock_grant *grant = &g_array_index(dir->granted, struct mf_lock_grant, i);
		mf_notice_send(dir->fs, grant->incarnation, MF_NOTICE_LOCK, grant->ino, grant->id);
	}
	g_array_set_size(dir->granted, 0);
}

void mf_locks_moved(MfDir *from, MfDir *to, uint64_t ino)
{
	MfShard *head = from->shards->pdata[0];
	g_autoptr(GByteArray) bytes = encode(from->fs, ino);

	if (bytes)
		g_hash_table_add(to->noted_locks, g_memdup2(&ino, sizeof(ino)));
	if (!g_hash_table_remove(from->noted_locks, &ino))
		return;
	g_autofree char *key = mf_key_number(MF_KEY_LOCKS, ino);
	mf_dir_drop_value(from, head, key);
}

bool mf_locks_any(MfDir *dir)
{
	g_autoptr(GHashTable) here = locked_inodes(dir);

	return g_hash_table_size(here) > 0 || g_hash_table_size(dir->noted_locks) > 0;
}

/* What the table has decided: answers for here into @done. Another node that got its lock is about to use it, so it gets the lease
 * as well; the operation that hands that over makes the grant durable, and only then is it told. Were we to die before, the
 * next lock manager would decide anew. */
static void settle(MfFs *fs, MfDir *dir, GArray *raw, GArray *done)
{
	for (unsigned i = 0; i < raw->len; i++) {
		const struct mf_filelock_done *item = &g_array_index(raw, struct mf_filelock_done, i);
		struct mf_lock_request *request = item->cookie;

		if (request->cookie) {
			answer(fs, request, item->result, done);
			continue;
		}
		if (item->result == 0 && dir) {
			struct mf_lock_grant grant = { request->incarnation, request->lock.ino, request->id };
			g_array_append_val(dir->granted, grant);
			mf_recall_by(dir, request->incarnation, MF_LEASE_EXCLUSIVE);
		}
		g_free(request);
	}
}

/* The directory whose lease guards @ino, if we are its lock manager and are to stay so: what is decided while the lease is being
 * handed over would be lost. */
static MfDir *manager(MfFs *fs, uint64_t ino)
{
	MfInode *inode = mf_inode_find(fs, ino);
	MfDir *dir = inode ? inode->dir : NULL;

	return dir && dir->lease.mode == MF_LEASE_EXCLUSIVE && !dir->draining && !dir->acquiring ? dir : NULL;
}

/* ---- taking over ---- */

static void take_one(MfDir *dir, uint64_t ino, const struct mf_lock_record *rec, GArray *raw)
{
	MfFs *fs = dir->fs;
	enum mf_holder owner = mf_node_holder(fs->node, rec->incarnation);
	struct mf_filelock lock = {
		.ino = ino,
		.owner = rec->owner,
		.fh = rec->fh,
		.start = rec->start,
		.end = rec->end,
		.incarnation = rec->incarnation,
		.pid = rec->pid,
		.space = rec->space,
		.type = rec->type,
	};

	if (owner == MF_HOLDER_CLEAN || owner == MF_HOLDER_LOST)
		return;
	if (!rec->waiting) {
		if (mf_filelock_import(fs->locks, &lock) < 0)
			g_warning("a file lock on inode %016" G_GINT64_MODIFIER "x contradicts another one", ino);
		return;
	}
	struct mf_lock_request *request;
	if (owner == MF_HOLDER_SELF) {
		request = find_request(fs, rec->id);
		if (!request || request->cancelled)
			return;
	} else {
		request = request_new(fs, &lock, rec->id, NULL);
	}
	request->parked = true;
	int r = mf_filelock_wait(fs->locks, &lock, request, raw);
	if (r != MF_FILELOCK_PARKED) {
		request->parked = false;
		struct mf_filelock_done item = { request, r };
		g_array_append_val(raw, item);
	}
}

/* Requests of ours that waited here and are in no record any more have their locks: only the notice has not come yet. */
static void find_granted(MfDir *dir, GHashTable *waiting, GArray *raw)
{
	MfFs *fs = dir->fs;
	g_autoptr(GPtrArray) requests = mf_table_values(fs->lock_requests);

	for (unsigned i = 0; i < requests->len; i++) {
		struct mf_lock_request *request = requests->pdata[i];
		const MfInode *inode = mf_inode_find(fs, request->lock.ino);
		if (request->parked || !inode || inode->dir != dir || g_hash_table_contains(waiting, &request->id))
			continue;
		struct mf_filelock_done item = { request, 0 };
		g_array_append_val(raw, item);
	}
}

int mf_locks_take(MfDir *dir, GArray *kvs)
{
	MfFs *fs = dir->fs;
	g_autoptr(GArray) raw = mf_filelock_done_new();
	g_autoptr(GArray) done = mf_filelock_done_new();
	g_autoptr(GHashTable) waiting = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);

	if (dir->lease.mode != MF_LEASE_EXCLUSIVE)
		return 0;
	for (unsigned i = 0; i < kvs->len; i++) {
		const struct mf_kv *kv = &g_array_index(kvs, struct mf_kv, i);
		g_autoptr(GArray) records = NULL;
		uint64_t ino;
		gsize len;
		const void *data = g_bytes_get_data(kv->value, &len);

		if (!mf_key_parse_number(kv->key, MF_KEY_LOCKS, &ino))
			continue;
		int r = mf_lock_records_decode(data, len, &records);
		if (r < 0)
			return r;
		g_hash_table_add(dir->noted_locks, g_memdup2(&ino, sizeof(ino)));
		for (unsigned n = 0; n < records->len; n++) {
			const struct mf_lock_record *rec = &g_array_index(records, struct mf_lock_record, n);
			if (rec->waiting && rec->incarnation == mf_node_incarnation(fs->node))
				g_hash_table_add(waiting, g_memdup2(&rec->id, sizeof(rec->id)));
			take_one(dir, ino, rec, raw);
		}
	}
	find_granted(dir, waiting, raw);
	settle(fs, dir, raw, done);
	reply_later(fs, done);
	return 0;
}

void mf_locks_granted(MfFs *fs, uint64_t id)
{
	struct mf_lock_request *request = find_request(fs, id);

	if (!request)
		return;
	request->granted = true;
	if (request->parked)
		return;
	g_autoptr(GArray) done = mf_filelock_done_new();
	answer(fs, request, 0, done);
	reply_later(fs, done);
}

/* ---- requests ---- */

/* No lease guards what was removed with its directory, and nobody can open it any more: NULL, and its locks are those of this
 * node. */
static int hold(MfFs *fs, MfInode *inode, MfDir **ret_dir)
{
	int r = mf_inode_hold(fs, inode, MF_LEASE_EXCLUSIVE, ret_dir);

	if (r != -ESTALE || !inode->removed)
		return r;
	*ret_dir = NULL;
	return 0;
}

/* With the lease of what guards @ino. */
static int enter(MfFs *fs, uint64_t ino, MfInode **ret_inode, MfDir **ret_dir)
{
	int r = mf_inode_take(fs, ino, ret_inode);

	if (r < 0)
		return r;
	r = hold(fs, *ret_inode, ret_dir);
	if (r < 0)
		mf_inode_unpin(fs, *ret_inode);
	return r;
}

static void leave(MfFs *fs, MfInode *inode, MfDir *dir)
{
	if (dir)
		mf_dir_put(dir);
	mf_inode_unpin(fs, inode);
}

int mf_fs_test_lock(MfFs *fs, const struct mf_filelock *request, bool *ret_held, struct mf_filelock *ret_holder)
{
	struct mf_filelock lock = *request;
	MfInode *inode;
	MfDir *dir;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	lock.incarnation = mf_node_incarnation(fs->node);
	int r = enter(fs, lock.ino, &inode, &dir);
	if (r < 0)
		return r;
	*ret_held = mf_filelock_test(fs->locks, &lock, ret_holder);
	if (*ret_held && ret_holder->incarnation != lock.incarnation)
		ret_holder->pid = 0; /* means nothing on this machine */
	leave(fs, inode, dir);
	return 0;
}

static void look_for_ours(const struct mf_filelock *lock, void *cookie, void *data)
{
	uint32_t *incarnation = data;

	if (lock->incarnation == *incarnation)
		*incarnation = 0;
}

/* Nothing of this node is left on it: then closing it needs no lease. */
static void note_ours(MfFs *fs, MfInode *inode)
{
	uint32_t incarnation = mf_node_incarnation(fs->node);

	mf_filelock_foreach(fs->locks, inode->ino, look_for_ours, &incarnation);
	inode->locked = incarnation == 0;
}

int mf_fs_set_lock(MfFs *fs, const struct mf_filelock *request, void *cookie, GArray *done)
{
	g_autoptr(GArray) raw = mf_filelock_done_new();
	struct mf_filelock lock = *request;
	MfInode *inode;
	MfDir *dir;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	lock.incarnation = mf_node_incarnation(fs->node);
	if (lock.type == MF_FILELOCK_UNLOCK)
		mf_lostlock_dropped(fs, lock.ino, lock.owner, 0);
	inode = mf_inode_find(fs, lock.ino);
	if (lock.type == MF_FILELOCK_UNLOCK && inode && !inode->locked)
		return 0;
	if (lock.type != MF_FILELOCK_UNLOCK && mf_handle_is_old((const MfHandle *)(uintptr_t)lock.fh))
		return -ESTALE;
	int r = enter(fs, lock.ino, &inode, &dir);
	if (r < 0)
		return r;
	if (cookie) {
		struct mf_lock_request *waits = request_new(fs, &lock, ++fs->lock_request_id, cookie);
		waits->parked = true;
		r = mf_filelock_wait(fs->locks, &lock, waits, raw);
		/* A signal that came before now has found nothing to cancel. */
		if (r == MF_FILELOCK_PARKED && fs->kernel && fs->kernel->is_interrupted(cookie) &&
			mf_filelock_cancel(fs->locks, waits, raw))
			r = -EINTR;
		if (r != MF_FILELOCK_PARKED) {
			g_hash_table_remove(fs->lock_requests, cookie);
			g_free(waits);
		}
	} else {
		r = mf_filelock_set(fs->locks, &lock, raw);
	}
	if (r >= 0 && lock.type != MF_FILELOCK_UNLOCK) {
		inode->locked = true;
		mf_lostlock_taken(fs, &lock);
	} else {
		note_ours(fs, inode);
	}
	settle(fs, dir, raw, done);
	leave(fs, inode, dir);
	return r;
}

/* ---- taking back ---- */

static void cancel(MfFs *fs, void *arg)
{
	g_autoptr(GArray) done = mf_filelock_done_new();
	g_autoptr(GArray) raw = mf_filelock_done_new();
	void *cookie = arg;
	MfInode *inode;
	MfDir *dir = NULL;

	g_mutex_lock(&fs->lock);
	struct mf_lock_request *request = g_hash_table_lookup(fs->lock_requests, cookie);
	while (request) {
		/* With the lease it is in our table, or it has been answered. */
		int r = enter(fs, request->lock.ino, &inode, &dir);
		request = g_hash_table_lookup(fs->lock_requests, cookie);
		if (r == 0) {
			if (request && request->parked && mf_filelock_cancel(fs->locks, request, raw)) {
				answer(fs, request, -EINTR, done);
				settle(fs, dir, raw, done);
			}
			leave(fs, inode, dir);
			break;
		}
		if (request && (r == -ESTALE || mf_node_is_fenced(fs->node) || fs->stopping)) {
			if (!request->parked)
				answer(fs, request, -EINTR, done);
			break;
		}
	}
	reply_later(fs, done);
	fs->reaping--;
	g_cond_broadcast(&fs->reap_cond);
	g_mutex_unlock(&fs->lock);
}

void mf_fs_cancel_lock(MfFs *fs, void *cookie, GArray *done)
{
	g_autoptr(GArray) raw = mf_filelock_done_new();

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	struct mf_lock_request *request = g_hash_table_lookup(fs->lock_requests, cookie);
	if (!request || request->cancelled)
		return;
	MfDir *dir = manager(fs, request->lock.ino);
	if (request->parked && dir) {
		if (mf_filelock_cancel(fs->locks, request, raw))
			answer(fs, request, -EINTR, done);
		settle(fs, dir, raw, done);
		return;
	}
	fs->reaping++;
	mf_fs_work(fs, cancel, cookie);
}

static bool may_own(MfFs *fs, const MfInode *inode)
{
	return inode && inode->locked && !mf_node_is_fenced(fs->node);
}

void mf_fs_drop_locks(MfFs *fs, uint64_t ino, uint64_t owner, GArray *done)
{
	g_autoptr(GArray) raw = mf_filelock_done_new();
	MfInode *inode;
	MfDir *dir;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	mf_lostlock_dropped(fs, ino, owner, 0);
	while (may_own(fs, mf_inode_find(fs, ino))) {
		int r = enter(fs, ino, &inode, &dir);
		if (r == -ETIMEDOUT)
			continue; /* a lock that stays for ever would hold up others for ever */
		if (r < 0)
			return;
		mf_filelock_drop_owner(fs->locks, ino, mf_node_incarnation(fs->node), owner, raw);
		note_ours(fs, inode);
		settle(fs, dir, raw, done);
		leave(fs, inode, dir);
		return;
	}
}

struct release {
	MfInode *inode; /* pinned */
	uint64_t fh;
};

static void release(MfFs *fs, void *arg)
{
	g_autoptr(GArray) done = mf_filelock_done_new();
	g_autoptr(GArray) raw = mf_filelock_done_new();
	struct release *job = arg;
	MfDir *dir;
	int r;

	g_mutex_lock(&fs->lock);
	do
		r = hold(fs, job->inode, &dir);
	while (r == -ETIMEDOUT && !mf_node_is_fenced(fs->node) && !fs->stopping);
	if (r == 0) {
		mf_filelock_drop_handle(fs->locks, job->inode->ino, mf_node_incarnation(fs->node), job->fh, raw);
		note_ours(fs, job->inode);
		settle(fs, dir, raw, done);
		if (dir)
			mf_dir_put(dir);
	}
	reply_later(fs, done);
	mf_inode_unpin(fs, job->inode);
	fs->reaping--;
	g_cond_broadcast(&fs->reap_cond);
	g_mutex_unlock(&fs->lock);
	g_free(job);
}

void mf_locks_release(MfFs *fs, MfInode *inode, uint64_t fh, GArray *done)
{
	g_autoptr(GArray) raw = mf_filelock_done_new();
	MfDir *dir = manager(fs, inode->ino);

	mf_lostlock_dropped(fs, inode->ino, 0, fh);
	if (!may_own(fs, inode))
		return;
	if (dir) {
		mf_filelock_drop_handle(fs->locks, inode->ino, mf_node_incarnation(fs->node), fh, raw);
		note_ours(fs, inode);
		settle(fs, dir, raw, done);
		return;
	}
	struct release *job = g_new(struct release, 1);
	*job = (struct release){ mf_inode_pin(inode), fh };
	fs->reaping++;
	mf_fs_work(fs, release, job);
}

void mf_fs_end_locks(MfFs *fs, GArray *done)
{
	g_autoptr(GArray) raw = mf_filelock_done_new();

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	mf_filelock_drop_incarnation(fs->locks, mf_node_incarnation(fs->node), raw);
	g_autoptr(GPtrArray) requests = mf_table_values(fs->lock_requests);
	for (unsigned i = 0; i < requests->len; i++)
		answer(fs, requests->pdata[i], -EINTR, done);
	/* Those in raw were ours, and are answered, or belong to other nodes, which find their locks with the next manager. */
}

/* inode -> set of incarnations */
static void add_incarnation(const struct mf_filelock *lock, void *cookie, void *data)
{
	GHashTable *set = g_hash_table_lookup(data, &lock->ino);

	if (!set) {
		set = g_hash_table_new(NULL, NULL);
		g_hash_table_insert(data, g_memdup2(&lock->ino, sizeof(lock->ino)), set);
	}
	g_hash_table_add(set, GUINT_TO_POINTER(lock->incarnation));
}

struct blockers {
	GHashTable *owners; /* inode -> set of incarnations */
	GHashTable *waited; /* inodes where somebody waits */
};

static void add_blocker(const struct mf_filelock *lock, void *cookie, void *data)
{
	struct blockers *blockers = data;

	if (cookie)
		g_hash_table_add(blockers->waited, g_memdup2(&lock->ino, sizeof(lock->ino)));
	else
		add_incarnation(lock, cookie, blockers->owners);
}

GArray *mf_locks_blockers(MfFs *fs)
{
	struct blockers blockers = {
		g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, (GDestroyNotify)g_hash_table_unref),
		g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL),
	};
	GArray *list = g_array_new(false, false, sizeof(uint32_t));
	GHashTableIter iter;
	gpointer key;

	if (mf_filelock_waiting(fs->locks) > 0)
		mf_filelock_foreach(fs->locks, 0, add_blocker, &blockers);
	g_hash_table_iter_init(&iter, blockers.waited);
	while (g_hash_table_iter_next(&iter, &key, NULL)) {
		GHashTable *set = g_hash_table_lookup(blockers.owners, key);
		GHashTableIter owners;
		if (!set)
			continue;
		g_hash_table_iter_init(&owners, set);
		while (g_hash_table_iter_next(&owners, &key, NULL)) {
			uint32_t incarnation = GPOINTER_TO_UINT(key);
			if (mf_node_holder(fs->node, incarnation) == MF_HOLDER_LIVE)
				g_array_append_val(list, incarnation);
		}
	}
	g_hash_table_unref(blockers.owners);
	g_hash_table_unref(blockers.waited);
	return list;
}

void mf_locks_reset(MfFs *fs, GArray *done)
{
	g_autoptr(GHashTable) all = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	g_autoptr(GPtrArray) requests = NULL;
	GHashTableIter iter;
	gpointer key;

	mf_filelock_foreach(fs->locks, 0, add_ino, all);
	g_hash_table_iter_init(&iter, all);
	while (g_hash_table_iter_next(&iter, &key, NULL))
		forget(fs, *(uint64_t *)key);
	requests = mf_table_values(fs->lock_requests);
	for (unsigned i = 0; i < requests->len; i++)
		answer(fs, requests->pdata[i], -ESTALE, done);
}

/* ---- owners on dead nodes ---- */

/* Asks for the lease: with it comes what became of our requests. */
static void look_after(MfFs *fs, void *arg)
{
	uint64_t *ino = arg;
	MfInode *inode;
	MfDir *dir;

	g_mutex_lock(&fs->lock);
	if (enter(fs, *ino, &inode, &dir) == 0)
		leave(fs, inode, dir);
	fs->reaping--;
	g_cond_broadcast(&fs->reap_cond);
	g_mutex_unlock(&fs->lock);
	g_free(ino);
}

void mf_locks_ask(MfFs *fs)
{
	GHashTableIter iter;
	gpointer value;

	fs->locks_wait = false;
	g_hash_table_iter_init(&iter, fs->lock_requests);
	while (g_hash_table_iter_next(&iter, NULL, &value)) {
		const struct mf_lock_request *request = value;
		if (request->parked)
			continue;
		fs->locks_wait = true;
		fs->reaping++;
		mf_fs_work(fs, look_after, g_memdup2(&request->lock.ino, sizeof(uint64_t)));
	}
}

void mf_locks_check_owners(MfFs *fs)
{
	g_autoptr(GHashTable) owners =
		g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, (GDestroyNotify)g_hash_table_unref);
	g_autoptr(GArray) done = mf_filelock_done_new();
	g_autoptr(GArray) raw = mf_filelock_done_new();
	GHashTableIter iter;
	gpointer key, value;

	mf_filelock_foreach(fs->locks, 0, add_incarnation, owners);
	g_hash_table_iter_init(&iter, owners);
	while (g_hash_table_iter_next(&iter, &key, &value)) {
		uint64_t ino = *(uint64_t *)key;
		MfDir *dir = manager(fs, ino);
		GHashTableIter dead;
		g_hash_table_iter_init(&dead, value);
		while (dir && g_hash_table_iter_next(&dead, &key, NULL)) {
			enum mf_holder state = mf_node_holder(fs->node, GPOINTER_TO_UINT(key));
			if (state != MF_HOLDER_CLEAN && state != MF_HOLDER_LOST)
				continue;
			g_array_set_size(raw, 0);
			mf_filelock_drop_node(fs->locks, ino, GPOINTER_TO_UINT(key), raw);
			settle(fs, dir, raw, done);
		}
	}
	reply_later(fs, done);
	mf_locks_ask(fs);
}

/* ---- for people ---- */

void mf_locks_foreach(MfFs *fs, mf_filelock_func func, void *data)
{
	GHashTableIter iter;
	gpointer value;

	mf_filelock_foreach(fs->locks, 0, func, data);
	g_hash_table_iter_init(&iter, fs->lock_requests);
	while (g_hash_table_iter_next(&iter, NULL, &value)) {
		const struct mf_lock_request *request = value;
		if (!request->parked)
			func(&request->lock, value, data);
	}
}

size_t mf_locks_waiting(MfFs *fs)
{
	size_t n = mf_filelock_waiting(fs->locks);
	GHashTableIter iter;
	gpointer value;

	g_hash_table_iter_init(&iter, fs->lock_requests);
	while (g_hash_table_iter_next(&iter, NULL, &value))
		n += !((const struct mf_lock_request *)value)->parked;
	return n;
}
