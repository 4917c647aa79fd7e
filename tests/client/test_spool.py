"""Streams that cannot be rewound are copied before they are sent."""

import io
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.request import urlopen

import pytest

from tests.client.conftest import MakeClient, Serve
from tests.client.fake_server import SECONDS, SIZE, Peer, every
from vipsrv import spool
from vipsrv.client import sources

IMAGE = bytes(range(256)) * 3000


@pytest.mark.parametrize("memory", [len(IMAGE), 1000], ids=["in memory", "in a file"])
def test_a_pipe_is_copied(
    make_client: MakeClient, serve: Serve, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    monkeypatch.setattr(sources, "SPOOL_MEMORY", memory)
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(IMAGE)

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(reading, "rb", buffering=0) as pipe, spool(pipe) as copy:
        writer.join(SECONDS)
        assert make_client(port=serve(every).port).call("resize", copy, **SIZE).data == IMAGE


def test_an_http_response_is_copied(make_client: MakeClient, serve: Serve) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(IMAGE)

        def log_message(self, *_: object) -> None:
            pass

    client = make_client(port=serve(every).port)
    with HTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{web.server_port}/"
        with urlopen(url, timeout=SECONDS) as response:
            with pytest.raises(ValueError, match=r"vipsrv\.spool"):
                client.call("resize", response, **SIZE)
            with spool(response) as copy:
                assert client.call("resize", copy, **SIZE).data == IMAGE
        thread.join(SECONDS)


def test_a_copy_is_sent_again_after_a_lost_connection(make_client: MakeClient, serve: Serve) -> None:
    def answers_once(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.reply(head)

    client = make_client(port=serve(answers_once, every).port)
    client.call("ping")
    with spool(io.BytesIO(IMAGE)) as copy:
        assert client.call("resize", copy, **SIZE).data == IMAGE


def test_a_stream_over_its_bound_is_refused() -> None:
    with spool(io.BytesIO(b"12345"), max_size=5) as copy:
        assert copy.read() == b"12345"
    endless = io.BytesIO(bytes(10 * sources.PIECE_SIZE))
    with pytest.raises(ValueError, match="more than 5 bytes"):
        spool(endless, max_size=5)
    assert endless.tell() <= sources.PIECE_SIZE


def test_an_error_of_the_stream_is_raised() -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, _: object) -> int:
            raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        spool(io.BufferedReader(Broken()))
