/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An inode is the same on all nodes, to the last nanosecond; and the mtime of a directory grows with each change. */
#include "nodes/nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHANGES = 400, NAMES = 12 };

static const char *const paths[] = { ".", "M", "M/cur", "M/new", "dir", "file", "sym", "M/cur/a:2,", "M/cur/hard:2,",
	"M/new/b" };

static bool same(const struct stat *x, const struct stat *y, const char *path, int node)
{
	bool ok = x->st_ino == y->st_ino && x->st_mode == y->st_mode && x->st_nlink == y->st_nlink &&
		  x->st_uid == y->st_uid && x->st_gid == y->st_gid && x->st_size == y->st_size &&
		  x->st_mtim.tv_sec == y->st_mtim.tv_sec && x->st_mtim.tv_nsec == y->st_mtim.tv_nsec &&
		  x->st_ctim.tv_sec == y->st_ctim.tv_sec && x->st_ctim.tv_nsec == y->st_ctim.tv_nsec;

	if (!ok)
		mf_tap_note(
			"%s on nodes 0 and %d: ino %lx %lx mode %o %o nlink %lu %lu size %lld %lld mtime %lld.%09ld "
			"%lld.%09ld ctime %lld.%09ld %lld.%09ld",
			path, node, (unsigned long)x->st_ino, (unsigned long)y->st_ino, x->st_mode, y->st_mode,
			(unsigned long)x->st_nlink, (unsigned long)y->st_nlink, (long long)x->st_size,
			(long long)y->st_size, (long long)x->st_mtim.tv_sec, x->st_mtim.tv_nsec,
			(long long)y->st_mtim.tv_sec, y->st_mtim.tv_nsec, (long long)x->st_ctim.tv_sec,
			x->st_ctim.tv_nsec, (long long)y->st_ctim.tv_sec, y->st_ctim.tv_nsec);
	return ok;
}

static bool same_everywhere(const char *path)
{
	struct stat st[MF_NODES_MAX];
	bool ok = true;

	for (int node = 0; node < mf_nodes_count(); node++) {
		if (fstatat(mf_node_fd(node), path, &st[node], AT_SYMLINK_NOFOLLOW) < 0) {
			mf_tap_note("node %d: %s: %s", node, path, strerror(errno));
			return false;
		}
		ok = ok && same(&st[0], &st[node], path, node);
	}
	return ok;
}

static void make_all(int node)
{
	mf_maildir_make(mf_node_path(node, "M"));
	mkdirat(mf_node_fd(node), "dir", 0750);
	mf_node_put(node, "file", "some text");
	(void)!symlinkat("file", mf_node_fd(node), "sym");
	mf_pattern_write(mf_node_path(node, "M/tmp/a"), 7000, 1, true);
	(void)!linkat(mf_node_fd(node), "M/tmp/a", mf_node_fd(node), "M/cur/a:2,", 0);
	unlinkat(mf_node_fd(node), "M/tmp/a", 0);
	(void)!linkat(mf_node_fd(node), "M/cur/a:2,", mf_node_fd(node), "M/cur/hard:2,", 0);
	mf_pattern_write(mf_node_path(node, "M/tmp/b"), 10, 1, false);
	(void)!renameat(mf_node_fd(node), "M/tmp/b", mf_node_fd(node), "M/new/b");
}

static bool all_same(void)
{
	bool ok = true;

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		ok = same_everywhere(paths[i]) && ok;
	return ok;
}

/* What readdir says is what stat says. */
static bool listed_inodes(int node, const char *dir)
{
	int fd = openat(mf_node_fd(node), dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fdopendir(fd);
	struct dirent *e;
	struct stat st;
	bool ok = d;

	while (ok && (e = readdir(d)))
		if (strcmp(e->d_name, ".."))
			ok = fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == e->d_ino;
	if (d)
		closedir(d);
	return ok;
}

/* One change of the names in a directory, drawn by chance. */
static bool change(int node, const char *dir, unsigned *state)
{
	const char *name = mf_node_path(node, "%s/n%u", dir, mf_nodes_random(state, NAMES));
	const char *to = mf_node_path(node, "%s/n%u", dir, mf_nodes_random(state, NAMES));
	int fd;

	switch (mf_nodes_random(state, 3)) {
	case 0:
		fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd >= 0)
			close(fd);
		return fd >= 0;
	case 1:
		return strcmp(name, to) && rename(name, to) == 0;
	default:
		return unlink(name) == 0;
	}
}

static int before(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec : a->tv_nsec < b->tv_nsec;
}

static void test_growth(const char *dir)
{
	unsigned state = mf_nodes_random_start(1);
	int still = 0, back = 0, unlike = 0, done = 0;
	struct stat was, is;

	fstatat(mf_node_fd(0), dir, &was, 0);
	for (int i = 0; i < CHANGES; i++) {
		int node = mf_nodes_random(&state, mf_nodes_count()), other = mf_nodes_random(&state, mf_nodes_count());

		if (!change(node, dir, &state))
			continue;
		done++;
		if (fstatat(mf_node_fd(other), dir, &is, 0) < 0)
			break;
		back += before(&is.st_mtim, &was.st_mtim);
		still += !before(&is.st_mtim, &was.st_mtim) && !before(&was.st_mtim, &is.st_mtim);
		if (fstatat(mf_node_fd(node), dir, &was, 0) < 0)
			break;
		unlike += is.st_mtim.tv_sec != was.st_mtim.tv_sec || is.st_mtim.tv_nsec != was.st_mtim.tv_nsec;
	}
	mf_tap_ok(done > CHANGES / 4 && back == 0 && unlike == 0,
		"%s: after each of %d changes its mtime is the same on two nodes (%d not) and never goes back (%d did)",
		dir, done, unlike, back);
	if (mf_tap_is_fuse())
		mf_tap_ok(still == 0, "%s: and is another one each time (%d not)", dir, still);
	else
		mf_tap_skip("%s: its times are coarse here: %d of %d changes left it", dir, still, done);
}

int main(int argc, char **argv)
{
	int n;

	mf_nodes_start(argc, argv, "identity");
	n = mf_nodes_count();
	make_all(0);
	mf_tap_ok(all_same(), "what node 0 made is the same everywhere");
	for (int node = 0; node < n; node++) {
		bool ok = chmod(mf_node_path(node, "M/cur/a:2,"), 0640 + node) == 0 &&
			  truncate(mf_node_path(node, "file"), 100 + node) == 0 &&
			  mf_node_put(node, "dir/x", "x") == 0 && unlinkat(mf_node_fd(node), "dir/x", 0) == 0 &&
			  fchownat(mf_node_fd(node), "sym", 0, 61001 + node, AT_SYMLINK_NOFOLLOW) == 0;

		mf_tap_ok(ok && all_same(), "also after changes on node %d", node);
	}
	for (int node = 0; node < n; node++)
		mf_tap_ok(listed_inodes(node, ".") && listed_inodes(node, "M/cur"),
			"node %d lists the inodes that stat says", node);
	test_growth("dir");
	test_growth("M/cur");
	return mf_tap_done();
}
