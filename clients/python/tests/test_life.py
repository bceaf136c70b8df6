"""Pressure, revocation, the node's death, forks, and what a bad peer can do."""

from __future__ import annotations

import asyncio
import gc
import os
import queue
import signal
import socket
import struct
import threading
import time
from pathlib import Path

import msgpack
import numpy
import pytest
from conftest import PATIENCE, MiB, Node, wait_for, write_safetensors

import isobar
from isobar import _events, _wire


def a_model(node: Node, mib: int = 16) -> Path:
    p = node.models / "big.safetensors"
    write_safetensors(p, {"w": ("F32", [mib, MiB // 4], numpy.arange(mib * MiB // 4, dtype="f4").tobytes())})
    return p


def test_pressure_calls_back(own_node: Node) -> None:
    told: queue.Queue[isobar.Pressure] = queue.Queue()
    with own_node.connect() as c, c.on_pressure(told.put, device="ram-0"):
        now = told.get(timeout=PATIENCE)
        assert now.level is isobar.PressureLevel.LOW and now.device_id == "ram-0"
        with c.allocate(56 * MiB):
            risen = told.get(timeout=PATIENCE)
            assert risen.level >= isobar.PressureLevel.HIGH and risen.cause == "grant"
            assert risen.sequence == now.sequence + 1 and risen.target_bytes > 0 and risen.node == "test"
            assert [p.level for p in c.pressure("ram-0")] == [risen.level] == [p.level for p in c.pressure()]


def test_pressure_makes_room(own_node: Node) -> None:
    """A program lets go of what it holds when another wants room: the callback may use the client."""
    with own_node.connect() as c, own_node.connect() as other:
        model = c.load_model("big", a_model(own_node))
        weights = model.tensors("numpy")

        def relieve(p: isobar.Pressure) -> None:
            if p.level >= isobar.PressureLevel.HIGH:
                model.close()

        with c.on_pressure(relieve), other.allocate(52 * MiB, timeout=PATIENCE):
            assert model.closed and weights == {}
            assert c.call("get_model_info", {"name": "big"})["models"][0]["residency"] == []


def test_revocation(own_node: Node) -> None:
    with own_node.connect() as c, own_node.connect() as other:
        model = c.load_model("big", a_model(own_node))
        weights = model.tensors("numpy")
        asked: queue.Queue[isobar.Revocation] = queue.Queue()
        usable: list[bool] = []

        def revoked(r: isobar.Revocation) -> None:
            usable.append(float(weights["w"][0, 1]) == 1.0)  # until this returns
            asked.put(r)

        with c.on_revoke(revoked):
            done = other.unload_model("big", force=True, deadline=PATIENCE)
            r = asked.get(timeout=PATIENCE)
        assert done["unloaded"] and done["confirmed"] and done["zombie_bytes"] == 0
        assert usable == [True] and r.allocation_id == model.allocation_id and r.deadline > 0 and r.reason
        assert [h.allocation_id for h in r.held] == [model.allocation_id]
        assert weights == {} and model.closed and not model.lingering
        with pytest.raises(isobar.Revoked, match="big"):
            model.tensors("numpy")
        assert model.close()


def test_revocation_waits_for_views(own_node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client does not say unmapped while a view lives: nobody gets those bytes, and nobody crashes."""
    said: list[str] = []
    send = _wire.Connection.send

    def listen(conn: _wire.Connection, message: dict[str, object], fds: tuple[int, ...] = ()) -> None:
        said.append(str(message["type"]))
        send(conn, message, fds)

    monkeypatch.setattr(_wire.Connection, "send", listen)
    with own_node.connect() as c, own_node.connect() as other, other.events("memory.events.allocation.>") as events:
        b = c.allocate(8 * MiB)
        view = b.numpy()
        view[:] = 3
        done = other.deallocate(b.allocation_id, force=True, deadline=0.001)
        assert not done["confirmed"] and done["zombie_bytes"] == 8 * MiB
        grant = other.call("get_allocation", {"allocation_id": b.allocation_id})["allocation"]
        assert grant["status"] == "zombie" and [m["pid"] for m in grant["mapped_by"]] == [os.getpid()]
        c.status()  # the loop has dealt with the revocation
        assert b.lingering and int(view[-1]) == 3 and said == ["hello", "map"]
        del view
        gc.collect()
        wait_for(events, "confirmed", b.allocation_id)
        c.status()
        assert said == ["hello", "map", "unmapped"]
        assert b.closed and not b.lingering
        with pytest.raises(isobar.Revoked):
            b.memory  # noqa: B018


def test_the_node_dies(lasting_node: Node) -> None:
    """Memory stays while no node runs; the session resumes, and goes on as if nothing had been."""
    resumed: queue.Queue[isobar.Resumption] = queue.Queue()
    with lasting_node.connect(attempts=50) as c:
        b = c.allocate(8 * MiB)
        model = c.load_model("big", a_model(lasting_node))
        view = b.numpy()
        view[:] = 7
        with c.on_resume(resumed.put):
            lasting_node.kill()
            assert int(view.sum()) == 7 * 8 * MiB and float(model.tensor("w", "numpy")[1, 0]) == MiB / 4
            view[:] = 8
            lasting_node.start()
            r = resumed.get(timeout=PATIENCE)
        assert r.resumed and r.lost == () and r.error is None and r.node == "test"
        again = c.call("get_allocation", {"allocation_id": b.allocation_id})["allocation"]
        assert again["status"] == "active" and again["owner"]["session_id"] == r.session_id
        assert [m["pid"] for m in again["mapped_by"]] == [os.getpid()]
        assert int(view[0]) == 8
        with c.attach(b.allocation_id) as other:
            assert other.memory[0] == 8
        del view
        assert b.close() and model.close()
        c.unload_model("big")
        assert c.call("get_allocations")["allocations"] == []


def test_what_waits_when_the_node_dies(lasting_node: Node) -> None:
    """The next node does not know what waited: the client gives it again, and it has its effect once."""
    with lasting_node.connect(attempts=50) as holder, lasting_node.connect(attempts=50) as waiter:
        held = holder.allocate(40 * MiB)
        got: queue.Queue[dict[str, object] | BaseException] = queue.Queue()

        def wait() -> None:
            try:
                got.put(waiter.call("allocate", {"size_bytes": 40 * MiB, "class": "reservation", "timeout_seconds": 600}, request_id="waits"))
            except BaseException as e:
                got.put(e)

        thread = threading.Thread(target=wait)
        thread.start()
        deadline = time.monotonic() + PATIENCE
        while not holder.call("get_queue")["waiting"]:
            assert time.monotonic() < deadline
        lasting_node.kill()
        lasting_node.start()
        while not holder.call("get_queue")["waiting"]:  # it is given again
            assert time.monotonic() < deadline + PATIENCE
        assert held.close()
        answer = got.get(timeout=PATIENCE)
        thread.join()
        assert isinstance(answer, dict) and answer["success"], answer
        assert len(holder.call("get_allocations")["allocations"]) == 1


def test_a_clean_stop_takes_the_memory_back(own_node: Node) -> None:
    """The next node knows nothing of the session: the client begins a new one."""
    resumed: queue.Queue[isobar.Resumption] = queue.Queue()
    with own_node.connect(attempts=50) as c, c.on_resume(resumed.put):
        b = c.allocate(MiB)
        view = b.numpy()
        view[:] = 4
        own_node.stop()
        own_node.start()
        r = resumed.get(timeout=PATIENCE)
        assert not r.resumed and r.lost == (b.allocation_id,)
        assert b.closed and int(view[0]) == 4  # what is mapped stays readable
        with pytest.raises(isobar.Revoked, match="stops"):
            b.numpy()
        with c.allocate(MiB) as new:
            assert new.memory[0] == 0


def test_pressure_is_told_anew_after_a_restart(lasting_node: Node) -> None:
    told: queue.Queue[isobar.Pressure] = queue.Queue()
    with lasting_node.connect(attempts=50) as c, c.on_pressure(told.put):
        assert told.get(timeout=PATIENCE).level is isobar.PressureLevel.LOW
        lasting_node.kill()
        lasting_node.start()
        assert told.get(timeout=PATIENCE).level is isobar.PressureLevel.LOW


def test_a_callback_may_close_the_client(node: Node) -> None:
    c = node.connect()
    done = threading.Event()
    c.on_pressure(lambda _: (c.close(), done.set()))
    assert done.wait(PATIENCE)
    with pytest.raises(isobar.Closed):
        c.devices()


def test_a_forked_child_lets_go(node: Node) -> None:
    """The child has neither session nor connection; views that it has work. The parent is not disturbed."""
    c = node.connect()
    b = c.allocate(MiB)
    view = b.numpy()
    view[:3] = (1, 2, 3)
    sockets = descriptors(c)
    assert all(os.readlink(f"/proc/self/fd/{fd}").startswith("socket:") for fd in sockets)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # no test framework from here on: report and end
        problems = []
        try:
            problems += [f"{fd} is open" for fd in sockets if os.readlink(f"/proc/self/fd/{fd}") != os.devnull]
            for use in (c.devices, lambda: b.memory, b.close, lambda: c.allocate(1), c.close):
                try:
                    use()
                    problems.append(f"{use} worked")
                except isobar.Forked:
                    pass
            view[3] = 4
            if view[:3].tolist() != [1, 2, 3]:
                problems.append("the view shows something else")
        except BaseException as e:
            problems.append(repr(e))
        os.write(write, "; ".join(problems).encode() or b"fine")
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        assert answer.read() == "fine"
    os.waitpid(pid, 0)
    assert view[3] == 4
    del view
    assert c.status()["device_id"] and b.close()
    c.close()


def descriptors(c: isobar.Client) -> list[int]:
    """The data socket and the NATS connection of a client."""
    (session,) = c._inner._sessions.values()
    assert session._conn is not None
    nats = c._inner._control.nc._transport._io_writer.get_extra_info("socket")  # type: ignore[union-attr]
    return [session._conn.fileno(), nats.fileno()]


def test_a_child_does_not_keep_the_session_open(node: Node) -> None:
    """The parent's session ends with its connection although a child lives."""
    with node.connect() as watching, watching.events("memory.events.allocation.>") as events:
        c = node.connect()
        b = c.allocate(MiB)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(write)
            os.read(read, 1)  # until the parent is done
            os._exit(0)
        try:
            c.close()
            wait_for(events, "deallocated", b.allocation_id)
        finally:
            os.close(read)
            os.close(write)
            os.waitpid(pid, 0)


def test_an_interrupt_gives_up(node: Node) -> None:
    """Ctrl-C ends a call that waits, and its request is cancelled."""
    with node.connect() as c, c.allocate(200 * MiB), c.events("memory.events.allocation.>") as events:
        main = threading.get_ident()

        def interrupt() -> None:
            while not any(i["event"] == "queued" for i in events.next(PATIENCE).data.get("items", [])):
                pass
            signal.pthread_kill(main, signal.SIGINT)

        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it ignored
        try:
            threading.Thread(target=interrupt).start()
            with pytest.raises(KeyboardInterrupt):
                c.allocate(100 * MiB, progress=lambda _: None)
        finally:
            signal.signal(signal.SIGINT, before)
        with node.connect() as other:
            while other.call("get_queue")["waiting"]:
                events.next(PATIENCE)


def test_sequences() -> None:
    s = _events.Sequences()

    def see(n: int, boot: str = "a", kind: str = "pressure_changed", **data: int) -> object:
        return s.observe("x", {"event": kind, "boot_id": boot, "sequence": n, "data": data})

    assert see(5) == (True, None)
    assert see(6) == (True, None)
    assert see(6) == (False, None)
    assert see(9) == (True, (7, 8))
    assert see(12, kind="gap", **{"from": 10, "to": 12}) == (True, None)
    assert see(12, kind="pressure_reminder") == (True, None)
    assert see(14, kind="pressure_reminder") == (True, (13, 14))
    assert see(1, boot="b") == (True, None)


def test_events(own_node: Node) -> None:
    with own_node.connect() as c, c.events("memory.events.model.>") as events:
        c.load_model("big", a_model(own_node)).close()
        seen = []
        for e in events:
            seen.append((e.kind, e.data["name"], e.missed, e.node))
            if e.kind == "loaded":
                events.close()
        assert seen[0] == ("loading", "big", None, "test") and seen[-1] == ("loaded", "big", None, "test")
        with pytest.raises(isobar.Closed):
            events.next()
        with c.events() as quiet, pytest.raises(TimeoutError):
            quiet.next(timeout=0)


@pytest.mark.parametrize("sent", [
    struct.pack(">I", 0), struct.pack(">I", (1 << 20) + 1), struct.pack(">I", 1) + b"\xc1", struct.pack(">I", 1) + b"\x01",
    struct.pack(">I", 5) + b"\xdd\xff\xff\xff\xff", struct.pack(">I", 9) + b"\x81\xa4type\x01\x00\x00",
])  # fmt: skip
def test_a_malformed_frame_closes_the_connection(sent: bytes) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        ended: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        with theirs:
            conn = _wire.Connection(ours, lambda f: pytest.fail("a frame"), ended.set_result)
            theirs.sendall(sent)
            assert isinstance(await asyncio.wait_for(ended, PATIENCE), isobar.ProtocolError)
            assert conn.closed

    asyncio.run(run())


def test_frames_keep_their_descriptors_apart() -> None:
    """Frames in pieces and several at once: each has the descriptors that were sent with it."""

    async def run() -> None:
        ours, theirs = socket.socketpair()
        got: list[tuple[int, int]] = []
        enough = asyncio.Event()

        def take(frame: _wire.Frame) -> None:
            got.append((frame.body["id"], len(frame.fds)))
            if len(got) == 3:
                enough.set()

        before = len(os.listdir("/proc/self/fd"))
        conn = _wire.Connection(ours, take, lambda e: None)

        def packet(number: int) -> bytes:
            body = msgpack.packb({"type": "x", "id": number})
            return struct.pack(">I", len(body)) + body

        with theirs:
            null = os.open(os.devnull, os.O_RDONLY)
            theirs.send(packet(1)[:3])
            await asyncio.sleep(0)  # the loop runs once
            socket.send_fds(theirs, [packet(1)[3:]], [null, null])
            theirs.send(packet(2))
            socket.send_fds(theirs, [packet(3)], [null])
            os.close(null)
            await asyncio.wait_for(enough.wait(), PATIENCE)
        assert got == [(1, 2), (2, 0), (3, 1)]
        conn.close()
        assert len(os.listdir("/proc/self/fd")) <= before - 2

    asyncio.run(run())
