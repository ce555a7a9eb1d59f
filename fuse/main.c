/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse/main.c - the daemon: start, serve, end.
 *
 * The start goes from what is cheap and local to what others see (the membership, then the mount), and undoes in the
 * opposite order what it did when a later step fails. */
#include "fuse/ctlsock.h"
#include "fuse/daemon.h"
#include "fuse/log.h"
#include "fuse/mountpoint.h"
#include "fuse/ops.h"
#include "fuse/options.h"
#include "fuse/reply.h"
#include "fuse/session.h"

#include <errno.h>
#include <fuse_log.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Threads wait for RADOS and for other nodes, so many more than there are processors: those that wait for one dead node must
 * not keep the others from being served. Nobody waits for a file lock in one. */
#define MAX_THREADS 1024
#define MAX_IDLE_THREADS 16

static struct fuse_session *volatile signalled; /* for the signal handlers */
static int fuse_complaints;			/* atomic: errors that libfuse has logged */

static void on_signal(int signo)
{
	int saved = errno;

	if (signalled)
		fuse_session_exit(signalled);
	/* The main thread may have looked just before and go to sleep just after this: disturb it until it has seen. */
	alarm(1);
	errno = saved;
}

static void catch_signals(struct fuse_session *se, bool foreground)
{
	struct sigaction end = { .sa_handler = on_signal };
	struct sigaction ignore = { .sa_handler = SIG_IGN };

	signalled = se;
	sigaction(SIGTERM, &end, NULL);
	sigaction(SIGINT, &end, NULL);
	sigaction(SIGALRM, &end, NULL);
	/* A daemon has no terminal that could hang up; the signal would be somebody's wish to reload. */
	sigaction(SIGHUP, foreground ? &end : &ignore, NULL);
	sigaction(SIGPIPE, &ignore, NULL);
}

static void release_signals(void)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN };

	/* The end is under way: a second SIGTERM must not cut the last commit short. */
	sigaction(SIGTERM, &ignore, NULL);
	sigaction(SIGINT, &ignore, NULL);
	sigaction(SIGALRM, &ignore, NULL);
	alarm(0);
	signalled = NULL;
}

static void log_fuse(enum fuse_log_level level, const char *format, va_list args)
{
	g_autofree char *text = g_strdup_vprintf(format, args);

	g_strchomp(text);
	if (level <= FUSE_LOG_ERR) {
		g_atomic_int_inc(&fuse_complaints);
		g_critical("%s", text);
	} else if (level == FUSE_LOG_WARNING) {
		g_warning("%s", text);
	} else {
		g_debug("%s", text);
	}
}

/* libfuse says why, mostly. */
static int fuse_failed(const char *what, const char *path)
{
	if (!g_atomic_int_get(&fuse_complaints))
		g_critical("%s %s failed", what, path);
	return -EIO;
}

static int new_session(struct mf_session *session, const struct mf_options *options, struct fuse_session **ret_se)
{
	g_autofree char *opts = g_strdup_printf("%s,allow_other,default_permissions", options->mount_options);
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);

	fuse_set_log_func(log_fuse);
	if (fuse_opt_add_arg(&args, "mailfs") == 0 && fuse_opt_add_arg(&args, "-o") == 0 &&
		fuse_opt_add_arg(&args, opts) == 0)
		*ret_se = fuse_session_new(&args, &mf_ops, sizeof mf_ops, session);
	fuse_opt_free_args(&args);
	return *ret_se ? 0 : fuse_failed("preparing the mount on", session->mountpoint);
}

/* Shows and frees @error. */
static int refuse(int r, char *error)
{
	g_critical("%s", error ? error : g_strerror(-r));
	g_free(error);
	return r;
}

static int serve(struct mf_session *session, struct fuse_session *se)
{
	g_autofree char *status = g_strdup_printf("Serving %s", session->mountpoint);
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int r;

	/* No clone_fd: with two processors it gained nothing, neither for one user nor for four. */
	fuse_loop_cfg_set_max_threads(config, MAX_THREADS);
	fuse_loop_cfg_set_idle_threads(config, MAX_IDLE_THREADS);

	g_message("serving %s on %s, as node %s, incarnation %u", session->conf->fs, session->mountpoint,
		session->conf->node, mf_node_incarnation(session->node));
	mf_daemon_ready(status);
	r = fuse_session_loop_mt(se, config);
	fuse_loop_cfg_destroy(config);
	mf_daemon_stopping();

	/* Positive: the signal, had libfuse's own handlers been set. */
	if (r < 0)
		g_critical("serving %s ended: %s", session->mountpoint, g_strerror(-r));
	return r < 0 ? r : 0;
}

static void forget_attr(uint64_t ino, void *arg)
{
	fuse_lowlevel_notify_inval_inode(((struct mf_session *)arg)->se, ino, -1, 0);
}

static void forget_name(uint64_t parent, const char *name, void *arg)
{
	fuse_lowlevel_notify_inval_entry(((struct mf_session *)arg)->se, parent, name, strlen(name));
}

static bool is_interrupted(void *cookie)
{
	return fuse_req_interrupted(cookie);
}

/* The requests carry the number of the thread. */
static int same_process(uint32_t a, uint32_t b)
{
	g_autofree char *alive = g_strdup_printf("/proc/%u", b);
	g_autofree char *thread = g_strdup_printf("/proc/%u/task/%u", a, b);

	return access(alive, F_OK) < 0 ? -ESRCH : access(thread, F_OK) == 0;
}

static void lock_done(GArray *done, void *arg)
{
	mf_reply_done(done);
}

static void raise_event(uint64_t dir, const struct mf_kernel_event *event, void *arg)
{
	mf_replay_raise(((struct mf_session *)arg)->replay, dir, event);
}

static const struct mf_kernel_ops kernel_ops = {
	.forget_attr = forget_attr,
	.forget_name = forget_name,
	.is_interrupted = is_interrupted,
	.same_process = same_process,
	.lock_done = lock_done,
	.raise = raise_event,
};

/* From the mount to the unmount. */
static int mount_and_serve(struct mf_session *session, struct fuse_session *se)
{
	const struct mf_conf *conf = session->conf;
	g_autofree char *name = mf_ctlsock_name(conf->fs, conf->node);
	MfCtlsock *sock = NULL;
	char *error = NULL;
	int close_r;
	int r;

	r = mf_ctlsock_start(conf->run_dir, name, mf_session_answer, session, &sock, &error);
	if (r < 0) {
		refuse(r, error);
	} else if (fuse_session_mount(se, session->mountpoint) < 0) {
		r = fuse_failed("mounting on", session->mountpoint);
	} else {
		mf_replay_start(session->replay, session->fs);
		mf_fs_set_kernel(session->fs, &kernel_ops, session);
		r = serve(session, se);
		mf_replay_halt(session->replay);
		release_signals();
		mf_session_stopping(session);
		mf_session_drain(session);
		fuse_session_unmount(se);
		mf_replay_stop(session->replay);
	}
	/* Again, for the starts that failed; and what the drain left to write is seen. */
	mf_session_stopping(session);

	/* The socket goes last: whoever waits for it to vanish wants to know everything committed. */
	close_r = mf_fs_close(session->fs);
	if (close_r < 0 && close_r != -EREMOTEIO)
		g_critical("not everything could be written: %s", g_strerror(-close_r));
	mf_node_leave(session->node, close_r == 0);
	if (close_r == -EREMOTEIO) {
		g_message("a node could not be told of the last changes: it is when it finds that this one has ended");
		close_r = 0;
	}
	mf_ctlsock_stop(sock);
	return r < 0 ? r : close_r;
}

/* Joins the cluster around mount_and_serve(). */
static int run(struct mf_session *session, struct fuse_session *se)
{
	char *error = NULL;
	int r;

	r = mf_pool_open(session->conf, &session->pool, &error);
	if (r < 0)
		return refuse(r, error);

	/* First, whether there is anything to join: a join of nothing would only say "no such file". */
	r = mf_fs_check(session->pool, session->conf, &error);
	if (r == 0)
		r = mf_node_join(session->pool, session->conf, session->mountpoint, &session->node, &error);
	if (r < 0) {
		refuse(r, error);
	} else {
		session->incarnation = mf_node_incarnation(session->node);
		session->since_s = mf_node_since(session->node) / 1000000000;
		r = mf_fs_open(session->pool, session->node, session->conf, &session->fs, &error);
		if (r < 0) {
			refuse(r, error);
			mf_node_leave(session->node, true);
		} else {
			r = mount_and_serve(session, se);
		}
	}
	mf_pool_close(session->pool);
	return r;
}

static int mount_main(const struct mf_options *options)
{
	g_autofree char *mountpoint = NULL;
	struct mf_session session;
	struct fuse_session *se = NULL;
	char *error = NULL;
	int r;

	mf_log_start(options->foreground, options->conf->log_level);
	r = mf_mountpoint_prepare(options->mountpoint, &mountpoint, &error);
	if (r < 0)
		return refuse(r, error);
	r = mf_daemon_fork(options->foreground);
	if (r < 0)
		return refuse(r, g_strdup_printf("cannot go into the background: %s", g_strerror(-r)));

	mf_session_init(&session);
	session.conf = options->conf;
	session.mountpoint = mountpoint;
	r = mf_replay_new(mountpoint, &session.replay);
	if (r < 0)
		refuse(r, g_strdup_printf("cannot start a process: %s", g_strerror(-r)));
	else
		r = new_session(&session, options, &se);
	if (r == 0) {
		session.se = se;
		catch_signals(se, options->foreground);
		r = run(&session, se);
		release_signals();
		fuse_session_destroy(se);
	}
	mf_replay_free(session.replay);
	mf_session_clear(&session);
	if (r < 0)
		mf_daemon_failed(1);
	else
		g_message("%s is unmounted and everything is written", mountpoint);
	return r;
}

int main(int argc, char **argv)
{
	g_autoptr(mf_options) options = NULL;
	g_autofree char *error = NULL;

	if (mf_options_parse(argc, argv, &options, &error) < 0) {
		fprintf(stderr, "mailfs: %s\n", error);
		return 1;
	}
	switch (options->action) {
	case MF_OPTIONS_PRINT:
		fputs(options->text, stdout);
		return fflush(stdout) == 0 ? 0 : 1;
	case MF_OPTIONS_CHECK:
		return 0;
	case MF_OPTIONS_MOUNT:
		break;
	}
	return mount_main(options) < 0 ? 1 : 0;
}
