/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync/table.h"

static GPtrArray *collect(GHashTable *table, bool values)
{
	GPtrArray *array = g_ptr_array_sized_new(g_hash_table_size(table));
	GHashTableIter iter;
	gpointer key, value;

	g_hash_table_iter_init(&iter, table);
	while (g_hash_table_iter_next(&iter, &key, &value))
		g_ptr_array_add(array, values ? value : key);
	return array;
}

GPtrArray *mf_table_keys(GHashTable *table)
{
	return collect(table, false);
}

GPtrArray *mf_table_values(GHashTable *table)
{
	return collect(table, true);
}
