/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/bench/measure.c - see measure.h. */
#include "bench/measure.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include <glib.h>

struct run {
	uint64_t first, ops;
	mf_measure_fn fn;
	void *arg;
	pthread_barrier_t start;
	int failed; /* atomic: first -errno; the other threads stop at it */
};

struct worker {
	struct run *run;
	pthread_t thread;
	unsigned number;
	uint64_t *ns;
	uint64_t begin_ns, end_ns;
};

uint64_t mf_measure_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void fail(struct run *run, int r)
{
	g_atomic_int_compare_and_exchange(&run->failed, 0, r);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct run *run = w->run;
	uint64_t before, after;
	int r;

	pthread_barrier_wait(&run->start);
	w->begin_ns = before = mf_measure_now_ns();
	for (uint64_t i = 0; i < run->ops && !g_atomic_int_get(&run->failed); i++) {
		r = run->fn(run->arg, w->number, run->first + i);
		if (r < 0)
			fail(run, r);
		after = mf_measure_now_ns();
		w->ns[i] = after - before;
		before = after;
	}
	w->end_ns = mf_measure_now_ns();
	return NULL;
}

static int compare_ns(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

int mf_measure_run(unsigned threads, uint64_t first, uint64_t ops, mf_measure_fn fn, void *arg, struct mf_measure *ret)
{
	struct run run = { .first = first, .ops = ops, .fn = fn, .arg = arg };
	g_autofree struct worker *workers = g_new0(struct worker, threads);
	uint64_t *ns = g_new0(uint64_t, threads * ops);
	uint64_t begin_ns = UINT64_MAX, end_ns = 0;

	pthread_barrier_init(&run.start, NULL, threads);
	for (unsigned t = 0; t < threads; t++) {
		workers[t] = (struct worker){ .run = &run, .number = t, .ns = ns + t * ops };
		/* A missing thread would leave the others at the barrier for ever. */
		if (pthread_create(&workers[t].thread, NULL, work, &workers[t]) != 0)
			g_error("cannot start %u threads", threads);
	}
	for (unsigned t = 0; t < threads; t++) {
		pthread_join(workers[t].thread, NULL);
		begin_ns = MIN(begin_ns, workers[t].begin_ns);
		end_ns = MAX(end_ns, workers[t].end_ns);
	}
	pthread_barrier_destroy(&run.start);
	if (run.failed) {
		g_free(ns);
		return run.failed;
	}
	qsort(ns, threads * ops, sizeof *ns, compare_ns);
	*ret = (struct mf_measure){
		.threads = threads,
		.count = threads * ops,
		.ns = ns,
		.seconds = (double)(end_ns - begin_ns) / 1e9,
	};
	return 0;
}

uint64_t mf_measure_percentile_ns(const struct mf_measure *measure, double percent)
{
	uint64_t rank = (uint64_t)ceil(percent / 100 * (double)measure->count);

	if (measure->count == 0)
		return 0;
	return measure->ns[CLAMP(rank, 1, measure->count) - 1];
}

void mf_measure_print(const struct mf_measure *measure, const char *workload, FILE *out)
{
	double sum = 0;

	for (uint64_t i = 0; i < measure->count; i++)
		sum += (double)measure->ns[i];
	fprintf(out,
		"{\"workload\":\"%s\",\"threads\":%u,\"count\":%" PRIu64 ",\"seconds\":%.6f,\"per_second\":%.1f,"
		"\"mean_us\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n",
		workload, measure->threads, measure->count, measure->seconds,
		measure->seconds > 0 ? (double)measure->count / measure->seconds : 0,
		measure->count ? sum / (double)measure->count / 1e3 : 0,
		(double)mf_measure_percentile_ns(measure, 50) / 1e3,
		(double)mf_measure_percentile_ns(measure, 99) / 1e3,
		(double)mf_measure_percentile_ns(measure, 100) / 1e3);
}

int mf_measure_save(const struct mf_measure *measure, const char *path)
{
	FILE *f = fopen(path, "we");
	size_t written;

	if (!f)
		return -errno;
	written = fwrite(measure->ns, sizeof *measure->ns, measure->count, f);
	if (fclose(f) != 0 || written != measure->count)
		return -EIO;
	return 0;
}

void mf_measure_clear(struct mf_measure *measure)
{
	g_free(measure->ns);
	*measure = (struct mf_measure){ 0 };
}

int mf_measure_pause(void)
{
	char line[16];

	printf("prepared\n");
	fflush(stdout);
	return fgets(line, sizeof line, stdin) ? 0 : -EPIPE;
}
