"""One job for a worker, as the gateway sees it, and its outcome."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from vipsrv.errors import RequestError
from vipsrv.options import ImageInfo, OutputInfo, Placeholders
from vipsrv.storage import Slot
from vipsrv.storage.budget import Share
from vipsrv.workers.channel import Operation, ResultDigest

_job_ids = count(1)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """The outcome of a job.

    It is an ``error``, or the ``source`` and, for a RESIZE, ``outputs`` and ``result``, the bytes of all
    outputs one after another; ``digests`` are those of the outputs, and ``placeholder`` that of the
    image, if they were asked for. ``started`` and
    ``ended`` are seconds of ``time.monotonic``, and ``worker`` is the process id of the last worker that had
    the job; they are 0 if none had it.
    """

    source: ImageInfo | None = None
    outputs: tuple[OutputInfo, ...] = ()
    result: Slot | None = None
    error: RequestError | None = None
    started: float = 0.0
    ended: float = 0.0
    worker: int = 0
    digests: tuple[ResultDigest, ...] = ()
    placeholder: Placeholders | None = None


class JobImage(Protocol):
    """The bytes of an image for a worker; see ``Slot``. Those of its results count towards ``share``."""

    size: int
    share: Share

    @property
    def views(self) -> list[memoryview]:
        """The bytes that are in memory."""

    @property
    def descriptor(self) -> int | None:
        """The file's read-only descriptor, or ``None`` if the bytes are in memory."""

    @property
    def closed(self) -> bool:
        """Whether everything has been given back."""

    def close(self) -> None:
        """Release everything."""


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """An image, the operation on it, and the callback for its outcome.

    ``options`` is JSON and ``deadline`` is in seconds of ``time.monotonic``. ``memory`` is 0, or the bytes
    that the job needs according to a worker, which makes it a heavy job; ``predicted_seconds`` is the CPU
    time that this worker predicts, or 0, and ``threads`` is how many may compute at the same time.
    ``worker_lost`` is whether its worker has to be replaced because of it: it ended with the job or is not
    trusted after its reply. The job owns ``image``; ``close`` closes it. ``on_outcome`` is called exactly
    once and then owns the result.
    """

    operation: Operation
    options: bytes
    image: JobImage
    deadline: float
    on_outcome: Callable[[Outcome], None]
    id: int = field(default_factory=lambda: next(_job_ids))
    memory: int = 0
    predicted_seconds: float = 0.0
    threads: int = 1
    worker_lost: bool = False
    on_close: Callable[[], None] | None = None
    started: float = 0.0
    worker: int = 0
    _answered: bool = False

    @property
    def answered(self) -> bool:
        """Whether the outcome has been passed on; a worker may still be working on the job."""
        return self._answered

    def answer(self, outcome: Outcome) -> None:
        """Pass the outcome on; any further outcome is dropped."""
        if not self._answered:
            self._answered = True
            self.on_outcome(outcome)
        elif outcome.result is not None:
            outcome.result.close()

    def fail(self, error: RequestError) -> None:
        """Answer with an error."""
        self.answer(Outcome(error=error, started=self.started, worker=self.worker))

    def close(self) -> None:
        """Release the image: no worker has the job or will get it."""
        self.image.close()
        on_close, self.on_close = self.on_close, None  # which may refer to the job
        if on_close is not None:
            on_close()
