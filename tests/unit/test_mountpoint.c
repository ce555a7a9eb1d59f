/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/unit/test_mountpoint.c - the table of mounts, and what a mount point must be like.
 *
 * The mounts are real: FUSE mounts of type fuse.mailfs, whose /dev/fuse descriptor nobody reads (a hung daemon) or is
 * closed (a dead one), each in a mount namespace of the test's own. */
#include "fuse/mountpoint.h"

#include "fuse/mountinfo.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SKIPPED 77

static const char TABLE[] =
	"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
	"30 22 0:40 / /var/mail rw,nosuid,nodev shared:7 master:2 - fuse.mailfs /etc/mailfs/a\\040b.conf rw,user_id=0\n"
	"31 22 0:41 / /mnt/a\\040b\\134c\\011d rw - fuse.mailfs none rw\n"
	"32 22 0:42 / /mnt/stack rw - fuse.mailfs none rw\n"
	"33 32 0:43 / /mnt/stack rw - tmpfs tmpfs rw\n"
	"34 22 0:44 / /mnt/- rw - ext4 - rw\n"
	"garbage\n";

static char *dir;

static void setup(void)
{
	g_autofree char *made = g_dir_make_tmp("mailfs-mountpoint-XXXXXX", NULL);
	char *real = realpath(made, NULL);

	ck_assert_ptr_nonnull(real);
	dir = g_strdup(real);
	free(real);
}

static void teardown(void)
{
	rmdir(dir);
	g_free(dir);
}

static bool private_mounts(void)
{
	return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       access("/dev/fuse", R_OK | W_OK) == 0;
}

/* A FUSE mount without a daemon behind it. Its descriptor. */
static int mount_fuse(const char *path, const char *type)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	g_autofree char *data = g_strdup_printf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(mount("none", path, type, MS_NOSUID | MS_NODEV, data), 0);
	return fd;
}

static void refused(const char *path, int r, const char *why)
{
	g_autofree char *error = NULL;
	char *full = NULL;

	ck_assert_int_eq(mf_mountpoint_prepare(path, &full, &error), r);
	ck_assert_ptr_null(full);
	ck_assert_msg(strstr(error, why) != NULL, "'%s' lacks '%s'", error, why);
}

static void taken(const char *path, const char *want)
{
	g_autofree char *error = NULL;
	g_autofree char *full = NULL;
	int r = mf_mountpoint_prepare(path, &full, &error);

	ck_assert_msg(r == 0, "%s", error);
	ck_assert_str_eq(full, want);
}

START_TEST(table_is_parsed)
{
	g_auto(mf_mount) m = { NULL };

	ck_assert_int_eq(mf_mountinfo_find(TABLE, "/var/mail", &m), 1);
	ck_assert_str_eq(m.fstype, "fuse.mailfs");
	ck_assert_str_eq(m.source, "/etc/mailfs/a b.conf");
}
END_TEST

START_TEST(table_escapes)
{
	g_auto(mf_mount) m = { NULL };

	ck_assert_int_eq(mf_mountinfo_find(TABLE, "/mnt/a b\\c\td", &m), 1);
	ck_assert_str_eq(m.path, "/mnt/a b\\c\td");
	ck_assert_int_eq(mf_mountinfo_find(TABLE, "/mnt/a\\040b\\134c\\011d", &m), 0);
}
END_TEST

START_TEST(table_last_mount_counts)
{
	g_auto(mf_mount) m = { NULL };

	ck_assert_int_eq(mf_mountinfo_find(TABLE, "/mnt/stack", &m), 1);
	ck_assert_str_eq(m.fstype, "tmpfs");
}
END_TEST

START_TEST(table_lacks)
{
	g_auto(mf_mount) m = { NULL };

	ck_assert_int_eq(mf_mountinfo_find(TABLE, "/var", &m), 0);
	ck_assert_int_eq(mf_mountinfo_find(TABLE, "/var/mail/x", &m), 0);
	ck_assert_int_eq(mf_mountinfo_find(TABLE, "garbage", &m), 0);
	ck_assert_int_eq(mf_mountinfo_parse("1 2 0:1 / /a rw -", &m), -EINVAL);
	ck_assert_int_eq(mf_mountinfo_parse("", &m), -EINVAL);
}
END_TEST

START_TEST(empty_directory_is_taken)
{
	g_autofree char *slashes = g_strconcat(dir, "///", NULL);
	g_autofree char *dot = g_strconcat(dir, "/.", NULL);

	taken(dir, dir);
	taken(slashes, dir);
	taken(dot, dir);
}
END_TEST

START_TEST(symlinks_are_followed)
{
	g_autofree char *sub = g_build_filename(dir, "sub", NULL);
	g_autofree char *relative = g_build_filename(dir, "relative", NULL);
	g_autofree char *absolute = g_build_filename(dir, "absolute", NULL);
	g_autofree char *loop = g_build_filename(dir, "loop", NULL);

	ck_assert_int_eq(mkdir(sub, 0755), 0);
	ck_assert_int_eq(symlink("sub", relative), 0);
	ck_assert_int_eq(symlink(relative, absolute), 0);
	ck_assert_int_eq(symlink("loop", loop), 0);
	taken(relative, sub);
	taken(absolute, sub);
	refused(loop, -ELOOP, "symbolic links");
	unlink(loop);
	unlink(absolute);
	unlink(relative);
	rmdir(sub);
}
END_TEST

START_TEST(unfit_places_are_refused)
{
	g_autofree char *file = g_build_filename(dir, "file", NULL);
	g_autofree char *missing = g_build_filename(dir, "missing", NULL);
	g_autofree char *deeper = g_build_filename(dir, "missing", "x", NULL);

	ck_assert(g_file_set_contents(file, "", 0, NULL));
	refused(dir, -ENOTEMPTY, "is not empty");
	refused(file, -ENOTDIR, "is not a directory");
	refused(missing, -ENOENT, "does not exist");
	refused(deeper, -ENOENT, "No such file");
	refused("", -ENOENT, "No such file");
	unlink(file);
}
END_TEST

static int set_immutable(const char *path, bool on)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int flags = 0;
	int r = fd < 0 || ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0 ? -1 : 0;

	flags = on ? flags | FS_IMMUTABLE_FL : flags & ~FS_IMMUTABLE_FL;
	if (r == 0)
		r = ioctl(fd, FS_IOC_SETFLAGS, &flags);
	if (fd >= 0)
		close(fd);
	return r;
}

START_TEST(immutable_directory_is_taken)
{
	if (set_immutable(dir, true) < 0)
		return; /* not this filesystem, not this user */
	ck_assert_int_lt(open(dir, O_TMPFILE | O_WRONLY, 0600), 0);
	taken(dir, dir);
	ck_assert_int_eq(set_immutable(dir, false), 0);
}
END_TEST

START_TEST(dead_mount_is_detached)
{
	g_auto(mf_mount) m = { NULL };
	struct stat st;

	ck_assert(private_mounts());
	close(mount_fuse(dir, "fuse.mailfs"));
	close(mount_fuse(dir, "fuse.mailfs")); /* and one more on top */
	ck_assert_int_eq(stat(dir, &st), -1);
	ck_assert_int_eq(errno, ENOTCONN);
	taken(dir, dir);
	ck_assert_int_eq(mf_mountinfo_find(NULL, dir, &m), 0);
	ck_assert_int_eq(stat(dir, &st), 0);
}
END_TEST

START_TEST(hung_mount_is_refused_in_time)
{
	g_auto(mf_mount) m = { NULL };
	gint64 start = g_get_monotonic_time();
	int fd;

	ck_assert(private_mounts());
	fd = mount_fuse(dir, "fuse.mailfs");
	refused(dir, -EBUSY, "does not answer");
	ck_assert_int_lt(g_get_monotonic_time() - start, 15 * G_USEC_PER_SEC);
	ck_assert_int_eq(mf_mountinfo_find(NULL, dir, &m), 1);
	close(fd);
	umount2(dir, MNT_DETACH);
}
END_TEST

START_TEST(foreign_dead_mount_is_left_alone)
{
	g_auto(mf_mount) m = { NULL };

	ck_assert(private_mounts());
	close(mount_fuse(dir, "fuse.other"));
	refused(dir, -ENOTCONN, "not connected");
	ck_assert_int_eq(mf_mountinfo_find(NULL, dir, &m), 1);
	umount2(dir, MNT_DETACH);
}
END_TEST

START_TEST(mount_of_another_type_can_be_covered)
{
	ck_assert(private_mounts());
	ck_assert_int_eq(mount("tmpfs", dir, "tmpfs", 0, NULL), 0);
	taken(dir, dir);
	umount2(dir, MNT_DETACH);
}
END_TEST

static bool can_mount(void)
{
	pid_t pid = fork();
	int status = 1;

	if (pid == 0)
		_exit(!private_mounts());
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

int main(void)
{
	Suite *suite = suite_create("mountpoint");
	TCase *plain = tcase_create("plain");
	TCase *mounts = tcase_create("mounts");
	SRunner *runner;
	int failed;
	bool mounting = can_mount();

	tcase_add_checked_fixture(plain, setup, teardown);
	tcase_add_test(plain, table_is_parsed);
	tcase_add_test(plain, table_escapes);
	tcase_add_test(plain, table_last_mount_counts);
	tcase_add_test(plain, table_lacks);
	tcase_add_test(plain, empty_directory_is_taken);
	tcase_add_test(plain, symlinks_are_followed);
	tcase_add_test(plain, unfit_places_are_refused);
	tcase_add_test(plain, immutable_directory_is_taken);
	suite_add_tcase(suite, plain);

	tcase_add_checked_fixture(mounts, setup, teardown);
	tcase_set_timeout(mounts, 30);
	tcase_add_test(mounts, dead_mount_is_detached);
	tcase_add_test(mounts, hung_mount_is_refused_in_time);
	tcase_add_test(mounts, foreign_dead_mount_is_left_alone);
	tcase_add_test(mounts, mount_of_another_type_can_be_covered);
	if (mounting)
		suite_add_tcase(suite, mounts);

	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	if (failed)
		return EXIT_FAILURE;
	if (!mounting)
		fprintf(stderr, "mounts are not tested: that needs root and /dev/fuse\n");
	return mounting ? EXIT_SUCCESS : SKIPPED;
}
