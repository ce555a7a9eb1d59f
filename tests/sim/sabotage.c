/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/sabotage.h"

#include "locking/lease.h"
#include "sync/commit.h"
#include "sync/event.h"
#include "sync/interest.h"
#include "tests/sim/pool.h"

#include <errno.h>
#include <string.h>

#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wmissing-declarations"

static bool no_guard, no_deadline, early_release, no_mark, no_heir;

static const struct {
	const char *name;
	bool *flag;
	const char *what;
} breaks[] = {
	{ "no-guard", &no_guard, "changes do not assert the epoch" },
	{ "no-deadline", &no_deadline, "a node serves although its last ping is too old" },
	{ "early-release", &early_release, "a lease is handed over before what was changed under it is committed" },
	{ "no-mark", &no_mark, "who gives a lease up does not say that its kernel has the directory" },
	{ "no-heir", &no_heir, "nobody tells of what a dead node did last" },
	{ "missing-watch", &cluster_sabotage_ping, "who does not answer a ping at once is taken for dead" },
};

static bool *flag_of(const char *name)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(breaks); i++) {
		if (strcmp(name, breaks[i].name) == 0)
			return breaks[i].flag;
	}
	return NULL;
}

bool sabotage_exists(const char *name)
{
	return flag_of(name) != NULL;
}

void sabotage_set(const char *name)
{
	*flag_of(name) = true;
}

void sabotage_list(FILE *file)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(breaks); i++)
		fprintf(file, "  %-14s %s\n", breaks[i].name, breaks[i].what);
}

void __real_mf_lease_guard(MfWop *wop, const struct mf_lease *lease, bool stamp);
void __wrap_mf_lease_guard(MfWop *wop, const struct mf_lease *lease, bool stamp)
{
	char epoch[MF_EPOCH_TEXT];

	if (!no_guard) {
		__real_mf_lease_guard(wop, lease, stamp);
		return;
	}
	mf_lease_epoch_text(lease->epoch, epoch);
	mf_wop_assert_exists(wop);
	if (stamp)
		mf_wop_setxattr(wop, MF_XATTR_EPOCH, epoch, MF_EPOCH_TEXT - 1);
}

int __real_mf_node_check(MfNode *node);
int __wrap_mf_node_check(MfNode *node)
{
	if (no_deadline)
		return mf_node_is_fenced(node) ? -ESHUTDOWN : 0;
	return __real_mf_node_check(node);
}

/* Who hands over finds nothing to commit. */
bool __real_mf_commit_is_needed(const MfShard *shard);
bool __wrap_mf_commit_is_needed(const MfShard *shard)
{
	if (early_release && shard->dir->draining)
		return false;
	return __real_mf_commit_is_needed(shard);
}

void __real_mf_interest_note(MfDir *dir, MfWop *wop);
void __wrap_mf_interest_note(MfDir *dir, MfWop *wop)
{
	if (!no_mark)
		__real_mf_interest_note(dir, wop);
}

void __real_mf_event_inherit(MfDir *dir);
void __wrap_mf_event_inherit(MfDir *dir)
{
	if (!no_heir)
		__real_mf_event_inherit(dir);
}

void __real_mf_interest_bereaved(MfFs *fs);
void __wrap_mf_interest_bereaved(MfFs *fs)
{
	if (!no_heir)
		__real_mf_interest_bereaved(fs);
}
