/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/kernel.h"

#include "locking/filelock.h"
#include "tests/sim/watcher.h"

#include <string.h>

/* ---- the locks of inodes ---- */

struct inode_lock {
	uint64_t ino;
	bool writer;
	unsigned readers;
};

static struct inode_lock *inode_lock(struct node *node, uint64_t ino)
{
	struct inode_lock *lock = g_hash_table_lookup(node->inode_locks, &ino);

	if (!lock) {
		lock = g_new0(struct inode_lock, 1);
		lock->ino = ino;
		g_hash_table_insert(node->inode_locks, &lock->ino, lock);
	}
	return lock;
}

void kernel_lock(struct node *node, uint64_t ino, bool writer)
{
	struct inode_lock *lock = inode_lock(node, ino);

	while (lock->writer || (writer && lock->readers > 0))
		sched_wait(&node->inode_waiters, "an inode's lock", lock, -1);
	if (writer)
		lock->writer = true;
	else
		lock->readers++;
}

void kernel_unlock(struct node *node, uint64_t ino, bool writer)
{
	struct inode_lock *lock = inode_lock(node, ino);

	if (writer)
		lock->writer = false;
	else
		lock->readers--;
	sched_wake_all(&node->inode_waiters);
}

void kernel_lock_two(struct node *node, uint64_t a, uint64_t b)
{
	if (a != b) {
		kernel_lock(node, 0, true); /* one rename between directories at a time */
		kernel_lock(node, MIN(a, b), true);
	}
	kernel_lock(node, MAX(a, b), true);
}

void kernel_unlock_two(struct node *node, uint64_t a, uint64_t b)
{
	kernel_unlock(node, MAX(a, b), true);
	if (a != b) {
		kernel_unlock(node, MIN(a, b), true);
		kernel_unlock(node, 0, true);
	}
}

/* ---- what it remembers ---- */

struct kinode {
	uint64_t ino, nlookup;
	unsigned refs;
};

struct kname {
	uint64_t parent, ino;
	int64_t until;
	char name[];
};

static guint name_hash(gconstpointer data)
{
	const struct kname *name = data;

	return g_str_hash(name->name) ^ (guint)name->parent;
}

static gboolean name_equal(gconstpointer a, gconstpointer b)
{
	const struct kname *x = a, *y = b;

	return x->parent == y->parent && strcmp(x->name, y->name) == 0;
}

static struct kname *name_new(uint64_t parent, const char *name)
{
	struct kname *kname = g_malloc0(sizeof(*kname) + strlen(name) + 1);

	kname->parent = parent;
	strcpy(kname->name, name);
	return kname;
}

static struct kinode *get(struct node *node, uint64_t ino)
{
	struct kinode *kinode = g_hash_table_lookup(node->kinodes, &ino);

	if (!kinode) {
		kinode = g_new0(struct kinode, 1);
		kinode->ino = ino;
		g_hash_table_insert(node->kinodes, &kinode->ino, kinode);
	}
	kinode->refs++;
	return kinode;
}

static void put(struct node *node, uint64_t ino)
{
	struct kinode *kinode = g_hash_table_lookup(node->kinodes, &ino);

	if (--kinode->refs > 0)
		return;
	g_hash_table_remove(node->kinodes, &ino);
	mf_fs_forget(node->fs, ino, kinode->nlookup);
	g_free(kinode);
}

void kernel_keep(struct node *node, uint64_t ino)
{
	get(node, ino);
}

void kernel_drop(struct node *node, uint64_t parent, const char *name)
{
	g_autofree struct kname *key = name_new(parent, name);
	gpointer found;

	if (!g_hash_table_steal_extended(node->names, key, &found, NULL))
		return;
	g_autofree struct kname *kname = found;
	put(node, kname->ino);
}

void kernel_entry(struct client *client, uint64_t parent, const char *name, const struct mf_stat *st)
{
	struct node *node = client->node;
	struct kinode *kinode = get(node, st->ino);

	kinode->nlookup++;
	g_array_append_val(client->lookups, st->ino);
	kernel_drop(node, parent, name);
	if (st->name_ms > 0) {
		struct kname *kname = name_new(parent, name);
		kname->ino = st->ino;
		kname->until = sched_now() + st->name_ms * INT64_C(1000);
		get(node, st->ino);
		g_hash_table_add(node->names, kname);
	}
	mf_fs_answered(node->fs, st);
}

bool kernel_find(struct client *client, uint64_t parent, const char *name, uint64_t *ret_ino)
{
	struct node *node = client->node;
	g_autofree struct kname *key = name_new(parent, name);
	const struct kname *kname = g_hash_table_lookup(node->names, key);

	if (!kname || kname->until <= sched_now())
		return false;
	get(node, kname->ino);
	*ret_ino = kname->ino;
	g_array_append_val(client->lookups, kname->ino);
	return true;
}

void kernel_put_all(struct client *client)
{
	for (unsigned i = 0; i < client->lookups->len; i++)
		put(client->node, g_array_index(client->lookups, uint64_t, i));
	g_array_set_size(client->lookups, 0);
}

/* ---- what the filesystem says to it ---- */

static void forget_attr(uint64_t ino, void *arg)
{
	sched_yield_maybe();
}

static void forget_name(uint64_t parent, const char *name, void *arg)
{
	struct node *node = arg;

	kernel_lock(node, parent, true);
	sched_yield_maybe();
	kernel_drop(node, parent, name);
	kernel_unlock(node, parent, true);
}

static bool is_interrupted(void *cookie)
{
	return ((struct wait *)cookie)->interrupted;
}

void kernel_answer_locks(GArray *done)
{
	for (unsigned i = 0; i < done->len; i++) {
		struct mf_filelock_done *d = &g_array_index(done, struct mf_filelock_done, i);
		struct wait *wait = d->cookie;
		if (wait->done)
			sched_fail("a lock request is answered twice");
		wait->done = true;
		wait->result = d->result;
		sched_wake_all(&wait->queue);
	}
}

static void lock_done(GArray *done, void *arg)
{
	kernel_answer_locks(done);
}

static int same_process(uint32_t a, uint32_t b)
{
	return a == b;
}

static void raise_event(uint64_t dir, const struct mf_kernel_event *event, void *arg)
{
	watcher_raise(arg, event);
}

static const struct mf_kernel_ops ops = { forget_attr, forget_name, is_interrupted, same_process, lock_done, raise_event };

void kernel_start(struct node *node)
{
	node->inode_locks = g_hash_table_new(g_int64_hash, g_int64_equal);
	node->inode_waiters = (struct waitq){ NULL };
	node->kinodes = g_hash_table_new(g_int64_hash, g_int64_equal);
	node->names = g_hash_table_new(name_hash, name_equal);
}

void kernel_mounted(struct node *node)
{
	mf_fs_set_kernel(node->fs, &ops, node);
}
