#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Shows that the tests of nodes can fail: the second node is an overlay of the first, which shows what is made there and
# keeps its own changes to itself. Each program must find that out.
#
# usage: selftest.sh DIR_OF_PROGRAMS LOCAL_DIR PROGRAM...
set -u
[ "$(id -u)" = 0 ] || exit 77
if [ -z "${MAILFS_NODES_SELFTEST-}" ]; then
	MAILFS_NODES_SELFTEST=1 exec unshare --mount --propagation private "${0%/*}/../lib/let-go" "$0" "$@"
fi
bin=$1 dir=$(mktemp -d "$2/selftest.XXXXXX") || exit 2
shift 2
trap 'umount -l "$dir/b" 2>/dev/null; rm -rf "$dir"' EXIT
mkdir "$dir/a" "$dir/b" "$dir/upper" "$dir/work"
mount -t overlay -o "lowerdir=$dir/a,upperdir=$dir/upper,workdir=$dir/work" selftest "$dir/b" || exit 77
bad=0 n=0
for name; do
	n=$((n + 1))
	timeout 20 "$bin/nodes-$name" --short "$dir/a" "$dir/b" >"$dir/out" 2>&1
	status=$?
	if [ $status -ne 0 ] && grep -q '^not ok' "$dir/out"; then
		echo "ok $n - $name finds nodes that are not one filesystem"
	else
		echo "not ok $n - $name: status $status"
		sed 's/^/# /' "$dir/out" | tail -n 20
		bad=$((bad + 1))
	fi
done
echo "1..$n"
[ $bad -eq 0 ]
