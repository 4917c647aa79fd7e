"""A small image of the server's own that shows whether workers do their work: the canary.

::

    UNKNOWN ── it comes back ──► PASSING ── not back in time ──► LATE ── it comes back ──► PASSING
       └── wrong result, error ──► FAILING ◄─────────────────────┘
                                      └── it comes back ──► PASSING

It goes where a client's image goes: through the fair queue, to a worker, through its pipeline, and back. It
has a reserved place: no limit refuses it, and its account has the next turn. So it waits only until any
worker is free, however many requests wait, and a server under full load passes. A server no longer passes
when none of its workers has become free for ``LIMIT_SECONDS``: they are stopped or stuck, or all of them have
long jobs.

A canary is sent when somebody asks, unless one is on its way. It is no request: it is neither logged nor
counted, and needs no room in the spool.
"""

import asyncio
import base64
import json
import struct
import time
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Protocol

from vipsrv.errors import Busy, RequestError, TooLarge, UnsupportedFormat, WorkerDied
from vipsrv.server.accounts import Account, Flow
from vipsrv.storage.budget import Share
from vipsrv.workers.channel import Operation
from vipsrv.workers.job import Job, Outcome

LIMIT_SECONDS = 5.0
"""Within this time a canary has to come back: more than any light job takes. A probe that asks each second
sees a server whose workers have stopped as not ready after 6 s."""

_SIDE = 16
_RESULT_SIDE = 8
_TRIES = 2
"""A worker may end by chance while it has the canary. Its replacement gets the next one."""

_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAxNDQ0"
    "Hyc5PTgyPC4zNDL/wAALCAAQABABAREA/8QAFQABAQAAAAAAAAAAAAAAAAAACAf/xAAWEAADAAAAAAAAAAAAAAAAAAAABkP/2gAIAQEA"
    "AD8Am6dMQCdMP6dMQCdM/9k="
)


class CanaryState(Enum):
    """What is known of the last canary; see the diagram above."""

    UNKNOWN = "unknown"
    PASSING = "passing"
    LATE = "late"
    FAILING = "failing"


TRANSITIONS: dict[CanaryState, tuple[CanaryState, ...]] = {
    CanaryState.UNKNOWN: (CanaryState.PASSING, CanaryState.LATE, CanaryState.FAILING),
    CanaryState.PASSING: (CanaryState.PASSING, CanaryState.LATE, CanaryState.FAILING),
    CanaryState.LATE: (CanaryState.PASSING, CanaryState.LATE, CanaryState.FAILING),
    CanaryState.FAILING: (CanaryState.PASSING, CanaryState.LATE, CanaryState.FAILING),
}
"""The states that may follow each state: none becomes UNKNOWN again."""


class Queue(Protocol):
    """The part of admission that the canary uses."""

    def submit_canary(self, job: Job, flow: Flow) -> None:
        """Start a job, or queue it as the next one."""

    def cancel(self, job: Job) -> None:
        """Answer a job with ``Cancelled``, and stop it or take it out of its queue."""


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """What the canary shows: its ``state``, ``detail`` in words, and ``seconds`` from sending to coming back,
    or from sending until now.
    """

    state: CanaryState
    detail: str
    seconds: float | None = None

    @property
    def passes(self) -> bool:
        """Whether the last one came back in time."""
        return self.state is CanaryState.PASSING


@dataclass(slots=True)
class _Image:
    """The bytes of the canary, which need no room in the spool."""

    data: bytes
    share: Share
    size: int = field(init=False)
    closed: bool = False
    descriptor: int | None = None

    def __post_init__(self) -> None:
        self.size = len(self.data)

    @property
    def views(self) -> list[memoryview]:
        """The bytes."""
        return [memoryview(self.data)]

    def close(self) -> None:
        """Release nothing."""
        self.closed = True


class Canary:
    """Sends canaries through ``queue`` and keeps what they show: ``report``.

    ``readers`` and ``writers`` name the formats of the workers when the first one is sent; ``deadline``
    returns the seconds that a request may take.
    """

    def __init__(
        self,
        queue: Queue,
        *,
        formats: Callable[[], tuple[Collection[str], Collection[str]]],
        deadline: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._formats = formats
        self._deadline = deadline
        self._clock = clock
        self._flow = Flow(Account("the server's canary"))
        self._state = CanaryState.UNKNOWN
        self._detail = "no canary image has been sent yet"
        self._job: Job | None = None
        self._back = asyncio.Event()
        self._sent = 0.0
        self._seconds: float | None = None
        self._tries = 0

    @property
    def state(self) -> CanaryState:
        """The current state."""
        return self._state

    async def report(self, patience: float = LIMIT_SECONDS) -> CanaryReport:
        """Send a canary unless one is on its way; wait until it comes back or is late, and report.

        After ``patience`` seconds, report what was known before.
        """
        if self._job is None:
            self._send(self._clock())
        until_late = self._sent + LIMIT_SECONDS - self._clock()
        if until_late > 0:
            try:
                async with asyncio.timeout(min(patience, until_late)):
                    await self._back.wait()
            except TimeoutError:
                if patience >= until_late and self._job is not None:  # timers of uvloop are a little early
                    self._enter(CanaryState.LATE)
        return self.latest()

    def latest(self) -> CanaryReport:
        """Report what is known now, without sending a canary."""
        self._note_late()
        if self._state is CanaryState.LATE and self._job is not None:
            return CanaryReport(self._state, self._where(self._job), self._clock() - self._sent)
        return CanaryReport(self._state, self._detail, self._seconds)

    def close(self) -> None:
        """Stop the canary that is on its way."""
        job, self._job = self._job, None
        self._back.set()
        if job is not None:
            self._queue.cancel(job)

    def _send(self, now: float) -> None:
        self._sent = now
        self._tries = 0
        self._back.clear()
        self._submit()

    def _submit(self) -> None:
        self._tries += 1
        image, options = _image_for(*self._formats())
        job = self._job = Job(
            operation=Operation.RESIZE,
            options=options,
            image=_Image(image, self._flow.account.share),
            # As long as a client's: a worker is not killed earlier because of the canary.
            deadline=self._sent + max(self._deadline(), 2 * LIMIT_SECONDS),
            on_outcome=lambda outcome: self._came_back(job, outcome),
        )
        self._queue.submit_canary(job, self._flow)

    def _came_back(self, job: Job, outcome: Outcome) -> None:
        if outcome.result is not None:
            outcome.result.close()
        if job is not self._job:
            return  # closed meanwhile
        if isinstance(outcome.error, WorkerDied) and self._tries < _TRIES:
            # Later: the worker that has ended is still in the pool here.
            asyncio.get_running_loop().call_soon(partial(self._submit_again, job))
            return
        self._job = None
        self._seconds = self._clock() - self._sent
        fault = _fault_of(outcome)
        if fault is None:
            self._enter(CanaryState.PASSING)
            self._detail = f"a canary image came back after {1000 * self._seconds:.0f} ms"
        else:
            self._enter(CanaryState.FAILING)
            self._detail = f"the canary image failed: {fault}"
        self._back.set()

    def _submit_again(self, job: Job) -> None:
        if job is self._job:
            self._submit()

    def _note_late(self) -> None:
        if self._job is not None and self._clock() >= self._sent + LIMIT_SECONDS:
            self._enter(CanaryState.LATE)

    def _where(self, job: Job) -> str:
        seconds = self._clock() - self._sent
        if job.worker:
            return f"worker {job.worker} has had the canary image for {seconds:.0f} s, as if it were stopped"
        return f"no worker has become free for {seconds:.0f} s: all are stopped or stuck, or have long jobs"

    def _enter(self, state: CanaryState) -> None:
        if state not in TRANSITIONS[self._state]:
            raise RuntimeError(f"a canary that is {self._state.value} cannot become {state.value}")
        self._state = state


def _image_for(readers: Collection[str], writers: Collection[str]) -> tuple[bytes, bytes]:
    """Return an image in a format of the server if there is one, and the options of its job."""
    image = _JPEG if "jpeg" in readers and "png" not in readers else _png()
    format_ = next((name for name in ("png", "jpeg", *writers) if name in writers), "png")
    options = {"width": _RESULT_SIDE, "height": _RESULT_SIDE, "format": format_}
    return image, json.dumps(options).encode()


def _png() -> bytes:
    """Return a grey gradient as a PNG (RFC 2083)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 0, 0, 0, 0)  # 8 bits of grey, not interlaced
    rows = (b"\0" + bytes(range(0, 256, 256 // _SIDE))) * _SIDE  # each begins with its filter, none
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def _fault_of(outcome: Outcome) -> str | None:
    """Return what is wrong with what came back; ``None`` if a worker has done its work."""
    error = outcome.error
    if error is None:
        return _fault_of_result(outcome)
    # The worker has answered: the settings refuse such an image, or the spool has no room for the result.
    if isinstance(error, UnsupportedFormat | TooLarge | Busy) and outcome.worker:
        return None
    return _words(error)


def _fault_of_result(outcome: Outcome) -> str | None:
    source = outcome.source
    if source is None or (source.width, source.height) != (_SIDE, _SIDE):
        return "the worker has not read its size"
    sizes = [(output.width, output.height) for output in outcome.outputs]
    if sizes != [(_RESULT_SIDE, _RESULT_SIDE)]:
        return "its result does not have the size that was asked for"
    if outcome.result is None or not outcome.result.size or outcome.result.size != outcome.outputs[0].size:
        return "its result is incomplete"
    return None


def _words(error: RequestError) -> str:
    return f"{error.code}: {error}" if error.code else str(error)
