"""Buffers: allocated, mapped, shared, given back."""

from __future__ import annotations

import asyncio
import gc
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy
import pytest
from conftest import PATIENCE, MiB, Node, python, wait_for

import isobar
from isobar import _memory


def used(client: isobar.Client) -> int:
    """What is granted on the device."""
    return sum(a["granted_bytes"] for a in client.call("get_allocations")["allocations"])


def mapped() -> int:
    """How many mappings of the node's memory this process has."""
    gc.collect()  # the errors of other tests hold their frames, and views in them
    return sum("memfd:" in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_grants_are_listed(client: isobar.Client) -> None:
    with client.allocate(MiB, purpose="one"), client.allocate(2 * MiB, purpose="other") as other:
        assert [a["purpose"] for a in client.allocations(device="ram-0")] in (["one", "other"], ["other", "one"])
        assert [a["allocation_id"] for a in client.allocations(purpose="other")] == [other.allocation_id]
        assert client.allocations(model="none") == client.allocations(status="queued") == []
        many = [client.call("allocate", {"size_bytes": 4096})["allocation"]["allocation_id"] for _ in range(101)]
        assert {a["allocation_id"] for a in client.allocations()} > set(many)  # more than fit on a page
        for allocation_id in many:
            client.deallocate(allocation_id)


def test_a_lease_is_renewed(client: isobar.Client) -> None:
    def left() -> list[int]:
        now = datetime.now(UTC)
        return [round((datetime.fromisoformat(a["lease_expires_at"]) - now).total_seconds()) // 1000 for a in client.allocations()]

    with client.allocate(MiB, lease=2500) as first, client.allocate(MiB, lease=2500) as second:
        assert left() == [2, 2]
        client.renew(first.allocation_id, second.allocation_id, lease=9500)
        assert left() == [9, 9]
        with pytest.raises(isobar.NotFound):
            client.renew("00000000-0000-4000-8000-000000000000", lease=1)
    for b in (first, second):
        client.deallocate(b.allocation_id)


def test_a_buffer_is_memory(client: isobar.Client) -> None:
    with client.allocate(3 * MiB + 5, purpose="a test") as b:
        assert len(b) == b.size_bytes == 3 * MiB + 5 and b.device_id == "ram-0" and b.writable
        assert b.allocation["purpose"] == "a test"
        m = b.memory
        assert m.nbytes == len(b) and not m.readonly and bytes(m[-5:]) == bytes(5)
        m[:5] = b"hello"
        a = b.numpy()
        assert bytes(a[:5]) == b"hello"
        b.numpy("float32", (2, 4))[:] = 1.5  # a part of it
        assert float(numpy.frombuffer(m[28:32], dtype="f4")[0]) == 1.5
        m.release()
        del a
    assert b.closed and not b.lingering
    assert used(client) == 0 and mapped() == 0


def test_sizes_are_whole_numbers_of_any_kind(client: isobar.Client) -> None:
    with client.allocate(numpy.prod([1024, 1024])) as b:  # an int64 of numpy's
        assert len(b) == MiB
    for size in ("1MiB", 1.5e6):
        with pytest.raises(TypeError, match="integer"):
            client.allocate(size)  # type: ignore[arg-type]


SECOND = """
import sys, isobar
url, allocation = sys.argv[1:]
with isobar.connect(url, connect_timeout=60) as c, c.attach(allocation, "rw") as b:
    assert bytes(b.memory[:5]) == b"hello", bytes(b.memory[:5])
    b.memory[5:11] = b" world"
    print(b)
"""


def test_a_second_process_sees_it(client: isobar.Client, node: Node) -> None:
    with client.allocate(MiB) as b:
        b.memory[:5] = b"hello"
        assert b.allocation_id in python(SECOND, node.url, b.allocation_id)
        assert bytes(b.memory[:11]) == b"hello world"


def test_read_only_is_read_only(client: isobar.Client) -> None:
    with client.allocate(MiB) as b, client.attach(b.allocation_id) as r:
        b.memory[0] = 7
        assert r.memory[0] == 7 and r.memory.readonly and not r.numpy().flags.writeable and not r.writable
        # Others map it: to give it back is refused, and takes force.
        r2 = client.attach(b.allocation_id)
        assert r2.close()
        r.close()


def test_views_that_live_keep_the_memory(client: isobar.Client) -> None:
    with client.events("memory.events.allocation.>") as events:
        b = client.allocate(MiB)
        part = b.numpy()[:4]
        part[:] = 9
        assert not b.close() and b.lingering
        with pytest.raises(isobar.Closed):
            b.memory  # noqa: B018
        assert part.tolist() == [9, 9, 9, 9] and mapped() == 1
        # It is no lie: the node counts the bytes as this process's.
        grant = client.call("get_allocation", {"allocation_id": b.allocation_id})["allocation"]
        assert grant["status"] == "active" and grant["mapped_by"][0]["pid"] == os.getpid()
        del part
        gc.collect()
        assert mapped() == 0
        wait_for(events, "deallocated", b.allocation_id)
    assert not b.lingering and used(client) == 0


def test_opened_again_while_views_live(client: isobar.Client) -> None:
    a = client.allocate(MiB, persistent=True)
    a.memory[0] = 1
    part = a.numpy()[:1]
    assert not a.close()
    with client.attach(a.allocation_id, "rw") as b:
        b.memory[0] = 2
        assert part[0] == 2
        del part
        client.status()  # the loop has heard of it, and said nothing to the node
        owners = client.call("get_allocation", {"allocation_id": a.allocation_id})["allocation"]["mapped_by"]
        assert [m["mode"] for m in owners] == ["rw"]
    assert client.call("get_allocation", {"allocation_id": a.allocation_id})["allocation"]["mapped_by"] == []


def test_a_grant_ends_with_its_session(node: Node) -> None:
    with node.connect() as watching, watching.events("memory.events.allocation.>") as events:
        c = node.connect()
        first, second = c.allocate(MiB), c.allocate(MiB)
        kept = c.allocate(MiB, persistent=True)
        assert second.allocation["owner"]["session_id"]
        c.close()
        wait_for(events, "deallocated", first.allocation_id, second.allocation_id)
        left = watching.call("get_allocations")["allocations"]
        assert [a["allocation_id"] for a in left] == [kept.allocation_id]


def test_no_descriptors_stay_open(client: isobar.Client) -> None:
    client.allocate(MiB).close()
    before = len(os.listdir("/proc/self/fd"))
    buffers = [client.allocate(MiB) for _ in range(5)]
    assert len(os.listdir("/proc/self/fd")) <= before  # what others left may be closed meanwhile
    for b in buffers:
        b.close()


def segment(content: bytes, offset: int, size: int) -> _memory.Segment:
    fd = os.memfd_create("test")
    os.write(fd, content)
    return _memory.Segment(fd, len(content), offset, size)


def test_segments_lie_one_after_the_other(tmp_path: Path) -> None:
    """The bytes of several segments are one range, each from where it begins in its file."""
    page = os.sysconf("SC_PAGESIZE")
    r = _memory.RAM([segment(b"a" * page + b"b" * page, page, page), segment(b"c" * 10, 0, 10)], writable=True, private=False)
    assert bytes(r.memory()) == b"b" * page + b"c" * 10
    assert r.drop(lambda _: None) is _memory.Dropped.GONE and not r.open
    odd = _memory.RAM([segment(b"x" * page + b"0123456789", page + 3, 4)], writable=False, private=False)
    assert bytes(odd.memory()) == b"3456" and odd.memory().readonly
    apart = _memory.RAM([segment(b"a" * 10, 2, 5), segment(b"b" * 10, 0, 10)], writable=False, private=False)
    with pytest.raises(isobar.UnsupportedMemory):
        apart.memory()
    with pytest.raises(isobar.ProtocolError, match="shorter"):
        _memory.RAM([segment(b"a", 0, 2)], writable=False, private=False)


def test_asyncio(node: Node) -> None:
    async def run() -> None:
        async with isobar.aio.connect(node.url, connect_timeout=PATIENCE) as c:
            b = await c.allocate(MiB)
            many = await asyncio.gather(*(c.attach(b.allocation_id) for _ in range(8)))
            b.memory[0] = 5
            assert all(m.memory[0] == 5 for m in many)
            await asyncio.gather(*(m.close() for m in many))
            assert await b.close()

    asyncio.run(run())


def test_tensors_lie_within_their_segments() -> None:
    page = os.sysconf("SC_PAGESIZE")
    r = _memory.RAM([segment(b"a" * page + b"b" * page, page, page), segment(bytes(range(16)), 4, 8)], writable=False, private=True)
    good = ("good", "U16", (2, 2), 1, 0, 8)
    made = r.tensors([good, ("last", "U8", (8,), 0, page - 8, 8), good, ("none", "F32", (0, 3), 1, 8, 0), ("blocks", "GGUF_Q4_0", (32,), 0, 0, 18)], "numpy", True)
    assert [t.tobytes() for t in made] == [bytes(range(4, 12)), b"b" * 8, bytes(range(4, 12)), b"", b"b" * 18]
    assert [t.shape for t in made] == [(2, 2), (8,), (2, 2), (0, 3), (18,)] and not any(t.flags.writeable for t in made[:3])
    for bad in (("s", "U8", (1,), 2, 0, 1), ("s", "U8", (1,), -1, 0, 1), ("o", "U8", (2,), 1, 7, 2), ("o", "U8", (1,), 1, -1, 1), ("b", "U16", (2, 2), 1, 0, 7)):
        with pytest.raises(isobar.ProtocolError):
            r.tensors([good, bad], "numpy", True)
