#!/bin/sh
# Puts promtool into the folder $1, from the distribution's package, unless it is there or on
# the PATH. Nothing is installed on the machine. Where it is not to be had, that is said, and
# the tests check the alert rules without it.
set -eu
dir=$1
if command -v promtool >/dev/null || [ -x "$dir/promtool" ]; then exit 0; fi
without() { echo "no promtool ($1): the alert rules are not checked by Prometheus itself"; exit 0; }
command -v apt-get >/dev/null && command -v dpkg >/dev/null || without "it comes with Prometheus"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
fetch() { timeout 60 apt-get -qq download prometheus >/dev/null 2>&1; }
fetch || { timeout 60 apt-get -qq update >/dev/null 2>&1 && fetch; } || without "the package prometheus cannot be fetched"
dpkg -x prometheus_*.deb . || without "its package cannot be unpacked"
mkdir -p "$dir"
mv usr/bin/promtool "$dir/promtool"
