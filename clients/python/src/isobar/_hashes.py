"""What a model's tensors are compared with, as commands have it."""

from __future__ import annotations

import json
from collections.abc import Mapping

# Tensor → SHA-256 sum of its bytes: 64 hexadecimal digits, or 32 bytes.
Hashes = Mapping[str, str | bytes]

# How many bytes of a request they may be: of 256 KiB, with room for everything else.
_ROOM = 192 << 10


def parts(hashes: Hashes | None) -> list[list[str]]:
    """The hashes as load_model has them, in as many lists as it takes for each to fit into a request."""
    out: list[list[str]] = []
    left = 0
    for tensor, sum_ in (hashes or {}).items():
        line = f"{sum_ if isinstance(sum_, str) else bytes(sum_).hex()}  {tensor}"
        size = len(json.dumps(line)) + 2
        if size > left:
            out.append([])
            left = _ROOM
        out[-1].append(line)
        left -= size
    return out
