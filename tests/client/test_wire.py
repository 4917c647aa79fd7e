"""What exactly both clients send, and what they return for valid replies in any order."""

import os
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import MakeClient, Serve
from tests.client.fake_server import SECONDS, SIZE, Peer, every, silent
from vipsrv.client import ResizeResult, Version1Result
from vipsrv.options import ImageInfo, ResizeOptions, Timings
from vipsrv.protocol import REPLY, Kind, pack_message

# What goes over the wire


def test_a_version_2_request_and_its_reply(make_client: MakeClient, serve: Serve) -> None:
    seen: list[object] = []

    def script(peer: Peer) -> None:
        head, body = peer.read_request()
        seen.extend([head.kind, head.meta, body])
        peer.reply(head, body=b"0123456789")

    server = serve(script)
    result: ResizeResult = make_client(port=server.port).call(
        "resize", b"image", **SIZE, format="png", fit="cover", quality=70, deadline_ms=500
    )
    meta = {"width": 8, "height": 6, "fit": "cover", "format": "png", "quality": 70, "deadline_ms": 500}
    assert seen == [Kind.RESIZE, meta, b"image"]
    assert result.data == b"0123456789"
    assert (result.width, result.height, result.format, result.quality) == (8, 6, "png", 85)
    assert result.source == ImageInfo(
        format="jpeg", width=40, height=30, pages=1, has_alpha=False, orientation=1, size=5
    )
    assert result.timings == Timings(receive=1.0, queue=2.0, process=3.0, total=6.0)
    assert result.ratio == 2.5
    assert result.sent > 28 + 5
    assert result.received > 28 + 10
    assert 0 < result.elapsed < SECONDS


def test_the_bytes_of_version_1(make_client: MakeClient, serve: Serve) -> None:
    seen = bytearray()

    def script(peer: Peer) -> None:
        while len(seen) < 12 + 5:
            seen.extend(peer.socket.recv(100))
        peer.socket.sendall(struct.pack("!I", 4) + b"jpeg")

    server = serve(script, script)
    client = make_client(port=server.port, protocol=1)
    result: Version1Result = client.call("resize", b"image", **SIZE)
    assert seen == struct.pack("!III", 5, 8, 6) + b"image"
    seen.clear()
    assert client.call("resize", b"other", **SIZE).data == b"jpeg"
    assert server.connections == 2
    assert result.data == b"jpeg"
    assert (result.width, result.height, result.format, result.quality) == (8, 6, "jpeg", 85)
    assert (result.ratio, result.sent, result.received) == (5 / 4, 17, 8)


@pytest.mark.parametrize("size", [1, 100, 65_536, 65_537, 262_144, 700_001])
def test_bodies_of_every_size_arrive_whole(
    make_client: MakeClient, serve: Serve, tmp_path: Path, size: int
) -> None:
    image = os.urandom(size)
    path = tmp_path / "image"
    path.write_bytes(image)
    server = serve(every)
    client = make_client(port=server.port)
    assert client.call("resize", image, **SIZE).data == image
    assert client.call("resize", path, **SIZE).data == image
    assert server.connections == 1


def test_a_reply_may_come_byte_by_byte(make_client: MakeClient, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reply = pack_message(head.kind | REPLY, head.request_id, status=200)
        for byte in reply:
            peer.socket.sendall(bytes([byte]))

    server = serve(script)
    assert make_client(port=server.port).call("ping") > 0


def test_progress_is_reported_during_the_upload(make_client: MakeClient, serve: Serve) -> None:
    told: list[int] = []
    server = serve(every)
    make_client(port=server.port).call("resize", bytes(1_000_000), **SIZE, on_sent=told.append)
    assert len(told) > 3
    assert told == sorted(told)
    assert told[-1] == 1_000_000


# Pipelining


def test_requests_are_pipelined_and_replies_come_in_any_order(make_client: MakeClient, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        requests = [peer.read_request() for _ in range(8)]
        for head, body in reversed(requests):
            peer.reply(head, body=body * 2)

    server = serve(script)
    client = make_client(port=server.port)
    images = [f"image {number}".encode() for number in range(8)]
    calls = [client.submit("resize", image, **SIZE) for image in images]
    assert [call.result(SECONDS).data for call in calls] == [image * 2 for image in images]
    assert server.connections == 1


def test_large_and_small_uploads_do_not_mix(make_client: MakeClient, serve: Serve, tmp_path: Path) -> None:
    images = [os.urandom(size) for size in (900_000, 10, 700_000, 300_000, 10, 10)]
    path = tmp_path / "image"
    path.write_bytes(images[0])
    server = serve(every)
    client = make_client(port=server.port)
    calls = [client.submit("resize", source, **SIZE) for source in [path, *images[1:]]]
    assert [call.result(SECONDS).data for call in calls] == images
    assert server.connections == 1


# Images that fail


def test_a_file_that_becomes_shorter_while_it_is_sent(
    make_client: MakeClient, serve: Serve, tmp_path: Path
) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(4_000_000))

    def cut(_sent: int) -> None:
        os.truncate(path, 0)

    server = serve(silent, every)
    client = make_client(port=server.port)
    with pytest.raises(OSError, match="became shorter while it was sent"):
        client.call("resize", path, **SIZE, on_sent=cut)
    assert client.call("resize", b"image", **SIZE).data == b"image"


def test_a_file_that_fails_while_it_is_read(make_client: MakeClient, serve: Serve) -> None:
    class Failing:
        def __init__(self) -> None:
            self._reads = 0

        def tell(self) -> int:
            return 0

        def seek(self, offset: int, whence: int = 0) -> int:
            return 2_000_000 if whence else offset

        def read(self, size: int) -> bytes:
            self._reads += 1
            if self._reads > 2:
                raise OSError("the disk is gone")
            return bytes(size)

    server = serve(silent)
    with pytest.raises(OSError, match="the disk is gone"):
        make_client(port=server.port).call("resize", Failing(), **SIZE)


@pytest.mark.parametrize(
    "options",
    [{}, {"width": 8, "fit": "fill"}, {"width": 0, "height": 6}, {"width": 8, "height": 6, "fit": "x"}],
)
def test_invalid_options_are_refused_before_anything_is_sent(
    make_client: MakeClient, serve: Serve, options: dict[str, object]
) -> None:
    server = serve()
    with pytest.raises(ValueError, match=r"^(width|height|fit): "):
        make_client(port=server.port).call("resize", b"image", **options)
    assert server.connections == 0


@pytest.mark.parametrize("size", [{"width": 0, "height": 6}, {"width": 8, "height": 2**32}])
def test_version_1_refuses_an_invalid_size_before_anything_is_sent(
    make_client: MakeClient, serve: Serve, size: dict[str, int]
) -> None:
    server = serve()
    with pytest.raises(ValueError, match=r"^(width|height): must be from 1 to"):
        make_client(port=server.port, protocol=1).call("resize", b"image", **size)
    assert server.connections == 0


# Proportions and other conveniences


@pytest.mark.parametrize(
    ("options", "meta"),
    [
        ({"width": 640}, {"width": 640, "fit": "inside"}),
        ({"height": 480}, {"height": 480, "fit": "inside"}),
        ({"width": 640, "height": None}, {"width": 640, "fit": "inside"}),
        ({"width": 640, "fit": "cover"}, {"width": 640, "fit": "cover"}),
        ({"width": 640, "height": 480}, {"width": 640, "height": 480}),
        ({**SIZE, "format": "jpg"}, SIZE),
    ],
    ids=str,
)
def test_the_fit_and_the_format_that_a_client_fills_in(
    make_client: MakeClient, serve: Serve, options: dict[str, Any], meta: dict[str, Any]
) -> None:
    seen: list[dict[str, Any]] = []

    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        seen.append(head.meta)
        peer.reply(head)

    make_client(port=serve(script).port).call("resize", b"image", **options)
    assert seen == [meta]


def test_options_may_be_one_object(make_client: MakeClient, serve: Serve) -> None:
    seen: list[dict[str, Any]] = []

    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        seen.append(head.meta)
        peer.reply(head)

    options = ResizeOptions(width=8, height=6, quality=70)
    make_client(port=serve(script).port).call("resize", b"image", options, deadline_ms=500)
    assert seen == [{**SIZE, "quality": 70, "deadline_ms": 500}]


def test_options_in_both_ways_are_refused(make_client: MakeClient, serve: Serve) -> None:
    with pytest.raises(ValueError, match="quality: is given by name in addition to a ResizeOptions"):
        make_client(port=serve().port).call("resize", b"image", ResizeOptions(width=8, height=6), quality=70)
