"""The CUDA driver, as far as it takes to map memory that another process made.

Nothing but libcuda is needed, and nothing of it is loaded before a grant lies on a GPU. Calls
run on two threads for each GPU, never on the program's own, whose current context stays what it
is: the control thread maps, the reaper waits for the GPU's work and unmaps, so that a long
kernel holds up no mapping. The context is the process's primary one, which is also PyTorch's.

The driver takes one call of a process after the other, and each return from one wants the
interpreter's lock: so a grant is mapped by one thread in one loop, and what can wait for a quiet
moment is not done beside it.

ISOBAR_CUDA_LIBRARY names the library; tests name a fake one, whose GPUs are main memory.
"""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from .errors import CUDAError, CUDAOutOfMemory, ProtocolError, UnsupportedMemory

log = logging.getLogger("isobar")

T = TypeVar("T")

DEFAULT_LIBRARY = "libcuda.so.1"

_OUT_OF_MEMORY = 2
_NO_DEVICE = 100
_INVALID_VALUE, _NOT_SUPPORTED = 1, 801
_RELAXED_CAPTURE = 2
_HAS_VMM, _HAS_POSIX_FILES = 102, 103
_POSIX_FILE = 1
_ON_DEVICE = 1
_READ, _READ_WRITE = 1, 3

# How many seconds a thread has had nothing to do when it does what could wait.
_QUIET = 0.05

# Results after which a context answers nothing else.
_STICKY = frozenset({4, 46, 214, 220, 700, 702, 709, 710, *range(714, 720), 809, 999})

_int, _u64, _size, _ptr = ctypes.c_int, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p
_HANDLE_BYTES = ctypes.sizeof(_u64)
_ints, _u64s, _ptrs = ctypes.POINTER(_int), ctypes.POINTER(_u64), ctypes.POINTER(_ptr)


class _Access(ctypes.Structure):
    """CUmemAccessDesc."""

    _fields_ = [("location", _int), ("device", _int), ("flags", _int)]


# name → its arguments. Names as of CUDA 12; an older name where the newer is missing.
_CALLS: dict[str, tuple[Any, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuDeviceGetCount": (_ints,),
    "cuDeviceGet": (_ints, _int),
    "cuDeviceGetName": (ctypes.c_char_p, _int, _int),
    "cuDeviceGetUuid_v2": (ctypes.c_char_p, _int),
    "cuDeviceGetAttribute": (_ints, _int, _int),
    "cuDevicePrimaryCtxRetain": (_ptrs, _int),
    "cuCtxSetCurrent": (_ptr,),
    "cuCtxSynchronize": (),
    "cuMemImportFromShareableHandle": (_ptr, _ptr, _int),
    "cuMemRelease": (_u64,),
    "cuMemAddressReserve": (_u64s, _size, _size, _u64, _u64),
    "cuMemAddressFree": (_u64, _size),
    "cuMemMap": (_u64, _size, _size, _u64, _u64),
    "cuMemSetAccess": (_u64, _size, ctypes.POINTER(_Access), _size),
    "cuMemUnmap": (_u64, _size),
}


class Driver:
    """libcuda in this process."""

    def __init__(self, path: str) -> None:
        try:
            self._lib = ctypes.CDLL(path)
        except OSError as e:
            raise UnsupportedMemory(
                f"the memory is a GPU's, and this process finds no CUDA driver ({e}): install NVIDIA's driver, or, in a container, "
                "start it with the NVIDIA runtime; a driver elsewhere is named by ISOBAR_CUDA_LIBRARY"
            ) from None
        self.path = path
        self._calls: dict[str, Any] = {}
        for name, arguments in _CALLS.items():
            f = getattr(self._lib, name, None) or getattr(self._lib, name.removesuffix("_v2"), None)
            if f is None:
                raise UnsupportedMemory(f"the CUDA driver {path} has no {name}: install NVIDIA's driver 525 or later")
            f.argtypes, f.restype = arguments, _int
            self._calls[name] = f
        try:
            self.call("cuInit", 0)
            self._count = self._int("cuDeviceGetCount")
        except CUDAError as e:
            if e.code == _NO_DEVICE:
                raise UnsupportedMemory("the memory is a GPU's, and this process may see none: CUDA_VISIBLE_DEVICES hides them all, or "
                                        "the container was started without") from e  # fmt: skip
            raise UnsupportedMemory(f"the memory is a GPU's, and the CUDA driver does not start ({e}): nvidia-smi says more") from e
        self.import_handle = self._calls["cuMemImportFromShareableHandle"]
        self.mem_map = self._calls["cuMemMap"]
        self._gpus: dict[str, GPU] = {}
        self._lock = threading.Lock()

    @property
    def fake(self) -> bool:
        """Whether it is the library that plays GPUs in tests: their memory is main memory."""
        return hasattr(self._lib, "isobarFakeConfigure")

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function of the API; CUDAError if it fails. Without the interpreter's lock."""
        code = self._calls[name](*arguments)
        if code:
            raise self.error(name, code)

    def error(self, call: str, code: int) -> CUDAError:
        """What a result that is not 0 means."""
        text = ctypes.c_char_p()
        try:
            self._lib.cuGetErrorName(code, ctypes.byref(text))
        except AttributeError:
            pass
        kind = CUDAOutOfMemory if code == _OUT_OF_MEMORY else CUDAError
        return kind(call, code, (text.value or b"").decode(), code in _STICKY)

    def _int(self, name: str, *arguments: Any) -> int:
        n = _int()
        self.call(name, ctypes.byref(n), *arguments)
        return n.value

    def relax_capture(self) -> None:
        """Keeps what this thread does from breaking a CUDA graph that another one captures."""
        exchange = getattr(self._lib, "cuThreadExchangeStreamCaptureMode", None)
        if exchange is not None:
            exchange(ctypes.byref(_int(_RELAXED_CAPTURE)))

    def gpu(self, uuid: str) -> GPU:
        """The GPU with that UUID, as the node spells it; UnsupportedMemory if this process sees none."""
        with self._lock:
            found = self._gpus.get(uuid)
            if found is None:
                seen = []
                for ordinal in range(self._count):
                    device = self._int("cuDeviceGet", ordinal)
                    seen.append(self._uuid(device))
                    if seen[-1] == uuid:
                        found = self._gpus[uuid] = GPU(self, ordinal, device, uuid)
                        break
                else:
                    raise UnsupportedMemory(
                        f"the memory is of GPU {uuid}, and this process sees {', '.join(seen) or 'none'}: CUDA_VISIBLE_DEVICES hides "
                        "it, or the container was started without it"
                    )
            return found

    def _uuid(self, device: int) -> str:
        raw = ctypes.create_string_buffer(16)
        self.call("cuDeviceGetUuid_v2", raw, device)
        h = raw.raw.hex()
        return f"GPU-{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


class _Lane:
    """A thread in which a GPU's context is current. It does one thing after the other."""

    def __init__(self, name: str, begin: Callable[[], None]) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._rest: deque[Callable[[], None]] = deque()
        self._begin = begin
        # Not one of an executor: at the program's end nobody waits for it, whatever the GPU does.
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Has work done there. May be called from a destructor."""
        f: Future[T] = Future()
        self._work.put((work, f))
        return f

    def later(self, work: Callable[[], None]) -> None:
        """Has work done there when there has been nothing else for a while. It must not raise. On
        the thread itself alone."""
        self._rest.append(work)

    def _run(self) -> None:
        ready = False
        while True:
            try:
                work, f = self._work.get(timeout=_QUIET if self._rest else None)
            except queue.Empty:
                self._rest.popleft()()
                continue
            try:
                if not ready:
                    self._begin()
                    ready = True
                f.set_result(work())
            except BaseException as e:
                f.set_exception(e)
            del work, f  # else they would be kept until the next comes


class GPU:
    """A GPU as this process sees it; ``ordinal`` is also PyTorch's number of it."""

    def __init__(self, driver: Driver, ordinal: int, device: int, uuid: str) -> None:
        self.driver = driver
        self.ordinal = ordinal
        self.uuid = uuid
        self._device = device
        name = ctypes.create_string_buffer(256)
        driver.call("cuDeviceGetName", name, 256, device)
        self.name = name.value.decode(errors="replace")
        if not driver._int("cuDeviceGetAttribute", _HAS_VMM, device) or not driver._int("cuDeviceGetAttribute", _HAS_POSIX_FILES, device):
            raise UnsupportedMemory(f"GPU {uuid} ({self.name}) cannot map memory of other processes (virtual memory management)")
        self._context = _ptr()
        self._retained = False
        self._lock = threading.Lock()
        self.control = _Lane(f"isobar-gpu-{ordinal}", self._enter)
        self.reaper = _Lane(f"isobar-gpu-{ordinal}-reaper", self._enter)

    def _enter(self) -> None:
        with self._lock:
            if not self._retained:  # for as long as the process lives: PyTorch keeps its own too
                self.driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
                self._retained = True
        self.driver.call("cuCtxSetCurrent", self._context)
        self.driver.relax_capture()

    def map(self, fds: list[int], sizes: Sequence[int], writable: bool, waiting: Callable[[], object] | None = None) -> Range:
        """Maps segments one behind the other. On the control thread. The descriptors are closed,
        and taken out of the list, some time after on the reaper. waiting is called before the
        longest call of the driver: until that returns this thread does not want the interpreter."""
        return Range(self, fds, sizes, writable, waiting)

    def wait(self) -> None:
        """Waits until the GPU has done all work of this process. On the reaper."""
        self.driver.call("cuCtxSynchronize")


class Range:
    """A range of addresses of a GPU that shows memory of other processes: one reservation, into
    which the segments are mapped one behind the other, and one call that lets the GPU at all of them."""

    def __init__(self, gpu: GPU, fds: list[int], sizes: Sequence[int], writable: bool, waiting: Callable[[], object] | None) -> None:
        self._gpu = gpu
        self.size_bytes = sum(sizes)
        self.writable = False
        self._fds = fds
        self._sizes = sizes
        self._handles = (_u64 * len(sizes))()
        self._imported = self._mapped = 0  # how many of the segments are, from the first on
        self._reserved = False
        try:
            if self.size_bytes <= 0:
                raise ProtocolError("the grant has no segments")
            at = _u64()
            gpu.driver.call("cuMemAddressReserve", ctypes.byref(at), self.size_bytes, 0, 0, 0)
            self.address = at.value
            self._reserved = True
            self._import()
            if waiting is not None:
                waiting()
            self._allow(writable)
        except BaseException as e:
            try:
                self.unmap()
            except CUDAError as again:
                e.add_note(f"and it could not be undone: {again}")
            raise
        gpu.reaper.submit(self._settle)

    def _import(self) -> None:
        """Maps all segments."""
        driver, handles, import_handle, mem_map = self._gpu.driver, self._handles, self._gpu.driver.import_handle, self._gpu.driver.mem_map
        at, handle = self.address, ctypes.addressof(handles)
        for n, (fd, size) in enumerate(zip(self._fds, self._sizes, strict=True), 1):
            if code := import_handle(handle, fd, _POSIX_FILE):
                raise driver.error("cuMemImportFromShareableHandle", code)
            self._imported = n
            if code := mem_map(at, size, 0, handles[n - 1], 0):  # whole, from 0: the driver knows no parts
                raise driver.error("cuMemMap", code)
            self._mapped = n
            at, handle = at + size, handle + _HANDLE_BYTES

    def _allow(self, writable: bool) -> None:
        """Lets the GPU at all of them."""
        for flags in (_READ_WRITE,) if writable else (_READ, _READ_WRITE):
            access = _Access(_ON_DEVICE, self._gpu._device, flags)
            try:
                self._gpu.driver.call("cuMemSetAccess", self.address, self.size_bytes, ctypes.byref(access), 1)
                self.writable = flags == _READ_WRITE
                return
            except CUDAError as e:
                if flags == _READ_WRITE or e.code not in (_INVALID_VALUE, _NOT_SUPPORTED):
                    raise

    def _settle(self) -> None:
        """Closes the descriptors at once, since a process has not many; the rest can wait, and not
        take the interpreter's lock from the program when it looks at what it has got."""
        _close_all(self._fds)
        self._gpu.reaper.later(self._rest)

    def _rest(self) -> None:
        try:
            self._release()
        except CUDAError as e:
            log.warning("memory of %s is held twice until it is unmapped: %s", self._gpu.name, e)

    def _release(self) -> None:
        """Lets go of all but the mapping, which keeps the memory. What is done already is not done again."""
        while self._imported:
            self._gpu.driver.call("cuMemRelease", self._handles[self._imported - 1])
            self._imported -= 1

    def unmap(self) -> None:
        """Gives addresses and memory back; what is done already is not done again. The GPU must
        not work on it any more. On the reaper, once the range is made."""
        _close_all(self._fds)
        self._release()
        call = self._gpu.driver.call
        if self._mapped and self._mapped == len(self._sizes):
            try:
                call("cuMemUnmap", self.address, self.size_bytes)
                self._mapped = 0
            except CUDAError as e:
                if e.code != _INVALID_VALUE:
                    raise
                # A driver that takes its mappings only one by one.
        while self._mapped:
            size = self._sizes[self._mapped - 1]
            call("cuMemUnmap", self.address + sum(self._sizes[: self._mapped - 1]), size)
            self._mapped -= 1
        if self._reserved:
            call("cuMemAddressFree", self.address, self.size_bytes)
            self._reserved = False


def _close_all(fds: list[int]) -> None:
    """Closes descriptors and empties the list: by one call what came with one message, which has
    numbers one behind the other."""
    fds.sort()
    while fds:
        first = last = fds[0]
        while last - first + 1 < len(fds) and fds[last - first + 1] == last + 1:
            last += 1
        del fds[: last - first + 1]
        os.closerange(first, last + 1)


_drivers: dict[str, Driver] = {}
_lock = threading.Lock()
_parents = False  # a parent has used CUDA, which no child of a fork can


def driver() -> Driver:
    """The process's driver, loaded and started at the first call (0.1 s)."""
    path = os.environ.get("ISOBAR_CUDA_LIBRARY") or DEFAULT_LIBRARY
    with _lock:
        if _parents:
            raise UnsupportedMemory("the process that this one was forked from has used CUDA, which does not survive a fork: start it by "
                                    "multiprocessing's 'spawn', or fork before")  # fmt: skip
        if path not in _drivers:
            _drivers[path] = Driver(path)
        return _drivers[path]


def started() -> bool:
    """Whether driver answers at once."""
    return (os.environ.get("ISOBAR_CUDA_LIBRARY") or DEFAULT_LIBRARY) in _drivers


def _in_child() -> None:
    global _lock, _parents
    _lock = threading.Lock()
    _parents = _parents or bool(_drivers)
    _drivers.clear()


os.register_at_fork(after_in_child=_in_child)
