/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/stripecache.h - plain bytes of published messages, least recently used out first.
 *
 * Model:   what it holds was verified against its digest and can never become stale: messages are immutable.
 * Threads: any; has a lock of its own.
 */
#pragma once

#include <glib.h>
#include <stdint.h>

typedef struct MfStripeCache MfStripeCache;

MfStripeCache *mf_stripecache_new(uint64_t limit);
MfStripeCache *mf_stripecache_free(MfStripeCache *cache); /* NULL ok */
GBytes *mf_stripecache_get(MfStripeCache *cache, uint64_t ino, uint32_t index); /* a reference, or NULL */
void mf_stripecache_put(MfStripeCache *cache, uint64_t ino, uint32_t index, GBytes *plain);
void mf_stripecache_drop(MfStripeCache *cache, uint64_t ino, uint32_t index); /* if it is there */
uint64_t mf_stripecache_bytes(MfStripeCache *cache);
