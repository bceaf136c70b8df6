"""A grant crosses the threshold; how soon are the bytes of a model that nobody reads the driver's
again? Counted from before the grant is asked for: what granting itself takes is in the figure."""

from __future__ import annotations

import time
from typing import Any

from .children import Child
from .node import Node
from .report import quantile
from .wire import Commands
from .world import MiB, World

_DWELL = ("--pressure-dwell=100ms", "--pressure-dwell-critical=100ms")


def run(w: World) -> None:
    """Dropped, with a copy in RAM, and with a reader that lets go when it is told of pressure."""
    _case(w, "freed_dropped", keep=False, reader=False)
    _case(w, "freed_kept", keep=True, reader=False)
    _case(w, "freed_reader", keep=True, reader=True)


def _case(w: World, key: str, keep: bool, reader: bool) -> None:
    shape, path = w.sizes.unread, w.file(w.sizes.unread)
    # The model and the rest are 79 % of the limit, one step more is above 85.
    step = w.sizes.step
    limit = shape.size + 4 * step
    limit -= limit % (2 * MiB)
    ram = w.sizes.ram if keep else 16 * MiB  # where RAM has no room, a model is dropped
    node = w.node(*_DWELL, gpu=limit, ram=ram)
    c = node.commands()
    base = int(limit * 0.79) - shape.size
    base -= base % (2 * MiB)
    c.call("allocate", device_id="gpu-0", size_bytes=base, purpose="the rest")
    child = None
    took: list[float] = []
    for n in range(w.sizes.relieves + 1):
        c.call("load_model", name="unread", path=str(path), device_id="gpu-0", keep_warm=keep, wait_ms=120_000)
        if reader and child is None:
            child = Child(w.setting, "reader", w.setting.out / "children.log", url=node.url, name="unread", device="gpu-0", cooperative=True, pause=1)
            w.at_end(child.end)
            child.hear()
        elif child is not None:
            child.ask("open")
        _level(c, "low", "moderate")
        seconds, grant = _cross(w, c, node, step, shape.size)
        c.call("deallocate", allocation_id=grant)
        if n > 0:
            took.append(seconds * 1e3)
    w.findings.raw(f"{key}, ms", took)
    w.findings.line(key, quantile(took, 0.99), len(took))
    w.say(f"{key}: {quantile(took, 0.5):.1f} ms p50, {max(took):.1f} ms max")
    if child is not None:
        child.end()
    node.stop()


def _cross(w: World, c: Commands, node: Node, step: int, model: int) -> tuple[float, str]:
    before = w.used()
    want = before + step - model + model // 16  # spares may have come
    began = time.perf_counter()
    number = c.send("allocate", {"device_id": "gpu-0", "size_bytes": step, "purpose": "crosses"})
    while w.used() > want:
        if time.perf_counter() - began > 30:
            raise RuntimeError(f"the driver showed {before} bytes in use, and {w.used()} of at most {want} after 30 s: {c.call('get_pressure', device_id='gpu-0')}")
        if w.setting.fake:
            time.sleep(0.001)  # its state is one file
    seconds = time.perf_counter() - began
    return seconds, str(c.take(number, "allocate")["allocation_id"])


def _level(c: Commands, *wanted: str) -> None:
    """Waits for a level."""
    end = time.monotonic() + 30
    while True:
        p: dict[str, Any] = c.call("get_pressure", device_id="gpu-0")
        level = p.get("pressure_level") or p["devices"][0]["pressure_level"]
        if level in wanted:
            return
        if time.monotonic() > end:
            raise RuntimeError(f"the level stays {level}: {p}")
        time.sleep(0.01)
