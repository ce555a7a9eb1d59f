/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Unmounts and mounts A in the middle of a run: all that was done lasts, to the nanosecond. */
#include "diff.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct seen {
	char *path;
	struct stat st;
};

static struct list {
	struct seen *at;
	size_t n, cap;
} * filling; /* by see_one(): nftw passes nothing on */

static int see_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	if (filling->n == filling->cap) {
		filling->cap = filling->cap ? filling->cap * 2 : 256;
		filling->at = realloc(filling->at, filling->cap * sizeof(*filling->at));
		if (!filling->at)
			abort();
	}
	filling->at[filling->n++] = (struct seen){ strdup(path), *st };
	return 0;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct seen *)a)->path, ((const struct seen *)b)->path);
}

static struct list see_all(struct world *w)
{
	struct list list = { 0 };

	mf_exec_enter(w, SIDE_A);
	filling = &list;
	if (nftw(".", see_one, 32, FTW_PHYS) != 0) {
		perror("difftest: cannot walk A");
		exit(2);
	}
	qsort(list.at, list.n, sizeof(*list.at), by_path);
	return list;
}

static void forget(struct list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->at[i].path);
	free(list->at);
}

static bool compare_seen(struct world *w, const struct seen *was, const struct seen *is)
{
	const char *slash = strrchr(was->path, '/');
	bool volatile_dir = w->maildir && slash && !strcmp(slash + 1, "tmp");
	bool ok = true;

	if (was->st.st_ino != is->st.st_ino)
		ok = mf_state_differs(w, "'%s': inode %lu, then %lu", mf_show(was->path), (unsigned long)was->st.st_ino,
			(unsigned long)is->st.st_ino);
	if (!volatile_dir && !mf_ts_equal(was->st.st_mtim, is->st.st_mtim))
		ok = mf_state_differs(w, "'%s': mtime %lld.%09ld, then %lld.%09ld", mf_show(was->path),
			(long long)was->st.st_mtim.tv_sec, was->st.st_mtim.tv_nsec, (long long)is->st.st_mtim.tv_sec,
			is->st.st_mtim.tv_nsec);
	/* a message may have lost a name in tmp */
	if (!w->maildir && !mf_ts_equal(was->st.st_ctim, is->st.st_ctim))
		ok = mf_state_differs(w, "'%s': ctime %lld.%09ld, then %lld.%09ld", mf_show(was->path),
			(long long)was->st.st_ctim.tv_sec, was->st.st_ctim.tv_nsec, (long long)is->st.st_ctim.tv_sec,
			is->st.st_ctim.tv_nsec);
	if (!volatile_dir && !mf_ts_equal(was->st.st_atim, is->st.st_atim))
		ok = mf_state_differs(w, "'%s': atime %lld.%09ld, then %lld.%09ld", mf_show(was->path),
			(long long)was->st.st_atim.tv_sec, was->st.st_atim.tv_nsec, (long long)is->st.st_atim.tv_sec,
			is->st.st_atim.tv_nsec);
	return ok;
}

bool mf_remount(struct world *w)
{
	struct list was, is;
	char path[4096];
	bool ok = true;
	int status;

	was = see_all(w);
	if (w->rules == RULES_MAILFS)
		mf_rules_drop_volatile(w);
	mf_exec_stop(w);
	memset(w->slot, 0, sizeof(w->slot));
	if (fchdir(w->home) < 0 || chroot(".") < 0 || close(w->root[SIDE_A]) < 0)
		return mf_state_differs(w, "leaving A: %s", strerror(errno));
	status = system(w->remount);
	snprintf(path, sizeof(path), "%s/t", w->dir[SIDE_A]);
	w->root[SIDE_A] = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (status != 0 || w->root[SIDE_A] < 0) {
		fprintf(stderr, "difftest: the remount command: status %d; %s: %s\n", status, path, strerror(errno));
		exit(2);
	}
	w->node_root[0] = w->root[SIDE_A];
	if (mf_exec_start(w) < 0)
		exit(2);
	is = see_all(w);
	for (size_t a = 0, b = 0; ok && a < was.n && b < is.n;) {
		int c = strcmp(was.at[a].path, is.at[b].path);

		/* names that come or go are the tree comparison's business */
		if (c == 0)
			ok = compare_seen(w, &was.at[a++], &is.at[b++]);
		else if (c < 0)
			a++;
		else
			b++;
	}
	forget(&was);
	forget(&is);
	return ok;
}
