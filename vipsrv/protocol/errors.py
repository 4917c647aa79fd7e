"""Errors on the wire: exception → error reply → exception."""

from typing import Any

from vipsrv.errors import REQUEST_ERRORS, InternalError, RequestError
from vipsrv.protocol.frames import REPLY, pack_message

MAX_MESSAGE_LENGTH = 1000
"""Characters of a message on the wire: what a person reads, and far below the limit of the meta."""


def pack_error(kind: int, request_id: int, error: RequestError) -> bytes:
    """An error reply to the request ``kind`` and ``request_id``.

    Its first four bytes are zero, so a version 1 client sees a result of no bytes.
    """
    meta = {
        "code": error.code,
        "message": error.message[:MAX_MESSAGE_LENGTH],
        "retryable": error.retryable,
        "retry_after_ms": error.retry_after_ms,
    }
    return pack_message(kind | REPLY, request_id, meta, status=error.status)


def unpack_error(status: int, meta: dict[str, Any]) -> RequestError:
    """The exception for an error reply; one of an unknown status is an ``InternalError`` that names it.

    Never fails: a message or time of another type than it should be counts as not given.
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
