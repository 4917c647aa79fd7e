"""PNG: metadata are limited before libvips inflates them; an interlaced image is held in memory as a whole.

Measured with libvips 8.18.7: it inflates all text of a PNG (0.4 MB to 400 MB, 0.7 s and 100 MB of memory),
and keeps all metadata, in copies.
"""

import zlib

import pyvips

from vipsrv.errors import TooLarge
from vipsrv.options import Format
from vipsrv.pipeline.formats.base import (
    DecodeCost,
    DecodeRequest,
    ImageFormat,
    LibvipsReader,
    Trial,
    signature,
)
from vipsrv.pipeline.formats.png import apng
from vipsrv.pipeline.formats.png.chunks import read_notes
from vipsrv.pipeline.formats.png.faults import explain
from vipsrv.pipeline.formats.png.inflate import row_bytes, stored
from vipsrv.pipeline.formats.writer import (
    EncodeCost,
    EncoderEffort,
    PaletteWriting,
    ProgressiveWriting,
    Writer,
)
from vipsrv.pipeline.header import ImageHeader
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.operations import PreparedOperation

MAGIC = b"\x89PNG\r\n\x1a\n"

_MAX_CHUNKS = 10_000
"""Chunks before the pixels."""

_MAX_TEXT = 8 << 20
"""Bytes of metadata in the header, with text and profiles inflated: 15 ms."""

_TEXT_COPIES = 4
"""Bytes of memory that libvips takes per byte of text: 20 texts of 20 MB took 1.7 GB."""

_CHUNK_HEAD = 8
"""Bytes of length and name."""

_MIN_INFLATED, _MAX_INFLATED = 1 << 18, 12 << 20
"""Bytes of decoded pixels. Inflating fewer saves less than opening the image again costs; for more, malloc
gets its memory from the kernel each time, and the page faults take the time that is saved. A job with these
buffers is still a light one."""

_MAX_EXPANDED = 8
"""Bytes of pixels for a byte of the file. Screenshots and drawings expand more, and inflating is so little of
their time that the copies cost more than they save."""

_open = {
    fail_on: PreparedOperation("pngload_source", "source", access="sequential", fail_on=fail_on)
    for fail_on in ("error", "none")
}


def check_metadata(upload: Upload) -> int:
    """Return the bytes of memory that libvips will take for the metadata. Raises ``TooLarge``."""
    position = len(MAGIC)
    left = _MAX_TEXT
    compressed: list[tuple[bytes, int, int]] = []
    for _ in range(_MAX_CHUNKS):
        head = upload.read(position, _CHUNK_HEAD)
        name, length = head[4:], int.from_bytes(head[:4])
        if len(head) < _CHUNK_HEAD or name in {b"IDAT", b"IEND"}:
            break
        # A chunk may claim to be longer than the file.
        present = min(length, upload.size - position - _CHUNK_HEAD)
        if name in {b"zTXt", b"iTXt", b"iCCP"}:
            compressed.append((name, position + _CHUNK_HEAD, present))
        elif name in {b"tEXt", b"eXIf", b"sPLT"}:  # libpng skips chunks that it does not know
            left -= present
        position += 12 + length
    else:
        raise TooLarge(f"this png has more than {_MAX_CHUNKS} chunks before its pixels")
    for name, start, length in compressed:
        if left < 0:
            break
        # Read no more than the limit plus one byte: if even the compressed text is longer, it is refused.
        left -= _text_size(name, upload.read(start, min(length, _MAX_TEXT + 1)), left)
    if left < 0:
        raise TooLarge(f"the metadata in this png's header take more than the {_MAX_TEXT} bytes allowed")
    return (_MAX_TEXT - left) * _TEXT_COPIES


def _text_size(name: bytes, chunk: bytes, limit: int) -> int:
    """Return the inflated size of a chunk's text in bytes. Counting stops at ``limit`` + 1."""
    start = chunk.find(b"\0") + 1  # after the keyword
    if name == b"iTXt":
        if chunk[start : start + 1] != b"\1":
            return len(chunk)
        start = chunk.find(b"\0", chunk.find(b"\0", start + 2) + 1)  # after language and translated keyword
    try:
        return len(zlib.decompressobj().decompress(chunk[start + 1 :], limit + 1))
    except zlib.error:
        return len(chunk)


def _without_resolution(data: bytes) -> bytes:
    """Remove the chunk pHYs, which libvips always writes."""
    position = len(MAGIC)
    while data[position + 4 : position + 8] not in {b"IDAT", b""}:
        end = position + 12 + int.from_bytes(data[position : position + 4])
        if data[position + 4 : position + 8] == b"pHYs":
            return data[:position] + data[end:]
        position = end
    return data


def _reopen(upload: Upload, header: ImageHeader, _page: int, _size: tuple[int, int]) -> pyvips.Image | None:
    """Inflate the pixels now, if the image is neither tiny nor large."""
    if header.region is not None or not _is_inflated_first(upload, header):
        return None
    data = upload.view()
    size = row_bytes(data)
    whole = None if size is None else stored(data, size)
    return None if whole is None else _open[header.fail_on](pyvips.Source.new_from_memory(whole))


def _is_inflated_first(upload: Upload, header: ImageHeader) -> bool:
    size = header.info.width * header.info.height * header.pixel_bytes
    return (
        max(_MIN_INFLATED, upload.size // 2) <= size <= min(_MAX_INFLATED, _MAX_EXPANDED * upload.size)
        and header.sample_bytes == 1
        and not header.field("interlaced")
        and not header.image.get_typeof("cicp-transfer-characteristics")
    )


def _decode_cost(request: DecodeRequest) -> DecodeCost:
    if request.header.frames is not None:
        return _frames_cost(request)
    if request.header.field("interlaced"):
        pixel = request.header.pixel_bytes
        # Each of the seven passes goes over all pixels, for 1 bit (7 ns per pixel) as for RGB (10 ns).
        seconds = 0.0008 + 0.0027 / pixel
        # Of a corrupt one the error does not say that it is the decoder's, so it is decoded a second time.
        return DecodeCost(seconds=seconds, held=request.pixels * pixel, frames=2)
    # The inflated rows, and their copy as a PNG.
    inflated = (
        request.pixels * request.header.pixel_bytes
        if _is_inflated_first(request.upload, request.header)
        else 0
    )
    return DecodeCost(seconds=0.0005, held=2.1 * inflated)


def _frames_cost(request: DecodeRequest) -> DecodeCost:
    # The canvas, the decoded frame, the area that is restored after it, and the file of a frame.
    pixel = request.header.pixel_bytes + request.header.sample_bytes
    held = request.pixels * pixel * 4 + 2 * request.upload.size
    # Blending takes some 40 ns per pixel.
    return DecodeCost(seconds=0.008, held=held, frames=request.page + 1)


PNG = ImageFormat(
    name="png",
    order=20,
    signatures=(signature("PNG", rb"\x89PNG\r\n\x1a\n"),),
    reader=LibvipsReader(
        loader="pngload_source",
        family="VipsForeignLoadPng",
        trial=Trial(saver="pngsave_buffer"),
        decodes_whole=True,
        error_beginnings=("vipspng: libpng read error",),
        check_metadata=check_metadata,
        explain=explain,
        read_notes=read_notes,
        reopen=_reopen,
        count_pages=apng.count_frames,
        open_frames=apng.open_frames,
        decode_cost=_decode_cost,
    ),
    writer=Writer(
        format=Format.PNG,
        saver="pngsave_buffer",
        lossy=False,
        lossless=True,
        alpha=True,
        checks_profile=True,
        without_resolution=_without_resolution,
        # The level of zlib; level 0 would not compress at all.
        effort=EncoderEffort(
            argument="compression",
            values=(1, 1, 2, 3, 4, 5, 6, 7, 8, 9),
            times=(0.6, 0.6, 1, 1, 1, 1, 1, 1, 1.1, 1.5),
        ),
        cost=EncodeCost(pixel=4, alpha=1, seconds=0.008),
        progressive=ProgressiveWriting(argument="interlace", times=1, pixel=4),
        palette=PaletteWriting(
            # docs/decisions/0058-how-results-are-encoded.md has the table.
            options={"palette": True, "effort": 4},
            effort=EncoderEffort(
                argument="effort",
                values=(1, 1, 2, 3, 4, 5, 6, 7, 8, 9),
                times=(0.7, 0.7, 0.7, 0.7, 1, 1.3, 1.8, 3, 3.2, 4),
                memory=(0,) * 5 + (25,) * 5,
            ),
            cost=EncodeCost(pixel=32, seconds=0.06),
        ),
    ),
)

FORMATS = (PNG,)
