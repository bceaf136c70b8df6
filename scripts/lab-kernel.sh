#!/usr/bin/env bash
# Prints the path of a kernel for the labs' virtual machines: KERNEL=, or one that apt can
# fetch (it is unpacked into .tools/lab, not installed). Says what is missing, and fails, where
# there is none, or no qemu-system-x86_64.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! command -v qemu-system-x86_64 >/dev/null; then
	echo "qemu-system-x86_64 is not found, so there is no virtual machine: apt-get install --no-install-recommends qemu-system-x86" >&2
	exit 1
fi
if [ -n "${KERNEL:-}" ]; then
	echo "$KERNEL"
	exit
fi
lab=$PWD/.tools/lab
if ! compgen -G "$lab/boot/vmlinuz-*" >/dev/null; then
	package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/ { print $2; exit }') || true
	if [ -z "$package" ]; then
		echo "no kernel to run: set KERNEL= to a bzImage, or apt-get update on Debian" >&2
		exit 1
	fi
	mkdir -p "$lab"
	(cd "$lab" && apt-get download -qq -o APT::Sandbox::User=root "$package" >&2 && dpkg -x linux-image-*.deb .) ||
		{ echo "$package could not be fetched: set KERNEL= to a bzImage, or apt-get update" >&2; exit 1; }
fi
compgen -G "$lab/boot/vmlinuz-*" | head -n 1
