"""Reads and writes the header fields of tus 1.0.0 (https://tus.io/protocols/resumable-upload)."""

import binascii
import hashlib
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from vipsrv.errors import BadRequest, UnsupportedFormat
from vipsrv.printable import printable
from vipsrv.server.http.messages import Headers
from vipsrv.server.http.refusals import PreconditionFailed

VERSION = "1.0.0"

EXTENSIONS = "creation,creation-with-upload,expiration,termination,checksum"

CONTENT_TYPE = "application/offset+octet-stream"
"""The type of the body of a PATCH, and of that of a POST that has one."""

MAX_METADATA = 4096
"""Bytes of an ``Upload-Metadata``."""

ALGORITHMS: dict[str, Callable[[], Any]] = {
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
    "md5": lambda: hashlib.md5(usedforsecurity=False),
}
"""Makes the hash of each algorithm of ``Upload-Checksum``: they find damage. tus asks for sha1."""

_DIGITS = re.compile(r"[0-9]{1,18}", re.ASCII)
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", re.ASCII)
# A key has no space and no comma, and as a field's value it is printable ASCII.
_KEY = re.compile(r"[!-+\--~]{1,255}", re.ASCII)
_SHOWN = 40  # characters of a value in a message


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the hash ``algorithm`` of a body must be."""

    algorithm: str
    digest: bytes

    def new_hash(self) -> Any:
        """Return a hash of this algorithm that has seen no bytes."""
        return ALGORITHMS[self.algorithm]()


def check_version(fields: Mapping[str, str]) -> None:
    """Raise ``PreconditionFailed`` unless a client speaks this version of tus."""
    version = fields.get("tus-resumable")
    if version is None:
        raise PreconditionFailed(f"Tus-Resumable: is missing; this server speaks {VERSION}")
    if version != VERSION:
        raise PreconditionFailed(f"Tus-Resumable: {_shown(version)} is not spoken here; {VERSION} is")


def is_upload_bytes(fields: Mapping[str, str]) -> bool:
    """Whether a body is said to be the bytes of an upload."""
    return fields.get("content-type", "").partition(";")[0].strip(" \t").lower() == CONTENT_TYPE


def check_content_type(fields: Mapping[str, str]) -> None:
    """Raise ``UnsupportedFormat`` unless a body is said to be the bytes of an upload."""
    if not is_upload_bytes(fields):
        found = fields.get("content-type", "")
        raise UnsupportedFormat(f"Content-Type: must be {CONTENT_TYPE}, not {_shown(found)}")


def read_size(fields: Mapping[str, str], name: str) -> int:
    """Return the number of bytes in the field of this name. Raises ``BadRequest``."""
    text = fields.get(name.lower())
    if text is None:
        raise BadRequest(f"{name}: is missing")
    if not _DIGITS.fullmatch(text):
        raise BadRequest(f"{name}: must be a number of bytes, not {_shown(text)}")
    return int(text)


def read_metadata(fields: Mapping[str, str]) -> str | None:
    """Return the ``Upload-Metadata`` as a later reply states it, ``None`` if there is none.

    Pairs of a key and a value in base64; a value may be missing. A pair whose value is not base64 is left
    out, as tusd does: nothing here depends on it. Raises ``BadRequest``.
    """
    text = fields.get("upload-metadata")
    if not text:
        return None
    if len(text) > MAX_METADATA:
        raise BadRequest(f"Upload-Metadata: has {len(text)} bytes; {MAX_METADATA} are allowed")
    keys = set()
    pairs = []
    for pair in text.split(","):
        key, space, value = pair.strip(" \t").partition(" ")
        if not _KEY.fullmatch(key):
            raise BadRequest("Upload-Metadata: a key is empty, or has characters that it must not have")
        if key in keys:
            raise BadRequest(f"Upload-Metadata: the key {_shown(key)} is given twice")
        keys.add(key)
        if _BASE64.fullmatch(value):
            pairs.append(f"{key} {value}" if space and value else key)
    return ",".join(pairs) or None


def read_checksum(fields: Mapping[str, str]) -> Checksum | None:
    """Return the ``Upload-Checksum``, ``None`` if there is none. Raises ``BadRequest``."""
    text = fields.get("upload-checksum")
    if text is None:
        return None
    algorithm, _, value = text.partition(" ")
    if algorithm not in ALGORITHMS:
        raise BadRequest(
            f"Upload-Checksum: {_shown(algorithm)} is not supported; {', '.join(ALGORITHMS)} are"
        )
    try:
        digest = b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("Upload-Checksum: the checksum is not base64") from None
    checksum = Checksum(algorithm, digest)
    size = checksum.new_hash().digest_size
    if len(digest) != size:
        raise BadRequest(f"Upload-Checksum: has {len(digest)} bytes; {algorithm} has {size}")
    return checksum


def supported_headers(max_size: int) -> Headers:
    """Return the fields that tell what this server can do, for uploads of up to ``max_size`` bytes."""
    return (
        ("Tus-Resumable", VERSION),
        ("Tus-Version", VERSION),
        ("Tus-Extension", EXTENSIONS),
        ("Tus-Max-Size", str(max_size)),
        ("Tus-Checksum-Algorithm", ",".join(ALGORITHMS)),
    )


def expires_header(seconds: float) -> tuple[str, str]:
    """Return the field with the time, in seconds since the epoch, at which an upload is given up."""
    return "Upload-Expires", formatdate(seconds, usegmt=True)


def _shown(text: str) -> str:
    return f'"{printable(text[:_SHOWN])}"'
