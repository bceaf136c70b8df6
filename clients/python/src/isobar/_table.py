"""A model's table of tensors, as it comes with a mapping.

There may be thousands of them, and whoever loads a model waits for the last: what is done for
each is done without the interpreter where that can be, and in few bytecodes where it cannot.
"""

from __future__ import annotations

import contextlib
from operator import itemgetter

import msgpack

from ._arrays import TensorInfo
from .errors import ProtocolError

# A TensorInfo that is a plain tuple, which costs less to make and to take apart.
TensorRow = tuple[str, str, tuple[int, ...], int, int, int]

_fields = itemgetter(*TensorInfo._fields)  # called as in the contract's tensor type
_shape = itemgetter(TensorInfo._fields.index("shape"))

name = itemgetter(TensorInfo._fields.index("name"))


class Table:
    """The tensors of a mapping: lists of the contract's tensor type in MessagePack, read when they
    are first asked for."""

    def __init__(self, packed: list[bytes]) -> None:
        self._packed = packed
        self._rows: list[TensorRow] | None = None

    def read(self) -> None:
        """Reads them, at a moment that costs less than when they are asked for. What is wrong with
        them is said then."""
        with contextlib.suppress(ProtocolError):
            self.rows  # noqa: B018

    @property
    def rows(self) -> list[TensorRow]:
        """All of them; ProtocolError if that is not what the node has sent."""
        packed = self._packed  # before another thread, which is reading it too, lets go of it
        if self._rows is None:
            self._rows = _read(packed)
            self._packed = []
        return self._rows


def _read(packed: list[bytes]) -> list[TensorRow]:
    found: list[TensorRow] = []
    try:
        for p in packed:
            found += map(_fields, msgpack.unpackb(p, use_list=False) or ())
    except KeyError as e:
        raise ProtocolError(f"a tensor's description lacks {e}") from e
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as e:
        raise ProtocolError(f"the model's tensors cannot be read: {e}") from e
    kinds = set(map(type, map(_shape, found)))
    if not kinds <= {tuple, type(None)}:
        raise ProtocolError("a tensor's shape is no list")
    if type(None) in kinds:  # which is a list of nothing
        found = [(n, dtype, shape or (), segment, offset, size) for n, dtype, shape, segment, offset, size in found]
    return found
