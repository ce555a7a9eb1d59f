/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/sim/arena.h - memory at the same addresses for the same seed. */
#pragma once

#include <stddef.h>

/* From here on addresses depend on nothing that was allocated before. */
void arena_reset(void);
size_t arena_used(void);

/* What malloc.h declares. */
void *memalign(size_t align, size_t size);
size_t malloc_usable_size(void *p);
