"""Models of mixed sizes are loaded and unloaded; the ledger and the driver agree whenever nothing moves."""

from __future__ import annotations

import random
import time

from .wire import Commands
from .world import MiB, World


def run(w: World) -> None:
    """Every cycle ends with nothing loaded; the driver is asked then."""
    files = [(f"cycle-{i}", str(w.file(s))) for i, s in enumerate(w.sizes.mixed)]
    node = w.node("--warm=1MiB:0", "--pool-bytes=0", ram=w.sizes.ram)
    c = node.commands()
    choice = random.Random(7)
    for name, path in files:  # what the first load takes for ever (modules, chunks) is not the cycles'
        _cycle(c, name, path, False)
        _cycle(c, name, path, True)
    start, ledger = w.used(), _ledger(c)
    worst, at = 0, 0
    for n in range(w.sizes.cycles):
        name, path = choice.choice(files)
        _cycle(c, name, path, choice.random() < 0.3)
        if n % 10 == 9 or n == w.sizes.cycles - 1:
            apart = _apart(w, c, start, ledger)
            if abs(apart) > abs(worst):
                worst, at = apart, n
    end = w.used()
    w.findings.raw("start and end, bytes", {"start": start, "end": end, "ledger": _ledger(c)})
    w.findings.line("cycles_left", (end - start) / MiB, w.sizes.cycles)
    w.findings.line("cycles_drift", abs(worst) / MiB, w.sizes.cycles, f"in cycle {at}" if worst else "")
    drift = c.call("get_status", device_id="gpu-0", include_allocations=False)["memory_info"].get("drift_bytes", 0)
    w.findings.raw("drift_bytes at the end", drift)


def _cycle(c: Commands, name: str, path: str, keep: bool) -> None:
    c.call("load_model", name=name, path=path, device_id="gpu-0", keep_warm=keep, wait_ms=60_000)
    reply = c.call("unload_model", name=name, wait_ms=60_000)
    if not reply.get("confirmed", True):
        raise RuntimeError(f"{name} was unloaded without a confirmation: {reply}")


def _ledger(c: Commands) -> int:
    """The ledger's own bytes: granted or on their way back, and idle ones."""
    m = c.call("get_status", device_id="gpu-0", include_allocations=False)["memory_info"]
    return int(m["used_memory"] - m.get("foreign_memory", 0) - m.get("reserved_memory", 0) + m.get("pooled_memory", 0))


def _apart(w: World, c: Commands, start: int, ledger: int) -> int:
    """How far the driver's use has moved from the ledger's; looked at again for a moment, since a
    confirmation and the driver's own count are not one instant."""
    apart = 0
    for _ in range(20):
        apart = (w.used() - start) - (_ledger(c) - ledger)
        if apart == 0:
            break
        time.sleep(0.005)
    return apart
