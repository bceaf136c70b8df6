"""Commands and events over NATS.

A command is tried again, with the same request_id, where its answer is lost, no node answers or
the node is busy: so it has its effect once.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client as NATS
from nats.aio.msg import Msg

from . import _fork
from ._inbox import Inbox
from .errors import Closed, NodeError, node_error

log = logging.getLogger("isobar")

DEFAULT_URL = "nats://127.0.0.1:4222"
DEFAULT_WAIT = 2.0  # the contract's wait_ms
_AWAIT_WAIT, _PROGRESS_WAIT = 10.0, 0.5
_SLACK = 5.0  # what an answer may take beyond the wait that the node was asked for
_ABSENCE = 5.0  # how long a node that was there may be away: its successor answers within 1.5 s of its start
_LONGEST_PAUSE = 0.5  # between two attempts, unless the node names one
_SUBJECT = re.compile(r'(?:publish|subscription) to "([^"]+)"', re.IGNORECASE)

Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Progress:
    """How a command goes that is not done yet: the operation type of the contract.

    ``raw`` is all of it, as the node wrote it.
    """

    operation_id: str
    action: str = ""
    status: str = ""
    position: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    progress_percentage: float = 0.0
    throughput_bytes_per_second: float = 0.0
    estimated_ms: float = 0.0
    reason: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, v: Data) -> Progress:
        """Reads an operation, or the answer of a command that is queued or running."""
        names = [n for n in cls.__dataclass_fields__ if n != "raw"]
        return cls(**{n: v[n] for n in names if v.get(n) is not None}, raw=v)


OnProgress = Callable[[Progress], object]


class Pending(Exception):
    """The answer of a command that is queued or running. Inside the package alone."""

    def __init__(self, data: Data) -> None:
        super().__init__(data["operation_id"])
        self.data = data


async def run(callback: Callable[..., object], *args: object) -> None:
    """Calls back, and waits where the callback is a coroutine function."""
    result = callback(*args)
    if inspect.isawaitable(result):
        await result


async def shielded(callback: Callable[..., object], *args: object) -> None:
    """Calls back; what goes wrong there is logged, and stops nothing here."""
    try:
        await run(callback, *args)
    except Exception:
        log.exception("a callback failed")


@dataclass(slots=True)
class Options:
    """How to reach a node; see :func:`isobar.connect`."""

    url: str
    node: str = ""
    name: str = "isobar-python"
    attempts: int = 3
    backoff: float = 0.1
    connect_timeout: float = 5.0
    nats_options: Mapping[str, Any] = field(default_factory=dict)


def options(
    url: str | None, node: str, name: str, attempts: int, connect_timeout: float, nats_options: Mapping[str, Any] | None
) -> Options:
    """Where the node is: the argument, else ISOBAR_NATS_URL, else this host's default."""
    where = url or os.environ.get("ISOBAR_NATS_URL") or DEFAULT_URL
    if attempts < 1:
        raise ValueError("attempts is at least 1")
    return Options(where, node, name, attempts, connect_timeout=connect_timeout, nats_options=dict(nats_options or {}))


class Control:
    """A NATS connection to nodes."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.nc = NATS()
        self._inbox = Inbox(self.nc)
        self._on_reconnect: list[Callable[[], Awaitable[None]]] = []
        self._closed = False
        self._answered = False  # by a node, at some time
        _fork.watch(self)

    def forked(self) -> None:
        transport = getattr(self.nc, "_transport", None)
        inner = getattr(transport, "_io_writer", None)
        if inner is not None:
            sock = inner.get_extra_info("socket")
            _fork.silence(sock.fileno() if sock is not None else -1)

    async def open(self) -> None:
        """Connects; the server must be there, a node need not."""
        servers = [s.strip() for s in self.options.url.split(",") if s.strip()]
        failures: list[Exception] = []
        hopeless = asyncio.Event()

        async def failed(e: Exception) -> None:
            if self.nc.is_connected:
                self._refused(e)
                return
            failures.append(e)
            if len(failures) >= len(servers):
                hopeless.set()
            await asyncio.sleep(0)  # the library tries again without a pause

        settings: dict[str, Any] = {
            "servers": servers, "name": self.options.name, "max_reconnect_attempts": -1, "reconnect_time_wait": 0.1,
            "error_cb": failed, "reconnected_cb": self._reconnected, "ping_interval": 5, "max_outstanding_pings": 2,
            **self.options.nats_options,
        }  # fmt: skip
        connecting = asyncio.ensure_future(self.nc.connect(**settings))
        giving_up = asyncio.ensure_future(hopeless.wait())
        try:
            await asyncio.wait({connecting, giving_up}, timeout=self.options.connect_timeout, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                await connecting
                return
            why = failures[-1] if failures else "no answer"
        except (OSError, nats.errors.Error) as e:
            why = e
        finally:
            giving_up.cancel()
            connecting.cancel()
            await asyncio.gather(connecting, giving_up, return_exceptions=True)
        await self._close_nats()
        if isinstance(why, nats.errors.AuthorizationError):
            raise node_error("UNAUTHORIZED", f"the NATS server at {self._where()} refuses this client: {why}")
        raise node_error("NO_NODE", f"no NATS server at {self._where()} ({why}): is a node running? `isobar run` starts one")

    def _where(self) -> str:
        return re.sub(r"//[^@/]*@", "//", self.options.url)  # without a password

    async def close(self) -> None:
        """Ends the connection; commands in flight fail."""
        self._closed = True
        self._inbox.fail(partial(Closed, "the client is closed"))
        await self._close_nats()

    async def _close_nats(self) -> None:
        try:
            async with asyncio.timeout(_SLACK):
                await self.nc.close()
        except (TimeoutError, OSError, nats.errors.Error):
            pass

    # Commands

    async def call(
        self,
        action: str,
        data: Mapping[str, Any],
        *,
        request_id: str = "",
        wait: float | None = None,
        patience: float | None = None,
        dry_run: bool = False,
        node: str | None = None,
    ) -> Data:
        """Asks for one action. Raises Pending where it is queued or running."""
        request_id = request_id or str(uuid.uuid4())
        content = {k: v for k, v in data.items() if v is not None}
        if wait is not None:
            content["wait_ms"] = max(0, round(wait * 1000))
        if dry_run:
            content["dry_run"] = True
        payload = json.dumps({"request_id": request_id, "action": action, "data": content}).encode()
        node = self.options.node if node is None else node
        subject = f"memory.{action}.{node}" if node else f"memory.{action}"
        patience = next(x for x in (patience, wait, DEFAULT_WAIT) if x is not None) + _SLACK
        pause = self.options.backoff
        attempt = 1
        absent = asyncio.get_running_loop().time() + min(patience, _ABSENCE)
        while True:
            try:
                return await self._once(subject, payload, patience)
            except (NodeError, TimeoutError, nats.errors.Error) as e:
                if not isinstance(e, (NodeError, TimeoutError, nats.errors.TimeoutError)):
                    raise node_error("NO_NODE", f"the NATS connection failed: {e}") from e
                again = not isinstance(e, NodeError) or e.code in ("NO_NODE", "BUSY")
                last = attempt >= self.options.attempts
                if last and self._answered and self.options.attempts > 1 and isinstance(e, NodeError) and e.code == "NO_NODE":
                    last = asyncio.get_running_loop().time() >= absent  # the next one is on its way
                if not again or last:
                    if isinstance(e, NodeError):
                        raise
                    raise node_error("NO_NODE", f"no answer on {subject} within {patience:g} s") from e
                asked = e.details.get("retry_after_ms", 0) if isinstance(e, NodeError) else 0
            await asyncio.sleep(asked / 1000 if asked > 0 else pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            attempt += 1

    async def _once(self, subject: str, payload: bytes, patience: float) -> Data:
        if self._closed:
            raise Closed("the client is closed")
        if not self.nc.is_connected:
            # Not left to wait in a buffer: a command that is carried out when its sender has
            # long given up does harm.
            raise node_error("NO_NODE", "NATS cannot be reached, and the connection is being made anew: try again in a moment")
        try:
            answer = await self._inbox.request(subject, payload, patience)
        except nats.errors.NoRespondersError as e:
            raise node_error("NO_NODE", f"no node answers on {subject}") from e
        except nats.errors.MaxPayloadError as e:
            raise node_error("PAYLOAD_TOO_LARGE", "the request is larger than the NATS server takes") from e
        self._answered = True
        return decode(answer.data)

    def _refused(self, e: Exception) -> None:
        """Fails the commands that the server has refused: it says so only on the side."""
        text = str(e)
        if "permissions violation" not in text.lower():
            return
        m = _SUBJECT.search(text)
        subject = m.group(1) if m else ""
        error = partial(node_error, "FORBIDDEN", f"the NATS server refuses this client: {text}", 403, {"subject": subject})
        if subject.lower().startswith("memory."):
            self._inbox.fail(error, subject)
        else:  # a refused inbox concerns every command
            self._inbox.refused()
            self._inbox.fail(error)

    async def follow(self, operation_id: str, progress: OnProgress | None = None, node: str | None = None) -> Data:
        """Waits for an operation to end; returns its result. Cancelling this ends the waiting alone."""
        wait = _PROGRESS_WAIT if progress else _AWAIT_WAIT
        while True:
            answer = await self.call(
                "get_operation", {"operation_id": operation_id, "wait_ms": round(wait * 1000)}, patience=wait, node=node
            )
            op: Data = answer["operation"]
            if progress is not None:
                await run(progress, Progress.parse(op))
            if op["status"] in ("queued", "running"):
                continue
            return outcome(op)

    async def do(
        self, action: str, data: Mapping[str, Any], progress: OnProgress | None = None, *, node: str | None = None, **options: Any
    ) -> Data:
        """call followed, where the command is queued or running, by follow.

        What waits does not outlive its node: where the next one does not know the operation, the
        command is given again with the same request_id, and has its effect once.
        """
        options["request_id"] = options.get("request_id") or str(uuid.uuid4())
        attempt = 1
        while True:
            try:
                return await self.call(action, data, node=node, **options)
            except Pending as p:
                if progress is not None:
                    await run(progress, Progress.parse({"action": action, **p.data}))
                operation_id: str = p.data["operation_id"]
            try:
                return await self.follow(operation_id, progress, node)
            except NodeError as e:
                if e.code != "OPERATION_NOT_FOUND" or attempt >= self.options.attempts:
                    raise
            attempt += 1

    # Events

    async def subscribe(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """Subscribes; what happens after the return is received. Returns how to end it."""
        try:
            sub = await self.nc.subscribe(subject, cb=callback)
            await self.nc.flush(timeout=round(_SLACK))
        except nats.errors.Error as e:
            raise node_error("NO_NODE", f"subscribing to {subject}: {e}") from e

        async def end() -> None:
            if not self.nc.is_closed:
                try:
                    await sub.unsubscribe()
                except nats.errors.Error:
                    pass  # the connection is gone, and the subscription with it

        return end

    def on_reconnect(self, callback: Callable[[], Awaitable[None]]) -> Callable[[], None]:
        """Calls back after each reconnection to NATS. Returns how to end that."""
        self._on_reconnect.append(callback)
        return lambda: self._on_reconnect.remove(callback)

    async def _reconnected(self) -> None:
        for callback in list(self._on_reconnect):
            await callback()


def outcome(op: Data) -> Data:
    """The result of an ended operation, or its error."""
    if op["status"] == "completed":
        result: Data = op.get("result") or {}
        return result
    e = op.get("error")
    if not e:
        code = "CANCELLED" if op["status"] == "cancelled" else "INTERNAL_ERROR"
        raise node_error(code, f"operation {op['operation_id']}: {op['status']}")
    raise node_error(e["error_code"], e["error_message"], e.get("status_code", 0), e.get("details"))


def decode(payload: bytes) -> Data:
    """The data of a reply, or its error, or Pending."""
    try:
        reply = json.loads(payload)
        if not isinstance(reply, dict):
            raise ValueError("no object")
    except ValueError as e:
        raise node_error("INTERNAL_ERROR", f"the answer is no reply: {e}") from e
    if not reply.get("success"):
        raise node_error(
            str(reply.get("error_code")), str(reply.get("error_message")), reply.get("status_code") or 0, reply.get("details")
        )
    data: Data = reply.get("data") or {}
    if data.get("operation_id") and data.get("status") in ("queued", "running"):
        raise Pending(data)
    return data
