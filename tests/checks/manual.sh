#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# tests/checks/manual.sh - does mandoc find anything to complain of in the manual pages?
#
#   manual.sh PAGE...

command -v mandoc >/dev/null || {
	echo "mandoc is not installed"
	exit 77
}
out=$(mandoc -T lint -W warning "$@" 2>&1)
if [ -n "$out" ]; then
	echo "$out"
	exit 1
fi
