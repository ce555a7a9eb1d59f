/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/opened.h"

#include "sync/dir.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/reaper.h"
#include "sync/recall.h"

#include <string.h>

static bool parse(const char *key, uint64_t *ret_ino, uint64_t *ret_incarnation)
{
	/* "o/", 16 digits, ".", 16 digits */
	return mf_key_parse_number(key, MF_KEY_OPEN, ret_ino) && key[MF_KEY_PREFIX + 16] == '.' &&
	       mf_key_parse_number(key + MF_KEY_PREFIX + 17, "", ret_incarnation);
}

/* It is in RADOS and should not be. */
static void drop_record(MfDir *dir, const char *key)
{
	MfShard *head = dir->shards->pdata[0];

	if (dir->lease.mode != MF_LEASE_EXCLUSIVE)
		return;
	mf_dir_drop_value(dir, head, key);
}

int mf_opened_take(MfDir *dir, GArray *kvs)
{
	MfFs *fs = dir->fs;

	for (unsigned i = 0; i < kvs->len; i++) {
		const char *key = g_array_index(kvs, struct mf_kv, i).key;
		uint64_t ino, incarnation;

		if (!parse(key, &ino, &incarnation))
			continue;
		switch (mf_node_holder(fs->node, (uint32_t)incarnation)) {
		case MF_HOLDER_SELF:
			g_hash_table_add(dir->noted_open, g_memdup2(&ino, sizeof(ino)));
			break;
		case MF_HOLDER_LIVE: {
			/* Who has told us so while we could not change anything. */
			if (dir->lease.mode == MF_LEASE_EXCLUSIVE && g_hash_table_remove(fs->unused, key)) {
				drop_record(dir, key);
				break;
			}
			if (g_hash_table_contains(fs->unused, key))
				break;
			GArray *list = g_hash_table_lookup(dir->foreign_open, &ino);
			uint32_t inc = (uint32_t)incarnation;
			if (!list) {
				list = g_array_new(false, false, sizeof(uint32_t));
				g_hash_table_insert(dir->foreign_open, g_memdup2(&ino, sizeof(ino)), list);
			}
			g_array_append_val(list, inc);
			break;
		}
		case MF_HOLDER_CLEAN:
		case MF_HOLDER_LOST:
			drop_record(dir, key);
			break;
		}
	}
	return 0;
}

void mf_opened_note(MfDir *dir, MfWop *wop)
{
	MfFs *fs = dir->fs;
	uint32_t self = mf_node_incarnation(fs->node);
	GHashTableIter iter;
	gpointer key;

	g_hash_table_iter_init(&iter, fs->held);
	while (g_hash_table_iter_next(&iter, &key, NULL)) {
		const MfInode *inode = key;
		if (inode->dir != dir || (!inode->published && inode->kind == MF_KIND_MESSAGE))
			continue;
		g_autofree char *record = mf_key_pair(MF_KEY_OPEN, inode->ino, self);
		if (!g_hash_table_contains(dir->noted_open, &inode->ino))
			mf_wop_omap_set(wop, record, "1", 1);
	}
	g_hash_table_iter_init(&iter, dir->noted_open);
	while (g_hash_table_iter_next(&iter, &key, NULL)) {
		const MfInode *inode = mf_inode_find(fs, *(uint64_t *)key);
		g_autofree char *record = mf_key_pair(MF_KEY_OPEN, *(uint64_t *)key, self);
		/* Of a removed directory the parent has the records. */
		if (!inode || !mf_inode_is_held(inode) || (inode->dir != dir && !inode->removed))
			mf_wop_omap_rm(wop, record);
	}
}

void mf_opened_clear(MfDir *dir)
{
	g_hash_table_remove_all(dir->noted_open);
	g_hash_table_remove_all(dir->foreign_open);
}

bool mf_opened_elsewhere(MfDir *dir, uint64_t ino)
{
	GArray *list = dir ? g_hash_table_lookup(dir->foreign_open, &ino) : NULL;

	for (unsigned i = 0; list && i < list->len; i++) {
		if (mf_node_holder(dir->fs->node, g_array_index(list, uint32_t, i)) == MF_HOLDER_LIVE)
			return true;
	}
	return false;
}

static bool contains(const GArray *list, uint32_t incarnation)
{
	for (unsigned i = 0; i < list->len; i++) {
		if (g_array_index(list, uint32_t, i) == incarnation)
			return true;
	}
	return false;
}

void mf_opened_inherit(MfDir *dir, MfDir *from, uint64_t ino)
{
	GArray *list = g_hash_table_lookup(from->foreign_open, &ino), *to = g_hash_table_lookup(dir->foreign_open, &ino);

	if (!list || !mf_opened_elsewhere(from, ino))
		return;
	if (!to) {
		to = g_array_new(false, false, sizeof(uint32_t));
		g_hash_table_insert(dir->foreign_open, g_memdup2(&ino, sizeof(ino)), to);
	}
	for (unsigned i = 0; i < list->len; i++) {
		uint32_t incarnation = g_array_index(list, uint32_t, i);
		g_autofree char *key = mf_key_pair(MF_KEY_OPEN, ino, incarnation);
		if (contains(to, incarnation))
			continue;
		g_array_append_val(to, incarnation);
		mf_dir_set_value(dir, dir->shards->pdata[0], key, g_byte_array_append(g_byte_array_new(), (const guint8 *)"1", 1));
	}
}

void mf_opened_moved(MfDir *from, MfDir *to, const MfInode *inode)
{
	mf_opened_inherit(to, from, inode->ino);
	/* Of a message others may be left here. */
	GArray *list = inode->kind == MF_KIND_FILE ? g_hash_table_lookup(from->foreign_open, &inode->ino) : NULL;
	for (unsigned i = 0; list && i < list->len; i++) {
		g_autofree char *key = mf_key_pair(MF_KEY_OPEN, inode->ino, g_array_index(list, uint32_t, i));
		drop_record(from, key);
	}
	if (list)
		g_hash_table_remove(from->foreign_open, &inode->ino);
}

void mf_opened_closed(MfFs *fs, MfInode *inode)
{
	MfDir *dir = inode->dir;

	if (!dir || mf_inode_is_dir(inode))
		return;
	/* While the lease is ours the record goes when it leaves. */
	if (dir->lease.mode != MF_LEASE_EXCLUSIVE && dir->passed_to)
		mf_notice_send(fs, dir->passed_to, MF_NOTICE_CLOSED, dir->inode->ino, inode->ino);
}

static void drop_elsewhere(MfDir *dir, uint64_t ino, uint32_t incarnation)
{
	GArray *list = g_hash_table_lookup(dir->foreign_open, &ino);
	bool shared = dir->lease.mode == MF_LEASE_SHARED;

	/* What is given up changes no more: who takes it reads the records again, and asks again. */
	if (!list || dir->lease.mode == MF_LEASE_NONE || dir->draining)
		return;
	for (unsigned i = 0; i < list->len; i++) {
		if (g_array_index(list, uint32_t, i) != incarnation)
			continue;
		g_autofree char *key = mf_key_pair(MF_KEY_OPEN, ino, incarnation);
		g_array_remove_index(list, i);
		if (list->len == 0)
			g_hash_table_remove(dir->foreign_open, &ino);
		if (shared)
			g_hash_table_add(dir->fs->unused, g_steal_pointer(&key));
		else
			drop_record(dir, key);
		mf_reaper_released(dir, ino);
		return;
	}
}

void mf_opened_ask(MfDir *dir, uint64_t ino)
{
	GArray *now = g_hash_table_lookup(dir->foreign_open, &ino);
	g_autoptr(GArray) list = now ? g_array_copy(now) : NULL;

	for (unsigned i = 0; list && i < list->len; i++) {
		uint32_t incarnation = g_array_index(list, uint32_t, i);
		if (mf_node_holder(dir->fs->node, incarnation) == MF_HOLDER_LIVE)
			mf_notice_send(dir->fs, incarnation, MF_NOTICE_ASK, dir->inode->ino, ino);
	}
}

static void listen(MfDir *dir, const struct mf_notice *notice)
{
	if (notice->kind == MF_NOTICE_UNUSED)
		drop_elsewhere(dir, notice->arg, notice->from);
	else
		mf_reaper_ask(dir, notice->arg);
}

void mf_opened_listen(MfFs *fs, const struct mf_notice *notice)
{
	const MfInode *inode = mf_inode_find(fs, notice->kind == MF_NOTICE_ASK ? notice->arg : notice->ino);

	if (notice->kind == MF_NOTICE_ASK) {
		if (!inode || !mf_inode_is_held(inode))
			mf_notice_send(fs, notice->from, MF_NOTICE_UNUSED, notice->ino, notice->arg);
		return;
	}
	if (inode && inode->kind == MF_KIND_DIR && inode->dir && !inode->removed &&
		g_hash_table_contains(inode->dir->foreign_open, &notice->arg)) {
		listen(inode->dir, notice);
		return;
	}
	/* Of a removed directory the parent has the records; of a file that was moved, its new directory. */
	g_autoptr(GPtrArray) dirs = g_ptr_array_new();
	for (GList *link = fs->dir_lru.head; link; link = link->next) {
		MfDir *dir = link->data;
		if (g_hash_table_contains(dir->foreign_open, &notice->arg))
			g_ptr_array_add(dirs, mf_dir_pin(dir));
	}
	for (unsigned i = 0; i < dirs->len; i++) {
		listen(dirs->pdata[i], notice);
		mf_dir_unpin(dirs->pdata[i]);
	}
}
