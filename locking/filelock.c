/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* locking/filelock.c - split, merge, conflict and queue.
 *
 * Per inode and space there are the owners in the order of their first lock (what F_GETLK names first, as in Linux),
 * each with its ranges by start, which never overlap; and the queue of parked requests. A call that weakens something
 * (unlock, downgrade, a request leaving the queue) notes which bytes, and wake() looks at the waiters of those only.
 */
#include "locking/filelock.h"

#include <errno.h>
#include <string.h>
#include <sys/file.h>

#define NSPACES 2

struct range {
	int64_t start, end; /* empty when end < start */
};

#define RANGE_NONE                                                                                                     \
	(struct range)                                                                                                 \
	{                                                                                                              \
		INT64_MAX, -1                                                                                          \
	}

struct owner_key {
	uint64_t owner;
	uint32_t incarnation;
};

/* What one owner holds in one space of one inode; exists only while that is something. */
struct group {
	struct owner_key key;
	GSequence *locks; /* of struct mf_filelock, by start */
	size_t nwrite;
	struct range hull; /* of all its locks: lets a search pass by at once */
	GList link;	   /* in space.order */
};

struct space {
	GHashTable *groups; /* owner_key -> group; NULL until the first */
	GQueue order;	    /* the same groups */
	GQueue waiters;	    /* of struct waiter */
	size_t nwrite;
};

struct inode {
	uint64_t ino;
	struct space space[NSPACES];
};

struct waiter {
	struct mf_filelock lock;
	struct inode *inode;
	void *cookie;
	bool holder; /* was one when it asked */
	GList link;  /* in space.waiters */
};

/* How many locks a process holds, wherever. */
struct process {
	uint64_t key;
	size_t held;
};

struct MfLockTable {
	GHashTable *inodes;    /* ino -> inode; only those with something in them */
	GHashTable *cookies;   /* cookie -> waiter */
	GHashTable *processes; /* process.key -> process */
	size_t max_locks;
	size_t nlocks;
};

static guint owner_hash(gconstpointer p)
{
	const struct owner_key *key = p;
	uint64_t h = (key->owner ^ ((uint64_t)key->incarnation << 32)) * 0x9e3779b97f4a7c15ULL;

	return (guint)(h >> 32);
}

static gboolean owner_equal(gconstpointer pa, gconstpointer pb)
{
	const struct owner_key *a = pa, *b = pb;

	return a->owner == b->owner && a->incarnation == b->incarnation;
}

static struct owner_key owner_of(const struct mf_filelock *lock)
{
	return (struct owner_key){ .owner = lock->owner, .incarnation = lock->incarnation };
}

static bool same_owner(const struct mf_filelock *a, const struct mf_filelock *b)
{
	return a->owner == b->owner && a->incarnation == b->incarnation;
}

static bool overlap(int64_t a_start, int64_t a_end, int64_t b_start, int64_t b_end)
{
	return a_start <= b_end && b_start <= a_end;
}

static bool conflict(const struct mf_filelock *a, const struct mf_filelock *b)
{
	return (a->type == MF_FILELOCK_WRITE || b->type == MF_FILELOCK_WRITE) &&
	       overlap(a->start, a->end, b->start, b->end) && !same_owner(a, b);
}

static void range_add(struct range *r, int64_t start, int64_t end)
{
	r->start = MIN(r->start, start);
	r->end = MAX(r->end, end);
}

/* ---- processes ---- */

static uint64_t process_key(const struct mf_filelock *lock)
{
	return (uint64_t)lock->incarnation << 32 | (uint32_t)lock->pid;
}

static void process_count(MfLockTable *t, const struct mf_filelock *lock, bool more)
{
	uint64_t key = process_key(lock);
	struct process *p = g_hash_table_lookup(t->processes, &key);

	if (!p) {
		p = g_new0(struct process, 1);
		p->key = key;
		g_hash_table_insert(t->processes, &p->key, p);
	}
	p->held += more ? 1 : (size_t)-1;
	if (p->held == 0)
		g_hash_table_remove(t->processes, &key);
}

/* ---- inodes and groups ---- */

static struct inode *inode_get(MfLockTable *t, uint64_t ino)
{
	struct inode *in = g_hash_table_lookup(t->inodes, &ino);

	if (!in) {
		in = g_new0(struct inode, 1);
		in->ino = ino;
		g_hash_table_insert(t->inodes, &in->ino, in);
	}
	return in;
}

static bool inode_is_idle(const struct inode *in)
{
	for (unsigned s = 0; s < NSPACES; s++)
		if (in->space[s].order.length > 0 || in->space[s].waiters.length > 0)
			return false;
	return true;
}

static void inode_free(gpointer p)
{
	struct inode *in = p;

	for (unsigned s = 0; s < NSPACES; s++)
		g_clear_pointer(&in->space[s].groups, g_hash_table_unref);
	g_free(in);
}

static void inode_reap(MfLockTable *t, struct inode *in)
{
	if (inode_is_idle(in))
		g_hash_table_remove(t->inodes, &in->ino);
}

static struct group *group_find(const struct space *sp, const struct mf_filelock *lock)
{
	struct owner_key key = owner_of(lock);

	return sp->groups ? g_hash_table_lookup(sp->groups, &key) : NULL;
}

static struct group *group_new(struct space *sp, const struct mf_filelock *lock)
{
	struct group *g = g_new0(struct group, 1);

	if (!sp->groups)
		sp->groups = g_hash_table_new(owner_hash, owner_equal);
	g->key = owner_of(lock);
	g->locks = g_sequence_new(g_free);
	g->hull = RANGE_NONE;
	g->link.data = g;
	g_queue_push_tail_link(&sp->order, &g->link);
	g_hash_table_insert(sp->groups, &g->key, g);
	return g;
}

/* After a change: new hull, or the end of an empty group. */
static void group_settle(struct space *sp, struct group *g)
{
	const struct mf_filelock *first, *last;

	if (g_sequence_is_empty(g->locks)) {
		g_hash_table_remove(sp->groups, &g->key);
		g_queue_unlink(&sp->order, &g->link);
		g_sequence_free(g->locks);
		g_free(g);
		return;
	}
	first = g_sequence_get(g_sequence_get_begin_iter(g->locks));
	last = g_sequence_get(g_sequence_iter_prev(g_sequence_get_end_iter(g->locks)));
	g->hull.start = first->start;
	g->hull.end = last->end;
}

static gint by_start(gconstpointer pa, gconstpointer pb, gpointer data)
{
	const struct mf_filelock *a = pa, *b = pb;

	return a->start < b->start ? -1 : a->start > b->start;
}

/* The only two places where a held range begins and ends. */
static void lock_add(MfLockTable *t, struct space *sp, struct group *g, const struct mf_filelock *lock)
{
	g_sequence_insert_sorted(g->locks, g_memdup2(lock, sizeof(*lock)), by_start, NULL);
	g->nwrite += lock->type == MF_FILELOCK_WRITE;
	sp->nwrite += lock->type == MF_FILELOCK_WRITE;
	t->nlocks++;
	process_count(t, lock, true);
}

static void lock_remove(MfLockTable *t, struct space *sp, struct group *g, GSequenceIter *it)
{
	const struct mf_filelock *lock = g_sequence_get(it);

	g->nwrite -= lock->type == MF_FILELOCK_WRITE;
	sp->nwrite -= lock->type == MF_FILELOCK_WRITE;
	t->nlocks--;
	process_count(t, lock, false);
	g_sequence_remove(it);
}

/* The first lock of the group that overlaps [start, ...] or ends right before it; maybe one far behind. */
static GSequenceIter *group_seek(struct group *g, int64_t start)
{
	struct mf_filelock key = { .start = start > 0 ? start - 1 : 0 };
	GSequenceIter *it = g_sequence_search(g->locks, &key, by_start, NULL), *prev;
	const struct mf_filelock *l;

	if (g_sequence_iter_is_begin(it))
		return it;
	prev = g_sequence_iter_prev(it);
	l = g_sequence_get(prev);
	return l->end >= key.start ? prev : it;
}

/* ---- conflicts ---- */

/* The first held lock that keeps @req from being granted, in the order in which Linux looks. */
static const struct mf_filelock *held_conflict(const struct space *sp, const struct mf_filelock *req)
{
	const struct owner_key own = owner_of(req);

	if (req->type == MF_FILELOCK_READ && sp->nwrite == 0)
		return NULL;
	for (const GList *link = sp->order.head; link; link = link->next) {
		struct group *g = link->data;

		if (!overlap(g->hull.start, g->hull.end, req->start, req->end) ||
			(req->type == MF_FILELOCK_READ && g->nwrite == 0) || owner_equal(&g->key, &own))
			continue;
		for (GSequenceIter *it = group_seek(g, req->start); !g_sequence_iter_is_end(it);
			it = g_sequence_iter_next(it)) {
			const struct mf_filelock *l = g_sequence_get(it);

			if (l->start > req->end)
				break;
			if (conflict(l, req))
				return l;
		}
	}
	return NULL;
}

/* Does a conflicting request wait in front of @until (NULL: anywhere)? */
static bool queued_conflict(const struct space *sp, const struct mf_filelock *req, const GList *until)
{
	for (const GList *link = sp->waiters.head; link != until; link = link->next) {
		const struct waiter *w = link->data;

		if (conflict(&w->lock, req))
			return true;
	}
	return false;
}

/* May somebody be waiting for this requester? Then it must not wait for those who merely wait. */
static bool is_holder(MfLockTable *t, const struct space *sp, const struct mf_filelock *req)
{
	uint64_t key = process_key(req);

	return group_find(sp, req) || g_hash_table_contains(t->processes, &key);
}

/* ---- changes ---- */

/* Gives @req's range its type for its owner. Others' locks have been looked at. What got weaker is added to *freed.
 * 0, or -ENOLCK and nothing has changed. */
static int apply(MfLockTable *t, struct space *sp, const struct mf_filelock *req, struct range *freed)
{
	const int64_t after = req->end < INT64_MAX ? req->end + 1 : INT64_MAX;
	struct group *g = group_find(sp, req);
	struct mf_filelock merged = *req;
	size_t removed = 0, added = req->type != MF_FILELOCK_UNLOCK;
	GSequenceIter *first = NULL, *it;

	/* count first, so that a full table refuses before anything has changed */
	if (g) {
		first = group_seek(g, req->start);
		for (it = first; !g_sequence_iter_is_end(it); it = g_sequence_iter_next(it)) {
			const struct mf_filelock *l = g_sequence_get(it);

			if (l->start > after)
				break;
			if (l->type == req->type) {
				removed++;
			} else if (overlap(l->start, l->end, req->start, req->end)) {
				removed++;
				added += (l->start < req->start) + (l->end > req->end);
			}
		}
	}
	if (added > removed && (t->nlocks >= t->max_locks || added - removed > t->max_locks - t->nlocks))
		return -ENOLCK;
	if (!g && req->type == MF_FILELOCK_UNLOCK)
		return 0;
	if (!g) {
		g = group_new(sp, req);
		first = g_sequence_get_end_iter(g->locks);
	}

	for (it = first; !g_sequence_iter_is_end(it);) {
		GSequenceIter *next = g_sequence_iter_next(it);
		struct mf_filelock *l = g_sequence_get(it);

		if (l->start > after)
			break;
		if (l->type == req->type) {
			/* touching or overlapping: one lock from now on */
			merged.start = MIN(merged.start, l->start);
			merged.end = MAX(merged.end, l->end);
			lock_remove(t, sp, g, it);
		} else if (overlap(l->start, l->end, req->start, req->end)) {
			struct mf_filelock right = *l;

			if (req->type < l->type)
				range_add(freed, MAX(l->start, req->start), MIN(l->end, req->end));
			if (l->start < req->start)
				l->end = req->start - 1;
			else
				lock_remove(t, sp, g, it);
			if (right.end > req->end) {
				right.start = req->end + 1;
				lock_add(t, sp, g, &right);
			}
		}
		it = next;
	}
	if (req->type != MF_FILELOCK_UNLOCK)
		lock_add(t, sp, g, &merged);
	group_settle(sp, g);
	return 0;
}

static void waiter_finish(MfLockTable *t, struct waiter *w, int result, GArray *done)
{
	struct mf_filelock_done d = { .cookie = w->cookie, .result = result };

	g_queue_unlink(&w->inode->space[w->lock.space].waiters, &w->link);
	g_hash_table_remove(t->cookies, w->cookie);
	g_free(w);
	if (done)
		g_array_append_val(done, d);
}

/* Serves the waiters whose way may be free now that @freed got weaker. */
static void wake(MfLockTable *t, struct space *sp, struct range freed, GArray *done)
{
	while (freed.start <= freed.end) {
		struct range again = RANGE_NONE;

		for (GList *link = sp->waiters.head, *next; link; link = next) {
			struct waiter *w = link->data;
			int r;

			next = link->next;
			if (!overlap(w->lock.start, w->lock.end, freed.start, freed.end) ||
				held_conflict(sp, &w->lock) ||
				(queued_conflict(sp, &w->lock, link) && !(w->holder && is_holder(t, sp, &w->lock))))
				continue;
			/* serving one may free others before it: a granted read lock can be a downgrade */
			r = apply(t, sp, &w->lock, &again);
			if (r < 0)
				range_add(&again, w->lock.start, w->lock.end);
			waiter_finish(t, w, r, done);
		}
		freed = again;
	}
}

static bool is_valid(const struct mf_filelock *req)
{
	return req->space < NSPACES && req->type <= MF_FILELOCK_WRITE && req->start >= 0 && req->end >= req->start &&
	       (req->space == MF_FILELOCK_POSIX || (req->start == 0 && req->end == INT64_MAX));
}

/* @cookie NULL: do not wait. */
static int request(MfLockTable *t, const struct mf_filelock *req, void *cookie, GArray *done)
{
	struct range freed = RANGE_NONE;
	struct inode *in;
	struct space *sp;
	bool holder;
	int r;

	if (!is_valid(req))
		return -EINVAL;
	in = inode_get(t, req->ino);
	sp = &in->space[req->space];
	/* asked before a flock conversion gives up what makes it a holder */
	holder = is_holder(t, sp, req);

	if (req->space == MF_FILELOCK_FLOCK && req->type != MF_FILELOCK_UNLOCK) {
		struct group *g = group_find(sp, req);

		if (g) {
			const struct mf_filelock *old = g_sequence_get(g_sequence_get_begin_iter(g->locks));
			struct mf_filelock drop = *req;

			if (old->type == req->type)
				return 0;
			drop.type = MF_FILELOCK_UNLOCK;
			r = apply(t, sp, &drop, &freed);
			g_assert(r == 0);
		}
	}

	if (req->type != MF_FILELOCK_UNLOCK && held_conflict(sp, req)) {
		r = -EAGAIN;
	} else if (req->type != MF_FILELOCK_UNLOCK && cookie && !holder && queued_conflict(sp, req, NULL)) {
		r = -EAGAIN;
	} else {
		r = apply(t, sp, req, &freed);
	}
	if (r == -EAGAIN && cookie) {
		struct waiter *w = g_new0(struct waiter, 1);

		w->lock = *req;
		w->inode = in;
		w->cookie = cookie;
		w->holder = holder;
		w->link.data = w;
		g_queue_push_tail_link(&sp->waiters, &w->link);
		g_hash_table_insert(t->cookies, cookie, w);
		r = MF_FILELOCK_PARKED;
	}
	wake(t, sp, freed, done);
	inode_reap(t, in);
	return r;
}

int mf_filelock_set(MfLockTable *table, const struct mf_filelock *req, GArray *done)
{
	g_assert(done);
	return request(table, req, NULL, done);
}

int mf_filelock_wait(MfLockTable *table, const struct mf_filelock *req, void *cookie, GArray *done)
{
	g_assert(done && cookie && !g_hash_table_contains(table->cookies, cookie));
	return request(table, req, cookie, done);
}

bool mf_filelock_test(MfLockTable *table, const struct mf_filelock *req, struct mf_filelock *ret_holder)
{
	const struct inode *in = g_hash_table_lookup(table->inodes, &req->ino);
	const struct mf_filelock *l;

	if (!in || !is_valid(req) || req->type == MF_FILELOCK_UNLOCK)
		return false;
	l = held_conflict(&in->space[req->space], req);
	if (!l)
		return false;
	*ret_holder = *l;
	return true;
}

bool mf_filelock_cancel(MfLockTable *table, void *cookie, GArray *done)
{
	struct waiter *w = g_hash_table_lookup(table->cookies, cookie);
	struct range freed;
	struct inode *in;
	struct space *sp;

	g_assert(done);
	if (!w)
		return false;
	in = w->inode;
	sp = &in->space[w->lock.space];
	freed = (struct range){ w->lock.start, w->lock.end };
	waiter_finish(table, w, 0, NULL);
	wake(table, sp, freed, done);
	inode_reap(table, in);
	return true;
}

/* ---- dropping ---- */

/* Drops the locks of @g, or only those taken through *fh. The group may be gone afterwards. */
static void group_drop(MfLockTable *t, struct space *sp, struct group *g, const uint64_t *fh, struct range *freed)
{
	for (GSequenceIter *it = g_sequence_get_begin_iter(g->locks), *next; !g_sequence_iter_is_end(it); it = next) {
		const struct mf_filelock *l = g_sequence_get(it);

		next = g_sequence_iter_next(it);
		if (fh && l->fh != *fh)
			continue;
		range_add(freed, l->start, l->end);
		lock_remove(t, sp, g, it);
	}
	group_settle(sp, g);
}

/* Drops in one space what @incarnation has there, or only what went through *fh; parked requests end with @result. */
static void space_drop(
	MfLockTable *t, struct space *sp, uint32_t incarnation, const uint64_t *fh, int result, GArray *done)
{
	struct range freed = RANGE_NONE;

	for (GList *link = sp->waiters.head, *next; link; link = next) {
		struct waiter *w = link->data;

		next = link->next;
		if (w->lock.incarnation != incarnation || (fh && w->lock.fh != *fh))
			continue;
		range_add(&freed, w->lock.start, w->lock.end);
		waiter_finish(t, w, result, done);
	}
	for (GList *link = sp->order.head, *next; link; link = next) {
		struct group *g = link->data;

		next = link->next;
		if (g->key.incarnation == incarnation)
			group_drop(t, sp, g, fh, &freed);
	}
	wake(t, sp, freed, done);
}

void mf_filelock_drop_owner(MfLockTable *table, uint64_t ino, uint32_t incarnation, uint64_t owner, GArray *done)
{
	struct mf_filelock who = { .owner = owner, .incarnation = incarnation };
	struct inode *in = g_hash_table_lookup(table->inodes, &ino);
	struct range freed = RANGE_NONE;
	struct space *sp;
	struct group *g;

	g_assert(done);
	if (!in)
		return;
	sp = &in->space[MF_FILELOCK_POSIX];
	g = group_find(sp, &who);
	if (g)
		group_drop(table, sp, g, NULL, &freed);
	wake(table, sp, freed, done);
	inode_reap(table, in);
}

void mf_filelock_drop_handle(MfLockTable *table, uint64_t ino, uint32_t incarnation, uint64_t fh, GArray *done)
{
	struct inode *in = g_hash_table_lookup(table->inodes, &ino);

	g_assert(done);
	if (!in)
		return;
	for (unsigned s = 0; s < NSPACES; s++)
		space_drop(table, &in->space[s], incarnation, &fh, -EINTR, done);
	inode_reap(table, in);
}

void mf_filelock_drop_incarnation(MfLockTable *table, uint32_t incarnation, GArray *done)
{
	GHashTableIter iter;
	gpointer p;

	g_assert(done);
	g_hash_table_iter_init(&iter, table->inodes);
	while (g_hash_table_iter_next(&iter, NULL, &p)) {
		struct inode *in = p;

		for (unsigned s = 0; s < NSPACES; s++)
			space_drop(table, &in->space[s], incarnation, NULL, -ESHUTDOWN, done);
		if (inode_is_idle(in))
			g_hash_table_iter_remove(&iter);
	}
}

void mf_filelock_drop_node(MfLockTable *table, uint64_t ino, uint32_t incarnation, GArray *done)
{
	struct inode *in = g_hash_table_lookup(table->inodes, &ino);

	g_assert(done);
	if (!in)
		return;
	for (unsigned s = 0; s < NSPACES; s++)
		space_drop(table, &in->space[s], incarnation, NULL, -ESHUTDOWN, done);
	inode_reap(table, in);
}

void mf_filelock_drop_inode(MfLockTable *table, uint64_t ino, int result, GArray *done)
{
	struct inode *in = g_hash_table_lookup(table->inodes, &ino);
	struct range freed = RANGE_NONE;

	g_assert(done && result < 0);
	if (!in)
		return;
	for (unsigned s = 0; s < NSPACES; s++) {
		struct space *sp = &in->space[s];

		while (sp->waiters.head)
			waiter_finish(table, sp->waiters.head->data, result, done);
		while (sp->order.head)
			group_drop(table, sp, sp->order.head->data, NULL, &freed);
	}
	inode_reap(table, in);
}

int mf_filelock_import(MfLockTable *table, const struct mf_filelock *lock)
{
	struct range freed = RANGE_NONE;
	struct mf_filelock other;
	struct inode *in;
	int r;

	if (!is_valid(lock) || lock->type == MF_FILELOCK_UNLOCK || mf_filelock_test(table, lock, &other))
		return -EBADMSG;
	in = inode_get(table, lock->ino);
	r = apply(table, &in->space[lock->space], lock, &freed);
	inode_reap(table, in);
	return r;
}

/* ---- looking ---- */

static void inode_foreach(const struct inode *in, mf_filelock_func func, void *data)
{
	for (unsigned s = 0; s < NSPACES; s++) {
		const struct space *sp = &in->space[s];

		for (const GList *link = sp->order.head; link; link = link->next) {
			const struct group *g = link->data;

			for (GSequenceIter *it = g_sequence_get_begin_iter(g->locks); !g_sequence_iter_is_end(it);
				it = g_sequence_iter_next(it))
				func(g_sequence_get(it), NULL, data);
		}
		for (const GList *link = sp->waiters.head; link; link = link->next)
			func(&((const struct waiter *)link->data)->lock, ((const struct waiter *)link->data)->cookie, data);
	}
}

void mf_filelock_foreach(MfLockTable *table, uint64_t ino, mf_filelock_func func, void *data)
{
	GHashTableIter iter;
	gpointer p;

	if (ino != 0) {
		const struct inode *in = g_hash_table_lookup(table->inodes, &ino);

		if (in)
			inode_foreach(in, func, data);
		return;
	}
	g_hash_table_iter_init(&iter, table->inodes);
	while (g_hash_table_iter_next(&iter, NULL, &p))
		inode_foreach(p, func, data);
}

size_t mf_filelock_held(const MfLockTable *table)
{
	return table->nlocks;
}

size_t mf_filelock_waiting(const MfLockTable *table)
{
	return g_hash_table_size(table->cookies);
}

size_t mf_filelock_inodes(const MfLockTable *table)
{
	return g_hash_table_size(table->inodes);
}

/* ---- the table ---- */

MfLockTable *mf_filelock_new(size_t max_locks)
{
	MfLockTable *t = g_new0(MfLockTable, 1);

	t->inodes = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, inode_free);
	t->cookies = g_hash_table_new(NULL, NULL);
	t->processes = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, g_free);
	t->max_locks = max_locks;
	return t;
}

void mf_filelock_set_max(MfLockTable *table, size_t max_locks)
{
	table->max_locks = max_locks;
}

MfLockTable *mf_filelock_free(MfLockTable *t)
{
	g_autoptr(GArray) none = NULL;

	if (!t)
		return NULL;
	g_assert(g_hash_table_size(t->cookies) == 0);
	none = mf_filelock_done_new();
	while (g_hash_table_size(t->inodes) > 0) {
		GHashTableIter iter;
		gpointer p;

		g_hash_table_iter_init(&iter, t->inodes);
		g_hash_table_iter_next(&iter, NULL, &p);
		mf_filelock_drop_inode(t, ((struct inode *)p)->ino, -EIO, none);
	}
	g_hash_table_unref(t->inodes);
	g_hash_table_unref(t->cookies);
	g_hash_table_unref(t->processes);
	g_free(t);
	return NULL;
}

GArray *mf_filelock_done_new(void)
{
	return g_array_new(FALSE, FALSE, sizeof(struct mf_filelock_done));
}

/* ---- the kernel's forms ---- */

int mf_filelock_from_flock(const struct flock *fl, struct mf_filelock *lock)
{
	uint8_t type;

	switch (fl->l_type) {
	case F_RDLCK:
		type = MF_FILELOCK_READ;
		break;
	case F_WRLCK:
		type = MF_FILELOCK_WRITE;
		break;
	case F_UNLCK:
		type = MF_FILELOCK_UNLOCK;
		break;
	default:
		return -EINVAL;
	}
	if (fl->l_whence != SEEK_SET || fl->l_start < 0 || fl->l_len < 0 ||
		(fl->l_len > 0 && fl->l_len - 1 > INT64_MAX - fl->l_start))
		return -EINVAL;
	lock->type = type;
	lock->start = fl->l_start;
	lock->end = fl->l_len == 0 ? INT64_MAX : fl->l_start + (fl->l_len - 1);
	return 0;
}

int mf_filelock_from_op(int op, struct mf_filelock *lock, bool *ret_wait)
{
	uint8_t type;

	switch (op & ~LOCK_NB) {
	case LOCK_SH:
		type = MF_FILELOCK_READ;
		break;
	case LOCK_EX:
		type = MF_FILELOCK_WRITE;
		break;
	case LOCK_UN:
		type = MF_FILELOCK_UNLOCK;
		break;
	default:
		return -EINVAL;
	}
	lock->space = MF_FILELOCK_FLOCK;
	lock->type = type;
	lock->start = 0;
	lock->end = INT64_MAX;
	*ret_wait = !(op & LOCK_NB);
	return 0;
}

void mf_filelock_to_flock(const struct mf_filelock *lock, struct flock *ret_fl)
{
	memset(ret_fl, 0, sizeof(*ret_fl));
	ret_fl->l_type = lock->type == MF_FILELOCK_WRITE ? F_WRLCK : lock->type == MF_FILELOCK_READ ? F_RDLCK : F_UNLCK;
	ret_fl->l_whence = SEEK_SET;
	ret_fl->l_start = lock->start;
	ret_fl->l_len = lock->end == INT64_MAX ? 0 : lock->end - lock->start + 1;
	ret_fl->l_pid = lock->pid;
}
