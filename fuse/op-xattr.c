/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/ops.h"
#include "fuse/reply.h"

#include <errno.h>
#include <string.h>

#define PREFIX "user."
#define PREFIX_LEN (sizeof PREFIX - 1)

/* The name as sync/ knows it. */
static int strip(const char *name, const char **ret_name)
{
	if (strncmp(name, PREFIX, PREFIX_LEN))
		return -EOPNOTSUPP;
	if (!name[PREFIX_LEN])
		return -EINVAL;
	*ret_name = name + PREFIX_LEN;
	return 0;
}

void mf_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	struct mf_session *session = mf_session_begin(req, "setxattr", ino);
	const char *own;
	int r;

	if (!session)
		return;
	r = strip(name, &own);
	if (r == 0)
		r = mf_fs_setxattr(session->fs, ino, own, value, size, flags);
	mf_reply_err(req, "setxattr", ino, r);
}

/* @size 0 asks how much it would be. */
static void reply_data(fuse_req_t req, const char *op, uint64_t ino, const void *data, size_t len, size_t size)
{
	if (!size)
		mf_reply_xattr_size(req, len);
	else if (len > size)
		mf_reply_err(req, op, ino, -ERANGE);
	else
		mf_reply_buf(req, data, len);
}

void mf_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct mf_session *session = mf_session_begin(req, "getxattr", ino);
	g_autoptr(GBytes) value = NULL;
	const char *own;
	int r;

	if (!session)
		return;
	r = strip(name, &own);
	if (r == 0)
		r = mf_fs_getxattr(session->fs, ino, own, &value);
	if (r < 0)
		mf_reply_err(req, "getxattr", ino, r);
	else
		reply_data(req, "getxattr", ino, g_bytes_get_data(value, NULL), g_bytes_get_size(value), size);
}

void mf_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct mf_session *session = mf_session_begin(req, "listxattr", ino);
	g_autoptr(GPtrArray) names = NULL;
	g_autoptr(GByteArray) list = g_byte_array_new();
	int r;

	if (!session)
		return;
	r = mf_fs_listxattr(session->fs, ino, &names);
	if (r < 0) {
		mf_reply_err(req, "listxattr", ino, r);
		return;
	}
	for (guint i = 0; i < names->len; i++) {
		const char *own = g_ptr_array_index(names, i);

		g_byte_array_append(list, (const guint8 *)PREFIX, PREFIX_LEN);
		g_byte_array_append(list, (const guint8 *)own, (guint)strlen(own) + 1);
	}
	reply_data(req, "listxattr", ino, list->data, list->len, size);
}

void mf_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct mf_session *session = mf_session_begin(req, "removexattr", ino);
	const char *own;
	int r;

	if (!session)
		return;
	r = strip(name, &own);
	if (r == 0)
		r = mf_fs_removexattr(session->fs, ino, own);
	mf_reply_err(req, "removexattr", ino, r);
}
