"""Uploads that other connections of the binary protocol want: UPLOAD_STATUS that waits, and who is ended."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.server.connections.test_binary import Server, connected, read_status, reset, send, status_of, until
from vipsrv.protocol import HEADER, Kind, pack_message
from vipsrv.server.accounts import Account
from vipsrv.server.connections import binary
from vipsrv.server.connections.states import ConnectionState
from vipsrv.server.uploads import Uploads
from vipsrv.storage.kept_slot import KeptSlot

ID = "e" * 32
SIZE = 1000
HALF = 400

STATUS = pack_message(Kind.UPLOAD_STATUS, 7, {"id": ID})


def resize(request_id: int, body: bytes, **upload: Any) -> bytes:
    options = {"width": 9, "height": 9, "upload": {"id": ID, "size": SIZE, "offset": 0, **upload}}
    return pack_message(Kind.RESIZE, request_id, options, body_size=SIZE) + body


@asynccontextmanager
async def with_uploads(folder: Path, **spool: int) -> AsyncIterator[tuple[Server, Any, Uploads]]:
    async with connected(folder, **spool) as (server, sock):
        uploads = server.context.uploads = Uploads(
            server.spool, server.context.settings.model_copy(update={"spool_dir": folder})
        )
        yield server, sock, uploads
        server.connection.abort()
        await server.closed()
        await uploads.close()


def held_elsewhere(uploads: Uploads) -> KeptSlot:
    """An upload that another connection fills, which does not let go by itself."""
    slot = uploads.open(Account("192.0.2.1"), ID, SIZE, 0)
    slot.filled(len(slot.room()[:HALF]))
    return slot


async def receive(sock: Any) -> tuple[int, dict[str, Any]]:
    data = await asyncio.get_running_loop().sock_recv(sock, 1 << 16)
    return status_of(data), json.loads(data[HEADER.size :])


async def test_a_status_waits_until_the_upload_is_let_go(tmp_path: Path) -> None:
    async with with_uploads(tmp_path) as (server, sock, uploads):
        slot = held_elsewhere(uploads)
        await send(sock, STATUS)
        await until(lambda: server.connection.answers_are_due)
        slot.close()
        assert await receive(sock) == (200, {"received": HALF, "size": SIZE})
        assert not server.connection.answers_are_due
        assert server.connection.state is ConnectionState.OPEN


async def test_a_status_that_has_waited_long_is_told_to_ask_again(tmp_path: Path) -> None:
    async with with_uploads(tmp_path) as (server, sock, uploads):
        slot = held_elsewhere(uploads)
        await send(sock, STATUS)
        status, meta = await receive(sock)
        assert (status, meta["retryable"]) == (429, True)
        assert 0 < meta["retry_after_ms"] <= 1000
        assert not server.connection.answers_are_due
        slot.close()


async def test_a_second_status_with_the_same_id_does_not_wait(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(binary, "LOOK_AGAIN", (3600.0,))
    async with with_uploads(tmp_path) as (server, sock, uploads):
        slot = held_elsewhere(uploads)
        await send(sock, STATUS + STATUS)
        assert await read_status(sock) == 429
        assert server.connection.answers_are_due
        slot.close()


async def test_a_client_that_has_gone_is_not_answered(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(binary, "LOOK_AGAIN", (3600.0,))
    async with with_uploads(tmp_path) as (server, sock, uploads):
        slot = held_elsewhere(uploads)
        await send(sock, STATUS)
        await until(lambda: server.connection.answers_are_due)
        sock.close()
        await server.closed()
        assert not server.connection.answers_are_due
        slot.close()


async def test_a_drain_waits_for_the_answer(tmp_path: Path) -> None:
    async with with_uploads(tmp_path) as (server, sock, uploads):
        slot = held_elsewhere(uploads)
        await send(sock, STATUS)
        await until(lambda: server.connection.answers_are_due)
        server.context.has_successor = True
        server.drain()
        assert server.connection.state is ConnectionState.OPEN
        slot.close()
        assert await receive(sock) == (200, {"received": HALF, "size": SIZE})
        assert not server.connection.answers_are_due


async def test_a_server_that_stops_answers_what_waits(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(binary, "LOOK_AGAIN", (3600.0,))
    async with with_uploads(tmp_path) as (server, sock, uploads):
        slot = held_elsewhere(uploads)
        await send(sock, STATUS)
        await until(lambda: server.connection.answers_are_due)
        server.connection.stop()
        assert await read_status(sock) == 503
        slot.close()


async def test_only_the_request_that_fills_the_upload_is_ended(tmp_path: Path) -> None:
    async with with_uploads(tmp_path) as (server, sock, uploads):
        await send(sock, resize(1, bytes(SIZE)))
        (job,) = await server.jobs_given()
        assert isinstance(job.image, KeptSlot)
        let_go = job.image.on_taken
        assert let_go is not None
        # The body of another request follows on the same connection.
        await send(sock, resize(2, bytes(10), id="f" * 32))
        await until(lambda: server.received == 10)
        let_go()
        assert server.received == 10
        assert server.connection.state is ConnectionState.OPEN
        # It can be ended itself, with what has arrived.
        await send(sock, bytes(20))
        await until(lambda: server.received == 30)
        assert uploads.status(Account("192.0.2.1"), "f" * 32).received == 30
        assert await read_status(sock) == 409
        server.succeed(job, 10)


async def test_a_server_that_keeps_none_refuses_the_question(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, sock):
        await send(sock, STATUS)
        status, meta = await receive(sock)
        assert (status, meta["message"]) == (400, "this server does not offer resumable uploads")


async def test_the_line_of_a_cut_request_says_what_is_kept(tmp_path: Path) -> None:
    async with with_uploads(tmp_path) as (server, sock, _):
        await send(sock, resize(1, bytes(HALF)))
        await until(lambda: server.received == HALF)
        reset(sock)
        await server.closed()
        (line,) = server.lines
        assert (line.level, line.status) == ("info", 499)
        assert line.fields()["source"] == {"bytes": SIZE, "received": HALF}
