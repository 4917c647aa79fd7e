"""What becomes of uploads over HTTP if connections break, several want them, or limits are reached."""

import hashlib
import os
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.http.serving import HttpServer, until
from tests.server.identity.records import add
from tests.server.tus.serving import BYTES, TusClient, tus_client, tus_server, uploads_of
from vipsrv.errors import CorruptImage
from vipsrv.server.access import Access
from vipsrv.server.identity import Identities
from vipsrv.worker_config import IN_MEMORY_SIZE

LARGE = IN_MEMORY_SIZE + 3_000_000


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[HttpServer]:
    async with tus_server(tmp_path) as one:
        yield one


@pytest.fixture
async def tus(server: HttpServer) -> AsyncIterator[TusClient]:
    async with tus_client(server) as one:
        yield one


def data_of(size: int) -> bytes:
    return hashlib.shake_128(b"upload").digest(size)


async def content_of(server: HttpServer, tus: TusClient, path: str) -> bytes:
    """What a worker gets of a complete upload."""
    given = len(server.jobs)
    await tus.send("POST", f"/info?upload={path[-32:]}")
    job = (await server.jobs_given(given + 1))[-1]
    if job.image.descriptor is None:
        return b"".join(job.image.views)
    return os.pread(job.image.descriptor, job.image.size, 0)


@pytest.mark.parametrize("size", [100_000, LARGE])
@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
async def test_what_arrived_is_kept(server: HttpServer, tus: TusClient, size: int, *, chunked: bool) -> None:
    data = data_of(size)
    path = await tus.create(size)
    part = data[: size * 9 // 10]
    async with tus_client(server) as breaks:
        if chunked:
            body = b"%x\r\n%b" % (size, part)
            await breaks.send(
                *("PATCH", path, body),
                transfer_encoding="chunked",
                content_length=None,
                upload_offset=0,
                content_type=BYTES,
            )
        else:
            await breaks.send(*("PATCH", path, part), announced=size, upload_offset=0, content_type=BYTES)
    await until(lambda: any(line.error for line in server.lines))  # the body has ended too early
    held = await tus.offset(path)
    assert held == len(part)
    await tus.append(path, held, data[held:])
    assert await content_of(server, tus, path) == data


async def test_parts_of_any_size(server: HttpServer, tus: TusClient) -> None:
    data = data_of(LARGE)
    path = await tus.create(LARGE)
    at = 0
    for size in (1, 64 * 1024, 5_000_000, 512 * 1024, LARGE):
        part = data[at : at + size]
        await tus.append(path, at, part)
        at += len(part)
    assert at == LARGE
    assert await content_of(server, tus, path) == data


async def test_pipelined_parts(server: HttpServer, tus: TusClient) -> None:
    path = await tus.create(9)
    for at in (0, 3, 6):
        await tus.send("PATCH", path, b"abc", upload_offset=at, content_type=BYTES)
    for at in (3, 6, 9):
        assert (await tus.client.read()).headers["upload-offset"] == str(at)
    assert await content_of(server, tus, path) == b"abcabcabc"


@pytest.mark.parametrize("size", [100_000, LARGE])
async def test_a_head_takes_an_upload_from_a_connection(
    server: HttpServer, tus: TusClient, size: int
) -> None:
    data = data_of(size)
    path = await tus.create(size)
    async with tus_client(server) as old:
        await old.send("PATCH", path, data[: size // 2], announced=size, upload_offset=0, content_type=BYTES)
        await until(lambda: bool(uploads_of(server).receiving))
        held = await tus.offset(path)
        reply = await old.client.read()
        assert reply.status == 409
        assert b"another connection goes on" in reply.body
        await old.client.send(data[size // 2 :])  # is discarded
        assert await tus.offset(path) == held
        await tus.append(path, held, data[held:])
    assert await content_of(server, tus, path) == data


async def test_nothing_of_a_part_with_a_checksum_is_kept_if_it_breaks(
    server: HttpServer, tus: TusClient
) -> None:
    data = data_of(LARGE)
    path = await tus.create(LARGE)
    await tus.append(path, 0, data[:1000])
    checksum = "sha1 " + b64encode(hashlib.sha1(data[1000:], usedforsecurity=False).digest()).decode()
    async with tus_client(server) as breaks:
        await breaks.send(
            *("PATCH", path, data[1000 : LARGE - 1]),
            announced=LARGE - 1000,
            upload_offset=1000,
            content_type=BYTES,
            upload_checksum=checksum,
        )
    await until(lambda: not server.context.in_flight.requests)
    assert await tus.offset(path) == 1000
    await tus.append(path, 1000, data[1000:], upload_checksum=checksum)
    assert await content_of(server, tus, path) == data


async def test_a_large_part_with_a_wrong_checksum(server: HttpServer, tus: TusClient) -> None:
    data = data_of(LARGE)
    path = await tus.create(LARGE)
    await tus.append(path, 0, data[:100_001])
    wrong = "sha256 " + b64encode(bytes(32)).decode()
    await tus.append(path, 100_001, bytes(LARGE - 100_001), upload_checksum=wrong, status=460)
    await tus.append(path, 100_001, data[100_001:])
    assert await content_of(server, tus, path) == data


async def test_the_client_is_told_to_send(tus: TusClient) -> None:
    path = await tus.create(5)
    await tus.send("PATCH", path, announced=5, upload_offset=0, content_type=BYTES, expect="100-continue")
    assert (await tus.client.read_head()).status == 100
    await tus.client.send(b"hello")
    assert (await tus.client.read()).status == 204
    await tus.send("PATCH", path, announced=5, upload_offset=1, content_type=BYTES, expect="100-continue")
    assert (await tus.client.read()).status == 409


async def test_http_1_0(server: HttpServer, tus: TusClient) -> None:
    path = await tus.create(5)
    async with tus_client(server) as old:
        await old.client.send(
            b"PATCH %b HTTP/1.0\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
            b"Content-Type: application/offset+octet-stream\r\nContent-Length: 5\r\n\r\nhello" % path.encode()
        )
        reply = await old.client.read()
        assert (reply.status, reply.headers["connection"]) == (204, "close")
        assert await old.client.rest() == b""
    assert await tus.offset(path) == 5


async def test_an_upload_that_is_not_complete(tus: TusClient) -> None:
    path = await tus.create(100)
    await tus.append(path, 0, bytes(10))
    for route in ("/info?", "/resize?width=8&"):
        reply = await tus.ask("POST", f"{route}upload={path[-32:]}", status=409)
        assert b"10 of 100 bytes are held, 90 are missing" in reply.body


async def test_an_upload_is_an_image(server: HttpServer, tus: TusClient) -> None:
    path = await tus.create(100, data_of(100), content_type=BYTES)
    for jobs in (1, 2):
        await tus.send("POST", f"/resize?upload={path[-32:]}&width=8&height=9")
        job = (await server.jobs_given(jobs))[-1]
        assert b"".join(job.image.views) == data_of(100)
        job.fail(CorruptImage("it is none"))
        assert (await tus.client.read()).status == 422


@pytest.mark.parametrize(
    ("query", "body", "status"),
    [
        ("upload=" + 32 * "0", b"", 404),
        ("upload=no", b"", 404),
        ("upload=%s&upload=%s", b"", 400),
        ("upload=%s", b"image", 400),
        ("upload=", b"", 404),
    ],
)
async def test_an_upload_that_is_no_image(tus: TusClient, query: str, body: bytes, status: int) -> None:
    path = await tus.create(5, b"hello", content_type=BYTES)
    for route in ("/info", "/resize"):
        await tus.ask("POST", f"{route}?{query.replace('%s', path[-32:])}", body, status=status)


async def test_an_upload_without_bytes_is_no_image(tus: TusClient) -> None:
    path = await tus.create(0)
    await tus.ask("POST", f"/info?upload={path[-32:]}", status=400)


async def test_bytes_whose_checksum_is_not_known_are_not_held(server: HttpServer, tus: TusClient) -> None:
    path = await tus.create(5)
    async with tus_client(server) as other:
        chunk_without_end = b"5\r\nhello\r\n"
        await other.send(
            *("PATCH", path, chunk_without_end),
            upload_offset=0,
            content_type=BYTES,
            transfer_encoding="chunked",
            content_length=None,
            upload_checksum="sha1 " + 27 * "A" + "=",
        )
        await until(lambda: server.context.in_flight.requests == 1)
        assert await tus.offset(path) == 0
        await tus.ask("POST", f"/info?upload={path[-32:]}", status=409)
        assert (await other.client.read()).status == 409


async def test_uploads_belong_to_an_identity(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    shop, other = (f"Bearer {add(file, name).text}" for name in ("shop", "other"))
    async with tus_server(tmp_path, access=Access(Identities(file))) as server, tus_client(server) as tus:
        await tus.ask("POST", "/files", status=401, upload_length=5)
        await tus.ask("OPTIONS", "/files", status=204)
        path = await tus.create(5, authorization=shop)
        await tus.ask("HEAD", path, status=401)
        for method in ("HEAD", "PATCH", "DELETE"):
            await tus.ask(
                *(method, path), status=404, authorization=other, upload_offset=0, content_type=BYTES
            )
        await tus.append(path, 0, b"hello", authorization=shop)
        info = f"/info?upload={path[-32:]}"
        await tus.ask("POST", info, status=404, authorization=other)
        await tus.send("POST", info, authorization=shop)
        (job,) = await server.jobs_given()
        assert b"".join(job.image.views) == b"hello"
        job.fail(CorruptImage("it is none"))
        assert (await tus.client.read()).status == 422


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
async def test_the_bytes_of_parts_count(tmp_path: Path, *, chunked: bool) -> None:
    file = tmp_path / "tokens.toml"
    token = f"Bearer {add(file, 'shop', limits={'bytes_per_second': 1000}).text}"
    async with tus_server(tmp_path, access=Access(Identities(file))) as server, tus_client(server) as tus:
        path = await tus.create(20_000, authorization=token)
        more: dict[str, Any] = {"authorization": token}
        body = bytes(9_000)
        if chunked:
            more |= {"transfer_encoding": "chunked", "content_length": None}
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        await tus.append(path, 0, body, **more)
        reply = await tus.append(path, 9000, body, status=429, **more)
        assert "retry-after" in reply.headers


async def test_bytes_that_were_cut_off_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    token = f"Bearer {add(file, 'shop', limits={'bytes_per_second': 100_000}).text}"
    async with tus_server(tmp_path, access=Access(Identities(file))) as server, tus_client(server) as tus:
        # What was announced would take 9 seconds, one byte takes 10 µs.
        path = await tus.create(900_000, authorization=token)
        for offset in range(3):
            async with tus_client(server) as other:
                await other.send(
                    *("PATCH", path, b"x"),
                    announced=900_000 - offset,
                    authorization=token,
                    upload_offset=offset,
                    content_type=BYTES,
                )
                await until(lambda: server.context.in_flight.requests == 1)
            await until(lambda: server.context.in_flight.requests == 0)
        reply = await tus.ask("HEAD", path, status=200, authorization=token)
        assert reply.headers["upload-offset"] == "3"


async def test_an_upload_expires(tmp_path: Path) -> None:
    async with tus_server(tmp_path, upload_ttl=0.05) as server, tus_client(server) as tus:
        path = await tus.create(5)
        await until(lambda: not uploads_of(server).idle or _expired(server))
        await tus.ask("HEAD", path, status=404)
        await tus.append(path, 0, b"hello", status=404)


def _expired(server: HttpServer) -> bool:
    uploads_of(server).watch(float("inf"))
    return not len(uploads_of(server).idle)


async def test_a_server_without_uploads(tmp_path: Path) -> None:
    async with tus_server(tmp_path, upload_ttl=0) as server, tus_client(server) as tus:
        for method in ("OPTIONS", "POST"):
            await tus.ask(method, "/files", status=404, upload_length=5)
        await tus.ask("POST", "/info?upload=" + 32 * "0", status=404)


async def test_requests_are_told_apart_in_the_log(server: HttpServer, tus: TusClient) -> None:
    path = await tus.create(5)
    await tus.append(path, 0, b"hello")
    await tus.append(path, 0, b"hello", status=409)
    lines = [(line.kind, line.status, line.image_size) for line in server.lines]
    assert lines == [("upload", 201, 0), ("upload", 204, 5), ("upload", 409, 5)]
    assert path[-32:] not in str([line.fields() for line in server.lines])


async def test_a_stopped_server_keeps_what_arrived(server: HttpServer, tus: TusClient) -> None:
    path = await tus.create(10)
    async with tus_client(server) as other:
        await other.send("PATCH", path, b"hello", announced=10, upload_offset=0, content_type=BYTES)
        await until(lambda: server.context.in_flight.requests == 1)
        (connection,) = [one for one in server.connections if one.answers_are_due]
        connection.stop()
        assert (await other.client.read()).status == 503
    assert await tus.offset(path) == 5


async def test_a_draining_server_creates_no_uploads(server: HttpServer, tus: TusClient) -> None:
    server.context.draining = True
    reply = await tus.ask("POST", "/files", status=503, upload_length=5)
    assert "retry-after" in reply.headers
