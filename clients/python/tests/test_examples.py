"""The examples, on a GPU of the fake driver; examples/ has them on RAM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gpu
import isobar
import pytest
from conftest import REPOSITORY, Node


@pytest.mark.parametrize("example, says", [("share.py", "on gpu-0 now: generator\n"), ("pipeline.py", "on gpu-0: equal bit by bit\n")])
def test_example(gpu_node: Node, driver: gpu.Fake, example: str, says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-B", REPOSITORY / "examples" / "pytorch" / example, "--url", gpu_node.url], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(isobar.__file__).parents[1]), "ISOBAR_RUNTIME_DIR": str(gpu_node.folder / "run")},
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.endswith(says), done.stdout + done.stderr
