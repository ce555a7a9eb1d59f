/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/unit/test_options.c - the command line, as a person, mount(8) and mount.fuse3 write it. */
#include "fuse/options.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BASE "nosuid,nodev,subtype=mailfs,fsname="

static char *dir;
static char *file;

static void setup(void)
{
	dir = g_dir_make_tmp("mailfs-options-XXXXXX", NULL);
	ck_assert_ptr_nonnull(dir);
	file = g_build_filename(dir, "own.conf", NULL);
	ck_assert(g_file_set_contents(file, "[mailfs]\nfs = fromfile\nnode = fromfile\n", -1, NULL));
}

static void teardown(void)
{
	unlink(file);
	rmdir(dir);
	g_free(file);
	g_free(dir);
}

/* Splits @line at blanks; FILE stands for the configuration file. */
static int parse(const char *line, struct mf_options **ret_options, char **ret_error)
{
	g_auto(GStrv) argv = g_strsplit(line, " ", -1);

	for (char **word = argv; *word; word++) {
		if (!strcmp(*word, "FILE")) {
			g_free(*word);
			*word = g_strdup(file);
		}
	}
	return mf_options_parse((int)g_strv_length(argv), argv, ret_options, ret_error);
}

static struct mf_options *good(const char *line)
{
	g_autofree char *error = NULL;
	struct mf_options *options = NULL;
	int r = parse(line, &options, &error);

	ck_assert_msg(r == 0, "%s: %s", line, error);
	return options;
}

START_TEST(own_line)
{
	g_autoptr(mf_options) options =
		good("/usr/sbin/mailfs -c FILE -o node=n2,commit_interval=0 -o sync_rename=yes -f /m");
	g_autofree char *mount_options = g_strconcat(BASE, file, NULL);

	ck_assert_int_eq(options->action, MF_OPTIONS_MOUNT);
	ck_assert(options->foreground);
	ck_assert_str_eq(options->mountpoint, "/m");
	ck_assert_str_eq(options->source, file);
	ck_assert_str_eq(options->mount_options, mount_options);
	ck_assert_str_eq(options->conf->fs, "fromfile");
	ck_assert_str_eq(options->conf->node, "n2");
	ck_assert_uint_eq(options->conf->commit_interval_ms, 0);
	ck_assert(options->conf->sync_rename);
}
END_TEST

START_TEST(options_win_over_the_file_wherever_they_stand)
{
	g_autoptr(mf_options) options = good("mailfs /m -o fs=a -c FILE -o fs=b");

	ck_assert_str_eq(options->conf->fs, "b");
	ck_assert(!options->foreground);
}
END_TEST

START_TEST(two_words)
{
	g_autoptr(mf_options) options = good("mailfs FILE /m -o rw,dev,suid");

	ck_assert_str_eq(options->conf->fs, "fromfile");
	ck_assert_str_eq(options->source, file);
	ck_assert_str_eq(options->mountpoint, "/m");
	ck_assert(g_str_has_suffix(options->mount_options, ",rw"));
}
END_TEST

START_TEST(helper_of_mount)
{
	g_autoptr(mf_options) options = good("/sbin/mount.fuse.mailfs none /m -sfnv -o "
					     "rw,noexec,user=bob,_netdev,x-systemd.automount,fs=x -t fuse.mailfs");

	ck_assert_int_eq(options->action, MF_OPTIONS_CHECK); /* -f is "fake" here */
	ck_assert(!options->foreground);
	ck_assert_str_eq(options->source, "none");
	ck_assert_str_eq(options->conf->fs, "x");
	ck_assert_str_eq(options->mount_options, BASE "none,rw,noexec");
}
END_TEST

START_TEST(relative_spec_is_made_absolute)
{
	g_autofree char *cwd = g_get_current_dir();
	g_autoptr(mf_options) options = NULL;

	ck_assert_int_eq(chdir(dir), 0);
	options = good("mount.mailfs ./own.conf /m");
	ck_assert_int_eq(chdir(cwd), 0);
	ck_assert_str_eq(options->source, file);
	ck_assert_str_eq(options->conf->fs, "fromfile");
}
END_TEST

START_TEST(escaped_comma)
{
	g_autoptr(mf_options) options = good("mailfs -o run_dir=/a\\,b,,fs=c,context=u:s0\\,c1 /m");

	ck_assert_str_eq(options->conf->run_dir, "/a,b");
	ck_assert_str_eq(options->conf->fs, "c");
	ck_assert_str_eq(options->mount_options, BASE "mailfs,context=u:s0\\,c1");
}
END_TEST

static const char *const generics[] = {
	"rw",
	"ro",
	"defaults",
	"_netdev",
	"auto",
	"noauto",
	"nofail",
	"user",
	"noatime",
	"relatime",
	"nodev",
	"nosuid",
	"noexec",
	"x-initrd.mount",
	"comment=x",
	"allow_other",
};

START_TEST(generic_options_are_taken)
{
	g_autofree char *line = g_strdup_printf("mailfs -o %s /m", generics[_i]);
	g_autoptr(mf_options) options = good(line);

	ck_assert_int_eq(options->action, MF_OPTIONS_MOUNT);
}
END_TEST

static const struct {
	const char *line, *error;
} bad[] = {
	{ "mailfs", "no mount point given" },
	{ "mailfs a b c", "too many" },
	{ "mount.mailfs /m", "too few" },
	{ "mailfs other /m", "'other' is neither the path of a mailfs.conf nor 'none'" },
	{ "mailfs -c FILE ./x /m", "two configuration files" },
	{ "mailfs -o foo /m", "unknown option 'foo'" },
	{ "mailfs -o foo=1 /m", "unknown option 'foo=1'" },
	{ "mailfs -o nodevx /m", "unknown option 'nodevx'" },
	{ "mailfs -o cache_size /m", "key 'cache_size' wants a value" },
	{ "mailfs -o cache_size=1 /m", "bad value '1' for cache_size" },
	{ "mailfs -o remount,ro /m", "option 'remount' is not possible" },
	{ "mailfs -z /m", "-z" },
	{ "mailfs -o", "-o" },
	{ "mailfs -c /nonexistent/x.conf /m", "cannot read /nonexistent/x.conf" },
};

START_TEST(bad_lines)
{
	g_autofree char *error = NULL;
	struct mf_options *options = NULL;

	ck_assert_int_lt(parse(bad[_i].line, &options, &error), 0);
	ck_assert_ptr_null(options);
	ck_assert_msg(strstr(error, bad[_i].error) != NULL, "'%s' lacks '%s'", error, bad[_i].error);
	ck_assert_ptr_null(strchr(error, '\n'));
}
END_TEST

static const char *const helps[] = { "mailfs --help", "mailfs -h /m", "mount.mailfs --help", "mailfs -V" };

START_TEST(help_fits_80_columns)
{
	g_autoptr(mf_options) options = good(helps[_i]);
	g_auto(GStrv) lines = g_strsplit(options->text, "\n", -1);

	ck_assert_int_eq(options->action, MF_OPTIONS_PRINT);
	for (char **line = lines; *line; line++)
		ck_assert_msg(g_utf8_strlen(*line, -1) <= 80, "too wide: %s", *line);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("options");
	TCase *tcase = tcase_create("options");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, own_line);
	tcase_add_test(tcase, options_win_over_the_file_wherever_they_stand);
	tcase_add_test(tcase, two_words);
	tcase_add_test(tcase, helper_of_mount);
	tcase_add_test(tcase, relative_spec_is_made_absolute);
	tcase_add_test(tcase, escaped_comma);
	tcase_add_loop_test(tcase, generic_options_are_taken, 0, G_N_ELEMENTS(generics));
	tcase_add_loop_test(tcase, bad_lines, 0, G_N_ELEMENTS(bad));
	tcase_add_loop_test(tcase, help_fits_80_columns, 0, G_N_ELEMENTS(helps));
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
