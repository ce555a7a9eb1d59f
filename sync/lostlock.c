/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/lostlock.h"

#include "locking/filelock.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/table.h"

#include <errno.h>
#include <string.h>

#define KEEP_US (600 * G_USEC_PER_SEC)

struct mf_lostlocks {
	GHashTable *taken; /* inode of a file -> GArray of struct taken: locks of this life */
	GHashTable *lost;  /* inode of a directory -> GPtrArray of struct lost */
};

/* A file lock. */
struct taken {
	uint64_t owner, fh;
	uint32_t pid;
};

struct lost {
	uint32_t pid;
	int64_t until;
	char *name;	/* of a dotlock; NULL: a file lock */
	uint64_t ino;	/* of the locked file */
	uint64_t owner, fh;
	bool told;
};

static void lost_free(gpointer data)
{
	struct lost *lost = data;

	g_free(lost->name);
	g_free(lost);
}

struct mf_lostlocks *mf_lostlocks_new(void)
{
	struct mf_lostlocks *locks = g_new(struct mf_lostlocks, 1);

	locks->taken = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, (GDestroyNotify)g_array_unref);
	locks->lost = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, (GDestroyNotify)g_ptr_array_unref);
	return locks;
}

void mf_lostlocks_free(struct mf_lostlocks *locks)
{
	g_hash_table_unref(locks->taken);
	g_hash_table_unref(locks->lost);
	g_free(locks);
}

/* ---- file locks as they come and go ---- */

static bool is_by(uint64_t owner, uint64_t fh, uint64_t wanted_owner, uint64_t wanted_fh)
{
	return wanted_fh ? fh == wanted_fh : owner == wanted_owner;
}

void mf_lostlock_taken(MfFs *fs, const struct mf_filelock *lock)
{
	GHashTable *taken = fs->lostlocks->taken;
	GArray *list = g_hash_table_lookup(taken, &lock->ino);
	struct taken new = { lock->owner, lock->fh, (uint32_t)lock->pid };

	if (!list) {
		list = g_array_new(false, false, sizeof(struct taken));
		g_hash_table_insert(taken, g_memdup2(&lock->ino, sizeof(lock->ino)), list);
	}
	for (unsigned i = 0; i < list->len; i++) {
		const struct taken *t = &g_array_index(list, struct taken, i);
		if (t->owner == new.owner && t->fh == new.fh)
			return;
	}
	g_array_append_val(list, new);
}

static gboolean drop_lost(gpointer key, gpointer value, gpointer data)
{
	const struct lost *dropped = data;
	GPtrArray *list = value;

	for (unsigned i = list->len; i > 0; i--) {
		const struct lost *lost = list->pdata[i - 1];
		if (!lost->name && lost->ino == dropped->ino && is_by(lost->owner, lost->fh, dropped->owner, dropped->fh))
			g_ptr_array_remove_index_fast(list, i - 1);
	}
	return list->len == 0;
}

void mf_lostlock_dropped(MfFs *fs, uint64_t ino, uint64_t owner, uint64_t fh)
{
	struct lost dropped = { .ino = ino, .owner = owner, .fh = fh };
	GArray *list = g_hash_table_lookup(fs->lostlocks->taken, &ino);

	for (unsigned i = list ? list->len : 0; i > 0; i--) {
		const struct taken *t = &g_array_index(list, struct taken, i - 1);
		if (is_by(t->owner, t->fh, owner, fh))
			g_array_remove_index_fast(list, i - 1);
	}
	if (list && list->len == 0)
		g_hash_table_remove(fs->lostlocks->taken, &ino);
	g_hash_table_foreach_remove(fs->lostlocks->lost, drop_lost, &dropped);
}

/* ---- the end of an incarnation ---- */

static void add(MfFs *fs, const MfDir *dir, struct lost lost)
{
	uint64_t ino = dir->inode->ino;
	GPtrArray *list = g_hash_table_lookup(fs->lostlocks->lost, &ino);

	if (!list) {
		list = g_ptr_array_new_with_free_func(lost_free);
		g_hash_table_insert(fs->lostlocks->lost, g_memdup2(&ino, sizeof(ino)), list);
	}
	lost.until = g_get_monotonic_time() + KEEP_US;
	g_ptr_array_add(list, g_memdup2(&lost, sizeof(lost)));
}

static void add_filelocks(MfFs *fs)
{
	GHashTableIter iter;
	gpointer key, value;

	g_hash_table_iter_init(&iter, fs->lostlocks->taken);
	while (g_hash_table_iter_next(&iter, &key, &value)) {
		const MfInode *inode = mf_inode_find(fs, *(uint64_t *)key);
		const GArray *list = value;
		for (unsigned i = 0; inode && inode->dir && i < list->len; i++) {
			const struct taken *t = &g_array_index(list, struct taken, i);
			add(fs, inode->dir, (struct lost){ .pid = t->pid, .ino = inode->ino, .owner = t->owner, .fh = t->fh });
		}
	}
	g_hash_table_remove_all(fs->lostlocks->taken);
}

static void add_dotlocks(MfFs *fs, const MfInode *inode)
{
	enum mf_space space;

	for (const MfDentry *name = inode->names; name; name = name->next_name) {
		if (g_str_has_suffix(name->key, ".lock") && mf_key_is_entry(name->key, &space) && space == MF_SPACE_SELF)
			add(fs, name->dir,
				(struct lost){ .pid = inode->maker, .name = g_strdup(name->key + MF_KEY_PREFIX) });
	}
}

static gboolean is_over(gpointer key, gpointer value, gpointer now)
{
	GPtrArray *list = value;
	int64_t until = 0;

	for (unsigned i = 0; i < list->len; i++)
		until = MAX(until, ((struct lost *)list->pdata[i])->until);
	return until < *(int64_t *)now;
}

void mf_lostlock_end(MfFs *fs)
{
	g_autoptr(GPtrArray) inodes = mf_table_values(fs->inodes);
	int64_t now = g_get_monotonic_time();

	g_hash_table_foreach_remove(fs->lostlocks->lost, is_over, &now);
	add_filelocks(fs);
	for (unsigned i = 0; i < inodes->len; i++) {
		MfInode *inode = inodes->pdata[i];
		if (inode->maker != 0)
			add_dotlocks(fs, inode);
		inode->maker = 0;
	}
}

/* ---- the next one ---- */

static GPtrArray *lost_in(MfFs *fs, uint64_t ino)
{
	GHashTable *lost = fs->lostlocks->lost;

	return G_LIKELY(g_hash_table_size(lost) == 0) ? NULL : g_hash_table_lookup(lost, &ino);
}

static bool is_requester(MfFs *fs, uint32_t pid)
{
	uint32_t requester = mf_hold_requester();

	return requester != 0 &&
	       (pid == requester || (fs->kernel && fs->kernel->same_process(requester, pid) == 1));
}

int mf_lostlock_check(MfFs *fs, uint64_t ino)
{
	const GPtrArray *list = lost_in(fs, ino);
	int64_t now = list ? g_get_monotonic_time() : 0;

	for (unsigned i = 0; list && i < list->len; i++) {
		const struct lost *lost = list->pdata[i];
		if (!lost->told && now < lost->until && is_requester(fs, lost->pid))
			return -EOWNERDEAD;
	}
	return 0;
}

/* The dotlock that the requester had. */
static struct lost *find(MfFs *fs, const GPtrArray *list, const char *name)
{
	for (unsigned i = 0; list && i < list->len; i++) {
		struct lost *lost = list->pdata[i];
		if (lost->name && strcmp(lost->name, name) == 0 && is_requester(fs, lost->pid))
			return lost;
	}
	return NULL;
}

void mf_lostlock_told(MfFs *fs, uint64_t ino, const char *name)
{
	struct lost *lost = find(fs, lost_in(fs, ino), name);

	if (lost)
		lost->told = true;
}

int mf_lostlock_own(MfFs *fs, uint64_t ino, const char *name, const MfInode *inode)
{
	GPtrArray *list = lost_in(fs, ino);
	struct lost *lost = find(fs, list, name);

	if (!lost)
		return 0;
	g_ptr_array_remove_fast(list, lost);
	return is_requester(fs, inode->maker) ? 0 : -ENOENT;
}
