"""One connection of the load: requests written as the socket takes them, replies read into one buffer."""

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
    """Nobody listens at the address, or no more connections can be made to it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one request: a code where it was no image, else the size of the image."""

    lane: int
    size: int
    error: str | None = None


class Connection:
    """A non-blocking connection registered with ``epoll``.

    ``in_flight`` are the lanes, numbers from 0, whose requests have been given to ``send`` and not been
    answered. In version 2 a lane's request id is its number plus one.
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
        # A request written in several pieces must not wait for the acknowledgement of the one before.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        failure = self._socket.connect_ex((host, port))
        if failure not in {0, errno.EINPROGRESS}:
            self._socket.close()
            raise ServerGone(f"cannot connect to {host}:{port}: {errno.errorcode.get(failure, failure)}")
        epoll.register(self._socket, select.EPOLLIN)

    def fileno(self) -> int:
        """The socket's number."""
        return self._socket.fileno()

    def send(self, lane: int, head: bytes, body: memoryview) -> None:
        """Send a request; what the socket does not take now follows in ``writable``."""
        self.in_flight.add(lane)
        self._outgoing.append(memoryview(head))
        self._outgoing.append(body)
        self.writable()

    def writable(self) -> None:
        """Write what the socket takes. Raises ``ServerGone`` if the connection was refused."""
        while self._outgoing and not self._broken:
            try:
                sent = self._socket.sendmsg(list(islice(self._outgoing, _PARTS_A_CALL)))
            except BlockingIOError:
                break
            except ConnectionRefusedError as error:
                raise ServerGone(f"the connection was refused: {error.strerror}") from None
            except OSError:
                # The reason may still be waiting to be read, so reading goes on up to the end.
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

    def readable(self) -> tuple[list[Reply], bool]:
        """The replies that are complete with what can be read now, and whether the connection has ended.

        Requests left ``in_flight`` at the end were lost with it. Raises ``ServerGone`` if it was refused.
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
            replies += [Reply(lane, 0, "protocol") for lane in self.in_flight]
            self.in_flight.clear()
            return replies, True
        # Version 1 is one request a connection; behind an error reply its reader would wait for more.
        return replies, self._version == 1 and bool(replies)

    def close(self) -> None:
        """Close the socket, which takes it from ``epoll``, too."""
        self._socket.close()

    def _check(self, data: memoryview) -> None:
        if self._at_body_start:
            self._looks_right = data[:2] == _JPEG[: len(data)]
            self._at_body_start = False

    def _ended(self) -> Reply:
        reply = self._reply
        assert reply is not None
        # Version 1 has no ids; the error reply that may follow its size of zero has one without meaning.
        lane = 0 if self._version == 1 else reply.request_id - 1
        if lane not in self.in_flight:
            raise ProtocolError(f"a reply to request {reply.request_id}, which is not in flight")
        self.in_flight.remove(lane)
        if reply.status >= FIRST_ERROR_STATUS:
            return Reply(lane, 0, str(reply.meta.get("code", f"status_{reply.status}")))
        if not self._looks_right or not reply.body_size:
            return Reply(lane, 0, "not_a_jpeg")
        return Reply(lane, reply.body_size)
