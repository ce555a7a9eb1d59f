/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Draws the next operation. Depends on the seed and on what lies on side B alone, so that a seed repeats a run. */
#include "diff.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/xattr.h>
#include <unistd.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

enum { ENTRIES_MAX = 300, MAILDIRS = 8 };

static struct op queue[8]; /* steps that belong together: the four mkdir of a Maildir */
static int queued, queue_at;
static char maildirs[MAILDIRS][PATH_CAP];
static char with_xattr[4][PATH_CAP]; /* paths that setxattr was drawn for */

uint64_t mf_rand(struct world *w)
{
	uint64_t z = (w->rng += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

unsigned mf_rand_below(struct world *w, unsigned n)
{
	return mf_rand(w) % n;
}

static bool chance(struct world *w, unsigned percent)
{
	return mf_rand_below(w, 100) < percent;
}

static const struct {
	enum op_kind kind;
	unsigned weight;
} weights[] = {
	{ OP_OPEN, 28 },
	{ OP_CLOSE, 12 },
	{ OP_READ, 6 },
	{ OP_PREAD, 6 },
	{ OP_WRITE, 12 },
	{ OP_PWRITE, 12 },
	{ OP_LSEEK, 4 },
	{ OP_SEEKDATA, 2 },
	{ OP_SETFL, 2 },
	{ OP_FALLOCATE, 6 },
	{ OP_FSYNC, 2 },
	{ OP_FDATASYNC, 2 },
	{ OP_READDIR, 6 },
	{ OP_STATFS, 1 },
	{ OP_LSTAT, 4 },
	{ OP_STAT, 4 },
	{ OP_ACCESS, 6 },
	{ OP_CHMOD, 8 },
	{ OP_FCHMOD, 3 },
	{ OP_CHOWN, 6 },
	{ OP_LCHOWN, 2 },
	{ OP_FCHOWN, 3 },
	{ OP_UTIMENS, 6 },
	{ OP_LUTIMENS, 2 },
	{ OP_FUTIMENS, 4 },
	{ OP_TRUNCATE, 6 },
	{ OP_FTRUNCATE, 6 },
	{ OP_MKNOD, 8 },
	{ OP_MKDIR, 10 },
	{ OP_UNLINK, 14 },
	{ OP_RMDIR, 7 },
	{ OP_SYMLINK, 6 },
	{ OP_READLINK, 2 },
	{ OP_RENAME, 24 },
	{ OP_LINK, 12 },
	{ OP_SETXATTR, 8 },
	{ OP_GETXATTR, 4 },
	{ OP_LISTXATTR, 1 },
	{ OP_REMOVEXATTR, 4 },
	{ OP_FSETXATTR, 2 },
	{ OP_FGETXATTR, 2 },
	{ OP_POSIX_LOCK, 7 },
	{ OP_POSIX_GETLK, 5 },
	{ OP_OFD_LOCK, 7 },
	{ OP_OFD_GETLK, 5 },
	{ OP_FLOCK, 7 },
};

static enum op_kind draw_kind(struct world *w)
{
	unsigned sum = 0, r;

	for (size_t i = 0; i < COUNT(weights); i++)
		sum += weights[i].weight;
	r = mf_rand_below(w, sum);
	for (size_t i = 0;; i++) {
		if (r < weights[i].weight)
			return weights[i].kind;
		r -= weights[i].weight;
	}
}

static bool is_reserved(const char *name)
{
	return !strcmp(name, "cur") || !strcmp(name, "new") || !strcmp(name, "tmp");
}

static void draw_name(struct world *w, char *out)
{
	static const char *const flags[] = { "", ":2,", ":2,S", ":2,FS", ":2,RS", ":2,ST", ":2,a" };
	unsigned r = mf_rand_below(w, 100);
	size_t n;

	if (r < 65) {
		sprintf(out, "%c", 'a' + mf_rand_below(w, 14));
	} else if (r < 85) {
		sprintf(out, "170%u.M%uP1.host%s", mf_rand_below(w, 3), mf_rand_below(w, 10),
			flags[mf_rand_below(w, COUNT(flags))]);
	} else if (r < 88) {
		static const char *const odd[] = { "...", ".x", "..x", ".cur", "new ", "a b", "-rf", "x\ny", "\\", "*",
			"dovecot-uidlist", "dovecot-uidlist.lock", ".INBOX.Sent", "a:b:2,", ":2,S", "\xff\xfe",
			"\xc3\xa4" };

		strcpy(out, odd[mf_rand_below(w, COUNT(odd))]);
	} else if (r < 91) { /* the longest name, and one byte too much */
		n = chance(w, 60) ? 255 : 256;
		memset(out, 'a' + mf_rand_below(w, 3), n);
		out[n] = 0;
	} else if (r < 97) { /* any byte */
		n = 1 + mf_rand_below(w, chance(w, 20) ? 254 : 12);
		for (size_t i = 0; i < n; i++)
			do
				out[i] = mf_rand(w);
			while (out[i] == '/' || out[i] == 0);
		out[n] = 0;
		if (!strcmp(out, ".") || !strcmp(out, ".."))
			strcpy(out, "dots");
	} else {
		sprintf(out, "%c%u", 'a' + mf_rand_below(w, 26), mf_rand_below(w, 1000));
	}
	if (is_reserved(out))
		strcpy(out, "reserved");
}

static int not_dots(const struct dirent *e)
{
	return strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static bool join(char *dir, const char *name)
{
	size_t n = strlen(dir), m = strlen(name);

	if (n + m + 2 > 1800)
		return false;
	if (!strcmp(dir, ".")) {
		strcpy(dir, name);
		return true;
	}
	dir[n] = '/';
	strcpy(dir + n + 1, name);
	return true;
}

/* A random child of @dir, with a type of @types (bit 1 << DT_x; 0: any). False: none. */
static bool draw_child(struct world *w, const char *dir, unsigned types, char *out)
{
	struct dirent **list;
	int n = scandir(dir, &list, not_dots, by_bytes), k = 0;
	bool found = false;

	if (n < 0)
		return false;
	for (int i = 0; i < n; i++)
		if (!types || (types >> list[i]->d_type & 1))
			k++;
	if (k > 0) {
		int pick = mf_rand_below(w, k);

		for (int i = 0; i < n && !found; i++)
			if ((!types || (types >> list[i]->d_type & 1)) && pick-- == 0) {
				strcpy(out, list[i]->d_name);
				found = true;
			}
	}
	for (int i = 0; i < n; i++)
		free(list[i]);
	free(list);
	return found;
}

static void draw_dir(struct world *w, char *out, unsigned descend)
{
	char name[256];

	if (w->maildir && chance(w, 55)) {
		static const char *const space[] = { "cur", "new", "tmp", "tmp" };
		char *m = maildirs[mf_rand_below(w, MAILDIRS)];
		const char *s = space[mf_rand_below(w, COUNT(space))];

		if (m[0] && access(m, F_OK) < 0)
			m[0] = 0;
		if (m[0]) {
			strcpy(out, m);
			if (chance(w, 90))
				join(out, s);
			return;
		}
	}
	strcpy(out, ".");
	for (int depth = 0; depth < 6 && chance(w, descend); depth++) {
		unsigned types = 1 << DT_DIR | (chance(w, 8) ? 1 << DT_LNK : 0);

		if (!draw_child(w, out, types, name) || !join(out, name))
			break;
	}
}

static void draw_existing(struct world *w, char *out, unsigned types)
{
	char name[256];

	for (int tries = 0; tries < 4; tries++) {
		draw_dir(w, out, 60);
		if (draw_child(w, out, types, name) && join(out, name))
			return;
	}
}

static void draw_new(struct world *w, char *out)
{
	char name[NAME_CAP];

	draw_dir(w, out, 60);
	draw_name(w, name);
	join(out, name);
}

/* Ways of writing a path that mean something else or nothing. */
static void decorate(struct world *w, char *path)
{
	static const char *const tail[] = { "/", "/.", "/..", "/missing", "//" };
	unsigned r = mf_rand_below(w, 100);

	if (r < 3)
		strcat(path, tail[mf_rand_below(w, COUNT(tail))]);
	else if (r < 4)
		strcpy(path, chance(w, 50) ? "." : "missing/x");
}

static void draw_path(struct world *w, char *out, unsigned existing_percent)
{
	if (chance(w, existing_percent))
		draw_existing(w, out, 0);
	else
		draw_new(w, out);
	decorate(w, out);
}

static off_t draw_len(struct world *w)
{
	unsigned r = mf_rand_below(w, 100);

	if (r < 5)
		return 0;
	if (r < 60)
		return 1 + mf_rand_below(w, 200);
	if (r < 90)
		return 1 + mf_rand_below(w, 9000);
	return 1 + mf_rand_below(w, 70000);
}

static off_t draw_offset(struct world *w)
{
	unsigned r = mf_rand_below(w, 100);

	if (r < 30)
		return 0;
	if (r < 60)
		return mf_rand_below(w, 300);
	if (r < 85)
		return mf_rand_below(w, 10000);
	if (r < 98)
		return mf_rand_below(w, 140000);
	return -1 - (off_t)mf_rand_below(w, 3);
}

static mode_t draw_mode(struct world *w)
{
	static const mode_t modes[] = { 0644, 0600, 0666, 0777, 0755, 0700, 01777, 02775, 02755, 04755, 06777, 02644,
		04644, 0444, 0222, 0111, 0, 0770, 02770, 0640, 07777 };

	return modes[mf_rand_below(w, COUNT(modes))];
}

static void draw_times(struct world *w, struct timespec ts[2])
{
	for (int i = 0; i < 2; i++) {
		unsigned r = mf_rand_below(w, 100);

		/* the past only: a directory's mtime may be promised to grow */
		ts[i].tv_sec = 100000000 + mf_rand_below(w, 1500000000);
		ts[i].tv_nsec = chance(w, 20) ? 0 : mf_rand_below(w, 1000000000);
		if (r < 20)
			ts[i].tv_nsec = UTIME_NOW;
		else if (r < 40)
			ts[i].tv_nsec = UTIME_OMIT;
		else if (r < 43)
			ts[i].tv_sec = -(time_t)mf_rand_below(w, 1000000);
		else if (r < 44)
			ts[i].tv_nsec = 1000000000;
	}
}

static uid_t draw_uid(struct world *w)
{
	static const uid_t uids[] = { 0, 61001, 61002, 61003, 65534, -1, -1 };

	return uids[mf_rand_below(w, COUNT(uids))];
}

static gid_t draw_gid(struct world *w)
{
	static const gid_t gids[] = { 0, 61001, 61002, 62001, 62002, -1, -1 };

	return gids[mf_rand_below(w, COUNT(gids))];
}

static void draw_xattr_name(struct world *w, struct op *op)
{
	char *out = op->name;
	unsigned r = mf_rand_below(w, 100);

	if (r < 88) {
		sprintf(out, "user.%c", 'a' + mf_rand_below(w, 3));
	} else if (r < 92) {
		sprintf(out, "user.%.*s", 200, "long-long-long-long-long-long-long-long-long-long-long-long-long-long");
	} else if (w->rules == RULES_MAILFS && r < 97 && op->cred == 0) {
		/* to others the kernel itself answers some of them */
		static const char *const other[] = { "trusted.x", "security.x", "system.x", "mailfs.x" };

		strcpy(out, other[mf_rand_below(w, COUNT(other))]);
	} else {
		strcpy(out, "user.b");
	}
}

static int draw_open_flags(struct world *w)
{
	static const int acc[] = { O_RDONLY, O_WRONLY, O_RDWR, O_RDWR };
	int flags = acc[mf_rand_below(w, COUNT(acc))];

	if (chance(w, 50))
		flags |= O_CREAT | (chance(w, 30) ? O_EXCL : 0);
	if (chance(w, 15))
		flags |= O_TRUNC;
	if (chance(w, 20))
		flags |= O_APPEND;
	if (chance(w, 15))
		flags |= O_NOFOLLOW;
	if (chance(w, 4))
		flags |= O_NOATIME;
	if (chance(w, 3))
		flags |= O_SYNC;
	if (chance(w, 2))
		flags |= O_DIRECTORY;
	return flags;
}

static void draw_open(struct world *w, struct op *op)
{
	op->flags = draw_open_flags(w);
	op->mode = draw_mode(w);
	if (chance(w, 12)) {
		draw_dir(w, op->path, 60);
		op->flags = O_RDONLY | (chance(w, 70) ? O_DIRECTORY : 0);
	} else if (chance(w, 25)) { /* one more description of an open file: locks meet there */
		const struct slot *s = &w->slot[mf_rand_below(w, w->actors)][mf_rand_below(w, NSLOTS)];

		if (s->open && s->path[0])
			strcpy(op->path, s->path);
		else
			draw_path(w, op->path, 60);
	} else {
		draw_path(w, op->path, op->flags & O_EXCL ? 15 : 60);
	}
}

/* An open descriptor mostly, of a directory if @dir. False: there is none. */
static bool draw_slot(struct world *w, struct op *op, bool dir)
{
	bool writable = (op->kind == OP_WRITE || op->kind == OP_PWRITE || op->kind == OP_FALLOCATE ||
				op->kind == OP_FTRUNCATE) &&
			chance(w, 80);
	int n = 0, pick;

	if (!dir && chance(w, 4))
		return true;
	for (int pass = 0; pass < 2; pass++) {
		pick = pass ? (int)mf_rand_below(w, n) : -1;
		for (int a = 0; a < w->actors; a++)
			for (int s = 0; s < NSLOTS; s++) {
				const struct slot *slot = &w->slot[a][s];

				if (writable && slot->open && slot->accmode == O_RDONLY)
					continue;
				if (!slot->open || S_ISFIFO(slot->type) || (dir && !S_ISDIR(slot->type)) ||
					(!dir && S_ISDIR(slot->type) && a != 0))
					continue;
				if (pass == 0) {
					n++;
				} else if (pick-- == 0) {
					op->actor = a;
					op->slot = s;
					return true;
				}
			}
		if (n == 0)
			return false;
	}
	return false;
}

static void draw_lock(struct world *w, struct op *op)
{
	static const int types[] = { F_RDLCK, F_WRLCK, F_WRLCK, F_UNLCK };
	static const int flocks[] = { LOCK_SH | LOCK_NB, LOCK_EX | LOCK_NB, LOCK_EX | LOCK_NB, LOCK_UN };

	if (op->kind == OP_FLOCK) {
		op->flags = flocks[mf_rand_below(w, COUNT(flocks))];
		/* Of a directory each node keeps its own. */
		if (w->nodes > 1 && S_ISDIR(w->slot[op->actor][op->slot].type))
			op->flags = LOCK_UN;
		return;
	}
	op->flags = types[mf_rand_below(w, COUNT(types) - (op->kind == OP_POSIX_GETLK || op->kind == OP_OFD_GETLK))];
	op->whence = chance(w, 80) ? SEEK_SET : chance(w, 50) ? SEEK_CUR : SEEK_END;
	if (S_ISDIR(w->slot[op->actor][op->slot].type))
		op->whence = SEEK_SET;
	op->off = mf_rand_below(w, 40);
	op->len = chance(w, 30) ? 0 : mf_rand_below(w, 30);
	if (chance(w, 5))
		op->len = -(off_t)mf_rand_below(w, 10);
	if (chance(w, 3))
		op->off = -(off_t)mf_rand_below(w, 10);
}

static void draw_rename(struct world *w, struct op *op)
{
	unsigned r = mf_rand_below(w, 100);

	draw_path(w, op->path, 95);
	if (r < 5) { /* into itself */
		strcpy(op->path2, op->path);
		join(op->path2, "sub");
	} else if (r < 8) {
		strcpy(op->path2, op->path);
	} else if (r < 25) { /* another name in the same directory */
		char name[NAME_CAP];

		mf_parent(op->path, op->path2);
		draw_name(w, name);
		join(op->path2, name);
	} else {
		draw_path(w, op->path2, 40);
	}
	r = mf_rand_below(w, 100);
	if (op->kind == OP_LINK || !w->use.exchange)
		return;
	if (r < 10)
		op->flags = RENAME_NOREPLACE;
	else if (r < 22)
		op->flags = RENAME_EXCHANGE;
	else if (r < 24)
		op->flags = RENAME_NOREPLACE | RENAME_EXCHANGE;
	else if (r < 25)
		op->flags = 1 << 5;
	if (op->flags == RENAME_EXCHANGE && chance(w, 80))
		draw_existing(w, op->path2, 0);
}

static void draw_fallocate(struct world *w, struct op *op)
{
	static const int modes[] = { 0, 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE };

	op->flags = modes[mf_rand_below(w, COUNT(modes))];
	if ((op->flags & FALLOC_FL_ZERO_RANGE) && !w->use.zero_range)
		op->flags = 0;
	if ((op->flags & FALLOC_FL_PUNCH_HOLE) && !w->use.punch_hole)
		op->flags = 0;
	op->off = draw_offset(w);
	op->len = draw_len(w);
}

static void draw_symlink_text(struct world *w, struct op *op)
{
	unsigned r = mf_rand_below(w, 100);
	char name[NAME_CAP];

	draw_name(w, name);
	if (r < 30) {
		sprintf(op->path2, "%s", name);
	} else if (r < 50) {
		sprintf(op->path2, "../%s", name);
	} else if (r < 60) {
		strcpy(op->path2, chance(w, 50) ? ".." : ".");
	} else if (r < 90) {
		op->path2[0] = '/';
		draw_existing(w, op->path2 + 1, 0);
	} else {
		memset(op->path2, 'x', 300);
		op->path2[300] = 0;
	}
}

static void queue_maildir(struct world *w, const struct op *base)
{
	static const char *const sub[] = { NULL, "cur", "new", "tmp" };
	char name[NAME_CAP], dir[PATH_CAP];
	int slot = mf_rand_below(w, MAILDIRS);

	strcpy(dir, ".");
	for (int depth = 0; depth < 2 && chance(w, 30); depth++)
		if (!draw_child(w, dir, 1 << DT_DIR, name) || is_reserved(name) || !join(dir, name))
			break;
	sprintf(name, "%s%u", chance(w, 40) ? ".Folder" : "Maildir", mf_rand_below(w, 30));
	join(dir, name);
	strcpy(maildirs[slot], dir);
	queued = queue_at = 0;
	for (size_t i = 0; i < COUNT(sub); i++) {
		struct op *op = &queue[queued++];

		*op = *base;
		op->kind = OP_MKDIR;
		op->actor = 0;
		op->mode = 0700;
		op->together = true;
		strcpy(op->path, dir);
		if (sub[i])
			join(op->path, sub[i]);
	}
	/* sometimes everybody delivers into it */
	if (chance(w, 50))
		for (size_t i = 0; i < COUNT(sub); i++) {
			struct op *op = &queue[queued++];

			*op = queue[i];
			op->kind = OP_CHMOD;
			op->mode = 0777;
		}
}

static bool is_empty(const char *path, const char *sub)
{
	char full[PATH_CAP];
	struct dirent **list;
	int n;

	snprintf(full, sizeof(full), "%.1800s%s%s", path, sub ? "/" : "", sub ? sub : "");
	n = scandir(full, &list, not_dots, by_bytes);
	if (n < 0)
		return false;
	for (int i = 0; i < n; i++)
		free(list[i]);
	free(list);
	return n == (sub ? 0 : 3);
}

/* A Maildir goes as a whole: what half of one is, nobody promises. */
static bool queue_maildir_removal(struct world *w, const struct op *base)
{
	static const char *const sub[] = { "tmp", "new", "cur", NULL };
	char *m = maildirs[mf_rand_below(w, MAILDIRS)];

	if (!m[0] || !is_empty(m, "tmp") || !is_empty(m, "new") || !is_empty(m, "cur") || !is_empty(m, NULL))
		return false;
	queued = queue_at = 0;
	for (size_t i = 0; i < COUNT(sub); i++) {
		struct op *op = &queue[queued++];

		*op = *base;
		op->kind = OP_RMDIR;
		op->actor = op->cred = 0;
		op->together = true;
		strcpy(op->path, m);
		if (sub[i])
			join(op->path, sub[i]);
	}
	m[0] = 0;
	return true;
}

/* Publishes what some descriptor still writes: tmp/x -> new/x. */
static bool draw_early_publish(struct world *w, struct op *op)
{
	for (int tries = 0; tries < 8; tries++) {
		const struct slot *s = &w->slot[mf_rand_below(w, w->actors)][mf_rand_below(w, NSLOTS)];
		const char *tmp = s->open && s->accmode != O_RDONLY ? strstr(s->path, "/tmp/") : NULL;

		if (!tmp)
			continue;
		strcpy(op->path, s->path);
		strcpy(op->path2, s->path);
		memcpy(op->path2 + (tmp - s->path), chance(w, 50) ? "/new/" : "/cur/", 5);
		op->flags = 0;
		op->kind = chance(w, 50) ? OP_LINK : OP_RENAME;
		return true;
	}
	return false;
}

/* The path a real deliverer takes: tmp/x -> new/x -> cur/x:2,... */
static void draw_delivery(struct world *w, struct op *op)
{
	const char *m = maildirs[mf_rand_below(w, MAILDIRS)];
	char from[PATH_CAP], name[256], base[256];
	unsigned r = mf_rand_below(w, 3);

	if (chance(w, 30) && draw_early_publish(w, op))
		return;
	if (!m[0])
		return;
	strcpy(from, m);
	join(from, r == 0 ? "cur" : r == 1 ? "new" : "tmp");
	if (!draw_child(w, from, 1 << DT_REG, name))
		return;
	strcpy(op->path, from);
	if (!join(op->path, name))
		return;
	strcpy(op->path2, m);
	join(op->path2, r == 2 ? "new" : "cur");
	strcpy(base, name);
	if (r != 2) {
		strcpy(base, name);
		base[240] = 0;
		if (strstr(base, ":2,"))
			*strstr(base, ":2,") = 0;
		strcat(base, chance(w, 50) ? ":2,S" : ":2,FS");
	}
	join(op->path2, base);
	op->flags = 0;
	op->kind = chance(w, 30) ? OP_LINK : OP_RENAME;
}

static void draw_fd_op(struct world *w, struct op *op)
{
	switch (op->kind) {
	case OP_FCHMOD:
		op->mode = draw_mode(w);
		break;
	case OP_FCHOWN:
		op->uid = draw_uid(w);
		op->gid = draw_gid(w);
		break;
	case OP_FUTIMENS:
		draw_times(w, op->ts);
		break;
	case OP_FTRUNCATE:
		op->len = draw_offset(w);
		break;
	case OP_READ:
	case OP_WRITE:
		op->len = draw_len(w);
		break;
	case OP_PREAD:
	case OP_PWRITE:
	case OP_SEEKDATA:
		op->off = draw_offset(w);
		op->len = draw_len(w);
		break;
	case OP_LSEEK:
		op->whence = mf_rand_below(w, 3);
		op->off = draw_offset(w);
		if (S_ISDIR(w->slot[op->actor][op->slot].type)) { /* positions there mean nothing */
			op->whence = SEEK_SET;
			op->off = 0;
		}
		break;
	case OP_SETFL:
		op->flags = chance(w, 50) ? O_APPEND : 0;
		break;
	case OP_FALLOCATE:
		draw_fallocate(w, op);
		break;
	case OP_READDIR:
		op->off = mf_rand_below(w, 1000);
		op->len = chance(w, 50) ? 600 : 32768;
		break;
	case OP_FSETXATTR:
	case OP_FGETXATTR:
		draw_xattr_name(w, op);
		op->len = mf_rand_below(w, 100);
		break;
	case OP_POSIX_LOCK:
	case OP_POSIX_GETLK:
	case OP_OFD_LOCK:
	case OP_OFD_GETLK:
	case OP_FLOCK:
		draw_lock(w, op);
		break;
	default:
		break;
	}
}

static void draw_path_op(struct world *w, struct op *op)
{
	static const mode_t special[] = { S_IFIFO, S_IFSOCK };

	switch (op->kind) {
	case OP_MKNOD:
		draw_path(w, op->path, 10);
		op->mode = draw_mode(w) | (chance(w, 85) ? S_IFREG : special[mf_rand_below(w, 2)]);
		break;
	case OP_MKDIR:
		draw_path(w, op->path, 10);
		op->mode = chance(w, 50) ? 0777 : draw_mode(w);
		if (chance(w, 50))
			op->umask = 0;
		break;
	case OP_SYMLINK:
		draw_path(w, op->path, 10);
		draw_symlink_text(w, op);
		break;
	case OP_RENAME:
	case OP_LINK:
		draw_rename(w, op);
		if (w->maildir && chance(w, 40))
			draw_delivery(w, op);
		break;
	case OP_RMDIR:
		draw_dir(w, op->path, 90);
		decorate(w, op->path);
		break;
	case OP_READLINK:
	case OP_LCHOWN:
	case OP_LUTIMENS:
		draw_existing(w, op->path, chance(w, 60) ? 1 << DT_LNK : 0);
		decorate(w, op->path);
		break;
	case OP_OPEN:
		draw_open(w, op);
		break;
	case OP_SETXATTR:
		draw_path(w, op->path, 95);
		strcpy(with_xattr[mf_rand_below(w, COUNT(with_xattr))], op->path);
		break;
	case OP_GETXATTR:
	case OP_REMOVEXATTR:
	case OP_LISTXATTR:
		strcpy(op->path, with_xattr[mf_rand_below(w, COUNT(with_xattr))]);
		if (!op->path[0])
			strcpy(op->path, ".");
		break;
	default:
		draw_path(w, op->path, 93);
		break;
	}
	switch (op->kind) {
	case OP_CHMOD:
		op->mode = draw_mode(w);
		break;
	case OP_CHOWN:
	case OP_LCHOWN:
		op->uid = draw_uid(w);
		op->gid = draw_gid(w);
		break;
	case OP_UTIMENS:
	case OP_LUTIMENS:
		draw_times(w, op->ts);
		break;
	case OP_TRUNCATE:
		op->len = draw_offset(w);
		break;
	case OP_ACCESS:
		op->flags = mf_rand_below(w, 8);
		break;
	case OP_SETXATTR:
		op->flags = chance(w, 60) ? 0 : chance(w, 50) ? XATTR_CREATE : XATTR_REPLACE;
		draw_xattr_name(w, op);
		op->len = chance(w, 10) ? 0 : mf_rand_below(w, 200);
		break;
	case OP_GETXATTR:
	case OP_REMOVEXATTR:
		draw_xattr_name(w, op);
		op->len = chance(w, 20) ? 0 : mf_rand_below(w, 300);
		break;
	default:
		break;
	}
}

/* The kernel's FUSE drops the set-group-ID bit of a file that is written or given away only if the group may execute
 * it; on others Linux drops it for strangers too. No filesystem below FUSE can tell: so no such modes there. */
static void limit_sgid(struct world *w, struct op *op)
{
	if (w->rules != RULES_MAILFS || !(op->mode & S_ISGID))
		return;
	op->mode |= S_IXGRP;
	op->umask &= ~S_IXGRP;
}

static bool uses_slot(enum op_kind k)
{
	switch (k) {
	case OP_FCHMOD:
	case OP_FCHOWN:
	case OP_FUTIMENS:
	case OP_FTRUNCATE:
	case OP_CLOSE:
	case OP_READ:
	case OP_PREAD:
	case OP_WRITE:
	case OP_PWRITE:
	case OP_LSEEK:
	case OP_SEEKDATA:
	case OP_SETFL:
	case OP_FALLOCATE:
	case OP_FSYNC:
	case OP_FDATASYNC:
	case OP_READDIR:
	case OP_FSETXATTR:
	case OP_FGETXATTR:
	case OP_POSIX_LOCK:
	case OP_POSIX_GETLK:
	case OP_OFD_LOCK:
	case OP_OFD_GETLK:
	case OP_FLOCK:
		return true;
	default:
		return false;
	}
}

static bool needs_xattr(enum op_kind k)
{
	return k == OP_SETXATTR || k == OP_GETXATTR || k == OP_LISTXATTR || k == OP_REMOVEXATTR || k == OP_FSETXATTR ||
	       k == OP_FGETXATTR;
}

static bool creates(enum op_kind k)
{
	return k == OP_MKNOD || k == OP_MKDIR || k == OP_SYMLINK || k == OP_LINK;
}

static void draw_op(struct world *w, struct op *op)
{
	static const mode_t umasks[] = { 0, 022, 077, 027, 0 };

	if (queue_at < queued) {
		*op = queue[queue_at++];
		return;
	}
	mf_exec_enter(w, SIDE_B);
	memset(op, 0, sizeof(*op));
	do
		op->kind = draw_kind(w);
	while (w->avoid[op->kind]);
	if (needs_xattr(op->kind) && !w->use.user_xattr)
		op->kind = OP_STAT;
	if (creates(op->kind) && w->entries > ENTRIES_MAX && chance(w, 70))
		op->kind = chance(w, 60) ? OP_UNLINK : OP_RMDIR;
	op->actor = w->nodes == 1 && chance(w, 60) ? 0 : mf_rand_below(w, w->actors);
	op->cred = chance(w, 50) ? 0 : mf_rand_below(w, NCREDS);
	op->umask = umasks[mf_rand_below(w, COUNT(umasks))];
	op->slot = mf_rand_below(w, NSLOTS);
	op->seed = mf_rand(w);
	if (w->maildir && op->kind == OP_MKDIR && chance(w, 60)) {
		queue_maildir(w, op);
		*op = queue[queue_at++];
		return;
	}
	if (w->maildir && op->kind == OP_RMDIR && queue_maildir_removal(w, op)) {
		*op = queue[queue_at++];
		return;
	}
	if (uses_slot(op->kind)) {
		if (!draw_slot(w, op, op->kind == OP_READDIR)) {
			bool dir = op->kind == OP_READDIR;

			op->kind = OP_OPEN;
			draw_open(w, op);
			if (dir) {
				draw_dir(w, op->path, 60);
				op->flags = O_RDONLY | O_DIRECTORY;
			}
			return;
		}
		if (op->kind == OP_SEEKDATA && !S_ISREG(w->slot[op->actor][op->slot].type))
			op->kind = OP_FSYNC;
		/* at the end of a directory the position may be so high that EINVAL comes before EISDIR */
		if (op->kind == OP_READ && S_ISDIR(w->slot[op->actor][op->slot].type))
			op->kind = OP_PREAD;
		draw_fd_op(w, op);
		return;
	}
	draw_path_op(w, op);
}

void mf_gen_op(struct world *w, struct op *op)
{
	draw_op(w, op);
	limit_sgid(w, op);
}
