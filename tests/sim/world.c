/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/world.h"

#include "store/record.h"
#include "sync/mkfs.h"
#include "sync/model.h"
#include "tests/sim/kernel.h"
#include "tests/sim/watcher.h"
#include "tests/sim/wrap.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SECOND INT64_C(1000000)
#define NODES_MAX 5
#define TROUBLES_MAX 40 /* then even a mount that always meets some succeeds */

struct plan plan;
unsigned steps_left;

static struct node nodes[NODES_MAX];
static bool faults_over;
static unsigned mains;
static struct waitq mains_ended;

static struct mf_conf *make_conf(const char *name)
{
	struct mf_conf *conf = mf_conf_new();

	g_free(conf->node);
	conf->node = g_strdup(name);
	return conf;
}

/* ---- who believes what ---- */

/* Would it answer from memory, or let somebody change the directory, at this moment? */
static bool serves(const struct node *node, const MfDir *dir)
{
	return dir->lease.mode != MF_LEASE_NONE && !dir->draining && !dir->acquiring && !dir->inode->removed &&
	       !mf_node_is_fenced(node->node) && !mf_node_is_due(node->node);
}

static bool is_mounted(const struct node *node)
{
	return node->life != 0 && node->fs && !node->closing && !check_reign_is_lost(sched_reign(node->life)) && !sched_is_frozen(node->life);
}

/* Not more than one that may change a directory, and then nobody beside it. */
static void check_beliefs(void)
{
	for (unsigned a = 0; a < plan.nodes; a++) {
		if (!is_mounted(&nodes[a]))
			continue;
		for (GList *link = nodes[a].fs->dir_lru.head; link; link = link->next) {
			const MfDir *dir = link->data;
			if (dir->lease.mode != MF_LEASE_EXCLUSIVE || !serves(&nodes[a], dir))
				continue;
			for (unsigned b = 0; b < plan.nodes; b++) {
				if (b == a || !is_mounted(&nodes[b]))
					continue;
				const MfInode *inode = g_hash_table_lookup(nodes[b].fs->inodes, &dir->inode->ino);
				if (inode && inode->kind == MF_KIND_DIR && inode->dir && serves(&nodes[b], inode->dir))
					sched_fail("d.%016lx: %s holds it exclusively (epoch %lx), and %s as well (mode %d, epoch %lx)",
						(unsigned long)inode->ino, nodes[a].name, (unsigned long)dir->lease.epoch,
						nodes[b].name, inode->dir->lease.mode,
						(unsigned long)inode->dir->lease.epoch);
			}
		}
	}
}

void world_check(void)
{
	static unsigned n;

	if (++n % 4 == 0)
		check_beliefs();
}

/* Who is declared lost has stopped by itself: it need not know that it was. */
static void check_burials(void)
{
	for (unsigned i = 0; i < plan.nodes; i++) {
		struct node *node = &nodes[i];
		if (node->life == 0 || !node->fs || node->closing || node->lost == sched_reign(node->life) ||
			!check_reign_is_lost(sched_reign(node->life)))
			continue;
		node->lost = sched_reign(node->life);
		if (!mf_node_is_fenced(node->node) && !mf_node_is_due(node->node))
			sched_fail("%s was declared lost while it trusts its last ping", node->name);
	}
}

static void on_change(const struct cluster_change *change)
{
	check_change(change);
	watcher_change(nodes, plan.nodes, change);
	check_burials();
	check_beliefs();
}

/* ---- joining anew ---- */

int __real_mf_node_rejoin(MfNode *node, char **ret_error);
int __wrap_mf_node_rejoin(MfNode *node, char **ret_error);
int __wrap_mf_node_rejoin(MfNode *mf_node, char **ret_error)
{
	int life = sched_life();

	check_reign_lost(sched_reign(life));
	int r = __real_mf_node_rejoin(mf_node, ret_error);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < plan.nodes; i++) {
		if (nodes[i].life != life)
			continue;
		cluster_set_incarnation(nodes[i].pool, mf_node_incarnation(mf_node));
		sched_log("%s joined anew as incarnation %u, reign %d", nodes[i].name, mf_node_incarnation(mf_node),
			sched_reign(life));
	}
	check_new_reign(life);
	return 0;
}

/* ---- one mount, as fuse/main.c does it ---- */

static int mount_node(struct node *node, char **ret_error)
{
	int r = mf_pool_open(node->conf, &node->pool, ret_error);

	if (r == 0)
		r = mf_fs_check(node->pool, node->conf, ret_error);
	if (r == 0)
		r = mf_node_join(node->pool, node->conf, "/mnt", &node->node, ret_error);
	if (r == 0) {
		cluster_set_incarnation(node->pool, mf_node_incarnation(node->node));
		sched_log("%s joined as incarnation %u", node->name, mf_node_incarnation(node->node));
		r = mf_fs_open(node->pool, node->node, node->conf, &node->fs, ret_error);
		if (r < 0)
			mf_node_leave(node->node, true);
		else
			kernel_mounted(node);
	}
	if (r < 0 && node->pool)
		mf_pool_close(node->pool);
	if (r < 0)
		sched_log("%s cannot mount: %s", node->name, *ret_error ? *ret_error : strerror(-r));
	return r;
}

static void unmount_node(struct node *node)
{
	sched_log("%s unmounts", node->name);
	node->closing = true;
	int r = mf_fs_close(node->fs);
	/* With the cluster at rest nothing may keep it from being clean. */
	if (r < 0 && r != -EREMOTEIO && faults_over && !mf_node_is_fenced(node->node))
		sched_fail("%s: the unmount failed: %s", node->name, strerror(-r));
	/* Not clean: what was not committed is lost, as in a crash. */
	if (r < 0 && r != -EREMOTEIO)
		check_reign_lost(sched_reign(node->life));
	mf_node_leave(node->node, r == 0);
	mf_pool_close(node->pool);
	node->fs = NULL;
}

static void *client_main(void *arg)
{
	struct client *client = arg;
	struct node *node = client->node;

	while (steps_left > 0 && !node->ending && node->budget > 0) {
		steps_left--;
		node->budget--;
		if (workload_step(client) < 0)
			sched_sleep(sched_between(1, SECOND));
		if (sched_chance(1000))
			sched_sleep(sched_between(0, 2 * SECOND));
	}
	node->clients--;
	sched_wake_all(&node->ended);
	return NULL;
}

static void node_ended(struct node *node)
{
	node->life = 0;
	mains--;
	sched_wake_all(&mains_ended);
}

static void start_node(struct node *node);

static void start_again(void *arg)
{
	struct node *node = arg;

	if (steps_left > 0)
		start_node(node);
	mains--;
	sched_wake_all(&mains_ended);
}

static void later(struct node *node, int64_t us)
{
	mains++;
	sched_at(sched_now() + us, SCHED_WORLD, false, start_again, node);
}

static void *node_main(void *arg)
{
	struct node *node = arg;
	g_autofree char *error = NULL;
	int r = mount_node(node, &error);

	if (r == 0) {
		for (unsigned i = 0; i < plan.clients; i++) {
			struct client *client = g_new0(struct client, 1);
			*client = (struct client){ .node = node, .id = node->life * 16 + i,
				.lookups = g_array_new(false, false, sizeof(uint64_t)) };
			node->clients++;
			sched_spawn(node->life, "client", client_main, client, false);
		}
		while (node->clients > 0)
			sched_wait(&node->ended, "its clients", node, -1);
		watcher_settle(node);
		unmount_node(node);
	} else if (faults_over && r != -EBUSY) {
		sched_fail("%s cannot mount: %s", node->name, error ? error : strerror(-r));
	}
	if (steps_left > 0)
		later(node, r < 0 ? sched_between(0, 3 * SECOND) : sched_between(0, SECOND));
	node_ended(node);
	return NULL;
}

static void start_node(struct node *node)
{
	node->life = sched_new_life();
	wrap_set_machine(node->life, (int)node->index);
	node->pool = NULL;
	node->node = NULL;
	node->fs = NULL;
	node->ending = node->closing = false;
	node->clients = 0;
	node->budget = sched_between(20, 120);
	node->ended = (struct waitq){ NULL };
	kernel_start(node);
	watcher_start(node);
	mains++;
	sched_spawn(node->life, node->name, node_main, node, false);
}

/* ---- what goes wrong ---- */

static void healed(void *arg)
{
	cluster_heal(GPOINTER_TO_INT(arg));
}

static void crash(struct node *node)
{
	int life = node->life;

	sched_log("%s crashes", node->name);
	cluster_crash(life);
	sched_kill(life);
	check_life_ended(life);
	later(node, sched_chance(5000) ? sched_between(0, SECOND) : sched_between(0, 8 * SECOND));
	node_ended(node);
}

void world_cut(struct node *node, int64_t time)
{
	if (!plan.partitions || steps_left == 0 || node->life == 0)
		return;
	sched_log("%s is cut off for %.3f s", node->name, (double)time / 1e6);
	cluster_partition(node->life, sched_now() + time);
	sched_at(sched_now() + time, SCHED_WORLD, false, healed, GINT_TO_POINTER(node->life));
}

static void *trouble_main(void *arg)
{
	int64_t pause = sched_between(SECOND / 10, 8 * SECOND);

	for (unsigned n = 0; n < TROUBLES_MAX && steps_left > 0; n++) {
		sched_sleep(sched_between(0, 2 * pause));
		struct node *node = &nodes[sched_below(plan.nodes)];
		/* Hardly noticed; long enough that others give up on it before it gives up on itself; long enough for both. */
		int64_t time = sched_below(3) == 0 ? sched_between(0, SECOND) :
			       sched_chance(5000)  ? sched_between(SECOND, 3 * SECOND) :
						     sched_between(0, 12 * SECOND);
		if (steps_left == 0 || node->life == 0 || sched_is_frozen(node->life))
			continue;
		switch (sched_below(3)) {
		case 0:
			if (!plan.stalls)
				break;
			sched_log("%s is stopped for %.3f s", node->name, (double)time / 1e6);
			sched_freeze(node->life, sched_now() + time);
			break;
		case 1:
			world_cut(node, time);
			break;
		case 2:
			/* Mostly when it has got somewhere. */
			if (plan.crashes && (node->fs || sched_chance(500)))
				crash(node);
			break;
		}
	}
	mains--;
	sched_wake_all(&mains_ended);
	return NULL;
}

/* ---- from mkfs to the last look ---- */

static void *setup_main(void *arg)
{
	struct node *node = arg;
	g_autofree char *error = NULL;

	if (mount_node(node, &error) < 0)
		sched_fail("the first mount failed: %s", error);
	workload_setup(node);
	unmount_node(node);
	return NULL;
}

/* Windows of dead nodes: their objects, and who made each. @arg: a table to add to. */
static void collect_windows(enum mf_pool_which which, const char *oid, void *arg)
{
	struct mf_member member = { 0 };

	if (!g_str_has_prefix(oid, "node."))
		return;
	/* One that died between its record and the removal of its object leaves an empty window. */
	GBytes *bytes = cluster_omap(MF_POOL_META, MF_OID_MEMBERS, oid + 5);
	if (bytes && mf_member_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &member) == 0) {
		if (member.state == MF_MEMBER_LOST)
			g_hash_table_insert(arg, g_strdup(oid), g_bytes_ref(cluster_xattr(which, oid, MF_XATTR_OWNER)));
		mf_member_clear(&member);
	}
}

/* @arg: how many are members and not lost. */
static void count_live(enum mf_pool_which which, const char *oid, void *arg)
{
	struct mf_member member = { 0 };
	unsigned *live = arg;

	if (!g_str_has_prefix(oid, "node."))
		return;
	GBytes *bytes = cluster_omap(MF_POOL_META, MF_OID_MEMBERS, oid + 5);
	if (bytes && mf_member_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &member) == 0) {
		*live += member.state == MF_MEMBER_LIVE || member.state == MF_MEMBER_EVICTING;
		mf_member_clear(&member);
	}
}

/* One that nobody needs is declared lost only after a while, and one after the other. */
static void wait_for_burials(void)
{
	unsigned live;

	for (unsigned tries = 0; tries < NODES_MAX * 120; tries++) {
		live = 0;
		cluster_foreach(count_live, &live);
		if (live <= 1)
			return;
		sched_sleep(SECOND);
	}
	sched_fail("%u nodes that died are taken for alive", live - 1);
}

static void *verify_main(void *arg)
{
	struct node *node = arg;
	g_autofree char *error = NULL;
	g_autoptr(GHashTable) before = g_hash_table_new(g_str_hash, g_str_equal);
	g_autoptr(GHashTable) after = g_hash_table_new(g_str_hash, g_str_equal);
	GHashTableIter iter;
	gpointer oid, owner;
	int r;

	cluster_foreach(collect_windows, before);
	for (int tries = 0; ((r = mount_node(node, &error)) == -EBUSY || r == -ETIMEDOUT) && tries < 20; tries++) {
		g_clear_pointer(&error, g_free);
		sched_sleep(SECOND);
	}
	if (r < 0)
		sched_fail("the last mount failed: %s", error ? error : strerror(-r));
	workload_verify(node);
	wait_for_burials();
	/* Sweeping goes on in the background. */
	sched_sleep(60 * SECOND);
	unmount_node(node);
	cluster_foreach(collect_windows, after);
	g_hash_table_iter_init(&iter, before);
	while (!cluster_faults.weak_blocklist && g_hash_table_iter_next(&iter, &oid, &owner)) {
		GBytes *left = g_hash_table_lookup(after, oid);
		/* A join that tried this number, too, and came late may make it again when it was swept: that one is for the
		 * next mount. */
		if (left && g_bytes_equal(left, owner))
			sched_fail("%s: the window of a dead node was not swept", (char *)oid);
	}
	if (!cluster_faults.weak_blocklist)
		workload_check_leaks();
	return NULL;
}

static void alone(struct node *node, void *(*func)(void *))
{
	node->life = sched_new_life();
	wrap_set_machine(node->life, (int)node->index);
	node->fs = NULL;
	node->ending = node->closing = false;
	kernel_start(node);
	watcher_start(node);
	sched_join(sched_spawn(node->life, node->name, func, node, true));
	node->life = 0;
}

static void choose_faults(void)
{
	unsigned level = sched_below(3);

	if (plan.calm || level == 0)
		return;
	cluster_faults.slow = sched_chance(5000) ? sched_below(1500) : 0;
	cluster_faults.twice = sched_below(2000);
	cluster_faults.unheard = sched_chance(3000) ? sched_below(2000) : 0;
	if (level == 1)
		return;
	cluster_faults.lost = sched_chance(3000) ? sched_below(200) : 0;
	cluster_faults.dropped = sched_chance(3000) ? sched_below(200) : 0;
	cluster_faults.late = sched_chance(3000) ? sched_below(200) : 0;
	cluster_faults.resent = sched_chance(5000) ? sched_below(1000) : 0;
	cluster_faults.forgotten = sched_chance(5000) ? 3000 : 0;
	cluster_faults.weak_blocklist = sched_chance(1500);
}

static void *driver(void *arg)
{
	char *error = NULL;
	unsigned split = sched_chance(2500) ? 6 : 10000; /* below what a user may set */
	unsigned op_timeout = sched_between(2, 8) * 1000;
	unsigned watch_timeout = sched_chance(7000) ? 3 : sched_between(2, 5);
	unsigned recall_timeout = sched_between(1, 12) * 1000;
	uint64_t cache = sched_chance(2000) ? 1 << 14 : 64 << 20;
	bool sync_rename = sched_chance(2000);
	unsigned interval = sched_chance(7000) ? 1000 : sched_below(3000);

	for (unsigned i = 0; i < plan.nodes; i++) {
		struct node *node = &nodes[i];
		node->index = i;
		snprintf(node->name, sizeof(node->name), "node%u", i);
		node->conf = make_conf(node->name);
		node->conf->op_timeout_ms = op_timeout;
		node->conf->watch_timeout_s = watch_timeout;
		node->conf->recall_timeout_ms = recall_timeout;
		node->conf->split_entries = split;
		node->conf->cache_size = cache;
		node->conf->sync_rename = sync_rename;
		node->conf->commit_interval_ms = interval;
	}
	cluster_observe(on_change);
	if (mf_mkfs(nodes[0].conf, &error) < 0)
		sched_fail("mkfs: %s", error);
	alone(&nodes[0], setup_main);
	choose_faults();
	for (unsigned i = 0; i < plan.nodes; i++)
		start_node(&nodes[i]);
	if (plan.stalls || plan.partitions || plan.crashes) {
		mains++;
		sched_spawn(SCHED_WORLD, "trouble", trouble_main, NULL, false);
	}
	while (mains > 0)
		sched_wait(&mains_ended, "the nodes", NULL, -1);
	faults_over = true;
	cluster_calm();
	cluster_faults = (struct cluster_faults){ .weak_blocklist = cluster_faults.weak_blocklist };
	alone(&nodes[0], verify_main);
	sched_stop();
	return NULL;
}

void world_run(void)
{
	sched_spawn(SCHED_WORLD, "driver", driver, NULL, false);
}
