/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/folders.h"

#include "tests/sim/client.h"
#include "tests/sim/kernel.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define FOLDERS_MAX 100
#define PARENTS 2
#define ITEM "item"

struct folder {
	unsigned id;
	Register *reg;	/* parent + 1, a number in its name */
	Register *item; /* its value */
};

static struct folder folders[FOLDERS_MAX];
static unsigned n_folders;
static int next_value = 1;

/* A directory of its own, and one that is a Maildir. */
static const char *const parents[PARENTS] = { "d", "u0" };

static int place(unsigned parent)
{
	return (int)((parent + 1) << CK_DIR_SHIFT | sched_below(4));
}

static unsigned parent_of(int state)
{
	return (unsigned)(state >> CK_DIR_SHIFT) - 1;
}

static void folder_name(unsigned id, int state, char name[32])
{
	snprintf(name, 32, "folder%u.%d", id, state & 0xff);
}

static struct folder *some_folder(void)
{
	for (int tries = 0; n_folders > 0 && tries < 8; tries++) {
		struct folder *f = &folders[sched_below(n_folders)];
		if (check_is_there(f->reg))
			return f;
	}
	return NULL;
}

/* Without effect, because the folder is elsewhere by now, or gone: the kernel would look up the path again. */
static bool is_stale(int r)
{
	return r == -ESTALE || r == -ENOENT;
}

static int make(struct client *client)
{
	struct node *node = client->node;
	unsigned parent = sched_below(PARENTS);
	struct mf_stat st;
	char name[32];
	uint64_t dir;

	if (n_folders == FOLDERS_MAX)
		return 0;
	struct folder *f = &folders[n_folders];
	g_autofree char *label = g_strdup_printf("folder %u", n_folders);
	g_autofree char *item = g_strdup_printf("item of folder %u", n_folders);
	*f = (struct folder){ n_folders++, check_register(label, CK_ABSENT), check_register(item, CK_ABSENT) };
	int state = place(parent);
	folder_name(f->id, state, name);
	int r = client_walk(client, parents[parent], &dir);
	if (r == 0)
		r = client_begin(client);
	if (r < 0)
		return r;
	Call *call = check_invoke(f->reg, CALL_CREATE, state, 0);
	kernel_lock(node, dir, true);
	r = mf_fs_mkdir(node->fs, dir, name, S_IFDIR | 0700, &client_cred, &st);
	if (r == 0)
		kernel_entry(client, dir, name, &st);
	kernel_unlock(node, dir, true);
	check_return(call, client_outcome(client, r));
	if (r < 0)
		client_unexpected(client, "mkdir of a folder", r);
	return r;
}

/* Its directory and its inode. -ENOENT when it is not there any more. */
static int find(struct client *client, const struct folder *f, int state, uint64_t *ret_parent, uint64_t *ret_ino)
{
	char name[32];

	folder_name(f->id, state, name);
	int r = client_walk(client, parents[parent_of(state)], ret_parent);
	if (r < 0)
		return r;
	Call *look = check_invoke(f->reg, CALL_LOOK, state, 0);
	r = client_lookup(client, *ret_parent, name, ret_ino);
	/* Under an old name it is no other directory. */
	check_return(look, client_is_trouble(r) ? CK_UNKNOWN : r == -ESTALE ? CK_FAILED : r == 0);
	if (r < 0 && !is_stale(r))
		client_unexpected(client, name, r);
	return r == -ESTALE ? -ENOENT : r;
}

static int move(struct client *client, const struct folder *f)
{
	struct node *node = client->node;
	int state = check_state(f->reg), next = place(sched_below(PARENTS));
	uint64_t from, to, ino;
	char name[32], new_name[32];

	if (next == state)
		return 0;
	folder_name(f->id, state, name);
	folder_name(f->id, next, new_name);
	int r = find(client, f, state, &from, &ino);
	if (r == 0)
		r = client_walk(client, parents[parent_of(next)], &to);
	if (r == 0)
		r = client_begin(client);
	if (r < 0)
		return r;
	Call *call = check_invoke(f->reg, CALL_MOVE, state, next);
	kernel_lock_two(node, from, to);
	kernel_lock(node, ino, true);
	r = mf_fs_rename(node->fs, from, name, to, new_name, 0);
	if (r == 0)
		kernel_drop(node, from, name);
	kernel_unlock(node, ino, true);
	kernel_unlock_two(node, from, to);
	check_return(call, r == -ESTALE ? CK_FAILED : client_outcome(client, r));
	if (r < 0 && !is_stale(r))
		client_unexpected(client, "rename of a folder", r);
	return r;
}

static int end(struct client *client, const struct folder *f)
{
	struct node *node = client->node;
	int state = check_state(f->reg);
	uint64_t parent, ino;
	char name[32];

	folder_name(f->id, state, name);
	int r = find(client, f, state, &parent, &ino);
	if (r == 0)
		r = client_begin(client);
	if (r < 0)
		return r;
	Call *call = check_invoke(f->reg, CALL_REMOVE, state, 0);
	Call *test = check_invoke(f->item, CALL_TEST, 0, 0);
	kernel_lock(node, parent, true);
	kernel_lock(node, ino, true);
	r = mf_fs_rmdir(node->fs, parent, name);
	if (r == 0)
		kernel_drop(node, parent, name);
	kernel_unlock(node, ino, true);
	kernel_unlock(node, parent, true);
	check_return(call, r == -ENOTEMPTY || r == -ESTALE ? CK_FAILED : client_outcome(client, r));
	check_return(test, r == 0 ? 0 : r == -ENOTEMPTY ? 1 : CK_FAILED);
	if (r < 0 && !is_stale(r) && r != -ENOTEMPTY)
		client_unexpected(client, "rmdir of a folder", r);
	return r;
}

/* Wherever it is by then: who is in a directory stays in it. */
static int put(struct client *client, const struct folder *f)
{
	struct node *node = client->node;
	int value = next_value++;
	uint64_t parent, ino;
	struct mf_stat st;
	MfHandle *handle;

	int r = find(client, f, check_state(f->reg), &parent, &ino);
	if (r == 0)
		r = client_begin(client);
	if (r < 0)
		return r;
	if (sched_chance(3000))
		sched_sleep(sched_between(0, 1000000));
	Call *call = check_invoke(f->item, CALL_CREATE, value, 0);
	kernel_lock(node, ino, true);
	r = mf_fs_create(node->fs, ino, ITEM, S_IFREG | 0600, O_WRONLY | O_CREAT | O_EXCL, &client_cred, &st, &handle);
	if (r == 0)
		kernel_entry(client, ino, ITEM, &st);
	kernel_unlock(node, ino, true);
	check_return(call, is_stale(r) ? CK_FAILED : client_outcome(client, r));
	if (r == 0) {
		uint64_t moment = check_moment();
		/* And with it all that leads to it. */
		if (sched_chance(3000) && client_begin(client) == 0 && mf_fs_fsync(node->fs, handle) == 0 &&
			!client_is_over(client))
			check_durable(f->item, moment);
		client_close(client, handle);
	} else if (!is_stale(r) && r != -EEXIST) {
		client_unexpected(client, "create in a folder", r);
	}
	return r;
}

static int take(struct client *client, const struct folder *f)
{
	uint64_t parent, dir, ino = 0;
	int r = find(client, f, check_state(f->reg), &parent, &dir);

	if (r < 0)
		return r;
	Call *test = check_invoke(f->item, CALL_TEST, 0, 0);
	r = client_lookup(client, dir, ITEM, &ino);
	check_return(test, client_is_trouble(r) ? CK_UNKNOWN : r == -ESTALE ? CK_FAILED : r == 0);
	if (r < 0)
		return r;
	Call *call = check_invoke(f->item, CALL_CLEAR, 0, 0);
	r = client_unlink(client, dir, ino, ITEM);
	check_return(call, r == -ESTALE ? CK_FAILED : client_outcome(client, r));
	if (r < 0 && !is_stale(r))
		client_unexpected(client, "unlink in a folder", r);
	return r;
}

static int list(struct client *client, unsigned parent)
{
	unsigned n = n_folders;
	Call *seen[FOLDERS_MAX];
	int state[FOLDERS_MAX] = { 0 };
	MfListing *listing;
	struct mf_listed item;
	uint64_t dir;
	int r = client_walk(client, parents[parent], &dir);

	if (r == 0)
		r = client_begin(client);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < n; i++)
		seen[i] = check_invoke(folders[i].reg, CALL_SEE, (int)parent + 1, 0);
	r = client_list(client, dir, &listing);
	for (uint64_t i = 0; r == 0 && mf_listing_get(listing, i, &item); i++) {
		unsigned id, number;
		if (sscanf(item.name, "folder%u.%u", &id, &number) != 2 || id >= n)
			continue;
		if (state[id] != 0)
			sched_fail("%s: folder %u is listed twice", parents[parent], id);
		state[id] = (int)((parent + 1) << CK_DIR_SHIFT | number);
	}
	for (unsigned i = 0; i < n; i++)
		check_return(seen[i], r < 0 ? CK_UNKNOWN : state[i]);
	if (r < 0)
		client_unexpected(client, parents[parent], r);
	else
		mf_listing_free(listing);
	return r;
}

int folders_step(struct client *client)
{
	const struct folder *f = some_folder();
	unsigned what = sched_below(100);
	int r;

	if (!f || what < 15)
		r = make(client);
	else if (what < 35)
		r = move(client, f);
	else if (what < 55)
		r = put(client, f);
	else if (what < 75)
		r = take(client, f);
	else if (what < 88)
		r = end(client, f);
	else
		r = list(client, sched_below(PARENTS));
	return client_is_trouble(r) ? r : 0;
}

int folders_verify(struct client *client)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < PARENTS; i++)
		r = list(client, i);
	for (unsigned i = 0; r == 0 && i < n_folders; i++) {
		const struct folder *f = &folders[i];
		int state = check_state(f->reg);
		uint64_t parent, dir, ino;
		/* Gone, and what was in it with it. */
		Call *test = check_invoke(f->item, CALL_TEST, 0, 0);
		r = state == CK_ABSENT || state == CK_UNKNOWN ? -ENOENT : find(client, f, state, &parent, &dir);
		if (r == 0)
			r = client_lookup(client, dir, ITEM, &ino);
		check_return(test, state == CK_UNKNOWN ? CK_UNKNOWN : r == 0);
		if (r == -ENOENT)
			r = 0;
		kernel_put_all(client);
	}
	return r;
}
