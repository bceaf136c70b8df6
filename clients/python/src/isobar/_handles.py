"""What the calls of a client return beside buffers and models."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from ._objects import Buffer, Model


@dataclass(frozen=True, slots=True)
class Revocation:
    """The node's wish to have memory back. When the callbacks have returned, what holds it here is
    closed: ``held`` are the buffers and models, ``deadline`` the seconds that the node gives."""

    allocation_id: str
    deadline: float
    reason: str
    held: tuple[Buffer | Model, ...]


class _Closable(Protocol):
    async def close(self) -> object: ...


T = TypeVar("T", bound=_Closable)


class Opening(Generic[T]):
    """What makes something to be closed: await it, or use it in ``async with``."""

    def __init__(self, making: Awaitable[T]) -> None:
        self._making = making
        self._made: T | None = None

    def __await__(self) -> Generator[Any, None, T]:
        return self._making.__await__()

    async def __aenter__(self) -> T:
        self._made = await self._making
        return self._made

    async def __aexit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        if self._made is not None:
            await self._made.close()


class Subscription:
    """A callback that was registered; close ends it."""

    def __init__(self, end: Callable[[], Awaitable[None]]) -> None:
        self._end: Callable[[], Awaitable[None]] | None = end

    async def close(self) -> None:
        """No call begins after this."""
        end, self._end = self._end, None
        if end is not None:
            await end()
