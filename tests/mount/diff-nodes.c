/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Side A on several nodes: which of them does a step, and which looks.
 *
 * A step that names paths is done on a node drawn at random; what has to do with a descriptor or a lock, on the node
 * that its actor is on, since a lock owner on two nodes is two owners. The tmp of a Maildir shows each node its own
 * names: each tmp belongs to one node, which does and sees all that happens there.
 */
#include "diff.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TMP_DIRS = 256, LINKED = 512, NOBODY = -1, SEVERAL = -2 };

/* By inodes of B. */
static struct {
	ino_t ino;
	int owner;
} tmp_dirs[TMP_DIRS];
static int n_tmp_dirs;

static ino_t linked[LINKED]; /* files that have or had a name in a tmp; the oldest go first */
static unsigned n_linked;
static ino_t several[LINKED]; /* messages that have or had several names; the oldest go first */
static unsigned n_several;
static ino_t removed; /* the tmp that this step removes */

void mf_nodes_set_up(struct world *w)
{
	char path[4096];

	w->actors = w->nodes > 3 ? w->nodes : 3;
	w->node_dir[0] = w->dir[SIDE_A];
	w->node_root[0] = w->root[SIDE_A];
	for (int i = 1; i < w->nodes; i++) {
		snprintf(path, sizeof(path), "%s/t", w->node_dir[i]);
		w->node_root[i] = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (w->node_root[i] < 0) {
			fprintf(stderr, "difftest: node %d does not show what node 0 made: %s: %s\n", i, path,
				strerror(errno));
			exit(2);
		}
	}
	if (w->nodes > 1)
		printf("# %d nodes\n", w->nodes);
}

void mf_nodes_tear_down(struct world *w)
{
	for (int i = 0; i < w->nodes; i++)
		close(w->node_root[i]);
}

void mf_nodes_view(struct world *w, int node)
{
	w->view = node;
	w->root[SIDE_A] = w->node_root[node];
}

static int owner_of_dir(struct world *w, ino_t ino)
{
	int i;

	for (i = 0; i < n_tmp_dirs; i++)
		if (tmp_dirs[i].ino == ino)
			return tmp_dirs[i].owner;
	i = n_tmp_dirs < TMP_DIRS ? n_tmp_dirs++ : 0;
	tmp_dirs[i].ino = ino;
	tmp_dirs[i].owner = mf_rand_below(w, w->nodes);
	return tmp_dirs[i].owner;
}

static void forget_dir(ino_t ino)
{
	for (int i = 0; i < n_tmp_dirs; i++)
		if (tmp_dirs[i].ino == ino)
			tmp_dirs[i--] = tmp_dirs[--n_tmp_dirs];
}

/* Adds to @owner who owns the tmps that @path has to do with; how many there are. */
static int add_owners(struct world *w, const char *path, int *owner)
{
	ino_t dir[TMPS_MAX];
	int n;

	if (!path[0] || w->rules != RULES_MAILFS)
		return 0;
	n = mf_rules_tmps(w, path, dir);
	for (int i = 0; i < n; i++) {
		int o = owner_of_dir(w, dir[i]);

		*owner = *owner == NOBODY || *owner == o ? o : SEVERAL;
	}
	return n;
}

bool mf_nodes_choose(struct world *w, struct op *op)
{
	const struct slot *slot = &w->slot[op->actor][op->slot];
	int owner = NOBODY, from, to = 0;

	removed = 0;
	if (w->nodes == 1)
		return true;
	mf_nodes_view(w, 0);
	from = add_owners(w, op->path[0] ? op->path : slot->path, &owner);
	if (op->kind == OP_RENAME || op->kind == OP_LINK)
		to = add_owners(w, op->path2, &owner);
	/* the new link is looked at through, too */
	if (op->kind == OP_SYMLINK) {
		char target[2 * PATH_CAP], parent[PATH_CAP];

		mf_parent(op->path, parent);
		snprintf(target, sizeof(target), "%s/%s", op->path2[0] == '/' ? "" : parent[0] ? parent : ".", op->path2);
		if (strlen(target) < PATH_CAP)
			add_owners(w, target, &owner);
	}
	if (owner == SEVERAL || (op->kind == OP_RENAME && to > 0 && from == 0))
		return false;
	if (op->kind == OP_RENAME && op->flags && from > 0 && to == 0)
		return false;
	if (op->kind == OP_OPEN && owner != NOBODY)
		op->actor = owner;
	if (op->kind == OP_OPEN || !op->path[0])
		op->node = op->actor % w->nodes;
	else
		op->node = owner != NOBODY ? owner : (int)mf_rand_below(w, w->nodes);
	if (op->kind == OP_RMDIR && from > 0) {
		struct stat st;

		mf_exec_enter(w, SIDE_B);
		removed = lstat(op->path, &st) == 0 ? st.st_ino : 0;
	}
	mf_nodes_view(w, owner != NOBODY ? owner : (int)mf_rand_below(w, w->nodes));
	return true;
}

int mf_nodes_viewer(struct world *w, const char *path, int other)
{
	int owner = NOBODY;

	if (w->nodes == 1)
		return 0;
	add_owners(w, path, &owner);
	return owner >= 0 ? owner : other;
}

static bool contains(const ino_t set[LINKED], unsigned n, ino_t ino)
{
	for (unsigned i = 0; i < LINKED && i < n; i++)
		if (set[i] == ino)
			return true;
	return false;
}

static bool was_linked(ino_t ino)
{
	return contains(linked, n_linked, ino);
}

static void forget_linked(ino_t ino)
{
	for (unsigned i = 0; i < LINKED && i < n_linked; i++)
		if (linked[i] == ino)
			linked[i] = 0;
}

/* Which files have a name in a tmp. */
void mf_nodes_learn(struct world *w, const struct op *op)
{
	const char *path = op->kind == OP_LINK || op->kind == OP_RENAME ? op->path2 : op->path;
	int owner = NOBODY;
	struct stat st;

	if (w->nodes == 1 || w->rules != RULES_MAILFS)
		return;
	if (op->kind == OP_RMDIR && removed)
		forget_dir(removed);
	if (op->kind != OP_LINK && op->kind != OP_RENAME && op->kind != OP_MKNOD && op->kind != OP_OPEN)
		return;
	if (op->kind == OP_LINK && mf_rules_is_message(w, op->path2, &st) && !contains(several, n_several, st.st_ino))
		several[n_several++ % LINKED] = st.st_ino;
	for (int i = 0; i < 2; i++, path = op->path) {
		if (add_owners(w, path, &owner) == 0)
			continue;
		mf_exec_enter(w, SIDE_B);
		if (stat(path, &st) == 0 && S_ISREG(st.st_mode) && !was_linked(st.st_ino))
			linked[n_linked++ % LINKED] = st.st_ino;
	}
}

bool mf_nodes_differ_in_links(struct world *w, const struct stat *b)
{
	return w->nodes > 1 && S_ISREG(b->st_mode) &&
	       (was_linked(b->st_ino) || contains(several, n_several, b->st_ino));
}

/* One path on all nodes. */
static bool compare_path(struct world *w, const char *path, bool follow, bool loose)
{
	struct stat st[NNODES];
	bool ok = true;

	for (int i = 0; i < w->nodes; i++) {
		mf_nodes_view(w, i);
		mf_exec_enter(w, SIDE_A);
		if (fstatat(AT_FDCWD, path, &st[i], follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0)
			return mf_state_differs(w, "'%s' on node %d: %s", mf_show(path), i, strerror(errno));
		if (st[i].st_ino != st[0].st_ino || st[i].st_mode != st[0].st_mode || st[i].st_size != st[0].st_size ||
			st[i].st_uid != st[0].st_uid || st[i].st_gid != st[0].st_gid)
			ok = mf_state_differs(w,
				"'%s' on nodes 0 and %d: inode %lu and %lu, mode %o and %o, size %lld and %lld, "
				"owner %u:%u and %u:%u",
				mf_show(path), i, (unsigned long)st[0].st_ino, (unsigned long)st[i].st_ino,
				st[0].st_mode, st[i].st_mode, (long long)st[0].st_size, (long long)st[i].st_size,
				st[0].st_uid, st[0].st_gid, st[i].st_uid, st[i].st_gid);
		if (!mf_ts_equal(st[i].st_mtim, st[0].st_mtim) ||
			(!loose && (!mf_ts_equal(st[i].st_ctim, st[0].st_ctim) || st[i].st_nlink != st[0].st_nlink)))
			ok = mf_state_differs(w,
				"'%s' on nodes 0 and %d: mtime %lld.%09ld and %lld.%09ld, ctime %lld.%09ld and "
				"%lld.%09ld, "
				"nlink %lu and %lu",
				mf_show(path), i, (long long)st[0].st_mtim.tv_sec, st[0].st_mtim.tv_nsec,
				(long long)st[i].st_mtim.tv_sec, st[i].st_mtim.tv_nsec, (long long)st[0].st_ctim.tv_sec,
				st[0].st_ctim.tv_nsec, (long long)st[i].st_ctim.tv_sec, st[i].st_ctim.tv_nsec,
				(unsigned long)st[0].st_nlink, (unsigned long)st[i].st_nlink);
	}
	return ok;
}

bool mf_nodes_compare(struct world *w, const struct touched *t)
{
	int view = w->view, owner;
	bool ok = true;

	if (w->nodes == 1)
		return true;
	for (int i = 0; i < t->n && ok; i++) {
		const struct stat *b = &t->at[i].st[SIDE_B];

		owner = NOBODY;
		if (t->at[i].err[SIDE_B] || add_owners(w, t->at[i].path, &owner) > 0)
			continue;
		/* its only name is this one */
		if (S_ISREG(b->st_mode) && b->st_nlink == 1)
			forget_linked(b->st_ino);
		ok = compare_path(w, t->at[i].path, t->at[i].follow, mf_nodes_differ_in_links(w, b));
	}
	mf_nodes_view(w, view);
	return ok;
}
