#!/bin/sh
# Prints every fuzzer of the module, one a line: its package folder and its name.
set -eu
grep -roE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sed -E 's|/[^/]*:func | |' | sort
