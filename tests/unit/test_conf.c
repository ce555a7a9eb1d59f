/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/unit/test_conf.c - settings: the table, the file, -o. */
#include "store/conf.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct mf_conf *conf;
static char *path;

static void setup(void)
{
	int fd = g_file_open_tmp("mailfs-conf-XXXXXX", &path, NULL);

	ck_assert_int_ge(fd, 0);
	close(fd);
	conf = mf_conf_new();
}

static void teardown(void)
{
	unlink(path);
	g_free(path);
	conf = mf_conf_free(conf);
}

/* Loads @text, which must give @r and (if not NULL) an error that is "FILE" followed by @error. */
static void load(const char *text, gssize len, int r, const char *error)
{
	g_autofree char *got = NULL;

	ck_assert(g_file_set_contents(path, text, len, NULL));
	ck_assert_int_eq(mf_conf_load_file(conf, path, &got), r);
	if (!error) {
		ck_assert_ptr_null(got);
		return;
	}
	ck_assert_ptr_nonnull(got);
	ck_assert_msg(g_str_has_prefix(got, path), "no file name in: %s", got);
	ck_assert_str_eq(got + strlen(path), error);
	ck_assert_ptr_null(strchr(got, '\n'));
}

START_TEST(defaults)
{
	char host[MF_CONF_NAME_MAX + 1] = "";

	ck_assert_str_eq(conf->ceph_conf, "/etc/ceph/ceph.conf");
	ck_assert_str_eq(conf->client, "client.mailfs");
	ck_assert_str_eq(conf->fs, "mailfs");
	ck_assert_str_eq(conf->meta_pool, "mailfs_meta");
	ck_assert_str_eq(conf->data_pool, "mailfs_data");
	ck_assert_str_eq(conf->run_dir, "/run/mailfs");
	ck_assert_int_eq(conf->compression, MF_CONF_COMPRESSION_LZ4);
	ck_assert_uint_eq(conf->commit_interval_ms, 1000);
	ck_assert_uint_eq(conf->op_timeout_ms, 60000);
	ck_assert_uint_eq(conf->watch_timeout_s, 3);
	ck_assert_uint_eq(conf->cache_size, 256 << 20);
	ck_assert(!conf->sync_rename);
	ck_assert_uint_eq(conf->split_entries, 50000);
	ck_assert_int_eq(conf->log_level, MF_CONF_LOG_INFO);

	ck_assert_int_eq(gethostname(host, sizeof host - 1), 0);
	ck_assert_str_eq(conf->node, host);
}
END_TEST

START_TEST(file_sets_keys)
{
	load("# a comment\n\n  [mailfs]\r\n\nfs = farm-1\n  node=\tmx1  \ncommit_interval = 0.25\ncache_size=1G\n"
	     "sync_rename = Yes\nrun_dir = /a\\sb # c\ncompression = none\nlog_level=debug",
		-1, 0, NULL);
	ck_assert_str_eq(conf->fs, "farm-1");
	ck_assert_str_eq(conf->node, "mx1");
	ck_assert_str_eq(conf->run_dir, "/a\\sb # c");
	ck_assert_uint_eq(conf->commit_interval_ms, 250);
	ck_assert_uint_eq(conf->cache_size, 1 << 30);
	ck_assert(conf->sync_rename);
	ck_assert_int_eq(conf->compression, MF_CONF_COMPRESSION_NONE);
	ck_assert_int_eq(conf->log_level, MF_CONF_LOG_DEBUG);
}
END_TEST

#define GLIB_LINE(text) ": Key file contains line “" text "” which is not a key-value pair, group, or comment"

static const struct {
	const char *text;
	const char *error;
} bad_files[] = {
	{ "[mailfs]\n\nfoo = 1\n", ": unknown key 'foo'" },
	{ "[mailfs]\nfs[de] = a\n", ": unknown key 'fs[de]'" },
	{ "[mailfs]\nFS = a\n", ": unknown key 'FS'" },
	{ "[mailfs]\n[mail]\nnode = a\n", ": unknown group [mail]; there is only [mailfs]" },
	{ "node = a\n[mailfs]\n", ": Key file does not start with a group" },
	{ "[mailfs]\nnode\n", GLIB_LINE("node") },
	{ "[mailfs\n", GLIB_LINE("[mailfs") },
	{ "[mailfs]\na\x01\x1b[7mb\n", GLIB_LINE("a??[7mb") },
	{ "[mailfs]\nnode = a b\n",
		": bad value 'a b' for node: 1 to 64 characters out of A-Z a-z 0-9 . _ - are wanted" },
	{ "[mailfs]\nfs =\n", ": bad value '' for fs: 1 to 64 characters out of A-Z a-z 0-9 . _ - are wanted" },
	{ "[mailfs]\nnode = \xff\n", ": not a UTF-8 text file" },
};

START_TEST(bad_file_is_told)
{
	load(bad_files[_i].text, -1, -EINVAL, bad_files[_i].error);
}
END_TEST

START_TEST(last_of_two_counts)
{
	load("[mailfs]\nnode = a\nnode = b\n[mailfs]\nfs = c\n", -1, 0, NULL);
	ck_assert_str_eq(conf->node, "b");
	ck_assert_str_eq(conf->fs, "c");
}
END_TEST

START_TEST(bad_file_changes_nothing)
{
	load("[mailfs]\nfs = changed\nfoo = 1\n", -1, -EINVAL, ": unknown key 'foo'");
	ck_assert_str_eq(conf->fs, "mailfs");
}
END_TEST

START_TEST(nul_in_file_is_refused)
{
	load("[mailfs]\nfs = a\0b\n", 18, -EINVAL, ": not a UTF-8 text file");
}
END_TEST

START_TEST(named_file_must_exist)
{
	g_autofree char *error = NULL;

	unlink(path);
	ck_assert_int_eq(mf_conf_load_file(conf, path, &error), -ENOENT);
	ck_assert_ptr_nonnull(strstr(error, path));
	ck_assert_ptr_nonnull(strstr(error, "No such file"));
}
END_TEST

START_TEST(file_may_be_empty)
{
	load("", 0, 0, NULL);
	ck_assert_str_eq(conf->fs, "mailfs");
}
END_TEST

/* @want NULL: refused. Else the value as it is shown afterwards. */
static const struct {
	const char *key, *value, *want;
} values[] = {
	{ "commit_interval", "0", "0" },
	{ "commit_interval", "60", "60" },
	{ "commit_interval", "60.001", NULL },
	{ "commit_interval", ".5", "0.5" },
	{ "commit_interval", "0.0001", "0.001" },
	{ "commit_interval", "-1", NULL },
	{ "commit_interval", "+1", NULL },
	{ "commit_interval", "1e1", NULL },
	{ "commit_interval", "0x1", NULL },
	{ "commit_interval", "nan", NULL },
	{ "commit_interval", "", NULL },
	{ "commit_interval", ".", NULL },
	{ "commit_interval", "1.2.3", NULL },
	{ "commit_interval", "1 s", NULL },
	{ "op_timeout", "1", "1" },
	{ "op_timeout", "0.5", NULL },
	{ "op_timeout", "3600", "3600" },
	{ "op_timeout", "3601", NULL },
	{ "watch_timeout", "1", "1" },
	{ "watch_timeout", "60", "60" },
	{ "watch_timeout", "0", NULL },
	{ "watch_timeout", "61", NULL },
	{ "watch_timeout", "1.5", NULL },
	{ "watch_timeout", "4294967299", NULL }, /* 3 in 32 bits */
	{ "cache_size", "8M", "8M" },
	{ "cache_size", "8388607", NULL },
	{ "cache_size", "8388608", "8M" },
	{ "cache_size", "8388609", "8388609" },
	{ "cache_size", "9000k", "9000K" },
	{ "cache_size", "2g", "2G" },
	{ "cache_size", "1024T", "1024T" },
	{ "cache_size", "1025T", NULL },
	{ "cache_size", "99999999999999999999", NULL },
	{ "cache_size", "16777216T", NULL }, /* 0 in 64 bits */
	{ "cache_size", "M", NULL },
	{ "cache_size", "8MB", NULL },
	{ "split_entries", "100", "100" },
	{ "split_entries", "99", NULL },
	{ "split_entries", "200000", "200000" },
	{ "split_entries", "200001", NULL },
	{ "sync_rename", "on", "yes" },
	{ "sync_rename", "0", "no" },
	{ "sync_rename", "maybe", NULL },
	{ "sync_rename", "", NULL },
	{ "compression", "none", "none" },
	{ "compression", "zstd", NULL },
	{ "compression", "LZ4", NULL },
	{ "log_level", "error", "error" },
	{ "log_level", "loud", NULL },
	{ "client", "client.a", "client.a" },
	{ "client", "mailfs", NULL },
	{ "client", "client.", NULL },
	{ "ceph_conf", "relative", NULL },
	{ "run_dir", "/tmp/a b", "/tmp/a b" },
	{ "meta_pool", "", NULL },
	{ "meta_pool", "a b", NULL },
	{ "node", "0123456789012345678901234567890123456789012345678901234567890123",
		"0123456789012345678901234567890123456789012345678901234567890123" },
	{ "node", "01234567890123456789012345678901234567890123456789012345678901234", NULL },
	{ "node", "a/b", NULL },
	{ "fs", "A-z.0_9", "A-z.0_9" },
};

struct lookup {
	const char *key;
	char *value;
	char *default_value;
};

static void look(const struct mf_conf_entry *entry, void *arg)
{
	struct lookup *lookup = arg;

	if (strcmp(entry->key, lookup->key))
		return;
	lookup->value = g_strdup(entry->value);
	lookup->default_value = g_strdup(entry->default_value);
}

START_TEST(value_limits)
{
	struct lookup lookup = { .key = values[_i].key };
	g_autofree char *error = NULL;
	int r = mf_conf_set(conf, values[_i].key, values[_i].value, &error);

	mf_conf_foreach(conf, look, &lookup);
	ck_assert_ptr_nonnull(lookup.value);
	if (values[_i].want) {
		ck_assert_msg(r == 0, "%s", error);
		ck_assert_str_eq(lookup.value, values[_i].want);
	} else {
		ck_assert_int_eq(r, -EINVAL);
		ck_assert_ptr_nonnull(strstr(error, values[_i].key));
		ck_assert_str_eq(lookup.value, lookup.default_value);
	}
	g_free(lookup.value);
	g_free(lookup.default_value);
}
END_TEST

START_TEST(pairs)
{
	g_autofree char *error = NULL;

	ck_assert_int_eq(mf_conf_set_pair(conf, "run_dir=/a=b", NULL), 0);
	ck_assert_str_eq(conf->run_dir, "/a=b");
	ck_assert_int_eq(mf_conf_set_pair(conf, "sync_rename", &error), -EINVAL);
	ck_assert_str_eq(error, "key 'sync_rename' wants a value: key=value");
	g_clear_pointer(&error, g_free);
	ck_assert_int_eq(mf_conf_set_pair(conf, "foo=1", &error), -ENOENT);
	ck_assert_str_eq(error, "unknown key 'foo'");
	ck_assert(mf_conf_has_key("fs"));
	ck_assert(!mf_conf_has_key("f"));
}
END_TEST

static void write_entry(const struct mf_conf_entry *entry, void *arg)
{
	ck_assert(*entry->type && *entry->help);
	ck_assert_uint_le(strlen(entry->help), 62); /* --help has 80 columns */
	g_string_append_printf(arg, "%s = %s\n", entry->key, entry->value);
}

START_TEST(what_is_shown_can_be_read)
{
	g_autoptr(GString) before = g_string_new("[mailfs]\n");
	g_autoptr(GString) after = g_string_new("[mailfs]\n");

	ck_assert_int_eq(mf_conf_set(conf, "commit_interval", "0.125", NULL), 0);
	ck_assert_int_eq(mf_conf_set(conf, "cache_size", "12345678", NULL), 0);
	mf_conf_foreach(conf, write_entry, before);
	conf = mf_conf_free(conf);
	conf = mf_conf_new();
	load(before->str, -1, 0, NULL);
	mf_conf_foreach(conf, write_entry, after);
	ck_assert_str_eq(before->str, after->str);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("conf");
	TCase *tcase = tcase_create("conf");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, defaults);
	tcase_add_test(tcase, file_sets_keys);
	tcase_add_loop_test(tcase, bad_file_is_told, 0, G_N_ELEMENTS(bad_files));
	tcase_add_test(tcase, last_of_two_counts);
	tcase_add_test(tcase, bad_file_changes_nothing);
	tcase_add_test(tcase, nul_in_file_is_refused);
	tcase_add_test(tcase, named_file_must_exist);
	tcase_add_test(tcase, file_may_be_empty);
	tcase_add_loop_test(tcase, value_limits, 0, G_N_ELEMENTS(values));
	tcase_add_test(tcase, pairs);
	tcase_add_test(tcase, what_is_shown_can_be_read);
	suite_add_tcase(suite, tcase);

	SRunner *runner = srunner_create(suite);

	srunner_run_all(runner, CK_ENV);

	int failed = srunner_ntests_failed(runner);

	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
