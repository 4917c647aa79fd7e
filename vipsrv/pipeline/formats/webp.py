"""WebP: lossy and lossless, still and animated. Its decoder can reduce an image to any size.

Source for the layout of the file: RFC 9649, section 2.
"""

import pyvips

from vipsrv.options import Chroma, Format
from vipsrv.pipeline import libwebp
from vipsrv.pipeline.formats.base import (
    DecodeCost,
    DecodeRequest,
    ImageFormat,
    LibvipsReader,
    Trial,
    frames_of_roll,
    signature,
)
from vipsrv.pipeline.formats.writer import EncodeCost, EncoderEffort, Writer
from vipsrv.pipeline.header import ImageHeader
from vipsrv.pipeline.limits import MAX_PAGES, too_many_pages
from vipsrv.pipeline.orientation import Region
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.fields import SEQUENTIAL, with_metadata
from vipsrv.pipeline.vips.operations import PreparedOperation, shape

_LOSSLESS, _LOSSY, _ALPHA, _FRAME = b"VP8L", b"VP8 ", b"ALPH", b"ANMF"
_FIRST_CHUNK = 12
_RIFF_SIZE = slice(4, 8)
_CHUNK_HEAD = 8
"""Bytes of name and length."""

_ALPHA_FLAG = 0x10
"""Of the first byte of the chunk VP8X."""

_FRAME_HEAD = 16
"""Bytes of a frame before the chunks that it holds."""

_MAX_CHUNKS = 32
"""Chunks before the pixels; encoders write five at most: VP8X, ICCP, ANIM, ANMF and ALPH."""
_ANIMATION = "loop"
"""The field that libvips sets for an animation, even one of a single frame, and for nothing else."""

_ENCODED_BANDS = {3, 4}
_MAX_UNINTERRUPTED = 2_000_000
"""Pixels of a result: 0.2 s of encoding."""

_save_plain = PreparedOperation("webpsave_buffer", "in", "Q", output="buffer", keep="none")


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


def _explain(upload: Upload, _text: str) -> str | None:
    """Return what is wrong with the chunks, of which libwebp says only that it cannot parse them."""
    end = _end(upload)
    if end > upload.size:
        return f"it is truncated: its header states {end} bytes, of which {upload.size} are there"
    position = _FIRST_CHUNK
    for _ in range(_MAX_CHUNKS):
        head = upload.read(position, _CHUNK_HEAD)
        name, length = head[:4], int.from_bytes(head[4:], "little")
        if len(head) < _CHUNK_HEAD or position >= end:
            return "it has no image: there is no chunk VP8, VP8L or ANMF"
        if position + _CHUNK_HEAD + length > upload.size:
            return f"a chunk at byte {position} is longer than the file"
        if name in {_LOSSY, _LOSSLESS, _FRAME}:
            return None
        position += _CHUNK_HEAD + length + length % 2
    return None


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


def _reopen(upload: Upload, header: ImageHeader, page: int, size: tuple[int, int]) -> pyvips.Image | None:
    """Open a page, or a part of it, reduced by the decoder, which keeps its proportions."""
    info = header.info
    if page and not info.has_alpha:
        # A frame that does not fill the canvas cannot be reduced, and nearly all have alpha then.
        return None
    scale = max(size[0] / info.width, size[1] / info.height)
    pixels = None
    if libwebp.is_available() and not header.image.get_typeof(_ANIMATION):
        pixels = _pixel_chunks(upload)
    if pixels is not None:
        return _decode_still(upload.view()[pixels], header, scale, size)
    if scale == 1 or header.region is not None:
        return None
    return pyvips.Operation.call(
        "webpload_source", upload.source, scale=scale, page=page, access="sequential", fail_on=header.fail_on
    )


def _pixel_chunks(upload: Upload) -> slice | None:
    """Find the chunks of a still image that hold its pixels: the image and, before it, its alpha.

    Given more, libwebp would read beyond the end of an image that is too short. ``None`` if there is no image
    among the first chunks.
    """
    position, start = _FIRST_CHUNK, 0
    for _ in range(_MAX_CHUNKS):
        head = upload.read(position, _CHUNK_HEAD)
        name, length = head[:4], int.from_bytes(head[4:], "little")
        end = position + _CHUNK_HEAD + length + length % 2
        if name in {_LOSSY, _LOSSLESS}:
            return slice(start or position, end)
        if name == _ALPHA:
            start = start or position
        position = end
    return None


def _decode_still(data: memoryview, header: ImageHeader, scale: float, size: tuple[int, int]) -> pyvips.Image:
    """Decode the whole image, or the part of it, now. Raises ``CorruptImage``."""
    whole, region = header.source.info, header.region
    if region is not None and (region.left % 2 or region.top % 2):
        # libwebp cuts at even pixels, where the colours of lossy images are.
        even = Region(
            region.left - region.left % 2,
            region.top - region.top % 2,
            region.width + region.left % 2,
            region.height + region.top % 2,
        )
        image = libwebp.decode(data, (whole.width, whole.height), even[2:], header.shape.bands, even)
        image = image.crop(region.left % 2, region.top % 2, region.width, region.height)
        return _like_opened(image, header)
    stored = header.info.width, header.info.height
    scaled = max(1, round(stored[0] * scale)), max(1, round(stored[1] * scale))
    is_rounded = all(abs(wanted - side * scale) < 1 for side, wanted in zip(stored, size, strict=True))
    if is_rounded and not header.info.has_alpha:
        # A proportional result whose sides are whole numbers needs no second reduction by a part of a pixel.
        scaled = size
    image = libwebp.decode(data, (whole.width, whole.height), scaled, header.shape.bands, region)
    return _like_opened(image, header)


def _like_opened(image: pyvips.Image, header: ImageHeader) -> pyvips.Image:
    image = with_metadata(image, header.image)
    image.remove(SEQUENTIAL)
    return image


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


def _write_plain(image: pyvips.Image, quality: int, _chroma: Chroma) -> bytes:
    width, height, bands, band_format, _ = shape(image)
    # libvips can stop an encode in the middle, libwebp called like this cannot.
    is_small = width * height <= _MAX_UNINTERRUPTED
    if libwebp.is_available() and is_small and band_format == "uchar" and bands in _ENCODED_BANDS:
        return libwebp.encode(image, quality)
    result: bytes = _save_plain(image, quality)
    return result


def _mark_transparent(data: bytes) -> bytes:
    """Set the flag for alpha of an animation.

    libwebp sets it only if a frame has transparent pixels. Frames that do not cover the canvas leave it
    transparent as well, and readers that trust the flag, Pillow among them, would show black.
    """
    if data[_FIRST_CHUNK : _FIRST_CHUNK + 4] != b"VP8X":
        return data
    marked = bytearray(data)
    marked[_FIRST_CHUNK + _CHUNK_HEAD] |= _ALPHA_FLAG
    return bytes(marked)


def _count_frames(data: bytes) -> int:
    """Count the frames of a result: the encoder makes equal ones a single frame that is shown for longer."""
    position, frames = _FIRST_CHUNK, 0
    while position + _CHUNK_HEAD <= len(data):
        frames += data[position : position + 4] == _FRAME
        length = int.from_bytes(data[position + 4 : position + _CHUNK_HEAD], "little")
        position += _CHUNK_HEAD + length + length % 2
    return max(1, frames)


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
        explain=_explain,
        reopen=_reopen,
        open_frames=frames_of_roll("webpload_source"),
        decode_cost=_decode_cost,
    ),
    writer=Writer(
        format=Format.WEBP,
        saver="webpsave_buffer",
        lossy=True,
        lossless=True,
        alpha=True,
        animation={},
        max_delay=2**24 - 1,
        mark_transparent=_mark_transparent,
        count_frames=_count_frames,
        max_side=16_383,  # 14 bits
        options={"effort": 4},
        effort=EncoderEffort(
            argument="effort",
            values=(0, 1, 2, 3, 4, 5, 6, 6, 6, 6),
            times=(0.3, 0.4, 0.4, 1, 1, 1.1, 2, 2, 2, 2),
            lossless_times=(0.2, 0.5, 0.8, 1, 1, 1.2, 1.2, 1.2, 1.2, 1.2),
        ),
        chroma={Chroma.AUTO: {}, Chroma.HALF: {}},  # RFC 9649, 3: VP8 has no other
        cost=EncodeCost(pixel=7, alpha=15, seconds=0.04),
        lossless_cost=EncodeCost(pixel=38, alpha=4, base=20 << 20, seconds=0.1),
        save_plain=_write_plain,
    ),
)

FORMATS = (WEBP,)
