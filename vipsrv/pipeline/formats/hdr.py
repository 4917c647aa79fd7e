"""Radiance HDR (RGBE): linear light, three mantissas and an exponent a pixel, plain or run-length encoded.

The light from 0 to 1 becomes sRGB, as libvips does it; what is brighter is cut off. Source: Greg Ward,
"Radiance File Formats" (1991), and "Real Pixels" in Graphics Gems II for the encoding of rows.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyvips

from vipsrv.errors import CorruptImage, UnsupportedFormat
from vipsrv.pipeline.formats.base import (
    MEGA,
    SECONDS_PER_MEGABYTE_PARSED,
    BuiltinImage,
    BuiltinReader,
    DecodeCost,
    DecodeRequest,
    ImageFormat,
    check_decoded_pixels,
    check_sides,
    signature,
)
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.raw_rows import RowLayout, read_rows
from vipsrv.pipeline.vips.stopping import StopCheck, stop_if_asked

_MAX_HEADER = 65_536  # bytes; a header keeps the commands that made the file
_SIZE = re.compile(rb"([-+])([XY]) {1,8}([0-9]{1,10}) {1,8}([-+])([XY]) {1,8}([0-9]{1,10})[ \t\r]{0,8}\n")
_FORMAT = re.compile(rb"^FORMAT=[ \t]{0,8}([^\r\n]{0,64}?)[ \t\r]{0,8}$", re.MULTILINE)
_RGBE, _XYZE = b"32-bit_rle_rgbe", b"32-bit_rle_xyze"
_PIXEL = 4
_ENCODED_WIDTHS = range(8, 32_768)
"""The widths of rows that may be encoded channel by channel."""

_RUN = 128
_REPEAT = (1, 1, 1)
"""The mantissas of a pixel whose exponent says how often the one before is repeated, in older files."""

_FLOAT_ROWS = 2_200 * 12
"""Bytes per pixel of the width: rows of floats that stream, beyond those of 8 bits."""

_SECONDS_PER_ROW = 0.0001
"""CPU seconds for an encoded row, as measured: up to twice as much if all of its pixels are repeated."""

_SECONDS = 0.0015
"""CPU seconds per million bytes of RGBA, about half of what the conversion takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HdrHeader:
    """``across`` and ``down`` are the pixels of a row and the rows, as stored. With ``by_columns`` a row goes
    along the y axis of the upright image.
    """

    across: int
    down: int
    is_xyz: bool
    by_columns: bool
    from_right: bool
    from_bottom: bool
    offset: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright image."""
        return (self.down, self.across) if self.by_columns else (self.across, self.down)


def open_hdr(upload: Upload, *, tolerant: bool, watch: StopCheck | None) -> BuiltinImage:
    """Read a file's header. Raises ``CorruptImage``, ``UnsupportedFormat`` and ``TooLarge``."""
    header = parse_header(upload.head(_MAX_HEADER))
    width, height = header.size
    return BuiltinImage(
        width=width,
        height=height,
        has_alpha=False,
        build=lambda: _build(upload.view(), header, tolerant=tolerant, watch=watch),
    )


def parse_header(data: bytes) -> HdrHeader:
    """Parse the lines up to the size. Raises ``CorruptImage``, ``UnsupportedFormat`` and ``TooLarge``."""
    end = re.search(rb"\n\r?\n", data)
    size = _SIZE.match(data, end.end()) if end else None
    if end is None or size is None:
        raise CorruptImage("the header of this hdr has no end, or no size after it")
    said = _FORMAT.search(data, 0, end.start())
    kind = said[1] if said else _RGBE
    if kind not in {_RGBE, _XYZE}:
        raise UnsupportedFormat(f"this hdr has the format {kind!r}, which vipsrv does not read")
    first_sign, first_axis, first, second_sign, second_axis, second = size.groups()
    down, across = int(first), int(second)
    if first_axis == second_axis or not down or not across:
        raise CorruptImage(f"this hdr has an impossible size of {across} x {down}")
    check_sides("hdr", across, down)
    by_columns = first_axis == b"X"
    x_sign, y_sign = (first_sign, second_sign) if by_columns else (second_sign, first_sign)
    return HdrHeader(
        across=across,
        down=down,
        is_xyz=kind == _XYZE,
        by_columns=by_columns,
        from_right=x_sign == b"-",
        from_bottom=y_sign == b"+",
        offset=size.end(),
    )


def _build(view: memoryview, header: HdrHeader, *, tolerant: bool, watch: StopCheck | None) -> pyvips.Image:
    data = view[header.offset :]
    if is_plain(data, header):
        stride = header.across * _PIXEL
        layout = RowLayout(offset=0, stride=stride, used=stride, height=header.down, pixel=_PIXEL)
        image = read_rows(data, layout, "hdr", tolerant=tolerant)
    else:
        pixels = decode_rows(data, header.across, header.down, tolerant=tolerant, watch=watch)
        image = pyvips.Image.new_from_memory(pixels, header.across, header.down, _PIXEL, "uchar")
    if header.by_columns:
        # A row goes along the y axis: mirror at the diagonal.
        image = image.rot90().flip("horizontal")
    if header.from_right:
        image = image.flip("horizontal")
    if header.from_bottom:
        image = image.flip("vertical")
    light = image.copy(coding="rad", interpretation="scrgb").rad2float()
    if header.is_xyz:
        # libvips' XYZ has 100 for the light of white.
        light = (light * 100).copy(interpretation="xyz")
    return light.colourspace("srgb")


def is_plain(data: memoryview, header: HdrHeader) -> bool:
    """Whether the rows are pixels without any encoding: they fill the file, and the first one does not begin
    as encoded ones do.
    """
    if len(data) != header.across * header.down * _PIXEL or _is_by_channel(data, header.across):
        return False
    pixels = np.frombuffer(data, np.uint8).reshape(-1, _PIXEL)
    return not np.all(pixels[: 1 << 20, :3] == _REPEAT, axis=1).any()


def _is_by_channel(data: memoryview, width: int) -> bool:
    return width in _ENCODED_WIDTHS and bytes(data[:4]) == bytes((2, 2, width >> 8, width & 255))


def decode_rows(
    data: memoryview, width: int, height: int, *, tolerant: bool, watch: StopCheck | None = None
) -> bytearray:
    """Return the pixels of an encoded image, four bytes each.

    Each row is encoded channel by channel, or by repeated pixels. Rows that are missing raise
    ``CorruptImage``; if ``tolerant``, they are 0. Raises ``TooLarge`` and the reason of ``watch`` to stop.
    """
    check_decoded_pixels("run-length encoded hdr", width, height)
    pixels = bytearray(width * height * _PIXEL)
    at, stride = 0, width * _PIXEL
    for number in range(height):
        stop_if_asked(watch)
        decode: Callable[[memoryview, int], tuple[bytes, int]]
        decode = _by_channel if _is_by_channel(data[at : at + 4], width) else _by_pixel
        row, used = decode(data[at:], width)
        if len(row) < stride:
            if not tolerant:
                raise CorruptImage(f"this hdr is truncated: it ends in row {number + 1} of {height}")
            break
        pixels[number * stride : (number + 1) * stride] = row
        at += used
    return pixels


def _by_channel(data: memoryview, width: int) -> tuple[bytes, int]:
    """Decode a row: packets of a run or of single bytes, for each of the four channels."""
    encoded = bytes(data[: 4 + 2 * _PIXEL * width])
    at, end = 4, len(encoded)
    row = bytearray(width * _PIXEL)
    for channel in range(_PIXEL):
        parts, done = [], 0
        while done < width and at < end:
            count = encoded[at]
            if count > _RUN:
                count -= _RUN
                parts.append(encoded[at + 1 : at + 2] * count)
                at += 2
            elif count == 0:
                return b"", at
            else:
                parts.append(encoded[at + 1 : at + 1 + count])
                at += 1 + count
            done += count
        values = b"".join(parts)[:width]
        if len(values) < width:
            return b"", at
        row[channel::_PIXEL] = values
    return bytes(row), at


def _by_pixel(data: memoryview, width: int) -> tuple[bytes, int]:
    """Decode a row of pixels. Several repeats in succession are the digits of one count, the lowest first."""
    pixels = np.frombuffer(data[: min(len(data) // _PIXEL, width) * _PIXEL], np.uint8).reshape(-1, _PIXEL)
    repeats = np.all(pixels[:, :3] == _REPEAT, axis=1)
    if not repeats.any():
        return pixels.tobytes(), pixels.size
    numbers = np.arange(len(pixels))
    # A repeat stands for the last pixel that is none.
    sources = np.maximum.accumulate(np.where(repeats, 0, numbers))
    # No row is longer than three digits say.
    digit = np.minimum(numbers - sources - 1, 2)
    counts = np.where(repeats, np.minimum(pixels[:, 3].astype(np.int64) << (8 * digit).clip(0), width), 1)
    ends = np.cumsum(counts)
    used = min(int(np.searchsorted(ends, width)) + 1, len(pixels))
    sources = sources[:used]
    row = np.repeat(pixels[sources], counts[:used], axis=0)[:width]
    return row.tobytes(), used * _PIXEL


def _decode_cost(request: DecodeRequest) -> DecodeCost:
    header = parse_header(request.upload.head(_MAX_HEADER))
    streamed = request.header.info.width * _FLOAT_ROWS
    if request.upload.size - header.offset == request.pixels * _PIXEL:
        # Almost certainly without encoding.
        return DecodeCost(held=streamed, seconds=_SECONDS)
    return DecodeCost(
        held=request.pixels * _PIXEL + streamed,
        seconds=_SECONDS,
        parsing=request.upload.size / MEGA * SECONDS_PER_MEGABYTE_PARSED + header.down * _SECONDS_PER_ROW,
    )


HDR = ImageFormat(
    name="hdr",
    order=270,
    signatures=(signature("Radiance HDR", rb"#\?(RADIANCE|RGBE)"),),
    reader=BuiltinReader(
        recognises=lambda _upload, head: head.startswith((b"#?RADIANCE", b"#?RGBE")),
        open=open_hdr,
        decode_cost=_decode_cost,
    ),
)

FORMATS = (HDR,)
