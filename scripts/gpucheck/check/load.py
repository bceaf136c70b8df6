"""Page cache to tensors that can be used: Isobar beside safetensors and others, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import raw
from .report import median
from .world import REST, World

# Loaders beside are measured in the first rounds only.
_OTHERS = 3


def run(w: World) -> None:
    """Interleaved rounds, in an order that turns. Each loader begins when what the one before gave
    back has been scrubbed."""
    import isobar

    torch = w.torch()
    shape, path = w.sizes.model, w.file(w.sizes.model)
    node = w.node(ram=w.sizes.ram)
    client = isobar.connect(node.url)
    w.at_end(client.close)
    pinned = raw.pinned(w)
    kind = "torch" if torch is not None else "numpy"
    wait = torch.cuda.synchronize if torch is not None else lambda: None

    def ordinary() -> dict[str, Any]:
        if torch is not None:
            from safetensors.torch import load_file

            return dict(load_file(str(path), device="cuda"))
        from safetensors.numpy import load_file as load

        return dict(load(str(path)))

    ways: dict[str, Callable[[], float]] = {
        "safetensors": lambda: _timed(ordinary, wait),
        "isobar": lambda: _isobar(client, path, kind, wait, keep=False),
        "isobar, kept in RAM": lambda: _isobar(client, path, kind, wait, keep=True),
    }
    if torch is not None:
        ways |= {"fastsafetensors": lambda: _timed(lambda: _fast(path), wait), "runai": lambda: _timed(lambda: _runai(torch, path), wait)}
    # Every tensor is what the file says; this is each way's first and unmeasured time too.
    with _held(client, path, keep=False) as model:
        want, got = ordinary(), model.tensors(kind)
        same = len(want) == len(got) and all(_equal(torch, want[k], got[k]) for k in want)
        w.findings.line("load_equal", float(same), len(want))
        del want, got
    client.unload_model("load", device="gpu-0")
    took: dict[str, list[float]] = {}
    for n in range(w.sizes.rounds + 1):
        order = list(ways)[n % len(ways) :] + list(ways)[: n % len(ways)]
        for way in order:
            if way in ("fastsafetensors", "runai") and n > _OTHERS:
                continue
            time.sleep(REST)
            try:
                seconds = ways[way]()
            except Exception as e:
                if "isobar" in way or way == "safetensors":
                    raise
                w.findings.line(f"{way}_rate", None, cause=f"{type(e).__name__}: {e}"[:200])
                del ways[way]
                continue
            if torch is not None:
                torch.cuda.empty_cache()
            if n > 0:
                took.setdefault(way, []).append(shape.size / seconds / 1e9)
        if n > 0:
            pinned.sample()
        w.say(f"round {n}: " + ", ".join(f"{k} {v[-1]:.1f}" for k, v in took.items()))
    for way, rates in took.items():
        w.findings.raw(f"{way}, GB/s", rates)
    for k, samples in pinned.samples.items():
        w.findings.raw(f"pinned {k}, GB/s", samples)
    _lines(w, took, pinned.best("h2d"))


def _lines(w: World, took: dict[str, list[float]], link: float) -> None:
    for key, way in (("safetensors_rate", "safetensors"), ("load_rate", "isobar"), ("load_warm_rate", "isobar, kept in RAM"),
                     ("fastsafetensors_rate", "fastsafetensors"), ("runai_rate", "runai")):  # fmt: skip
        if way in took:
            w.findings.line(key, median(took[way]), len(took[way]))
        elif way in ("fastsafetensors", "runai") and w.setting.fake:
            w.findings.line(key, None, cause="it needs a GPU")
    ours = took["isobar"]
    w.findings.line("load_over_safetensors", median([a / b for a, b in zip(ours, took["safetensors"], strict=True)]), len(ours))
    w.findings.line("load_over_pinned", median(ours) / link, len(ours))


def _timed(load: Callable[[], Any], wait: Callable[[], None]) -> float:
    wait()
    began = time.perf_counter()
    tensors = load()
    wait()
    seconds = time.perf_counter() - began
    del tensors
    return seconds


class _held:
    """The model, loaded through the node as a program does."""

    def __init__(self, client: Any, path: Path, keep: bool) -> None:
        self._client, self._path, self._keep = client, path, keep

    def __enter__(self) -> Any:
        self._model = self._client.load_model("load", self._path, device="gpu-0", keep_warm=self._keep)
        return self._model

    def __exit__(self, *_: object) -> None:
        self._model.close()


def _isobar(client: Any, path: Path, kind: str, wait: Callable[[], None], keep: bool) -> float:
    wait()
    began = time.perf_counter()
    with _held(client, path, keep) as model:
        tensors = model.tensors(kind)
        wait()
        seconds = time.perf_counter() - began
        del tensors
    client.unload_model("load")
    return seconds


def _equal(torch: Any, a: Any, b: Any) -> bool:
    if torch is not None:
        return bool(torch.equal(a, b))
    import numpy

    return bool(numpy.array_equal(a, b))


def _fast(path: Path) -> dict[str, Any]:
    from fastsafetensors import SafeTensorsFileLoader

    loader = SafeTensorsFileLoader(None, "cuda:0", nogds=True)
    loader.add_filenames({0: [str(path)]})
    files = loader.copy_files_to_device()
    tensors = {k: files.get_tensor(k) for k in loader.get_keys()}
    loader.close()
    return tensors | {"": files}


def _runai(torch: Any, path: Path) -> dict[str, Any]:
    from runai_model_streamer import SafetensorsStreamer

    with SafetensorsStreamer() as s:
        s.stream_file(str(path))
        return {name: tensor.to("cuda") for name, tensor in s.get_tensors()}
