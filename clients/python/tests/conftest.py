"""A real node for the tests: built once, started on a free port, with a small RAM device."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import gpu
import pytest

import isobar

REPOSITORY = Path(__file__).resolve().parents[3]
PATIENCE = 60.0  # seconds that a step may take on a busy machine
MiB = 1 << 20


class Node:
    """A node in a process of its own."""

    def __init__(self, program: Path, folder: Path, *options: str, env: Mapping[str, str] | None = None) -> None:
        self.program, self.folder, self.options, self.env = program, folder, options, dict(env or {})
        self.listen = "127.0.0.1:0"
        self.url = ""
        self.models = folder / "models"
        self.models.mkdir()
        self.process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        """Starts it, at the same address if it ran before, and waits until it is ready."""
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [self.program, "run", "--node", "test", "--listen", self.listen, "--runtime-dir", self.folder / "run",
                 "--state-dir", self.folder / "state", "--model-root", self.models, "--no-jetstream", "--http", "off", "--pressure-signals", "off",
                 *self.options],
                stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True,
                env={k: v for k, v in os.environ.items() if not k.startswith("ISOBAR_")} | self.env,
            )  # fmt: skip
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("  commands"):
                self.url = line.split()[1]
                self.listen = self.url.removeprefix("nats://")
            if line.startswith("Try next"):
                return
        self.stop()
        raise AssertionError("the node did not start:\n" + (self.folder / "log").read_text())

    def kill(self) -> None:
        """Ends it as a crash would."""
        assert self.process is not None and self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self) -> None:
        """Ends it cleanly, unless it has ended."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pass
        self.kill()

    def connect(self, **options: object) -> isobar.Client:
        """A client with the patience of a test."""
        return isobar.connect(self.url, **{"attempts": 8, "connect_timeout": PATIENCE, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def program() -> Iterator[Path]:
    """The node's program: ISOBAR_BIN, or built from these sources. isobar-cuda lies beside it."""
    if given := os.environ.get("ISOBAR_BIN"):
        yield Path(given)
        return
    folder = Path(tempfile.mkdtemp(prefix="isobar"))
    built = folder / "isobar"
    for name, tags in ((built, ""), (folder / "isobar-cuda", "cuda")):
        subprocess.run(
            ["go", "build", "-trimpath", "-tags", tags, "-o", name, "./cmd/node"], cwd=REPOSITORY, check=True, env={**os.environ, "CGO_ENABLED": "0"}
        )
    yield built
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def fake_library() -> Iterator[Path]:
    """The driver of GPUs that are not there."""
    folder = Path(tempfile.mkdtemp(prefix="isobar"))
    yield gpu.build(folder)
    shutil.rmtree(folder)


def _node(program: Path, *options: str, env: Mapping[str, str] | None = None) -> Iterator[Node]:
    # A unix socket's path is short: pytest's own folders are not.
    folder = Path(tempfile.mkdtemp(prefix="isobar"))
    folder.chmod(0o700)
    n = Node(program, folder, *options, env=env)
    try:
        yield n
    finally:
        n.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def shared_node(program: Path) -> Iterator[Node]:
    """A node for tests that leave it as they find it."""
    yield from _node(program, "--ephemeral", "--device", "ram:ram-0=256MiB")


@pytest.fixture
def node(shared_node: Node) -> Iterator[Node]:
    """The shared node; every grant and model is gone again after the test."""
    yield shared_node
    _empty(shared_node)


def _empty(node: Node) -> None:
    with node.connect() as c:
        c.call("cleanup", {"confirm": True, "force": True})  # all but the persistent
        for a in c.call("get_allocations")["allocations"]:
            c.deallocate(a["allocation_id"], force=True)


@pytest.fixture
def own_node(program: Path) -> Iterator[Node]:
    """A node of 64 MiB, of the test's own."""
    yield from _node(program, "--ephemeral", "--device", "ram:ram-0=64MiB")


@pytest.fixture
def lasting_node(program: Path) -> Iterator[Node]:
    """A node with a vault, which can be killed and started again."""
    yield from _node(program, "--device", "ram:ram-0=64MiB", "--vault-timeout", "20s")


def _gpus(folder: Path, library: Path, patch: pytest.MonkeyPatch) -> tuple[dict[str, str], gpu.Fake]:
    """A host's GPUs: what a node is told of them, and this process's view of them."""
    mine = folder / "driver.so"  # under a name of its own it is another driver
    shutil.copy(library, mine)
    settings = {
        "ISOBAR_CUDA_LIBRARY": str(mine), "ISOBAR_NVML_LIBRARY": str(mine), "ISOBAR_FAKE_CUDA_STATE": str(folder / "gpus"),
        "ISOBAR_FAKE_CUDA_DEVICES": "2", "ISOBAR_FAKE_CUDA_BYTES": str(256 * MiB),
    }  # fmt: skip
    for name, value in {**settings, "ISOBAR_FAKE_CUDA_VIEWS": "host"}.items():
        patch.setenv(name, value)
    return settings, gpu.Fake(mine, 2, 256 * MiB, settings["ISOBAR_FAKE_CUDA_STATE"])


@pytest.fixture(scope="module")
def host(program: Path, fake_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, gpu.Fake]]:
    """A node with two GPUs of 256 MiB, for the tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        env, fake = _gpus(tmp_path_factory.mktemp("host"), fake_library, patch)
        for n in _node(program, "--ephemeral", "--device", "ram:ram-0=128MiB", "--gpus", "on", env=env):
            yield n, fake


@pytest.fixture
def gpu_node(host: tuple[Node, gpu.Fake]) -> Iterator[Node]:
    """That node; every grant and model is gone again after the test."""
    yield host[0]
    _empty(host[0])


@pytest.fixture
def driver(host: tuple[Node, gpu.Fake]) -> gpu.Fake:
    """The driver as this process sees it, and its controls."""
    return host[1]


@pytest.fixture
def lasting_gpu_node(
    program: Path, fake_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Node, gpu.Fake]]:
    """A node with GPUs and a vault, which can be killed and started again."""
    env, fake = _gpus(tmp_path, fake_library, monkeypatch)
    for n in _node(program, "--device", "ram:ram-0=64MiB", "--gpus", "on", "--vault-timeout", "20s", env=env):
        yield n, fake


@pytest.fixture
def client(node: Node) -> Iterator[isobar.Client]:
    with node.connect() as c:
        yield c


def wait_for(events: isobar.Events, kind: str, *allocations: str) -> None:
    """Waits until that has happened to each of the allocations."""
    left = set(allocations)
    while left:
        items = events.next(PATIENCE).data.get("items", [])
        left -= {i["allocation_id"] for i in items if i["event"] == kind}


def write_safetensors(path: Path, tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
    """Writes a model by hand: name → dtype, shape, bytes."""
    header: dict[str, object] = {}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(d for _, _, d in tensors.values()))


def python(code: str, *arguments: str) -> str:
    """Runs a program in another Python process; its output."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(Path(isobar.__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
