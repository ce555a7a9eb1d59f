/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/nodes/watcher.h - what inotify tells one process of some directories and files.
 *
 * Model:   a queue of inotify with numbered places. Events of a place that is not watched any more are passed over.
 * Threads: one at a time.
 * Errors:  what cannot be watched ends the process.
 */
#ifndef TESTS_NODES_WATCHER_H
#define TESTS_NODES_WATCHER_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/inotify.h>

enum { MF_WATCHER_PLACES = 8 };

/* What another node may have done, when it was too much to tell. */
#define MF_CHANGED ".mailfs-changed"

struct mf_event {
	int place;
	uint32_t mask, cookie;
	double when;		 /* it was read */
	char name[NAME_MAX + 1]; /* empty: the watched file itself */
};

typedef struct MfWatcher MfWatcher;

MfWatcher *mf_watcher_new(void);
MfWatcher *mf_watcher_free(MfWatcher *watcher);
void mf_watcher_add(MfWatcher *watcher, int place, const char *path);
void mf_watcher_remove(MfWatcher *watcher, int place);
/* Waits at most @seconds for an event. False: there is none. */
bool mf_watcher_next(MfWatcher *watcher, double seconds, struct mf_event *ret);
/* It says that something in its place has changed, no matter what. */
bool mf_event_is_vague(const struct mf_event *event);
/* For a note; static. */
const char *mf_event_text(uint32_t mask);

#endif
