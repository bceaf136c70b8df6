"""Events, as nodes publish them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nats.aio.msg import Msg

from ._control import Control
from .errors import Closed

ALL_EVENTS = "memory.events.>"
_BUFFER = 8192  # events that a subscription holds which its reader has not taken


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``missed`` is the range of sequences of its subject that did not arrive before it."""

    kind: str
    subject: str
    node: str
    boot_id: str
    sequence: int
    timestamp: str
    data: Mapping[str, Any] = field(repr=False)
    missed: tuple[int, int] | None = None


class Sequences:
    """Finds what is missing in a stream of events, and what comes twice."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, int]] = {}

    def observe(self, subject: str, e: Mapping[str, Any]) -> tuple[bool, tuple[int, int] | None]:
        """Whether the event is new, and what is missing before it."""
        kind, boot, sequence = e["event"], e["boot_id"], e["sequence"]
        if kind == "heartbeat":
            return True, None
        known_boot, last = self._last.get(subject, ("", 0))
        known = known_boot == boot
        if kind == "pressure_reminder":  # repeats the sequence of the change that it reminds of
            self._last[subject] = (boot, max(last if known else 0, sequence))
            return True, (last + 1, sequence) if known and sequence > last else None
        if known and sequence <= last:
            return False, None
        first = sequence
        if kind == "gap" and 0 < e["data"].get("from", 0) <= sequence:
            first = e["data"]["from"]
        self._last[subject] = (boot, sequence)
        return True, (last + 1, first - 1) if known and first > last + 1 else None


class Events:
    """A subscription: ``async for event in events``. A reader that is too slow loses the oldest, and
    sees it in ``missed``."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Msg | None] = asyncio.Queue(_BUFFER)
        self._ends: list[Callable[[], Awaitable[None]]] = []
        self._sequences = Sequences()
        self._closed = False

    async def open(self, control: Control, subjects: tuple[str, ...]) -> Events:
        """Subscribes."""
        for s in subjects or (ALL_EVENTS,):
            self._ends.append(await control.subscribe(s, self._take))
        return self

    async def _take(self, m: Msg) -> None:
        if self._closed:
            return
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(m)

    async def next(self, timeout: float | None = None) -> Event:
        """The next event; TimeoutError after timeout seconds, Closed after close."""
        async with asyncio.timeout(timeout):
            while True:
                if self._closed and self._queue.empty():
                    raise Closed("the event subscription is closed")
                m = await self._queue.get()
                if m is None:
                    raise Closed("the event subscription is closed")
                e = json.loads(m.data)
                new, missed = self._sequences.observe(m.subject, e)
                if new:
                    return Event(
                        e["event"], m.subject, e["node"], e["boot_id"], e["sequence"], e["timestamp"], e.get("data") or {}, missed
                    )

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Event:
        try:
            return await self.next()
        except Closed:
            raise StopAsyncIteration from None

    async def close(self) -> None:
        """Ends the subscription, and with it the iteration."""
        if self._closed:
            return
        self._closed = True
        for end in self._ends:
            await end()
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    async def __aenter__(self) -> Events:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
