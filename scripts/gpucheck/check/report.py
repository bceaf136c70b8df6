"""What was found: one file for each part, from which the table and the one JSON are made."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from .lines import LINES, Line


def quantile(samples: list[float], q: float) -> float:
    """By the nearest rank."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def median(samples: list[float]) -> float:
    """The middle one, or the mean of the two."""
    ordered = sorted(samples)
    n = len(ordered)
    return ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2


def summary(samples: list[float]) -> dict[str, float]:
    """What is kept of samples."""
    if not samples:
        return {"n": 0}
    return {"n": len(samples), "min": min(samples), "p50": median(samples), "p90": quantile(samples, 0.9), "p99": quantile(samples, 0.99), "max": max(samples)}


class Findings:
    """What one part finds. It is written after every figure, so that a part which is ended has said
    what it knew."""

    def __init__(self, path: Path, part: str, simulated: bool) -> None:
        self.path = path
        self.data: dict[str, Any] = {"part": part, "simulated": simulated, "state": "running", "lines": {}, "raw": {}, "notes": []}
        self._write()

    def line(self, key: str, value: float | None, n: int = 1, cause: str = "") -> None:
        """A figure; None where there is none, and then cause says why. Of a figure that falls short
        cause says what is known of it."""
        if key not in {line.key for line in LINES}:
            raise KeyError(key)
        self.data["lines"][key] = {"value": value, "n": n, "cause": cause}
        self._write()

    def raw(self, key: str, value: Any) -> None:
        """What a figure was made of; lists of samples are kept as a summary."""
        self.data["raw"][key] = summary(value) if isinstance(value, list) else value
        self._write()

    def note(self, text: str) -> None:
        """What a reader of the figures should know."""
        self.data["notes"].append(text)
        self._write()

    def steal(self, share: float) -> None:
        """What share of the processor time that was wanted the host gave to others."""
        self.data["steal"] = round(share, 4)
        self._write()

    def end(self, state: str, seconds: float, cause: str = "") -> None:
        """done or failed."""
        self.data |= {"state": state, "seconds": round(seconds, 1), "cause": cause}
        self._write()

    def _write(self) -> None:
        part = self.path.with_suffix(".new")
        part.write_text(json.dumps(self.data, indent=1))
        os.replace(part, self.path)


def collect(folder: Path, hardware: dict[str, Any], parts: tuple[str, ...]) -> dict[str, Any]:
    """The one JSON: every line with its target and verdict, and what the parts found beside."""
    found: dict[str, dict[str, Any]] = {}
    for part in parts:
        path = folder / f"part-{part}.json"
        if path.exists():
            found[part] = json.loads(path.read_text())
    lines = [_row(line, found.get(line.part)) for line in LINES if line.part in parts]
    return {
        "hardware": hardware,
        "simulated": any(f["simulated"] for f in found.values()),
        "lines": lines,
        "parts": {k: {key: v for key, v in f.items() if key != "lines"} for k, f in found.items()},
    }


def _row(line: Line, part: dict[str, Any] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"key": line.key, "what": line.what, "unit": line.unit, "target": line.target}
    got = part["lines"].get(line.key) if part else None
    if got is None or got["value"] is None:
        cause = got["cause"] if got else "the part was not run" if part is None else part.get("cause") or f"the part is {part['state']}"
        return row | {"value": None, "n": 0, "verdict": "not run", "cause": cause}
    verdict = "simulated" if part and part["simulated"] else line.verdict(got["value"])
    return row | {"value": got["value"], "n": got["n"], "verdict": verdict, "cause": got["cause"]}


_CAUSE = 200  # what a cell has room for; the JSON has all of it


def table(result: dict[str, Any]) -> str:
    """The table, as Markdown: it is read on a terminal and goes into docs/benchmarks."""
    out = ["| line | target | measured | n | |", "|---|---|---:|---:|---|"]
    for r in result["lines"]:
        cause = " ".join(r["cause"].split()).replace("|", "/")
        verdict = r["verdict"] + (f": {cause[:_CAUSE]}" if cause and r["verdict"] != "met" else "")
        out.append(f"| {r['what']} | {r['target']} | {_shown(r)} | {r['n'] or ''} | {verdict} |")
    stolen = ", ".join(f"{name} {100 * part['steal']:.1f} %" for name, part in result["parts"].items() if "steal" in part)
    if stolen:
        out += ["", f"Of the processor time that this machine wanted its host gave to others (steal): {stolen}."]
    if result["simulated"]:
        out += ["", "simulated: true. No GPU was there; the figures show that the programs work, and nothing else."]
    return "\n".join(out) + "\n"


def _shown(row: dict[str, Any]) -> str:
    v = row["value"]
    if v is None:
        return "–"
    if row["unit"] == "yes":
        return "yes" if v == 1 else "no"
    text = f"{v:.3g}" if abs(v) < 100 else f"{v:.0f}"
    return f"{text} {row['unit']}".strip()
