/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/bench/rawfloor.c - what RADOS alone asks for the bytes of a mail store.
 *
 *   rawfloor [options] deliver|fill|list|read
 *
 *   deliver  write_full of the message's object, then one operation on the index object: cmpxattr(epoch, GTE) +
 *            setxattr(epoch) + setxattr(last) + omap set of one entry. The caller waits for both.
 *   fill     untimed preparation: --ops messages with their entries in one index object
 *   list     the omap of that index object, 1000 keys with values a request; one sample a pass
 *   read     rados_read of messages in random order; one sample a message
 *
 * Each thread has an index object of its own unless --shared. Straight on librados, so that nothing of mailfs is
 * in the figure. Prints one JSON line.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <glib.h>
#include <rados/librados.h>

#include "bench/measure.h"
#include "bench/payload.h"

#define EPOCH "0000000000000001"

struct floor {
	rados_ioctx_t meta, data;
	size_t size;
	char *tag;
	gboolean shared;
	unsigned threads;
	uint64_t filled;
	GRand **random;	 /* one a thread */
	char **payloads; /* one a thread */
};

static int report(const char *what, int r)
{
	fprintf(stderr, "rawfloor: %s: %s\n", what, g_strerror(-r));
	return r;
}

static void index_name(const struct floor *floor, unsigned thread, char *ret, size_t size)
{
	snprintf(ret, size, "raw.d.%s.%u", floor->tag, floor->shared ? 0 : thread);
}

static int make_index(const struct floor *floor, const char *oid)
{
	rados_write_op_t op = rados_create_write_op();
	int r;

	rados_write_op_create(op, LIBRADOS_CREATE_IDEMPOTENT, NULL);
	rados_write_op_setxattr(op, "epoch", EPOCH, strlen(EPOCH));
	r = rados_write_op_operate(op, floor->meta, oid, NULL, 0);
	rados_release_write_op(op);
	return r < 0 ? report(oid, r) : 0;
}

static int add_entry(const struct floor *floor, const char *oid, const char *name, uint64_t index)
{
	rados_write_op_t op = rados_create_write_op();
	const char *keys[1], *values[1];
	size_t key_lengths[1], value_lengths[1];
	char key[128], value[64], last[24];
	int r;

	/* About what an entry needs: inode number, size, mode, owner, times. */
	memset(value, 'v', sizeof value);
	snprintf(key, sizeof key, "n/%s", name);
	snprintf(last, sizeof last, "%023" PRIu64, index);
	keys[0] = key;
	key_lengths[0] = strlen(key);
	values[0] = value;
	value_lengths[0] = sizeof value;
	rados_write_op_cmpxattr(op, "epoch", LIBRADOS_CMPXATTR_OP_GTE, EPOCH, strlen(EPOCH));
	rados_write_op_setxattr(op, "epoch", EPOCH, strlen(EPOCH));
	rados_write_op_setxattr(op, "last", last, sizeof last);
	rados_write_op_omap_set2(op, keys, values, key_lengths, value_lengths, 1);
	r = rados_write_op_operate(op, floor->meta, oid, NULL, 0);
	rados_release_write_op(op);
	return r < 0 ? report(oid, r) : 0;
}

static int put_message(const struct floor *floor, const char *index_oid, unsigned thread, const char *name,
	uint64_t number, uint64_t index)
{
	char *buf = floor->payloads[thread];
	char oid[160];
	int r;

	mf_payload_stamp(buf, floor->size, number);
	snprintf(oid, sizeof oid, "raw.m.%s", name);
	r = rados_write_full(floor->data, oid, buf, floor->size);
	if (r < 0)
		return report(oid, r);
	return add_entry(floor, index_oid, name, index);
}

static int deliver(void *arg, unsigned thread, uint64_t index)
{
	const struct floor *floor = arg;
	char index_oid[64], name[96];

	index_name(floor, thread, index_oid, sizeof index_oid);
	snprintf(name, sizeof name, "%s.M%" PRIu64 "T%u.bench", floor->tag, index, thread);
	return put_message(floor, index_oid, thread, name, index << 16 | thread, index);
}

/* Names that list and read of a later process find again: they hold nothing of this process. */
static int fill(void *arg, unsigned thread, uint64_t index)
{
	const struct floor *floor = arg;
	uint64_t number = index * floor->threads + thread;
	char name[96];

	snprintf(name, sizeof name, "1700000000.P10000.M%" PRIu64 ".bench", number);
	return put_message(floor, "raw.list", thread, name, number, number);
}

static int read_message(void *arg, unsigned thread, uint64_t index)
{
	const struct floor *floor = arg;
	uint64_t number = (uint64_t)g_rand_int_range(floor->random[thread], 0, (gint32)floor->filled);
	g_autofree char *buf = g_malloc(floor->size + 1);
	char oid[160];
	int r;

	snprintf(oid, sizeof oid, "raw.m.1700000000.P10000.M%" PRIu64 ".bench", number);
	r = rados_read(floor->data, oid, buf, floor->size, 0);
	if (r < 0)
		return report(oid, r);
	if ((size_t)r != floor->size) {
		fprintf(stderr, "rawfloor: %s has %d bytes instead of %zu\n", oid, r, floor->size);
		return -EIO;
	}
	return 0;
}

static int list(void *arg, unsigned thread, uint64_t index)
{
	struct floor *floor = arg;
	g_autofree char *after = g_strdup("");
	unsigned char more = 1;
	uint64_t n = 0;

	while (more) {
		rados_read_op_t op = rados_create_read_op();
		rados_omap_iter_t iter = NULL;
		char *key, *value;
		size_t key_length, value_length;
		int r, op_r = 0;

		rados_read_op_omap_get_vals2(op, after, "", 1000, &iter, &more, &op_r);
		r = rados_read_op_operate(op, floor->meta, "raw.list", 0);
		rados_release_read_op(op);
		if (r < 0 || op_r < 0)
			return report("raw.list", r < 0 ? r : op_r);
		while ((r = rados_omap_get_next2(iter, &key, &value, &key_length, &value_length)) == 0 && key) {
			g_free(after);
			after = g_strndup(key, key_length);
			n++;
		}
		rados_omap_get_end(iter);
		if (r < 0)
			return report("raw.list", r);
	}
	if (n != floor->filled) {
		fprintf(stderr, "rawfloor: %" PRIu64 " entries instead of %" PRIu64 "\n", n, floor->filled);
		return -EIO;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct floor floor = { 0 };
	struct mf_measure measure = { 0 };
	rados_t cluster;
	int threads = 1, size = 8192, seed = 1;
	gint64 ops = 1000, messages = 10000, warmup = -1;
	gboolean pause_first = FALSE;
	const char *conf = NULL, *client = "client.mailfs", *meta_pool = "mailfs_meta", *data_pool = "mailfs_data";
	const char *fs = "rawfloor", *samples = NULL, *workload;
	const GOptionEntry entries[] = {
		{ "conf", 'c', 0, G_OPTION_ARG_FILENAME, &conf, "ceph.conf", "FILE" },
		{ "client", 0, 0, G_OPTION_ARG_STRING, &client, "cephx name (client.mailfs)", "NAME" },
		{ "meta-pool", 0, 0, G_OPTION_ARG_STRING, &meta_pool, "pool of the index objects (mailfs_meta)",
			"POOL" },
		{ "data-pool", 0, 0, G_OPTION_ARG_STRING, &data_pool, "pool of the messages (mailfs_data)", "POOL" },
		{ "namespace", 0, 0, G_OPTION_ARG_STRING, &fs, "RADOS namespace (rawfloor)", "NAME" },
		{ "threads", 't', 0, G_OPTION_ARG_INT, &threads, "threads (1)", "N" },
		{ "ops", 'n', 0, G_OPTION_ARG_INT64, &ops, "operations of all threads together (1000)", "N" },
		{ "warmup", 0, 0, G_OPTION_ARG_INT64, &warmup, "untimed operations a thread first (8; fill: 0)", "N" },
		{ "messages", 0, 0, G_OPTION_ARG_INT64, &messages, "how many fill has made (10000)", "N" },
		{ "size", 's', 0, G_OPTION_ARG_INT, &size, "bytes of a message (8192)", "BYTES" },
		{ "seed", 0, 0, G_OPTION_ARG_INT, &seed, "order in which read takes the messages (1)", "N" },
		{ "shared", 0, 0, G_OPTION_ARG_NONE, &floor.shared, "one index object for all threads", NULL },
		{ "pause", 0, 0, G_OPTION_ARG_NONE, &pause_first, "say when prepared, measure after a line on stdin",
			NULL },
		{ "samples", 0, 0, G_OPTION_ARG_FILENAME, &samples, "write every latency (uint64 ns) there", "FILE" },
		{ NULL },
	};
	g_autoptr(GOptionContext) context = g_option_context_new("deliver|fill|list|read");
	g_autoptr(GError) error = NULL;
	mf_measure_fn fn;
	int r;

	g_option_context_add_main_entries(context, entries, NULL);
	if (!g_option_context_parse(context, &argc, &argv, &error)) {
		fprintf(stderr, "rawfloor: %s\n", error->message);
		return 2;
	}
	if (argc != 2 || !conf || threads < 1 || threads > 1024 || ops < threads || messages < 1 ||
		messages > G_MAXINT32 || size < 0 || size > (64 << 20)) {
		fprintf(stderr, "rawfloor: see --help\n");
		return 2;
	}
	workload = argv[1];
	if (g_str_equal(workload, "deliver"))
		fn = deliver;
	else if (g_str_equal(workload, "fill"))
		fn = fill;
	else if (g_str_equal(workload, "list"))
		fn = list;
	else if (g_str_equal(workload, "read"))
		fn = read_message;
	else {
		fprintf(stderr, "rawfloor: unknown workload '%s'\n", workload);
		return 2;
	}
	if (warmup < 0)
		warmup = fn == fill ? 0 : fn == list ? 1 : 8;
	floor.threads = (unsigned)threads;
	floor.size = (size_t)size;
	floor.filled = (uint64_t)messages;
	floor.tag = g_strdup_printf("%" G_GINT64_FORMAT ".P%d", g_get_real_time() / 1000000, (int)getpid());
	floor.payloads = g_new0(char *, floor.threads + 1);
	for (unsigned t = 0; t < floor.threads; t++)
		floor.payloads[t] = mf_payload_new(floor.size, t);
	floor.random = g_new0(GRand *, floor.threads + 1);
	for (unsigned t = 0; t < floor.threads; t++)
		floor.random[t] = g_rand_new_with_seed((guint32)seed + t);

	r = rados_create2(&cluster, "ceph", client, 0);
	if (r < 0)
		return report("rados_create2", r), 1;
	r = rados_conf_read_file(cluster, conf);
	if (r < 0)
		return report(conf, r), 1;
	r = rados_connect(cluster);
	if (r < 0)
		return report("connect", r), 1;
	r = rados_ioctx_create(cluster, meta_pool, &floor.meta);
	if (r < 0)
		return report(meta_pool, r), 1;
	r = rados_ioctx_create(cluster, data_pool, &floor.data);
	if (r < 0)
		return report(data_pool, r), 1;
	rados_ioctx_set_namespace(floor.meta, fs);
	rados_ioctx_set_namespace(floor.data, fs);

	if (fn == fill)
		r = make_index(&floor, "raw.list");
	for (unsigned t = 0; fn == deliver && r == 0 && t < floor.threads; t++) {
		char oid[64];

		index_name(&floor, t, oid, sizeof oid);
		r = make_index(&floor, oid);
	}
	if (r == 0)
		r = mf_measure_run(floor.threads, 0, (uint64_t)warmup, fn, &floor, &measure);
	mf_measure_clear(&measure);
	if (r == 0 && pause_first)
		r = mf_measure_pause();
	if (r == 0)
		r = mf_measure_run(
			floor.threads, (uint64_t)warmup, (uint64_t)ops / floor.threads, fn, &floor, &measure);
	if (r == 0) {
		mf_measure_print(&measure, workload, stdout);
		if (samples && (r = mf_measure_save(&measure, samples)) < 0)
			report(samples, r);
	}
	rados_ioctx_destroy(floor.meta);
	rados_ioctx_destroy(floor.data);
	rados_shutdown(cluster);
	return r < 0 ? 1 : 0;
}
