"""Reads requests: bytes in, events out, without any I/O.

::

            ┌──────────────────────────────────────────────┐
    HEAD ───┼─ Content-Length ──► BODY ──► or FED_BODY ─────┤    request after request
            └─ chunked ─────────► CHUNKED ──────────────────┘

    bytes that are no request ──► FAILED: every later call raises

The bytes of a BODY are those of the image, so an inbox may read them where they are to be. Those of a
FED_BODY, which ``feed_body`` chooses, and of a CHUNKED one become events.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from vipsrv.errors import BadRequest, ProtocolError, RequestError
from vipsrv.server.http.chunked import ChunkedDecoder, ChunkState
from vipsrv.server.http.head import MAX_HEAD, Head, check_part, parse_head

MAX_EMPTY_LINES = 2
"""Empty lines before a request that are passed over (RFC 9112, section 2.2)."""


class RefusedRequest(ProtocolError):
    """The bytes are no request, or not one that can be told apart from the next; ``error`` says why."""

    def __init__(self, error: RequestError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True, slots=True)
class BodyPart:
    """Some bytes of the content: a view that is valid until the next call."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """The body, if there is any, is complete."""


HttpEvent = Head | BodyPart | RequestEnded


class ReaderState(StrEnum):  # not Enum, whose hash is a Python function
    """What the next bytes are; see the diagram above."""

    HEAD = "head"
    BODY = "body"
    FED_BODY = "fed body"
    CHUNKED = "chunked"
    FAILED = "failed"


TRANSITIONS: dict[ReaderState, tuple[ReaderState, ...]] = {
    ReaderState.HEAD: (ReaderState.BODY, ReaderState.CHUNKED, ReaderState.FAILED),
    ReaderState.BODY: (ReaderState.FED_BODY, ReaderState.HEAD, ReaderState.FAILED),
    ReaderState.FED_BODY: (ReaderState.HEAD, ReaderState.FAILED),
    ReaderState.CHUNKED: (ReaderState.HEAD, ReaderState.FAILED),
    ReaderState.FAILED: (),
}
"""The states that may follow each state."""

_ENDED = RequestEnded()


class HttpReader:
    """Reads the requests of one connection; ``RequestReading`` has what each member means to the inbox."""

    waits_for_reply = False
    """A client may send its next request before it has the reply."""

    def __init__(self) -> None:
        self.max_meta_size = MAX_HEAD
        self._state = ReaderState.HEAD
        self._pending = bytearray()  # the part of an incomplete head that has arrived
        self._empty_lines = 0
        self._body_left = 0
        self._decoder = ChunkedDecoder()
        self._failure: RequestError | None = None

    @property
    def state(self) -> ReaderState:
        """The current state."""
        return self._state

    @property
    def body_left(self) -> int:
        """Bytes of the body that have not been fed or counted."""
        return self._body_left

    @property
    def in_body(self) -> bool:
        """Whether the next byte belongs to a body that is counted by ``body_received``."""
        return self._state is ReaderState.BODY

    @property
    def between_messages(self) -> bool:
        """Whether no request has arrived in part."""
        return self._state is ReaderState.HEAD and not self._pending

    def feed_body(self) -> None:
        """Make events of the bytes of the body that begins now, or of what is left of it."""
        if self._state is ReaderState.BODY:
            self._enter(ReaderState.FED_BODY)

    def wanted_of(self, data: memoryview) -> int:
        """How many of these bytes, the next ones, may be fed at once; 0 if no further request may come."""
        if self._state in (ReaderState.BODY, ReaderState.FED_BODY):
            return min(self._body_left, len(data))
        if self._state is ReaderState.CHUNKED:
            return self._decoder.wanted_of(data)
        if self._state is ReaderState.FAILED:
            return 0
        return self._size_of_head(data)

    def receive_data(self, data: memoryview) -> Iterator[HttpEvent]:
        """Feed bytes in the order of their arrival; yield the events that they complete.

        Raises ``RefusedRequest``, now and later. Iterate to the end.
        """
        if self._failure is not None:
            raise RefusedRequest(self._failure)
        try:
            if self._state is ReaderState.HEAD:
                yield from self._head_received(data)
            elif self._state is ReaderState.CHUNKED:
                part = self._decoder.feed(data)
                if part is not None:
                    yield BodyPart(part)
                elif self._decoder.state is ChunkState.FINISHED:
                    self._enter(ReaderState.HEAD)
                    yield _ENDED
            else:
                yield BodyPart(data)
                yield from self.body_received(len(data))
        except RequestError as error:
            raise self._failed(error) from None

    def body_received(self, size: int) -> list[HttpEvent]:
        """Count ``size`` bytes of the body that were read elsewhere."""
        if not 0 < size <= self._body_left:
            raise ValueError(f"{size} bytes were received, but only {self._body_left} are missing")
        self._body_left -= size
        if self._body_left:
            return []
        self._enter(ReaderState.HEAD)
        return [_ENDED]

    def receive_eof(self) -> None:
        """Note the end of the stream. Raises ``RefusedRequest`` if it is within a request."""
        if self._failure is not None:
            raise RefusedRequest(self._failure)
        if not self.between_messages:
            raise self._failed(BadRequest("the connection ended within a request"))

    def _failed(self, error: RequestError) -> RefusedRequest:
        self._enter(ReaderState.FAILED)
        error.forget_frames()
        self._failure = error
        return RefusedRequest(error)

    def _enter(self, state: ReaderState) -> None:
        if state not in TRANSITIONS[self._state]:
            raise RuntimeError(f"a reader that expects a {self._state.value} cannot become {state.value}")
        self._state = state

    def _size_of_head(self, data: memoryview) -> int:
        """How many of these bytes belong to the head that is arriving."""
        pending = self._pending
        if not pending and bytes(data[:2]) == b"\r\n":
            return 2
        if pending == b"\r" and bytes(data[:1]) == b"\n":
            return 1
        tail = bytes(pending[-3:])
        end = (tail + bytes(data)).find(b"\r\n\r\n")
        return len(data) if end < 0 else end + 4 - len(tail)

    def _head_received(self, data: memoryview) -> Iterator[HttpEvent]:
        pending = self._pending
        since = len(pending)
        if since:
            pending += data
            head = bytes(pending)
        else:
            head = bytes(data)
        if not head.endswith(b"\r\n\r\n"):
            if not since:
                pending += head
            self._check_pending(since)
            return
        if len(head) > MAX_HEAD:
            check_part(head, 0)
        parsed = parse_head(head)
        self._pending = bytearray()
        self._empty_lines = 0
        size = parsed.body_size
        if size is None:
            self._enter(ReaderState.CHUNKED)
            self._decoder = ChunkedDecoder()
        elif size:
            self._enter(ReaderState.BODY)
            self._body_left = size
        yield parsed
        if size == 0:
            yield _ENDED

    def _check_pending(self, since: int) -> None:
        """Check a head that is not complete, or pass over an empty line before it."""
        if self._pending == b"\r\n":
            self._empty_lines += 1
            if self._empty_lines > MAX_EMPTY_LINES:
                raise BadRequest("there are empty lines where a request should be")
            self._pending = bytearray()
        elif self._pending != b"\r":
            check_part(self._pending, since)
