"""Torch tensors over memory that Python has no buffer for, by DLPack.

A tensor is described by a DLManagedTensor in memory of ours; torch calls its deleter, from any
thread, when the last tensor of that storage has died. Each tensor has a storage of its own, so
that torch.save and the like see no more than what it shows.
"""

from __future__ import annotations

import atexit
import ctypes
import math
import struct
from collections.abc import Sequence
from typing import Any, Protocol

CPU, CUDA = 1, 2

_INT, _UINT, _FLOAT, _BFLOAT = 0, 1, 2, 4

# torch's name → code and bits, of the types that every version of torch takes. What is missing
# is shown as the integer of its width and viewed as itself.
_CODES = {
    "uint8": (_UINT, 8), "int8": (_INT, 8), "int16": (_INT, 16), "int32": (_INT, 32), "int64": (_INT, 64),
    "float16": (_FLOAT, 16), "float32": (_FLOAT, 32), "float64": (_FLOAT, 64), "bfloat16": (_BFLOAT, 16),
}  # fmt: skip
_OF_WIDTH = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}

# DLManagedTensor: data, device, dimensions, type, shape, strides (none: row by row), offset;
# context, deleter. Behind it lies its shape.
_TENSOR = struct.Struct("@QiiiBBHQQQQQ")
_SHAPED = [struct.Struct(f"@QiiiBBHQQQQQ{n}q") for n in range(9)]
_DELETER_AT = _TENSOR.size - 8

_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_CAPSULE = ctypes.c_char_p(b"dltensor")  # capsules point to it


class Owner(Protocol):
    """Whose memory it is."""

    views: set[int]  # what shows it

    def seen(self) -> None:
        """Called when a view has died, from any thread."""


# The descriptions that torch has, by address: in which memory (and where it begins), and whose.
_living: dict[int, tuple[Any, int, Owner]] = {}


def _died(at: int) -> None:
    entry = _living.pop(at, None)
    if entry is not None:
        entry[2].views.discard(at)
        entry[2].seen()


_delete = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_died)  # kept: torch calls it
_DELETER = ctypes.cast(_delete, ctypes.c_void_p).value


def _leave() -> None:
    """At the program's end: tensors that outlive the interpreter must not call into it."""
    for at, (memory, begin, _) in list(_living.items()):
        struct.pack_into("@Q", memory, at - begin + _DELETER_AT, 0)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
        del _living[at]


atexit.register(_leave)


# torch's type → what it is shown as (code, bits), and whether as bytes: else as elements of its
# own width, which are then viewed as what they are unless they are that already.
_forms: dict[Any, tuple[tuple[int, int], bool, bool]] = {}


def _form(dtype: Any) -> tuple[tuple[int, int], bool, bool]:
    name = str(dtype).removeprefix("torch.")
    shown = name if name in _CODES else _OF_WIDTH.get(dtype.itemsize, "")
    _forms[dtype] = found = (_CODES[shown or "uint8"], not shown, shown != name)
    return found


def tensors(
    torch: Any, wanted: Sequence[tuple[int, Any, tuple[int, ...]]], device: tuple[int, int], owner: Owner
) -> list[Any]:
    """Tensors over memory that owner keeps while a view of it is alive: each an address, torch's
    type and a shape."""
    memory = ctypes.create_string_buffer(sum(_TENSOR.size + 8 * (len(shape) or 1) for _, _, shape in wanted))
    at, begin = ctypes.addressof(memory), ctypes.addressof(memory)
    take = torch.utils.dlpack.from_dlpack
    place, number = device
    out = []
    for address, dtype, shape in wanted:
        count = math.prod(shape)
        if count == 0:
            out.append(torch.empty(shape, dtype=dtype, device="cpu" if device[0] == CPU else f"cuda:{device[1]}"))
            continue
        (code, bits), as_bytes, other = _forms.get(dtype) or _form(dtype)
        dims = (count * dtype.itemsize,) if as_bytes else shape
        n = len(dims)
        shaped = _SHAPED[n] if n < len(_SHAPED) else struct.Struct(f"@QiiiBBHQQQQQ{n}q")
        shaped.pack_into(memory, at - begin, address, place, number, n, code, bits, 1, at + _TENSOR.size, 0, 0, 0, _DELETER, *dims)
        owner.views.add(at)
        _living[at] = (memory, begin, owner)
        try:
            made = take(_new_capsule(at, _CAPSULE, None))
        except BaseException:
            # A capsule that was not taken has no deleter.
            if _living.pop(at, None) is not None:
                owner.views.discard(at)
            raise
        if other:
            made = made.view(dtype)
            if as_bytes:
                made = made.view(shape)
        out.append(made)
        at += _TENSOR.size + 8 * (n or 1)
    return out
