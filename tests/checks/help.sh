#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# tests/checks/help.sh - what help there is goes to stdout within 80 columns; what is wrong goes to stderr.
#
#   help.sh MAILFSCTL

set -euo pipefail
export LC_ALL=C.UTF-8

mailfsctl=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

fail() {
	echo "$*" >&2
	exit 1
}

shows() {
	"$mailfsctl" "$@" >"$dir/out" 2>"$dir/err" || fail "$*: exit status $?"
	[ -s "$dir/out" ] || fail "$*: nothing on stdout"
	[ ! -s "$dir/err" ] || fail "$*: something on stderr: $(cat "$dir/err")"
	[ "$(wc -L <"$dir/out")" -le 80 ] || fail "$*: wider than 80 columns"
}

# refuses STATUS WORDS ARGUMENT...: one line on stderr that holds the words.
refuses() {
	local want=$1 words=$2 status=0
	shift 2
	"$mailfsctl" "$@" >"$dir/out" 2>"$dir/err" || status=$?
	[ $status -eq "$want" ] || fail "$*: exit status $status, not $want"
	[ ! -s "$dir/out" ] || fail "$*: something on stdout"
	[ "$(wc -l <"$dir/err")" -eq 1 ] || fail "$*: not one line: $(cat "$dir/err")"
	grep -qF -- "$words" "$dir/err" || fail "$*: '$(cat "$dir/err")' lacks '$words'"
}

shows --help
shows --version
"$mailfsctl" --help >"$dir/all"
n=0
while read -r command; do
	shows "$command" --help
	n=$((n + 1))
done < <(awk '/^Commands:/ { on = 1; next } on && NF == 0 { exit } on { print $1 }' "$dir/all")
[ $n -ge 3 ] || fail "the list of commands was not understood"

: >"$dir/empty.conf"
printf '[mailfs]\nfoo = 1\n' >"$dir/bad.conf"
mkdir "$dir/plain"

refuses 2 "unknown command 'foo'" foo
refuses 2 'Unknown option --foo' status --foo
refuses 2 'one argument is wanted' umount
refuses 2 'no argument is wanted' status x
refuses 2 'one argument at most is wanted' leases x y
refuses 2 'one argument at most is wanted' locks x y
refuses 2 'one argument is wanted' evict
refuses 2 'no argument is wanted' nodes x
refuses 2 "unknown key 'foo'" conf -c "$dir/empty.conf" -o foo=1
refuses 2 'bad value' conf -c "$dir/empty.conf" -o cache_size=1
refuses 1 "bad.conf: unknown key 'foo'" conf -c "$dir/bad.conf"
refuses 1 'No such file' conf -c "$dir/missing.conf"
refuses 1 'no mailfs is mounted on' umount -c "$dir/empty.conf" "$dir/plain"
refuses 1 'No such file' umount -c "$dir/empty.conf" "$dir/missing/x"
shows status -c "$dir/empty.conf" -o run_dir="$dir/run"
grep -q 'no mailfs is running' "$dir/out" || fail "status without a daemon: $(cat "$dir/out")"
shows status --json -c "$dir/empty.conf" -o run_dir="$dir/run"
[ "$(cat "$dir/out")" = '[]' ] || fail "status --json without a daemon: $(cat "$dir/out")"
for command in leases locks; do
	refuses 1 'no mailfs is mounted' $command -c "$dir/empty.conf" "$dir/plain"
	shows $command -c "$dir/empty.conf" -o run_dir="$dir/run"
	grep -q 'no mailfs is running' "$dir/out" || fail "$command without a daemon: $(cat "$dir/out")"
	shows $command --json -c "$dir/empty.conf" -o run_dir="$dir/run"
	[ "$(cat "$dir/out")" = '[]' ] || fail "$command --json without a daemon: $(cat "$dir/out")"
done
shows conf -c "$dir/empty.conf" -o commit_interval=0.5 --changed
[ "$(cat "$dir/out")" = $'[mailfs]\ncommit_interval = 0.5' ] || fail "conf --changed: $(cat "$dir/out")"
[ "$("$mailfsctl" key -c "$dir/empty.conf" -o data_pool=mailfs_meta | tail -1)" = \
	"    osd 'allow rwx pool=mailfs_meta namespace=mailfs'" ] || fail "key shows something else"
