/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/sim/check.h - is what the clients saw possible?
 *
 * Model:   the world is a set of registers: where a message is (no place, or one of all names), what a file's number
 * is, whether a directory is there. For each register the checker keeps every state that the answers so far allow,
 *          together with which of the calls under way have taken effect in it. A call that is invoked may take effect
 *          at any moment until it returns; an answer that no state explains is a failure.
 *          What was answered and is not durable may be lost when its life ends without an unmount, back to any state
 *          since the last durable one. What is durable may not.
 *          A call that never returned, or whose result is unknown, may take effect at any later time, or never.
 * Threads: fibres.
 */
#pragma once

#include "tests/sim/pool.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct Register Register;
typedef struct Call Call;

#define CK_ABSENT 0
#define CK_UNKNOWN INT32_MIN	/* as a result: not known; the call may yet take effect */
#define CK_FAILED INT32_MIN + 1 /* as a result: surely without effect, for a reason that says nothing */

enum call_kind {
	CALL_CREATE, /* a: the new state. 0, or -EEXIST unless absent */
	CALL_MOVE,   /* a -> b. 0, or -ENOENT unless in a */
	CALL_REMOVE, /* a -> absent. 0, or -ENOENT unless in a */
	CALL_CLEAR,  /* anything -> absent. 0, or -ENOENT when absent */
	CALL_LOOK,   /* 1 in state a, else 0 */
	CALL_SEE,    /* the state when (state >> shift) is a, else 0: a listing of directory a */
	CALL_READ,   /* the state */
	CALL_WRITE,  /* a: the new state */
	CALL_TEST,   /* 1 unless absent */
};

#define CK_DIR_SHIFT 8

Register *check_register(const char *name, int state);
const char *check_name(const Register *reg);
Call *check_invoke(Register *reg, enum call_kind kind, int a, int b);
/* Frees the call. */
void check_return(Call *call, int result);
/* A mark, for check_durable(). */
uint64_t check_moment(void);
/* All that was answered before @moment is durable. */
void check_durable(Register *reg, uint64_t moment);
/* One state is possible: returns it, else CK_UNKNOWN. */
int check_state(const Register *reg);
/* One state is possible, and it is not CK_ABSENT. */
bool check_is_there(const Register *reg);
/* Made, and told to be durable, be it in another reign than that in which it was made: unless somebody removes it, it stays. */
void check_published(Register *reg);
/* The reign ended without an unmount: what is not durable may be lost. */
void check_reign_lost(int reign);
bool check_reign_is_lost(int reign);
/* The life has joined anew; what waited for that is done under the new reign. */
void check_new_reign(int life);
/* The life was killed: its calls never return. */
void check_life_ended(int life);

/* The observer of the cluster: invariants of leases, members and commits. */
void check_change(const struct cluster_change *change);
/* How often something was too entangled to be followed any further. */
unsigned check_given_up(void);
