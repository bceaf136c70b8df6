"""Work that goes on beside its caller."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger("isobar")


class Tasks:
    """Tasks of one owner, on its event loop. Failures are logged, but not those that are expected."""

    def __init__(self, owner: str, *expected: type[BaseException]) -> None:
        self._owner = owner
        self._expected = expected
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ended = False

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Begins some work and returns at once; does nothing after end."""
        if self._ended:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    async def end(self) -> None:
        """Cancels what goes on, all but the caller itself, and waits until it is over."""
        self._ended = True
        tasks = [t for t in self._tasks if t is not asyncio.current_task()]
        for t in tasks:
            t.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or self._ended:
            return
        error = task.exception()
        if error is not None and not isinstance(error, self._expected):
            log.error("a task of %s failed", self._owner, exc_info=error)
