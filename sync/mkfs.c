/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/mkfs.h"

#include "store/pool.h"
#include "store/record.h"

#include <errno.h>
#include <openssl/rand.h>
#include <string.h>
#include <sys/stat.h>

/* Held by nobody: mode none, epoch 1. */
static int add_lease(MfWop *wop)
{
	g_autoptr(GByteArray) bytes = NULL;
	int r = mf_lease_record_encode(&(struct mf_lease_record){ .mode = MF_LEASE_NONE, .epoch = 1 }, &bytes);

	if (r == 0) {
		mf_wop_setxattr(wop, MF_XATTR_LEASE, bytes->data, bytes->len);
		mf_wop_setxattr(wop, MF_XATTR_EPOCH, "0000000000000001", 16);
	}
	return r;
}

static int make_root(MfPool *pool)
{
	g_autoptr(MfWop) wop = mf_wop_new();
	g_autofree char *oid = mf_oid_dir(MF_ROOT_INO, 0);
	g_autoptr(GArray) shards = g_array_new(false, true, sizeof(struct mf_shard_ref));
	g_autoptr(GByteArray) record = NULL, shard = NULL;
	int64_t now = g_get_real_time() * 1000;
	struct mf_dir_record rec = {
		.attr = { .mode = S_IFDIR | 0755, .atime = now, .mtime = now, .ctime = now },
		.parent = MF_ROOT_INO,
		.next_shard = 1,
		.shards = shards,
	};
	struct mf_shard_record counts = { .times[MF_SPACE_SELF] = { 0, now, now } };

	g_array_set_size(shards, 1);
	mf_wop_create(wop);
	int r = mf_dir_record_encode(&rec, &record);
	if (r == 0)
		r = mf_shard_record_encode(&counts, &shard);
	if (r == 0)
		r = add_lease(wop);
	if (r < 0)
		return r;
	mf_wop_setxattr(wop, MF_XATTR_RECORD, record->data, record->len);
	mf_wop_setxattr(wop, MF_XATTR_SHARD, shard->data, shard->len);
	mf_wop_setxattr(wop, MF_XATTR_LAST, "0000000000000001.00000000.0000000000000000", 42);
	return mf_pool_write(pool, MF_POOL_META, oid, wop);
}

static int make_members(MfPool *pool)
{
	g_autoptr(MfWop) wop = mf_wop_new();

	mf_wop_create(wop);
	mf_wop_setxattr(wop, MF_XATTR_VERSION, "0000000000000000", 16);
	return mf_pool_write(pool, MF_POOL_META, MF_OID_MEMBERS, wop);
}

static int make_super(MfPool *pool)
{
	g_autoptr(MfWop) wop = mf_wop_new();
	g_autoptr(GByteArray) bytes = NULL;
	struct mf_super super = {
		.format = MF_FORMAT_VERSION,
		.root_ino = MF_ROOT_INO,
		.message_stripe = MF_STRIPE_SIZE,
		.file_stripe = MF_FILE_STRIPE,
		.created = g_get_real_time() * 1000,
	};

	if (RAND_bytes(super.uuid, sizeof(super.uuid)) != 1)
		return -EIO;
	int r = mf_super_encode(&super, &bytes);
	if (r < 0)
		return r;
	mf_wop_create(wop);
	mf_wop_setxattr(wop, MF_XATTR_RECORD, bytes->data, bytes->len);
	return mf_pool_write(pool, MF_POOL_META, MF_OID_SUPER, wop);
}

int mf_mkfs(const struct mf_conf *conf, char **ret_error)
{
	MfPool *pool = NULL;
	g_autoptr(MfRop) rop = mf_rop_new();
	int r = mf_pool_open(conf, &pool, ret_error);

	if (r < 0)
		return r;
	mf_rop_xattrs(rop);
	r = mf_pool_read(pool, MF_POOL_META, MF_OID_SUPER, rop);
	if (r == 0) {
		*ret_error = g_strdup_printf("there is a filesystem '%s' in pool '%s' already", conf->fs, conf->meta_pool);
		r = -EEXIST;
		goto out;
	}
	if (r != -ENOENT)
		goto failed;
	/* The superblock last: what a mkfs that died left behind is no filesystem, and the next one goes on with it. */
	r = make_root(pool);
	if (r == 0 || r == -EEXIST)
		r = make_members(pool);
	if (r == 0 || r == -EEXIST)
		r = make_super(pool);
	if (r == 0)
		goto out;
failed:
	*ret_error = g_strdup_printf("cannot make the filesystem '%s': %s", conf->fs, g_strerror(-r));
out:
	mf_pool_close(pool);
	return r;
}
