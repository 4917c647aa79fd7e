"""Reads what a worker sends: its handshake, and for each job one reply with its results.

::

    HANDSHAKE ── complete ──► NOTHING ── expect(job) ──► HEAD ── complete, with all results if any ──► NOTHING
    HEAD ── more of the results follows ──► RESULT ─────── complete ──► NOTHING
    HEAD, RESULT ── no room for them ─────► DISCARDING ─── complete ──► NOTHING
    all ── close() ──► CLOSED

In NOTHING, any byte is an error.

A worker may have been taken over by an image, so heads have a fixed size and are checked field by field, and
results are a stated number of opaque bytes.
"""

import socket
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from vipsrv.errors import RequestError
from vipsrv.options import MOST_BYTES_BESIDE_FRAME, MOST_BYTES_BESIDE_PIXELS, MOST_BYTES_PER_PIXEL
from vipsrv.storage import Slot, Spool
from vipsrv.workers.channel import (
    DIGEST,
    READY_SIZE,
    REPLY_SIZE,
    ChannelError,
    Operation,
    Ready,
    ReplyHead,
)
from vipsrv.workers.job import Job

_MOST_INFLATED = 16 << 20
"""Bytes by which the metadata that a result keeps may exceed the image's file: those of a PNG are compressed
and take 8 MiB at most (``pipeline/formats/png/``). Other formats hold them as they are."""

_KEEPS = b'"keep"'
"""In the options (JSON) of each job that may keep metadata."""

_DIGESTS = f'"{DIGEST}"'.encode()
"""In the options (JSON) of each job that asks for digests of its results."""

_READS_AT_ONCE = 32
"""Reads before other connections get their turn: a hostile worker may send without end."""

_scratch = memoryview(bytearray(64 * 1024))
"""For heads and the data read together with them, such as small results. Used up within one callback, so all
readers share it."""


class ReadState(Enum):
    """What a worker is expected to send next; see the diagram above."""

    # Members are compared by identity. Enum's own hash is a Python function, and states change for every job.
    __hash__ = object.__hash__

    HANDSHAKE = auto()
    NOTHING = auto()
    HEAD = auto()
    RESULT = auto()
    DISCARDING = auto()
    CLOSED = auto()


TRANSITIONS: dict[ReadState, frozenset[ReadState]] = {
    ReadState.HANDSHAKE: frozenset({ReadState.NOTHING, ReadState.CLOSED}),
    ReadState.NOTHING: frozenset({ReadState.HEAD, ReadState.CLOSED}),
    ReadState.HEAD: frozenset({ReadState.NOTHING, ReadState.RESULT, ReadState.DISCARDING, ReadState.CLOSED}),
    ReadState.RESULT: frozenset({ReadState.NOTHING, ReadState.DISCARDING, ReadState.CLOSED}),
    ReadState.DISCARDING: frozenset({ReadState.NOTHING, ReadState.CLOSED}),
    ReadState.CLOSED: frozenset(),
}
"""The states that may follow each state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyLimits:
    """The limits of a reply: the pixels of all results together, and the bytes of memory for a job."""

    output_pixels: int
    memory: int


@dataclass(slots=True)
class WorkerReply:
    """A complete reply.

    ``result`` is ``None`` if there is none or there was no room for it; ``arrived`` is when the head was
    complete, in seconds of ``time.monotonic``.
    """

    head: ReplyHead
    result: Slot | None
    arrived: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyHandlers:
    """The functions that are called with the data of a reply.

    ``no_room`` gets the error for the client, while the rest of the result is read and discarded;
    ``broke_protocol`` a sentence that says what the worker did wrong; ``ended`` is called at the end of the
    stream.
    """

    ready: Callable[[Ready], None]
    replied: Callable[[WorkerReply], None]
    no_room: Callable[[RequestError], None]
    broke_protocol: Callable[[str], None]
    ended: Callable[[], None]


class WorkerReplyReader:
    """The receiving side of a worker's socket; results are read into slots of ``spool``."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        channel: socket.socket,
        spool: Spool,
        limits: ReplyLimits,
        handlers: ReplyHandlers,
    ) -> None:
        self._loop = loop
        self._channel = channel
        self._spool = spool
        self._limits = limits
        self._handlers = handlers
        self._state = ReadState.HANDSHAKE
        self._head = bytearray(READY_SIZE)
        self._head_filled = 0
        self._job: Job | None = None
        self._reply: ReplyHead | None = None
        self._arrived = 0.0
        self._result: Slot | None = None
        self._result_left = 0  # bytes of the results that are still to be read
        # Each reads what one call brings, and returns whether more is to be read now.
        self._readers: dict[ReadState, Callable[[], bool]] = {
            ReadState.HANDSHAKE: self._read_handshake,
            ReadState.NOTHING: self._read_nothing,
            ReadState.HEAD: self._read_head,
            ReadState.RESULT: self._read_result,
            ReadState.DISCARDING: self._read_and_discard,
            ReadState.CLOSED: lambda: False,
        }
        loop.add_reader(channel.fileno(), self._readable)

    def expect(self, job: Job) -> None:
        """Expect a reply to ``job`` next."""
        self._enter(ReadState.HEAD)
        self._job = job
        self._head = bytearray(REPLY_SIZE)
        self._head_filled = 0

    def close(self) -> None:
        """Stop reading and drop a result that is not complete; called before the socket is closed."""
        self._enter(ReadState.CLOSED)
        self._loop.remove_reader(self._channel.fileno())
        if self._result is not None:
            self._result.close()
            self._result = None

    def _enter(self, state: ReadState) -> None:
        assert state in TRANSITIONS[self._state], (self._state, state)  # noqa: S101 - would be a bug in here
        self._state = state

    def _readable(self) -> None:
        try:
            for _ in range(_READS_AT_ONCE):
                if not self._readers[self._state]():
                    break
        except ChannelError as error:
            self._handlers.broke_protocol(str(error))
        except RequestError as error:
            self._discard_result(error)

    def _receive_into(self, room: memoryview) -> int:
        """Read once; 0 if there is nothing at the moment, and at the end of the stream, which is reported."""
        try:
            size = self._channel.recv_into(room)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            size = 0
        if not size:
            self._handlers.ended()
        return size

    def _read_handshake(self) -> bool:
        size = self._receive_into(_scratch[: len(self._head) - self._head_filled])
        if not size:
            return False
        if self._fill_head(_scratch[:size]):
            ready = Ready.unpack(self._head)
            self._enter(ReadState.NOTHING)
            self._handlers.ready(ready)
            return False
        return True

    def _read_nothing(self) -> bool:
        if self._receive_into(_scratch[:1]):
            raise ChannelError("it sent something without having a job")
        return False

    def _read_head(self) -> bool:
        # One call reads the head and the beginning of the results: small ones need no further call.
        size = self._receive_into(_scratch)
        if not size:
            return False
        missing = len(self._head) - self._head_filled
        if self._fill_head(_scratch[: min(size, missing)]):
            return self._head_complete(_scratch[missing:size])
        return True

    def _fill_head(self, part: memoryview) -> bool:
        """Append to the head; return whether it is complete."""
        self._head[self._head_filled : self._head_filled + len(part)] = part
        self._head_filled += len(part)
        return self._head_filled == len(self._head)

    def _head_complete(self, beginning: memoryview) -> bool:
        """Check a reply's head, and begin its results with the bytes that came along."""
        job = self._job
        assert job is not None  # noqa: S101 - the state is HEAD
        head = ReplyHead.unpack(self._head, image_size=job.image.size, digests=_DIGESTS in job.options)
        result_size = self._check(head, job)
        if len(beginning) > result_size:
            raise ChannelError("it sent more than its reply")
        self._reply = head
        self._arrived = time.monotonic()
        self._result_left = result_size - len(beginning)
        if not result_size:
            self._finish()
            return False
        result = self._result = self._spool.open(result_size, job.image.share)
        while beginning:
            room = result.room()
            part = beginning[: len(room)]
            room[: len(part)] = part
            result.filled(len(part))
            beginning = beginning[len(part) :]
        if self._result_left:
            self._enter(ReadState.RESULT)
            return True
        self._finish()
        return False

    def _check(self, head: ReplyHead, job: Job) -> int:
        """Return the bytes of a reply's results. Raises ``ChannelError`` if it cannot be the job's reply."""
        if head.job_id != job.id:
            raise ChannelError("it replied to a job that it does not have")
        if head.needs:
            if job.memory:
                raise ChannelError("it gave back as heavy a job that was admitted as heavy")
            if head.needs > self._limits.memory:
                raise ChannelError("it requests more memory than a job may take")
            return 0
        if head.error is None and bool(head.outputs) != (job.operation is Operation.RESIZE):
            raise ChannelError("its reply is not of the kind of its job")
        size = sum(output.size for output in head.outputs)
        beside = MOST_BYTES_BESIDE_PIXELS + (job.image.size + _MOST_INFLATED if _KEEPS in job.options else 0)
        frames = sum(output.frames or 1 for output in head.outputs)
        most = MOST_BYTES_PER_PIXEL * self._limits.output_pixels + beside * len(head.outputs)
        most += MOST_BYTES_BESIDE_FRAME * frames
        if size > most:
            raise ChannelError("its result is larger than the job's result can be")
        pixels = sum(output.width * output.height * (output.frames or 1) for output in head.outputs)
        if pixels > self._limits.output_pixels:
            raise ChannelError("its results have more pixels than a job's results may have")
        return size

    def _read_result(self) -> bool:
        result = self._result
        assert result is not None  # noqa: S101 - the state is RESULT
        if result.stalled:
            self._loop.remove_reader(self._channel.fileno())
            result.on_ready = self._resume
            return False
        size = self._receive_into(result.room())
        if not size:
            return False
        result.filled(size)
        return self._result_received(size)

    def _read_and_discard(self) -> bool:
        size = self._receive_into(_scratch[: self._result_left])
        return size > 0 and self._result_received(size)

    def _resume(self) -> None:
        if self._state is not ReadState.CLOSED:
            self._loop.add_reader(self._channel.fileno(), self._readable)

    def _result_received(self, size: int) -> bool:
        """Finish with the last byte of the results; return whether more is to be read."""
        self._result_left -= size
        if self._result_left:
            return True
        self._finish()
        return False

    def _discard_result(self, error: RequestError) -> None:
        """Read and discard results that have no room, so that the worker can go on."""
        if self._result is not None:
            self._result.close()
            self._result = None
        self._enter(ReadState.DISCARDING)
        self._handlers.no_room(error)
        self._result_received(0)

    def _finish(self) -> None:
        head, result = self._reply, self._result
        assert head is not None  # noqa: S101 - it is complete
        self._job = self._reply = self._result = None
        self._enter(ReadState.NOTHING)
        self._handlers.replied(WorkerReply(head, result, self._arrived))
