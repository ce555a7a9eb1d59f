/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/report.h"

#include "store/nodereport.h"
#include "sync/inode.h"
#include "sync/locks.h"
#include "sync/model.h"

#define PIECE 256u     /* directories or locks looked at without letting others in */
#define DEPTH_MAX 4096 /* of a path; more is a knot */

static void prepend(GString *path, enum mf_space space, const char *name)
{
	g_string_prepend(path, name);
	g_string_prepend_c(path, '/');
	if (space != MF_SPACE_SELF) {
		g_string_prepend(path, mf_space_name(space));
		g_string_prepend_c(path, '/');
	}
}

/* NULL: somewhere on the way up no name is in memory. */
static char *path_of(MfFs *fs, const MfInode *inode)
{
	g_autoptr(GString) path = g_string_new(NULL);

	for (int depth = 0; inode && depth < DEPTH_MAX; depth++) {
		enum mf_space space;
		const MfDentry *name = inode->names;

		if (inode == fs->root) {
			if (path->len == 0)
				g_string_append_c(path, '/');
			return g_string_free(g_steal_pointer(&path), FALSE);
		}
		if (inode->kind == MF_KIND_SUBDIR) {
			prepend(path, MF_SPACE_SELF, mf_space_name(inode->space));
			inode = inode->dir ? inode->dir->inode : NULL;
		} else if (name && mf_key_is_entry(name->key, &space)) {
			prepend(path, space, name->key + MF_KEY_PREFIX);
			inode = name->dir->inode;
		} else {
			return NULL;
		}
	}
	return NULL;
}

/* ---- leases ---- */

static void lease_free(void *data)
{
	struct mf_report_lease *item = data;

	g_free(item->path);
	g_array_unref(item->waiters);
	g_free(item);
}

static GArray *held_directories(MfFs *fs)
{
	GArray *inos = g_array_new(false, false, sizeof(uint64_t));

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	for (GList *link = fs->dir_lru.head; link; link = link->next) {
		const MfDir *dir = link->data;
		if (dir->lease.mode != MF_LEASE_NONE)
			g_array_append_val(inos, dir->inode->ino);
	}
	return inos;
}

static void add_lease(MfFs *fs, uint64_t ino, GPtrArray *list)
{
	const MfInode *inode = mf_inode_find(fs, ino);
	const MfDir *dir = inode && inode->kind == MF_KIND_DIR ? inode->dir : NULL;

	if (!dir || dir->lease.mode == MF_LEASE_NONE)
		return;
	struct mf_report_lease *item = g_new0(struct mf_report_lease, 1);
	int64_t age = g_get_monotonic_time() - dir->held_since;
	*item = (struct mf_report_lease){
		.ino = ino,
		.path = path_of(fs, inode),
		.mode = dir->lease.mode,
		.epoch = dir->lease.epoch,
		.since = (g_get_real_time() - age) / G_USEC_PER_SEC,
		.users = dir->users,
		.waiters = g_array_new(false, false, sizeof(uint32_t)),
	};
	for (unsigned i = 0; i < dir->waiters->len; i++)
		g_array_append_val(item->waiters, g_array_index(dir->waiters, struct mf_waiter, i).incarnation);
	g_ptr_array_add(list, item);
}

static int compare_leases(const void *a, const void *b)
{
	const struct mf_report_lease *x = *(void *const *)a, *y = *(void *const *)b;

	return g_strcmp0(x->path, y->path);
}

GPtrArray *mf_report_leases(MfFs *fs)
{
	GPtrArray *list = g_ptr_array_new_with_free_func(lease_free);
	g_autoptr(GArray) inos = held_directories(fs);

	for (unsigned i = 0; i < inos->len;) {
		g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
		for (unsigned end = i + PIECE; i < end && i < inos->len; i++)
			add_lease(fs, g_array_index(inos, uint64_t, i), list);
	}
	g_ptr_array_sort(list, compare_leases);
	return list;
}

/* ---- file locks ---- */

static void lock_free(void *data)
{
	struct mf_report_lock *item = data;

	g_free(item->path);
	g_free(item);
}

struct collecting {
	GPtrArray *list;
	uint64_t ino; /* of the last one */
	unsigned waiting;
};

static void add_lock(const struct mf_filelock *lock, void *cookie, void *data)
{
	struct collecting *c = data;
	struct mf_report_lock *item = g_new0(struct mf_report_lock, 1);

	if (lock->ino != c->ino)
		c->waiting = 0;
	c->ino = lock->ino;
	item->lock = *lock;
	item->position = cookie ? ++c->waiting : 0;
	g_ptr_array_add(c->list, item);
}

static void locate(MfFs *fs, struct mf_report_lock *item)
{
	const MfInode *inode = mf_inode_find(fs, item->lock.ino);
	const MfDir *dir = inode ? inode->dir : NULL;

	item->path = inode ? path_of(fs, inode) : NULL;
	item->dir = dir ? dir->inode->ino : 0;
	item->elsewhere = item->position > 0 && (!dir || dir->lease.mode != MF_LEASE_EXCLUSIVE);
}

static int compare_locks(const void *a, const void *b, void *data)
{
	const struct mf_report_lock *x = *(void *const *)a, *y = *(void *const *)b;
	int order = g_strcmp0(x->path, y->path);

	return order ? order : (x->lock.ino > y->lock.ino) - (x->lock.ino < y->lock.ino);
}

GPtrArray *mf_report_locks(MfFs *fs)
{
	GPtrArray *list = g_ptr_array_new_with_free_func(lock_free);
	struct collecting c = { .list = list };

	g_mutex_lock(&fs->lock);
	mf_locks_foreach(fs, add_lock, &c);
	g_mutex_unlock(&fs->lock);
	for (unsigned i = 0; i < list->len;) {
		g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
		for (unsigned end = i + PIECE; i < end && i < list->len; i++)
			locate(fs, list->pdata[i]);
	}
	/* Stable: those of an inode stay in the order of the table. */
	g_ptr_array_sort_with_data(list, compare_locks, NULL);
	return list;
}

/* ---- counts ---- */

void mf_report_count(MfFs *fs, struct mf_fs_status *status)
{
	for (GList *link = fs->dir_lru.head; link; link = link->next) {
		const MfDir *dir = link->data;
		status->shared += dir->lease.mode == MF_LEASE_SHARED;
		status->exclusive += dir->lease.mode == MF_LEASE_EXCLUSIVE;
		status->waiters += dir->waiters->len;
	}
	status->recalls = fs->recalls;
	status->events_told = fs->events_told;
	status->events_raised = fs->events_raised;
	status->locks = mf_filelock_held(fs->locks);
	status->lock_waits = mf_locks_waiting(fs);
}

GBytes *mf_report_encode(void *arg)
{
	MfFs *fs = arg;
	struct mf_fs_status status;

	mf_fs_status(fs, &status);
	g_autoptr(GByteArray) bytes = mf_nodereport_encode(&(struct mf_nodereport){
		.incarnation = mf_node_incarnation(fs->node),
		.taken = g_get_real_time() * 1000,
		.shared = status.shared,
		.exclusive = status.exclusive,
		.waiters = status.waiters,
		.recalls = status.recalls,
		.locks = status.locks,
		.lock_waits = status.lock_waits,
		.dirty = status.dirty,
	});
	return g_byte_array_free_to_bytes(g_steal_pointer(&bytes));
}
