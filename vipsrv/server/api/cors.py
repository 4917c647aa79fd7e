"""Which pages of other origins may use the server from a browser: the headers of CORS (WHATWG Fetch, 3.2)."""

from collections.abc import Collection

from vipsrv.server.api.origins import ANY_ORIGIN
from vipsrv.server.http.messages import Headers, HttpRequest

ALLOWED_METHODS = "GET, HEAD, POST"
ALLOWED_FIELDS = "Authorization, Content-Type, Traceparent, Tracestate, X-Request-Id"
"""The fields of a request that a page may set. Others that the server reads are set by the browser, or are
always allowed."""

EXPOSED_FIELDS = (
    "ETag, Retry-After, Server-Timing, Vipsrv-Ratio, Vipsrv-Result, Vipsrv-Source, WWW-Authenticate, "
    "X-Request-Id"
)
"""The fields of a reply that a page may read."""

MAX_AGE = 600
"""Seconds for which a browser need not ask again, and may be wrong after a reload of the settings."""


def cors_headers(allowed: Collection[str], request: HttpRequest) -> Headers:
    """Return the headers of CORS for the reply to a request; ``allowed`` are origins, or ``*`` for all."""
    if not allowed:
        return ()
    every = ANY_ORIGIN in allowed
    # Also without an Origin: a cache must not give the reply to a page of one.
    vary: Headers = () if every else (("Vary", "Origin"),)
    origin = request.fields.get("origin")
    if origin is None or not (every or origin in allowed):
        return vary
    shown = ANY_ORIGIN if every else origin
    headers: Headers = (
        *vary,
        ("Access-Control-Allow-Origin", shown),
        ("Timing-Allow-Origin", shown),
    )
    if request.method == "OPTIONS" and "access-control-request-method" in request.fields:
        return (
            *headers,
            ("Access-Control-Allow-Methods", ALLOWED_METHODS),
            ("Access-Control-Allow-Headers", ALLOWED_FIELDS),
            ("Access-Control-Max-Age", str(MAX_AGE)),
        )
    return (*headers, ("Access-Control-Expose-Headers", EXPOSED_FIELDS))
