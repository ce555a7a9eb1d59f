/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/keys.h"

#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>

static const char space_letter[MF_SPACES] = { 'e', 'c', 'n', 't' };
static const char *const space_names[MF_SPACES] = { NULL, "cur", "new", "tmp" };

char *mf_oid_dir(uint64_t ino, uint32_t shard)
{
	return shard == 0 ? g_strdup_printf("d.%016" PRIx64, ino) : g_strdup_printf("d.%016" PRIx64 ".%x", ino, shard);
}

char *mf_oid_message(uint64_t ino, uint32_t stripe)
{
	return stripe == 0 ? g_strdup_printf("m.%016" PRIx64, ino) : g_strdup_printf("m.%016" PRIx64 ".%x", ino, stripe);
}

char *mf_oid_file(uint64_t ino, uint32_t stripe)
{
	return g_strdup_printf("f.%016" PRIx64 ".%x", ino, stripe);
}

char *mf_oid_node(uint32_t incarnation)
{
	return g_strdup_printf("node.%08x", incarnation);
}

char *mf_key_entry(enum mf_space space, const char *name)
{
	char *key = g_malloc(MF_KEY_PREFIX + strlen(name) + 1);

	key[0] = space_letter[space];
	key[1] = '/';
	strcpy(key + MF_KEY_PREFIX, name);
	return key;
}

bool mf_key_is_entry(const char *key, enum mf_space *ret_space)
{
	if (key[0] == '\0' || key[1] != '/')
		return false;
	for (enum mf_space space = 0; space < MF_SPACES; space++) {
		if (key[0] != space_letter[space])
			continue;
		if (mf_name_check(key + MF_KEY_PREFIX) < 0)
			return false;
		*ret_space = space;
		return true;
	}
	return false;
}

char *mf_key_pair(const char *prefix, uint64_t first, uint64_t second)
{
	return g_strdup_printf("%s%016" PRIx64 ".%016" PRIx64, prefix, first, second);
}

char *mf_key_reap(uint64_t ino, uint64_t tag)
{
	return mf_key_pair(MF_KEY_REAP, ino, tag);
}

char *mf_key_number(const char *prefix, uint64_t number)
{
	return g_strdup_printf("%s%016" PRIx64, prefix, number);
}

bool mf_key_parse_number(const char *key, const char *prefix, uint64_t *ret_number)
{
	uint64_t number = 0;

	if (!g_str_has_prefix(key, prefix))
		return false;
	key += strlen(prefix);
	for (int i = 0; i < 16; i++) {
		int digit = g_ascii_xdigit_value(key[i]);
		if (digit < 0)
			return false;
		number = number << 4 | (unsigned)digit;
	}
	if (key[16] != '\0' && key[16] != '.')
		return false;
	*ret_number = number;
	return true;
}

char *mf_xattr_interest(uint32_t incarnation)
{
	return g_strdup_printf(MF_XATTR_INTEREST "%08x", incarnation);
}

bool mf_xattr_parse_interest(const char *xattr, uint32_t *ret_incarnation)
{
	size_t prefix = strlen(MF_XATTR_INTEREST);
	uint32_t incarnation = 0;

	if (!g_str_has_prefix(xattr, MF_XATTR_INTEREST) || strlen(xattr) != prefix + 8)
		return false;
	for (const char *p = xattr + prefix; *p; p++) {
		int digit = g_ascii_xdigit_value(*p);
		if (digit < 0)
			return false;
		incarnation = incarnation << 4 | (unsigned)digit;
	}
	*ret_incarnation = incarnation;
	return true;
}

enum mf_space mf_space_of_name(const char *name)
{
	for (enum mf_space space = MF_SPACE_CUR; space < MF_SPACES; space++) {
		if (strcmp(name, space_names[space]) == 0)
			return space;
	}
	return MF_SPACE_SELF;
}

const char *mf_space_name(enum mf_space space)
{
	return space_names[space];
}

size_t mf_maildir_base_len(const char *name)
{
	const char *info = strstr(name, ":2,");

	return info ? (size_t)(info - name) : strlen(name);
}

uint32_t mf_name_hash(const char *name)
{
	size_t len = mf_maildir_base_len(name);
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (unsigned char)name[i]) * UINT64_C(0x100000001b3);
	return (uint32_t)(hash ^ hash >> 32);
}

int mf_name_check(const char *name)
{
	if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strchr(name, '/'))
		return -EINVAL;
	return strlen(name) > MF_NAME_MAX ? -ENAMETOOLONG : 0;
}
