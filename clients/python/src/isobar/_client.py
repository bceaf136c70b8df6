"""The client on asyncio. The synchronous one is a face over it."""

from __future__ import annotations

import asyncio
import logging
import operator
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, TypeVar

from . import _fork, _room
from ._abandoned import Abandoned
from ._control import Control, OnProgress, Options, Pending, Progress, shielded
from ._events import Events
from ._grant import Grant
from ._handles import Opening, Revocation, Subscription
from ._hashes import Hashes, parts
from ._loading import Loading
from ._memory import Dropped, foresee
from ._objects import Buffer, Model, Operation, closed, revoked
from ._pressure import Pressure, PressureWatch, look
from ._progress import shown, size
from ._session import Resumption, Session
from ._tasks import Tasks
from .errors import Closed, Disconnected, IsobarError, NodeError

log = logging.getLogger("isobar")

Mode = Literal["ro", "rw"]

H = TypeVar("H", Buffer, Model)


class Client:
    """A client of a node: commands and events over NATS, memory over the data socket.

    Made by :func:`isobar.aio.connect`; belongs to one event loop.
    """

    def __init__(self, options: Options, data_socket: str) -> None:
        self._control = Control(options)
        self._data_socket = data_socket
        self._pid = os.getpid()
        self._sessions: dict[str, Session] = {}
        self._opening = asyncio.Lock()
        self._held: dict[str, list[Buffer | Model]] = {}
        self._revoke_callbacks: list[Callable[[Revocation], object]] = []
        self._resume_callbacks: list[Callable[[Resumption], object]] = []
        self._tasks = Tasks("the client")
        self._abandoned = Abandoned(self._control, self._tasks)
        self._closed = False

    # Life

    async def _open(self) -> Client:
        await self._control.open()
        _room.make()
        return self

    def _check(self) -> None:
        _fork.check(self._pid)
        if self._closed:
            raise Closed("the client is closed")

    async def close(self) -> None:
        """Ends the session: what was bound to it is given back. Views that are alive stay valid, and
        their memory stays counted as this process's."""
        _fork.check(self._pid)
        if self._closed:
            return
        self._closed = True
        await self._tasks.end()
        for held in list(self._held.values()):
            for h in held:
                h._end(closed("the client"))
        self._held.clear()
        for s in self._sessions.values():
            await s.close()
        await self._control.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Commands

    async def call(
        self,
        action: str,
        data: Mapping[str, Any] | None = None,
        *,
        progress: OnProgress | None = None,
        request_id: str = "",
        wait: float | None = None,
        timeout: float | None = None,
        node: str | None = None,
    ) -> dict[str, Any]:
        """Gives any command of the contract, and follows it to its end where it is queued or
        running. Returns the reply's data.

        progress is called with a Progress while it goes. wait is how long the node may take to
        answer (wait_ms). After timeout seconds the waiting ends with TimeoutError; the command
        goes on (see submit for one that can be cancelled). The same request_id has its effect once.
        """
        self._check()
        async with asyncio.timeout(timeout):
            return await self._control.do(action, data or {}, progress, node=node, request_id=request_id, wait=wait)

    async def submit(
        self, action: str, data: Mapping[str, Any] | None = None, *, request_id: str = "", wait: float = 0, node: str | None = None
    ) -> Operation:
        """Gives a changing command without waiting for its end."""
        self._check()
        try:
            result = await self._control.call(action, data or {}, request_id=request_id, wait=wait, node=node)
        except Pending as p:
            return Operation(self, Progress.parse({"action": action, **p.data}), None)
        return Operation(self, Progress("", action, "completed"), result)

    async def dry_run(self, action: str, data: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a changing command would do: the contract's plan (outcome, evict, reason, …)."""
        self._check()
        plan: dict[str, Any] = (await self._control.call(action, data or {}, dry_run=True))["plan"]
        return plan

    async def _follow(self, operation_id: str, progress: OnProgress | None, timeout: float | None) -> dict[str, Any]:
        self._check()
        async with asyncio.timeout(timeout):
            return await self._control.follow(operation_id, progress)

    async def status(self, device: str | None = None) -> dict[str, Any]:
        """The state of one device, or of all: the reply of get_status."""
        return await self.call("get_status", {"device_id": device})

    async def devices(self) -> list[dict[str, Any]]:
        """The node's devices."""
        answer = await self.call("list_devices")
        return list(answer["devices"])

    async def models(self) -> list[dict[str, Any]]:
        """The models that the node knows."""
        return await self._pages("get_model_info", {}, "models")

    async def allocations(
        self, *, device: str | None = None, model: str | None = None, purpose: str | None = None, status: str | None = None
    ) -> list[dict[str, Any]]:
        """The grants that this client may see, all or those of a device, a model, a purpose, a status:
        the contract's allocation type. Requests that wait are left out unless status is "queued"."""
        only = {"device_id": device, "model_name": model, "purpose": purpose, "status": status}
        return await self._pages("get_allocations", only, "allocations")

    async def _pages(self, action: str, data: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
        """What a command lists, page by page."""
        out: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = await self.call(action, {**data, "cursor": cursor})
            out += page[key]
            cursor = page.get("next_cursor")
            if not cursor:
                return out

    async def pressure(self, device: str | None = None) -> list[Pressure]:
        """The pressure of one device, or of each."""
        self._check()
        return await look(self._control, device)

    async def unload_model(
        self, name: str, *, device: str | None = None, to: str | None = None, force: bool = False, deadline: float | None = None
    ) -> dict[str, Any]:
        """Unloads a model: drops it, or moves it to main memory (to="ram"). With force also from
        those who read it, who have deadline seconds to let go."""
        return await self.call(
            "unload_model", {"name": name, "device_id": device, "to": to, "force": force or None, "deadline_ms": _ms(deadline)}
        )

    async def deallocate(self, allocation_id: str, *, force: bool = False, deadline: float | None = None) -> dict[str, Any]:
        """Gives a grant back by its id."""
        return await self.call(
            "deallocate", {"allocation_id": allocation_id, "force": force or None, "deadline_ms": _ms(deadline)}
        )

    async def renew(self, *allocation_ids: str, lease: float) -> None:
        """Extends the leases of grants: they end in lease seconds from now, unless renewed again."""
        await self.call("renew", {"allocation_ids": list(allocation_ids), "lease_seconds": max(1, round(lease))})

    # Memory

    def allocate(
        self,
        size_bytes: int,
        *,
        device: str | None = None,
        kind: str | None = None,
        purpose: str | None = None,
        state: bool = False,
        persistent: bool = False,
        lease: float | None = None,
        priority: int = 0,
        alignment: int | None = None,
        clear: bool = False,
        queue: float | None = None,
        progress: OnProgress | bool | None = None,
        timeout: float | None = None,
        request_id: str = "",
    ) -> Opening[Buffer]:
        """Allocates memory and maps it read-write.

        device may be absent where the node has one of the kind (RAM, VRAM). queue is how many
        seconds the request may stand in line for room (0: not at all; 30 unless said). The grant
        ends with the buffer or this client's session; a persistent one (or one that is state, which
        survives moving) stays until it is deallocated by its id; one with a lease, in seconds, until
        it ends. Where waiting ends early, by timeout or by cancelling, the request is cancelled.

        progress is called with a Progress while it waits; True shows that on standard error.
        """
        data = {
            "size_bytes": operator.index(size_bytes), "device_id": device, "allocation_type": kind, "purpose": purpose, "class": "state" if state else None,
            "persistent": persistent or None, "lease_seconds": None if lease is None else max(1, round(lease)), "priority": priority or None,
            "alignment": alignment, "clear": clear or None, "timeout_seconds": None if queue is None else max(0, round(queue)),
        }  # fmt: skip
        return Opening(self._allocate(data, persistent or state or lease is not None, progress, timeout, request_id))

    async def _allocate(
        self, data: dict[str, Any], outlives: bool, progress: OnProgress | bool | None, timeout: float | None, request_id: str
    ) -> Buffer:
        self._check()
        foresee(data["device_id"])
        session = self._only_session()
        if session is not None and not outlives:
            # From the first moment on: mapping would bind it too, but this process may die before.
            data["session_id"] = session.id
        with shown(progress, f"{size(data['size_bytes'])} of memory") as told:
            reply = await self._abandoned.do("allocate", data, told, timeout, request_id)
        allocation = reply["allocation"]
        try:
            grant = await self._map(reply["handle"], allocation["allocation_id"], writable=True, private=False)
        except BaseException:
            self._abandoned.grant(allocation["allocation_id"])
            raise
        return self._hold(Buffer(self, grant, allocation, writable=True, owned=not outlives))

    def attach(self, allocation_id: str, mode: Mode = "ro") -> Opening[Buffer]:
        """Maps a grant that exists already, of another process for example."""
        return Opening(self._attach(allocation_id, mode))

    async def _attach(self, allocation_id: str, mode: Mode) -> Buffer:
        if mode not in ("ro", "rw"):
            raise ValueError(f"mode is ro or rw, not {mode!r}")
        allocation = (await self.call("get_allocation", {"allocation_id": allocation_id}))["allocation"]
        handle = (await self.call("get_handle", {"allocation_id": allocation_id}))["handle"]
        grant = await self._map(handle, allocation["allocation_id"], writable=mode == "rw", private=False)
        return self._hold(Buffer(self, grant, allocation, writable=mode == "rw", owned=False))

    def load_model(
        self,
        name: str,
        path: str | os.PathLike[str] | None = None,
        *,
        offer: bool = False,
        device: str | None = None,
        type: str | None = None,
        shared: bool = False,
        pinned: bool = False,
        priority: int = 0,
        keep_warm: bool | None = None,
        verify: bool = False,
        hashes: Hashes | None = None,
        queue: float | None = None,
        progress: OnProgress | bool | None = None,
        timeout: float | None = None,
        request_id: str = "",
    ) -> Opening[Model]:
        """Loads a model, or joins its load, or takes what is loaded, and maps its weights.

        path is a file in one of the node's model roots, and may be absent for a model that the node
        knows. With offer the file is opened here, with this process's rights, and passed to the
        node. Where waiting ends early, by timeout or by cancelling, this request's load is cancelled.

        keep_warm says whether a model of a GPU has a copy in main memory too (it does unless the
        node is told otherwise), from which it comes back quickly. verify has every byte compared
        with the file, whether it is loaded now or was before; hashes has tensors compared with their
        SHA-256 sums (64 hexadecimal digits, or hashlib's digest), for which no file is needed:
        InvalidModel where they differ, whose details name the tensor. progress is called with a
        Progress while it goes; True shows a bar on standard error.
        """
        data = {
            "name": name, "path": None if path is None else os.fspath(path), "device_id": device, "type": type, "shared": shared or None,
            "pinned": pinned or None, "priority": priority or None, "timeout_seconds": None if queue is None else max(0, round(queue)),
            "keep_warm": keep_warm, "verify": verify or None,
        }  # fmt: skip
        return Opening(Loading(self, data, parts(hashes), progress, timeout, request_id).run(offer))

    async def _map(self, handle: Mapping[str, Any], allocation_id: str, *, writable: bool, private: bool) -> Grant:
        """Redeems the claim of a handle on the session of its node."""
        session = await self._session(handle["data_socket"])
        return await session.map(handle["claim"], allocation_id, handle["kind"], writable, private)

    def _hold(self, h: H) -> H:
        self._held.setdefault(h.allocation_id, []).append(h)
        return h

    def _let_go(self, h: Buffer | Model, why: IsobarError) -> None:
        h._end(why)
        held = self._held.get(h.allocation_id, [])
        if h in held:
            held.remove(h)
        if not held:
            self._held.pop(h.allocation_id, None)

    async def _close_buffer(self, b: Buffer, force: bool) -> bool:
        _fork.check(self._pid)
        if b.closed:
            return b._grant.gone.is_set()
        self._let_go(b, closed("the buffer"))
        return await self._release(b._grant, lambda: self._give_back(b, force))

    async def _give_back(self, b: Buffer, force: bool) -> None:
        if not b._owned:
            return
        try:
            await self.deallocate(b.allocation_id, force=force)
        except NodeError as e:
            if e.code != "ALLOCATION_NOT_FOUND":
                raise

    async def _close_model(self, m: Model) -> bool:
        _fork.check(self._pid)
        if m.closed:
            return m._grant.gone.is_set()
        self._let_go(m, closed(f"the model {m.name!r}"))
        return await self._release(m._grant, lambda: self._drop_reference(m))

    async def _drop_reference(self, m: Model) -> None:
        try:
            await self.call("release_model", {"reference_id": m._reference})
        except NodeError as e:
            if e.status not in (404, 410):
                raise

    async def _release(self, grant: Grant, then: Callable[[], Awaitable[None]]) -> bool:
        """Unmaps a grant and tells the node; where views are alive, later."""

        async def whole() -> bool:
            if not await grant.session.unmap(grant):
                return False
            await then()
            return True

        if grant.drop() is not Dropped.VIEWED:
            return await whole()
        log.info("%s is closed, but views of it are alive: its memory is given back when they are gone", grant.allocation_id)
        self._tasks.start(whole())
        return False

    # Sessions

    def _only_session(self) -> Session | None:
        alive = [s for s in self._sessions.values() if s.connected]
        return alive[0] if len(alive) == 1 else None

    def _default_socket(self) -> str:
        if self._data_socket:
            return self._data_socket
        folder = os.environ.get("ISOBAR_RUNTIME_DIR") or os.path.join(os.environ.get("XDG_RUNTIME_DIR") or "/run", "isobar")
        return os.path.join(folder, "data.sock")

    async def _session(self, path: str) -> Session:
        self._check()
        async with self._opening:
            session = self._sessions.get(path)
            if session is None:
                session = Session(path, self._control.options.name, self._revoked, self._resumed)
                try:
                    await session.open()
                except OSError as e:
                    if isinstance(e, IsobarError):
                        raise
                    raise Disconnected(f"the data socket {path} cannot be reached: {e}") from e
                self._sessions[path] = session
            return session

    def on_revoke(self, callback: Callable[[Revocation], object]) -> Subscription:
        """Calls back when the node wants memory back, before this client closes what holds it."""
        return self._register(self._revoke_callbacks, callback)

    def on_resume(self, callback: Callable[[Resumption], object]) -> Subscription:
        """Calls back when the session was taken up again after the node's death or restart."""
        return self._register(self._resume_callbacks, callback)

    def _register(self, where: list[Callable[[Any], object]], callback: Callable[[Any], object]) -> Subscription:
        self._check()
        where.append(callback)

        async def end() -> None:
            where.remove(callback)

        return Subscription(end)

    async def _revoked(self, allocation_id: str, deadline: float, reason: str) -> None:
        r = Revocation(allocation_id, deadline, reason, tuple(self._held.get(allocation_id, ())))
        try:
            for callback in list(self._revoke_callbacks):
                await shielded(callback, r)
        finally:
            self._end_all(allocation_id, reason)

    def _end_all(self, allocation_id: str, reason: str) -> None:
        for h in self._held.pop(allocation_id, []):
            h._end(revoked(f"the model {h.name!r}" if isinstance(h, Model) else "the buffer", reason))

    async def _resumed(self, session: Session, r: Resumption, lost: list[Grant]) -> None:
        if r.error is not None:
            self._sessions = {k: s for k, s in self._sessions.items() if s is not session}
            for h in [h for held in self._held.values() for h in held if h._grant.session is session]:
                self._end_all(h.allocation_id, f"the session has ended: {r.error}")
        for grant in lost:
            self._end_all(grant.allocation_id, "the node lost it")
            grant.drop()
        for callback in list(self._resume_callbacks):
            await shielded(callback, r)

    # Events

    def events(self, *subjects: str) -> Opening[Events]:
        """Subscribes to event subjects, which may have wildcards; none means every event."""
        self._check()
        return Opening(Events().open(self._control, subjects))

    async def on_pressure(self, callback: Callable[[Pressure], object], device: str | None = None) -> Subscription:
        """Calls back with the pressure of each device (or one) as it is now, then with every change,
        in order, one call after the other."""
        self._check()
        watch = PressureWatch(self._control, callback, device)
        for work in await watch.open():
            self._tasks.start(work)
        return Subscription(watch.close)


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else max(0, round(seconds * 1000))
