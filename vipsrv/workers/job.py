"""One piece of work for a worker, as the gateway sees it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from vipsrv.errors import RequestError
from vipsrv.options import ImageInfo, OutputInfo
from vipsrv.storage.spool import Slot
from vipsrv.workers.channel import Operation

_job_ids = count(1)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a job: an ``error``, or the ``source`` and, for a RESIZE, ``outputs`` and ``result``, the
    bytes of all outputs one after another.

    ``started`` and ``ended`` are seconds of the clock ``time.monotonic``, 0 if no worker ever had it.
    """

    source: ImageInfo | None = None
    outputs: tuple[OutputInfo, ...] = ()
    result: Slot | None = None
    error: RequestError | None = None
    started: float = 0.0
    ended: float = 0.0


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """An image, what is to be done with it, and who waits for the outcome.

    ``options`` is JSON; ``deadline`` is a second of ``time.monotonic``; ``memory`` is 0, or the bytes that a
    worker has found the job to need, which makes it a heavy one; ``threads`` is how many may then compute at
    a time. The job owns ``image`` and closes it
    when nobody needs it any more. ``on_outcome`` is called exactly once, and then owns the outcome's result.
    """

    operation: Operation
    options: bytes
    image: Slot
    deadline: float
    on_outcome: Callable[[Outcome], None]
    id: int = field(default_factory=lambda: next(_job_ids))
    memory: int = 0
    threads: int = 1
    on_close: Callable[[], None] | None = None
    started: float = 0.0
    _answered: bool = False

    @property
    def answered(self) -> bool:
        """Whether the outcome is known to whoever waits; a worker may still be at it."""
        return self._answered

    def answer(self, outcome: Outcome) -> None:
        """Tell the outcome; one that comes after the first is dropped."""
        if not self._answered:
            self._answered = True
            self.on_outcome(outcome)
        elif outcome.result is not None:
            outcome.result.close()

    def fail(self, error: RequestError) -> None:
        """Answer with an error."""
        self.answer(Outcome(error=error, started=self.started))

    def close(self) -> None:
        """No worker has the job any more, and none will."""
        self.image.close()
        if self.on_close is not None:
            self.on_close()
