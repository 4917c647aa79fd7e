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
    ├── BatchError                   a batch cannot start or cannot go on
    │   ├── ServerLost               its server does not answer any more
    │   ├── StorageFailed            its source or destination cannot be read or written
    │   └── TooManyFailures          more of its images failed than it allows
    └── SettingsError                settings of a server are unknown, impossible or unreadable

The server raises a ``RequestError`` and sends it; the client raises the same class.
"""

from enum import StrEnum
from typing import ClassVar


class VipsrvError(Exception):
    """The base class of every error of vipsrv. ``attempts`` is how many a client's call had made."""

    attempts: int = 1


class Limit(StrEnum):
    """A limit of the server that refuses or ends requests. The metrics count how often each one does."""

    QUEUE = "queue"
    """Requests that wait for a worker (``--queue``)."""
    QUEUE_PER_CLIENT = "queue_per_client"
    """Those of one client (``--queue-per-client``)."""
    SPOOL_MEMORY = "spool_memory"
    """Memory of the spool (``--spool-memory``), or one client's share of it: the bytes go to a file."""
    SPOOL_DISK = "spool_disk"
    """Disk of the spool (``--spool-disk``), or one client's share of it, or the room of the disk itself."""
    SPOOL_FILES = "spool_files"
    """Files of the spool, as many as the limit of open files holds, or one client's share of them."""
    SPOOL_SPEED = "spool_speed"
    """The disk of the spool was too slow for an upload to go on."""
    CONNECTIONS = "connections"
    """Connections (``--connections``, ``--connections-per-client``)."""
    TOKEN_REQUESTS = "token_requests"  # noqa: S105 - a name, not a secret
    """The requests a second of an identity."""
    TOKEN_BYTES = "token_bytes"  # noqa: S105 - a name, not a secret
    """The bytes a second of an identity."""
    TOKEN_IN_FLIGHT = "token_in_flight"  # noqa: S105 - a name, not a secret
    """The requests in flight of an identity."""
    LOGIN_PENALTY = "login_penalty"
    """An address with too many failed logins."""
    MAX_UPLOAD = "max_upload"
    """Bytes of an image (``--max-upload``)."""
    IMAGE = "image"
    """What an image or a result may have: pixels, frames, memory, and so on."""
    DEADLINE = "deadline"
    """Time from the end of an upload to its reply (``--deadline``, or the client's own)."""
    RECEIVE_TIMEOUT = "receive_timeout"
    """An upload that stalled (``--receive-timeout``)."""
    MIN_RATE = "min_rate"
    """An upload that was too slow on average (``--min-rate``)."""


class RequestError(VipsrvError):
    """The server refused one request or failed on it.

    ``message`` is for a person; ``code`` and ``status`` are those of the protocol; ``retryable`` states
    whether the same request may succeed later, and ``retry_after_ms`` how long to wait, if that is known.
    ``limit`` is known in the server only: which of its limits was hit.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, retry_after_ms: int | None = None, limit: Limit | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.limit = limit

    def forget_frames(self) -> None:
        """Forget where the error was raised, before it is kept.

        Otherwise whoever keeps it keeps the variables of all those functions, itself among them: a cycle.
        """
        self.__traceback__ = self.__context__ = self.__cause__ = None


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


class BatchError(VipsrvError):
    """A batch cannot start, or cannot go on. What is done is kept: the same command goes on."""


class ServerLost(BatchError):
    """The server of a batch has not answered for a while, or has refused everything."""


class StorageFailed(BatchError):
    """A source or a destination cannot be used: it is gone, full or unreachable, or refuses the credentials.

    ``place`` is its URL.
    """

    def __init__(self, place: str, message: str) -> None:
        super().__init__(place, message)  # both, so that the error can be carried to another process
        self.place = place
        self.message = message

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class TooManyFailures(BatchError):
    """More of the images of a batch failed than its limit allows."""


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
