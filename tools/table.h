/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tools/table.h - columns for people.
 *
 * Model:   rows of cells are collected, then printed with each column as wide as its widest cell.
 * Owns:    the table owns its cells.
 * Threads: none.
 * Errors:  none.
 */
#ifndef MF_TOOLS_TABLE_H
#define MF_TOOLS_TABLE_H

#include <glib.h>
#include <stdint.h>

typedef struct MfTable MfTable;

/* @titles: ends with NULL. */
MfTable *mf_table_new(const char *const *titles);
/* As many cells as there are titles; each is the table's from now on. */
void mf_table_add(MfTable *table, ...);
void mf_table_print(MfTable *table); /* frees it */
void mf_table_free(MfTable *table);

/* "3 d 4 h", "12 s": how long ago @since (s since 1970) was. The caller's. */
char *mf_table_age(int64_t since);

#endif
