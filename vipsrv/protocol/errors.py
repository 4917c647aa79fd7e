"""Converts exceptions to error replies and back."""

from typing import Any

from vipsrv.errors import REQUEST_ERRORS, InternalError, RequestError
from vipsrv.protocol.frames import REPLY, pack_message

MAX_MESSAGE_LENGTH = 1000
"""Maximum characters of a message on the wire, far below the limit of the meta."""


def pack_error(kind: int, request_id: int, error: RequestError) -> bytes:
    """Return the error reply to the request with this ``kind`` and ``request_id``.

    Its first four bytes are zero, so a version 1 client sees a result of size zero.
    """
    meta = {
        "code": error.code,
        "message": error.message[:MAX_MESSAGE_LENGTH],
        "retryable": error.retryable,
        "retry_after_ms": error.retry_after_ms,
    }
    return pack_message(kind | REPLY, request_id, meta, status=error.status)


def unpack_error(status: int, meta: dict[str, Any]) -> RequestError:
    """Return the exception for an error reply; an unknown status gives an ``InternalError`` that names it.

    Never fails: a message or time of the wrong type counts as missing.
    """
    message = meta.get("message")
    if not isinstance(message, str):
        message = "the server gave no reason"
    message = message[:MAX_MESSAGE_LENGTH]
    retry_after_ms = meta.get("retry_after_ms")
    if type(retry_after_ms) is not int or not 0 <= retry_after_ms < 2**31:
        retry_after_ms = None
    error_class = REQUEST_ERRORS.get(status)
    if error_class is None:
        return InternalError(f"status {status}: {message}", retry_after_ms=retry_after_ms)
    return error_class(message, retry_after_ms=retry_after_ms)
