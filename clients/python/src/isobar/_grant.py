"""A grant that this process maps."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from ._memory import Dropped, Region
from ._table import Table

if TYPE_CHECKING:
    from ._session import Session


class Grant:
    """Made by a session, which keeps it until it is gone. All but ``_freed`` runs on the session's loop."""

    def __init__(self, session: Session, body: dict[str, Any], region: Region, table: Table) -> None:
        self.session = session
        self.allocation_id: str = body["allocation_id"]
        self.kind: str = body["kind"]
        self.size_bytes: int = body["size_bytes"]
        self.region = region
        self.table = table  # of the model's tensors
        self.gone = asyncio.Event()  # nothing of it is mapped any more
        self.told = False  # the node knows that
        self._dropped: Dropped | None = None
        self._ended = asyncio.Event()  # gone, or never to be
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()

    def drop(self) -> Dropped:
        """Lets go. Unless nothing is mapped now, gone is set when that has come."""
        if self._dropped is None:
            self._dropped = self.region.drop(self._end)
            if self._dropped is Dropped.GONE:
                self._set_gone()
        return Dropped.GONE if self.gone.is_set() else self._dropped

    async def dropped(self) -> bool:
        """Waits until nothing is mapped; False if that will not be."""
        await self._ended.wait()
        return self.gone.is_set()

    def _end(self, error: BaseException | None) -> None:
        if os.getpid() != self._pid:
            return
        try:
            self._loop.call_soon_threadsafe(self._ended.set if error else self._set_gone)
        except RuntimeError:
            pass  # the loop is closed, and the session over

    def _set_gone(self) -> None:
        self.session.forget(self)
        self.gone.set()
        self._ended.set()
