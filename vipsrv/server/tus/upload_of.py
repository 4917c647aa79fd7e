"""Finds the upload that a request of HTTP is about: by its path, or by the parameter ``upload``."""

import re
from typing import Any

from vipsrv.errors import BadRequest, Busy, RequestError, UploadConflict
from vipsrv.server.accounts import Account
from vipsrv.server.context import ServerContext
from vipsrv.server.http.messages import HttpRequest
from vipsrv.server.http.refusals import Locked, NotFound
from vipsrv.server.uploads import Uploads, UploadStatus

PARAMETER = "upload"
"""The parameter of ``/resize`` and ``/info`` with the id of the image."""

_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


def find_upload(uploads: Uploads, request: HttpRequest, upload_id: str) -> UploadStatus:
    """Return what is held of an upload that belongs to whoever has sent ``request``.

    Raises ``NotFound``, and ``Locked`` while another connection lets it go.
    """
    try:
        found = uploads.status(sender(request), check_upload_id(upload_id))
    except Busy as busy:
        raise Locked(busy.message, retry_after_ms=busy.retry_after_ms) from None
    if found.size is None:
        raise no_such_upload()
    return found


def take_upload_id(parameters: list[tuple[str, str]]) -> tuple[str | None, list[tuple[str, str]]]:
    """Return the parameter ``upload`` of a query, if it is there, and the others. Raises ``BadRequest``."""
    found = [value for name, value in parameters if name == PARAMETER]
    if not found:
        return None, parameters
    if len(found) > 1:
        raise BadRequest(f"{PARAMETER}: is given twice")
    return found[0], [one for one in parameters if one[0] != PARAMETER]


def upload_meta(context: ServerContext, request: HttpRequest, upload_id: str | None) -> dict[str, Any]:
    """Return what the meta of a RESIZE or INFO says about the complete upload that takes the body's place.

    That is nothing without an id. Raises ``RequestError``.
    """
    if upload_id is None:
        return {}
    if request.body_size != 0:
        raise BadRequest(f"{PARAMETER}: the image is the upload; leave out the body")
    if context.uploads is None or not context.uploads.offered:
        raise no_such_upload()
    found = find_upload(context.uploads, request, upload_id)
    if found.received != found.size:
        raise UploadConflict(
            f"{PARAMETER}: is not complete: {found.received} of {found.size} bytes are held, "
            f"{(found.size or 0) - found.received} are missing"
        )
    if not found.size:
        raise BadRequest("there is no image: its size is 0")
    return {"upload": {"id": upload_id, "size": found.size, "offset": found.size}}


def check_upload_id(upload_id: str) -> str:
    """Return an id that may be one of an upload. Raises ``NotFound``."""
    if not _ID.fullmatch(upload_id):
        raise no_such_upload()
    return upload_id


def no_such_upload() -> RequestError:
    """Return the refusal that does not tell whether an upload is unknown, another's, or has expired."""
    return NotFound("there is no such upload: it has expired, was removed, or is not yours")


def sender(request: HttpRequest) -> Account:
    """Return the account of whoever has sent a request, after that was found out."""
    if request.account is None:
        raise RuntimeError("the sender of this request was not identified")
    return request.account
