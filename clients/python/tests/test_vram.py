"""Memory of a GPU, on a fake one: mapped, shown, kept while it is used, and what can go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import os
import queue
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gpu
import numpy
import pytest
from conftest import PATIENCE, MiB
from numpytorch import Torch

import isobar
from isobar import _cuda, _memory, _vram
from isobar._arrays import TensorInfo
from isobar._memory import Dropped, Mapped, Segment

has_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed: what the client does with it is not tested"
)


@pytest.fixture
def fake(fake_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[gpu.Fake]:
    """A driver of the test's own with two GPUs; in the end nothing of it may be left."""
    path = tmp_path / "fake.so"  # under a name of its own it is another driver
    shutil.copy(fake_library, path)
    monkeypatch.setenv("ISOBAR_CUDA_LIBRARY", str(path))
    monkeypatch.setenv("ISOBAR_FAKE_CUDA_VIEWS", "host")
    f = gpu.Fake(path, devices=2)
    yield f
    gc.collect()
    assert f.live() == (0, 0)


def segment(f: gpu.Fake, size: int = 2 * MiB, offset: int = 0, used: int = 0, ordinal: int = 0) -> Segment:
    return Segment(f.make(size, ordinal), size, offset, used or size - offset)


def opened(f: gpu.Fake, *segments: Segment, writable: bool = True, ordinal: int = 0) -> _vram.VRAM:
    async def work() -> _vram.VRAM:
        await _memory.prepare("cuda_vmm")
        r = await _memory.open_region("cuda_vmm", Mapped(list(segments), writable, False, f.uuid(ordinal)))
        assert isinstance(r, _vram.VRAM)
        return r

    return asyncio.run(work())


class Ending:
    """Drops a region, and waits until it is unmapped."""

    def __init__(self, region: _vram.VRAM) -> None:
        self._told: queue.Queue[Exception | None] = queue.Queue()
        self.state = region.drop(self._told.put)

    def wait(self) -> Exception | None:
        return self._told.get(timeout=PATIENCE)

    @property
    def over(self) -> bool:
        return not self._told.empty()


def settled(r: _vram.VRAM) -> _vram.VRAM:
    """With a region of which all but the mapping is let go."""
    r._gpu.reaper.submit(lambda: None).result(PATIENCE)
    return r


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_segments_lie_one_after_the_other(fake: gpu.Fake) -> None:
    r = settled(opened(fake, segment(fake), segment(fake, 4 * MiB, used=3 * MiB)))
    before = files()
    m = r.memory()
    assert m.nbytes == 5 * MiB and not m.readonly and not r.proved
    m[2 * MiB - 1 : 2 * MiB + 1] = b"ab"
    flat = r.array("uint8", None, "numpy")
    assert bytes(flat[2 * MiB - 1 : 2 * MiB + 1]) == b"ab"
    weight = TensorInfo("w", "F32", (4,), 1, 4096, 16)
    (w,) = r.tensors([weight], "numpy", False)
    w[:] = 2.5
    assert m[2 * MiB + 4096 : 2 * MiB + 4112] == numpy.full(4, 2.5, "f4").tobytes()
    for bad in (TensorInfo("w", "F32", (4,), 2, 0, 16), TensorInfo("w", "F32", (4,), 1, 3 * MiB - 8, 16), TensorInfo("w", "U8", (0,), 0, -1, 0)):
        with pytest.raises(isobar.ProtocolError):
            r.tensors([bad], "numpy", False)
    m.release()
    end = Ending(r)
    assert end.state is Dropped.VIEWED and not r.open and not end.over and fake.live() == (2, 1)
    with pytest.raises(isobar.Closed):
        r.memory()
    assert float(w[0]) == 2.5
    del flat
    assert not end.over
    del w
    gc.collect()
    assert end.wait() is None and fake.live() == (0, 0) and files() == before - 2  # which the fake driver had


def test_the_wait_for_the_driver_is_used(fake: gpu.Fake) -> None:
    async def work() -> _vram.VRAM:
        await _memory.prepare("cuda_vmm")
        called = asyncio.Event()
        fake.hold("cuMemSetAccess", True)
        try:
            opening = asyncio.ensure_future(_memory.open_region("cuda_vmm", Mapped([segment(fake)], False, False, fake.uuid()), called.set))
            await asyncio.wait_for(called.wait(), PATIENCE)
            assert not opening.done()
        finally:
            fake.hold("cuMemSetAccess", False)
        r = await opening
        assert isinstance(r, _vram.VRAM)
        return r

    assert Ending(asyncio.run(work())).wait() is None


def test_no_descriptor_stays_open(fake: gpu.Fake) -> None:
    assert Ending(opened(fake, segment(fake))).wait() is None
    mine = [segment(fake) for _ in range(3)]
    before = files()
    r = settled(opened(fake, *mine))
    # The fake keeps one of its own for each memory, in place of the one that came.
    assert files() == before
    assert Ending(r).wait() is None


def test_weights_cannot_be_written(fake: gpu.Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    r = opened(fake, segment(fake), writable=False)
    assert r.memory().readonly and not r.array("uint8", None, "numpy").flags.writeable
    before = bytes(r.memory()[:8])
    # The GPU itself may not write either: work that does ends the context.
    fake.enter()
    stream = gpu.ctypes.c_void_p()
    fake.ok(fake.lib.cuStreamCreate(gpu.ctypes.byref(stream), 1))
    fake.ok(fake.lib.cuMemsetD8Async(gpu.ctypes.c_uint64(r._range.address), 1, gpu.ctypes.c_size_t(8), stream))
    assert fake.lib.cuStreamSynchronize(stream) == gpu.ILLEGAL_ADDRESS
    assert bytes(r.memory()[:8]) == before != bytes([1] * 8)
    gc.collect()
    # Nothing can be unmapped by this process any more, and it says so.
    e = Ending(r).wait()
    assert isinstance(e, isobar.CUDAError) and e.sticky and "start it anew" in str(e)
    monkeypatch.setattr(fake, "live", lambda: (0, 0))


def test_only_a_fake_gpu_is_main_memory(fake: gpu.Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ISOBAR_FAKE_CUDA_VIEWS")
    r = opened(fake, segment(fake))
    assert r.framework == "torch"
    for use in (r.memory, lambda: r.array("uint8", None, "numpy"), lambda: r.tensors([TensorInfo("w", "U8", (4,), 0, 0, 4)], "numpy", False)):
        with pytest.raises(isobar.UnsupportedMemory, match="as torch tensors"):
            use()
    assert Ending(r).wait() is None


def test_it_waits_for_the_gpus_work(fake: gpu.Fake) -> None:
    r = opened(fake, segment(fake))
    fake.hold("cuCtxSynchronize", True)
    end = Ending(r)
    assert end.state is Dropped.GOING
    again = opened(fake, segment(fake))  # which holds up nothing else
    assert not end.over and fake.live() == (2, 2)
    fake.hold("cuCtxSynchronize", False)
    assert end.wait() is None
    assert Ending(again).wait() is None


def many(f: gpu.Fake, n: int = 20) -> list[Segment]:
    """Segments of which each begins with its number."""
    mine = [segment(f) for _ in range(n)]
    for i, s in enumerate(mine):
        os.pwrite(s.fd, bytes([i]), 0)
    return mine


STEPS = ("cuMemAddressReserve", "cuMemImportFromShareableHandle", "cuMemMap", "cuMemSetAccess", "cuMemRelease", "cuMemUnmap", "cuMemAddressFree")


@pytest.mark.parametrize("whole", [True, False])
def test_many_segments_are_one_range(fake: gpu.Fake, whole: bool) -> None:
    """And all but their import and mapping is one call: addresses, access, and the end, where the driver can."""
    mine, before = many(fake), files()
    called = fake.calls(*STEPS)
    r = settled(opened(fake, *mine))
    assert files() == before  # as many as the fake keeps
    m = r.memory()
    assert [m[2 * MiB * i] for i in range(20)] == list(range(20))
    m.release()
    if not whole:
        fake.fail("cuMemUnmap", 1, gpu.INVALID_VALUE)
    gc.collect()
    assert Ending(r).wait() is None
    assert [n - b for n, b in zip(fake.calls(*STEPS), called, strict=True)] == [1, 20, 20, 1, 20, 1 if whole else 21, 1]


def test_handles_are_released_in_a_quiet_moment(fake: gpu.Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda, "_QUIET", 0.0)
    mine = [segment(fake) for _ in range(2)]
    fake.hold("cuMemRelease", True)
    r = opened(fake, *mine)
    fake.await_held("cuMemRelease", 1)
    fake.hold("cuMemRelease", False)
    assert Ending(r).wait() is None


def test_a_handle_that_is_not_released_is_at_the_end(fake: gpu.Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(_cuda, "_QUIET", PATIENCE)
    r = opened(fake, segment(fake), segment(fake))
    fake.fail("cuMemRelease", 1, 304)
    r._gpu.reaper.submit(r._range._rest).result(PATIENCE)
    assert "cuMemRelease" in caplog.text
    assert Ending(r).wait() is None


def test_descriptors_are_closed_wherever_they_lie(fake: gpu.Fake) -> None:
    before = files()
    mine = [os.open(os.devnull, os.O_RDONLY) for _ in range(9)]
    kept = mine.pop(4)
    _cuda._close_all(mine)
    assert mine == [] and files() == before + 1
    os.close(kept)


@pytest.mark.parametrize("call, nth", [
    ("cuMemImportFromShareableHandle", 7), ("cuMemImportFromShareableHandle", 8), ("cuMemMap", 1), ("cuMemMap", 20), ("cuMemSetAccess", 1),
])  # fmt: skip
def test_many_or_nothing(fake: gpu.Fake, call: str, nth: int) -> None:
    assert Ending(opened(fake, segment(fake))).wait() is None
    before = files()
    mine = many(fake)
    fake.fail(call, nth, 304)
    with pytest.raises(isobar.CUDAError, match=call):
        opened(fake, *mine)
    assert fake.live() == (0, 0) and files() == before


@pytest.mark.parametrize("call, nth", [
    ("cuMemAddressReserve", 1), ("cuMemImportFromShareableHandle", 1), ("cuMemImportFromShareableHandle", 3), ("cuMemMap", 1),
    ("cuMemMap", 3), ("cuMemSetAccess", 1),
])  # fmt: skip
@pytest.mark.parametrize("code", [gpu.OUT_OF_MEMORY, 304])
def test_all_or_nothing(fake: gpu.Fake, call: str, nth: int, code: int) -> None:
    assert Ending(opened(fake, segment(fake))).wait() is None  # the driver is started
    before = files()
    mine = [segment(fake) for _ in range(3)]
    fake.fail(call, nth, code)
    with pytest.raises(isobar.CUDAError, match=call) as e:
        opened(fake, *mine)
    assert e.value.code == code and not e.value.sticky and isinstance(e.value, MemoryError) == (code == gpu.OUT_OF_MEMORY)
    assert fake.live() == (0, 0) and files() == before
    assert Ending(opened(fake, segment(fake))).wait() is None


def test_what_cannot_be_undone_is_told(fake: gpu.Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = [segment(fake) for _ in range(2)]
    fake.fail("cuMemMap", 2)
    fake.fail("cuMemUnmap", 1)
    with pytest.raises(isobar.CUDAError, match="cuMemMap") as e:
        opened(fake, *mine)
    assert ["cuMemUnmap" in n for n in e.value.__notes__] == [True] and fake.live() == (1, 1)
    monkeypatch.setattr(fake, "live", lambda: (0, 0))


def test_without_a_driver(fake: gpu.Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in ("/nowhere/libcuda.so.1", ""):
        monkeypatch.setenv("ISOBAR_CUDA_LIBRARY", path)
        with pytest.raises(isobar.UnsupportedMemory, match="NVIDIA"):
            asyncio.run(_memory.prepare("cuda_vmm"))
    with pytest.raises(isobar.UnsupportedMemory, match="unknown kind"):
        asyncio.run(_memory.prepare("punched_cards"))


def test_the_driver_is_started_ahead(fake: gpu.Fake) -> None:
    fake.hold("cuInit", True)
    try:
        for device in (None, "ram-0", "gpu-host/ram-0"):
            _memory.foresee(device)
        assert not _cuda._drivers.get(str(fake.path)) and fake.calls("cuInit") == [0]
        _memory.foresee("gpu-0")
        _memory.foresee("host/gpu-1")
        fake.await_held("cuInit", 1)
    finally:
        fake.hold("cuInit", False)
    asyncio.run(_memory.prepare("cuda_vmm"))
    assert _cuda.started() and fake.calls("cuInit") == [1]


def test_a_start_ahead_that_fails_is_tried_again(fake: gpu.Fake) -> None:
    fake.fail("cuInit", 1, 803)
    _memory.foresee("gpu-0")
    with contextlib.suppress(isobar.UnsupportedMemory):  # unless it has failed before
        asyncio.run(_memory.prepare("cuda_vmm"))
    asyncio.run(_memory.prepare("cuda_vmm"))
    assert _cuda.started()


def test_a_driver_that_does_not_start(fake: gpu.Fake) -> None:
    fake.fail("cuInit", 1, gpu.NO_DEVICE)
    with pytest.raises(isobar.UnsupportedMemory, match="CUDA_VISIBLE_DEVICES"):
        _cuda.driver()
    fake.fail("cuInit", 1, 803)
    with pytest.raises(isobar.UnsupportedMemory, match="nvidia-smi"):
        _cuda.driver()
    assert _cuda.driver().fake


def test_the_gpu_is_found_by_its_uuid(fake: gpu.Fake) -> None:
    mine = segment(fake, ordinal=1)
    r = opened(fake, mine, ordinal=1)
    assert r._gpu.ordinal == 1 and "GPU 1" in r._gpu.name
    assert Ending(r).wait() is None
    before, s = files(), segment(fake)
    with pytest.raises(isobar.UnsupportedMemory, match="sees " + fake.uuid(0)):
        asyncio.run(_memory.open_region("cuda_vmm", Mapped([s], True, False, "GPU-of-another-host")))
    assert files() == before


def test_a_context_that_cannot_be_made(fake: gpu.Fake) -> None:
    mine = segment(fake)
    fake.fail("cuDevicePrimaryCtxRetain", 1, gpu.OUT_OF_MEMORY)
    with pytest.raises(isobar.CUDAOutOfMemory):
        opened(fake, mine)
    assert Ending(opened(fake, segment(fake))).wait() is None  # the next one succeeds


def test_segments_with_holes_are_refused(fake: gpu.Fake) -> None:
    for pair in ((segment(fake, used=MiB), segment(fake)), (segment(fake), segment(fake, offset=MiB))):
        before = files()
        with pytest.raises(isobar.ProtocolError):
            opened(fake, *pair)
        assert files() == before - 2
    odd = opened(fake, segment(fake, offset=4096, used=8192))
    assert odd.memory().nbytes == 8192
    gc.collect()
    assert Ending(odd).wait() is None


def test_a_forked_child_unmaps_nothing(fake: gpu.Fake) -> None:
    r = opened(fake, segment(fake))
    m = r.memory()
    m[:2] = b"ab"
    answer = in_child(lambda: child(r, m))
    assert answer == "fine"
    assert bytes(m[:3]) == b"abc" and r.open
    m.release()
    assert Ending(r).wait() is None


def child(r: _vram.VRAM, m: memoryview) -> str:
    r.forked()
    m[2:3] = b"c"
    m.release()
    gc.collect()
    try:
        _cuda.driver()
    except isobar.UnsupportedMemory as e:
        return "fine" if "spawn" in str(e) else str(e)
    return "the child has a driver"


def in_child(work: Callable[[], str]) -> str:
    """What work says in a forked child."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # no test framework from here on
        try:
            said = work()
        except BaseException as e:
            said = repr(e)
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    os.waitpid(pid, 0)
    return said


def test_tensors_hold_the_memory(fake: gpu.Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", Torch())
    r = opened(fake, segment(fake, offset=4096), segment(fake, 4 * MiB))
    raw = r.memory()
    raw[:] = bytes(range(256)) * (raw.nbytes // 256)
    rows = [(f"{i}.{dtype}", dtype, shape, i % 2, 4096 * i, 24) for i, (dtype, shape) in enumerate([("F32", (2, 3)), ("U16", (12,)), ("I64", (3, 1)), ("C64", (3,))] * 9)]
    rows += [("scalar", "F64", (), 1, 4 * MiB - 8, 8), ("none", "F32", (0, 3), 0, 0, 0)]
    made = r.tensors(rows, "torch", False)
    assert [t.shape for t in made] == [row[2] for row in rows] and len(r.views) == 1 + len(rows) - 1
    for t, (_, _, _, i, offset, size) in zip(made, rows, strict=True):
        assert t.tobytes() == bytes(raw[i * (2 * MiB - 4096) + offset :][:size])
    raw.release()
    end = Ending(r)
    assert end.state is Dropped.VIEWED
    with pytest.raises(isobar.Closed):
        r.tensors(rows, "torch", False)
    kept = made[3][1:]
    del made, t
    gc.collect()
    assert not end.over and len(r.views) == 1 and kept.shape == (2,)
    del kept
    assert end.wait() is None


def test_tensors_lie_within_the_memory(fake: gpu.Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = Torch()
    monkeypatch.setitem(sys.modules, "torch", torch)
    r = opened(fake, segment(fake, 2 * MiB), segment(fake, 2 * MiB, used=MiB))
    good = ("good", "F32", (4,), 0, 2 * MiB - 16, 16)
    for bad in (
        ("segment", "U8", (4,), 2, 0, 4), ("segment", "U8", (4,), -1, 0, 4), ("fit", "U8", (5,), 1, MiB - 4, 5), ("fit", "U8", (5,), 0, -1, 5),
        ("fit", "U8", (0,), 0, 2 * MiB + 1, 0), ("fit", "U8", (-4,), 0, 8, -4), ("bytes are not", "F32", (4,), 0, 2 * MiB - 16, 12),
        ("bytes are not", "U8", (-2, -8), 0, 16, 16), ("beside", "F32", (4,), 0, 2, 16),
    ):  # fmt: skip
        with pytest.raises(isobar.ProtocolError, match=bad[0]):
            r.tensors([good, good, bad], "torch", False)
    assert torch.taken == 0 and not r.views
    with pytest.raises(isobar.UnsupportedDtype, match="BF16"):
        r.tensors([good, ("w", "BF16", (4,), 0, 0, 8)], "torch", False)
    wide, blocks = r.tensors([("w", "BF16", (4,), 0, 0, 8), ("q", "GGUF_Q4_K", (256,), 1, 0, 144)], "torch", True)
    assert (wide.dtype, wide.shape, blocks.dtype, blocks.shape) == (torch.uint16, (4,), torch.uint8, (144,))
    del wide, blocks
    assert Ending(r).wait() is None


@has_torch
def test_torch(fake: gpu.Fake) -> None:
    import torch

    r = opened(fake, segment(fake), segment(fake))
    assert r.framework == "torch"
    names = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn,
             "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu, "I64": torch.int64, "I32": torch.int32, "I16": torch.int16,
             "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool, "C64": torch.complex64, "U16": torch.uint16, "U32": torch.uint32,
             "U64": torch.uint64}  # fmt: skip
    infos = [TensorInfo(k, k, (2, 3), i % 2, 4096 * i, 6 * t.itemsize) for i, (k, t) in enumerate(names.items())]
    infos += [TensorInfo("scalar", "F32", (), 0, MiB, 4), TensorInfo("none", "F32", (0, 3), 0, MiB, 0)]
    got = dict(zip((i.name for i in infos), r.tensors(infos, "torch", False), strict=True))
    raw = r.memory()
    for i in infos[: len(names)]:
        want = torch.arange(6).reshape(2, 3).to(names[i.dtype])
        t = got[i.name]
        assert t.dtype is names[i.dtype] and t.shape == (2, 3) and t.is_contiguous(), i
        t.copy_(want)
        assert bytes(raw[i.segment * 2 * MiB + i.offset :][: i.size_bytes]) == bytes(want.contiguous().view(torch.uint8).flatten().tolist())
        assert t.untyped_storage().nbytes() == i.size_bytes, i  # its own: saving it saves no more
    assert got["scalar"].shape == () and got["none"].shape == (0, 3)
    raw.release()
    with pytest.raises(isobar.ProtocolError, match="beside"):
        r.tensors([TensorInfo("odd", "F32", (1,), 0, 2, 4)], "torch", False)
    flat = r.array("bfloat16", None, "torch")
    part = flat[5:7].view(torch.int16)
    assert flat.numel() == 2 * MiB and r.array(torch.complex128, (2, 2), "torch").shape == (2, 2)
    got.clear()
    del t, flat
    end = Ending(r)
    assert end.state is Dropped.VIEWED and not end.over
    part[:] = 7
    assert part.tolist() == [7, 7] and fake.live() == (2, 1)
    with pytest.raises(isobar.Closed):
        r.array("uint8", None, "torch")
    del part
    assert end.wait() is None and fake.live() == (0, 0)


ENDING = """
import asyncio, sys
sys.path[:0] = sys.argv[2].split(":")
import gpu, torch
from isobar import _memory
f = gpu.Fake(sys.argv[1])
r = asyncio.run(_memory.open_region("cuda_vmm", _memory.Mapped([_memory.Segment(f.make(1 << 21), 1 << 21, 0, 1 << 21)], True, False, f.uuid())))
torch.kept = r.array("float32", None, "torch")  # until the interpreter itself is taken down
torch.loop = [torch.kept[1:]]
torch.loop.append(torch.loop)
r.drop(lambda e: print("gone", e))
print("mapped", f.live())
"""


@has_torch
def test_tensors_may_outlive_everything(fake: gpu.Fake) -> None:
    """A program ends well whatever it holds."""
    paths = f"{Path(isobar.__file__).parents[1]}:{Path(__file__).parent}"
    done = subprocess.run([sys.executable, "-X", "dev", "-c", ENDING, fake.path, paths], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (0, "mapped (1, 1)\n", False), done.stderr

