/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tools/table.h"

#include <stdarg.h>
#include <stdio.h>

struct MfTable {
	unsigned columns;
	GPtrArray *cells; /* char *, row by row, the titles first */
};

MfTable *mf_table_new(const char *const *titles)
{
	MfTable *table = g_new0(MfTable, 1);

	table->cells = g_ptr_array_new_with_free_func(g_free);
	for (; titles[table->columns]; table->columns++)
		g_ptr_array_add(table->cells, g_strdup(titles[table->columns]));
	return table;
}

/* Names come from other nodes: nothing in them may move the cursor. */
static char *printable(char *cell)
{
	char *valid = g_utf8_make_valid(cell, -1);

	for (char *c = valid; *c; c++) {
		if (g_ascii_iscntrl(*c))
			*c = '?';
	}
	g_free(cell);
	return valid;
}

void mf_table_add(MfTable *table, ...)
{
	va_list args;

	va_start(args, table);
	for (unsigned i = 0; i < table->columns; i++)
		g_ptr_array_add(table->cells, printable(va_arg(args, char *)));
	va_end(args);
}

void mf_table_print(MfTable *table)
{
	g_autofree int *width = g_new0(int, table->columns);

	for (unsigned i = 0; i < table->cells->len; i++) {
		unsigned column = i % table->columns;
		width[column] = MAX(width[column], (int)g_utf8_strlen(table->cells->pdata[i], -1));
	}
	for (unsigned i = 0; i < table->cells->len; i++) {
		unsigned column = i % table->columns;
		const char *cell = table->cells->pdata[i];
		if (column + 1 == table->columns)
			printf("%s\n", cell);
		else
			printf("%s%*s  ", cell, width[column] - (int)g_utf8_strlen(cell, -1), "");
	}
	mf_table_free(table);
}

void mf_table_free(MfTable *table)
{
	g_ptr_array_unref(table->cells);
	g_free(table);
}

char *mf_table_age(int64_t since)
{
	int64_t s = MAX(g_get_real_time() / G_USEC_PER_SEC - since, 0);

	if (s < 100)
		return g_strdup_printf("%d s", (int)s);
	if (s < 100 * 60)
		return g_strdup_printf("%d min", (int)(s / 60));
	if (s < 2 * 86400)
		return g_strdup_printf("%d h", (int)(s / 3600));
	return g_strdup_printf("%d d", (int)(s / 86400));
}
