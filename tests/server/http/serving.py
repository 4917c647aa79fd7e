"""A server of HTTP on a real socket with routes of its own, whose workers are played by the test."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.server.fakes import FakeWorkers, RecordedRequests, make_context, succeed
from vipsrv.errors import BadRequest, RequestError
from vipsrv.server.access import Access
from vipsrv.server.context import ServerContext
from vipsrv.server.exchange import Exchange
from vipsrv.server.http.connection import HttpConnection
from vipsrv.server.http.messages import HttpRequest, HttpResponse, HttpStream, Send
from vipsrv.server.http.routes import ImageRoute, ImageTask, Page, Routes
from vipsrv.server.logs.request_line import RequestLine
from vipsrv.workers.channel import Operation
from vipsrv.workers.job import Job

SECONDS = 10
HOST = b"Host: localhost\r\n"


def plain_problem(error: RequestError) -> HttpResponse:
    """The reply that tells the code and the message of an error."""
    return HttpResponse(status=error.status, body=f"{error.code}: {error.message}\n".encode())


class Resize(ImageTask):
    """A RESIZE of the width in the query, whose reply is the result between two words."""

    operation = Operation.RESIZE

    def __init__(self, request: HttpRequest) -> None:
        if "boundary=" in request.fields.get("content-type", ""):
            self.form_boundary = request.fields["content-type"].partition("boundary=")[2].encode()
            self.meta: dict[str, Any] = {"width": 8, "height": 9}
            return
        name, _, value = request.query.partition("=")
        if name != "width":
            raise BadRequest("width: is missing")
        self.meta = {"width": int(value), "height": 9}

    def form_field(self, name: str, value: str) -> None:
        if name != "width":
            raise BadRequest(f"{name}: is unknown")
        self.meta[name] = int(value)

    def reply(self, exchange: Exchange) -> HttpResponse:
        assert exchange.outcome is not None
        assert exchange.outcome.result is not None
        result = exchange.outcome.result
        return HttpResponse(
            status=200,
            headers=(("Content-Type", "image/jpeg"),),
            result=result,
            inserts=((0, b"<"), (result.size, b">")),
        )


@dataclass
class Streams:
    """The subscriptions to the stream; ``sends`` are those that have not ended."""

    sends: list[Send] = field(default_factory=list)

    def subscribe(self, send: Send) -> Callable[[], None]:
        self.sends.append(send)
        send(b"begin")

        def end() -> None:
            self.sends.remove(send)

        return end


class HttpServer:
    """Serves HTTP at ``port``; the jobs that it gives to the workers wait for the test to answer them."""

    def __init__(self, context: ServerContext, workers: FakeWorkers) -> None:
        self.context = context
        self.spool = context.spool
        self.jobs = workers.jobs
        self.workers = workers
        self.streams = Streams()
        self.connections: list[HttpConnection] = []
        self.answers: asyncio.Queue[HttpResponse | Exception] = asyncio.Queue()
        self.routes = Routes(
            routes={
                "/page": Page(lambda _: HttpResponse(status=200, body=b"page"), public=True),
                "/echo": Page(_echo, public=True),
                "/private": Page(lambda _: HttpResponse(status=200, body=b"secret")),
                "/later": Page(self._later, public=True),
                "/broken": Page(_break, public=True),
                "/stream": Page(
                    lambda _: HttpStream(
                        headers=(("Content-Type", "text/event-stream"),), subscribe=self.streams.subscribe
                    ),
                    public=True,
                ),
                "/resize": ImageRoute(Resize),
            },
            problem=plain_problem,
            more_headers=lambda request: (("X-Path", request.path),) if request.path == "/echo" else (),
        )
        self.port = 0

    def connect(self) -> HttpConnection:
        connection = HttpConnection(self.context, self.routes)
        self.connections.append(connection)
        return connection

    @property
    def connection(self) -> HttpConnection:
        """The last client's."""
        return self.connections[-1]

    @property
    def lines(self) -> list[RequestLine]:
        """What the log has of requests that have ended."""
        assert isinstance(self.context.access_log, RecordedRequests)
        return self.context.access_log.lines

    async def _later(self, _: HttpRequest) -> HttpResponse:
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def jobs_given(self, count: int = 1) -> list[Job]:
        await until(lambda: len(self.jobs) >= count)
        return self.jobs

    def succeed(self, job: Job, size: int) -> None:
        succeed(job, self.spool, size=size)

    def watch(self, seconds: float = 0.0) -> None:
        """Let all connections check their timeouts, ``seconds`` from now."""
        for connection in list(self.context.connections):
            connection.watch(time.monotonic() + seconds)


def _echo(request: HttpRequest) -> HttpResponse:
    text = f"{request.method} {request.path} {request.query} {dict(request.fields)}"
    return HttpResponse(status=200, body=text.encode())


def _break(_: HttpRequest) -> HttpResponse:
    raise RuntimeError("a bug in a page")


@dataclass
class Reply:
    """What a client has read of one reply."""

    version: str
    status: int
    headers: dict[str, str]
    body: bytes


class HttpTestClient:
    """One connection, over which the test sends any bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read_head(self) -> Reply:
        """Read a head; the body is left."""
        async with asyncio.timeout(SECONDS):
            head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        version, status, _ = lines[0].split(" ", 2)
        headers = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(": ")
            assert name.lower() not in headers, name
            headers[name.lower()] = value
        return Reply(version, int(status), headers, b"")

    async def read(self, *, head_only: bool = False) -> Reply:
        """Read one reply."""
        reply = await self.read_head()
        size = int(reply.headers.get("content-length", "0"))
        if not head_only and size:
            async with asyncio.timeout(SECONDS):
                reply.body = await self.reader.readexactly(size)
        return reply

    async def request(self, data: bytes) -> Reply:
        await self.send(data)
        return await self.read()

    async def rest(self) -> bytes:
        """Read to the end of the connection; a reset fails the test."""
        async with asyncio.timeout(SECONDS):
            return await self.reader.read()

    def end(self) -> None:
        self.writer.write_eof()

    def close(self) -> None:
        self.writer.close()


def post(body: bytes, more: bytes = b"", query: bytes = b"width=8") -> bytes:
    """A request with an image."""
    head = b"POST /resize?%b HTTP/1.1\r\n%bContent-Length: %d\r\n%b\r\n" % (query, HOST, len(body), more)
    return head + body


def get(path: bytes, more: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\n%b%b\r\n" % (path, HOST, more)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(
    folder: Path, *, free: int = 1000, access: Access | None = None, **settings: Any
) -> AsyncIterator[HttpServer]:
    """A server with ``free`` workers, which everybody may use if there is no ``access``."""
    unheard: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unheard.append(context))
    workers = FakeWorkers(free=free)
    context = make_context(folder, workers, **settings)
    if access is not None:
        context.access = access
    server = HttpServer(context, workers)
    listening = await loop.create_server(server.connect, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for connection in context.connections:
            connection.abort()
        await context.connections.wait_until_closed(SECONDS)
        for job in server.jobs:
            job.close()
        context.spool.close()
    assert unheard == []


@asynccontextmanager
async def client_of(server: HttpServer) -> AsyncIterator[HttpTestClient]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield HttpTestClient(reader, writer)
    finally:
        writer.close()
