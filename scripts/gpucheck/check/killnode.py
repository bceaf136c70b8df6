"""The node is killed under load, again and again, while somebody reads."""

from __future__ import annotations

import random
import time

from .children import Child
from .world import World


def run(w: World) -> None:
    """A reader holds a model and sums it up all the time; another process allocates and loads."""
    path = w.file(w.sizes.held)
    node = w.node(ram=w.sizes.ram)
    c = node.commands()
    load = {"name": "held", "path": str(path), "device_id": "gpu-0", "wait_ms": 60_000}
    c.call("load_model", **load)
    warm = {"name": "warm", "path": str(w.file(w.sizes.mixed[-1])), "device_id": "gpu-0", "wait_ms": 60_000}
    c.call("load_model", **warm)
    grant = c.call("allocate", device_id="gpu-0", size_bytes=w.sizes.step, purpose="outlives the node", persistent=True)["allocation_id"]
    log = w.setting.out / "children.log"
    reader = Child(w.setting, "reader", log, url=node.url, name="held", device="gpu-0", pause=0.01)
    w.at_end(reader.end)
    want = reader.hear()["sum"]
    models = [(f"busy-{i}", str(w.file(s))) for i, s in enumerate(w.sizes.mixed[:3])]
    busy = Child(w.setting, "busy", log, url=node.url, device="gpu-0", bytes=w.sizes.grant, models=models, threads=1 if w.setting.tiny else 3)
    w.at_end(busy.end)
    busy.hear()
    answers: list[float] = []
    registers: list[float] = []
    wrong: list[str] = []
    rounds = 0
    choice = random.Random(1)
    done = 0
    for n in range(w.sizes.node_kills):
        done = _working(busy, done)
        time.sleep(choice.uniform(0, 0.1))
        c.close()
        node.kill()
        answers.append(node.start())
        c = node.commands()
        got = reader.ask("check")
        if got["wrong"] or got["errors"] or got["rounds"] <= rounds:
            wrong.append(f"kill {n}: the reader says {got}")
            break
        rounds = got["rounds"]
        try:
            c.call("get_allocation", allocation_id=grant)
            c.call("get_handle", model_name="held", device_id="gpu-0")
        except Exception as e:
            wrong.append(f"kill {n}: {e}")
            break
        if n % 10 == 0:
            began = time.perf_counter()
            c.call("unload_model", name="warm", device_id="gpu-0", to="ram")
            c.call("load_model", **warm)
            registers.append((time.perf_counter() - began) * 1e3)
        if n % 25 == 0:
            fresh = Child(w.setting, "reader", log, url=node.url, name="held", device="gpu-0", pause=1)
            w.at_end(fresh.end)
            if (said := fresh.hear()["sum"]) != want:
                wrong.append(f"kill {n}: a new reader's sum is {said}, not {want}")
            fresh.end()
    state = busy.ask("count")
    w.findings.raw("answers after start, s", answers)
    w.findings.raw("demoted and promoted after a kill, ms", registers)
    w.findings.raw("the load", state)
    w.findings.line("node_kill_bytes", float(not wrong), len(answers), "; ".join(wrong))
    w.findings.line("node_kill_answers", max(answers), len(answers))
    w.findings.line("node_kill_register", max(registers), len(registers))
    reader.end()
    busy.end()
    c.call("deallocate", allocation_id=grant)  # it would outlive the node that is stopped now


def _working(busy: Child, before: int) -> int:
    """Waits until the load has got something done since; returns how much in all."""
    end = time.monotonic() + 30
    while True:
        state = busy.ask("count")
        if state["done"] > before:
            return int(state["done"])
        if time.monotonic() > end:
            raise RuntimeError(f"the load gets nothing done: {state}")
        time.sleep(0.01)
