/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/event.h"

#include "sync/dir.h"
#include "sync/inode.h"
#include "sync/interest.h"
#include "sync/kernel.h"
#include "sync/outbox.h"
#include "sync/recall.h"

/* What others see under a key that has changed in memory. */
struct was {
	uint64_t ino;
	enum mf_kind kind;
};

/* ---- what a commit does ---- */

void mf_event_note(MfShard *shard, const char *key, uint64_t ino, enum mf_kind kind)
{
	enum mf_space space;

	if (shard->dir->interested->len == 0 || !mf_key_is_entry(key, &space))
		return;
	if (!shard->were)
		shard->were = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	struct was *was = g_new(struct was, 1);
	*was = (struct was){ ino, kind };
	g_hash_table_insert(shard->were, g_strdup(key), was);
}

void mf_event_divide(MfShard *from, MfShard *to, const char *key)
{
	const struct was *was = from->were ? g_hash_table_lookup(from->were, key) : NULL;

	if (!was)
		return;
	mf_event_note(to, key, was->ino, was->kind);
	g_hash_table_remove(from->were, key);
}

static const struct was *was_of(const MfShard *shard, const char *key)
{
	return shard->were ? g_hash_table_lookup(shard->were, key) : NULL;
}

static const MfInode *is_now(const MfShard *shard, const char *key)
{
	const MfDentry *dentry = mf_dir_peek(shard->dir, key);

	return dentry && !dentry->local ? dentry->inode : NULL;
}

/* Inode -> key, of names that lead elsewhere now, or nowhere. */
static GHashTable *find_left(const MfShard *shard, GHashTable *changed)
{
	GHashTable *left = g_hash_table_new(g_int64_hash, g_int64_equal);
	GHashTableIter iter;
	gpointer key;

	g_hash_table_iter_init(&iter, changed);
	while (g_hash_table_iter_next(&iter, &key, NULL)) {
		const struct was *was = was_of(shard, key);
		const MfInode *now = is_now(shard, key);
		if (was && (!now || now->ino != was->ino) && !g_hash_table_contains(left, &was->ino))
			g_hash_table_insert(left, (gpointer)&was->ino, key);
	}
	return left;
}

/* A name is left before another one comes to it: a log is renamed first, and then made anew. @sources: the moves that are not in
 * @events yet, by the name that they leave. */
static void add_in_order(GPtrArray *events, GHashTable *sources, struct mf_event *event)
{
	const char *to = event->kind == MF_EVENT_MOVE ? event->to : event->key;
	struct mf_event *first;

	/* Out of the table before it is its turn: names that were exchanged have none. */
	if (event->kind == MF_EVENT_MOVE && !g_hash_table_remove(sources, event->key))
		return;
	while ((first = g_hash_table_lookup(sources, to)))
		add_in_order(events, sources, first);
	g_ptr_array_add(events, event);
}

static GPtrArray *in_order(GPtrArray *came)
{
	g_autoptr(GHashTable) sources = g_hash_table_new(g_str_hash, g_str_equal);
	GPtrArray *events = mf_events_new();

	for (unsigned i = 0; i < came->len; i++) {
		struct mf_event *event = came->pdata[i];
		if (event->kind == MF_EVENT_MOVE)
			g_hash_table_insert(sources, event->key, event);
	}
	for (unsigned i = 0; i < came->len; i++)
		add_in_order(events, sources, came->pdata[i]);
	return events;
}

GPtrArray *mf_event_freeze(MfShard *shard, GHashTable *changed, GHashTable **ret_were)
{
	*ret_were = NULL;
	if (shard->dir->interested->len == 0) {
		g_clear_pointer(&shard->were, g_hash_table_unref);
		return NULL;
	}
	g_autoptr(GPtrArray) came = g_ptr_array_new();
	g_autoptr(GHashTable) left = find_left(shard, changed);
	g_autoptr(GHashTable) moved = g_hash_table_new(NULL, NULL); /* keys */
	GHashTableIter iter;
	gpointer key, value;
	enum mf_space space;

	/* What came; from another name of this object, it was moved. */
	g_hash_table_iter_init(&iter, changed);
	while (g_hash_table_iter_next(&iter, &key, &value)) {
		const struct was *was = was_of(shard, key);
		const MfInode *now = is_now(shard, key);
		gpointer from = NULL;

		if (!now || (was && was->ino == now->ino) || (!was && GPOINTER_TO_UINT(value) == MF_ON_DISK_YES))
			continue;
		if (g_hash_table_steal_extended(left, &now->ino, NULL, &from)) {
			g_hash_table_add(moved, from);
			g_ptr_array_add(came, mf_event_new(MF_EVENT_MOVE, now->kind, now->ino, from, key));
		} else {
			g_ptr_array_add(came, mf_event_new(MF_EVENT_CREATE, now->kind, now->ino, key, NULL));
		}
	}
	GPtrArray *events = in_order(came);
	/* What went, but for what was moved, or replaced: rename(2) raises nothing for that. */
	g_hash_table_iter_init(&iter, changed);
	while (g_hash_table_iter_next(&iter, &key, &value)) {
		const struct was *was = was_of(shard, key);
		if (!mf_key_is_entry(key, &space) || GPOINTER_TO_UINT(value) != MF_ON_DISK_YES || is_now(shard, key) ||
			g_hash_table_contains(moved, key))
			continue;
		g_ptr_array_add(events,
			mf_event_new(MF_EVENT_DELETE, was ? was->kind : MF_KIND_FILE, was ? was->ino : 0, key, NULL));
	}
	*ret_were = g_steal_pointer(&shard->were);
	return events;
}

static gboolean move_back(gpointer key, gpointer value, gpointer were)
{
	g_hash_table_replace(were, key, value);
	return true;
}

void mf_event_melt(MfShard *shard, GHashTable *were)
{
	if (!were)
		return;
	if (!shard->were)
		shard->were = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	g_hash_table_foreach_steal(were, move_back, shard->were);
}

void mf_event_tell(MfDir *dir, const GPtrArray *events, uint64_t version)
{
	for (unsigned i = 0; i < dir->interested->len; i++) {
		uint32_t to = g_array_index(dir->interested, uint32_t, i);
		for (unsigned n = 0; n < events->len; n++)
			mf_outbox_add(dir, to, events->pdata[n], version);
	}
}

void mf_event_modified(MfInode *inode)
{
	MfDir *dir = inode->dir;

	if (!dir || dir->interested->len == 0 || inode->unnamed)
		return;
	g_autoptr(GPtrArray) events = mf_events_new();
	for (const MfDentry *name = inode->names; name; name = name->next_name) {
		if (name->dir == dir && !name->local)
			g_ptr_array_add(events, mf_event_new(MF_EVENT_MODIFY, inode->kind, inode->ino, name->key, NULL));
	}
	mf_event_tell(dir, events, 0);
}

/* ---- what others did ---- */

/* Nobody can watch what the kernel does not have. */
static bool place(MfDir *dir, const char *key, uint64_t *ret_parent, const char **ret_name)
{
	enum mf_space space;

	if (!mf_key_is_entry(key, &space))
		return false;
	const MfInode *parent = space == MF_SPACE_SELF ? dir->inode : dir->sub[space];
	if (!parent || !mf_kernel_has(parent))
		return false;
	*ret_parent = parent->ino;
	*ret_name = key + MF_KEY_PREFIX;
	return true;
}

static void raise_one(MfDir *dir, const struct mf_kernel_event *event)
{
	MfFs *fs = dir->fs;

	fs->events_raised++;
	fs->kernel->raise(dir->inode->ino, event, fs->kernel_arg);
}

static void raise_named(MfDir *dir, const struct mf_event *event)
{
	struct mf_kernel_event e = {
		.kind = event->kind,
		.is_dir = event->type == MF_KIND_DIR || event->type == MF_KIND_SUBDIR,
		.ino = event->ino,
	};
	bool from = place(dir, event->key, &e.parent, &e.name);

	if (event->kind == MF_EVENT_MOVE) {
		bool to = place(dir, event->to, &e.new_parent, &e.new_name);
		/* Half of it is seen. */
		if (!from && to) {
			e.parent = e.new_parent;
			e.name = e.new_name;
			e.kind = MF_EVENT_CREATE;
		} else if (!to) {
			e.kind = MF_EVENT_DELETE;
		}
		from |= to;
	}
	if (from)
		raise_one(dir, &e);
}

void mf_event_many(MfDir *dir)
{
	MfFs *fs = dir->fs;

	if (!fs->kernel)
		return;
	for (enum mf_space s = 0; s < MF_SPACES; s++) {
		const MfInode *inode = s == MF_SPACE_SELF ? dir->inode : dir->sub[s];
		struct mf_kernel_event e = { .kind = MF_EVENT_MANY };
		if (!inode || !mf_kernel_has(inode))
			continue;
		e.parent = inode->ino;
		raise_one(dir, &e);
	}
	if (dir->lease.mode != MF_LEASE_NONE)
		dir->told_version = MAX(dir->told_version, dir->taken_version);
}

void mf_event_inherit(MfDir *dir)
{
	g_autoptr(GPtrArray) events = mf_events_new();

	g_ptr_array_add(events, mf_event_new(MF_EVENT_MANY, MF_KIND_DIR, 0, NULL, NULL));
	mf_event_tell(dir, events, ((MfShard *)dir->shards->pdata[0])->version);
	if (mf_interest_is_ours(dir))
		mf_event_many(dir);
	dir->told_version = dir->taken_version;
}

bool mf_event_listen(MfFs *fs, const void *data, size_t len)
{
	struct mf_event_record rec;

	if (mf_event_record_decode(data, len, &rec) < 0)
		return false;
	MfInode *inode = mf_inode_find(fs, rec.ino);
	MfDir *dir = inode && inode->kind == MF_KIND_DIR ? inode->dir : NULL;
	if (!dir || !mf_interest_is_ours(dir)) {
		mf_notice_send(fs, rec.from, MF_NOTICE_FORGOT, rec.ino, rec.epoch);
	} else {
		bool many = false;
		for (unsigned i = 0; i < rec.events->len; i++) {
			const struct mf_event *event = rec.events->pdata[i];
			if (event->kind != MF_EVENT_MANY)
				raise_named(dir, event);
			many |= event->kind == MF_EVENT_MANY;
		}
		if (many)
			mf_event_many(dir);
		/* Else a holder before the sender has not told its part yet. */
		if (many || rec.base <= dir->told_version)
			dir->told_version = MAX(dir->told_version, rec.version);
	}
	mf_event_record_clear(&rec);
	return true;
}
