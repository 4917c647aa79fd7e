"""The ids by which a client finds its request in the server's log and in traces."""

from typing import Any, NamedTuple

from vipsrv.errors import BadRequest
from vipsrv.options import check_request_id, is_traceparent


class RequestIds(NamedTuple):
    """What a client calls its request; each may be missing."""

    request_id: str | None
    traceparent: str | None
    tracestate: str | None = None
    """What goes with the ``traceparent`` through the systems that trace."""


NO_IDS = RequestIds(None, None)

_NAMES = frozenset(RequestIds._fields)

_LONGEST_STATE = 512
"""Characters of a ``tracestate``: as many as the W3C wants to be passed on (Trace Context, 3.3.1.5)."""


def take_request_ids(meta: dict[str, Any]) -> tuple[RequestIds, dict[str, Any]]:
    """Return the ids in the meta of a RESIZE or INFO, and the meta without them.

    Raises ``BadRequest`` for an id that is not a text, or a ``request_id`` that is too long. A text that is
    no ``traceparent`` is ignored, as the W3C demands: it may be that of an unknown program far away. So is a
    ``tracestate`` that is too long, or that comes without a ``traceparent``.
    """
    if _NAMES.isdisjoint(meta):
        return NO_IDS, meta
    request_id, traceparent = meta.get("request_id"), meta.get("traceparent")
    try:
        check_request_id(request_id)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    if traceparent is not None:
        if not isinstance(traceparent, str):
            raise BadRequest("traceparent: must be a text")
        if not is_traceparent(traceparent):
            traceparent = None
    tracestate = meta.get("tracestate")
    if tracestate is not None:
        if not isinstance(tracestate, str):
            raise BadRequest("tracestate: must be a text")
        if traceparent is None or len(tracestate) > _LONGEST_STATE:
            tracestate = None
    rest = {name: value for name, value in meta.items() if name not in _NAMES}
    return RequestIds(request_id, traceparent, tracestate), rest
