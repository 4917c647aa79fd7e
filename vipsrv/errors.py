"""Every error that vipsrv raises or sends, as one tree of classes.

::

    VipsrvError
    ├── RequestError                 one class for each error code of the protocol
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
    ├── ProtocolError                the other side violated the protocol
    ├── ConnectFailed                no connection to the server could be made
    │   └── TlsFailed                it could not be encrypted, or one side did not trust the other
    ├── ConnectionLost               the connection broke before the reply was complete
    ├── ClientTimeout                a step took longer than the client's ``Timeout``
    ├── StartFailed                  a server could not be started
    └── SettingsError                settings of a server are unknown, impossible or unreadable

The server raises a ``RequestError`` and sends it; the client raises the same class.
"""

from typing import ClassVar


class VipsrvError(Exception):
    """The base class of every error of vipsrv."""


class RequestError(VipsrvError):
    """The server refused one request or failed on it.

    ``message`` is for a person; ``code`` and ``status`` are those of the protocol; ``retryable`` states
    whether the same request may succeed later, and ``retry_after_ms`` how long to wait, if that is known.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_ms = retry_after_ms


class BadRequest(RequestError):
    """A header, meta or option is invalid or not supported by this server."""

    status = 400
    code = "bad_request"


class Unauthorized(RequestError):
    """The token is missing or wrong."""

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
    """The bytes, pixels or frames of the image, or the size of the result, exceed a limit."""

    status = 413
    code = "too_large"


class UnsupportedFormat(RequestError):
    """Not an image, or an image in a format that the server does not read."""

    status = 415
    code = "unsupported_format"


class CorruptImage(RequestError):
    """The image cannot be decoded."""

    status = 422
    code = "corrupt_image"


class Busy(RequestError):
    """The queue or the spool is full; ``retry_after_ms`` states when to try again."""

    status = 429
    code = "busy"
    retryable = True


class Cancelled(RequestError):
    """The client cancelled the request or disconnected."""

    status = 499
    code = "cancelled"


class InternalError(RequestError):
    """A bug in the server. ``where`` is logged with the request's id and never sent to a client."""

    status = 500
    code = "internal"

    def __init__(self, message: str, *, retry_after_ms: int | None = None, where: str = "") -> None:
        super().__init__(message, retry_after_ms=retry_after_ms)
        self.where = where


class WorkerDied(RequestError):
    """The decoder crashed or ran out of memory on this image. Retry once at most."""

    status = 502
    code = "worker_died"
    retryable = True


class Draining(RequestError):
    """The server is shutting down, or has had no worker for a while (the reply to a PING)."""

    status = 503
    code = "draining"
    retryable = True


class DeadlineExceeded(RequestError):
    """Waiting and processing took longer than the deadline."""

    status = 504
    code = "deadline_exceeded"


class ProtocolError(VipsrvError):
    """The other side sent something that is not a valid message of the protocol."""


class ConnectFailed(VipsrvError):
    """A connection to the server could not be made."""


class TlsFailed(ConnectFailed):
    """A connection could not be encrypted, or one of the two sides did not trust the other's certificate."""


class ConnectionLost(VipsrvError):
    """The connection broke before the reply was complete."""


class ClientTimeout(VipsrvError):
    """A step took longer than the client's ``Timeout`` allows."""


class StartFailed(VipsrvError):
    """A server, or the workers it needs, could not be started."""


class SettingsError(VipsrvError):
    """Settings of a server are unknown, impossible or cannot be read.

    Each of ``faults`` is one line that names the place (file and line, variable or flag), the setting and
    what is wrong with it.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


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
"""The class for each status number."""
