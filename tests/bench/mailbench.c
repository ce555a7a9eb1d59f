/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/bench/mailbench.c - what a mail server asks of a Maildir, timed, on any directory.
 *
 *   mailbench [options] deliver|fill|flag|list|read DIR
 *
 *   deliver  create in tmp/, write, fsync, close, rename into new/, open + fsync + close new/ (as Dovecot does)
 *   fill     untimed preparation: --ops messages into DIR/list/cur
 *   flag     rename cur/x:2, -> cur/x:2,S and back (its messages are made first, untimed)
 *   list     readdir and lstat of everything in DIR/list/cur; one sample a pass
 *   read     open, read to the end, close messages of DIR/list/cur in random order; one sample a message
 *
 * Each thread works in a Maildir of its own (DIR/<workload>.<thread>) unless --shared puts all into one. With
 * --box NAME, deliver and flag work in DIR/NAME, and list lists DIR/NAME/new.
 * Prints one JSON line.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib.h>

#include "bench/measure.h"
#include "bench/payload.h"

struct bench {
	const char *root;
	gboolean shared;
	char *box;
	gboolean use_link;
	gboolean no_sync;
	size_t size;
	char *tag;	 /* makes the names of this process unique */
	char **boxes;	 /* one a thread; all the same with --shared */
	char **payloads; /* one a thread */
	unsigned threads;
	uint64_t per_thread; /* messages a thread has, for flag */
	char *list_dir;
	GPtrArray *names; /* of list_dir, for read */
	uint64_t listed;
};

static int report(const char *call, const char *path)
{
	int r = -errno;

	fprintf(stderr, "mailbench: %s %s: %s\n", call, path, g_strerror(-r));
	return r;
}

static int make_directory(const char *path)
{
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return report("mkdir", path);
	return 0;
}

static int make_maildir(const char *box)
{
	static const char *const parts[] = { "", "/tmp", "/new", "/cur" };

	for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
		g_autofree char *path = g_strconcat(box, parts[i], NULL);
		int r = make_directory(path);

		if (r < 0)
			return r;
	}
	return 0;
}

static int make_boxes(struct bench *bench, const char *workload)
{
	bench->boxes = g_new0(char *, bench->threads + 1);
	for (unsigned t = 0; t < bench->threads; t++) {
		bench->boxes[t] = bench->box	  ? g_build_filename(bench->root, bench->box, NULL)
				  : bench->shared ? g_strdup_printf("%s/%s.shared", bench->root, workload)
						  : g_strdup_printf("%s/%s.%u", bench->root, workload, t);
		int r = make_maildir(bench->boxes[t]);

		if (r < 0)
			return r;
	}
	return 0;
}

static int sync_directory(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = 0;

	if (fd < 0)
		return report("open", path);
	if (fsync(fd) < 0)
		r = report("fsync", path);
	close(fd);
	return r;
}

static int write_file(const char *path, const char *buf, size_t size, gboolean sync)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int r = 0;

	if (fd < 0)
		return report("create", path);
	if (write(fd, buf, size) != (ssize_t)size || (sync && fsync(fd) < 0))
		r = report("write", path);
	if (close(fd) < 0 && r == 0)
		r = report("close", path);
	return r;
}

/* Puts one message into @box/@part under @name. */
static int put_message(
	const struct bench *bench, const char *box, const char *part, const char *name, const char *buf, gboolean sync)
{
	char from[PATH_MAX], to[PATH_MAX];
	int r;

	snprintf(from, sizeof from, "%s/tmp/%s", box, name);
	snprintf(to, sizeof to, "%s/%s/%s", box, part, name);
	r = write_file(from, buf, bench->size, sync);
	if (r < 0)
		return r;
	if (bench->use_link) {
		/* Postfix: link(2) alone must make it durable. */
		if (link(from, to) < 0)
			return report("link", to);
		if (unlink(from) < 0)
			return report("unlink", from);
		return 0;
	}
	if (rename(from, to) < 0)
		return report("rename", to);
	if (!sync)
		return 0;
	snprintf(to, sizeof to, "%s/%s", box, part);
	return sync_directory(to);
}

static int deliver(void *arg, unsigned thread, uint64_t index)
{
	const struct bench *bench = arg;
	char *buf = bench->payloads[thread];
	char name[NAME_MAX + 1];

	mf_payload_stamp(buf, bench->size, index << 16 | thread);
	snprintf(name, sizeof name, "%s.M%" PRIu64 "T%u.bench", bench->tag, index, thread);
	return put_message(bench, bench->boxes[thread], "new", name, buf, !bench->no_sync);
}

static void flag_name(const struct bench *bench, unsigned thread, uint64_t message, bool seen, char *ret, size_t size)
{
	snprintf(ret, size, "%s/cur/%s.M%" PRIu64 "T%u.bench:2,%s", bench->boxes[thread], bench->tag, message, thread,
		seen ? "S" : "");
}

static int flag_prepare(void *arg, unsigned thread, uint64_t index)
{
	const struct bench *bench = arg;
	char *buf = bench->payloads[thread];
	char name[NAME_MAX + 1];

	mf_payload_stamp(buf, bench->size, index << 16 | thread);
	snprintf(name, sizeof name, "%s.M%" PRIu64 "T%u.bench:2,", bench->tag, index, thread);
	return put_message(bench, bench->boxes[thread], "cur", name, buf, FALSE);
}

static int flag(void *arg, unsigned thread, uint64_t index)
{
	const struct bench *bench = arg;
	bool seen = index / bench->per_thread % 2;
	char from[PATH_MAX], to[PATH_MAX];

	flag_name(bench, thread, index % bench->per_thread, seen, from, sizeof from);
	flag_name(bench, thread, index % bench->per_thread, !seen, to, sizeof to);
	if (rename(from, to) < 0)
		return report("rename", to);
	return 0;
}

static int fill(void *arg, unsigned thread, uint64_t index)
{
	const struct bench *bench = arg;
	char *buf = bench->payloads[thread];
	char name[NAME_MAX + 1];

	mf_payload_stamp(buf, bench->size, index << 16 | thread);
	snprintf(name, sizeof name, "%s.M%" PRIu64 "T%u.bench:2,S", bench->tag, index, thread);
	return put_message(bench, bench->boxes[thread], "cur", name, buf, FALSE);
}

static int list(void *arg, unsigned thread, uint64_t index)
{
	struct bench *bench = arg;
	DIR *dir = opendir(bench->list_dir);
	struct dirent *entry;
	struct stat st;
	uint64_t n = 0;
	int r = 0;

	if (!dir)
		return report("opendir", bench->list_dir);
	while (r == 0 && (errno = 0, entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			r = report("stat", entry->d_name);
		n++;
	}
	if (r == 0 && errno != 0)
		r = report("readdir", bench->list_dir);
	closedir(dir);
	bench->listed = n;
	return r;
}

static int load_names(struct bench *bench, uint32_t seed)
{
	g_autoptr(GRand) random = g_rand_new_with_seed(seed);
	DIR *dir = opendir(bench->list_dir);
	struct dirent *entry;

	if (!dir)
		return report("opendir", bench->list_dir);
	bench->names = g_ptr_array_new_with_free_func(g_free);
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			g_ptr_array_add(bench->names, g_build_filename(bench->list_dir, entry->d_name, NULL));
	closedir(dir);
	for (unsigned i = bench->names->len; i > 1; i--) {
		unsigned j = (unsigned)g_rand_int_range(random, 0, (gint32)i);
		void *name = bench->names->pdata[j];

		bench->names->pdata[j] = bench->names->pdata[i - 1];
		bench->names->pdata[i - 1] = name;
	}
	return 0;
}

static int read_message(void *arg, unsigned thread, uint64_t index)
{
	const struct bench *bench = arg;
	const char *path = bench->names->pdata[(index * bench->threads + thread) % bench->names->len];
	char buf[65536];
	size_t total = 0;
	ssize_t n;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return report("open", path);
	while ((n = read(fd, buf, sizeof buf)) > 0)
		total += (size_t)n;
	if (n < 0) {
		int r = report("read", path);

		close(fd);
		return r;
	}
	close(fd);
	if (total != bench->size) {
		fprintf(stderr, "mailbench: %s has %zu bytes instead of %zu\n", path, total, bench->size);
		return -EIO;
	}
	return 0;
}

/* Evicts the pages of every message: a cold read of a local filesystem without unmounting it. */
static int drop_pages(const struct bench *bench)
{
	for (unsigned i = 0; i < bench->names->len; i++) {
		int fd = open(bench->names->pdata[i], O_RDONLY | O_CLOEXEC);

		if (fd < 0)
			return report("open", bench->names->pdata[i]);
		fdatasync(fd); /* dirty pages stay */
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		close(fd);
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct bench bench = { 0 };
	struct mf_measure measure = { 0 };
	int threads = 1, size = 8192, seed = 1;
	gint64 ops = 1000, warmup = -1;
	gboolean fadvise = FALSE, pause_first = FALSE;
	g_autofree char *samples = NULL;
	const GOptionEntry entries[] = {
		{ "threads", 't', 0, G_OPTION_ARG_INT, &threads, "threads (1)", "N" },
		{ "ops", 'n', 0, G_OPTION_ARG_INT64, &ops, "operations of all threads together (1000)", "N" },
		{ "warmup", 0, 0, G_OPTION_ARG_INT64, &warmup, "untimed operations a thread first (deliver: 8)", "N" },
		{ "size", 's', 0, G_OPTION_ARG_INT, &size, "bytes of a message (8192)", "BYTES" },
		{ "seed", 0, 0, G_OPTION_ARG_INT, &seed, "order in which read takes the messages (1)", "N" },
		{ "shared", 0, 0, G_OPTION_ARG_NONE, &bench.shared, "all threads in one Maildir", NULL },
		{ "box", 0, 0, G_OPTION_ARG_STRING, &bench.box, "all threads in this Maildir of DIR; list its new/",
			"NAME" },
		{ "link", 0, 0, G_OPTION_ARG_NONE, &bench.use_link, "deliver by link + unlink, as Postfix does", NULL },
		{ "no-sync", 0, 0, G_OPTION_ARG_NONE, &bench.no_sync, "deliver without fsync", NULL },
		{ "drop-pages", 0, 0, G_OPTION_ARG_NONE, &fadvise, "read: evict the messages' pages first", NULL },
		{ "pause", 0, 0, G_OPTION_ARG_NONE, &pause_first, "say when prepared, measure after a line on stdin",
			NULL },
		{ "samples", 0, 0, G_OPTION_ARG_FILENAME, &samples, "write every latency (uint64 ns) there", "FILE" },
		{ NULL },
	};
	g_autoptr(GOptionContext) context = g_option_context_new("deliver|fill|flag|list|read DIR");
	g_autoptr(GError) error = NULL;
	const char *workload;
	mf_measure_fn fn;
	int r;

	g_option_context_add_main_entries(context, entries, NULL);
	if (!g_option_context_parse(context, &argc, &argv, &error)) {
		fprintf(stderr, "mailbench: %s\n", error->message);
		return 2;
	}
	if (argc != 3 || threads < 1 || threads > 1024 || ops < threads || size < 0 || size > (64 << 20)) {
		fprintf(stderr, "mailbench: see --help\n");
		return 2;
	}
	workload = argv[1];
	bench.root = argv[2];
	bench.threads = (unsigned)threads;
	bench.size = (size_t)size;
	bench.per_thread = (uint64_t)ops / bench.threads;
	bench.tag = g_strdup_printf("%" G_GINT64_FORMAT ".P%d", g_get_real_time() / 1000000, (int)getpid());
	bench.payloads = g_new0(char *, bench.threads + 1);
	for (unsigned t = 0; t < bench.threads; t++)
		bench.payloads[t] = mf_payload_new(bench.size, t);
	bench.list_dir = bench.box ? g_build_filename(bench.root, bench.box, "new", NULL)
				   : g_build_filename(bench.root, "list", "cur", NULL);

	if (g_str_equal(workload, "deliver")) {
		fn = deliver;
		r = make_boxes(&bench, workload);
		warmup = warmup < 0 ? 8 : warmup;
	} else if (g_str_equal(workload, "flag")) {
		fn = flag;
		r = make_boxes(&bench, workload);
		/* At most 500 messages a thread; with more operations the flag goes on and off again. */
		bench.per_thread = MIN(bench.per_thread, 500);
		if (r == 0)
			r = mf_measure_run(bench.threads, 0, bench.per_thread, flag_prepare, &bench, &measure);
		mf_measure_clear(&measure);
		for (unsigned t = 0; r == 0 && t < bench.threads; t++) {
			g_autofree char *cur = g_build_filename(bench.boxes[t], "cur", NULL);

			r = sync_directory(cur);
		}
	} else if (g_str_equal(workload, "fill")) {
		g_autofree char *box = g_build_filename(bench.root, "list", NULL);

		fn = fill;
		r = make_maildir(box);
		bench.boxes = g_new0(char *, bench.threads + 1);
		for (unsigned t = 0; t < bench.threads; t++)
			bench.boxes[t] = g_strdup(box);
	} else if (g_str_equal(workload, "list")) {
		fn = list;
		r = 0;
	} else if (g_str_equal(workload, "read")) {
		fn = read_message;
		r = load_names(&bench, (uint32_t)seed);
		if (r == 0 && bench.names->len == 0) {
			fprintf(stderr, "mailbench: no message in %s; run fill first\n", bench.list_dir);
			r = -ENOENT;
		}
		if (r == 0 && fadvise)
			r = drop_pages(&bench);
	} else {
		fprintf(stderr, "mailbench: unknown workload '%s'\n", workload);
		return 2;
	}
	warmup = MAX(warmup, 0);
	if (r == 0)
		r = mf_measure_run(bench.threads, 0, (uint64_t)warmup, fn, &bench, &measure);
	mf_measure_clear(&measure);
	if (r == 0 && pause_first)
		r = mf_measure_pause();
	if (r == 0)
		r = mf_measure_run(
			bench.threads, (uint64_t)warmup, (uint64_t)ops / bench.threads, fn, &bench, &measure);
	if (r == 0 && fn == fill)
		r = sync_directory(bench.list_dir);
	if (r < 0) {
		fprintf(stderr, "mailbench: %s failed: %s\n", workload, g_strerror(-r));
		return 1;
	}
	if (fn == list)
		fprintf(stderr, "mailbench: %" PRIu64 " messages listed\n", bench.listed);
	mf_measure_print(&measure, workload, stdout);
	if (samples && (r = mf_measure_save(&measure, samples)) < 0) {
		fprintf(stderr, "mailbench: %s: %s\n", samples, g_strerror(-r));
		return 1;
	}
	return 0;
}
