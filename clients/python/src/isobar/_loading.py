"""How a model is loaded: the command, the reference that keeps it, the mapping, and what it is compared with."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._control import OnProgress
from ._grant import Grant
from ._memory import foresee
from ._objects import Model
from ._progress import shown
from .errors import Disconnected, IsobarError, NodeError

if TYPE_CHECKING:
    from ._client import Client

log = logging.getLogger("isobar")

Data = dict[str, Any]


class Loading:
    """One load of a client."""

    def __init__(
        self, client: Client, data: Data, hashes: list[list[str]], progress: OnProgress | bool | None, timeout: float | None, request_id: str
    ) -> None:
        """hashes are lists of which each fits into a request: the first goes with the command."""
        self._client = client
        self._data = {**data, "hashes": hashes[0]} if hashes else data
        self._more = hashes[1:]
        self._progress = progress
        self._timeout = timeout
        self._request_id = request_id

    async def run(self, offer: bool) -> Model:
        """Returns the mapped model; with offer, of a file that is opened here."""
        client, data = self._client, self._data
        client._check()
        foresee(data["device_id"])
        if offer:
            path = Path(data.pop("path") or "")
            session = client._only_session() or await client._session(client._default_socket())
            with path.open("rb") as f:
                data["file_claim"] = await session.offer(path.name, f.fileno())
        reply = await self._command()
        handle = reply["handle"]
        allocation_id = reply["allocation_ids"][0]
        device = next((r["device_id"] for r in reply["model"]["residency"] if r["allocation_id"] == allocation_id), None)
        session = await client._session(handle["data_socket"])
        # Once it is acquired the model stays; between loading and that it may have been evicted,
        # which makes the handle stale: acquiring loads it again.
        acquiring: asyncio.Future[Data]
        if "reference_id" in reply:
            acquiring = asyncio.get_running_loop().create_future()
            acquiring.set_result(reply)
        else:
            acquiring = asyncio.ensure_future(
                client.call("acquire_model", {"name": data["name"], "device_id": device, "session_id": session.id})
            )
        again: Data = {"name": data["name"], "device_id": device}
        checks = [{**again, "hashes": part} for part in self._more]
        grant: Grant | None = None
        try:
            try:
                grant = await client._map(handle, allocation_id, writable=False, private=True)
            except (NodeError, Disconnected) as e:
                if isinstance(e, NodeError) and e.code != "STALE_HANDLE":
                    raise
                reference = await asyncio.shield(acquiring)
                residency = [r for r in reference["model"]["residency"] if device in (None, r["device_id"])]
                handle = (await client.call("get_handle", {"model_name": data["name"], "device_id": device}))["handle"]
                grant = await client._map(handle, residency[0]["allocation_id"], writable=False, private=True)
                if data["verify"] or "hashes" in data:  # what was loaded anew was compared with nothing
                    checks.insert(0, {**again, "verify": data["verify"], "hashes": data.get("hashes")})
            reference = acquiring.result() if acquiring.done() else await asyncio.shield(acquiring)
            for check in checks:
                await client._abandoned.do("load_model", check, None, self._timeout, "")
        except BaseException:
            client._tasks.start(self._undo(acquiring, grant))
            raise
        return client._hold(Model(client, grant, reply["model"], device or "", reference["reference_id"], reply.get("verified", False)))

    async def _command(self) -> Data:
        """load_model's answer. Where there is a session, the model is acquired for it by the same
        command; but not by one that may have been given before, whose reference another has."""
        client, data = self._client, self._data
        session = None if self._request_id else client._only_session()
        with shown(self._progress, f"model {data['name']}") as told:
            if session is not None:
                try:
                    return await client._abandoned.do("load_model", {**data, "session_id": session.id}, told, self._timeout, "")
                except NodeError as e:
                    if e.code != "STALE_HANDLE":
                        raise  # else the session is another node's, or has just ended
            return await client._abandoned.do("load_model", data, told, self._timeout, self._request_id)

    async def _undo(self, acquiring: asyncio.Future[Data], grant: Grant | None) -> None:
        """Undoes what was done for a model that nobody will have."""
        if grant is not None:
            await grant.session.unmap(grant)
        try:
            reference = await acquiring
            await self._client.call("release_model", {"reference_id": reference["reference_id"]})
        except IsobarError as e:
            log.info("a model was acquired for nobody, or not at all: %s", e)
