"""What an error of an object store is about, by the texts of obstore."""

import errno

import pytest

from vipsrv.batch.stores.object_faults import Access, broken_body, object_error
from vipsrv.errors import StorageFailed

PLACE = "s3://bucket"


def said(status: int, code: str = "", message: str = "") -> Exception:
    """An error as obstore writes it, with what the store has answered."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>" if code else ""
    text = (
        "Generic S3 error: Error performing GET http://host/bucket/a in 1ms - Server returned non-2xx "
        f"status code: {status} Reason: {body}\n\nDebug source:\nGeneric {{ }}"
    )
    return FileNotFoundError(text) if status == 404 else RuntimeError(text)


@pytest.mark.parametrize(
    ("error", "access", "kind", "number"),
    [
        (said(404, "NoSuchKey"), Access.READ, FileNotFoundError, errno.ENOENT),
        (said(404), Access.READ, FileNotFoundError, errno.ENOENT),
        (said(403, "AccessDenied"), Access.READ, PermissionError, errno.EACCES),
        (said(403), Access.READ, PermissionError, errno.EACCES),
        (said(400, "KeyTooLongError"), Access.WRITE, OSError, errno.EINVAL),
        (said(413, "EntityTooLarge"), Access.WRITE, OSError, errno.EINVAL),
        (said(416), Access.READ, OSError, errno.EINVAL),
    ],
)
def test_about_one_object(error: Exception, access: Access, kind: type[OSError], number: int) -> None:
    told = object_error(PLACE, "a.jpg", error, access)
    assert type(told) is kind
    assert isinstance(told, OSError)
    assert (told.errno, told.filename) == (number, "a.jpg")


METADATA = RuntimeError(
    "Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token in 3s, after 3 retries"
)
REGION = RuntimeError(
    "Generic S3 error: Received redirect without LOCATION, "
    "this normally indicates an incorrectly configured region"
)
DOWN = RuntimeError(
    "Generic S3 error: Error performing GET http://host/ in 9s, after 9 retries - HTTP error: error sending "
    'request\n\nDebug source:\nX { message: "tcp connect error", Os { message: "Connection refused" } }'
)


@pytest.mark.parametrize(
    ("error", "access", "text"),
    [
        (said(404, "NoSuchBucket", "It is not."), Access.READ, "NoSuchBucket (It is not); make the bucket"),
        (said(404), Access.WRITE, "404; make the bucket, or correct its name"),
        (said(404), Access.LIST, "404; make the bucket"),
        (said(403, "AccessDenied"), Access.WRITE, "403 AccessDenied; let these credentials write, or"),
        (said(403, "AccessDenied"), Access.LIST, "403 AccessDenied; let these credentials list the bucket"),
        (said(400, "ExpiredToken"), Access.READ, "400 ExpiredToken; the credentials are wrong or have"),
        (said(401), Access.READ, "401; the credentials are wrong or have expired"),
        (said(403, "RequestTimeTooSkewed"), Access.READ, "set the clock of this machine"),
        (said(301, "PermanentRedirect"), Access.READ, "set AWS_REGION to the region of the bucket"),
        (REGION, Access.READ, "set AWS_REGION"),
        (METADATA, Access.READ, "no credentials were found: set the variables of the store's credentials"),
        (said(503, "SlowDown", "Reduce"), Access.READ, "503 SlowDown (Reduce); make it available again"),
        (said(500), Access.WRITE, "500; make it available again, then run the same command again"),
        (DOWN, Access.READ, "request (Connection refused); make it available again"),
    ],
)  # fmt: skip
def test_about_the_place(error: Exception, access: Access, text: str) -> None:
    told = object_error(PLACE, "a.jpg", error, access)
    assert isinstance(told, StorageFailed)
    assert told.place == PLACE
    assert text in told.message
    assert told.message.endswith(", then run the same command again")


def test_a_body_that_breaks_is_about_one_object() -> None:
    told = broken_body(
        "a.jpg", RuntimeError("HTTP error: request or response body error\n\nDebug source:\nX")
    )
    assert (told.errno, told.filename) == (errno.EIO, "a.jpg")
    assert told.strerror == "HTTP error: request or response body error"
