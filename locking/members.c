/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "locking/members.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define UPDATE_TRIES 20

static void free_member(void *data)
{
	mf_member_clear(data);
	g_free(data);
}

void mf_members_clear(struct mf_members *members)
{
	g_clear_pointer(&members->version, g_free);
	g_clear_pointer(&members->records, g_hash_table_unref);
}

int mf_members_read(MfPool *pool, struct mf_members *ret)
{
	char after[16] = "";

	*ret = (struct mf_members){ .records = g_hash_table_new_full(NULL, NULL, NULL, free_member) };
	for (bool more = true; more;) {
		g_autoptr(MfRop) rop = mf_rop_new();
		mf_rop_xattrs(rop);
		mf_rop_omap_range(rop, after, "", 1000);
		int r = mf_pool_read(pool, MF_POOL_META, MF_OID_MEMBERS, rop);
		if (r < 0) {
			mf_members_clear(ret);
			return r;
		}
		GBytes *version = mf_rop_get_xattr(rop, MF_XATTR_VERSION);
		GArray *kvs = mf_rop_get_range(rop, 0, &more);
		if (!version) {
			mf_members_clear(ret);
			return -EBADMSG;
		}
		if (!ret->version)
			ret->version = g_strndup(g_bytes_get_data(version, NULL), g_bytes_get_size(version));
		for (unsigned i = 0; i < kvs->len; i++) {
			struct mf_kv *kv = &g_array_index(kvs, struct mf_kv, i);
			struct mf_member *member = g_new0(struct mf_member, 1);
			char *end;
			uint64_t inc = g_ascii_strtoull(kv->key, &end, 16);

			r = mf_member_decode(g_bytes_get_data(kv->value, NULL), g_bytes_get_size(kv->value), member);
			if (r < 0 || *end || inc == 0 || inc > UINT32_MAX) {
				g_free(member);
				mf_members_clear(ret);
				return r < 0 ? r : -EBADMSG;
			}
			g_hash_table_replace(ret->records, GUINT_TO_POINTER(inc), member);
			ret->highest = MAX(ret->highest, (uint32_t)inc);
			g_strlcpy(after, kv->key, sizeof(after));
		}
	}
	return 0;
}

int mf_members_set(MfPool *pool, struct mf_members *members, uint32_t inc, const struct mf_member *member)
{
	g_autoptr(MfWop) wop = mf_wop_new();
	g_autoptr(GByteArray) bytes = NULL;
	g_autofree char *key = g_strdup_printf("%08x", inc);
	uint64_t number = g_ascii_strtoull(members->version, NULL, 16);
	g_autofree char *next = g_strdup_printf("%016" PRIx64, number + 1);
	int r = mf_member_encode(member, &bytes);

	if (r < 0)
		return r;
	mf_wop_cmpxattr(wop, MF_XATTR_VERSION, MF_CMP_EQ, members->version, strlen(members->version));
	mf_wop_setxattr(wop, MF_XATTR_VERSION, next, strlen(next));
	mf_wop_omap_set(wop, key, bytes->data, bytes->len);
	mf_wop_full_force(wop); /* a node must be able to come and go when the pool is full */
	r = mf_pool_write(pool, MF_POOL_META, MF_OID_MEMBERS, wop);
	if (r == 0) {
		g_free(members->version);
		members->version = g_steal_pointer(&next);
	}
	return r;
}

int mf_members_update(MfPool *pool, uint32_t inc, mf_member_func change, void *arg)
{
	for (int i = 0; i < UPDATE_TRIES; i++) {
		struct mf_members members;
		int r = mf_members_read(pool, &members);

		if (r < 0)
			return r;
		struct mf_member *member = g_hash_table_lookup(members.records, GUINT_TO_POINTER(inc));
		if (!member || !change(member, arg))
			r = -ESTALE;
		else
			r = mf_members_set(pool, &members, inc, member);
		mf_members_clear(&members);
		if (r != -ECANCELED)
			return r;
	}
	return -ETIMEDOUT;
}

