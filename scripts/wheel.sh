#!/usr/bin/env bash
# Builds the Python client's wheel: scripts/wheel.sh FOLDER [PYTHON] puts it into FOLDER and its
# checksum into FOLDER/SHA256SUMS. The same sources make the same bytes.
#   VERSION=   the version; without one it is 0.0.0.dev0
# pip fetches the build backend (hatchling) that clients/python/pyproject.toml names.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$(mkdir -p "$1" && cd "$1" && pwd)
python=${2:-python3}

export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
umask 022
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -r clients/python "$scratch/source"
"$python" -m pip wheel --quiet --disable-pip-version-check --no-input --no-deps -w "$scratch/made" "$scratch/source"
cd "$scratch/made"
rm -f "$out"/isobar-*.whl
mv isobar-*.whl "$out"
cd "$out"
sums=$(grep -v '\.whl$' SHA256SUMS 2>/dev/null || true)
{ [ -z "$sums" ] || echo "$sums"; sha256sum isobar-*.whl; } >SHA256SUMS.new
mv SHA256SUMS.new SHA256SUMS
grep '\.whl$' SHA256SUMS
