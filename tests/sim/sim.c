/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/sim/sim - N nodes of mailfs in one process, on a simulated cluster, in virtual time; see doc/HACKING.md.
 *
 * Each seed runs in a child of its own, so that a crash, an assertion or a leak ends one seed only. */
#include "tests/sim/arena.h"
#include "tests/sim/sabotage.h"
#include "tests/sim/client.h"
#include "tests/sim/world.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_S 3600
#define REAL_LIMIT_S 60

int __real_clock_gettime(clockid_t clock, struct timespec *ts);

static unsigned nodes, steps, clients;
static bool calm, trace;
static bool until_failure;
static const char *sabotage;

static void usage(FILE *file)
{
	fputs("usage: sim [--seed N | --seeds FROM..TO] [--nodes K] [--clients N] [--steps N] [--calm] [--verbose]\n"
	      "           [--trace] [--until-failure] [--sabotage NAME]\n"
	      "\n"
	      "Without --nodes, --clients and --steps the seed chooses. --calm: no faults. --trace: one line that is "
	      "the\n"
	      "same for the same run. --until-failure: ends well at the first seed that fails. --sabotage breaks the "
	      "product on purpose:\n",
		file);
	sabotage_list(file);
}

static double real_seconds(void)
{
	struct timespec ts;

	__real_clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* What libraries keep for themselves and the daemon logs. */
static void log_nothing(const char *domain, GLogLevelFlags level, const char *message, void *arg)
{
	sched_log("log: %s", message);
	if (level & G_LOG_FLAG_FATAL)
		sched_fail("%s", message);
}

static void on_alarm(int signo)
{
	static const char text[] = "FAILED: an endless loop that lets no time pass\n";

	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(2);
	abort();
}

static int run_seed(uint64_t seed)
{
	arena_reset();
	sched_init(seed);
	plan = (struct plan){ .seed = seed };
	plan.nodes = sched_chance(3000) ? 1 : sched_between(2, 5);
	plan.clients = sched_between(1, 4);
	plan.steps = sched_between(60, 200);
	plan.maildirs = sched_between(1, 3);
	plan.stalls = sched_chance(5000);
	plan.partitions = sched_chance(5000);
	plan.crashes = sched_chance(5000);
	/* The same seed does the same things with another number of nodes, as far as it goes. */
	if (nodes)
		plan.nodes = nodes;
	if (clients)
		plan.clients = clients;
	if (steps)
		plan.steps = steps;
	if (calm)
		plan.stalls = plan.partitions = plan.crashes = false;
	plan.calm = calm;
	steps_left = plan.steps;
	static const unsigned yields[] = { 0, 500, 2500, 6000 };
	sched_set_yields(yields[sched_below(4)], sched_chance(5000) ? 100 : 0);
	sched_set_limit(LIMIT_S * INT64_C(1000000));
	g_log_set_default_handler(log_nothing, NULL);
	world_run();
	bool ok = sched_run();
	if (trace)
		printf("%llu: %u nodes, %llu calls, %llu operations, %llu switches, %.6f s, %zu bytes, %u given up, "
		       "%llx\n",
			(unsigned long long)seed, plan.nodes, (unsigned long long)client_calls(),
			(unsigned long long)cluster_operations(), (unsigned long long)sched_switches(),
			(double)sched_now() / 1e6, arena_used(), check_given_up(), (unsigned long long)sched_random());
	fflush(stdout);
	return ok ? 0 : 1;
}

/* True when it passed. @honest: without the break that was asked for. */
static bool run_child(uint64_t seed, bool honest)
{
	int status;

	fflush(stdout);
	pid_t pid = fork();
	if (pid < 0) {
		perror("fork");
		exit(2);
	}
	if (pid == 0) {
		signal(SIGALRM, on_alarm);
		alarm(REAL_LIMIT_S);
		if (sabotage && !honest)
			sabotage_set(sabotage);
		_exit(run_seed(seed));
	}
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return true;
	if (honest)
		return false;
	if (WIFSIGNALED(status))
		fprintf(stderr, "FAILED: ended by %s\n", strsignal(WTERMSIG(status)));
	if (until_failure) {
		/* It is the break that was found, not another fault. */
		if (sabotage && !run_child(seed, true))
			return true;
		printf("ok sabotage-%s # found by seed %llu\n", sabotage ? sabotage : "none", (unsigned long long)seed);
		return false;
	}
	printf("not ok seed-%llu # sim --seed %llu", (unsigned long long)seed, (unsigned long long)seed);
	if (nodes)
		printf(" --nodes %u", nodes);
	if (clients)
		printf(" --clients %u", clients);
	if (steps)
		printf(" --steps %u", steps);
	if (calm)
		printf(" --calm");
	if (sabotage)
		printf(" --sabotage %s", sabotage);
	printf(" --verbose\n");
	return false;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' },
		{ "seeds", required_argument, NULL, 'S' },
		{ "nodes", required_argument, NULL, 'n' },
		{ "clients", required_argument, NULL, 'c' },
		{ "steps", required_argument, NULL, 't' },
		{ "calm", no_argument, NULL, 'q' },
		{ "trace", no_argument, NULL, 'T' },
		{ "until-failure", no_argument, NULL, 'u' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "sabotage", required_argument, NULL, 'b' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	unsigned long long from = 1, to = 1;
	unsigned failed = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (c) {
		case 's':
			from = to = strtoull(optarg, NULL, 0);
			break;
		case 'S':
			if (sscanf(optarg, "%llu..%llu", &from, &to) != 2 || to < from) {
				usage(stderr);
				return 2;
			}
			break;
		case 'n':
			nodes = (unsigned)atoi(optarg);
			break;
		case 'c':
			clients = (unsigned)atoi(optarg);
			break;
		case 't':
			steps = (unsigned)atoi(optarg);
			break;
		case 'q':
			calm = true;
			break;
		case 'T':
			trace = true;
			break;
		case 'u':
			until_failure = true;
			break;
		case 'v':
			sched_verbose = true;
			break;
		case 'b':
			sabotage = optarg;
			if (!sabotage_exists(optarg)) {
				usage(stderr);
				return 2;
			}
			break;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (optind < argc || nodes > 5 || clients > 15) {
		usage(stderr);
		return 2;
	}
	sched_prepare();
	double start = real_seconds();
	for (unsigned long long seed = from; seed <= to && !(until_failure && failed > 0); seed++)
		failed += !run_child(seed, false);
	double took = real_seconds() - start;
	if (from != to && !until_failure)
		printf("# %llu seeds in %.1f s, %.0f a second; %u failed\n", to - from + 1, took,
			(double)(to - from + 1) / took, failed);
	if (until_failure) {
		if (failed == 0)
			printf("not ok sabotage-%s # no seed found it\n", sabotage ? sabotage : "none");
		return failed == 0;
	}
	if (failed == 0)
		printf("ok seeds-%llu-%llu\n", from, to);
	return failed > 0;
}
