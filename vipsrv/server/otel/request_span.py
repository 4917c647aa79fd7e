"""What a span says of a request: its name, parent, attributes, events and status.

Attributes have the names of OpenTelemetry's semantic conventions (1.43) where these have one, and names that
begin with ``vipsrv.`` otherwise.
"""

from typing import TypeAlias

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from vipsrv.printable import printable
from vipsrv.server.logs.request_line import RequestLine
from vipsrv.server.request_ids import RequestIds
from vipsrv.server.timeline import Timeline

Value: TypeAlias = "str | bool | int | float | tuple[str, ...] | tuple[int, ...]"

_SERVER_FAULT = 500
"""From this status on it is the server that has failed, and not the client. Only then a span's status is an
error, as the conventions of HTTP and RPC demand for the side of the server."""

_ROOT = Context()


def span_name(line: RequestLine) -> str:
    """Return the name that all requests of one kind share."""
    return f"POST {_route(line)}" if line.http else line.kind


def parent_of(ids: RequestIds) -> Context:
    """Return the context that holds the client's span, if the client has named one."""
    traceparent = ids.traceparent
    if traceparent is None:
        return _ROOT
    # 00-<trace id>-<span id>-<flags>, checked when it arrived.
    _, trace_id, span_id, flags, *_ = traceparent.split("-")
    context = SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
        trace_state=None if ids.tracestate is None else TraceState.from_header([ids.tracestate]),
    )
    return trace.set_span_in_context(NonRecordingSpan(context), _ROOT)


def events_of(line: RequestLine, timeline: Timeline) -> list[tuple[str, float]]:
    """Return the stages that the request has reached, with their times in seconds of ``time.monotonic``."""
    stages = (
        ("received", timeline.received),
        ("queued", timeline.submitted),
        ("started", timeline.started),
        ("ended", timeline.ended),
        ("sent", line.sent),
    )
    return [(name, when) for name, when in stages if when]


def status_of(line: RequestLine) -> Status | None:
    """Return the status of the span if it is one of an error."""
    error = line.error
    if error is not None and error.status >= _SERVER_FAULT:
        return Status(StatusCode.ERROR, f"{line.code}: {printable(error.message)}")
    if line.lost is not None:
        return Status(StatusCode.ERROR, f"the reply is lost: {line.lost}")
    return None


def attributes_of(line: RequestLine) -> dict[str, Value]:
    """Return all that is known of the request."""
    attributes: dict[str, Value] = {
        "vipsrv.kind": line.kind,
        "vipsrv.connection": line.connection,
        "vipsrv.source.bytes": line.image_size,
        "tls.established": line.tls,
    }
    _add_protocol(attributes, line)
    _add_client(attributes, line)
    if line.ids.request_id is not None:
        attributes["vipsrv.request_id"] = printable(line.ids.request_id)
    if line.source is not None:
        attributes["vipsrv.source.format"] = line.source.format
        attributes["vipsrv.source.width"] = line.source.width
        attributes["vipsrv.source.height"] = line.source.height
    outputs = line.outputs
    if outputs:
        attributes["vipsrv.result.formats"] = tuple([one.format for one in outputs])
        attributes["vipsrv.result.widths"] = tuple([one.width for one in outputs])
        attributes["vipsrv.result.heights"] = tuple([one.height for one in outputs])
        attributes["vipsrv.result.bytes"] = sum([one.size for one in outputs])
        attributes["vipsrv.ratio"] = line.ratio
    if line.worker:
        attributes["vipsrv.worker.pid"] = line.worker
    if line.error is not None:
        attributes["error.type"] = line.code
        attributes["vipsrv.error.message"] = printable(line.error.message)
    elif line.lost is not None:
        attributes["error.type"] = "lost"
    if line.lost is not None:
        attributes["vipsrv.lost"] = line.lost
    return attributes


def _add_protocol(attributes: dict[str, Value], line: RequestLine) -> None:
    if line.http:
        route = _route(line)
        attributes["network.protocol.name"] = "http"
        attributes["http.request.method"] = "POST"
        attributes["http.route"] = route
        attributes["url.path"] = route
        attributes["url.scheme"] = "https" if line.tls else "http"
        attributes["http.response.status_code"] = line.status
        attributes["http.request.body.size"] = line.image_size
        return
    attributes["network.protocol.name"] = "vipsrv"
    attributes["vipsrv.status"] = line.status
    if line.version is not None:
        attributes["network.protocol.version"] = str(line.version)


def _route(line: RequestLine) -> str:
    """Return the path of a request of HTTP with an image: the paths are named after the kinds."""
    return f"/{line.kind}"


def _add_client(attributes: dict[str, Value], line: RequestLine) -> None:
    peer = line.peer
    if isinstance(peer, tuple) and len(peer) >= 2:  # noqa: PLR2004 - host and port
        attributes["network.transport"] = "tcp"
        attributes["client.address"] = peer[0]
        attributes["client.port"] = peer[1]
    else:
        attributes["network.transport"] = "unix"
    if line.identity is not None:
        attributes["enduser.id"] = printable(line.identity)
