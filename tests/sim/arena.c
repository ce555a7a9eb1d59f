/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/sim/arena.c - malloc(3) of the simulator: the same addresses for the same seed.
 *
 * Model:   the product walks hash tables whose keys are pointers, so where an object lies is part of a schedule. All
 *          memory comes from one region at a fixed address, by classes of size. arena_reset() starts it anew, whatever
 *          was allocated before (by the dynamic linker, by constructors that look at the environment).
 * Threads: one; the simulator has no other.
 */
#include "tests/sim/arena.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BASE ((char *)0x200000000000)
#define SIZE (UINT64_C(8) << 30)
#define CLASSES 48

struct head {
	uint64_t size; /* of the class */
	uint32_t class;
	uint32_t shift; /* what aligned_alloc() skipped */
};

static char *next, *end, *low;
static void *free_list[CLASSES];

/* Steps of 16 bytes up to 256, then four to a power of two. */
static unsigned class_of(size_t size, size_t *ret_size)
{
	if (size <= 256) {
		unsigned n = size == 0 ? 0 : (size - 1) / 16;
		*ret_size = (n + 1) * 16;
		return n;
	}
	unsigned class = 16;
	for (size_t s = 512; class < CLASSES; s *= 2, class ++) {
		if (size <= s) {
			*ret_size = s;
			return class;
		}
	}
	abort();
}

static void map(void)
{
	next = low = mmap(BASE, SIZE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	if (next != BASE)
		abort();
	end = next + SIZE;
}

void arena_reset(void)
{
	/* Far behind all that is there. */
	low = next = BASE + (SIZE >> 3);
	memset(free_list, 0, sizeof(free_list));
}

size_t arena_used(void)
{
	return next - low;
}

void *malloc(size_t size)
{
	size_t rounded;
	unsigned class = class_of(size, &rounded);
	struct head *head;

	if (free_list[class]) {
		head = free_list[class];
		free_list[class] = *(void **)(head + 1);
		return head + 1;
	}
	if (!next)
		map();
	if (next + sizeof(*head) + rounded > end) {
		errno = ENOMEM;
		return NULL;
	}
	head = (struct head *)next;
	next += sizeof(*head) + rounded;
	*head = (struct head){ rounded, class, 0 };
	return head + 1;
}

static struct head *head_of(void *p)
{
	struct head *head = (struct head *)p - 1;

	return head->shift ? (struct head *)((char *)p - head->shift) - 1 : head;
}

void free(void *p)
{
	/* What the time before arena_reset() left is never given out again. */
	if (!p || (char *)p < low)
		return;
	struct head *head = head_of(p);
	/* A use after this shows. */
	if (head->size <= 1024)
		memset(head + 1, 0xdd, head->size);
	*(void **)(head + 1) = free_list[head->class];
	free_list[head->class] = head;
}

void *calloc(size_t n, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	void *p = malloc(bytes);
	return p ? memset(p, 0, bytes) : NULL;
}

void *realloc(void *p, size_t size)
{
	if (!p)
		return malloc(size);
	struct head *head = head_of(p);
	size_t room = head->size - ((char *)p - (char *)(head + 1));
	if (size <= room && size * 2 + 64 >= room)
		return p;
	void *other = malloc(size);
	if (other) {
		memcpy(other, p, size < room ? size : room);
		free(p);
	}
	return other;
}

void *memalign(size_t align, size_t size)
{
	if (align <= 16)
		return malloc(size);
	char *p = malloc(size + align + sizeof(struct head));
	if (!p)
		return NULL;
	char *aligned = (char *)(((uintptr_t)p + align - 1) & ~(uintptr_t)(align - 1));
	if (aligned != p) {
		if (aligned - p < (ptrdiff_t)sizeof(struct head))
			aligned += align;
		((struct head *)aligned)[-1].shift = aligned - p;
	}
	return aligned;
}

void *aligned_alloc(size_t align, size_t size)
{
	return memalign(align, size);
}

int posix_memalign(void **ret, size_t align, size_t size)
{
	void *p = memalign(align, size);

	if (!p)
		return ENOMEM;
	*ret = p;
	return 0;
}

size_t malloc_usable_size(void *p)
{
	return p ? head_of(p)->size - ((char *)p - (char *)(head_of(p) + 1)) : 0;
}
