"""Buffers and models on a GPU: a real node on the fake driver."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import gc
import hashlib
import importlib.util
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gpu
import numpy
import pytest
from conftest import PATIENCE, MiB, Node, python, wait_for, write_safetensors

import isobar

has_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed: what the client does with it is not tested"
)


@pytest.fixture
def connected(gpu_node: Node, driver: gpu.Fake) -> Iterator[isobar.Client]:
    """A client on that node; in the end this process has nothing of the GPU any more."""
    with gpu_node.connect() as c:
        yield c
    gc.collect()
    assert driver.live() == (0, 0)


def a_model(node: Node, name: str = "big", mib: int = 16) -> Path:
    p = node.models / f"{name}.safetensors"
    write_safetensors(p, {
        "weight": ("F32", [mib, MiB // 4], numpy.arange(mib * MiB // 4, dtype="f4").tobytes()),
        "bias": ("F32", [mib], numpy.ones(mib, dtype="f4").tobytes()),
    })  # fmt: skip
    return p


def granted(c: isobar.Client, device: str = "gpu-0") -> list[dict[str, object]]:
    return list(c.call("get_allocations", {"device_id": device})["allocations"])


SECOND = """
import sys, isobar
url, allocation = sys.argv[1:]
with isobar.connect(url, connect_timeout=60) as c, c.attach(allocation, "rw") as b:
    assert bytes(b.memory[:5]) == b"hello", bytes(b.memory[:5])
    b.memory[5:11] = b" world"
    print(b.device_id)
"""


def test_processes_share_a_buffer(connected: isobar.Client, gpu_node: Node) -> None:
    with connected.allocate(3 * MiB + 5, device="gpu-1", purpose="a test") as b:
        assert b.size_bytes == 3 * MiB + 5 and b.device_id == "gpu-1" and b.writable and b.memory.nbytes == len(b)
        b.memory[:5] = b"hello"
        assert python(SECOND, gpu_node.url, b.allocation_id) == "gpu-1\n"
        assert bytes(b.memory[:11]) == b"hello world"
        b.numpy("float32", (2, 4))[:] = 1.5
        gc.collect()
    assert b.closed and not b.lingering and granted(connected, "gpu-1") == []


def test_a_model(connected: isobar.Client, gpu_node: Node) -> None:
    path = a_model(gpu_node)
    with connected.load_model("big", path, device="gpu-0", keep_warm=False) as m:
        t = m.tensors("numpy")
        assert m.device_id == "gpu-0" and t["weight"].shape == (16, MiB // 4) and not t["weight"].flags.writeable
        assert float(t["weight"][3, 1]) == 3 * MiB / 4 + 1 and t["bias"].sum() == 16
        with connected.load_model("big", device="gpu-0", verify=True) as same:
            assert same.allocation_id == m.allocation_id and float(same.tensor("bias", "numpy")[0]) == 1
            gc.collect()
        with pytest.raises(isobar.InUse):
            connected.unload_model("big", device="gpu-0")
    assert t == {} and not m.lingering
    assert connected.unload_model("big", device="gpu-0", to="ram")["unloaded"]
    with connected.load_model("big", device="ram-0") as warm:
        assert float(warm.tensor("weight", "numpy")[3, 1]) == 3 * MiB / 4 + 1


def test_writing_to_weights_is_found(connected: isobar.Client, gpu_node: Node) -> None:
    """Where it is done behind the client's back."""
    path = a_model(gpu_node)
    right = {"bias": hashlib.sha256(numpy.ones(16, dtype="f4")).digest()}
    with connected.load_model("big", path, device="gpu-0", keep_warm=False, hashes=right, verify=True) as m:
        assert m.verified
        t = m.tensor("bias", "numpy")
        address, libc = t.ctypes.data, ctypes.CDLL(None)
        assert libc.mprotect(ctypes.c_void_p(address & -4096), ctypes.c_size_t(4096), 3) == 0
        ctypes.memset(address, 7, 4)
        for check in ({"verify": True}, {"hashes": right}):
            with pytest.raises(isobar.InvalidModel, match="written there") as e:
                connected.load_model("big", device="gpu-0", **check)  # type: ignore[arg-type]
            assert e.value.details.items() >= {"device_id": "gpu-0", "tensor": "bias"}.items()
        del t
    assert connected.unload_model("big")["unloaded"]
    with connected.load_model("big", path, device="gpu-0", keep_warm=False, verify=True) as m:
        assert m.verified


def test_views_that_live_keep_the_memory(connected: isobar.Client) -> None:
    with connected.events("memory.events.allocation.>") as events:
        b = connected.allocate(MiB, device="gpu-0")
        part = b.numpy()[:4]
        part[:] = 9
        assert not b.close() and b.lingering and part.tolist() == [9, 9, 9, 9]
        (grant,) = granted(connected)
        assert grant["status"] == "active" and grant["mapped_by"][0]["pid"] == os.getpid()  # type: ignore[index]
        del part
        gc.collect()
        wait_for(events, "deallocated", b.allocation_id)
    assert not b.lingering


def test_closing_waits_for_the_gpu(connected: isobar.Client, driver: gpu.Fake) -> None:
    b = connected.allocate(MiB, device="gpu-0")
    driver.hold("cuCtxSynchronize", True)
    with connected.events("memory.events.allocation.>") as events:
        done: queue.Queue[bool] = queue.Queue()
        closing = connected._inner.call("get_pressure")  # anything that runs on the loop while it waits
        subscription = connected.on_resume(lambda _: None)
        connected._thread._loop.call_soon_threadsafe(
            lambda: asyncio.ensure_future(b._inner.close()).add_done_callback(lambda f: done.put(f.result()))
        )
        assert connected._thread.run(closing)["devices"] and done.empty() and b.lingering
        assert granted(connected)[0]["status"] == "active"
        driver.hold("cuCtxSynchronize", False)
        assert done.get(timeout=PATIENCE) is True
        wait_for(events, "deallocated", b.allocation_id)
        subscription.close()


def test_a_client_that_is_closed_says_so(gpu_node: Node, connected: isobar.Client) -> None:
    """The node hears of what was unmapped while the session lives: else it would count the bytes until the process ends."""
    with connected.events("memory.events.allocation.>") as events:
        c = gpu_node.connect()
        b, kept = c.allocate(MiB, device="gpu-0"), c.allocate(MiB, device="gpu-0", persistent=True)
        model = c.load_model("big", a_model(gpu_node), device="gpu-0")
        weights = model.tensors("numpy")
        c.close()
        assert weights == {}
        wait_for(events, "deallocated", b.allocation_id)
    assert {a["allocation_id"]: a["mapped_by"] for a in granted(connected)} == {kept.allocation_id: [], model.allocation_id: []}


def test_revocation(connected: isobar.Client, gpu_node: Node) -> None:
    model = connected.load_model("big", a_model(gpu_node), device="gpu-0")
    weights = model.tensors("numpy")
    usable: queue.Queue[bool] = queue.Queue()
    with gpu_node.connect() as other, connected.on_revoke(lambda r: usable.put(float(weights["weight"][0, 1]) == 1)):
        done = other.unload_model("big", device="gpu-0", force=True, deadline=PATIENCE)
        assert done["confirmed"] and done["zombie_bytes"] == 0 and usable.get(timeout=PATIENCE)
    assert weights == {} and model.closed and not model.lingering
    with pytest.raises(isobar.Revoked, match="big"):
        model.tensors("numpy")


def test_revocation_waits_for_views(connected: isobar.Client, gpu_node: Node) -> None:
    with gpu_node.connect() as other, other.events("memory.events.allocation.>") as events:
        b = connected.allocate(8 * MiB, device="gpu-0")
        view = b.numpy()
        view[:] = 3
        done = other.deallocate(b.allocation_id, force=True, deadline=0.001)
        assert not done["confirmed"] and done["zombie_bytes"] == 8 * MiB
        (grant,) = granted(other)
        assert grant["status"] == "zombie" and [m["pid"] for m in grant["mapped_by"]] == [os.getpid()]  # type: ignore[union-attr, attr-defined]
        connected.status()
        assert b.lingering and int(view[-1]) == 3
        del view
        gc.collect()
        wait_for(events, "confirmed", b.allocation_id)


def test_revoked_while_it_is_mapped(connected: isobar.Client, gpu_node: Node, driver: gpu.Fake) -> None:
    """What the node takes back in the moment in which it is being mapped is unmapped before the node hears that it is."""
    with gpu_node.connect() as other, other.events("memory.events.allocation.>") as events:
        b, mapping = _being_mapped(connected, other, driver)
        done = other.deallocate(b.allocation_id, force=True, deadline=0.001)
        assert not done["confirmed"] and driver.live()[0] >= 1
        while not b._inner._grant.gone.is_set():
            connected.status()
        connected.status()  # the loop has dealt with the revocation, as far as it can
        assert other.call("get_allocation", {"allocation_id": b.allocation_id})["allocation"]["status"] == "zombie"
        driver.hold("cuMemMap", False)
        wait_for(events, "confirmed", b.allocation_id)
        assert driver.live() == (0, 0)
        late = mapping.result(PATIENCE)
        with pytest.raises(isobar.Closed):
            late.memory  # noqa: B018


def _being_mapped(
    connected: isobar.Client, other: isobar.Client, driver: gpu.Fake
) -> tuple[isobar.Buffer, concurrent.futures.Future[isobar.aio.Buffer]]:
    """A grant of other that connected is mapping, and goes on mapping until the driver is let go on."""
    b = other.allocate(2 * MiB, device="gpu-0")
    connected.allocate(MiB, device="gpu-0").close()  # there is a session
    driver.hold("cuMemMap", True)
    mapping = asyncio.run_coroutine_threadsafe(_attached(connected, b.allocation_id), connected._thread._loop)
    while not _opening(connected):
        connected.status()
    driver.await_held("cuMemMap", 1)
    return b, mapping


async def _attached(c: isobar.Client, allocation_id: str) -> isobar.aio.Buffer:
    return await c._inner.attach(allocation_id)


def _opening(c: isobar.Client) -> bool:
    (session,) = c._inner._sessions.values()
    return bool(session._opening)


def test_cancelled_while_it_is_mapped(connected: isobar.Client, gpu_node: Node, driver: gpu.Fake) -> None:
    with gpu_node.connect() as other:
        b, mapping = _being_mapped(connected, other, driver)
        mapping.cancel()
        connected.status()
        driver.hold("cuMemMap", False)
        while len(other.call("get_allocation", {"allocation_id": b.allocation_id})["allocation"]["mapped_by"]) > 1:
            connected.status()
        assert driver.live() == (1, 1) and b.close()  # without force: nobody else maps it


@pytest.mark.parametrize("call", ["cuMemImportFromShareableHandle", "cuMemMap", "cuMemSetAccess", "cuMemAddressReserve"])
def test_what_cannot_be_mapped_is_given_back(connected: isobar.Client, driver: gpu.Fake, gpu_node: Node, call: str) -> None:
    connected.allocate(MiB, device="gpu-0").close()
    driver.fail(call, 1, gpu.OUT_OF_MEMORY)
    with pytest.raises(isobar.CUDAOutOfMemory, match=call):
        connected.allocate(MiB, device="gpu-0")
    driver.fail(call, 1, 304)
    with pytest.raises(isobar.CUDAError, match=call):
        connected.load_model("big", a_model(gpu_node), device="gpu-0")
    # It is let go of in the background.
    while connected.call("get_model_info", {"name": "big"})["models"][0]["readers"] or len(granted(connected)) > 1:
        pass
    assert [(a["class"], a["mapped_by"]) for a in granted(connected)] == [("weights", [])]
    assert connected.unload_model("big", device="gpu-0")["confirmed"]


WITHOUT = """
import os, sys, isobar
os.environ["ISOBAR_CUDA_LIBRARY"] = "/nowhere/libcuda.so.1"
with isobar.connect(sys.argv[1], connect_timeout=60) as c:
    try:
        c.allocate(1 << 20, device="gpu-0")
    except isobar.UnsupportedMemory as e:
        print(e)
    with c.allocate(1 << 20, device="ram-0") as b:
        b.memory[0] = 1
"""


def test_a_process_without_a_driver(connected: isobar.Client, gpu_node: Node) -> None:
    """It is told what is missing, has nothing of the GPU, and RAM as ever."""
    assert "install NVIDIA's driver" in python(WITHOUT, gpu_node.url)
    while granted(connected):  # it is given back in the background, or with the process
        pass


HOLDING = """
import sys, isobar
c = isobar.connect(sys.argv[1], connect_timeout=60)
b = c.allocate(8 << 20, device="gpu-0")
view = b.numpy()
view[:] = 1
print(b.allocation_id, flush=True)
sys.stdin.read()
"""


def test_a_consumer_is_killed(connected: isobar.Client, gpu_node: Node) -> None:
    with connected.events("memory.events.allocation.>") as events:
        other = subprocess.Popen(
            [sys.executable, "-c", HOLDING, gpu_node.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(isobar.__file__).parents[1])},
        )  # fmt: skip
        assert other.stdin is not None and other.stdout is not None
        allocation = other.stdout.readline().strip()
        other.send_signal(signal.SIGKILL)
        other.wait()
        other.stdin.close()
        other.stdout.close()
        wait_for(events, "deallocated", allocation)
    assert granted(connected) == []


def test_the_node_is_killed(lasting_gpu_node: tuple[Node, gpu.Fake]) -> None:
    """Memory stays while no node runs; the session resumes, and goes on as if nothing had been."""
    node, fake = lasting_gpu_node
    resumed: queue.Queue[isobar.Resumption] = queue.Queue()
    with node.connect(attempts=50) as c:
        b = c.allocate(8 * MiB, device="gpu-0")
        model = c.load_model("big", a_model(node), device="gpu-1")
        view = b.numpy()
        view[:] = 7
        with c.on_resume(resumed.put):
            node.kill()
            assert int(view.sum()) == 7 * 8 * MiB and float(model.tensor("weight", "numpy")[1, 0]) == MiB / 4
            view[:] = 8
            node.start()
            r = resumed.get(timeout=PATIENCE)
        assert r.resumed and r.lost == () and r.error is None
        (again,) = granted(c)
        assert again["status"] == "active" and [m["pid"] for m in again["mapped_by"]] == [os.getpid()]  # type: ignore[union-attr, attr-defined]
        assert int(view[0]) == 8
        with c.attach(b.allocation_id) as other:
            assert other.memory[0] == 8
            gc.collect()
        del view
        gc.collect()
        assert b.close() and model.close()
        c.unload_model("big")
        assert c.call("get_allocations")["allocations"] == []
    assert fake.live() == (0, 0)


def test_the_node_is_killed_while_memory_is_mapped(lasting_gpu_node: tuple[Node, gpu.Fake]) -> None:
    """What a claim has brought is held, though its mapping is not done."""
    node, fake = lasting_gpu_node
    resumed: queue.Queue[isobar.Resumption] = queue.Queue()
    with node.connect(attempts=50) as c, node.connect(attempts=50) as other:
        b = other.allocate(2 * MiB, device="gpu-0")
        c.allocate(MiB, device="gpu-0").close()  # there is a session
        fake.hold("cuMemMap", True)
        mapping = asyncio.run_coroutine_threadsafe(_attached(c, b.allocation_id), c._thread._loop)
        while not _opening(c):
            c.status()
        fake.await_held("cuMemMap", 1)
        with c.on_resume(resumed.put):
            node.kill()
            node.start()
            r = resumed.get(timeout=PATIENCE)
        assert r.resumed and r.lost == ()
        fake.hold("cuMemMap", False)
        late = mapping.result(PATIENCE)
        b.memory[0] = 5
        assert late.memory[0] == 5
        sessions = {m["session_id"] for m in granted(c)[0]["mapped_by"]}  # type: ignore[attr-defined]
        assert r.session_id in sessions and len(sessions) == 2
        gc.collect()


def test_a_forked_child_lets_go(connected: isobar.Client, driver: gpu.Fake) -> None:
    """The child unmaps nothing and says nothing; the parent is not disturbed."""
    b = connected.allocate(MiB, device="gpu-0")
    view = b.numpy()
    view[:3] = (1, 2, 3)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # no test framework from here on
        said = "fine"
        try:
            view[3] = 4
            del view
            gc.collect()
            b.close()
            said = "closed"
        except isobar.Forked:
            pass
        except BaseException as e:
            said = repr(e)
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        assert answer.read() == "fine"
    os.waitpid(pid, 0)
    assert view[3] == 4 and granted(connected)[0]["status"] == "active"
    del view
    gc.collect()
    assert b.close()


def test_pressure_makes_room(connected: isobar.Client, gpu_node: Node) -> None:
    """A program lets go of what it holds when another wants room."""
    model = connected.load_model("big", a_model(gpu_node), device="gpu-0")
    weights = model.tensors("numpy")

    def relieve(p: isobar.Pressure) -> None:
        if p.level >= isobar.PressureLevel.HIGH:
            model.close()

    with connected.on_pressure(relieve, device="gpu-0"), gpu_node.connect() as other:
        room = other.status("gpu-0")["memory_info"]["total_memory"]
        with other.allocate(room - 4 * MiB, device="gpu-0", timeout=PATIENCE):
            assert model.closed and weights == {}


def test_asyncio(gpu_node: Node, connected: isobar.Client) -> None:
    async def run() -> None:
        async with isobar.aio.connect(gpu_node.url, connect_timeout=PATIENCE) as c:
            b = await c.allocate(MiB, device="gpu-0")
            many = await asyncio.gather(*(c.attach(b.allocation_id) for _ in range(8)))
            b.memory[0] = 5
            assert all(m.memory[0] == 5 for m in many)
            gc.collect()
            await asyncio.gather(*(m.close() for m in many))
            assert await b.close()

    asyncio.run(run())


@has_torch
def test_load_into(connected: isobar.Client, gpu_node: Node) -> None:
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(8, 4)
            self.norm = torch.nn.BatchNorm1d(4)
            self.register_buffer("scale", torch.tensor(2.0), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.linear(x)) * self.scale

    torch.manual_seed(1)
    plain = Net().eval()
    x = torch.randn(5, 8)
    want = plain(x)
    path = gpu_node.models / "net.safetensors"
    spelled = {torch.float32: "F32", torch.int64: "I64"}
    write_safetensors(path, {k: (spelled[v.dtype], list(v.shape), v.numpy().tobytes()) for k, v in plain.state_dict().items()})
    with connected.load_model("net", path, device="gpu-0") as m:
        net = m.load_into(Net().eval())
        t = m.tensors()
        assert torch.equal(net(x), want)
        assert net.linear.weight.data_ptr() == t["linear.weight"].data_ptr()
        # What modules write to is their own.
        assert net.norm.running_mean.data_ptr() != t["norm.running_mean"].data_ptr()
        net.train()(x)
        assert torch.equal(t["norm.running_mean"], plain.norm.running_mean)
        shared = m.load_into(Net().eval(), share_buffers=True)
        assert shared.norm.running_mean.data_ptr() == t["norm.running_mean"].data_ptr()
    assert not m.lingering and net.linear.weight.is_meta and shared.norm.running_mean.is_meta
    with connected.allocate(MiB, device="gpu-0") as b:
        cache = b.torch("bfloat16", (4, 8))
        cache[:] = 2
        assert float(cache.sum()) == 64 and b.torch("float8_e4m3fn").numel() == MiB
        del cache
