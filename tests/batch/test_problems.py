"""Which rows the errors of an image become."""

import errno

import pytest

from vipsrv.batch.problems import Problem, reading_failed, request_failed, storing_failed
from vipsrv.errors import (
    REQUEST_ERRORS,
    ClientTimeout,
    ConnectionLost,
    CorruptImage,
    ProtocolError,
    WorkerDied,
)


@pytest.mark.parametrize(
    ("error", "problem", "retryable"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file"), Problem.SOURCE_MISSING, False),
        (PermissionError(errno.EACCES, "Permission denied"), Problem.SOURCE_FORBIDDEN, False),
        (IsADirectoryError(errno.EISDIR, "Is a directory"), Problem.SOURCE_UNREADABLE, False),
        (OSError(errno.EIO, "Input/output error"), Problem.SOURCE_UNREADABLE, True),
        (OSError("the image file became shorter"), Problem.SOURCE_UNREADABLE, True),
        (ValueError("the image is empty: 0 bytes"), Problem.EMPTY, False),
        (ValueError("a pipe"), Problem.SOURCE_UNREADABLE, False),
    ],
)
def test_reading(error: OSError | ValueError, problem: Problem, *, retryable: bool) -> None:
    failure = reading_failed(error)
    assert (failure.status, failure.code) == (problem.status, problem.code)
    assert failure.retryable is retryable
    assert failure.message


@pytest.mark.parametrize(
    ("error", "problem", "retryable"),
    [
        (OSError(errno.ENAMETOOLONG, "File name too long"), Problem.BAD_NAME, False),
        (IsADirectoryError(errno.EISDIR, "Is a directory"), Problem.BAD_NAME, False),
        (ValueError("the key leaves the folder"), Problem.BAD_NAME, False),
        (OSError(errno.EIO, "Input/output error"), Problem.DESTINATION_FAILED, True),
    ],
)
def test_storing(error: OSError | ValueError, problem: Problem, *, retryable: bool) -> None:
    failure = storing_failed(error, "a/b_320x.jpg")
    assert (failure.status, failure.code) == (problem.status, problem.code)
    assert failure.retryable is retryable


def test_requests() -> None:
    corrupt = request_failed(CorruptImage("no pixels"))
    assert (corrupt.status, corrupt.code, corrupt.message, corrupt.retryable) == (
        422,
        "corrupt_image",
        "no pixels",
        False,
    )
    assert request_failed(WorkerDied("gone")).retryable
    assert request_failed(ClientTimeout("late")).code == "no_reply"
    for lost in (ConnectionLost("closed"), ProtocolError("nonsense")):
        assert (request_failed(lost).code, request_failed(lost).retryable) == ("connection_lost", True)


def test_no_code_is_one_of_the_protocol() -> None:
    assert {one.code for one in Problem}.isdisjoint(error.code for error in REQUEST_ERRORS.values())
