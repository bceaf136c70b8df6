#!/usr/bin/env bash
# Builds what people install: scripts/package.sh FOLDER ARCH… fills FOLDER with an archive, a
# deb and an rpm of each architecture (amd64, arm64) and with SHA256SUMS. The same sources and
# the same Go make the same bytes, wherever they lie and whenever it is.
#   VERSION=   the version; without one it is 0.0.0-dev with the commit's time and number
#   NFPM=      the program that makes deb and rpm; without one there are archives only
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$(mkdir -p "$1" && cd "$1" && pwd)
shift

# Where there is no git (an archive of the sources), VERSION= must be given.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
version=${VERSION:-}
version=${version#v}
if [ -z "$version" ]; then
	commit=$(git rev-parse --short=12 HEAD 2>/dev/null) || { echo "no git here to name the version by: set VERSION=" >&2; exit 1; }
	changed=$(git status --porcelain)
	version=0.0.0-dev.$(TZ=UTC git log -1 --format=%cd --date=format-local:%Y%m%d%H%M%S)+$commit${changed:+.changed}
fi
if ! [[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$ ]]; then
	echo "VERSION=$version is not a version like 1.2.3 or 1.2.3-rc.1" >&2
	exit 1
fi
export SOURCE_DATE_EPOCH VERSION=$version TZ=UTC LC_ALL=C
umask 022

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# fill makes the tree that is installed, for one architecture.
fill() {
	local tree=$1 doc=$1/usr/share/doc/isobar
	local build=(go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$version")
	CGO_ENABLED=0 GOOS=linux GOARCH=$2 "${build[@]}" -o "$tree/usr/bin/isobar" ./cmd/node
	# The one with the driver of GPUs; isobar run becomes it where there are some.
	CGO_ENABLED=0 GOOS=linux GOARCH=$2 "${build[@]}" -tags cuda -o "$tree/usr/bin/isobar-cuda" ./cmd/node
	install -D -m 644 -t "$tree/usr/lib/systemd/system" deploy/systemd/*.service
	install -D -m 644 deploy/package/sysusers.conf "$tree/usr/lib/sysusers.d/isobar.conf"
	install -D -m 644 -t "$tree/etc/isobar" deploy/package/config.yaml deploy/package/isobar.env
	mkdir -p "$tree/usr/share/man/man1"
	gzip -9n <deploy/package/isobar.1 >"$tree/usr/share/man/man1/isobar.1.gz"
	install -D -m 644 -t "$doc" README.md
	install -D -m 644 -t "$doc/docs" docs/*.md
	install -D -m 644 -t "$doc/docs/guide" docs/guide/*.md
	install -D -m 644 -t "$doc/docs/reference" docs/reference/*.md docs/reference/asyncapi.yaml
	install -D -m 644 -t "$doc/docs/reference/schema" docs/reference/schema/*
	install -D -m 644 -t "$doc/deploy/dashboard" deploy/dashboard/*.json deploy/dashboard/*.yaml
	install -D -m 644 -t "$doc/deploy/nats" deploy/nats/*.conf
	install -D -m 755 -t "$doc/examples" examples/map.py
	find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

rm -f "$out"/isobar?* "$out/SHA256SUMS"
for arch in "$@"; do
	name=isobar-$version-linux-$arch
	tree=$scratch/$name
	fill "$tree" "$arch"
	tar --sort=name --format=gnu --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$scratch" -c "$name" |
		gzip -9n >"$out/$name.tar.gz"
	if [ -n "${NFPM:-}" ]; then
		mkdir "$tree/scripts"
		install -m 755 -t "$tree/scripts" deploy/package/*.sh
		cp deploy/package/nfpm.yaml "$tree"
		touch -d "@$SOURCE_DATE_EPOCH" "$tree"/scripts/* "$tree/scripts"
		for kind in deb rpm; do
			(cd "$tree" && ARCH=$arch "$NFPM" package --packager "$kind" --target "$out/$name.$kind" >/dev/null)
		done
	fi
	rm -rf "$tree"
done
cd "$out"
sha256sum isobar-* >SHA256SUMS
cat SHA256SUMS
