"""What both clients promise, with a real server. Other tests use servers that misbehave."""

import gzip
import inspect
import io
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from PIL import Image

from tests.client.adapters import CALL_SECONDS
from tests.client.conftest import MakeClient
from tests.conftest import StartServer
from tests.support.images import jpeg
from tests.support.running_server import RunningServer
from vipsrv.client import (
    AsyncClient,
    AsyncVersion1Client,
    Client,
    ResizeResult,
    Version1Client,
    Version1Result,
)
from vipsrv.client.sources import PIECE_SIZE
from vipsrv.errors import BadRequest, CorruptImage, RequestError, TooLarge, UnsupportedFormat
from vipsrv.protocol import Kind
from vipsrv.version import __version__

PHOTO = jpeg(400, 300)


def dimensions(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        return image.size


@contextmanager
def opened_at(path: Path, offset: int, buffering: int = -1) -> Iterator[BinaryIO]:
    with path.open("rb", buffering) as file:
        file.seek(offset)
        yield file


@contextmanager
def zipped(path: Path) -> Iterator[BinaryIO]:
    packed = path.with_suffix(".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with gzip.open(packed, "rb") as file:
        yield file  # type: ignore[misc]  # likewise


@contextmanager
def itself(image: Any) -> Iterator[Any]:
    yield image


SOURCES: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda path: itself(path.read_bytes()),
    "bytearray": lambda path: itself(bytearray(path.read_bytes())),
    "memoryview": lambda path: itself(memoryview(path.read_bytes())),
    "wide memoryview": lambda path: itself(memoryview(path.read_bytes()).cast("I")),
    "str": lambda path: itself(str(path)),
    "Path": itself,
    "BytesIO": lambda path: itself(io.BytesIO(path.read_bytes())),
    "file": lambda path: opened_at(path, 0),
    "unbuffered file": lambda path: opened_at(path, 0, 0),
    "gzip file": zipped,
}


@pytest.fixture(scope="module")
def large_image() -> bytes:
    """An image that is sent in several pieces, padded at its end to a multiple of four bytes."""
    data = jpeg(2000, 1500, quality=98)
    assert len(data) > 2 * PIECE_SIZE
    return data + bytes(-len(data) % 4)


@pytest.fixture
def image_file(large_image: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(large_image)
    return path


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_arrives(
    make_client: MakeClient, server: RunningServer, image_file: Path, source: str, protocol: int
) -> None:
    client = make_client(server.host, server.port, protocol=protocol)
    with SOURCES[source](image_file) as image:
        result: ResizeResult = client.call("resize", image, width=200, height=120)
    assert dimensions(result.data) == (200, 120)
    assert result.ratio == pytest.approx(image_file.stat().st_size / len(result.data), rel=1e-2)
    assert result.sent > image_file.stat().st_size


def test_a_file_object_is_sent_from_its_current_position(
    make_client: MakeClient, server: RunningServer, tmp_path: Path
) -> None:
    path = tmp_path / "photo"
    path.write_bytes(b"something else" + PHOTO)
    client = make_client(server.host, server.port)
    with opened_at(path, 14) as file:
        assert client.call("info", file).size == len(PHOTO)


def test_the_fields_of_a_result(make_client: MakeClient, server: RunningServer) -> None:
    result: ResizeResult = make_client(server.host, server.port).call(
        "resize", PHOTO, width=80, height=70, quality=60
    )
    assert dimensions(result.data) == (result.width, result.height) == (80, 70)
    assert (result.format, result.quality) == ("jpeg", 60)
    assert (result.source.format, result.source.width, result.source.height) == ("jpeg", 400, 300)
    assert result.source.size == len(PHOTO)
    assert 0 < result.timings.process <= result.timings.total < result.elapsed * 1000
    assert result.received > len(result.data)
    assert "data" not in repr(result)


def test_the_fields_of_a_version_1_result(make_client: MakeClient, server: RunningServer) -> None:
    result: Version1Result = make_client(server.host, server.port, protocol=1).call(
        "resize", PHOTO, width=80, height=70
    )
    assert dimensions(result.data) == (result.width, result.height) == (80, 70)
    assert (result.sent, result.received) == (12 + len(PHOTO), 4 + len(result.data))


def test_info_ping_and_hello(make_client: MakeClient, server: RunningServer) -> None:
    client = make_client(server.host, server.port)
    info = client.call("info", PHOTO)
    assert (info.format, info.width, info.height, info.pages, info.has_alpha) == ("jpeg", 400, 300, 1, False)
    assert 0 < client.call("ping") < CALL_SECONDS
    hello = client.call("hello")
    assert hello.name == f"vipsrv/{__version__}"
    assert "jpeg" in hello.reads
    assert "jpeg" in hello.writes
    assert "fill" in hello.fits
    assert hello.limits.max_upload > 0


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize(
    ("image", "error"),
    [(b"this is no image", UnsupportedFormat), (PHOTO[: len(PHOTO) // 2], CorruptImage)],
    ids=["no image", "half an image"],
)
def test_refusals(
    make_client: MakeClient, server: RunningServer, image: bytes, error: type[RequestError], protocol: int
) -> None:
    client = make_client(server.host, server.port, protocol=protocol)
    with pytest.raises(error) as caught:
        client.call("resize", image, width=80, height=60)
    assert str(caught.value)
    assert dimensions(client.call("resize", PHOTO, width=8, height=6).data) == (8, 6)


def test_a_missing_page_is_a_bad_request(make_client: MakeClient, server: RunningServer) -> None:
    client = make_client(server.host, server.port)
    with pytest.raises(BadRequest, match="page"):
        client.call("resize", PHOTO, width=80, height=60, page=3)
    assert client.call("ping") > 0


@pytest.mark.parametrize("protocol", [1, 2])
def test_an_upload_over_the_limit_is_too_large(
    make_client: MakeClient, start_server: StartServer, tmp_path: Path, protocol: int
) -> None:
    server = start_server("--workers", "1", "--max-upload", "1MB")
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(200_000_000)
    client = make_client(server.host, server.port, protocol=protocol)
    with pytest.raises(TooLarge, match="200000000"):
        client.call("resize", large, width=80, height=60)
    assert dimensions(client.call("resize", PHOTO, width=8, height=6).data) == (8, 6)


@pytest.mark.parametrize("protocol", [1, 2])
def test_many_calls_at_once(make_client: MakeClient, server: RunningServer, protocol: int) -> None:
    client = make_client(server.host, server.port, protocol=protocol)
    sizes = [(20 + number, 90 - number) for number in range(60)]
    calls = [client.submit("resize", PHOTO, width=width, height=height) for width, height in sizes]
    assert [dimensions(call.result(CALL_SECONDS).data) for call in calls] == sizes


def test_calls_succeed_although_the_server_closes_idle_connections(
    make_client: MakeClient, start_server: StartServer
) -> None:
    server = start_server("--workers", "1", "--idle-timeout", "0.2")
    client = make_client(server.host, server.port)
    for _ in range(3):
        assert client.call("ping") > 0
        _wait_until_closed(server)


def _wait_until_closed(server: RunningServer) -> None:
    """Wait until the server has closed a connection opened now; those idle before are then closed, too."""
    with socket.create_connection((server.host, server.port), CALL_SECONDS) as probe:
        assert probe.recv(1) == b""


def test_a_unix_socket(make_client: MakeClient, start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--workers", "1", "--listen", f"unix:{tmp_path / 'socket'}")
    client = make_client(address=server.listeners[0])
    assert dimensions(client.call("resize", PHOTO, width=8, height=6).data) == (8, 6)


def test_after_a_restart_of_the_server_the_next_call_works(
    make_client: MakeClient, start_server: StartServer
) -> None:
    first = start_server("--workers", "1")
    client = make_client(first.host, first.port)
    assert client.call("ping") > 0
    first.stop()
    start_server("--workers", "1", "--port", str(first.port))
    assert client.call("ping") > 0


# Without a server


@pytest.mark.parametrize("image", [b"", io.BytesIO(b""), io.BytesIO()])
def test_an_empty_image(make_client: MakeClient, image: object) -> None:
    with pytest.raises(ValueError, match="the image is empty"):
        make_client(port=1).call("resize", image, width=8, height=6)


def test_a_pipe_cannot_be_sent(make_client: MakeClient) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    with (
        os.fdopen(reading, "rb") as pipe,
        pytest.raises(ValueError, match=r"not seekable, so its size is unknown; pass vipsrv\.spool"),
    ):
        make_client(port=1).call("resize", pipe, width=8, height=6)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_cannot_be_sent(make_client: MakeClient, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"pipe is not a regular file.*vipsrv\.spool"):
        make_client(port=1).call("resize", tmp_path / "pipe", width=8, height=6)


@pytest.mark.parametrize("image", [io.StringIO("text"), None, 7, ["a"]])
def test_an_invalid_image_source(make_client: MakeClient, image: object) -> None:
    with pytest.raises(TypeError, match="an image is bytes, a path or a binary file object"):
        make_client(port=1).call("info", image)


def test_no_such_file(make_client: MakeClient, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        make_client(port=1).call("resize", tmp_path / "none", width=8, height=6)
    with pytest.raises(OSError, match=r"directory|denied"):
        make_client(port=1).call("resize", tmp_path, width=8, height=6)


@pytest.mark.skipif(os.name == "nt", reason="sparse files need a flag there")
def test_version_1_cannot_announce_4_gb(make_client: MakeClient, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**32)
    with pytest.raises(ValueError, match="carries at most 4294967295"):
        make_client(port=1, protocol=1).call("resize", path, width=8, height=6)


@pytest.mark.parametrize("address", ["tcp:x", "unix:", "/path", ""])
def test_an_invalid_address(make_client: MakeClient, address: str) -> None:
    with pytest.raises(ValueError, match="address: must look like unix:/path"):
        make_client(address=address)


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_an_invalid_port(make_client: MakeClient, port: int) -> None:
    with pytest.raises(ValueError, match="port: must be from 1 to 65535"):
        make_client(port=port)


@pytest.mark.parametrize(
    ("kind", "async_kind"), [(Client, AsyncClient), (Version1Client, AsyncVersion1Client)]
)
def test_both_clients_have_the_same_methods(
    kind: type[Client | Version1Client], async_kind: type[AsyncClient | AsyncVersion1Client]
) -> None:
    def methods(client: type) -> dict[str, inspect.Signature]:
        return {
            name: inspect.signature(member)
            for name, member in vars(client).items()
            if callable(member) and not name.startswith("_")
        }

    assert methods(kind) == methods(async_kind)
    assert inspect.signature(kind) == inspect.signature(async_kind)
    assert inspect.signature(kind.close) == inspect.signature(async_kind.aclose)


def test_every_request_of_the_protocol_has_its_method() -> None:
    # CANCEL is sent when a call is cancelled; UPLOAD_STATUS when an upload goes on.
    missing = {Kind.CANCEL, Kind.UPLOAD_STATUS}
    assert {kind.name.lower() for kind in set(Kind) - missing} < set(dir(Client))


def test_context_managers(server: RunningServer) -> None:
    with Client(server.host, server.port) as client:
        assert client.ping() > 0
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.ping()


async def test_async_context_managers(server: RunningServer) -> None:
    async with AsyncClient(server.host, server.port) as client:
        assert await client.ping() > 0
    with pytest.raises(RuntimeError, match="the client is closed"):
        await client.ping()
