/* SPDX-License-Identifier: LGPL-2.1-or-later */
#undef _FORTIFY_SOURCE /* its longjmp() wants to go up one stack only */
#include "tests/sim/sched.h"

#include <execinfo.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define STACK_SIZE (256u << 10)
#define STACKS_MAX 4096
#define STACK_BASE ((char *)0x300000000000)
#define BUSY_MAX 3000 /* switches without time passing */
#define SWITCHES_MAX UINT64_C(20000000)

enum state {
	READY,
	RUNNING,
	WAITING,
	DONE,
	DEAD,
};

struct Fibre {
	unsigned id;
	int life;
	enum state state;
	char name[40];
	char note[80];
	void *(*func)(void *);
	void *arg;
	void *result;
	bool started, joinable, timed_out;
	const char *why;
	const void *what;
	int64_t since;
	struct waitq *queue;
	Fibre *next; /* in queue */
	Event *timer;
	struct waitq joiners;
	unsigned ready_at; /* index in ready */
	unsigned stack;
	Fibre *all_next, *all_prev;
	void *local;
	jmp_buf context;
};

struct Event {
	int64_t at;
	uint64_t order;
	int life;
	bool background;
	bool queued;
	size_t index;
	void (*func)(void *);
	void *arg;
};

bool sched_verbose;

static uint64_t rng[2];
static int64_t now, limit;
static Fibre *current, *all;
static jmp_buf scheduler;
static bool stopping, dumping;
static uint64_t switches, event_order;
static unsigned idle_switches;
static unsigned next_id, yield_chance, slow_chance;

static Fibre **ready;
static unsigned n_ready, ready_room;

static Event **heap;
static size_t n_heap, heap_room, n_foreground;

static unsigned stacks_used, stacks_mapped, n_free_stacks;
static unsigned free_stacks[STACKS_MAX];

static struct life {
	bool used, dead;
	int64_t frozen_until;
	int reign;
} lives[SCHED_LIVES];
static int n_lives;

/* ---- chance: xoroshiro128+ ---- */

static uint64_t rotate(uint64_t x, int k)
{
	return x << k | x >> (64 - k);
}

uint64_t sched_random(void)
{
	uint64_t a = rng[0], b = rng[1], r = a + b;

	b ^= a;
	rng[0] = rotate(a, 24) ^ b ^ b << 16;
	rng[1] = rotate(b, 37);
	return r;
}

static uint64_t splitmix(uint64_t *x)
{
	uint64_t z = *x += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

uint64_t sched_below(uint64_t n)
{
	return (sched_random() >> 11) % n;
}

bool sched_chance(unsigned per_10000)
{
	return per_10000 > 0 && sched_below(10000) < per_10000;
}

int64_t sched_between(int64_t low, int64_t high)
{
	return low + (int64_t)sched_below(high - low + 1);
}

/* ---- reports ---- */

void sched_log(const char *format, ...)
{
	va_list args;

	if (!sched_verbose)
		return;
	fprintf(stderr, "%10.6f %-18s ", (double)now / 1e6, current ? current->name : "-");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

static void backtrace_here(void)
{
	void *frames[32];
	char exe[200], command[1200];
	extern char __executable_start;
	int n = backtrace(frames, 32);
	ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	if (len <= 0)
		return;
	exe[len] = 0;
	len = snprintf(command, sizeof(command), "addr2line -s -f -p -e %s", exe);
	for (int i = 3; i < n && len < (ssize_t)sizeof(command) - 20; i++)
		len += snprintf(command + len, sizeof(command) - len, " %#lx",
			(unsigned long)((char *)frames[i] - &__executable_start - 1));
	snprintf(command + len, sizeof(command) - len, " 2>/dev/null | grep -v '^[?]' | sed 's/^/        /' >&2");
	fflush(stderr);
	if (system(command) != 0)
		fprintf(stderr, "        (no addr2line)\n");
}

static const char *const state_names[] = { "ready", "running", "waits", "done", "dead" };

static void switch_to(Fibre *fibre);

static void report(bool stacks)
{
	fprintf(stderr, "---- fibres at %.6f s\n", (double)now / 1e6);
	for (Fibre *f = all; f; f = f->all_next) {
		if (f->state == DEAD || f->state == DONE)
			continue;
		fprintf(stderr, "    %-20s life %d%s %s", f->name, f->life, sched_is_frozen(f->life) ? " (frozen)" : "",
			state_names[f->state]);
		if (f->state == WAITING)
			fprintf(stderr, " for %s %p since %.6f %s", f->why, f->what, (double)f->since / 1e6, f->note);
		fputc('\n', stderr);
		if (stacks && f->state == WAITING && f->started && f != current) {
			dumping = true;
			switch_to(f);
			dumping = false;
		}
	}
}

void sched_fail(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "FAILED at %.6f s in %s: ", (double)now / 1e6, current ? current->name : "the cluster");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	if (sched_verbose) {
		backtrace_here();
		report(false);
	}
	fflush(stderr);
	_exit(1);
}

/* ---- switching ---- */

static Fibre *starting;

static void leave(void)
{
	if (_setjmp(current->context) == 0)
		_longjmp(scheduler, 1);
	while (dumping) {
		backtrace_here();
		if (_setjmp(current->context) == 0)
			_longjmp(scheduler, 1);
	}
}

static void set_ready(Fibre *fibre)
{
	if (n_ready == ready_room) {
		ready_room = ready_room ? ready_room * 2 : 64;
		ready = realloc(ready, ready_room * sizeof(*ready));
	}
	fibre->state = READY;
	fibre->ready_at = n_ready;
	ready[n_ready++] = fibre;
}

static void unset_ready(Fibre *fibre)
{
	Fibre *last = ready[--n_ready];

	ready[fibre->ready_at] = last;
	last->ready_at = fibre->ready_at;
}

static void entry(void)
{
	Fibre *f = starting;

	f->result = f->func(f->arg);
	f->state = DONE;
	sched_wake_all(&f->joiners);
	_longjmp(scheduler, 1);
}

static char *stack_of(unsigned n)
{
	return STACK_BASE + (size_t)n * 2 * STACK_SIZE;
}

static void map_stack(void)
{
	/* The half below stays unmapped: a guard. */
	if (mmap(stack_of(stacks_mapped) + STACK_SIZE, STACK_SIZE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
		sched_fail("no memory for a stack");
	stacks_mapped++;
}

static unsigned take_stack(void)
{
	if (n_free_stacks > 0)
		return free_stacks[--n_free_stacks];
	if (stacks_used == STACKS_MAX)
		sched_fail("too many fibres");
	while (stacks_mapped <= stacks_used)
		map_stack();
	return stacks_used++;
}

static void switch_to(Fibre *fibre)
{
	Fibre *before = current;

	current = fibre;
	if (_setjmp(scheduler) == 0) {
		if (fibre->started)
			_longjmp(fibre->context, 1);
		static ucontext_t context;
		getcontext(&context);
		context.uc_stack.ss_sp = stack_of(fibre->stack) + STACK_SIZE;
		context.uc_stack.ss_size = STACK_SIZE;
		context.uc_link = NULL;
		makecontext(&context, entry, 0);
		fibre->started = true;
		starting = fibre;
		setcontext(&context);
	}
	current = before;
}

static void fibre_free(Fibre *f)
{
	free_stacks[n_free_stacks++] = f->stack;
	if (f->all_prev)
		f->all_prev->all_next = f->all_next;
	else
		all = f->all_next;
	if (f->all_next)
		f->all_next->all_prev = f->all_prev;
	free(f);
}

Fibre *sched_spawn(int life, const char *name, void *(*func)(void *), void *arg, bool joinable)
{
	Fibre *f = calloc(1, sizeof(*f));

	f->id = ++next_id;
	f->life = life;
	f->func = func;
	f->arg = arg;
	f->joinable = joinable;
	f->stack = take_stack();
	snprintf(f->name, sizeof(f->name), "%d/%s.%u", life, name, f->id);
	f->all_next = all;
	if (all)
		all->all_prev = f;
	all = f;
	if (lives[life].dead)
		f->state = DEAD;
	else
		set_ready(f);
	return f;
}

void *sched_join(Fibre *fibre)
{
	while (fibre->state != DONE)
		sched_wait(&fibre->joiners, "the end of", fibre, -1);
	void *result = fibre->result;
	fibre_free(fibre);
	return result;
}

Fibre *sched_current(void)
{
	return current;
}

void **sched_local(void)
{
	return &sched_current()->local;
}

int sched_life(void)
{
	return current ? current->life : SCHED_WORLD;
}

const char *sched_name(const Fibre *fibre)
{
	return fibre ? fibre->name : "nobody";
}

int sched_life_of(const Fibre *fibre)
{
	return fibre->life;
}

/* ---- waiting ---- */

static void unqueue(Fibre *f)
{
	if (!f->queue)
		return;
	for (Fibre **link = &f->queue->first; *link; link = &(*link)->next) {
		if (*link == f) {
			*link = f->next;
			break;
		}
	}
	f->queue = NULL;
	f->next = NULL;
}

static void wake(Fibre *f)
{
	unqueue(f);
	sched_cancel(f->timer);
	f->timer = NULL;
	if (f->state == WAITING)
		set_ready(f);
}

static void timer_due(void *arg)
{
	Fibre *f = arg;

	f->timer = NULL;
	f->timed_out = true;
	wake(f);
}

bool sched_wait(struct waitq *queue, const char *why, const void *what, int64_t until)
{
	Fibre *f = current;

	if (!f)
		sched_fail("somebody waits for %s outside of a fibre", why);
	f->why = why;
	f->what = what;
	f->since = now;
	f->timed_out = false;
	f->state = WAITING;
	if (queue) {
		/* In order of arrival. */
		Fibre **link = &queue->first;
		while (*link)
			link = &(*link)->next;
		*link = f;
		f->queue = queue;
	}
	if (until >= 0)
		f->timer = sched_at(until, SCHED_WORLD, false, timer_due, f);
	leave();
	f->note[0] = 0;
	return !f->timed_out;
}

void sched_note(const char *format, ...)
{
	va_list args;

	if (!current)
		return;
	va_start(args, format);
	vsnprintf(current->note, sizeof(current->note), format, args);
	va_end(args);
}

void sched_wake_all(struct waitq *queue)
{
	while (queue->first)
		wake(queue->first);
}

void sched_wake_one(struct waitq *queue)
{
	unsigned n = 0;

	for (Fibre *f = queue->first; f; f = f->next)
		n++;
	if (n == 0)
		return;
	n = sched_below(n);
	Fibre *f = queue->first;
	while (n-- > 0)
		f = f->next;
	wake(f);
}

void sched_sleep(int64_t us)
{
	sched_wait(NULL, "time", NULL, now + (us > 0 ? us : 0));
}

void sched_set_yields(unsigned per_10000, unsigned slow_per_10000)
{
	yield_chance = per_10000;
	slow_chance = slow_per_10000;
}

void sched_yield_maybe(void)
{
	if (!current || dumping)
		return;
	if (sched_chance(slow_chance)) {
		sched_sleep(sched_between(1, 3000));
	} else if (sched_chance(yield_chance)) {
		set_ready(current);
		leave();
	}
}

/* ---- events ---- */

static bool before(const Event *a, const Event *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void place(size_t i, Event *event)
{
	heap[i] = event;
	event->index = i;
}

static void sift(size_t i, Event *event)
{
	while (i > 0 && before(event, heap[(i - 1) / 2])) {
		place(i, heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	for (;;) {
		size_t child = 2 * i + 1;
		if (child >= n_heap)
			break;
		if (child + 1 < n_heap && before(heap[child + 1], heap[child]))
			child++;
		if (!before(heap[child], event))
			break;
		place(i, heap[child]);
		i = child;
	}
	place(i, event);
}

static void insert(Event *event)
{
	if (n_heap == heap_room) {
		heap_room = heap_room ? heap_room * 2 : 256;
		heap = realloc(heap, heap_room * sizeof(*heap));
	}
	event->queued = true;
	n_foreground += !event->background;
	n_heap++;
	sift(n_heap - 1, event);
}

static void take_out(Event *event)
{
	size_t i = event->index;
	Event *last = heap[--n_heap];

	if (last != event)
		sift(i, last);
	event->queued = false;
	n_foreground -= !event->background;
}

Event *sched_at(int64_t at, int life, bool background, void (*func)(void *), void *arg)
{
	Event *event = calloc(1, sizeof(*event));

	*event = (Event){ .at = at > now ? at : now,
		.order = event_order++,
		.life = life,
		.background = background,
		.func = func,
		.arg = arg };
	insert(event);
	return event;
}

void sched_cancel(Event *event)
{
	if (!event)
		return;
	if (event->queued)
		take_out(event);
	free(event);
}

static void run_event(Event *event)
{
	take_out(event);
	if (lives[event->life].dead) {
		free(event);
		return;
	}
	if (lives[event->life].frozen_until > now) {
		event->at = lives[event->life].frozen_until + sched_below(300);
		event->order = event_order++;
		insert(event);
		return;
	}
	void (*func)(void *) = event->func;
	void *arg = event->arg;
	free(event);
	func(arg);
}

/* ---- lives ---- */

int sched_new_life(void)
{
	if (n_lives + 1 >= SCHED_LIVES)
		sched_fail("too many lives");
	lives[++n_lives].used = true;
	lives[n_lives].reign = n_lives;
	return n_lives;
}

int sched_reign(int life)
{
	return lives[life].reign;
}

int sched_new_reign(int life)
{
	lives[life].reign = sched_new_life();
	return lives[life].reign;
}

static void nothing(void *arg)
{
}

void sched_freeze(int life, int64_t until)
{
	if (until > lives[life].frozen_until)
		lives[life].frozen_until = until;
	/* Somebody may be ready, with no other event to come. */
	sched_at(until, SCHED_WORLD, false, nothing, NULL);
}

void sched_kill(int life)
{
	lives[life].dead = true;
	for (Fibre *f = all; f; f = f->all_next) {
		if (f->life != life || f->state == DONE)
			continue;
		if (f->state == READY)
			unset_ready(f);
		if (f->state == WAITING) {
			unqueue(f);
			sched_cancel(f->timer);
			f->timer = NULL;
		}
		f->state = DEAD;
	}
	if (current && current->life == life)
		sched_fail("a life kills itself");
}

bool sched_is_dead(int life)
{
	return lives[life].dead;
}

bool sched_is_frozen(int life)
{
	return lives[life].frozen_until > now;
}

/* ---- the loop ---- */

void sched_init(uint64_t seed)
{
	rng[0] = splitmix(&seed);
	rng[1] = splitmix(&seed);
	now = 0;
	limit = INT64_MAX;
	stopping = false;
	lives[0].used = true;
}

void sched_prepare(void)
{
	while (stacks_mapped < 64)
		map_stack();
}

void sched_stop(void)
{
	stopping = true;
}

int64_t sched_now(void)
{
	return now;
}

void sched_set_limit(int64_t us)
{
	limit = us;
}

uint64_t sched_switches(void)
{
	return switches;
}

static Fibre *pick(void)
{
	Fibre *found = NULL;
	unsigned n = 0;

	if (n_ready == 0)
		return NULL;
	Fibre *f = ready[sched_below(n_ready)];
	if (lives[f->life].frozen_until <= now)
		return f;
	for (unsigned i = 0; i < n_ready; i++) {
		if (lives[ready[i]->life].frozen_until <= now && sched_below(++n) == 0)
			found = ready[i];
	}
	return found;
}

bool sched_run(void)
{
	while (!stopping) {
		while (n_heap > 0 && heap[0]->at <= now)
			run_event(heap[0]);
		/* Who runs in circles until something happens uses up time like everybody. */
		Fibre *f = ++idle_switches > BUSY_MAX && n_heap > 0 ? NULL : pick();
		if (!f && n_ready > 0 && idle_switches > BUSY_MAX)
			sched_log("somebody runs in circles");
		if (f) {
			if (++switches > SWITCHES_MAX) {
				fprintf(stderr, "LIVELOCK: %lu switches\n", (unsigned long)switches);
				report(true);
				return false;
			}
			unset_ready(f);
			f->state = RUNNING;
			switch_to(f);
			if (f->state == DONE && !f->joinable)
				fibre_free(f);
			continue;
		}
		if (n_foreground == 0 && n_ready == 0) {
			fprintf(stderr, "DEADLOCK: nobody can run and nothing will happen\n");
			report(true);
			return false;
		}
		now = heap[0]->at;
		idle_switches = 0;
		if (now > limit) {
			fprintf(stderr, "STUCK: %.0f s of virtual time passed\n", (double)now / 1e6);
			report(true);
			return false;
		}
	}
	return true;
}
