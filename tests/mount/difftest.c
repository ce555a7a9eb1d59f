/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/mount/difftest.c - the same random operations on two trees, compared after every step.
 *
 *	difftest [--seed N] [--ops N] [--maildir] [--node DIR]... [--verbose] DIR_A DIR_B
 *
 * A is the filesystem under test, B a local one (ext4 or tmpfs). With --node, each step is done on one mount of A,
 *drawn at random, and looked at on another. Works in DIR_A/t and DIR_B/t, which it makes and removes. Must be root: it
 *takes other identities, and goes into a chroot of each tree.
 *
 * After each step: result, errno, data; then of every path and descriptor that the step named, and of the parents:
 * type, mode, owner, size, nlink, content, listing, xattrs, symlink text; inodes: what was the same file before is the
 * same after, on both sides alike; mtime and ctime: changed on A exactly if changed on B, to a time within the
 * step, or to exactly the time that utimensat gave. Every --full steps the whole trees.
 *
 * Not compared: size of directories; atime but after an explicit utimensat; st_blocks and holes (only sanity); inode
 * numbers as such; which of several conflicting locks F_GETLK names; set-group-ID on files that the group may not
 * execute (limit_sgid() in diff-gen.c); the times in the cases of times_are_free().
 *
 * Exit: 0 no difference; 1 a difference (step, operation and both answers are printed); 2 trouble.
 */
#include "diff.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define FUSE_MAGIC 0x65735546
#define SLACK_NS 60000000LL /* a kernel's coarse clock is up to 10 ms behind */

static struct world world;

static long long ns_of(struct timespec t)
{
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static const char *show_op(const struct op *op)
{
	static char out[4096];
	char *o = out, *end = out + sizeof(out);
	const struct cred *c = &mf_diff_creds[op->cred];

	o += snprintf(o, end - o, "%s actor=%d uid=%u", mf_diff_kind_names[op->kind], op->actor, c->uid);
	if (world.nodes > 1)
		o += snprintf(o, end - o, " node=%d seen on %d", op->node, world.view);
	if (op->path[0])
		o += snprintf(o, end - o, " '%s'", mf_show(op->path));
	if (op->path2[0])
		o += snprintf(o, end - o, " '%s'", mf_show(op->path2));
	if (op->name[0])
		o += snprintf(o, end - o, " name=%.60s", mf_show(op->name));
	if (!op->path[0] || op->kind == OP_OPEN) {
		const struct slot *s = &world.slot[op->actor][op->slot];

		o += snprintf(o, end - o, " slot=%d", op->slot);
		if (s->open && op->kind != OP_OPEN)
			o += snprintf(o, end - o, "(opened as '%s' flags 0%o)", mf_show(s->path), s->flags);
	}
	if (op->kind == OP_UTIMENS || op->kind == OP_LUTIMENS || op->kind == OP_FUTIMENS)
		for (int i = 0; i < 2; i++) {
			if (op->ts[i].tv_nsec == UTIME_NOW)
				o += snprintf(o, end - o, " now");
			else if (op->ts[i].tv_nsec == UTIME_OMIT)
				o += snprintf(o, end - o, " omit");
			else
				o += snprintf(
					o, end - o, " %lld.%09ld", (long long)op->ts[i].tv_sec, op->ts[i].tv_nsec);
		}
	o += snprintf(o, end - o, " flags=0%o mode=0%o umask=0%o ids=%d:%d off=%lld len=%lld whence=%d", op->flags,
		op->mode, op->umask, (int)op->uid, (int)op->gid, (long long)op->off, (long long)op->len, op->whence);
	return out;
}

static void show_result(FILE *f, const char *who, const struct result *r)
{
	fprintf(f, "  %s: %s", who, r->err ? strerror(r->err) : "ok");
	if (r->err)
		fprintf(f, " (%d)", r->err);
	else
		fprintf(f, " ret=%lld hash=%016llx", (long long)r->ret, (unsigned long long)r->hash);
	if (r->lock_pid || r->lock_start || r->lock_len || r->lock_type)
		fprintf(f, " lock type=%d start=%lld len=%lld pid=%d", r->lock_type, (long long)r->lock_start,
			(long long)r->lock_len, r->lock_pid);
	fprintf(f, "%s%s\n", r->note[0] ? " NOTE: " : "", r->note);
}

/* Where even two local filesystems differ in what they do to mtime and ctime. */
static bool times_are_free(const struct op *op, const struct stat *pre, const struct stat *post)
{
	switch (op->kind) {
	case OP_TRUNCATE: /* to the size it has: ext4 sets both times, tmpfs none; POSIX asks for none */
		return pre->st_size == post->st_size;
	case OP_FALLOCATE: /* ext4 always sets both, tmpfs only some modes do */
		return true;
	case OP_SETXATTR: /* to the value it has: ext4 sees that nothing changes, tmpfs does not look */
	case OP_FSETXATTR:
		return true;
	case OP_CHOWN: /* of nothing to nothing: POSIX leaves ctime open, and FUSE does not pass it on as a change */
	case OP_LCHOWN:
	case OP_FCHOWN:
		return op->uid == (uid_t)-1 && op->gid == (gid_t)-1;
	default:
		return false;
	}
}

static bool sets_mtime(const struct op *op, bool *explicit)
{
	if (op->kind != OP_UTIMENS && op->kind != OP_LUTIMENS && op->kind != OP_FUTIMENS)
		return false;
	*explicit = op->ts[1].tv_nsec != UTIME_NOW && op->ts[1].tv_nsec != UTIME_OMIT;
	return true;
}

static bool in_window(struct timespec t, const struct timespec window[2])
{
	return ns_of(t) >= ns_of(window[0]) - SLACK_NS && ns_of(t) <= ns_of(window[1]) + SLACK_NS;
}

/* One inode before and after, on both sides. */
static bool compare_times(struct world *w, const struct op *op, const char *what, const struct stat pre[NSIDES],
	const struct stat post[NSIDES], const struct timespec window[2])
{
	bool ok = true, explicit = false, is_utimens = sets_mtime(op, &explicit), m[NSIDES], c[NSIDES];

	for (int side = 0; side < NSIDES; side++) {
		m[side] = !mf_ts_equal(pre[side].st_mtim, post[side].st_mtim);
		c[side] = !mf_ts_equal(pre[side].st_ctim, post[side].st_ctim);
	}
	if (times_are_free(op, &pre[1], &post[1]))
		return true;
	/* a time given that happens to be the old one on one side only is excluded by comparing the new ones */
	if (m[0] != m[1] && !(is_utimens && explicit && mf_ts_equal(post[0].st_mtim, post[1].st_mtim)))
		ok = mf_state_differs(w, "%s: mtime %s in A, %s in B", what, m[0] ? "changed" : "unchanged",
			m[1] ? "changed" : "unchanged");
	if (mf_nodes_differ_in_links(w, &post[1]))
		c[0] = c[1] = false;
	if (c[0] != c[1])
		ok = mf_state_differs(w, "%s: ctime %s in A, %s in B", what, c[0] ? "changed" : "unchanged",
			c[1] ? "changed" : "unchanged");
	if (m[0] && !explicit && !in_window(post[0].st_mtim, window))
		ok = mf_state_differs(w, "%s: A's mtime %lld.%09ld is not of this step", what,
			(long long)post[0].st_mtim.tv_sec, post[0].st_mtim.tv_nsec);
	if (c[0] && !in_window(post[0].st_ctim, window))
		ok = mf_state_differs(w, "%s: A's ctime %lld.%09ld is not of this step", what,
			(long long)post[0].st_ctim.tv_sec, post[0].st_ctim.tv_nsec);
	return ok;
}

/* The file that utimensat named carries on A exactly what it carries on B. */
static bool compare_given_times(struct world *w, const struct op *op, const struct stat *a, const struct stat *b)
{
	bool ok = true;

	for (int i = 0; i < 2; i++) {
		struct timespec ta = i ? a->st_mtim : a->st_atim;

		if (op->ts[i].tv_nsec == UTIME_NOW || op->ts[i].tv_nsec == UTIME_OMIT)
			continue;
		/* not with B: the way to a link may lead through that link, and following it sets its atime there */
		if (!mf_ts_equal(ta, op->ts[i]))
			ok = mf_state_differs(w, "%s given, %lld.%09ld in A", i ? "mtime" : "atime",
				(long long)ta.tv_sec, ta.tv_nsec);
	}
	if (op->ts[1].tv_nsec != UTIME_NOW && op->ts[1].tv_nsec != UTIME_OMIT && !mf_ts_equal(a->st_mtim, b->st_mtim))
		ok = mf_state_differs(
			w, "mtime given, %lld.%09ld in B", (long long)b->st_mtim.tv_sec, b->st_mtim.tv_nsec);
	return ok;
}

static bool compare_touched(struct world *w, const struct op *op, const struct touched *pre, const struct touched *post,
	const struct timespec window[2])
{
	bool ok = true;

	for (int j = 0; j < post->n; j++) {
		const struct stat *a = &post->at[j].st[0], *b = &post->at[j].st[1];
		char what[800];
		bool known = false;

		snprintf(what, sizeof(what), "'%s'%s", mf_show(post->at[j].path),
			post->at[j].follow ? " (followed)" : "");
		if (post->at[j].err[0] != post->at[j].err[1]) {
			ok = mf_state_differs(w, "%s: stat: %s and %s", what, strerror(post->at[j].err[0]),
				strerror(post->at[j].err[1]));
			continue;
		}
		if (post->at[j].err[0])
			continue;
		ok = mf_state_compare_stat(w, what, a, b) && ok;
		for (int k = 0; k < pre->n; k++) {
			bool same[NSIDES];

			for (int side = 0; side < NSIDES; side++)
				same[side] = !pre->at[k].err[side] &&
					     pre->at[k].st[side].st_ino == post->at[j].st[side].st_ino;
			if (same[0] != same[1])
				ok = mf_state_differs(w, "%s is what '%s' was before on side %c only", what,
					mf_show(pre->at[k].path), same[0] ? 'A' : 'B');
			if (same[0] && same[1] && !known) {
				known = true;
				ok = compare_times(w, op, what, pre->at[k].st, post->at[j].st, window) && ok;
			}
		}
		if (!known && !post->at[j].follow && !in_window(a->st_ctim, window))
			ok = mf_state_differs(w, "%s is new in A, with an old ctime", what);
		if (!known && !post->at[j].follow && !in_window(b->st_ctim, window))
			ok = mf_state_differs(w, "%s is new in B, with an old ctime", what);
		if (!post->at[j].follow)
			ok = mf_state_compare_path(w, post->at[j].path) && ok;
	}
	/* the listing of the parents */
	for (int j = 0; j < post->n; j++)
		if (post->at[j].follow && !post->at[j].err[1] && S_ISDIR(post->at[j].st[1].st_mode))
			ok = mf_state_compare_path(w, post->at[j].path) && ok;
	return ok;
}

/* F_GETLK may name any lock in the way; whether there is one is the same, and it must be in the way. */
static bool compare_getlk(struct world *w, const struct op *op, const struct result r[NSIDES])
{
	bool ours = r[0].lock_pid == -1;

	if (r[0].err || r[1].err)
		return true;
	if ((r[0].lock_type == F_UNLCK) != (r[1].lock_type == F_UNLCK))
		return mf_state_differs(w, "getlk: one side sees a lock, the other none");
	if (r[0].lock_type == F_UNLCK)
		return true;
	ours = ours || w->nodes > 1;
	for (int i = 0; i < w->actors; i++)
		ours = ours || r[0].lock_pid == w->pid[i];
	if (!ours)
		return mf_state_differs(
			w, "getlk: A names pid %d, which holds nothing (B: %d)", r[0].lock_pid, r[1].lock_pid);
	if (op->whence == SEEK_SET && op->len >= 0) {
		int64_t end = op->len ? op->off + op->len : INT64_MAX;
		int64_t lock_end = r[0].lock_len ? r[0].lock_start + r[0].lock_len : INT64_MAX;

		if (r[0].lock_start >= end || lock_end <= op->off)
			return mf_state_differs(w, "getlk: A's lock %lld+%lld is not in the way",
				(long long)r[0].lock_start, (long long)r[0].lock_len);
	}
	if (op->flags == F_RDLCK && r[0].lock_type == F_RDLCK)
		return mf_state_differs(w, "getlk: A names a read lock as being in the way of another");
	return true;
}

static bool compare_results(
	struct world *w, const struct op *op, const struct result r[NSIDES], const struct timespec window[2])
{
	struct stat pre[NSIDES], post[NSIDES];
	bool ok = true;

	for (int side = 0; side < NSIDES; side++)
		if (r[side].note[0])
			ok = mf_state_differs(w, "%c: %s", 'A' + side, r[side].note);
	if (r[0].err != r[1].err)
		return mf_state_differs(
			w, "errno %d (%s) and %d (%s)", r[0].err, strerror(r[0].err), r[1].err, strerror(r[1].err));
	if (!r[0].err && (r[0].ret != r[1].ret || r[0].hash != r[1].hash))
		ok = mf_state_differs(w, "returned %lld and %lld%s", (long long)r[0].ret, (long long)r[1].ret,
			r[0].hash != r[1].hash ? ", other bytes" : "");
	if (op->kind == OP_POSIX_GETLK || op->kind == OP_OFD_GETLK)
		ok = compare_getlk(w, op, r) && ok;
	if (r[0].have_fd != r[1].have_fd)
		return mf_state_differs(w, "the slot is open on one side only");
	if (!r[0].have_fd)
		return ok;
	for (int side = 0; side < NSIDES; side++) {
		pre[side] = r[side].fd_pre;
		post[side] = r[side].fd_post;
	}
	ok = mf_state_compare_stat(w, "descriptor", &post[0], &post[1]) && ok;
	if (op->kind != OP_OPEN && !(w->lacks_removed_dirs && S_ISDIR(post[1].st_mode) && post[1].st_nlink == 0))
		ok = compare_times(w, op, "descriptor", pre, post, window) && ok;
	if (r[0].pos != r[1].pos)
		ok = mf_state_differs(
			w, "descriptor: position %lld and %lld", (long long)r[0].pos, (long long)r[1].pos);
	if (!r[0].err && op->kind == OP_FUTIMENS)
		ok = compare_given_times(w, op, &post[0], &post[1]) && ok;
	return ok;
}

static void note_slot(struct world *w, const struct op *op, const struct result *b)
{
	struct slot *s = &w->slot[op->actor][op->slot];

	if (b->err)
		return;
	if (op->kind == OP_CLOSE) {
		memset(s, 0, sizeof(*s));
	} else if (op->kind == OP_OPEN) {
		memset(s, 0, sizeof(*s));
		s->open = true;
		s->accmode = op->flags & O_ACCMODE;
		s->flags = op->flags;
		s->type = b->fd_post.st_mode & S_IFMT;
		s->ino_b = b->fd_post.st_ino;
		strcpy(s->path, op->path);
	} else if (op->kind == OP_RENAME) {
		/* later steps that name the path meet the descriptor again */
		for (int a = 0; a < w->actors; a++)
			for (int i = 0; i < NSLOTS; i++)
				if (w->slot[a][i].open && !strcmp(w->slot[a][i].path, op->path))
					strcpy(w->slot[a][i].path, op->path2);
	}
}

/* Local filesystems without fine-grained times set the time of the last tick: wait for the next one. */
static void wait_for_tick(void)
{
	struct timespec was, now, pause = { 0, 500000 };

	clock_gettime(CLOCK_REALTIME_COARSE, &was);
	do {
		nanosleep(&pause, NULL);
		clock_gettime(CLOCK_REALTIME_COARSE, &now);
	} while (mf_ts_equal(was, now));
}

static void report(struct world *w, const struct op *op, const struct result r[NSIDES])
{
	printf("DIFFERENCE at step %u, seed %llu\n  %s\n", w->step, (unsigned long long)w->seed, show_op(op));
	show_result(stdout, "A", &r[0]);
	show_result(stdout, "B", &r[1]);
	fputs(w->why, stdout);
	printf("  replay: difftest --seed %llu --ops %u%s%s --verbose DIR_A DIR_B\n", (unsigned long long)w->seed,
		w->step, w->maildir ? " --maildir" : "",
		w->rules == RULES_MAILFS ? " --rules mailfs" : " --rules posix");
	fflush(stdout);
}

/* The rules forbid it on A. */
static bool run_ruled(struct world *w, const struct op *op, struct ruling *rule, struct result r[NSIDES])
{
	struct touched pre, post;
	int want[2] = { rule->err[0], rule->err[1] };
	bool ok = true;

	memset(r, 0, NSIDES * sizeof(*r));
	mf_state_touch(w, op, &pre);
	if (!rule->no_b) {
		mf_rules_prepare_undo(w, &rule->dry);
		mf_exec_op(w, SIDE_B, &rule->dry, &r[1]);
		if (!r[1].err) {
			mf_rules_undo(w, &rule->dry);
		} else {
			want[0] = r[1].err;
			want[1] = 0;
			mf_rules_forget_undo(w);
		}
	}
	if (w->emulate)
		r[0].err = want[0];
	else
		mf_exec_op(w, SIDE_A, op, &r[0]);
	if (r[0].err == 0 || (r[0].err != want[0] && r[0].err != want[1]))
		return mf_state_differs(w, "A must answer %d (%s), by a rule of mailfs", want[0], strerror(want[0]));
	w->ruled[op->kind]++;
	post = pre;
	mf_state_restat(w, &post);
	for (int j = 0; j < post.n; j++) {
		const struct stat *x = &pre.at[j].st[0], *y = &post.at[j].st[0];

		if (pre.at[j].err[0] != post.at[j].err[0] || x->st_ino != y->st_ino ||
			!mf_ts_equal(x->st_mtim, y->st_mtim) || !mf_ts_equal(x->st_ctim, y->st_ctim))
			ok = mf_state_differs(w, "'%s': changed in A by what was refused", mf_show(post.at[j].path));
		ok = mf_state_compare_path(w, post.at[j].path) && ok;
	}
	return ok;
}

static bool changes_attributes(const struct op *op)
{
	return op->kind == OP_FCHMOD || op->kind == OP_FCHOWN || op->kind == OP_FUTIMENS || op->kind == OP_FSETXATTR ||
	       op->kind == OP_FGETXATTR;
}

static bool is_removed_dir(struct world *w, const struct op *op)
{
	struct op q = { .kind = OP_SNAPFD, .actor = op->actor, .slot = op->slot };
	struct result r;

	mf_exec_op(w, SIDE_B, &q, &r);
	return r.have_fd && S_ISDIR(r.fd_post.st_mode) && r.fd_post.st_nlink == 0;
}

static bool run_step(struct world *w, const struct op *op)
{
	struct touched pre, post;
	struct timespec window[2];
	struct ruling rule;
	struct result r[NSIDES];
	bool ok, existed = true;

	w->why[0] = 0;
	if (w->lacks_removed_dirs && changes_attributes(op) && is_removed_dir(w, op)) {
		w->skipped++;
		return true;
	}
	mf_rules_judge(w, op, &rule);
	if (rule.skip) {
		w->skipped++;
		return true;
	}
	if (w->verbose) {
		printf("%u %s\n", w->step, show_op(op));
		fflush(stdout);
	}
	if (rule.err[0]) {
		ok = run_ruled(w, op, &rule, r);
		if (!ok)
			report(w, op, r);
		return ok;
	}
	mf_state_touch(w, op, &pre);
	clock_gettime(CLOCK_REALTIME, &window[0]);
	for (int side = 0; side < NSIDES; side++)
		mf_exec_op(w, side, op, &r[side]);
	clock_gettime(CLOCK_REALTIME, &window[1]);
	post = pre;
	mf_state_restat(w, &post);
	ok = compare_results(w, op, r, window);
	ok = compare_touched(w, op, &pre, &post, window) && ok;
	if (ok && !r[1].err && (op->kind == OP_UTIMENS || op->kind == OP_LUTIMENS))
		ok = compare_given_times(w, op, &r[0].named, &r[1].named);
	note_slot(w, op, &r[1]);
	if (!r[1].err) {
		for (int j = 0; j < pre.n; j++)
			if (pre.at[j].follow && !strcmp(pre.at[j].path, op->path))
				existed = pre.at[j].err[1] == 0;
		if (op->kind != OP_OPEN || !existed)
			mf_rules_learn(w, op);
		mf_nodes_learn(w, op);
	}
	ok = ok && mf_nodes_compare(w, &post);
	if (ok && w->slot[op->actor][op->slot].open && S_ISREG(w->slot[op->actor][op->slot].type) && !op->path[0])
		ok = mf_state_compare_fd(w, op);
	if (!ok)
		report(w, op, r);
	if (r[1].err)
		w->kind_err[op->kind]++;
	else
		w->kind_ok[op->kind]++;
	return ok;
}

static bool full_compare(struct world *w)
{
	w->why[0] = 0;
	if (mf_state_compare_tree(w))
		return true;
	printf("DIFFERENCE in the whole trees after step %u, seed %llu\n%s", w->step, (unsigned long long)w->seed,
		w->why);
	printf("  replay: difftest --seed %llu --ops %u --full 1%s DIR_A DIR_B\n", (unsigned long long)w->seed, w->step,
		w->maildir ? " --maildir" : "");
	return false;
}

static bool remount(struct world *w)
{
	w->why[0] = 0;
	if (mf_remount(w))
		return true;
	printf("DIFFERENCE between A and A mounted again, after step %u, seed %llu\n%s", w->step,
		(unsigned long long)w->seed, w->why);
	return false;
}

static bool run(struct world *w, unsigned ops, unsigned full)
{
	for (w->step = 1; w->step <= ops; w->step++) {
		struct op op;

		mf_gen_op(w, &op);
		if (!mf_nodes_choose(w, &op)) {
			w->skipped++;
			continue;
		}
		if (op.kind == OP_OPEN && w->slot[op.actor][op.slot].open) {
			struct op q = { .kind = OP_CLOSE, .actor = op.actor, .slot = op.slot, .node = op.node };
			int view = w->view;

			/* what is open may lie in another tmp than what is opened */
			mf_nodes_view(w, mf_nodes_viewer(w, w->slot[op.actor][op.slot].path, view));
			if (!run_step(w, &q))
				return false;
			mf_nodes_view(w, view);
		}
		if (!run_step(w, &op))
			return false;
		if (!w->use.fine_time)
			wait_for_tick();
		if (w->step % full != 0)
			continue;
		if (!full_compare(w))
			return false;
		if (w->remount && !(remount(w) && full_compare(w)))
			return false;
	}
	w->step = ops;
	return full_compare(w);
}

/* ---- setting up ---- */

static void probe(int dir, struct features *f)
{
	struct stat x, y;
	int fd = openat(dir, ".probe", O_RDWR | O_CREAT | O_EXCL, 0600);

	if (fd < 0) {
		perror("difftest: cannot create a file");
		exit(2);
	}
	f->user_xattr = fsetxattr(fd, "user.probe", "x", 1, 0) == 0;
	f->zero_range = fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 10) == 0;
	f->punch_hole = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 10) == 0;
	f->fine_time = true;
	for (int i = 0; i < 20; i++) {
		if (fstat(fd, &x) < 0 || fchmod(fd, 0600) < 0 || fstat(fd, &y) < 0)
			break;
		if (mf_ts_equal(x.st_ctim, y.st_ctim))
			f->fine_time = false;
	}
	close(fd);
	f->exchange = renameat2(dir, ".probe", dir, ".probe2", RENAME_NOREPLACE) == 0;
	unlinkat(dir, ".probe2", 0);
	unlinkat(dir, ".probe", 0);
}

static bool lacks(const char *list, const char *name)
{
	const char *at = list ? strstr(list, name) : NULL;

	return at && (at == list || at[-1] == ',') && (at[strlen(name)] == 0 || at[strlen(name)] == ',');
}

static bool settle(const char *name, bool a, bool b, const char *list, bool *use)
{
	*use = a && b;
	if (a == b)
		return true;
	printf("# %s: %s only\n", name, a ? "A" : "B");
	if (!a && !lacks(list, name)) {
		printf("DIFFERENCE: A has no %s (--lacks %s to go on without)\n", name, name);
		return false;
	}
	return true;
}

static bool settle_features(struct world *w, const char *list)
{
	const struct features *a = &w->feat[0], *b = &w->feat[1];
	bool ok = true;

	w->lacks_removed_dirs = lacks(list, "removed_dirs");

	ok = settle("user_xattr", a->user_xattr, b->user_xattr, list, &w->use.user_xattr) && ok;
	ok = settle("zero_range", a->zero_range, b->zero_range, list, &w->use.zero_range) && ok;
	ok = settle("punch_hole", a->punch_hole, b->punch_hole, list, &w->use.punch_hole) && ok;
	ok = settle("exchange", a->exchange, b->exchange, list, &w->use.exchange) && ok;
	w->use.fine_time = a->fine_time && b->fine_time;
	if (!w->use.fine_time)
		printf("# times are coarse on %s: each step waits for a tick\n", a->fine_time ? "B" : "A");
	return ok;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return remove(path);
}

static void remove_tree(const char *path)
{
	nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}

static void set_up(struct world *w)
{
	for (int side = 0; side < NSIDES; side++) {
		char path[4096];
		struct statfs fs;

		snprintf(path, sizeof(path), "%s/t", w->dir[side]);
		remove_tree(path);
		if (mkdir(path, 0777) < 0 || chmod(path, 0777) < 0) {
			fprintf(stderr, "difftest: mkdir %s: %s\n", path, strerror(errno));
			exit(2);
		}
		w->root[side] = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (w->root[side] < 0 || fstatfs(w->root[side], &fs) < 0) {
			perror(path);
			exit(2);
		}
		if (side == SIDE_A && w->rules == RULES_AUTO)
			w->rules = fs.f_type == FUSE_MAGIC ? RULES_MAILFS : RULES_POSIX;
		probe(w->root[side], &w->feat[side]);
		/* gives a directory the time of the name it loses, which may be the tick the directory already has */
		if (fs.f_type == TMPFS_MAGIC)
			w->feat[side].fine_time = false;
	}
	mf_nodes_set_up(w);
	if (w->rules == RULES_MAILFS) {
		char path[4096];

		snprintf(path, sizeof(path), "%s/backup", w->dir[SIDE_B]);
		remove_tree(path);
		if (mkdir(path, 0700) < 0 || (w->backup = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
			perror(path);
			exit(2);
		}
	}
}

static void tear_down(struct world *w)
{
	if (fchdir(w->home) < 0 || chroot(".") < 0)
		return;
	mf_nodes_tear_down(w);
	for (int side = 0; side < NSIDES; side++) {
		char path[4096];

		if (side == SIDE_B)
			close(w->root[side]);
		snprintf(path, sizeof(path), "%s/t", w->dir[side]);
		remove_tree(path);
		snprintf(path, sizeof(path), "%s/backup", w->dir[side]);
		remove_tree(path);
	}
}

static void print_summary(const struct world *w, unsigned ops)
{
	printf("ok: %u steps, seed %llu, %u entries at the end, %u left out\n", ops, (unsigned long long)w->seed,
		w->entries, w->skipped);
	if (!w->verbose)
		return;
	for (int k = 0; k < OP_SNAPFD; k++)
		printf("# %-12s ok %6u  refused %6u  by a rule %6u\n", mf_diff_kind_names[k], w->kind_ok[k],
			w->kind_err[k], w->ruled[k]);
}

static void usage(FILE *f)
{
	fputs("usage: difftest [options] DIR_A DIR_B\n"
	      "  --seed N      default: from the clock\n"
	      "  --ops N       steps (2000)\n"
	      "  --full N      compare the whole trees every N steps (200)\n"
	      "  --maildir     also make Maildirs and work in their cur, new, tmp\n"
	      "  --rules R     posix, mailfs; default: mailfs if A is a FUSE filesystem\n"
	      "  --lacks LIST  features A may do without: user_xattr,zero_range,punch_hole,exchange,\n"
	      "                removed_dirs (attributes of an open directory that was removed)\n"
	      "  --emulate     answer for A what the rules of mailfs say (to try the rules on a local filesystem)\n"
	      "  --perturb W[@N]  spoil the Nth operation of kind W on A: the test must fail (errno, data, readdata, "
	      "mode,\n"
	      "                nsec, mtime, name, xattr, lock, pos, nlink, mknod, suid, rename)\n"
	      "  --node DIR    what DIR_A is, on one more mount (up to 7 times)\n"
	      "  --remount CMD run this, which unmounts and mounts A, after every comparison of the whole trees\n"
	      "  --avoid LIST  leave out these operations, to look for what lies behind a known difference\n"
	      "  --keep        leave the trees\n"
	      "  --verbose     print every step\n",
		f);
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "seed", 1, NULL, 's' }, { "ops", 1, NULL, 'n' },
		{ "full", 1, NULL, 'f' }, { "maildir", 0, NULL, 'm' }, { "rules", 1, NULL, 'r' },
		{ "lacks", 1, NULL, 'l' }, { "emulate", 0, NULL, 'e' }, { "perturb", 1, NULL, 'p' },
		{ "keep", 0, NULL, 'k' }, { "avoid", 1, NULL, 'a' }, { "remount", 1, NULL, 'R' },
		{ "node", 1, NULL, 'N' }, { "verbose", 0, NULL, 'v' }, { "help", 0, NULL, 'h' }, { NULL, 0, NULL, 0 } };
	struct world *w = &world;
	unsigned ops = 2000, full = 200;
	const char *missing = NULL;
	bool ok, keep = false;
	int c;

	w->nodes = 1; /* DIR_A */
	w->seed = time(NULL) * 1000003ull % 1000000007ull ^ getpid();
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's':
			w->seed = strtoull(optarg, NULL, 0);
			break;
		case 'n':
			ops = strtoul(optarg, NULL, 0);
			break;
		case 'f':
			full = strtoul(optarg, NULL, 0);
			break;
		case 'm':
			w->maildir = true;
			break;
		case 'r':
			w->rules = !strcmp(optarg, "mailfs") ? RULES_MAILFS : RULES_POSIX;
			break;
		case 'l':
			missing = optarg;
			break;
		case 'e':
			w->emulate = true;
			break;
		case 'p':
			if (!mf_exec_set_perturb(optarg)) {
				usage(stderr);
				return 2;
			}
			break;
		case 'R':
			w->remount = optarg;
			break;
		case 'N':
			if (w->nodes < NNODES)
				w->node_dir[w->nodes++] = optarg;
			break;
		case 'a':
			for (int k = 0; k < OP_SNAPFD; k++)
				w->avoid[k] = lacks(optarg, mf_diff_kind_names[k]);
			break;
		case 'k':
			keep = true;
			break;
		case 'v':
			w->verbose = true;
			break;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (argc - optind != 2 || full == 0 || (w->remount && w->nodes > 1)) {
		usage(stderr);
		return 2;
	}
	if (geteuid() != 0) {
		fprintf(stderr, "difftest: must be root\n");
		return 77;
	}
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	umask(0);
	for (int side = 0; side < NSIDES; side++) {
		w->dir[side] = realpath(argv[optind + side], NULL);
		if (!w->dir[side]) {
			perror(argv[optind + side]);
			return 2;
		}
	}
	w->home = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	w->rng = w->seed;
	printf("# seed %llu, %u steps%s\n", (unsigned long long)w->seed, ops, w->maildir ? ", with Maildirs" : "");
	set_up(w);
	if (!settle_features(w, missing))
		return 1;
	if (mf_exec_start(w) < 0) {
		perror("difftest: fork");
		return 2;
	}
	ok = run(w, ops, full);
	mf_exec_stop(w);
	if (!keep)
		tear_down(w);
	if (ok)
		print_summary(w, ops);
	return ok ? 0 : 1;
}
