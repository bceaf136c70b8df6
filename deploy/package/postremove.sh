#!/bin/sh
# After the files are gone. The history of events goes where dpkg was told to purge; the user
# stays, so that its number is not given to somebody else.
set -e
if [ "$1" = purge ]; then
	rm -rf "${DPKG_ROOT:-}/var/lib/isobar"
fi
if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
