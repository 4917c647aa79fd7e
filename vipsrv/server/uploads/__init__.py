"""Uploads that can be resumed: what has arrived of an image is kept under an id when its connection ends."""

from vipsrv.server.uploads.uploads import (
    NOT_OFFERED,
    Uploads,
    UploadStatus,
    check_body,
    check_id,
    take_upload,
)

__all__ = ["NOT_OFFERED", "UploadStatus", "Uploads", "check_body", "check_id", "take_upload"]
