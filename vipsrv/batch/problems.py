"""What went wrong with one image of a batch, as the status and code of its row.

Most codes are those of the protocol (``vipsrv/errors.py``). ``Problem`` has those of the steps that a server
does not see: reading an image, naming its results, and storing them. ``STOPS`` are the errors that are not
about one image; they end the batch.
"""

import errno
from enum import Enum

from vipsrv.errors import (
    BatchError,
    ClientTimeout,
    ConnectFailed,
    ConnectionLost,
    ProtocolError,
    RequestError,
    StartFailed,
    Unauthorized,
)

STOPS = (BatchError, ConnectFailed, StartFailed, Unauthorized)
"""Errors that would meet every further image as well."""

LOSSES = (ConnectionLost, ProtocolError)
"""Errors that end all requests of a connection, not only the one that may have caused them."""

_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
_BAD_NAME = frozenset(
    {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EISDIR, errno.ENOTDIR, errno.EEXIST}
)


class Problem(Enum):
    """A failure that the protocol has no code for: the status and the code of a row."""

    EMPTY = 400, "empty"
    """The image has no bytes."""
    BAD_NAME = 400, "bad_name"
    """The name of a result is one that the destination cannot store, or none that a result may have."""
    SOURCE_FORBIDDEN = 403, "source_unreadable"
    """The source does not let this image be read."""
    SOURCE_MISSING = 404, "source_missing"
    """The image was listed, or is in a list of keys, and is not there."""
    NAME_CONFLICT = 409, "name_conflict"
    """The result of another image, or another result of this one, has the same name."""
    SOURCE_UNREADABLE = 500, "source_unreadable"
    """Reading this image failed."""
    DESTINATION_FAILED = 500, "destination_failed"
    """Storing a result of this image failed, while others could be stored."""
    CONNECTION_LOST = 502, "connection_lost"
    """The connection to the server broke each time that the image was sent, at last while it was alone."""
    NO_REPLY = 504, "no_reply"
    """The server has not answered in the time that the client waits."""

    def __init__(self, status: int, code: str) -> None:
        self.status = status
        self.code = code


class ImageFailed(Exception):
    """One image failed: what its row will say. ``retryable`` is whether another attempt may succeed."""

    def __init__(self, status: int, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message
        self.retryable = retryable

    @classmethod
    def by(cls, problem: Problem, message: str, *, retryable: bool = False) -> "ImageFailed":
        """Return the failure for a problem."""
        return cls(problem.status, problem.code, message, retryable=retryable)


def reading_failed(error: OSError | ValueError) -> ImageFailed:
    """Return the failure for what opening or reading an image has raised."""
    if isinstance(error, ValueError):  # the client refuses what has no bytes or no size
        return ImageFailed.by(
            Problem.EMPTY if "empty" in str(error) else Problem.SOURCE_UNREADABLE, str(error)
        )
    if isinstance(error, FileNotFoundError):
        return ImageFailed.by(Problem.SOURCE_MISSING, _reason(error))
    if error.errno in _FORBIDDEN:
        return ImageFailed.by(Problem.SOURCE_FORBIDDEN, _reason(error))
    return ImageFailed.by(Problem.SOURCE_UNREADABLE, _reason(error), retryable=error.errno != errno.EISDIR)


def storing_failed(error: OSError | ValueError, key: str) -> ImageFailed:
    """Return the failure for what storing the result ``key`` has raised."""
    if isinstance(error, ValueError):
        return ImageFailed.by(Problem.BAD_NAME, str(error))
    if error.errno in _BAD_NAME:
        return ImageFailed.by(Problem.BAD_NAME, f"{key}: {_reason(error)}")
    return ImageFailed.by(Problem.DESTINATION_FAILED, f"{key}: {_reason(error)}", retryable=True)


def request_failed(
    error: RequestError | ConnectionLost | ProtocolError | ClientTimeout, *, alone: bool = False
) -> ImageFailed:
    """Return the failure for an error of a request. ``alone``: no other image was in flight."""
    if isinstance(error, RequestError):
        return ImageFailed(error.status, error.code, error.message, retryable=error.retryable)
    if isinstance(error, ClientTimeout):
        return ImageFailed.by(Problem.NO_REPLY, str(error), retryable=True)
    message = f"{error}; no other image was in flight" if alone else str(error)
    return ImageFailed.by(Problem.CONNECTION_LOST, message, retryable=True)


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
