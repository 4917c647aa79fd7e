"""A server of HTTP with the real routes on a real socket, whose workers are played by the test."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.server.http.serving import SECONDS, HttpServer, HttpTestClient, Reply, client_of, serving
from vipsrv.server.access import Access
from vipsrv.server.api.image_routes import image_routes
from vipsrv.server.uploads import Uploads

VERSION = "1.0.0"
BYTES = "application/offset+octet-stream"


class TusClient:
    """One connection, which sends requests of tus; a field that is ``None`` is left out."""

    def __init__(self, client: HttpTestClient) -> None:
        self.client = client

    async def send(
        self, method: str, path: str, body: bytes = b"", *, announced: int | None = None, **fields: Any
    ) -> None:
        """Send a request; ``announced`` is the Content-Length if that is not the size of the body."""
        given: dict[str, Any] = {"tus_resumable": VERSION, "host": "files.example:8080", **fields}
        if body or announced is not None or method in ("POST", "PATCH"):
            given.setdefault("content_length", len(body) if announced is None else announced)
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in given.items() if value is not None]
        await self.client.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)

    async def ask(
        self, method: str, path: str, body: bytes = b"", *, status: int | None = None, **fields: Any
    ) -> Reply:
        await self.send(method, path, body, **fields)
        reply = await self.client.read(head_only=method == "HEAD")
        assert status in (None, reply.status), (reply.status, reply.body)
        return reply

    async def create(self, size: int, body: bytes = b"", **fields: Any) -> str:
        """Create an upload and return its path."""
        reply = await self.ask("POST", "/files", body, status=201, upload_length=size, **fields)
        return path_of(reply)

    async def append(
        self, path: str, offset: int, body: bytes, *, status: int | None = 204, **fields: Any
    ) -> Reply:
        given: dict[str, Any] = {"content_type": BYTES, "upload_offset": offset, **fields}
        return await self.ask("PATCH", path, body, status=status, **given)

    async def offset(self, path: str) -> int:
        reply = await self.ask("HEAD", path, status=200)
        return int(reply.headers["upload-offset"])


def path_of(reply: Reply) -> str:
    """The path in the Location of a reply."""
    return "/files/" + reply.headers["location"].rpartition("/files/")[2]


def uploads_of(server: HttpServer) -> Uploads:
    assert server.context.uploads is not None
    return server.context.uploads


def headers_of(reply: Reply, *names: str) -> Mapping[str, str | None]:
    return {name: reply.headers.get(name) for name in names}


@asynccontextmanager
async def tus_server(
    folder: Path, *, access: Access | None = None, **settings: Any
) -> AsyncIterator[HttpServer]:
    async with serving(folder, access=access, spool_dir=folder, **settings) as server:
        uploads = server.context.uploads = Uploads(server.spool, server.context.settings)
        server.routes = image_routes(server.context)
        yield server
        for connection in list(server.context.connections):
            connection.abort()
        await server.context.connections.wait_until_closed(SECONDS)
        for job in server.jobs:
            job.close()
        await uploads.close()


@asynccontextmanager
async def tus_client(server: HttpServer) -> AsyncIterator[TusClient]:
    async with client_of(server) as client:
        yield TusClient(client)
