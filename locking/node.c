/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "locking/node.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BLOCKLIST_SECONDS (30u * 86400u) /* Ceph's own 3600 s would let a client that slept through it write again */
#define JOIN_TRIES 20

struct MfNode {
	MfPool *pool;
	MfWatch *watch;	    /* protected by check */
	char *oid;	    /* node.<incarnation> */
	uint32_t incarnation;
	uint32_t generation; /* protected by check */
	unsigned timeout_ms;
	unsigned op_timeout_ms;
	struct mf_member self;
	atomic_bool fenced;
	atomic_int_fast64_t confirmed_ms; /* CLOCK_BOOTTIME of the last ping known to be answered */
	GMutex check;			  /* held across RADOS: whoever needs the answer has to wait for it anyway */
	GHashTable *members; /* incarnation -> state; constant after join */
	GMutex listening;    /* held while the listener runs */
	mf_node_listener listener; /* protected by listening */
	void *listener_arg;
	GArray *unswept;
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

/* ---- the members object ---- */

struct members {
	char *version;
	GHashTable *records; /* incarnation -> struct mf_member * */
	uint32_t highest;
};

static void free_member(void *data)
{
	mf_member_clear(data);
	g_free(data);
}

static void members_clear(struct members *members)
{
	g_clear_pointer(&members->version, g_free);
	g_clear_pointer(&members->records, g_hash_table_unref);
}

static int members_read(MfPool *pool, struct members *ret)
{
	char after[16] = "";

	*ret = (struct members){ .records = g_hash_table_new_full(NULL, NULL, NULL, free_member) };
	for (bool more = true; more;) {
		g_autoptr(MfRop) rop = mf_rop_new();
		mf_rop_xattrs(rop);
		mf_rop_omap_range(rop, after, "", 1000);
		int r = mf_pool_read(pool, MF_POOL_META, MF_OID_MEMBERS, rop);
		if (r < 0) {
			members_clear(ret);
			return r;
		}
		GBytes *version = mf_rop_get_xattr(rop, MF_XATTR_VERSION);
		GArray *kvs = mf_rop_get_range(rop, 0, &more);
		if (!version) {
			members_clear(ret);
			return -EBADMSG;
		}
		if (!ret->version)
			ret->version = g_strndup(g_bytes_get_data(version, NULL), g_bytes_get_size(version));
		for (unsigned i = 0; i < kvs->len; i++) {
			struct mf_kv *kv = &g_array_index(kvs, struct mf_kv, i);
			struct mf_member *member = g_new0(struct mf_member, 1);
			char *end;
			uint64_t inc = g_ascii_strtoull(kv->key, &end, 16);

			r = mf_member_decode(g_bytes_get_data(kv->value, NULL), g_bytes_get_size(kv->value), member);
			if (r < 0 || *end || inc == 0 || inc > UINT32_MAX) {
				g_free(member);
				members_clear(ret);
				return r < 0 ? r : -EBADMSG;
			}
			g_hash_table_replace(ret->records, GUINT_TO_POINTER(inc), member);
			ret->highest = MAX(ret->highest, (uint32_t)inc);
			g_strlcpy(after, kv->key, sizeof(after));
		}
	}
	return 0;
}

/* Sets one record if nobody changed `members' since it was read. -ECANCELED: read again. */
static int members_set(MfPool *pool, struct members *members, uint32_t inc, const struct mf_member *member)
{
	g_autoptr(MfWop) wop = mf_wop_new();
	g_autoptr(GByteArray) bytes = NULL;
	g_autofree char *key = g_strdup_printf("%08x", inc);
	uint64_t number = g_ascii_strtoull(members->version, NULL, 16);
	g_autofree char *next = g_strdup_printf("%016" PRIx64, number + 1);
	int r = mf_member_encode(member, &bytes);

	if (r < 0)
		return r;
	mf_wop_cmpxattr(wop, MF_XATTR_VERSION, MF_CMP_EQ, members->version, strlen(members->version));
	mf_wop_setxattr(wop, MF_XATTR_VERSION, next, strlen(next));
	mf_wop_omap_set(wop, key, bytes->data, bytes->len);
	mf_wop_full_force(wop); /* a node must be able to come and go when the pool is full */
	r = mf_pool_write(pool, MF_POOL_META, MF_OID_MEMBERS, wop);
	if (r == 0) {
		g_free(members->version);
		members->version = g_steal_pointer(&next);
	}
	return r;
}

/* Changes the record of @inc through @change until it was done on an unchanged object. @change returns false to stop.
 * An unknown result needs no care of its own: every change may be made twice. */
static int members_update(MfPool *pool, uint32_t inc, bool (*change)(struct mf_member *, void *), void *arg)
{
	for (int i = 0; i < JOIN_TRIES; i++) {
		struct members members;
		int r = members_read(pool, &members);

		if (r < 0)
			return r;
		struct mf_member *member = g_hash_table_lookup(members.records, GUINT_TO_POINTER(inc));
		if (!member || !change(member, arg))
			r = -ESTALE;
		else
			r = members_set(pool, &members, inc, member);
		members_clear(&members);
		if (r != -ECANCELED)
			return r;
	}
	return -ETIMEDOUT;
}

/* ---- the inbox ---- */

static void on_message(const void *data, size_t len, void *arg)
{
	MfNode *node = arg;

	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&node->listening);
	if (node->listener)
		node->listener(data, len, node->listener_arg);
}

void mf_node_listen(MfNode *node, mf_node_listener listener, void *arg)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&node->listening);

	node->listener = listener;
	node->listener_arg = arg;
}

void mf_node_send(MfNode *node, uint32_t incarnation, const void *data, size_t len, mf_send_done done, void *arg)
{
	g_autofree char *oid = mf_oid_node(incarnation);

	mf_pool_send(node->pool, oid, 1, data, len, done, arg);
}

/* ---- joining ---- */

static int refuse(uint32_t inc, const struct mf_member *member, char **ret_error)
{
	g_autoptr(GDateTime) since = g_date_time_new_from_unix_local(member->since / 1000000000);
	g_autofree char *when = since ? g_date_time_format(since, "%F %T") : g_strdup("?");

	*ret_error = g_strdup_printf("node '%s' serves this filesystem already (on %s since %s, incarnation %u)",
		member->node, member->mountpoint, when, inc);
	return -EBUSY;
}

/* 0 when the member is dead, -EBUSY when it lives. */
static int wait_for_death(
	MfPool *pool, const struct mf_member *self, uint32_t inc, const struct mf_member *member, char **ret_error)
{
	g_autofree char *oid = mf_oid_node(inc);
	int64_t deadline = boottime_ms() + (member->watch_timeout_s + 2) * INT64_C(1000);

	if (surely_dead(self, member))
		return 0;
	for (;;) {
		unsigned alive = 0, silent = 0;
		int r = mf_pool_ping(pool, oid, 1, &alive, &silent);

		if (r == -ENOENT || (r == 0 && alive == 0 && silent == 0))
			return 0;
		if (r < 0) {
			*ret_error = g_strdup_printf("cannot ask node '%s' whether it lives: %s", member->node, g_strerror(-r));
			return r;
		}
		/* A silent watcher is dead or stopped: its watch ends by itself unless it still pings. */
		if (alive > 0 || boottime_ms() > deadline)
			return refuse(inc, member, ret_error);
	}
}

/* Ends every other live record that is dead. On success no other record in @members is live. */
static int take_places(MfNode *node, struct members *members, char **ret_error)
{
	GHashTableIter iter;
	gpointer key, value;
	int r;

	g_hash_table_iter_init(&iter, members->records);
	while (g_hash_table_iter_next(&iter, &key, &value)) {
		uint32_t inc = GPOINTER_TO_UINT(key);
		struct mf_member *member = value;

		if (member->state == MF_MEMBER_LIVE || member->state == MF_MEMBER_EVICTING) {
			r = wait_for_death(node->pool, &node->self, inc, member, ret_error);
			if (r < 0)
				return r;
			member->state = MF_MEMBER_LOST;
			r = members_set(node->pool, members, inc, member);
			if (r < 0)
				return r;
		}
		if (member->state != MF_MEMBER_LOST)
			continue;
		/* An unswept window means that the one who took over may not have come as far as the blocklist. */
		g_autofree char *oid = mf_oid_node(inc);
		g_autoptr(MfRop) rop = mf_rop_new();
		mf_rop_xattrs(rop);
		r = mf_pool_read(node->pool, MF_POOL_META, oid, rop);
		if (r == -ENOENT)
			continue;
		if (r < 0)
			return r;
		r = mf_pool_blocklist(node->pool, member->addrs, BLOCKLIST_SECONDS);
		if (r < 0) {
			*ret_error = g_strdup_printf("cannot blocklist the dead node '%s' (%s): %s", member->node,
				member->addrs, g_strerror(-r));
			return r;
		}
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
	mf_wop_full_force(wop);
	return mf_pool_write(node->pool, MF_POOL_META, node->oid, wop);
}

static int drop_node_object(MfNode *node)
{
	g_autoptr(MfWop) wop = mf_wop_new();

	node->watch = mf_watch_free(node->watch);
	mf_wop_remove(wop);
	mf_wop_full_force(wop);
	return mf_pool_write(node->pool, MF_POOL_META, node->oid, wop);
}

/* One attempt: watch first, then the record. -ECANCELED: somebody else changed `members', try again. */
static int try_join(MfNode *node, char **ret_error)
{
	struct members members;
	int r = members_read(node->pool, &members);

	if (r < 0)
		return r;
	g_array_set_size(node->unswept, 0);
	r = take_places(node, &members, ret_error);
	if (r < 0)
		goto out;
	node->incarnation = members.highest + 1;
	g_free(node->oid);
	node->oid = mf_oid_node(node->incarnation);
	r = create_node_object(node);
	while (r == -EEXIST) { /* left by a join that died before its record: take the next number */
		node->incarnation++;
		g_free(node->oid);
		node->oid = mf_oid_node(node->incarnation);
		r = create_node_object(node);
	}
	if (r < 0)
		goto out;
	r = mf_watch_new(node->pool, node->oid, node->self.watch_timeout_s, on_message, node, &node->watch);
	if (r == 0) {
		node->confirmed_ms = boottime_ms();
		r = members_set(node->pool, &members, node->incarnation, &node->self);
	}
	if (r < 0) {
		drop_node_object(node);
		goto out;
	}
	GHashTableIter iter;
	gpointer key, value;
	g_hash_table_iter_init(&iter, members.records);
	while (g_hash_table_iter_next(&iter, &key, &value))
		g_hash_table_replace(node->members, key, GUINT_TO_POINTER(((struct mf_member *)value)->state));
out:
	members_clear(&members);
	return r;
}

static void node_free(MfNode *node)
{
	g_mutex_clear(&node->check);
	g_mutex_clear(&node->listening);
	g_hash_table_unref(node->members);
	g_array_unref(node->unswept);
	mf_member_clear(&node->self);
	g_free(node->oid);
	g_free(node);
}

int mf_node_join(MfPool *pool, const struct mf_conf *conf, const char *mountpoint, MfNode **ret_node, char **ret_error)
{
	MfNode *node = g_new0(MfNode, 1);
	int r = -ECANCELED;

	node->pool = pool;
	node->timeout_ms = conf->watch_timeout_s * 1000;
	node->op_timeout_ms = conf->op_timeout_ms;
	node->members = g_hash_table_new(NULL, NULL);
	node->unswept = g_array_new(false, false, sizeof(uint32_t));
	g_mutex_init(&node->check);
	g_mutex_init(&node->listening);
	node->self = (struct mf_member){
		.state = MF_MEMBER_LIVE,
		.watch_timeout_s = conf->watch_timeout_s,
		.since = g_get_real_time() * 1000,
		.node = g_strdup(conf->node),
		.addrs = g_strdup(mf_pool_addrs(pool)),
		.mountpoint = g_strdup(mountpoint),
	};
	fill_self(&node->self);
	for (int i = 0; i < JOIN_TRIES && r == -ECANCELED; i++)
		r = try_join(node, ret_error);
	if (r < 0) {
		if (!*ret_error)
			*ret_error = g_strdup_printf("cannot join the filesystem '%s': %s", conf->fs, g_strerror(-r));
		node_free(node);
		return r;
	}
	*ret_node = node;
	return 0;
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
	/* Without a clean end the record and the window stay: the next mount finds what to do. The window goes first:
	 * nobody looks for that of a clean one, and a live one without is taken for lost, with nothing to sweep. */
	if (clean && !node->fenced && drop_node_object(node) == 0)
		members_update(node->pool, node->incarnation, make_clean, NULL);
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
	if (age < 0) {
		node->watch = mf_watch_free(node->watch);
		int r = mf_watch_new(node->pool, node->oid, node->self.watch_timeout_s, on_message, node, &node->watch);
		if (r == -ENOENT || r == -ESHUTDOWN) {
			node->fenced = true;
			return -ESHUTDOWN;
		}
		if (r < 0)
			return -ETIMEDOUT;
	}
	int64_t asked = boottime_ms();
	int r = members_update(node->pool, node->incarnation, prove_live, NULL);
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
	int64_t give_up = boottime_ms() + node->op_timeout_ms;
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

void mf_node_fence(MfNode *node)
{
	node->fenced = true;
}

bool mf_node_is_fenced(const MfNode *node)
{
	return node->fenced;
}

enum mf_holder mf_node_holder(MfNode *node, uint32_t incarnation)
{
	if (incarnation == node->incarnation)
		return MF_HOLDER_SELF;
	if (incarnation > node->incarnation)
		return MF_HOLDER_LIVE; /* came after us, so we are not what we think we are */
	switch (GPOINTER_TO_UINT(g_hash_table_lookup(node->members, GUINT_TO_POINTER(incarnation)))) {
	case MF_MEMBER_CLEAN:
		return MF_HOLDER_CLEAN;
	case MF_MEMBER_LIVE:
	case MF_MEMBER_EVICTING:
		return MF_HOLDER_LIVE;
	default: /* lost, or a record that is gone: the careful way */
		return MF_HOLDER_LOST;
	}
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
	return g_array_ref(node->unswept);
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
