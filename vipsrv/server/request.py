"""One request of a connection, from its header to its answer."""

import time
from dataclasses import dataclass
from typing import Any

from vipsrv.errors import InternalError
from vipsrv.storage.spool import Slot
from vipsrv.workers.job import Job, Outcome


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


def success_meta(request: Request, outcome: Outcome) -> tuple[bytes, int]:
    """The meta of a successful reply as JSON, and the size of its body in bytes.

    It is what ``ResizeReport.from_meta`` reads or, for an INFO, an object with the ``source`` alone. Written
    out, as it is made for every request: by way of dictionaries and ``json`` it costs several times as much.
    """
    source = outcome.source
    if source is None:
        raise InternalError("a worker replied without an error and without an image")
    # The formats' names need no escapes: they are made of letters, digits and hyphens (see the channel).
    source_json = (
        f'{{"format":"{source.format}","width":{source.width},"height":{source.height},"pages":{source.pages},'
        f'"has_alpha":{"true" if source.has_alpha else "false"},"orientation":{source.orientation},'
        f'"size":{source.size}}}'
    )
    if not outcome.outputs:
        return f'{{"source":{source_json}}}'.encode(), 0
    size = 0
    outputs = []
    for output in outcome.outputs:
        size += output.size
        outputs.append(
            f'{{"width":{output.width},"height":{output.height},"format":"{output.format}",'
            f'"quality":{output.quality},"size":{output.size}}}'
        )
    receive = (request.received - request.arrived) * 1000
    queue = (outcome.started - request.received) * 1000
    process = (outcome.ended - outcome.started) * 1000
    total = (time.monotonic() - request.arrived) * 1000
    meta = (
        f'{{"source":{source_json},"outputs":[{",".join(outputs)}],'
        f'"ms":{{"receive":{receive:.3f},"queue":{queue:.3f},"process":{process:.3f},"total":{total:.3f}}},'
        f'"ratio":{source.size / size:.3f}}}'
    )
    return meta.encode(), size
