"""The Python client of Isobar, a memory plane for machines that serve models.

::

    import isobar

    with isobar.connect() as client:
        with client.allocate(64 << 20) as buffer:
            buffer.numpy("float32")[:] = 1.0
        with client.load_model("encoder", "/models/encoder.safetensors") as model:
            weights = model.tensors()

:mod:`isobar.aio` has the same for asyncio, :mod:`isobar.errors` what can go wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import aio, errors
from ._arrays import TensorInfo
from ._control import Progress
from ._events import Event
from ._handles import Revocation
from ._pressure import Pressure, PressureLevel
from ._session import Resumption
from ._sync import Buffer, Client, Events, Model, Operation, Subscription
from ._version import __version__
from .errors import (
    Busy,
    Cancelled,
    Closed,
    Conflict,
    CUDAError,
    CUDAOutOfMemory,
    Disconnected,
    Forked,
    InternalError,
    InUse,
    InvalidModel,
    InvalidRequest,
    IsobarError,
    NodeError,
    NotAllowed,
    NotFound,
    OutOfMemory,
    ProtocolError,
    QuotaExceeded,
    Revoked,
    StaleHandle,
    Unavailable,
    UnsupportedDtype,
    UnsupportedMemory,
)

__all__ = [
    "Buffer",
    "Busy",
    "CUDAError",
    "CUDAOutOfMemory",
    "Cancelled",
    "Client",
    "Closed",
    "Conflict",
    "Disconnected",
    "Event",
    "Events",
    "Forked",
    "InUse",
    "InternalError",
    "InvalidModel",
    "InvalidRequest",
    "IsobarError",
    "Model",
    "NodeError",
    "NotAllowed",
    "NotFound",
    "Operation",
    "OutOfMemory",
    "Pressure",
    "PressureLevel",
    "Progress",
    "ProtocolError",
    "QuotaExceeded",
    "Resumption",
    "Revocation",
    "Revoked",
    "StaleHandle",
    "Subscription",
    "TensorInfo",
    "Unavailable",
    "UnsupportedDtype",
    "UnsupportedMemory",
    "__version__",
    "aio",
    "connect",
    "errors",
]


def connect(
    url: str | None = None,
    *,
    node: str = "",
    name: str = "isobar-python",
    data_socket: str = "",
    attempts: int = 3,
    connect_timeout: float = 5.0,
    nats_options: Mapping[str, Any] | None = None,
) -> Client:
    """Connects to the node.

    url is a NATS server, or several separated by commas; without it ISOBAR_NATS_URL, else
    nats://127.0.0.1:4222, where ``isobar run`` listens. node is the node to ask where several
    answer; name tells people which program this is. A command whose answer is lost, which no node
    answers or whose node is busy is tried ``attempts`` times in all; if a node has answered before,
    and attempts is not 1, for up to 5 s, in which another node may have taken its place. nats_options go to the NATS
    library: user_credentials, nkeys_seed, user, password, tls, inbox_prefix. The data socket's path
    comes with every handle; data_socket is for offering a file before there was one.

    Unavailable (NO_NODE) if there is no server, NotAllowed if it refuses this program.
    """
    return Client(lambda: aio.connect(
        url, node=node, name=name, data_socket=data_socket, attempts=attempts, connect_timeout=connect_timeout, nats_options=nats_options
    ))  # fmt: skip
