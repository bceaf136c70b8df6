"""Requests over NATS, with one subscription for all answers.

The NATS library has requests too. These cost half of theirs and what it took to end them early:
no task of their own and no second future, since a model that is resident is attached to in
milliseconds and every pass of the event loop counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

import nats.errors
from nats.aio.client import Client as NATS
from nats.aio.msg import Msg

_NO_RESPONDERS = "503"


class Inbox:
    """Where the answers of a connection arrive. On its event loop."""

    def __init__(self, nc: NATS) -> None:
        self._nc = nc
        self._prefix = ""
        self._numbers = count(1)
        # What was asked, by the last word of where its answer goes.
        self._waiting: dict[str, tuple[str, asyncio.Future[Msg]]] = {}

    async def request(self, subject: str, payload: bytes, patience: float) -> Msg:
        """Asks, and waits for the answer: TimeoutError after so many seconds, NoRespondersError where
        nobody listens, and what the connection says of a message that it does not take."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Msg] = loop.create_future()
        number = str(next(self._numbers))
        self._waiting[number] = subject, answer
        timer = loop.call_later(patience, _expire, answer)
        try:
            if not self._prefix:
                self._prefix = self._nc.new_inbox() + "."
                await self._nc.subscribe(self._prefix + "*", cb=self._take)
            await self._nc.publish(subject, payload, reply=self._prefix + number)
            message = await answer
        finally:
            timer.cancel()
            del self._waiting[number]
            if answer.done() and not answer.cancelled():
                answer.exception()  # looked at: publishing may have failed before
        if message.headers and message.headers.get("Status") == _NO_RESPONDERS:
            raise nats.errors.NoRespondersError
        return message

    async def _take(self, message: Msg) -> None:
        _, answer = self._waiting.get(message.subject.rpartition(".")[2], ("", None))
        if answer is not None and not answer.done():
            answer.set_result(message)

    def fail(self, error: Callable[[], Exception], subject: str = "") -> None:
        """Ends the waiting for answers: of what was asked on that subject, or of everything."""
        for asked, answer in list(self._waiting.values()):
            if subject.lower() in ("", asked.lower()) and not answer.done():
                answer.set_exception(error())

    def refused(self) -> None:
        """The server does not let this client hear answers: the next request tries again."""
        self._prefix = ""


def _expire(answer: asyncio.Future[Msg]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())
