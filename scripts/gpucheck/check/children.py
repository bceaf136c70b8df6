"""Processes of our own: one that attaches, one that reads, one that is killed, one that is busy.
They are told what to do on standard input, one JSON object a line, and answer so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PATIENCE = 120.0


class Child:
    """One of them, seen from the part that started it."""

    def __init__(self, setting: Any, role: str, log: Path, **arguments: Any) -> None:
        program = [sys.executable, str(Path(__file__).with_name("child.py")), json.dumps({"role": role, "fake": setting.fake, **arguments})]
        with log.open("ab") as errors:
            self.process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        self._role, self._log = role, log

    def tell(self, word: str, **arguments: Any) -> None:
        """Says something to it."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": word, **arguments}).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Its next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise RuntimeError(f"the {self._role} ended with {self.process.returncode}: {self._log.read_text()[-800:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"the {self._role}: {answer['error']}")
        return dict(answer)

    def ask(self, word: str, **arguments: Any) -> dict[str, Any]:
        """tell and hear."""
        self.tell(word, **arguments)
        return self.hear()

    def end(self) -> None:
        """Ends it, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for f in (self.process.stdin, self.process.stdout):
            if f is not None:
                f.close()
