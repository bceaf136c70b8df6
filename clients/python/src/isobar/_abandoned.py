"""Commands whose caller stops waiting, and grants that nobody has."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

from ._control import Control, OnProgress
from ._tasks import Tasks
from .errors import NodeError

log = logging.getLogger("isobar")

# How many seconds a command may take before its progress is shown.
_SHOWN_SOON = 0.2
# What is tried again after so many seconds, the last time without another.
_PAUSES = (0.05, 0.5, 0.0)


class Abandoned:
    """Undoes what was asked for and is not wanted any more. As long as tasks may run."""

    def __init__(self, control: Control, tasks: Tasks) -> None:
        self._control = control
        self._tasks = tasks

    async def do(
        self, action: str, data: dict[str, Any], progress: OnProgress | None, timeout: float | None, request_id: str
    ) -> dict[str, Any]:
        """Gives a command which is cancelled if its caller stops waiting, by timeout or by cancelling."""
        request_id = request_id or str(uuid.uuid4())
        try:
            async with asyncio.timeout(timeout):
                wait = _SHOWN_SOON if progress is not None else None
                return await self._control.do(action, data, progress, request_id=request_id, wait=wait)
        except (asyncio.CancelledError, TimeoutError):
            self._tasks.start(self._cancel(action, request_id))
            raise

    def grant(self, allocation_id: str) -> None:
        """Gives a grant back which could not be mapped. Returns at once."""
        self._tasks.start(self._undo(allocation_id))

    async def _cancel(self, action: str, request_id: str) -> None:
        op: dict[str, Any] = {}
        for pause in _PAUSES:
            try:
                op = (await self._control.do("cancel_operation", {"request_id": request_id}))["operation"]
                break
            except NodeError as e:
                if e.code != "OPERATION_NOT_FOUND":
                    log.warning("%s was given up, but could not be cancelled: %s", action, e)
                    return
            await asyncio.sleep(pause)  # it may be overtaking the command
        if op.get("status") != "completed" or action not in ("allocate", "load_model"):
            return
        try:
            # It was too late: what it has made is told to those who ask for it.
            result = (await self._control.do("get_operation", {"request_id": request_id}))["operation"].get("result") or {}
            if action == "allocate" and "allocation_id" in result:
                await self._undo(result["allocation_id"])
            elif "reference_id" in result:
                await self._control.do("release_model", {"reference_id": result["reference_id"]})
        except NodeError as e:
            log.info("%s was given up when it was done, and what it made could not be let go: %s", action, e)

    async def _undo(self, allocation_id: str) -> None:
        for pause in _PAUSES:
            try:
                await self._control.do("deallocate", {"allocation_id": allocation_id})
                return
            except NodeError as e:
                if e.code == "ALLOCATION_IN_USE" and pause:
                    await asyncio.sleep(pause)  # a mapping for nobody may be on its way back
                    continue
                if e.code != "ALLOCATION_NOT_FOUND":
                    log.warning("%s was granted for nobody, and could not be given back: %s", allocation_id, e)
                return
