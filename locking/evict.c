/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "locking/evict.h"

#include "locking/members.h"

#include <errno.h>
#include <time.h>

#define BLOCKLIST_SECONDS (30u * 86400u) /* Ceph's own 3600 s would let a client that slept through it write again */

static int64_t boottime_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

static int blocklist(MfPool *pool, const struct mf_member *member, const char *addrs)
{
	int r = mf_pool_blocklist(pool, addrs, BLOCKLIST_SECONDS);

	if (r < 0)
		g_warning("cannot blocklist the dead node '%s' (%s): %s", member->node, member->addrs, g_strerror(-r));
	return r;
}

int mf_evict_cut_off(MfPool *pool, uint32_t inc, const struct mf_member *member)
{
	g_autofree char *oid = mf_oid_node(inc);
	g_autoptr(MfRop) rop = mf_rop_new();

	mf_rop_xattrs(rop);
	int r = mf_pool_read(pool, MF_POOL_META, oid, rop);
	if (r < 0 && r != -ENOENT)
		return r;
	/* Swept, so somebody has done that before; but this client must know the map, too. */
	bool swept = r == -ENOENT;
	r = blocklist(pool, member, swept ? "" : member->addrs);
	return r < 0 ? r : swept;
}

/* Does anybody hold its watch? 0: nobody. -EAGAIN: it lives, or has not been silent for long enough. */
static int ask_watch(MfPool *pool, uint32_t inc, const struct mf_member *member)
{
	g_autofree char *oid = mf_oid_node(inc);
	int64_t deadline = boottime_ms() + (member->watch_timeout_s + 2) * INT64_C(1000);

	for (;;) {
		unsigned alive = 0, silent = 0;
		/* It ends when the watch does, so nothing is gained by asking more often. */
		int r = mf_pool_ping(pool, oid, member->watch_timeout_s + 1, &alive, &silent);

		if (r == -ENOENT || (r == 0 && alive == 0 && silent == 0))
			return 0;
		if (r < 0)
			return r;
		/* A silent watcher is dead or stopped: its watch ends by itself unless it still pings. */
		if (alive > 0 || boottime_ms() > deadline)
			return -EAGAIN;
	}
}

static int declare_lost(MfPool *pool, struct mf_ending *ending, struct mf_members *members, struct mf_member *member)
{
	member->state = MF_MEMBER_LOST;
	int r = mf_members_set(pool, members, ending->incarnation, member);
	if (r < 0)
		return r;
	ending->ours = true;
	return mf_evict_cut_off(pool, ending->incarnation, member);
}

static int declare_evicting(
	MfPool *pool, struct mf_ending *ending, struct mf_members *members, struct mf_member *member)
{
	member->state = MF_MEMBER_EVICTING;
	member->since = g_get_real_time() * 1000;
	int r = mf_members_set(pool, members, ending->incarnation, member);
	if (r == 0)
		r = blocklist(pool, member, member->addrs);
	if (r < 0)
		return r;
	ending->evicting = true;
	return 1;
}

static int step(
	MfPool *pool, struct mf_ending *ending, bool evict, struct mf_members *members, struct mf_member *member)
{
	bool dead = ending->is_dead && ending->is_dead(member, ending->arg);
	int r;

	switch (member->state) {
	case MF_MEMBER_CLEAN:
		return 0;
	case MF_MEMBER_LOST:
		return mf_evict_cut_off(pool, ending->incarnation, member);
	case MF_MEMBER_EVICTING:
		/* Its watch may be gone because of the blocklist, while its own clock still trusts the last ping.
		 * Whoever began this may have died, even before the blocklist: a whole timeout from now is surely
		 * enough. */
		if (!dead && !ending->waited) {
			r = blocklist(pool, member, member->addrs);
			if (r < 0)
				return r;
			g_usleep(member->watch_timeout_s * (gulong)G_USEC_PER_SEC);
		}
		return declare_lost(pool, ending, members, member);
	default:
		if (evict && !dead)
			return declare_evicting(pool, ending, members, member);
		r = dead ? 0 : ask_watch(pool, ending->incarnation, member);
		return r < 0 ? r : declare_lost(pool, ending, members, member);
	}
}

int mf_evict_step(MfPool *pool, struct mf_ending *ending, bool evict)
{
	struct mf_members members;
	int r = mf_members_read(pool, &members);

	if (r < 0)
		return r;
	ending->evicting = ending->ours = ending->swept = false;
	struct mf_member *member = g_hash_table_lookup(members.records, GUINT_TO_POINTER(ending->incarnation));
	if (!member) {
		/* Its join is under way, or it has never been; its watch comes before its record. */
		r = -EAGAIN;
	} else {
		r = step(pool, ending, evict, &members, member);
		ending->state = member->state;
		if (ending->ours)
			g_message("node '%s' (incarnation %u) is dead: its place is taken", member->node,
				ending->incarnation);
		if (r == 1 && member->state == MF_MEMBER_LOST) {
			ending->swept = true;
			r = 0;
		}
	}
	mf_members_clear(&members);
	/* Somebody else changed `members' in between. */
	return r == -ECANCELED ? 1 : r;
}
