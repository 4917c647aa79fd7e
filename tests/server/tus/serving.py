"""A server of HTTP with the real routes on a real socket, whose workers are played by the test."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.server.http.serving import HttpServer, HttpTestClient, Reply, client_of, serving
from vipsrv.server.access import Access
from vipsrv.server.api.image_routes import image_routes

VERSION = "1.0.0"
BYTES = "application/offset+octet-stream"


class TusClient:
    """One connection, which sends requests of tus; a field that is ``None`` is left out."""

    def __init__(self, client: HttpTestClient) -> None:
        self.client = client

    async def send(
        self, method: str, path: str, body: bytes = b"", *, announced: int | None = None, **fields: object
    ) -> None:
        """Send a request; ``announced`` is the Content-Length if that is not the size of the body."""
        given: dict[str, object] = {"tus_resumable": VERSION, "host": "files.example:8080", **fields}
        if body or announced is not None or method in ("POST", "PATCH"):
            given.setdefault("content_length", len(body) if announced is None else announced)
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in given.items() if value is not None]
        await self.client.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)

    async def ask(
        self, method: str, path: str, body: bytes = b"", *, status: int | None = None, **fields: object
    ) -> Reply:
        await self.send(method, path, body, **fields)
        reply = await self.client.read(head_only=method == "HEAD")
        assert status in (None, reply.status), (reply.status, reply.body)
        return reply

    async def create(self, size: int, body: bytes = b"", **fields: object) -> str:
        """Create an upload and return its path."""
        reply = await self.ask("POST", "/files", body, status=201, upload_length=size, **fields)
        return path_of(reply)

    async def append(
        self, path: str, offset: int, body: bytes, *, status: int | None = 204, **fields: object
    ) -> Reply:
        given: dict[str, object] = {"content_type": BYTES, "upload_offset": offset, **fields}
        return await self.ask("PATCH", path, body, status=status, **given)

    async def offset(self, path: str) -> int:
        reply = await self.ask("HEAD", path, status=200)
        return int(reply.headers["upload-offset"])


def path_of(reply: Reply) -> str:
    """The path in the Location of a reply."""
    return "/files/" + reply.headers["location"].rpartition("/files/")[2]


def headers_of(reply: Reply, *names: str) -> Mapping[str, str | None]:
    return {name: reply.headers.get(name) for name in names}


@asynccontextmanager
async def tus_server(folder: Path, *, access: Access | None = None, **settings: Any) -> AsyncIterator[HttpServer]:
    async with serving(folder, access=access, **settings) as server:
        server.routes = image_routes(server.context)
        yield server


@asynccontextmanager
async def tus_client(server: HttpServer) -> AsyncIterator[TusClient]:
    async with client_of(server) as client:
        yield TusClient(client)
