"""Consumers are killed; how soon are their bytes another's? A request for exactly those bytes waits,
and the moment of its answer is compared with that of the kill and that of the pidfd."""

from __future__ import annotations

import os
import select
import signal
import time
from collections import deque

from .children import Child
from .report import quantile
from .world import MiB, World

_AHEAD = 6  # consumers that start meanwhile: a context takes its time


def run(w: World) -> None:
    """One after the other."""
    size = w.sizes.consumer
    # Nothing but the consumer's bytes is left over: the device is them and a quarter.
    limit = size + size // 4
    node = w.node("--warm=1MiB:0", "--pool-bytes=0", "--pressure-relief=off", gpu=limit - limit % (2 * MiB))
    c = node.commands()
    log = w.setting.out / "children.log"
    ready: deque[Child] = deque()

    def start() -> None:
        child = Child(w.setting, "consumer", log, url=node.url, device="gpu-0")
        w.at_end(child.end)
        ready.append(child)

    after_kill: list[float] = []
    after_pidfd: list[float] = []
    fired: list[float] = []
    for n in range(w.sizes.consumer_kills):
        while len(ready) < min(_AHEAD, w.sizes.consumer_kills - n):
            start()
        child = ready.popleft()
        child.hear()
        child.ask("hold", bytes=size)
        number = c.send("allocate", {"device_id": "gpu-0", "size_bytes": size, "purpose": "waits", "timeout_seconds": 60, "wait_ms": 60_000})
        if c.poll(number, 0.02):
            raise RuntimeError(f"the request did not wait: {c.take(number, 'allocate')}")
        pidfd = os.pidfd_open(child.process.pid)
        began = time.perf_counter()
        os.kill(child.process.pid, signal.SIGKILL)
        died = granted = 0.0
        while not died or not granted:
            watched = [x for x, done in ((pidfd, died), (c, granted)) if not done]
            got, _, _ = select.select(watched, [], [], 60)
            now = time.perf_counter()
            if not got:
                raise RuntimeError(f"60 s after the kill: {'no end' if not died else 'not granted'}: {c.call('get_queue', device_id='gpu-0')}")
            if pidfd in got:
                died = now
            if c in got and c.poll(number):
                granted = now
        os.close(pidfd)
        answer = c.take(number, "allocate")
        c.call("deallocate", allocation_id=answer["allocation_id"])
        child.end()
        after_kill.append((granted - began) * 1e3)
        # The node may hear of the end before we do: then it took no time at all.
        after_pidfd.append(max(0.0, granted - died) * 1e3)
        fired.append((died - began) * 1e3)
    for child in ready:
        child.end()
    for name, samples in (("kill to grant, ms", after_kill), ("pidfd to grant, ms", after_pidfd), ("kill to pidfd, ms", fired)):
        w.findings.raw(name, samples)
    w.findings.line("consumer_after_pidfd", quantile(after_pidfd, 0.99), len(after_pidfd))
    w.findings.line("consumer_after_kill", quantile(after_kill, 0.99), len(after_kill))
