"""Requests and connections leave no reference cycles, which would keep memory until a garbage collection."""

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.fakes import MANY, FakeWorkers, fill, make_context
from tests.server.http.serving import plain_problem
from vipsrv.options import ImageInfo, OutputInfo
from vipsrv.protocol import HEADER, V1_REPLY, V1_REQUEST, Kind, pack_message
from vipsrv.server.connections.binary import BinaryConnection
from vipsrv.server.connections.inbox import Inbox
from vipsrv.server.connections.outbox import Outbox
from vipsrv.server.context import ServerContext
from vipsrv.server.exchange import Exchange
from vipsrv.server.http.connection import HttpConnection
from vipsrv.server.http.messages import HttpResponse
from vipsrv.server.http.reader import HttpReader
from vipsrv.server.http.routes import ImageRoute, ImageTask, Routes
from vipsrv.storage.spool import Slot
from vipsrv.workers.channel import Operation
from vipsrv.workers.job import Job, Outcome

OF_A_REQUEST = (Exchange, Job, Outcome, Slot)
OF_A_CONNECTION = (BinaryConnection, Inbox, Outbox)
IMAGE = bytes(100)
RESULT_SIZE = 50


_before: set[int] = set()
"""The objects of other tests, for example those in their parameters."""


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """Nothing but reference counts frees an object."""
    gc.collect()
    gc.disable()
    _before.update(map(id, _things(OF_A_REQUEST + OF_A_CONNECTION)))
    yield
    gc.enable()
    _before.clear()


def _things(kinds: tuple[type, ...]) -> list[object]:
    return [thing for thing in gc.get_objects() if isinstance(thing, kinds)]


def alive(kinds: tuple[type, ...]) -> list[str]:
    """The kinds of the objects that this test has made and that still exist."""
    return [type(thing).__name__ for thing in _things(kinds) if id(thing) not in _before]


async def answer(workers: FakeWorkers, context: ServerContext) -> None:
    while not workers.jobs:
        await asyncio.sleep(0.001)
    job = workers.jobs.pop()
    source = ImageInfo(
        format="jpeg", width=9, height=9, pages=1, has_alpha=False, orientation=1, size=len(IMAGE)
    )
    output = OutputInfo(width=9, height=9, format="jpeg", quality=85, size=RESULT_SIZE)
    job.close()
    job.answer(Outcome(source=source, outputs=(output,), result=fill(context.spool.open(RESULT_SIZE))))


async def test_nothing_is_left_of_requests_and_their_connections(tmp_path: Path) -> None:
    workers = FakeWorkers(free=MANY)
    context = make_context(tmp_path, workers)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: BinaryConnection(context), "127.0.0.1", 0)
    address = listener.sockets[0].getsockname()
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(*address)
        for request_id in (1, 2):
            meta = {"width": 9, "height": 9}
            writer.write(pack_message(Kind.RESIZE, request_id, meta, body_size=len(IMAGE)) + IMAGE)
            await answer(workers, context)
            *_, meta_size, body_size = HEADER.unpack(await reader.readexactly(HEADER.size))
            await reader.readexactly(meta_size + body_size)
            assert alive(OF_A_REQUEST) == []
        assert sorted(set(alive(OF_A_CONNECTION))) == ["BinaryConnection", "Inbox", "Outbox"]
        writer.close()
        await writer.wait_closed()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(V1_REQUEST.pack(len(IMAGE), 9, 9) + IMAGE)
        await answer(workers, context)
        assert len(await reader.read()) == V1_REPLY.size + RESULT_SIZE
        writer.close()
        await writer.wait_closed()
        await context.connections.wait_until_closed(20)
        await asyncio.sleep(0)  # the event loop drops its last reference
        assert alive(OF_A_REQUEST) == []
        assert alive(OF_A_CONNECTION) == []
    listener.close()
    context.spool.close()


class _Task(ImageTask):
    operation = Operation.RESIZE

    def __init__(self) -> None:
        self.meta = {"width": 9, "height": 9}

    def form_field(self, name: str, value: str) -> None:
        """Take none."""

    def reply(self, exchange: Exchange) -> HttpResponse:
        assert exchange.outcome is not None
        return HttpResponse(status=200, result=exchange.outcome.result)


async def test_nothing_is_left_of_requests_over_http(tmp_path: Path) -> None:
    workers = FakeWorkers(free=MANY)
    context = make_context(tmp_path, workers)
    routes = Routes(routes={"/resize": ImageRoute(lambda _: _Task())}, problem=plain_problem)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: HttpConnection(context, routes), "127.0.0.1", 0)
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        for _ in range(2):
            writer.write(
                b"POST /resize HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(IMAGE) + IMAGE
            )
            await answer(workers, context)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await reader.readexactly(RESULT_SIZE)
            assert alive(OF_A_REQUEST) == []
        writer.close()
        await writer.wait_closed()
        while context.connections.served:
            await asyncio.sleep(0.001)
    listener.close()
    assert alive((HttpConnection, Inbox, Outbox)) == []
    context.spool.close()


POST = b"POST /resize HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (POST + b"Content-Length: 0\r\n\r\n", 400),
        (POST + b"Content-Length: 2000000\r\n\r\n" + IMAGE, 413),
        (CHUNKED + b"f4241\r\n" + bytes(1_000_001), 413),
        (CHUNKED + b"5\r\nimage with more", 400),
        (b"no request\r\n\r\n", 400),
    ],
    ids=["no path", "no image", "too large", "chunks too large", "bad chunk", "no request"],
)
async def test_nothing_is_left_of_a_refused_request_over_http(
    tmp_path: Path, data: bytes, status: int
) -> None:
    context = make_context(tmp_path, FakeWorkers(free=MANY), max_upload=1_000_000)
    routes = Routes(routes={"/resize": ImageRoute(lambda _: _Task())}, problem=plain_problem)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: HttpConnection(context, routes), "127.0.0.1", 0)
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        writer.write(data)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 %d " % status)
        writer.close()
        await writer.wait_closed()
        while context.connections.served:
            await asyncio.sleep(0.001)
    listener.close()
    assert alive((*OF_A_REQUEST, HttpConnection, HttpReader, Inbox, Outbox)) == []
    context.spool.close()


@pytest.mark.parametrize(
    ("meta", "size", "status"),
    [({"width": 0}, 5, 400), ({"width": 9}, 0, 400), ({"width": 9}, 2_000_000, 413)],
    ids=["option", "no image", "too large"],
)
async def test_nothing_is_left_of_a_refused_request(
    tmp_path: Path, meta: dict[str, int], size: int, status: int
) -> None:
    context = make_context(tmp_path, FakeWorkers(free=MANY), max_upload=1_000_000)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: BinaryConnection(context), "127.0.0.1", 0)
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        writer.write(pack_message(Kind.RESIZE, 1, meta, body_size=size) + bytes(min(size, 5)))
        header = await reader.readexactly(HEADER.size)
        assert status.to_bytes(2, "big") in header
        writer.close()
        await writer.wait_closed()
        while context.connections.served:
            await asyncio.sleep(0.001)
    listener.close()
    assert alive(OF_A_REQUEST + OF_A_CONNECTION) == []
    context.spool.close()
