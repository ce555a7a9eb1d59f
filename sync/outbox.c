/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/outbox.h"

#define EVENTS_MAX 128u /* names in one message */
#define BURST 8u /* events in a message: more of them may wait longer. A delivery by LMTP makes about five */
#define PAUSE_MIN_US 20000
#define PAUSE_MAX_US 200000
#define RETRY_US G_USEC_PER_SEC
#define DRAIN_US (3 * G_USEC_PER_SEC)

struct outbox {
	MfFs *fs;
	uint64_t ino;
	uint32_t to;
	uint64_t epoch;	   /* of the latest event */
	uint64_t base, version; /* of the latest event, see struct mf_event_record */
	GPtrArray *events; /* what is to be told */
	bool many;	   /* ... and more than that */
	bool sending;	   /* not in fs->outbox_queue */
	int64_t due;	   /* monotonic us */
	int64_t pause;	   /* after the last one */
};

static guint box_hash(gconstpointer data)
{
	const struct outbox *box = data;

	return g_int64_hash(&box->ino) ^ box->to;
}

static gboolean box_equal(gconstpointer a, gconstpointer b)
{
	const struct outbox *x = a, *y = b;

	return x->ino == y->ino && x->to == y->to;
}

static gint compare_due(gconstpointer a, gconstpointer b, gpointer data)
{
	const struct outbox *x = a, *y = b;

	return x->due < y->due ? -1 : x->due > y->due;
}

static void box_free(void *data)
{
	struct outbox *box = data;

	g_ptr_array_unref(box->events);
	g_free(box);
}

static bool has_something(const struct outbox *box)
{
	return box->events->len > 0 || box->many;
}

static void enqueue(struct outbox *box)
{
	GSequenceIter *at = g_sequence_insert_sorted(box->fs->outbox_queue, box, compare_due, NULL);

	if (g_sequence_iter_is_begin(at))
		g_cond_broadcast(&box->fs->outbox_cond);
}

void mf_outbox_init(MfFs *fs)
{
	fs->outboxes = g_hash_table_new_full(box_hash, box_equal, box_free, NULL);
	fs->outbox_queue = g_sequence_new(NULL);
	g_cond_init(&fs->outbox_cond);
}

void mf_outbox_clear(MfFs *fs)
{
	g_sequence_free(fs->outbox_queue);
	g_hash_table_unref(fs->outboxes);
	g_cond_clear(&fs->outbox_cond);
}

static struct outbox *find(MfFs *fs, uint64_t ino, uint32_t to)
{
	struct outbox key = { .ino = ino, .to = to };

	return g_hash_table_lookup(fs->outboxes, &key);
}

static bool is_told(const struct outbox *box, const struct mf_event *event)
{
	for (unsigned i = 0; i < box->events->len; i++) {
		const struct mf_event *e = box->events->pdata[i];
		if (e->kind == MF_EVENT_MODIFY && g_strcmp0(e->key, event->key) == 0)
			return true;
	}
	return false;
}

void mf_outbox_add(MfDir *dir, uint32_t to, const struct mf_event *event, uint64_t version)
{
	MfFs *fs = dir->fs;
	struct outbox *box = find(fs, dir->inode->ino, to);

	if (!box) {
		box = g_new0(struct outbox, 1);
		*box = (struct outbox){ .fs = fs, .ino = dir->inode->ino, .to = to, .events = mf_events_new() };
		box->due = g_get_monotonic_time();
		g_hash_table_add(fs->outboxes, box);
		enqueue(box);
	}
	box->epoch = dir->lease.epoch;
	box->base = dir->taken_version;
	box->version = MAX(box->version, version);
	if (event->kind == MF_EVENT_MODIFY && is_told(box, event))
		return;
	if (event->kind != MF_EVENT_MANY && box->events->len < EVENTS_MAX)
		g_ptr_array_add(box->events, mf_event_new(event->kind, event->type, event->ino, event->key, event->to));
	else
		box->many = true;
}

static void sent(int result, unsigned alive, unsigned silent, void *arg)
{
	struct outbox *box = arg;
	MfFs *fs = box->fs;

	g_mutex_lock(&fs->lock);
	box->sending = false;
	if (result != 0 || alive == 0) {
		box->many = true;
		box->due = g_get_monotonic_time() + RETRY_US;
	}
	enqueue(box);
	fs->sending--;
	g_cond_broadcast(&fs->sent_cond);
	g_mutex_unlock(&fs->lock);
}

static void send(struct outbox *box)
{
	MfFs *fs = box->fs;
	uint32_t to = box->to;

	/* What comes one by one is told one by one. */
	if (box->events->len > BURST || box->many)
		box->pause *= 2;
	else if (box->events->len <= BURST / 2)
		box->pause /= 2;
	if (box->many)
		g_ptr_array_add(box->events, mf_event_new(MF_EVENT_MANY, MF_KIND_FILE, 0, NULL, NULL));
	g_autoptr(GByteArray) bytes = mf_event_record_encode(&(struct mf_event_record){
		mf_node_incarnation(fs->node), box->ino, box->epoch, box->base, box->version, box->events });
	g_ptr_array_set_size(box->events, 0);
	box->many = false;
	box->sending = true;
	box->pause = CLAMP(box->pause, PAUSE_MIN_US, PAUSE_MAX_US);
	box->due = g_get_monotonic_time() + box->pause;
	fs->sending++;
	fs->events_told++;
	/* The answer may come before this returns, and it takes the lock. */
	g_mutex_unlock(&fs->lock);
	mf_node_send(fs->node, to, bytes->data, bytes->len, sent, box);
	g_mutex_lock(&fs->lock);
}

void *mf_outbox_thread(void *arg)
{
	MfFs *fs = arg;

	g_mutex_lock(&fs->lock);
	while (!fs->stopping) {
		GSequenceIter *first = g_sequence_get_begin_iter(fs->outbox_queue);
		if (g_sequence_iter_is_end(first)) {
			g_cond_wait(&fs->outbox_cond, &fs->lock);
			continue;
		}
		struct outbox *box = g_sequence_get(first);
		if (g_get_monotonic_time() < box->due) {
			g_cond_wait_until(&fs->outbox_cond, &fs->lock, box->due);
			continue;
		}
		g_sequence_remove(first);
		/* Quiet for a whole pause; or its node is dead, and what it missed it learns when it joins anew. */
		if (!has_something(box) || mf_node_holder(fs->node, box->to) != MF_HOLDER_LIVE) {
			g_hash_table_remove(fs->outboxes, box);
			g_cond_broadcast(&fs->sent_cond);
		} else {
			send(box);
		}
	}
	g_mutex_unlock(&fs->lock);
	return NULL;
}

static bool is_empty(MfFs *fs)
{
	GHashTableIter iter;
	gpointer key;

	g_hash_table_iter_init(&iter, fs->outboxes);
	while (g_hash_table_iter_next(&iter, &key, NULL)) {
		const struct outbox *box = key;
		if (box->sending || has_something(box))
			return false;
	}
	return true;
}

bool mf_outbox_drain(MfFs *fs)
{
	int64_t until = g_get_monotonic_time() + DRAIN_US;
	bool ok = true;

	while (!is_empty(fs) && ok && !mf_node_is_fenced(fs->node))
		ok = g_cond_wait_until(&fs->sent_cond, &fs->lock, until);
	return is_empty(fs);
}

void mf_outbox_reset(MfFs *fs)
{
	g_sequence_remove_range(g_sequence_get_begin_iter(fs->outbox_queue), g_sequence_get_end_iter(fs->outbox_queue));
	g_hash_table_remove_all(fs->outboxes);
}
