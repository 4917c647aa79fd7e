"""Connections that have introduced themselves and are then idle."""

import socket
from types import TracebackType
from typing import Self

from bench.load.record import IdleFigures
from vipsrv.protocol import HEADER, Kind, pack_message

_SECONDS = 30.0


class IdleConnections:
    """``count`` connections held while the ``with`` lasts. Raises ``OSError`` if one cannot be made.

    Each has sent a PING of version 2 and read the reply, so that the server holds a session for it and not
    just a place in its queue.
    """

    def __init__(self, host: str, port: int, count: int) -> None:
        self._sockets: list[socket.socket] = []
        try:
            for _ in range(count):
                self._sockets.append(_introduced(host, port))
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def figures(self) -> IdleFigures:
        """How many there are, and how many of them the server has not closed."""
        return IdleFigures(asked=len(self._sockets), open_at_end=sum(map(_is_open, self._sockets)))

    def _close(self) -> None:
        for one in self._sockets:
            one.close()


def _introduced(host: str, port: int) -> socket.socket:
    connected = socket.create_connection((host, port), timeout=_SECONDS)
    try:
        connected.sendall(pack_message(Kind.PING, 1))
        answer = connected.recv(HEADER.size, socket.MSG_WAITALL)
    except BaseException:
        connected.close()
        raise
    if len(answer) < HEADER.size:
        connected.close()
        raise ConnectionResetError("the server closed it in front of its first reply")
    return connected


def _is_open(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        return bool(one.recv(1))
    except BlockingIOError:
        return True
    except OSError:
        return False
