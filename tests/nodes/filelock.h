/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/nodes/filelock.h - the four ways in which mail programs lock a file, under one name each. */
#ifndef TESTS_NODES_FILELOCK_H
#define TESTS_NODES_FILELOCK_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "mount/tap.h"

enum mf_filelock { MF_FCNTL, MF_OFD, MF_FLOCK, MF_FILELOCKS, MF_DOTLOCK = MF_FILELOCKS };

static const char *const mf_filelock_names[] = { "fcntl", "OFD", "flock", "dotlock" };
static const long mf_filelock_syscalls[] = { SYS_fcntl, SYS_fcntl, SYS_flock };

/* @type: F_RDLCK, F_WRLCK, F_UNLCK; of the whole file. 0 or -1 and errno. */
static inline int mf_filelock_set(enum mf_filelock kind, int fd, int type, bool wait)
{
	struct flock fl = { .l_type = type, .l_whence = SEEK_SET };

	switch (kind) {
	case MF_FCNTL:
		return fcntl(fd, wait ? F_SETLKW : F_SETLK, &fl);
	case MF_OFD:
		return fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &fl);
	default:
		return flock(fd, (type == F_UNLCK	   ? LOCK_UN
					 : type == F_WRLCK ? LOCK_EX
							   : LOCK_SH) |
					 (wait ? 0 : LOCK_NB));
	}
}

/* Waits for it, at most for 10 s: then nobody drops it any more. 0 or -1 and errno. */
static inline int mf_dotlock_take(const char *path)
{
	const struct timespec pause = { 0, 200000 };
	double end = mf_tap_now() + 10;

	while (mf_tap_now() < end) {
		int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

		if (fd >= 0)
			return close(fd);
		if (errno != EEXIST)
			return -1;
		nanosleep(&pause, NULL);
	}
	errno = ETIMEDOUT;
	return -1;
}

#endif
