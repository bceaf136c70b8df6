"""The CUDA driver and NVML by ctypes: the raw figures that Isobar's are compared with, and the
driver's own word of what is in use. No other library of CUDA is needed."""

from __future__ import annotations

import ctypes as c
import mmap
import os
import time
from functools import partial
from typing import Any

_CHUNK = 1 << 30  # the most that is pinned for a raw copy


class DriverError(Exception):
    """A call that failed."""


class _Location(c.Structure):
    _fields_ = [("type", c.c_int), ("id", c.c_int)]


class _Properties(c.Structure):
    _fields_ = [("type", c.c_int), ("handles", c.c_int), ("location", _Location), ("windows", c.c_void_p), ("flags", c.c_ubyte * 8)]


class _Access(c.Structure):
    _fields_ = [("location", _Location), ("flags", c.c_int)]


class _MemoryInfo(c.Structure):
    _fields_ = [("version", c.c_uint), ("total", c.c_ulonglong), ("reserved", c.c_ulonglong), ("free", c.c_ulonglong), ("used", c.c_ulonglong)]


class NVML:
    """What is in use of a GPU, as NVML says: cheap enough to be asked in a loop, and without a
    context of ours on the GPU."""

    def __init__(self, library: str = "libnvidia-ml.so.1") -> None:
        self._lib = c.CDLL(library)
        self._check("nvmlInit_v2")

    def _check(self, name: str, *arguments: Any) -> None:
        code = getattr(self._lib, name)(*arguments)
        if code != 0:
            raise DriverError(f"{name}: {code}")

    def device(self, uuid: str) -> Any:
        """A GPU by the name that NVML and the node have for it: GPU-…"""
        handle = c.c_void_p()
        self._check("nvmlDeviceGetHandleByUUID", uuid.encode(), c.byref(handle))
        return handle

    def used(self, device: Any) -> int:
        """Bytes in use, without what the driver keeps for itself."""
        info = _MemoryInfo(version=c.sizeof(_MemoryInfo) | 2 << 24)
        self._check("nvmlDeviceGetMemoryInfo_v2", device, c.byref(info))
        return int(info.used)

    def driver_version(self) -> str:
        """The driver's version."""
        text = c.create_string_buffer(96)
        self._check("nvmlSystemGetDriverVersion", text, 96)
        return text.value.decode()


class CUDA:
    """The CUDA driver in this process, with the primary context of each GPU that is used."""

    def __init__(self, library: str = "libcuda.so.1") -> None:
        self._lib = c.CDLL(library)
        self.simulated = hasattr(self._lib, "isobarFakeConfigure")
        self.call("cuInit", 0)
        self._contexts: dict[int, c.c_void_p] = {}

    def has(self, name: str) -> bool:
        """Whether the library has that entry point."""
        return hasattr(self._lib, name)

    def call(self, name: str, *arguments: Any) -> None:
        """A call, DriverError if it fails."""
        code = getattr(self._lib, name)(*arguments)
        if code != 0:
            raise DriverError(f"{name}: CUDA error {code}")

    def count(self) -> int:
        """How many GPUs there are."""
        n = c.c_int()
        self.call("cuDeviceGetCount", c.byref(n))
        return n.value

    def name(self, device: int) -> str:
        """What the GPU is called."""
        text = c.create_string_buffer(256)
        self.call("cuDeviceGetName", text, 256, device)
        return text.value.decode()

    def uuid(self, device: int) -> str:
        """GPU-…, as NVML writes it."""
        raw = (c.c_ubyte * 16)()
        self.call("cuDeviceGetUuid_v2", raw, device)
        h = bytes(raw).hex()
        return f"GPU-{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"

    def total(self, device: int) -> int:
        """The GPU's bytes."""
        n = c.c_size_t()
        self.call("cuDeviceTotalMem_v2", c.byref(n), device)
        return n.value

    def use(self, device: int) -> None:
        """Makes the GPU's primary context this thread's."""
        if device not in self._contexts:
            context = c.c_void_p()
            self.call("cuDevicePrimaryCtxRetain", c.byref(context), device)
            self._contexts[device] = context
        self.call("cuCtxSetCurrent", self._contexts[device])

    def context(self, device: int) -> c.c_void_p:
        """The primary context of a GPU that is in use."""
        return self._contexts[device]

    def stream(self) -> c.c_void_p:
        """A stream on the current GPU; it lives as long as the process."""
        stream = c.c_void_p()
        self.call("cuStreamCreate", c.byref(stream), 1)
        return stream

    def wait(self, stream: c.c_void_p) -> None:
        """Until the stream's work is done."""
        self.call("cuStreamSynchronize", stream)


class Memory:
    """Physical memory of a GPU, mapped here: what a node's segments are, made the same way."""

    def __init__(self, cuda: CUDA, device: int, size: int, reached_by: tuple[int, ...] = ()) -> None:
        self._cuda, self.size = cuda, size
        properties = _Properties(type=1, handles=1, location=_Location(1, device))
        handle, at = c.c_void_p(), c.c_void_p()
        cuda.call("cuMemCreate", c.byref(handle), c.c_size_t(size), c.byref(properties), c.c_ulonglong(0))
        cuda.call("cuMemAddressReserve", c.byref(at), c.c_size_t(size), c.c_size_t(0), c.c_void_p(0), c.c_ulonglong(0))
        cuda.call("cuMemMap", at, c.c_size_t(size), c.c_size_t(0), handle, c.c_ulonglong(0))
        who = (device, *reached_by)
        access = (_Access * len(who))(*[_Access(_Location(1, d), 3) for d in who])
        cuda.call("cuMemSetAccess", at, c.c_size_t(size), access, c.c_size_t(len(who)))
        cuda.call("cuMemRelease", handle)
        self.at = c.c_void_p(at.value)

    def free(self) -> None:
        """Gives it back."""
        self._cuda.call("cuMemUnmap", self.at, c.c_size_t(self.size))
        self._cuda.call("cuMemAddressFree", self.at, c.c_size_t(self.size))


class Pinned:
    """Copies between pinned memory of the host and a GPU: what no way over that link is faster than.

    Both kinds of pinned memory are tried, the driver's own and a memfd that is registered, and the
    faster one counts, for each direction by itself."""

    def __init__(self, cuda: CUDA, device: int, size: int) -> None:
        self._cuda = cuda
        cuda.use(device)
        self.size = min(size, _CHUNK)
        self._repeat = max(1, size // self.size)
        self._device = Memory(cuda, device, self.size)
        self._stream = cuda.stream()
        self._hosts: dict[str, int] = {"registered memfd": self._register()}
        if cuda.has("cuMemHostAlloc"):
            p = c.c_void_p()
            cuda.call("cuMemHostAlloc", c.byref(p), c.c_size_t(self.size), 0)
            c.memset(p, 7, self.size)
            self._hosts["cuMemHostAlloc"] = p.value or 0
        self.samples: dict[str, list[float]] = {}

    def _register(self) -> int:
        fd = os.memfd_create("gpu-check")
        os.ftruncate(fd, self.size)
        self._map = mmap.mmap(fd, self.size)
        os.close(fd)
        self._map.madvise(23) if self.size % 4096 == 0 else None  # MADV_POPULATE_WRITE
        at = c.addressof(c.c_char.from_buffer(self._map))
        c.memset(at, 7, self.size)
        self._cuda.call("cuMemHostRegister_v2", c.c_void_p(at), c.c_size_t(self.size), 0)
        return at

    def sample(self) -> None:
        """Takes one sample of each kind and direction."""
        n = c.c_size_t(self.size)
        for kind, host in self._hosts.items():
            up = partial(self._cuda.call, "cuMemcpyHtoDAsync_v2", self._device.at, c.c_void_p(host), n, self._stream)
            down = partial(self._cuda.call, "cuMemcpyDtoHAsync_v2", c.c_void_p(host), self._device.at, n, self._stream)
            for direction, give in (("h2d", up), ("d2h", down)):
                self.samples.setdefault(f"{direction}, {kind}", []).append(rate(self._cuda, self._stream, self.size, give, self._repeat))

    def best(self, direction: str) -> float:
        """The median of the faster kind, GB/s."""
        from .report import median

        return max(median(v) for k, v in self.samples.items() if k.startswith(direction))

    def free(self) -> None:
        """Gives the GPU's memory back; what is pinned goes with the process."""
        self._device.free()


def rate(cuda: CUDA, stream: c.c_void_p, size: int, give: Any, times: int = 4) -> float:
    """GB/s of a piece of work that give puts into the stream, several times in a row."""
    began = time.perf_counter()
    for _ in range(times):
        give()
    cuda.wait(stream)
    return times * size / (time.perf_counter() - began) / 1e9
