/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Compares what lies on both sides. Runs as root in this process, in the chroot of one side after the other. */
#include "diff.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

bool mf_state_differs(struct world *w, const char *fmt, ...)
{
	size_t at = strlen(w->why);
	char line[1000];
	va_list ap;

	/* one path is looked at in more than one way */
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (!strstr(w->why, line) && at + strlen(line) + 10 < sizeof(w->why))
		sprintf(w->why + at, "    %s\n", line);
	return false;
}

const char *mf_show(const char *path)
{
	static char out[4][160];
	static unsigned next;
	char *o = out[next++ % 4], *start = o;

	for (; *path && o - start < 100; path++) {
		unsigned char c = *path;

		if (c > ' ' && c < 127 && c != '\\' && c != '\'')
			*o++ = c;
		else
			o += sprintf(o, "\\x%02x", c);
	}
	if (*path)
		o += sprintf(o, "...(+%zu)", strlen(path));
	*o = 0;
	return start;
}

void mf_parent(const char *path, char *ret)
{
	size_t n = strlen(path);

	while (n > 1 && path[n - 1] == '/')
		n--;
	while (n > 0 && path[n - 1] != '/')
		n--;
	while (n > 1 && path[n - 1] == '/')
		n--;
	if (n == 0) {
		strcpy(ret, ".");
		return;
	}
	memmove(ret, path, n);
	ret[n] = 0;
}

static void touch(struct touched *t, const char *path, bool follow)
{
	if (t->n >= (int)(sizeof(t->at) / sizeof(t->at[0])))
		return;
	for (int i = 0; i < t->n; i++)
		if (t->at[i].follow == follow && !strcmp(t->at[i].path, path))
			return;
	snprintf(t->at[t->n].path, PATH_CAP, "%s", path);
	t->at[t->n].follow = follow;
	t->n++;
}

static void touch_all(struct touched *t, const char *path)
{
	char parent[PATH_CAP];

	touch(t, path, false);
	touch(t, path, true);
	mf_parent(path, parent);
	touch(t, parent, true);
}

void mf_state_touch(struct world *w, const struct op *op, struct touched *t)
{
	const struct slot *s = &w->slot[op->actor][op->slot];

	t->n = 0;
	if (op->path[0])
		touch_all(t, op->path);
	if (op->path2[0] && op->kind != OP_SYMLINK)
		touch_all(t, op->path2);
	if (!op->path[0] && s->open && s->path[0])
		touch(t, s->path, false);
	mf_state_restat(w, t);
}

void mf_state_restat(struct world *w, struct touched *t)
{
	for (int side = 0; side < NSIDES; side++) {
		mf_exec_enter(w, side);
		for (int i = 0; i < t->n; i++) {
			struct stat *st = &t->at[i].st[side];

			memset(st, 0, sizeof(*st));
			t->at[i].err[side] =
				(t->at[i].follow ? stat(t->at[i].path, st) : lstat(t->at[i].path, st)) < 0 ? errno : 0;
		}
	}
}

bool mf_state_compare_stat(struct world *w, const char *what, const struct stat *a, const struct stat *b)
{
	bool ok = true;

	if (a->st_mode != b->st_mode)
		ok = mf_state_differs(w, "%s: mode %o and %o", what, a->st_mode, b->st_mode);
	if (a->st_uid != b->st_uid || a->st_gid != b->st_gid)
		ok = mf_state_differs(w, "%s: owner %u:%u and %u:%u", what, a->st_uid, a->st_gid, b->st_uid, b->st_gid);
	if (!S_ISDIR(b->st_mode) && a->st_size != b->st_size)
		ok = mf_state_differs(w, "%s: size %lld and %lld", what, (long long)a->st_size, (long long)b->st_size);
	if (a->st_nlink != b->st_nlink && !mf_nodes_differ_in_links(w, b))
		ok = mf_state_differs(
			w, "%s: nlink %lu and %lu", what, (unsigned long)a->st_nlink, (unsigned long)b->st_nlink);
	if (a->st_rdev != b->st_rdev)
		ok = mf_state_differs(
			w, "%s: rdev %lx and %lx", what, (unsigned long)a->st_rdev, (unsigned long)b->st_rdev);
	if (a->st_blksize <= 0 || a->st_blocks < 0)
		ok = mf_state_differs(
			w, "%s: st_blksize %ld st_blocks %ld", what, (long)a->st_blksize, (long)a->st_blocks);
	return ok;
}

struct text {
	char *p;
	size_t n, cap;
};

static void append(struct text *t, const void *p, size_t n)
{
	if (t->n + n + 1 > t->cap) {
		t->cap = (t->n + n + 1) * 2;
		t->p = realloc(t->p, t->cap);
		if (!t->p)
			abort();
	}
	memcpy(t->p + t->n, p, n);
	t->n += n;
	t->p[t->n] = 0;
}

static int compare_strings(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

struct listing {
	char **name; /* type, then the name */
	size_t n;
};

static int list_dir(const char *path, struct listing *l)
{
	DIR *d = opendir(path);
	struct dirent *e;
	size_t cap = 0;
	int err;

	l->name = NULL;
	l->n = 0;
	if (!d)
		return errno;
	while (errno = 0, (e = readdir(d))) {
		if (l->n == cap) {
			cap = cap ? cap * 2 : 64;
			l->name = realloc(l->name, cap * sizeof(*l->name));
			if (!l->name)
				abort();
		}
		l->name[l->n] = malloc(strlen(e->d_name) + 2);
		l->name[l->n][0] = 'A' + e->d_type;
		strcpy(l->name[l->n++] + 1, e->d_name);
	}
	err = errno;
	closedir(d);
	if (l->n)
		qsort(l->name, l->n, sizeof(*l->name), compare_strings);
	return err;
}

static void free_listing(struct listing *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->name[i]);
	free(l->name);
}

static bool compare_listing(struct world *w, const char *path)
{
	struct listing l[NSIDES];
	int err[NSIDES];
	bool ok = true;
	size_t a = 0, b = 0;

	for (int side = 0; side < NSIDES; side++) {
		mf_exec_enter(w, side);
		err[side] = list_dir(path, &l[side]);
	}
	if (err[0] != err[1])
		ok = mf_state_differs(
			w, "listing of '%s': %s and %s", mf_show(path), strerror(err[0]), strerror(err[1]));
	while (a < l[0].n || b < l[1].n) {
		int c = a >= l[0].n ? 1 : b >= l[1].n ? -1 : strcmp(l[0].name[a], l[1].name[b]);

		if (c == 0) {
			a++;
			b++;
		} else if (c < 0) {
			ok = mf_state_differs(w, "'%s' lists only in A: '%s' (type %d)", mf_show(path),
				mf_show(l[0].name[a] + 1), l[0].name[a][0] - 'A');
			a++;
		} else {
			ok = mf_state_differs(w, "'%s' lists only in B: '%s' (type %d)", mf_show(path),
				mf_show(l[1].name[b] + 1), l[1].name[b][0] - 'A');
			b++;
		}
	}
	free_listing(&l[0]);
	free_listing(&l[1]);
	return ok;
}

static bool compare_bytes(struct world *w, const char *what, const int fd[NSIDES])
{
	static unsigned char buf[NSIDES][65536];
	off_t at = 0;

	for (;;) {
		ssize_t n[NSIDES];

		for (int side = 0; side < NSIDES; side++) {
			n[side] = pread(fd[side], buf[side], sizeof(buf[side]), at);
			if (n[side] < 0)
				return mf_state_differs(w, "%s: %c: read at %lld: %s", what, 'A' + side, (long long)at,
					strerror(errno));
		}
		if (n[0] != n[1])
			return mf_state_differs(
				w, "%s: read at %lld: %zd and %zd bytes", what, (long long)at, n[0], n[1]);
		if (n[0] == 0)
			return true;
		for (ssize_t i = 0; i < n[0]; i++)
			if (buf[0][i] != buf[1][i])
				return mf_state_differs(w, "%s: byte %lld: %02x and %02x", what, (long long)(at + i),
					buf[0][i], buf[1][i]);
		at += n[0];
	}
}

static bool compare_content(struct world *w, const char *path)
{
	char what[800];
	int fd[NSIDES];
	bool ok = true;

	snprintf(what, sizeof(what), "content of '%s'", mf_show(path));
	for (int side = 0; side < NSIDES; side++) {
		mf_exec_enter(w, side);
		fd[side] = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
		if (fd[side] < 0)
			ok = mf_state_differs(w, "%s: %c: open: %s", what, 'A' + side, strerror(errno));
	}
	if (ok)
		ok = compare_bytes(w, what, fd);
	for (int side = 0; side < NSIDES; side++)
		if (fd[side] >= 0)
			close(fd[side]);
	return ok;
}

/* name=value of every user.* attribute, sorted */
static int collect_xattrs(const char *path, struct text *t)
{
	char names[8192], value[4096], *sorted[256];
	ssize_t n = llistxattr(path, names, sizeof(names));
	size_t count = 0;

	if (n < 0)
		return errno;
	for (char *p = names; p < names + n; p += strlen(p) + 1)
		if (!strncmp(p, "user.", 5) && count < 256)
			sorted[count++] = p;
	if (count)
		qsort(sorted, count, sizeof(*sorted), compare_strings);
	for (size_t i = 0; i < count; i++) {
		ssize_t len = lgetxattr(path, sorted[i], value, sizeof(value));

		if (len < 0)
			return errno;
		append(t, sorted[i], strlen(sorted[i]));
		append(t, "=", 1);
		for (ssize_t k = 0; k < len; k++) {
			char hex[3];

			sprintf(hex, "%02x", (unsigned char)value[k]);
			append(t, hex, 2);
		}
		append(t, " ", 1);
	}
	return 0;
}

static bool compare_xattrs(struct world *w, const char *path)
{
	struct text t[NSIDES] = { { 0 } };
	int err[NSIDES];
	bool ok = true;

	for (int side = 0; side < NSIDES; side++) {
		mf_exec_enter(w, side);
		err[side] = collect_xattrs(path, &t[side]);
		append(&t[side], "", 0);
	}
	if (err[0] != err[1])
		ok = mf_state_differs(
			w, "xattrs of '%s': %s and %s", mf_show(path), strerror(err[0]), strerror(err[1]));
	else if (strcmp(t[0].p, t[1].p))
		ok = mf_state_differs(w, "xattrs of '%s': [%.300s] and [%.300s]", mf_show(path), t[0].p, t[1].p);
	free(t[0].p);
	free(t[1].p);
	return ok;
}

static bool compare_links(struct world *w, const char *path)
{
	char text[NSIDES][PATH_CAP];
	ssize_t n[NSIDES];

	for (int side = 0; side < NSIDES; side++) {
		mf_exec_enter(w, side);
		n[side] = readlink(path, text[side], sizeof(text[side]) - 1);
		if (n[side] < 0)
			return mf_state_differs(w, "readlink '%s': %c: %s", mf_show(path), 'A' + side, strerror(errno));
		text[side][n[side]] = 0;
	}
	if (strcmp(text[0], text[1]))
		return mf_state_differs(
			w, "'%s' points to '%s' and '%s'", mf_show(path), mf_show(text[0]), mf_show(text[1]));
	return true;
}

bool mf_state_compare_path(struct world *w, const char *path)
{
	struct stat st[NSIDES] = { 0 };
	int err[NSIDES];
	char what[800];
	bool ok;

	for (int side = 0; side < NSIDES; side++) {
		mf_exec_enter(w, side);
		err[side] = lstat(path, &st[side]) < 0 ? errno : 0;
	}
	snprintf(what, sizeof(what), "'%s'", mf_show(path));
	if (err[0] != err[1])
		return mf_state_differs(w, "%s: lstat: %s and %s", what, strerror(err[0]), strerror(err[1]));
	if (err[0])
		return true;
	ok = mf_state_compare_stat(w, what, &st[0], &st[1]);
	if ((st[0].st_mode & S_IFMT) != (st[1].st_mode & S_IFMT))
		return false;
	switch (st[1].st_mode & S_IFMT) {
	case S_IFDIR:
		ok = compare_listing(w, path) && ok;
		break;
	case S_IFREG:
		ok = compare_content(w, path) && ok;
		break;
	case S_IFLNK:
		ok = compare_links(w, path) && ok;
		break;
	}
	if (w->use.user_xattr)
		ok = compare_xattrs(w, path) && ok;
	return ok;
}

/* A file that is open and may have no name any more: what the actor can still read through it. */
bool mf_state_compare_fd(struct world *w, const struct op *op)
{
	struct op q = { .kind = OP_PREAD, .actor = op->actor, .slot = op->slot };
	struct result r[NSIDES];
	off_t size = 0;

	do {
		q.len = 65536;
		for (int side = 0; side < NSIDES; side++)
			mf_exec_op(w, side, &q, &r[side]);
		if (r[0].err != r[1].err)
			return mf_state_differs(w, "pread(slot %d, %lld): %s and %s", q.slot, (long long)q.off,
				strerror(r[0].err), strerror(r[1].err));
		if (r[0].err)
			return true;
		if (r[0].ret != r[1].ret || r[0].hash != r[1].hash)
			return mf_state_differs(w, "pread(slot %d, %lld): %lld and %lld bytes%s", q.slot,
				(long long)q.off, (long long)r[0].ret, (long long)r[1].ret,
				r[0].hash != r[1].hash ? ", not the same" : "");
		size = r[1].fd_post.st_size;
		q.off += r[1].ret;
	} while (r[1].ret > 0 && q.off < size);
	return true;
}

/* ---- the whole tree ---- */

struct pairs {
	struct pair {
		ino_t a, b;
	} * p;
	size_t n, cap;
};

static int compare_pair_a(const void *x, const void *y)
{
	const struct pair *p = x, *q = y;

	return p->a < q->a ? -1 : p->a > q->a ? 1 : p->b < q->b ? -1 : p->b > q->b;
}

static int compare_pair_b(const void *x, const void *y)
{
	const struct pair *p = x, *q = y;

	return p->b < q->b ? -1 : p->b > q->b ? 1 : p->a < q->a ? -1 : p->a > q->a;
}

static bool walk(struct world *w, const char *path, struct pairs *pairs)
{
	struct stat st[NSIDES] = { 0 };
	struct listing l;
	int node = w->view;
	bool ok;

	mf_nodes_view(w, mf_nodes_viewer(w, path, node));
	ok = mf_state_compare_path(w, path);
	w->entries++;
	for (int side = 0; side < NSIDES; side++) {
		mf_exec_enter(w, side);
		if (lstat(path, &st[side]) < 0)
			return false;
	}
	if (pairs->n == pairs->cap) {
		pairs->cap = pairs->cap ? pairs->cap * 2 : 256;
		pairs->p = realloc(pairs->p, pairs->cap * sizeof(*pairs->p));
		if (!pairs->p)
			abort();
	}
	pairs->p[pairs->n++] = (struct pair){ st[0].st_ino, st[1].st_ino };
	mf_exec_enter(w, SIDE_B);
	mf_nodes_view(w, node);
	if (!ok || !S_ISDIR(st[1].st_mode))
		return ok;
	if (list_dir(path, &l) != 0)
		return mf_state_differs(w, "cannot list '%s' in B", mf_show(path));
	for (size_t i = 0; i < l.n && ok; i++) {
		char sub[PATH_CAP + 300];
		const char *name = l.name[i] + 1;

		if (!strcmp(name, ".") || !strcmp(name, ".."))
			continue;
		snprintf(sub, sizeof(sub), "%s/%s", path, name);
		if (strlen(sub) >= PATH_CAP)
			continue;
		ok = walk(w, sub, pairs);
	}
	free_listing(&l);
	return ok;
}

/* readdir's d_ino is what stat says */
static bool check_dirent_inodes(struct world *w, const char *path)
{
	DIR *d;
	struct dirent *e;
	bool ok = true;

	mf_exec_enter(w, SIDE_A);
	d = opendir(path);
	if (!d)
		return mf_state_differs(w, "A: opendir '%s': %s", mf_show(path), strerror(errno));
	while ((e = readdir(d))) {
		struct stat st;

		if (!strcmp(e->d_name, ".."))
			continue;
		if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino != e->d_ino)
			ok = mf_state_differs(w, "A: '%s' lists '%s' with inode %lu, stat says %lu", mf_show(path),
				mf_show(e->d_name), (unsigned long)e->d_ino, (unsigned long)st.st_ino);
	}
	closedir(d);
	return ok;
}

static bool compare_tree_on(struct world *w, int node, struct pairs *pairs)
{
	bool ok;

	w->entries = 0;
	mf_nodes_view(w, node);
	ok = walk(w, ".", pairs);
	return ok && check_dirent_inodes(w, ".");
}

/* Both walks went by the names of B. */
static bool same_inodes(struct world *w, int node, const struct pairs *first, const struct pairs *other)
{
	bool ok = first->n == other->n;

	for (size_t i = 0; ok && i < first->n; i++)
		ok = first->p[i].a == other->p[i].a;
	return ok || mf_state_differs(w, "nodes 0 and %d number their inodes differently", node);
}

bool mf_state_compare_tree(struct world *w)
{
	struct pairs pairs = { 0 };
	bool ok = compare_tree_on(w, 0, &pairs);

	for (int node = 1; ok && node < w->nodes; node++) {
		struct pairs other = { 0 };

		ok = compare_tree_on(w, node, &other) && same_inodes(w, node, &pairs, &other);
		if (!ok)
			mf_state_differs(w, "as node %d shows it", node);
		free(other.p);
	}
	mf_nodes_view(w, 0);
	/* two names are one file on A exactly when they are on B */
	if (ok) {
		qsort(pairs.p, pairs.n, sizeof(*pairs.p), compare_pair_a);
		for (size_t i = 1; i < pairs.n; i++)
			if (pairs.p[i].a == pairs.p[i - 1].a && pairs.p[i].b != pairs.p[i - 1].b)
				ok = mf_state_differs(
					w, "inode %lu of A is two files in B", (unsigned long)pairs.p[i].a);
		qsort(pairs.p, pairs.n, sizeof(*pairs.p), compare_pair_b);
		for (size_t i = 1; i < pairs.n; i++)
			if (pairs.p[i].b == pairs.p[i - 1].b && pairs.p[i].a != pairs.p[i - 1].a)
				ok = mf_state_differs(w, "one file of B is inodes %lu and %lu in A",
					(unsigned long)pairs.p[i].a, (unsigned long)pairs.p[i - 1].a);
	}
	free(pairs.p);
	return ok;
}
