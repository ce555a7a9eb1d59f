#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# tests/checks/check-conf.sh - does scripts/check-conf refuse what it is there for?
#
#   check-conf.sh SOURCE_ROOT MAILFSCTL

set -euo pipefail

root=$1 mailfsctl=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# refuses conf|manpage SED WORDS: changed so, that file must be refused, and the difference must be shown.
refuses() {
	local out
	cp "$root/mailfs.conf" "$dir/conf"
	cp "$root/doc/mailfs.conf.5" "$dir/manpage"
	sed -i "$2" "$dir/$1"
	if out=$("$root/scripts/check-conf" "$mailfsctl" "$dir/conf" "$dir/manpage"); then
		echo "not refused: $2 in $1" >&2
		exit 1
	fi
	case $out in
	*"$3"*) ;;
	*)
		echo "the difference '$3' is not shown: $out" >&2
		exit 1
		;;
	esac
}

# shellcheck disable=SC2016 # sed's own
{
	refuses conf '/^#fs = /d' '-fs = mailfs'
	refuses conf '$a #foo = 1' '+foo = 1'
	refuses conf 's/^#op_timeout = .*/#op_timeout = 61/' '+op_timeout = 61'
	refuses manpage '/^\.It Cm node/d' '-node = <host name>'
	refuses manpage '$a .It Cm foo = Ar x\nDefault: 1.' '+foo = 1'
	refuses manpage 's/^Default: 256M\.$/Default: 255M./' '+cache_size = 255M'
	refuses manpage '/^Default: info\.$/d' '+log_level = (no default)'
}
