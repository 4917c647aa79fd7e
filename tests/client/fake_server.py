"""A fake server that runs a test's script for each connection, in a thread, with the library's own codec."""

import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from vipsrv.errors import RequestError
from vipsrv.protocol import (
    REPLY,
    V1_REPLY,
    BodyReceived,
    Kind,
    MessageStarted,
    RequestReader,
    pack_error,
    pack_message,
)

SECONDS = 30.0
"""A fake server that waits longer fails its test."""

SIZE = {"width": 8, "height": 6}
"""The size that the tests request, which is also that of the fake server's results."""

LARGE = 64 << 20
"""Bytes: more than the buffers of two sockets hold, so that it cannot be sent unless the server reads."""

SOURCE = {
    "format": "jpeg",
    "width": 40,
    "height": 30,
    "pages": 1,
    "has_alpha": False,
    "orientation": 1,
    "size": 5,
}


class Peer:
    """The server's end of one connection."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._reader = RequestReader()

    def read_head(self) -> MessageStarted | None:
        """Read the next request without its body; ``None`` at the end of the stream."""
        while self._reader.wanted and not self._reader.in_body:
            data = self.socket.recv(self._reader.wanted)
            if not data:
                return None
            for event in self._reader.receive_data(data):
                if isinstance(event, MessageStarted):
                    return event
        return None

    def read_body(self) -> bytes:
        """Read the rest of the body of the current request."""
        body = bytearray()
        while self._reader.in_body:
            data = self.socket.recv(min(self._reader.wanted, 1 << 20))
            if not data:
                raise EOFError(f"the body ended after {len(body)} bytes")
            for event in self._reader.receive_data(data):
                if isinstance(event, BodyReceived):
                    body += event.data
        return bytes(body)

    def read_request(self) -> tuple[MessageStarted, bytes]:
        """Read the next request with its body; the end of the stream fails the test."""
        head = self.read_head()
        assert head is not None, "the client closed the connection instead of sending a request"
        return head, self.read_body()

    def read_to_end(self) -> int:
        """Discard everything up to the end of the stream or a reset, and return the number of bytes."""
        discarded = 0
        try:
            while data := self.socket.recv(1 << 20):
                discarded += len(data)
        except ConnectionResetError:
            pass
        return discarded

    def reply(self, head: MessageStarted, *, body: bytes = b"result", **meta: Any) -> None:
        """Send a valid reply to a request; ``meta`` replaces parts of the usual meta."""
        asked = head.meta.get("format", "jpeg")
        format_ = "jpeg" if asked == "auto" else asked
        output = {"width": 8, "height": 6, "format": format_, "quality": 85, "size": len(body)}
        usual: dict[int, dict[str, Any]] = {
            Kind.RESIZE: {
                "source": SOURCE,
                "outputs": [output],
                "ms": {"receive": 1.0, "queue": 2.0, "process": 3.0, "total": 6.0},
                "ratio": 2.5,
            },
            Kind.INFO: {"source": SOURCE},
            Kind.HELLO: {},
            Kind.UPLOAD_STATUS: {},
            Kind.CANCEL: {},
            Kind.PING: {},
        }
        if head.kind != Kind.RESIZE:
            body = b""
        packed = pack_message(
            head.kind | REPLY,
            head.request_id,
            {**usual[head.kind], **meta},
            status=200,
            body_size=len(body),
        )
        self.socket.sendall(packed + body)

    def reply_v1(self, body: bytes = b"result") -> None:
        self.socket.sendall(V1_REPLY.pack(len(body)) + body)

    def refuse(self, head: MessageStarted, error: RequestError) -> None:
        self.socket.sendall(pack_error(head.kind, head.request_id, error))


def one(peer: Peer) -> None:
    """Answer one request and close."""
    head, _ = peer.read_request()
    peer.reply(head)


def every(peer: Peer) -> None:
    """Answer request after request, until the client closes."""
    while (head := peer.read_head()) is not None:
        peer.reply(head, body=peer.read_body())


def silent(peer: Peer) -> None:
    """Read everything and never answer."""
    peer.read_to_end()


Script = Callable[[Peer], None]


class FakeServer:
    """Listens on ``port``; the first script handles the first connection, the second the next, and so on.

    An exception of a script is raised again at the end of the ``with`` block and so fails the test. So does a
    connection beyond the number of scripts.
    """

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._ending = False

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending = True
        socket.create_connection(("127.0.0.1", self.port)).close()  # wakes accept()
        for thread in self._threads:
            thread.join(2 * SECONDS)
        self._listener.close()
        if error is not None:
            return
        if any(thread.is_alive() for thread in self._threads):
            self._errors.append(AssertionError("a script still waits for its client"))
        if self._errors:
            raise self._errors[0]

    def _start(self, run: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            connected, _ = self._listener.accept()
            if self._ending:
                connected.close()
                return
            self.connections += 1
            if not self._scripts:
                connected.close()
                self._errors.append(AssertionError("a connection that the test does not expect"))
            else:
                self._start(self._run, self._scripts.pop(0), connected)

    def _run(self, script: Script, connected: socket.socket) -> None:
        with connected:
            connected.settimeout(SECONDS)
            try:
                script(Peer(connected))
            except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
                self._errors.append(error)
