"""Public clients of tus send uploads through a bad network, and little is sent twice."""

import asyncio
import gc
import io
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec

import httpx
import pytest
from PIL import Image, ImageChops

from tests.support.bad_network import CUTS, BadNetwork, Ending, Fault, cut_every
from tests.support.http_server import RunningHttpServer, shape
from tests.support.images import encode, photo
from vipsrv.protocol import Kind, MessageStarted, ReplyReader, pack_message

KIB = 1024
MIB = 2**20
WIDTH, HEIGHT = 1200, 1000
"""Of an image with 3.6 MB."""

PART = 512 * KIB
"""Bytes of a part with a checksum."""

needs_tuspy = pytest.mark.skipif(find_spec("tusclient") is None, reason="tuspy is not installed")
needs_aiotus = pytest.mark.skipif(find_spec("aiotus") is None, reason="aiotus is not installed")

# The clients leave what belonged to broken connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

Upload = Callable[[str, bytes], str]
"""Sends an image to a server's ``/files`` and returns the URL of the upload."""


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collect what a client has left behind, before another test is told of it."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def server() -> Iterator[RunningHttpServer]:
    with RunningHttpServer("--workers", "1", "--listen", "127.0.0.1:0") as running:
        yield running


@pytest.fixture(scope="module")
def image() -> bytes:
    """A TIFF without compression, of which every byte counts."""
    return encode(photo(WIDTH, HEIGHT), "TIFF")


def by_tuspy(url: str, image: bytes, *, checksum: bool = False, chunk: int = sys.maxsize) -> str:
    from tusclient.client import TusClient  # noqa: PLC0415 - if it is installed

    uploader = TusClient(url).uploader(
        file_stream=io.BytesIO(image),
        chunk_size=chunk,
        retries=200,
        retry_delay=0,
        upload_checksum=checksum,
        metadata={"filename": "photo.tif"},
    )
    uploader.upload()
    return str(uploader.url)


def by_tuspy_in_parts(url: str, image: bytes) -> str:
    return by_tuspy(url, image, checksum=True, chunk=PART)


def by_aiotus(url: str, image: bytes) -> str:
    import aiotus  # noqa: PLC0415 - if it is installed

    # It waits before each further attempt, longer and longer; a part is an attempt.
    retry = aiotus.RetryConfiguration(retry_attempts=200, max_retry_period_seconds=0)
    found = asyncio.run(
        aiotus.upload(url, io.BytesIO(image), {"filename": b"photo.tif"}, config=retry, chunksize=MIB)
    )
    assert found is not None
    return str(found)


WHOLE = [pytest.param(by_tuspy, marks=needs_tuspy), pytest.param(by_aiotus, marks=needs_aiotus)]


def use(server: RunningHttpServer, url: str) -> None:
    """Check that an upload is the image, byte for byte as far as a result shows."""
    reply = httpx.post(f"{server.url}/resize", params={"upload": url[-32:], "width": WIDTH, "format": "png"})
    assert shape(reply.content) == ("PNG", (WIDTH, HEIGHT))
    with Image.open(io.BytesIO(reply.content)) as result:
        assert ImageChops.difference(result.convert("RGB"), photo(WIDTH, HEIGHT)).getbbox() is None


@pytest.mark.parametrize("upload", [*WHOLE, pytest.param(by_tuspy_in_parts, marks=needs_tuspy)])
def test_an_upload_arrives(server: RunningHttpServer, image: bytes, upload: Upload) -> None:
    use(server, upload(f"{server.url}/files", image))


@pytest.mark.parametrize("upload", WHOLE)
@pytest.mark.parametrize(
    ("cut", "endings"),
    [
        (128 * KIB, (*CUTS, Ending.LATE)),
        (512 * KIB, (*CUTS, Ending.STALL, Ending.LATE)),
        (MIB, (Ending.NO_REPLY,)),
    ],
)
def test_an_upload_arrives_through_a_bad_network(
    server: RunningHttpServer, image: bytes, upload: Upload, cut: int, endings: Sequence[Ending]
) -> None:
    faults = cut_every(cut, seed=cut, endings=endings, stall_seconds=0.05, limit=300)
    with BadNetwork(server.port, faults) as network:
        url = upload(f"http://{network.host}:{network.port}/files", image)
        assert network.connections > 2
        # Beside the image itself there are the heads of requests.
        assert network.accepted <= 1.05 * len(image) + 1024 * network.connections
    use(server, url)


@needs_tuspy
def test_parts_with_checksums_are_sent_again_as_a_whole(server: RunningHttpServer, image: bytes) -> None:
    def cut_every_third(number: int) -> Fault | None:
        return Fault(ending=Ending.RESET, after=PART // 2) if number % 3 == 2 else None

    with BadNetwork(server.port, cut_every_third) as network:
        url = by_tuspy_in_parts(f"http://{network.host}:{network.port}/files", image)
        assert network.connections > len(image) / PART * 1.3
    use(server, url)


@needs_tuspy
def test_the_binary_protocol_takes_an_upload(server: RunningHttpServer, image: bytes) -> None:
    url = by_tuspy(f"{server.url}/files", image)
    meta = {"upload": {"id": url[-32:], "size": len(image), "offset": len(image)}}
    host, port = server.listeners[1].rsplit(":", 1)
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(pack_message(Kind.INFO, 1, meta))
        replies = ReplyReader()
        while True:
            data = connection.recv(65536)
            assert data
            for event in replies.receive_data(memoryview(data)):
                if isinstance(event, MessageStarted):
                    assert event.meta["source"]["size"] == len(image)
                    return
