"""Grants in this process's memory.

A :class:`Region` is what a kind of memory (the ``kind`` of a handle) makes of the segments of a
grant. RAM is mapped here, a GPU's memory by :mod:`isobar._vram`.
"""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol

from . import _arrays
from ._arrays import Framework, TensorInfo
from ._table import TensorRow
from .errors import Closed, ProtocolError, UnsupportedMemory

_PAGE = mmap.PAGESIZE
_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000


class Segment(NamedTuple):
    """The segment type of the contract: size_bytes from offset on of a descriptor's segment_bytes."""

    fd: int
    segment_bytes: int
    offset: int
    size_bytes: int

    @classmethod
    def parse(cls, v: dict[str, Any], fd: int) -> Segment:
        """Reads and checks what the node says of a segment; fd is its descriptor."""
        whole, offset, size = v.get("segment_bytes", -1), v.get("offset", -1), v.get("size_bytes", -1)
        if not (isinstance(whole, int) and isinstance(offset, int) and isinstance(size, int)):
            raise ProtocolError("a segment's bounds are no numbers")
        if offset < 0 or size <= 0 or offset > whole - size:
            raise ProtocolError(f"bytes {offset} to {offset}+{size} of a segment of {whole}")
        return cls(fd, whole, offset, size)


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a claim has brought: segments, whose descriptors are the receiver's, and how to map
    them. private: what this process writes becomes its own, where the memory has that."""

    segments: list[Segment]
    writable: bool
    private: bool
    device_uuid: str = ""


class Dropped(Enum):
    """What has become of a region that was dropped."""

    GONE = "unmapped"
    GOING = "unmapped soon, without anybody doing anything"
    VIEWED = "mapped until the last view of it dies"


Gone = Callable[[BaseException | None], None]


class Region(Protocol):
    """A mapped grant."""

    @property
    def proved(self) -> bool:
        """Whether the node sees by itself that the memory is unmapped."""

    @property
    def private(self) -> bool:
        """Whether what this process writes to read-only memory becomes its own."""

    @property
    def open(self) -> bool:
        """False once dropped."""

    @property
    def framework(self) -> Framework:
        """Whose arrays the memory is shown as unless the program chooses."""

    def memory(self) -> memoryview:
        """All bytes, one after the other, as a new view."""

    def array(self, dtype: Any, shape: tuple[int, ...] | None, framework: Framework) -> Any:
        """The bytes as an array: all, or as many as the shape wants."""

    def tensors(self, rows: Sequence[TensorRow], framework: Framework, raw: bool) -> list[Any]:
        """Tensors of a model, as arrays."""

    def drop(self, gone: Gone) -> Dropped:
        """Lets go of the memory. Unless it is unmapped now, gone is called, from any thread, when
        it is; with an error if it stays mapped for as long as the process lives."""

    def forked(self) -> None:
        """Lets go of the memory in a forked child."""


class RAM:
    """Segments of main memory, in one range of addresses.

    The range is reserved by an anonymous mapping, whose object exports the buffers, and the
    segments are laid over it. So the kernel unmaps everything when the last view dies, whoever
    holds it, and no descriptor stays open.
    """

    proved = True

    def __init__(self, segments: list[Segment], writable: bool, private: bool) -> None:
        """Takes over the descriptors. private: pages that this process writes become its own."""
        self._map: mmap.mmap | None = None
        self._views: list[tuple[int, int]] = []  # where each segment's bytes begin, and how many
        self._readonly = not writable
        # torch has no read-only tensors: what it writes to private pages stays here.
        self.private = private
        try:
            self._lay(segments, mmap.PROT_READ | (mmap.PROT_WRITE if writable or private else 0))
        finally:
            for s in segments:
                os.close(s.fd)

    def _lay(self, segments: list[Segment], protection: int) -> None:
        places: list[tuple[int, int, int]] = []  # in the range, in the file, bytes
        at = 0
        for n, s in enumerate(segments):
            if os.fstat(s.fd).st_size < s.offset + s.size_bytes:
                # Touching what lies behind the file's end would be a fatal signal.
                raise ProtocolError(f"segment {n}: its file is shorter than {s.offset + s.size_bytes} bytes")
            start = s.offset - s.offset % _PAGE
            length = s.offset - start + s.size_bytes
            places.append((at, start, length))
            self._views.append((at + s.offset - start, s.size_bytes))
            at += -(-length // _PAGE) * _PAGE
        if at == 0:
            raise ProtocolError("the grant has no segments")
        range_ = mmap.mmap(
            -1, at, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE, prot=mmap.PROT_READ | mmap.PROT_WRITE
        )
        base = ctypes.addressof(ctypes.c_char.from_buffer(range_))
        flags = _MAP_FIXED | (mmap.MAP_PRIVATE | _MAP_NORESERVE if self.private else mmap.MAP_SHARED)
        for (where, start, length), s in zip(places, segments, strict=True):
            _mmap_fixed(base + where, length, protection, flags, s.fd, start)
        self._map = range_

    @property
    def open(self) -> bool:
        return self._map is not None

    @property
    def framework(self) -> Framework:
        return _arrays.default_framework()

    def _view(self, at: int, size: int, writable: bool) -> memoryview:
        m = self._map
        try:
            if m is None:
                raise ValueError
            v = memoryview(m)[at : at + size]
        except ValueError:  # dropped, perhaps by another thread just now
            raise Closed("the memory is not mapped any more") from None
        return v if writable else v.toreadonly()

    def memory(self) -> memoryview:
        return self._whole(not self._readonly)

    def _whole(self, writable: bool) -> memoryview:
        first = self._views[0][0]
        at = first
        for start, size in self._views:
            if start != at:
                raise UnsupportedMemory("the grant's segments do not fit together: look at them one by one")
            at += size
        return self._view(first, at - first, writable)

    def array(self, dtype: Any, shape: tuple[int, ...] | None, framework: Framework) -> Any:
        return _arrays.of(self._whole(self._writable(framework)), dtype, shape, framework)

    def tensors(self, rows: Sequence[TensorRow], framework: Framework, raw: bool) -> list[Any]:
        writable = self._writable(framework)
        known: dict[tuple[str, tuple[int, ...], int], tuple[str, tuple[int, ...]]] = {}
        out = []
        for row in rows:
            name, dtype, shape, segment, offset, size = row
            if not 0 <= segment < len(self._views):
                raise ProtocolError(f"tensor {name!r} lies in segment {segment} of {len(self._views)}")
            at, room = self._views[segment]
            if offset < 0 or size < 0 or offset > room - size:
                raise ProtocolError(f"tensor {name!r} lies outside its segment")
            form = known.get((dtype, shape, size))
            if form is None:
                form = known[dtype, shape, size] = _arrays.form(TensorInfo._make(row), framework, raw)
            out.append(_arrays.of(self._view(at + offset, size, writable), *form, framework))
        return out

    def _writable(self, framework: Framework) -> bool:
        return not self._readonly or self.private and framework == "torch"

    def drop(self, gone: Gone) -> Dropped:
        m, self._map = self._map, None
        if m is None:
            return Dropped.GONE
        try:
            m.close()
            return Dropped.GONE
        except BufferError:
            weakref.finalize(m, gone, None).atexit = False
            return Dropped.VIEWED

    def forked(self) -> None:
        self.drop(_nothing)


def _nothing(_: BaseException | None) -> None:
    pass


class _Libc:
    """mmap of the C library: Python's own cannot choose the address."""

    def __init__(self) -> None:
        self.mmap = ctypes.CDLL(None, use_errno=True).mmap
        self.mmap.restype = ctypes.c_void_p
        self.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


_libc = _Libc()


def _mmap_fixed(address: int, length: int, protection: int, flags: int, fd: int, offset: int) -> None:
    if _libc.mmap(address, length, protection, flags, fd, offset) != address:
        code = ctypes.get_errno()
        raise OSError(code, f"mmap of {length} bytes: {os.strerror(code)}")


_KINDS = ("memfd", "cuda_vmm")


async def prepare(kind: object) -> None:
    """What is to be done before memory of that kind of handle can be mapped; UnsupportedMemory if
    this process cannot."""
    if kind not in _KINDS:
        raise UnsupportedMemory(f"the grant is an unknown kind of memory ({kind!r}); this version of the client maps {', '.join(_KINDS)}")
    if kind == "cuda_vmm":
        starting = _start()
        if not starting.done() or starting.exception() is not None:
            await asyncio.shield(asyncio.wrap_future(starting))


def foresee(device: str | None) -> None:
    """Begins to load the GPUs' driver where a device is named as GPUs are: it takes a while, and need
    not wait for the node's answer. What goes wrong is said by prepare."""
    if device is not None and device.rpartition("/")[2].startswith("gpu"):
        _start()


_lock = threading.Lock()
_starting: Future[None] | None = None  # the GPUs' driver; done once it is


def _start() -> Future[None]:
    """The start of the driver, which is under way, or over; one that has failed is tried again."""
    global _starting
    with _lock:
        if _starting is not None:
            if not _starting.done():
                return _starting
            if _starting.exception() is None and sys.modules[f"{__package__}._vram"].prepared():
                return _starting
        _starting = Future()
        threading.Thread(target=_begin, args=(_starting,), name="isobar-driver", daemon=True).start()
        return _starting


def _begin(starting: Future[None]) -> None:
    try:
        from . import _vram  # not before there is need of it

        _vram.prepare()
        starting.set_result(None)
    except BaseException as e:
        starting.set_exception(e)


def _in_child() -> None:
    global _lock, _starting
    _lock, _starting = threading.Lock(), None


os.register_at_fork(after_in_child=_in_child)


async def open_region(kind: object, mapped: Mapped, meanwhile: Callable[[], None] | None = None) -> Region:
    """Maps a grant of a kind that was prepared. The descriptors are closed, whatever happens.
    meanwhile is called on the event loop while that waits for a GPU's driver, if it does."""
    if kind == "cuda_vmm":
        from . import _vram

        return await _vram.open(mapped, meanwhile)
    return RAM(mapped.segments, mapped.writable, mapped.private)
