/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tools/place.h"

#include "fuse/mountinfo.h"
#include "tools/command.h"
#include "tools/ctlclient.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ASK_TIMEOUT_MS 5000
#define FIND_TIMEOUT_MS 1000 /* one that hangs holds up what is asked of another */
#define SYMLINKS_MAX 40

/* 1: a mailfs is mounted at @path. */
static int is_mount(const char *path)
{
	g_auto(mf_mount) mount = { NULL };
	int r = mf_mountinfo_find(NULL, path, &mount);

	return r <= 0 ? r : strcmp(mount.fstype, MF_MOUNT_FSTYPE) == 0;
}

/* One walk down @canonical. 1: found. 0: no. -ELOOP: there is a symlink; *ret_again is where it leads. */
static int walk_down(const char *canonical, char **ret_mountpoint, char **ret_inside, char **ret_again)
{
	g_auto(GStrv) names = g_strsplit(canonical + 1, "/", -1);
	g_autofree char *at = g_strdup("/");

	for (unsigned i = 0;; i++) {
		g_autofree char *rest = g_strjoinv("/", names + i);
		int r = is_mount(at);
		if (r > 0) {
			*ret_mountpoint = g_steal_pointer(&at);
			*ret_inside = g_strconcat("/", rest, NULL);
		}
		if (r != 0 || !*rest)
			return r;
		char *next = g_build_filename(at, names[i], NULL);
		g_free(at);
		at = next;
		/* A mount point is no symlink, and must not be asked. */
		r = is_mount(at);
		if (r < 0)
			return r;
		g_autofree char *target = r > 0 ? NULL : g_file_read_link(at, NULL);
		if (target) {
			g_autofree char *parent = g_path_get_dirname(at);
			g_autofree char *full =
				g_path_is_absolute(target) ? g_strdup(target) : g_build_filename(parent, target, NULL);
			g_autofree char *behind = g_strjoinv("/", names + i + 1);
			*ret_again = g_build_filename(full, behind, NULL);
			return -ELOOP;
		}
		if (r == 0 && access(at, F_OK) < 0)
			return -errno;
	}
}

/* Symlinks are followed down to the mount point, and not behind it. 1: found. */
static int find_mount(const char *path, char **ret_mountpoint, char **ret_inside)
{
	g_autofree char *canonical = g_canonicalize_filename(path, NULL);

	for (int links = 0; links < SYMLINKS_MAX; links++) {
		g_autofree char *again = NULL;
		int r = walk_down(canonical, ret_mountpoint, ret_inside, &again);

		if (r != -ELOOP || !again)
			return r;
		g_free(canonical);
		canonical = g_canonicalize_filename(again, NULL);
	}
	return -ELOOP;
}

static json_t *ask_status(const char *path)
{
	json_t *doc = NULL;

	return mf_ctlclient_ask(path, "status", FIND_TIMEOUT_MS, &doc) == 0 ? doc : NULL;
}

/* The daemon that serves the mount point; none is no failure. */
static int find_daemon(const struct mf_conf *conf, const char *command, struct mf_place *place)
{
	g_autofree char *wanted = g_utf8_make_valid(place->mountpoint, -1);
	g_autoptr(GPtrArray) paths = NULL;
	int status = 0;

	if (mf_ctlclient_list(conf->run_dir, &paths) < 0)
		return 0;
	for (unsigned i = 0; i < paths->len && !place->socket; i++) {
		json_t *doc = ask_status(paths->pdata[i]);
		const char *mountpoint = json_string_value(json_object_get(doc, "mountpoint"));
		const char *fs = json_string_value(json_object_get(doc, "fs"));

		if (g_strcmp0(mountpoint, wanted) == 0) {
			place->socket = g_strdup(paths->pdata[i]);
			place->incarnation = (uint32_t)json_integer_value(json_object_get(doc, "incarnation"));
			if (g_strcmp0(fs, conf->fs) != 0)
				status = mf_command_fail("%s: %s is a mount of the filesystem '%s', and the settings "
							 "are of '%s' (-c, -o)",
					command, place->mountpoint, fs ? fs : "?", conf->fs);
		}
		json_decref(doc);
	}
	return status;
}

int mf_place_find(const struct mf_conf *conf, const char *command, const char *path, struct mf_place *ret)
{
	g_auto(mf_place) place = { NULL };
	int r = find_mount(path, &place.mountpoint, &place.inside);

	if (r < 0)
		return mf_command_fail("%s: %s: %s", command, path, g_strerror(-r));
	if (r == 0)
		return mf_command_fail("%s: %s: no mailfs is mounted there", command, path);
	r = find_daemon(conf, command, &place);
	if (r)
		return r;
	*ret = place;
	place = (mf_place){ NULL };
	return 0;
}

void mf_place_clear(struct mf_place *place)
{
	g_clear_pointer(&place->mountpoint, g_free);
	g_clear_pointer(&place->inside, g_free);
	g_clear_pointer(&place->socket, g_free);
}

int mf_place_ask_all(const char *run_dir, const char *command, const char *request, json_t *docs)
{
	g_autoptr(GPtrArray) paths = NULL;
	int status = 0;
	int r = mf_ctlclient_list(run_dir, &paths);

	if (r < 0)
		return mf_command_fail("%s: %s: %s", command, run_dir, g_strerror(-r));
	for (unsigned i = 0; i < paths->len; i++) {
		const char *path = paths->pdata[i];
		json_t *doc = NULL;

		r = mf_ctlclient_ask(path, request, ASK_TIMEOUT_MS, &doc);
		if (r == -ECONNREFUSED || r == -ENOENT)
			fprintf(stderr, "mailfsctl: %s: %s: its daemon has died\n", command, path);
		else if (r < 0)
			status = mf_command_fail("%s: %s: %s", command, path, g_strerror(-r));
		else
			json_array_append_new(docs, doc);
	}
	return status;
}

void mf_place_show_all(const char *run_dir, json_t *docs, bool as_json, int status, void (*print)(json_t *doc))
{
	json_t *doc;
	size_t i;

	if (as_json) {
		json_dumpf(docs, stdout, JSON_INDENT(2));
		putchar('\n');
		return;
	}
	json_array_foreach(docs, i, doc)
	{
		if (i)
			putchar('\n');
		print(doc);
	}
	if (status == 0 && !json_array_size(docs))
		printf("no mailfs is running (no control socket answers in %s)\n", run_dir);
}
