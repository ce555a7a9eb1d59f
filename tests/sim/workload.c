/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/world.h"

#include "tests/sim/client.h"
#include "tests/sim/folders.h"
#include "tests/sim/kernel.h"
#include "tests/sim/watcher.h"

#include "locking/filelock.h"
#include "store/keys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAILDIRS_MAX 3
#define MESSAGES_MAX 600
#define COUNTERS 2
#define DIRS 3
#define DOTLOCKS 2
#define SLOTS 2
#define BODY_MAX 12000


struct message {
	unsigned id;
	unsigned body; /* whose bytes it has: its own, or those of what it is a copy of */
	size_t size;
	Register *reg;
};

static struct message messages[MESSAGES_MAX];
static unsigned n_messages;
static Register *counters[COUNTERS], *dirs[DIRS], *dotlocks[DOTLOCKS], *slots[SLOTS];
static const struct client *holders[COUNTERS]; /* of the locks */
static int holder_reign[COUNTERS];
static int next_value = 100;

/* ---- messages ---- */

/* State: directory + 1, flags. Directory 2k: new of maildir k, 2k + 1: cur. */
static int place(unsigned dir, unsigned flags)
{
	return (int)((dir + 1) << CK_DIR_SHIFT | flags);
}

static void dir_path(unsigned dir, char path[32])
{
	snprintf(path, 32, "u%u/%s", dir / 2, dir % 2 ? "cur" : "new");
}

static void message_name(unsigned id, int state, char name[64])
{
	unsigned dir = (state >> CK_DIR_SHIFT) - 1, flags = state & 0xff;

	if (dir % 2 == 0)
		snprintf(name, 64, "%u.M.sim", id);
	else
		snprintf(name, 64, "%u.M.sim:2,%s%s%s", id, flags & 1 ? "F" : "", flags & 2 ? "R" : "",
			flags & 4 ? "S" : "");
}

static void fill(unsigned id, char *body, size_t size)
{
	for (size_t i = 0; i < size; i++)
		body[i] = (char)('a' + (i * 7 + id * 13 + i / 100) % 26);
}

/* One that seems to be there. */
static struct message *some_message(void)
{
	for (int tries = 0; n_messages > 0 && tries < 8; tries++) {
		struct message *m = &messages[sched_below(n_messages)];
		if (check_is_there(m->reg))
			return m;
	}
	return NULL;
}

/* A message in tmp, durable. */
static int write_message(struct client *client, struct message *m, const char *name, uint64_t tmp, uint64_t *ret_ino)
{
	struct node *node = client->node;
	MfHandle *handle;
	struct mf_stat st;
	int r = client_begin(client);

	if (r < 0)
		return r;
	kernel_lock(node, tmp, true);
	r = mf_fs_create(node->fs, tmp, name, S_IFREG | 0600, O_WRONLY | O_CREAT | O_EXCL, &client_cred, &st, &handle);
	if (r == 0)
		kernel_entry(client, tmp, name, &st);
	kernel_unlock(node, tmp, true);
	if (r < 0) {
		client_unexpected(client, "create in tmp", r);
		return r;
	}
	*ret_ino = st.ino;
	g_autofree char *body = g_malloc(m->size + 1);
	fill(m->body, body, m->size);
	for (size_t at = 0; r == 0 && at < m->size;) {
		size_t n = MIN(m->size - at, 4096);
		r = client_begin(client);
		if (r < 0)
			break;
		ssize_t w = mf_fs_write(node->fs, handle, body + at, n, at, O_WRONLY, 1000);
		if (w >= 0 && (size_t)w != n)
			sched_fail("a write of %zu bytes wrote %zd", n, w);
		r = w < 0 ? (int)w : 0;
		at += n;
	}
	if (r == 0)
		r = client_begin(client);
	if (r == 0)
		r = mf_fs_fsync(node->fs, handle);
	client_close(client, handle);
	if (r < 0)
		client_unexpected(client, "writing in tmp", r);
	return r;
}

static int deliver(struct client *client, bool by_link)
{
	struct node *node = client->node;
	unsigned dir = sched_below(plan.maildirs) * 2 + (by_link ? 0 : sched_below(2));
	uint64_t tmp, to, ino = 0;
	char path[32], name[64], tmp_path[32];
	struct mf_stat st;

	if (n_messages == MESSAGES_MAX)
		return 0;
	struct message *m = &messages[n_messages];
	*m = (struct message){ .id = n_messages,
		.body = n_messages,
		.size = sched_chance(9000) ? sched_below(400) : sched_below(BODY_MAX) };
	n_messages++;
	int state = place(dir, sched_below(8) * (dir % 2));
	message_name(m->id, state, name);
	g_autofree char *label = g_strdup_printf("message %u", m->id);
	m->reg = check_register(label, CK_ABSENT);
	dir_path(dir, path);
	snprintf(tmp_path, sizeof(tmp_path), "u%u/tmp", dir / 2);
	int r = client_walk(client, tmp_path, &tmp);
	if (r == 0)
		r = write_message(client, m, name, tmp, &ino);
	if (r == 0)
		r = client_walk(client, path, &to);
	if (r == 0)
		r = client_begin(client);
	if (r < 0)
		return r;
	Call *call = check_invoke(m->reg, CALL_CREATE, state, 0);
	if (by_link) {
		kernel_lock(node, to, true);
		kernel_lock(node, ino, true);
		r = mf_fs_link(node->fs, ino, to, name, &st);
		if (r == 0)
			kernel_entry(client, to, name, &st);
		kernel_unlock(node, ino, true);
		kernel_unlock(node, to, true);
		check_return(call, client_outcome(client, r));
		if (r == 0)
			check_durable(m->reg, check_moment());
		/* What Postfix does not unlink stays until the unmount. */
		if (r == 0 && client_unlink(client, tmp, ino, name) < 0)
			return 0;
	} else {
		kernel_lock_two(node, tmp, to);
		kernel_lock(node, ino, true);
		r = mf_fs_rename(node->fs, tmp, name, to, name, 0);
		/* Done in memory, and not to come any further. */
		if (r == 0 && sched_chance(200))
			world_cut(node, sched_between(0, 15 * G_USEC_PER_SEC));
		kernel_unlock(node, ino, true);
		kernel_unlock_two(node, tmp, to);
		check_return(call, client_outcome(client, r));
		if (r == 0 && sched_chance(8000)) {
			uint64_t moment = check_moment();
			r = client_begin(client);
			if (r == 0)
				r = client_fsyncdir(client, to);
			if (r == 0 && !client_is_over(client))
				check_durable(m->reg, moment);
			if (r == 0)
				check_published(m->reg);
		}
	}
	if (r < 0)
		client_unexpected(client, "delivery", r);
	return r;
}

/* Flags, new to cur, or another mailbox. */
static int move(struct client *client, bool far)
{
	struct node *node = client->node;
	struct message *m = some_message();
	char from_path[32], to_path[32], from_name[64], to_name[64];
	uint64_t from, to, ino;

	if (!m)
		return 0;
	int state = check_state(m->reg);
	unsigned dir = (state >> CK_DIR_SHIFT) - 1;
	unsigned target = far ? sched_below(plan.maildirs) * 2 + 1 : dir | 1;
	int next = place(target, sched_below(8));
	if (next == state)
		return 0;
	dir_path(dir, from_path);
	dir_path(target, to_path);
	message_name(m->id, state, from_name);
	message_name(m->id, next, to_name);
	int r = client_walk(client, from_path, &from);
	if (r == 0)
		r = client_walk(client, to_path, &to);
	if (r < 0)
		return r;
	/* The kernel knows the inode that it moves. */
	Call *look = check_invoke(m->reg, CALL_LOOK, state, 0);
	r = client_lookup(client, from, from_name, &ino);
	check_return(look, client_is_trouble(r) ? CK_UNKNOWN : r == 0);
	if (r == 0)
		r = client_begin(client);
	if (r < 0)
		return client_is_trouble(r) ? r : 0;
	Call *call = check_invoke(m->reg, CALL_MOVE, state, next);
	kernel_lock_two(node, from, to);
	kernel_lock(node, ino, true);
	r = mf_fs_rename(node->fs, from, from_name, to, to_name, 0);
	kernel_unlock(node, ino, true);
	kernel_unlock_two(node, from, to);
	check_return(call, client_outcome(client, r));
	if (r < 0 && r != -ENOENT)
		client_unexpected(client, "rename", r);
	return client_is_trouble(r) ? r : 0;
}

/* A hard link in another mailbox, as IMAP's COPY makes it. */
static int copy(struct client *client)
{
	struct node *node = client->node;
	struct message *from = some_message();
	char from_path[32], to_path[32], from_name[64], to_name[64];
	uint64_t parent, to, ino;
	struct mf_stat st;

	if (!from || n_messages == MESSAGES_MAX)
		return 0;
	int state = check_state(from->reg);
	unsigned target = sched_below(plan.maildirs) * 2 + 1;
	int next = place(target, sched_below(8));
	dir_path((state >> CK_DIR_SHIFT) - 1, from_path);
	dir_path(target, to_path);
	message_name(from->id, state, from_name);
	int r = client_walk(client, from_path, &parent);
	if (r == 0)
		r = client_walk(client, to_path, &to);
	if (r < 0)
		return r;
	Call *look = check_invoke(from->reg, CALL_LOOK, state, 0);
	r = client_lookup(client, parent, from_name, &ino);
	check_return(look, client_is_trouble(r) ? CK_UNKNOWN : r == 0);
	if (r == 0)
		r = client_begin(client);
	if (r < 0 || n_messages == MESSAGES_MAX)
		return client_is_trouble(r) ? r : 0;
	struct message *m = &messages[n_messages];
	*m = (struct message){ .id = n_messages, .body = from->body, .size = from->size };
	n_messages++;
	g_autofree char *label = g_strdup_printf("message %u (a copy of %u)", m->id, from->id);
	m->reg = check_register(label, CK_ABSENT);
	message_name(m->id, next, to_name);
	Call *call = check_invoke(m->reg, CALL_CREATE, next, 0);
	kernel_lock(node, to, true);
	kernel_lock(node, ino, true);
	r = mf_fs_link(node->fs, ino, to, to_name, &st);
	if (r == 0)
		kernel_entry(client, to, to_name, &st);
	kernel_unlock(node, ino, true);
	kernel_unlock(node, to, true);
	/* The source may be gone since it was found. */
	check_return(call, r == -ENOENT || r == -ESTALE ? CK_FAILED : client_outcome(client, r));
	/* Only a link out of tmp is durable by itself. */
	if (r < 0 && r != -ENOENT && r != -ESTALE)
		client_unexpected(client, "copy", r);
	return client_is_trouble(r) ? r : 0;
}

static int expunge(struct client *client)
{
	struct message *m = some_message();
	char path[32], name[64];
	uint64_t parent, ino = 0;

	if (!m)
		return 0;
	int state = check_state(m->reg);
	dir_path((state >> CK_DIR_SHIFT) - 1, path);
	message_name(m->id, state, name);
	int r = client_walk(client, path, &parent);
	if (r < 0)
		return r;
	Call *look = check_invoke(m->reg, CALL_LOOK, state, 0);
	r = client_lookup(client, parent, name, &ino);
	check_return(look, client_is_trouble(r) ? CK_UNKNOWN : r == 0);
	if (r < 0)
		return client_is_trouble(r) ? r : 0;
	Call *call = check_invoke(m->reg, CALL_REMOVE, state, 0);
	r = client_unlink(client, parent, ino, name);
	check_return(call, client_outcome(client, r));
	if (r < 0 && r != -ENOENT)
		client_unexpected(client, "unlink", r);
	return client_is_trouble(r) ? r : 0;
}

static int read_body(struct client *client, const struct message *m, uint64_t ino)
{
	g_autofree char *want = g_malloc(m->size + 1), *got = g_malloc(m->size + 2);
	MfHandle *handle;
	int r = client_begin(client);

	if (r == 0)
		r = mf_fs_open_file(client->node->fs, ino, O_RDONLY, client->id + 1, &handle);
	if (r < 0) {
		/* It may be gone since it was found. */
		if (r != -ENOENT && r != -ESTALE)
			client_unexpected(client, "open", r);
		return client_is_trouble(r) ? r : 0;
	}
	/* It may be removed meanwhile, here or elsewhere. */
	if (sched_chance(3000))
		sched_sleep(sched_between(0, 2000000));
	r = client_begin(client);
	ssize_t n = r < 0 ? r : client_read(client, handle, got, m->size + 1);
	fill(m->body, want, m->size);
	if (n >= 0 && ((size_t)n != m->size || memcmp(got, want, m->size) != 0))
		sched_fail("message %u: %zd bytes, not the %zu that were written", m->id, n, m->size);
	if (n < 0)
		client_unexpected(client, "read", (int)n);
	client_close(client, handle);
	return n < 0 ? (int)n : 0;
}

static int look(struct client *client, struct message *m)
{
	char path[32], name[64];
	uint64_t parent, ino;
	int state = check_state(m->reg);

	if (!check_is_there(m->reg))
		return 0;
	dir_path((state >> CK_DIR_SHIFT) - 1, path);
	message_name(m->id, state, name);
	int r = client_walk(client, path, &parent);
	if (r < 0)
		return r;
	Call *call = check_invoke(m->reg, CALL_LOOK, state, 0);
	r = client_lookup(client, parent, name, &ino);
	check_return(call, client_is_trouble(r) ? CK_UNKNOWN : r == 0);
	if (r == 0 && sched_chance(5000))
		r = read_body(client, m, ino);
	if (r < 0 && r != -ENOENT)
		client_unexpected(client, "lookup", r);
	return client_is_trouble(r) ? r : 0;
}

static int parse_flags(const char *flags)
{
	int value = 0;

	for (; *flags; flags++) {
		int bit = *flags == 'F' ? 1 : *flags == 'R' ? 2 : *flags == 'S' ? 4 : -1;
		if (bit < 0)
			return -1;
		value |= bit;
	}
	return value;
}

static int list(struct client *client, unsigned dir)
{
	unsigned n = n_messages;
	g_autofree Call **seen = g_new0(Call *, n + 1);
	g_autofree int *state = g_new0(int, n + 1);
	MfListing *listing;
	struct mf_listed item;
	char path[32];
	uint64_t ino;

	dir_path(dir, path);
	int r = client_walk(client, path, &ino);
	if (r == 0)
		r = client_begin(client);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < n; i++)
		seen[i] = check_invoke(messages[i].reg, CALL_SEE, (int)dir + 1, 0);
	r = client_list(client, ino, &listing);
	for (uint64_t i = 0; r == 0 && mf_listing_get(listing, i, &item); i++) {
		unsigned id;
		int end = 0, flags = 0;
		if (strcmp(item.name, ".") == 0 || strcmp(item.name, "..") == 0)
			continue;
		if (sscanf(item.name, "%u.M.sim%n", &id, &end) != 1 || end == 0 || id >= n_messages ||
			(dir % 2 ? strncmp(item.name + end, ":2,", 3) != 0 ||
						(flags = parse_flags(item.name + end + 3)) < 0
				 : item.name[end] != 0))
			sched_fail("%s: a strange name: %s", path, item.name);
		if (id >= n)
			continue;
		if (state[id] != 0)
			sched_fail("%s: message %u is listed twice", path, id);
		state[id] = place(dir, flags);
	}
	for (unsigned i = 0; i < n; i++)
		check_return(seen[i], r < 0 ? CK_UNKNOWN : state[i]);
	if (r < 0)
		client_unexpected(client, path, r);
	else
		mf_listing_free(listing);
	return r;
}

/* ---- counters under a lock ---- */

/* As fuse/op-lock.c asks. */
static int set_lock(struct client *client, MfHandle *handle, enum mf_filelock_space space, enum mf_filelock_type type)
{
	struct node *node = client->node;
	bool flock = space == MF_FILELOCK_FLOCK;
	struct mf_filelock request = {
		.ino = mf_handle_ino(handle),
		.owner = flock ? (uint64_t)(uintptr_t)handle : client->id + 1,
		.fh = (uint64_t)(uintptr_t)handle,
		.pid = (int32_t)client->id + 1,
		.space = space,
		.type = type,
		.start = 0,
		.end = INT64_MAX,
	};
	g_autoptr(GArray) done = mf_filelock_done_new();
	bool park = type != MF_FILELOCK_UNLOCK;
	struct wait *wait = g_new0(struct wait, 1);
	int r = park ? client_begin(client) : 0;

	if (r < 0)
		return r;
	r = mf_fs_set_lock(node->fs, &request, park ? wait : NULL, done);
	kernel_answer_locks(done);
	if (r != MF_FILELOCK_PARKED)
		return r;
	/* A signal comes now and then, and when nobody would answer any more. */
	int64_t signal = sched_chance(2000) ? sched_now() + sched_between(0, 5000000) : -1;
	while (!wait->done) {
		sched_wait(&wait->queue, "a file lock", wait,
			signal >= 0 ? signal : sched_now() + 1000000);
		bool due = signal >= 0 && sched_now() >= signal;
		if (wait->done || wait->interrupted || !(due || mf_node_is_fenced(node->node)))
			continue;
		wait->interrupted = true;
		signal = -1;
		g_array_set_size(done, 0);
		mf_fs_cancel_lock(node->fs, wait, done);
		kernel_answer_locks(done);
	}
	return wait->result;
}

static int open_in(struct client *client, const char *dir, const char *name, MfHandle **ret_handle)
{
	uint64_t parent, ino;
	int r = client_walk(client, dir, &parent);

	if (r == 0)
		r = client_lookup(client, parent, name, &ino);
	if (r == 0)
		r = client_begin(client);
	if (r == 0)
		r = mf_fs_open_file(client->node->fs, ino, O_RDWR, client->id + 1, ret_handle);
	if (r < 0)
		client_unexpected(client, name, r);
	return r;
}

static int read_value(struct client *client, Register *reg, MfHandle *handle, int *ret_value)
{
	int value = 0;
	int r = client_begin(client);

	if (r < 0)
		return r;
	Call *call = check_invoke(reg, CALL_READ, 0, 0);
	ssize_t n = client_read(client, handle, &value, sizeof(value));
	check_return(call, n < 0 ? CK_UNKNOWN : n == sizeof(value) ? value : 0);
	if (n < 0)
		client_unexpected(client, check_name(reg), (int)n);
	*ret_value = value;
	return n < 0 ? (int)n : 0;
}

static int count(struct client *client)
{
	struct node *node = client->node;
	unsigned i = sched_below(COUNTERS);
	char name[32];
	MfHandle *handle;

	snprintf(name, sizeof(name), "count%u", i);
	int r = open_in(client, "p", name, &handle);
	if (r < 0)
		return r;
	enum mf_filelock_space space = i % 2 ? MF_FILELOCK_FLOCK : MF_FILELOCK_POSIX;
	int last = 0;
	r = set_lock(client, handle, space, MF_FILELOCK_WRITE);
	if (r == 0) {
		/* A mount that is over may believe what it likes: it can change nothing any more. */
		bool valid = !client_is_over(client);
		if (valid && holders[i] && !check_reign_is_lost(holder_reign[i]))
			sched_fail("%s: two hold its lock: reigns %d and %d", name, holder_reign[i], client->reign);
		if (valid) {
			holders[i] = client;
			holder_reign[i] = client->reign;
		}
		r = read_value(client, counters[i], handle, &last);
		if (r == 0)
			r = client_begin(client);
		if (r == 0) {
			int value = last = ++next_value;
			Call *call = check_invoke(counters[i], CALL_WRITE, value, 0);
			ssize_t n = mf_fs_write(node->fs, handle, &value, sizeof(value), 0, O_RDWR, 1000);
			check_return(call, n == sizeof(value) ? 0 : CK_UNKNOWN);
			if (n < 0)
				client_unexpected(client, name, (int)n);
			r = n < 0 ? (int)n : 0;
		}
		if (r == 0 && sched_chance(5000)) {
			uint64_t moment = check_moment();
			r = client_begin(client);
			if (r == 0)
				r = mf_fs_fsync(node->fs, handle);
			if (r == 0 && !client_is_over(client))
				check_durable(counters[i], moment);
		}
		int again = last;
		if (r == 0)
			r = read_value(client, counters[i], handle, &again);
		/* Also what the register allows: somebody else's change that was never answered. */
		if (r == 0 && again != last && valid && !client_is_over(client))
			sched_fail("%s: %d became %d under the lock", name, last, again);
		if (holders[i] == client && holder_reign[i] == client->reign)
			holders[i] = NULL;
		if (sched_chance(7000))
			set_lock(client, handle, space, MF_FILELOCK_UNLOCK);
	} else if (r == -EINTR) {
		r = 0; /* the signal */
	} else {
		client_unexpected(client, "lock", r);
	}
	client_close(client, handle);
	return r;
}

static int peek(struct client *client)
{
	unsigned i = sched_below(COUNTERS);
	char name[32];
	MfHandle *handle;
	int value;

	snprintf(name, sizeof(name), "count%u", i);
	int r = open_in(client, "p", name, &handle);
	if (r < 0)
		return r;
	r = read_value(client, counters[i], handle, &value);
	client_close(client, handle);
	return r;
}

/* ---- directories, dotlocks ---- */

static int toggle_dir(struct client *client)
{
	struct node *node = client->node;
	unsigned i = sched_below(DIRS);
	bool make = sched_chance(5000);
	struct mf_stat st;
	char name[32];
	uint64_t parent, ino = 0;

	snprintf(name, sizeof(name), "x%u", i);
	int r = client_walk(client, "d", &parent);
	if (r < 0)
		return r;
	/* The kernel looks first. */
	Call *test = check_invoke(dirs[i], CALL_TEST, 0, 0);
	r = client_lookup(client, parent, name, &ino);
	check_return(test, client_is_trouble(r) ? CK_UNKNOWN : r == 0);
	if (client_is_trouble(r))
		return r;
	if (make ? r == 0 : r < 0)
		return 0;
	r = client_begin(client);
	if (r < 0)
		return r;
	Call *call = check_invoke(dirs[i], make ? CALL_CREATE : CALL_CLEAR, 1, 0);
	kernel_lock(node, parent, true);
	if (make) {
		r = mf_fs_mkdir(node->fs, parent, name, S_IFDIR | 0700, &client_cred, &st);
		if (r == 0)
			kernel_entry(client, parent, name, &st);
	} else {
		kernel_lock(node, ino, true);
		r = mf_fs_rmdir(node->fs, parent, name);
		if (r == 0)
			kernel_drop(node, parent, name);
		kernel_unlock(node, ino, true);
	}
	kernel_unlock(node, parent, true);
	check_return(call, client_outcome(client, r));
	if (r < 0 && r != -ENOENT && r != -EEXIST)
		client_unexpected(client, make ? "mkdir" : "rmdir", r);
	return client_is_trouble(r) ? r : 0;
}

static int dotlock(struct client *client)
{
	struct node *node = client->node;
	unsigned i = sched_below(DOTLOCKS);
	MfHandle *handle;
	struct mf_stat st;
	char name[32];
	uint64_t parent;

	snprintf(name, sizeof(name), "file%u.excl", i);
	int r = client_walk(client, "p", &parent);
	if (r == 0)
		r = client_begin(client);
	if (r < 0)
		return r;
	int mine = ++next_value;
	Call *call = check_invoke(dotlocks[i], CALL_CREATE, mine, 0);
	kernel_lock(node, parent, true);
	r = mf_fs_create(node->fs, parent, name, S_IFREG | 0600, O_WRONLY | O_CREAT | O_EXCL, &client_cred, &st, &handle);
	if (r == 0)
		kernel_entry(client, parent, name, &st);
	kernel_unlock(node, parent, true);
	check_return(call, client_outcome(client, r));
	if (r == 0) {
		client_close(client, handle);
		if (sched_chance(5000))
			sched_sleep(sched_between(0, 1500000));
		call = check_invoke(dotlocks[i], CALL_CLEAR, 0, 0); /* or that of who broke ours */
		r = client_unlink(client, parent, st.ino, name);
		check_return(call, client_outcome(client, r));
	} else if (r == -EEXIST && sched_chance(2000)) {
		/* Stale, thinks somebody. */
		call = check_invoke(dotlocks[i], CALL_CLEAR, 0, 0);
		r = client_unlink(client, parent, 0, name);
		check_return(call, client_outcome(client, r));
	}
	if (r < 0 && r != -EEXIST && r != -ENOENT)
		client_unexpected(client, "dotlock", r);
	return client_is_trouble(r) ? r : 0;
}

/* Which of them are there. */
static int list_dirs(struct client *client)
{
	Call *test[DIRS];
	int seen[DIRS] = { 0 };
	MfListing *listing;
	struct mf_listed item;
	uint64_t ino;
	int r = client_walk(client, "d", &ino);

	if (r == 0)
		r = client_begin(client);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < DIRS; i++)
		test[i] = check_invoke(dirs[i], CALL_TEST, 0, 0);
	r = client_list(client, ino, &listing);
	for (uint64_t k = 0; r == 0 && mf_listing_get(listing, k, &item); k++) {
		unsigned i;
		if (sscanf(item.name, "x%u", &i) == 1 && i < DIRS && seen[i]++ > 0)
			sched_fail("%s is listed twice", item.name);
	}
	for (unsigned i = 0; i < DIRS; i++)
		check_return(test[i], r < 0 ? CK_UNKNOWN : seen[i]);
	if (r < 0)
		client_unexpected(client, "listing d", r);
	else
		mf_listing_free(listing);
	return r;
}

/* ---- files that are replaced ---- */

/* A new one under another name, moved over the old one. */
static int replace(struct client *client)
{
	struct node *node = client->node;
	unsigned i = sched_below(SLOTS);
	int value = ++next_value;
	char name[32], new_name[32];
	uint64_t parent, old = 0;
	MfHandle *handle;
	struct mf_stat st;

	snprintf(name, sizeof(name), "slot%u", i);
	snprintf(new_name, sizeof(new_name), "slot%u.%d", i, value);
	int r = client_walk(client, "p", &parent);
	if (r == 0)
		r = client_begin(client);
	if (r < 0)
		return r;
	kernel_lock(node, parent, true);
	r = mf_fs_create(node->fs, parent, new_name, S_IFREG | 0600, O_WRONLY | O_CREAT | O_EXCL, &client_cred, &st, &handle);
	if (r == 0)
		kernel_entry(client, parent, new_name, &st);
	kernel_unlock(node, parent, true);
	if (r < 0) {
		client_unexpected(client, new_name, r);
		return r;
	}
	uint64_t ino = st.ino;
	r = client_begin(client);
	if (r == 0) {
		ssize_t n = mf_fs_write(node->fs, handle, &value, sizeof(value), 0, O_WRONLY, 1000);
		r = n < 0 ? (int)n : 0;
	}
	client_close(client, handle);
	if (r == 0) {
		r = client_lookup(client, parent, name, &old);
		if (r == -ENOENT)
			r = 0;
	}
	if (r == 0)
		r = client_begin(client);
	if (r < 0) {
		client_unexpected(client, new_name, r);
		return r;
	}
	Call *call = check_invoke(slots[i], CALL_WRITE, value, 0);
	kernel_lock_two(node, parent, parent);
	kernel_lock(node, ino, true);
	if (old && old != ino)
		kernel_lock(node, old, true);
	r = mf_fs_rename(node->fs, parent, new_name, parent, name, 0);
	if (r == 0) {
		kernel_drop(node, parent, name);
		kernel_drop(node, parent, new_name);
	}
	if (old && old != ino)
		kernel_unlock(node, old, true);
	kernel_unlock(node, ino, true);
	kernel_unlock_two(node, parent, parent);
	check_return(call, client_outcome(client, r));
	if (r < 0)
		client_unexpected(client, name, r);
	else if (sched_chance(3000)) {
		uint64_t moment = check_moment();
		r = client_begin(client);
		if (r == 0)
			r = client_fsyncdir(client, parent);
		if (r == 0 && !client_is_over(client))
			check_durable(slots[i], moment);
	}
	return r;
}

/* What was opened stays as it was, whatever its name leads to by now. */
static int read_slot(struct client *client)
{
	struct node *node = client->node;
	unsigned i = sched_below(SLOTS);
	int value = 0, again = 0;
	char name[32];
	uint64_t parent, ino;
	MfHandle *handle;

	snprintf(name, sizeof(name), "slot%u", i);
	int r = client_walk(client, "p", &parent);
	if (r < 0)
		return r;
	Call *call = check_invoke(slots[i], CALL_READ, 0, 0);
	r = client_lookup(client, parent, name, &ino);
	if (r == -ENOENT) {
		check_return(call, CK_ABSENT);
		return 0;
	}
	if (r == 0)
		r = client_begin(client);
	if (r == 0)
		r = mf_fs_open_file(node->fs, ino, O_RDONLY, client->id + 1, &handle);
	if (r < 0) {
		check_return(call, CK_UNKNOWN);
		/* It may be gone since it was found. */
		if (r != -ENOENT && r != -ESTALE)
			client_unexpected(client, name, r);
		return client_is_trouble(r) ? r : 0;
	}
	ssize_t n = client_read(client, handle, &value, sizeof(value));
	check_return(call, n == sizeof(value) ? value : CK_UNKNOWN);
	if (n >= 0 && n != sizeof(value) && !client_is_over(client))
		sched_fail("%s: %zd bytes", name, n);
	if (n == sizeof(value) && sched_chance(5000)) {
		sched_sleep(sched_between(0, 3000000));
		r = client_begin(client);
		n = r < 0 ? r : client_read(client, handle, &again, sizeof(again));
		if (n >= 0 && again != value && !client_is_over(client))
			sched_fail("%s: %d became %d (%zd bytes) while it was open", name, value, again, n);
	}
	if (n < 0)
		client_unexpected(client, name, (int)n);
	client_close(client, handle);
	return n < 0 ? (int)n : 0;
}

/* ---- a day's work ---- */

int workload_step(struct client *client)
{
	struct message *m;
	unsigned what = sched_below(100);
	int r;

	client->reign = sched_reign(client->node->life);
	if (what < 12)
		r = deliver(client, true);
	else if (what < 20)
		r = folders_step(client);
	else if (what < 27)
		r = deliver(client, false);
	else if (what < 42)
		r = move(client, false);
	else if (what < 46)
		r = move(client, true);
	else if (what < 48)
		r = copy(client);
	else if (what < 54)
		r = expunge(client);
	else if (what < 63)
		r = list(client, sched_below(plan.maildirs * 2));
	else if (what < 71)
		r = (m = some_message()) ? look(client, m) : 0;
	else if (what < 79)
		r = count(client);
	else if (what < 82)
		r = peek(client);
	else if (what < 87)
		r = toggle_dir(client);
	else if (what < 89)
		r = list_dirs(client);
	else if (what < 93)
		r = replace(client);
	else if (what < 96)
		r = read_slot(client);
	else if (what < 97)
		r = watcher_step(client);
	else
		r = dotlock(client);
	kernel_put_all(client);
	return r;
}

/* ---- before and after ---- */

static uint64_t must_mkdir(struct node *node, uint64_t parent, const char *name)
{
	struct mf_stat st;
	int r = mf_fs_mkdir(node->fs, parent, name, S_IFDIR | 0700, &client_cred, &st);

	if (r < 0)
		sched_fail("mkdir %s: %s", name, strerror(-r));
	mf_fs_answered(node->fs, &st);
	return st.ino;
}

void workload_setup(struct node *node)
{
	char name[32];

	for (unsigned i = 0; i < plan.maildirs; i++) {
		snprintf(name, sizeof(name), "u%u", i);
		uint64_t user = must_mkdir(node, MF_ROOT_INO, name);
		must_mkdir(node, user, "tmp");
		must_mkdir(node, user, "new");
		must_mkdir(node, user, "cur");
	}
	uint64_t plain = must_mkdir(node, MF_ROOT_INO, "p");
	must_mkdir(node, MF_ROOT_INO, "d");
	for (unsigned i = 0; i < COUNTERS; i++) {
		MfHandle *handle;
		struct mf_stat st;
		int value = 1;
		snprintf(name, sizeof(name), "count%u", i);
		int r = mf_fs_create(node->fs, plain, name, S_IFREG | 0600, O_WRONLY | O_CREAT, &client_cred, &st, &handle);
		if (r < 0 || mf_fs_write(node->fs, handle, &value, sizeof(value), 0, O_WRONLY, 0) != sizeof(value))
			sched_fail("cannot make %s", name);
		mf_fs_answered(node->fs, &st);
		g_autoptr(GArray) done = mf_filelock_done_new();
		mf_fs_release(node->fs, handle, done);
		counters[i] = check_register(name, value);
	}
	for (unsigned i = 0; i < DIRS; i++) {
		snprintf(name, sizeof(name), "directory x%u", i);
		dirs[i] = check_register(name, CK_ABSENT);
	}
	for (unsigned i = 0; i < DOTLOCKS; i++) {
		snprintf(name, sizeof(name), "file%u.excl", i);
		dotlocks[i] = check_register(name, CK_ABSENT);
	}
	for (unsigned i = 0; i < SLOTS; i++) {
		snprintf(name, sizeof(name), "slot%u", i);
		slots[i] = check_register(name, CK_ABSENT);
	}
}

#define BURIALS 8 /* at the end */

static GHashTable *alive; /* inode numbers that have a name */

static void collect(struct node *node, uint64_t dir)
{
	MfListing *listing;
	struct mf_listed item;
	int r, tries = 0;

	/* To take the place of one that is dead may take longer than the op_timeout of this run. */
	while ((r = mf_fs_list(node->fs, dir, &listing)) == -ETIMEDOUT && tries++ < BURIALS)
		;
	if (r < 0)
		sched_fail("listing %lx at the end: %s", (unsigned long)dir, strerror(-r));
	for (uint64_t i = 0; mf_listing_get(listing, i, &item); i++) {
		struct mf_stat st;
		if (strcmp(item.name, ".") == 0 || strcmp(item.name, "..") == 0)
			continue;
		while ((r = mf_fs_lookup(node->fs, dir, item.name, 0, &st)) == -ETIMEDOUT && tries++ < BURIALS)
			;
		if (r < 0)
			sched_fail("'%s' is listed and cannot be looked up: %s", item.name, strerror(-r));
		mf_fs_answered(node->fs, &st);
		if (st.ino != item.ino)
			sched_fail("'%s' is listed as another inode", item.name);
		uint64_t *ino = g_new(uint64_t, 1);
		*ino = st.ino;
		if (!g_hash_table_add(alive, ino) && !S_ISREG(item.mode))
			sched_fail("directory '%s' has two names", item.name);
		if (S_ISDIR(item.mode))
			collect(node, st.ino);
		mf_fs_forget(node->fs, st.ino, 1);
	}
	mf_listing_free(listing);
}

void workload_verify(struct node *node)
{
	struct client client = { .node = node, .lookups = g_array_new(false, false, sizeof(uint64_t)) };
	char name[32];
	int r = 0;

	alive = g_hash_table_new(g_int64_hash, g_int64_equal);
	collect(node, MF_ROOT_INO);
	for (unsigned i = 0; r == 0 && i < plan.maildirs * 2; i++)
		r = list(&client, i);
	for (unsigned i = 0; r == 0 && i < n_messages; i++) {
		r = look(&client, &messages[i]);
		kernel_put_all(&client);
	}
	for (unsigned i = 0; r == 0 && i < COUNTERS; i++) {
		MfHandle *handle;
		snprintf(name, sizeof(name), "count%u", i);
		r = open_in(&client, "p", name, &handle);
		if (r == 0) {
			int value;
			r = read_value(&client, counters[i], handle, &value);
			client_close(&client, handle);
		}
	}
	if (r == 0)
		r = folders_verify(&client);
	/* What is to be deleted, and who has it open, is in records of directories that everybody only reads. */
	sched_sleep(15000000);
	kernel_put_all(&client);
	if (r < 0)
		sched_fail("the last look failed: %s", strerror(-r));
}

static void check_leak(enum mf_pool_which which, const char *oid, void *arg)
{
	if ((oid[0] != 'm' && oid[0] != 'f' && oid[0] != 'd') || oid[1] != '.')
		return;
	uint64_t ino = g_ascii_strtoull(oid + 2, NULL, 16);
	if (ino != MF_ROOT_INO && !g_hash_table_contains(alive, &ino))
		sched_fail("%s is left and nothing names it", oid);
}

void workload_check_leaks(void)
{
	cluster_foreach(check_leak, NULL);
}
