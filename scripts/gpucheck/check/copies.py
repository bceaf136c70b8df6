"""clear, copy and transfer beside the driver's own."""

from __future__ import annotations

import ctypes as ct
import time
from functools import partial

from .driver import Memory, rate
from .raw import Bulk
from .report import median
from .wire import Commands
from .world import World


def run(w: World) -> None:
    """On one GPU: by the node's clock, as transfers, and the whole commands. The node's memory is
    larger than that of the raw copies, which leave it room."""
    size = w.sizes.wide
    node = w.node()
    c = node.commands()
    a, b = (_grant(c, size, "gpu-0") for _ in range(2))
    fills, copies = Bulk(w), Bulk(w)
    clears: list[float] = []
    ours: list[float] = []
    said: dict[str, list[float]] = {"clear": [], "copy": []}
    for n in range(w.sizes.rounds + 1):
        began = time.perf_counter()
        cleared = c.call("clear", allocation_id=a, fill_value=n % 251, wait_ms=60_000)
        middle = time.perf_counter()
        copied = c.call("copy", source_allocation_id=a, target_allocation_id=b, wait_ms=60_000)
        end = time.perf_counter()
        if n == 0:
            continue
        clears.append(size / (middle - began) / 1e9)
        ours.append(size / (end - middle) / 1e9)
        said["clear"].append(cleared["throughput_bytes_per_second"] / 1e9)
        said["copy"].append(copied["throughput_bytes_per_second"] / 1e9)
        fills.fill()
        copies.copy(fills)
    for name, rates in (("clear", clears), ("copy", ours), ("raw memset", fills.rates), ("raw copy", copies.rates),
                        ("clear as the node says", said["clear"]), ("copy as the node says", said["copy"])):  # fmt: skip
        w.findings.raw(f"{name}, GB/s", rates)
    w.findings.line("clear_over_raw", median(said["clear"]) / median(fills.rates), len(clears))
    w.findings.line("copy_over_raw", median(said["copy"]) / median(copies.rates), len(ours))
    w.findings.line("clear_whole", median(clears) / median(fills.rates), len(clears))
    w.findings.line("copy_whole", median(ours) / median(copies.rates), len(ours))


def run_peer(w: World) -> None:
    """Between two."""
    if w.cuda.count() < 2:
        for key in ("raw_peer", "peer_over_raw", "peer_whole"):
            w.findings.line(key, None, cause="this host has one GPU")
        return
    size = w.sizes.bulk
    raw = _raw_peer(w)
    node = w.node(gpus=2)
    c = node.commands()
    source = _grant(c, size, "gpu-0")
    ours: list[float] = []
    said: list[float] = []
    for n in range(w.sizes.rounds + 1):
        began = time.perf_counter()
        got = c.call("transfer", allocation_id=source, target_device_id="gpu-1", wait_ms=60_000)
        seconds = time.perf_counter() - began
        target = got.get("target_allocation_id") or got["allocation_id"]
        c.call("deallocate", allocation_id=target)
        if n == 0:
            continue
        ours.append(size / seconds / 1e9)
        said.append((got.get("operation") or got).get("throughput_bytes_per_second", 0) / 1e9)
        w.say(f"round {n}: {ours[-1]:.1f} GB/s, the node says {said[-1]:.1f}")
    w.findings.raw("transfer, GB/s", ours)
    w.findings.raw("transfer as the node says, GB/s", said)
    w.findings.raw("raw peer copy, GB/s", raw)
    w.findings.line("raw_peer", median(raw), len(raw))
    # The raw copy goes into memory that is there; a transfer makes its target first.
    w.findings.line("peer_over_raw", median(said) / median(raw), len(said))
    w.findings.line("peer_whole", median(ours), len(ours))


def _raw_peer(w: World) -> list[float]:
    """cuMemcpyPeer where the driver has it, with access enabled; else a copy into memory that both
    GPUs reach, which is the same to the hardware."""
    size = w.sizes.bulk
    w.cuda.use(1)
    w.cuda.use(0)
    peers = w.cuda.has("cuMemcpyPeerAsync") and not w.setting.fake
    stream = w.cuda.stream()
    n = ct.c_size_t(size)
    if peers:
        w.cuda.call("cuCtxEnablePeerAccess", w.cuda.context(1), 0)
        here, there = ct.c_void_p(), ct.c_void_p()
        w.cuda.call("cuMemAlloc_v2", ct.byref(here), n)
        w.cuda.use(1)
        w.cuda.call("cuCtxEnablePeerAccess", w.cuda.context(0), 0)
        w.cuda.call("cuMemAlloc_v2", ct.byref(there), n)
        w.cuda.use(0)
        give = partial(w.cuda.call, "cuMemcpyPeerAsync", there, w.cuda.context(1), here, w.cuda.context(0), n, stream)
    else:
        first, second = Memory(w.cuda, 0, size), Memory(w.cuda, 0, size)
        give = partial(w.cuda.call, "cuMemcpyDtoDAsync_v2", second.at, first.at, n, stream)
    rate(w.cuda, stream, size, give, 1)
    rates = [rate(w.cuda, stream, size, give, 1) for _ in range(w.sizes.rounds)]
    if peers:
        w.cuda.call("cuMemFree_v2", here)
        w.cuda.call("cuMemFree_v2", there)
    else:
        first.free()
        second.free()
    return rates


def _grant(c: Commands, size: int, device: str) -> str:
    return str(c.call("allocate", device_id=device, size_bytes=size, purpose="gpu-check", wait_ms=60_000)["allocation_id"])
