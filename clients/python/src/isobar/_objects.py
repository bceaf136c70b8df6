"""What a client hands out: buffers, models and operations, with their asyncio face."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._arrays import Framework, TensorInfo, library
from ._control import OnProgress, Progress
from ._grant import Grant
from ._table import name as name_of
from .errors import Closed, IsobarError, Revoked

if TYPE_CHECKING:
    from ._client import Client


class _Held:
    """Something of a grant that this process maps."""

    def __init__(self, client: Client, grant: Grant) -> None:
        self._client = client
        self._grant = grant
        self._why: IsobarError | None = None

    @property
    def allocation_id(self) -> str:
        """The grant's id."""
        return self._grant.allocation_id

    @property
    def size_bytes(self) -> int:
        """How many bytes the grant has."""
        return self._grant.size_bytes

    @property
    def closed(self) -> bool:
        """Whether it was closed or revoked: views that exist are valid all the same."""
        return self._why is not None

    @property
    def lingering(self) -> bool:
        """Whether it is closed and yet mapped, because views of it are alive. The node counts the
        bytes as this process's until the last one has died."""
        return self.closed and not self._grant.gone.is_set()

    def _live(self) -> Grant:
        self._client._check()
        if self._why is not None:
            raise self._why
        return self._grant

    def _end(self, why: IsobarError) -> None:
        """Takes away what the object itself holds of the memory."""
        if self._why is None:
            self._why = why


class Buffer(_Held):
    """Memory that was granted, in this process. Closing a buffer that this client allocated gives
    the memory back, unless it is persistent; one that was attached is only unmapped."""

    def __init__(self, client: Client, grant: Grant, allocation: Mapping[str, Any], writable: bool, owned: bool) -> None:
        super().__init__(client, grant)
        self.allocation = allocation
        self.writable = writable
        self._owned = owned

    @property
    def device_id(self) -> str:
        """Where the memory lies."""
        return str(self.allocation.get("device_id", ""))

    @property
    def memory(self) -> memoryview:
        """The bytes, as a new view: writing to it writes to the granted memory. Of a GPU there is
        none (UnsupportedMemory): torch shows it."""
        return self._live().region.memory()

    def numpy(self, dtype: Any = "uint8", shape: tuple[int, ...] | None = None) -> Any:
        """The bytes as a numpy array, without a copy: all, or as many as the shape wants."""
        return self._live().region.array(dtype, shape, "numpy")

    def torch(self, dtype: Any = "uint8", shape: tuple[int, ...] | None = None) -> Any:
        """The same as a torch tensor; dtype is torch's, or its name."""
        return self._live().region.array(dtype, shape, "torch")

    def __len__(self) -> int:
        return self.size_bytes

    def __repr__(self) -> str:
        state = "closed" if self.closed else "read-write" if self.writable else "read-only"
        return f"<isobar buffer {self.allocation_id} {self.size_bytes} bytes, {state}>"

    async def close(self, force: bool = False) -> bool:
        """Lets go of the memory. True if nothing of it is mapped any more; False while views of
        it are alive: then the rest happens when the last one dies. Of a GPU's memory it waits for
        the GPU's work first. force takes the memory from other processes too that map it; without
        it they are an error (InUse)."""
        return await self._client._close_buffer(self, force)

    async def __aenter__(self) -> Buffer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Model(_Held):
    """A model's weights, shared with every process that loads it. While it is open it is not evicted."""

    def __init__(
        self, client: Client, grant: Grant, model: Mapping[str, Any], device_id: str, reference_id: str, verified: bool
    ) -> None:
        super().__init__(client, grant)
        self.verified = verified  # its bytes were compared, as verify or hashes asked for
        self.name: str = model["name"]
        self.info = model
        self.device_id = device_id
        self._reference = reference_id
        self._given: list[dict[str, Any]] = []
        self._modules: list[tuple[weakref.ref[Any], set[str]]] = []

    @property
    def tensor_infos(self) -> tuple[TensorInfo, ...]:
        """The model's tensors: name, dtype, shape and where they lie."""
        return tuple(map(TensorInfo._make, self._grant.table.rows))

    def tensors(self, framework: Framework | None = None, *, raw: bool = False) -> dict[str, Any]:
        """The tensors by name, without a copy: torch tensors where the program has imported torch,
        else numpy arrays, or what framework ("numpy", "torch") says.

        numpy has no type for bfloat16 and 8-bit floats (UnsupportedDtype): raw gives such tensors
        as unsigned integers. numpy arrays are read-only. torch has no read-only tensors: pages
        that are written to become this process's own, and nobody else sees that. On a GPU, where
        only torch has tensors, a write ends this process's CUDA context: clone what is to change.

        The dict is emptied when the model is closed or revoked, so that it does not hold the memory.
        """
        grant = self._live()
        chosen = framework or grant.region.framework
        library(chosen)
        rows = grant.table.rows
        out = dict(zip(map(name_of, rows), grant.region.tensors(rows, chosen, raw), strict=True))
        self._given.append(out)
        if self._why is not None:  # since a moment ago, on another thread
            out.clear()
            raise self._why
        return out

    def tensor(self, name: str, framework: Framework | None = None, *, raw: bool = False) -> Any:
        """One tensor; KeyError if the model has none of that name."""
        grant = self._live()
        for row in grant.table.rows:
            if name_of(row) == name:
                return grant.region.tensors([row], framework or grant.region.framework, raw)[0]
        raise KeyError(name)

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
        grant = self._live()
        torch = library("torch")
        rows = [row for row in grant.table.rows if name_of(row).startswith(prefix)]
        state = dict(zip((name_of(row)[len(prefix) :] for row in rows), grant.region.tensors(rows, "torch", False), strict=True))
        names = set(state)
        if not grant.region.private and not share_buffers:
            for name in names & {name for name, _ in module.named_buffers()}:
                state[name] = state[name].clone()
                names.discard(name)
        module.load_state_dict(state, strict=strict, assign=True)
        devices = {t.device for t in state.values()}
        if len(devices) == 1 and (device := devices.pop()).type != "cpu":
            _move(torch, module, device)
        self._modules.append((weakref.ref(module), names))
        if self._why is not None:  # since a moment ago, on another thread
            _empty(module, names)
            raise self._why
        return module

    def _end(self, why: IsobarError) -> None:
        super()._end(why)
        given, self._given = self._given, []
        for d in given:
            d.clear()
        modules, self._modules = self._modules, []
        for ref, names in modules:
            module = ref()
            if module is not None:
                _empty(module, names)

    def __repr__(self) -> str:
        return f"<isobar model {self.name!r} {self.size_bytes} bytes on {self.device_id}{', closed' if self.closed else ''}>"

    async def close(self) -> bool:
        """Lets go of the model: the node may evict it when nobody else reads it. Returns what
        Buffer.close returns."""
        return await self._client._close_model(self)

    async def __aenter__(self) -> Model:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _move(torch: Any, module: Any, device: Any) -> None:
    """Moves what a module has in main memory."""
    with torch.no_grad():
        for part in module.modules():
            for p in part.parameters(recurse=False):
                if p.device.type == "cpu":
                    p.data = p.data.to(device)
            for name, b in part._buffers.items():
                if b is not None and b.device.type == "cpu":
                    part._buffers[name] = b.to(device)


def _empty(module: Any, names: set[str]) -> None:
    """Replaces a module's tensors of these names by meta tensors."""
    torch = library("torch")
    state = module.state_dict(keep_vars=False)
    meta = {k: torch.empty_like(v, device="meta") for k, v in state.items() if k in names}
    del state
    module.load_state_dict(meta, strict=False, assign=True)


class Operation:
    """A command that was given and may not be done: await :meth:`result`, or :meth:`cancel` it."""

    def __init__(self, client: Client, progress: Progress, result: dict[str, Any] | None) -> None:
        self._client = client
        self._result = result
        self.progress = progress

    @property
    def id(self) -> str:
        """The operation's id; "" if the command was done at once."""
        return self.progress.operation_id

    @property
    def done(self) -> bool:
        """Whether it was completed when the node was last asked."""
        return self._result is not None

    async def result(self, progress: OnProgress | None = None, timeout: float | None = None) -> dict[str, Any]:
        """Waits for the end; returns the action's reply data, or raises its error. TimeoutError
        after timeout seconds, which leaves the operation running."""
        if self._result is None:
            self._result = await self._client._follow(self.id, progress, timeout)
        return self._result

    async def refresh(self) -> Progress:
        """Asks the node how it goes."""
        if self._result is None:
            answer = await self._client.call("get_operation", {"operation_id": self.id})
            self.progress = Progress.parse(answer["operation"])
        return self.progress

    async def cancel(self) -> Progress:
        """Stops it; returns the state that it came to."""
        if self._result is None:
            answer = await self._client.call("cancel_operation", {"operation_id": self.id})
            self.progress = Progress.parse(answer["operation"])
        return self.progress


def revoked(what: str, reason: str) -> Revoked:
    """Why an object that was revoked does not work any more."""
    return Revoked(f"{what} was revoked: {reason or 'the node wants it back'}")


def closed(what: str) -> Closed:
    """Why an object that was closed does not work any more."""
    return Closed(f"{what} is closed")
