"""What a forked child does with what its parent had.

A child inherits the parent's sockets, event loop and mappings, but neither its session nor its
threads. If it kept the data socket open, the node would learn late that the parent has gone; if
it wrote to the NATS connection, it would break the parent's. So in the child every socket is
replaced by /dev/null under its number, and whatever the parent made raises :class:`Forked`.
Views of memory that exist at the fork go on working in the child, and hold their memory until
they or the child are gone.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from .errors import Forked


class Inherited(Protocol):
    """An object that lets go of what only its own process may use."""

    def forked(self) -> None:
        """Called in the child, where no other thread runs. Must not raise."""


_living: weakref.WeakSet[Inherited] = weakref.WeakSet()


def _in_child() -> None:
    for o in list(_living):
        o.forked()
    _living.clear()


os.register_at_fork(after_in_child=_in_child)


def watch(o: Inherited) -> None:
    """Calls o.forked() in every child, as long as o lives."""
    _living.add(o)


def silence(fd: int) -> None:
    """Puts /dev/null in the place of a descriptor whose owner may still close it by its number."""
    if fd < 0:
        return
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.dup2(null, fd, inheritable=False)
    finally:
        os.close(null)


def check(pid: int) -> None:
    """Raises Forked in any other process than pid."""
    if os.getpid() != pid:
        raise Forked("this was made by the process that this one was forked from: call isobar.connect() here")
