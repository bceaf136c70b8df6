"""A node in a process of its own, started and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from .wire import Commands

PATIENCE = 90.0  # seconds that a start may take on a busy machine


class Node:
    """A node and its vault. Made by World.node."""

    def __init__(self, program: Path, folder: Path, log: Path, options: list[str]) -> None:
        self._program, self._folder, self._log, self._options = program, folder, log, options
        self._listen = "127.0.0.1:0"
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The node's process."""
        assert self._process is not None
        return self._process.pid

    def launch(self) -> float:
        """Starts the process without waiting; returns the moment."""
        out = self._folder / "said"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ISOBAR_") or "FAKE" in k or k.endswith("_LIBRARY")}
        with out.open("wb") as said, self._log.open("ab") as log:
            began = time.perf_counter()
            self._process = subprocess.Popen(
                [self._program, "run", "--node=gpucheck", f"--listen={self._listen}", f"--runtime-dir={self._folder / 'run'}",
                 f"--state-dir={self._folder / 'state'}", "--no-jetstream", "--http=off", "--pressure-signals=off", "--vault-timeout=60s", *self._options],
                stdin=subprocess.DEVNULL, stdout=said, stderr=log, env=environment,
            )  # fmt: skip
        return began

    def start(self) -> float:
        """Starts it, at the same address if it ran before, and waits until it answers; returns how
        long that took, in seconds."""
        began = self.launch()
        if not self.url:
            self._find_address()
        return self.wait_answer(began)

    def _find_address(self) -> None:
        assert self._process is not None
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            for line in (self._folder / "said").read_text().splitlines():
                if line.startswith("  commands"):
                    self.url = line.split()[1]
                    self._listen = self.url.removeprefix("nats://")
                    return
            time.sleep(0.005)
        raise RuntimeError(f"the node did not start; {self._log} ends: {self._log.read_text()[-800:]}")

    def wait_answer(self, began: float) -> float:
        """Asks until the node answers; returns the seconds since began."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                c = Commands(self.url, timeout=10)
                try:
                    c.call("get_status", device_id="all", include_allocations=False)
                    return time.perf_counter() - began
                finally:
                    c.close()
            except (OSError, TimeoutError):
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"the node does not answer; {self._log} ends: {self._log.read_text()[-800:]}") from None
                time.sleep(0.002)

    def commands(self) -> Commands:
        """A connection of its own."""
        return Commands(self.url)

    def kill(self) -> None:
        """Ends the node as a crash would; the vault lives on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ends it, and gives back what it holds."""
        if self._process is None:
            return
        if self._process.poll() is None:
            try:
                c = self.commands()
                c.call("cleanup", confirm=True, force=True)
                c.close()
            except Exception:  # it ends anyway, and its vault after it
                pass
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None
