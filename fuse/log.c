/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/log.h"

#include <stdio.h>
#include <string.h>
#include <syslog.h>

/* Set before threads start; `to_stderr' once more, atomically. */
static struct {
	bool foreground;
	int to_stderr;
	GLogLevelFlags wanted; /* every level that is to be seen */
} sink;

static const struct level {
	GLogLevelFlags flag;
	const char *name;
	int priority;
	enum mf_conf_log_level least;
} levels[] = {
	{ G_LOG_LEVEL_ERROR, "fatal", LOG_CRIT, MF_CONF_LOG_ERROR },
	{ G_LOG_LEVEL_CRITICAL, "error", LOG_ERR, MF_CONF_LOG_ERROR },
	{ G_LOG_LEVEL_WARNING, "warning", LOG_WARNING, MF_CONF_LOG_WARNING },
	{ G_LOG_LEVEL_MESSAGE, "notice", LOG_NOTICE, MF_CONF_LOG_INFO },
	{ G_LOG_LEVEL_INFO, "info", LOG_INFO, MF_CONF_LOG_INFO },
	{ G_LOG_LEVEL_DEBUG, "debug", LOG_DEBUG, MF_CONF_LOG_DEBUG },
};

static const struct level *level_of(GLogLevelFlags flags)
{
	for (size_t i = 0; i < G_N_ELEMENTS(levels); i++)
		if (flags & levels[i].flag)
			return &levels[i];
	return &levels[G_N_ELEMENTS(levels) - 1];
}

static GString *message_of(const GLogField *fields, gsize n_fields)
{
	for (gsize i = 0; i < n_fields; i++) {
		if (strcmp(fields[i].key, "MESSAGE"))
			continue;

		GString *text = g_string_new_len(
			fields[i].value, fields[i].length < 0 ? (gssize)strlen(fields[i].value) : fields[i].length);

		/* One message, one line, whatever a file name holds. */
		for (gsize c = 0; c < text->len; c++)
			if (g_ascii_iscntrl(text->str[c]))
				text->str[c] = '?';
		return text;
	}
	return g_string_new("(no message)");
}

static void write_stderr(const struct level *level, const char *text)
{
	if (!sink.foreground) {
		fprintf(stderr, "mailfs: %s\n", text);
		return;
	}

	g_autoptr(GDateTime) now = g_date_time_new_now_local();
	g_autofree char *stamp = g_date_time_format(now, "%Y-%m-%d %H:%M:%S");

	fprintf(stderr, "%s.%03d %s: %s\n", stamp, g_date_time_get_microsecond(now) / 1000, level->name, text);
}

static GLogWriterOutput writer(GLogLevelFlags flags, const GLogField *fields, gsize n_fields, gpointer arg)
{
	const struct level *level = level_of(flags);

	if (!(sink.wanted & level->flag))
		return G_LOG_WRITER_HANDLED;

	GString *text = message_of(fields, n_fields);

	if (!sink.foreground)
		syslog(level->priority, "%s", text->str);
	if (sink.foreground || (g_atomic_int_get(&sink.to_stderr) && level->least <= MF_CONF_LOG_WARNING))
		write_stderr(level, text->str);
	g_string_free(text, TRUE);
	return G_LOG_WRITER_HANDLED;
}

void mf_log_start(bool foreground, enum mf_conf_log_level level)
{
	sink.foreground = foreground;
	sink.to_stderr = true;
	sink.wanted = 0;
	for (size_t i = 0; i < G_N_ELEMENTS(levels); i++)
		if (levels[i].least <= level)
			sink.wanted |= levels[i].flag;
	if (!foreground)
		openlog("mailfs", LOG_PID, LOG_MAIL);
	g_log_set_writer_func(writer, NULL, NULL);
}

void mf_log_detach(void)
{
	g_atomic_int_set(&sink.to_stderr, false);
}
