"""Requests of version 2 over one bare, blocking socket: the least a persistent client can cost."""

import socket
from typing import Self

from bench.version1 import Refused
from vipsrv.protocol import FIRST_ERROR_STATUS, HEADER, Header, Kind, pack_message


class Connection:
    """One connection; replies are taken in the order in which they come."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=120)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self._next_id = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def ask(self, image: bytes, width: int = 800, height: int = 600) -> bytes:
        """The resized picture. Raises ``Refused`` and ``OSError``."""
        self.send(image, width, height)
        return self.receive()

    def send(self, image: bytes, width: int = 800, height: int = 600) -> None:
        """One request, in one call where the kernel has room, without waiting. Raises ``OSError``."""
        head = pack_message(
            Kind.RESIZE, self._next_id, {"width": width, "height": height}, body_size=len(image)
        )
        self._next_id += 1
        sent = self._sock.sendmsg([head, image])
        self._sock.sendall(memoryview(image)[max(0, sent - len(head)) :])

    def receive(self) -> bytes:
        """The body of the next reply. Raises ``Refused`` with its meta, and ``OSError``."""
        header = Header.unpack(self._exactly(HEADER.size))
        meta = self._exactly(header.meta_size)
        body = self._exactly(header.body_size)
        if header.status >= FIRST_ERROR_STATUS:
            raise Refused(meta.decode())
        return bytes(body)

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            count = self._sock.recv_into(view)
            if not count:
                raise ConnectionError(f"the server closed {len(view)} bytes before the end of a reply")
            view = view[count:]
        return data
