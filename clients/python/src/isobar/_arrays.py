"""Elements of tensors, as numpy and torch know them. Both libraries are optional."""

from __future__ import annotations

import importlib
import math
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from .errors import ProtocolError, UnsupportedDtype

Framework = Literal["numpy", "torch"]


class TensorInfo(NamedTuple):
    """One tensor of a model: where it lies, and what it is.

    ``dtype`` is spelled as in safetensors (F32, BF16, F8_E4M3, …), a GGUF block type as
    GGUF_Q4_K. ``segment`` and ``offset`` say where its ``size_bytes`` bytes begin.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    segment: int
    offset: int
    size_bytes: int


# dtype → (bytes of an element, numpy's name or "", torch's name or "", unsigned twin)
_DTYPES: dict[str, tuple[int, str, str, str]] = {
    "BOOL": (1, "bool", "bool", "uint8"),
    "U8": (1, "uint8", "uint8", "uint8"),
    "I8": (1, "int8", "int8", "uint8"),
    "U16": (2, "uint16", "uint16", "uint16"),
    "I16": (2, "int16", "int16", "uint16"),
    "F16": (2, "float16", "float16", "uint16"),
    "BF16": (2, "", "bfloat16", "uint16"),
    "U32": (4, "uint32", "uint32", "uint32"),
    "I32": (4, "int32", "int32", "uint32"),
    "F32": (4, "float32", "float32", "uint32"),
    "U64": (8, "uint64", "uint64", "uint64"),
    "I64": (8, "int64", "int64", "uint64"),
    "F64": (8, "float64", "float64", "uint64"),
    "C64": (8, "complex64", "complex64", "uint64"),
    "F8_E4M3": (1, "", "float8_e4m3fn", "uint8"),
    "F8_E5M2": (1, "", "float8_e5m2", "uint8"),
    "F8_E8M0": (1, "", "float8_e8m0fnu", "uint8"),
}


def library(framework: Framework) -> Any:
    """The module, or ImportError that says what to install."""
    if framework not in ("numpy", "torch"):
        raise ValueError(f"framework is numpy or torch, not {framework!r}")
    found = sys.modules.get(framework)
    if found is not None and not getattr(found.__spec__, "_initializing", False):
        return found  # much the quickest, and this is asked for every tensor
    try:
        return importlib.import_module(framework)
    except ImportError as e:
        raise ImportError(f"{framework} is not installed: pip install {framework}") from e


def default_framework() -> Framework:
    """torch where the program uses it already, else numpy."""
    return "torch" if "torch" in sys.modules else "numpy"


def view(memory: memoryview, info: TensorInfo, framework: Framework, raw: bool) -> Any:
    """An array over the tensor's bytes, without a copy; see form."""
    name, shape = form(info, framework, raw)
    return of(memory, name, shape, framework)


def form(info: TensorInfo, framework: Framework, raw: bool) -> tuple[str, tuple[int, ...]]:
    """The library's name of the tensor's type, and its shape.

    With raw, elements that the library has no type for are unsigned integers of their width, and
    those narrower than a byte (or in blocks) a flat array of bytes.
    """
    width, numpy_name, torch_name, unsigned = _DTYPES.get(info.dtype, (0, "", "", "uint8"))
    lib = library(framework)
    name = numpy_name if framework == "numpy" else torch_name
    shape = info.shape
    known = bool(name) and hasattr(lib, name) or name == "bool"
    if not known:
        if not raw:
            raise UnsupportedDtype(_unsupported(info, framework))
        name = unsigned
        if not hasattr(lib, name):  # an old torch knows uint8 alone
            width = 0
        if width == 0:
            name, shape = "uint8", (info.size_bytes,)
    if width and math.prod(info.shape) * width != info.size_bytes or min(info.shape, default=0) < 0:
        raise ProtocolError(f"tensor {info.name!r}: {info.size_bytes} bytes are not {list(info.shape)} of {info.dtype}")
    return name, shape


def fit(kind: Any, width: int, shape: Sequence[int] | None, size: int) -> tuple[int, ...]:
    """The shape of an array of elements of a width over the beginning of size bytes; without one,
    a flat one over as much of it as whole elements fit in."""
    count = size // width if shape is None else math.prod(shape)
    if count * width > size:
        raise ValueError(f"{list(shape or ())} elements of {kind} do not fit into {size} bytes")
    return (count,) if shape is None else tuple(shape)


def of(memory: memoryview, dtype: Any, shape: Sequence[int] | None, framework: Framework) -> Any:
    """An array of that type and shape over the beginning of memory; see fit."""
    lib = library(framework)
    if framework == "numpy":
        kind = lib.dtype(dtype)
    else:
        kind = getattr(lib, dtype) if isinstance(dtype, str) else dtype
    wanted = fit(kind, kind.itemsize, shape, memory.nbytes)
    count = math.prod(wanted)
    if count == 0:  # which neither takes from a buffer
        return lib.empty(wanted, dtype=kind)
    if framework == "numpy":
        return lib.frombuffer(memory, dtype=kind, count=count).reshape(wanted)
    if not memory.readonly:
        return lib.frombuffer(memory, dtype=kind, count=count).reshape(wanted)
    with warnings.catch_warnings():
        # torch has no read-only tensors and warns of each; the documentation says it once.
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return lib.frombuffer(memory, dtype=kind, count=count).reshape(wanted)


def _unsupported(info: TensorInfo, framework: Framework) -> str:
    text = f"tensor {info.name!r}: {framework} has no type for {info.dtype}"
    if framework == "numpy" and _DTYPES.get(info.dtype, (0, "", "", ""))[2]:
        return text + ": torch has one (tensors('torch')), and raw=True gives unsigned integers"
    return text + ": raw=True gives its bytes as unsigned integers"
