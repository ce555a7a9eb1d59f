/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/lost.h"

#include "sync/hold.h"

#include <errno.h>

void mf_lost_note(MfDir *dir)
{
	uint32_t pid = mf_hold_requester();

	if (pid == 0)
		return;
	if (!dir->changers)
		dir->changers = g_hash_table_new(NULL, NULL);
	g_hash_table_add(dir->changers, GUINT_TO_POINTER(pid));
}

void mf_lost_clear(MfDir *dir)
{
	if (dir->changers)
		g_hash_table_remove_all(dir->changers);
}

void mf_lost_end(MfDir *dir)
{
	GHashTable *lost = g_hash_table_lookup(dir->fs->lost, &dir->inode->ino);

	if (!dir->changers || g_hash_table_size(dir->changers) == 0)
		return;
	if (lost) {
		GHashTableIter iter;
		gpointer pid;

		g_hash_table_iter_init(&iter, dir->changers);
		while (g_hash_table_iter_next(&iter, &pid, NULL))
			g_hash_table_add(lost, pid);
		g_hash_table_remove_all(dir->changers);
	} else {
		uint64_t *key = g_memdup2(&dir->inode->ino, sizeof(dir->inode->ino));

		g_hash_table_insert(dir->fs->lost, key, g_steal_pointer(&dir->changers));
	}
}

int mf_lost_check(MfFs *fs, uint64_t ino)
{
	GHashTable *lost = g_hash_table_lookup(fs->lost, &ino);
	uint32_t requester = mf_hold_requester();
	GHashTableIter iter;
	gpointer pid;
	int r = 0;

	if (G_LIKELY(!lost))
		return 0;
	g_hash_table_iter_init(&iter, lost);
	while (g_hash_table_iter_next(&iter, &pid, NULL)) {
		uint32_t other = GPOINTER_TO_UINT(pid);

		/* One that has ended may have been a thread of anybody. */
		if (other != requester && fs->kernel && fs->kernel->same_process(requester, other) == 0)
			continue;
		g_hash_table_iter_remove(&iter);
		r = -ESTALE;
	}
	if (g_hash_table_size(lost) == 0)
		g_hash_table_remove(fs->lost, &ino);
	return r;
}
