/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/mountpoint.h"

#include "fuse/mountinfo.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROBE_TIMEOUT_MS 5000
#define STACKED_MAX 16

static int fail(char **ret_error, int r, const char *format, ...) G_GNUC_PRINTF(3, 4);

static int fail(char **ret_error, int r, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (ret_error)
		*ret_error = g_strdup_vprintf(format, args);
	va_end(args);
	return r;
}

/* Asks the filesystem mounted at @path for the attributes of its root. 0 or -errno; -ETIMEDOUT when it hangs.
 * A child of its own asks: a stat(2) that a hung FUSE daemon has read already cannot be interrupted. */
static int probe(const char *path)
{
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid < 0) {
		int r = -errno;

		close(fds[0]);
		close(fds[1]);
		return r;
	}
	if (pid == 0) {
		struct statfs st;
		int r = statfs(path, &st) < 0 ? -errno : 0;

		_exit(write(fds[1], &r, sizeof r) != sizeof r);
	}
	close(fds[1]);

	struct pollfd pfd = { .fd = fds[0], .events = POLLIN };
	int r = -ETIMEDOUT;

	if (poll(&pfd, 1, PROBE_TIMEOUT_MS) > 0 && read(fds[0], &r, sizeof r) != sizeof r)
		r = -EIO;
	close(fds[0]);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, r == -ETIMEDOUT ? WNOHANG : 0);
	return r;
}

/* 1 when a dead mailfs was taken from @path, 0 when there is no mailfs, -errno when it lives or cannot be removed. */
static int detach_dead(const char *path, char **ret_error)
{
	g_auto(mf_mount) mount = { NULL };
	int r;

	r = mf_mountinfo_find(NULL, path, &mount);
	if (r < 0)
		return fail(ret_error, r, "cannot read the table of mounts: %s", g_strerror(-r));
	if (r == 0 || strcmp(mount.fstype, MF_MOUNT_FSTYPE))
		return 0;

	r = probe(path);
	if (r == -ETIMEDOUT)
		return fail(ret_error, -EBUSY, "a mailfs is mounted on %s and does not answer", path);
	if (r != -ENOTCONN)
		return fail(ret_error, -EBUSY, "a mailfs is mounted on %s already", path);

	if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0) {
		r = -errno;
		return fail(ret_error, r, "a dead mailfs is mounted on %s and cannot be detached: %s", path,
			g_strerror(-r));
	}
	g_warning("detached a dead mailfs from %s", path);
	return 1;
}

static int check_directory(const char *path, char **ret_error)
{
	DIR *dir = opendir(path);
	struct dirent *de;
	int r;

	if (!dir) {
		r = -errno;
		switch (r) {
		case -ENOENT:
			return fail(ret_error, r, "mount point %s does not exist", path);
		case -ENOTDIR:
			return fail(ret_error, r, "mount point %s is not a directory", path);
		default:
			return fail(ret_error, r, "mount point %s: %s", path, g_strerror(-r));
		}
	}

	do {
		errno = 0;
		de = readdir(dir);
	} while (de && (!strcmp(de->d_name, ".") || !strcmp(de->d_name, "..")));
	r = de ? -ENOTEMPTY : -errno;
	closedir(dir);

	if (r == -ENOTEMPTY)
		return fail(ret_error, r, "mount point %s is not empty; what it holds would be hidden", path);
	if (r < 0)
		return fail(ret_error, r, "mount point %s: %s", path, g_strerror(-r));
	return 0;
}

int mf_mountpoint_prepare(const char *path, char **ret_path, char **ret_error)
{
	g_autofree char *full = NULL;
	int r;

	r = mf_mountinfo_resolve(path, &full);
	if (r < 0)
		return fail(ret_error, r, "mount point %s: %s", path, g_strerror(-r));

	/* More than one daemon may have died here. */
	for (int i = 0; i < STACKED_MAX; i++) {
		r = detach_dead(full, ret_error);
		if (r < 0)
			return r;
		if (r == 0)
			break;
	}
	r = check_directory(full, ret_error);
	if (r < 0)
		return r;
	*ret_path = g_steal_pointer(&full);
	return 0;
}
