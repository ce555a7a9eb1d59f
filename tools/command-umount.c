/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tools/command-umount.c - umount(2) returns before the daemon has written what is dirty; this waits for its end. */
#include "tools/command.h"
#include "tools/ctlclient.h"

#include "fuse/mountinfo.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ASK_TIMEOUT_MS 2000
#define WAIT_S 120
#define HELPER_FAILURE 32 /* "mount failure" of mount(8) and umount(8) */

struct request {
	const char *path;
	const char *source; /* of the mount: its mailfs.conf, if one was named */
	const char *run_dir;
	int flags; /* of umount2(2) */
	int wait_s;
};

/* The daemon that serves @path: a descriptor of its process, -ESRCH when none in @run_dir says so. */
static int open_daemon_in(const char *run_dir, const struct request *request, pid_t *ret_pid)
{
	g_autoptr(GPtrArray) paths = NULL;
	int r;

	r = mf_ctlclient_list(run_dir, &paths);
	if (r < 0)
		return r;
	for (guint i = 0; i < paths->len; i++) {
		json_t *doc = NULL;
		const char *mountpoint;
		pid_t pid;

		if (mf_ctlclient_ask(g_ptr_array_index(paths, i), "status", ASK_TIMEOUT_MS, &doc) < 0)
			continue;
		mountpoint = json_string_value(json_object_get(doc, "mountpoint"));
		pid = (pid_t)json_integer_value(json_object_get(doc, "pid"));
		r = mountpoint && !strcmp(mountpoint, request->path) && pid > 0;
		json_decref(doc);
		if (!r)
			continue;

		int fd = (int)syscall(SYS_pidfd_open, pid, 0);

		*ret_pid = pid;
		return fd < 0 ? -errno : fd;
	}
	return -ESRCH;
}

/* Looks where the settings say, and then where those say that the mount itself was made with: umount(8) knows neither.
 */
static int open_daemon(const struct request *request, pid_t *ret_pid)
{
	int r = open_daemon_in(request->run_dir, request, ret_pid);

	if (r == -ESRCH && g_path_is_absolute(request->source)) {
		g_autoptr(mf_conf) conf = mf_conf_new();

		if (mf_conf_load_file(conf, request->source, NULL) == 0)
			r = open_daemon_in(conf->run_dir, request, ret_pid);
	}
	return r;
}

/* Who may not umount(2) may have mounted with fusermount3, and ask it again. */
static int unmount_as_user(const struct request *request)
{
	const char *argv[] = { "fusermount3", "-u", request->flags & MNT_DETACH ? "-z" : "-q", "--", request->path,
		NULL };
	g_autoptr(GError) error = NULL;
	int status;

	if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, &status, &error) ||
		!g_spawn_check_wait_status(status, NULL))
		return -EPERM;
	return 0;
}

static int unmount(const struct request *request)
{
	if (umount2(request->path, request->flags | UMOUNT_NOFOLLOW) == 0)
		return 0;
	if (errno == EPERM && geteuid() != 0)
		return unmount_as_user(request);
	return -errno;
}

/* 0 when the process ended, else an exit status. */
static int wait_end(const struct request *request, int pidfd, pid_t pid)
{
	gint64 deadline = g_get_monotonic_time() + request->wait_s * G_USEC_PER_SEC;
	struct pollfd pfd = { .fd = pidfd, .events = POLLIN };

	for (;;) {
		gint64 left = deadline - g_get_monotonic_time();
		int r = left > 0 ? poll(&pfd, 1, (int)(left / 1000 + 1)) : 0;

		if (r > 0)
			return 0;
		if (r < 0 && errno == EINTR)
			continue;
		return mf_command_fail("umount: %s is unmounted, but its daemon (pid %ld) still runs after %d s; "
				       "what it has not written yet may be lost if this machine goes down now",
			request->path, (long)pid, request->wait_s);
	}
}

static int unmount_and_wait(const struct request *request)
{
	pid_t pid = 0;
	int pidfd = open_daemon(request, &pid);
	int r = unmount(request);

	if (r < 0) {
		mf_command_fail("umount: %s: %s", request->path, r == -EBUSY ? "in use" : g_strerror(-r));
		if (pidfd >= 0)
			close(pidfd);
		return MF_EXIT_FAILURE;
	}
	if (pidfd == -ESRCH) {
		fprintf(stderr,
			"mailfsctl: umount: %s is unmounted; no daemon answers for it, so none was waited for\n",
			request->path);
		return 0;
	}
	if (pidfd < 0)
		return mf_command_fail(
			"umount: %s is unmounted; cannot wait for its daemon: %s", request->path, g_strerror(-pidfd));

	/* A lazy unmount ends only when the last user of the filesystem is gone. */
	r = request->flags & MNT_DETACH ? 0 : wait_end(request, pidfd, pid);
	close(pidfd);
	return r;
}

static int run(const char *argument, const struct mf_conf *conf, int flags, int wait_s)
{
	g_autofree char *path = NULL;
	g_auto(mf_mount) mount = { NULL };
	int r;

	r = mf_mountinfo_resolve(argument, &path);
	if (r < 0)
		return mf_command_fail("umount: %s: %s", argument, g_strerror(-r));
	r = mf_mountinfo_find(NULL, path, &mount);
	if (r < 0)
		return mf_command_fail("umount: cannot read the table of mounts: %s", g_strerror(-r));
	if (r == 0 || strcmp(mount.fstype, MF_MOUNT_FSTYPE))
		return mf_command_fail("umount: no mailfs is mounted on %s", path);

	struct request request = {
		.path = path,
		.source = mount.source,
		.run_dir = conf->run_dir,
		.flags = flags,
		.wait_s = wait_s,
	};

	return unmount_and_wait(&request);
}

int mf_command_umount(const struct mf_command *command, int argc, char **argv)
{
	gboolean lazy = FALSE;
	gboolean force = FALSE;
	int wait_s = WAIT_S;
	const GOptionEntry entries[] = {
		{ "lazy", 'l', 0, G_OPTION_ARG_NONE, &lazy, "detach now; do not wait", NULL },
		{ "force", 'f', 0, G_OPTION_ARG_NONE, &force, "end the requests that hang", NULL },
		{ "wait", 'w', 0, G_OPTION_ARG_INT, &wait_s, "wait so long for the daemon's end (120)", "SECONDS" },
		{ NULL },
	};
	g_autoptr(mf_conf) conf = NULL;
	g_autofree char *argument = NULL;
	int r;

	r = mf_command_parse(command, argc, argv, entries, &conf, &argument);
	if (r)
		return r == MF_EXIT_DONE ? 0 : r;
	if (wait_s < 0 || wait_s > 86400) {
		mf_command_fail("umount: --wait takes 0 to 86400 seconds");
		return MF_EXIT_USAGE;
	}
	return run(argument, conf, (lazy ? MNT_DETACH : 0) | (force ? MNT_FORCE : 0), wait_s);
}

int mf_command_umount_helper(int argc, char **argv)
{
	gboolean lazy = FALSE;
	gboolean force = FALSE;
	gboolean ignored = FALSE;
	g_autofree char *type = NULL;
	g_autofree char *ns = NULL;
	g_auto(GStrv) words = NULL;
	const GOptionEntry entries[] = {
		{ "force", 'f', 0, G_OPTION_ARG_NONE, &force, "end the requests that hang", NULL },
		{ "lazy", 'l', 0, G_OPTION_ARG_NONE, &lazy, "detach now; do not wait", NULL },
		{ "no-mtab", 'n', 0, G_OPTION_ARG_NONE, &ignored, "ignored", NULL },
		{ "read-only", 'r', 0, G_OPTION_ARG_NONE, &ignored, "ignored", NULL },
		{ "verbose", 'v', 0, G_OPTION_ARG_NONE, &ignored, "ignored", NULL },
		{ "types", 't', 0, G_OPTION_ARG_STRING, &type, "ignored", "TYPE" },
		{ "namespace", 'N', 0, G_OPTION_ARG_STRING, &ns, "ignored", "NS" },
		{ G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &words, NULL, NULL },
		{ NULL },
	};
	g_autoptr(GOptionContext) context = g_option_context_new("DIR");
	g_autoptr(GError) gerror = NULL;
	g_autofree char *error = NULL;
	g_autoptr(mf_conf) conf = mf_conf_new();

	g_option_context_add_main_entries(context, entries, NULL);
	if (!g_option_context_parse(context, &argc, &argv, &gerror)) {
		mf_command_fail("umount: %s", gerror->message);
		return MF_EXIT_USAGE;
	}
	if (!words || g_strv_length(words) != 1) {
		mf_command_fail("umount: one directory is wanted");
		return MF_EXIT_USAGE;
	}
	if (mf_conf_load_file(conf, NULL, &error) < 0)
		mf_command_fail("umount: %s", error);

	return run(words[0], conf, (lazy ? MNT_DETACH : 0) | (force ? MNT_FORCE : 0), WAIT_S) ? HELPER_FAILURE : 0;
}
