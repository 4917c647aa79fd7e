"""Several results in one body: the bytes between the results, as ``multipart/mixed`` or as a zip file.

The results themselves stay where they are; their digests are those that the worker has made. The same results
always give the same bytes.
"""

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from vipsrv.errors import TooLarge
from vipsrv.options import OutputInfo
from vipsrv.server.api.negotiation import MIXED, ZIP
from vipsrv.server.api.reply_headers import MEDIA_TYPES, result_field
from vipsrv.workers.channel import TAG_SIZE, ResultDigest

EXTENSIONS = {
    "jpeg": "jpg",
    "png": "png",
    "webp": "webp",
    "avif": "avif",
    "tiff": "tif",
    "gif": "gif",
    "jxl": "jxl",
}
"""The ending of a file name for each format of results."""

_MAX_ZIP = 0xFFFF_FFFE
"""Bytes of a zip file whose sizes and offsets have 32 bits."""

# Zip files: APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16. All integers are little-endian.
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_VERSION = 20  # 2.0
_MADE_BY = 3 << 8 | _VERSION  # Unix, whose permissions are in the external attributes
_MODE = 0o100644 << 16  # a regular file that all may read
_STORED = 0
_TIME, _DATE = 0, 1 << 5 | 1  # 1980-01-01 00:00, the earliest: the time of a request would change the bytes


@dataclass(frozen=True, slots=True)
class Container:
    """The media type of a body, and the bytes that are sent before each offset of the results."""

    media_type: str
    inserts: tuple[tuple[int, bytes], ...]

    def etag(self, digests: Sequence[ResultDigest]) -> str:
        """Return the strong ETag of the whole body."""
        return f'"{_tag(digests, b"".join([inserted for _, inserted in self.inserts]))}"'


def file_names(outputs: Sequence[OutputInfo]) -> list[str]:
    """Return a name for each result: its size, and its number where another one has the same."""
    names = [f"{one.width}x{one.height}" for one in outputs]
    often = Counter(names)
    return [
        f"{name}-{number}.{EXTENSIONS[one.format]}" if often[name] > 1 else f"{name}.{EXTENSIONS[one.format]}"
        for number, (name, one) in enumerate(zip(names, outputs, strict=True), start=1)
    ]


def mixed(outputs: Sequence[OutputInfo], digests: Sequence[ResultDigest]) -> Container:
    """Return what makes results the parts of a ``multipart/mixed`` (RFC 2046, 5.1.3)."""
    # No result has its own digest in it.
    boundary = _tag(digests)
    inserts = []
    offset = 0
    for name, output in zip(file_names(outputs), outputs, strict=True):
        fields = (
            ("Content-Type", MEDIA_TYPES[output.format]),
            ("Content-Length", str(output.size)),
            ("Content-Disposition", f'attachment; filename="{name}"'),
            result_field((output,)),
        )
        head = "".join([f"{field}: {value}\r\n" for field, value in fields])
        before = "\r\n" if offset else ""
        inserts.append((offset, f"{before}--{boundary}\r\n{head}\r\n".encode()))
        offset += output.size
    inserts.append((offset, f"\r\n--{boundary}--\r\n".encode()))
    return Container(f'{MIXED}; boundary="{boundary}"', tuple(inserts))


def zip_file(outputs: Sequence[OutputInfo], digests: Sequence[ResultDigest]) -> Container:
    """Return what makes results the files of a zip file, which are stored as they are.

    Raises ``TooLarge`` for more than 4 GiB.
    """
    inserts = []
    directory = []
    offset = position = 0
    for text, output, digest in zip(file_names(outputs), outputs, digests, strict=True):
        name = text.encode()
        size = output.size
        if position + size > _MAX_ZIP:
            break
        sizes = (digest.crc, size, size, len(name), 0)
        local = _LOCAL.pack(b"PK\3\4", _VERSION, 0, _STORED, _TIME, _DATE, *sizes) + name
        directory.append(
            _CENTRAL.pack(
                *(b"PK\1\2", _MADE_BY, _VERSION, 0, _STORED, _TIME, _DATE, *sizes), 0, 0, 0, _MODE, position
            )
            + name
        )
        inserts.append((offset, local))
        offset += size
        position += len(local) + size
    end = b"".join(directory)
    if len(directory) < len(outputs) or position + len(end) > _MAX_ZIP:
        raise TooLarge(f"the results do not fit into a zip file of 4 GiB; accept {MIXED} instead")
    count = len(directory)
    inserts.append((offset, end + _END.pack(b"PK\5\6", 0, 0, count, count, len(end), position, 0)))
    return Container(ZIP, tuple(inserts))


def _tag(digests: Sequence[ResultDigest], around: bytes = b"") -> str:
    tags = b"".join([one.tag for one in digests])
    return blake2b(tags + around, digest_size=TAG_SIZE).hexdigest()
