"""Small valid images of every format that vipsrv reads with its own code: the start of fuzzing."""

import io
import struct
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from PIL import Image

from tests.support import bitmaps, rare_formats

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


def _dib() -> Iterator[bytes]:
    for whole in _bmp():
        yield whole[14:]  # without the file header


def _psd() -> Iterator[bytes]:
    planes = np.asarray(_photo("RGBA")).transpose(2, 0, 1)
    profile = rare_formats.resource(1039, bytes(128))
    for compression in range(4):
        yield rare_formats.psd(planes, 3, 8, compression=compression, layers=-1, resources=profile)
        yield rare_formats.psd(planes[:3].astype(np.uint16) * 257, 3, 16, compression=compression, large=True)
        yield rare_formats.psd(planes[:1] / 255, 1, 32, compression=compression)
    yield rare_formats.psd(planes, 4, 8)
    yield rare_formats.psd(planes[:3], 9, 8, blocks=b"8BIMMt16" + bytes(4))
    yield rare_formats.psd(
        planes[:1], 2, 8, palette=bytes(range(256)) * 3, resources=rare_formats.resource(1047, b"\0\1")
    )
    yield rare_formats.psd(planes[:1], 0, 1, compression=0)
    yield rare_formats.psd(planes[:3], 3, 8, resources=rare_formats.resource(1057, bytes(5)))


def _dds() -> Iterator[bytes]:
    width, height = _SIDES
    data = bytes(range(7, 255)) * 2
    for letters in (b"DXT1", b"DXT2", b"DXT3", b"DXT5", b"ATI1", b"ATI2", b"BC4S", b"BC5S"):
        yield rare_formats.dds(width, height, data[:64], letters=letters)
    for dxgi in (24, 28, 56, 61, 65, 71, 85, 88, 115):
        yield rare_formats.dds(width, height, data[:140], dxgi=dxgi)
    yield rare_formats.dds(
        width, height, data[:140], flags=0x41, bits=32, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF << 24)
    )
    yield rare_formats.dds(width, height, data[:105], flags=0x40, bits=24, masks=(0xFF0000, 0xFF00, 0xFF, 0))
    yield rare_formats.dds(width, height, data[:70], flags=0x20001, bits=16, masks=(0xFF, 0, 0, 0xFF00))
    yield rare_formats.dds(width, height, data[:35] * 31, flags=0x20, bits=8)


def _pcx() -> Iterator[bytes]:
    width, height = _SIDES
    row = bytes(range(0xBC, 0xC4))
    for bits, planes in ((1, 1), (2, 1), (4, 1), (1, 4), (8, 1), (8, 3), (8, 4)):
        for encoded in (True, False):
            yield rare_formats.pcx(width, [[row] * planes] * height, bits, encoded=encoded)
    yield rare_formats.pcx(width, [[row]] * height, 8, colours=bytes(range(256)) * 3)


def _sgi() -> Iterator[bytes]:
    pixels = np.asarray(_photo("RGBA"))
    for encoded in (True, False):
        for channels in (1, 2, 3, 4):
            yield rare_formats.sgi(pixels[..., :channels], encoded=encoded)
        yield rare_formats.sgi(pixels.astype(np.uint16) * 257, encoded=encoded)


def _qoi() -> Iterator[bytes]:
    width, height = _SIDES
    for channels in (3, 4):
        head = struct.pack(">4sIIBB", b"qoif", width, height, channels, 0)
        chunks = b"\xfe\1\2\3" + b"\xff\4\5\6\7" + b"\xa0\x88" + b"\x6a" + b"\x17" + b"\xc2" + b"\xdb"
        yield head + chunks + bytes(7) + b"\1"


def _hdr() -> Iterator[bytes]:
    pixels = rare_formats.rgbe(np.asarray(_photo().resize((9, 5))) / 200)
    for encoded in ("channels", "pixels", "plain"):
        yield rare_formats.hdr(pixels, encoded=encoded)
    yield rare_formats.hdr(pixels, encoded="plain", size="+X {height} -Y {width}", kind="xyze")
    yield rare_formats.hdr(np.repeat(pixels[:, :1], 600, axis=1), encoded="pixels")


IMAGES: Final[Mapping[str, Callable[[], Iterator[bytes]]]] = MappingProxyType(
    {
        "bmp": _bmp,
        "pnm": _pnm,
        "ico": _ico,
        "psd": _psd,
        "dds": _dds,
        "qoi": _qoi,
        "sgi": _sgi,
        "hdr": _hdr,
        "pcx": _pcx,
        "dib": _dib,
        "tga": _tga,
    }
)
"""By the name of the format."""
