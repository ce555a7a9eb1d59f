/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/unit/test_daemon.c - what the caller of mailfs sees while the daemon starts, and where messages go. */
#include "fuse/daemon.h"

#include "fuse/log.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

struct started {
	int status;   /* of the process that called mf_daemon_fork() */
	char *output; /* its stdout and stderr, and the daemon's while that has them */
};

/* Runs @body as mailfs would run: it calls mf_daemon_fork() itself and ends with _exit(). */
static struct started start(void (*body)(int fd), int fd)
{
	g_autoptr(GString) output = g_string_new(NULL);
	struct started started;
	char part[512];
	int fds[2];
	ssize_t n;
	pid_t pid;

	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		dup2(fds[1], STDOUT_FILENO);
		dup2(fds[1], STDERR_FILENO);
		close(fds[1]);
		body(fd);
		_exit(99);
	}
	close(fds[1]);
	/* Ends when the daemon has given up its stdio: a daemon that keeps it lets this test time out. */
	while ((n = read(fds[0], part, sizeof part)) > 0)
		g_string_append_len(output, part, n);
	close(fds[0]);
	ck_assert_int_eq(waitpid(pid, &started.status, 0), pid);
	started.output = g_strdup(output->str);
	return started;
}

static void begin(void)
{
	mf_log_start(false, MF_CONF_LOG_INFO);
	if (mf_daemon_fork(false) < 0)
		_exit(98);
}

static void serves(int fd)
{
	pid_t pid;
	char byte;

	begin();
	pid = getpid();
	g_message("a notice");
	g_warning("a warning\nof two lines");
	mf_daemon_ready("Serving");
	g_warning("a late warning");
	/* The test hears that the daemon lives on after its caller was let go, and then ends it. */
	if (write(fd, &pid, sizeof pid) != sizeof pid)
		_exit(1);
	_exit(read(fd, &byte, 1) != 1);
}

START_TEST(caller_is_let_go_when_the_mount_serves)
{
	int fds[2];
	struct started started;
	pid_t pid;
	int pidfd;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	started = start(serves, fds[1]);
	ck_assert_int_eq(started.status, 0);
	ck_assert_str_eq(started.output, "mailfs: a warning?of two lines\n");

	ck_assert_int_eq(read(fds[0], &pid, sizeof pid), sizeof pid);
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	ck_assert_int_ge(pidfd, 0);
	ck_assert_int_eq(getsid(pid), pid);
	ck_assert_int_eq(write(fds[0], "", 1), 1);

	struct pollfd pfd = { .fd = pidfd, .events = POLLIN };

	ck_assert_int_eq(poll(&pfd, 1, 5000), 1);
	close(pidfd);
	g_free(started.output);
}
END_TEST

static void fails(int fd)
{
	begin();
	g_critical("it does not work");
	mf_daemon_failed(3);
	_exit(3);
}

START_TEST(caller_gets_the_status_of_a_failed_start)
{
	struct started started = start(fails, -1);

	ck_assert(WIFEXITED(started.status));
	ck_assert_int_eq(WEXITSTATUS(started.status), 3);
	ck_assert_str_eq(started.output, "mailfs: it does not work\n");
	g_free(started.output);
}
END_TEST

static void dies(int fd)
{
	begin();
	raise(SIGKILL);
}

START_TEST(caller_notices_a_daemon_that_dies)
{
	struct started started = start(dies, -1);

	ck_assert(WIFEXITED(started.status));
	ck_assert_int_eq(WEXITSTATUS(started.status), 1);
	ck_assert_str_eq(started.output, "mailfs: killed by signal 9 (Killed) before it was ready\n");
	g_free(started.output);
}
END_TEST

/* A process that the daemon forked holds the pipe and outlives it. */
static void dies_leaving_a_helper(int fd)
{
	char byte;

	begin();
	if (fork() == 0) {
		close(STDOUT_FILENO);
		close(STDERR_FILENO);
		_exit((int)read(fd, &byte, 1));
	}
	_exit(5);
}

START_TEST(helper_does_not_hide_the_death)
{
	int fds[2];
	struct started started;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	started = start(dies_leaving_a_helper, fds[1]);
	ck_assert_int_eq(WEXITSTATUS(started.status), 1);
	ck_assert_str_eq(started.output, "mailfs: ended before it was ready\n");
	ck_assert_int_eq(write(fds[0], "", 1), 1); /* ends the helper */
	close(fds[1]);
	close(fds[0]);
	g_free(started.output);
}
END_TEST

static enum mf_conf_log_level foreground_level;

static void logs_in_foreground(int fd)
{
	mf_log_start(true, foreground_level);
	if (mf_daemon_fork(true) < 0)
		_exit(98);
	mf_daemon_ready("Serving");
	g_critical("E");
	g_warning("W");
	g_message("M");
	g_info("I");
	g_debug("D");
	_exit(0);
}

static const char *const seen[] = {
	[MF_CONF_LOG_ERROR] = "error: E ",
	[MF_CONF_LOG_WARNING] = "error: E warning: W ",
	[MF_CONF_LOG_INFO] = "error: E warning: W notice: M info: I ",
	[MF_CONF_LOG_DEBUG] = "error: E warning: W notice: M info: I debug: D ",
};

START_TEST(foreground_logs_what_is_wanted)
{
	g_autoptr(GString) got = g_string_new(NULL);
	struct started started;

	foreground_level = (enum mf_conf_log_level)_i;
	started = start(logs_in_foreground, -1);

	g_auto(GStrv) lines = g_strsplit(started.output, "\n", -1);

	ck_assert_int_eq(started.status, 0);
	for (char **line = lines; *line && **line; line++) {
		ck_assert_msg(strlen(*line) > 24 && (*line)[19] == '.', "no time: %s", *line);
		g_string_append_printf(got, "%s ", *line + 24);
	}
	ck_assert_str_eq(got->str, seen[_i]);
	g_free(started.output);
}
END_TEST

#ifdef MF_HAVE_SYSTEMD
static void notifies(int fd)
{
	if (mf_daemon_fork(true) < 0)
		_exit(98);
	mf_daemon_ready("Serving /m");
	mf_daemon_stopping();
	_exit(0);
}

START_TEST(systemd_is_told)
{
	g_autofree char *dir = g_dir_make_tmp("mailfs-notify-XXXXXX", NULL);
	g_autofree char *path = g_build_filename(dir, "notify", NULL);
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct started started;
	char text[256] = "";

	g_strlcpy(addr.sun_path, path, sizeof addr.sun_path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof addr), 0);
	setenv("NOTIFY_SOCKET", path, 1);
	started = start(notifies, -1);
	unsetenv("NOTIFY_SOCKET");
	ck_assert_int_eq(started.status, 0);
	ck_assert_int_gt(recv(fd, text, sizeof text - 1, 0), 0);
	ck_assert(g_str_has_prefix(text, "READY=1\nSTATUS=Serving /m\nMAINPID="));
	memset(text, 0, sizeof text);
	ck_assert_int_gt(recv(fd, text, sizeof text - 1, 0), 0);
	ck_assert(g_str_has_prefix(text, "STOPPING=1"));
	close(fd);
	unlink(path);
	rmdir(dir);
	g_free(started.output);
}
END_TEST
#endif

int main(void)
{
	Suite *suite = suite_create("daemon");
	TCase *tcase = tcase_create("daemon");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 30);
	tcase_add_test(tcase, caller_is_let_go_when_the_mount_serves);
	tcase_add_test(tcase, caller_gets_the_status_of_a_failed_start);
	tcase_add_test(tcase, caller_notices_a_daemon_that_dies);
	tcase_add_test(tcase, helper_does_not_hide_the_death);
	tcase_add_loop_test(tcase, foreground_logs_what_is_wanted, 0, G_N_ELEMENTS(seen));
#ifdef MF_HAVE_SYSTEMD
	tcase_add_test(tcase, systemd_is_told);
#endif
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
