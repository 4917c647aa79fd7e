"""Sessions on real sockets and both event loops, with a pool that the test plays."""

import asyncio
import errno
import itertools
import logging
import os
import select
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.support import bare_client
from vipsrv.errors import Busy, Cancelled, CorruptImage, InternalError
from vipsrv.options import ImageInfo, OutputInfo
from vipsrv.protocol import HEADER, Kind, pack_message
from vipsrv.server.receiver import TURN_SIZE
from vipsrv.server.session import MAX_IN_FLIGHT, Session
from vipsrv.server.settings import ServerSettings
from vipsrv.storage import Slot, Spool, file_slot, splice
from vipsrv.storage.files import FileStore
from vipsrv.worker_config import IN_MEMORY_SIZE
from vipsrv.workers.job import Job, Outcome

if TYPE_CHECKING:
    from vipsrv.server.gateway import Gateway

SECONDS = 20
IDLE_TIMEOUT = 1000.0
PING = pack_message(Kind.PING, 99)

Test = Callable[[], Coroutine[Any, Any, None]]
RunInLoop = Callable[[Test], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> RunInLoop:
    """Runs a test in an event loop; fails it for what only the loop would have heard of."""

    def run_in_loop(test: Test) -> None:
        unheard: list[dict[str, Any]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
            await asyncio.wait_for(test(), SECONDS)

        pytest.importorskip(request.param).run(main())
        assert unheard == []

    return run_in_loop


class Server:
    """What a session knows of its server: the jobs it is given wait for the test to answer them."""

    def __init__(self, folder: Path) -> None:
        self.settings = ServerSettings(idle_timeout=IDLE_TIMEOUT, receive_timeout=30.0, max_upload=1 << 30)
        self.spool = Spool(directory=folder, memory=16 << 20, disk=8 << 30)
        self.admission = self
        self.draining = False
        self.connections = 1
        self.jobs: list[Job] = []
        self.session: Session
        self.closed = asyncio.Event()

    def session_opened(self, session: Session) -> None:
        self.session = session

    def session_closed(self, _session: Session) -> None:
        self.closed.set()

    def check(self) -> None:
        pass

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def cancel(self, job: Job) -> None:
        job.fail(Cancelled("cancelled"))
        job.close()

    def job_took(self, seconds: float) -> None:
        pass

    def drain(self) -> None:
        self.draining = True
        self.session.drain()

    def answer(self, job: Job, size: int) -> None:
        """Answer with a result of so many bytes."""
        source = ImageInfo(
            format="jpeg", width=9, height=9, pages=1, has_alpha=False, orientation=1, size=job.image.size
        )
        output = OutputInfo(width=9, height=9, format="jpeg", quality=85, size=size)
        job.close()
        job.answer(Outcome(source=source, outputs=(output,), result=filled(self.spool.open(size))))

    async def jobs_given(self, count: int = 1) -> list[Job]:
        await until(lambda: len(self.jobs) >= count)
        return self.jobs


def filled(slot: Slot) -> Slot:
    while slot.received < slot.size:
        room = slot.room()
        room[:] = bytes(len(room))
        slot.filled(len(room))
    return slot


@asynccontextmanager
async def connected(folder: Path, *, receive_buffer: int = 0) -> AsyncIterator[tuple[Server, socket.socket]]:
    """A server, and a connection to it that never blocks."""
    loop = asyncio.get_running_loop()
    server = Server(folder)
    listener = await loop.create_server(lambda: Session(cast("Gateway", server)), "127.0.0.1", 0)
    with socket.socket() as sock:
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await loop.sock_connect(sock, listener.sockets[0].getsockname())
        await until(lambda: hasattr(server, "session"))
        try:
            yield server, sock
        except BaseException:
            server.session.abort()
            raise
        finally:
            sock.close()
            await server.closed.wait()
            listener.close()
            server.spool.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something has become true; the test's own timeout bounds it."""
    while not condition():
        await asyncio.sleep(0.001)


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


def test_a_drain_does_not_lose_a_reply_to_the_requests_that_follow(run: RunInLoop, tmp_path: Path) -> None:
    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            sock.sendall(resize(1))
            (job,) = await server.jobs_given()
            server.drain()
            sock.sendall(PING)  # unread when the connection ends: a plain close would be a reset
            server.answer(job, 1000)
            data = await read_to_end(sock)
            assert status_of(data) == 200
            assert data.endswith(bytes(1000))

    run(test)


def test_a_drain_does_not_cut_a_lingering_close_short(run: RunInLoop, tmp_path: Path) -> None:
    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            sock.sendall(bare_client.header(2**31))
            await until(lambda: server.session._lingering)
            server.drain()
            assert not server.session._transport.is_closing()
            assert status_of(await read_to_end(sock)) == 413

    run(test)


def test_a_request_that_has_begun_when_a_drain_begins_is_told_so(run: RunInLoop, tmp_path: Path) -> None:
    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            head = bare_client.header(5)
            sock.sendall(head[:7])
            await until(lambda: not server.session._reader.between_messages)
            server.drain()
            sock.sendall(head[7:] + b"image")
            assert status_of(await read_to_end(sock)) == 503

    run(test)


def test_an_idle_connection_is_closed_by_a_drain(run: RunInLoop, tmp_path: Path) -> None:
    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            server.drain()
            await server.closed.wait()
            assert await read_to_end(sock) == b""

    run(test)


@pytest.mark.parametrize("refused", [False, True])
def test_a_stop_is_told_to_a_client_that_is_still_sending(
    run: RunInLoop, tmp_path: Path, *, refused: bool
) -> None:
    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            server.draining = refused
            sock.sendall(resize(1, b"half of it", announced=1000))
            await until(lambda: server.session._reader.in_body)
            sock.sendall(b"more of it")
            server.session.stop()
            assert status_of(await read_to_end(sock)) == 503

    run(test)


def test_a_failure_for_a_client_that_has_ended_its_stream_closes_at_once(
    run: RunInLoop, tmp_path: Path
) -> None:
    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            sock.sendall(bare_client.header(5) + b"image")
            (job,) = await server.jobs_given()
            sock.shutdown(socket.SHUT_WR)
            await until(lambda: server.session._ended)
            server.cancel(job)
            await server.closed.wait()
            assert status_of(await read_to_end(sock)) == 499

    run(test)


def test_a_client_that_goes_as_it_is_answered_harms_nobody(run: RunInLoop, tmp_path: Path) -> None:
    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            sock.sendall(bare_client.header(5) + b"image")
            (job,) = await server.jobs_given()
            sock.close()
            job.fail(CorruptImage("no"))  # what this raised would fall on the worker that answers
            job.close()

    run(test)


def test_a_slow_reader_ends_in_peace(run: RunInLoop, tmp_path: Path) -> None:
    async def test() -> None:
        size = 8_000_000  # more than the kernel holds
        async with connected(tmp_path, receive_buffer=1 << 16) as (server, sock):
            sock.sendall(bare_client.header(5) + b"image")
            (job,) = await server.jobs_given()
            server.answer(job, size)
            assert len(server.session._outbox)
            assert len(await read_to_end(sock)) == 4 + size

    run(test)


def test_a_connection_is_idle_from_its_last_reply_on(run: RunInLoop, tmp_path: Path) -> None:
    """That reading had stopped, as replies were not taken, makes no difference."""

    async def test() -> None:
        async with connected(tmp_path, receive_buffer=1 << 16) as (server, sock):
            sock.sendall(b"".join(resize(number) for number in range(MAX_IN_FLIGHT)))
            first, *others = await server.jobs_given(MAX_IN_FLIGHT)
            server.answer(first, 8_000_000)
            for job in others:
                server.cancel(job)
            session = server.session
            assert not session._reading
            while session._outbox:
                await asyncio.get_running_loop().sock_recv(sock, 1 << 20)
            assert session._reading
            assert session._expires > time.monotonic() + IDLE_TIMEOUT / 2

    run(test)


def test_a_client_that_hangs_up_while_nothing_is_read_is_noticed(
    run: RunInLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            sock.sendall(b"".join(resize(number) for number in range(MAX_IN_FLIGHT)))
            jobs = await server.jobs_given(MAX_IN_FLIGHT)
            reset(sock)
            server.session.watch(time.monotonic())
            assert all(job.answered for job in jobs)

    run(test)
    monkeypatch.delattr(select, "POLLRDHUP")  # only Linux has it
    run(test)


def test_room_that_was_missing_when_nothing_was_read_is_forgotten(
    run: RunInLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event loop asks for a buffer before it knows whether there is anything to read."""

    def no_room(_: Slot) -> memoryview:
        raise Busy("no room")

    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            sock.sendall(resize(1, b"half", announced=8))
            session = server.session
            await until(lambda: session._reader.in_body and session._reader.wanted == 4)
            assert session._incoming is not None
            with monkeypatch.context() as patch:
                patch.setattr(Slot, "room", no_room)
                session.get_buffer(-1)
            sock.sendall(b"rest")
            (job,) = await server.jobs_given()
            server.answer(job, 10)
            assert await read_status(sock) == 200

    run(test)


def stop_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No write ever ends."""
    for name in ("write", "write_and_splice"):
        monkeypatch.setattr(FileStore, name, lambda *_: asyncio.get_running_loop().create_future())


def test_an_upload_that_waits_for_the_disk_is_given_up_at_its_deadline(
    run: RunInLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_disk(monkeypatch)

    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            head = pack_message(
                Kind.RESIZE, 7, {"width": 9, "height": 9, "deadline_ms": 1000}, body_size=IN_MEMORY_SIZE + 1
            )
            image = bytes(IN_MEMORY_SIZE + 1)
            # So much may be held in memory that all of it has arrived, and nobody else reads it.
            monkeypatch.setattr(splice, "available", lambda: False)
            monkeypatch.setattr(file_slot, "WRITE_BEHIND", 1 << 30)
            await asyncio.get_running_loop().sock_sendall(sock, head + image)
            await until(lambda: any(one.received for one in server.session._in_flight.values()))
            server.session.watch(time.monotonic())
            assert server.session._in_flight
            server.session.watch(time.monotonic() + 1.1)
            assert await read_status(sock) == 504
            assert not server.session._in_flight
            assert server.jobs == []

    run(test)


def test_an_upload_that_is_not_read_on_for_the_disk_is_refused_in_the_end(
    run: RunInLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_disk(monkeypatch)

    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            sending = asyncio.create_task(
                asyncio.get_running_loop().sock_sendall(sock, bare_client.header(20 << 20) + bytes(20 << 20))
            )
            await until(lambda: not server.session._reading)
            server.session.watch(time.monotonic() + 29)
            assert not server.session._lingering
            server.session.watch(time.monotonic() + 31)
            assert status_of(await read_to_end(sock)) == 429
            await sending

    run(test)


def test_a_result_that_waits_for_the_disk_is_given_up_at_the_deadline(run: RunInLoop, tmp_path: Path) -> None:
    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            sock.sendall(resize(7))
            (job,) = await server.jobs_given()
            server.session.watch(job.deadline)
            assert not job.answered
            server.session.watch(job.deadline + 0.001)
            assert await read_status(sock) == 504
            before = server.spool.disk_left
            server.answer(job, IN_MEMORY_SIZE + 1)  # too late
            await until(lambda: server.spool.disk_left == before)

    run(test)


def test_a_result_that_version_1_cannot_tell_of_is_refused(run: RunInLoop, tmp_path: Path) -> None:
    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            sock.sendall(bare_client.header(5) + b"image")
            (job,) = await server.jobs_given()
            before = server.spool.disk_left
            job.close()
            job.answer(Outcome(result=server.spool.open(2**32)))
            assert status_of(await read_to_end(sock)) == 413
            while server.spool.disk_left != before:
                await asyncio.sleep(0)

    run(test)


def test_a_bug_is_logged_as_an_error(
    run: RunInLoop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            sock.sendall(resize(7))
            (job,) = await server.jobs_given()
            job.fail(InternalError("a bug", where="encode.py:60 _write"))
            job.close()
            assert await read_status(sock) == 500

    run(test)
    (record,) = (record for record in caplog.records if "request 7" in record.message)
    assert record.levelno == logging.ERROR
    assert "a bug (encode.py:60 _write)" in record.message


@pytest.mark.parametrize("connections", [1, 2])
def test_who_sends_much_takes_turns_with_the_others(run: RunInLoop, tmp_path: Path, connections: int) -> None:
    size = 2 * TURN_SIZE

    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            server.connections = connections
            sock.sendall(resize(1, b"", announced=size))
            session = server.session
            await until(lambda: session._incoming is not None)
            received, pauses = 0, 0
            while received < size:
                # As a loop that reads on for as long as there is more.
                while session._reading and received < size:
                    room = len(session.get_buffer(-1))
                    session.buffer_updated(room)
                    received += room
                pauses += 1
                await until(lambda: session._reading)
            assert pauses == connections
            (job,) = await server.jobs_given()
            server.answer(job, 10)
            assert await read_status(sock) == 200

    run(test)


@pytest.mark.parametrize("kind", [Kind.RESIZE, Kind.INFO, 99])
def test_what_was_read_of_the_meta_is_not_kept_for_as_long_as_the_body_takes(
    run: RunInLoop, tmp_path: Path, kind: int
) -> None:
    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            sock.sendall(pack_message(kind, 1, {"width": 9, "height": 9}, body_size=100))
            await until(lambda: server.session._incoming is not None)
            assert server.session._incoming is not None
            assert not server.session._incoming.meta

    run(test)


def test_what_waits_to_be_taken_is_not_mixed_with_what_others_send(run: RunInLoop, tmp_path: Path) -> None:
    async def test() -> None:
        async with connected(tmp_path) as (server, sock), connected(tmp_path) as (other, other_sock):
            many = b"".join(resize(number, b"first") for number in range(MAX_IN_FLIGHT))
            sock.sendall(many + resize(MAX_IN_FLIGHT, b"the last"))
            jobs = await server.jobs_given(MAX_IN_FLIGHT)
            await send(other_sock, resize(1, b"x" * 60_000))
            await other.jobs_given()
            for job in list(jobs):
                server.answer(job, 1)
            last = (await server.jobs_given(MAX_IN_FLIGHT + 1))[-1]
            assert b"".join(last.image.views) == b"the last"

    run(test)


LARGE = 2 * IN_MEMORY_SIZE + 12_345


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


def content(job: Job) -> bytes:
    assert job.image.descriptor is not None
    return os.pread(job.image.descriptor, LARGE + 1, 0)


def test_a_large_image_arrives_as_it_was_and_what_follows_it_too(run: RunInLoop, tmp_path: Path) -> None:
    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            images = [os.urandom(LARGE) for _ in range(2)]
            await send(sock, resize(1, images[0]) + resize(2, images[1]) + resize(3, b"small"))
            jobs = await server.jobs_given(3)
            assert [content(job) for job in jobs[:2]] == images
            assert b"".join(map(bytes, jobs[2].image.views)) == b"small"
            for job in jobs:
                server.answer(job, 10)
            assert await read_status(sock) == 200

    run(test)


def test_a_large_image_in_uneven_pieces_arrives_as_it_was(run: RunInLoop, tmp_path: Path) -> None:
    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            image = os.urandom(LARGE)
            message = resize(1, image)
            head = len(message) - LARGE
            for start, end in itertools.pairwise([0, 10, 1000, 600_000, 600_001, LARGE, len(message)]):
                await send(sock, message[start:end])
                await until(partial(has_received, server, end - head))
            (job,) = await server.jobs_given()
            assert content(job) == image
            server.answer(job, 10)
            assert await read_status(sock) == 200

    run(test)


def has_received(server: Server, size: int) -> bool:
    return bool(server.jobs) or received(server) >= size


def received(server: Server) -> int:
    request = server.session._incoming
    return request.slot.received if request is not None and request.slot is not None else 0


@pytest.mark.parametrize("leave", [socket.socket.close, reset])
def test_a_client_that_goes_within_a_large_image_frees_its_file(
    run: RunInLoop, tmp_path: Path, leave: Callable[[socket.socket], None]
) -> None:
    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            whole = server.spool.disk_left
            await send(sock, resize(1, bytes(LARGE), announced=LARGE + 1))
            assert server.spool.disk_left < whole
            leave(sock)
            await until(lambda: server.spool.disk_left == whole)
            assert server.jobs == []

    run(test)


def test_a_disk_that_fails_within_a_large_image_costs_that_request_only(
    run: RunInLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splice_ = os.splice

    def no_space(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def splice_without_space(*given: Any, **options: Any) -> int:
        return no_space() if "offset_dst" in options else splice_(*given, **options)

    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            first, rest = (message := resize(1, os.urandom(LARGE)))[: LARGE // 2], message[LARGE // 2 :]
            await send(sock, first)
            await until(lambda: received(server) > 0)
            monkeypatch.setattr(os, "pwritev", no_space)
            monkeypatch.setattr(os, "splice", splice_without_space)
            await send(sock, rest + resize(2))
            (job,) = await server.jobs_given()
            assert job.image.size == len(b"image")
            server.answer(job, 10)
            assert await read_status(sock) == Busy.status

    run(test)


def test_what_was_read_ahead_of_a_refusal_is_discarded_and_reading_goes_on(
    run: RunInLoop, tmp_path: Path
) -> None:
    async def test() -> None:
        async with connected(tmp_path) as (server, sock):
            requests = [resize(number) for number in range(MAX_IN_FLIGHT + 8)]
            await send(sock, b"".join(requests) + resize(99, bytes(1000), announced=2 << 30))
            while not server.session._lingering:
                while server.jobs:
                    server.answer(server.jobs.pop(), 10)
                await asyncio.sleep(0)
            await send(sock, bytes(16 << 20))  # which nobody would take if reading had ended

    run(test)
