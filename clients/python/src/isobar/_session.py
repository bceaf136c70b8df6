"""A session of the data socket.

While the connection lives, so do the grants that are bound to it. When the node goes, mappings
stay: the session connects again as soon as a node listens, resumes, and says what it still
holds. Requests meanwhile wait; those that were on their way fail with Disconnected.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from . import _fork
from ._grant import Grant
from ._memory import Dropped, Mapped, Segment, open_region, prepare
from ._table import Table
from ._tasks import Tasks
from ._version import __version__
from ._wire import Connection, Frame
from .errors import Closed, Disconnected, IsobarError, NodeError, ProtocolError, node_error

log = logging.getLogger("isobar")

_HELLO_SECONDS = 10.0
_GOODBYE_SECONDS = 5.0
_RETRY_FROM, _RETRY_TO = 0.005, 1.0


@dataclass(frozen=True, slots=True)
class Resumption:
    """How the reconnection to a node went.

    ``resumed`` is False if the node knew nothing of the session and made a new one. ``lost`` are
    grants that are not the session's any more: their buffers and models are closed. ``error`` is
    set if the node refused the session for good.
    """

    session_id: str = ""
    node: str = ""
    boot_id: str = ""
    resumed: bool = False
    lost: tuple[str, ...] = ()
    error: IsobarError | None = None


@dataclass(slots=True)
class _Request:
    """Waits for its answer; take gets each message of it and says whether it was the last."""

    take: Callable[[Frame], bool]
    done: asyncio.Future[None]
    asked: bool = True  # somebody waits for it


class Session:
    """See the module. Made by :meth:`open`; runs on one event loop."""

    def __init__(
        self,
        path: str,
        name: str,
        on_revoke: Callable[[str, float, str], Awaitable[None]],
        on_resume: Callable[[Session, Resumption, list[Grant]], Awaitable[None]],
    ) -> None:
        self.path = path
        self.id = self.node = self.boot_id = self.nats_url = ""
        # Mappings by grant: one may be mapped several times, which is one mapping to the node.
        self.held: dict[str, list[Grant]] = {}
        self._coming: Counter[str] = Counter()  # maps that are on their way
        self._opening: Counter[str] = Counter()  # of these, the node has answered
        self._landed = asyncio.Condition()  # fewer are
        self._name = name
        self._token = ""
        self._on_revoke = on_revoke
        self._on_resume = on_resume
        self._conn: Connection | None = None
        self._dialing: Connection | None = None
        self._changed = asyncio.Event()  # connected, or closed
        self._closed: IsobarError | None = None
        self._last = 0
        self._pending: dict[int, _Request] = {}
        self._tasks = Tasks(f"the data socket {path}", Closed, Disconnected)
        _fork.watch(self)

    async def open(self) -> None:
        """Connects for the first time."""
        await self._dial()

    @property
    def connected(self) -> bool:
        """Whether requests go out at once."""
        return self._conn is not None

    # Requests

    async def map(self, claim: str, allocation_id: str, kind: object, writable: bool, private: bool) -> Grant:
        """Redeems a claim on a grant, maps it, and keeps it until it is unmapped or revoked."""
        await prepare(kind)
        answer: dict[str, Any] = {}
        segments: list[Segment] = []
        tensors: list[bytes] = []

        def take(frame: Frame) -> bool:
            body = frame.body
            _expect(body, "mapped")
            if body.get("allocation_id") != allocation_id:
                raise ProtocolError(f"a claim on {allocation_id} brought {body.get('allocation_id')}")
            if body.get("kind") != kind:
                raise ProtocolError(f"a claim on {kind!r} brought {body.get('kind')!r}")
            for s in body.get("segments") or ():
                fd = frame.take(s.get("fd"))
                try:
                    segments.append(Segment.parse(s, fd))
                except BaseException:
                    os.close(fd)
                    raise
            tensors.append(body.get("tensors") or b"\xc0")
            if not body.get("more"):
                answer.update(body)
                self._opening[allocation_id] += 1  # from here on it is held
                return True
            return False

        self._coming[allocation_id] += 1
        try:
            await self._ask({"type": "map", "claim": claim, "mode": "rw" if writable else "ro"}, take)
        except BaseException as e:
            for s in segments:
                os.close(s.fd)
            await self._came(allocation_id, bool(answer))
            # An answer that comes later is discarded, and the node told then.
            if answer or not isinstance(e, (NodeError, asyncio.CancelledError)):
                self._let_go(allocation_id)
            raise
        opening = asyncio.ensure_future(
            self._open(answer, tensors, Mapped(segments, writable, private, str(answer.get("device_uuid") or "")))
        )
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._tasks.start(self._close_again(opening))
            raise

    async def _open(self, answer: dict[str, Any], tensors: list[bytes], mapped: Mapped) -> Grant:
        allocation_id: str = answer["allocation_id"]
        grant: Grant | None = None
        try:
            table = Table(tensors)
            grant = Grant(self, answer, await open_region(answer["kind"], mapped, table.read), table)
            self.held.setdefault(allocation_id, []).append(grant)
        finally:
            await self._came(allocation_id, True)
            if grant is None and self._conn is not None and not self._maps(allocation_id):
                # Heard before whoever asked gives the memory back.
                try:
                    await self._ask({"type": "unmap", "allocation_id": allocation_id}, _only("unmapped"))
                except (IsobarError, OSError) as e:
                    log.info("%s could not be mapped, and the node not told: %s", allocation_id, e)
        if self._closed is not None:
            grant.drop()
            raise self._closed
        return grant

    async def _close_again(self, opening: asyncio.Future[Grant]) -> None:
        """Lets go of what was mapped for nobody."""
        try:
            grant = await opening
        except (IsobarError, OSError):
            return
        await self.unmap(grant)

    async def _came(self, allocation_id: str, answered: bool) -> None:
        for counter in (self._coming, self._opening) if answered else (self._coming,):
            counter[allocation_id] -= 1
            if not counter[allocation_id]:
                del counter[allocation_id]
        async with self._landed:
            self._landed.notify_all()

    async def unmap(self, grant: Grant) -> bool:
        """Lets go, waits for the last view to die, and tells the node. False if the memory stays
        mapped as long as this process lives."""
        grant.drop()
        if not await grant.dropped():
            return False
        if grant.told or self._closed is not None or self._maps(grant.allocation_id):
            return True
        grant.told = True
        try:
            await self._ask({"type": "unmap", "allocation_id": grant.allocation_id}, _only("unmapped"))
        except Disconnected:
            pass  # the next hello says what is held
        except NodeError as e:
            if e.code != "ALLOCATION_NOT_FOUND":  # which has ended meanwhile
                raise
        return True

    def _maps(self, allocation_id: str) -> bool:
        """Whether something of the grant is mapped, or will be."""
        return allocation_id in self.held or allocation_id in self._coming

    def forget(self, grant: Grant) -> None:
        """Takes note that nothing of this mapping is left."""
        mine = self.held.get(grant.allocation_id, [])
        if grant in mine:
            mine.remove(grant)
        if not mine:
            self.held.pop(grant.allocation_id, None)

    def _holds(self) -> list[str]:
        return sorted({*self.held, *self._opening})

    def _all(self) -> list[Grant]:
        return [g for mine in self.held.values() for g in mine]

    async def offer(self, name: str, fd: int) -> str:
        """Passes an open file to the node; returns the claim for load_model's file_claim."""
        claim = ""

        def take(frame: Frame) -> bool:
            nonlocal claim
            _expect(frame.body, "offered")
            claim = frame.body.get("file_claim", "")
            return True

        await self._ask({"type": "offer", "name": name}, take, (fd,))
        return claim

    async def ping(self) -> None:
        """Waits for an answer of the node."""
        await self._ask({"type": "ping"}, _only("pong"))

    async def close(self) -> None:
        """Ends the session and lets go of everything; views that are alive stay valid."""
        await self._say_goodbye()
        self._shut(Closed("the client is closed"))
        await self._tasks.end()

    async def _say_goodbye(self) -> None:
        """Unmaps what the node does not see unmapped, and says so as long as there is a session."""
        going = [g for g in self._all() if not g.region.proved and g.drop() is Dropped.GOING]
        if going and self._conn is not None:
            work = [asyncio.ensure_future(self.unmap(g)) for g in going]
            await asyncio.wait(work, timeout=_GOODBYE_SECONDS)
            for w in work:
                w.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    def forked(self) -> None:
        for conn in (self._conn, self._dialing):
            if conn is not None:
                _fork.silence(conn.fileno())
        for g in self._all():
            g.region.forked()

    # Connection

    def _shut(self, why: IsobarError) -> None:
        if self._closed is not None:
            return
        self._closed = why
        for g in self._all():  # first: the node looks as soon as the connection ends
            g.drop()
        for conn in (self._conn, self._dialing):
            if conn is not None:
                conn.close()
        self._conn = self._dialing = None
        self._fail_pending(why)
        self._changed.set()

    async def _dial(self) -> dict[str, Any]:
        conn: Connection
        conn = await Connection.open(self.path, lambda f: self._frame(conn, f), lambda e: self._lost(conn, e))
        self._dialing = conn
        welcome: dict[str, Any] = {}

        def take(frame: Frame) -> bool:
            # Connected from this message on: a revoke may follow it in the same read.
            _expect(frame.body, "welcome")
            welcome.update(frame.body)
            self.id, self._token = welcome["session_id"], welcome["resume_token"]
            self.node, self.boot_id = welcome["node"], welcome["boot_id"]
            self.nats_url = welcome.get("nats_url", "")
            self._conn, self._dialing = conn, None
            self._changed.set()
            return True

        hello: dict[str, Any] = {"type": "hello", "id": 0, "client": self._name, "version": __version__}
        if self.id:
            # To hold nothing is a word too.
            hello |= {"session_id": self.id, "resume_token": self._token, "held": self._holds()}
        elif self._holds():  # of a session that has ended
            hello["held"] = self._holds()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending[0] = _Request(take, done)
        try:
            conn.send(hello)
            async with asyncio.timeout(_HELLO_SECONDS):
                await done
        except TimeoutError as e:
            raise Disconnected("the node did not answer hello") from e
        finally:
            self._pending.pop(0, None)
            if self._conn is not conn:
                conn.close()
                self._dialing = None
        return welcome

    def _lost(self, conn: Connection, why: Exception) -> None:
        error = why if isinstance(why, IsobarError) else Disconnected(str(why))
        if conn is self._dialing:
            r = self._pending.get(0)
            if r is not None and not r.done.done():
                r.done.set_exception(error)
            return
        if conn is not self._conn:
            return
        log.info("data socket %s: %s; connecting anew", self.path, why)
        self._conn = None
        self._changed.clear()
        self._fail_pending(error if isinstance(error, Disconnected) else Disconnected(str(error)))
        self._tasks.start(self._redial())

    def _fail_pending(self, why: IsobarError) -> None:
        pending, self._pending = self._pending, {}
        for r in pending.values():
            if r.asked and not r.done.done():
                r.done.set_exception(why)

    async def _redial(self) -> None:
        pause = _RETRY_FROM
        while True:
            try:
                welcome = await self._dial()
                break
            except NodeError as e:
                if e.code == "STALE_HANDLE" and self.id:
                    # The session has ended, with its node's memory perhaps: begin a new one.
                    self.id = self._token = ""
                    continue
                if e.status < 500 and e.code != "BUSY":
                    self._shut(e)
                    await self._on_resume(self, Resumption(error=e), [])
                    return
            except (OSError, IsobarError):
                pass
            await asyncio.sleep(pause)
            pause = min(2 * pause, _RETRY_TO)
        lost = tuple(welcome.get("lost") or ())
        grants = [g for g in self._all() if g.allocation_id in lost]
        for g in grants:
            g.told = True
        await self._on_resume(
            self, Resumption(self.id, self.node, self.boot_id, bool(welcome.get("resumed")), lost), grants
        )

    async def _ask(self, message: dict[str, Any], take: Callable[[Frame], bool], fds: tuple[int, ...] = ()) -> None:
        while self._conn is None and self._closed is None:
            await self._changed.wait()
        if self._closed is not None:
            raise self._closed
        assert self._conn is not None
        self._last += 1
        number = self._last
        r = _Request(take, asyncio.get_running_loop().create_future())
        self._pending[number] = r
        try:
            self._conn.send({**message, "id": number}, fds)
            await r.done
        except asyncio.CancelledError:
            if self._pending.get(number) is r:
                # Whoever asked is gone; the answer must still be taken apart.
                self._discard(number)
            raise

    def _discard(self, number: int) -> None:
        def take(frame: Frame) -> bool:
            if frame.body.get("more"):
                return False
            if frame.body["type"] == "mapped":
                self._let_go(frame.body.get("allocation_id", ""))
            return True

        self._pending[number] = _Request(take, asyncio.get_running_loop().create_future(), asked=False)

    def _let_go(self, allocation_id: str) -> None:
        """Tells the node that a grant is not mapped after all."""
        if allocation_id and not self._maps(allocation_id) and self._conn is not None:
            self._conn.send({"type": "unmapped", "id": 0, "allocation_id": allocation_id})

    def _frame(self, conn: Connection, frame: Frame) -> None:
        body = frame.body
        if body["type"] == "revoke":
            self._tasks.start(self._revoked(conn, body))
            return
        number = body.get("id")
        r = self._pending.get(number) if isinstance(number, int) else None
        if r is None or not isinstance(number, int):
            raise ProtocolError(f"{body['type']!r} {number!r} answers nothing")
        error: Exception | None = None
        last = True
        if body["type"] == "error":
            error = node_error(str(body.get("error_code")), str(body.get("error_message")), body.get("status_code") or 0)
        else:
            try:
                last = r.take(frame)
            except (IsobarError, OSError) as e:
                error, last = e, not body.get("more")
        if error is not None and not last:
            self._discard(number)
        elif last:
            self._pending.pop(number, None)
        if (last or error is not None) and not r.done.done():
            if error is not None and r.asked:
                r.done.set_exception(error)
            else:
                r.done.set_result(None)

    async def _revoked(self, conn: Connection, body: dict[str, Any]) -> None:
        allocation_id = str(body.get("allocation_id"))
        await self._on_revoke(allocation_id, (body.get("deadline_ms") or 0) / 1000, str(body.get("reason") or ""))
        while self._maps(allocation_id):
            mine = list(self.held.get(allocation_id, ()))
            for grant in mine:
                grant.drop()
            for grant in mine:
                await grant.gone.wait()
                grant.told = True
            async with self._landed:
                await self._landed.wait_for(lambda: allocation_id in self.held or allocation_id not in self._coming)
        if self._conn is not None:  # after a reconnection hello has said it, or another word does no harm
            number = body.get("id") if self._conn is conn else 0
            self._conn.send({"type": "unmapped", "id": number, "allocation_id": allocation_id})


def _expect(body: dict[str, Any], kind: str) -> None:
    if body["type"] != kind:
        raise ProtocolError(f"{body['type']!r} where {kind!r} was expected")


def _only(kind: str) -> Callable[[Frame], bool]:
    def take(frame: Frame) -> bool:
        _expect(frame.body, kind)
        return True

    return take
