"""The thread that the synchronous face runs its event loop in."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from . import _fork
from ._control import OnProgress
from .errors import Closed

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")


# Whether this thread runs a callback.
_running = threading.local()


class Thread:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="isobar", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine there and waits for it. An interrupt (Ctrl-C) cancels it."""
        try:
            _fork.check(self.pid)
            if threading.current_thread() is self._thread:
                raise RuntimeError("a callback of asyncio may not use the synchronous client")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except BaseException as e:
            work.close()
            if isinstance(e, RuntimeError) and self._loop.is_closed():
                raise Closed("the client is closed") from None
            raise
        try:
            return future.result()
        finally:
            if not future.done():
                future.cancel()

    def stop(self) -> None:
        """Ends the thread."""
        if self._loop.is_closed():
            return
        if not getattr(_running, "callback", False):  # else this thread would wait for itself
            self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def elsewhere(callback: Callable[[A], object]) -> Callable[[A], Coroutine[Any, Any, None]]:
    """A callback for the loop that runs the user's on another thread."""

    def marked(argument: A) -> None:
        _running.callback = True
        try:
            callback(argument)
        finally:
            _running.callback = False

    async def call(argument: A) -> None:
        await asyncio.to_thread(marked, argument)

    return call


def elsewhere_if(callback: B) -> OnProgress | B:
    """The same of a callback that there may be."""
    return elsewhere(callback) if callable(callback) else callback
