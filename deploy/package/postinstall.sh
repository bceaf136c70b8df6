#!/bin/sh
# After the files are there: the user of the units, and nothing is started that did not run.
# DPKG_ROOT is where dpkg installs to without a change of root.
set -e
root=${DPKG_ROOT:-}
if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers ${root:+--root="$root"} isobar.conf
elif ! grep -q '^isobar:' "$root/etc/passwd"; then
	useradd ${root:+--prefix "$root"} --system --user-group --no-create-home --home-dir /var/lib/isobar --shell /usr/sbin/nologin isobar
fi
if [ -z "$root" ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# A node that runs is upgraded: the vault keeps its memory meanwhile, and is left alone.
	systemctl try-restart isobar.service
fi
