"""The line of one request: who asked for what, what came of it, and how long each stage took."""

from dataclasses import dataclass
from typing import Any

from vipsrv.errors import InternalError, RequestError
from vipsrv.options import ImageInfo, OutputInfo
from vipsrv.printable import printable
from vipsrv.server.request_ids import NO_IDS, RequestIds
from vipsrv.server.timeline import Timeline
from vipsrv.workers.job import Outcome

_OK = 200

_WARNINGS = frozenset({502, 504})
"""Statuses of errors that an operator may have to look at: a worker has died, or the server was too slow."""

ROUTINE = frozenset({"hello", "ping", "cancel", "page", "upload_status"})
"""Kinds of requests of which a success is of interest at debug only: clients send them all day."""

_SIZE = 700
"""Bytes of the line of a successful request, without the ids of its client."""


@dataclass(slots=True, kw_only=True, eq=False)
class RequestLine:
    """What is known of a request when its reply is ready; ``sent`` or ``lost`` follows.

    Holds plain values only, so that a line that waits to be written keeps no memory of the spool.
    """

    connection: int
    """The number of the connection, counted from the start of the server."""
    peer: object
    """The client's ``peername``; a proxied client's is as the proxy told it."""
    identity: str | None
    """The name to which the client's token or certificate belongs."""
    certified: bool = False
    """Whether that is by a certificate alone."""
    version: int | None
    """Of the binary protocol; ``None`` if the client sent no header of either version, and for HTTP."""
    tls: bool
    kind: str
    request_id: int
    """As in the header of the request; for HTTP its number on the connection."""
    http: bool = False
    http_status: int = 0
    """The status of a reply of HTTP that is no error, and is not 200; 0 for all others."""
    image_size: int = 0
    """Bytes of the image as announced; 0 if there is none."""
    received: int = 0
    """Bytes that had arrived of an upload that can be resumed, if the request has failed."""
    error: RequestError | None = None
    ids: RequestIds = NO_IDS
    timeline: Timeline | None = None
    source: ImageInfo | None = None
    outputs: tuple[OutputInfo, ...] = ()
    worker: int = 0
    """The process id of the worker that had the job, 0 if none had it."""
    time: float = 0.0
    """When the request had ended, in seconds since the epoch."""
    sent: float = 0.0
    """When the kernel had taken the last byte of the reply, in seconds of ``time.monotonic``."""
    lost: str | None = None
    """Why the reply could not be sent completely."""
    sample: int = 1
    """Of so many lines like this one, only this one is written."""

    def add(self, image_size: int, ids: RequestIds, timeline: Timeline, outcome: Outcome | None) -> None:
        """Add what is known of a request with an image."""
        self.image_size = image_size
        self.ids = ids
        self.timeline = timeline
        if outcome is not None:
            self.error = outcome.error
            self.source = outcome.source
            self.outputs = outcome.outputs
            self.worker = outcome.worker

    @property
    def status(self) -> int:
        """The status of the reply."""
        if self.http_status:
            return self.http_status
        return _OK if self.error is None else self.error.status

    @property
    def protocol(self) -> str | None:
        """``v1``, ``v2`` or ``http``, with ``+tls`` if it was encrypted; ``None`` if that is not known."""
        name = "http" if self.http else f"v{self.version}" if self.version is not None else None
        return f"{name}+tls" if name is not None and self.tls else name

    @property
    def code(self) -> str:
        """The protocol's word for the status."""
        return "ok" if self.error is None else self.error.code

    @property
    def level(self) -> str:
        """How serious it is for the operator of the server. What clients do wrong is not."""
        error = self.error
        if error is None:
            return "debug" if self.kind in ROUTINE and self.lost is None else "info"
        if isinstance(error, InternalError):
            return "error"
        return "warning" if error.status in _WARNINGS else "info"

    @property
    def ratio(self) -> float:
        """The image's bytes divided by those of all results; 0 without results."""
        size = sum([one.size for one in self.outputs])
        return self.image_size / size if size else 0

    # As an entry of the queue

    @property
    def size(self) -> int:
        """About how many bytes its line will have."""
        return _SIZE if self.error is None else _SIZE + len(self.error.message)

    def fields(self) -> dict[str, Any]:
        """Return what is known in a fixed order, and leave out what is not."""
        fields: dict[str, Any] = {
            "level": self.level,
            "event": "request",
            "connection": self.connection,
            "id": self.request_id,
            "peer": peer_text(self.peer),
        }
        if self.identity is not None:
            fields["identity"] = printable(self.identity)
        if (protocol := self.protocol) is not None:
            fields["protocol"] = protocol
        fields["kind"] = self.kind
        fields["status"] = self.status
        fields["code"] = self.code
        _add_images(fields, self)
        if self.timeline is not None:
            fields["ms"] = _stages(self.timeline, self.sent)
        if self.worker:
            fields["worker"] = self.worker
        if self.ids is not NO_IDS:
            _add_ids(fields, self.ids)
        if self.error is not None:
            _add_error(fields, self.error)
        if self.lost is not None:
            fields["lost"] = self.lost
        if self.sample > 1:
            fields["sample"] = self.sample
        return fields


def peer_text(peer: object) -> str:
    """Return a ``peername`` as HOST:PORT, [IPV6]:PORT or ``unix``."""
    if not isinstance(peer, tuple) or len(peer) < 2:  # noqa: PLR2004 - host and port
        return "unix"
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _add_images(fields: dict[str, Any], line: RequestLine) -> None:
    source = line.source
    if source is not None:
        fields["source"] = {
            "format": source.format,
            "width": source.width,
            "height": source.height,
            "bytes": line.image_size,
        }
    elif line.image_size:
        fields["source"] = {"bytes": line.image_size}
        if line.received:
            fields["source"]["received"] = line.received
    if line.outputs:
        fields["results"] = [
            {"format": one.format, "width": one.width, "height": one.height, "bytes": one.size}
            for one in line.outputs
        ]
        fields["ratio"] = round(line.ratio, 3)


def _stages(timeline: Timeline, sent: float) -> dict[str, float]:
    """Return the milliseconds of each stage that has ended."""
    stages = {}
    if timeline.received:
        stages["receive"] = round(timeline.receive_ms, 3)
        if timeline.started:
            stages["queue"] = round(timeline.queue_ms, 3)
            if timeline.ended:
                stages["process"] = round(timeline.process_ms, 3)
    if sent:
        stages["send"] = round((sent - timeline.replied) * 1000, 3)
    stages["total"] = round(((sent or timeline.replied) - timeline.arrived) * 1000, 3)
    return stages


def _add_ids(fields: dict[str, Any], ids: RequestIds) -> None:
    if ids.request_id is not None:
        fields["request_id"] = printable(ids.request_id)
    if ids.traceparent is not None:
        fields["traceparent"] = ids.traceparent


def _add_error(fields: dict[str, Any], error: RequestError) -> None:
    fields["error"] = printable(error.message)
    if isinstance(error, InternalError) and error.where:
        fields["where"] = printable(error.where)
