"""A non-blocking connection of the load generator. All connections read into one buffer."""

import errno
import select
import socket
from collections import deque
from dataclasses import dataclass
from itertools import islice

from vipsrv.errors import ProtocolError
from vipsrv.protocol import (
    FIRST_ERROR_STATUS,
    BodyReceived,
    MessageEnded,
    MessageStarted,
    ReplyReader,
)

_PARTS_A_CALL = 16
_JPEG = b"\xff\xd8"


class ServerGone(Exception):
    """No server listens at the address, or it accepts no more connections."""


@dataclass(frozen=True, slots=True)
class LaneReply:
    """The reply to one request: an error code, or the size of the result."""

    lane: int
    size: int
    error: str | None = None


class LoadConnection:
    """A non-blocking connection registered with ``epoll``.

    A lane is a place for one request in flight, numbered from 0. ``in_flight`` are the lanes whose requests
    have been sent but not answered. In version 2 a lane's request id is its number plus one.
    """

    def __init__(self, host: str, port: int, version: int, epoll: select.epoll, buffer: memoryview) -> None:
        self._version = version
        self._epoll = epoll
        self._buffer = buffer
        self._outgoing: deque[memoryview] = deque()
        self._wants_to_write = False
        self._broken = False
        self._reader = ReplyReader()
        self._reply: MessageStarted | None = None
        self._at_body_start = False
        self._looks_right = True
        self.in_flight: set[int] = set()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        # The pieces of a request must not wait for the acknowledgement of earlier ones.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        failure = self._socket.connect_ex((host, port))
        if failure not in {0, errno.EINPROGRESS}:
            self._socket.close()
            raise ServerGone(f"cannot connect to {host}:{port}: {errno.errorcode.get(failure, failure)}")
        epoll.register(self._socket, select.EPOLLIN)

    def fileno(self) -> int:
        """The socket's file descriptor."""
        return self._socket.fileno()

    def send(self, lane: int, head: bytes, body: memoryview) -> None:
        """Send a request; what the socket does not accept now is sent by ``writable``."""
        self.in_flight.add(lane)
        self._outgoing.append(memoryview(head))
        self._outgoing.append(body)
        self.writable()

    def writable(self) -> None:
        """Write what the socket accepts. Raises ``ServerGone`` if the connection was refused."""
        while self._outgoing and not self._broken:
            try:
                sent = self._socket.sendmsg(list(islice(self._outgoing, _PARTS_A_CALL)))
            except BlockingIOError:
                break
            except ConnectionRefusedError as error:
                raise ServerGone(f"the connection was refused: {error.strerror}") from None
            except OSError:
                # An error reply may still be waiting to be read, so reading continues to the end.
                self._broken = True
                self._outgoing.clear()
                break
            while sent:
                first = self._outgoing[0]
                if sent < len(first):
                    self._outgoing[0] = first[sent:]
                    break
                sent -= len(first)
                self._outgoing.popleft()
        if self._wants_to_write != bool(self._outgoing):
            self._wants_to_write = bool(self._outgoing)
            events = select.EPOLLIN | (select.EPOLLOUT if self._wants_to_write else 0)
            self._epoll.modify(self._socket, events)

    def readable(self) -> tuple[list[LaneReply], bool]:
        """Read once; return the replies that are now complete, and whether the connection has ended.

        Requests still ``in_flight`` at the end are lost. Raises ``ServerGone`` if the connection was refused.
        """
        try:
            received = self._socket.recv_into(self._buffer)
        except BlockingIOError:
            return [], False
        except ConnectionRefusedError as error:
            raise ServerGone(f"the connection was refused: {error.strerror}") from None
        except OSError:
            return [], True
        if not received:
            return [], True
        replies = []
        try:
            for event in self._reader.receive_data(self._buffer[:received]):
                if isinstance(event, MessageStarted):
                    self._reply = event
                    self._at_body_start = self._looks_right = True
                elif isinstance(event, BodyReceived):
                    self._check(event.data)
                elif isinstance(event, MessageEnded):
                    replies.append(self._ended())
        except ProtocolError:
            replies += [LaneReply(lane, 0, "protocol") for lane in self.in_flight]
            self.in_flight.clear()
            return replies, True
        # Version 1 has one request a connection; after an error reply the reader would wait for more.
        return replies, self._version == 1 and bool(replies)

    def close(self) -> None:
        """Close the socket, which also removes it from ``epoll``."""
        self._socket.close()

    def _check(self, data: memoryview) -> None:
        if self._at_body_start:
            self._looks_right = data[:2] == _JPEG[: len(data)]
            self._at_body_start = False

    def _ended(self) -> LaneReply:
        reply = self._reply
        assert reply is not None
        # Version 1 has no ids; the id of the error reply that may follow a size of zero means nothing.
        lane = 0 if self._version == 1 else reply.request_id - 1
        if lane not in self.in_flight:
            raise ProtocolError(f"a reply to request {reply.request_id}, which is not in flight")
        self.in_flight.remove(lane)
        if reply.status >= FIRST_ERROR_STATUS:
            return LaneReply(lane, 0, str(reply.meta.get("code", f"status_{reply.status}")))
        if not self._looks_right or not reply.body_size:
            return LaneReply(lane, 0, "not_a_jpeg")
        return LaneReply(lane, reply.body_size)
