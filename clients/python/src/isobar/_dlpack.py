"""Torch tensors over memory that Python has no buffer for, by DLPack.

A tensor is described by a DLManagedTensor in memory of ours; torch calls its deleter, from any
thread, when the last tensor of that storage has died. Each tensor has a storage of its own, so
that torch.save and the like see no more than what it shows.

A model has hundreds of tensors, and whoever loads it waits for the last: so what tensors of a
type and shape have in common is packed once (:class:`Form`), what is to be kept of them is kept
for all at once, and each costs two calls: one makes its capsule, the other its tensor.
"""

from __future__ import annotations

import atexit
import ctypes
import math
import struct
from array import array
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, NamedTuple, Protocol

CPU, CUDA = 1, 2

_INT, _UINT, _FLOAT, _BFLOAT = 0, 1, 2, 4

# torch's name → code and bits, of the types that every version of torch takes. Of others the torch
# that is here is asked; what it does not know is shown as the integer of its width and viewed as itself.
_CODES = {
    "uint8": (_UINT, 8), "int8": (_INT, 8), "int16": (_INT, 16), "int32": (_INT, 32), "int64": (_INT, 64),
    "float16": (_FLOAT, 16), "float32": (_FLOAT, 32), "float64": (_FLOAT, 64), "bfloat16": (_BFLOAT, 16),
}  # fmt: skip
_OF_WIDTH = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}

# DLManagedTensor: data, device, dimensions, type, shape, strides (none: row by row), offset;
# context, deleter.
_TENSOR = struct.Struct("@QiiiBBHQQQQQ")
_TYPE = struct.Struct("@BBH")
_TYPE_AT = struct.calcsize("@Qiii")
_DELETER_AT = _TENSOR.size - 8

_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_CAPSULE = b"dltensor"  # kept: capsules point into it

_look_into = ctypes.pythonapi.PyCapsule_GetPointer
_look_into.restype = ctypes.c_void_p
_look_into.argtypes = [ctypes.py_object, ctypes.c_char_p]


class Owner(Protocol):
    """Whose memory it is."""

    views: set[int]  # what shows it

    def seen(self) -> None:
        """Called when a view has died, from any thread."""


class _Batch(NamedTuple):
    """Descriptions that were made together: their memory, where it begins, the forms that it
    points to, and whose memory they describe."""

    memory: bytearray
    begin: int
    forms: Sequence[Form]
    owner: Owner


# The descriptions that torch has, by address.
_living: dict[int, _Batch] = {}


def _died(at: int) -> None:
    batch = _living.pop(at, None)
    if batch is not None:
        batch.owner.views.discard(at)
        batch.owner.seen()


_delete = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_died)  # kept: torch calls it
_DELETER = ctypes.cast(_delete, ctypes.c_void_p).value


def _leave() -> None:
    """At the program's end: tensors that outlive the interpreter must not call into it."""
    for at, batch in list(_living.items()):
        struct.pack_into("@Q", batch.memory, at - batch.begin + _DELETER_AT, 0)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(batch.memory))
        del _living[at]


atexit.register(_leave)


# Types that a torch was asked about: code and bits, or None.
_asked: dict[Any, tuple[int, int] | None] = {}


def _ask(torch: Any, dtype: Any) -> tuple[int, int] | None:
    """Code and bits of a type, where this torch both gives and takes it by DLPack; else None."""
    if dtype not in _asked:
        _asked[dtype] = None
        try:
            capsule = torch.utils.dlpack.to_dlpack(torch.empty(1, dtype=dtype, device="cpu"))
            code, bits, lanes = _TYPE.unpack(ctypes.string_at(_look_into(capsule, _CAPSULE) + _TYPE_AT, _TYPE.size))
            if lanes == 1 and _taker(torch)(capsule).dtype == dtype:
                _asked[dtype] = code, bits
        except (AttributeError, BufferError, RuntimeError, TypeError, ValueError):
            pass  # an older one, which says so in its own way
    return _asked[dtype]


def _taker(torch: Any) -> Callable[[Any], Any]:
    """What makes a tensor of a capsule: the function itself rather than its wrapper, where it has this name."""
    found: Callable[[Any], Any] = getattr(torch._C, "_from_dlpack", None) or torch.utils.dlpack.from_dlpack
    return found


class Form:
    """What tensors of one type and shape on one device have in common: all of a description but
    the address."""

    def __init__(self, torch: Any, dtype: Any, shape: tuple[int, ...], device: tuple[int, int]) -> None:
        self.dtype = dtype
        self.width: int = dtype.itemsize  # of an element, in bytes: each begins at a multiple of it
        self.shape = shape
        self.device = device
        known = _CODES.get(str(dtype).removeprefix("torch.")) or _ask(torch, dtype)
        # Elements are shown as others of their width where DLPack does not know theirs, and as
        # bytes where it knows none of that width; then viewed as what they are.
        shown = known or _CODES.get(_OF_WIDTH.get(self.width, ""))
        self.viewed, self.reshaped = known is None, shown is None
        count = math.prod(shape)
        self.empty = count == 0
        dims = shape if shown else (count * self.width,)
        self._dims = (ctypes.c_int64 * (len(dims) or 1))(*dims)
        self.description = _TENSOR.pack(
            0, *device, len(dims), *(shown or _CODES["uint8"]), 1, ctypes.addressof(self._dims), 0, 0, 0, _DELETER
        )

    @property
    def plain(self) -> bool:
        """Whether what DLPack gives is the tensor."""
        return not (self.viewed or self.empty)

    def finish(self, made: Any) -> Any:
        """The tensor of what DLPack has given."""
        if self.viewed:
            made = made.view(self.dtype)
        return made.reshape(self.shape) if self.reshaped else made

    def nothing(self, torch: Any) -> Any:
        """A tensor without elements, which no memory is shown by."""
        kind, number = self.device
        return torch.empty(self.shape, dtype=self.dtype, device="cpu" if kind == CPU else f"cuda:{number}")


def tensors(torch: Any, addresses: Sequence[int], forms: Sequence[Form], owner: Owner) -> list[Any]:
    """Tensors over memory that owner keeps while a view of it is alive: each of an address and a
    form."""
    if all(f.plain for f in set(forms)):
        return _made(torch, addresses, forms, owner)
    shown = [(at, f) for at, f in zip(addresses, forms, strict=True) if not f.empty]
    made = iter(_made(torch, [at for at, _ in shown], [f for _, f in shown], owner))
    return [f.nothing(torch) if f.empty else f.finish(next(made)) for f in forms]


def _made(torch: Any, addresses: Sequence[int], forms: Sequence[Form], owner: Owner) -> list[Any]:
    """What DLPack gives of each."""
    if not forms:
        return []
    size = _TENSOR.size
    memory = bytearray().join([f.description for f in forms])
    memoryview(memory).cast("Q")[:: size // 8] = array("Q", addresses)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    places = range(begin, begin + len(memory), size)
    take = _taker(torch)
    made: list[Any] = []
    add = made.append
    owner.views.update(places)
    _living.update(dict.fromkeys(places, _Batch(memory, begin, forms, owner)))
    try:
        for tensor in map(take, map(_new_capsule, places, repeat(_CAPSULE), repeat(None))):
            add(tensor)
    except BaseException:
        # A capsule that was not taken has no deleter.
        for at in places[len(made) :]:
            if _living.pop(at, None) is not None:
                owner.views.discard(at)
        owner.seen()
        raise
    return made
