"""A grant crosses the threshold; how soon are the bytes of a model that nobody reads the driver's
again? Counted from before the grant is asked for: what granting itself takes is in the figure."""

from __future__ import annotations

import time
from typing import Any

from .children import Child
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
    # The model and the rest are 72 % of the limit; with one step more it is 87, and high begins at 85.
    limit = max(_whole(1.5 * shape.size), 128 * MiB)  # below, the remainders of small grants would count
    base, step = _whole(0.72 * limit - shape.size), _whole(0.15 * limit)
    ram = w.sizes.ram if keep else 16 * MiB  # where RAM has no room, a model is dropped
    node = w.node(*_DWELL, gpu=limit, ram=ram)
    c = node.commands()
    c.call("allocate", device_id="gpu-0", size_bytes=base, purpose="the rest")
    child = None
    took: list[float] = []
    granted: list[float] = []
    for n in range(w.sizes.relieves + 1):
        _level(c, "low", "moderate")
        c.call("load_model", name="unread", path=str(path), device_id="gpu-0", keep_warm=keep, wait_ms=120_000)
        if reader and child is None:
            child = Child(w.setting, "reader", w.setting.out / "children.log", url=node.url, name="unread", device="gpu-0", cooperative=True, pause=1)
            w.at_end(child.end)
            child.hear()
        elif child is not None:
            child.ask("open")
        seconds, after, grant = _cross(w, c, step, shape.size)
        c.call("deallocate", allocation_id=grant)
        if n > 0:
            took.append(seconds * 1e3)
            granted.append(after * 1e3)
    w.findings.raw(f"{key}, ms", took)
    w.findings.raw(f"{key}: the grant was answered after, ms", granted)
    w.findings.line(key, quantile(took, 0.99), len(took))
    w.say(f"{key}: {quantile(took, 0.5):.1f} ms p50, {max(took):.1f} ms max")
    if child is not None:
        child.end()
    node.stop()


def _whole(size: float) -> int:
    return int(size) // (2 * MiB) * 2 * MiB


def _cross(w: World, c: Commands, step: int, model: int) -> tuple[float, float, str]:
    """Seconds until the bytes are back, until the grant was answered, and its id."""
    before = w.used()
    want = before + step - model + model // 16  # spares may have come
    began = time.perf_counter()
    number = c.send("allocate", {"device_id": "gpu-0", "size_bytes": step, "purpose": "crosses"})
    granted = 0.0
    while w.used() > want:
        now = time.perf_counter() - began
        if not granted and c.poll(number):
            granted = now
        if now > 20:
            raise RuntimeError(f"the driver showed {before} bytes in use, and {w.used()} of at most {want} after 20 s: {c.call('get_pressure', device_id='gpu-0')}")
        # Not without a pause: each look takes the driver's lock from who gives memory back. The
        # fake driver's state is one file.
        time.sleep(0.001 if w.setting.fake else 0.0002)
    seconds = time.perf_counter() - began
    return seconds, granted or seconds, str(c.take(number, "allocate")["allocation_id"])


def _level(c: Commands, *wanted: str) -> None:
    """Waits for a level."""
    end = time.monotonic() + 30
    while True:
        p: dict[str, Any] = c.call("get_pressure", device_id="gpu-0")
        level = p["pressure"]["pressure_level"]
        if level in wanted:
            return
        if time.monotonic() > end:
            raise RuntimeError(f"the level stays {level}: {p}")
        time.sleep(0.01)
