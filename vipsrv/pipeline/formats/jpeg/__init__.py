"""JPEG: decoded at 1/2, 1/4 or 1/8 of its size if that is enough, with limits on metadata and scans.

============  ====================================================================
``segments``  the segments and scans of a file, read from its bytes
``facts``     what a plain file says of its image, without opening it with libvips
``shrink``    the fraction at which it is decoded
``completion``  completes a file whose end marker is missing
``faults``    says why one is refused
============  ====================================================================
"""

import pyvips

from vipsrv.errors import TooLarge
from vipsrv.options import Chroma, Format
from vipsrv.pipeline import turbo
from vipsrv.pipeline.formats.base import (
    DecodeCost,
    DecodeRequest,
    ImageFormat,
    LibvipsReader,
    LoadedFile,
    ShrinkFor,
    Trial,
    signature,
)
from vipsrv.pipeline.formats.jpeg.completion import completed
from vipsrv.pipeline.formats.jpeg.facts import MULTISCAN, read_facts
from vipsrv.pipeline.formats.jpeg.faults import explain
from vipsrv.pipeline.formats.jpeg.segments import (
    HEAD_COPIES,
    Scans,
    coefficient_bytes,
    count_scans,
    head_size,
    size_of,
)
from vipsrv.pipeline.formats.jpeg.shrink import direct_memory, direct_shrink, shrink_factor
from vipsrv.pipeline.formats.writer import EncodeCost, EncoderEffort, ProgressiveWriting, Writer
from vipsrv.pipeline.header import Decoder, ImageHeader
from vipsrv.pipeline.turbo import codec
from vipsrv.pipeline.turbo.pixels import Pixels
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.operations import PreparedOperation, shape

# Limits
_MAX_HEAD = 16 << 20
"""Bytes before the pixels. Cameras write less than 1 MB; additional images within the metadata (depth, the
other eye) make it several. A colour profile has at most 16.7 MB (255 segments)."""

_MAX_SCANS = Scans(count=100, segments=1 << 20)
"""Encoders make a dozen scans; 2,000 in 0.3 MB take 14 s of CPU for 64 million pixels. Metadata belong before
them; libjpeg keeps those between them as well."""

_MAX_WHOLE_RESULT = 2_100_000
"""Pixels of a result that is put into memory as a whole to be encoded: up to 1920 × 1080."""

_CMYK_PIXEL = 4  # bytes

_COEFFICIENTS = 10
"""Bytes per pixel at quality 95: libjpeg keeps all coefficients of a result to find its Huffman tables, and
to write it in several scans."""

open_at = {
    fail_on: PreparedOperation("jpegload_source", "source", "shrink", access="sequential", fail_on=fail_on)
    for fail_on in ("error", "none")
}
"""By ``fail_on``: an operation that takes a source and a shrink factor and returns the image."""

_save_plain = PreparedOperation("jpegsave_buffer", "in", "Q", output="buffer", keep="none")
"""The encoding that most requests need."""


def _check_metadata(upload: Upload) -> int:
    size = head_size(upload, _MAX_HEAD)
    if size > _MAX_HEAD:
        raise TooLarge(f"this jpeg has more than the {_MAX_HEAD} bytes allowed before its pixels")
    return size * HEAD_COPIES


def _open_shrunk(upload: Upload, fail_on: str, shrink_for: ShrinkFor) -> LoadedFile | None:
    """Open a JPEG at the fraction at which it will probably be decoded, which saves opening it again (0.1
    ms).

    libvips does not report the size of the whole image then. The frame header is trusted only if its size is
    that of the image times the shrink factor, apart from what libvips cuts off. So the limits are
    never checked against a size that libvips does not confirm.
    """
    found = size_of(upload)
    if found is None:
        return None
    *size, is_lossless = found
    if is_lossless:
        # libjpeg decodes all pixels whatever scale it is asked for, and libvips would cut off the most.
        image = open_at[fail_on](upload.source, 1)
        return LoadedFile(image=image, width=size[0], height=size[1], whole_only=True)
    shrink = shrink_for(*size)
    if shrink == 1:
        return None
    image = open_at[fail_on](upload.source, shrink)
    width, height, *_ = shape(image)
    if (width, height) != (size[0] // shrink, size[1] // shrink):
        return None
    return LoadedFile(image=image, width=size[0], height=size[1], shrink=shrink)


def _is_multiscan(header: ImageHeader) -> bool:
    """Whether the decoder holds all coefficients: the JPEG is progressive, or its components come one after
    another.
    """
    return bool(header.field(MULTISCAN) or header.field("interlaced"))


def _check_decode(request: DecodeRequest) -> None:
    if not _is_multiscan(request.header):
        return
    scans = count_scans(request.upload, _MAX_SCANS)
    if scans.count > _MAX_SCANS.count:
        raise TooLarge(f"the image has more than the {_MAX_SCANS.count} scans allowed")
    if scans.segments > _MAX_SCANS.segments:
        raise TooLarge(
            f"the image has more metadata after its first scan than the {_MAX_SCANS.segments} bytes allowed"
        )


def _decode_cost(request: DecodeRequest) -> DecodeCost:
    info, pixel = request.header.info, request.header.pixel_bytes
    target = max(1, int(info.width * request.scale)), max(1, int(info.height * request.scale))
    is_scaled = request.header.decoder is not Decoder.CORRECTED
    shrink = shrink_factor((info.width, info.height), target) if is_scaled else 1
    if pixel == _CMYK_PIXEL:
        # ``thumbnail``, which CMYK goes through, reduces by half of the factor.
        shrink = max(1, shrink // 2)
    size = info.width / shrink, float(info.height)
    held = 0.0
    if turbo.AVAILABLE and is_scaled and pixel != _CMYK_PIXEL:
        direct = direct_shrink((info.width, info.height), target)
        if direct is not None:
            held = direct_memory(request.pixels / direct.bordered**2, request.pixels * request.scale**2)
    if not _is_multiscan(request.header):
        return DecodeCost(seconds=0.0004, size=size, held=held)
    held += coefficient_bytes(request.upload) or request.pixels * 2 * pixel
    return DecodeCost(seconds=0.0013, size=size, held=held)


_CHROMA: dict[Chroma, dict[str, str]] = {
    Chroma.AUTO: {},
    Chroma.HALF: {"subsample_mode": "on"},
    Chroma.FULL: {"subsample_mode": "off"},
}


def _write_plain(image: pyvips.Image, quality: int, chroma: Chroma) -> bytes:
    width, height, *kind = shape(image)
    if turbo.AVAILABLE and width * height <= _MAX_WHOLE_RESULT and kind == [3, "uchar", "srgb"]:
        return codec.encode(Pixels.from_libvips(image), quality, chroma)
    data: bytes
    if chroma is Chroma.AUTO:
        data = _save_plain(image, quality)
    else:
        data = image.jpegsave_buffer(Q=quality, keep="none", **_CHROMA[chroma])
    return data


JPEG = ImageFormat(
    name="jpeg",
    order=10,
    signatures=(signature("JPEG", rb"\xff\xd8\xff"),),
    reader=LibvipsReader(
        loader="jpegload_source",
        family="VipsForeignLoadJpeg",
        trial=Trial(saver="jpegsave_buffer"),
        # Most uploads are JPEGs. Trying every loader in turn takes 0.1 ms, as long as opening the file.
        prefix=b"\xff\xd8\xff",
        check_metadata=_check_metadata,
        read_facts=read_facts,
        open_shrunk=_open_shrunk,
        explain=explain,
        completed=completed,
        check_decode=_check_decode,
        decode_cost=_decode_cost,
    ),
    writer=Writer(
        format=Format.JPEG,
        saver="jpegsave_buffer",
        options={"optimize_coding": False},
        lossy=True,
        lossless=False,
        alpha=False,
        max_side=65_500,  # libjpeg's JPEG_MAX_DIMENSION
        cost=EncodeCost(pixel=1, seconds=0.006),
        # Huffman tables made for the image: docs/decisions/0038-jpeg-by-libjpeg-turbo.md has the table.
        effort=EncoderEffort(
            argument="optimize_coding",
            values=(False,) * 5 + (True,) * 5,
            times=(1.0,) * 5 + (2.5,) * 5,
            memory=(0,) * 5 + (_COEFFICIENTS,) * 5,
        ),
        optimizes=True,
        chroma=_CHROMA,
        progressive=ProgressiveWriting(argument="interlace", times=4, pixel=_COEFFICIENTS),
        save_plain=_write_plain,
    ),
)

FORMATS = (JPEG,)
