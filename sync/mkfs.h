/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sync/mkfs.h - makes an empty filesystem. */
#pragma once

#include "store/conf.h"

/* -EEXIST when there is one. *ret_error is one line. Blocks; call without locks. */
int mf_mkfs(const struct mf_conf *conf, char **ret_error);
