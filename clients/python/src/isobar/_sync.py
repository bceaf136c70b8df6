"""The synchronous face: the same names as :mod:`isobar.aio`, on an event loop in a thread of its own.

Callbacks run on other threads again, one call of each after the other, and may use the client.
"""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from . import _client, _events, _handles, _objects
from ._arrays import Framework, TensorInfo
from ._client import Mode
from ._control import OnProgress, Progress
from ._events import Event
from ._hashes import Hashes
from ._handles import Revocation
from ._pressure import Pressure
from ._session import Resumption
from ._thread import Thread, elsewhere, elsewhere_if
from .errors import Closed


class Subscription:
    """A callback that was registered; close ends it."""

    def __init__(self, thread: Thread, inner: _handles.Subscription) -> None:
        self._thread, self._inner = thread, inner

    def close(self) -> None:
        """No call begins after this."""
        self._thread.run(self._inner.close())

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Events:
    """A subscription: ``for event in events``. A reader that is too slow loses the oldest, and sees
    it in ``missed``."""

    def __init__(self, thread: Thread, inner: _events.Events) -> None:
        self._thread, self._inner = thread, inner

    def next(self, timeout: float | None = None) -> Event:
        """The next event; TimeoutError after timeout seconds, Closed after close."""
        return self._thread.run(self._inner.next(timeout))

    def __iter__(self) -> Iterator[Event]:
        while True:
            try:
                yield self.next()
            except Closed:
                return

    def close(self) -> None:
        """Ends the subscription, and with it the iteration."""
        self._thread.run(self._inner.close())

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Operation:
    """A command that was given and may not be done: wait for its :meth:`result`, or :meth:`cancel` it."""

    def __init__(self, thread: Thread, inner: _objects.Operation) -> None:
        self._thread, self._inner = thread, inner

    @property
    def id(self) -> str:
        """The operation's id; "" if the command was done at once."""
        return self._inner.id

    @property
    def done(self) -> bool:
        """Whether it was completed when the node was last asked."""
        return self._inner.done

    @property
    def progress(self) -> Progress:
        """How it went when the node was last asked."""
        return self._inner.progress

    def result(self, progress: OnProgress | None = None, timeout: float | None = None) -> dict[str, Any]:
        """Waits for the end; returns the action's reply data, or raises its error. TimeoutError
        after timeout seconds, which leaves the operation running."""
        return self._thread.run(self._inner.result(elsewhere_if(progress), timeout))

    def refresh(self) -> Progress:
        """Asks the node how it goes."""
        return self._thread.run(self._inner.refresh())

    def cancel(self) -> Progress:
        """Stops it; returns the state that it came to."""
        return self._thread.run(self._inner.cancel())


class _Held:
    """What buffers and models have in common."""

    def __init__(self, thread: Thread, inner: _objects.Buffer | _objects.Model) -> None:
        self._thread = thread
        self._held = inner

    @property
    def allocation_id(self) -> str:
        """The grant's id."""
        return self._held.allocation_id

    @property
    def size_bytes(self) -> int:
        """How many bytes the grant has."""
        return self._held.size_bytes

    @property
    def device_id(self) -> str:
        """Where the memory lies."""
        return self._held.device_id

    @property
    def closed(self) -> bool:
        """Whether it was closed or revoked: views that exist are valid all the same."""
        return self._held.closed

    @property
    def lingering(self) -> bool:
        """Whether it is closed and yet mapped, because views of it are alive. The node counts the
        bytes as this process's until the last one has died."""
        return self._held.lingering

    def __repr__(self) -> str:
        return repr(self._held)


class Buffer(_Held):
    """Memory that was granted, in this process. Closing a buffer that this client allocated gives
    the memory back, unless it is persistent; one that was attached is only unmapped."""

    def __init__(self, thread: Thread, inner: _objects.Buffer) -> None:
        super().__init__(thread, inner)
        self._inner = inner

    @property
    def allocation(self) -> Mapping[str, Any]:
        """The grant: the contract's allocation type."""
        return self._inner.allocation

    @property
    def writable(self) -> bool:
        """Whether it is mapped read-write."""
        return self._inner.writable

    @property
    def memory(self) -> memoryview:
        """The bytes, as a new view: writing to it writes to the granted memory. Of a GPU there is
        none (UnsupportedMemory): torch shows it."""
        return self._inner.memory

    def numpy(self, dtype: Any = "uint8", shape: tuple[int, ...] | None = None) -> Any:
        """The bytes as a numpy array, without a copy: all, or as many as the shape wants."""
        return self._inner.numpy(dtype, shape)

    def torch(self, dtype: Any = "uint8", shape: tuple[int, ...] | None = None) -> Any:
        """The same as a torch tensor; dtype is torch's, or its name."""
        return self._inner.torch(dtype, shape)

    def __len__(self) -> int:
        return self.size_bytes

    def close(self, force: bool = False) -> bool:
        """Lets go of the memory. True if nothing of it is mapped any more; False while views of
        it are alive: then the rest happens when the last one dies. Of a GPU's memory it waits for
        the GPU's work first. force takes the memory from other processes too that map it; without
        it they are an error (InUse)."""
        return self._thread.run(self._inner.close(force))

    def __enter__(self) -> Buffer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Model(_Held):
    """A model's weights, shared with every process that loads it. While it is open it is not evicted."""

    def __init__(self, thread: Thread, inner: _objects.Model) -> None:
        super().__init__(thread, inner)
        self._inner = inner

    @property
    def name(self) -> str:
        """What the model is called."""
        return self._inner.name

    @property
    def info(self) -> Mapping[str, Any]:
        """The model as the node described it: the contract's model type."""
        return self._inner.info

    @property
    def verified(self) -> bool:
        """Whether its bytes were compared, as verify or hashes asked for."""
        return self._inner.verified

    @property
    def tensor_infos(self) -> tuple[TensorInfo, ...]:
        """The model's tensors: name, dtype, shape and where they lie."""
        return self._inner.tensor_infos

    def tensors(self, framework: Framework | None = None, *, raw: bool = False) -> dict[str, Any]:
        """The tensors by name, without a copy: torch tensors where the program has imported torch,
        else numpy arrays, or what framework ("numpy", "torch") says.

        numpy has no type for bfloat16 and 8-bit floats (UnsupportedDtype): raw gives such tensors
        as unsigned integers. numpy arrays are read-only. torch has no read-only tensors: pages
        that are written to become this process's own, and nobody else sees that. On a GPU, where
        only torch has tensors, a write ends this process's CUDA context: clone what is to change.

        The dict is emptied when the model is closed or revoked, so that it does not hold the memory.
        """
        return self._inner.tensors(framework, raw=raw)

    def tensor(self, name: str, framework: Framework | None = None, *, raw: bool = False) -> Any:
        """One tensor; KeyError if the model has none of that name."""
        return self._inner.tensor(name, framework, raw=raw)

    def load_into(self, module: Any, *, strict: bool = True, prefix: str = "", share_buffers: bool = False) -> Any:
        """Makes a torch module's parameters and buffers those of the model, without a copy; its own
        are let go. Of tensors whose names begin with prefix, the rest of the name is meant. Returns
        the module.

        On a GPU nothing may write to the model's memory, and modules write to their buffers
        (running statistics, caches): so buffers are copied there, unless share_buffers is true,
        as modules want it that keep quantised weights in buffers. What the model does not have of
        the module and lies in main memory is moved to the GPU.

        When the model is closed or revoked, what was assigned is replaced by meta tensors: using
        the module is an error then, and its memory is free.
        """
        return self._inner.load_into(module, strict=strict, prefix=prefix, share_buffers=share_buffers)

    def close(self) -> bool:
        """Lets go of the model: the node may evict it when nobody else reads it. Returns what
        Buffer.close returns."""
        return self._thread.run(self._inner.close())

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Client:
    """A client of a node: commands and events over NATS, memory over the data socket.

    Made by :func:`isobar.connect`. Its methods may be called from any thread.
    """

    def __init__(self, make: Callable[[], _handles.Opening[_client.Client]]) -> None:
        self._thread = Thread()

        async def open() -> _client.Client:
            return await make()

        try:
            self._inner = self._thread.run(open())
        except BaseException:
            self._thread.stop()
            raise
        # At the program's end the thread must not be in the middle of something.
        me = weakref.ref(self)
        self._at_exit = lambda: _close(me)
        atexit.register(self._at_exit)

    def close(self) -> None:
        """Ends the session: what was bound to it is given back. Views that are alive stay valid, and
        their memory stays counted as this process's."""
        try:
            self._thread.run(self._inner.close())
        except Closed:
            return
        self._thread.stop()
        atexit.unregister(self._at_exit)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(
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
        return self._thread.run(
            self._inner.call(
                action, data, progress=elsewhere_if(progress), request_id=request_id, wait=wait, timeout=timeout, node=node
            )
        )

    def submit(
        self, action: str, data: Mapping[str, Any] | None = None, *, request_id: str = "", wait: float = 0, node: str | None = None
    ) -> Operation:
        """Gives a changing command without waiting for its end."""
        return Operation(self._thread, self._thread.run(self._inner.submit(action, data, request_id=request_id, wait=wait, node=node)))

    def dry_run(self, action: str, data: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a changing command would do: the contract's plan (outcome, evict, reason, …)."""
        return self._thread.run(self._inner.dry_run(action, data))

    def status(self, device: str | None = None) -> dict[str, Any]:
        """The state of one device, or of all: the reply of get_status."""
        return self._thread.run(self._inner.status(device))

    def devices(self) -> list[dict[str, Any]]:
        """The node's devices."""
        return self._thread.run(self._inner.devices())

    def models(self) -> list[dict[str, Any]]:
        """The models that the node knows."""
        return self._thread.run(self._inner.models())

    def allocations(
        self, *, device: str | None = None, model: str | None = None, purpose: str | None = None, status: str | None = None
    ) -> list[dict[str, Any]]:
        """The grants that this client may see, all or those of a device, a model, a purpose, a status:
        the contract's allocation type. Requests that wait are left out unless status is "queued"."""
        return self._thread.run(self._inner.allocations(device=device, model=model, purpose=purpose, status=status))

    def pressure(self, device: str | None = None) -> list[Pressure]:
        """The pressure of one device, or of each."""
        return self._thread.run(self._inner.pressure(device))

    def unload_model(
        self, name: str, *, device: str | None = None, to: str | None = None, force: bool = False, deadline: float | None = None
    ) -> dict[str, Any]:
        """Unloads a model: drops it, or moves it to main memory (to="ram"). With force also from
        those who read it, who have deadline seconds to let go."""
        return self._thread.run(self._inner.unload_model(name, device=device, to=to, force=force, deadline=deadline))

    def deallocate(self, allocation_id: str, *, force: bool = False, deadline: float | None = None) -> dict[str, Any]:
        """Gives a grant back by its id."""
        return self._thread.run(self._inner.deallocate(allocation_id, force=force, deadline=deadline))

    def renew(self, *allocation_ids: str, lease: float) -> None:
        """Extends the leases of grants: they end in lease seconds from now, unless renewed again."""
        self._thread.run(self._inner.renew(*allocation_ids, lease=lease))

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
    ) -> Buffer:
        """Allocates memory and maps it read-write.

        device may be absent where the node has one of the kind (RAM, VRAM). queue is how many
        seconds the request may stand in line for room (0: not at all; 30 unless said). The grant
        ends with the buffer or this client's session; a persistent one (or one that is state, which
        survives moving) stays until it is deallocated by its id; one with a lease, in seconds, until
        it ends. Where waiting ends early, by timeout or by an interrupt, the request is cancelled.

        progress is called with a Progress while it waits; True shows that on standard error.
        """

        async def work() -> _objects.Buffer:
            return await self._inner.allocate(
                size_bytes, device=device, kind=kind, purpose=purpose, state=state, persistent=persistent, lease=lease,
                priority=priority, alignment=alignment, clear=clear, queue=queue, progress=elsewhere_if(progress), timeout=timeout,
                request_id=request_id,
            )  # fmt: skip

        return Buffer(self._thread, self._thread.run(work()))

    def attach(self, allocation_id: str, mode: Mode = "ro") -> Buffer:
        """Maps a grant that exists already, of another process for example."""

        async def work() -> _objects.Buffer:
            return await self._inner.attach(allocation_id, mode)

        return Buffer(self._thread, self._thread.run(work()))

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
    ) -> Model:
        """Loads a model, or joins its load, or takes what is loaded, and maps its weights.

        path is a file in one of the node's model roots, and may be absent for a model that the node
        knows. With offer the file is opened here, with this process's rights, and passed to the
        node. Where waiting ends early, by timeout or by an interrupt, this request's load is cancelled.

        keep_warm says whether a model of a GPU has a copy in main memory too (it does unless the
        node is told otherwise), from which it comes back quickly. verify has every byte compared
        with the file, whether it is loaded now or was before; hashes has tensors compared with their
        SHA-256 sums (64 hexadecimal digits, or hashlib's digest), for which no file is needed:
        InvalidModel where they differ, whose details name the tensor. progress is called with a
        Progress while it goes; True shows a bar on standard error.
        """

        async def work() -> _objects.Model:
            return await self._inner.load_model(
                name, path, offer=offer, device=device, type=type, shared=shared, pinned=pinned, priority=priority,
                keep_warm=keep_warm, verify=verify, hashes=hashes, queue=queue, progress=elsewhere_if(progress), timeout=timeout,
                request_id=request_id,
            )  # fmt: skip

        return Model(self._thread, self._thread.run(work()))

    def events(self, *subjects: str) -> Events:
        """Subscribes to event subjects, which may have wildcards; none means every event."""

        async def work() -> _events.Events:
            return await self._inner.events(*subjects)

        return Events(self._thread, self._thread.run(work()))

    def on_pressure(self, callback: Callable[[Pressure], object], device: str | None = None) -> Subscription:
        """Calls back with the pressure of each device (or one) as it is now, then with every change,
        in order, one call after the other."""
        return Subscription(self._thread, self._thread.run(self._inner.on_pressure(elsewhere(callback), device)))

    def on_revoke(self, callback: Callable[[Revocation], object]) -> Subscription:
        """Calls back when the node wants memory back, before this client closes what holds it. What
        the revocation says is held are the inner objects: compare their allocation_id."""

        async def work() -> _handles.Subscription:
            return self._inner.on_revoke(elsewhere(callback))

        return Subscription(self._thread, self._thread.run(work()))

    def on_resume(self, callback: Callable[[Resumption], object]) -> Subscription:
        """Calls back when the session was taken up again after the node's death or restart."""

        async def work() -> _handles.Subscription:
            return self._inner.on_resume(elsewhere(callback))

        return Subscription(self._thread, self._thread.run(work()))


def _close(ref: weakref.ref[Client]) -> None:
    client = ref()
    if client is not None and client._thread.pid == os.getpid():
        client.close()
