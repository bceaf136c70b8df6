"""A GPU that is not there, for tests: the fake driver of device/cuda/fake in this process.

Its memory is main memory, which the client shows as such where ISOBAR_FAKE_CUDA_VIEWS is host.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
MiB = 1 << 20

OUT_OF_MEMORY, INVALID_VALUE, NO_DEVICE, ILLEGAL_ADDRESS = 2, 1, 100, 700


def build(folder: Path) -> Path:
    """Compiles the library, as package fake does."""
    out = folder / "libisobarfakecuda.so"
    sources = sorted((REPOSITORY / "device" / "cuda" / "fake" / "src").glob("*.c"))
    compiler = (os.environ.get("CC") or "cc").split()
    subprocess.run([*compiler, "-shared", "-fPIC", "-O2", "-o", out, *sources, "-lpthread"], check=True)
    return out


class _Properties(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("handles", ctypes.c_int), ("location", ctypes.c_int), ("device", ctypes.c_int),
                ("windows", ctypes.c_void_p), ("flags", ctypes.c_ubyte * 8)]  # fmt: skip


class Fake:
    """The library in this process: its controls, and what a node would do with it."""

    def __init__(self, path: Path, devices: int = 1, size: int = 256 * MiB, state: str = "") -> None:
        self.path = path
        self.lib = ctypes.CDLL(str(path))
        self.lib.isobarFakeConfigure.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_char_p]
        self.lib.isobarFakeConfigure(devices, size, state.encode())
        self.lib.isobarFakeCalls.restype = ctypes.c_int64

    def uuid(self, ordinal: int = 0) -> str:
        """As the node spells it."""
        h = (b"isobar-fake-gpu" + bytes([ordinal])).hex()
        return f"GPU-{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"

    def make(self, size: int, ordinal: int = 0) -> int:
        """Makes memory; returns its descriptor, which alone holds it."""
        self.enter(ordinal)
        properties = _Properties(1, 1, 1, ordinal)
        handle, fd = ctypes.c_void_p(), ctypes.c_int()
        self.ok(self.lib.cuMemCreate(ctypes.byref(handle), ctypes.c_size_t(size), ctypes.byref(properties), ctypes.c_ulonglong(0)))
        self.ok(self.lib.cuMemExportToShareableHandle(ctypes.byref(fd), handle, 1, ctypes.c_ulonglong(0)))
        self.ok(self.lib.cuMemRelease(handle))
        return fd.value

    def enter(self, ordinal: int = 0) -> None:
        """Makes the GPU's context this thread's."""
        context = ctypes.c_void_p()
        self.ok(self.lib.cuInit(0))
        self.ok(self.lib.cuDevicePrimaryCtxRetain(ctypes.byref(context), ordinal))
        self.ok(self.lib.cuCtxSetCurrent(context))

    def ok(self, code: int) -> None:
        assert code == 0, code

    def fail(self, call: str, nth: int = 1, code: int = INVALID_VALUE) -> None:
        """Makes the nth call of that name from now fail."""
        self.lib.isobarFakeFail(call.encode(), nth, code)

    def hold(self, call: str, on: bool) -> None:
        """Keeps calls of that name from returning while on."""
        self.lib.isobarFakeHold(call.encode(), int(on))

    def await_held(self, call: str, n: int) -> None:
        """Waits until so many calls of that name are kept from returning."""
        assert self.lib.isobarFakeAwait(call.encode(), n), f"{n} calls of {call} do not come"

    def calls(self, *names: str) -> list[int]:
        """How many calls of each name this process has made."""
        return [int(self.lib.isobarFakeCalls(n.encode())) for n in names]

    def live(self) -> tuple[int, int]:
        """How much memory and how many ranges of addresses this process has."""
        return self.lib.isobarFakeLive(0), self.lib.isobarFakeLive(1)
