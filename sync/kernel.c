/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/kernel.h"

#include "sync/hold.h"
#include "sync/inode.h"

#include <errno.h>
#include <string.h>

#define VALID_MS 1000u
#define CALM_US (10 * G_USEC_PER_SEC) /* nobody asked for the lease for so long: answers may be kept */
#define NAMES_MAX 4096u		      /* more are answered without a time */
#define LEAVE_US 300000		      /* how long a directory's earlier place is waited for */
#define LEFT_US (2 * G_USEC_PER_SEC)  /* ... by who asks again */
#define STEPS_MAX 1024u		      /* directories below one another */
#define MARGIN_US 20000		      /* the kernel counts from when it has the answer */

struct mf_kernel_name {
	uint64_t parent;
	char name[];
};

static struct mf_kernel_name *name_new(uint64_t parent, const char *name)
{
	size_t len = strlen(name) + 1;
	struct mf_kernel_name *new = g_malloc(sizeof(*new) + len);

	new->parent = parent;
	memcpy(new->name, name, len);
	return new;
}

static guint name_hash(gconstpointer data)
{
	const struct mf_kernel_name *name = data;

	return g_str_hash(name->name) ^ (guint)name->parent;
}

static gboolean name_equal(gconstpointer a, gconstpointer b)
{
	const struct mf_kernel_name *x = a, *y = b;

	return x->parent == y->parent && strcmp(x->name, y->name) == 0;
}

bool mf_kernel_has(const MfInode *inode)
{
	return inode->nlookup > 0 || inode->ino == MF_ROOT_INO; /* which is never looked up */
}

static bool may_keep(const MfDir *dir)
{
	return dir->fs->kernel && dir->lease.mode != MF_LEASE_NONE && !dir->yielding &&
	       (dir->contended_at == 0 || g_get_monotonic_time() - dir->contended_at > CALM_US);
}

static void answering(MfDir *dir, struct mf_stat *st)
{
	dir->answering++;
	mf_dir_pin(dir);
	st->answers[st->answers[0] ? 1 : 0] = dir;
	dir->kernel_until = g_get_monotonic_time() + VALID_MS * INT64_C(1000) + MARGIN_US;
}

static void answer_attr(MfDir *dir, MfInode *inode, struct mf_stat *st)
{
	if (!may_keep(dir))
		return;
	if (!dir->kernel_inos)
		dir->kernel_inos = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	if (g_hash_table_size(dir->kernel_inos) >= NAMES_MAX)
		return;
	g_hash_table_add(dir->kernel_inos, g_memdup2(&inode->ino, sizeof(inode->ino)));
	st->attr_ms = VALID_MS;
	answering(dir, st);
}

static void answer_name(MfDir *dir, const char *key, struct mf_stat *st)
{
	enum mf_space space = MF_SPACE_SELF;

	if (!may_keep(dir))
		return;
	if (!dir->kernel_names)
		dir->kernel_names = g_hash_table_new_full(name_hash, name_equal, g_free, NULL);
	if (g_hash_table_size(dir->kernel_names) >= NAMES_MAX)
		return;
	mf_key_is_entry(key, &space);
	const MfInode *parent = space == MF_SPACE_SELF ? dir->inode : dir->sub[space];
	g_hash_table_add(dir->kernel_names, name_new(parent->ino, key + MF_KEY_PREFIX));
	st->name_ms = VALID_MS;
	answering(dir, st);
}

void mf_kernel_answer(MfDir *parent, const char *key, MfInode *inode, struct mf_stat *st)
{
	bool is_dir = mf_inode_is_dir(inode);

	if (is_dir && inode->dir && !inode->removed)
		answer_attr(inode->dir, inode, st);
	else if (inode->kind == MF_KIND_SYMLINK && parent)
		answer_attr(parent, inode, st);
	if (is_dir && parent && key)
		answer_name(parent, key, st);
}

void mf_fs_answered(MfFs *fs, const struct mf_stat *st)
{
	if (!st->answers[0])
		return;
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	for (unsigned i = 0; i < 2 && st->answers[i]; i++) {
		MfDir *dir = st->answers[i];
		if (--dir->answering == 0)
			g_cond_broadcast(&dir->cond);
		mf_dir_unpin(dir);
	}
}

struct forgetting {
	MfFs *fs;
	MfDir *dir; /* pinned */
	GHashTable *inos, *names;
	MfDir *left; /* pinned: where the kernel had dir itself; or NULL */
	bool *done;  /* NULL: nobody waits any more */
};

static void forget(void *data, void *arg)
{
	struct forgetting *f = data;
	MfFs *fs = arg;
	GHashTableIter iter;
	gpointer key;

	if (f->names) {
		g_hash_table_iter_init(&iter, f->names);
		while (g_hash_table_iter_next(&iter, &key, NULL))
			fs->kernel->forget_name(((struct mf_kernel_name *)key)->parent, ((struct mf_kernel_name *)key)->name, fs->kernel_arg);
	}
	if (f->inos) {
		g_hash_table_iter_init(&iter, f->inos);
		while (g_hash_table_iter_next(&iter, &key, NULL))
			fs->kernel->forget_attr(*(uint64_t *)key, fs->kernel_arg);
	}
	g_mutex_lock(&fs->lock);
	if (f->left) {
		f->dir->kernel_leaving--;
		f->left->kernel_left--;
		g_cond_broadcast(&f->left->cond);
		mf_dir_unpin(f->left);
	}
	if (f->done)
		*f->done = true;
	g_cond_broadcast(&f->dir->cond);
	mf_dir_unpin(f->dir);
	g_mutex_unlock(&fs->lock);
	g_clear_pointer(&f->inos, g_hash_table_unref);
	g_clear_pointer(&f->names, g_hash_table_unref);
	g_free(f);
}

void mf_kernel_forget(MfDir *dir)
{
	MfFs *fs = dir->fs;
	bool done = false;

	/* On their way: they reach the kernel before it forgets. */
	while (dir->answering > 0)
		g_cond_wait(&dir->cond, &fs->lock);
	if ((!dir->kernel_inos && !dir->kernel_names) || dir->kernel_until <= g_get_monotonic_time() || !fs->kernel) {
		g_clear_pointer(&dir->kernel_inos, g_hash_table_unref);
		g_clear_pointer(&dir->kernel_names, g_hash_table_unref);
		return;
	}
	struct forgetting *f = g_new(struct forgetting, 1);
	*f = (struct forgetting){ fs, mf_dir_pin(dir), g_steal_pointer(&dir->kernel_inos), g_steal_pointer(&dir->kernel_names),
		NULL, &done };
	g_thread_pool_push(fs->forgetters, f, NULL);
	/* The job may be stuck behind a request of the kernel that waits for this very lease. */
	int64_t until = dir->kernel_until;
	while (!done && g_cond_wait_until(&dir->cond, &fs->lock, until))
		;
	if (!done)
		f->done = NULL;
}

/* It stays known, for who has to find the directory by some name. */
static struct mf_kernel_name *leave_place(MfDir *dir)
{
	dir->kernel_placed = false;
	return name_new(dir->kernel_place->parent, dir->kernel_place->name);
}

void mf_kernel_place(MfDir *dir, MfInode *parent, const char *name)
{
	struct mf_kernel_name *place = name_new(parent->ino, name);

	mf_inode_pin(parent);
	if (dir->kernel_parent)
		mf_inode_unpin(dir->fs, dir->kernel_parent);
	g_free(dir->kernel_place);
	dir->kernel_place = place;
	dir->kernel_parent = parent;
	dir->kernel_placed = true;
}

/* It is forgotten by a job that takes the lock of its parent. */
static void leave(MfDir *dir, struct mf_kernel_name *place)
{
	MfFs *fs = dir->fs;
	MfInode *parent = mf_inode_find(fs, place->parent);
	struct forgetting *f = g_new(struct forgetting, 1);

	if (!parent || !parent->dir) {
		g_free(place); /* the kernel has forgotten its parent */
		g_free(f);
		return;
	}
	*f = (struct forgetting){ fs, mf_dir_pin(dir), NULL,
		g_hash_table_new_full(name_hash, name_equal, g_free, NULL), mf_dir_pin(parent->dir), NULL };
	g_hash_table_add(f->names, place);
	dir->kernel_leaving++;
	f->left->kernel_left++;
	g_thread_pool_push(fs->forgetters, f, NULL);
}

void mf_kernel_vanished(MfInode *inode, const MfDir *from, const char *key)
{
	MfDir *dir = inode->dir;
	enum mf_space space = MF_SPACE_SELF;

	if (inode->kind != MF_KIND_DIR || !dir || !dir->fs->kernel || inode->nlookup == 0 || !dir->kernel_placed)
		return;
	mf_key_is_entry(key, &space);
	const MfInode *parent = space == MF_SPACE_SELF ? from->inode : from->sub[space];
	if (parent && dir->kernel_place->parent == parent->ino && strcmp(dir->kernel_place->name, key + MF_KEY_PREFIX) == 0)
		leave(dir, leave_place(dir));
}

void mf_kernel_leave(MfInode *inode, uint64_t parent, const char *name)
{
	int64_t until = g_get_monotonic_time() + LEFT_US;
	MfDir *dir = inode->dir;
	bool ok = true;

	if (!dir || !dir->fs->kernel || inode->nlookup == 0)
		return;
	struct mf_kernel_name *place = dir->kernel_place;
	if (dir->kernel_placed && (place->parent != parent || strcmp(place->name, name) != 0)) {
		until += LEAVE_US - LEFT_US;
		leave(dir, leave_place(dir));
	}
	mf_dir_pin(dir);
	/* Who comes this way once more may be about to lock it again. */
	while (ok && (dir->kernel_leaving > 0 || dir->kernel_left > 0))
		ok = g_cond_wait_until(&dir->cond, &dir->fs->lock, until);
	mf_dir_unpin(dir);
}

int mf_fs_remind(MfFs *fs, uint64_t ino, struct mf_stat *ret)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	MfInode *inode = mf_inode_find(fs, ino);

	if (!inode || inode->removed || inode->dead)
		return -ESTALE;
	if (inode->nlookup++ == 0)
		mf_inode_pin(inode);
	/* Found where it was: there the kernel has it now. */
	if (inode->kind == MF_KIND_DIR && inode->dir && inode->dir->kernel_place)
		inode->dir->kernel_placed = true;
	mf_inode_stat(inode, ret);
	return 0;
}

static bool step_up(MfInode **inode, struct mf_fs_step *ret)
{
	MfDir *dir = (*inode)->dir;

	if (!dir || (*inode)->removed)
		return false;
	ret->ino = (*inode)->ino;
	if ((*inode)->kind == MF_KIND_SUBDIR) {
		g_strlcpy(ret->name, mf_space_name((*inode)->space), sizeof(ret->name));
		*inode = dir->inode;
	} else {
		if (!dir->kernel_place)
			return false;
		g_strlcpy(ret->name, dir->kernel_place->name, sizeof(ret->name));
		*inode = dir->kernel_parent;
	}
	ret->parent = (*inode)->ino;
	return true;
}

int mf_fs_way(MfFs *fs, uint64_t ino, GArray **ret_steps)
{
	g_autoptr(GArray) steps = g_array_new(false, false, sizeof(struct mf_fs_step));
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	MfInode *inode = mf_inode_find(fs, ino);

	while (inode && inode->ino != MF_ROOT_INO) {
		struct mf_fs_step step;
		/* Places are as old as the kernel's last look: two may lie in one another. */
		if (steps->len >= STEPS_MAX || !step_up(&inode, &step))
			return -ESTALE;
		g_array_prepend_val(steps, step);
	}
	if (!inode)
		return -ESTALE;
	*ret_steps = g_steal_pointer(&steps);
	return 0;
}

bool mf_fs_is_calm(MfFs *fs, uint64_t ino)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	const MfInode *inode = mf_inode_find(fs, ino);
	const MfDir *dir = inode ? inode->dir : NULL;

	return !dir || (dir->users == 0 && dir->blocked == 0 && !dir->acquiring);
}

GThreadPool *mf_kernel_pool(MfFs *fs)
{
	return g_thread_pool_new(forget, fs, -1, false, NULL);
}
