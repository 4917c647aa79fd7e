"""Servers that send the replies a test wants, right or wrong, over real sockets."""

import io
import os
import socketserver
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from PIL import Image

from vipsrv.protocol import HEADER, REPLY, Header, Kind, pack_message

_V1_HEAD = struct.Struct("!III")

Answer = Callable[[int, int], bytes]
"""Makes the bytes of a reply from the requested size in pixels."""


def jpeg(width: int, height: int) -> bytes:
    with io.BytesIO() as file:
        Image.new("RGB", (width, height), (90, 120, 40)).save(file, "JPEG")
        return file.getvalue()


def right(width: int, height: int) -> bytes:
    data = jpeg(width, height)
    return struct.pack("!I", len(data)) + data


def nothing(_width: int, _height: int) -> bytes:
    return b""


def garbage(_width: int, _height: int) -> bytes:
    return struct.pack("!I", 1000) + bytes(1000)


class FakeServer:
    """Answers requests of version 1 or 2 while the ``with`` lasts.

    The first request has the answer ``first``, all others ``then``. Over version 2 the answer is the body,
    and the connection stays open unless there is none.
    """

    def __init__(self, first: Answer, then: Answer = right) -> None:
        lock = threading.Lock()
        left = [first]

        def answer(width: int, height: int) -> bytes:
            with lock:
                make = left.pop() if left else then
            return make(width, height)

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                head = self.rfile.read(_V1_HEAD.size)
                size, width, height = _V1_HEAD.unpack(head)
                if size:
                    self.rfile.read(size)
                    self.wfile.write(answer(width, height))
                while not size and head:
                    header = Header.unpack(head + self.rfile.read(HEADER.size - len(head)))
                    self.rfile.read(header.meta_size + header.body_size)
                    body = answer(8, 8)
                    if not body:
                        return
                    reply = pack_message(
                        Kind.RESIZE | REPLY, header.request_id, {}, status=200, body_size=len(body)
                    )
                    self.wfile.write(reply + body)
                    head = self.rfile.read(_V1_HEAD.size)

        class Listener(socketserver.ThreadingTCPServer):
            request_queue_size = 64

        self._server = Listener(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.port: int = self._server.server_address[1]
        self.pids = [os.getpid()]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
