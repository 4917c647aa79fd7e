"""QOI, the "Quite OK Image" format: RGB or RGBA, each pixel from the one before or a table of 64.

Every pixel depends on others, so the chunks are decoded one by one in Python. Source: Dominic Szablewski,
"The Quite OK Image Format", version 1.0 (2022).
"""

import struct
from array import array

import pyvips

from vipsrv.errors import CorruptImage
from vipsrv.pipeline.formats.base import (
    MEGA,
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
from vipsrv.pipeline.vips.stopping import StopCheck, stop_if_asked

_HEADER = struct.Struct(">4sIIBB")
_WITH_ALPHA = 4
_MAX_RUN = 62
_PIECE = 1 << 16
"""Bytes between two calls of ``watch``: up to 30 ms."""

_SECONDS_PER_MEGABYTE = 0.35
"""CPU seconds for a million bytes, as measured: most chunks take one or two."""

_RGB, _RGBA = 0xFE, 0xFF
_DIFFERENCE, _LUMA, _RUN = 0x40, 0x80, 0xC0


def open_qoi(upload: Upload, *, tolerant: bool, watch: StopCheck | None) -> BuiltinImage:
    """Read a file's header. Raises ``CorruptImage`` and ``TooLarge``."""
    head = upload.head(_HEADER.size)
    if len(head) < _HEADER.size:
        raise CorruptImage("this qoi ends within its header")
    _, width, height, channels, _space = _HEADER.unpack(head)
    if not width or not height or channels not in {3, 4}:
        raise CorruptImage(f"this qoi has an impossible size of {width} x {height}, or {channels} channels")
    check_sides("qoi", width, height)
    check_decoded_pixels("qoi", width, height)
    has_alpha = channels == _WITH_ALPHA

    def build() -> pyvips.Image:
        pixels = decode(upload.view()[_HEADER.size :], width * height, tolerant=tolerant, watch=watch)
        image = pyvips.Image.new_from_memory(memoryview(pixels).cast("B"), width, height, 4, "uchar")
        return (image if has_alpha else image.extract_band(0, n=3)).copy(interpretation="srgb")

    return BuiltinImage(width=width, height=height, has_alpha=has_alpha, build=build)


def decode(data: memoryview, count: int, *, tolerant: bool, watch: StopCheck | None = None) -> "array[int]":
    """Return ``count`` pixels as RGBA, red in the lowest byte of each number.

    Missing pixels raise ``CorruptImage``; if ``tolerant``, they are 0. Raises the reason of ``watch`` to
    stop.
    """
    if count > _MAX_RUN * len(data) and not tolerant:
        raise CorruptImage(f"this qoi is truncated: its data cannot have {count} pixels")
    pixels = array("I", bytes(4 * count))
    state = _State()
    done = at = 0
    while done < count and at < len(data):
        stop_if_asked(watch)
        piece = bytes(data[at : at + _PIECE])
        done, used = state.decode(piece, pixels, done)
        if used == 0:
            break
        at += used
    if done < count and not tolerant:
        raise CorruptImage(f"this qoi is truncated: its data have {done} of {count} pixels")
    return pixels


class _State:
    """What a chunk may refer to: the ``last`` pixel, and the 64 in the ``table``."""

    def __init__(self) -> None:
        self.table = [0] * 64
        self.last = (0, 0, 0, 255)

    def decode(self, data: bytes, pixels: "array[int]", done: int) -> tuple[int, int]:
        """Decode all whole chunks of ``data`` into ``pixels``; return the pixels that are done, and the bytes
        that were read.
        """
        table, count = self.table, len(pixels)
        red, green, blue, alpha = self.last
        value = red | green << 8 | blue << 16 | alpha << 24
        at, end = 0, len(data)
        while at < end and done < count:
            first = data[at]
            if first < _DIFFERENCE:
                value = table[first]
                red, green, blue, alpha = value & 255, value >> 8 & 255, value >> 16 & 255, value >> 24
                pixels[done] = value
                done += 1
                at += 1
                continue
            if first < _LUMA:
                red = red + (first >> 4 & 3) - 2 & 255
                green = green + (first >> 2 & 3) - 2 & 255
                blue = blue + (first & 3) - 2 & 255
                at += 1
            elif first < _RUN:
                if at + 2 > end:
                    break
                second = data[at + 1]
                change = (first & 63) - 32
                red = red + change + (second >> 4) - 8 & 255
                green = green + change & 255
                blue = blue + change + (second & 15) - 8 & 255
                at += 2
            elif first < _RGB:
                length = min((first & 63) + 1, count - done)
                pixels[done : done + length] = array("I", (value,)) * length
                # As all decoders do: the pixel that is repeated is in the table, except at the beginning.
                table[(red * 3 + green * 5 + blue * 7 + alpha * 11) & 63] = value
                done += length
                at += 1
                continue
            elif first == _RGB:
                if at + 4 > end:
                    break
                red, green, blue = data[at + 1], data[at + 2], data[at + 3]
                at += 4
            else:
                if at + 5 > end:
                    break
                red, green, blue, alpha = data[at + 1], data[at + 2], data[at + 3], data[at + 4]
                at += 5
            value = red | green << 8 | blue << 16 | alpha << 24
            table[(red * 3 + green * 5 + blue * 7 + alpha * 11) & 63] = value
            pixels[done] = value
            done += 1
        self.last = red, green, blue, alpha
        return done, at


def _decode_cost(request: DecodeRequest) -> DecodeCost:
    size = min(request.upload.size, 5 * request.pixels)
    return DecodeCost(held=request.pixels * 4, parsing=size / MEGA * _SECONDS_PER_MEGABYTE)


QOI = ImageFormat(
    name="qoi",
    order=250,
    signatures=(signature("QOI", rb"qoif"),),
    reader=BuiltinReader(
        recognises=lambda _upload, head: head.startswith(b"qoif"), open=open_qoi, decode_cost=_decode_cost
    ),
)

FORMATS = (QOI,)
