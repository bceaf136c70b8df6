#!/bin/sh
# Prints the packages that have files under a build tag: scripts/tagged.sh TAG
set -eu
grep -rlE --include='*.go' "^//go:build !?$1\$" . | xargs -n1 dirname | sort -u
