"""Room for descriptors is made before they come."""

from __future__ import annotations

import os
import subprocess
import sys

_PROGRAM = """
import os, resource, sys
from isobar import _room
def room():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("FDSize")))
soft = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
before, files = room(), len(os.listdir("/proc/self/fd"))
_room._make()
assert len(os.listdir("/proc/self/fd")) == files
print(before, room())
"""


def _after(soft: int) -> tuple[int, int]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run([sys.executable, "-c", _PROGRAM, str(soft)], capture_output=True, text=True, check=True, env=env).stdout
    before, after = map(int, said.split())
    return before, after


def test_there_is_room() -> None:
    before, after = _after(4096)
    assert before < 1024 <= after


def test_no_more_than_the_process_may_have() -> None:
    before, after = _after(400)
    assert before < 400 <= after <= 512
