/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/fs.h"

#include "sync/commit.h"
#include "sync/dir.h"
#include "sync/hold.h"
#include "sync/inode.h"
#include "sync/interest.h"
#include "sync/kernel.h"
#include "sync/locks.h"
#include "sync/lostlock.h"
#include "sync/model.h"
#include "sync/name.h"
#include "sync/outbox.h"
#include "sync/reaper.h"
#include "sync/reopen.h"
#include "sync/recall.h"
#include "sync/rejoin.h"
#include "sync/report.h"
#include "sync/table.h"
#include "sync/stripecache.h"
#include "sync/sweep.h"

#include <errno.h>
#include <time.h>

#define REAPERS 8
#define LOCKS_MAX 1000000u	       /* file locks in memory */
#define SPACE_AGE_US (5 * G_USEC_PER_SEC) /* statfs asks the monitors no more often */

int64_t mf_fs_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

struct work {
	mf_work_func func;
	void *arg;
};

static void do_work(void *data, void *fs)
{
	struct work *work = data;

	work->func(fs, work->arg);
	g_free(work);
}

static void push(GThreadPool *pool, mf_work_func func, void *arg)
{
	struct work *work = g_new(struct work, 1);

	*work = (struct work){ func, arg };
	g_thread_pool_push(pool, work, NULL);
}

void mf_fs_work(MfFs *fs, mf_work_func func, void *arg)
{
	push(fs->workers, func, arg);
}

void mf_fs_reap(MfFs *fs, mf_work_func func, void *arg)
{
	push(fs->reapers, func, arg);
}

bool mf_fs_is_closing(MfFs *fs)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);

	return fs->closing;
}

int mf_fs_note(MfFs *fs, int result)
{
	/* A hint: when the pool is full, changes are written through so that the error meets who made them. */
	if (result == -ENOSPC)
		g_atomic_int_set(&fs->full, true);
	else if (result == 0 && g_atomic_int_get(&fs->full))
		g_atomic_int_set(&fs->full, false);
	return result;
}

static int fail(char **ret_error, int error, const char *what)
{
	*ret_error = g_strdup_printf("%s: %s", what, g_strerror(-error));
	return error;
}

int mf_fs_check(MfPool *pool, const struct mf_conf *conf, char **ret_error)
{
	struct mf_super super;
	g_autoptr(MfRop) rop = mf_rop_new();

	mf_rop_xattrs(rop);
	int r = mf_pool_read(pool, MF_POOL_META, MF_OID_SUPER, rop);
	if (r == -ENOENT) {
		*ret_error = g_strdup_printf(
			"there is no filesystem '%s' in pool '%s' (mailfsctl mkfs makes one)", conf->fs, conf->meta_pool);
		return r;
	}
	if (r < 0)
		return fail(ret_error, r, "cannot read the superblock");
	GBytes *bytes = mf_rop_get_xattr(rop, MF_XATTR_RECORD);
	r = bytes ? mf_super_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &super) : -EBADMSG;
	if (r == -EPROTONOSUPPORT || (r == 0 && super.format > MF_FORMAT_VERSION)) {
		*ret_error = g_strdup_printf(
			"the filesystem '%s' has a newer format than this mailfs (%s) knows", conf->fs, MF_VERSION);
		return -EPROTONOSUPPORT;
	}
	if (r == 0 && super.features_incompat & ~MF_FEATURES_INCOMPAT) {
		*ret_error = g_strdup_printf(
			"the filesystem '%s' uses features that this mailfs (%s) does not know (0x%" G_GINT64_MODIFIER "x)",
			conf->fs, MF_VERSION, super.features_incompat & ~MF_FEATURES_INCOMPAT);
		return -EPROTONOSUPPORT;
	}
	if (r < 0)
		return fail(ret_error, r, "the superblock is damaged");
	if (super.message_stripe != MF_STRIPE_SIZE || super.file_stripe != MF_FILE_STRIPE || super.root_ino != MF_ROOT_INO) {
		*ret_error = g_strdup("the superblock asks for sizes that this mailfs does not know");
		return -EPROTONOSUPPORT;
	}
	return 0;
}

static void fs_free(MfFs *fs)
{
	g_hash_table_unref(fs->inodes);
	g_hash_table_unref(fs->unnamed);
	g_hash_table_unref(fs->references);
	g_hash_table_unref(fs->removed);
	g_hash_table_unref(fs->held);
	g_hash_table_unref(fs->lost);
	mf_lostlocks_free(fs->lostlocks);
	g_hash_table_unref(fs->unused);
	g_hash_table_unref(fs->lock_requests);
	mf_filelock_free(fs->locks);
	mf_stripecache_free(fs->cache);
	mf_outbox_clear(fs);
	g_cond_clear(&fs->flusher_cond);
	g_cond_clear(&fs->reserve_cond);
	g_cond_clear(&fs->reap_cond);
	g_cond_clear(&fs->sent_cond);
	g_cond_clear(&fs->sweep_cond);
	g_cond_clear(&fs->life_cond);
	g_cond_clear(&fs->reopen_cond);
	g_mutex_clear(&fs->lock);
	g_mutex_clear(&fs->rename_lock);
	g_free(fs);
}

/* Nobody else calls for us, or waits for our own calls, from now on. */
static void stop_messages(MfFs *fs)
{
	mf_node_listen(fs->node, NULL, NULL);
	mf_node_report(fs->node, NULL, NULL);
	g_mutex_lock(&fs->lock);
	while (fs->sending > 0)
		g_cond_wait(&fs->sent_cond, &fs->lock);
	g_mutex_unlock(&fs->lock);
}

int mf_fs_open(MfPool *pool, MfNode *node, const struct mf_conf *conf, MfFs **ret_fs, char **ret_error)
{
	MfFs *fs = g_new0(MfFs, 1);
	enum mf_space space;
	MfDir *dir;

	fs->pool = pool;
	fs->node = node;
	fs->conf = conf;
	g_mutex_init(&fs->lock);
	g_mutex_init(&fs->rename_lock);
	g_cond_init(&fs->flusher_cond);
	g_cond_init(&fs->reserve_cond);
	g_cond_init(&fs->reap_cond);
	g_cond_init(&fs->sent_cond);
	g_cond_init(&fs->sweep_cond);
	g_cond_init(&fs->life_cond);
	g_cond_init(&fs->reopen_cond);
	g_queue_init(&fs->reopens);
	mf_outbox_init(fs);
	fs->held = g_hash_table_new(NULL, NULL);
	fs->lost = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, (GDestroyNotify)g_hash_table_unref);
	fs->lostlocks = mf_lostlocks_new();
	fs->unused = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	fs->lock_requests = g_hash_table_new(NULL, NULL);
	fs->inodes = g_hash_table_new(g_int64_hash, g_int64_equal);
	fs->unnamed = g_hash_table_new(NULL, NULL);
	fs->references = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	fs->removed = mf_reaper_table();
	fs->locks = mf_filelock_new(LOCKS_MAX);
	fs->cache = mf_stripecache_new(conf->cache_size / 4);
	/* Without a limit: a commit may wait for that of a directory below, as deep as there are new ones. */
	fs->workers = g_thread_pool_new(do_work, fs, -1, false, NULL);
	fs->reapers = g_thread_pool_new(do_work, fs, REAPERS, false, NULL);
	fs->forgetters = mf_kernel_pool(fs);
	fs->lookers = mf_interest_pool(fs);
	mf_node_listen(node, mf_recall_listen, fs);
	g_mutex_lock(&fs->lock);
	fs->root = mf_inode_pin(mf_inode_new(fs, MF_ROOT_INO, MF_KIND_DIR));
	int r = mf_dir_get(fs, fs->root, MF_LEASE_SHARED, &dir, &space);
	if (r == 0)
		mf_dir_put(dir);
	g_mutex_unlock(&fs->lock);
	if (r < 0) {
		fail(ret_error, r, "cannot load the root directory");
		stop_messages(fs);
		g_thread_pool_free(fs->lookers, false, true);
		g_thread_pool_free(fs->reapers, false, true);
		g_thread_pool_free(fs->workers, false, true);
		g_thread_pool_free(fs->forgetters, false, true);
		g_mutex_lock(&fs->lock);
		mf_inode_unpin(fs, fs->root);
		g_mutex_unlock(&fs->lock);
		fs_free(fs);
		return r;
	}
	fs->flusher = g_thread_new("mailfs-flusher", mf_commit_flusher, fs);
	fs->outbox_thread = g_thread_new("mailfs-outbox", mf_outbox_thread, fs);
	fs->sweeper = g_thread_new("mailfs-sweeper", mf_sweep_thread, fs);
	fs->rejoiner = g_thread_new("mailfs-rejoin", mf_rejoin_thread, fs);
	mf_node_report(node, mf_report_encode, fs);
	*ret_fs = fs;
	return 0;
}

/* The kernel is gone, and with it its references and those of handles. */
static void drop_references(MfFs *fs)
{
	g_autoptr(GPtrArray) inodes = mf_table_values(fs->inodes);

	for (unsigned i = 0; i < inodes->len; i++)
		mf_inode_pin(inodes->pdata[i]);
	for (unsigned i = 0; i < inodes->len; i++) {
		MfInode *inode = inodes->pdata[i];
		inode->opens = inode->writers = 0;
		g_hash_table_remove(fs->held, inode);
		/* Files in tmp end with the mount: nobody has seen them. */
		while (mf_inode_has_local_name(inode)) {
			MfDentry *name = inode->names;
			while (!name->local)
				name = name->next_name;
			mf_name_drop(name->dir, name);
		}
		mf_reaper_closed(fs, inode);
	}
	for (unsigned i = 0; i < inodes->len; i++) {
		MfInode *inode = inodes->pdata[i];
		if (inode->nlookup > 0) {
			inode->nlookup = 0;
			mf_inode_unpin(fs, inode);
		}
		mf_inode_unpin(fs, inode);
	}
}

static void free_memory(MfFs *fs)
{
	/* Directories free each other's last references, so go on until none is left. */
	for (unsigned n = 0; fs->n_dirs != n;) {
		n = fs->n_dirs;
		for (GList *link = fs->dir_lru.tail; link;) {
			MfDir *dir = link->data;
			link = link->prev;
			for (unsigned i = 0; i < dir->shards->len; i++)
				mf_commit_forget(dir->shards->pdata[i]);
		}
		g_autoptr(GPtrArray) dirs = g_ptr_array_new();
		for (GList *link = fs->dir_lru.head; link; link = link->next) {
			MfDir *dir = link->data;
			g_ptr_array_add(dirs, mf_inode_pin(dir->inode));
		}
		for (unsigned i = 0; i < dirs->len; i++) {
			MfInode *inode = dirs->pdata[i];
			inode->pins--;
			if (inode->dir)
				mf_dir_free_if_unused(inode->dir);
			mf_inode_settle(fs, inode);
		}
		if (fs->n_dirs == 0)
			break;
	}
}

/* Any; waiting for one may start another in a directory that was looked at before. */
static MfShard *with_batch(MfFs *fs)
{
	for (GList *link = fs->dir_lru.head; link; link = link->next) {
		MfDir *dir = link->data;
		for (unsigned i = 0; i < dir->shards->len; i++) {
			MfShard *shard = dir->shards->pdata[i];
			if (shard->batch)
				return shard;
		}
	}
	return NULL;
}

/* Its job commits, and what is committed is reaped. */
static MfDir *yielding(MfFs *fs)
{
	for (GList *link = fs->dir_lru.head; link; link = link->next) {
		MfDir *dir = link->data;
		if (dir->yielding)
			return dir;
	}
	return NULL;
}

/* What is under way ends by itself, after op_timeout at the latest. */
static void wait_for_jobs(MfFs *fs)
{
	for (;;) {
		MfShard *shard = with_batch(fs);
		MfDir *dir = shard ? shard->dir : yielding(fs);
		if (dir) {
			mf_dir_pin(dir);
			g_cond_wait(shard ? &shard->cond : &dir->cond, &fs->lock);
			mf_dir_unpin(dir);
		} else if (fs->reaping > 0) {
			mf_reaper_drain(fs);
		} else {
			return;
		}
	}
}

int mf_fs_close(MfFs *fs)
{
	g_mutex_lock(&fs->lock);
	fs->closing = true;
	mf_reopen_end(fs);
	drop_references(fs);
	int r = mf_commit_all(fs);
	while (r == 0 && fs->reaping > 0) {
		/* Reaping and renames leave records to be cleared. */
		mf_reaper_drain(fs);
		r = mf_commit_all(fs);
	}
	if (r == 0)
		mf_recall_leave(fs);
	bool told = mf_outbox_drain(fs);
	fs->stopping = true;
	g_cond_broadcast(&fs->outbox_cond);
	g_cond_broadcast(&fs->flusher_cond);
	g_cond_broadcast(&fs->sweep_cond);
	g_cond_broadcast(&fs->life_cond);
	g_mutex_unlock(&fs->lock);
	g_thread_join(fs->flusher);
	g_thread_join(fs->outbox_thread);
	g_thread_join(fs->sweeper);
	g_thread_join(fs->rejoiner);
	/* The callbacks of commits need this memory, and jobs may start more of them. */
	g_mutex_lock(&fs->lock);
	wait_for_jobs(fs);
	g_mutex_unlock(&fs->lock);
	g_thread_pool_free(fs->lookers, false, true);
	g_thread_pool_free(fs->reapers, false, true);
	g_thread_pool_free(fs->workers, false, true);
	g_thread_pool_free(fs->forgetters, false, true);
	stop_messages(fs);
	g_mutex_lock(&fs->lock);
	/* Requests of other nodes that could not be handed over: they ask the next lock manager. */
	g_autoptr(GArray) done = mf_filelock_done_new();
	mf_locks_reset(fs, done);
	mf_inode_unpin(fs, g_steal_pointer(&fs->root));
	free_memory(fs);
	/* Nobody looks for that but the sweep of a window that was not left clean. */
	if (r == 0)
		r = fs->unreaped;
	if (r == 0 && !told)
		r = -EREMOTEIO;
	g_mutex_unlock(&fs->lock);
	fs_free(fs);
	return r;
}

int mf_fs_statfs(MfFs *fs, struct mf_fs_space *ret)
{
	g_mutex_lock(&fs->lock);
	bool old = fs->space_at == 0 || g_get_monotonic_time() - fs->space_at > SPACE_AGE_US;
	g_mutex_unlock(&fs->lock);
	if (old) {
		struct mf_pool_space space;
		int r = mf_pool_space(fs->pool, &space);
		if (r < 0)
			return r;
		g_mutex_lock(&fs->lock);
		fs->space = space;
		fs->space_at = g_get_monotonic_time();
		g_mutex_unlock(&fs->lock);
	}
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);
	*ret = (struct mf_fs_space){ fs->space.total, fs->space.free, fs->space.objects };
	return 0;
}

void mf_fs_status(MfFs *fs, struct mf_fs_status *ret)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);

	*ret = (struct mf_fs_status){
		.inodes = g_hash_table_size(fs->inodes),
		.directories = fs->n_dirs,
		.dirty = fs->dirty_shards.length,
		.cached_bytes = mf_stripecache_bytes(fs->cache) + fs->file_bytes + fs->write_bytes,
	};
	mf_report_count(fs, ret);
}

void mf_fs_set_kernel(MfFs *fs, const struct mf_kernel_ops *ops, void *arg)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&fs->lock);

	fs->kernel = ops;
	fs->kernel_arg = arg;
}
