"""Model files, made where they are needed: random weights of a plain stack of layers."""

from __future__ import annotations

import json
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_BLOCK = 16 << 20


@dataclass(frozen=True)
class Shape:
    """A stack of linear layers with a bias: two tensors each."""

    name: str
    layers: int
    width: int
    dtype: str  # BF16, or F16 where numpy alone must read it

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return self.layers * 2 * (self.width * self.width + self.width)


def _random(seed: int, dtype: str) -> bytes:
    """A block of small finite numbers, positive and negative: sign and fraction are random, the
    exponent is one of four of numbers below one."""
    bits = np.random.default_rng(seed).integers(0, 1 << 16, _BLOCK // 2, dtype=np.uint16)
    if dtype == "BF16":
        bits = (bits & 0x807F) | (((bits >> 7) & 3) + 118) << 7
    else:
        bits = (bits & 0x83FF) | (((bits >> 10) & 3) + 6) << 10
    return bits.astype("<u2").tobytes()


def write(shape: Shape, folder: Path) -> Path:
    """Makes the file unless it is there; several threads write, so that it is in the page cache soon."""
    path = folder / f"{shape.name}.safetensors"
    header: dict[str, object] = {}
    at = 0
    for i in range(shape.layers):
        for kind, dims in (("weight", [shape.width, shape.width]), ("bias", [shape.width])):
            n = 2 * int(np.prod(dims))
            header[f"layers.{i}.{kind}"] = {"dtype": shape.dtype, "shape": dims, "data_offsets": [at, at + n]}
            at += n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64)
    head = struct.pack("<Q", len(text)) + text
    whole = len(head) + at
    if path.exists() and path.stat().st_size == whole:
        return path
    part = path.with_suffix(".part")
    block = _random(shape.layers, shape.dtype) * 2  # any beginning in its first half has a whole block behind it
    with part.open("wb") as f:
        f.truncate(whole)
        f.write(head)
        f.flush()

        def fill(i: int) -> None:
            begin = i * _BLOCK
            n = min(_BLOCK, at - begin)
            offset = i * 65542 % _BLOCK // 2 * 2  # blocks differ
            os.pwrite(f.fileno(), memoryview(block)[offset : offset + n], len(head) + begin)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fill, range((at + _BLOCK - 1) // _BLOCK)))
    os.replace(part, path)
    return path
