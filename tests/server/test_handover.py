"""Both sides of a hand-over against another side that fails, lies or says nothing."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from vipsrv.address import Address, Wire
from vipsrv.errors import StartFailed
from vipsrv.server import handover
from vipsrv.server.handover import TRANSITIONS, ControlSocket, HandoverState, Takeover
from vipsrv.server.listeners import Listeners
from vipsrv.server.listening_sockets import open_unix_socket

SECONDS = 30.0


def test_the_table_of_states() -> None:
    assert set(TRANSITIONS) == set(HandoverState)
    assert all(
        HandoverState.CLOSED in following
        for state, following in TRANSITIONS.items()
        if state is not HandoverState.CLOSED
    )


@pytest.fixture
def control(tmp_path: Path) -> Path:
    return tmp_path / "control"


class Running:
    """A server that may be taken over; its clients are never read from."""

    def __init__(self) -> None:
        self.listeners = Listeners()
        self.addresses: list[Address] = []
        self.successors: list[int | None] = []
        self.shared: list[bool] = []
        self.socket = ControlSocket(self.listeners, self.successors.append, self.shared.append)

    async def state(self, state: HandoverState) -> None:
        while self.socket.state is not state:
            await asyncio.sleep(0)


@asynccontextmanager
async def running(control: Path) -> AsyncIterator[Running]:
    server = Running()
    await server.listeners.bind(Address("127.0.0.1", 0), asyncio.Protocol)
    await server.listeners.bind(Address(path=str(control.with_name("clients"))), asyncio.Protocol)
    server.socket.open(control)
    server.addresses = await server.listeners.start()
    server.socket.start()
    try:
        async with asyncio.timeout(SECONDS):
            yield server
    finally:
        server.socket.close()
        server.listeners.close()


async def take(control: Path) -> Takeover:
    takeover = await Takeover.begin(control)
    assert takeover is not None
    return takeover


def close(takeover: Takeover) -> None:
    for listener in [*takeover.listeners, takeover.control]:
        listener.sock.close()


async def test_a_hand_over(control: Path) -> None:
    async with running(control) as server:
        takeover = await take(control)
        assert server.shared == [True]  # before the successor can accept a client
        assert [one.address for one in takeover.listeners] == server.addresses
        assert [one.owned for one in takeover.listeners] == [False, True]
        assert not any(one.sock.get_inheritable() for one in takeover.listeners)
        await server.state(HandoverState.OFFERED)
        assert server.listeners.shared
        await takeover.finish()
        await server.state(HandoverState.HANDED_OVER)
        assert server.successors == [os.getpid()]
        assert server.shared == [True]
        assert server.listeners.offer() == []
        # A successor of the successor does not find the first server.
        successor = ControlSocket(Listeners(), server.successors.append)
        successor.adopt(takeover.control)
        successor.start()
        again = await take(control)
        assert again.listeners == []
        again.abandon()
        await asyncio.sleep(0)
        successor.close()
        close(takeover)


async def test_an_old_successor_does_not_get_the_listener_of_the_operator(control: Path) -> None:
    async with running(control) as server:
        await server.listeners.serve(Address("127.0.0.1", 0, wire=Wire.OPS), asyncio.Protocol)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, str(control))
            await loop.sock_sendall(sock, b'{"kind": "take", "format": 1, "server": "vipsrv/0.1"}\n')
            line, descriptors = await _receive_offer(sock)
        for descriptor in descriptors:
            os.close(descriptor)
        offer = json.loads(line)
        assert [one["wire"] for one in offer["listeners"]] == ["binary", "binary"]
        assert len(descriptors) == len(offer["listeners"]) + 1  # and that of the control socket


async def _receive_offer(sock: socket.socket) -> tuple[bytes, list[int]]:
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sock, readable.set)
    await readable.wait()
    loop.remove_reader(sock)
    line, descriptors, _, _ = socket.recv_fds(sock, 65_536, 16)
    return line, descriptors


async def test_a_successor_that_gives_up(control: Path) -> None:
    async with running(control) as server:
        takeover = await take(control)
        takeover.abandon()
        close(takeover)
        await server.state(HandoverState.LISTENING)
        assert not server.listeners.shared
        assert server.successors == []
        assert len(server.listeners.offer()) == 2
    assert not control.exists()
    assert not control.with_name("clients").exists()


async def test_a_successor_that_takes_too_long(control: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "START_SECONDS", 0.0)
    async with running(control) as server:
        takeover = await take(control)
        await server.state(HandoverState.LISTENING)
        with pytest.raises(StartFailed, match="does not hand over: it took too long"):
            await takeover.finish()
        assert len(server.listeners.offer()) == 2
        close(takeover)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (b"", "it ended"),
        (b"GET / HTTP/1.1\r\n\r\n", "what it sent is no message of a hand-over"),
        (b"[" * 20_000 + b"\n", "what it sent is no message of a hand-over"),
        (b"x" * 65_536, "what it sent is no message of a hand-over"),
        (b'{"kind": "take", "format": 2}\n', "its hand-over has format 2, and this one 1"),
        (b'{"kind": "take"}\n', "its hand-over has format None, and this one 1"),
        (b'{"kind": "ready", "format": 1}\n', "it sent 'ready' instead of 'take'"),
    ],
)
async def test_an_invalid_request_is_refused(
    control: Path, caplog: pytest.LogCaptureFixture, request_: bytes, reason: str
) -> None:
    async with running(control) as server:
        reader, writer = await asyncio.open_unix_connection(str(control))
        writer.write(request_)
        writer.write_eof()
        reply = json.loads(await reader.read())
        assert (reply["kind"], reply["message"]) == ("error", reason)
        writer.close()
        assert server.socket.state is HandoverState.LISTENING
        assert f"this server goes on: {reason}" in caplog.text


async def test_a_successor_of_another_user_is_refused(control: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(control):
        monkeypatch.setattr(handover, "peer_of", lambda _: (7, 4242))
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        with pytest.raises(
            StartFailed, match="the successor belongs to user 4242, and this server to user 0"
        ):
            await Takeover.begin(control)


async def test_a_server_of_another_user_is_not_trusted(
    control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(control):
        monkeypatch.setattr(handover, "peer_of", lambda _: (7, 4242))
        monkeypatch.setattr(os, "geteuid", lambda: 4243)
        with pytest.raises(StartFailed, match="does not hand over: it belongs to user 4242"):
            await Takeover.begin(control)


async def test_nobody_to_take_over(control: Path) -> None:
    assert await Takeover.begin(control) is None
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(control))
    assert await Takeover.begin(control) is None


async def test_a_control_path_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="Not a directory"):
        await Takeover.begin(Path("/dev/null/control"))
    with pytest.raises(StartFailed, match="too long"):
        await Takeover.begin(tmp_path / ("x" * 200))


@asynccontextmanager
async def pretender(control: Path, offer: bytes, sockets: list[Any]) -> AsyncIterator[None]:
    """Stands for the running server: sends this offer, whatever it is asked, then nothing."""

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        with closing(socket.socket(fileno=os.dup(connection.fileno()))) as own:
            own.setblocking(False)
            if offer:
                socket.send_fds(own, [offer], [sock.fileno() for sock in sockets])
        writers.append(writer)
        readers.append(reader)

    readers: list[asyncio.StreamReader] = []
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_unix_server(accepted, str(control))
    async with asyncio.timeout(SECONDS):
        yield
    for writer in writers:
        writer.close()
    server.close()


def offer(count: int, **changes: Any) -> bytes:
    fields = {
        "kind": "offer",
        "format": 1,
        "listeners": [{"tls": False, "owned": False}] * count,
        "control": {"owned": True},
        **changes,
    }
    return json.dumps(fields).encode() + b"\n"


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (partial(offer, 1, format=3), "its hand-over has format 3, and this one 1"),
        (partial(offer, 0), "it sent 2 sockets instead of 1"),
        (partial(offer, 2), "it sent 2 sockets instead of 3"),
        (partial(offer, 1, control=None), "its offer is incomplete"),
        (partial(offer, 1, listeners=[1]), "its offer is incomplete"),
        (partial(offer, 1, kind="done"), "it sent 'done' instead of 'offer'"),
        (partial(offer, 1, kind="error", message="not today"), "not today"),
        (lambda: b"\n", "what it sent is no message"),
    ],
)
async def test_an_invalid_offer_fails_the_start_and_leaves_nothing_open(
    control: Path, message: Any, reason: str
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as given,
        open_unix_socket(control.with_name("c"), 0o600) as other,
    ):
        async with pretender(control, message(), [given, other]):
            before = open_descriptors()
            with pytest.raises(StartFailed, match=reason):
                await Takeover.begin(control)
            await asyncio.sleep(0)
            assert open_descriptors() <= before + 1  # the pretender's end of the connection


async def test_an_offer_of_a_socket_that_does_not_listen(control: Path) -> None:
    with socket.socket() as given, open_unix_socket(control.with_name("c"), 0o600) as other:
        async with pretender(control, offer(1), [given, other]):
            with pytest.raises(StartFailed, match="it does not listen"):
                await Takeover.begin(control)


async def test_a_server_that_says_nothing(control: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "MESSAGE_SECONDS", 0.05)
    async with pretender(control, b"", []):
        with pytest.raises(StartFailed, match=r"does not hand over: no answer within 0\.05 s"):
            await Takeover.begin(control)


async def test_a_server_that_does_not_confirm_has_left_the_sockets(
    control: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        other = open_unix_socket(control.with_name("c"), 0o600)
        async with pretender(control, offer(1), [given, other]):
            takeover = await take(control)
            monkeypatch.setattr(handover, "MESSAGE_SECONDS", 0.05)
            await takeover.finish()
        assert "may have failed during the hand-over" in caplog.text
        close(takeover)
        other.close()
