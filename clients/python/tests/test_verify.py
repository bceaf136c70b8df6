"""Models are compared with their file, or with hashes of their tensors."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE, MiB, Node, write_safetensors

import isobar
from isobar import _hashes

TENSORS = {"one": bytes(range(256)), "zwei ": b"\x01" * 64, "número": b"\x02" * (MiB + 3)}


@pytest.fixture
def path(node: Node) -> Path:
    return a_model(node, TENSORS)


def a_model(node: Node, tensors: dict[str, bytes]) -> Path:
    p = node.models / "summed.safetensors"
    write_safetensors(p, {k: ("U8", [len(v)], v) for k, v in tensors.items()})
    return p


def sums(tensors: dict[str, bytes] = TENSORS) -> dict[str, str | bytes]:
    return {k: hashlib.sha256(v).hexdigest() for k, v in tensors.items()}


def test_a_model_that_is_as_it_should_be(client: isobar.Client, path: Path) -> None:
    with client.load_model("summed", path, hashes=sums()) as loaded, client.load_model("summed") as plain:
        assert loaded.verified and not plain.verified
        digests = {k: hashlib.sha256(v).digest() for k, v in TENSORS.items()}
        with client.load_model("summed", hashes=digests, verify=True) as again, client.load_model("summed", verify=True) as by_file:
            assert again.verified and by_file.verified and again.allocation_id == loaded.allocation_id
    with client.load_model("summed", hashes={}) as m:
        assert not m.verified


def test_a_model_that_differs(client: isobar.Client, path: Path) -> None:
    for was_there in (False, True):
        if was_there:
            client.load_model("summed", path).close()
        with pytest.raises(isobar.InvalidModel, match="zwei") as e:
            client.load_model("summed", path, hashes={**sums(), "zwei ": hashlib.sha256(b"other").digest()})
        assert (e.value.code, e.value.status) == ("INVALID_MODEL", 422)
        assert e.value.details.items() >= {"tensor": "zwei ", "device_id": "ram-0", "sha256": sums()["zwei "]}.items()
    assert client.models()[0]["readers"] == 0


def test_hashes_that_say_nothing(client: isobar.Client, path: Path) -> None:
    with pytest.raises(isobar.InvalidRequest, match="no tensor") as e:
        client.load_model("summed", path, hashes={"none": sums()["one"]})
    assert e.value.details.items() >= {"field": "hashes", "tensor": "none"}.items()
    for bad in ("", "abc", "x" * 64, b"abc"):
        with pytest.raises(isobar.InvalidRequest, match="64 hexadecimal digits") as e:
            client.load_model("summed", path, hashes={"one": sums()["one"], "zwei ": bad})
        assert e.value.details["field"] == "hashes[1]"


def test_more_than_a_request_has_room_for(client: isobar.Client, node: Node) -> None:
    tensors = {f"blocks.{i}.weight": bytes([i % 256, i // 256]) for i in range(3000)}
    p, right = a_model(node, tensors), sums(tensors)
    assert [len(part) for part in _hashes.parts(right)] != [3000] and sum(_hashes.parts(right), []) == [f"{v}  {k}" for k, v in right.items()]
    with client.load_model("summed", p, hashes=right) as m:
        assert m.verified and m.tensor("blocks.2999.weight", "numpy").tolist() == [183, 11]
    with pytest.raises(isobar.InvalidModel) as e:
        client.load_model("summed", p, hashes={**right, "blocks.2999.weight": sums()["one"]})
    assert e.value.details["tensor"] == "blocks.2999.weight"
    while client.models()[0]["readers"]:  # it is let go of in the background
        pass
    assert client.unload_model("summed")["unloaded"]


@pytest.mark.parametrize("same", [True, False])
def test_what_was_evicted_in_between_is_compared_again(
    client: isobar.Client, path: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    """Between the answer and the mapping the model is unloaded; what comes in its place may be another."""
    inner, asked = client._inner, []
    mapping, do = inner._map, inner._abandoned.do

    async def late(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(inner, "_map", mapping)
        raise isobar.NodeError("STALE_HANDLE", "it was unloaded")

    async def listening(action: str, data: dict[str, Any], *rest: Any) -> dict[str, Any]:
        asked.append(data)
        other = {} if same or len(asked) == 1 else {"hashes": ["0" * 64 + "  one"]}
        return await do(action, {**data, **other}, *rest)

    monkeypatch.setattr(inner, "_map", late)
    monkeypatch.setattr(inner._abandoned, "do", listening)
    if same:
        with client.load_model("summed", path, hashes=sums()) as m:
            assert m.verified
    else:
        with pytest.raises(isobar.InvalidModel):
            client.load_model("summed", path, hashes=sums())
    assert len(asked) == 2 and asked[1] == {"name": "summed", "device_id": "ram-0", "verify": None, "hashes": asked[0]["hashes"]}


def test_an_offered_file(client: isobar.Client, path: Path, tmp_path: Path) -> None:
    outside = tmp_path / "mine.safetensors"
    outside.write_bytes(path.read_bytes())
    with client.allocate(MiB):  # a session, so that the socket is known
        with client.load_model("mine", outside, offer=True, verify=True) as m:
            assert m.verified
            with pytest.raises(isobar.InvalidModel) as e:  # there is no file that the node could open
                client.load_model("mine", verify=True)
            assert e.value.code == "FILE_NOT_READABLE"
            with client.load_model("mine", hashes=sums()) as same:
                assert same.verified


def test_asyncio(node: Node, path: Path) -> None:
    async def work() -> None:
        async with isobar.aio.connect(node.url, connect_timeout=PATIENCE) as c:
            async with c.load_model("summed", path, hashes=sums(), verify=True) as m:
                assert m.verified
            with pytest.raises(isobar.InvalidModel) as e:
                await c.load_model("summed", path, hashes={"one": "0" * 64})
            assert e.value.details["tensor"] == "one"

    asyncio.run(work())
