"""What opening a header alone may cost, checked before libvips opens it.

Measured with libvips 8.18.7: it follows every page of a TIFF (65,000 in 7 MB take 0.7 s, 1,000,000 12 s),
looks at every frame of a WebP from the first one on (100,000 in 5 MB take 11 s), and inflates all text of a
PNG (0.4 MB to 400 MB, 0.7 s and 100 MB of memory). GIF is quick: 100,000 frames take 14 ms and 7 MB.
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
"""Bytes of compressed text and profile in a PNG's header, inflated: 15 ms."""

_MOST_INFLATED = 1032
"""Bytes that one byte of deflate can become at most (RFC 1951: a match of 258 bytes in two bits)."""

_PNG = b"\x89PNG\r\n\x1a\n"


def check_opening(upload: Upload) -> None:
    """Raises ``TooLarge`` for a header that would take too long to read."""
    head = upload.head(12)
    if head.startswith(_PNG):
        _check_png(upload)
    elif head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        if layout.tiff_has_more_pages(upload, MOST_PAGES):
            raise too_many_pages(None)
    elif head.startswith(b"RIFF") and head.endswith(b"WEBP"):
        _check_webp(upload)


def too_many_pages(pages: int | None) -> TooLarge:
    """The refusal of a picture with more than ``MOST_PAGES``; ``None`` where they were not all counted."""
    count = f"more than {MOST_PAGES}" if pages is None else f"{pages}"
    return TooLarge(f"the image has {count} pages or frames; {MOST_PAGES} are allowed")


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


def _check_png(upload: Upload) -> None:
    position = len(_PNG)
    texts: list[tuple[bytes, int, int]] = []
    for _ in range(_MOST_CHUNKS):
        head = upload.read(position, 8)
        name, length = head[4:], int.from_bytes(head[:4])
        if len(head) < 8 or name in {b"IDAT", b"IEND"}:  # noqa: PLR2004 - length and name
            break
        if name in {b"zTXt", b"iTXt", b"iCCP"}:
            texts.append((name, position + 8, length))
        position += 12 + length
    else:
        raise TooLarge(f"this png has more than {_MOST_CHUNKS} chunks in front of its pixels")
    if sum(length for _, _, length in texts) * _MOST_INFLATED <= _MOST_TEXT:
        return
    left = _MOST_TEXT
    for name, start, length in texts:
        # What is longer than that compressed is refused for it, so that no more needs to be read.
        left -= _text_size(name, upload.read(start, min(length, _MOST_TEXT + 1)), left)
        if left < 0:
            raise TooLarge(f"the text in this png's header takes more than the {_MOST_TEXT} bytes allowed")


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
