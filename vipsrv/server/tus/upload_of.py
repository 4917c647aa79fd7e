"""Finds the upload that a request of HTTP is about."""

import re

from vipsrv.errors import Busy, RequestError
from vipsrv.server.accounts import Account
from vipsrv.server.http.messages import HttpRequest
from vipsrv.server.http.refusals import Locked, NotFound
from vipsrv.server.uploads import Uploads, UploadStatus

_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


def find_upload(uploads: Uploads, request: HttpRequest, upload_id: str) -> UploadStatus:
    """Return what is held of an upload that belongs to whoever has sent ``request``.

    Raises ``NotFound``, and ``Locked`` while another connection lets it go.
    """
    if not _ID.fullmatch(upload_id):
        raise no_such_upload()
    try:
        found = uploads.status(sender(request), upload_id)
    except Busy as busy:
        raise Locked(busy.message, retry_after_ms=busy.retry_after_ms) from None
    if found.size is None:
        raise no_such_upload()
    return found


def no_such_upload() -> RequestError:
    """Return the refusal that does not tell whether an upload is unknown, another's, or has expired."""
    return NotFound("there is no such upload: it has expired, was removed, or is not yours")


def sender(request: HttpRequest) -> Account:
    """Return the account of whoever has sent a request, after that was found out."""
    if request.account is None:
        raise RuntimeError("the sender of this request was not identified")
    return request.account
