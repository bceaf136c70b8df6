"""NATS as far as commands need it: one socket, one thread, no event loop. So a command can be sent,
the GPU watched and the answer taken in one loop, with nothing between the moments."""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any


class CommandError(Exception):
    """The node refused: code and details are its own."""

    def __init__(self, action: str, reply: dict[str, Any]) -> None:
        self.code = reply.get("error_code", "")
        self.details = reply.get("details") or {}
        super().__init__(f"{action}: {self.code}: {reply.get('error_message', '')} {self.details or ''}".strip())


class Commands:
    """A connection to a node's NATS server. OSError if it breaks."""

    def __init__(self, url: str, timeout: float = 60.0) -> None:
        host, port = url.removeprefix("nats://").rsplit(":", 1)
        self.timeout = timeout
        self._sock = socket.create_connection((host, int(port)), timeout=timeout)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._inbox = f"_INBOX.gpucheck.{os.urandom(8).hex()}"
        self._next = 0
        self._answers: dict[int, bytes | None] = {}
        self.events: list[dict[str, Any]] = []  # of what was listened to, as they came
        self._line(time.monotonic() + timeout)  # INFO
        hello = {"verbose": False, "pedantic": False, "name": "gpu-check", "lang": "python", "version": "1", "protocol": 1,
                 "headers": True, "no_responders": True}  # fmt: skip
        self._sock.sendall(f"CONNECT {json.dumps(hello)}\r\nSUB {self._inbox}.* 1\r\nPING\r\n".encode())
        while self._line(time.monotonic() + timeout) != b"PONG":
            pass

    def listen(self, subject: str) -> None:
        """Has events kept from now on."""
        self._sock.sendall(f"SUB {subject} 2\r\n".encode())

    def hear(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event that is wanted; waits for it. Those before it are dropped."""
        end = time.monotonic() + self.timeout
        while True:
            while self.events:
                event = self.events.pop(0)
                if wanted(event):
                    return event
            if not self._step(end):
                raise TimeoutError("the event did not come")

    def fileno(self) -> int:
        """For select: readable when an answer may have come."""
        return self._sock.fileno()

    def send(self, action: str, data: dict[str, Any] | None = None) -> int:
        """Gives a command; take fetches its answer by the number."""
        self._next += 1
        payload = json.dumps({"data": data or {}}).encode()
        subject = f"memory.{action}"
        self._sock.sendall(b"PUB %s %s.%d %d\r\n%s\r\n" % (subject.encode(), self._inbox.encode(), self._next, len(payload), payload))
        return self._next

    def poll(self, number: int, seconds: float = 0) -> bool:
        """Whether the answer is there."""
        end = time.monotonic() + seconds
        while number not in self._answers:
            if not self._step(end):
                return False
        return True

    def take(self, number: int, action: str = "command") -> dict[str, Any]:
        """The answer's data; waits for it. CommandError if the node refused, OSError if nobody answers."""
        if not self.poll(number, self.timeout):
            raise TimeoutError(f"{action}: no answer in {self.timeout:g} s")
        text = self._answers.pop(number)
        if text is None:
            raise ConnectionError(f"{action}: no node answers")
        reply = json.loads(text)
        if not reply.get("success"):
            raise CommandError(action, reply)
        return dict(reply.get("data") or {})

    def call(self, action: str, **data: Any) -> dict[str, Any]:
        """Gives a command and follows it to its end."""
        answer = self.take(self.send(action, data), action)
        while answer.get("status") in ("queued", "running") and "operation_id" in answer and "result" not in answer:
            op = self.take(self.send("get_operation", {"operation_id": answer["operation_id"], "wait_ms": 10_000}), action)["operation"]
            if op["status"] in ("failed", "cancelled"):
                raise CommandError(action, op.get("error") or {"error_code": op["status"].upper()})
            answer = op["result"] if op["status"] == "completed" else op
        return answer

    def close(self) -> None:
        """Ends the connection."""
        self._sock.close()

    def _step(self, end: float) -> bool:
        """Takes one message; False if none came before the end."""
        line = self._line(end)
        if line is None:
            return False
        if line == b"PING":
            self._sock.sendall(b"PONG\r\n")
            return True
        word, *fields = line.split()
        if word == b"MSG":
            self._keep(fields, self._bytes(int(fields[-1])))
        elif word == b"HMSG":
            head, body = int(fields[-2]), self._bytes(int(fields[-1]))
            nobody = body[:head].startswith(b"NATS/1.0 503")
            self._keep(fields, None if nobody else body[head:])
        elif word == b"-ERR":
            raise ConnectionError(line.decode(errors="replace"))
        return True

    def _keep(self, fields: list[bytes], body: bytes | None) -> None:
        if fields[1] == b"1":
            self._answers[int(fields[0].rsplit(b".", 1)[1])] = body
        elif body is not None:
            self.events.append(json.loads(body))

    def _line(self, end: float) -> bytes | None:
        while b"\r\n" not in self._buffer:
            if not self._more(end):
                return None
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _bytes(self, n: int) -> bytes:
        end = time.monotonic() + self.timeout
        while len(self._buffer) < n + 2:
            if not self._more(end):
                raise TimeoutError("half a message")
        out, self._buffer = self._buffer[:n], self._buffer[n + 2 :]
        return out

    def _more(self, end: float) -> bool:
        ready, _, _ = select.select([self._sock], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return False
        got = self._sock.recv(1 << 18)
        if not got:
            raise ConnectionError("the server closed the connection")
        self._buffer += got
        return True
