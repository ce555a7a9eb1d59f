/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/table.h - what is in a hash table now, so that it may change while one goes through it.
 *
 * GLib has these from 2.76 on; Debian 12 ships 2.74. */
#pragma once

#include <glib.h>
#include <stdbool.h>

GPtrArray *mf_table_keys(GHashTable *table);   /* borrowed pointers; g_ptr_array_unref() */
GPtrArray *mf_table_values(GHashTable *table);
