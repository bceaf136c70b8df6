"""Where the parts run: sizes, folders, the GPUs, and what is started for them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import driver, models
from .node import Node
from .report import Findings

MiB = 1 << 20
GiB = 1 << 30

REST = 0.2  # seconds in which the GPU's driver scrubs what was given back


@dataclass(frozen=True)
class Sizes:
    """How much is moved, and how often."""

    model: models.Shape  # loaded, attached, promoted, demoted
    big: models.Shape  # attached
    unread: models.Shape  # released under pressure
    held: models.Shape  # read while the node is killed
    mixed: tuple[models.Shape, ...]  # loaded and unloaded in turn
    copy: int  # bytes of a raw copy between host and device
    bulk: int  # bytes of a transfer, and of raw clears and copies on the device
    wide: int  # bytes of clear and copy
    step: int  # what a grant has that crosses the threshold
    grant: int  # what the latency of a grant is measured with
    consumer: int  # what a consumer holds when it is killed
    ram: int  # bytes of the RAM device
    rounds: int
    attaches: int
    grants: int
    relieves: int
    node_kills: int
    consumer_kills: int
    cycles: int


FULL = Sizes(
    model=models.Shape("model", 270, 2816, "BF16"), big=models.Shape("big", 250, 8960, "BF16"), unread=models.Shape("unread", 128, 5792, "BF16"),
    held=models.Shape("held", 256, 2048, "BF16"),
    mixed=tuple(models.Shape(f"mixed-{i}", layers, width, "BF16") for i, (layers, width) in enumerate(((8, 512), (16, 1024), (12, 2048), (16, 3072)))),
    copy=4 * GiB, bulk=12 * GiB, wide=24 * GiB, step=GiB, grant=64 * MiB, consumer=4 * GiB, ram=20 * GiB,
    rounds=7, attaches=200, grants=2000, relieves=50, node_kills=100, consumer_kills=200, cycles=1000,
)  # fmt: skip

TINY = Sizes(
    model=models.Shape("model", 6, 256, "F16"), big=models.Shape("big", 8, 256, "F16"), unread=models.Shape("unread", 4, 2048, "F16"),
    held=models.Shape("held", 4, 256, "F16"), mixed=tuple(models.Shape(f"mixed-{i}", 2 + i, 256 * (1 + i), "F16") for i in range(3)),
    copy=4 * MiB, bulk=16 * MiB, wide=32 * MiB, step=8 * MiB, grant=2 * MiB, consumer=32 * MiB, ram=128 * MiB,
    rounds=1, attaches=3, grants=20, relieves=1, node_kills=2, consumer_kills=2, cycles=6,
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What the command line says; it is handed to the processes of the parts as it is."""

    out: Path  # results, logs, unpacked programs
    programs: Path  # isobar, isobar-cuda, bus-test, cuda.test
    scratch: Path  # model files, in a file system with a page cache
    big_scratch: Path  # the large one
    fake: str  # the fake driver's library; "" is the machine's own driver
    tiny: bool


class World:
    """What a part works with. Everything that it starts is ended by close."""

    def __init__(self, setting: Setting, findings: Findings) -> None:
        self.setting, self.findings = setting, findings
        self.sizes = TINY if setting.tiny else FULL
        if setting.fake:
            os.environ |= fake_environment(setting)
        self._log = setting.out / f"node-{findings.data['part']}.log"
        self._log.unlink(missing_ok=True)
        self.cuda = driver.CUDA(setting.fake or "libcuda.so.1")
        self.nvml = driver.NVML(setting.fake or "libnvidia-ml.so.1")
        # A unix socket's path is short: it does not lie below what the user named.
        self.folder = Path(tempfile.mkdtemp(prefix="gpucheck"))
        self._ends: list[Callable[[], None]] = [lambda: shutil.rmtree(self.folder, ignore_errors=True)]

    def say(self, text: str) -> None:
        """For whoever watches."""
        print(f"[{self.findings.data['part']}] {text}", file=sys.stderr, flush=True)

    def file(self, shape: models.Shape) -> Path:
        """The model's file, in the page cache."""
        folder = self.setting.big_scratch if shape is self.sizes.big else self.setting.scratch
        folder.mkdir(parents=True, exist_ok=True)
        return models.write(shape, folder)

    def used(self, ordinal: int = 0) -> int:
        """What the driver says is in use of a GPU."""
        if not hasattr(self, "_handles"):
            self._handles: dict[int, Any] = {}
        if ordinal not in self._handles:
            self._handles[ordinal] = self.nvml.device(self.cuda.uuid(ordinal))
        return self.nvml.used(self._handles[ordinal])

    def node(self, *options: str, gpu: int | None = None, gpus: int = 1, ram: int | None = None) -> Node:
        """Starts a node with so many GPUs, limited to gpu bytes each if that is said, and RAM."""
        sized = "" if gpu is None else f"={gpu // MiB}MiB"
        devices = [f"cuda:gpu-{i}{sized}" for i in range(gpus)]
        devices.append(f"ram:ram-0={(self.sizes.ram if ram is None else ram) // MiB}MiB")
        folder = Path(tempfile.mkdtemp(prefix="n", dir=self.folder))
        roots = {self.setting.scratch, self.setting.big_scratch}
        for root in roots:
            root.mkdir(parents=True, exist_ok=True)
        n = Node(
            self.setting.programs / "isobar", folder, self._log,
            [f"--device={d}" for d in devices] + [f"--model-root={r}" for r in sorted(roots)] + list(options),
        )  # fmt: skip
        self._ends.append(n.stop)
        n.start()
        return n

    def torch(self) -> Any:
        """PyTorch with a GPU; None where there is none, or no GPU."""
        if self.setting.fake:
            return None
        import torch

        torch.zeros(1, device="cuda").sum().item()  # makes the context
        return torch

    def at_end(self, end: Callable[[], None]) -> None:
        """Has something done when the part ends."""
        self._ends.append(end)

    def close(self) -> None:
        """Ends what was begun, the last first."""
        for end in reversed(self._ends):
            try:
                end()
            except Exception as e:  # the next ends must have their turn
                self.say(f"at the end: {e}")


def fake_environment(setting: Setting) -> dict[str, str]:
    """What makes this process and all that it starts use the fake driver, one for all of them."""
    return {
        "ISOBAR_CUDA_LIBRARY": setting.fake,
        "ISOBAR_NVML_LIBRARY": setting.fake,
        "ISOBAR_FAKE_CUDA_DEVICES": "2",
        "ISOBAR_FAKE_CUDA_BYTES": str(512 * MiB),
        "ISOBAR_FAKE_CUDA_STATE": str(setting.out / "fake-state"),
        "ISOBAR_FAKE_CUDA_VIEWS": "host",  # the client shows its memory as what it is
    }
