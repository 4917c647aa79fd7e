"""The life of one request, independent of the protocol of its connection.

::

     NEW ──accept──► RECEIVING ──body_ended──► STORING ──► SUBMITTED ──► FINISHED ──take_outcome──► REPLIED
      │                 │                         │            │            ▲
      └─────────────────┴─────────────────────────┴────────────┴────────────┘  refused, cancelled or late:
                        │                         │            │               the outcome is an error
                        └─────────────────────────┴────────────┴──abandon──► ABANDONED

A connection makes an ``Exchange`` for each image that a client sends, puts the bytes into its slot, and is
called back once with the outcome. The exchange checks limits and options, submits the job when the whole
image is in the spool, and keeps the deadline. ``timeline`` has the time of each stage.
"""

import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from vipsrv.errors import BadRequest, Cancelled, DeadlineExceeded, RequestError
from vipsrv.options import UploadSlot
from vipsrv.server.access import Session
from vipsrv.server.accounts import Flow
from vipsrv.server.context import ServerContext
from vipsrv.server.identity import Usage
from vipsrv.server.request_ids import NO_IDS, RequestIds, take_request_ids
from vipsrv.server.request_options import parse_info, parse_resize
from vipsrv.server.timeline import Timeline
from vipsrv.server.uploads import NOT_OFFERED, check_body, take_upload
from vipsrv.storage.kept_slot import KeptSlot
from vipsrv.storage.spool import Slot
from vipsrv.workers.channel import Digest, Operation
from vipsrv.workers.job import Job, Outcome


class ExchangeState(StrEnum):  # not Enum, whose hash is a Python function
    """The states of an exchange; see the diagram above."""

    NEW = "new"
    """The request's header has arrived."""
    RECEIVING = "receiving"
    """It is accepted, and the body is arriving."""
    STORING = "storing"
    """The body has arrived; the disk may still be writing it."""
    SUBMITTED = "submitted"
    """Its job waits for a worker or is processed."""
    FINISHED = "finished"
    """The outcome is known."""
    REPLIED = "replied"
    """The connection has taken the outcome to send it."""
    ABANDONED = "abandoned"
    """Nobody waits for an outcome any more."""


TRANSITIONS: dict[ExchangeState, tuple[ExchangeState, ...]] = {
    ExchangeState.NEW: (ExchangeState.RECEIVING, ExchangeState.FINISHED),
    ExchangeState.RECEIVING: (ExchangeState.STORING, ExchangeState.FINISHED, ExchangeState.ABANDONED),
    ExchangeState.STORING: (ExchangeState.SUBMITTED, ExchangeState.FINISHED, ExchangeState.ABANDONED),
    ExchangeState.SUBMITTED: (ExchangeState.FINISHED, ExchangeState.ABANDONED),
    ExchangeState.FINISHED: (ExchangeState.REPLIED,),
    ExchangeState.REPLIED: (),
    ExchangeState.ABANDONED: (),
}
"""The states that may follow each state."""


class Exchange:
    """One request of ``flow`` for ``operation``.

    ``session`` is that of the client's login, whose limits then apply.
    ``on_finished`` is called once with the exchange, when it has finished; not for one that is abandoned.
    """

    __slots__ = (
        "_announced",
        "_context",
        "_deadline",
        "_grows",
        "_job",
        "_on_finished",
        "_options",
        "_seconds",
        "_session",
        "_state",
        "_upload",
        "_usage",
        "flow",
        "ids",
        "operation",
        "outcome",
        "received",
        "size",
        "slot",
        "timeline",
    )

    def __init__(
        self,
        context: ServerContext,
        operation: Operation,
        flow: Flow,
        on_finished: Callable[["Exchange"], None],
        session: Session | None = None,
    ) -> None:
        self.operation = operation
        self.flow = flow
        self.timeline = Timeline(time.monotonic())
        self.size = 0
        """Bytes of the image, as announced."""
        self.received = 0
        """Bytes of the upload that had arrived, if a request that goes on with one has failed."""
        self.ids: RequestIds = NO_IDS
        """What the client calls its request."""
        self.slot: Slot | None = None
        """The slot for the body, from its acceptance until the job is submitted. One of an upload keeps what
        has arrived when it is closed."""
        self.outcome: Outcome | None = None
        """Set when the exchange has finished or was abandoned."""
        self._context = context
        self._on_finished = on_finished
        self._session = session
        self._announced = 0  # bytes that count as in flight
        self._usage: Usage | None = None  # counts this request until it ends
        self._state = ExchangeState.NEW
        self._options = b""
        self._seconds: float = context.settings.deadline
        self._deadline = 0.0
        self._job: Job | None = None
        self._grows = False  # the slot
        self._upload: KeptSlot | None = None

    @property
    def state(self) -> ExchangeState:
        """The current state."""
        return self._state

    @property
    def has_deadline(self) -> bool:
        """Whether its deadline is running: its body has arrived, and its outcome is not known."""
        return self._deadline > 0

    def accept(self, meta: dict[str, Any], body_size: int | None, digest: Digest | None = None) -> None:
        """Check everything that can be checked before the body arrives, and open ``slot`` for it.

        The slot grows if ``body_size`` is ``None``, which is unknown. ``digest`` is what the outcome of a
        RESIZE shall say about the bytes of the results.

        If a check fails, the request is refused: the exchange has finished when this returns.
        """
        self.size = body_size or 0
        upload: UploadSlot | None = None
        try:
            self.ids, meta = take_request_ids(meta)
            if "upload" in meta:
                upload, meta = self._take_upload(meta)
                self.size = upload.size
            self._context.check_upload(self.size)
            if upload is not None:
                check_body(upload, body_size)
            elif body_size == 0:
                raise BadRequest("there is no image: its size is 0")
            if self.operation is Operation.RESIZE:
                self._options, deadline_ms = parse_resize(meta)
                if digest is not None:
                    self._options = digest.add_to(self._options)
                if deadline_ms is not None:
                    self._seconds = min(self._seconds, deadline_ms / 1000)
            else:
                self._options = parse_info(meta)
            self._context.admission.check(self.flow)
            if self._session is not None:  # last of all, so that a full queue costs no quota
                self._hold_limits(self._session, body_size or 0)
            self.slot = self._open_slot(body_size) if upload is None else self._open_upload(upload)
        except RequestError as error:
            self.refuse(error)
        else:
            self._enter(ExchangeState.RECEIVING)
            self._announced = self.size
            in_flight = self._context.in_flight
            in_flight.requests += 1
            in_flight.size += self.size

    def refuse(self, error: RequestError) -> None:
        """Finish with ``error`` before the body has arrived."""
        self._finish(Outcome(error=error))

    def body_ended(self) -> None:
        """The last byte of the body is in ``slot``: submit it as soon as it is stored."""
        if self._grows:
            self._end_growth()
            if self.outcome is not None:
                return
        self._enter(ExchangeState.STORING)
        self.timeline.received = time.monotonic()
        self._deadline = self.timeline.received + self._seconds
        self._submit_when_stored()

    def cancel(self) -> None:
        """Stop the work; the outcome is ``Cancelled``."""
        if self._job is not None:
            self._context.admission.cancel(self._job)  # which answers the job
        else:
            self._finish(Outcome(error=Cancelled("the client cancelled the request")))

    def abandon(self, reason: str) -> None:
        """Stop the work; the outcome, ``Cancelled`` for the ``reason``, is for the log only."""
        self._enter(ExchangeState.ABANDONED)
        self._leave_flight()
        self._end_usage()
        self._close_slot()
        job, self._job = self._job, None
        started, worker = (0.0, 0) if job is None else (job.started, job.worker)
        self._note_outcome(Outcome(error=Cancelled(reason), started=started, worker=worker))
        self.timeline.replied = time.monotonic()
        if job is not None:
            self._context.admission.cancel(job)

    def watch(self, now: float) -> None:
        """Finish with ``DeadlineExceeded`` if the request waits for the disk beyond its deadline.

        Admission and pool check their deadlines first. What remains is an upload or a result that waits for
        the disk.
        """
        if not self._deadline or now <= self._deadline:
            return
        error = DeadlineExceeded("the spool's disk was too slow for the deadline")
        if self._job is not None:
            self._job.fail(error)
        else:
            self._finish(Outcome(error=error))

    def take_outcome(self) -> Outcome:
        """Return the outcome, to be sent now. The caller must close its result."""
        self._enter(ExchangeState.REPLIED)
        self.timeline.replied = time.monotonic()
        upload, self._upload = self._upload, None
        if upload is not None and self.outcome is not None and self.outcome.error is None:
            upload.replied()
        assert self.outcome is not None  # noqa: S101 - every exchange that has finished has one
        return self.outcome

    def _open_slot(self, size: int | None) -> Slot:
        spool, share = self._context.spool, self.flow.account.share
        if size is not None:
            return spool.open(size, share)
        self._grows = True
        return spool.open_growing(self._context.settings.max_upload, share)

    def _take_upload(self, meta: dict[str, Any]) -> tuple[UploadSlot, dict[str, Any]]:
        """Return the ``upload`` in the meta, and the meta without it. Raises ``BadRequest``."""
        if self._context.uploads is None or not self._context.uploads.offered:
            raise BadRequest(f"upload: {NOT_OFFERED}")
        return take_upload(meta)

    def _open_upload(self, upload: UploadSlot) -> Slot:
        uploads = self._context.uploads
        assert uploads is not None  # noqa: S101 - `_take_upload` has checked it
        try:
            self._upload = uploads.open(self.flow.account, upload.id, upload.size, upload.offset)
        except RequestError:
            self._give_back(upload.size - upload.offset)
            raise
        return self._upload

    def _give_back(self, size: int) -> None:
        """Do not hold bytes against the limits of the client that it has to send again."""
        if self._session is not None and size:
            self._session.give_back(size)

    def _end_growth(self) -> None:
        """Take the size of a slot that has grown."""
        slot = self.slot
        assert slot is not None  # noqa: S101 - it is there while the body arrives
        slot.end()
        self.size = slot.size
        if not slot.size:
            self.refuse(BadRequest("there is no image: its size is 0"))
        elif self._session is not None:
            self._session.count(slot.size)

    def _hold_limits(self, session: Session, body_size: int) -> None:
        """Hold a request against the limits of its client. Raises ``RequestError``."""
        session.refresh()
        if self.operation is Operation.RESIZE:
            session.check_formats(self._options)
        self._options = session.limit_job(self._options)
        self._usage = session.admit(body_size)

    def _leave_flight(self) -> None:
        in_flight = self._context.in_flight
        in_flight.requests -= 1
        in_flight.size -= self._announced

    def _end_usage(self) -> None:
        usage, self._usage = self._usage, None
        if usage is not None:
            usage.done()
            if self._upload is not None:
                self._give_back(self._upload.size - self._upload.received)

    def _submit_when_stored(self) -> None:
        slot = self.slot
        if slot is None:
            return
        try:
            if not slot.complete:
                slot.on_ready = self._submit_when_stored
                return
            self._submit(slot)
        except RequestError as error:
            slot.close()
            self._finish(Outcome(error=error))

    def _submit(self, slot: Slot) -> None:
        """Give the job, and with it the slot, to admission. Raises ``RequestError``."""
        self._enter(ExchangeState.SUBMITTED)
        self.timeline.submitted = time.monotonic()
        self.slot = None
        self._job = Job(
            operation=self.operation,
            options=self._options,
            image=slot,
            deadline=self._deadline,
            on_outcome=self._job_ended,
        )
        self._context.admission.submit(self._job, self.flow)

    def _job_ended(self, outcome: Outcome) -> None:
        if self._state is ExchangeState.SUBMITTED:
            self._finish(outcome)
        elif outcome.result is not None:  # abandoned meanwhile
            outcome.result.close()

    def _finish(self, outcome: Outcome) -> None:
        was_accepted = self._state is not ExchangeState.NEW
        self._enter(ExchangeState.FINISHED)
        if was_accepted:
            self._leave_flight()
        if self._usage is not None:
            self._end_usage()
        self._close_slot()
        self._job = None
        self._deadline = 0.0
        self._note_outcome(outcome)
        self._on_finished(self)

    def _note_outcome(self, outcome: Outcome) -> None:
        self.outcome = outcome
        if outcome.error is not None:
            outcome.error.forget_frames()
            if self._upload is not None:
                self.received = self._upload.received
        self.timeline.started = outcome.started
        self.timeline.ended = outcome.ended

    def _close_slot(self) -> None:
        if self.slot is not None:
            self.slot.close()
            self.slot = None

    def _enter(self, state: ExchangeState) -> None:
        if state not in TRANSITIONS[self._state]:
            raise RuntimeError(f"an exchange that is {self._state.value} cannot become {state.value}")
        self._state = state
