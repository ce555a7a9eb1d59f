/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bigfolder DIR [N]: a folder of N messages (20,000): deliver, list, stat, flag, expunge half, list. */
#include "tap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int total = 20000;

static bool deliver(void)
{
	char tmp[64], to[64];

	for (int i = 0; i < total; i++) {
		snprintf(tmp, sizeof(tmp), "M/tmp/%d.M%dP1.host", 1700000000 + i, i);
		snprintf(to, sizeof(to), "M/new/%d.M%dP1.host", 1700000000 + i, i);
		if (mf_pattern_write(tmp, 200 + i % 50, i, false) < 0 || link(tmp, to) < 0 || unlink(tmp) < 0)
			return false;
	}
	return true;
}

/* Every message of @dir once, and which: seen[id]. With @check, stat and compare the size too. */
static int list(const char *dir, unsigned char *seen, bool check)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int n = 0, id, sec;

	if (!d)
		return -errno;
	memset(seen, 0, total);
	while (errno = 0, (e = readdir(d))) {
		struct stat st;

		if (sscanf(e->d_name, "%d.M%dP1", &sec, &id) != 2 || id < 0 || id >= total)
			continue;
		if (seen[id]++)
			mf_tap_note("%s is listed twice", e->d_name);
		if (check && (fstatat(dirfd(d), e->d_name, &st, 0) < 0 || st.st_size != 200 + id % 50 ||
				     st.st_ino != e->d_ino))
			mf_tap_note("stat of %s: %s", e->d_name, strerror(errno));
		else
			n++;
	}
	if (errno)
		n = -errno;
	closedir(d);
	return n;
}

static bool to_cur(void)
{
	char from[64], to[64];

	for (int i = 0; i < total; i++) {
		snprintf(from, sizeof(from), "M/new/%d.M%dP1.host", 1700000000 + i, i);
		snprintf(to, sizeof(to), "M/cur/%d.M%dP1.host:2,", 1700000000 + i, i);
		if (rename(from, to) < 0)
			return false;
	}
	return true;
}

static bool expunge_half(void)
{
	char path[64];

	for (int i = 0; i < total; i += 2) {
		snprintf(path, sizeof(path), "M/cur/%d.M%dP1.host:2,", 1700000000 + i, i);
		if (unlink(path) < 0)
			return false;
	}
	return mf_fsync_dir("M/cur") == 0;
}

static bool odd_ones_only(const unsigned char *seen)
{
	for (int i = 0; i < total; i++)
		if (seen[i] != i % 2)
			return false;
	return true;
}

int main(int argc, char **argv)
{
	unsigned char *seen;
	double start, took;
	bool ok;
	int n;

	if (argc > 2)
		total = atoi(argv[2]);
	seen = malloc(total);
	mf_tap_start(argv[1], "bigfolder");
	mf_tap_ok(mf_maildir_make("M") == 0, "a Maildir");

	start = mf_tap_now();
	ok = deliver();
	took = mf_tap_now() - start;
	mf_tap_ok(ok, "%d messages delivered, %.0f us each", total, took / total * 1e6);
	start = mf_tap_now();
	n = list("M/new", seen, false);
	mf_tap_ok(n == total, "%d listed in %.3f s", n, mf_tap_now() - start);
	start = mf_tap_now();
	n = list("M/new", seen, true);
	mf_tap_ok(n == total, "%d listed and statted in %.3f s", n, mf_tap_now() - start);
	start = mf_tap_now();
	ok = to_cur();
	took = mf_tap_now() - start;
	mf_tap_ok(ok, "moved to cur, %.0f us each", took / total * 1e6);
	n = list("M/cur", seen, true);
	mf_tap_ok(n == total && mf_count_names("M/new") == 0, "%d are in cur, none in new", n);
	start = mf_tap_now();
	ok = expunge_half();
	took = mf_tap_now() - start;
	mf_tap_ok(ok, "half of them expunged, %.0f us each", took / (total / 2) * 1e6);
	n = list("M/cur", seen, true);
	mf_tap_ok(n == total / 2 && odd_ones_only(seen), "%d are left, the right ones", n);
	start = mf_tap_now();
	mf_tap_remove("M");
	mf_tap_note("removed in %.2f s", mf_tap_now() - start);
	free(seen);
	return mf_tap_done();
}
