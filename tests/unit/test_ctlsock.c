/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/unit/test_ctlsock.c - the control socket and its client, over real sockets. */
#include "fuse/ctlsock.h"

#include "tools/ctlclient.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define TIMEOUT_MS 5000

static char *dir;
static char *run_dir;
static char *path;
static char argument[] = "argument";

static void setup(void)
{
	dir = g_dir_make_tmp("mailfs-ctl-XXXXXX", NULL);
	run_dir = g_build_filename(dir, "deep", "run", NULL);
	path = g_build_filename(run_dir, "m@a.sock", NULL);
}

static void teardown(void)
{
	g_autofree char *deep = g_build_filename(dir, "deep", NULL);

	unlink(path);
	rmdir(run_dir);
	rmdir(deep);
	rmdir(dir);
	g_free(path);
	g_free(run_dir);
	g_free(dir);
}

/* Knows "big" and "echo ...". */
static json_t *answer(const char *request, void *arg)
{
	if (!strcmp(request, "big")) {
		g_autofree char *text = g_strnfill(700000, 'x');

		return json_pack("{s:s}", "text", text);
	}
	if (g_str_has_prefix(request, "echo"))
		return json_pack("{s:s, s:s}", "request", request, "arg", arg);
	return NULL;
}

static MfCtlsock *start(void)
{
	g_autofree char *error = NULL;
	MfCtlsock *sock = NULL;
	int r = mf_ctlsock_start(run_dir, "m@a", answer, argument, &sock, &error);

	ck_assert_msg(r == 0, "%s", error);
	return sock;
}

static void echoes(void)
{
	json_t *doc = NULL;

	ck_assert_int_eq(mf_ctlclient_ask(path, "echo 1", TIMEOUT_MS, &doc), 0);
	ck_assert_str_eq(json_string_value(json_object_get(doc, "request")), "echo 1");
	ck_assert_str_eq(json_string_value(json_object_get(doc, "arg")), "argument");
	json_decref(doc);
}

/* Connects and sends @len bytes. The descriptor. */
static int raw(const char *bytes, size_t len)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	g_strlcpy(addr.sun_path, path, sizeof addr.sun_path);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
	ck_assert_int_eq(send(fd, bytes, len, MSG_NOSIGNAL), (ssize_t)len);
	return fd;
}

START_TEST(answers_and_goes)
{
	MfCtlsock *sock = start();
	g_autoptr(GPtrArray) paths = NULL;
	struct stat st;

	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert_int_eq(mf_ctlclient_list(run_dir, &paths), 0);
	ck_assert_uint_eq(paths->len, 1);
	ck_assert_str_eq(g_ptr_array_index(paths, 0), path);
	echoes();
	echoes();
	mf_ctlsock_stop(sock);
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

START_TEST(unknown_request)
{
	MfCtlsock *sock = start();
	json_t *doc = NULL;

	ck_assert_int_eq(mf_ctlclient_ask(path, "what", TIMEOUT_MS, &doc), -EPROTO);
	ck_assert_ptr_null(doc);
	mf_ctlsock_stop(sock);
}
END_TEST

START_TEST(big_answer)
{
	MfCtlsock *sock = start();
	json_t *doc = NULL;

	ck_assert_int_eq(mf_ctlclient_ask(path, "big", TIMEOUT_MS, &doc), 0);
	ck_assert_uint_eq(json_string_length(json_object_get(doc, "text")), 700000);
	json_decref(doc);
	mf_ctlsock_stop(sock);
}
END_TEST

START_TEST(long_request_is_refused)
{
	MfCtlsock *sock = start();
	g_autofree char *bytes = g_strnfill(256, 'x');
	char reply[128] = "";
	int fd = raw(bytes, 256);

	ck_assert_int_gt(recv(fd, reply, sizeof reply - 1, 0), 0);
	ck_assert_ptr_nonnull(strstr(reply, "too long"));
	close(fd);
	echoes();
	mf_ctlsock_stop(sock);
}
END_TEST

START_TEST(silent_client_holds_nobody_up)
{
	MfCtlsock *sock = start();
	int fd = raw("ech", 3);
	char byte;

	echoes(); /* waits for the silent one's second to pass */
	ck_assert_int_eq(recv(fd, &byte, 1, 0), 0);
	close(fd);
	mf_ctlsock_stop(sock);
}
END_TEST

START_TEST(stop_does_not_wait_for_clients)
{
	MfCtlsock *sock = start();
	int fd = raw("big\n", 4);
	gint64 begin;
	char byte;

	/* Reads no more than the first byte, so that the answer is stuck half sent. */
	ck_assert_int_eq(recv(fd, &byte, 1, 0), 1);
	begin = g_get_monotonic_time();
	mf_ctlsock_stop(sock);
	ck_assert_int_lt(g_get_monotonic_time() - begin, G_USEC_PER_SEC);
	close(fd);
}
END_TEST

START_TEST(live_name_is_refused)
{
	MfCtlsock *sock = start();
	g_autofree char *error = NULL;
	MfCtlsock *second = NULL;

	ck_assert_int_eq(mf_ctlsock_start(run_dir, "m@a", answer, argument, &second, &error), -EADDRINUSE);
	ck_assert_ptr_null(second);
	ck_assert_ptr_nonnull(strstr(error, path));
	echoes(); /* the first one's socket is still there */
	mf_ctlsock_stop(sock);
}
END_TEST

START_TEST(stale_socket_is_replaced)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	json_t *doc = NULL;

	ck_assert_int_eq(g_mkdir_with_parents(run_dir, 0755), 0);
	g_strlcpy(addr.sun_path, path, sizeof addr.sun_path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof addr), 0);
	close(fd);
	ck_assert_int_eq(mf_ctlclient_ask(path, "echo 1", TIMEOUT_MS, &doc), -ECONNREFUSED);

	MfCtlsock *sock = start();

	echoes();
	mf_ctlsock_stop(sock);
}
END_TEST

START_TEST(ordinary_file_is_not_replaced)
{
	g_autofree char *error = NULL;
	MfCtlsock *sock = NULL;

	ck_assert_int_eq(g_mkdir_with_parents(run_dir, 0755), 0);
	ck_assert(g_file_set_contents(path, "mine", -1, NULL));
	ck_assert_int_lt(mf_ctlsock_start(run_dir, "m@a", answer, NULL, &sock, &error), 0);
	ck_assert_int_eq(access(path, F_OK), 0);
}
END_TEST

START_TEST(names_fit)
{
	g_autofree char *a = g_strnfill(64, 'a');
	g_autofree char *b = g_strnfill(64, 'b');
	g_autofree char *c = g_strdup(b);
	g_autofree char *short_name = mf_ctlsock_name("mailfs", "mx1");
	g_autofree char *one = mf_ctlsock_name(a, b);

	c[63] = 'c';

	g_autofree char *two = mf_ctlsock_name(a, c);

	ck_assert_str_eq(short_name, "mailfs@mx1");
	ck_assert_uint_le(strlen(one), 60);
	ck_assert_str_ne(one, two);
}
END_TEST

START_TEST(no_directory_means_no_daemon)
{
	g_autoptr(GPtrArray) paths = NULL;

	ck_assert_int_eq(mf_ctlclient_list(run_dir, &paths), 0);
	ck_assert_uint_eq(paths->len, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ctlsock");
	TCase *tcase = tcase_create("ctlsock");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 30);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, answers_and_goes);
	tcase_add_test(tcase, unknown_request);
	tcase_add_test(tcase, big_answer);
	tcase_add_test(tcase, long_request_is_refused);
	tcase_add_test(tcase, silent_client_holds_nobody_up);
	tcase_add_test(tcase, stop_does_not_wait_for_clients);
	tcase_add_test(tcase, live_name_is_refused);
	tcase_add_test(tcase, stale_socket_is_replaced);
	tcase_add_test(tcase, ordinary_file_is_not_replaced);
	tcase_add_test(tcase, names_fit);
	tcase_add_test(tcase, no_directory_means_no_daemon);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
