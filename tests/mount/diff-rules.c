/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The documented differences of mailfs from a local filesystem, as rules that name the one errno mailfs must answer.
 *
 * Where a rule applies, the step is tried on B first (or something that checks the same permissions): if B refuses, A
 * must refuse with B's errno; if B would do it, A must answer the rule's errno and have changed nothing, and B is
 * put back. What is promised nowhere is left out (`skip`), and counted.
 *
 *  - link(2): of a symlink, FIFO, socket: EOPNOTSUPP; of a plain file into another directory, or across the border of
 *    the message directories: EXDEV.
 *  - rename(2): of a Maildir's cur, new, tmp: EXDEV; of a message out of, or a plain file into, the message
 *    directories: EXDEV; of a plain file with several links into another directory: EXDEV (left out once they are
 *    one again).
 *  - mknod(2) of anything but a plain file: EOPNOTSUPP.
 *  - in a Maildir's tmp: mkdir, symlink: EOPNOTSUPP.
 *  - a published message: open for writing, truncate, and writes through an older descriptor: EPERM. A file created
 *    in cur or new is written by its creator alone until it closes it.
 *  - xattrs other than user.*: EOPNOTSUPP.
 *
 * On several nodes (diff-nodes.c):
 *  - a Maildir's tmp shows each node its own names only: what concerns a tmp is done and looked at on one node, another
 *    one for each tmp.
 *  - a name in a tmp counts in st_nlink on its own node, and changes ctime there: both are not compared meanwhile.
 *  - attributes of a message with several names lie with its bytes, which no lease guards. To write its ctime there with
 *    each rename, link and unlink would cost more than it is worth; and st_nlink counts the references to the bytes, which
 *    are put after the commit that drops the name. Neither is compared once there were several names.
 *  - a published message that is renamed into a tmp has left the other nodes: left out.
 *  - l_pid of a lock of another node is any number.
 *  - flock of a directory holds on its own node only: the kernel does not tell FUSE of it.
 */
#include "diff.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum space { SPACE_PLAIN, SPACE_CUR, SPACE_NEW, SPACE_TMP };

/* Inodes of B, a few: linear. */
struct inodes {
	ino_t *ino;
	size_t n, cap;
};

static struct inodes published;	  /* messages */
static struct inodes once_linked; /* plain files that have or had several names */

static bool contains(const struct inodes *set, ino_t ino)
{
	for (size_t i = 0; i < set->n; i++)
		if (set->ino[i] == ino)
			return true;
	return false;
}

static void put(struct inodes *set, ino_t ino, bool in)
{
	for (size_t i = 0; i < set->n; i++)
		if (set->ino[i] == ino) {
			if (!in)
				set->ino[i] = set->ino[--set->n];
			return;
		}
	if (!in)
		return;
	if (set->n == set->cap) {
		set->cap = set->cap ? set->cap * 2 : 64;
		set->ino = realloc(set->ino, set->cap * sizeof(*set->ino));
		if (!set->ino)
			abort();
	}
	set->ino[set->n++] = ino;
}

static bool is_published(ino_t ino)
{
	return contains(&published, ino);
}

static const char *base_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static bool reserved(const char *name)
{
	return !strcmp(name, "cur") || !strcmp(name, "new") || !strcmp(name, "tmp");
}

/* What kind of directory the resolved absolute path @dir is. In B's chroot. */
static enum space space_of_dir(const char *dir)
{
	const char *name = base_of(dir);
	char other[PATH_MAX + 8];
	struct stat st;
	int keep = name - dir;

	if (!reserved(name))
		return SPACE_PLAIN;
	snprintf(other, sizeof(other), "%.*scur", keep, dir);
	if (lstat(other, &st) < 0 || !S_ISDIR(st.st_mode))
		return SPACE_PLAIN;
	snprintf(other, sizeof(other), "%.*snew", keep, dir);
	if (lstat(other, &st) < 0 || !S_ISDIR(st.st_mode))
		return SPACE_PLAIN;
	return !strcmp(name, "cur") ? SPACE_CUR : !strcmp(name, "new") ? SPACE_NEW : SPACE_TMP;
}

struct place {
	bool known;	  /* the parent exists */
	bool exists;	  /* and so does the name */
	enum space space; /* of the parent */
	ino_t dir;
	const char *name;
	struct stat st; /* lstat */
};

static void locate(const char *path, struct place *p)
{
	char parent[PATH_CAP], real[PATH_MAX];
	struct stat st;

	memset(p, 0, sizeof(*p));
	mf_parent(path, parent);
	p->name = base_of(path);
	if (!realpath(parent, real) || stat(real, &st) < 0)
		return;
	p->known = true;
	p->dir = st.st_ino;
	p->space = space_of_dir(real);
	p->exists = lstat(path, &p->st) == 0;
}

static bool plain_spelling(const char *path)
{
	const char *name = base_of(path);

	return name[0] && strcmp(name, ".") && strcmp(name, "..");
}

static bool has_direct_writer(struct world *w, ino_t ino)
{
	for (int a = 0; a < NACTORS; a++)
		for (int i = 0; i < NSLOTS; i++)
			if (w->slot[a][i].open && w->slot[a][i].direct_writer && w->slot[a][i].ino_b == ino)
				return true;
	return false;
}

static void judge_link(struct world *w, const struct op *op, struct ruling *r)
{
	struct place s, d;
	int i = 0;

	locate(op->path, &s);
	locate(op->path2, &d);
	if (!s.known || !d.known || !s.exists || S_ISDIR(s.st.st_mode))
		return;
	if (d.exists) /* EEXIST comes first everywhere */
		return;
	if (has_direct_writer(w, s.st.st_ino)) {
		r->skip = true;
		return;
	}
	if (!S_ISREG(s.st.st_mode))
		r->err[i++] = EOPNOTSUPP;
	if ((s.space != SPACE_PLAIN) != (d.space != SPACE_PLAIN) || (s.space == SPACE_PLAIN && s.dir != d.dir))
		r->err[i++] = EXDEV;
}

/* One direction of a rename: 0, or what forbids it. */
static int judge_move(const struct place *s, const struct place *d, bool *skip)
{
	if (S_ISDIR(s->st.st_mode)) {
		if (reserved(s->name) || reserved(d->name)) {
			/* the directories of a Maildir stay; what becomes one by its new name is not promised */
			if (reserved(s->name))
				return EXDEV;
			*skip = true;
		}
		if (d->space != SPACE_PLAIN)
			*skip = true;
		return 0;
	}
	if (!S_ISREG(s->st.st_mode)) {
		if (s->space != SPACE_PLAIN || d->space != SPACE_PLAIN)
			*skip = true;
		return 0;
	}
	if ((s->space != SPACE_PLAIN) != (d->space != SPACE_PLAIN))
		return EXDEV;
	if (s->space == SPACE_PLAIN && s->dir != d->dir && s->st.st_nlink > 1)
		return EXDEV;
	if (s->space == SPACE_PLAIN && s->dir != d->dir && contains(&once_linked, s->st.st_ino))
		*skip = true;
	return 0;
}

static void judge_rename(struct world *w, const struct op *op, struct ruling *r)
{
	struct place s, d;
	int err;

	locate(op->path, &s);
	locate(op->path2, &d);
	if (!s.known || !d.known || !s.exists)
		return;
	if ((s.space != SPACE_PLAIN || d.space != SPACE_PLAIN || S_ISDIR(s.st.st_mode)) &&
		(!plain_spelling(op->path) || !plain_spelling(op->path2))) {
		r->skip = true;
		return;
	}
	if (d.exists && d.st.st_ino == s.st.st_ino) /* two names of one file: nothing happens */
		return;
	if (has_direct_writer(w, s.st.st_ino) || (d.exists && has_direct_writer(w, d.st.st_ino))) {
		r->skip = true;
		return;
	}
	err = judge_move(&s, &d, &r->skip);
	if (op->flags & RENAME_EXCHANGE) {
		int back = 0;

		if (!d.exists)
			return;
		back = judge_move(&d, &s, &r->skip);
		err = err ? err : back;
		/* Only one of the two is published: what that makes of the other is not promised. Nor, in a tmp, which
		 * of the names are the node's alone; one such is not exchanged with one that is not. */
		if (s.space != d.space ||
			(s.space == SPACE_TMP && (is_published(s.st.st_ino) || is_published(d.st.st_ino))))
			r->skip = true;
	}
	if (err && d.exists && S_ISDIR(d.st.st_mode))
		r->skip = true; /* cannot be put back */
	r->err[0] = err;
}

static bool wants_write(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
}

static void judge_open(struct world *w, const struct op *op, struct ruling *r)
{
	struct stat st;

	if (op->kind == OP_OPEN && !wants_write(op->flags))
		return;
	if (stat(op->path, &st) < 0 || !S_ISREG(st.st_mode) || !is_published(st.st_ino))
		return;
	if (has_direct_writer(w, st.st_ino)) {
		r->skip = true;
		return;
	}
	r->err[0] = EPERM;
	r->dry.kind = OP_OPEN;
	if (op->kind == OP_TRUNCATE) {
		r->dry.flags = O_WRONLY;
		if (op->len < 0) /* EINVAL before anything is looked up */
			r->err[0] = 0;
	} else if (op->flags & O_TRUNC) {
		r->dry.flags = (op->flags & ~(O_TRUNC | O_ACCMODE)) |
			       ((op->flags & O_ACCMODE) == O_RDONLY ? O_RDWR : op->flags & O_ACCMODE);
	}
}

static void judge_create(const struct op *op, struct ruling *r)
{
	struct place p;

	locate(op->path, &p);
	if (!p.known)
		return;
	if (p.exists)
		return;
	if (op->kind == OP_MKNOD) {
		r->err[0] = S_ISREG(op->mode) ? 0 : EOPNOTSUPP;
		return;
	}
	if (p.space == SPACE_PLAIN)
		return;
	if (p.space != SPACE_TMP)
		r->skip = true;
	else
		r->err[0] = EOPNOTSUPP;
}

/* What half a Maildir is, nobody promises: its directories go together. */
static void judge_rmdir(const struct op *op, struct ruling *r)
{
	struct place p;

	if (op->together)
		return;
	locate(op->path, &p);
	r->skip = !plain_spelling(op->path) || (p.known && reserved(p.name));
}

static void judge_fd(struct world *w, const struct op *op, struct ruling *r)
{
	const struct slot *s = &w->slot[op->actor][op->slot];

	if (!s->open || !S_ISREG(s->type) || s->accmode == O_RDONLY || !is_published(s->ino_b) || s->direct_writer)
		return;
	if (op->len <= 0 && op->kind != OP_FTRUNCATE)
		return;
	if (op->kind == OP_FTRUNCATE && op->len < 0)
		return;
	if ((op->kind == OP_PWRITE || op->kind == OP_FALLOCATE) && op->off < 0)
		return;
	r->err[0] = EPERM;
	r->no_b = true;
	if (op->cred != 0) {
		struct op q = { .kind = OP_SNAPFD, .actor = op->actor, .slot = op->slot };
		struct result now;

		/* the kernel takes the bits away before it asks for the write */
		mf_exec_op(w, SIDE_B, &q, &now);
		r->skip = now.fd_post.st_mode & (S_ISUID | S_ISGID);
		mf_exec_enter(w, SIDE_B);
	}
}

void mf_rules_judge(struct world *w, const struct op *op, struct ruling *r)
{
	memset(r, 0, sizeof(*r));
	r->dry = *op;
	r->dry.slot = op->kind == OP_OPEN || op->kind == OP_TRUNCATE ? SLOT_DRY : op->slot;
	if (w->rules != RULES_MAILFS)
		return;
	mf_exec_enter(w, SIDE_B);
	switch (op->kind) {
	case OP_LINK:
		judge_link(w, op, r);
		break;
	case OP_RENAME:
		judge_rename(w, op, r);
		break;
	case OP_OPEN:
	case OP_TRUNCATE:
		judge_open(w, op, r);
		break;
	case OP_MKNOD:
	case OP_MKDIR:
	case OP_SYMLINK:
		judge_create(op, r);
		break;
	case OP_RMDIR:
		judge_rmdir(op, r);
		break;
	case OP_WRITE:
	case OP_PWRITE:
	case OP_FTRUNCATE:
	case OP_FALLOCATE:
		judge_fd(w, op, r);
		break;
	case OP_SETXATTR:
	case OP_GETXATTR:
	case OP_REMOVEXATTR:
		if (strncmp(op->name, "user.", 5)) {
			r->err[0] = EOPNOTSUPP;
			r->dry.kind = OP_LSTAT;
		}
		break;
	case OP_FSETXATTR:
	case OP_FGETXATTR:
		if (strncmp(op->name, "user.", 5) && w->slot[op->actor][op->slot].open) {
			r->err[0] = EOPNOTSUPP;
			r->no_b = true;
		}
		break;
	default:
		break;
	}
}

static int undo_dir[2] = { -1, -1 }; /* the parents, by descriptor: a rename may replace a link that the path crosses */

/* A rename that replaces a name can be put back only if the victim has one more name. */
void mf_rules_prepare_undo(struct world *w, const struct op *dry)
{
	char parent[PATH_CAP];

	mf_exec_enter(w, SIDE_B);
	mf_parent(dry->path, parent);
	undo_dir[0] = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
	mf_parent(dry->path2, parent);
	undo_dir[1] = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dry->kind == OP_RENAME && !(dry->flags & RENAME_EXCHANGE))
		(void)!linkat(AT_FDCWD, dry->path2, w->backup, "victim", 0);
}

void mf_rules_forget_undo(struct world *w)
{
	unlinkat(w->backup, "victim", 0);
	for (int i = 0; i < 2; i++) {
		if (undo_dir[i] >= 0)
			close(undo_dir[i]);
		undo_dir[i] = -1;
	}
}

static int undo_rename(struct world *w, const struct op *dry)
{
	const char *from = base_of(dry->path), *to = base_of(dry->path2);

	if (dry->flags & RENAME_EXCHANGE)
		return renameat2(undo_dir[0], from, undo_dir[1], to, RENAME_EXCHANGE);
	if (renameat(undo_dir[1], to, undo_dir[0], from) < 0)
		return -1;
	if (faccessat(w->backup, "victim", F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	return renameat(w->backup, "victim", undo_dir[1], to);
}

void mf_rules_undo(struct world *w, const struct op *dry)
{
	struct op q = { .kind = OP_CLOSE, .actor = dry->actor, .slot = dry->slot };
	struct result res;
	int rc = 0;

	mf_exec_enter(w, SIDE_B);
	switch (dry->kind) {
	case OP_LINK:
		rc = unlinkat(undo_dir[1], base_of(dry->path2), 0);
		break;
	case OP_RENAME:
		rc = undo_rename(w, dry);
		break;
	case OP_MKDIR:
		rc = rmdir(dry->path);
		break;
	case OP_SYMLINK:
	case OP_MKNOD:
		rc = unlink(dry->path);
		break;
	case OP_OPEN:
		mf_exec_op(w, SIDE_B, &q, &res);
		break;
	default:
		break;
	}
	if (rc < 0) {
		perror("difftest: cannot undo on B");
		exit(2);
	}
	mf_rules_forget_undo(w);
}

void mf_rules_learn(struct world *w, const struct op *op)
{
	struct slot *s = &w->slot[op->actor][op->slot];
	const char *path = op->kind == OP_LINK || op->kind == OP_RENAME ? op->path2 : op->path;
	struct place p;

	if (w->rules != RULES_MAILFS)
		return;
	if (op->kind != OP_LINK && op->kind != OP_RENAME && op->kind != OP_OPEN && op->kind != OP_MKNOD)
		return;
	mf_exec_enter(w, SIDE_B);
	if (op->kind == OP_OPEN) {
		char real[PATH_MAX], dir[PATH_MAX];

		if (!realpath(op->path, real))
			return;
		mf_parent(real, dir);
		p.space = space_of_dir(dir);
		put(&once_linked, s->ino_b, false);
		put(&published, s->ino_b, p.space == SPACE_CUR || p.space == SPACE_NEW);
		s->direct_writer = is_published(s->ino_b) && s->accmode != O_RDONLY;
		return;
	}
	locate(path, &p);
	if (!p.exists || !S_ISREG(p.st.st_mode))
		return;
	if (op->kind == OP_MKNOD) {
		put(&published, p.st.st_ino, false);
		put(&once_linked, p.st.st_ino, false);
	}
	if (op->kind == OP_LINK && p.space == SPACE_PLAIN)
		put(&once_linked, p.st.st_ino, true);
	if (p.space == SPACE_CUR || p.space == SPACE_NEW)
		put(&published, p.st.st_ino, true);
}

/* The text of the symbolic link @path, as a path of its own. */
static bool follow(const char *path, char *ret)
{
	char text[PATH_CAP] = { 0 }, parent[PATH_CAP];

	if (readlink(path, text, sizeof(text) - 1) <= 0)
		return false;
	mf_parent(path, parent);
	if (text[0] == '/')
		parent[0] = 0;
	return snprintf(ret, PATH_CAP, "%s%s%s", parent, parent[0] ? "/" : "", text) < PATH_CAP;
}

/* Those that the last name of @path has to do with, behind the @n in @ret. */
static int tmps_of_name(const char *path, ino_t ret[TMPS_MAX], int n)
{
	char at[PATH_CAP], next[PATH_CAP], real[PATH_MAX];
	struct place p;
	struct stat st;
	int first = n;

	strcpy(at, path);
	while (n + 2 <= TMPS_MAX) {
		locate(at, &p);
		if (p.known && p.space == SPACE_TMP)
			ret[n++] = p.dir;
		if (realpath(at, real) && stat(real, &st) == 0 && S_ISDIR(st.st_mode) &&
			space_of_dir(real) == SPACE_TMP)
			ret[n++] = st.st_ino;
		/* where it leads need not be there: open makes it */
		if (n > first || !p.exists || !S_ISLNK(p.st.st_mode) || !follow(at, next) || !strcmp(at, next))
			break;
		strcpy(at, next);
	}
	return n;
}

int mf_rules_tmps(struct world *w, const char *path, ino_t ret[TMPS_MAX])
{
	char part[PATH_CAP];
	int n;

	mf_exec_enter(w, SIDE_B);
	n = tmps_of_name(path, ret, 0);
	/* what is on the way counts, too: a file in a tmp is no directory to who knows it, and nothing to the others */
	strcpy(part, path);
	for (char *slash = part + 1; part[0] && (slash = strchr(slash, '/')); slash++) {
		*slash = 0;
		n = tmps_of_name(part, ret, n);
		*slash = '/';
	}
	return n;
}

bool mf_rules_is_message(struct world *w, const char *path, struct stat *ret_st)
{
	struct place p;

	mf_exec_enter(w, SIDE_B);
	locate(path, &p);
	*ret_st = p.st;
	return p.known && p.exists && p.space != SPACE_PLAIN && S_ISREG(p.st.st_mode);
}

static int drop_volatile(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	struct place p;

	if (flag != FTW_F)
		return 0;
	locate(path, &p);
	return p.known && p.space == SPACE_TMP ? unlink(path) : 0;
}

void mf_rules_drop_volatile(struct world *w)
{
	mf_exec_enter(w, SIDE_B);
	if (nftw(".", drop_volatile, 32, FTW_PHYS) != 0) {
		perror("difftest: cannot clear tmp of B");
		exit(2);
	}
}
