"""How a connection of HTTP begins, waits and ends: expectations, timeouts, places, drains and disconnects."""

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import cast

import pytest

from tests.server.fakes import fail
from tests.server.http.serving import HOST, HttpServer, client_of, get, post, serving, until
from vipsrv.errors import Draining
from vipsrv.server.connections.pace import GRACE_SECONDS
from vipsrv.server.connections.served import DRAIN_SECONDS, EXCESS_SECONDS, LINGER_SECONDS, MAX_IN_FLIGHT
from vipsrv.server.connections.states import ConnectionState

EXPECT = b"Expect: 100-continue\r\n"
IDLE = 1000.0


def head_of(size: int, more: bytes = b"", query: bytes = b"width=8") -> bytes:
    return post(bytes(size), more, query)[:-size]


# Expectations


async def test_a_body_is_asked_for_when_it_is_accepted(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(head_of(5, EXPECT))
        assert (await client.read_head()).status == 100
        await client.send(b"image")
        server.succeed((await server.jobs_given())[0], 3)
        assert (await client.read()).status == 200
        assert (await client.request(get(b"/page"))).status == 200


async def test_the_100_waits_for_the_replies_before_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(post(b"first") + head_of(5, EXPECT))
        server.succeed((await server.jobs_given())[0], 3)
        assert (await client.read()).status == 200
        assert (await client.read_head()).status == 100
        await client.send(b"image")
        server.succeed((await server.jobs_given(2))[1], 3)
        assert (await client.read()).status == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (head_of(5_000_000, EXPECT), 413),
        (head_of(5, EXPECT, b"height=1"), 400),
        (head_of(5, b"Expect: 200-ok\r\n"), 417),
        (head_of(5, EXPECT).replace(b"/resize", b"/nothing"), 404),
        (head_of(5, EXPECT).replace(b"/resize", b"/page"), 405),
        (head_of(5, EXPECT).replace(b"POST", b"PUT"), 405),
    ],
    ids=["too large", "option", "another expectation", "no path", "no method", "no such method"],
)
async def test_a_body_that_is_not_wanted_is_not_asked_for(tmp_path: Path, head: bytes, status: int) -> None:
    async with serving(tmp_path, max_upload=1_000_000) as server, client_of(server) as client:
        reply = await client.request(head)
        assert (reply.status, reply.headers["connection"]) == (status, "close")
        assert await client.rest() == b""
        assert server.jobs == []


async def test_no_body_is_asked_for_while_the_queue_is_full(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, free=0, queue=1) as server,
        client_of(server) as first,
        client_of(server) as second,
    ):
        await first.send(post(b"waits"))
        await until(lambda: server.context.in_flight.requests == 1 and not server.jobs)
        await until(lambda: server.context.admission._queue.__len__() == 1)
        reply = await second.request(head_of(5, EXPECT))
        assert reply.status == 429
        assert int(reply.headers["retry-after"]) >= 1


# Timeouts


async def test_a_head_that_takes_too_long(tmp_path: Path) -> None:
    async with serving(tmp_path, receive_timeout=30.0) as server, client_of(server) as client:
        await client.send(b"GET /page HTTP/1.1\r\n")
        await until(lambda: server.connections != [] and not server.connection.between_messages)
        server.watch(29)
        await client.send(HOST)  # a little more does not make the time longer
        server.watch(31)
        reply = await client.read()
        assert (reply.status, reply.headers["connection"]) == (408, "close")
        assert await client.rest() == b""


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_stalls(tmp_path: Path, *, chunked: bool) -> None:
    data = post(bytes(1000))[:-1]
    if chunked:
        data = b"POST /resize?width=8 HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n9\r\nmost of"
    async with serving(tmp_path, receive_timeout=30.0) as server, client_of(server) as client:
        await client.send(data)
        await until(lambda: server.context.in_flight.requests == 1)
        server.watch(31)
        reply = await client.read()
        assert (reply.status, reply.headers["connection"]) == (408, "close")
        assert server.context.in_flight.requests == 0


async def test_a_chunked_body_that_is_too_slow(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, receive_timeout=1e6, min_rate=1000) as server,
        client_of(server) as client,
    ):
        await client.send(
            b"POST /resize?width=8 HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n9\r\nmost of"
        )
        await until(lambda: server.context.in_flight.requests == 1)
        server.watch()
        server.watch(GRACE_SECONDS + 10)
        reply = await client.read()
        assert (reply.status, b"too slow" in reply.body) == (408, True)


async def test_an_idle_connection_is_closed_without_a_word(tmp_path: Path) -> None:
    async with serving(tmp_path, idle_timeout=IDLE) as server, client_of(server) as client:
        assert (await client.request(get(b"/page"))).status == 200
        server.watch(IDLE - 1)
        assert server.connection.state is ConnectionState.OPEN
        server.watch(IDLE + 1)
        assert await client.rest() == b""


async def test_a_client_that_does_not_read(tmp_path: Path) -> None:
    async with serving(tmp_path, receive_timeout=30.0) as server, client_of(server) as client:
        cast("asyncio.Transport", client.writer.transport).pause_reading()
        await client.send(post(b"image"))
        server.succeed((await server.jobs_given())[0], 12 << 20)
        await until(lambda: server.connection._outbox._written > 0)
        server.watch()
        server.watch(31)
        await until(lambda: server.connection.state is ConnectionState.CLOSED)
        assert "did not read its reply" in (server.lines[0].lost or "")
        await until(lambda: server.spool.disk_left == 8 << 30)


# Places


async def test_a_connection_in_excess_is_told_so(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, connections=1, client_connections=1) as server,
        client_of(server) as first,
        client_of(server) as second,
        client_of(server) as third,
    ):
        await first.send(b"GET ")
        reply = await second.request(get(b"/page"))
        assert (reply.status, reply.headers["connection"]) == (429, "close")
        assert int(reply.headers["retry-after"]) >= 1
        assert await second.rest() == b""
        # One that says nothing is closed without a word.
        await until(lambda: len(server.connections) == 3)
        server.watch(EXCESS_SECONDS + 1)
        assert await third.rest() == b""


async def test_an_idle_connection_makes_place(tmp_path: Path) -> None:
    async with serving(tmp_path, connections=1, client_connections=1) as server, client_of(server) as first:
        assert (await first.request(get(b"/page"))).status == 200
        server.watch()  # which notes that it is idle
        async with client_of(server) as second:
            assert (await second.request(get(b"/page"))).status == 200
            assert await first.rest() == b""


async def test_a_bounded_number_of_requests_is_in_flight(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(post(b"image") * (MAX_IN_FLIGHT + 3))
        jobs = await server.jobs_given(MAX_IN_FLIGHT)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(jobs) == MAX_IN_FLIGHT
        for number in range(MAX_IN_FLIGHT + 3):
            server.succeed((await server.jobs_given(number + 1))[number], 3)
            assert (await client.read()).status == 200


# Ends


async def test_the_last_request_is_the_last(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(post(b"image", b"Connection: close\r\n") + get(b"/hidden"))
        server.succeed((await server.jobs_given())[0], 3)
        reply = await client.read()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert await client.rest() == b""
        assert [line.status for line in server.lines] == [200]


async def test_a_reply_is_not_lost_to_a_reset(tmp_path: Path) -> None:
    """The client goes on sending: its bytes are read and discarded, so that its kernel keeps the reply."""
    async with serving(tmp_path, max_upload=1_000_000) as server, client_of(server) as client:
        await client.send(post(bytes(8_000_000)))
        assert (await client.read()).status == 413
        assert await client.rest() == b""
        assert server.connection.state is ConnectionState.LINGERING
        server.watch(LINGER_SECONDS + 1)
        await until(lambda: server.connection.state is ConnectionState.CLOSED)


@pytest.mark.parametrize("data", [b"GET /pa", post(bytes(1000))[:-1]], ids=["in the head", "in the body"])
async def test_a_client_that_ends_within_a_request(tmp_path: Path, data: bytes) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(data)
        await until(lambda: server.connections != [] and not server.connection.between_messages)
        client.end()
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
        await until(lambda: server.connection.state is ConnectionState.CLOSED)
        assert server.context.in_flight.requests == 0


async def test_a_client_that_disconnects(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(post(b"image"))
        await server.jobs_given()
        client.close()
        await until(lambda: server.connection.state is not ConnectionState.OPEN)

        def is_closed() -> bool:
            server.watch()  # until the 100 (Continue) has come back as a reset
            return server.connection.state is ConnectionState.CLOSED

        await until(is_closed)
        assert server.context.in_flight.requests == 0
        assert len(server.workers.cancelled) == 1
        assert [line.lost for line in server.lines] == ["the client disconnected"]


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_client_that_ends_its_side_after_its_requests(tmp_path: Path, version: bytes) -> None:
    keep = b"Connection: keep-alive\r\n"
    data = (post(b"one", keep) + post(b"two", keep)).replace(b"HTTP/1.1", b"HTTP/" + version)
    async with serving(tmp_path, deadline=2 * IDLE) as server, client_of(server) as client:
        await client.send(data)
        one, two = await server.jobs_given(2)
        client.end()
        await until(lambda: server.connection.state is ConnectionState.HALF_CLOSED)
        server.watch(IDLE)  # it is not idle, and does not stall
        server.succeed(two, 3)
        server.succeed(one, 3)
        if version == b"1.1":
            assert (await client.read_head()).status == 100
        replies = [await client.read() for _ in range(2)]
        assert [reply.status for reply in replies] == [200, 200]
        assert replies[1].headers["connection"] == "close"
        assert await client.rest() == b""


async def test_a_page_for_a_client_that_ends_its_side(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(get(b"/page"))
        client.end()
        assert (await client.read()).body == b"page"
        assert await client.rest() == b""


async def test_a_client_that_ends_its_side_within_its_second_request(tmp_path: Path) -> None:
    async with serving(tmp_path, deadline=2 * IDLE) as server, client_of(server) as client:
        await client.send(post(b"one") + b"GET /pa")
        (job,) = await server.jobs_given()
        client.end()
        await until(lambda: server.connection.state is ConnectionState.HALF_CLOSED)
        server.watch(IDLE)
        server.succeed(job, 3)
        assert (await client.read_head()).status == 100
        assert [(await client.read()).status for _ in range(2)] == [200, 400]
        assert await client.rest() == b""


async def test_replies_are_due_although_what_followed_was_no_request(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(post(b"one") + b"no request\r\n\r\n")
        (job,) = await server.jobs_given()
        await until(lambda: server.connection.state is ConnectionState.LINGERING)
        client.end()
        await until(lambda: server.connection.state is ConnectionState.CLOSING)
        server.succeed(job, 3)
        assert [(await client.read()).status for _ in range(2)] == [200, 400]
        assert await client.rest() == b""


async def test_a_stream_ends_with_the_side_of_its_client(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(get(b"/stream"))
        await client.read_head()
        client.end()
        assert await client.rest() == b"5\r\nbegin\r\n"
        assert server.streams.sends == []


async def test_a_connection_that_is_reset(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(post(b"one") + get(b"/later") + get(b"/page"))
        await server.jobs_given()
        sock = client.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.writer.transport.abort()
        await until(lambda: server.connection.state is ConnectionState.CLOSED)
        assert len(server.workers.cancelled) == 1
        assert [line.lost for line in server.lines] == ["the client disconnected"] * 3


async def test_an_idle_connection_in_a_drain(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        assert (await client.request(get(b"/page"))).status == 200
        drain(server)
        assert server.connection.state is ConnectionState.DRAINING
        reply = await client.request(post(b"image"))
        assert (reply.status, reply.headers["connection"]) == (503, "close")
        assert b"draining" in reply.body
        assert await client.rest() == b""


async def test_an_idle_connection_is_closed_after_a_moment_of_a_drain(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        assert (await client.request(get(b"/page"))).status == 200
        drain(server)
        server.watch(DRAIN_SECONDS + 0.1)
        assert await client.rest() == b""


async def test_a_drain_finishes_what_is_in_flight(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(post(b"one") + post(b"two"))
        one, two = await server.jobs_given(2)
        drain(server)
        server.succeed(one, 3)
        first = await client.read()
        assert (first.status, first.headers.get("connection")) == (200, None)
        server.succeed(two, 3)
        second = await client.read()
        assert (second.status, second.headers["connection"]) == (200, "close")
        assert await client.rest() == b""


async def test_with_a_successor_a_request_is_served_in_a_drain(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        assert (await client.request(get(b"/page"))).status == 200
        server.context.has_successor = True
        drain(server)
        await client.send(post(b"image"))
        server.succeed((await server.jobs_given())[0], 3)
        reply = await client.read()
        assert (reply.status, reply.headers["connection"]) == (200, "close")


async def test_stop_answers_what_is_in_flight(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(post(b"one") + post(b"two") + post(bytes(1000))[:-1])
        one, _ = await server.jobs_given(2)
        fail(one, Draining("before"))
        await until(lambda: server.context.in_flight.requests == 2)
        server.context.draining = True
        server.connection.stop()
        replies = [await client.read() for _ in range(3)]
        assert [reply.status for reply in replies] == [503, 503, 503]
        assert [reply.headers.get("connection") for reply in replies] == [None, None, "close"]
        assert await client.rest() == b""
        assert server.context.in_flight.requests == 0


async def test_abort(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(post(b"one"))
        await server.jobs_given()
        server.connection.abort()
        with contextlib.suppress(ConnectionError):
            assert await client.rest() == b""
        await until(lambda: server.connection.state is ConnectionState.CLOSED)
        assert server.lines[0].lost == "the server has stopped"


def drain(server: HttpServer) -> None:
    server.context.draining = True
    for connection in server.context.connections:
        connection.drain()
