import pickle
import re

import pytest

from vipsrv import errors
from vipsrv.errors import REQUEST_ERRORS, RequestError, VipsrvError

# The contract's table: status, code, retryable, and the class that carries them.
TABLE = [
    (400, "bad_request", False, "BadRequest"),
    (401, "unauthorized", False, "Unauthorized"),
    (408, "receive_timeout", True, "ReceiveTimeout"),
    (409, "upload_conflict", False, "UploadConflict"),
    (413, "too_large", False, "TooLarge"),
    (415, "unsupported_format", False, "UnsupportedFormat"),
    (422, "corrupt_image", False, "CorruptImage"),
    (429, "busy", True, "Busy"),
    (499, "cancelled", False, "Cancelled"),
    (500, "internal", False, "InternalError"),
    (502, "worker_died", True, "WorkerDied"),
    (503, "draining", True, "Draining"),
    (504, "deadline_exceeded", False, "DeadlineExceeded"),
]

TREE = """\
VipsrvError
├── RequestError
│   ├── BadRequest
│   ├── Unauthorized
│   ├── ReceiveTimeout
│   ├── UploadConflict
│   ├── TooLarge
│   ├── UnsupportedFormat
│   ├── CorruptImage
│   ├── Busy
│   ├── Cancelled
│   ├── InternalError
│   ├── WorkerDied
│   ├── Draining
│   └── DeadlineExceeded
├── ProtocolError
├── ConnectFailed
│   └── TlsFailed
├── ConnectionLost
├── ClientTimeout
├── StartFailed
├── BatchError
│   ├── ServerLost
│   ├── StorageFailed
│   └── TooManyFailures
└── SettingsError
"""


def test_the_wires_errors_are_those_of_the_table() -> None:
    rows = [(status, error.code, error.retryable, error.__name__) for status, error in REQUEST_ERRORS.items()]
    assert rows == TABLE


def test_each_class_knows_the_status_it_is_listed_under() -> None:
    assert [error.status for error in REQUEST_ERRORS.values()] == list(REQUEST_ERRORS)


def _drawn(parent: type[VipsrvError], indent: str = "") -> str:
    # Only what the module defines: a test elsewhere may have classes of its own.
    children = [child for child in parent.__subclasses__() if child.__module__ == errors.__name__]
    lines = ""
    for child in children:
        last = child is children[-1]
        lines += f"{indent}{'└' if last else '├'}── {child.__name__}\n"
        lines += _drawn(child, indent + ("    " if last else "│   "))
    return lines


def test_the_tree_is_as_drawn() -> None:
    assert f"VipsrvError\n{_drawn(VipsrvError)}" == TREE


def test_the_drawing_at_the_top_of_the_module_is_that_tree() -> None:
    drawing = (errors.__doc__ or "").split("::\n\n")[1].split("\n\n")[0]
    # Beside the names stand the codes, and texts that are for readers.
    drawn = [re.match(r"    ([│├└─ ]*\w+)", line) for line in drawing.splitlines()]
    assert "".join(f"{line[1]}\n" for line in drawn if line) == TREE


@pytest.mark.parametrize("error_class", REQUEST_ERRORS.values(), ids=lambda error: error.code)
def test_an_error_of_a_request_keeps_what_it_was_given(error_class: type[RequestError]) -> None:
    error = error_class("the reason", retry_after_ms=250)
    assert (str(error), error.message, error.retry_after_ms) == ("the reason", "the reason", 250)
    assert error_class("the reason").retry_after_ms is None


def test_an_error_can_be_carried_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(errors.Busy("full", retry_after_ms=5)))  # noqa: S301 - our own bytes
    assert type(error) is errors.Busy
    assert (error.message, error.retry_after_ms) == ("full", 5)


def test_a_failed_storage_can_be_carried_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(errors.StorageFailed("s3://photos", "no such bucket")))  # noqa: S301 - our own bytes
    assert (str(error), error.place) == ("s3://photos: no such bucket", "s3://photos")
