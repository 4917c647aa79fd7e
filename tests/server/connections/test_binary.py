"""Connections of the binary protocol on real sockets, with workers that the test plays."""

import asyncio
import itertools
import os
import select
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from tests.server.fakes import (
    MANY,
    Disk,
    FakeWorkers,
    RecordedRequests,
    content,
    fail,
    make_context,
    only_account,
    succeed,
)
from tests.server.test_open_connections import OtherConnection
from tests.support import bare_client
from vipsrv.errors import Busy, Cancelled, CorruptImage, Draining, InternalError
from vipsrv.protocol import HEADER, Kind, pack_message
from vipsrv.server.accounts import Account, Flow
from vipsrv.server.connections.binary import BinaryConnection
from vipsrv.server.connections.inbox import HEADER_COST, READ_AHEAD_SIZE, TURN_SIZE
from vipsrv.server.connections.pace import GRACE_SECONDS
from vipsrv.server.connections.served import (
    DRAIN_SECONDS,
    EXCESS_SECONDS,
    LINGER_SECONDS,
    MAX_IN_FLIGHT,
    QUIET_LINGER_SECONDS,
)
from vipsrv.server.connections.states import TRANSITIONS, ConnectionState
from vipsrv.server.context import ServerContext
from vipsrv.server.logs.request_line import RequestLine
from vipsrv.storage import splice
from vipsrv.storage.chunk_pool import SMALL_CHUNK_SIZE
from vipsrv.storage.spool import Slot
from vipsrv.worker_config import IN_MEMORY_SIZE
from vipsrv.workers.job import Job, Outcome

SECONDS = 20
IDLE_TIMEOUT = 1000.0
PING = pack_message(Kind.PING, 99)


@pytest.fixture(autouse=True)
async def nothing_goes_wrong_unnoticed() -> AsyncIterator[None]:
    """Fails a test for what only the event loop has heard of."""
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    yield
    assert unheard == []


class Connection(BinaryConnection):
    """A connection whose transport the test can see."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        super().connection_made(transport)


class Server:
    """Serves one client; the jobs that it gives to the workers wait for the test to answer them."""

    def __init__(self, context: ServerContext, workers: FakeWorkers) -> None:
        self.context = context
        self.spool = context.spool
        self.jobs = workers.jobs
        self.connection = Connection(context)

    @property
    def lines(self) -> list[RequestLine]:
        """What the log has of requests that have ended."""
        assert isinstance(self.context.access_log, RecordedRequests)
        return self.context.access_log.lines

    def drain(self) -> None:
        self.context.draining = True
        self.connection.drain()

    def end_drain(self) -> None:
        """Let the time pass in which requests are still answered."""
        assert self.connection.state is ConnectionState.DRAINING
        self.connection.watch(time.monotonic() + DRAIN_SECONDS)

    def succeed(self, job: Job, size: int) -> None:
        succeed(job, self.spool, size=size)

    async def jobs_given(self, count: int = 1) -> list[Job]:
        await until(lambda: len(self.jobs) >= count)
        return self.jobs

    async def closed(self) -> None:
        await until(lambda: self.connection.state is ConnectionState.CLOSED)

    @property
    def received(self) -> int:
        """Bytes that have arrived of the body that is arriving."""
        incoming = self.connection.incoming
        return incoming.slot.received if incoming is not None and incoming.slot is not None else 0


@asynccontextmanager
async def connected(
    folder: Path, *, receive_buffer: int = 0, **spool: int
) -> AsyncIterator[tuple[Server, socket.socket]]:
    """A server, and a connection to it that never blocks."""
    loop = asyncio.get_running_loop()
    workers = FakeWorkers(free=MANY)
    context = make_context(folder, workers, idle_timeout=IDLE_TIMEOUT, max_upload=1 << 30, **spool)
    server = Server(context, workers)
    listener = await loop.create_server(lambda: server.connection, "127.0.0.1", 0)
    async with asyncio.timeout(SECONDS):
        with socket.socket() as sock:
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.setblocking(False)
            await loop.sock_connect(sock, listener.sockets[0].getsockname())
            await until(lambda: context.connections.served > 0)
            try:
                yield server, sock
            except BaseException:
                server.connection.abort()
                raise
            finally:
                sock.close()
                await server.closed()
                listener.close()
                context.spool.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something has become true."""
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.001)


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def read_to_end(sock: socket.socket) -> bytes:
    data = bytearray()
    while part := await asyncio.get_running_loop().sock_recv(sock, 1 << 16):
        data += part
    return bytes(data)


async def read_status(sock: socket.socket) -> int:
    """The status of the one version 2 message that is on its way, or of a version 1 failure."""
    data = await asyncio.get_running_loop().sock_recv(sock, 1 << 16)
    return status_of(data)


def status_of(data: bytes) -> int:
    _, magic, _, _, status, *_ = HEADER.unpack(data[: HEADER.size])
    assert magic == b"VIPS"
    return int(status)


def resize(request_id: int, body: bytes = b"image", *, announced: int | None = None) -> bytes:
    size = len(body) if announced is None else announced
    return pack_message(Kind.RESIZE, request_id, {"width": 9, "height": 9}, body_size=size) + body


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# The states of a connection


async def test_a_request_after_another_leaves_the_connection_open(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        for number in range(2):
            sock.sendall(resize(number))
            server.succeed((await server.jobs_given(number + 1))[-1], 10)
            assert await read_status(sock) == 200
        assert server.connection.state is ConnectionState.OPEN


async def test_a_version_1_connection_closes_after_its_reply(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(bare_client.header(5) + b"image")
        (job,) = await server.jobs_given()
        server.succeed(job, 10)
        assert server.connection.state is ConnectionState.CLOSING
        assert await read_to_end(sock) == struct.pack("!I", 10) + bytes(10)
        await server.closed()


async def test_a_version_1_client_that_has_ended_its_stream_gets_its_reply(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(bare_client.header(5) + b"image")
        (job,) = await server.jobs_given()
        sock.shutdown(socket.SHUT_WR)
        await until(lambda: server.connection.state is ConnectionState.HALF_CLOSED)
        server.succeed(job, 10)
        assert server.connection.state is ConnectionState.CLOSING
        assert len(await read_to_end(sock)) == 14


async def test_a_refused_header_lingers_and_closes_after_a_while(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(b"\0\0\0\0nonsense")
        assert status_of(await read_to_end(sock)) == 400
        assert server.connection.state is ConnectionState.LINGERING
        server.connection.watch(time.monotonic() + LINGER_SECONDS - 1)
        assert not server.connection.transport.is_closing()
        server.connection.watch(time.monotonic() + LINGER_SECONDS + 1)
        await server.closed()


async def test_an_idle_connection_is_closed(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        server.connection.watch(time.monotonic() + IDLE_TIMEOUT - 1)
        assert not server.connection.transport.is_closing()
        server.connection.watch(time.monotonic() + IDLE_TIMEOUT + 1)
        assert server.connection.state is ConnectionState.CLOSING
        assert await read_to_end(sock) == b""


def test_the_table_of_states_leads_from_open_to_closed() -> None:
    assert set(TRANSITIONS) == set(ConnectionState)
    assert all(ConnectionState.CLOSED in following for state, following in TRANSITIONS.items() if following)
    assert {state for state, following in TRANSITIONS.items() if not following} == {ConnectionState.CLOSED}
    beginnings = set(ConnectionState) - {state for following in TRANSITIONS.values() for state in following}
    assert beginnings == {ConnectionState.ANONYMOUS}
    # A login, and a request that is served during the drain, because the server has a successor.
    assert [state for state, following in TRANSITIONS.items() if ConnectionState.OPEN in following] == [
        ConnectionState.ANONYMOUS,
        ConnectionState.DRAINING,
    ]


# Drain and stop


async def test_a_drain_does_not_lose_a_reply_to_the_requests_that_follow(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(resize(1))
        (job,) = await server.jobs_given()
        server.drain()
        server.succeed(job, 1000)
        server.end_drain()
        sock.sendall(PING)  # unread when the connection ends: a plain close would be a reset
        data = await read_to_end(sock)
        assert status_of(data) == 200
        assert data.endswith(bytes(1000))


@pytest.mark.parametrize("in_flight", [False, True])
async def test_a_drain_answers_all_that_is_on_its_way(tmp_path: Path, *, in_flight: bool) -> None:
    async with connected(tmp_path) as (server, sock):
        if in_flight:
            sock.sendall(resize(99))
            await server.jobs_given()
        server.drain()
        for job in server.jobs:
            server.succeed(job, 10)
            assert await read_status(sock) == 200
        sock.sendall(b"".join(resize(number) for number in range(5)) + resize(5)[:10])
        await until(lambda: not server.connection.between_messages)
        server.end_drain()
        data, ids = await read_to_end(sock), []
        while data:
            _, _, _, _, status, request_id, meta_size, _ = HEADER.unpack(data[: HEADER.size])
            assert status == 503
            ids.append(request_id)
            data = data[HEADER.size + meta_size :]
        assert ids == [0, 1, 2, 3, 4, 0]  # the id of the last one had not arrived
        assert len(server.jobs) == in_flight


async def test_a_drain_does_not_cut_a_lingering_close_short(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(bare_client.header(2**31))
        await until(lambda: server.connection.state is ConnectionState.LINGERING)
        server.drain()
        assert not server.connection.transport.is_closing()
        assert status_of(await read_to_end(sock)) == 413


async def test_a_request_that_has_begun_when_a_drain_begins_is_refused(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        head = bare_client.header(5)
        sock.sendall(head[:7])
        await until(lambda: not server.connection.between_messages)
        server.drain()
        sock.sendall(head[7:] + b"image")
        assert status_of(await read_to_end(sock)) == 503


async def test_an_idle_connection_is_closed_by_a_drain(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        server.drain()
        server.end_drain()
        # A client that does not close then delays the stop for a short time only.
        assert server.connection.state is ConnectionState.LINGERING
        assert not server.connection.transport.is_closing()
        server.connection.watch(time.monotonic() + QUIET_LINGER_SECONDS)
        assert server.connection.transport.is_closing()
        assert await read_to_end(sock) == b""


async def test_a_server_with_a_successor_serves_what_arrives_during_its_drain(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        server.context.has_successor = True
        server.drain()
        end = time.monotonic() + DRAIN_SECONDS
        for number in (1, 2):
            sock.sendall(PING + resize(number))
            assert await read_status(sock) == 200
            (job, *_) = (await server.jobs_given(number))[::-1]
            assert server.connection.state.value == "open"
            server.succeed(job, 10)
            assert await read_status(sock) == 200
            assert server.connection.state.value == "draining"
        # A client that always sends another request does not make the drain longer.
        server.connection.watch(end)
        assert server.connection.state.value == "lingering"
        await read_to_end(sock)


@pytest.mark.parametrize("reason", ["withdrawn", "has_successor", None])
async def test_a_reply_says_that_the_client_should_connect_anew(tmp_path: Path, reason: str | None) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(resize(1))
        (job,) = await server.jobs_given()
        if reason is not None:
            setattr(server.context, reason, True)
        server.succeed(job, 10)
        data = await asyncio.get_running_loop().sock_recv(sock, 1 << 16)
        assert status_of(data) == 200
        assert data.count(b',"closing":true}') == (reason is not None)


async def test_the_first_request_of_a_version_1_client_is_served_by_a_server_with_a_successor(
    tmp_path: Path,
) -> None:
    async with connected(tmp_path) as (server, sock):
        server.context.has_successor = True
        server.drain()
        sock.sendall(bare_client.header(5)[:7])
        await until(lambda: not server.connection.between_messages)
        sock.sendall(bare_client.header(5)[7:] + b"ima")
        await until(lambda: server.connection.state is ConnectionState.OPEN)
        server.connection.watch(time.monotonic() + DRAIN_SECONDS)  # an upload may take longer
        sock.sendall(b"ge")
        (job,) = await server.jobs_given()
        server.succeed(job, 1000)
        assert len(await read_to_end(sock)) == 1004


async def test_a_cancel_cancels_during_a_drain(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(resize(1))
        await server.jobs_given()
        server.drain()
        sock.sendall(pack_message(Kind.CANCEL, 2, {"request_id": 1}))
        assert await read_status(sock) == 499


# Bounds on the number of connections


@asynccontextmanager
async def listening(
    folder: Path, **settings: int
) -> AsyncIterator[tuple[ServerContext, Callable[[], socket.socket]]]:
    """A server whose jobs nobody answers, and a way to connect to it."""
    context = make_context(folder, FakeWorkers(free=MANY), **settings)
    listener = await asyncio.get_running_loop().create_server(
        lambda: BinaryConnection(context), "127.0.0.1", 0
    )
    with ExitStack() as socks:

        def connect() -> socket.socket:
            sock = socks.enter_context(socket.create_connection(listener.sockets[0].getsockname()))
            sock.setblocking(False)
            return sock

        yield context, connect
    for connection in context.connections:
        connection.abort()
    await context.connections.wait_until_closed(SECONDS)
    listener.close()
    context.spool.close()


def watch_all(context: ServerContext) -> None:
    """What the gateway does several times a second."""
    for connection in context.connections:
        connection.watch(time.monotonic())


async def test_the_longest_idle_connection_gives_way_to_a_new_one(tmp_path: Path) -> None:
    async with listening(tmp_path, connections_per_client=3) as (context, connect):
        busy, longest, shorter = connect(), connect(), connect()
        busy.sendall(resize(1))
        for sock in (longest, shorter):
            sock.sendall(PING)
            assert await read_status(sock) == 200
            watch_all(context)
        new = connect()
        assert await read_to_end(longest) == b""
        for sock in (shorter, new):
            sock.sendall(PING)
            assert await read_status(sock) == 200
        assert context.connections.served == 3


async def test_a_client_at_its_bound_loses_its_own_idle_connections(tmp_path: Path) -> None:
    async with listening(tmp_path, connections=100, connections_per_client=2) as (context, connect):
        first, second = connect(), connect()
        for sock in (first, second):
            sock.sendall(PING)
            assert await read_status(sock) == 200
            watch_all(context)
        third = connect()
        assert await read_to_end(first) == b""
        for sock in (second, third):
            sock.sendall(resize(1))
        fourth = connect()
        await until(lambda: len(list(context.connections)) >= 3)
        fourth.sendall(resize(9))
        assert status_of(await read_to_end(fourth)) == 429
        assert context.connections.served == 2


async def test_the_queue_forgets_a_connection_that_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(tmp_path) as (context, connect):
        closed: list[Flow] = []
        monkeypatch.setattr(context.admission, "flow_closed", closed.append)
        sock = connect()
        sock.sendall(PING)
        assert await read_status(sock) == 200
        (flow,) = only_account(context.accounts, "127.0.0.1").flows
        sock.close()
        await until(lambda: closed == [flow])


async def test_many_announced_images_hold_little_of_the_spool(tmp_path: Path) -> None:
    """Each sends 13 bytes of a large image; the budgets are those of a server with its defaults."""
    count, memory, disk = 60, 256 << 20, 16 << 30
    async with listening(tmp_path, memory=memory, disk=disk) as (context, connect):
        for _ in range(count):
            connect().sendall(resize(1, b"only 13 bytes", announced=1 << 30))
        await until(lambda: memory - context.spool.memory_left >= count * SMALL_CHUNK_SIZE)
        assert memory - context.spool.memory_left == count * SMALL_CHUNK_SIZE
        assert disk - context.spool.disk_left <= count * SMALL_CHUNK_SIZE
        account = only_account(context.accounts, "127.0.0.1")
        assert account.share.memory.size == count * SMALL_CHUNK_SIZE


async def test_an_excess_connection_is_answered_a_ping_and_nothing_else(tmp_path: Path) -> None:
    async with listening(tmp_path, connections_per_client=3) as (context, connect):
        for _ in range(3):
            connect().sendall(resize(1))
        await until(lambda: context.connections.served == 3)
        await until(lambda: all(cast("BinaryConnection", one).in_flight for one in context.connections))
        asks, works, waits = connect(), connect(), connect()
        asks.sendall(2 * PING)
        assert status_of(await asyncio.get_running_loop().sock_recv(asks, HEADER.size)) == 200
        works.sendall(resize(7))
        refused = await read_to_end(works)
        assert HEADER.unpack(refused[: HEADER.size])[4:6] == (429, 7)
        for connection in context.connections:
            connection.watch(time.monotonic() + EXCESS_SECONDS)
        assert status_of(await read_to_end(waits)) == 429
        assert context.connections.served == 3
        assert (context.connections.told_busy, context.connections.dropped) == (3, 0)


@pytest.mark.parametrize("refused", [False, True])
async def test_a_client_that_is_still_sending_is_told_of_a_stop(tmp_path: Path, *, refused: bool) -> None:
    async with connected(tmp_path) as (server, sock):
        server.context.draining = refused
        sock.sendall(resize(1, b"half of it", announced=1000))
        await until(lambda: not server.connection.between_messages)
        sock.sendall(b"more of it")
        server.connection.stop()
        assert status_of(await read_to_end(sock)) == 503


async def test_every_client_that_waits_is_told_of_a_stop(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(resize(1) + resize(2))
        jobs = await server.jobs_given(2)
        server.connection.stop()
        assert all(job.answered for job in jobs)
        data = await read_to_end(sock)
        assert status_of(data) == 503
        assert data.count(b"the server has stopped") == 2


# Clients that leave, or do not take their replies


async def test_a_failure_for_a_client_that_has_ended_its_stream_closes_at_once(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(bare_client.header(5) + b"image")
        (job,) = await server.jobs_given()
        sock.shutdown(socket.SHUT_WR)
        await until(lambda: server.connection.state is ConnectionState.HALF_CLOSED)
        fail(job, Cancelled("cancelled"))
        await server.closed()
        assert status_of(await read_to_end(sock)) == 499


async def test_a_reply_to_a_client_that_has_just_left_harms_nobody(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(bare_client.header(5) + b"image")
        (job,) = await server.jobs_given()
        sock.close()
        fail(job, CorruptImage("no"))  # an exception here would hit the worker that answers


async def test_a_slow_reader_gets_all_of_its_reply(tmp_path: Path) -> None:
    size = 8_000_000  # more than the kernel holds
    async with connected(tmp_path, receive_buffer=1 << 16) as (server, sock):
        sock.sendall(bare_client.header(5) + b"image")
        (job,) = await server.jobs_given()
        server.succeed(job, size)
        assert server.connection.transport.get_write_buffer_size()
        assert len(await read_to_end(sock)) == 4 + size


async def test_a_connection_is_idle_from_its_last_reply_on(tmp_path: Path) -> None:
    """Even if reading had stopped because replies were not taken."""
    async with connected(tmp_path, receive_buffer=1 << 16) as (server, sock):
        sock.sendall(b"".join(resize(number) for number in range(MAX_IN_FLIGHT)))
        first, *others = list(await server.jobs_given(MAX_IN_FLIGHT))
        server.succeed(first, 8_000_000)
        for job in others:
            fail(job, Cancelled("cancelled"))
        connection = server.connection
        assert not connection.transport.is_reading()
        while connection.transport.get_write_buffer_size():
            await asyncio.get_running_loop().sock_recv(sock, 1 << 20)
        await until(connection.transport.is_reading)
        connection.watch(time.monotonic() + IDLE_TIMEOUT / 2)
        assert connection.state is ConnectionState.OPEN


@pytest.mark.parametrize("is_linux", [True, False])
async def test_a_client_that_hangs_up_while_nothing_is_read_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_linux: bool
) -> None:
    if not is_linux:
        monkeypatch.delattr(select, "POLLRDHUP")
    async with connected(tmp_path) as (server, sock):
        sock.sendall(b"".join(resize(number) for number in range(MAX_IN_FLIGHT)))
        jobs = await server.jobs_given(MAX_IN_FLIGHT)
        reset(sock)
        server.connection.watch(time.monotonic())
        assert all(job.answered for job in jobs)


async def test_clients_that_leave_before_their_replies_do_not_harm_later_ones(tmp_path: Path) -> None:
    """A later client may get the descriptor of one that has left: nothing may still be watched under it."""
    context = make_context(tmp_path, FakeWorkers())
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: BinaryConnection(context), "127.0.0.1", 0)
    address = listener.sockets[0].getsockname()

    def leave_before_the_replies() -> None:
        for _ in range(20):
            with socket.create_connection(address) as sock:
                sock.sendall(20 * PING)

    def ping() -> bytes:
        with socket.create_connection(address, SECONDS) as sock:
            sock.sendall(PING)
            return sock.recv(HEADER.size)

    await asyncio.to_thread(leave_before_the_replies)
    for _ in range(10):
        assert status_of(await asyncio.to_thread(ping)) == 200
    await context.connections.wait_until_closed(SECONDS)
    listener.close()
    context.spool.close()


async def test_a_ping_fails_while_the_server_has_no_worker(tmp_path: Path) -> None:
    def no_worker() -> None:
        raise Draining("no worker has been ready for 9 s")

    async with connected(tmp_path) as (server, sock):
        for check, status in ((no_worker, 503), (lambda: None, 200), (no_worker, 503)):
            server.context.check_ready = check
            sock.sendall(PING)
            assert await read_status(sock) == status
        assert server.connection.state is ConnectionState.OPEN


# Uploads, the disk, and the deadline


async def test_a_lack_of_room_is_forgotten_if_nothing_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event loop asks for a buffer before it knows whether there is anything to read."""

    def no_room(_: Slot) -> memoryview:
        raise Busy("no room")

    async with connected(tmp_path) as (server, sock):
        sock.sendall(resize(1, b"half", announced=8))
        await until(lambda: server.received == len(b"half"))
        connection = server.connection
        assert connection.incoming is not None
        with monkeypatch.context() as patch:
            patch.setattr(type(connection.incoming.slot), "room", no_room)
            connection.get_buffer(-1)
        sock.sendall(b"rest")
        (job,) = await server.jobs_given()
        server.succeed(job, 10)
        assert await read_status(sock) == 200


async def test_an_upload_that_waits_for_the_disk_is_given_up_at_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    disk.stop()
    size = 100_000  # of which the slot may hold all
    async with connected(tmp_path, memory=0) as (server, sock):
        head = pack_message(Kind.RESIZE, 7, {"width": 9, "height": 9, "deadline_ms": 1000}, body_size=size)
        await send(sock, head + bytes(size))
        connection = server.connection
        await until(lambda: any(one.timeline.received for one in connection.in_flight))
        connection.watch(time.monotonic())
        assert connection.in_flight
        connection.watch(time.monotonic() + 1.1)
        assert await read_status(sock) == 504
        assert not connection.in_flight
        assert server.jobs == []
        disk.go_on()


async def test_a_connection_is_watched_only_while_there_is_something_to_check(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        connection = server.connection

        def watch() -> float:
            connection.watch(time.monotonic())
            return connection.watch_at - time.monotonic()

        await until(lambda: connection.watch_at == 0)
        assert IDLE_TIMEOUT - 5 < watch() <= IDLE_TIMEOUT
        head = pack_message(Kind.RESIZE, 7, {"width": 9, "height": 9}, body_size=10)
        await send(sock, head)  # announced, so that only the receive timeout is left
        await until(lambda: connection.watch_at == 0)
        assert 25 < watch() <= 30
        await send(sock, bytes(10))
        (job,) = await server.jobs_given()
        assert watch() < 0  # its deadline is running
        server.succeed(job, 10)
        assert await read_status(sock) == 200
        assert IDLE_TIMEOUT - 5 < watch() <= IDLE_TIMEOUT
        server.drain()
        assert 0 < watch() <= DRAIN_SECONDS
        server.connection.stop()
        await until(lambda: connection.watch_at == 0)


async def test_an_upload_that_is_not_read_on_for_the_disk_is_refused_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    disk.stop()
    async with connected(tmp_path) as (server, sock):
        sending = asyncio.create_task(send(sock, bare_client.header(20 << 20) + bytes(20 << 20)))
        connection = server.connection
        await until(lambda: not connection.transport.is_reading())
        connection.watch(time.monotonic() + 29)
        assert connection.state is ConnectionState.OPEN
        connection.watch(time.monotonic() + 31)
        assert status_of(await read_to_end(sock)) == 429
        await sending
        disk.go_on()


async def test_an_upload_below_the_least_rate_is_refused(tmp_path: Path) -> None:
    async with connected(tmp_path, receive_timeout=MANY, min_rate=100) as (server, sock):
        connection, now = server.connection, time.monotonic()
        sock.sendall(resize(7, bytes(5000), announced=100_000))
        await until(lambda: server.received == 5000)
        connection.watch(now)
        connection.watch(now + GRACE_SECONDS + 50)
        assert server.received == 5000
        connection.watch(now + GRACE_SECONDS + 51)
        assert connection.state is ConnectionState.LINGERING
        assert server.received == 0  # its room is given back
        reply = await read_to_end(sock)
        assert status_of(reply) == 408
        assert b"too slow: 5000 of 100000 bytes in 651 s, where 100 bytes per second" in reply


async def test_an_upload_that_is_fast_enough_may_take_long(tmp_path: Path) -> None:
    async with connected(tmp_path, receive_timeout=MANY, min_rate=100) as (server, sock):
        connection, now = server.connection, time.monotonic()
        for number in range(2):  # the second has its own time
            sock.sendall(resize(number, bytes(50_000), announced=100_000))
            await until(lambda: server.received == 50_000)
            connection.watch(now)
            now += GRACE_SECONDS + 499
            connection.watch(now)
            sock.sendall(bytes(50_000))
            server.succeed((await server.jobs_given(number + 1))[-1], 10)
            assert await read_status(sock) == 200


async def test_a_client_that_reads_below_the_least_rate_is_closed(tmp_path: Path) -> None:
    async with connected(tmp_path, receive_timeout=MANY, min_rate=MANY, receive_buffer=1 << 16) as (
        server,
        sock,
    ):
        sock.sendall(resize(7))
        (job,) = await server.jobs_given()
        server.succeed(job, IN_MEMORY_SIZE)
        connection, now = server.connection, time.monotonic()
        await asyncio.get_running_loop().sock_recv(sock, 1 << 16)
        connection.watch(now)
        connection.watch(now + GRACE_SECONDS - 1)
        assert connection.state is ConnectionState.OPEN
        connection.watch(now + GRACE_SECONDS + IN_MEMORY_SIZE / MANY)
        await server.closed()
        (line,) = server.lines
        assert f"of {IN_MEMORY_SIZE} bytes in 608 s" in str(line.lost)


async def test_a_result_that_waits_for_the_disk_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(resize(7))
        (job,) = await server.jobs_given()
        server.connection.watch(job.deadline)
        assert not job.answered
        server.connection.watch(job.deadline + 0.001)
        assert await read_status(sock) == 504
        before = server.spool.disk_left
        server.succeed(job, IN_MEMORY_SIZE + 1)  # too late
        await until(lambda: server.spool.disk_left == before)


async def test_a_result_that_is_too_large_for_version_1_is_refused(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(bare_client.header(5) + b"image")
        (job,) = await server.jobs_given()
        before = server.spool.disk_left
        job.close()
        job.answer(Outcome(result=server.spool.open(2**32)))
        assert status_of(await read_to_end(sock)) == 413
        await until(lambda: server.spool.disk_left == before)


async def test_an_internal_error_is_logged_as_an_error(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(resize(7))
        (job,) = await server.jobs_given()
        fail(job, InternalError("a bug", where="encode.py:60 _write"))
        assert await read_status(sock) == 500
    (line,) = server.lines
    fields = line.fields()
    assert (line.request_id, line.level, fields["error"]) == (7, "error", "a bug")
    assert fields["where"] == "encode.py:60 _write"


# Reading


@pytest.mark.parametrize("connections", [1, 2])
async def test_a_client_that_sends_much_takes_turns_with_the_others(tmp_path: Path, connections: int) -> None:
    size = TURN_SIZE + TURN_SIZE // 2
    async with connected(tmp_path) as (server, sock):
        if connections > 1:
            server.context.connections.add(OtherConnection(), Account("192.0.2.1"))
        sock.sendall(resize(1, b"", announced=size))
        connection = server.connection
        await until(lambda: connection.incoming is not None)
        received, pauses = 0, 0
        while received < size:
            # As a loop that reads on for as long as there is more.
            while connection.transport.is_reading() and received < size:
                room = len(connection.get_buffer(-1))
                connection.buffer_updated(room)
                received += room
            pauses += 1
            await until(connection.transport.is_reading)
        assert pauses == connections
        (job,) = await server.jobs_given()
        server.succeed(job, 10)
        assert await read_status(sock) == 200


async def handled_in_one_turn(server: Server, message: bytes) -> int:
    """Let many messages arrive in one read; return how many are answered before others get a turn."""
    connection, before = server.connection, len(server.lines)
    data = message * (READ_AHEAD_SIZE // len(message))
    room = connection.get_buffer(-1)
    room[: len(data)] = data
    connection.buffer_updated(len(data))
    handled = len(server.lines) - before
    assert not connection.transport.is_reading()
    await until(lambda: len(server.lines) - before == READ_AHEAD_SIZE // len(message))
    await until(connection.transport.is_reading)
    return handled


async def test_small_messages_take_turns_with_other_connections(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        for _ in range(2):  # the first header is read in two parts, as version 1 or 2
            await send(sock, PING)
            assert await read_status(sock) == 200
        assert await handled_in_one_turn(server, PING) == TURN_SIZE // HEADER_COST


async def test_a_refused_message_ends_the_turn(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, _):
        assert await handled_in_one_turn(server, pack_message(99, 1)) == 1


async def test_requests_that_wait_unread_are_not_mixed_with_those_of_others(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock), connected(tmp_path) as (other, other_sock):
        many = b"".join(resize(number, b"first") for number in range(MAX_IN_FLIGHT))
        sock.sendall(many + resize(MAX_IN_FLIGHT, b"the last"))
        jobs = await server.jobs_given(MAX_IN_FLIGHT)
        await send(other_sock, resize(1, b"x" * 60_000))
        await other.jobs_given()
        for job in list(jobs):
            server.succeed(job, 1)
        last = (await server.jobs_given(MAX_IN_FLIGHT + 1))[-1]
        assert content(last.image) == b"the last"


LARGE = 2 * IN_MEMORY_SIZE + 12_345


async def test_large_images_and_what_follows_them_arrive_unchanged(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        images = [os.urandom(LARGE) for _ in range(2)]
        await send(sock, resize(1, images[0]) + resize(2, images[1]) + resize(3, b"small"))
        jobs = await server.jobs_given(3)
        assert {content(job.image) for job in jobs} == {*images, b"small"}
        for job in jobs:
            server.succeed(job, 10)
        assert await read_status(sock) == 200


async def test_a_large_image_in_uneven_pieces_arrives_unchanged(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        image = os.urandom(LARGE)
        message = resize(1, image)
        head = len(message) - LARGE
        for start, end in itertools.pairwise([0, 10, 1000, 600_000, 600_001, LARGE, len(message)]):
            await send(sock, message[start:end])
            await until(partial(_has_received, server, end - head))
        (job,) = await server.jobs_given()
        assert content(job.image) == image
        server.succeed(job, 10)
        assert await read_status(sock) == 200


def _has_received(server: Server, size: int) -> bool:
    return bool(server.jobs) or server.received >= size


@pytest.mark.parametrize("leave", [socket.socket.close, reset])
async def test_a_client_that_leaves_within_a_large_image_frees_its_file(
    tmp_path: Path, leave: Callable[[socket.socket], None]
) -> None:
    async with connected(tmp_path) as (server, sock):
        whole = server.spool.disk_left
        await send(sock, resize(1, bytes(LARGE), announced=LARGE + 1))
        assert server.spool.disk_left < whole
        leave(sock)
        await until(lambda: server.spool.disk_left == whole)
        assert server.jobs == []


async def test_a_disk_that_fails_within_a_large_image_costs_only_that_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    async with connected(tmp_path) as (server, sock):
        first, rest = (message := resize(1, os.urandom(LARGE)))[: LARGE // 2], message[LARGE // 2 :]
        await send(sock, first)
        await until(lambda: server.received > 0)
        disk.fill_up()
        await send(sock, rest + resize(2))
        (job,) = await server.jobs_given()
        assert job.image.size == len(b"image")
        server.succeed(job, 10)
        assert await read_status(sock) == Busy.status


async def test_bytes_read_ahead_of_a_refusal_are_discarded_and_reading_goes_on(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        requests = [resize(number) for number in range(MAX_IN_FLIGHT + 8)]
        await send(sock, b"".join(requests) + resize(99, bytes(1000), announced=2 << 30))
        while server.connection.state is not ConnectionState.LINGERING:
            while server.jobs:
                server.succeed(server.jobs.pop(), 10)
            await asyncio.sleep(0)
        await send(sock, bytes(16 << 20))  # which nobody would take if reading had ended


async def test_a_body_is_spliced_from_a_plain_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not splice.available():
        pytest.skip("only Linux has splice(2)")
    spliced, splice_bytes = 0, os.splice

    def counting(src: int, dst: int, count: int, **options: Any) -> int:
        nonlocal spliced
        size = splice_bytes(src, dst, count, **options)
        spliced += size
        return size

    monkeypatch.setattr(os, "splice", counting)
    async with connected(tmp_path) as (server, sock):
        image = os.urandom(LARGE)
        await send(sock, resize(1, image))
        (job,) = await server.jobs_given()
        assert content(job.image) == image
        assert spliced > 0
        server.succeed(job, 10)
        assert await read_status(sock) == 200
