"""What is said about uploads in requests and replies, whatever the protocol: ids, parts, status, refusals."""

import re
from dataclasses import dataclass
from typing import Any

from vipsrv.errors import BadRequest, Busy, UploadConflict
from vipsrv.options import UploadSlot

NOT_OFFERED = "this server does not offer resumable uploads"

SETTLING_RETRY_MS = 50
"""Milliseconds after which a client may ask again whose upload is just being let go here."""

OTHER_RETRY_MS = 300
"""The same if another gateway has it, which looks twice a second."""

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class UploadStatus:
    """``received`` of ``size`` bytes are held; ``size`` is ``None`` if there is no such upload.

    It ``expires`` at that Unix time. ``metadata`` is what ``create`` got.
    """

    received: int = 0
    size: int | None = None
    expires: float = 0.0
    metadata: bytes = b""


def take_upload(meta: dict[str, Any]) -> tuple[UploadSlot, dict[str, Any]]:
    """Return the ``upload`` in the meta of a request, and the meta without it. Raises ``BadRequest``."""
    rest = dict(meta)
    try:
        return UploadSlot.from_meta(rest.pop("upload")), rest
    except ValueError as error:
        raise BadRequest(str(error)) from None


def check_body(upload: UploadSlot, body_size: int | None) -> None:
    """Raise ``UploadConflict`` if a body of this size is not the rest of an upload."""
    if body_size is not None and upload.offset + body_size != upload.size:
        raise UploadConflict(
            f"upload: an offset of {upload.offset} and a body of {body_size} bytes are not the size of "
            f"{upload.size}"
        )


def check_id(upload_id: object) -> str:
    """Return the id of an upload that a client has sent. Raises ``BadRequest``."""
    if not isinstance(upload_id, str) or not _ID.fullmatch(upload_id):
        raise BadRequest("id: must be 32 lower-case hex digits")
    return upload_id


def in_other_connection() -> Busy:
    """Return the error for who comes before a connection of this process has let go."""
    return Busy(
        "another connection is just ending with this upload: ask again", retry_after_ms=SETTLING_RETRY_MS
    )


def in_other_process() -> Busy:
    """Return the error for who comes before another process has let go."""
    return Busy(
        "another connection is just ending with this upload: ask again", retry_after_ms=OTHER_RETRY_MS
    )
