"""Which pages of other origins may use the server from a browser: the headers of CORS (WHATWG Fetch, 3.2)."""

from collections.abc import Collection

from vipsrv.server.api.origins import ANY_ORIGIN
from vipsrv.server.http.messages import Headers, HttpRequest
from vipsrv.server.tus.resources import is_tus

ALLOWED_METHODS = "GET, HEAD, POST"
ALLOWED_FIELDS = "Authorization, Content-Type, Traceparent, Tracestate, X-Request-Id"
"""The fields of a request that a page may set. Others that the server reads are set by the browser, or are
always allowed."""

EXPOSED_FIELDS = (
    "ETag, Retry-After, Server-Timing, Vipsrv-Placeholder, Vipsrv-Ratio, Vipsrv-Result, Vipsrv-Source, "
    "WWW-Authenticate, X-Request-Id"
)
"""The fields of a reply that a page may read."""

_UPLOAD_METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST"
_UPLOAD_FIELDS = (
    "Tus-Resumable, Upload-Checksum, Upload-Length, Upload-Metadata, Upload-Offset, X-HTTP-Method-Override, "
    "X-Requested-With"
)
_UPLOAD_EXPOSED = (
    "Location, Tus-Checksum-Algorithm, Tus-Extension, Tus-Max-Size, Tus-Resumable, Tus-Version, "
    "Upload-Expires, Upload-Length, Upload-Metadata, Upload-Offset"
)

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
    of_upload = is_tus(request.path)
    if request.method == "OPTIONS" and "access-control-request-method" in request.fields:
        return (
            *headers,
            ("Access-Control-Allow-Methods", _UPLOAD_METHODS if of_upload else ALLOWED_METHODS),
            (
                "Access-Control-Allow-Headers",
                f"{ALLOWED_FIELDS}, {_UPLOAD_FIELDS}" if of_upload else ALLOWED_FIELDS,
            ),
            ("Access-Control-Max-Age", str(MAX_AGE)),
        )
    exposed = f"{EXPOSED_FIELDS}, {_UPLOAD_EXPOSED}" if of_upload else EXPOSED_FIELDS
    return (*headers, ("Access-Control-Expose-Headers", exposed))
