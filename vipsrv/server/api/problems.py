"""Refusals over HTTP as problem details (RFC 9457): of requests with an image, and those of HTTP itself.

All have the same members: ``type``, ``title``, ``status``, ``detail``, and beside these of the RFC ``code``,
``retryable`` and ``retry_after_ms`` as on the binary wire.
"""

import json
from math import ceil
from typing import Any

from vipsrv.errors import Busy, Draining, RequestError, Unauthorized
from vipsrv.server.http.messages import HttpResponse
from vipsrv.server.http.refusals import (
    ChecksumMismatch,
    ExpectationFailed,
    HeadersTooLarge,
    Locked,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    NotImplementedHere,
    PreconditionFailed,
    TargetTooLong,
    VersionNotSupported,
)
from vipsrv.server.identity import TokenRefused

PROBLEM_TYPE = "application/problem+json"

MAX_DETAIL = 1000
"""Characters of a ``detail``, as of a message on the binary wire."""

DOCUMENTATION = "https://github.com/vipsrv/vipsrv/blob/main/docs/guide/http.md"
"""The page that explains the problems; the ``type`` of each is an anchor on it."""

REALM = 'Bearer realm="vipsrv"'

_RETRY_SECONDS = 1
"""The ``Retry-After`` of a refusal that does not know when to try again."""

TITLES: dict[str, str] = {
    "bad_request": "The request is not valid",
    "unauthorized": "A token is required",
    "receive_timeout": "The upload stalled",
    "upload_conflict": "The upload does not match",
    "too_large": "The image or the result is too large",
    "unsupported_format": "The format is not supported",
    "corrupt_image": "The image cannot be decoded",
    "busy": "The server is busy",
    "cancelled": "The request was cancelled",
    "internal": "The server has failed",
    "worker_died": "The decoder died of this image",
    "draining": "The server is shutting down",
    "deadline_exceeded": "The deadline has passed",
    # Codes of HTTP alone.
    "not_found": "There is no such path or upload",
    "not_acceptable": "No reply is acceptable",
    "method_not_allowed": "The method is not allowed",
    "tus_version": "The version of tus is not supported",
    "upload_locked": "Another connection has the upload",
    "checksum_mismatch": "The checksum does not match",
    "target_too_long": "The target is too long",
    "expectation_failed": "The expectation cannot be met",
    "headers_too_large": "The header is too large",
    "not_implemented": "The server does not implement this",
    "version_not_supported": "The version of HTTP is not supported",
}
"""The title of each problem by its code."""

HTTP_REFUSALS: tuple[type[RequestError], ...] = (
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    PreconditionFailed,
    TargetTooLong,
    ExpectationFailed,
    Locked,
    HeadersTooLarge,
    ChecksumMismatch,
    NotImplementedHere,
    VersionNotSupported,
)
"""The refusals that only HTTP has."""


def problem(error: RequestError) -> HttpResponse:
    """Return the reply to a request that is refused or has failed with ``error``."""
    headers: list[tuple[str, str]] = []
    if isinstance(error, Unauthorized):
        fault = ', error="invalid_token"' if isinstance(error, TokenRefused) else ""  # RFC 6750, 3.1
        headers.append(("WWW-Authenticate", REALM + fault))
    if isinstance(error, Busy | Draining | Locked):
        seconds = _RETRY_SECONDS if error.retry_after_ms is None else ceil(error.retry_after_ms / 1000)
        headers.append(("Retry-After", str(max(seconds, _RETRY_SECONDS))))
    members: dict[str, Any] = {
        "type": problem_type(error.code),
        "title": TITLES[error.code],
        "status": error.status,
        "detail": error.message[:MAX_DETAIL],
        "code": error.code,
        "retryable": error.retryable,
        "retry_after_ms": error.retry_after_ms,
    }
    return HttpResponse(
        status=error.status,
        headers=(
            ("Content-Type", PROBLEM_TYPE),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            *headers,
        ),
        body=json.dumps(members).encode() + b"\n",
    )


def problem_type(code: str) -> str:
    """Return the URI that identifies the kind of a problem."""
    return f"{DOCUMENTATION}#problem-{code.replace('_', '-')}"
