/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/client.h"

#include "locking/filelock.h"
#include "tests/sim/kernel.h"

#include <errno.h>
#include <string.h>

const struct mf_cred client_cred = { 1000, 1000, 100 };
static uint64_t calls;

uint64_t client_calls(void)
{
	return calls;
}

bool client_is_over(const struct client *client)
{
	return check_reign_is_lost(client->reign);
}

int client_begin(struct client *client)
{
	struct node *node = client->node;

	calls++;
	mf_fs_requester(client->id + 1);
	world_check();
	sched_yield_maybe();
	int r;
	while ((r = mf_node_check(node->node)) == -ESHUTDOWN) {
		if (mf_fs_await_life(node->fs) < 0)
			break;
	}
	return r;
}

/* Its life is over, or it knows already that it will be. */
static bool is_ending(const struct client *client)
{
	return client_is_over(client) || mf_node_is_fenced(client->node->node);
}

bool client_is_trouble(int r)
{
	return r == -ETIMEDOUT || r == -EIO || r == -ESHUTDOWN;
}

/* fuse/reply.c: what was read may have changed by now. */
static bool is_too_late(const struct client *client)
{
	return mf_node_is_due(client->node->node) && mf_node_check(client->node->node) < 0;
}

int client_lookup(struct client *client, uint64_t parent, const char *name, uint64_t *ret_ino)
{
	struct node *node = client->node;
	struct mf_stat st;

	/* After the fence, before the kernel is made to forget, it says what was: of what was not durable that may be too much. */
	if (kernel_find(client, parent, name, ret_ino))
		return mf_node_is_fenced(node->node) ? -EIO : 0;
	int r = client_begin(client);
	if (r < 0)
		return r;
	kernel_lock(node, parent, false);
	r = mf_fs_lookup(node->fs, parent, name, client->id + 1, &st);
	if (r == 0 && is_too_late(client)) {
		mf_fs_answered(node->fs, &st);
		mf_fs_forget(node->fs, st.ino, 1);
		r = -EIO;
	} else if (r == 0) {
		kernel_entry(client, parent, name, &st);
		*ret_ino = st.ino;
	} else {
		kernel_drop(node, parent, name);
	}
	kernel_unlock(node, parent, false);
	return r;
}

int client_list(struct client *client, uint64_t dir, MfListing **ret)
{
	kernel_lock(client->node, dir, false);
	int r = mf_fs_list(client->node->fs, dir, ret);
	kernel_unlock(client->node, dir, false);
	if (r == 0 && is_too_late(client)) {
		mf_listing_free(*ret);
		r = -EIO;
	}
	return r;
}

ssize_t client_read(struct client *client, MfHandle *handle, void *data, size_t len)
{
	ssize_t n = mf_fs_read(client->node->fs, handle, data, len, 0);

	return n >= 0 && is_too_late(client) ? -EIO : n;
}

int client_fsyncdir(struct client *client, uint64_t dir)
{
	int r = mf_fs_fsyncdir(client->node->fs, dir);
	int life = client->node->life;

	/* What an earlier step changed went with an earlier reign. */
	return r == -ESTALE && sched_reign(life) != life ? -EIO : r;
}

int client_walk(struct client *client, const char *path, uint64_t *ret_ino)
{
	g_auto(GStrv) parts = g_strsplit(path, "/", -1);
	uint64_t ino = MF_ROOT_INO;
	int r = 0;

	for (char **part = parts; r == 0 && *part; part++)
		r = client_lookup(client, ino, *part, &ino);
	if (r < 0 && !client_is_trouble(r) && !client_is_over(client))
		sched_fail("%s: %s", path, strerror(-r));
	*ret_ino = ino;
	return r < 0 && !client_is_trouble(r) ? -EIO : r;
}

int client_outcome(const struct client *client, int r)
{
	/* What was in tmp when the node joined anew is gone. */
	return client_is_trouble(r) || (r < 0 && is_ending(client)) ? CK_UNKNOWN : r;
}

void client_unexpected(const struct client *client, const char *what, int r)
{
	if (!client_is_trouble(r) && !is_ending(client))
		sched_fail("%s: %s", what, strerror(-r));
}

void client_close(struct client *client, MfHandle *handle)
{
	struct node *node = client->node;
	g_autoptr(GArray) done = mf_filelock_done_new();

	mf_fs_drop_locks(node->fs, mf_handle_ino(handle), client->id + 1, done);
	kernel_answer_locks(done);
	g_array_set_size(done, 0);
	sched_yield_maybe();
	mf_fs_release(node->fs, handle, done);
	kernel_answer_locks(done);
}

int client_unlink(struct client *client, uint64_t parent, uint64_t ino, const char *name)
{
	int r = client_begin(client);

	if (r < 0)
		return r;
	kernel_lock(client->node, parent, true);
	if (ino)
		kernel_lock(client->node, ino, true);
	r = mf_fs_unlink(client->node->fs, parent, name);
	if (r == 0)
		kernel_drop(client->node, parent, name);
	if (ino)
		kernel_unlock(client->node, ino, true);
	kernel_unlock(client->node, parent, true);
	return r;
}
