"""RAM tier to VRAM and back, beside the pinned copy: the whole commands, with what they make and
give back, and of the way down the copy alone by the node's clock. The model is the one that
pressure drops, of 8.6 GB. What was given back is scrubbed by the GPU's driver for some
milliseconds, in which copies are slow: before a measurement nothing happens for a while."""

from __future__ import annotations

import time

from . import raw
from .report import median
from .wire import Commands
from .world import REST, World


def run(w: World) -> None:
    """Promotes and demotes one model, and copies as much by hand in between."""
    shape, path = w.sizes.unread, w.file(w.sizes.unread)
    node = w.node(ram=w.sizes.ram)
    c = node.commands()
    c.listen("memory.events.model.*.ram-0")
    pinned = raw.pinned(w)
    load = {"name": "tiered", "path": str(path), "device_id": "gpu-0", "wait_ms": 60_000}
    up: list[float] = []
    up_said: list[float] = []
    down: list[float] = []
    down_said: list[float] = []
    down_first: list[float] = []
    for n in range(w.sizes.rounds + 1):
        # Up: loaded with a RAM copy, dropped from VRAM alone, and loaded again from the copy.
        c.call("load_model", **load)
        c.call("unload_model", name="tiered", device_id="gpu-0", to="ram")
        _tier(c, "ram")
        time.sleep(REST)
        began = time.perf_counter()
        answer = c.send("load_model", load)
        c.poll(answer, c.timeout)
        seconds = time.perf_counter() - began
        reply = c.take(answer, "load_model")
        if reply.get("source_tier") != "ram":
            raise RuntimeError(f"it was loaded from {reply.get('source_tier')!r}, not from RAM")
        c.call("unload_model", name="tiered")
        # Down: loaded without a RAM copy, and demoted.
        c.call("load_model", keep_warm=False, **load)
        time.sleep(REST)
        c.events.clear()
        began = time.perf_counter()
        c.call("unload_model", name="tiered", device_id="gpu-0", to="ram", wait_ms=60_000)
        demoted = time.perf_counter() - began
        _tier(c, "ram")
        said = c.hear(lambda e: e["event"] == "loaded")["data"]["throughput_bytes_per_second"] / 1e9
        c.call("unload_model", name="tiered")
        if n == 0:
            down_first.append(shape.size / demoted / 1e9)
            continue
        pinned.sample()
        up.append(shape.size / seconds / 1e9)
        up_said.append(reply.get("throughput_bytes_per_second", 0) / 1e9)
        down.append(shape.size / demoted / 1e9)
        down_said.append(said)
        w.say(f"round {n}: up {up[-1]:.1f} (the node says {up_said[-1]:.1f}), down {down[-1]:.1f} GB/s ({said:.1f})")
    for name, rates in (("up, GB/s", up), ("up as the node says, GB/s", up_said), ("down, GB/s", down), ("down, the copy as the node says, GB/s", down_said), ("down, the first, GB/s", down_first)):
        w.findings.raw(name, rates)
    for k, samples in pinned.samples.items():
        w.findings.raw(f"pinned {k}, GB/s", samples)
    w.findings.line("promote_over_pinned", median(up) / pinned.best("h2d"), len(up))
    w.findings.line("demote_over_pinned", median(down_said) / pinned.best("d2h"), len(down_said))
    w.findings.line("demote_over_link", median(down) / pinned.best("d2h"), len(down))


def _tier(c: Commands, tier: str) -> None:
    """The model lies there, and nowhere else."""
    model = c.call("get_model_info", name="tiered")["models"][0]
    tiers = [r["tier"] for r in model.get("residency") or ()]
    if tiers != [tier]:
        raise RuntimeError(f"the model lies in {tiers}, not in {tier} alone")
