"""Images in forms, of which only the file goes into the spool."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.server.http.serving import HOST, client_of, get, serving
from vipsrv.worker_config import IN_MEMORY_SIZE


def form(image: bytes, *fields: tuple[bytes, bytes], end: bytes = b"\r\n--XX--\r\n") -> bytes:
    parts = [b'--XX\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % field for field in fields]
    file = b'--XX\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    return b"".join(parts) + file + image + end


def posted(body: bytes, more: bytes = b"", *, chunked: bool = False) -> bytes:
    head = b"POST /resize HTTP/1.1\r\n" + HOST + b"Content-Type: multipart/form-data; boundary=XX\r\n" + more
    if not chunked:
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    pieces = [body[begin : begin + 70_000] for begin in range(0, len(body), 70_000)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@pytest.mark.parametrize("size", [1, 100_000, IN_MEMORY_SIZE + 1])
@pytest.mark.parametrize("chunked", [False, True])
async def test_the_file_is_the_image(tmp_path: Path, size: int, *, chunked: bool) -> None:
    image = (b"\r\n--X" * (size // 5 + 1))[:size]
    async with serving(tmp_path) as server, client_of(server) as client:
        body = posted(form(image, (b"width", b"77")), chunked=chunked)
        sending = asyncio.ensure_future(client.send(body + get(b"/page")))
        (job,) = await server.jobs_given()
        await sending
        assert b'"width":77' in job.options
        assert job.image.size == size
        if job.image.descriptor is None:
            assert b"".join(job.image.views) == image
        else:
            assert os.pread(job.image.descriptor, size + 1, 0) == image
        server.succeed(job, 3)
        assert [(await client.read()).status for _ in range(2)] == [200, 200]
        assert server.lines[0].image_size == size


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (form(b"image", (b"colour", b"1")), b"colour: is unknown"),
        (form(b""), b"there is no image: its size is 0"),
        (form(b"image", end=b""), b"the form ends too early"),
        (b"--XX--\r\n", b"the form has no file"),
        (b"nothing of a form", b"the form ends too early"),
    ],
    ids=["field", "empty", "cut", "no file", "no form"],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_form_that_is_refused(tmp_path: Path, body: bytes, message: bytes, *, chunked: bool) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        await client.send(posted(body, chunked=chunked))
        reply = await client.read()
        assert reply.status == 400
        assert message in reply.body
        assert server.jobs == []
        if "connection" not in reply.headers:
            assert (await client.request(get(b"/page"))).status == 200
        assert server.context.in_flight.requests == 0


async def test_a_form_is_bounded(tmp_path: Path) -> None:
    async with serving(tmp_path, max_upload=1_000_000) as server, client_of(server) as client:
        await client.send(posted(form(bytes(1_000_001))))
        assert (await client.read()).status == 413
    async with serving(tmp_path, max_upload=1_000_000) as server, client_of(server) as client:
        await client.send(posted(form(bytes(1_000_000))))
        server.succeed((await server.jobs_given())[0], 3)
        assert (await client.read()).status == 200
    async with serving(tmp_path, max_upload=1_000_000) as server, client_of(server) as client:
        await client.send(posted(form(bytes(1_100_000)), b"Expect: 100-continue\r\n")[:400])
        assert (await client.read()).status == 413


async def test_a_client_that_disconnects_within_a_form(tmp_path: Path) -> None:
    for cut in (100, 180, 400):
        async with serving(tmp_path) as server, client_of(server) as client:
            await client.send(posted(form(bytes(1000), (b"width", b"9")))[: 150 + cut])
            client.end()
            await client.rest()
            assert server.context.in_flight.requests == 0
            assert server.spool.memory_left == 16 << 20
