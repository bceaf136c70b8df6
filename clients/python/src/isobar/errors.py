"""What can go wrong, as exceptions.

A refusal of a node is a :class:`NodeError` with the code of the wire contract; its class is the
family of the code, so that a program catches what it can do something about::

    try:
        buffer = client.allocate(64 << 30)
    except isobar.OutOfMemory as e:
        print(e.details["shortfall_bytes"], e.details["holders"])

What the client itself finds wrong is another :class:`IsobarError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class IsobarError(Exception):
    """The base of every error of this package."""


class NodeError(IsobarError):
    """A node refused a command, or no node could be asked.

    ``code``, ``message`` and ``status`` are the contract's error_code, error_message and
    status_code; ``details`` is what the node adds to them.
    """

    def __init__(self, code: str, message: str, status: int = 0, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status or STATUS.get(code, 500)
        self.details: dict[str, Any] = dict(details or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, self.message, self.status, self.details)


class InvalidRequest(NodeError, ValueError):
    """The command makes no sense to the node: ``details["field"]`` names what is wrong."""


class NotAllowed(NodeError, PermissionError):
    """The caller is not known, or may not do this."""


class NotFound(NodeError, LookupError):
    """There is no such device, allocation, model, operation or transfer; or another tenant has it."""


class StaleHandle(NotFound):
    """What the claim stood for is gone, or the claim is used or too old: ask for a new one."""


class Conflict(NodeError):
    """The command contradicts what is there, or several nodes answer and none was named."""


class InUse(Conflict):
    """Others hold the model or allocation, and force was not given."""


class InvalidModel(NodeError):
    """The file is not a sound model, or cannot be read by the node."""


class QuotaExceeded(NodeError):
    """The hard limit of the tenant."""


class Busy(NodeError):
    """The node has too much to do: ``details["retry_after_ms"]`` says when to come again."""


class Cancelled(NodeError):
    """The command was cancelled by a client."""


class OutOfMemory(NodeError, MemoryError):
    """No room before the deadline, or never; ``details`` has the shortfall and who holds the bytes."""


class Unavailable(NodeError, ConnectionError):
    """No node answers, the node is stopping, or the device is lost."""


class InternalError(NodeError):
    """A defect of the node, or a copy that failed."""


class Disconnected(IsobarError, ConnectionError):
    """The data socket's connection ended before the answer came; a claim that was on its way is spent."""


class Closed(IsobarError):
    """The client, buffer, model or subscription was closed."""


class Revoked(Closed):
    """The node took the memory back; the error says why."""


class Forked(IsobarError):
    """The object belongs to the process that this one was forked from: connect anew."""


class UnsupportedMemory(IsobarError):
    """This process cannot map the grant, or not show it so: the error says why, and what to do."""


class CUDAError(IsobarError, RuntimeError):
    """A call of the CUDA driver failed: ``call``, CUDA's ``code`` and its ``name``. After an error
    that is ``sticky`` this process can use the GPU no more, and has to be started anew."""

    def __init__(self, call: str, code: int, name: str = "", sticky: bool = False) -> None:
        end = "; this process cannot use the GPU any more: start it anew" if sticky else ""
        super().__init__(f"{call}: {name or f'CUDA error {code}'}{end}")
        self.call, self.code, self.name, self.sticky = call, code, name, sticky

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.call, self.code, self.name, self.sticky)


class CUDAOutOfMemory(CUDAError, MemoryError):
    """The CUDA driver has no memory or addresses left to map a grant with. Nothing is mapped."""


class UnsupportedDtype(IsobarError, TypeError):
    """The array library has no type for these elements; ``raw=True`` gives unsigned integers."""


class ProtocolError(IsobarError):
    """The other side of the data socket does not speak the contract."""


# code → (status, class): the contract's table. A test holds it equal to schemas/errors.json.
_TABLE: dict[str, tuple[int, type[NodeError]]] = {
    "INVALID_REQUEST": (400, InvalidRequest),
    "INVALID_TRANSFER_PARAMS": (400, InvalidRequest),
    "UNAUTHORIZED": (401, NotAllowed),
    "FORBIDDEN": (403, NotAllowed),
    "INVALID_DEVICE": (404, NotFound),
    "ALLOCATION_NOT_FOUND": (404, NotFound),
    "TRANSFER_NOT_FOUND": (404, NotFound),
    "MODEL_NOT_FOUND": (404, NotFound),
    "OPERATION_NOT_FOUND": (404, NotFound),
    "UNKNOWN_ACTION": (404, InvalidRequest),
    "MODEL_IN_USE": (409, InUse),
    "ALLOCATION_IN_USE": (409, InUse),
    "MODEL_CONFLICT": (409, Conflict),
    "REQUEST_ID_REUSED": (409, Conflict),
    "NODE_REQUIRED": (409, Conflict),
    "STALE_HANDLE": (410, StaleHandle),
    "PAYLOAD_TOO_LARGE": (413, InvalidRequest),
    "UNSUPPORTED_MEDIA_TYPE": (415, InvalidRequest),
    "INVALID_MODEL": (422, InvalidModel),
    "FILE_NOT_READABLE": (422, InvalidModel),
    "QUOTA_EXCEEDED": (429, QuotaExceeded),
    "BUSY": (429, Busy),
    "CANCELLED": (499, Cancelled),
    "INTERNAL_ERROR": (500, InternalError),
    "TRANSFER_FAILED": (500, InternalError),
    "NOT_IMPLEMENTED": (501, InvalidRequest),
    "OUT_OF_MEMORY": (503, OutOfMemory),
    "DEVICE_LOST": (503, Unavailable),
    "DRAINING": (503, Unavailable),
    "NO_NODE": (503, Unavailable),
}

# code → status code of the contract.
STATUS: dict[str, int] = {code: status for code, (status, _) in _TABLE.items()}


def node_error(code: str, message: str, status: int = 0, details: Mapping[str, Any] | None = None) -> NodeError:
    """The exception of a code: of its family's class, or a plain NodeError for an unknown one."""
    return _TABLE.get(code, (0, NodeError))[1](code, message, status, details)
