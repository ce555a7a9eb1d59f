/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/check.h"

#include "store/record.h"
#include "tests/sim/sched.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CALLS 12u
#define WORLDS_MAX 3000u

struct Call {
	Register *reg;
	enum call_kind kind;
	int a, b;
	int life, reign;
	unsigned slot;
	uint64_t invoked;
	bool after_loss; /* its reign had ended then, whether it knew or not */
	bool orphan;	 /* never returns */
};

/* One way things may stand. */
struct world {
	int state;
	uint32_t done; /* slots of calls that took effect */
	int result[CALLS];
};

struct undurable {
	int state; /* before the change */
	uint64_t moment;
	int reign; /* that makes the change */
};

struct Register {
	char *name;
	GArray *worlds; /* struct world */
	Call *calls[CALLS];
	bool given_up;
	bool removing; /* somebody has tried to remove it */
	GArray *undurable;
};

static GPtrArray *registers;
static uint64_t moment;
static bool lost[SCHED_LIVES];
static unsigned given_up;

static const char *const kind_names[] = { "create", "move", "remove", "clear", "look", "see", "read", "write", "test" };

Register *check_register(const char *name, int state)
{
	Register *reg = g_new0(Register, 1);

	reg->name = g_strdup(name);
	reg->worlds = g_array_new(false, true, sizeof(struct world));
	g_array_append_vals(reg->worlds, &(struct world){ .state = state }, 1);
	reg->undurable = g_array_new(false, false, sizeof(struct undurable));
	if (!registers)
		registers = g_ptr_array_new();
	g_ptr_array_add(registers, reg);
	return reg;
}

const char *check_name(const Register *reg)
{
	return reg->name;
}

unsigned check_given_up(void)
{
	return given_up;
}

uint64_t check_moment(void)
{
	return ++moment;
}

static bool is_change(enum call_kind kind)
{
	return kind == CALL_CREATE || kind == CALL_MOVE || kind == CALL_REMOVE || kind == CALL_CLEAR ||
	       kind == CALL_WRITE;
}

/* The call takes effect now. */
static int step(const Call *call, int *state)
{
	switch (call->kind) {
	case CALL_CREATE:
		if (*state != CK_ABSENT)
			return -EEXIST;
		*state = call->a;
		return 0;
	case CALL_MOVE:
		if (*state != call->a)
			return -ENOENT;
		*state = call->b;
		return 0;
	case CALL_REMOVE:
		if (*state != call->a)
			return -ENOENT;
		*state = CK_ABSENT;
		return 0;
	case CALL_CLEAR:
		if (*state == CK_ABSENT)
			return -ENOENT;
		*state = CK_ABSENT;
		return 0;
	case CALL_LOOK:
		return *state == call->a;
	case CALL_SEE:
		return *state != CK_ABSENT && *state >> CK_DIR_SHIFT == call->a ? *state : 0;
	case CALL_READ:
		return *state;
	case CALL_WRITE:
		*state = call->a;
		return 0;
	case CALL_TEST:
		return *state != CK_ABSENT;
	}
	return 0;
}

static bool has_world(const Register *reg, const struct world *world)
{
	for (unsigned i = 0; i < reg->worlds->len; i++) {
		const struct world *w = &g_array_index(reg->worlds, struct world, i);
		if (w->state != world->state || w->done != world->done)
			continue;
		bool same = true;
		for (unsigned k = 0; k < CALLS; k++)
			same &= !(w->done >> k & 1) || w->result[k] == world->result[k];
		if (same)
			return true;
	}
	return false;
}

static void give_up(Register *reg)
{
	if (!reg->given_up)
		given_up++;
	reg->given_up = true;
	g_array_set_size(reg->worlds, 0);
}

/* Every order in which calls under way may have taken effect by now. */
static void expand(Register *reg)
{
	for (unsigned i = 0; i < reg->worlds->len; i++) {
		for (unsigned k = 0; k < CALLS; k++) {
			struct world next = g_array_index(reg->worlds, struct world, i);
			if (!reg->calls[k] || next.done >> k & 1)
				continue;
			next.result[k] = step(reg->calls[k], &next.state);
			next.done |= 1u << k;
			/* Nobody waits for the result of an orphan. */
			if (reg->calls[k]->orphan) {
				if (next.result[k] < 0)
					continue;
				next.result[k] = 0;
			}
			if (!has_world(reg, &next))
				g_array_append_val(reg->worlds, next);
		}
		if (reg->worlds->len > WORLDS_MAX) {
			give_up(reg);
			return;
		}
	}
}

/* What the register may fall back to when @reign ends; called when a change begins and when it was answered. */
static void note_undurable(Register *reg, int reign, uint64_t at)
{
	for (unsigned i = 0; i < reg->worlds->len; i++) {
		struct undurable u = { g_array_index(reg->worlds, struct world, i).state, at, reign };
		bool known = false;
		for (unsigned k = 0; k < reg->undurable->len; k++) {
			struct undurable *other = &g_array_index(reg->undurable, struct undurable, k);
			if (other->state != u.state || other->reign != reign)
				continue;
			other->moment = MAX(other->moment, at);
			known = true;
		}
		if (!known)
			g_array_append_val(reg->undurable, u);
	}
}

/* An answer to @call: nobody else gets at it before what others did is durable. */
static void changed(const Call *call)
{
	Register *reg = call->reg;

	for (unsigned i = reg->undurable->len; i > 0; i--) {
		struct undurable *u = &g_array_index(reg->undurable, struct undurable, i - 1);
		if (u->reign != call->reign)
			g_array_remove_index(reg->undurable, i - 1);
		else if (u->moment >= call->invoked)
			u->moment = moment; /* durable by what begins after this only */
	}
	note_undurable(reg, call->reign, moment);
}

Call *check_invoke(Register *reg, enum call_kind kind, int a, int b)
{
	Call *call = g_new0(Call, 1);

	*call = (Call){
		.reg = reg, .kind = kind, .a = a, .b = b, .life = sched_life(), .reign = sched_reign(sched_life()),
		.invoked = ++moment, .slot = CALLS
	};
	call->after_loss = lost[call->reign];
	reg->removing |= kind == CALL_REMOVE || kind == CALL_CLEAR;
	if (reg->given_up)
		return call;
	for (call->slot = 0; call->slot < CALLS && reg->calls[call->slot]; call->slot++)
		;
	if (call->slot == CALLS)
		give_up(reg);
	else
		reg->calls[call->slot] = call;
	if (is_change(kind) && !reg->given_up && !lost[call->reign])
		note_undurable(reg, call->reign, moment);
	return call;
}

static void drop_slot(Register *reg, unsigned slot)
{
	g_autoptr(GArray) old = reg->worlds;

	reg->calls[slot] = NULL;
	reg->worlds = g_array_new(false, true, sizeof(struct world));
	for (unsigned i = 0; i < old->len; i++) {
		struct world w = g_array_index(old, struct world, i);
		w.done &= ~(1u << slot);
		if (!has_world(reg, &w))
			g_array_append_val(reg->worlds, w);
	}
}

static void explain(const Call *call, int result, GArray *worlds)
{
	GString *text = g_string_new(NULL);
	unsigned n = MIN(worlds->len, 8);

	for (unsigned i = 0; i < n; i++) {
		const struct world *w = &g_array_index(worlds, struct world, i);
		g_string_append_printf(text, " %#x", w->state);
		if (w->done >> call->slot & 1)
			g_string_append_printf(text, "(would give %#x)", w->result[call->slot]);
	}
	for (unsigned k = 0; k < CALLS; k++) {
		const Call *c = call->reg->calls[k];
		if (c && c != call)
			g_string_append_printf(text, "; under way: %s %#x %#x by life %d%s", kind_names[c->kind], c->a,
				c->b, c->life, c->orphan ? ", never answered" : "");
	}
	sched_fail("%s: %s %#x %#x gave %d (%#x), impossible: states are%s", call->reg->name, kind_names[call->kind],
		call->a, call->b, result, result, text->str);
}

/* The reign was over before the call returned: it says nothing of what others see, and what it changed was not
 * committed, or was before. */
static bool ignore(const Call *call, int result)
{
	return lost[call->reign] && (is_change(call->kind) || !call->after_loss);
}

void check_return(Call *call, int result)
{
	Register *reg = call->reg;

	moment++;
	if (sched_verbose && (result != 0 || is_change(call->kind)))
		sched_log("%s: %s %#x %#x: %#x", reg->name, kind_names[call->kind], call->a, call->b, result);
	if (reg->given_up) {
		g_free(call);
		return;
	}
	if (ignore(call, result))
		result = is_change(call->kind) ? CK_UNKNOWN : CK_FAILED;
	if (result == CK_UNKNOWN && is_change(call->kind)) {
		/* It may have waited for the next one, and been done there. */
		int reign = sched_reign(call->life);
		if (!lost[reign])
			note_undurable(reg, reign, moment);
		call->orphan = true; /* keeps its slot */
		return;
	}
	if (result == CK_UNKNOWN || result == CK_FAILED) {
		/* Without effect: only the worlds where it has none. */
		g_autoptr(GArray) old = reg->worlds;
		reg->worlds = g_array_new(false, true, sizeof(struct world));
		for (unsigned i = 0; i < old->len; i++) {
			struct world *w = &g_array_index(old, struct world, i);
			if (!is_change(call->kind) || !(w->done >> call->slot & 1))
				g_array_append_vals(reg->worlds, w, 1);
		}
		drop_slot(reg, call->slot);
		g_free(call);
		return;
	}
	if (is_change(call->kind) && result == 0)
		changed(call);
	expand(reg);
	if (reg->given_up) {
		g_free(call);
		return;
	}
	g_autoptr(GArray) old = reg->worlds;
	reg->worlds = g_array_new(false, true, sizeof(struct world));
	for (unsigned i = 0; i < old->len; i++) {
		struct world *w = &g_array_index(old, struct world, i);
		if (w->done >> call->slot & 1 && w->result[call->slot] == result)
			g_array_append_vals(reg->worlds, w, 1);
	}
	if (reg->worlds->len == 0)
		explain(call, result, old);
	drop_slot(reg, call->slot);
	g_free(call);
}

void check_durable(Register *reg, uint64_t before)
{
	/* What is under way may take effect after all that was waited for. */
	for (unsigned k = 0; k < CALLS; k++) {
		if (reg->calls[k] && !reg->calls[k]->orphan && is_change(reg->calls[k]->kind))
			return;
	}
	for (unsigned i = reg->undurable->len; i > 0; i--) {
		if (g_array_index(reg->undurable, struct undurable, i - 1).moment < before)
			g_array_remove_index(reg->undurable, i - 1);
	}
}

int check_state(const Register *reg)
{
	if (reg->given_up || reg->worlds->len == 0)
		return CK_UNKNOWN;
	int state = g_array_index(reg->worlds, struct world, 0).state;
	for (unsigned i = 1; i < reg->worlds->len; i++) {
		if (g_array_index(reg->worlds, struct world, i).state != state)
			return CK_UNKNOWN;
	}
	return state;
}

bool check_is_there(const Register *reg)
{
	int state = check_state(reg);

	return state != CK_UNKNOWN && state != CK_ABSENT;
}

void check_published(Register *reg)
{
	if (reg->given_up || reg->removing)
		return;
	expand(reg);
	g_autoptr(GArray) old = reg->worlds;
	reg->worlds = g_array_new(false, true, sizeof(struct world));
	for (unsigned i = 0; i < old->len; i++) {
		if (g_array_index(old, struct world, i).state != CK_ABSENT)
			g_array_append_vals(reg->worlds, &g_array_index(old, struct world, i), 1);
	}
	if (!reg->given_up && reg->worlds->len == 0)
		sched_fail("%s: was said to be durable, and is lost", reg->name);
	for (unsigned i = reg->undurable->len; i > 0; i--) {
		if (g_array_index(reg->undurable, struct undurable, i - 1).state == CK_ABSENT)
			g_array_remove_index(reg->undurable, i - 1);
	}
}

bool check_reign_is_lost(int reign)
{
	return lost[reign];
}

void check_reign_lost(int reign)
{
	if (lost[reign])
		return;
	sched_log("reign %d is lost", reign);
	lost[reign] = true;
	for (unsigned i = 0; registers && i < registers->len; i++) {
		Register *reg = registers->pdata[i];
		if (reg->given_up)
			continue;
		expand(reg);
		unsigned n = reg->worlds->len;
		for (unsigned k = reg->undurable->len; k > 0; k--) {
			struct undurable u = g_array_index(reg->undurable, struct undurable, k - 1);
			if (u.reign != reign)
				continue;
			for (unsigned w = 0; w < n; w++) {
				struct world next = g_array_index(reg->worlds, struct world, w);
				next.state = u.state;
				if (!has_world(reg, &next))
					g_array_append_val(reg->worlds, next);
			}
			g_array_remove_index(reg->undurable, k - 1);
		}
	}
}

void check_new_reign(int life)
{
	for (unsigned i = 0; registers && i < registers->len; i++) {
		Register *reg = registers->pdata[i];
		for (unsigned k = 0; !reg->given_up && k < CALLS; k++) {
			const Call *call = reg->calls[k];
			if (call && call->life == life && !call->orphan && is_change(call->kind)) {
				note_undurable(reg, sched_reign(life), moment);
				break;
			}
		}
	}
}

void check_life_ended(int life)
{
	check_reign_lost(sched_reign(life));
	for (unsigned i = 0; registers && i < registers->len; i++) {
		Register *reg = registers->pdata[i];
		for (unsigned k = 0; !reg->given_up && k < CALLS; k++) {
			Call *call = reg->calls[k];
			if (!call || call->life != life || call->orphan)
				continue;
			if (is_change(call->kind))
				call->orphan = true;
			else
				drop_slot(reg, k);
		}
	}
}

/* ---- what the cluster sees ---- */

static uint64_t number_of(GHashTable *xattrs, const char *name)
{
	GBytes *bytes = xattrs ? g_hash_table_lookup(xattrs, name) : NULL;
	char text[17] = "";

	if (bytes)
		memcpy(text, g_bytes_get_data(bytes, NULL), MIN(g_bytes_get_size(bytes), 16));
	return g_ascii_strtoull(text, NULL, 16);
}

static bool lease_of(GHashTable *xattrs, struct mf_lease_record *ret)
{
	GBytes *bytes = xattrs ? g_hash_table_lookup(xattrs, MF_XATTR_LEASE) : NULL;

	return bytes && mf_lease_record_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), ret) == 0;
}

static bool member_of(uint32_t incarnation, struct mf_member *ret)
{
	char key[16];

	g_snprintf(key, sizeof(key), "%08x", incarnation);
	GBytes *bytes = cluster_omap(MF_POOL_META, MF_OID_MEMBERS, key);
	return bytes && mf_member_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), ret) == 0;
}

static bool is_live(uint32_t incarnation)
{
	struct mf_member member = { 0 };

	if (!member_of(incarnation, &member))
		return false;
	bool live = member.state == MF_MEMBER_LIVE || member.state == MF_MEMBER_EVICTING;
	mf_member_clear(&member);
	return live;
}

static bool holds(const struct mf_lease_record *lease, uint32_t incarnation)
{
	for (unsigned i = 0; i < lease->holders->len; i++) {
		if (g_array_index(lease->holders, uint32_t, i) == incarnation)
			return true;
	}
	return false;
}

/* Who finishes the rename of a dead node removes its marker, which nobody else looks at, wherever the lease is. */
static bool is_marker_removal(const struct cluster_change *c)
{
	for (unsigned i = 0; i < c->keys->len; i++) {
		const char *key = c->keys->pdata[i];
		if (!g_str_has_prefix(key, MF_KEY_GAIN) || cluster_omap(c->which, c->oid, key))
			return false;
	}
	return true;
}

static void check_lease(const struct cluster_change *c)
{
	struct mf_lease_record before = { 0 }, after = { 0 };
	bool had = lease_of(c->xattrs_before, &before), has = lease_of(c->xattrs, &after);

	if (has && after.mode == MF_LEASE_EXCLUSIVE && after.holders->len != 1)
		sched_fail("%s: an exclusive lease with %u holders", c->oid, after.holders->len);
	if (had && has && after.epoch < before.epoch)
		sched_fail("%s: the epoch of the lease went back", c->oid);
	if (had && has && c->incarnation != 0) {
		/* Nobody drops another node's name while that lives. */
		for (unsigned i = 0; i < before.holders->len; i++) {
			uint32_t holder = g_array_index(before.holders, uint32_t, i);
			if (!holds(&after, holder) && holder != c->incarnation && is_live(holder))
				sched_fail("%s: incarnation %u took the lease of %u, which lives", c->oid,
					c->incarnation, holder);
		}
		if (c->keys && c->keys->len > 0 && !holds(&before, c->incarnation) && !holds(&after, c->incarnation) &&
			!is_marker_removal(c))
			sched_fail("%s: incarnation %u changed it without a lease", c->oid, c->incarnation);
		/* Who leaves a shared lease says what it has open. */
		for (unsigned i = 0; c->keys && i < c->keys->len && before.mode == MF_LEASE_SHARED; i++)
			if (!is_marker_removal(c) && !g_str_has_prefix(c->keys->pdata[i], MF_KEY_OPEN))
				sched_fail("%s: incarnation %u changed it under a shared lease", c->oid, c->incarnation);
	}
	if (had)
		mf_lease_record_clear(&before);
	if (has)
		mf_lease_record_clear(&after);
}

static void check_members(const struct cluster_change *c)
{
	for (unsigned i = 0; c->keys && i < c->keys->len; i++) {
		struct mf_member member = { 0 };
		GBytes *bytes = cluster_omap(c->which, c->oid, c->keys->pdata[i]);
		if (!bytes || mf_member_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &member) < 0)
			sched_fail("members: damaged record %s", (char *)c->keys->pdata[i]);
		/* Not the incarnation of a try to join whose answer got lost. */
		int reign = cluster_reign_of(member.addrs, g_ascii_strtoull(c->keys->pdata[i], NULL, 16));
		if (member.state == MF_MEMBER_LOST && reign > 0)
			check_reign_lost(reign);
		mf_member_clear(&member);
	}
}

/* What a commit names is there before it: a crash may come right after. */
static void check_names(const struct cluster_change *c)
{
	enum mf_space space;

	for (unsigned i = 0; i < c->keys->len; i++) {
		const char *key = c->keys->pdata[i];
		GBytes *value = mf_key_is_entry(key, &space) ? cluster_omap(c->which, c->oid, key) : NULL;
		struct mf_dirent_record rec;

		if (!value || mf_dirent_decode(g_bytes_get_data(value, NULL), g_bytes_get_size(value), &rec) < 0)
			continue;
		g_autofree char *oid = mf_oid_dir(rec.ino, 0);
		if (rec.kind == MF_KIND_DIR && !cluster_xattr(MF_POOL_META, oid, MF_XATTR_LAST))
			sched_fail("%s: '%s' names the directory %s, which is not there", c->oid, key, oid);
		mf_dirent_clear(&rec);
	}
}

void check_change(const struct cluster_change *c)
{
	if (number_of(c->xattrs, MF_XATTR_EPOCH) < number_of(c->xattrs_before, MF_XATTR_EPOCH) && c->exists)
		sched_fail("%s: the epoch went back", c->oid);
	if (strcmp(c->oid, MF_OID_MEMBERS) == 0)
		check_members(c);
	if (c->oid[0] == 'd')
		check_names(c);
	if (c->oid[0] != 'd' || !c->existed || !c->exists)
		return;
	if (number_of(c->xattrs, MF_XATTR_LAST) < number_of(c->xattrs_before, MF_XATTR_LAST))
		sched_fail("%s: the version went back", c->oid);
	check_lease(c);
}
