"""The client on asyncio::

    async with isobar.aio.connect() as client:
        async with client.load_model("encoder", "/models/encoder.safetensors") as model:
            weights = model.tensors("torch")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._client import Client
from ._control import options
from ._events import Event, Events
from ._handles import Opening, Revocation, Subscription
from ._objects import Buffer, Model, Operation

__all__ = ["Buffer", "Client", "Event", "Events", "Model", "Opening", "Operation", "Revocation", "Subscription", "connect"]


def connect(
    url: str | None = None,
    *,
    node: str = "",
    name: str = "isobar-python",
    data_socket: str = "",
    attempts: int = 3,
    connect_timeout: float = 5.0,
    nats_options: Mapping[str, Any] | None = None,
) -> Opening[Client]:
    """Connects to the node; see :func:`isobar.connect`, which takes the same."""
    client = Client(options(url, node, name, attempts, connect_timeout, nats_options), data_socket)
    return Opening(client._open())
