"""The program: the parts one after the other, each in a process of its own with a limit of time."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tarfile
import time
import traceback
import zipfile
from pathlib import Path

from . import attach, copies, cycles, driver, grants, killconsumer, killnode, load, pressure, raw, report, suite, tiers
from .steal import Steal
from .world import Setting, World, fake_environment

# In the order in which they run, with the longest that each may take, in seconds.
PARTS = {
    "raw": (raw.run, 120),
    "load": (load.run, 300),
    "tiers": (tiers.run, 240),
    "attach": (attach.run, 300),
    "copies": (copies.run, 120),
    "peer": (copies.run_peer, 180),
    "grants": (grants.run, 240),
    "pressure": (pressure.run, 480),
    "node-kill": (killnode.run, 540),
    "consumer-kill": (killconsumer.run, 540),
    "cycles": (cycles.run, 480),
    "attach-big": (attach.run_big, 480),
    "driver": (suite.run, 300),
}


def main(program: Path) -> int:
    """See gpu-check."""
    p = argparse.ArgumentParser(prog="gpu-check", description="Measures Isobar on a GPU host.")
    p.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)}; everything if none is named")
    p.add_argument("--out", type=Path, default=Path("gpu-check-results"), help="the folder of the results")
    p.add_argument("--programs", type=Path, help="the folder of isobar, isobar-cuda and bus-test; else they are unpacked from beside this script")
    p.add_argument("--scratch", type=Path, help="where model files are made: 15 GB, and the page cache must have room for them; OUT/models if not said")
    p.add_argument("--big-scratch", type=Path, help="the same for the model of 40 GB; the same folder if not said")
    p.add_argument("--fake", type=Path, help="the fake driver's library, in place of the machine's GPU")
    p.add_argument("--tiny", action="store_true", help="sizes that show that everything works, and no more")
    p.add_argument("--again", action="store_true", help="measure also what is done")
    p.add_argument("--report", action="store_true", help="measure nothing, print what is there")
    p.add_argument("--budget", type=float, default=float("inf"), help="begin no part after so many seconds")
    p.add_argument("--run-part", help=argparse.SUPPRESS)
    a = p.parse_args()
    if unknown := [x for x in a.parts if x not in PARTS]:
        p.error(f"no part is called {', '.join(unknown)}")
    out = a.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    scratch = (a.scratch or out / "models").resolve()
    setting = Setting(
        out=out, programs=(a.programs or out / "programs").resolve(), scratch=scratch, big_scratch=(a.big_scratch or scratch).resolve(),
        fake=str(a.fake.resolve()) if a.fake else "", tiny=a.tiny,
    )  # fmt: skip
    unpack(program.parent, setting, given=a.programs is not None)
    if a.run_part:
        return run_part(a.run_part, setting)
    chosen = tuple(a.parts) or tuple(PARTS)
    if not a.report:
        measure(program, chosen, setting, a.again, a.budget)
    result = report.collect(out, hardware(setting), chosen if a.parts else tuple(PARTS))
    (out / "gpu-check.json").write_text(json.dumps(result, indent=1) + "\n")
    text = report.table(result)
    (out / "gpu-check.md").write_text(text)
    print(text)
    failed = any(f["state"] != "done" for f in result["parts"].values()) or any(r["verdict"] == "missed" for r in result["lines"])
    return 1 if failed else 0


def unpack(beside: Path, setting: Setting, given: bool) -> None:
    """Programs, the client and wheels, once; what the machine's Python has itself is preferred."""
    if not given and not (setting.programs / "isobar").exists():
        with tarfile.open(beside / "programs.tar.gz") as t:
            t.extractall(setting.programs, filter="data")
    site = setting.out / "site"
    for wheel in sorted((beside / "wheels").glob("*.whl")):
        if not (site / f".{wheel.name}").exists():
            with zipfile.ZipFile(wheel) as z:
                z.extractall(site)
            (site / f".{wheel.name}").touch()
    for folder in (beside / "client", site):
        if folder.exists():
            sys.path.append(str(folder))


def measure(program: Path, chosen: tuple[str, ...], setting: Setting, again: bool, budget: float) -> None:
    """Runs the parts that are wanted."""
    began = time.monotonic()
    for part in chosen:
        path = setting.out / f"part-{part}.json"
        if not again and path.exists() and json.loads(path.read_text())["state"] == "done":
            print(f"[{part}] is done already", file=sys.stderr)
            continue
        if time.monotonic() - began > budget:
            print(f"[{part}] is not begun: no time is left", file=sys.stderr)
            continue
        command = [sys.executable, str(program), *sys.argv[1:], "--run-part", part]
        # A session of its own, so that all of it can be ended: a part may have started processes.
        process = subprocess.Popen(command, start_new_session=True)
        limit = min(PARTS[part][1], max(30.0, budget - (time.monotonic() - began)))
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            _ended(path, part, setting, f"ended after {limit:.0f} s, its limit")
        finally:
            _end_all(process)
        if process.returncode != 0:
            _ended(path, part, setting, f"it ended with {process.returncode}")


def _end_all(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _ended(path: Path, part: str, setting: Setting, cause: str) -> None:
    data = json.loads(path.read_text()) if path.exists() else {"part": part, "simulated": bool(setting.fake), "lines": {}, "raw": {}, "notes": []}
    if data.get("state") in (None, "running"):
        path.write_text(json.dumps(data | {"state": "failed", "cause": cause}, indent=1))


def run_part(part: str, setting: Setting) -> int:
    """One part, in this process."""
    findings = report.Findings(setting.out / f"part-{part}.json", part, bool(setting.fake))
    began, steal = time.monotonic(), Steal()
    try:
        w = World(setting, findings)
    except Exception as e:
        findings.end("failed", 0, f"{type(e).__name__}: {e}")
        return 1
    try:
        PARTS[part][0](w)
        findings.steal(steal.share())
        findings.end("done", time.monotonic() - began)
        return 0
    except Exception as e:
        traceback.print_exc()
        findings.end("failed", time.monotonic() - began, f"{type(e).__name__}: {e}"[:1000])
        return 1
    finally:
        w.close()


def hardware(setting: Setting) -> dict[str, object]:
    """Where it was measured."""
    if setting.fake:
        os.environ |= fake_environment(setting)
    try:
        cuda, nvml = driver.CUDA(setting.fake or "libcuda.so.1"), driver.NVML(setting.fake or "libnvidia-ml.so.1")
        gpus: list[str] = [f"{cuda.name(i)}, {cuda.total(i) >> 20} MiB" for i in range(cuda.count())]
        version = nvml.driver_version()
    except (OSError, driver.DriverError) as e:
        gpus, version = [f"none: {e}"], ""
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "gpus": gpus, "driver": version, "cpus": os.cpu_count(), "cpu": model,
        "memory_bytes": pages, "kernel": platform.release(), "python": platform.python_version(),
    }  # fmt: skip
