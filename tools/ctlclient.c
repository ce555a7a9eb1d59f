/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tools/ctlclient.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_MAX (256u << 20) /* a list of what a large node holds */

static gint by_name(gconstpointer a, gconstpointer b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int dir_errno(const GError *error)
{
	switch (error->code) {
	case G_FILE_ERROR_NOENT:
		return -ENOENT;
	case G_FILE_ERROR_ACCES:
		return -EACCES;
	case G_FILE_ERROR_NOTDIR:
		return -ENOTDIR;
	default:
		return -EIO;
	}
}

int mf_ctlclient_list(const char *run_dir, GPtrArray **ret_paths)
{
	g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);
	g_autoptr(GError) error = NULL;
	g_autoptr(GDir) dir = g_dir_open(run_dir, 0, &error);
	const char *name;

	if (!dir && dir_errno(error) != -ENOENT)
		return dir_errno(error);

	while (dir && (name = g_dir_read_name(dir))) {
		g_autofree char *path = g_build_filename(run_dir, name, NULL);
		struct stat st;

		if (g_str_has_suffix(name, ".sock") && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
			g_ptr_array_add(paths, g_steal_pointer(&path));
	}
	g_ptr_array_sort(paths, by_name);
	*ret_paths = g_steal_pointer(&paths);
	return 0;
}

static int wait_fd(int fd, short events, gint64 deadline)
{
	struct pollfd pfd = { .fd = fd, .events = events };

	for (;;) {
		gint64 left = deadline - g_get_monotonic_time();
		int r;

		if (left <= 0)
			return -ETIMEDOUT;
		r = poll(&pfd, 1, (int)(left / 1000 + 1));
		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
	}
}

static int open_socket(const char *path, gint64 deadline)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd;

	if (g_strlcpy(addr.sun_path, path, sizeof addr.sun_path) >= sizeof addr.sun_path)
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;

	/* A unix socket does not connect later: EAGAIN means that the queue of its listener is full. */
	while (connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0) {
		int r = -errno;

		if (r == -EAGAIN && g_get_monotonic_time() < deadline) {
			poll(NULL, 0, 10);
			continue;
		}
		close(fd);
		return r == -EAGAIN ? -ETIMEDOUT : r;
	}
	return fd;
}

static int exchange(int fd, const char *request, gint64 deadline, GString *answer)
{
	g_autofree char *line = g_strdup_printf("%s\n", request);
	char part[4096];

	/* A request fits into the buffer of the socket. */
	if (send(fd, line, strlen(line), MSG_NOSIGNAL) < 0)
		return -errno;

	while (answer->len < ANSWER_MAX) {
		int r = wait_fd(fd, POLLIN, deadline);
		ssize_t n;

		if (r < 0)
			return r;
		n = recv(fd, part, sizeof part, MSG_DONTWAIT);
		if (n == 0)
			return 0;
		if (n > 0)
			g_string_append_len(answer, part, n);
		else if (errno != EINTR && errno != EAGAIN)
			return -errno;
	}
	return -EMSGSIZE;
}

int mf_ctlclient_ask(const char *path, const char *request, unsigned timeout_ms, json_t **ret_answer)
{
	gint64 deadline = g_get_monotonic_time() + (gint64)timeout_ms * 1000;
	g_autoptr(GString) text = g_string_new(NULL);
	json_t *answer;
	int fd;
	int r;

	fd = open_socket(path, deadline);
	if (fd < 0)
		return fd;
	r = exchange(fd, request, deadline, text);
	close(fd);
	if (r < 0)
		return r;

	answer = json_loadb(text->str, text->len, 0, NULL);
	if (!json_is_object(answer) || json_object_get(answer, "error")) {
		json_decref(answer);
		return -EPROTO;
	}
	*ret_answer = answer;
	return 0;
}
