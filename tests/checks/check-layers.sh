#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# tests/checks/check-layers.sh - does scripts/check-layers refuse what it is there for?
#
#   check-layers.sh SOURCE_ROOT

set -euo pipefail

check=$1/scripts/check-layers
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT

# A tree in which all is well.
fresh() {
	rm -rf "${tree:?}"/*
	mkdir "$tree"/{store,locking,sync,fuse,tools}
	printf '#include "store/a.h"\n#include <stdio.h>\n' >"$tree/store/a.c"
	printf '#include "store/pool.h"\n#include <rados/librados.h>\n' >"$tree/store/pool.c"
	printf '#include "locking/a.h"\n#include "store/a.h"\n' >"$tree/locking/a.c"
	printf '#include "sync/a.h"\n#include "locking/a.h"\n' >"$tree/sync/a.c"
	printf '#include "fuse/a.h"\n#include "sync/a.h"\n#include <fuse_lowlevel.h>\n' >"$tree/fuse/a.c"
	printf '#include "tools/a.h"\n#include "fuse/a.h"\n' >"$tree/tools/a.c"
}

# refuses FILE LINE WORDS: with LINE in FILE the check must fail, naming the file and the words.
refuses() {
	local out
	fresh
	printf '%s\n' "$2" >>"$tree/$1"
	if out=$("$check" "$tree"); then
		echo "not refused: $2 in $1" >&2
		exit 1
	fi
	case $out in
	"$1:"*": $3: "*) ;;
	*)
		echo "refused with other words than '$1: $3': $out" >&2
		exit 1
		;;
	esac
}

fresh
"$check" "$tree"
refuses store/a.h '#include "locking/a.h"' 'upward include'
refuses store/a.c '  #  include "fuse/a.h"' 'upward include'
refuses locking/a.c '#include "sync/a.h"' 'upward include'
refuses sync/a.c '#include "fuse/a.h"' 'upward include'
refuses fuse/a.c '#include "tools/a.h"' 'upward include'
refuses store/a.c '#include <rados/librados.h>' 'librados is for store/pool.c'
refuses store/pool.h '#include "rados/librados.h"' 'librados is for store/pool.c'
refuses sync/a.c '#include <fuse_lowlevel.h>' 'libfuse is for fuse/'
refuses tools/a.c '#include <fuse3/fuse.h>' 'libfuse is for fuse/'
refuses sync/a.c '#include "a.h"' 'no directory named'
refuses sync/a.c '#include "tests/a.h"' 'not a layer'
