/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/inode.h"

#include "sync/dir.h"
#include "sync/file.h"
#include "sync/hold.h"
#include "sync/message.h"

#include <errno.h>
#include <sys/stat.h>

#define NUMBER_STEP 1024u /* inode numbers reserved by one write to node.<incarnation> */

MfInode *mf_inode_find(MfFs *fs, uint64_t ino)
{
	return g_hash_table_lookup(fs->inodes, &ino);
}

MfInode *mf_inode_new(MfFs *fs, uint64_t ino, enum mf_kind kind)
{
	MfInode *inode = g_slice_new0(MfInode);

	inode->ino = ino;
	inode->kind = kind;
	g_hash_table_insert(fs->inodes, &inode->ino, inode);
	return inode;
}

MfInode *mf_inode_pin(MfInode *inode)
{
	inode->pins++;
	return inode;
}

void mf_inode_settle(MfFs *fs, MfInode *inode)
{
	if (inode->pins > 0 || inode->names)
		return;
	if (inode->kind == MF_KIND_DIR && inode->dir) {
		mf_dir_free_if_unused(inode->dir);
		if (inode->dir)
			return;
	}
	if (inode->unnamed)
		mf_inode_named(fs, inode);
	MfDir *held = g_steal_pointer(&inode->held_dir);
	if (!mf_inode_is_dir(inode))
		mf_inode_set_home(inode, NULL);
	g_hash_table_remove(fs->inodes, &inode->ino);
	if (inode->message)
		mf_message_free(fs, inode);
	if (inode->file)
		mf_file_free(fs, inode);
	g_clear_pointer(&inode->xattrs, g_hash_table_unref);
	g_clear_pointer(&inode->reaps, g_array_unref);
	g_free(inode->target);
	g_slice_free(MfInode, inode);
	if (held)
		mf_dir_unpin(held);
}

void mf_inode_unpin(MfFs *fs, MfInode *inode)
{
	g_assert(inode->pins > 0);
	if (--inode->pins == 0)
		mf_inode_settle(fs, inode);
}

/* The lowest counter that an object without a name may have. */
static uint32_t window_low(MfFs *fs)
{
	uint32_t low = fs->next_counter;
	GHashTableIter iter;
	gpointer key;

	g_hash_table_iter_init(&iter, fs->unnamed);
	while (g_hash_table_iter_next(&iter, &key, NULL))
		low = MIN(low, (uint32_t)((MfInode *)key)->ino);
	return low;
}

int mf_inode_number(MfFs *fs, uint64_t *ret_ino)
{
	while (fs->next_counter >= fs->reserved) {
		if (fs->reserving) {
			g_cond_wait(&fs->reserve_cond, &fs->lock);
			continue;
		}
		if (fs->reserved > UINT32_MAX - NUMBER_STEP)
			return -ENOSPC;
		struct mf_window window = { window_low(fs), fs->reserved + NUMBER_STEP };
		fs->reserving = true;
		fs->window_low = window.low;
		g_mutex_unlock(&fs->lock);
		int r = mf_node_set_window(fs->node, &window);
		g_mutex_lock(&fs->lock);
		fs->reserving = false;
		g_cond_broadcast(&fs->reserve_cond);
		if (r < 0)
			return r;
		fs->reserved = window.high;
	}
	*ret_ino = (uint64_t)mf_node_incarnation(fs->node) << 32 | fs->next_counter++;
	return 0;
}

void mf_inode_unnamed(MfFs *fs, MfInode *inode)
{
	inode->unnamed = true;
	g_hash_table_add(fs->unnamed, inode);
}

void mf_inode_named(MfFs *fs, MfInode *inode)
{
	inode->unnamed = false;
	g_hash_table_remove(fs->unnamed, inode);
}

bool mf_inode_is_dir(const MfInode *inode)
{
	return inode->kind == MF_KIND_DIR || inode->kind == MF_KIND_SUBDIR;
}

MfInode *mf_inode_dir_of(MfFs *fs, uint64_t ino)
{
	MfInode *inode = mf_inode_find(fs, ino);

	if (!inode)
		return mf_inode_new(fs, ino, MF_KIND_DIR);
	return inode->kind == MF_KIND_DIR && !inode->removed ? inode : NULL;
}

bool mf_inode_has_local_name(const MfInode *inode)
{
	for (const MfDentry *name = inode->names; name; name = name->next_name) {
		if (name->local)
			return true;
	}
	return false;
}

bool mf_inode_is_held(const MfInode *inode)
{
	bool held = inode->opens > 0;

	for (const MfDentry *name = inode->names; name; name = name->next_name)
		held |= name->local && name->tag == 0;
	return held;
}

int mf_inode_take(MfFs *fs, uint64_t ino, MfInode **ret_inode)
{
	MfInode *inode = mf_inode_find(fs, ino);

	if (!inode)
		return -ESTALE;
	if (inode->dead)
		return -ESTALE;
	*ret_inode = mf_inode_pin(inode);
	return 0;
}

void mf_inode_stat(const MfInode *inode, struct mf_stat *ret)
{
	unsigned local = 0, named = 0;

	for (const MfDentry *name = inode->names; name; name = name->next_name) {
		local += name->local && name->tag == 0;
		named++;
	}
	*ret = (struct mf_stat){
		.ino = inode->ino,
		.nlink = named,
		.attr = inode->attr,
	};
	if (mf_inode_is_dir(inode))
		ret->nlink = inode->removed ? 0 : inode->nlink;
	else if (inode->kind == MF_KIND_MESSAGE && inode->linked)
		ret->nlink = inode->nlink + local; /* names elsewhere count, too */
}
