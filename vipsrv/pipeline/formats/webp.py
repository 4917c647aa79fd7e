"""WebP: lossy and lossless, still and animated. Its decoder can reduce an image to any size.

Source for the layout of the file: RFC 9649, section 2.
"""

import pyvips

from vipsrv.options import Format
from vipsrv.pipeline.formats.base import (
    DecodeCost,
    DecodeRequest,
    EncodeCost,
    EncoderEffort,
    ImageFormat,
    LibvipsReader,
    Trial,
    Writer,
    signature,
)
from vipsrv.pipeline.limits import MAX_PAGES, too_many_pages
from vipsrv.pipeline.upload import Upload

_LOSSLESS, _LOSSY, _FRAME = b"VP8L", b"VP8 ", b"ANMF"
_FIRST_CHUNK = 12
_RIFF_SIZE = slice(4, 8)
_CHUNK_HEAD = 8
"""Bytes of name and length."""

_FRAME_HEAD = 16
"""Bytes of a frame before the chunks that it holds."""

_MAX_CHUNKS = 32
"""Chunks before the pixels; encoders write five at most: VP8X, ICCP, ANIM, ANMF and ALPH."""


def is_lossless(upload: Upload) -> bool:
    """Whether the (first) image of a WebP is lossless. If more than a few chunks precede it, the answer is
    yes, because lossless is the more expensive kind.
    """
    position, end = _FIRST_CHUNK, _end(upload)
    for _ in range(_MAX_CHUNKS):
        head = upload.read(position, _CHUNK_HEAD)
        if len(head) < _CHUNK_HEAD or position >= end or head[:4] == _LOSSY:
            return False
        if head[:4] == _LOSSLESS:
            return True
        length = int.from_bytes(head[4:], "little")
        position += _CHUNK_HEAD + (_FRAME_HEAD if head[:4] == _FRAME else length + length % 2)
    return True


def _end(upload: Upload) -> int:
    """Return where the chunks end, in bytes, as the file's header states it. What follows is not read."""
    return _CHUNK_HEAD + int.from_bytes(upload.head(_FIRST_CHUNK)[_RIFF_SIZE], "little")


def _check_metadata(upload: Upload) -> int:
    """Raise ``TooLarge`` for too many frames: libvips looks at all of them when it opens the file, and
    100,000 in 5 MB take 11 s.
    """
    position, chunks, end = _FIRST_CHUNK, 0, _end(upload)
    while chunks <= MAX_PAGES:
        head = upload.read(position, _CHUNK_HEAD)
        if len(head) < _CHUNK_HEAD or position >= end:
            return 0
        length = int.from_bytes(head[4:], "little")
        position += _CHUNK_HEAD + length + length % 2
        # Chunks of other kinds count as well: skipping them takes as long.
        chunks += 1
    raise too_many_pages(None)


def _open_scaled(upload: Upload, fail_on: str, page: int, scale: float) -> pyvips.Image:
    """Open a page reduced by the decoder, which takes 67 ms instead of 103 for 3 megapixels."""
    return pyvips.Operation.call(
        "webpload_source", upload.source, scale=scale, page=page, access="sequential", fail_on=fail_on
    )


def _decode_cost(request: DecodeRequest) -> DecodeCost:
    info, scale = request.header.info, request.scale
    # Each frame before the page is also decoded, and may be as large as the canvas or a single pixel.
    return DecodeCost(
        seconds=0.0013,
        held=_held(request),
        size=(info.width * scale, info.height * scale),
        frames=request.page + 1,
    )


def _held(request: DecodeRequest) -> float:
    pixels = request.pixels
    if request.page:
        # A later frame is laid on the canvas of those before it, neither of them reduced.
        return pixels * 8.5
    # The decoder holds the reduced image; if it is lossless or has alpha, it holds the whole image first.
    reduced = pixels * request.scale**2
    if is_lossless(request.upload):
        return 4.3 * pixels + 4.5 * reduced
    return 5 * pixels + 4.5 * reduced if request.header.info.has_alpha else 7.5 * reduced


WEBP = ImageFormat(
    name="webp",
    order=30,
    signatures=(signature("WebP", rb"RIFF....WEBP"),),
    reader=LibvipsReader(
        loader="webpload_source",
        family="VipsForeignLoadWebp",
        trial=Trial(saver="webpsave_buffer"),
        error_beginnings=("webp2vips:",),
        check_metadata=_check_metadata,
        open_scaled=_open_scaled,
        decode_cost=_decode_cost,
    ),
    writer=Writer(
        format=Format.WEBP,
        saver="webpsave_buffer",
        lossy=True,
        lossless=True,
        alpha=True,
        max_side=16_383,  # 14 bits
        effort=EncoderEffort(
            argument="effort",
            values=(0, 1, 2, 3, 4, 5, 6, 6, 6, 6),
            times=(0.3, 0.4, 0.4, 1, 1, 1.1, 2, 2, 2, 2),
            lossless_times=(0.2, 0.5, 0.8, 1, 1, 1.2, 1.2, 1.2, 1.2, 1.2),
        ),
        cost=EncodeCost(pixel=7, alpha=15, seconds=0.04),
        lossless_cost=EncodeCost(pixel=38, alpha=4, base=20 << 20, seconds=0.1),
    ),
)

FORMATS = (WEBP,)
