"""One request of a connection, from its header to its answer."""

import time
from dataclasses import asdict, dataclass
from typing import Any

from vipsrv.errors import InternalError
from vipsrv.options import ResizeReport, Timings
from vipsrv.workers.job import Job, Outcome
from vipsrv.workers.spool import Slot


@dataclass(slots=True, eq=False)
class Request:
    """A request whose header has arrived; times are seconds of ``time.monotonic``."""

    version: int
    kind: int
    id: int
    meta: dict[str, Any]
    arrived: float
    received: float = 0.0
    deadline_ms: int | None = None
    options: bytes = b""
    slot: Slot | None = None
    job: Job | None = None
    refused: bool = False


def success_meta(request: Request, outcome: Outcome) -> tuple[dict[str, Any], int]:
    """The meta of a successful reply and the size of its body in bytes."""
    source = outcome.source
    if source is None:
        raise InternalError("a worker replied without an error and without an image")
    if not outcome.outputs:
        return {"source": asdict(source)}, 0
    size = sum(output.size for output in outcome.outputs)
    report = ResizeReport(
        source=source,
        outputs=outcome.outputs,
        ms=Timings(
            receive=_ms(request.arrived, request.received),
            queue=_ms(request.received, outcome.started),
            process=_ms(outcome.started, outcome.ended),
            total=_ms(request.arrived, time.monotonic()),
        ),
        ratio=round(source.size / size, 3),
    )
    return report.to_meta(), size


def _ms(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)
