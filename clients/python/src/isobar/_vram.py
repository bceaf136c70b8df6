"""Grants in the memory of a GPU (handles of the kind cuda_vmm).

Tensors show the memory itself, and hold it. It is unmapped when three things are true: nobody
wants it any more (:meth:`VRAM.drop`), no tensor of it is alive, and the GPU has done all work
that this process had given it by then. The node hears ``unmapped`` after that, which is all the
proof of release that a GPU has.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from . import _arrays, _cuda, _dlpack
from ._arrays import Framework, TensorInfo
from ._memory import Dropped, Gone, Mapped
from ._table import TensorRow
from .errors import Closed, ProtocolError, UnsupportedMemory

log = logging.getLogger("isobar")


def prepare() -> None:
    """Loads the driver; UnsupportedMemory if this process cannot use a GPU. May take 0.1 s."""
    _cuda.driver()


def prepared() -> bool:
    """Whether prepare has nothing to do."""
    return _cuda.started()


async def open(mapped: Mapped, meanwhile: Callable[[], None] | None) -> VRAM:
    """Maps a grant; takes over its descriptors. See open_region."""
    loop = asyncio.get_running_loop()
    waiting = None if meanwhile is None else partial(loop.call_soon_threadsafe, meanwhile)
    fds = [s.fd for s in mapped.segments]
    try:
        for n, s in enumerate(mapped.segments):
            # A handle is mapped whole: what is the grant's in it must not leave a hole between two.
            if n > 0 and s.offset or n < len(mapped.segments) - 1 and s.offset + s.size_bytes != s.segment_bytes:
                raise ProtocolError(f"segment {n} of a grant in several is not all the grant's")
        gpu = _cuda.driver().gpu(mapped.device_uuid)
        sizes = [s.segment_bytes for s in mapped.segments]
        range_ = await asyncio.wrap_future(gpu.control.submit(lambda: gpu.map(fds, sizes, mapped.writable, waiting)))
    except BaseException:
        while fds:  # what the GPU's threads have not closed
            os.close(fds.pop())
        raise
    return VRAM(gpu, range_, mapped)


class VRAM:
    """Segments of a GPU's memory, in one range of its addresses.

    Weights are mapped so that this process cannot write to them: other processes read the same
    bytes, and a GPU has no private pages. A write is an error that ends this process's CUDA
    context, and nobody else's.
    """

    private = False
    proved = False  # the kernel does not see who maps it: the node goes by what we say

    def __init__(self, gpu: _cuda.GPU, range_: _cuda.Range, mapped: Mapped) -> None:
        self.views: set[int] = set()
        self._gpu = gpu
        self._range = range_
        self._places: list[tuple[int, int]] = []  # where each segment's bytes begin, and how many
        at = range_.address
        for s in mapped.segments:
            self._places.append((at + s.offset, s.size_bytes))
            at += s.segment_bytes
        self._size = sum(n for _, n in self._places)
        self._pid = os.getpid()
        # A fake GPU's addresses are this process's own; what shows them as such is for tests.
        self._host = gpu.driver.fake and os.environ.get("ISOBAR_FAKE_CUDA_VIEWS") == "host"
        self._device = (_dlpack.CPU, 0) if self._host else (_dlpack.CUDA, gpu.ordinal)
        self._gone: Gone | None = None
        self._reaping = False

    @property
    def open(self) -> bool:
        return self._gone is None

    @property
    def framework(self) -> Framework:
        """numpy does not know GPUs."""
        return _arrays.default_framework() if self._host else "torch"

    # Views

    def memory(self) -> memoryview:
        return self._view(self._places[0][0], self._size)

    def array(self, dtype: Any, shape: tuple[int, ...] | None, framework: Framework) -> Any:
        if framework != "torch":
            return _arrays.of(self._view(self._places[0][0], self._size), dtype, shape, framework)
        torch = _arrays.library("torch")
        kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        form = _dlpack.Form(torch, kind, _arrays.fit(kind, kind.itemsize, shape, self._size), self._device)
        at = self._places[0][0]
        if at % form.width:
            raise _beside(at, form)
        return self._shown(torch, [at], [form])[0]

    def tensors(self, rows: Sequence[TensorRow], framework: Framework, raw: bool) -> list[Any]:
        if framework != "torch":
            infos = [TensorInfo._make(r) for r in rows]
            return [_arrays.view(self._view(self._place(i), i.size_bytes), i, framework, raw) for i in infos]
        torch = _arrays.library("torch")
        # There are hundreds: what is looked up here is not looked up for each of them.
        places = dict(enumerate(self._places))
        known: dict[tuple[str, tuple[int, ...], int], _dlpack.Form] = {}
        addresses: list[int] = []
        forms: list[_dlpack.Form] = []
        for row in rows:
            _, dtype, shape, segment, offset, size = row
            start, room = places.get(segment, _NOWHERE)
            if not 0 <= offset <= room - size or size < 0:
                self._place(TensorInfo._make(row))
            form = known.get((dtype, shape, size))
            if form is None:
                name, dims = _arrays.form(TensorInfo._make(row), framework, raw)
                form = known[dtype, shape, size] = _dlpack.Form(torch, getattr(torch, name), dims, self._device)
            at = start + offset
            if at % form.width:
                raise _beside(at, form)
            addresses.append(at)
            forms.append(form)
        return self._shown(torch, addresses, forms)

    def _place(self, info: TensorInfo) -> int:
        """Where a tensor begins; ProtocolError if that is not within the grant."""
        if not 0 <= info.segment < len(self._places):
            raise ProtocolError(f"tensor {info.name!r} lies in segment {info.segment} of {len(self._places)}")
        start, size = self._places[info.segment]
        if info.offset < 0 or info.size_bytes < 0 or info.offset > size - info.size_bytes:
            raise ProtocolError(f"tensor {info.name!r} does not fit into segment {info.segment}")
        return start + info.offset

    def _shown(self, torch: Any, addresses: list[int], forms: list[_dlpack.Form]) -> list[Any]:
        if not self._host and not torch.backends.cuda.is_built():
            raise UnsupportedMemory("this torch is built without CUDA: install one that is, to use memory of a GPU with it")
        made = _dlpack.tensors(torch, addresses, forms, self)
        # After the tensors are counted, so that nothing is unmapped between the two.
        if self._gone is not None:
            raise Closed("the memory is not mapped any more")
        return made

    def _view(self, at: int, size: int) -> memoryview:
        if not self._host:
            raise UnsupportedMemory(
                f"the memory lies on {self._gpu.name}, where only the GPU reads it: take it as torch tensors, and copy with .cpu()"
            )
        shown = (ctypes.c_char * size).from_address(at)
        key = id(shown)
        self.views.add(key)
        weakref.finalize(shown, self._died, key).atexit = False
        if self._gone is not None:
            raise Closed("the memory is not mapped any more")
        view = memoryview(shown).cast("B")
        return view if self._range.writable else view.toreadonly()

    def _died(self, key: int) -> None:
        self.views.discard(key)
        self.seen()

    # End

    def drop(self, gone: Gone) -> Dropped:
        if self._gone is None:
            self._gone = gone
            self.seen()
        return Dropped.VIEWED if self.views else Dropped.GOING

    def seen(self) -> None:
        """A view has died, or nobody wants the memory any more."""
        if self._gone is not None and not self.views and os.getpid() == self._pid:
            self._gpu.reaper.submit(self._reap).add_done_callback(self._reaped)

    def _reap(self) -> bool:
        if self.views or self._reaping:
            return False  # a view came, or this is being done already
        self._reaping = True  # only the reaper comes here
        self._gpu.wait()
        self._range.unmap()
        return True

    def _reaped(self, work: Future[bool]) -> None:
        e, gone = work.exception(), self._gone
        if e is not None:
            log.error("%d bytes of %s stay mapped until this process ends: %s", self._range.size_bytes, self._gpu.name, e)
        if gone is not None and (e is not None or work.result()):
            gone(e)

    def forked(self) -> None:
        """In a forked child, where CUDA does not work: nothing is unmapped there."""
        self._gone = self._gone or _nothing


_NOWHERE = (0, -1)  # a segment that there is not, into which nothing fits


def _beside(at: int, form: _dlpack.Form) -> ProtocolError:
    return ProtocolError(f"{form.dtype} at {at % form.width} bytes beside a whole element, which no GPU reads")


def _nothing(_: BaseException | None) -> None:
    pass

