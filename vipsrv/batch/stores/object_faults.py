"""What an error of an object store is about: one object, or everything in the bucket."""

import errno
import re
from enum import Enum
from http import HTTPStatus

from vipsrv.errors import StorageFailed


class Access(Enum):
    """What was tried when the error came."""

    LIST = "list"
    READ = "read"
    WRITE = "write"


_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]+)</Message>")
_CAUSE = re.compile(r'message: "([^"]+)"')

_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"}
_CREDENTIALS = {
    "AccountProblem",
    "AllAccessDisabled",
    "AuthenticationFailed",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidToken",
    "NotSignedUp",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
    "XAdminUserNotFound",
}
_REGION = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}
_METADATA_SERVICE = ("169.254.169.254", "metadata.google.internal")
"""Where the library looks for credentials if it finds none in the environment."""

_AGAIN = "then run the same command again"
_SET = "set the variables of the store's credentials (such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"


def object_error(place: str, key: str, error: Exception, access: Access) -> Exception:
    """Return the error to raise: ``StorageFailed`` about the ``place``, or an ``OSError`` about ``key``.

    What the library tried again until its time was over is about the place.
    """
    text = str(error)
    status = int(found[1]) if (found := _STATUS.search(text)) else 0
    code = found[1] if (found := _CODE.search(text)) else ""
    summary = _summary(text, status, code)
    advice = _place_advice(text, status, code, access)
    if advice is None and access is not Access.LIST:
        if isinstance(error, FileNotFoundError):
            return FileNotFoundError(errno.ENOENT, summary, key)
        if status == HTTPStatus.FORBIDDEN:
            return PermissionError(errno.EACCES, summary, key)
        if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return OSError(errno.EINVAL, summary, key)
    return StorageFailed(place, f"{summary}; {advice or f'make it available again, {_AGAIN}'}")


def is_missing(error: Exception) -> bool:
    """Whether a store says that one object is not there, and nothing else."""
    code = found[1] if (found := _CODE.search(str(error))) else ""
    return isinstance(error, FileNotFoundError) and code in {"", "NoSuchKey", "BlobNotFound"}


def broken_body(key: str, error: Exception) -> OSError:
    """Return the error for an object that the store gives, but never to its end."""
    return OSError(errno.EIO, _summary(str(error), 0, ""), key)


def _place_advice(text: str, status: int, code: str, access: Access) -> str | None:
    """Return what to do if the error is about the whole place and the reason is known."""
    no_bucket = code in _NO_BUCKET or "bucket does not exist" in text
    writes = access is Access.WRITE
    rules = (
        (
            any(host in text for host in _METADATA_SERVICE),
            f"no credentials were found: {_SET}, or AWS_SKIP_SIGNATURE=true for a public bucket",
        ),
        (
            no_bucket or (status == HTTPStatus.NOT_FOUND and access is not Access.READ),
            "make the bucket, or correct its name",
        ),
        (code == "RequestTimeTooSkewed", "set the clock of this machine"),
        (
            code in _REGION or "incorrectly configured region" in text,
            "set AWS_REGION to the region of the bucket",
        ),
        (
            code in _CREDENTIALS or status == HTTPStatus.UNAUTHORIZED,
            f"the credentials are wrong or have expired: {_SET}",
        ),
        (
            status == HTTPStatus.FORBIDDEN and access is not Access.READ,
            f"let these credentials {'write' if writes else 'list the bucket'}, or use others",
        ),
        (
            "HTTP error: builder error" in text,
            "use https for the endpoint, or allow http by AWS_ALLOW_HTTP=true",
        ),
        ("invalid path" in text, "rename that object, or name the others in a list of keys"),
    )
    return next((f"{advice}, {_AGAIN}" for applies, advice in rules if applies), None)


def _summary(text: str, status: int, code: str) -> str:
    """Return one line without the library's own account of what it did."""
    if status:
        message = found[1].partition("\n")[0] if (found := _MESSAGE.search(text)) else ""
        return " ".join(filter(None, (str(status), code))) + (f" ({message.rstrip('.')})" if message else "")
    head = " ".join(text.partition("\n\nDebug source")[0].split())
    causes = _CAUSE.findall(text)
    return f"{head} ({causes[-1]})" if causes else head
