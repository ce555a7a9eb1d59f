/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Executes one operation on one side, in this process or in a forked helper, under the identity the operation names. */
#include "diff.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <signal.h>
#include <unistd.h>

const struct cred mf_diff_creds[NCREDS] = {
	{ 0, 0, 0, { 0 } },
	{ 61001, 61001, 1, { 62001 } },
	{ 61002, 61002, 2, { 61001, 62001 } },
	{ 61003, 62002, 0, { 0 } },
};

const char *const mf_diff_kind_names[OP_KINDS] = {
	"lstat",
	"stat",
	"access",
	"chmod",
	"fchmod",
	"chown",
	"lchown",
	"fchown",
	"utimens",
	"lutimens",
	"futimens",
	"truncate",
	"ftruncate",
	"mknod",
	"mkdir",
	"unlink",
	"rmdir",
	"symlink",
	"readlink",
	"rename",
	"link",
	"open",
	"close",
	"read",
	"pread",
	"write",
	"pwrite",
	"lseek",
	"seekdata",
	"setfl",
	"fallocate",
	"fsync",
	"fdatasync",
	"readdir",
	"statfs",
	"setxattr",
	"getxattr",
	"listxattr",
	"removexattr",
	"fsetxattr",
	"fgetxattr",
	"posix_lock",
	"posix_getlk",
	"ofd_lock",
	"ofd_getlk",
	"flock",
	"snapfd",
};

static int fds[NSIDES][NSLOTS + 1]; /* of this process */
static int agent_sock[NACTORS];	    /* to the helpers */
static pid_t agent_pid[NACTORS];
static int first_agent; /* what comes before is this process */

static struct {
	char what[32];
	int countdown;
} perturb;

bool mf_exec_set_perturb(const char *spec)
{
	static const char *const known[] = { "errno", "data", "readdata", "mode", "nsec", "mtime", "name", "xattr",
		"lock", "pos", "nlink", "mknod", "suid", "rename" };
	const char *at = strchr(spec, '@');
	size_t n = at ? (size_t)(at - spec) : strlen(spec);

	if (n >= sizeof(perturb.what))
		return false;
	memcpy(perturb.what, spec, n);
	perturb.what[n] = 0;
	perturb.countdown = at ? atoi(at + 1) : 50;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!strcmp(known[i], perturb.what))
			return true;
	return false;
}

/* True once, at the first chance after @countdown chances. Side A alone is spoilt. */
static bool spoil(int side, const char *what)
{
	if (side != SIDE_A || strcmp(perturb.what, what))
		return false;
	return perturb.countdown-- == 0;
}

void mf_fill(unsigned char *buf, size_t len, uint64_t seed)
{
	uint64_t x = seed | 1;

	for (size_t i = 0; i < len; i++) {
		if (i % 8 == 0) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
		}
		buf[i] = x >> (i % 8 * 8);
	}
}

uint64_t mf_hash(const void *buf, size_t len, uint64_t h)
{
	const unsigned char *p = buf;

	h ^= 0xcbf29ce484222325u;
	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x100000001b3u;
	return h;
}

void mf_exec_enter(struct world *w, int side)
{
	if (fchdir(w->root[side]) < 0 || chroot(".") < 0) {
		perror("difftest: chroot");
		_exit(2);
	}
}

static void become(const struct cred *c)
{
	if (c->uid == 0)
		return;
	/* the saved ids stay root's: the way back, and the capabilities return with the effective uid */
	if (setgroups(c->ngroups, c->groups) < 0 || setresgid(c->gid, c->gid, 0) < 0 ||
		setresuid(c->uid, c->uid, 0) < 0) {
		perror("difftest: become");
		_exit(2);
	}
}

static void become_root(const struct cred *c)
{
	if (c->uid == 0)
		return;
	if (setresuid(0, 0, 0) < 0 || setresgid(0, 0, 0) < 0 || setgroups(0, NULL) < 0) {
		perror("difftest: become root");
		_exit(2);
	}
}

struct entry {
	uint64_t off;
	unsigned char type;
	char name[256];
};

static int compare_entries(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

struct linux_dirent64 {
	uint64_t d_ino;
	int64_t d_off;
	unsigned short d_reclen;
	unsigned char d_type;
	char d_name[];
};

/* Appends what follows the descriptor's position to *@list; 0 or errno. */
static int read_entries(int fd, size_t bufsize, struct entry **list, size_t *n, size_t *cap)
{
	char buf[32768] __attribute__((aligned(8)));

	for (;;) {
		long got = syscall(SYS_getdents64, fd, buf, bufsize < sizeof(buf) ? bufsize : sizeof(buf));

		if (got < 0)
			return errno;
		if (got == 0)
			return 0;
		for (long at = 0; at < got;) {
			const struct linux_dirent64 *d = (const void *)(buf + at);

			if (*n == *cap) {
				*cap = *cap ? *cap * 2 : 64;
				*list = realloc(*list, *cap * sizeof(**list));
				if (!*list)
					abort();
			}
			(*list)[*n].off = d->d_off;
			(*list)[*n].type = d->d_type;
			snprintf((*list)[*n].name, sizeof((*list)[*n].name), "%s", d->d_name);
			(*n)++;
			at += d->d_reclen;
		}
	}
}

/* Reads the whole directory, goes back to the position behind entry k and reads the rest again: it must be the same. */
static int do_readdir(int side, const struct op *op, int fd, struct result *res)
{
	struct entry *list = NULL, *again = NULL;
	size_t n = 0, cap = 0, n2 = 0, cap2 = 0;
	int err;

	if (lseek(fd, 0, SEEK_SET) < 0)
		return errno;
	err = read_entries(fd, op->len, &list, &n, &cap);
	if (!err && n > 0) {
		size_t k = op->off % n;

		if (lseek(fd, list[k].off, SEEK_SET) < 0) {
			snprintf(res->note, sizeof(res->note), "seekdir: %s", strerror(errno));
		} else {
			err = read_entries(fd, op->len, &again, &n2, &cap2);
			if (!err && n2 != n - k - 1)
				snprintf(res->note, sizeof(res->note),
					"seekdir behind entry %zu of %zu: %zu entries follow", k, n, n2);
			for (size_t i = 0; !err && !res->note[0] && i < n2; i++)
				if (strcmp(list[k + 1 + i].name, again[i].name))
					snprintf(res->note, sizeof(res->note),
						"seekdir: another entry follows the second time");
		}
	}
	if (!err) {
		qsort(list, n, sizeof(*list), compare_entries);
		for (size_t i = 0; i < n; i++) {
			if (i > 0 && !strcmp(list[i - 1].name, list[i].name))
				snprintf(res->note, sizeof(res->note), "readdir lists a name twice: %s",
					mf_show(list[i].name));
			res->hash = mf_hash(list[i].name, strlen(list[i].name) + 1, res->hash);
			res->hash = mf_hash(&list[i].type, 1, res->hash);
		}
		res->ret = n;
		if (spoil(side, "name"))
			res->hash ^= 1;
	}
	free(list);
	free(again);
	return err;
}

static int do_statfs(const struct op *op, struct result *res)
{
	struct statfs fs;

	if (statfs(op->path, &fs) < 0)
		return errno;
	if (fs.f_namelen != 255 || fs.f_bsize <= 0 || fs.f_bfree > fs.f_blocks || fs.f_bavail > fs.f_bfree)
		snprintf(res->note, sizeof(res->note), "statfs: namelen %ld bsize %ld blocks %lu bfree %lu bavail %lu",
			(long)fs.f_namelen, (long)fs.f_bsize, (unsigned long)fs.f_blocks, (unsigned long)fs.f_bfree,
			(unsigned long)fs.f_bavail);
	return 0;
}

/* Holes may be reported or not; what is promised is the order of things and ENXIO from the end on. */
static int do_seekdata(const struct op *op, int fd, struct result *res)
{
	struct stat st;
	off_t pos = lseek(fd, 0, SEEK_CUR), data, hole;
	int err = 0;

	if (pos < 0 || fstat(fd, &st) < 0)
		return errno;
	hole = lseek(fd, op->off, SEEK_HOLE);
	if (hole < 0)
		err = errno;
	else if (hole < op->off || hole > st.st_size)
		snprintf(res->note, sizeof(res->note), "SEEK_HOLE from %lld of %lld: %lld", (long long)op->off,
			(long long)st.st_size, (long long)hole);
	data = lseek(fd, op->off, SEEK_DATA);
	if (data < 0 && errno != ENXIO)
		err = errno;
	if (data >= 0 && (data < op->off || data >= st.st_size))
		snprintf(res->note, sizeof(res->note), "SEEK_DATA from %lld of %lld: %lld", (long long)op->off,
			(long long)st.st_size, (long long)data);
	if (data < 0 && op->off >= 0 && hole > op->off && hole <= st.st_size)
		snprintf(res->note, sizeof(res->note), "SEEK_DATA says no data, SEEK_HOLE a hole after data");
	if (lseek(fd, pos, SEEK_SET) < 0)
		return errno;
	return err;
}

static int do_lock(int side, const struct op *op, int fd, int cmd, struct result *res)
{
	struct flock fl = { .l_type = op->flags, .l_whence = op->whence, .l_start = op->off, .l_len = op->len };

	if (spoil(side, "lock"))
		return 0;
	if (fcntl(fd, cmd, &fl) < 0)
		/* POSIX allows both for a lock that is held */
		return errno == EACCES ? EAGAIN : errno;
	if (cmd == F_GETLK || cmd == F_OFD_GETLK) {
		res->lock_type = fl.l_type;
		res->lock_start = fl.l_start;
		res->lock_len = fl.l_len;
		res->lock_pid = fl.l_pid;
	}
	return 0;
}

static int do_transfer(int side, const struct op *op, int fd, struct result *res)
{
	bool writes = op->kind == OP_WRITE || op->kind == OP_PWRITE;
	unsigned char *buf = malloc(op->len + 1);
	ssize_t n;
	int err = 0;

	if (!buf)
		abort();
	if (writes) {
		mf_fill(buf, op->len, op->seed);
		if (op->len > 0 && spoil(side, "data"))
			buf[op->len / 2] ^= 0x10;
		n = op->kind == OP_WRITE ? write(fd, buf, op->len) : pwrite(fd, buf, op->len, op->off);
	} else {
		n = op->kind == OP_READ ? read(fd, buf, op->len) : pread(fd, buf, op->len, op->off);
		if (n > 0 && spoil(side, "readdata"))
			buf[n - 1] ^= 1;
	}
	if (n < 0) {
		err = errno;
	} else {
		res->ret = n;
		if (!writes)
			res->hash = mf_hash(buf, n, 0);
	}
	free(buf);
	return err;
}

static int do_xattr(int side, const struct op *op, int fd, struct result *res)
{
	unsigned char buf[4096];
	ssize_t n = 0;
	size_t size = op->len < (off_t)sizeof(buf) ? op->len : (off_t)sizeof(buf);

	switch (op->kind) {
	case OP_SETXATTR:
	case OP_FSETXATTR:
		mf_fill(buf, size, op->seed);
		if (size > 0 && spoil(side, "xattr"))
			buf[0] ^= 1;
		n = op->kind == OP_SETXATTR ? lsetxattr(op->path, op->name, buf, size, op->flags)
					    : fsetxattr(fd, op->name, buf, size, op->flags);
		break;
	case OP_GETXATTR:
	case OP_FGETXATTR:
		n = op->kind == OP_GETXATTR ? lgetxattr(op->path, op->name, buf, size)
					    : fgetxattr(fd, op->name, buf, size);
		if (n > 0 && size > 0)
			res->hash = mf_hash(buf, n, 0);
		break;
	default:
		n = lremovexattr(op->path, op->name);
		break;
	}
	if (n < 0)
		return errno;
	res->ret = n;
	return 0;
}

static int do_open(int side, const struct op *op)
{
	int fd = open(op->path, op->flags | O_CLOEXEC | O_NONBLOCK, op->mode);

	if (fd < 0)
		return errno;
	if (fds[side][op->slot] >= 0)
		close(fds[side][op->slot]);
	fds[side][op->slot] = fd;
	return 0;
}

static int do_op(int side, const struct op *op, int fd, struct result *res)
{
	struct timespec ts[2] = { op->ts[0], op->ts[1] };
	char text[PATH_CAP];
	struct stat st;
	ssize_t n;
	int rc = 0;

	if (spoil(side, "errno"))
		return EIO;
	switch (op->kind) {
	case OP_LSTAT:
		rc = lstat(op->path, &st);
		break;
	case OP_STAT:
		rc = stat(op->path, &st);
		break;
	case OP_ACCESS:
		rc = access(op->path, op->flags);
		break;
	case OP_CHMOD:
		rc = chmod(op->path, op->mode ^ (spoil(side, "mode") ? 1 : 0));
		break;
	case OP_FCHMOD:
		rc = fchmod(fd, op->mode);
		break;
	case OP_CHOWN:
		rc = chown(op->path, op->uid, op->gid);
		if (rc == 0 && stat(op->path, &st) == 0 && S_ISREG(st.st_mode) && spoil(side, "suid"))
			rc = chmod(op->path, st.st_mode | 04000);
		break;
	case OP_LCHOWN:
		rc = lchown(op->path, op->uid, op->gid);
		break;
	case OP_FCHOWN:
		rc = fchown(fd, op->uid, op->gid);
		break;
	case OP_UTIMENS:
		if (ts[1].tv_nsec < 1000000000 && spoil(side, "nsec"))
			ts[1].tv_nsec = (ts[1].tv_nsec + 1) % 1000000000;
		rc = utimensat(AT_FDCWD, op->path, ts, 0);
		if (rc == 0)
			rc = stat(op->path, &res->named);
		break;
	case OP_LUTIMENS:
		rc = utimensat(AT_FDCWD, op->path, ts, AT_SYMLINK_NOFOLLOW);
		if (rc == 0)
			rc = lstat(op->path, &res->named);
		break;
	case OP_FUTIMENS:
		rc = futimens(fd, ts);
		break;
	case OP_TRUNCATE:
		rc = truncate(op->path, op->len);
		break;
	case OP_FTRUNCATE:
		rc = ftruncate(fd, op->len);
		break;
	case OP_MKNOD:
		rc = mknod(op->path, op->mode ^ (spoil(side, "mknod") ? 0200 : 0), 0);
		break;
	case OP_MKDIR:
		rc = mkdir(op->path, op->mode);
		break;
	case OP_UNLINK:
		rc = unlink(op->path);
		break;
	case OP_RMDIR:
		rc = rmdir(op->path);
		break;
	case OP_SYMLINK:
		rc = symlink(op->path2, op->path);
		break;
	case OP_READLINK:
		n = readlink(op->path, text, sizeof(text));
		if (n < 0)
			return errno;
		res->ret = n;
		res->hash = mf_hash(text, n, 0);
		break;
	case OP_RENAME:
		if (spoil(side, "rename"))
			return 0;
		rc = op->flags ? renameat2(AT_FDCWD, op->path, AT_FDCWD, op->path2, op->flags)
			       : rename(op->path, op->path2);
		break;
	case OP_LINK:
		rc = spoil(side, "nlink") ? 0 : link(op->path, op->path2);
		break;
	case OP_OPEN:
		return do_open(side, op);
	case OP_CLOSE:
		if (fd < 0)
			return EBADF;
		fds[side][op->slot] = -1;
		rc = close(fd);
		break;
	case OP_READ:
	case OP_PREAD:
	case OP_WRITE:
	case OP_PWRITE:
		return do_transfer(side, op, fd, res);
	case OP_LSEEK:
		res->ret = lseek(fd, op->off, op->whence);
		rc = res->ret < 0 ? -1 : 0;
		if (rc == 0 && spoil(side, "pos"))
			lseek(fd, 1, SEEK_CUR);
		break;
	case OP_SEEKDATA:
		return do_seekdata(op, fd, res);
	case OP_SETFL:
		rc = fcntl(fd, F_SETFL, op->flags | O_NONBLOCK);
		break;
	case OP_FALLOCATE:
		rc = fallocate(fd, op->flags, op->off, op->len);
		break;
	case OP_FSYNC:
		rc = fsync(fd);
		break;
	case OP_FDATASYNC:
		rc = fdatasync(fd);
		break;
	case OP_READDIR:
		return do_readdir(side, op, fd, res);
	case OP_STATFS:
		return do_statfs(op, res);
	case OP_LISTXATTR: /* names: the state comparison looks at them; this is the call itself */
		rc = llistxattr(op->path, NULL, 0) < 0 ? -1 : 0;
		break;
	case OP_SETXATTR:
	case OP_GETXATTR:
	case OP_REMOVEXATTR:
	case OP_FSETXATTR:
	case OP_FGETXATTR:
		return do_xattr(side, op, fd, res);
	case OP_POSIX_LOCK:
		return do_lock(side, op, fd, F_SETLK, res);
	case OP_POSIX_GETLK:
		return do_lock(side, op, fd, F_GETLK, res);
	case OP_OFD_LOCK:
		return do_lock(side, op, fd, F_OFD_SETLK, res);
	case OP_OFD_GETLK:
		return do_lock(side, op, fd, F_OFD_GETLK, res);
	case OP_FLOCK:
		rc = flock(fd, op->flags);
		break;
	default:
		break;
	}
	return rc < 0 ? errno : 0;
}

static void exec_here(struct world *w, int side, const struct op *op, struct result *res)
{
	const struct cred *c = &mf_diff_creds[op->cred];
	int fd = fds[side][op->slot], view = w->view;

	memset(res, 0, sizeof(*res));
	mf_nodes_view(w, op->node);
	mf_exec_enter(w, side);
	mf_nodes_view(w, view);
	res->have_fd = fd >= 0 && fstat(fd, &res->fd_pre) == 0;
	if (fd >= 0 && !res->have_fd)
		snprintf(res->note, sizeof(res->note), "fstat of an open descriptor, before: %s", strerror(errno));
	umask(op->umask);
	become(c);
	res->err = do_op(side, op, fd, res);
	become_root(c);
	umask(0);
	if ((op->kind == OP_WRITE || op->kind == OP_PWRITE) && res->ret > 0 && spoil(side, "mtime")) {
		struct timespec back[2] = { { 0, UTIME_OMIT }, res->fd_pre.st_mtim };

		futimens(fd, back);
	}
	fd = fds[side][op->slot];
	if (fd >= 0) {
		res->have_fd = res->have_fd || op->kind == OP_OPEN;
		if (fstat(fd, &res->fd_post) < 0)
			snprintf(res->note, sizeof(res->note), "fstat of an open descriptor: %s", strerror(errno));
		if (S_ISREG(res->fd_post.st_mode))
			res->pos = lseek(fd, 0, SEEK_CUR);
	} else {
		res->have_fd = false;
	}
}

static bool transfer_all(int sock, void *buf, size_t len, bool out)
{
	char *p = buf;

	while (len > 0) {
		ssize_t n = out ? write(sock, p, len) : read(sock, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		len -= n;
	}
	return true;
}

static void agent(struct world *w, int sock)
{
	struct {
		int side;
		struct op op;
	} q;
	struct result res;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (transfer_all(sock, &q, sizeof(q), false)) {
		exec_here(w, q.side, &q.op, &res);
		if (!transfer_all(sock, &res, sizeof(res), true))
			break;
	}
	_exit(0);
}

int mf_exec_start(struct world *w)
{
	memset(fds, -1, sizeof(fds));
	w->pid[0] = getpid();
	/* Who looks at the trees loses the POSIX locks of what he closes on B. On several nodes he does not on A, where he looked
	 * on another node: there no actor looks. */
	first_agent = w->nodes > 1 ? 0 : 1;
	for (int i = first_agent; i < w->actors; i++) {
		int sv[2];

		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
			return -errno;
		agent_pid[i] = fork();
		if (agent_pid[i] < 0)
			return -errno;
		if (agent_pid[i] == 0) {
			close(sv[0]);
			for (int k = first_agent; k < i; k++)
				close(agent_sock[k]);
			agent(w, sv[1]);
		}
		close(sv[1]);
		agent_sock[i] = sv[0];
		w->pid[i] = agent_pid[i];
	}
	return 0;
}

void mf_exec_stop(struct world *w)
{
	for (int i = first_agent; i < w->actors; i++) {
		close(agent_sock[i]);
		waitpid(agent_pid[i], NULL, 0);
	}
	for (int side = 0; side < NSIDES; side++)
		for (int i = 0; i <= NSLOTS; i++)
			if (fds[side][i] >= 0)
				close(fds[side][i]);
}

void mf_exec_op(struct world *w, int side, const struct op *op, struct result *ret)
{
	struct {
		int side;
		struct op op;
	} q;

	if (op->actor < first_agent) {
		exec_here(w, side, op, ret);
		return;
	}
	q.side = side;
	q.op = *op;
	if (!transfer_all(agent_sock[op->actor], &q, sizeof(q), true) ||
		!transfer_all(agent_sock[op->actor], ret, sizeof(*ret), false)) {
		fprintf(stderr, "difftest: helper %d is gone\n", op->actor);
		exit(2);
	}
}
