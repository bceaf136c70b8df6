"""Tensors over memory that Python has no buffer for: what they show, and how long it is kept."""

from __future__ import annotations

import ctypes
import gc
import math
import subprocess
import sys
import types
from pathlib import Path

import numpy
import pytest
from conftest import PATIENCE
from numpytorch import Torch

import isobar
from isobar import _dlpack


class Memory:
    """Memory whose every byte says where it is, and who looks at it."""

    def __init__(self) -> None:
        self.bytes = bytes(range(256)) * 16
        self._kept = ctypes.create_string_buffer(self.bytes, len(self.bytes))
        self.begin = ctypes.addressof(self._kept)
        self.views: set[int] = set()
        self.seen_with: list[int] = []  # views that were left each time when one had died

    def seen(self) -> None:
        self.seen_with.append(len(self.views))


CPU = (_dlpack.CPU, 0)

# type, shape: elements of which DLPack knows the type, or only one of that width, or neither.
KINDS = [
    ("float32", (2, 3)), ("float32", ()), ("int8", (7,)), ("float64", (1, 2, 1, 3)), ("int64", (5,)), ("uint16", (4, 2)), ("bool", (3,)),
    ("complex64", (2, 2)), ("complex128", (3, 2)), ("complex128", ()), ("float16", tuple([1] * 12)), ("float32", (2, 3)),
]  # fmt: skip


def shown(torch: Torch, memory: Memory, kinds: list[tuple[str, tuple[int, ...]]]) -> list[numpy.ndarray]:
    known = {k: _dlpack.Form(torch, getattr(torch, k[0]), k[1], CPU) for k in kinds}
    return _dlpack.tensors(torch, [memory.begin + 64 * i for i in range(len(kinds))], [known[k] for k in kinds], memory)


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a torch of its own."""
    monkeypatch.setattr(_dlpack, "_asked", {})


def test_torch_is_asked_for_its_types() -> None:
    torch = Torch()
    torch.knows = {"bool", "complex128"}
    forms = {name: _dlpack.Form(torch, getattr(torch, name), (2, 3), CPU) for name in ("float32", "bool", "complex64", "uint16", "complex128")}
    assert [name for name, f in forms.items() if f.plain] == ["float32", "bool", "complex128"]
    assert [_dlpack._asked[getattr(torch, name)] for name in ("bool", "complex64", "uint16", "complex128")] == [(6, 8), None, None, (5, 128)]
    assert torch.taken == 2  # and it has taken what it gave


@pytest.mark.parametrize("knows", [set(), {"uint16", "bool", "complex64", "complex128"}])
def test_each_shows_its_own(knows: set[str]) -> None:
    torch, memory = Torch(), Memory()
    torch.knows = knows
    before = len(_dlpack._living)
    made = shown(torch, memory, KINDS)
    assert len(memory.views) == len(KINDS) == len(_dlpack._living) - before and torch.taken == len(KINDS) + len(knows)
    for i, ((name, shape), t) in enumerate(zip(KINDS, made, strict=True)):
        assert t.dtype == name and t.shape == shape and t.flags.c_contiguous
        assert t.tobytes() == memory.bytes[64 * i :][: math.prod(shape) * t.itemsize]
        assert t.__array_interface__["data"][0] == memory.begin + 64 * i
    del t
    for left in reversed(range(len(KINDS))):
        made.pop(0)
        gc.collect()
        assert len(memory.views) == left and memory.seen_with[-1] == left
    assert len(_dlpack._living) == before and len(memory.seen_with) == len(KINDS)


def test_what_has_no_elements_keeps_nothing() -> None:
    torch, memory = Torch(), Memory()
    made = shown(torch, memory, [("float32", (0, 3)), ("complex64", (2,)), ("bool", (4, 0)), ("uint8", (2,))])
    assert [(str(t.dtype), t.shape) for t in made] == [("float32", (0, 3)), ("complex64", (2,)), ("bool", (4, 0)), ("uint8", (2,))]
    assert made[1].tobytes() == memory.bytes[64:80] and made[3].tolist() == [192, 193] and len(memory.views) == 2
    assert _dlpack.tensors(torch, [], [], memory) == []
    assert [t.shape for t in shown(torch, memory, [("int8", (0,))])] == [(0,)] and torch.taken == 2


@pytest.mark.parametrize("nth", [1, 5])
def test_all_or_none(nth: int) -> None:
    """A tensor that cannot be made takes the others with it."""
    torch, memory = Torch(), Memory()
    before = len(_dlpack._living)
    torch.fail = nth
    with pytest.raises(MemoryError):
        shown(torch, memory, KINDS)
    gc.collect()
    assert not memory.views and len(_dlpack._living) == before and torch.taken == nth
    assert memory.seen_with[-1] == 0  # whoever waits for that hears of it


def test_an_older_torch() -> None:
    """It has the public name alone."""
    torch, memory = Torch(), Memory()
    torch.utils = types.SimpleNamespace(dlpack=types.SimpleNamespace(from_dlpack=torch._C._from_dlpack))
    del torch._C._from_dlpack
    assert [t.tolist() for t in shown(torch, memory, [("uint8", (2,)), ("uint8", (2,))])] == [[0, 1], [64, 65]]


ENDING = """
import sys
sys.path[:0] = sys.argv[1].split(":")
import numpy
from test_dlpack import KINDS, Memory, shown
from numpytorch import Torch
memory = Memory()
numpy.kept = shown(Torch(), memory, KINDS)  # until the interpreter itself is taken down
numpy.loop = [memory, numpy.kept[1:]]
numpy.loop.append(numpy.loop)
print("made", len(memory.views))
"""


def test_they_may_outlive_the_program() -> None:
    paths = f"{Path(isobar.__file__).parents[1]}:{Path(__file__).parent}"
    done = subprocess.run([sys.executable, "-X", "dev", "-c", ENDING, paths], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (0, f"made {len(KINDS)}\n", False), done.stderr
