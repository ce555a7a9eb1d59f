/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nodes/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nodes/nodes.h"

static uint64_t digest(const char *path)
{
	unsigned char buf[8192];
	uint64_t h = 0xcbf29ce484222325u;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;

	while (fd >= 0 && (n = read(fd, buf, sizeof(buf))) > 0)
		for (ssize_t i = 0; i < n; i++)
			h = (h ^ buf[i]) * 0x100000001b3u;
	if (n < 0)
		mf_nodes_fail("%s: %s", path, strerror(errno));
	close(fd);
	return h;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void add(FILE *out, const char *path, const char *name)
{
	struct stat st;
	struct dirent **list;
	int n;

	if (lstat(path, &st) < 0)
		mf_nodes_fail("%s: %s", path, strerror(errno));
	fprintf(out, "%s ino %lx mode %o owner %u:%u links %lu size %lld mtime %lld.%09ld ctime %lld.%09ld", name,
		(unsigned long)st.st_ino, st.st_mode, st.st_uid, st.st_gid, (unsigned long)st.st_nlink,
		(long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (long long)st.st_ctim.tv_sec,
		st.st_ctim.tv_nsec);
	if (S_ISREG(st.st_mode))
		fprintf(out, " bytes %016llx", (unsigned long long)digest(path));
	fprintf(out, "\n");
	if (!S_ISDIR(st.st_mode))
		return;
	n = scandir(path, &list, NULL, by_bytes);
	if (n < 0)
		mf_nodes_fail("%s: %s", path, strerror(errno));
	for (int i = 0; i < n; i++) {
		const char *entry = list[i]->d_name;
		char *below, *shown;

		if (strcmp(entry, ".") && strcmp(entry, "..")) {
			if (asprintf(&below, "%s/%s", path, entry) < 0 || asprintf(&shown, "%s/%s", name, entry) < 0)
				mf_nodes_fail("no memory");
			add(out, below, shown);
			free(below);
			free(shown);
		}
		free(list[i]);
	}
	free(list);
}

char *mf_tree_text(const char *path)
{
	size_t size;
	char *text = NULL;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		mf_nodes_fail("no memory");
	add(out, path, ".");
	fclose(out);
	return text;
}

bool mf_tree_equal(const char *text, const char *other, const char *what)
{
	const char *line = text, *other_line = other;

	for (size_t i = 0; text[i] == other[i]; i++) {
		if (!text[i])
			return true;
		if (text[i] == '\n') {
			line = text + i + 1;
			other_line = other + i + 1;
		}
	}
	mf_tap_note("%s: %.*s", what, (int)strcspn(line, "\n"), line);
	mf_tap_note("%s: %.*s", what, (int)strcspn(other_line, "\n"), other_line);
	return false;
}
