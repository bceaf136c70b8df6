"""The raw figures: what the driver does without Isobar."""

from __future__ import annotations

import ctypes as c
from functools import partial

from .driver import Memory, Pinned, rate
from .report import median
from .world import World


def pinned(w: World) -> Pinned:
    """The pinned copy that a part compares with; samples are taken between its own."""
    p = Pinned(w.cuda, 0, w.sizes.copy)
    w.at_end(p.free)
    p.sample()  # the first is slow
    p.samples.clear()
    return p


def run(w: World) -> None:
    """Pinned copies, memset and copies on the device."""
    p = pinned(w)
    for _ in range(w.sizes.rounds):
        p.sample()
    for kind, samples in p.samples.items():
        w.findings.raw(kind, samples)
    w.findings.line("pinned_h2d", p.best("h2d"), w.sizes.rounds)
    w.findings.line("pinned_d2h", p.best("d2h"), w.sizes.rounds)
    fills, copies = Bulk(w), Bulk(w)
    for _ in range(w.sizes.rounds):
        fills.fill()
        copies.copy(fills)
    w.findings.line("raw_fill", median(fills.rates), w.sizes.rounds)
    w.findings.line("raw_copy", median(copies.rates), w.sizes.rounds)
    fills.free()
    copies.free()


class Bulk:
    """Memory that is filled, or copied to, and how fast that went."""

    def __init__(self, w: World) -> None:
        w.cuda.use(0)
        self._cuda, self.size = w.cuda, w.sizes.bulk
        self._memory = Memory(w.cuda, 0, self.size)
        self._stream = w.cuda.stream()
        self.rates: list[float] = []

    def fill(self) -> None:
        """Sets all of it, once unmeasured."""
        give = partial(self._cuda.call, "cuMemsetD8Async", self._memory.at, c.c_ubyte(7), c.c_size_t(self.size), self._stream)
        self._sample(give)

    def copy(self, other: Bulk) -> None:
        """Copies all of another to it."""
        give = partial(self._cuda.call, "cuMemcpyDtoDAsync_v2", self._memory.at, other._memory.at, c.c_size_t(self.size), self._stream)
        self._sample(give)

    def _sample(self, give: object) -> None:
        if not self.rates:
            rate(self._cuda, self._stream, self.size, give, 1)
        self.rates.append(rate(self._cuda, self._stream, self.size, give, 1))

    def free(self) -> None:
        """Gives it back."""
        self._memory.free()
