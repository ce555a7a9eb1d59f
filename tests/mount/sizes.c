/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sizes DIR [BIG_MIB [DEADLINE_S]]: messages of awkward sizes, written in awkward pieces, read in every way; sparse
 * writing in tmp before the message is published; one of 1 GiB. */
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned seed = 20240229;

static unsigned below(unsigned n)
{
	return rand_r(&seed) % n;
}

static int write_in_pieces(const char *path, uint64_t size, uint64_t pattern, unsigned piece)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	unsigned char *buf = malloc(piece + 1);
	int r = fd < 0 ? -errno : 0;

	for (uint64_t at = 0; r == 0 && at < size;) {
		unsigned n = 1 + below(piece);
		ssize_t done;

		if (n > size - at)
			n = size - at;
		mf_pattern_fill(buf, n, pattern, at);
		done = write(fd, buf, n);
		if (done <= 0)
			r = -EIO;
		else
			at += done;
	}
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (fd >= 0 && close(fd) < 0 && r == 0)
		r = -errno;
	free(buf);
	return r;
}

static bool random_reads(const char *path, uint64_t size, uint64_t pattern, int count)
{
	static unsigned char buf[200000];
	int fd = open(path, O_RDONLY);
	bool ok = fd >= 0;

	for (int i = 0; ok && i < count; i++) {
		uint64_t at = size ? ((uint64_t)rand_r(&seed) << 16 ^ rand_r(&seed)) % (size + 10) : below(10);
		size_t len = 1 + below(i % 2 ? 5000 : sizeof(buf) - 1);
		size_t want = at >= size ? 0 : size - at < len ? size - at : len;
		ssize_t n = pread(fd, buf, len, at);

		ok = n == (ssize_t)want && mf_pattern_check(buf, want, pattern, at) < 0;
		if (!ok)
			mf_tap_note("pread of %zu at %llu of %llu: %zd", len, (unsigned long long)at,
				(unsigned long long)size, n);
	}
	if (fd >= 0)
		close(fd);
	return ok;
}

static bool mapped(const char *path, uint64_t size, uint64_t pattern, int flags)
{
	int fd = open(path, O_RDONLY);
	unsigned char *p = fd < 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ, flags, fd, 0);
	bool ok = p != MAP_FAILED;

	if (fd >= 0)
		close(fd);
	if (ok) {
		ok = mf_pattern_check(p, size, pattern, 0) < 0;
		/* behind the end, up to the page's: zeros */
		for (uint64_t i = size; ok && i % 4096; i++)
			ok = p[i] == 0;
		munmap(p, size);
	}
	return ok;
}

static void test_size(uint64_t size)
{
	uint64_t pattern = size + 77;
	char to[64];
	int r;

	snprintf(to, sizeof(to), "M/new/%llu.x", (unsigned long long)size);
	r = write_in_pieces("M/tmp/x", size, pattern, size > 100000 ? 300000 : 9000);
	if (r == 0 && rename("M/tmp/x", to) < 0)
		r = -errno;
	errno = -r;
	mf_tap_ok(r == 0, "%llu bytes: written and published", (unsigned long long)size);
	r = mf_pattern_verify(to, size, pattern);
	errno = -r;
	mf_tap_ok(r == 0, "%llu bytes: read back", (unsigned long long)size);
	mf_tap_ok(random_reads(to, size, pattern, 60), "%llu bytes: read anywhere", (unsigned long long)size);
	if (size > 0) {
		mf_tap_ok(
			mapped(to, size, pattern, MAP_PRIVATE), "%llu bytes: mapped private", (unsigned long long)size);
		mf_tap_ok(mapped(to, size, pattern, MAP_SHARED), "%llu bytes: mapped shared", (unsigned long long)size);
	}
	mf_tap_ok(unlink(to) == 0, "%llu bytes: expunged", (unsigned long long)size);
}

/* Writes, holes and truncates in any order against a model in memory, then publishes and compares. */
static bool sparse_round(int round, char *why, size_t why_size)
{
	enum { MAX = 1500000 };
	static unsigned char model[MAX], buf[MAX];
	size_t size = 0;
	struct stat st;
	int fd = open("M/tmp/s", O_RDWR | O_CREAT | O_EXCL, 0600), steps = 2 + below(25);
	ssize_t n;

	if (fd < 0)
		return false;
	memset(model, 0, sizeof(model));
	for (int i = 0; i < steps; i++) {
		unsigned what = below(10);
		size_t at = below(3) ? below(MAX - 200000) : below(200000), len = 1 + below(below(3) ? 5000 : 190000);

		if (what < 6) {
			mf_pattern_fill(buf, len, round * 100 + i, at);
			if (pwrite(fd, buf, len, at) != (ssize_t)len)
				return false;
			memcpy(model + at, buf, len);
			size = at + len > size ? at + len : size;
		} else if (what < 8) {
			size_t to = below(2) ? below(size + 1) : at;

			if (ftruncate(fd, to) < 0)
				return false;
			if (to < size)
				memset(model + to, 0, size - to);
			size = to;
		} else if (what < 9) {
			n = pread(fd, buf, len, at);
			if (n != (ssize_t)(at >= size	     ? 0
					   : size - at < len ? size - at
							     : len) ||
				memcmp(buf, model + at, n)) {
				snprintf(why, why_size, "round %d: read while writing at %zu", round, at);
				return false;
			}
		} else if (fsync(fd) < 0) {
			return false;
		}
	}
	if (fsync(fd) < 0 || close(fd) < 0 || rename("M/tmp/s", "M/new/s") < 0 || stat("M/new/s", &st) < 0)
		return false;
	fd = open("M/new/s", O_RDONLY);
	n = fd < 0 ? -1 : pread(fd, buf, sizeof(buf), 0);
	if (fd >= 0)
		close(fd);
	unlink("M/new/s");
	if ((size_t)st.st_size != size || n != (ssize_t)size) {
		snprintf(why, why_size, "round %d: size %lld, %zd could be read, not %zu", round, (long long)st.st_size,
			n, size);
		return false;
	}
	for (size_t i = 0; i < size; i++)
		if (buf[i] != model[i]) {
			snprintf(why, why_size, "round %d: byte %zu", round, i);
			return false;
		}
	return true;
}

static void test_sparse(void)
{
	char why[200] = "";
	bool ok = true;

	for (int round = 0; ok && round < 40; round++)
		ok = sparse_round(round, why, sizeof(why));
	mf_tap_ok(ok, "sparse writing and truncating in tmp, 40 rounds %s", why);
	seed = 4;
	mf_tap_ok(mf_pattern_write("M/tmp/t", 200000, 5, true) == 0 && truncate("M/tmp/t", 70000) == 0 &&
			  rename("M/tmp/t", "M/new/t") == 0 && mf_pattern_verify("M/new/t", 70000, 5) == 0,
		"truncate by name in tmp");
	unlink("M/new/t");
}

/* No reading beyond what was asked for: the time for @mib MiB is bounded. */
static void test_big(unsigned mib, double deadline)
{
	uint64_t size = (uint64_t)mib << 20;
	double start = mf_tap_now(), took;
	int r;

	r = mf_pattern_write("M/tmp/big", size, 99, true);
	if (r == 0 && rename("M/tmp/big", "M/new/big") < 0)
		r = -errno;
	took = mf_tap_now() - start;
	errno = -r;
	mf_tap_ok(r == 0, "%u MiB: written and published in %.1f s, %.0f MiB/s", mib, took, mib / took);
	mf_tap_ok(took < deadline, "%u MiB: within %.0f s", mib, deadline);
	start = mf_tap_now();
	mf_tap_ok(random_reads("M/new/big", size, 99, 300), "%u MiB: read anywhere", mib);
	mf_tap_note("300 reads took %.2f s", mf_tap_now() - start);
	start = mf_tap_now();
	r = mf_pattern_verify("M/new/big", size, 99);
	errno = -r;
	took = mf_tap_now() - start;
	mf_tap_ok(r == 0 && took < deadline, "%u MiB: read as a whole in %.1f s, %.0f MiB/s", mib, took, mib / took);
	mf_tap_ok(unlink("M/new/big") == 0, "%u MiB: expunged", mib);
}

int main(int argc, char **argv)
{
	static const uint64_t sizes[] = { 0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20, (4 << 20) - 1, 4 << 20,
		(4 << 20) + 1, 5 << 20, (8 << 20) + 3 };

	mf_tap_start(argv[1], "sizes");
	mf_tap_ok(mf_maildir_make("M") == 0, "a Maildir");
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		test_size(sizes[i]);
	test_sparse();
	test_big(argc > 2 ? atoi(argv[2]) : 1024, argc > 3 ? atof(argv[3]) : 300);
	return mf_tap_done();
}
