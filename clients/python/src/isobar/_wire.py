"""The wire of the data socket: frames of MessagePack with descriptors beside them.

A message is a 4-byte big-endian length and one MessagePack map; descriptors ride as SCM_RIGHTS
on any byte of it. A read never crosses the end of a frame, so that descriptors cannot stray
into the next one. Everything here runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from .errors import Disconnected, ProtocolError

MAX_FRAME = 1 << 20
_MAX_FDS = 253  # the kernel's SCM_MAX_FD
_MAX_QUEUED = 4 << 20  # bytes that a node which does not read may leave waiting


class Frame:
    """A message as received. Its descriptors are the receiver's: take what is wanted, close the rest."""

    def __init__(self, body: dict[str, Any], fds: list[int]) -> None:
        self.body = body
        self.fds = fds

    def take(self, index: object) -> int:
        """The descriptor of that index, which is the caller's from now on."""
        if not isinstance(index, int) or not 0 <= index < len(self.fds) or self.fds[index] < 0:
            raise ProtocolError(f"descriptor {index!r} did not come with the message")
        fd, self.fds[index] = self.fds[index], -1
        return fd

    def close(self) -> None:
        """Closes the descriptors that nobody took."""
        for fd in self.fds:
            if fd >= 0:
                os.close(fd)
        self.fds = []


class Connection:
    """A connected data socket on the running loop.

    ``on_frame`` is called with each message, ``on_close`` once, with the reason, when the
    connection ends for any other reason than :meth:`close`.
    """

    def __init__(self, sock: socket.socket, on_frame: Callable[[Frame], None], on_close: Callable[[Exception], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._on_frame = on_frame
        self._on_close = on_close
        self._want = 4
        self._body = False  # the header has been read
        self._got = bytearray()
        self._fds: list[int] = []
        self._out: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._queued = 0
        self.closed = False
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    @classmethod
    async def open(cls, path: str, on_frame: Callable[[Frame], None], on_close: Callable[[Exception], None]) -> Connection:
        """Connects to the socket at path; OSError where nobody listens."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, path)
            return cls(sock, on_frame, on_close)
        except BaseException:
            sock.close()
            raise

    def fileno(self) -> int:
        """The socket's descriptor; -1 once closed."""
        return self._sock.fileno()

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Sends, or queues what the socket does not take at once. The descriptors are duplicated."""
        if self.closed:
            raise Disconnected("the connection to the node is closed")
        body = msgpack.packb(message, use_bin_type=True)
        if len(body) > MAX_FRAME:
            raise ProtocolError(f"a message of {len(body)} bytes, at most {MAX_FRAME}")
        packet = struct.pack(">I", len(body)) + body
        if self._queued + len(packet) > _MAX_QUEUED:
            self._fail(Disconnected("the node does not read"))
            raise Disconnected("the node does not read")
        mine = tuple(os.dup(fd) for fd in fds)
        self._out.append((packet, mine))
        self._queued += len(packet)
        if len(self._out) == 1:
            self._flush()

    def close(self) -> None:
        """Ends the connection; on_close is not called."""
        if self.closed:
            return
        self.closed = True
        fd = self._sock.fileno()
        self._loop.remove_reader(fd)
        self._loop.remove_writer(fd)
        self._sock.close()
        for _, fds in self._out:
            _close_all(fds)
        self._out.clear()
        _close_all(self._fds)
        self._fds = []

    def _fail(self, reason: Exception) -> None:
        if not self.closed:
            self.close()
            self._on_close(reason)

    def _flush(self) -> None:
        while self._out:
            packet, fds = self._out[0]
            try:
                ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
                sent = self._sock.sendmsg([packet], ancillary)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._sock.fileno(), self._flush)
                return
            except OSError as e:
                self._fail(Disconnected(f"the connection to the node broke: {e}"))
                return
            self._queued -= sent
            _close_all(fds)
            if sent == len(packet):
                self._out.popleft()
            else:
                self._out[0] = (packet[sent:], ())
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        # A bounded number of reads, so that a stream of messages does not starve the loop.
        for _ in range(64):
            if self.closed or not self._read_some():
                return

    def _read_some(self) -> bool:
        try:
            data, fds, flags, _ = socket.recv_fds(
                self._sock, self._want - len(self._got), _MAX_FDS, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as e:
            self._fail(Disconnected(f"the connection to the node broke: {e}"))
            return False
        self._fds.extend(fds)
        if flags & socket.MSG_CTRUNC:
            self._fail(OSError(errno.EMFILE, "descriptors were lost on their way: the process has too many open"))
            return False
        if not data:
            self._fail(Disconnected("the node closed the connection"))
            return False
        self._got += data
        if len(self._got) < self._want:
            return True
        got, self._got = bytes(self._got), bytearray()
        try:
            if self._body:
                self._body, self._want = False, 4
                self._deliver(got)
            else:
                (self._want,) = struct.unpack(">I", got)
                self._body = True
                if not 1 <= self._want <= MAX_FRAME:
                    raise ProtocolError(f"a message of {self._want} bytes, at most {MAX_FRAME}")
        except ProtocolError as e:
            self._fail(e)
            return False
        return True

    def _deliver(self, body: bytes) -> None:
        fds, self._fds = self._fds, []
        frame = Frame({}, fds)
        try:
            try:
                message = _unpack(body)
            except (ValueError, TypeError, msgpack.exceptions.UnpackException) as e:
                raise ProtocolError(f"the node's message is no MessagePack: {e}") from e
            if not isinstance(message.get("type"), str):
                raise ProtocolError("the node's message is no map with a type")
            frame.body = message
            self._on_frame(frame)
        finally:
            frame.close()


# What is left as it came: a model's tensors are many, and not looked at on the way.
_PACKED = "tensors"


def _unpack(body: bytes) -> dict[str, Any]:
    """A message; what is under _PACKED stays MessagePack."""
    u = msgpack.Unpacker(max_buffer_size=MAX_FRAME)
    u.feed(body)
    message: dict[str, Any] = {}
    for _ in range(u.read_map_header()):
        key = u.unpack()
        at = u.tell()
        if key == _PACKED:
            u.skip()
            message[key] = body[at : u.tell()]
        else:
            message[key] = u.unpack()
    if u.tell() != len(body):
        raise ValueError("there is more behind the message")
    return message


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
