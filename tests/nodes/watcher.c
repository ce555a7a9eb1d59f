/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nodes/watcher.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nodes/nodes.h"

struct MfWatcher {
	int fd, wd[MF_WATCHER_PLACES];
	ssize_t filled, at; /* of buf */
	char buf[65536] __attribute__((aligned(__alignof__(struct inotify_event))));
};

MfWatcher *mf_watcher_new(void)
{
	MfWatcher *watcher = calloc(1, sizeof(*watcher));

	if (!watcher || (watcher->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) < 0)
		mf_nodes_fail("inotify: %s", strerror(errno));
	return watcher;
}

MfWatcher *mf_watcher_free(MfWatcher *watcher)
{
	if (watcher)
		close(watcher->fd);
	free(watcher);
	return NULL;
}

void mf_watcher_add(MfWatcher *watcher, int place, const char *path)
{
	watcher->wd[place] =
		inotify_add_watch(watcher->fd, path, IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MODIFY);
	if (watcher->wd[place] < 0)
		mf_nodes_fail("watch %s: %s", path, strerror(errno));
}

void mf_watcher_remove(MfWatcher *watcher, int place)
{
	/* with its file it is gone already */
	inotify_rm_watch(watcher->fd, watcher->wd[place]);
	watcher->wd[place] = 0;
}

static bool fill(MfWatcher *watcher, double seconds)
{
	struct pollfd poll_fd = { .fd = watcher->fd, .events = POLLIN };

	watcher->at = 0;
	watcher->filled = 0;
	if (poll(&poll_fd, 1, seconds > 0 ? (int)(seconds * 1000 + 0.999) : 0) > 0)
		watcher->filled = read(watcher->fd, watcher->buf, sizeof(watcher->buf));
	return watcher->filled > 0;
}

bool mf_watcher_next(MfWatcher *watcher, double seconds, struct mf_event *ret)
{
	double end = mf_tap_now() + seconds;

	for (;;) {
		const struct inotify_event *e = (const void *)(watcher->buf + watcher->at);
		int place = 0;

		if (watcher->at >= watcher->filled) {
			if (!fill(watcher, end - mf_tap_now()))
				return false;
			continue;
		}
		watcher->at += (ssize_t)(sizeof(*e) + e->len);
		while (place < MF_WATCHER_PLACES && (e->wd <= 0 || watcher->wd[place] != e->wd))
			place++;
		if ((place == MF_WATCHER_PLACES && !(e->mask & IN_Q_OVERFLOW)) || (e->mask & IN_IGNORED))
			continue;
		*ret = (struct mf_event){ .place = place, .mask = e->mask, .cookie = e->cookie, .when = mf_tap_now() };
		if (e->len > 0)
			snprintf(ret->name, sizeof(ret->name), "%s", e->name);
		return true;
	}
}

bool mf_event_is_vague(const struct mf_event *event)
{
	return (event->mask & IN_Q_OVERFLOW) || ((event->mask & IN_DELETE) && !strcmp(event->name, MF_CHANGED));
}

const char *mf_event_text(uint32_t mask)
{
	static const struct {
		uint32_t bit;
		const char *text;
	} bits[] = {
		{ IN_CREATE, "CREATE" },
		{ IN_DELETE, "DELETE" },
		{ IN_MOVED_FROM, "MOVED_FROM" },
		{ IN_MOVED_TO, "MOVED_TO" },
		{ IN_MODIFY, "MODIFY" },
		{ IN_UNMOUNT, "UNMOUNT" },
		{ IN_Q_OVERFLOW, "Q_OVERFLOW" },
		{ IN_ISDIR, "ISDIR" },
	};
	static char text[128];

	text[0] = 0;
	for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
		if (mask & bits[i].bit)
			sprintf(text + strlen(text), "%s%s", *text ? "|" : "", bits[i].text);
	return text;
}
