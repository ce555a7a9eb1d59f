/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/watcher.h"

#include "sync/model.h"
#include "tests/sim/client.h"
#include "tests/sim/kernel.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SECOND INT64_C(1000000)
#define PATIENCE (300 * SECOND)

struct watch {
	uint64_t ino, dir;
	enum mf_space space;
	uint32_t marked;  /* the incarnation that has the lease, or has left its mark */
	GHashTable *owed; /* names */
};

/* Where a name of a directory is, and what it leads to. */
struct fact {
	char *oid;
	uint64_t ino;
};

static GHashTable *facts; /* "<directory> <key>" -> struct fact */

static void fact_free(void *data)
{
	struct fact *fact = data;

	g_free(fact->oid);
	g_free(fact);
}

void watcher_start(struct node *node)
{
	node->watches = g_ptr_array_new();
}

static struct watch *find(const struct node *node, uint64_t ino)
{
	for (unsigned i = 0; i < node->watches->len; i++) {
		struct watch *watch = node->watches->pdata[i];
		if (watch->ino == ino)
			return watch;
	}
	return NULL;
}

int watcher_step(struct client *client)
{
	static const char *const spaces[] = { "new", "cur" };
	struct node *node = client->node;
	char path[32];
	uint64_t ino;

	if (sched_chance(2000))
		strcpy(path, "d");
	else
		snprintf(path, sizeof(path), "u%u/%s", (unsigned)sched_below(plan.maildirs), spaces[sched_below(2)]);
	int r = client_walk(client, path, &ino);
	if (r < 0 || find(node, ino))
		return r;
	const MfInode *inode = g_hash_table_lookup(node->fs->inodes, &ino);
	if (!inode || !inode->dir || inode->nlookup == 0)
		return 0;
	struct watch *watch = g_new0(struct watch, 1);
	*watch = (struct watch){ ino, inode->dir->inode->ino,
		inode->kind == MF_KIND_SUBDIR ? inode->space : MF_SPACE_SELF, 0,
		g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL) };
	kernel_keep(node, ino);
	g_ptr_array_add(node->watches, watch);
	sched_log("%s watches %s", node->name, path);
	return 0;
}

static void pay(struct node *node, uint64_t ino, const char *name)
{
	struct watch *watch = find(node, ino);

	if (watch && name)
		g_hash_table_remove(watch->owed, name);
	else if (watch)
		g_hash_table_remove_all(watch->owed);
}

void watcher_raise(struct node *node, const struct mf_kernel_event *event)
{
	pay(node, event->parent, event->kind == MF_EVENT_MANY ? NULL : event->name);
	if (event->kind == MF_EVENT_MOVE)
		pay(node, event->new_parent, event->new_name);
}

static const char *owed(const struct node *node, uint64_t *ret_ino)
{
	for (unsigned i = 0; i < node->watches->len; i++) {
		struct watch *watch = node->watches->pdata[i];
		GHashTableIter iter;
		gpointer name;
		g_hash_table_iter_init(&iter, watch->owed);
		*ret_ino = watch->ino;
		if (g_hash_table_iter_next(&iter, &name, NULL))
			return name;
	}
	return NULL;
}

void watcher_settle(struct node *node)
{
	int64_t until = sched_now() + PATIENCE;
	const char *name;
	uint64_t ino;

	while ((name = owed(node, &ino)) && sched_now() < until)
		sched_sleep(SECOND / 4);
	if (name)
		sched_fail("%s: nobody raised an event for '%s' in %lx", node->name, name, (unsigned long)ino);
}

/* ---- what the cluster sees ---- */

static bool parse(const char *oid, uint64_t *ret_dir, bool *ret_head)
{
	char *end;

	if (!g_str_has_prefix(oid, "d."))
		return false;
	*ret_dir = g_ascii_strtoull(oid + 2, &end, 16);
	*ret_head = *end == '\0';
	return true;
}

/* Did what others see under the key change? */
static bool note_fact(const struct cluster_change *c, uint64_t dir, const char *key)
{
	g_autofree char *name = g_strdup_printf("%lx %s", (unsigned long)dir, key);
	struct fact *before = facts ? g_hash_table_lookup(facts, name) : NULL;
	GBytes *value = c->exists ? cluster_omap(c->which, c->oid, key) : NULL;
	struct mf_dirent_record rec;

	if (!facts)
		facts = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, fact_free);
	if (!value || mf_dirent_decode(g_bytes_get_data(value, NULL), g_bytes_get_size(value), &rec) < 0) {
		/* A split has it in another object by now. */
		if (!before || strcmp(before->oid, c->oid) != 0)
			return false;
		g_hash_table_remove(facts, name);
		return true;
	}
	uint64_t ino = rec.ino;
	bool same = before && before->ino == ino;
	mf_dirent_clear(&rec);
	struct fact *now = g_new(struct fact, 1);
	*now = (struct fact){ g_strdup(c->oid), ino };
	g_hash_table_replace(facts, g_steal_pointer(&name), now);
	return !same;
}

static bool is_told(const struct node *node)
{
	return node->life != 0 && node->fs && !node->closing && node->watches;
}

static void owe(struct node *nodes, unsigned n, uint32_t incarnation, uint64_t dir, const char *key)
{
	enum mf_space space = MF_SPACE_SELF;

	mf_key_is_entry(key, &space);
	for (unsigned i = 0; i < n; i++) {
		if (!is_told(&nodes[i]) || mf_node_incarnation(nodes[i].node) == incarnation)
			continue;
		for (unsigned k = 0; k < nodes[i].watches->len; k++) {
			struct watch *watch = nodes[i].watches->pdata[k];
			if (watch->dir == dir && watch->space == space)
				g_hash_table_add(watch->owed, g_strdup(key + MF_KEY_PREFIX));
		}
	}
}

static bool has_lease(GHashTable *xattrs, uint32_t incarnation)
{
	GBytes *bytes = g_hash_table_lookup(xattrs, MF_XATTR_LEASE);
	struct mf_lease_record rec;
	bool has = false;

	if (!bytes || mf_lease_record_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &rec) < 0)
		return false;
	for (unsigned i = 0; i < rec.holders->len; i++)
		has |= g_array_index(rec.holders, uint32_t, i) == incarnation;
	mf_lease_record_clear(&rec);
	return has;
}

/* Once it has the lease or its mark is there, one of both is so. */
static void check_marks(const struct node *node, uint64_t dir, const struct cluster_change *c)
{
	uint32_t self = mf_node_incarnation(node->node);
	g_autofree char *xattr = mf_xattr_interest(self);

	if (mf_node_is_fenced(node->node) || check_reign_is_lost(sched_reign(node->life)))
		return;
	for (unsigned i = 0; i < node->watches->len; i++) {
		struct watch *watch = node->watches->pdata[i];
		if (watch->dir != dir)
			continue;
		bool ok = has_lease(c->xattrs, self) || g_hash_table_contains(c->xattrs, xattr);
		if (!ok && watch->marked == self)
			sched_fail("%s: %s watches it, and nobody who changes it can know", c->oid, node->name);
		if (ok)
			watch->marked = self;
	}
}

void watcher_change(struct node *nodes, unsigned n, const struct cluster_change *c)
{
	enum mf_space space;
	uint64_t dir;
	bool head;

	if (!parse(c->oid, &dir, &head))
		return;
	for (unsigned i = 0; c->keys && i < c->keys->len; i++) {
		const char *key = c->keys->pdata[i];
		if (mf_key_is_entry(key, &space) && note_fact(c, dir, key))
			owe(nodes, n, c->incarnation, dir, key);
	}
	for (unsigned i = 0; head && c->exists && i < n; i++) {
		if (is_told(&nodes[i]))
			check_marks(&nodes[i], dir, c);
	}
}
