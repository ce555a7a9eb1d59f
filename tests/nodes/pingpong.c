/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/nodes/pingpong.c - what it costs that two nodes work on the same mailbox, timed.
 *
 *   pingpong [--ops N] [--samples FILE] [--pause] handover|dotlock|publish|visible|alone DIR_OF_A DIR_OF_B
 *
 * handover: A and B in turn lock a file (fcntl), read the number in it, write the next one, unlock; one sample a turn.
 * dotlock: the same with a dotlock.
 * publish: A delivers into a folder that B has just listed: create, write, fsync, link, unlink; one sample a delivery.
 * visible: A delivers, B lists new/ and finds it; one sample a listing, from its first call to the last.
 * alone: handover with A only: what the same costs when nobody else is there.
 *
 * A and B take turns in one process, so a sample holds the work of the nodes and no waiting for a processor. DIR_OF_A
 * and DIR_OF_B are the same directory on two mounts. Prints one JSON line, as mailbench does.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib.h>

#include "bench/measure.h"

enum { SIDES = 2, WIDTH = 10, SIZE = 8192 };

struct table {
	int dir[SIDES]; /* the directory of this run */
	int file[SIDES];
	long number;
	char payload[SIZE];
};

static int failed(const char *call, uint64_t turn)
{
	int r = errno ? -errno : -EIO;

	fprintf(stderr, "pingpong: turn %llu: %s: %s\n", (unsigned long long)turn, call, g_strerror(-r));
	return r;
}

static int next_number(struct table *t, int side)
{
	char text[24] = { 0 };

	if (pread(t->file[side], text, WIDTH, 0) != WIDTH)
		return failed("read", t->number);
	/* a node that reads an old number would make a fast benchmark */
	errno = ESTALE;
	if (atol(text) != t->number)
		return failed(text, t->number);
	snprintf(text, sizeof text, "%0*ld", WIDTH, ++t->number);
	return pwrite(t->file[side], text, WIDTH, 0) == WIDTH ? 0 : failed("write", t->number);
}

static int turn_on(struct table *t, int side, uint64_t turn)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int r;

	if (fcntl(t->file[side], F_SETLKW, &lock) < 0)
		return failed("lock", turn);
	r = next_number(t, side);
	lock.l_type = F_UNLCK;
	if (fcntl(t->file[side], F_SETLK, &lock) < 0)
		return failed("unlock", turn);
	return r;
}

static int handover(struct table *t, uint64_t turn)
{
	return turn_on(t, turn % SIDES, turn);
}

static int alone(struct table *t, uint64_t turn)
{
	return turn_on(t, 0, turn);
}

static int dotlock(struct table *t, uint64_t turn)
{
	int side = turn % SIDES, fd, r;

	fd = openat(t->dir[side], "number.lock", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return failed("dotlock", turn);
	close(fd);
	r = next_number(t, side);
	return unlinkat(t->dir[side], "number.lock", 0) == 0 ? r : failed("unlink", turn);
}

static int deliver(struct table *t, uint64_t turn)
{
	char tmp[64], name[64];
	int fd;

	snprintf(tmp, sizeof tmp, "tmp/%llu.pingpong", (unsigned long long)turn);
	snprintf(name, sizeof name, "new/%llu.pingpong", (unsigned long long)turn);
	fd = openat(t->dir[0], tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, t->payload, SIZE) != SIZE || fsync(fd) < 0 || close(fd) < 0)
		return failed(tmp, turn);
	if (linkat(t->dir[0], tmp, t->dir[0], name, 0) < 0 || unlinkat(t->dir[0], tmp, 0) < 0)
		return failed(name, turn);
	return 0;
}

/* B lists new, and finds the message of this turn; then it goes, or the listing would grow. */
static int find(struct table *t, uint64_t turn)
{
	char wanted[64];
	int fd = openat(t->dir[1], "new", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	bool found = false;

	if (!d)
		return failed("opendir", turn);
	snprintf(wanted, sizeof wanted, "%llu.pingpong", (unsigned long long)turn);
	while ((e = readdir(d)))
		found = found || !strcmp(e->d_name, wanted);
	closedir(d);
	errno = ENOENT;
	return found ? 0 : failed(wanted, turn);
}

static int expunge(struct table *t, uint64_t turn)
{
	char name[64];

	snprintf(name, sizeof name, "new/%llu.pingpong", (unsigned long long)turn);
	return unlinkat(t->dir[1], name, 0) == 0 ? 0 : failed(name, turn);
}

static const struct work {
	const char *name;
	int (*before)(struct table *t, uint64_t turn); /* not timed, nor is what comes after */
	int (*timed)(struct table *t, uint64_t turn);
	int (*after[2])(struct table *t, uint64_t turn);
} works[] = {
	{ "handover", NULL, handover, { NULL } },
	{ "dotlock", NULL, dotlock, { NULL } },
	{ "alone", NULL, alone, { NULL } },
	{ "publish", NULL, deliver, { find, expunge } },
	{ "visible", deliver, find, { expunge } },
};

static int set_up(struct table *t, char **dirs, const char *name)
{
	static const char *const sub[] = { "cur", "new", "tmp" };

	for (int side = 0; side < SIDES; side++) {
		g_autofree char *path = g_strdup_printf("%s/%s", dirs[side], name);

		if (side == 0 && mkdir(path, 0700) < 0)
			return failed(path, 0);
		t->dir[side] = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (t->dir[side] < 0)
			return failed(path, 0);
		for (int i = 0; side == 0 && i < 3; i++)
			if (mkdirat(t->dir[0], sub[i], 0700) < 0)
				return failed(sub[i], 0);
		t->file[side] = openat(t->dir[side], "number", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (t->file[side] < 0)
			return failed("number", 0);
	}
	memset(t->payload, 'm', SIZE);
	return pwrite(t->file[0], "0000000000", WIDTH, 0) == WIDTH ? 0 : failed("write", 0);
}

static int tear_down(struct table *t, const char *dir, const char *name)
{
	static const char *const sub[] = { "cur", "new", "tmp" };
	g_autofree char *path = g_strdup_printf("%s/%s", dir, name);

	close(t->file[0]);
	close(t->file[1]);
	unlinkat(t->dir[0], "number", 0);
	for (int i = 0; i < 3; i++)
		unlinkat(t->dir[0], sub[i], AT_REMOVEDIR);
	close(t->dir[0]);
	close(t->dir[1]);
	return rmdir(path) == 0 ? 0 : failed(path, 0);
}

static int compare_ns(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int measure(const struct work *work, struct table *t, uint64_t ops, struct mf_measure *ret)
{
	uint64_t *ns = g_new0(uint64_t, ops), total = 0;
	int r = 0;

	for (uint64_t turn = 0; r == 0 && turn < ops; turn++) {
		uint64_t begin;

		if (work->before)
			r = work->before(t, turn);
		begin = mf_measure_now_ns();
		if (r == 0)
			r = work->timed(t, turn);
		ns[turn] = mf_measure_now_ns() - begin;
		total += ns[turn];
		for (int i = 0; r == 0 && i < 2 && work->after[i]; i++)
			r = work->after[i](t, turn);
	}
	if (r < 0) {
		g_free(ns);
		return r;
	}
	qsort(ns, ops, sizeof *ns, compare_ns);
	*ret = (struct mf_measure){ .threads = 1, .count = ops, .ns = ns, .seconds = (double)total / 1e9 };
	return 0;
}

static int usage(void)
{
	fprintf(stderr, "usage: pingpong [--ops N] [--samples FILE] [--pause] handover|dotlock|publish|visible|alone "
			"DIR_OF_A DIR_OF_B\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "ops", 1, NULL, 'n' }, { "samples", 1, NULL, 's' },
		{ "pause", 0, NULL, 'p' }, { NULL, 0, NULL, 0 } };
	g_autofree char *name = g_strdup_printf("pingpong.%d", getpid());
	const char *samples = NULL;
	const struct work *work = NULL;
	struct mf_measure measured;
	struct table table = { 0 };
	uint64_t ops = 1000;
	bool pauses = false;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'n')
			ops = strtoull(optarg, NULL, 0);
		else if (c == 's')
			samples = optarg;
		else if (c == 'p')
			pauses = true;
		else
			return usage();
	}
	for (size_t i = 0; argc - optind == 3 && i < G_N_ELEMENTS(works); i++)
		if (!strcmp(argv[optind], works[i].name))
			work = &works[i];
	if (!work || ops == 0)
		return usage();
	if (set_up(&table, argv + optind + 1, name) < 0 || (pauses && mf_measure_pause() < 0) ||
		measure(work, &table, ops, &measured) < 0)
		return 1;
	mf_measure_print(&measured, work->name, stdout);
	if (samples && mf_measure_save(&measured, samples) < 0)
		return 1;
	mf_measure_clear(&measured);
	return tear_down(&table, argv[optind + 1], name) < 0;
}
