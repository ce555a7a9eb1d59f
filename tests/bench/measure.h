/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/bench/measure.h - run one operation many times in threads and keep every latency.
 *
 * Model:   each thread calls the operation in a closed loop; one sample an operation, taken with
 *          CLOCK_MONOTONIC. Percentiles are by nearest rank over all samples, nothing is dropped.
 * Owns:    struct mf_measure owns its samples; mf_measure_clear() frees them.
 * Threads: mf_measure_run() blocks and joins what it starts.
 * Errors:  0 or -errno of the first operation that failed; then there is no result.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>

/* The operation @index of @thread. 0 or -errno. */
typedef int (*mf_measure_fn)(void *arg, unsigned thread, uint64_t index);

struct mf_measure {
	unsigned threads;
	uint64_t count; /* samples of all threads */
	uint64_t *ns;	/* sorted once mf_measure_run() has returned */
	double seconds; /* from the common start to the end of the last thread */
};

uint64_t mf_measure_now_ns(void);

/* Lets all threads start together; each calls @fn @ops times, with index @first, @first + 1, ... */
int mf_measure_run(unsigned threads, uint64_t first, uint64_t ops, mf_measure_fn fn, void *arg, struct mf_measure *ret);

/* @percent in (0,100]. 0 when there is no sample. */
uint64_t mf_measure_percentile_ns(const struct mf_measure *measure, double percent);

/* One line: {"workload":...,"threads":...,"count":...,"seconds":...,"per_second":...,"p50_us":...,...}. */
void mf_measure_print(const struct mf_measure *measure, const char *workload, FILE *out);

/* All samples as uint64_t nanoseconds in host order, for merging several runs. 0 or -errno. */
int mf_measure_save(const struct mf_measure *measure, const char *path);

void mf_measure_clear(struct mf_measure *measure);

/* Says "prepared" on stdout and waits for a line on stdin: whoever compares several programs lets them go one by
 * one, each on a settled system. 0 or -EPIPE when nobody is there any more. */
int mf_measure_pause(void);
