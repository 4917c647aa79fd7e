"""Old clients must never notice: version 1 from its table alone, against a real server."""

import socket
import struct
from pathlib import Path

import pytest
from PIL.JpegImagePlugin import JpegImageFile

from tests.support import bare_client
from tests.support.image_comparison import open_exact, reference, ssim
from tests.support.images import SAMPLES, encode, garbage, jpeg, truncated
from tests.support.running_server import RunningServer

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"


@pytest.mark.parametrize("name", SAMPLES)
def test_every_kind_of_image_comes_back_in_the_exact_size(server: RunningServer, name: str) -> None:
    result = open_exact(bare_client.ask(server.port, SAMPLES[name](), 123, 77).result)
    assert (result.format, result.size, result.mode) == ("JPEG", (123, 77), "RGB")


def test_the_result_looks_like_its_source(server: RunningServer) -> None:
    source = jpeg(640, 480)
    result = open_exact(bare_client.ask(server.port, source, 200, 100).result)
    ideal = open_exact(encode(reference(source, 200, 100), "JPEG", quality=85))
    assert ssim(result, ideal) > 0.97


def test_the_result_is_of_quality_85(server: RunningServer) -> None:
    result = open_exact(bare_client.ask(server.port, jpeg()).result)
    # The first entry of the luminance table: 16 of the standard, scaled by (200 - 2 × 85) / 100.
    assert isinstance(result, JpegImageFile)
    assert result.quantization[0][0] == round(16 * 0.3)


def test_a_client_that_reads_only_what_it_was_promised(server: RunningServer) -> None:
    image = jpeg()
    with bare_client.connect(server.port) as sock:
        sock.sendall(bare_client.header(len(image), 320, 240))
        sock.sendall(image)
        (size,) = struct.unpack("!I", bare_client.read_exactly(sock, 4))
        assert open_exact(bare_client.read_exactly(sock, size)).size == (320, 240)


def test_a_client_that_sends_byte_by_byte(server: RunningServer) -> None:
    image = jpeg(64, 48)
    with bare_client.connect(server.port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in bare_client.header(len(image), 32, 24) + image:
            sock.send(bytes([byte]))
        assert open_exact(bare_client.read_answer(sock).result).size == (32, 24)


def test_a_client_that_shuts_down_its_sending_side_still_gets_its_reply(server: RunningServer) -> None:
    image = jpeg()
    with bare_client.connect(server.port) as sock:
        sock.sendall(bare_client.header(len(image), 32, 24) + image)
        sock.shutdown(socket.SHUT_WR)
        assert open_exact(bare_client.read_answer(sock).result).size == (32, 24)


def test_bytes_after_the_image_do_no_harm(server: RunningServer) -> None:
    image = jpeg()
    with bare_client.connect(server.port) as sock:
        sock.sendall(bare_client.header(len(image), 32, 24) + image + b"more")
        assert open_exact(bare_client.read_answer(sock).result).size == (32, 24)


@pytest.mark.parametrize(
    ("image", "status"),
    [(garbage(), 415), (b"\0", 415), (truncated(jpeg()), 422), (b"\xff\xd8\xff" + bytes(100), 422)],
    ids=["noise", "one byte", "truncated", "a JPEG that is none"],
)
def test_an_upload_that_is_not_an_image_gets_a_zero_size_and_a_reason(
    server: RunningServer, image: bytes, status: int
) -> None:
    error = bare_client.ask(server.port, image).error
    assert error["status"] == status
    assert len(error["message"]) > 10


@pytest.mark.parametrize("size", [(0, 600), (800, 0), (2**32 - 1, 1), (70_000, 10)])
def test_an_impossible_target_is_refused(server: RunningServer, size: tuple[int, int]) -> None:
    assert bare_client.ask(server.port, jpeg(), *size).error["status"] in {400, 413}


def test_an_empty_image_is_refused_immediately(server: RunningServer) -> None:
    with bare_client.connect(server.port) as sock:
        sock.sendall(bare_client.header(0))
        assert bare_client.read_answer(sock).error["status"] == 400


def test_an_image_over_the_limit_is_refused_before_it_is_sent(server: RunningServer) -> None:
    with bare_client.connect(server.port) as sock:
        sock.sendall(bare_client.header(2**32 - 1))
        error = bare_client.read_answer(sock).error
    assert error["status"] == 413
    assert str(2**32 - 1) in error["message"]


def test_a_refusal_reaches_a_client_that_sends_on(server: RunningServer) -> None:
    with bare_client.connect(server.port) as sock:
        sock.sendall(bare_client.header(3_000_000_000))
        for _ in range(64):
            sock.sendall(bytes(1 << 20))
        assert bare_client.read_answer(sock).error["status"] == 413


@pytest.mark.skipif(not CORPUS.is_dir(), reason="../shared/corpus is missing")
@pytest.mark.parametrize("folder", ["photos", "exif-orientation", "sharp", "libwebp-test-data"])
def test_the_corpus(server: RunningServer, folder: str) -> None:
    """Each file gives a result of the exact size or a refusal with a reason, and most give a result."""
    files = sorted(file for file in (CORPUS / folder).rglob("*") if file.is_file())
    results = 0
    for file in files:
        answer = bare_client.ask(server.port, file.read_bytes(), 160, 120)
        if answer.size:
            assert open_exact(answer.result).size == (160, 120), file
            results += 1
        else:
            assert 400 <= answer.error["status"] < 500, (file, answer.error)
    assert results > len(files) * 0.8
