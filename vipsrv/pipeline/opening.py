"""What opening a header alone may cost, checked before libvips opens it.

Measured with libvips 8.18.7: it follows every page of a TIFF (65,000 in 7 MB take 0.7 s, 1,000,000 12 s),
looks at every frame of a WebP from the first one on (100,000 in 5 MB take 11 s), and inflates all text of a
PNG (0.4 MB to 400 MB, 0.7 s and 100 MB of memory). And it keeps all metadata, in copies. GIF is quick:
100,000 frames take 14 ms and 7 MB.
"""

import zlib

from vipsrv.errors import TooLarge
from vipsrv.pipeline import layout
from vipsrv.pipeline.upload import Upload

MOST_PAGES = 10_000
"""Pages or frames. Only one is ever decoded, so that this bounds the reading of the header: 0.1 s."""

_MOST_CHUNKS = 10_000
"""Of a PNG, in front of its pixels."""

_MOST_TEXT = 8 << 20
"""Bytes of metadata in a PNG's header, text and profiles inflated: 15 ms."""

_TEXT_COPIES = 4
"""Bytes that libvips takes for one of them: 20 texts of 20 MB took 1.7 GB."""

_MOST_HEAD = 16 << 20
"""Bytes of a JPEG in front of its pixels. Cameras write less than 1 MB; further pictures within the metadata,
of depth or for the other eye, make it several. A colour profile has 16.7 MB at most (255 segments)."""

_MOST_DESCRIPTION = 8 << 20
"""Bytes of the descriptions of a TIFF's pages. One of 30 MB kills the process (SIGSEGV), one of 25 passes."""

_MOST_FIELDS = 64 << 20
"""Bytes of all other fields in them, Photoshop's layers among these: 0.1 s. libtiff reads them on every page,
200 times the same 40 MB in 51 s."""

_DESCRIPTION_COPIES = 6
"""Bytes that libvips takes for one of a description; other fields are kept once."""

_HEAD_COPIES = 2
"""Bytes that libjpeg and libvips take for one of them: 500 MB took 1 GB."""

PNG = b"\x89PNG\r\n\x1a\n"
"""How one begins."""


def check_opening(upload: Upload) -> int:
    """The bytes of memory that libvips takes for the metadata. Raises ``TooLarge`` for a header that would
    take too long to read, or too much memory.
    """
    head = upload.head(12)
    if head.startswith(b"\xff\xd8"):
        return _check_jpeg(upload)
    if head.startswith(PNG):
        return _check_png(upload)
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return _check_tiff(upload)
    if head.startswith(b"RIFF") and head.endswith(b"WEBP"):
        _check_webp(upload)
    return 0


def too_many_pages(pages: int | None) -> TooLarge:
    """The refusal of a picture with more than ``MOST_PAGES``; ``None`` where they were not all counted."""
    count = f"more than {MOST_PAGES}" if pages is None else f"{pages}"
    return TooLarge(f"the image has {count} pages or frames; {MOST_PAGES} are allowed")


def _check_tiff(upload: Upload) -> int:
    most = description = others = 0
    for number, fields in enumerate(layout.tiff_fields(upload)):
        if number == MOST_PAGES:
            raise too_many_pages(None)
        description, others = description + fields.description, others + fields.others
        if description > _MOST_DESCRIPTION or others > _MOST_FIELDS:
            raise TooLarge(
                f"this tiff has more metadata than allowed: {_MOST_DESCRIPTION} bytes of descriptions, "
                f"{_MOST_FIELDS} of other fields"
            )
        most = max(most, fields.description * _DESCRIPTION_COPIES + fields.others)
    return most


def _check_webp(upload: Upload) -> None:
    position, frames = 12, 0
    while frames <= MOST_PAGES:
        head = upload.read(position, 8)
        if len(head) < 8:  # noqa: PLR2004 - name and length
            return
        length = int.from_bytes(head[4:], "little")
        position += 8 + length + length % 2
        # Chunks of other names are counted, too: they take as long to step over.
        frames += 1
    raise too_many_pages(None)


def _check_jpeg(upload: Upload) -> int:
    size = layout.jpeg_head_size(upload, _MOST_HEAD)
    if size > _MOST_HEAD:
        raise TooLarge(f"this jpeg has more than the {_MOST_HEAD} bytes allowed in front of its pixels")
    return size * _HEAD_COPIES


def _check_png(upload: Upload) -> int:
    position = len(PNG)
    left = _MOST_TEXT
    packed: list[tuple[bytes, int, int]] = []
    for _ in range(_MOST_CHUNKS):
        head = upload.read(position, 8)
        name, length = head[4:], int.from_bytes(head[:4])
        if len(head) < 8 or name in {b"IDAT", b"IEND"}:  # noqa: PLR2004 - length and name
            break
        # What it says and the file has not got is not read.
        there = min(length, upload.size - position - 8)
        if name in {b"zTXt", b"iTXt", b"iCCP"}:
            packed.append((name, position + 8, there))
        elif name in {b"tEXt", b"eXIf", b"sPLT"}:  # what it does not know libpng steps over
            left -= there
        position += 12 + length
    else:
        raise TooLarge(f"this png has more than {_MOST_CHUNKS} chunks in front of its pixels")
    for name, start, length in packed:
        if left < 0:
            break
        # What is longer than that compressed is refused for it, so that no more needs to be read.
        left -= _text_size(name, upload.read(start, min(length, _MOST_TEXT + 1)), left)
    if left < 0:
        raise TooLarge(f"the metadata in this png's header take more than the {_MOST_TEXT} bytes allowed")
    return (_MOST_TEXT - left) * _TEXT_COPIES


def _text_size(name: bytes, chunk: bytes, most: int) -> int:
    """Bytes that a chunk's text takes, counted no further than one over ``most``."""
    start = chunk.find(b"\0") + 1  # behind the keyword
    if name == b"iTXt":
        if chunk[start : start + 1] != b"\1":
            return len(chunk)
        start = chunk.find(b"\0", chunk.find(b"\0", start + 2) + 1)  # behind language and translated keyword
    try:
        return len(zlib.decompressobj().decompress(chunk[start + 1 :], most + 1))
    except zlib.error:
        return len(chunk)
