"""A second process attaches to a model that is resident."""

from __future__ import annotations

from .children import Child
from .report import quantile
from .world import World

_FRESH = 3  # processes whose first attachment is looked at


def run(w: World) -> None:
    """The model of some gigabytes; the forward pass is compared here."""
    _attach(w, "attach", w.sizes.model, compare=True)


def run_big(w: World) -> None:
    """The large one."""
    _attach(w, "attach_big", w.sizes.big, compare=False)


def _attach(w: World, key: str, shape: object, compare: bool) -> None:
    path = w.file(shape)  # type: ignore[arg-type]
    node = w.node()
    c = node.commands()
    c.call("load_model", name="resident", path=str(path), device_id="gpu-0", keep_warm=False, wait_ms=120_000, timeout_seconds=300)
    log = w.setting.out / "children.log"
    say = {"url": node.url, "name": "resident", "device": "gpu-0", "layers": shape.layers, "width": shape.width}  # type: ignore[attr-defined]
    first: list[float] = []
    for _ in range(1 if w.setting.tiny else _FRESH):
        child = Child(w.setting, "attacher", log, **say)
        w.at_end(child.end)
        child.hear()
        got = child.ask("attach", n=1)
        first.append(got["mapped"][0])
        last = child
        if len(first) < _FRESH and not w.setting.tiny:
            child.end()
    w.findings.raw("first attachment of a process, ms", first)
    got = last.ask("attach", n=w.sizes.attaches)
    w.findings.raw("mapped, ms", got["mapped"])
    w.findings.raw("views, ms", got["views"])
    w.findings.raw("tensors", got["tensors"])
    n = len(got["mapped"])
    w.findings.line(f"{key}_mapped", quantile(got["mapped"], 0.99), n)
    w.findings.line(f"{key}_views", quantile(got["views"], 0.99), n)
    if compare:
        w.findings.line("attach_equal", float(last.ask("attach", n=1, path=str(path))["equal"]))
    last.end()
