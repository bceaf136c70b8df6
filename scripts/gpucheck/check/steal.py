"""Processor time that a virtual machine wanted and its host gave to others.

Whoever waits for it stands still for some milliseconds, in the middle of anything: figures of the
slowest of hundreds say as much of the host then as of what is measured.
"""

from __future__ import annotations

from pathlib import Path

_WORK = (0, 1, 2, 5, 6)  # user, nice, system, irq and softirq of the first line of /proc/stat
_STEAL = 7


class Steal:
    """What it comes to from now on."""

    def __init__(self) -> None:
        self._before = _times()

    def share(self) -> float:
        """Of all that was wanted, 0 to 1."""
        spent = [b - a for a, b in zip(self._before, _times(), strict=True)]
        wanted = sum(spent[i] for i in _WORK) + spent[_STEAL]
        return spent[_STEAL] / wanted if wanted else 0.0


def _times() -> list[int]:
    return [int(v) for v in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
