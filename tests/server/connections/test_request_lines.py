"""What a connection tells the log about each request: one line, whatever happens to it."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.connections.test_binary import (
    PING,
    Server,
    connected,
    read_status,
    read_to_end,
    reset,
    resize,
    until,
)
from tests.server.fakes import fail
from tests.support import bare_client
from vipsrv.errors import CorruptImage, TooLarge, WorkerDied
from vipsrv.protocol import Kind, pack_message
from vipsrv.server.connections.served import DISCONNECTED
from vipsrv.server.logs.request_json import request_json
from vipsrv.storage.spool import Slot
from vipsrv.worker_config import IN_MEMORY_SIZE
from vipsrv.workers.job import Job

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_success_has_all_that_is_known(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        address = sock.getsockname()
        sock.sendall(resize(7))
        (job,) = await server.jobs_given()
        server.succeed(job, 10)
        assert await read_status(sock) == 200
        (line,) = server.lines
        fields = line.fields()
        stages = fields.pop("ms")
        assert list(stages) == ["receive", "queue", "process", "send", "total"]
        assert all(value >= 0 for value in stages.values())
        assert fields == {
            "level": "info",
            "event": "request",
            "connection": 1,
            "id": 7,
            "peer": f"127.0.0.1:{address[1]}",
            "protocol": "v2",
            "kind": "resize",
            "status": 200,
            "code": "ok",
            "source": {"format": "jpeg", "width": 9, "height": 9, "bytes": 5},
            "results": [{"format": "jpeg", "width": 9, "height": 9, "bytes": 10}],
            "ratio": 0.5,
        }


async def test_a_version_1_request_is_named_so(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(bare_client.header(5) + b"image")
        (job,) = await server.jobs_given()
        server.succeed(job, 10)
        assert len(await read_to_end(sock)) == 14
        (line,) = server.lines
        fields = line.fields()
        assert (fields["protocol"], fields["id"], fields["status"]) == ("v1", 0, 200)
        assert "send" in fields["ms"]


async def test_a_failure_has_its_status_and_reason(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(resize(7))
        (job,) = await server.jobs_given()
        fail(job, CorruptImage("no\nimage\u202e"))
        assert await read_status(sock) == 422
        (line,) = server.lines
        fields = line.fields()
        assert (fields["status"], fields["code"], fields["source"]) == (422, "corrupt_image", {"bytes": 5})
        assert fields["error"] == "no\\nimage\\u202e"


async def test_a_cancelled_request_and_its_cancel_have_a_line_each(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(resize(7))
        await server.jobs_given()
        sock.sendall(pack_message(Kind.CANCEL, 8, {"request_id": 7}))
        await until(lambda: len(server.lines) == 2)
        assert [(line.kind, line.status, line.level) for line in server.lines] == [
            ("resize", 499, "info"),
            ("cancel", 200, "debug"),
        ]


async def test_a_request_whose_client_leaves_during_the_work(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(resize(7))
        await server.jobs_given()
        sock.close()
        await server.closed()
        (line,) = server.lines
        assert (line.status, line.lost) == (499, "the client disconnected")


async def test_a_request_whose_client_leaves_during_the_upload(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(resize(7, announced=1000))
        await until(lambda: server.received == len(b"image"))
        reset(sock)
        await server.closed()
        (line,) = server.lines
        assert (line.status, line.lost) == (499, "the client disconnected")
        assert list(line.fields()["ms"]) == ["total"]


async def test_a_reply_that_is_lost_while_it_is_sent(tmp_path: Path) -> None:
    async with connected(tmp_path, receive_buffer=1 << 16) as (server, sock):
        sock.sendall(resize(7) + resize(8))
        first, second = await server.jobs_given(2)
        server.succeed(first, 8_000_000)  # more than the kernel holds
        server.succeed(second, 10)
        assert server.lines == []
        reset(sock)
        await server.closed()
        assert [(line.request_id, line.status, line.lost) for line in server.lines] == [
            (7, 200, "the client disconnected"),
            (8, 200, "the client disconnected"),
        ]
        assert "send" not in server.lines[0].fields()["ms"]


async def test_a_request_that_a_stop_ends_has_one_line(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(resize(7))
        await server.jobs_given()
        server.connection.stop()
        assert await read_status(sock) == 503
        await server.closed()
        assert [(line.request_id, line.status) for line in server.lines] == [(7, 503)]


async def test_bytes_that_are_no_message_have_a_line(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(bytes(4) + b"GET / HTTP/1.1\r\n" + bytes(20))
        assert await read_status(sock) == 400
        (line,) = server.lines
        assert (line.kind, line.status, line.version) == ("resize", 400, None)
        assert "ms" not in line.fields()


async def test_a_ping_is_of_interest_at_debug_only(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(PING)
        assert await read_status(sock) == 200
        (line,) = server.lines
        assert (line.kind, line.level) == ("ping", "debug")


@pytest.mark.parametrize("kind", [Kind.RESIZE, Kind.INFO])
async def test_the_ids_of_the_client_are_in_the_line(tmp_path: Path, kind: Kind) -> None:
    meta = {"width": 9, "height": 9} if kind is Kind.RESIZE else {}
    ids = {"request_id": "order 7\n\x1b[31m", "traceparent": TRACEPARENT}
    async with connected(tmp_path) as (server, sock):
        sock.sendall(pack_message(kind, 7, {**meta, **ids}, body_size=5) + b"image")
        (job,) = await server.jobs_given()
        assert b"order" not in job.options
        fail(job, CorruptImage("none"))
        assert await read_status(sock) == 422
        fields = server.lines[0].fields()
        assert fields["request_id"] == "order 7\\n\\x1b[31m"
        assert fields["traceparent"] == TRACEPARENT


async def test_a_token_is_never_in_a_line(tmp_path: Path) -> None:
    token = "vips_abcdefgh_" + "s3cret" * 7
    async with connected(tmp_path) as (server, sock):
        sock.sendall(pack_message(Kind.HELLO, 7, {"token": token}))
        await read_status(sock)
        (line,) = server.lines
        assert line.kind == "hello"
        assert "s3cret" not in str(line.fields())
        assert "s3cret" not in request_json(line, "now")


# Each ending of a request that a worker has

Ending = Callable[[Server, socket.socket, Job], None]

HELD_SIZE = 8_000_000  # more than the kernel holds


def _lose_the_reply(server: Server, sock: socket.socket, job: Job) -> None:
    server.succeed(job, HELD_SIZE)
    assert server.connection.transport.get_write_buffer_size()
    reset(sock)


def _drain(server: Server, _sock: socket.socket, job: Job) -> None:
    server.drain()
    server.succeed(job, 9)


ENDINGS: dict[str, tuple[Ending, int, str | None]] = {
    "sent": (lambda server, _, job: server.succeed(job, 9), 200, None),
    "lost while sending": (_lose_the_reply, 200, DISCONNECTED),
    "the client leaves": (lambda _server, sock, _job: reset(sock), 499, DISCONNECTED),
    "drain": (_drain, 200, None),
    "stop": (lambda server, _sock, _job: server.connection.stop(), 503, None),
    "abort": (lambda server, _sock, _job: server.connection.abort(), 499, "the server has stopped"),
    "deadline": (lambda server, _sock, job: server.connection.watch(job.deadline + 0.1), 504, None),
    "limits": (lambda _server, _sock, job: fail(job, TooLarge("too many pixels")), 413, None),
    "worker died": (lambda _server, _sock, job: fail(job, WorkerDied("killed")), 502, None),
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("ending", [*ENDINGS])
async def test_each_ending_of_a_request_is_one_line(tmp_path: Path, ending: str, version: int) -> None:
    end, status, lost = ENDINGS[ending]
    request = bare_client.header(5) + b"image" if version == 1 else resize(7)
    async with connected(tmp_path, receive_buffer=1 << 16) as (server, sock):
        sock.sendall(request)
        (job,) = await server.jobs_given()
        end(server, sock, job)
        await until(lambda: bool(server.lines))
        sock.close()
        await server.closed()
        assert [(line.version, line.kind, line.status, line.lost) for line in server.lines] == [
            (version, "resize", status, lost)
        ]
        assert server.lines[0].request_id == (0 if version == 1 else 7)


async def test_a_cancelled_request_and_its_cancel_are_a_line_each(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, sock):
        sock.sendall(resize(7))
        await server.jobs_given()
        sock.sendall(pack_message(Kind.CANCEL, 8, {"request_id": 7}))
        await until(lambda: len(server.lines) == 2)
        sock.close()
        await server.closed()
        assert [(line.request_id, line.kind, line.status) for line in server.lines] == [
            (7, "resize", 499),
            (8, "cancel", 200),
        ]


async def test_a_result_that_cannot_be_read_is_why_the_reply_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_to_read(_slot: Slot, _offset: int, _size: int) -> bytes:
        raise OSError("broken")

    monkeypatch.setattr(Slot, "read", fail_to_read)
    async with connected(tmp_path) as (server, sock):
        sock.sendall(resize(6) + resize(7))
        first, _ = await server.jobs_given(2)
        server.succeed(first, IN_MEMORY_SIZE + 1)
        await server.closed()
        lost = "the result could not be read from the spool"
        assert [(line.request_id, line.status, line.lost) for line in server.lines] == [
            (6, 200, lost),
            (7, 499, lost),
        ]
