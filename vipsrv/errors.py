"""Every error that vipsrv raises or sends, as one tree.

::

    VipsrvError
    ├── RequestError                 one class for each error code on the wire
    │   ├── BadRequest               400 bad_request
    │   ├── Unauthorized             401 unauthorized
    │   ├── ReceiveTimeout           408 receive_timeout
    │   ├── UploadConflict           409 upload_conflict
    │   ├── TooLarge                 413 too_large
    │   ├── UnsupportedFormat        415 unsupported_format
    │   ├── CorruptImage             422 corrupt_image
    │   ├── Busy                     429 busy
    │   ├── Cancelled                499 cancelled
    │   ├── InternalError            500 internal
    │   ├── WorkerDied               502 worker_died
    │   ├── Draining                 503 draining
    │   └── DeadlineExceeded         504 deadline_exceeded
    ├── ProtocolError                the peer sent something that is not the protocol
    ├── ConnectFailed                no connection to the server could be made
    ├── ConnectionLost               the connection broke before the reply was complete
    ├── ClientTimeout                a step took longer than the client's own timeout
    └── StartFailed                  a server could not be started

The server raises a ``RequestError`` and sends it; the client raises the same class when it receives it.
"""

from typing import ClassVar


class VipsrvError(Exception):
    """The root of the tree."""


class RequestError(VipsrvError):
    """The server refused one request or failed on it.

    ``message`` is for people; ``code`` and ``status`` are what the wire carries; ``retryable`` says whether
    the same request may succeed later, and ``retry_after_ms`` how long to wait before that, if it is known.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_ms = retry_after_ms


class BadRequest(RequestError):
    """A header, meta or option that is invalid, or that this server does not offer."""

    status = 400
    code = "bad_request"


class Unauthorized(RequestError):
    """No token, or a wrong one."""

    status = 401
    code = "unauthorized"


class ReceiveTimeout(RequestError):
    """The upload stalled."""

    status = 408
    code = "receive_timeout"
    retryable = True


class UploadConflict(RequestError):
    """An upload's offset or size does not match what the server holds."""

    status = 409
    code = "upload_conflict"


class TooLarge(RequestError):
    """Bytes, pixels, frames or the target size are over a limit."""

    status = 413
    code = "too_large"


class UnsupportedFormat(RequestError):
    """Not an image, or in a format that the server does not read."""

    status = 415
    code = "unsupported_format"


class CorruptImage(RequestError):
    """An image that cannot be decoded."""

    status = 422
    code = "corrupt_image"


class Busy(RequestError):
    """The queue or the spool is full; ``retry_after_ms`` says when to try again."""

    status = 429
    code = "busy"
    retryable = True


class Cancelled(RequestError):
    """The client cancelled the request or went away."""

    status = 499
    code = "cancelled"


class InternalError(RequestError):
    """A bug in the server. Its log says ``where``, under the request's id; clients are not told."""

    status = 500
    code = "internal"

    def __init__(self, message: str, *, retry_after_ms: int | None = None, where: str = "") -> None:
        super().__init__(message, retry_after_ms=retry_after_ms)
        self.where = where


class WorkerDied(RequestError):
    """The decoder crashed or ran out of memory on this image. One retry is worthwhile, not more."""

    status = 502
    code = "worker_died"
    retryable = True


class Draining(RequestError):
    """The server is shutting down."""

    status = 503
    code = "draining"
    retryable = True


class DeadlineExceeded(RequestError):
    """Queueing and processing took longer than allowed."""

    status = 504
    code = "deadline_exceeded"


class ProtocolError(VipsrvError):
    """The peer sent something that is not a message of the protocol."""


class ConnectFailed(VipsrvError):
    """No connection to the server could be made."""


class ConnectionLost(VipsrvError):
    """The connection broke before the reply was complete."""


class ClientTimeout(VipsrvError):
    """A step took longer than the client's own timeout."""


class StartFailed(VipsrvError):
    """A server, or the workers it needs, could not be started."""


REQUEST_ERRORS: dict[int, type[RequestError]] = {
    error.status: error
    for error in (
        BadRequest,
        Unauthorized,
        ReceiveTimeout,
        UploadConflict,
        TooLarge,
        UnsupportedFormat,
        CorruptImage,
        Busy,
        Cancelled,
        InternalError,
        WorkerDied,
        Draining,
        DeadlineExceeded,
    )
}
"""Status number → class."""
