"""Small valid images of every format that vipsrv reads with its own code: the start of fuzzing."""

import io
import struct
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from PIL import Image

from tests.support import bitmaps

_SIDES = (7, 5)


def _photo(mode: str = "RGB") -> Image.Image:
    image = Image.linear_gradient("L").resize(_SIDES).convert("RGB")
    image.putpixel((1, 1), (250, 20, 30))
    return image.quantize(16) if mode == "P" else image.convert(mode)


def _bmp() -> Iterator[bytes]:
    for bits in (1, 4, 8):
        yield bitmaps.bitmap(_photo("P").quantize(1 << bits), bits)
    for header in (bitmaps.CORE, bitmaps.INFO, bitmaps.V4, bitmaps.V5):
        yield bitmaps.bitmap(_photo(), 24, header=header)
    yield bitmaps.bitmap(_photo("P"), 8, compression=1)
    yield bitmaps.bitmap(_photo("P"), 4, compression=2)
    yield bitmaps.bitmap(_photo(), 16, masks=bitmaps.RGB565, top_down=True)
    yield bitmaps.bitmap(_photo("RGBA"), 32, header=bitmaps.V5, masks=bitmaps.ARGB8888)


def _pnm() -> Iterator[bytes]:
    width, height = _SIDES
    count = width * height
    for kind in (1, 4):
        yield bitmaps.netpbm(kind, width, height, [number % 2 for number in range(count)], 1)
    for kind in (2, 5):
        yield bitmaps.netpbm(kind, width, height, range(count))
        yield bitmaps.netpbm(kind, width, height, range(count), 1023)
    for kind in (3, 6):
        yield bitmaps.netpbm(kind, width, height, range(3 * count))
    fields = b"WIDTH 7\nHEIGHT 5\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\n"
    yield b"P7\n" + fields + b"ENDHDR\n" + bytes(range(4 * count))


def _ico() -> Iterator[bytes]:
    width, height = _SIDES
    clear = Image.new("1", _SIDES)
    png = io.BytesIO()
    _photo("RGBA").save(png, "PNG")
    yield bitmaps.icon([(width, height, 24, bitmaps.icon_bitmap(_photo(), 24, clear))])
    yield bitmaps.icon([(width, height, 32, bitmaps.icon_bitmap(_photo("RGBA"), 32, clear))])
    yield bitmaps.icon([(width, height, 32, png.getvalue())])


def _tga() -> Iterator[bytes]:
    # Truevision TGA 2.0: type 1 palette, 2 true colour, 3 grey, 8 more where run-length compressed.
    width, height = _SIDES
    count = width * height

    def head(kind: int, bits: int, descriptor: int = 0, colours: int = 0) -> bytes:
        palette = (1 if colours else 0, kind, 0, colours, 24 if colours else 0)
        return struct.pack("<BBBHHBHHHHBB", 0, *palette, 0, 0, width, height, bits, descriptor)

    yield head(1, 8, colours=2) + b"\0\0\xff\xff\0\0" + bytes([0, 1] * count)[:count]
    yield head(2, 24) + bytes(range(3 * count))
    yield head(2, 32, 0x28) + bytes(range(4 * count))
    yield head(3, 8, 0x20) + bytes(range(count))
    # Packets of a run and of single pixels; one for each row.
    yield head(10, 24) + bytes([0x80 | width - 1, 1, 2, 3]) * height
    yield head(11, 8) + bytes([width - 1, *range(width)]) * height


IMAGES: Final[Mapping[str, Callable[[], Iterator[bytes]]]] = MappingProxyType(
    {"bmp": _bmp, "pnm": _pnm, "ico": _ico, "tga": _tga}
)
"""By the name of the format."""
