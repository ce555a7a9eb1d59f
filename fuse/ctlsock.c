/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/ctlsock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define REQUEST_MAX 256
#define NAME_SHOWN_MAX 60
#define READ_TIMEOUT_MS 1000
#define WRITE_TIMEOUT_MS 2000

struct MfCtlsock {
	char *path;
	ino_t ino; /* of the socket file, to know it as ours */
	int listen_fd;
	int stop_fd; /* eventfd */
	GThread *thread;
	mf_ctlsock_answer answer;
	void *arg;
};

char *mf_ctlsock_name(const char *fs, const char *node)
{
	g_autofree char *name = g_strdup_printf("%s@%s", fs, node);

	if (strlen(name) <= NAME_SHOWN_MAX)
		return g_steal_pointer(&name);

	g_autofree char *sum = g_compute_checksum_for_string(G_CHECKSUM_SHA256, name, -1);

	return g_strdup_printf("%.*s-%.16s", NAME_SHOWN_MAX - 17, name, sum);
}

/* Waits for @events on @fd until the monotonic time @deadline. 1 ready, 0 too late or told to stop. */
static int wait_fd(MfCtlsock *sock, int fd, short events, gint64 deadline)
{
	struct pollfd pfds[] = {
		{ .fd = fd, .events = events },
		{ .fd = sock->stop_fd, .events = POLLIN },
	};

	for (;;) {
		gint64 left = deadline - g_get_monotonic_time();
		int r;

		if (left <= 0)
			return 0;
		r = poll(pfds, 2, (int)(left / 1000 + 1));
		if (r < 0 && errno == EINTR)
			continue;
		return r > 0 && !pfds[1].revents;
	}
}

/* One line. 0, or -errno when there is none in time or it is too long. */
static int read_request(MfCtlsock *sock, int fd, char request[REQUEST_MAX])
{
	gint64 deadline = g_get_monotonic_time() + READ_TIMEOUT_MS * 1000;
	size_t len = 0;

	while (len < REQUEST_MAX) {
		char *newline;
		ssize_t n;

		if (!wait_fd(sock, fd, POLLIN, deadline))
			return -ETIMEDOUT;
		n = recv(fd, request + len, REQUEST_MAX - len, MSG_DONTWAIT);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EPIPE;

		newline = memchr(request + len, '\n', (size_t)n);
		if (newline) {
			*newline = 0;
			return 0;
		}
		len += (size_t)n;
	}
	return -EMSGSIZE;
}

static void write_all(MfCtlsock *sock, int fd, const char *text, size_t len)
{
	gint64 deadline = g_get_monotonic_time() + WRITE_TIMEOUT_MS * 1000;

	while (len) {
		ssize_t n;

		if (!wait_fd(sock, fd, POLLOUT, deadline))
			return;
		n = send(fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return;
		text += n;
		len -= (size_t)n;
	}
}

static void serve(MfCtlsock *sock, int fd)
{
	char request[REQUEST_MAX];
	json_t *reply = NULL;
	char *text;
	int r;

	r = read_request(sock, fd, request);
	if (r == -EMSGSIZE)
		reply = json_pack("{s:s}", "error", "request too long");
	else if (r < 0)
		return;
	else
		reply = sock->answer(request, sock->arg);
	if (!reply)
		reply = json_pack("{s:s}", "error", "unknown request");

	text = json_dumps(reply, JSON_COMPACT);
	json_decref(reply);
	if (!text) /* a string that is not UTF-8 */
		text = strdup("{\"error\":\"the answer cannot be written as JSON\"}");
	if (text) {
		write_all(sock, fd, text, strlen(text));
		write_all(sock, fd, "\n", 1);
	}
	free(text);
}

static gpointer run(gpointer arg)
{
	MfCtlsock *sock = arg;
	struct pollfd pfds[] = {
		{ .fd = sock->listen_fd, .events = POLLIN },
		{ .fd = sock->stop_fd, .events = POLLIN },
	};

	for (;;) {
		if (poll(pfds, 2, -1) < 0) {
			if (errno == EINTR)
				continue;
			break;
		}
		if (pfds[1].revents)
			break;

		int fd = accept4(sock->listen_fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0) {
			/* Out of descriptors: the connection stays queued, so do not spin over it. */
			if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
				poll(&pfds[1], 1, 100);
			continue;
		}
		serve(sock, fd);
		close(fd);
	}
	return NULL;
}

/* Does anybody listen at @addr? */
static bool alive(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	if (fd < 0)
		return true;
	r = connect(fd, (const struct sockaddr *)addr, sizeof *addr) < 0 ? -errno : 0;
	close(fd);
	/* EAGAIN: its queue is full, so there is one. */
	return r != -ECONNREFUSED && r != -ENOENT;
}

/* Under a lock of the directory, so that two that start together do not take each other's socket for a dead one. */
static int bind_locked(int dir_fd, int fd, const struct sockaddr_un *addr)
{
	struct stat st;

	if (flock(dir_fd, LOCK_EX) < 0)
		return -errno;
	/* bind(2) gives the file the mode that the socket has. */
	if (fchmod(fd, 0600) < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)addr, sizeof *addr) == 0)
		return listen(fd, 16) < 0 ? -errno : 0;
	if (errno != EADDRINUSE)
		return -errno;
	if (lstat(addr->sun_path, &st) < 0)
		return -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	if (alive(addr))
		return -EADDRINUSE;
	if (unlink(addr->sun_path) < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)addr, sizeof *addr) < 0 || listen(fd, 16) < 0)
		return -errno;
	return 0;
}

static int open_socket(MfCtlsock *sock, const char *run_dir)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct stat st;
	int dir_fd;
	int r;

	if (g_strlcpy(addr.sun_path, sock->path, sizeof addr.sun_path) >= sizeof addr.sun_path)
		return -ENAMETOOLONG;
	if (g_mkdir_with_parents(run_dir, 0755) < 0)
		return -errno;
	dir_fd = open(run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0)
		return -errno;

	sock->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	r = sock->listen_fd < 0 ? -errno : bind_locked(dir_fd, sock->listen_fd, &addr);
	close(dir_fd);
	if (r < 0)
		return r;
	if (lstat(sock->path, &st) < 0)
		return -errno;
	sock->ino = st.st_ino;
	return 0;
}

int mf_ctlsock_start(const char *run_dir, const char *name, mf_ctlsock_answer answer, void *arg, MfCtlsock **ret_sock,
	char **ret_error)
{
	MfCtlsock *sock = g_new0(MfCtlsock, 1);
	int r;

	sock->path = g_strdup_printf("%s/%s.sock", run_dir, name);
	sock->answer = answer;
	sock->arg = arg;
	sock->listen_fd = -1;
	sock->stop_fd = eventfd(0, EFD_CLOEXEC);

	r = sock->stop_fd < 0 ? -errno : open_socket(sock, run_dir);
	if (r < 0) {
		if (ret_error)
			*ret_error =
				r == -EADDRINUSE
					? g_strdup_printf("%s: a mailfs of that name runs on this machine", sock->path)
					: g_strdup_printf("control socket %s: %s", sock->path, g_strerror(-r));
		mf_ctlsock_stop(sock);
		return r;
	}

	/* Signals are for the main thread, whose read of /dev/fuse they are to interrupt. */
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	sock->thread = g_thread_new("ctlsock", run, sock);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	*ret_sock = sock;
	return 0;
}

static void remove_own(MfCtlsock *sock)
{
	struct stat st;

	if (sock->ino && lstat(sock->path, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino == sock->ino)
		unlink(sock->path);
}

MfCtlsock *mf_ctlsock_stop(MfCtlsock *sock)
{
	if (!sock)
		return NULL;
	if (sock->thread) {
		eventfd_write(sock->stop_fd, 1);
		g_thread_join(sock->thread);
	}
	remove_own(sock);
	if (sock->listen_fd >= 0)
		close(sock->listen_fd);
	if (sock->stop_fd >= 0)
		close(sock->stop_fd);
	g_free(sock->path);
	g_free(sock);
	return NULL;
}
