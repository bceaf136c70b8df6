"""A torch that is not there, for tests: numpy takes the descriptions of DLPack in its place.

Its types are numpy's, so that bfloat16 and 8-bit floats are missing; its tensors are arrays. What
is true of descriptions, their lives and their memory is tested so without torch.
"""

from __future__ import annotations

import types
from typing import Any

import numpy

_TYPES = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64", "complex64", "complex128")


class _Given:
    """What numpy takes a capsule from."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


class Torch(types.ModuleType):
    """To be put in torch's place. The nth tensor from now on is refused where fail is n."""

    def __init__(self) -> None:
        super().__init__("torch")
        self._C = types.SimpleNamespace(_from_dlpack=self._take)
        self.backends = types.SimpleNamespace(cuda=types.SimpleNamespace(is_built=lambda: False))
        self.utils = types.SimpleNamespace(dlpack=types.SimpleNamespace(to_dlpack=self._give))
        self.empty = lambda shape, dtype, device: numpy.empty(shape, dtype)
        self.knows: set[str] = set()  # types that it gives by DLPack
        self.taken = 0
        self.fail = 0
        for name in _TYPES:
            setattr(self, name, numpy.dtype(name))

    def _give(self, t: Any) -> Any:
        if t.dtype.name not in self.knows:
            raise BufferError("DLPack has no such type")
        return t.__dlpack__()

    def _take(self, capsule: Any) -> Any:
        self.taken += 1
        if self.taken == self.fail:
            raise MemoryError("no tensor")
        return numpy.from_dlpack(_Given(capsule))
