/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/answer.h"

#include "sync/report.h"

json_t *mf_answer_text(const char *s)
{
	g_autofree char *valid = s ? g_utf8_make_valid(s, -1) : NULL;

	return s ? json_string(valid) : json_null();
}

static json_t *lease(const struct mf_report_lease *item)
{
	json_t *waiters = json_array();

	for (unsigned i = 0; i < item->waiters->len; i++)
		json_array_append_new(waiters, json_integer(g_array_index(item->waiters, uint32_t, i)));
	return json_pack("{s:o, s:I, s:s, s:I, s:I, s:I, s:o}", "path", mf_answer_text(item->path), "inode",
		(json_int_t)item->ino, "mode", item->mode == MF_LEASE_EXCLUSIVE ? "exclusive" : "shared", "epoch",
		(json_int_t)item->epoch, "since", (json_int_t)item->since, "users", (json_int_t)item->users, "waiters",
		waiters);
}

json_t *mf_answer_leases(MfFs *fs)
{
	g_autoptr(GPtrArray) list = mf_report_leases(fs);
	json_t *array = json_array();

	for (unsigned i = 0; i < list->len; i++)
		json_array_append_new(array, lease(list->pdata[i]));
	return array;
}

static json_t *lock(const struct mf_report_lock *item)
{
	const struct mf_filelock *l = &item->lock;
	bool to_end = l->end == INT64_MAX;

	return json_pack("{s:o, s:I, s:I, s:s, s:s, s:I, s:o, s:I, s:I, s:I, s:b}", "path", mf_answer_text(item->path),
		"inode", (json_int_t)l->ino, "directory", (json_int_t)item->dir, "type",
		l->space == MF_FILELOCK_FLOCK ? "flock" : "fcntl", "access",
		l->type == MF_FILELOCK_WRITE ? "write" : "read", "start", (json_int_t)l->start, "end",
		to_end ? json_null() : json_integer(l->end), "incarnation", (json_int_t)l->incarnation, "pid",
		(json_int_t)l->pid, "position", (json_int_t)item->position, "elsewhere", item->elsewhere);
}

json_t *mf_answer_locks(MfFs *fs)
{
	g_autoptr(GPtrArray) list = mf_report_locks(fs);
	json_t *array = json_array();

	for (unsigned i = 0; i < list->len; i++)
		json_array_append_new(array, lock(list->pdata[i]));
	return array;
}
