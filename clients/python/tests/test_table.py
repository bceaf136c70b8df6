"""The table of a model's tensors, as it comes from a node."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

import isobar
from isobar._arrays import TensorInfo
from isobar._table import Table, name

ONE = {"name": "w", "dtype": "BF16", "shape": [2, 3], "segment": 1, "offset": 1 << 40, "size_bytes": 12}


def table(*parts: Any) -> Table:
    return Table([msgpack.packb(p) for p in parts])


def test_it_is_read_once() -> None:
    t = table([ONE, {**ONE, "name": "two", "shape": [], "more": "than there was"}], None, [], [{**ONE, "shape": None}])
    t.read()
    t._packed = [b"no more looked at"]
    assert t.rows == [("w", "BF16", (2, 3), 1, 1 << 40, 12), ("two", "BF16", (), 1, 1 << 40, 12), ("w", "BF16", (), 1, 1 << 40, 12)]
    assert t.rows is t.rows and name(t.rows[1]) == "two"
    assert TensorInfo._make(t.rows[0]) == TensorInfo("w", "BF16", (2, 3), 1, 1 << 40, 12)
    assert Table([]).rows == []


@pytest.mark.parametrize("bad, what", [
    ([{k: v for k, v in ONE.items() if k != "offset"}], "lacks 'offset'"), ([ONE, 7], "cannot be read"), (7, "cannot be read"),
    ([ONE, {**ONE, "shape": 4}], "no list"), ([{**ONE, "shape": "ab"}], "no list"),
])  # fmt: skip
def test_it_is_the_contracts(bad: Any, what: str) -> None:
    for t in (table(bad), table([ONE], bad)):
        t.read()
        for _ in range(2):  # and it stays so
            with pytest.raises(isobar.ProtocolError, match=what):
                t.rows  # noqa: B018
    with pytest.raises(isobar.ProtocolError, match="cannot be read"):
        Table([msgpack.packb([ONE])[:-1]]).rows  # noqa: B018
