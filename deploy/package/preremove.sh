#!/bin/sh
# Before the files go, and not where another version takes their place: dpkg says "remove",
# rpm says how many versions stay.
set -e
case "$1" in remove | 0) ;; *) exit 0 ;; esac
if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
	systemctl disable --now isobar.service isobar-vault.service
fi
