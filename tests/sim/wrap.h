/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/sim/wrap.h - what wrap.c needs to be told. */
#pragma once

/* Lives of one machine see each other's processes. */
void wrap_set_machine(int life, int machine);
