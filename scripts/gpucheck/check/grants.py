"""What a grant of 64 MiB costs beside a raw echo: from spares, and cold. The client is bus-test's:
the time that Python takes would hide the node's."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from .world import MiB, World


def run(w: World) -> None:
    """Two nodes: one that keeps spares of that size, one that keeps nothing."""
    size = w.sizes.grant
    warm = _measure(w, f"--warm={size // MiB}MiB:4", f"--pool-bytes={16 * size // MiB}MiB")
    w.findings.raw("from spares, µs", warm)
    w.findings.line("grant_over_echo", warm["allocate"]["p50_us"] / warm["echo"]["p50_us"], warm["allocate"]["count"])
    cold = _measure(w, "--warm=1MiB:0", "--pool-bytes=0")
    w.findings.raw("cold, µs", cold)
    w.findings.line("grant_cold_over_echo", (cold["allocate"]["p50_us"] - cold["echo"]["p50_us"]) / 1e3, cold["allocate"]["count"])


def _measure(w: World, *options: str) -> dict[str, Any]:
    node = w.node(*options)
    try:
        done = subprocess.run(
            [w.setting.programs / "bus-test", "grants", f"--nats-url={node.url}", "--device=gpu-0", f"--size={w.sizes.grant}", f"--count={w.sizes.grants}"],
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"bus-test grants: {done.stderr[-400:]}")
        return dict(json.loads(done.stdout))
    finally:
        node.stop()
