/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What one node changes, inotify tells on every other node with the names; on its own, the kernel has told it and
 * nobody tells it again. That nothing but events comes of it: all nodes show the same tree afterwards as the one that
 * made it. */
#include "nodes/nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nodes/tree.h"
#include "nodes/wakeups.h"
#include "nodes/watcher.h"

/* From the change to the event: what nobody has committed is committed after 1 s. */
#define LATEST_S 2.0

enum place { PLAIN, BOX, NEW, CUR, ITSELF, PLACES };
static const char *const paths[] = { "P", "M", "M/new", "M/cur" };

/* An event of the step under way. */
static struct wanted {
	enum place place;
	uint32_t own, others; /* what it may be, on the node that makes the change and elsewhere; 0: need not come */
	char name[64];
	bool pair; /* belongs to the one before: if both tell of a move, it is the same one */
	bool met;
	uint32_t mask, cookie; /* as it came */
} wanted[8];
static int wanted_count;

static int A; /* who makes the change */
static int number;
static MfWatcher *watchers[MF_NODES_MAX];
static int repeated, notes;

__attribute__((format(printf, 4, 5))) static struct wanted *want(
	enum place place, uint32_t own, uint32_t others, const char *fmt, ...)
{
	struct wanted *w = &wanted[wanted_count++];
	va_list ap;

	*w = (struct wanted){ .place = place, .own = own, .others = others };
	va_start(ap, fmt);
	vsnprintf(w->name, sizeof(w->name), fmt, ap);
	va_end(ap);
	return w;
}

static uint32_t allowed(const struct wanted *w, int node)
{
	return node == A ? w->own : w->others;
}

static const char *place_text(int place)
{
	return place >= 0 && place < ITSELF ? paths[place] : "itself";
}

static void complain(int node, const char *what, int place, uint32_t mask, const char *name)
{
	if (notes++ < 30)
		mf_tap_note("node %d, changed on node %d: %s %s %s in %s", node, A, what, mf_event_text(mask), name,
			place_text(place));
}

/* Names end with the node that made them, which must not be told. */
static bool is_own(int node, const char *name)
{
	char mark[16];
	const char *at;

	snprintf(mark, sizeof(mark), ".n%d", node);
	at = strstr(name, mark);
	return at && (at[strlen(mark)] < '0' || at[strlen(mark)] > '9');
}

static bool take(int node, const struct mf_event *e)
{
	bool known = false;

	for (int i = 0; i < wanted_count; i++) {
		struct wanted *w = &wanted[i];
		uint32_t any = allowed(w, node);

		if (w->place != (enum place)e->place || strcmp(w->name, e->name) != 0)
			continue;
		known = true;
		if (w->met || !(any & e->mask & ~(uint32_t)IN_ISDIR) || ((any ^ e->mask) & IN_ISDIR))
			continue;
		w->met = true;
		w->mask = e->mask;
		w->cookie = e->cookie;
		return true;
	}
	/* Elsewhere it may come again: the same, or what became of it before it was told. */
	if (node != A && !mf_event_is_vague(e) && (known || !is_own(node, e->name))) {
		repeated++;
		return true;
	}
	complain(node, "comes of nothing:", e->place, e->mask, e->name);
	return false;
}

static int missing(int node)
{
	int n = 0;

	for (int i = 0; i < wanted_count; i++)
		n += allowed(&wanted[i], node) && !wanted[i].met;
	return n;
}

static bool came_on(int node, double end)
{
	struct mf_event e;
	bool ok = true;

	for (int i = 0; i < wanted_count; i++)
		wanted[i].met = false;
	/* what its kernel tells of its own is there at once, and all of it counts */
	while (mf_watcher_next(watchers[node], missing(node) > 0 && node != A ? end - mf_tap_now() : 0, &e))
		ok &= take(node, &e);
	for (int i = 0; i < wanted_count; i++) {
		const struct wanted *w = &wanted[i];

		if (allowed(w, node) && !w->met)
			complain(node, "no", w->place, allowed(w, node), w->name);
		else if (w->met && w->pair && (w->mask & IN_MOVED_TO) && ((w - 1)->mask & IN_MOVED_FROM) &&
			 (w->cookie != (w - 1)->cookie || w->cookie == 0))
			complain(node, "another cookie:", w->place, w->mask, w->name);
		else
			continue;
		ok = false;
	}
	return ok;
}

/* All that is wanted comes; the next step begins. */
static bool came(void)
{
	double end = mf_tap_now() + LATEST_S;
	bool ok = true;

	for (int step = 1; step <= mf_nodes_count(); step++)
		ok &= came_on((A + step) % mf_nodes_count(), end);
	wanted_count = 0;
	return ok;
}

static bool renamed(const char *from, const char *to)
{
	return renameat(mf_node_fd(A), from, mf_node_fd(A), to) == 0;
}

static bool removed(const char *name, int flags)
{
	return unlinkat(mf_node_fd(A), name, flags) == 0;
}

static bool synced(const char *name)
{
	return mf_fsync_dir(mf_node_path(A, "%s", name)) == 0;
}

/* Opens with @flags, writes, and with @sync keeps it. */
static bool written(const char *name, int flags, const char *text, bool sync)
{
	int fd = openat(mf_node_fd(A), name, O_WRONLY | O_CLOEXEC | flags, 0600);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && (!sync || fsync(fd) == 0);

	return fd >= 0 && close(fd) == 0 && ok;
}

static bool in_tmp(char *tmp, const char *base)
{
	sprintf(tmp, "M/tmp/%s", base);
	return written(tmp, O_CREAT | O_EXCL, "Subject: it\n\ntext\n", true);
}

static const char *base_name(const char *kind)
{
	static char base[64];

	sprintf(base, "%s%d.n%d", kind, number, A);
	return base;
}

/* ---- what happens in Maildirs ---- */

static bool linked(const char *base)
{
	char tmp[96], name[96];

	sprintf(name, "M/new/%s", base);
	want(NEW, IN_CREATE, IN_CREATE | IN_MOVED_TO, "%s", base);
	return in_tmp(tmp, base) && linkat(mf_node_fd(A), tmp, mf_node_fd(A), name, 0) == 0 && removed(tmp, 0) &&
	       came();
}

static bool moved_in(const char *base, enum place place, const char *suffix)
{
	char tmp[96], name[96];

	sprintf(name, "%s/%s%s", paths[place], base, suffix);
	want(place, IN_MOVED_TO, IN_CREATE | IN_MOVED_TO, "%s%s", base, suffix);
	return in_tmp(tmp, base) && renamed(tmp, name);
}

static bool delivery_by_link(void)
{
	return linked(base_name("link"));
}

static bool delivery_by_rename(void)
{
	return moved_in(base_name("rename"), NEW, "") && synced("M/new") && came();
}

static bool delivery_without_fsync(void)
{
	return moved_in(base_name("loose"), NEW, "") && came();
}

static bool made_in_new(void)
{
	const char *base = base_name("made");
	char name[96];

	sprintf(name, "M/new/%s", base);
	want(NEW, IN_CREATE, IN_CREATE | IN_MOVED_TO, "%s", base);
	want(NEW, IN_MODIFY, 0, "%s", base);
	return written(name, O_CREAT | O_EXCL, "text", true) && came();
}

static bool flags_changed(const char *base, const char *was, const char *is, bool sync)
{
	char from[96], to[96];

	sprintf(from, "M/cur/%s%s", base, was);
	sprintf(to, "M/cur/%s%s", base, is);
	want(CUR, IN_MOVED_FROM, IN_MOVED_FROM, "%s%s", base, was);
	want(CUR, IN_MOVED_TO, IN_MOVED_TO, "%s%s", base, is)->pair = true;
	return renamed(from, to) && (!sync || synced("M/cur")) && came();
}

static bool flag_change(void)
{
	const char *base = base_name("flags");

	return moved_in(base, CUR, ":2,") && came() && flags_changed(base, ":2,", ":2,S", true) &&
	       flags_changed(base, ":2,S", ":2,FS", false) && flags_changed(base, ":2,FS", ":2,S", false);
}

static bool first_seen(void)
{
	const char *base = base_name("seen");
	char from[96], to[96];

	if (!linked(base))
		return false;
	sprintf(from, "M/new/%s", base);
	sprintf(to, "M/cur/%s:2,", base);
	want(NEW, IN_MOVED_FROM, IN_MOVED_FROM | IN_DELETE, "%s", base);
	want(CUR, IN_MOVED_TO, IN_MOVED_TO | IN_CREATE, "%s:2,", base)->pair = true;
	return renamed(from, to) && came();
}

static bool expunge(void)
{
	const char *base = base_name("gone");
	char name[96];

	if (!moved_in(base, CUR, ":2,ST") || !came())
		return false;
	sprintf(name, "M/cur/%s:2,ST", base);
	want(CUR, IN_DELETE, IN_DELETE, "%s:2,ST", base);
	if (!removed(name, 0) || !came() || !linked(base))
		return false;
	sprintf(name, "M/new/%s", base);
	want(NEW, IN_DELETE, IN_DELETE, "%s", base);
	return removed(name, 0) && synced("M/new") && came();
}

/* ---- plain files and directories ---- */

static bool appended(enum place place, const char *base, bool sync)
{
	char name[96];
	bool ok;

	sprintf(name, "%s/%s", paths[place], base);
	for (int node = 0; node < mf_nodes_count(); node++)
		mf_watcher_add(watchers[node], ITSELF, mf_node_path(node, "%s", name));
	want(place, IN_MODIFY, IN_MODIFY, "%s", base);
	want(ITSELF, IN_MODIFY, IN_MODIFY, "%s", "");
	ok = written(name, O_APPEND, "more", sync) && came();
	for (int node = 0; node < mf_nodes_count(); node++)
		mf_watcher_remove(watchers[node], ITSELF);
	return ok;
}

static bool file_in(enum place place)
{
	const char *base = base_name("dovecot.index.log");
	char name[96], other[96];

	sprintf(name, "%s/%s", paths[place], base);
	sprintf(other, "%s/tmp.%s", paths[place], base);
	want(place, IN_CREATE, IN_CREATE, "%s", base);
	want(place, IN_MODIFY, 0, "%s", base);
	if (!written(name, O_CREAT | O_EXCL, "first", false) || !came())
		return false;
	if (!appended(place, base, true) || !appended(place, base, false))
		return false;
	want(place, IN_CREATE, 0, "tmp.%s", base);
	want(place, IN_MODIFY, 0, "tmp.%s", base);
	want(place, IN_MOVED_FROM, 0, "tmp.%s", base);
	want(place, IN_MOVED_TO, IN_MOVED_TO | IN_CREATE, "%s", base);
	if (!written(other, O_CREAT | O_EXCL, "second", true) || !renamed(other, name) || !came())
		return false;
	/* what took its place is told of as well */
	if (!appended(place, base, true))
		return false;
	want(place, IN_DELETE, IN_DELETE, "%s", base);
	return removed(name, 0) && came();
}

static bool plain_file(void)
{
	return file_in(PLAIN);
}

static bool file_beside_messages(void)
{
	return file_in(BOX);
}

static bool dotlock(void)
{
	const char *base = base_name("dovecot-uidlist.lock");
	char name[96];

	sprintf(name, "M/%s", base);
	want(BOX, IN_CREATE, IN_CREATE, "%s", base);
	if (!written(name, O_CREAT | O_EXCL, "", true) || !came())
		return false;
	want(BOX, IN_DELETE, IN_DELETE, "%s", base);
	return removed(name, 0) && synced("M") && came();
}

static bool directory(void)
{
	const char *base = base_name("dir");
	char name[96], other[96];

	sprintf(name, "P/%s", base);
	sprintf(other, "P/other.%s", base);
	want(PLAIN, IN_CREATE | IN_ISDIR, IN_CREATE | IN_ISDIR, "%s", base);
	if (mkdirat(mf_node_fd(A), name, 0700) < 0 || !came())
		return false;
	want(PLAIN, IN_MOVED_FROM | IN_ISDIR, IN_MOVED_FROM | IN_DELETE | IN_ISDIR, "%s", base);
	want(PLAIN, IN_MOVED_TO | IN_ISDIR, IN_MOVED_TO | IN_CREATE | IN_ISDIR, "other.%s", base)->pair = true;
	if (!renamed(name, other) || !came())
		return false;
	want(PLAIN, IN_DELETE | IN_ISDIR, IN_DELETE | IN_ISDIR, "other.%s", base);
	return removed(other, AT_REMOVEDIR) && came();
}

static const struct {
	const char *what;
	bool (*check)(void);
} checks[] = {
	{ "a delivery by link", delivery_by_link },
	{ "a delivery by rename and fsync", delivery_by_rename },
	{ "a rename out of tmp without any fsync", delivery_without_fsync },
	{ "a message made in new", made_in_new },
	{ "changes of flags", flag_change },
	{ "a message moved from new to cur", first_seen },
	{ "expunged messages", expunge },
	{ "a plain file made, appended to, replaced, removed", plain_file },
	{ "the same beside cur, new and tmp", file_beside_messages },
	{ "a dotlock", dotlock },
	{ "mkdir, rename of a directory, rmdir", directory },
};
enum { CHECKS = sizeof(checks) / sizeof(checks[0]) };

/* Nothing is to be found later that was told by a check before. */
static void forget_events(void)
{
	struct mf_event e;

	wanted_count = 0;
	for (int node = 0; node < mf_nodes_count(); node++)
		while (mf_watcher_next(watchers[node], 0, &e))
			;
}

static void check(int i, const char *when)
{
	int bad = 0, done = 0, first = -1, n = mf_nodes_count();
	/* each kind from each node, or from one */
	bool brief = mf_nodes_seconds(10) < 10;
	double start = mf_tap_now();

	repeated = notes = 0;
	for (int step = 0; step < (brief ? 1 : n); step++) {
		A = (i + step) % n;
		number++;
		done++;
		if (!checks[i].check()) {
			bad++;
			first = first < 0 ? A : first;
			forget_events();
		}
	}
	mf_tap_ok(bad == 0,
		"%s%s: told to all others, and to its own node once (%d of %d not, first from node %d; %d repeated; "
		"%.0f ms each)",
		checks[i].what, when, bad, done, first, repeated, (mf_tap_now() - start) * 1000 / done);
}

/* A watch keeps an inode, not its name: the kernel forgets all others, and mailfs must not. */
static bool drop_caches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, "2\n", 2) == 2;

	if (fd >= 0)
		close(fd);
	return ok;
}

static void check_dropped(void)
{
	static const int some[] = { 0, 1, 4, 5, 7, 10 };

	for (size_t i = 0; i < sizeof(some) / sizeof(some[0]); i++) {
		if (!drop_caches()) {
			mf_tap_skip("caches cannot be dropped here: %s", strerror(errno));
			return;
		}
		check(some[i], ", after all caches were dropped");
	}
}

static bool made_and_removed(void)
{
	char name[96], base[64];

	number++;
	strcpy(base, base_name("unmade"));
	sprintf(name, "P/%s", base);
	want(PLAIN, IN_CREATE, 0, "%s", base);
	want(PLAIN, IN_DELETE, 0, "%s", base);
	/* one commit is over, the next one has both */
	if (!synced("P") || !written(name, O_CREAT | O_EXCL, "", false) || !removed(name, 0))
		return false;
	strcpy(base, base_name("after"));
	sprintf(name, "P/%s", base);
	want(PLAIN, IN_CREATE, IN_CREATE, "%s", base);
	if (!written(name, O_CREAT | O_EXCL, "", true) || !synced("P") || !came())
		return false;
	want(PLAIN, IN_DELETE, IN_DELETE, "%s", base);
	return removed(name, 0) && synced("P") && came();
}

/* What is made and removed within one commit, nobody hears of. Now and then a commit of its own comes between. */
static void check_unmade(void)
{
	enum { TIMES = 20 };
	bool ok = true;

	repeated = notes = 0;
	for (int i = 0; ok && i < TIMES; i++) {
		A = i % mf_nodes_count();
		ok = made_and_removed();
	}
	forget_events();
	mf_tap_ok(ok, "%d files made and removed at once: what comes after is told", TIMES);
	if (mf_tap_is_fuse())
		mf_tap_ok(repeated <= TIMES * (mf_nodes_count() - 1) / 5, "most of them raise nothing (%d events)",
			repeated);
	else
		mf_tap_skip("a local kernel tells of everything");
}

/* ---- nothing but events ---- */

enum { MESSAGES = 60, FILES = 20 };

static bool change_messages(int i)
{
	char tmp[96], from[96], to[96], base[32];

	sprintf(base, "k%d", i);
	sprintf(from, "M/new/%s", base);
	sprintf(to, "M/cur/%s:2,", base);
	if (!in_tmp(tmp, base) || !(i % 2 ? linkat(mf_node_fd(A), tmp, mf_node_fd(A), from, 0) == 0 && removed(tmp, 0)
					  : renamed(tmp, from)))
		return false;
	if (i % 3 == 0)
		return true;
	if (!renamed(from, to))
		return false;
	strcpy(from, to);
	strcat(to, "S");
	return i % 3 == 1 || (renamed(from, to) && (i % 4 || removed(to, 0)));
}

static bool change_files(int i)
{
	char name[96], other[96];
	bool ok;

	sprintf(name, "P/file%d", i);
	sprintf(other, "P/file%d.tmp", i);
	ok = written(name, O_CREAT, "first", false) && written(name, O_APPEND, "more", i % 2);
	if (i % 3 == 0)
		ok = ok && written(other, O_CREAT, "new", false) && renamed(other, name);
	if (i % 4 == 0)
		ok = ok && removed(name, 0);
	sprintf(name, "P/dir%d", i);
	sprintf(other, "P/other%d", i);
	ok = ok && mkdirat(mf_node_fd(A), name, 0711) == 0 && (i % 2 || renamed(name, other));
	return ok && (i % 4 || removed(other, AT_REMOVEDIR));
}

/* The last change of each directory, or that there were too many. */
static bool last_came(int node)
{
	bool met[PLACES] = { 0 };
	struct mf_event e;

	while (!(met[PLAIN] && met[NEW] && met[CUR])) {
		if (!mf_watcher_next(watchers[node], LATEST_S * 2, &e))
			return false;
		for (int place = 0; place < PLACES; place++)
			met[place] |= e.mask & IN_Q_OVERFLOW ||
				      (e.place == place && (mf_event_is_vague(&e) || strstr(e.name, "last")));
	}
	return true;
}

static void check_same(const char *text, const char *when)
{
	for (int node = 0; node < mf_nodes_count(); node++) {
		char what[64], *other = mf_tree_text(mf_node_path(node, "."));

		sprintf(what, "node %d, then node %d", A, node);
		mf_tap_ok(mf_tree_equal(text, other, what), "node %d shows what node %d made, to the last nanosecond%s",
			node, A, when);
		free(other);
	}
}

static void check_unchanged(void)
{
	char tmp[96], *text;
	bool ok = true;

	A = 0;
	for (int i = 0; ok && i < MESSAGES; i++)
		ok = change_messages(i);
	for (int i = 0; ok && i < FILES; i++)
		ok = change_files(i);
	ok = ok && in_tmp(tmp, "last") && renamed(tmp, "M/new/last") && in_tmp(tmp, "last") &&
	     renamed(tmp, "M/cur/last:2,") && written("P/last", O_CREAT, "", false);
	for (int place = PLAIN; place <= CUR; place++)
		ok = ok && synced(paths[place]);
	mf_tap_ok(ok, "changes of every kind");
	text = mf_tree_text(mf_node_path(A, "."));
	ok = true;
	for (int node = 0; node < mf_nodes_count(); node++)
		ok = (node == A || last_came(node)) && ok;
	mf_tap_ok(ok, "their last ones are told on all other nodes");
	check_same(text, "");
	if (drop_caches())
		check_same(text, ", as mailfs tells it anew");
	free(text);
	forget_events();
}

int main(int argc, char **argv)
{
	mf_nodes_start(argc, argv, "events");
	mf_tap_ok(mf_maildir_make("M") == 0 && mkdir("P", 0700) == 0, "a Maildir and a plain directory");
	for (int node = 0; node < mf_nodes_count(); node++) {
		watchers[node] = mf_watcher_new();
		for (int place = PLAIN; place <= CUR; place++)
			mf_watcher_add(watchers[node], place, mf_node_path(node, "%s", paths[place]));
	}
	for (int i = 0; i < CHECKS; i++)
		check(i, "");
	check_dropped();
	check_unmade();
	check_unchanged();
	for (int node = 0; node < mf_nodes_count(); node++)
		mf_watcher_free(watchers[node]);
	mf_wakeups_check();
	return mf_tap_done();
}
