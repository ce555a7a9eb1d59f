/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "locking/node.h"

#include "locking/evict.h"
#include "locking/members.h"
#include "store/notice.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define JOIN_TRIES 20
#define WARDEN_US G_USEC_PER_SEC
#define MISSED_MS 90000 /* a node that is away for so long is declared lost, even if nobody wants what it holds */
#define REPORT_SHARE 500 /* of all the time, one part for reports */

struct MfNode {
	MfPool *pool;
	const struct mf_conf *conf;
	MfWatch *watch;	    /* protected by check */
	char *oid;	    /* node.<incarnation> */
	atomic_uint incarnation;
	unsigned timeout_ms;
	struct mf_member self;
	atomic_bool fenced;
	atomic_bool rejoining;
	atomic_int_fast64_t confirmed_ms; /* CLOCK_BOOTTIME of the last ping known to be answered */
	GMutex check;			  /* held across RADOS: whoever needs the answer has to wait for it anyway */
	GMutex burying;			  /* the same */
	GMutex state;			  /* protects members, unswept and the warden's */
	GHashTable *members;		  /* incarnation -> enum mf_member_state, as far as we know and have waited for */
	char *members_version;
	GArray *unswept;
	GMutex listening;	 /* held while the listener runs */
	mf_node_listener listener; /* protected by listening */
	void *listener_arg;
	GMutex reporting;	   /* held while the reporter runs */
	mf_node_reporter reporter; /* protected by reporting */
	void *reporter_arg;
	int64_t report_due; /* protected by reporting; monotonic us */
	GMutex answering; /* innermost, and never held for long: a thread of the pool waits for it */
	GBytes *report;	  /* protected by answering; what the reporter said last */
	bool stopping;
	uint32_t missed; /* the warden's: whom nobody watches any more, and since when */
	int64_t missed_ms;
	GCond warden_cond;
	GThread *warden;
};

static int64_t boottime_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

/* ---- which process is it ---- */

/* Field 22 of proc(5) stat; the command name before it may hold spaces and parentheses. 0: no such process. */
static uint64_t process_start(uint32_t pid)
{
	g_autofree char *path = g_strdup_printf("/proc/%u/stat", pid);
	g_autofree char *text = NULL;
	uint64_t ticks = 0;

	if (!g_file_get_contents(path, &text, NULL, NULL))
		return 0;
	const char *p = strrchr(text, ')');
	for (int field = 3; p && field <= 22; field++)
		p = strchr(p + 1, ' ');
	if (!p || sscanf(p, "%" SCNu64, &ticks) != 1)
		return 0;
	return ticks;
}

static void fill_self(struct mf_member *self)
{
	struct stat st;
	char *boot_id = NULL;

	if (g_file_get_contents("/proc/sys/kernel/random/boot_id", &boot_id, NULL, NULL))
		self->boot_id = g_strchomp(boot_id);
	else
		self->boot_id = g_strdup("");
	self->pid_ns = stat("/proc/self/ns/pid", &st) == 0 ? st.st_ino : 0;
	self->pid = getpid();
	self->start_ticks = process_start(self->pid);
}

/* A process of this boot and pid namespace that is not there any more needs no watch to time out. */
static bool surely_dead(const struct mf_member *self, const struct mf_member *other)
{
	return self->boot_id[0] && strcmp(self->boot_id, other->boot_id) == 0 && self->pid_ns == other->pid_ns &&
	       other->start_ticks != 0 && process_start(other->pid) != other->start_ticks;
}

/* ---- the inbox ---- */

static void on_message(const void *data, size_t len, void *arg)
{
	MfNode *node = arg;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&node->listening);
	if (node->listener)
		node->listener(data, len, node->listener_arg);
}

static void tell(MfNode *node, const struct mf_notice *notice)
{
	g_autoptr(GByteArray) bytes = mf_notice_encode(notice);

	on_message(bytes->data, bytes->len, node);
}

void mf_node_listen(MfNode *node, mf_node_listener listener, void *arg)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&node->listening);

	node->listener = listener;
	node->listener_arg = arg;
}

static GBytes *on_ask(void *arg)
{
	MfNode *node = arg;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&node->answering);
	return node->report ? g_bytes_ref(node->report) : NULL;
}

/* A report of a large node may hold up others in it for milliseconds: then it is made less often. */
static void report(MfNode *node)
{
	GBytes *report = NULL;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&node->reporting);
	int64_t begin = g_get_monotonic_time();
	if (node->reporter && begin < node->report_due)
		return;
	if (node->reporter)
		report = node->reporter(node->reporter_arg);
	node->report_due = begin + (g_get_monotonic_time() - begin) * REPORT_SHARE;
	g_mutex_lock(&node->answering);
	GBytes *former = node->report;
	node->report = report;
	g_mutex_unlock(&node->answering);
	if (former)
		g_bytes_unref(former);
}

void mf_node_report(MfNode *node, mf_node_reporter reporter, void *arg)
{
	g_mutex_lock(&node->reporting);
	node->reporter = reporter;
	node->reporter_arg = arg;
	node->report_due = 0;
	g_mutex_unlock(&node->reporting);
	report(node);
}

void mf_node_send(MfNode *node, uint32_t incarnation, const void *data, size_t len, mf_send_done done, void *arg)
{
	g_autofree char *oid = mf_oid_node(incarnation);

	mf_pool_send(node->pool, oid, 1, data, len, done, arg);
}

/* ---- what became of others ---- */

static void learn(MfNode *node, uint32_t inc, enum mf_member_state state)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&node->state);

	g_hash_table_replace(node->members, GUINT_TO_POINTER(inc), GUINT_TO_POINTER(state));
}

enum mf_holder mf_node_holder(MfNode *node, uint32_t incarnation)
{
	if (incarnation == node->incarnation)
		return MF_HOLDER_SELF;
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&node->state);
	switch (GPOINTER_TO_UINT(g_hash_table_lookup(node->members, GUINT_TO_POINTER(incarnation)))) {
	case MF_MEMBER_CLEAN:
		return MF_HOLDER_CLEAN;
	case MF_MEMBER_LOST:
		return MF_HOLDER_LOST;
	default: /* one that we have not met may live, too */
		return MF_HOLDER_LIVE;
	}
}

unsigned mf_node_n_lost(MfNode *node)
{
	GHashTableIter iter;
	gpointer value;
	unsigned n = 0;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&node->state);
	g_hash_table_iter_init(&iter, node->members);
	while (g_hash_table_iter_next(&iter, NULL, &value))
		n += GPOINTER_TO_UINT(value) == MF_MEMBER_LOST;
	return n;
}

/* Its writes end here. 1: it is swept, too. */
static int cut_off(MfNode *node, uint32_t inc, const struct mf_member *member)
{
	int r = mf_evict_cut_off(node->pool, inc, member);

	if (r >= 0)
		learn(node, inc, MF_MEMBER_LOST);
	return r;
}

static bool is_dead(const struct mf_member *member, void *arg)
{
	return surely_dead(arg, member);
}

/* One look at the record and one step. 1: look again. */
static int bury_step(MfNode *node, uint32_t inc, bool evict)
{
	struct mf_ending ending = { .incarnation = inc, .is_dead = is_dead, .arg = &node->self };
	int r = mf_evict_step(node->pool, &ending, evict);

	if (r == 0)
		learn(node, inc, ending.state);
	if (ending.ours) {
		g_mutex_lock(&node->state);
		g_array_append_val(node->unswept, inc);
		g_mutex_unlock(&node->state);
	}
	return r;
}

int mf_node_bury(MfNode *node, uint32_t inc, bool evict)
{
	int r = 1;

	/* Who joins anew ends its own former life, unless others have. */
	if (inc == node->incarnation && !node->rejoining)
		return -EAGAIN;
	g_mutex_lock(&node->burying);
	enum mf_holder known = mf_node_holder(node, inc);
	if (known == MF_HOLDER_CLEAN || known == MF_HOLDER_LOST)
		r = 0;
	for (int i = 0; r == 1 && i < JOIN_TRIES; i++)
		r = bury_step(node, inc, evict);
	g_mutex_unlock(&node->burying);
	if (r == 0)
		tell(node, &(struct mf_notice){ .kind = MF_NOTICE_MEMBERS, .from = node->incarnation });
	return r == 1 ? -ETIMEDOUT : r;
}

GArray *mf_node_live(MfNode *node)
{
	GArray *list = g_array_new(false, false, sizeof(uint32_t));
	GHashTableIter iter;
	gpointer key, value;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&node->state);
	g_hash_table_iter_init(&iter, node->members);
	while (g_hash_table_iter_next(&iter, &key, &value)) {
		uint32_t inc = GPOINTER_TO_UINT(key);
		if (GPOINTER_TO_UINT(value) == MF_MEMBER_LIVE || GPOINTER_TO_UINT(value) == MF_MEMBER_EVICTING)
			g_array_append_val(list, inc);
	}
	return list;
}

/* Takes over what `members' says. Those that are lost now must be waited for by whoever meets them: mf_node_bury(). */
static void take_members(MfNode *node, const struct mf_members *members)
{
	GHashTableIter iter;
	gpointer key, value;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&node->state);
	g_free(node->members_version);
	node->members_version = g_strdup(members->version);
	g_hash_table_iter_init(&iter, members->records);
	while (g_hash_table_iter_next(&iter, &key, &value)) {
		uint8_t state = ((struct mf_member *)value)->state;
		if (state == MF_MEMBER_LOST &&
			GPOINTER_TO_UINT(g_hash_table_lookup(node->members, key)) != MF_MEMBER_LOST)
			state = MF_MEMBER_EVICTING;
		g_hash_table_replace(node->members, key, GUINT_TO_POINTER(state));
	}
}

static int compare_incarnations(gconstpointer a, gconstpointer b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static bool is_evicting(MfNode *node, uint32_t inc)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&node->state);

	return GPOINTER_TO_UINT(g_hash_table_lookup(node->members, GUINT_TO_POINTER(inc))) == MF_MEMBER_EVICTING;
}

/* Those that ended elsewhere, and the one that comes after us in a ring of all: each node is watched by one. */
static void look_after_others(MfNode *node)
{
	g_autoptr(GArray) list = mf_node_live(node);
	uint32_t next = 0;

	g_array_sort(list, compare_incarnations);
	for (unsigned i = 0; i < list->len && !next; i++) {
		uint32_t inc = g_array_index(list, uint32_t, i);
		if (inc > node->incarnation)
			next = inc;
	}
	if (!next && list->len > 0)
		next = g_array_index(list, uint32_t, 0);
	if (next && next != node->incarnation) {
		g_autofree char *oid = mf_oid_node(next);
		unsigned alive = 0, silent = 0;
		int r = mf_pool_ping(node->pool, oid, 1, &alive, &silent);
		bool away = r == -ENOENT || (r == 0 && alive == 0 && silent == 0);
		/* One that was only stopped goes on as if nothing had been, unless somebody needs what it holds. Whoever evicts
		 * one may not be a node: then nobody else would sweep what it leaves. */
		if (away && is_evicting(node, next)) {
			mf_node_bury(node, next, false);
		} else if (!away || node->missed != next) {
			if (away)
				tell(node, &(struct mf_notice){ .kind = MF_NOTICE_AWAY, .from = node->incarnation, .arg = next });
			node->missed = away ? next : 0;
			node->missed_ms = boottime_ms();
		} else if (r == -ENOENT || boottime_ms() - node->missed_ms > MISSED_MS) {
			/* Without its object it cannot go on; only its last word is missing. */
			mf_node_bury(node, next, false);
		}
	}
}

static void refresh(MfNode *node)
{
	g_autoptr(MfRop) rop = mf_rop_new();
	struct mf_members members;

	mf_rop_xattrs(rop);
	int r = mf_pool_read(node->pool, MF_POOL_META, MF_OID_MEMBERS, rop);
	if (r == -ESHUTDOWN)
		node->fenced = true;
	if (r < 0)
		return;
	GBytes *version = mf_rop_get_xattr(rop, MF_XATTR_VERSION);
	g_mutex_lock(&node->state);
	bool same = version && node->members_version && g_bytes_get_size(version) == strlen(node->members_version) &&
		    memcmp(g_bytes_get_data(version, NULL), node->members_version, g_bytes_get_size(version)) == 0;
	g_mutex_unlock(&node->state);
	if (same || mf_members_read(node->pool, &members) < 0)
		return;
	take_members(node, &members);
	const struct mf_member *own = g_hash_table_lookup(members.records, GUINT_TO_POINTER(node->incarnation));
	if (!own || own->state != MF_MEMBER_LIVE)
		node->fenced = true;
	GHashTableIter iter;
	gpointer key, value;
	g_hash_table_iter_init(&iter, members.records);
	while (g_hash_table_iter_next(&iter, &key, &value)) {
		if (((struct mf_member *)value)->state == MF_MEMBER_LOST &&
			mf_node_holder(node, GPOINTER_TO_UINT(key)) != MF_HOLDER_LOST)
			mf_node_bury(node, GPOINTER_TO_UINT(key), false);
	}
	mf_members_clear(&members);
	tell(node, &(struct mf_notice){ .kind = MF_NOTICE_MEMBERS, .from = node->incarnation });
}

static void *warden(void *arg)
{
	MfNode *node = arg;

	g_mutex_lock(&node->state);
	while (!node->stopping) {
		g_cond_wait_until(&node->warden_cond, &node->state, g_get_monotonic_time() + WARDEN_US);
		if (node->stopping || node->fenced)
			continue;
		g_mutex_unlock(&node->state);
		report(node);
		refresh(node);
		look_after_others(node);
		g_mutex_lock(&node->state);
	}
	g_mutex_unlock(&node->state);
	return NULL;
}

/* ---- joining ---- */

static int refuse(uint32_t inc, const struct mf_member *member, char **ret_error)
{
	g_autoptr(GDateTime) since = g_date_time_new_from_unix_local(member->since / 1000000000);
	g_autofree char *when = since ? g_date_time_format(since, "%F %T") : g_strdup("?");

	*ret_error = g_strdup_printf("a node '%s' serves this filesystem already (on %s since %s, incarnation %u)",
		member->node, member->mountpoint, when, inc);
	return -EBUSY;
}

/* A node has one life at a time: an earlier one of our name must be over. */
static int end_namesakes(MfNode *node, struct mf_members *members, char **ret_error)
{
	GHashTableIter iter;
	gpointer key, value;
	bool any = false;

	g_hash_table_iter_init(&iter, members->records);
	while (g_hash_table_iter_next(&iter, &key, &value)) {
		const struct mf_member *member = value;

		if (member->state != MF_MEMBER_LIVE && member->state != MF_MEMBER_EVICTING)
			continue;
		if (strcmp(member->node, node->self.node) != 0)
			continue;
		if (strcmp(member->addrs, node->self.addrs) == 0) {
			/* A try of ours whose answer got lost: not a life, and nobody to be cut off. */
			struct mf_member ended = *member;
			ended.state = MF_MEMBER_CLEAN;
			int rr = mf_members_set(node->pool, members, GPOINTER_TO_UINT(key), &ended);
			if (rr < 0)
				return rr;
			any = true;
			continue;
		}
		int r = mf_node_bury(node, GPOINTER_TO_UINT(key), false);
		if (r == -EAGAIN)
			return refuse(GPOINTER_TO_UINT(key), member, ret_error);
		if (r < 0) {
			*ret_error = g_strdup_printf(
				"cannot end the former life of node '%s': %s", member->node, g_strerror(-r));
			return r;
		}
		any = true;
	}
	return any ? -ECANCELED : 0;
}

/* What dead nodes left, and nobody has swept. */
static int find_unswept(MfNode *node, const struct mf_members *members)
{
	GHashTableIter iter;
	gpointer key, value;

	g_hash_table_iter_init(&iter, members->records);
	while (g_hash_table_iter_next(&iter, &key, &value)) {
		uint32_t inc = GPOINTER_TO_UINT(key);
		const struct mf_member *member = value;

		if (member->state != MF_MEMBER_LOST || mf_node_holder(node, inc) == MF_HOLDER_LOST)
			continue;
		int r = cut_off(node, inc, member);
		if (r < 0)
			return r;
		if (r == 0)
			g_array_append_val(node->unswept, inc);
	}
	return 0;
}

static int create_node_object(MfNode *node)
{
	g_autoptr(MfWop) wop = mf_wop_new();
	g_autoptr(GByteArray) bytes = NULL;
	int r = mf_window_encode(&(struct mf_window){ 0, 0 }, &bytes);

	if (r < 0)
		return r;
	mf_wop_create(wop);
	mf_wop_setxattr(wop, MF_XATTR_RECORD, bytes->data, bytes->len);
	mf_wop_setxattr(wop, MF_XATTR_OWNER, node->self.addrs, strlen(node->self.addrs));
	mf_wop_full_force(wop);
	return mf_pool_write(node->pool, MF_POOL_META, node->oid, wop);
}

static int drop_node_object(MfNode *node)
{
	g_autoptr(MfWop) wop = mf_wop_new();

	node->watch = mf_watch_free(node->watch);
	/* A copy may arrive when somebody else has got the number that we tried to join with. */
	mf_wop_cmpxattr(wop, MF_XATTR_OWNER, MF_CMP_EQ, node->self.addrs, strlen(node->self.addrs));
	mf_wop_remove(wop);
	mf_wop_full_force(wop);
	int r = mf_pool_write(node->pool, MF_POOL_META, node->oid, wop);
	return r == -ENOENT ? 0 : r; /* an earlier copy was done */
}

static int watch(MfNode *node)
{
	return mf_watch_new(node->pool, node->oid, node->self.watch_timeout_s, on_message, on_ask, node, &node->watch);
}

/* One attempt: watch first, then the record. -ECANCELED: somebody else changed `members', try again. */
static int try_join(MfNode *node, char **ret_error)
{
	struct mf_members members;
	int r = mf_members_read(node->pool, &members);

	if (r < 0)
		return r;
	r = end_namesakes(node, &members, ret_error);
	if (r == 0)
		r = find_unswept(node, &members);
	if (r < 0)
		goto out;
	uint32_t inc = members.highest;
	do { /* a number that exists was left by a join that died before its record: take the next one */
		inc++;
		g_free(node->oid);
		node->oid = mf_oid_node(inc);
		r = create_node_object(node);
	} while (r == -EEXIST);
	if (r < 0)
		goto out;
	node->incarnation = inc;
	/* The OSD counts from when it got the watch, whenever we hear of that. */
	int64_t asked = boottime_ms();
	r = watch(node);
	if (r == 0) {
		node->confirmed_ms = asked;
		r = mf_members_set(node->pool, &members, inc, &node->self);
	}
	if (r < 0)
		drop_node_object(node);
	else
		take_members(node, &members);
out:
	mf_members_clear(&members);
	return r;
}

static int join(MfNode *node, char **ret_error)
{
	int r = -ECANCELED;

	for (int i = 0; i < JOIN_TRIES && r == -ECANCELED; i++)
		r = try_join(node, ret_error);
	if (r < 0 && !*ret_error)
		*ret_error = g_strdup_printf("cannot join the filesystem '%s': %s", node->conf->fs, g_strerror(-r));
	return r;
}

static void node_free(MfNode *node)
{
	g_mutex_clear(&node->check);
	g_mutex_clear(&node->burying);
	g_mutex_clear(&node->state);
	g_mutex_clear(&node->listening);
	g_mutex_clear(&node->reporting);
	g_mutex_clear(&node->answering);
	g_clear_pointer(&node->report, g_bytes_unref);
	g_cond_clear(&node->warden_cond);
	g_hash_table_unref(node->members);
	g_array_unref(node->unswept);
	mf_member_clear(&node->self);
	g_free(node->members_version);
	g_free(node->oid);
	g_free(node);
}

int mf_node_join(MfPool *pool, const struct mf_conf *conf, const char *mountpoint, MfNode **ret_node, char **ret_error)
{
	MfNode *node = g_new0(MfNode, 1);

	node->pool = pool;
	node->conf = conf;
	node->timeout_ms = conf->watch_timeout_s * 1000;
	node->members = g_hash_table_new(NULL, NULL);
	node->unswept = g_array_new(false, false, sizeof(uint32_t));
	g_mutex_init(&node->check);
	g_mutex_init(&node->burying);
	g_mutex_init(&node->state);
	g_mutex_init(&node->listening);
	g_mutex_init(&node->reporting);
	g_mutex_init(&node->answering);
	g_cond_init(&node->warden_cond);
	node->self = (struct mf_member){
		.state = MF_MEMBER_LIVE,
		.watch_timeout_s = conf->watch_timeout_s,
		.since = g_get_real_time() * 1000,
		.node = g_strdup(conf->node),
		.addrs = g_strdup(mf_pool_addrs(pool)),
		.mountpoint = g_strdup(mountpoint),
	};
	fill_self(&node->self);
	int r = join(node, ret_error);
	if (r < 0) {
		node_free(node);
		return r;
	}
	node->warden = g_thread_new("mailfs-warden", warden, node);
	*ret_node = node;
	return 0;
}

int mf_node_rejoin(MfNode *node, char **ret_error)
{
	g_mutex_lock(&node->check);
	node->rejoining = true;
	node->watch = mf_watch_free(node->watch);
	int r = mf_pool_reconnect(node->pool, ret_error);
	if (r == 0) {
		g_free(node->self.addrs);
		node->self.addrs = g_strdup(mf_pool_addrs(node->pool));
		node->self.state = MF_MEMBER_LIVE;
		node->self.generation = 0;
		node->self.since = g_get_real_time() * 1000;
		r = join(node, ret_error);
	}
	if (r == 0)
		node->fenced = false;
	node->rejoining = false;
	g_mutex_unlock(&node->check);
	return r;
}

static bool make_clean(struct mf_member *member, void *arg)
{
	if (member->state != MF_MEMBER_LIVE)
		return false;
	member->state = MF_MEMBER_CLEAN;
	return true;
}

void mf_node_leave(MfNode *node, bool clean)
{
	g_mutex_lock(&node->state);
	node->stopping = true;
	g_cond_broadcast(&node->warden_cond);
	g_mutex_unlock(&node->state);
	g_thread_join(node->warden);
	/* Without a clean end the record and the window stay: whoever meets them finds what to do. The window goes first:
	 * nobody looks for that of a clean one, and a live one without is taken for lost, with nothing to sweep. */
	if (clean && !node->fenced && drop_node_object(node) == 0)
		mf_members_update(node->pool, node->incarnation, make_clean, NULL);
	node->watch = mf_watch_free(node->watch);
	node_free(node);
}

uint32_t mf_node_incarnation(const MfNode *node)
{
	return node->incarnation;
}

int64_t mf_node_since(const MfNode *node)
{
	return node->self.since;
}

/* ---- the session ---- */

static bool prove_live(struct mf_member *member, void *arg)
{
	if (member->state != MF_MEMBER_LIVE)
		return false;
	member->generation++;
	return true;
}

/* The last confirmed ping is too old, or the watch is gone: only our record tells whether we still are. */
static int prove_locked(MfNode *node, int age)
{
	/* A watch that is old, but not lost as far as we know, may end before our proof is a second old. The new one comes
	 * first: without any, who looks for us finds nobody. */
	MfWatch *old = g_steal_pointer(&node->watch);
	int64_t asked = boottime_ms();
	int r = watch(node);
	if (r < 0 && age >= 0)
		node->watch = g_steal_pointer(&old);
	mf_watch_free(old);
	if (r == -ENOENT || r == -ESHUTDOWN) {
		node->fenced = true;
		return -ESHUTDOWN;
	}
	if (r < 0)
		return -ETIMEDOUT;
	r = mf_members_update(node->pool, node->incarnation, prove_live, NULL);
	if (r == -ESTALE || r == -ESHUTDOWN) {
		node->fenced = true;
		return -ESHUTDOWN;
	}
	if (r < 0)
		return -ETIMEDOUT;
	node->confirmed_ms = asked;
	return 0;
}

int mf_node_check(MfNode *node)
{
	/* A third of the timeout is the margin between our clock and the OSD's. */
	int64_t limit = node->timeout_ms - node->timeout_ms / 3;

	if (node->fenced)
		return -ESHUTDOWN;
	/* Pings come once a second: asking librados more often would tell nothing new. */
	if (boottime_ms() - node->confirmed_ms < MIN(limit, 1000))
		return 0;
	/* Those who wait in line for the mutex wait in all no longer than the first. */
	int64_t give_up = boottime_ms() + node->conf->op_timeout_ms;
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&node->check);
	if (node->fenced)
		return -ESHUTDOWN;
	for (;;) {
		int64_t now = boottime_ms();
		if (now - node->confirmed_ms < MIN(limit, 1000))
			return 0;
		int age = node->watch ? mf_watch_check(node->watch) : -ENOTCONN;
		if (age >= 0 && age < limit) {
			node->confirmed_ms = now - age;
			return 0;
		}
		if (now > give_up)
			return -ETIMEDOUT;
		int r = prove_locked(node, age);
		if (r == 0 || r == -ESHUTDOWN)
			return r;
	}
}

bool mf_node_is_due(const MfNode *node)
{
	return boottime_ms() - node->confirmed_ms >= node->timeout_ms - node->timeout_ms / 3;
}

void mf_node_fence(MfNode *node)
{
	node->fenced = true;
}

bool mf_node_is_fenced(const MfNode *node)
{
	return node->fenced;
}

enum mf_node_condition mf_node_condition(MfNode *node)
{
	int64_t limit = node->timeout_ms - node->timeout_ms / 3;

	if (node->rejoining)
		return MF_NODE_REJOINING;
	if (node->fenced)
		return MF_NODE_FENCED;
	if (boottime_ms() - node->confirmed_ms < limit)
		return MF_NODE_SERVING;
	/* Who has the mutex is asking the cluster, and waits for it. */
	if (!g_mutex_trylock(&node->check))
		return MF_NODE_WAITING;
	int64_t now = boottime_ms();
	int age = node->watch ? mf_watch_check(node->watch) : -ENOTCONN;
	bool confirmed = age >= 0 && age < limit;
	if (confirmed)
		node->confirmed_ms = now - age;
	g_mutex_unlock(&node->check);
	return confirmed ? MF_NODE_SERVING : MF_NODE_WAITING;
}

/* ---- windows ---- */

int mf_node_set_window(MfNode *node, const struct mf_window *window)
{
	g_autoptr(MfWop) wop = mf_wop_new();
	g_autoptr(GByteArray) bytes = NULL;
	int r = mf_window_encode(window, &bytes);

	if (r < 0)
		return r;
	mf_wop_assert_exists(wop);
	mf_wop_setxattr(wop, MF_XATTR_RECORD, bytes->data, bytes->len);
	mf_wop_full_force(wop);
	return mf_pool_write(node->pool, MF_POOL_META, node->oid, wop);
}

GArray *mf_node_unswept(MfNode *node)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&node->state);
	GArray *list = g_steal_pointer(&node->unswept);

	node->unswept = g_array_new(false, false, sizeof(uint32_t));
	return list;
}

int mf_node_read_window(MfNode *node, uint32_t incarnation, struct mf_window *ret_window)
{
	g_autofree char *oid = mf_oid_node(incarnation);
	g_autoptr(MfRop) rop = mf_rop_new();

	mf_rop_xattrs(rop);
	int r = mf_pool_read(node->pool, MF_POOL_META, oid, rop);
	if (r < 0)
		return r;
	GBytes *rec = mf_rop_get_xattr(rop, MF_XATTR_RECORD);
	if (!rec)
		return -EBADMSG;
	return mf_window_decode(g_bytes_get_data(rec, NULL), g_bytes_get_size(rec), ret_window);
}

int mf_node_note_reference(MfNode *node, const struct mf_reference *reference)
{
	g_autoptr(MfWop) wop = mf_wop_new();
	g_autofree char *key = mf_key_pair(MF_KEY_REFERENCE, reference->tag, reference->dir);
	g_autofree char *ino = g_strdup_printf("%016" PRIx64, reference->ino);

	mf_wop_assert_exists(wop);
	mf_wop_omap_set(wop, key, ino, strlen(ino));
	return mf_pool_write(node->pool, MF_POOL_META, node->oid, wop);
}

int mf_node_forget_reference(MfNode *node, const struct mf_reference *reference)
{
	g_autoptr(MfWop) wop = mf_wop_new();
	g_autofree char *key = mf_key_pair(MF_KEY_REFERENCE, reference->tag, reference->dir);

	mf_wop_assert_exists(wop);
	mf_wop_omap_rm(wop, key);
	mf_wop_full_force(wop);
	return mf_pool_write(node->pool, MF_POOL_META, node->oid, wop);
}

static bool parse_reference(const struct mf_kv *kv, struct mf_reference *ret)
{
	g_autofree char *ino = g_strndup(g_bytes_get_data(kv->value, NULL), g_bytes_get_size(kv->value));

	/* "k/", 16 digits, ".", 16 digits */
	return mf_key_parse_number(kv->key, MF_KEY_REFERENCE, &ret->tag) && kv->key[MF_KEY_PREFIX + 16] == '.' &&
	       mf_key_parse_number(kv->key + MF_KEY_PREFIX + 17, "", &ret->dir) &&
	       mf_key_parse_number(ino, "", &ret->ino);
}

int mf_node_read_references(MfNode *node, uint32_t incarnation, GArray **ret_references)
{
	g_autofree char *oid = mf_oid_node(incarnation);
	g_autoptr(GArray) list = g_array_new(false, false, sizeof(struct mf_reference));
	g_autofree char *after = g_strdup("");

	for (bool more = true; more;) {
		g_autoptr(MfRop) rop = mf_rop_new();
		mf_rop_omap_range(rop, after, MF_KEY_REFERENCE, 1000);
		int r = mf_pool_read(node->pool, MF_POOL_META, oid, rop);
		if (r < 0)
			return r;
		GArray *kvs = mf_rop_get_range(rop, 0, &more);
		for (unsigned i = 0; i < kvs->len; i++) {
			struct mf_kv *kv = &g_array_index(kvs, struct mf_kv, i);
			struct mf_reference reference;
			if (!parse_reference(kv, &reference))
				return -EBADMSG;
			g_array_append_val(list, reference);
			g_free(after);
			after = g_strdup(kv->key);
		}
		more = more && kvs->len > 0;
	}
	*ret_references = g_steal_pointer(&list);
	return 0;
}

int mf_node_swept(MfNode *node, uint32_t incarnation)
{
	g_autofree char *oid = mf_oid_node(incarnation);
	g_autoptr(MfWop) wop = mf_wop_new();

	mf_wop_remove(wop);
	mf_wop_full_force(wop);
	int r = mf_pool_write(node->pool, MF_POOL_META, oid, wop);
	return r == -ENOENT ? 0 : r;
}
