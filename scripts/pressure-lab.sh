#!/usr/bin/env bash
# Real pressure, in two places: a control group of this machine, and a virtual machine with
# version 2 of control groups. Prints both tables as Markdown. Needs root for the first, and for
# the second qemu-system-x86_64 and a kernel: KERNEL=, or one that apt can fetch (it is unpacked
# into .tools/lab, not installed).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
rounds=${ROUNDS:-3}

echo "## A control group of this machine"
echo
bin/bus-test pressure-lab --rounds "$rounds"

kernel=${KERNEL:-}
if ! command -v qemu-system-x86_64 >/dev/null; then
	echo "qemu-system-x86_64 is not found, so there is no virtual machine: apt-get install --no-install-recommends qemu-system-x86" >&2
	exit 1
fi
if [ -z "$kernel" ]; then
	lab=$PWD/.tools/lab
	if ! compgen -G "$lab/boot/vmlinuz-*" >/dev/null; then
		package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/ { print $2; exit }') || true
		if [ -z "$package" ]; then
			echo "no kernel to run: set KERNEL= to a bzImage, or apt-get update on Debian" >&2
			exit 1
		fi
		mkdir -p "$lab"
		(cd "$lab" && apt-get download -qq -o APT::Sandbox::User=root "$package" && dpkg -x linux-image-*.deb .) ||
			{ echo "$package could not be fetched: set KERNEL= to a bzImage, or apt-get update" >&2; exit 1; }
	fi
	kernel=$(compgen -G "$lab/boot/vmlinuz-*" | head -n 1)
fi
echo
echo "## A virtual machine"
echo
bin/bus-test pressure-lab --rounds "$rounds" --limit-mib 512 --kernel "$kernel"
