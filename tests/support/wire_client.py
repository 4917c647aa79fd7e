"""A version 2 client over a bare socket that does what a test says, and can cut its connection."""

import fcntl
import socket
import struct
import termios
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.support import bare_client
from vipsrv.errors import Busy
from vipsrv.protocol import REPLY, BodyReceived, Kind, MessageEnded, MessageStarted, ReplyReader, pack_message


@dataclass
class Reply:
    """One reply of the server."""

    kind: int
    status: int
    id: int
    meta: dict[str, Any]
    body: bytes = b""


def _unacknowledged(sock: socket.socket) -> int:
    """Bytes that were sent and are not in the buffer of the other side yet (Linux: SIOCOUTQ)."""
    (size,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(size)


@dataclass
class WireClient:
    """Sends what the test says, and reads replies one by one."""

    sock: socket.socket
    reader: ReplyReader = field(default_factory=ReplyReader)

    @classmethod
    def connect(cls, port: int) -> Self:
        return cls(bare_client.connect(port))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def begin(self, kind: int, meta: dict[str, Any], size: int, request_id: int = 7) -> None:
        """Send the header and meta of a message with a body of ``size`` bytes."""
        self.sock.sendall(pack_message(kind, request_id, meta, body_size=size))

    def wait_until_delivered(self) -> None:
        """Wait until all that was sent has reached the server's system."""
        while _unacknowledged(self.sock):
            pass

    def close(self) -> None:
        """End the connection in an orderly way."""
        self.sock.close()

    def reset(self) -> None:
        """Cut the connection with a reset, once all that was sent has been delivered."""
        self.wait_until_delivered()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def receive(self) -> Reply:
        """The next reply."""
        head: MessageStarted | None = None
        body = bytearray()
        while True:
            data = self.sock.recv(self.reader.wanted)
            if not data:
                raise EOFError("the server closed the connection")
            for event in self.reader.receive_data(data):
                if isinstance(event, MessageStarted):
                    head = event
                elif isinstance(event, BodyReceived):
                    body += event.data
                elif isinstance(event, MessageEnded):
                    assert head is not None
                    return Reply(head.kind, head.status, head.request_id, head.meta, bytes(body))

    def call(self, kind: int, meta: dict[str, Any] | None = None, body: bytes = b"") -> Reply:
        """Send a message and return its reply."""
        self.sock.sendall(pack_message(kind, 7, meta, body_size=len(body)) + body)
        reply = self.receive()
        assert (reply.kind, reply.id) == (kind | REPLY, 7)
        return reply

    def status(self, upload_id: str) -> dict[str, Any]:
        """Ask how much of an upload is held, again as long as the server is busy with it."""
        while True:
            reply = self.call(Kind.UPLOAD_STATUS, {"id": upload_id})
            if reply.status != Busy.status:
                assert reply.status == 200, reply.meta
                return reply.meta
