"""What ``progress=True`` shows: tqdm's bar where the program has tqdm, else a line of text."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TextIO

from ._control import OnProgress, Progress

_WIDTH = 30


@contextmanager
def shown(progress: OnProgress | bool | None, what: str, out: TextIO | None = None) -> Iterator[OnProgress | None]:
    """The callback of a command: the caller's own, or a bar on standard error that ends with the
    block, or none."""
    if not isinstance(progress, bool):
        yield progress
        return
    if not progress:
        yield None
        return
    bar = _Bar(what, out) if importlib.util.find_spec("tqdm") else Text(what, out or sys.stderr)
    try:
        yield bar
    except BaseException:
        bar.close(done=False)
        raise
    bar.close(done=True)


class Text:
    """A bar of text: one line that is written again and again on a terminal, else a line for each
    change of state."""

    def __init__(self, what: str, out: TextIO) -> None:
        self._what, self._out = what, out
        self._terminal = out.isatty()
        self._last: Progress | None = None
        self._width = 0

    def __call__(self, p: Progress) -> None:
        """Shows how it goes."""
        line = f"{self._what}: {describe(p)}"
        if self._terminal:
            self._out.write("\r" + line.ljust(self._width))
            self._out.flush()
        elif self._last is None or p.status != self._last.status:
            self._out.write(line + "\n")
            self._out.flush()
        self._last, self._width = p, len(line)

    def close(self, done: bool) -> None:
        """Ends the line; of what is done all is done."""
        if self._last is None or not self._terminal:
            return
        if done:
            self(replace(self._last, status="completed", bytes_done=self._last.bytes_total))
        self._out.write("\n")
        self._out.flush()


class _Bar:
    """tqdm's, from when there is something to show."""

    def __init__(self, what: str, out: TextIO | None) -> None:
        self._what, self._out = what, out
        self._bar: Any = None

    def __call__(self, p: Progress) -> None:
        if self._bar is None:
            from tqdm.auto import tqdm

            self._bar = tqdm(desc=self._what, unit="B", unit_scale=True, unit_divisor=1024, file=self._out)
        self._bar.total = p.bytes_total or None
        self._bar.n = p.bytes_done
        self._bar.set_postfix_str(_waiting(p) if p.status == "queued" else "", refresh=False)
        self._bar.refresh()

    def close(self, done: bool) -> None:
        if self._bar is None:
            return
        if done and self._bar.total:
            self._bar.n = self._bar.total
            self._bar.refresh()
        self._bar.close()


def describe(p: Progress) -> str:
    """A state in words."""
    if p.status == "queued":
        return _waiting(p)
    if not p.bytes_total:
        return p.status or "running"
    share = min(1.0, p.bytes_done / p.bytes_total)
    full = round(_WIDTH * share)
    text = f"[{'#' * full}{'.' * (_WIDTH - full)}] {100 * share:3.0f} %  {size(p.bytes_done)} of {size(p.bytes_total)}"
    return text + (f"  {size(p.throughput_bytes_per_second)}/s" if p.throughput_bytes_per_second else "")


def _waiting(p: Progress) -> str:
    return f"waiting, place {p.position}" + (f": {p.reason}" if p.reason else "")


def size(n: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.2f} GiB"
