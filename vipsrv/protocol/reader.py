"""Parse messages of both directions: bytes in, events out, without any I/O.

A reader is fed the bytes as they arrive, in pieces of any size, and returns the events that they complete::

                    (zero)      ┌───────────────────────────┐
            ┌────────────► HEADER ──► META ──► BODY ────────┘   version 2, message after message
    FIRST ──┤
            └────────────► BODY ──► FINISHED                    version 1, one message
                  (a size)

    invalid bytes, or the end of the stream within a message ──► FAILED: every later call raises ProtocolError

META and BODY are skipped if they are empty. The size of the meta is checked with the header, so a meta that
is too large is never stored.

The owner of the socket may read bodies directly into its own buffers: ``wanted`` is the number of bytes up to
the next event boundary, so a read of at most that many bytes never reaches into the next message.
``body_received`` reports body bytes that were read this way.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vipsrv.errors import ProtocolError
from vipsrv.protocol.frames import (
    FIRST_ERROR_STATUS,
    HEADER,
    LAST_ERROR_STATUS,
    MAGIC,
    MAX_META_SIZE,
    OK_STATUS,
    REPLY,
    V1_REPLY,
    V1_REQUEST,
    Header,
    Kind,
    check_start,
    is_client_hello,
    unpack_meta,
)


@dataclass(slots=True, kw_only=True)
class MessageStarted:
    """A header and its meta are complete; ``body_size`` bytes follow.

    ``kind`` is the number on the wire (a reply's with 0x80 added); a version 1 message counts as a RESIZE
    with request id 0, a version 1 request's meta is its ``width`` and ``height``, and a version 1 reply's
    ``status`` is 200. ``head_size`` is the bytes of the header and the meta.
    """

    version: Literal[1, 2]
    kind: int
    status: int
    request_id: int
    meta: dict[str, Any]
    body_size: int
    head_size: int


@dataclass(frozen=True, slots=True)
class BodyReceived:
    """Some bytes of the body: a view of the fed data, valid until the next call."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class MessageEnded:
    """The body, if any, is complete."""


Event = MessageStarted | BodyReceived | MessageEnded

UnpackMeta = Callable[[bytes | bytearray], dict[str, Any]]


class MessageReader(ABC):
    """The common part of ``RequestReader`` and ``ReplyReader``."""

    _first_size: ClassVar[int]
    """The size of a version 1 header, which suffices to tell version 1 from 2."""

    def __init__(self, unpack_meta: UnpackMeta = unpack_meta) -> None:
        """``unpack_meta`` reads the JSON of a meta. It raises ``ProtocolError`` for what it refuses."""
        self._unpack_meta = unpack_meta
        self._pending = bytearray()  # the part of an incomplete header or meta that has arrived
        self._pending_size = self._first_size  # its size when it is complete
        self._header: Header | None = None
        self._body_left = 0
        self._version: Literal[1, 2] | None = None
        self._failed: str | None = None
        self.max_meta_size = MAX_META_SIZE
        """Bytes: a header that announces a longer meta is refused."""

    @property
    def wanted(self) -> int:
        """The number of bytes up to the next event boundary; 0 if no further message may come."""
        if self._failed is not None or self.finished:
            return 0
        return self._body_left or self._pending_size - len(self._pending)

    def wanted_of(self, data: memoryview) -> int:  # noqa: ARG002 - a header states what follows it
        """How many of these bytes, the next ones, may be fed at once; 0 if no further message may come."""
        return self.wanted

    @property
    def body_left(self) -> int:
        """Bytes of the body that have not been fed or counted."""
        return self._body_left

    @property
    def waits_for_reply(self) -> bool:
        """Whether the client sends nothing more until it has its reply, as in version 1."""
        return self._version == 1

    @property
    def in_body(self) -> bool:
        """Whether the next byte belongs to a body."""
        return self._body_left > 0

    @property
    def between_messages(self) -> bool:
        """Whether no message has arrived in part."""
        return not self._pending and self._header is None and not self._body_left

    @property
    def finished(self) -> bool:
        """Whether the only message that version 1 allows is complete."""
        return self._version == 1 and not self._body_left

    @property
    def version(self) -> Literal[1, 2] | None:
        """The version of the first message, once that is known."""
        return self._version

    @property
    def header(self) -> Header | None:
        """The version 2 header whose meta is still arriving, or for which the reader has failed.

        ``None`` after a failure means that the bytes were not a version 2 header, so no request is known.
        """
        return self._header

    def receive_data(self, data: bytes | bytearray | memoryview) -> Iterator[Event]:
        """Feed bytes in the order of their arrival; yield the events that they complete.

        Raises ``ProtocolError`` for bytes that are not a message, after the events before them, and at every
        later call. The bytes are consumed during the iteration, so iterate to the end.
        """
        self._raise_if_failed()
        view = memoryview(data)
        while view:
            if self._body_left:
                part, view = view[: self._body_left], view[self._body_left :]
                ended = self.body_received(len(part))
                yield BodyReceived(part)
                yield from ended
            else:
                missing = self._pending_size - len(self._pending)
                part, view = view[:missing], view[missing:]
                try:
                    events = self._head_received(part)
                except ProtocolError as error:
                    self._failed = str(error)
                    raise
                yield from events

    def body_received(self, size: int) -> list[Event]:
        """Count ``size`` bytes of the body, at most ``wanted``, that were read elsewhere."""
        self._raise_if_failed()
        if not 0 < size <= self._body_left:
            raise ValueError(
                f"{size} bytes were received, but only {self._body_left} of the body are missing"
            )
        self._body_left -= size
        return [] if self._body_left else [MessageEnded()]

    def receive_eof(self) -> None:
        """Note the end of the stream. Raises ``ProtocolError``, now and later, if it is within a message."""
        self._raise_if_failed()
        if self._body_left:
            self._failed = f"the stream ended {self._body_left} bytes before the end of a body"
        elif not self.between_messages:
            self._failed = "the stream ended within a header or its meta"
        self._raise_if_failed()

    def _raise_if_failed(self) -> None:
        if self._failed is not None:
            raise ProtocolError(self._failed)

    def _head_received(self, part: memoryview) -> list[Event]:
        if self.finished:
            raise ProtocolError("there are bytes after the message, and version 1 allows only one message")
        self._pending += part
        if len(self._pending) < self._pending_size:
            if self._version == 2 and self._header is None:  # noqa: PLR2004 - the protocol's version
                # At once, because a version 1 client would send no more than its 12 bytes.
                check_start(self._pending)
            return []
        started = self._pending_complete(self._pending)
        if started is None:
            return []
        self._header = None
        self._expect(HEADER.size)
        self._body_left = started.body_size
        return [started] if started.body_size else [started, MessageEnded()]

    def _pending_complete(self, data: bytearray) -> MessageStarted | None:
        if self._header is not None:
            return _started(self._header, self._unpack_meta(data))
        if self._version is None and any(data[:4]):
            self._version = 1
            return self._started_v1(data)
        if len(data) < HEADER.size:
            # Refused as early as possible: a version 1 client that announces an empty image sends no more.
            if data[4:8] != MAGIC[: len(data) - 4]:
                raise ProtocolError("the size of the image is 0, and this is not a version 2 message")
            self._pending_size = HEADER.size
            return None
        self._header = header = Header.unpack(data)
        self._version = 2
        header.check_meta_size(self.max_meta_size)
        self._check_direction(header)
        if not header.meta_size:
            return _started(header, {})
        self._expect(header.meta_size)
        return None

    def _expect(self, size: int) -> None:
        self._pending = bytearray()
        self._pending_size = size

    @abstractmethod
    def _check_direction(self, header: Header) -> None:
        """Raise ``ProtocolError`` for a kind or status that does not belong to this direction."""

    @abstractmethod
    def _started_v1(self, data: bytearray) -> MessageStarted:
        """The event for a version 1 header."""


class RequestReader(MessageReader):
    """The server's side: reads requests of both versions."""

    _first_size = V1_REQUEST.size

    def _check_direction(self, header: Header) -> None:
        if header.kind & REPLY:
            raise ProtocolError(f"kind {header.kind:#04x} belongs to a reply, not to a request")
        if header.status:
            raise ProtocolError(f"the status of a request must be 0, not {header.status}")

    def _started_v1(self, data: bytearray) -> MessageStarted:
        if is_client_hello(data):
            raise ProtocolError("the client speaks TLS, which this address does not")
        size, width, height = V1_REQUEST.unpack(data)
        return MessageStarted(
            version=1,
            kind=Kind.RESIZE,
            status=0,
            request_id=0,
            meta={"width": width, "height": height},
            body_size=size,
            head_size=V1_REQUEST.size,
        )


class ReplyReader(MessageReader):
    """The client's side: reads replies of both versions.

    A version 1 result of size zero is the beginning of a version 2 error reply, so one reader serves both.
    """

    _first_size = V1_REPLY.size

    def _check_direction(self, header: Header) -> None:
        if not header.kind & REPLY:
            raise ProtocolError(f"kind {header.kind:#04x} belongs to a request, not to a reply")
        is_error = FIRST_ERROR_STATUS <= header.status <= LAST_ERROR_STATUS
        if not is_error and header.status != OK_STATUS:
            raise ProtocolError(f"status {header.status} means neither a result nor an error")
        if is_error and header.body_size:
            raise ProtocolError(f"an error reply must have no body, but has one of {header.body_size} bytes")

    def _started_v1(self, data: bytearray) -> MessageStarted:
        (size,) = V1_REPLY.unpack(data)
        return MessageStarted(
            version=1,
            kind=Kind.RESIZE | REPLY,
            status=OK_STATUS,
            request_id=0,
            meta={},
            body_size=size,
            head_size=V1_REPLY.size,
        )


def _started(header: Header, meta: dict[str, Any]) -> MessageStarted:
    return MessageStarted(
        version=2,
        kind=header.kind,
        status=header.status,
        request_id=header.request_id,
        meta=meta,
        body_size=header.body_size,
        head_size=HEADER.size + header.meta_size,
    )
