"""Which replies a worker may send and yet is not trusted after: it is replaced then.

A reply that breaks the protocol ends the worker at once (``reply_reader``). The replies here are valid, and
their requests get them. But an unexpected error may be what an image left behind that has half destroyed the
worker's memory, and an error that cannot be true is a lie. All that a worker could do that an image has taken
over is to spoil later jobs, so it gets none.
"""

from vipsrv.errors import Cancelled, DeadlineExceeded, InternalError, RequestError
from vipsrv.workers.job import Job

_EARLY_SECONDS = 0.1
"""A deadline is sent in whole milliseconds, and its time runs from when the worker reads it."""


def reason_to_distrust(error: RequestError, arrived: float, job: Job) -> str | None:
    """Say why a worker is replaced after this error, or return ``None``; call it before the job is answered.

    ``arrived`` is in seconds of ``time.monotonic``. The reason completes the sentence "worker 7 ended: …".
    """
    if isinstance(error, InternalError):
        return "it is not trusted after an unexpected error"
    if isinstance(error, Cancelled) and not job.answered:
        return "it reports as cancelled a job that was not cancelled"
    if isinstance(error, DeadlineExceeded) and arrived < job.deadline - _EARLY_SECONDS:
        return "it reports a deadline that is not over"
    return None
