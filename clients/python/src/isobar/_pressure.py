"""Memory pressure, and a watch over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import total_ordering
from typing import Any

from ._control import Control, log, shielded
from ._events import Events
from .errors import NodeError


@total_ordering
class PressureLevel(Enum):
    """How near a device or a quota is to its limit; they compare: ``level >= PressureLevel.HIGH``."""

    LOW = "low"
    MODERATE = "moderate"
    HIGH = "high"
    CRITICAL = "critical"

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, PressureLevel):
            return NotImplemented
        order = list(PressureLevel)
        return order.index(self) < order.index(other)


@dataclass(frozen=True, slots=True)
class Pressure:
    """The pressure of a device. ``target_bytes`` is what to release to leave the level.

    ``raw`` is all of the contract's pressure type.
    """

    device_id: str
    level: PressureLevel
    previous_level: PressureLevel
    cause: str
    sequence: int
    node: str
    total_memory: int
    used_memory: int
    available_memory: int
    deficit_bytes: int
    target_bytes: int
    utilization_percentage: float
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, v: Mapping[str, Any], node: str = "") -> Pressure:
        """Reads the pressure type of the contract."""
        level = PressureLevel(v["pressure_level"])
        return cls(
            v["device_id"], level, PressureLevel(v.get("previous_level") or level), v.get("cause") or "",
            v.get("sequence", 0), node, v.get("total_memory", 0), v.get("used_memory", 0), v.get("available_memory", 0),
            v.get("deficit_bytes", 0), v.get("target_bytes", 0), v.get("utilization_percentage", 0.0), v,
        )  # fmt: skip


async def look(control: Control, device: str | None) -> list[Pressure]:
    """The pressure of one device, or of each, as it is now."""
    answer = await control.do("get_pressure", {"device_id": device})
    found = answer.get("devices") or ([answer["pressure"]] if answer.get("pressure") else [])
    return [Pressure.parse(p) for p in found]


class PressureWatch:
    """Calls back with the pressure of each device as it is, then with every change of it, in order.

    Plain subscribers miss what happens while NATS is away: after a reconnection it looks again.
    """

    def __init__(self, control: Control, callback: Callable[[Pressure], object], device: str | None) -> None:
        self._control = control
        self._callback = callback
        self._device = device
        self._queue: asyncio.Queue[tuple[str, Pressure] | None] = asyncio.Queue()
        # device → the boot of the node and the sequence of what was told last. What is looked up
        # names no boot: "" until an event does.
        self._told: dict[str, tuple[str, int]] = {}
        self._events: Events | None = None
        self._forget: Callable[[], None] | None = None

    async def open(self) -> list[Coroutine[Any, Any, None]]:
        """Subscribes and looks; returns what is to run as long as the watch does."""
        self._events = await Events().open(self._control, (f"memory.events.pressure.*.{self._device or '*'}",))
        await self._look()
        self._forget = self._control.on_reconnect(self._again)
        return [self._listen(self._events), self._tell()]

    async def close(self) -> None:
        """No call begins after this."""
        if self._forget is not None:
            self._forget()
            self._forget = None
        if self._events is not None:
            await self._events.close()

    async def _look(self) -> None:
        for p in await look(self._control, self._device):
            self._queue.put_nowait(("", p))

    async def _again(self) -> None:
        self._told.clear()  # it may be another node, that counts anew
        try:
            await self._look()
        except NodeError as e:
            log.info("the pressure could not be looked up: %s", e)

    async def _listen(self, events: Events) -> None:
        async for e in events:
            if e.kind == "pressure_changed":
                self._queue.put_nowait((e.boot_id, Pressure.parse(e.data, e.node)))
        self._queue.put_nowait(None)

    async def _tell(self) -> None:
        while (item := await self._queue.get()) is not None and self._forget is not None:
            boot, p = item
            known, sequence = self._told.get(p.device_id, ("", -1))
            if p.sequence <= sequence and not (boot and known and boot != known):
                continue
            self._told[p.device_id] = (boot or known, p.sequence)
            await shielded(self._callback, p)
