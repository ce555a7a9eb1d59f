/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/mountinfo.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TABLE_PATH "/proc/self/mountinfo"
#define SYMLINKS_MAX 40 /* as in the kernel */

/* Field numbers of mountinfo before the optional ones. */
enum {
	FIELD_PATH = 4,
	FIELD_OPTIONAL = 6,
};

static bool octal(char c)
{
	return c >= '0' && c <= '7';
}

/* Blank, tab, newline, backslash and '#' are written as \ooo. */
static char *unescape(const char *s)
{
	char *out = g_malloc(strlen(s) + 1);
	char *o = out;

	while (*s) {
		if (s[0] == '\\' && octal(s[1]) && octal(s[2]) && octal(s[3])) {
			*o++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*o++ = *s++;
		}
	}
	*o = 0;
	return out;
}

void mf_mount_clear(struct mf_mount *mount)
{
	g_clear_pointer(&mount->path, g_free);
	g_clear_pointer(&mount->fstype, g_free);
	g_clear_pointer(&mount->source, g_free);
}

int mf_mountinfo_parse(const char *line, struct mf_mount *ret_mount)
{
	g_auto(GStrv) fields = g_strsplit(line, " ", -1);
	unsigned n = g_strv_length(fields);
	unsigned dash = FIELD_OPTIONAL;

	while (dash < n && strcmp(fields[dash], "-"))
		dash++;
	if (dash + 2 >= n)
		return -EINVAL;

	ret_mount->path = unescape(fields[FIELD_PATH]);
	ret_mount->fstype = unescape(fields[dash + 1]);
	ret_mount->source = unescape(fields[dash + 2]);
	return 0;
}

int mf_mountinfo_find(const char *table, const char *path, struct mf_mount *ret_mount)
{
	g_autofree char *text = NULL;
	bool found = false;

	if (!table) {
		if (!g_file_get_contents(TABLE_PATH, &text, NULL, NULL))
			return -EIO;
		table = text;
	}

	g_auto(GStrv) lines = g_strsplit(table, "\n", -1);

	for (unsigned i = 0; lines[i]; i++) {
		g_auto(mf_mount) mount = { NULL };

		if (mf_mountinfo_parse(lines[i], &mount) < 0 || strcmp(mount.path, path))
			continue;
		/* A later line is a later mount, which covers the earlier. */
		if (found)
			mf_mount_clear(ret_mount);
		*ret_mount = mount;
		memset(&mount, 0, sizeof mount);
		found = true;
	}
	return found;
}

static int resolve_parent(const char *path, char **ret_path)
{
	g_autofree char *parent = g_path_get_dirname(path);
	g_autofree char *name = g_path_get_basename(path);
	char *real = realpath(parent, NULL);

	if (!real)
		return -errno;
	*ret_path = g_build_filename(real, name, NULL);
	free(real);
	return 0;
}

static bool ends_in_name(const char *path)
{
	g_autofree char *name = g_path_get_basename(path);

	return strcmp(name, ".") && strcmp(name, "..") && strcmp(name, "/");
}

int mf_mountinfo_resolve(const char *path, char **ret_path)
{
	g_autofree char *work = g_strdup(path);

	if (!*work)
		return -ENOENT;

	for (int links = 0; links < SYMLINKS_MAX; links++) {
		g_auto(mf_mount) mount = { NULL };
		g_autofree char *full = NULL;
		char target[PATH_MAX];
		ssize_t n;
		int r;

		for (size_t len = strlen(work); len > 1 && work[len - 1] == '/'; len--)
			work[len - 1] = 0;

		if (!ends_in_name(work)) {
			char *real = realpath(work, NULL);

			if (!real)
				return -errno;
			*ret_path = g_strdup(real);
			free(real);
			return 0;
		}
		r = resolve_parent(work, &full);
		if (r < 0)
			return r;

		/* A mount point is no symlink, and must not be asked. */
		r = mf_mountinfo_find(NULL, full, &mount);
		if (r < 0)
			return r;
		if (r == 0)
			n = readlink(full, target, sizeof target - 1);
		if (r > 0 || n < 0) {
			*ret_path = g_steal_pointer(&full);
			return 0;
		}
		target[n] = 0;

		g_autofree char *parent = g_path_get_dirname(full);

		g_free(work);
		work = g_path_is_absolute(target) ? g_strdup(target) : g_build_filename(parent, target, NULL);
	}
	return -ELOOP;
}
