/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/adopt.h"

#include "sync/attr.h"
#include "sync/commit.h"
#include "sync/dir.h"
#include "sync/file.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/message.h"
#include "sync/reaper.h"

#include <errno.h>

#define PIECE (1u << 20)
#define FILE_TAG 1u /* keeps the to-delete record of the file's objects apart from those of the message */

static bool is_candidate(const MfInode *inode)
{
	const MfDentry *name = inode->names;
	enum mf_space space;

	return inode->kind == MF_KIND_FILE && name && !name->next_name && inode->opens == 0 &&
	       mf_key_is_entry(name->key, &space) && space == MF_SPACE_TMP &&
	       mf_dir_holds_messages(name->dir, space);
}

/* The bytes, into the buffers of a message. Without the lock. */
static int copy(MfFs *fs, MfInode *inode, uint64_t size)
{
	g_autofree uint8_t *buf = g_malloc(PIECE);

	for (uint64_t at = 0; at < size;) {
		ssize_t n = mf_file_read(fs, inode, buf, MIN(PIECE, size - at), at);
		if (n > 0)
			n = mf_message_append(fs, inode, buf, n);
		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		at += n;
	}
	return 0;
}

int mf_adopt(MfFs *fs, MfInode *inode)
{
	struct mf_attr attr;
	int r;

	if (!is_candidate(inode))
		return 0;
	/* Everything of the file in RADOS first, so that one commit takes all of it away again. */
	MfDir *dir = inode->names->dir;
	g_autofree char *key = g_strdup(inode->names->key);
	mf_inode_pin(inode);
	mf_dir_pin(dir);
	r = mf_attr_load(fs, inode);
	if (r == 0)
		r = mf_file_flush(fs, inode);
	if (r == 0)
		r = mf_commit_wait_key(dir, key);
	if (r == 0) {
		attr = inode->attr;
		mf_message_start(fs, inode);
		g_mutex_unlock(&fs->lock);
		r = copy(fs, inode, attr.size);
		g_mutex_lock(&fs->lock);
		bool still = is_candidate(inode) && !mf_file_is_dirty(inode) && inode->attr.mtime == attr.mtime;
		if (r < 0 || !still) {
			mf_message_free(fs, inode);
			r = r < 0 ? r : -EXDEV;
		}
	}
	if (r == 0) {
		MfShard *shard = mf_dir_shard(dir, key);
		bool on_disk = mf_dir_remove(dir, mf_dir_peek(dir, key));
		mf_reaper_unlinked(shard, key, inode, FILE_TAG, on_disk, true);
		inode->kind = MF_KIND_MESSAGE;
		inode->attr = attr;
		inode->published = false;
		mf_inode_unnamed(fs, inode);
		mf_dir_add(dir, key, inode, true, 0);
	}
	mf_dir_unpin(dir);
	mf_inode_unpin(fs, inode);
	return r;
}
