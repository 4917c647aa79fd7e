"""The ids by which a client finds its request in the server's log: ``request_id`` and ``traceparent``."""

import re
from typing import Any, NamedTuple

from vipsrv.errors import BadRequest

MAX_REQUEST_ID = 128
"""Characters of a ``request_id``."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
"""W3C Trace Context, 3.2: version, trace id, parent id and flags. Later versions may add parts."""

_MAX_TRACEPARENT = 128
"""Characters; that of version 00 has 55."""


class RequestIds(NamedTuple):
    """What a client calls its request; each may be missing."""

    request_id: str | None
    traceparent: str | None


NO_IDS = RequestIds(None, None)

_NAMES = ("request_id", "traceparent")


def take_request_ids(meta: dict[str, Any]) -> tuple[RequestIds, dict[str, Any]]:
    """Return the ids in the meta of a RESIZE or INFO, and the meta without them.

    Raises ``BadRequest`` for an id that is not a text, or a ``request_id`` that is too long. A text that is
    no ``traceparent`` is ignored, as the W3C demands: it may be that of an unknown program far away.
    """
    if "request_id" not in meta and "traceparent" not in meta:
        return NO_IDS, meta
    for name in _NAMES:
        value = meta.get(name)
        if value is not None and not isinstance(value, str):
            raise BadRequest(f"{name}: must be a text")
    request_id, traceparent = map(meta.get, _NAMES)
    if request_id is not None and not 0 < len(request_id) <= MAX_REQUEST_ID:
        raise BadRequest(f"request_id: must have 1 to {MAX_REQUEST_ID} characters, not {len(request_id)}")
    if traceparent is not None and not is_traceparent(traceparent):
        traceparent = None
    return RequestIds(request_id, traceparent), {
        name: value for name, value in meta.items() if name not in _NAMES
    }


def is_traceparent(text: str) -> bool:
    """Whether a text is a valid ``traceparent``: ``00-<32 hex>-<16 hex>-<2 hex>``, neither id all zeros."""
    match = _TRACEPARENT.fullmatch(text) if len(text) <= _MAX_TRACEPARENT else None
    if match is None or text.startswith("ff") or (text.startswith("00") and match[3]):
        return False
    return text.isprintable() and any(one != "0" for one in match[1]) and any(one != "0" for one in match[2])
