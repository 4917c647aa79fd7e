"""The cases that tusd and tus-java-server test, by their outcomes: core, creation, checksum, termination.

Where the two differ from each other or leave a choice, the comment says so.
"""

import hashlib
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.http.serving import HttpServer
from tests.server.tus.serving import BYTES, TusClient, headers_of, tus_client, tus_server, uploads_of
from vipsrv.server.tus.headers import ALGORITHMS

UNKNOWN = "/files/" + "0123456789abcdef" * 2


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[HttpServer]:
    async with tus_server(tmp_path, max_upload=1_000_000) as one:
        yield one


@pytest.fixture
async def tus(server: HttpServer) -> AsyncIterator[TusClient]:
    async with tus_client(server) as one:
        yield one


def checksum_of(data: bytes, algorithm: str = "sha1") -> str:
    return f"{algorithm} {b64encode(hashlib.new(algorithm, data).digest()).decode()}"


# What OPTIONS answers


@pytest.mark.parametrize("path", ["/files", "/files/", UNKNOWN])
@pytest.mark.parametrize("version", ["1.0.0", "0.0.1", None])
async def test_what_the_server_can_do(tus: TusClient, path: str, version: str | None) -> None:
    reply = await tus.ask("OPTIONS", path, status=204, tus_resumable=version)
    assert headers_of(reply, "tus-resumable", "tus-version", "tus-max-size") == {
        "tus-resumable": "1.0.0",
        "tus-version": "1.0.0",
        "tus-max-size": "1000000",
    }
    extensions = reply.headers["tus-extension"].split(",")
    assert set(extensions) == {"creation", "creation-with-upload", "expiration", "termination", "checksum"}
    assert set(reply.headers["tus-checksum-algorithm"].split(",")) == set(ALGORITHMS)


@pytest.mark.parametrize("version", ["0.2.2", "1.0.1", None])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/files"), ("HEAD", UNKNOWN), ("PATCH", UNKNOWN), ("DELETE", UNKNOWN)]
)
async def test_another_version(tus: TusClient, method: str, path: str, version: str | None) -> None:
    reply = await tus.ask(
        method, path, status=412, tus_resumable=version, upload_length=1, upload_offset=0, content_type=BYTES
    )
    assert headers_of(reply, "tus-resumable", "tus-version") == {
        "tus-resumable": "1.0.0",
        "tus-version": "1.0.0",
    }


async def test_a_method_that_is_none_of_the_path(tus: TusClient) -> None:
    reply = await tus.ask("PUT", "/files", status=405)
    assert reply.headers["allow"] == "OPTIONS, POST"
    assert reply.headers["tus-resumable"] == "1.0.0"
    reply = await tus.ask("GET", UNKNOWN, status=405)
    assert reply.headers["allow"] == "OPTIONS, HEAD, PATCH, DELETE"


# What POST creates


async def test_creation(tus: TusClient) -> None:
    reply = await tus.ask(
        "POST",
        "/files",
        status=201,
        upload_length=300,
        upload_metadata="foo aGVsbG8=, bar d29ybGQ=, hah INVALID, empty",
    )
    assert re.fullmatch(r"http://files\.example:8080/files/[0-9a-f]{32}", reply.headers["location"])
    assert headers_of(reply, "upload-offset", "content-length", "tus-resumable", "cache-control") == {
        "upload-offset": "0",
        "content-length": "0",
        "tus-resumable": "1.0.0",
        "cache-control": "no-store",
    }
    path = "/files/" + reply.headers["location"][-32:]
    reply = await tus.ask("HEAD", path, status=200)
    assert reply.headers["upload-metadata"] == "foo aGVsbG8=,bar d29ybGQ=,empty"


async def test_each_creation_is_another_upload(tus: TusClient) -> None:
    assert await tus.create(10) != await tus.create(10)


async def test_an_upload_without_bytes_is_complete(tus: TusClient) -> None:
    path = await tus.create(0)
    reply = await tus.ask("HEAD", path, status=200)
    assert headers_of(reply, "upload-offset", "upload-length") == {"upload-offset": "0", "upload-length": "0"}


async def test_an_upload_beyond_the_limit(tus: TusClient) -> None:
    await tus.create(1_000_000)
    await tus.ask("POST", "/files", status=413, upload_length=1_000_001)


@pytest.mark.parametrize(
    "fields",
    [
        {"upload_length": "-5"},
        {"upload_length": "five"},
        {},
        {"upload_length": "10", "upload_defer_length": "1"},
        {"upload_defer_length": "1"},
        {"upload_defer_length": "bad"},
        {"upload_length": "10", "upload_concat": "partial"},
        {"upload_concat": "final;/files/a /files/b"},
        {"upload_length": "10", "upload_metadata": "a YQ==,a YQ=="},
        {"upload_length": "10", "upload_checksum": "crc AAAA"},
    ],
)
async def test_a_creation_that_is_not_valid(tus: TusClient, fields: dict[str, Any]) -> None:
    reply = await tus.ask("POST", "/files", status=400, **fields)
    assert "location" not in reply.headers


@pytest.mark.parametrize(
    ("fields", "location"),
    [
        ({"host": "foo.example"}, "http://foo.example/files/"),
        ({"x_forwarded_proto": "https"}, "https://files.example:8080/files/"),
        ({"x_forwarded_proto": "aaa"}, "http://files.example:8080/files/"),
        ({"x_forwarded_host": "foo.example"}, "http://files.example:8080/files/"),
    ],
)
async def test_the_place_of_an_upload(tus: TusClient, fields: dict[str, Any], location: str) -> None:
    reply = await tus.ask("POST", "/files", status=201, upload_length=300, **fields)
    assert reply.headers["location"][:-32] == location


async def test_creation_with_bytes(tus: TusClient) -> None:
    reply = await tus.ask("POST", "/files", b"hello", status=201, upload_length=300, content_type=BYTES)
    assert reply.headers["upload-offset"] == "5"
    path = "/files/" + reply.headers["location"][-32:]
    assert await tus.offset(path) == 5
    await tus.append(path, 5, bytes(295))
    assert await tus.offset(path) == 300


async def test_creation_with_more_bytes_than_the_upload_has(tus: TusClient, server: HttpServer) -> None:
    await tus.ask("POST", "/files", b"hello", status=413, upload_length=4, content_type=BYTES)
    assert uploads_of(server).idle.memory == 0


async def test_the_bytes_of_another_type_are_none_of_the_upload(tus: TusClient) -> None:
    # As tusd; tus-java-server refuses it. The upload is created, its bytes may follow.
    path = await tus.create(300, b"hello", content_type="application/false")
    assert await tus.offset(path) == 0


# HEAD


async def test_how_much_is_held(tus: TusClient) -> None:
    path = await tus.create(44, upload_metadata="name bHVucmpzLnBuZw==,empty")
    await tus.append(path, 0, bytes(11))
    reply = await tus.ask("HEAD", path, status=200)
    assert headers_of(reply, "upload-offset", "upload-length", "upload-metadata", "cache-control") == {
        "upload-offset": "11",
        "upload-length": "44",
        "upload-metadata": "name bHVucmpzLnBuZw==,empty",
        "cache-control": "no-store",
    }
    assert "upload-defer-length" not in reply.headers


@pytest.mark.parametrize("path", [UNKNOWN, "/files/no", UNKNOWN.upper(), UNKNOWN + "0", "/files/%2e%2e"])
@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE"])
async def test_an_unknown_upload(tus: TusClient, method: str, path: str) -> None:
    reply = await tus.ask(method, path, status=404, upload_offset=5, content_type=BYTES)
    assert "upload-offset" not in reply.headers


# PATCH


async def test_the_bytes_of_an_upload(tus: TusClient, server: HttpServer) -> None:
    path = await tus.create(10)
    await tus.append(path, 0, b"first")
    reply = await tus.append(path, 5, b"hello")
    assert headers_of(reply, "upload-offset", "tus-resumable", "cache-control") == {
        "upload-offset": "10",
        "tus-resumable": "1.0.0",
        "cache-control": "no-store",
    }
    assert "content-length" not in reply.headers
    await tus.send("POST", f"/info?upload={path[-32:]}")
    (job,) = await server.jobs_given()
    assert b"".join(job.image.views) == b"firsthello"


async def test_another_method_in_its_place(tus: TusClient) -> None:
    path = await tus.create(10)
    reply = await tus.ask(
        "POST",
        path,
        b"first",
        status=204,
        x_http_method_override="PATCH",
        upload_offset=0,
        content_type=BYTES,
    )
    assert reply.headers["upload-offset"] == "5"
    reply = await tus.ask("POST", path, status=200, x_http_method_override="HEAD")
    assert reply.headers["upload-offset"] == "5"
    await tus.ask("POST", path, status=204, x_http_method_override="DELETE")
    await tus.ask("POST", path, status=405)
    await tus.ask("POST", path, status=405, x_http_method_override="GET")


async def test_no_more_bytes_for_a_complete_upload(tus: TusClient) -> None:
    path = await tus.create(20)
    await tus.append(path, 0, bytes(20))
    reply = await tus.append(path, 20, b"")
    assert reply.headers["upload-offset"] == "20"
    await tus.append(path, 20, b"x", status=413)
    assert await tus.offset(path) == 20


@pytest.mark.parametrize("offset", [0, 4, 6, 10])
async def test_an_offset_that_does_not_match(tus: TusClient, offset: int) -> None:
    path = await tus.create(10)
    await tus.append(path, 0, bytes(5))
    reply = await tus.append(path, offset, bytes(2), status=409)
    assert b"but 5 of 10 bytes are held" in reply.body
    assert await tus.offset(path) == 5


async def test_more_bytes_than_the_upload_has(tus: TusClient) -> None:
    path = await tus.create(10)
    await tus.append(path, 0, bytes(5))
    await tus.append(path, 5, b"hellothisismorethan15bytes", status=413)
    assert await tus.offset(path) == 5


async def test_more_bytes_in_chunks_than_the_upload_has(tus: TusClient, server: HttpServer) -> None:
    # As tusd: those that fit are kept.
    path = await tus.create(20)
    await tus.append(path, 0, bytes(5))
    body = b"1a\r\nhellothisismorethan15bytes\r\n0\r\n\r\n"
    reply = await tus.append(path, 5, body, status=413, transfer_encoding="chunked", content_length=None)
    assert b"after 15 bytes" in reply.body
    async with tus_client(server) as again:
        assert await again.offset(path) == 20


@pytest.mark.parametrize("media_type", ["application/fail", None, "application/octet-stream"])
async def test_another_type_of_body(tus: TusClient, media_type: str | None) -> None:
    path = await tus.create(10)
    await tus.append(path, 0, b"hello", status=415, content_type=media_type)
    assert await tus.offset(path) == 0


@pytest.mark.parametrize("offset", ["-5", "five", None, ""])
async def test_an_offset_that_is_not_valid(tus: TusClient, offset: str | None) -> None:
    path = await tus.create(10)
    await tus.append(path, 0, b"hello", status=400, upload_offset=offset)


@pytest.mark.parametrize("sizes", [(3, 4, 3), (10,), (1, 1, 8)])
async def test_a_body_in_chunks(tus: TusClient, server: HttpServer, sizes: tuple[int, ...]) -> None:
    path = await tus.create(10)
    data, body, at = b"0123456789", b"", 0
    for size in sizes:
        body += b"%x\r\n%b\r\n" % (size, data[at : at + size])
        at += size
    reply = await tus.append(path, 0, body + b"0\r\n\r\n", transfer_encoding="chunked", content_length=None)
    assert reply.headers["upload-offset"] == "10"
    await tus.send("POST", f"/info?upload={path[-32:]}")
    (job,) = await server.jobs_given()
    assert b"".join(job.image.views) == data


# The checksum extension


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
async def test_a_checksum_that_is_right(tus: TusClient, algorithm: str, *, chunked: bool) -> None:
    path = await tus.create(10)
    body = b"hello"
    more: dict[str, Any] = {}
    if chunked:
        body = b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
        more = {"transfer_encoding": "chunked", "content_length": None}
    await tus.append(path, 0, body, upload_checksum=checksum_of(b"hello", algorithm), **more)
    assert await tus.offset(path) == 5


@pytest.mark.parametrize("begin", [0, 3])
async def test_a_checksum_that_is_wrong(tus: TusClient, server: HttpServer, begin: int) -> None:
    path = await tus.create(10)
    await tus.append(path, 0, b"012"[:begin])
    wrong = checksum_of(b"other")
    rest = b"0123456789"[begin:]
    reply = await tus.append(path, begin, rest[:4], status=460, upload_checksum=wrong)
    assert reply.headers["tus-resumable"] == "1.0.0"
    assert await tus.offset(path) == begin
    await tus.append(path, begin, rest, status=460, upload_checksum=wrong)
    await tus.append(path, begin, rest, upload_checksum=checksum_of(rest))
    await tus.send("POST", f"/info?upload={path[-32:]}")
    (job,) = await server.jobs_given()
    assert b"".join(job.image.views) == b"0123456789"


@pytest.mark.parametrize("checksum", ["crc32 AAAA", "sha1", "sha1 AAAA", "sha1 ****"])
async def test_a_checksum_that_is_not_valid(tus: TusClient, checksum: str) -> None:
    path = await tus.create(10)
    await tus.append(path, 0, b"hello", status=400, upload_checksum=checksum)
    assert await tus.offset(path) == 0


async def test_a_checksum_of_the_bytes_of_a_creation(tus: TusClient) -> None:
    path = await tus.create(10, b"hello", content_type=BYTES, upload_checksum=checksum_of(b"hello"))
    assert await tus.offset(path) == 5
    await tus.ask(
        *("POST", "/files", b"hello"),
        status=460,
        content_type=BYTES,
        upload_length=10,
        upload_checksum=checksum_of(b"hallo"),
    )


# Termination


async def test_termination(tus: TusClient) -> None:
    path = await tus.create(10)
    await tus.append(path, 0, b"hello")
    reply = await tus.ask("DELETE", path, status=204)
    assert reply.headers["tus-resumable"] == "1.0.0"
    await tus.ask("HEAD", path, status=404)
    await tus.append(path, 5, b"hello", status=404)
    await tus.ask("DELETE", path, status=404)
