/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/sim/sched.h - fibres instead of threads, and a clock of their own.
 *
 * Model:   one fibre runs at a time; whenever it gives up the processor the seed chooses who is next. Time stands still
 *          while anybody can run and then jumps to the next event. wrap.c puts GLib's mutexes, conditions, threads and
 *          clocks on top of this, so the product's own object files run in it.
 *          Each fibre belongs to a *life*: one mount of one node, from start to end. A life can be frozen (SIGSTOP) and
 *          killed (power failure). Life 0 is the world: the driver and the cluster.
 * Owns:    fibres free themselves; an event is freed when it ran or was cancelled.
 * Threads: none: that is the point.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCHED_LIVES 4096
#define SCHED_WORLD 0

typedef struct Fibre Fibre;
typedef struct Event Event;

struct waitq {
	Fibre *first;
};

/* What need not be done for each seed. */
void sched_prepare(void);
void sched_init(uint64_t seed);
/* Until sched_stop(). Returns false when it got stuck; the report is written by then. */
bool sched_run(void);
void sched_stop(void);
/* A check failed: report and end the process. */
void sched_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
extern bool sched_verbose;
void sched_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- chance ---- */

uint64_t sched_random(void);
uint64_t sched_below(uint64_t n);
bool sched_chance(unsigned per_10000);
int64_t sched_between(int64_t low, int64_t high); /* inclusive */

/* ---- time, us ---- */

int64_t sched_now(void);
void sched_sleep(int64_t us);
/* Somebody else may run, with some probability; and some time may pass. */
void sched_yield_maybe(void);
/* The processor is slow here and there, from 0 to 100. */
void sched_set_yields(unsigned per_10000, unsigned slow_per_10000);
/* Beyond this the simulation is stuck. */
void sched_set_limit(int64_t us);

/* ---- fibres ---- */

Fibre *sched_spawn(int life, const char *name, void *(*func)(void *), void *arg, bool joinable);
void *sched_join(Fibre *fibre);
Fibre *sched_current(void);
/* A pointer of the current fibre's own. */
void **sched_local(void);
int sched_life(void);
/* Waits to be woken. False: @until (-1: never) came first. */
bool sched_wait(struct waitq *queue, const char *why, const void *what, int64_t until);
/* What is written about this fibre while it waits. */
void sched_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *sched_name(const Fibre *fibre);
int sched_life_of(const Fibre *fibre);
void sched_wake_all(struct waitq *queue);
void sched_wake_one(struct waitq *queue);

/* ---- events: run by the scheduler, must not wait ---- */

/* @life: frozen and killed with it. @background: alone it is no reason to go on. */
Event *sched_at(int64_t at, int life, bool background, void (*func)(void *), void *arg);
void sched_cancel(Event *event); /* NULL ok */

/* ---- lives ---- */

int sched_new_life(void);
/* The time of a life as one incarnation: numbers as of lives, the first one the life's own. */
int sched_reign(int life);
int sched_new_reign(int life);
void sched_freeze(int life, int64_t until);
void sched_kill(int life);
bool sched_is_dead(int life);
bool sched_is_frozen(int life);

uint64_t sched_switches(void);
