/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/stripecache.h"

struct entry {
	uint64_t ino;
	uint32_t index;
	GBytes *plain;
	GList link; /* in lru */
};

struct MfStripeCache {
	GMutex lock;
	GHashTable *entries; /* a set of struct entry */
	GQueue lru;	     /* head: most recently used */
	uint64_t bytes, limit;
};

static guint entry_hash(gconstpointer p)
{
	const struct entry *e = p;

	return (guint)(e->ino ^ e->ino >> 32) * 31u + e->index;
}

static gboolean entry_equal(gconstpointer a, gconstpointer b)
{
	const struct entry *x = a, *y = b;

	return x->ino == y->ino && x->index == y->index;
}

/* What an entry costs beside its bytes. */
static uint64_t weight(const struct entry *e)
{
	return g_bytes_get_size(e->plain) + sizeof(*e) + 64;
}

static void drop(MfStripeCache *cache, struct entry *e)
{
	cache->bytes -= weight(e);
	g_queue_unlink(&cache->lru, &e->link);
	g_hash_table_remove(cache->entries, e);
	g_bytes_unref(e->plain);
	g_free(e);
}

MfStripeCache *mf_stripecache_new(uint64_t limit)
{
	MfStripeCache *cache = g_new0(MfStripeCache, 1);

	g_mutex_init(&cache->lock);
	cache->entries = g_hash_table_new(entry_hash, entry_equal);
	cache->limit = limit;
	return cache;
}

MfStripeCache *mf_stripecache_free(MfStripeCache *cache)
{
	if (!cache)
		return NULL;
	while (cache->lru.tail)
		drop(cache, cache->lru.tail->data);
	g_hash_table_unref(cache->entries);
	g_mutex_clear(&cache->lock);
	g_free(cache);
	return NULL;
}

GBytes *mf_stripecache_get(MfStripeCache *cache, uint64_t ino, uint32_t index)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&cache->lock);
	struct entry *e = g_hash_table_lookup(cache->entries, &(struct entry){ .ino = ino, .index = index });

	if (!e)
		return NULL;
	g_queue_unlink(&cache->lru, &e->link);
	g_queue_push_head_link(&cache->lru, &e->link);
	return g_bytes_ref(e->plain);
}

void mf_stripecache_put(MfStripeCache *cache, uint64_t ino, uint32_t index, GBytes *plain)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&cache->lock);
	struct entry *e = g_hash_table_lookup(cache->entries, &(struct entry){ .ino = ino, .index = index });

	if (e || g_bytes_get_size(plain) > cache->limit / 2)
		return; /* there, or it would throw everything else out */
	e = g_new0(struct entry, 1);
	*e = (struct entry){ .ino = ino, .index = index, .plain = g_bytes_ref(plain), .link.data = e };
	g_hash_table_add(cache->entries, e);
	g_queue_push_head_link(&cache->lru, &e->link);
	cache->bytes += weight(e);
	while (cache->bytes > cache->limit && cache->lru.tail)
		drop(cache, cache->lru.tail->data);
}

void mf_stripecache_drop(MfStripeCache *cache, uint64_t ino, uint32_t index)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&cache->lock);
	struct entry *e = g_hash_table_lookup(cache->entries, &(struct entry){ .ino = ino, .index = index });

	if (e)
		drop(cache, e);
}

uint64_t mf_stripecache_bytes(MfStripeCache *cache)
{
	g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&cache->lock);

	return cache->bytes;
}
