/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/sim/sabotage.h - deliberate breaks of the product, to see that the checks notice.
 *
 * Model:   the linker sends calls of some functions of the product here (--wrap), so nothing of it is in the product.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

bool sabotage_exists(const char *name);
void sabotage_set(const char *name); /* one that exists */
void sabotage_list(FILE *file);
