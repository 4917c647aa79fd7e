"""Uploads that can be resumed: what has arrived of an image is kept under an id when its connection ends."""

from vipsrv.server.uploads.terms import NOT_OFFERED, UploadStatus, check_body, check_id, take_upload
from vipsrv.server.uploads.uploads import Uploads

__all__ = ["NOT_OFFERED", "UploadStatus", "Uploads", "check_body", "check_id", "take_upload"]
