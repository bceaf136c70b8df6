"""Room for descriptors, made before they come.

The kernel keeps a process's descriptors in a table that it doubles when it is full, and in a process
with threads whoever opens or receives one waits for that, 8 to 25 ms (Linux 6.18, 2026-11-22): the
first attachment of a process to a model of 40 GB waited so for its descriptors.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import threading

_ENOUGH = 1024


def make() -> None:
    """Makes it on a thread of its own. What goes wrong shows when descriptors are really wanted."""
    threading.Thread(target=_make, name="isobar-room", daemon=True).start()


def _make() -> None:
    with contextlib.suppress(OSError, ValueError):
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            last = _ENOUGH if soft == resource.RLIM_INFINITY else min(_ENOUGH, soft)
            os.close(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, last - 1))
        finally:
            os.close(fd)
