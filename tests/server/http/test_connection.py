"""Connections of HTTP on real sockets, with workers that the test plays."""

import asyncio
import os
from itertools import pairwise
from pathlib import Path

import pytest

from tests.server.fakes import fail
from tests.server.http.serving import HOST, client_of, get, post, serving, until
from vipsrv.errors import BadRequest, Busy, CorruptImage
from vipsrv.server.connections.inbox import HEADER_COST, TURN_SIZE
from vipsrv.server.connections.served import DRAIN_SECONDS
from vipsrv.server.connections.states import ConnectionState
from vipsrv.server.exchange import Exchange
from vipsrv.server.http.connection import MOST_DISCARDED
from vipsrv.server.http.messages import HttpResponse
from vipsrv.worker_config import IN_MEMORY_SIZE


async def test_a_page(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        for _ in range(2):
            reply = await client.request(get(b"/page"))
            assert (reply.version, reply.status, reply.body) == ("HTTP/1.1", 200, b"page")
            assert "connection" not in reply.headers
            assert reply.headers["date"].endswith(" GMT")
        assert [line.fields()["kind"] for line in server.lines] == ["page", "page"]
        assert server.lines[0].fields()["protocol"] == "http"
        assert server.lines[1].fields()["id"] == 2


@pytest.mark.parametrize("size", [1, 100_000, 3_000_000, IN_MEMORY_SIZE + 1])
@pytest.mark.parametrize("result_size", [10, 300_000, IN_MEMORY_SIZE + 1000])
async def test_an_image(tmp_path: Path, size: int, result_size: int) -> None:
    image = bytes(range(256)) * (size // 256) + bytes(size % 256)
    async with serving(tmp_path) as server, client_of(server) as client:
        sending = asyncio.ensure_future(client.send(post(image)))
        (job,) = await server.jobs_given()
        await sending
        assert job.image.size == size
        if job.image.descriptor is None:
            assert b"".join(job.image.views) == image
        else:
            assert os.pread(job.image.descriptor, 100, size - 100) == image[-100:]
        server.succeed(job, result_size)
        reply = await client.read()
        assert (reply.status, reply.headers["content-type"]) == (200, "image/jpeg")
        assert reply.body == b"<" + bytes(result_size) + b">"
        line = server.lines[0].fields()
        assert (line["kind"], line["status"], line["source"]["bytes"]) == ("resize", 200, size)
        assert (await client.request(get(b"/page"))).status == 200


@pytest.mark.parametrize("size", [1, 100_000, IN_MEMORY_SIZE, IN_MEMORY_SIZE + 1, 3 * IN_MEMORY_SIZE])
async def test_a_chunked_image(tmp_path: Path, size: int) -> None:
    image = bytes(range(256)) * (size // 256) + bytes(size % 256)
    head = b"POST /resize?width=8 HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    chunks = [b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in _pieces(image, 99_999)]
    async with serving(tmp_path) as server, client_of(server) as client:
        sending = asyncio.ensure_future(client.send(head + b"".join(chunks) + b"0\r\nTrailer: x\r\n\r\n"))
        (job,) = await server.jobs_given()
        await sending
        assert job.image.size == size
        assert (job.image.descriptor is None) == (size <= IN_MEMORY_SIZE)
        if job.image.descriptor is None:
            assert b"".join(job.image.views) == image
        else:
            assert os.pread(job.image.descriptor, size + 1, 0) == image
        server.succeed(job, 5)
        assert (await client.read()).status == 200
        assert server.lines[0].image_size == size
        assert (await client.request(get(b"/page"))).status == 200


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[begin : begin + size] for begin in range(0, len(data), size)]


async def test_a_chunked_image_is_bounded(tmp_path: Path) -> None:
    head = b"POST /resize?width=8 HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    async with serving(tmp_path, max_upload=1_000_000) as server, client_of(server) as client:
        await client.send(head + b"f4241\r\n" + bytes(1_000_001) + b"\r\n")
        reply = await client.read()
        assert (reply.status, reply.headers["connection"]) == (413, "close")
        assert await client.rest() == b""
        assert server.jobs == []


async def test_an_empty_image(tmp_path: Path) -> None:
    head = b"POST /resize?width=8 HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    async with serving(tmp_path) as server, client_of(server) as client:
        for request in (post(b""), head + b"0\r\n\r\n"):
            reply = await client.request(request)
            assert reply.status == 400
            assert reply.body == b"bad_request: there is no image: its size is 0\n"
        assert (await client.request(get(b"/page"))).status == 200


async def test_requests_are_answered_in_order(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(post(b"first") + get(b"/page") + post(b"third") + get(b"/nothing"))
        first, third = await server.jobs_given(2)
        server.succeed(third, 3)
        fail(first, CorruptImage("no image"))
        assert [(await client.read()).status for _ in range(4)] == [422, 200, 200, 404]


async def test_the_requests_of_one_read_are_answered_in_turns(tmp_path: Path) -> None:
    count = 500
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(get(b"/page") * count)
        answered = [0]
        while answered[-1] < count:
            await asyncio.sleep(0)
            answered.append(len(server.lines))
        # One turn of the event loop may have the end of one turn and a read.
        assert max(after - before for before, after in pairwise(answered)) <= 2 * TURN_SIZE // HEADER_COST
        for _ in range(count):
            assert (await client.read()).status == 200


async def test_a_turn_does_not_make_the_receive_timeout_longer(tmp_path: Path) -> None:
    async with serving(tmp_path, receive_timeout=30.0) as server, client_of(server) as client:
        head = b"POST /resize?width=8 HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        pieces = TURN_SIZE // HEADER_COST
        await client.send(head + b"1\r\nx\r\n")
        await until(lambda: server.context.in_flight.requests == 1)
        expires = server.connection._inbox.expires
        await client.send(b"1\r\nx\r\n" * pieces)
        (exchange,) = server.connection.in_flight
        await until(lambda: exchange.slot is not None and exchange.slot.received == pieces + 1)
        assert server.connection._inbox.expires == expires


async def test_a_refused_body_is_discarded_if_it_is_short(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(post(bytes(MOST_DISCARDED), query=b"height=1") + get(b"/page"))
        reply = await client.read()
        assert (reply.status, reply.body) == (400, b"bad_request: width: is missing\n")
        assert "connection" not in reply.headers
        assert (await client.read()).status == 200


async def test_a_long_refused_body_ends_the_connection(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(post(bytes(MOST_DISCARDED + 1), query=b"height=1") + get(b"/page"))
        reply = await client.read()
        assert (reply.status, reply.headers["connection"]) == (400, "close")
        assert await client.rest() == b""
        assert server.connection.state is ConnectionState.LINGERING


async def test_a_page_that_takes_its_time(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(get(b"/later") + get(b"/page"))
        server.answers.put_nowait(HttpResponse(status=503, body=b"not now"))
        assert [(await client.read()).body for _ in range(2)] == [b"not now", b"page"]
        assert server.lines[0].fields()["status"] == 503
        for error, status in ((Busy("later", retry_after_ms=1200), 429), (RuntimeError("bug"), 500)):
            server.answers.put_nowait(error)
            reply = await client.request(get(b"/later"))
            assert reply.status == status
            assert reply.headers.get("retry-after") == ("2" if status == 429 else None)
        assert (await client.request(get(b"/broken"))).status == 500


async def test_a_stream(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(get(b"/stream"))
        head = await client.read_head()
        assert (head.status, head.headers["transfer-encoding"]) == (200, "chunked")
        assert await client.reader.readexactly(10) == b"5\r\nbegin\r\n"
        (send,) = server.streams.sends
        assert send(b"more")
        assert await client.reader.readexactly(9) == b"4\r\nmore\r\n"
        client.close()
        await until(lambda: server.connection.state is ConnectionState.CLOSED)
        assert server.streams.sends == []
        assert not send(b"late")


async def test_a_stream_ends_with_the_server(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(get(b"/stream"))
        await client.read_head()
        server.context.draining = True
        server.connection.drain()
        assert await client.rest() == b"5\r\nbegin\r\n0\r\n\r\n"
        assert server.streams.sends == []


async def test_a_request_after_a_stream_is_answered_when_the_server_ends_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(get(b"/stream") + get(b"/page"))
        await client.read_head()
        await until(lambda: len(server.lines) == 1)
        server.context.draining = True
        server.connection.drain()
        assert await client.reader.readexactly(15) == b"5\r\nbegin\r\n0\r\n\r\n"
        assert (await client.read()).body == b"page"
        server.watch(DRAIN_SECONDS + 0.1)
        assert await client.rest() == b""


async def test_options_and_methods(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        reply = await client.request(b"OPTIONS /resize HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (reply.status, reply.headers["allow"]) == (204, "POST, OPTIONS")
        assert "content-length" not in reply.headers
        reply = await client.request(b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n")
        assert reply.status == 204
        reply = await client.request(get(b"/resize"))
        assert (reply.status, reply.headers["allow"]) == (405, "POST, OPTIONS")
        await client.send(b"HEAD /echo HTTP/1.1\r\n" + HOST + b"\r\n")
        reply = await client.read(head_only=True)
        assert int(reply.headers["content-length"]) > 0
        assert reply.headers["x-path"] == "/echo"
        assert (await client.request(get(b"/page"))).body == b"page"


async def test_a_bug_in_a_reply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(post(b"image"))
        (job,) = await server.jobs_given()
        monkeypatch.setattr("tests.server.http.serving.Resize.reply", lambda *_: 1 / 0)
        server.succeed(job, 5)
        assert (await client.read()).status == 500
        monkeypatch.setattr("tests.server.http.serving.Resize.reply", _no)
        await client.send(post(b"image"))
        server.succeed((await server.jobs_given(2))[1], 5)
        assert (await client.read()).status == 400
        # A field that cannot be sent is found out when the reply is packed.
        monkeypatch.setattr("tests.server.http.serving.Resize.reply", _with_a_line_break)
        await client.send(post(b"image"))
        server.succeed((await server.jobs_given(3))[2], 5)
        assert (await client.read()).status == 500
        assert server.spool.memory_left == 16 << 20


def _with_a_line_break(_: object, exchange: Exchange) -> HttpResponse:
    assert exchange.outcome is not None
    return HttpResponse(status=200, headers=(("X", "a\nb"),), result=exchange.outcome.result)


def _no(*_: object) -> HttpResponse:
    raise BadRequest("no")
