"""Models: their tensors are those of the file, shared, and let go."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from conftest import MiB, Node, python, write_safetensors

import isobar

NO_TORCH = "torch is not installed: what the client does with it is not tested"
has_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason=NO_TORCH)


@pytest.fixture
def path(node: Node) -> Path:
    """A model with a tensor of each type, in the node's model root."""
    random = numpy.random.default_rng(1)
    tensors = {}
    for dtype, name in (("F64", "f8"), ("F32", "f4"), ("F16", "f2"), ("I64", "i8"), ("I32", "i4"), ("I16", "i2"), ("I8", "i1"),
                        ("U8", "u1"), ("BOOL", "?")):  # fmt: skip
        a = random.integers(0, 2, (4, 33)).astype(name)
        tensors[f"plain.{dtype}"] = (dtype, [4, 33], a.tobytes())
    tensors["plain.scalar"] = ("F32", [], numpy.float32(2.5).tobytes())
    tensors["plain.large"] = ("F32", [512, 1024], random.random((512, 1024), dtype="f4").tobytes())
    p = node.models / "plain.safetensors"
    write_safetensors(p, tensors)
    return p


@pytest.fixture
def narrow(node: Node) -> Path:
    """A model of types that numpy does not have."""
    p = node.models / "narrow.safetensors"
    write_safetensors(p, {
        "linear.weight": ("BF16", [2, 3], numpy.arange(6, dtype="f4").view("u4").__rshift__(16).astype("u2").tobytes()),
        "linear.bias": ("BF16", [2], bytes([0x80, 0x3F, 0x00, 0x40])),
        "eight": ("F8_E4M3", [4], bytes([0x38, 0x40, 0x00, 0x7E])),
    })  # fmt: skip
    return p


def test_tensors_are_those_of_the_file(client: isobar.Client, path: Path) -> None:
    reference = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed: nothing to compare with").load_file(path)
    with client.load_model("plain", path, type="other") as m:
        got = m.tensors("numpy")
        assert got.keys() == reference.keys()
        for name, want in reference.items():
            a = got[name]
            assert a.dtype == want.dtype and a.shape == want.shape and not a.flags.writeable, name
            assert numpy.array_equal(a, want), name
        assert m.name == "plain" and m.device_id == "ram-0" and m.info["tensor_count"] == len(got)
        assert {i.name for i in m.tensor_infos} == set(got)
        assert m.tensor("plain.scalar", "numpy") == 2.5
        with pytest.raises(KeyError):
            m.tensor("none", "numpy")
        del a
    assert got == {} and not m.lingering


def test_readers_are_counted(client: isobar.Client, path: Path) -> None:
    def readers() -> int:
        return int(client.call("get_model_info", {"name": "plain"})["models"][0]["readers"])

    first = client.load_model("plain", path)
    one = readers()
    second = client.load_model("plain")
    assert first.allocation_id == second.allocation_id and readers() > one > 0
    with pytest.raises(isobar.InUse):
        client.unload_model("plain")
    first.close()
    assert numpy.array_equal(second.tensor("plain.U8", "numpy"), second.tensor("plain.U8", "numpy"))
    second.close()
    assert readers() == 0
    assert client.unload_model("plain")["unloaded"]


def test_a_load_acquires(client: isobar.Client, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One command for a resident model, once there is a session; each open model has a reference of its own."""
    asked: list[str] = []
    control = client._inner._control
    call = control.call

    async def listening(action: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        asked.append(action)
        return await call(action, *arguments, **options)

    monkeypatch.setattr(control, "call", listening)

    def load(**options: Any) -> isobar.Model:
        asked.clear()
        return client.load_model("plain", path, **options)

    models = [load()]
    assert asked == ["load_model", "acquire_model"]
    models.append(load())
    assert asked == ["load_model"]
    # Of what was asked before, the first has the reference.
    models += [load(request_id="again"), load(request_id="again")]
    assert asked == ["load_model", "acquire_model"]
    # On another node the session is nobody's.
    with monkeypatch.context() as patch:
        patch.setattr(client._inner, "_only_session", lambda: SimpleNamespace(id="of another node"))
        models.append(load())
    assert asked == ["load_model", "load_model", "acquire_model"]
    assert len({m._inner._reference for m in models}) == len(models)
    for m in models:
        with pytest.raises(isobar.InUse):
            client.unload_model("plain")
        m.close()
    assert client.unload_model("plain")["unloaded"]


@pytest.fixture
def losing(client: isobar.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose program never hears that a load or an allocation is done."""
    control, never = client._inner._control, asyncio.Event()
    call = control.call

    async def lose(action: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        answer = await call(action, *arguments, **options)
        if action in ("load_model", "allocate"):
            await never.wait()
        return answer

    monkeypatch.setattr(control, "call", lose)


def test_giving_up_a_load_lets_go(client: isobar.Client, path: Path, request: pytest.FixtureRequest) -> None:
    """Also where the load is over by then, and has acquired the model for nobody."""

    def readers() -> int:
        return int(client.call("get_model_info", {"name": "plain"})["models"][0]["readers"])

    with client.load_model("plain", path) as held:
        before = readers()
        request.getfixturevalue("losing")
        with pytest.raises(TimeoutError):
            client.load_model("plain", timeout=0.2)
        while readers() > before:  # it is let go of in the background
            pass
        assert held.close()
    assert client.unload_model("plain")["unloaded"]


def test_giving_up_a_grant_gives_it_back(client: isobar.Client, losing: None) -> None:
    with pytest.raises(TimeoutError):
        client.allocate(MiB, timeout=0.2)
    while client.call("get_allocations")["allocations"]:
        pass


def test_offered_file(client: isobar.Client, path: Path, tmp_path: Path) -> None:
    """A file outside the model roots, with this process's own rights."""
    outside = tmp_path / "mine.safetensors"
    outside.write_bytes(path.read_bytes())
    with client.allocate(MiB):  # a session, so that the socket is known
        with pytest.raises(isobar.InvalidModel):
            client.load_model("mine", outside)
        with client.load_model("mine", outside, offer=True) as m:
            assert m.tensor("plain.scalar", "numpy") == 2.5


def test_progress(client: isobar.Client, path: Path) -> None:
    seen: list[isobar.Progress] = []
    with client.allocate(255 * MiB - 512, queue=0) as full:
        del full  # the load has to wait for room
        with pytest.raises(isobar.OutOfMemory):
            client.load_model("plain", path, queue=0, progress=seen.append)
    with client.load_model("plain", path, progress=seen.append):
        assert all(isinstance(p, isobar.Progress) for p in seen)


def test_what_numpy_has_no_type_for(client: isobar.Client, narrow: Path) -> None:
    with client.load_model("narrow", narrow) as m:
        with pytest.raises(isobar.UnsupportedDtype, match="raw=True"):
            m.tensors("numpy")
        raw = m.tensors("numpy", raw=True)
        assert raw["linear.bias"].dtype == "u2" and raw["linear.bias"].tolist() == [0x3F80, 0x4000]
        assert raw["eight"].dtype == "u1" and raw["linear.weight"].shape == (2, 3)
        with pytest.raises(ValueError, match="framework"):
            m.tensors("jax")  # type: ignore[arg-type]


SECOND = """
import sys, isobar, zlib
with isobar.connect(sys.argv[1], connect_timeout=60) as c, c.load_model("plain") as m:
    print(m.allocation_id, zlib.crc32(m.tensor("plain.large", "numpy")))
"""


def test_two_processes_share_it(client: isobar.Client, node: Node, path: Path) -> None:
    import zlib

    with client.load_model("plain", path) as m:
        allocation, crc = python(SECOND, node.url).split()
        assert allocation == m.allocation_id and int(crc) == zlib.crc32(m.tensor("plain.large", "numpy"))


@has_torch
def test_torch(client: isobar.Client, path: Path, narrow: Path) -> None:
    import torch

    with client.load_model("narrow", narrow) as m:
        t = m.tensors()
        assert t["linear.weight"].dtype == torch.bfloat16 and t["linear.weight"].shape == (2, 3)
        assert t["linear.bias"].tolist() == [1.0, 2.0] and t["eight"].float().tolist() == [1.0, 2.0, 0.0, 448.0]
        # What is written stays in this mapping.
        t["linear.bias"][0] = 7
        with client.load_model("narrow") as other:
            assert other.tensor("linear.bias").tolist() == [1.0, 2.0]
        module = m.load_into(torch.nn.Linear(3, 2, dtype=torch.bfloat16), prefix="linear.")
        assert module.weight.data_ptr() == t["linear.weight"].data_ptr()
        assert module(torch.ones(3, dtype=torch.bfloat16)).shape == (2,)
    assert module.weight.is_meta and not m.lingering
    with client.load_model("plain", path) as plain, client.allocate(MiB) as b:
        assert torch.equal(plain.tensor("plain.large"), torch.from_numpy(plain.tensor("plain.large", "numpy").copy()))
        b.torch("float32")[:] = 2
        assert float(b.numpy("f4").sum()) == 2 * MiB / 4


def test_without_torch(client: isobar.Client, narrow: Path) -> None:
    if importlib.util.find_spec("torch") is not None:
        return  # test_torch has it
    with client.load_model("narrow", narrow) as m:
        with pytest.raises(ImportError, match="torch is not installed"):
            m.tensors("torch")
        with pytest.raises(ImportError, match="torch is not installed"):
            m.load_into(os)
