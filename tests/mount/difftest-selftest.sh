#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Shows that difftest can fail: spoils one side, one kind of fault at a time, and wants each found; wants no
# difference between two directories of one local filesystem; and, under the rules of mailfs, wants a local
# filesystem (which knows none of them) to be found out.
#
# usage: difftest-selftest.sh DIFFTEST LOCAL_DIR
set -u
difftest=$1
dir=$(mktemp -d "$2/selftest.XXXXXX") || exit 2
trap 'rm -rf "$dir"' EXIT
[ "$(id -u)" = 0 ] || exit 77
mkdir "$dir/a" "$dir/b"
bad=0 n=0

check() { # NAME WANTED_STATUS ARGS...
	name=$1 want=$2
	shift 2
	n=$((n + 1))
	"$difftest" --seed 4711 "$@" "$dir/a" "$dir/b" >"$dir/out" 2>&1
	got=$?
	if [ $got -eq "$want" ] && { [ "$want" = 0 ] || grep -q '^DIFFERENCE' "$dir/out"; }; then
		echo "ok $n - $name"
	else
		echo "not ok $n - $name: status $got, not $want"
		sed 's/^/# /' "$dir/out" | tail -n 20
		bad=$((bad + 1))
	fi
}

check "two local directories do not differ" 0 --ops 4000
check "nor with Maildirs" 0 --ops 4000 --maildir
check "nor when the rules of mailfs answer for A" 0 --ops 4000 --maildir --rules mailfs --emulate
for fault in errno data readdata mode nsec mtime name xattr lock pos nlink mknod suid rename; do
	check "finds a spoilt $fault" 1 --ops 20000 --perturb "$fault@5"
done
nodes="--node $dir/a --node $dir/a"
# shellcheck disable=SC2086 # a list
{
	check "several nodes that are one directory do not differ" 0 --ops 4000 $nodes
	check "nor with Maildirs and the rules of mailfs" 0 --ops 4000 --maildir --rules mailfs --emulate $nodes
	check "finds a spoilt rename on several nodes" 1 --ops 20000 --perturb rename@5 $nodes
}
mkdir -p "$dir/c/t"
check "finds a node that is another directory" 1 --ops 4000 --node "$dir/c"
check "finds a local filesystem that is taken for mailfs" 1 --ops 4000 --rules mailfs
check "finds it in Maildirs too" 1 --ops 4000 --maildir --rules mailfs
echo "1..$n"
[ $bad -eq 0 ]
