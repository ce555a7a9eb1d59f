/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Processes on all nodes append records to one file with O_APPEND: none is lost, none is torn, each keeps its order. */
#include "nodes/nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RECORDS = 300, WORKERS_MAX = 8, RECORD_MAX = 6000 };

static int workers;

/* "<worker> <number> <length> xxxx\n", as long as it says. */
static size_t make_record(char *out, int worker, int number)
{
	size_t len = 20 + (unsigned)(number * 7919 + worker * 104729) % (number % 10 ? 200 : RECORD_MAX - 20);
	int head = sprintf(out, "%02d %05d %05zu ", worker, number, len);

	memset(out + head, 'a' + worker, len - head);
	out[len - 1] = '\n';
	return len;
}

static int append(int worker, void *arg)
{
	pthread_barrier_t *gate = arg;
	char record[RECORD_MAX];
	int fd = -1;

	pthread_barrier_wait(gate);
	for (int i = 0; i < RECORDS; i++) {
		size_t len = make_record(record, worker, i);

		if (fd < 0)
			fd = open("log", O_WRONLY | O_APPEND | O_CLOEXEC);
		if (fd < 0 || write(fd, record, len) != (ssize_t)len)
			mf_nodes_fail("append: %s", strerror(errno));
		/* some keep it open, others never */
		if (worker % 2 == 0)
			continue;
		close(fd);
		fd = -1;
	}
	return 0;
}

static void check(int node)
{
	char *text, record[RECORD_MAX];
	int next[WORKERS_MAX] = { 0 }, fd = openat(mf_node_fd(node), "log", O_RDONLY | O_CLOEXEC);
	size_t size, at = 0;
	struct stat st;
	bool ok = fd >= 0 && fstat(fd, &st) == 0;

	if (!mf_tap_ok(ok, "node %d: the file can be read", node))
		return;
	size = st.st_size;
	text = malloc(size + 1);
	for (ssize_t n; ok && at < size; at += n)
		ok = (n = pread(fd, text + at, size - at, at)) > 0;
	close(fd);
	for (at = 0; ok && at < size;) {
		int worker, number;
		size_t len;

		text[size] = 0;
		ok = sscanf(text + at, "%2d %5d", &worker, &number) == 2 && worker >= 0 && worker < workers &&
		     number == next[worker];
		if (!ok)
			break;
		next[worker]++;
		len = make_record(record, worker, number);
		ok = len <= size - at && memcmp(text + at, record, len) == 0;
		if (ok)
			at += len;
	}
	if (!ok)
		mf_tap_note("node %d: at %zu of %zu: %.30s", node, at, size, text + at);
	for (int i = 0; i < workers; i++)
		ok = ok && next[i] == RECORDS;
	mf_tap_ok(ok, "node %d: %d records of each of %d processes, whole and in order", node, RECORDS, workers);
	free(text);
}

int main(int argc, char **argv)
{
	int failed;

	mf_nodes_start(argc, argv, "append");
	workers = mf_nodes_count() * 2 > WORKERS_MAX ? WORKERS_MAX : mf_nodes_count() * 2;
	mf_node_put(0, "log", "");
	failed = mf_nodes_work(workers, append, mf_nodes_barrier(workers));
	mf_tap_ok(failed == 0, "every append is whole");
	for (int node = 0; node < mf_nodes_count(); node++)
		check(node);
	return mf_tap_done();
}
