"""Commands, errors and operations."""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from conftest import PATIENCE, REPOSITORY, MiB, Node

import isobar
from isobar import _client, _control, _sync, errors


def test_errors_are_the_contracts() -> None:
    table = json.loads((REPOSITORY / "schemas" / "errors.json").read_text())["codes"]
    assert {c["code"]: c["status"] for c in table} == errors.STATUS


def test_an_error_is_of_its_family() -> None:
    e = errors.node_error("OUT_OF_MEMORY", "no room", 503, {"shortfall_bytes": 7})
    assert isinstance(e, isobar.OutOfMemory) and isinstance(e, MemoryError)
    again = pickle.loads(pickle.dumps(e))
    assert (again.code, again.message, again.status, again.details) == ("OUT_OF_MEMORY", "no room", 503, {"shortfall_bytes": 7})
    assert str(errors.node_error("FORBIDDEN", "not you")) == "FORBIDDEN: not you"
    assert str(errors.node_error("NO_NODE", "nobody")) == "NO_NODE: nobody"
    assert type(errors.node_error("NEW_CODE", "?")) is isobar.NodeError


def test_both_faces_have_the_same_names() -> None:
    for inner, outer in ((_client.Client, _sync.Client), (isobar.aio.Buffer, _sync.Buffer), (isobar.aio.Model, _sync.Model),
                         (isobar.aio.Events, _sync.Events), (isobar.aio.Operation, _sync.Operation)):  # fmt: skip
        names = {n for n in vars(inner) if not n.startswith("_")} - {"open", "progress", "forked"}
        assert names <= {n for n in dir(outer)}
        for n in names:
            if inspect.isfunction(getattr(inner, n)):
                mine, theirs = (list(inspect.signature(getattr(c, n)).parameters.values()) for c in (inner, outer))
                assert [(p.name, p.default, p.kind) for p in mine] == [(p.name, p.default, p.kind) for p in theirs], n


def test_connect_finds_the_node(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOBAR_NATS_URL", node.url)
    with isobar.connect(connect_timeout=PATIENCE) as c:
        assert [d["device_id"] for d in c.devices()] == ["ram-0"]
        assert c.status("ram-0")["memory_info"]["device_id"] == "ram-0"


def test_nobody_there() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))  # bound, and not listening: refused at once
        url = f"nats://me:secret@127.0.0.1:{s.getsockname()[1]}"
        with pytest.raises(isobar.Unavailable) as e:
            isobar.connect(url, connect_timeout=PATIENCE)
    assert e.value.code == "NO_NODE" and e.value.status == 503
    assert "secret" not in str(e.value)


def test_no_such_node(node: Node) -> None:
    with node.connect(node="elsewhere", attempts=2) as c, pytest.raises(isobar.Unavailable, match="no node answers"):
        c.devices()


def test_errors_are_typed(client: isobar.Client) -> None:
    with pytest.raises(isobar.InvalidRequest) as e:
        client.call("allocate", {"size_bytes": -1})
    assert e.value.code == "INVALID_REQUEST" and e.value.status == 400 and e.value.details["field"] == "size_bytes"
    with pytest.raises(isobar.NotFound):
        client.attach("00000000-0000-8000-8000-000000000000")
    with pytest.raises(isobar.NotFound):
        client.load_model("unknown")
    with pytest.raises(isobar.InvalidModel):
        client.load_model("unreadable", "/nowhere/m.safetensors")
    with pytest.raises(isobar.OutOfMemory) as full:
        client.allocate(1 << 40)
    assert full.value.details["shortfall_bytes"] > 0


def test_the_same_request_id_has_its_effect_once(client: isobar.Client) -> None:
    data = {"size_bytes": MiB, "persistent": True}
    first = client.call("allocate", data, request_id="once")
    again = client.call("allocate", data, request_id="once")
    assert again["allocation_id"] == first["allocation_id"] and again["replayed"]
    with pytest.raises(isobar.Conflict):
        client.call("allocate", {"size_bytes": 2 * MiB}, request_id="once")


def test_a_dry_run_changes_nothing(client: isobar.Client) -> None:
    assert client.dry_run("allocate", {"size_bytes": MiB})["outcome"] == "granted"
    assert client.call("get_allocations")["allocations"] == []


def test_operations(client: isobar.Client) -> None:
    holder = client.allocate(200 * MiB)
    waiting = client.submit("allocate", {"size_bytes": 100 * MiB, "persistent": True})
    assert waiting.id and not waiting.done and waiting.progress.status == "queued" and waiting.progress.position == 1
    assert waiting.refresh().status == "queued"
    with pytest.raises(TimeoutError):
        waiting.result(timeout=0)
    seen: list[isobar.Progress] = []
    heard = threading.Event()

    def progress(p: isobar.Progress) -> None:
        seen.append(p)
        heard.set()
        holder.close()  # callbacks may use the client

    result = waiting.result(progress, timeout=PATIENCE)
    assert result["allocation"]["size_bytes"] == 100 * MiB and waiting.done
    assert heard.is_set() and seen[-1].status == "completed"


def test_cancel(client: isobar.Client) -> None:
    with client.allocate(200 * MiB):
        waiting = client.submit("allocate", {"size_bytes": 100 * MiB})
        assert waiting.cancel().status == "cancelled"
        with pytest.raises(isobar.Cancelled) as e:
            waiting.result(timeout=PATIENCE)
        assert e.value.code == "CANCELLED"


def test_giving_up_cancels(node: Node) -> None:
    """Who stops waiting leaves nothing in the queue, and no grant behind."""

    async def run() -> None:
        async with isobar.aio.connect(node.url, connect_timeout=PATIENCE) as c:
            async with c.allocate(200 * MiB), c.events("memory.events.allocation.>") as events:
                with pytest.raises(TimeoutError):
                    await c.allocate(100 * MiB, timeout=0.01)
                # The command may arrive after its sender gave up: it is cancelled all the same.
                while (await c.call("get_queue"))["waiting"]:
                    await events.next(PATIENCE)
            assert (await c.call("get_allocations"))["allocations"] == []

    asyncio.run(run())


def test_no_room_and_no_queue(client: isobar.Client) -> None:
    with client.allocate(200 * MiB), pytest.raises(isobar.OutOfMemory):
        client.allocate(100 * MiB, queue=0)


def test_a_closed_client(node: Node) -> None:
    c = node.connect()
    buffer = c.allocate(MiB)
    c.close()
    c.close()
    assert buffer.closed
    for use in (c.devices, lambda: buffer.memory, lambda: c.allocate(1)):
        with pytest.raises(isobar.Closed):
            use()


@contextmanager
def a_server(answer: Callable[[bytes, bytes, bytes], bytes]) -> Iterator[str]:
    """A NATS server of a test's own: answer says what it sends for a subscription or a request, which
    are a verb, a subject and the rest of the line."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b'INFO {"server_id":"x","version":"2.11.0","max_payload":1000,"headers":true}\r\n')
            for line in lines:
                verb, _, rest = line.strip().partition(b" ")
                if verb == b"PING":
                    connection.sendall(b"PONG\r\n")
                elif verb in (b"SUB", b"PUB"):
                    subject, _, rest = rest.partition(b" ")
                    if verb == b"PUB":
                        lines.read(int(rest.split()[-1]) + 2)
                    connection.sendall(answer(verb, subject, rest))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"nats://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        thread.join(PATIENCE)
        listener.close()


def test_a_command_that_the_server_refuses() -> None:
    def answer(verb: bytes, subject: bytes, rest: bytes) -> bytes:
        return b"-ERR 'Permissions Violation for Publish to \"%s\"'\r\n" % subject if verb == b"PUB" else b""

    with a_server(answer) as url, isobar.connect(url, connect_timeout=PATIENCE) as c:
        for _ in range(2):
            with pytest.raises(isobar.NotAllowed, match="memory.list_devices") as e:
                c.devices()
            assert e.value.code == "FORBIDDEN" and e.value.details == {"subject": "memory.list_devices"}


def test_a_client_that_may_hear_no_answers() -> None:
    def answer(verb: bytes, subject: bytes, rest: bytes) -> bytes:
        return b"-ERR 'Permissions Violation for Subscription to \"%s\"'\r\n" % subject if verb == b"SUB" else b""

    with a_server(answer) as url, isobar.connect(url, connect_timeout=PATIENCE) as c:
        for _ in range(2):  # which is found out anew each time: it may have been allowed since
            with pytest.raises(isobar.NotAllowed, match="_inbox"):
                c.devices()


def test_requests_at_once_have_their_own_answers() -> None:
    subscribed: list[bytes] = []

    def answer(verb: bytes, subject: bytes, rest: bytes) -> bytes:
        if verb == b"SUB":
            subscribed.append(rest)
            return b""
        data = b'{"success":true,"data":{"devices":["%s"]}}' % subject
        return b"MSG %s %s %d\r\n%s\r\n" % (rest.split()[0], subscribed[0], len(data), data)

    async def work(url: str) -> list[dict[str, object]]:
        async with isobar.aio.connect(url, connect_timeout=PATIENCE) as c:
            return await asyncio.gather(*(c.call("list_devices", node=f"n{i}") for i in range(20)))

    with a_server(answer) as url:
        assert asyncio.run(work(url)) == [{"devices": [f"memory.list_devices.n{i}"]} for i in range(20)]
    assert len(subscribed) == 1


def test_a_request_that_is_too_large() -> None:
    with a_server(lambda *_: b"") as url, isobar.connect(url, connect_timeout=PATIENCE) as c, pytest.raises(isobar.InvalidRequest) as e:
        c.call("get_status", {"device_id": "x" * 1000})
    assert e.value.code == "PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize(
    "answered, attempts, absence, refusals, tried",
    [
        (False, 3, PATIENCE, 9, 3),  # there never was a node: the caller is told soon
        (True, 3, PATIENCE, 9, 10),  # there was one: the next is waited for
        (True, 3, 0.0, 9, 3),  # but not for ever
        (True, 1, PATIENCE, 9, 1),  # nor where one attempt is wanted
    ],
)
def test_a_node_that_is_away(
    monkeypatch: pytest.MonkeyPatch, answered: bool, attempts: int, absence: float, refusals: int, tried: int
) -> None:
    monkeypatch.setattr(_control, "_ABSENCE", absence)

    async def run() -> int:
        control = _control.Control(_control.Options("nats://127.0.0.1:1", attempts=attempts, backoff=0))
        control._answered = answered
        calls = 0

        async def once(subject: str, payload: bytes, patience: float) -> _control.Data:
            nonlocal calls
            calls += 1
            if calls <= refusals:
                raise errors.node_error("NO_NODE", "it is away")
            return {"success": True}

        monkeypatch.setattr(control, "_once", once)
        try:
            assert await control.call("get_status", {}, wait=PATIENCE) == {"success": True} and tried > refusals
        except isobar.Unavailable:
            assert tried <= refusals
        return calls

    assert asyncio.run(run()) == tried
