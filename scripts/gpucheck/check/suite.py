"""The driver's conformance suite, as a compiled test."""

from __future__ import annotations

import os
import subprocess

from .world import World


def run(w: World) -> None:
    """On the machine's GPU; on the fake driver the project's own tests do that."""
    if w.setting.fake:
        w.findings.line("driver_suite", None, cause="the project's tests run it on the fake driver")
        return
    log = w.setting.out / "driver-suite.log"
    with log.open("w") as out:
        done = subprocess.run(
            [w.setting.programs / "cuda.test", "-test.v", "-test.timeout=300s", "-test.skip=TestFigures"],
            stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "ISOBAR_CUDA": "real"}, cwd=w.folder,
        )  # fmt: skip
    text = log.read_text()
    passed = text.count("--- PASS")
    failed = [line.strip() for line in text.splitlines() if "--- FAIL" in line]
    w.findings.raw("passed", passed)
    w.findings.line("driver_suite", float(done.returncode == 0 and passed > 0), passed, "; ".join(failed)[:400])
