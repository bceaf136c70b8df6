"""What the processes of children.py run. Without PyTorch where there is no GPU: numpy stands in."""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any


class Library:
    """PyTorch on the GPU, or numpy on the fake driver's memory."""

    def __init__(self, fake: bool, use: bool = True) -> None:
        self.torch: Any = None
        self.name = "numpy"
        if not fake and use:
            import torch

            torch.zeros(1, device="cuda").sum().item()  # makes the context
            self.torch, self.name = torch, "torch"

    def wait(self) -> None:
        """Until the GPU has done what it was given."""
        if self.torch is not None:
            self.torch.cuda.synchronize()

    def sum(self, tensors: dict[str, Any]) -> int:
        """A sum over every element's bits."""
        if self.torch is not None:
            sums = [t.view(self.torch.int16).sum(dtype=self.torch.int64) for t in tensors.values()]
            return int(self.torch.stack(sums).sum().item())
        import numpy

        return sum(int(t.view(numpy.int16).sum(dtype=numpy.int64)) for t in tensors.values())

    def load_file(self, path: str) -> dict[str, Any]:
        """The ordinary way."""
        if self.torch is not None:
            from safetensors.torch import load_file

            return dict(load_file(path, device="cuda"))
        from safetensors.numpy import load_file as load

        return dict(load(path))

    def forward(self, tensors: dict[str, Any], layers: int, width: int) -> Any:
        """Runs a plain stack of linear layers on a fixed input."""
        if self.torch is not None:
            x = self.torch.randn(16, width, generator=self.torch.Generator().manual_seed(1)).to(self.torch.bfloat16).cuda()
            for i in range(layers):
                x = self.torch.tanh(self.torch.nn.functional.linear(x, tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]))
            return x
        import numpy

        y = numpy.random.default_rng(1).standard_normal((4, width)).astype("float32")
        for i in range(layers):
            y = numpy.tanh(y @ tensors[f"layers.{i}.weight"].astype("float32").T + tensors[f"layers.{i}.bias"].astype("float32"))
        return y

    def equal(self, a: Any, b: Any) -> bool:
        """Bit for bit, since nothing here is a NaN."""
        if self.torch is not None:
            return bool(self.torch.equal(a, b))
        import numpy

        return bool(numpy.array_equal(a, b))


def commands() -> Iterator[dict[str, Any]]:
    """What the part says, until it closes the pipe."""
    for line in sys.stdin:
        yield json.loads(line)


def say(**answer: Any) -> None:
    """Answers."""
    print(json.dumps(answer), flush=True)


def attacher(a: dict[str, Any]) -> None:
    """Attaches to a model that is resident, again and again."""
    import isobar

    library = Library(a["fake"])
    client = isobar.connect(a["url"])
    say(ready=True)
    for c in commands():
        mapped, views = [], []
        for _ in range(c["n"]):
            time.sleep(0.01)  # an attachment follows no other
            began = time.perf_counter()
            model = client.load_model(a["name"], device=a["device"])
            have = time.perf_counter()
            tensors = model.tensors(library.name)
            done = time.perf_counter()
            mapped.append((have - began) * 1e3)
            views.append((done - have) * 1e3)
            count = len(tensors)
            equal = None
            if c.get("path") and len(mapped) == c["n"]:
                other = library.load_file(c["path"])
                equal = library.equal(library.forward(tensors, a["layers"], a["width"]), library.forward(other, a["layers"], a["width"]))
                equal = equal and all(library.equal(tensors[k], v) for k, v in other.items()) and len(other) == count
                del other
            del tensors
            library.wait()
            if not model.close():
                raise RuntimeError("views were left")
        say(mapped=mapped, views=views, tensors=count, equal=equal)


def reader(a: dict[str, Any]) -> None:
    """Holds a model and reads all of it, over and over; where it is cooperative, lets go of it when
    pressure is high."""
    import isobar

    library = Library(a["fake"])
    client = isobar.connect(a["url"], attempts=20)
    state: dict[str, Any] = {"rounds": 0, "wrong": 0, "errors": []}
    turn = threading.Lock()  # nobody reads while the model is let go
    model = tensors = None

    def open_model() -> int:
        nonlocal model, tensors
        model = client.load_model(a["name"], device=a["device"])
        tensors = model.tensors(library.name)
        return library.sum(tensors)

    def let_go() -> None:
        nonlocal model, tensors
        with turn:
            if model is None:
                return
            closing, model, tensors = model, None, None
            library.wait()
            closing.close()

    want = open_model()

    def look() -> None:
        with turn:
            if tensors is None:
                return
            state["wrong"] += library.sum(tensors) != want
            state["rounds"] += 1

    def loop() -> None:
        while True:
            try:
                look()
            except Exception as e:
                state["errors"].append(repr(e))
                return
            time.sleep(a["pause"])

    if a.get("cooperative"):
        client.on_pressure(lambda p: let_go() if p.level >= isobar.PressureLevel.HIGH else None, a["device"])
    else:
        threading.Thread(target=loop, daemon=True).start()
    say(ready=True, sum=want)
    for c in commands():
        if c["do"] == "open":
            with turn:
                say(sum=open_model())
        else:
            if not a.get("cooperative"):
                look()
            say(**state)


def consumer(a: dict[str, Any]) -> None:
    """Allocates on the GPU, and has it written to without an end until it is killed."""
    import isobar

    client = isobar.connect(a["url"])
    say(ready=True)
    for c in commands():
        buffer = client.allocate(c["bytes"], device=a["device"], purpose="to be killed")
        say(allocation_id=buffer.allocation_id)


def busy(a: dict[str, Any]) -> None:
    """Load: allocates and frees, loads and unloads. A node that is dead is waited for."""
    import isobar

    state = {"done": 0, "failed": 0, "errors": []}

    def loop() -> None:
        n = 0
        while True:
            try:
                with isobar.connect(a["url"], name="busy") as client:
                    while True:
                        n += 1
                        with client.allocate(a["bytes"], device=a["device"], queue=5, timeout=20):
                            pass
                        name, path = a["models"][n % len(a["models"])]
                        client.load_model(name, path, device=a["device"], timeout=20).close()
                        client.unload_model(name, device=a["device"])
                        state["done"] += 1
            except (isobar.IsobarError, TimeoutError, OSError) as e:
                state["failed"] += 1
                state["errors"] = [*state["errors"][-4:], repr(e)[:200]]
                time.sleep(0.02)

    for _ in range(a["threads"]):
        threading.Thread(target=loop, daemon=True).start()
    say(ready=True)
    for _ in commands():
        say(**state)


ROLES: dict[str, Callable[[dict[str, Any]], None]] = {"attacher": attacher, "reader": reader, "consumer": consumer, "busy": busy}


def main() -> None:
    """The process's life."""
    a = json.loads(sys.argv[1])
    gc.disable()  # a collection is nobody's latency
    try:
        ROLES[a["role"]](a)
    except Exception as e:
        say(error=f"{type(e).__name__}: {e}")
        raise
    finally:
        sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
