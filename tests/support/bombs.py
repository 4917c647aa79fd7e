"""Small files that would take gigabytes or minutes to decode; their names say how.

Sources of the formats: GIF89a, TIFF 6.0, PNG (third edition), JPEG (T.81), WebP (RFC 9649), and
for AVIF ISO/IEC 14496-12 and 23008-12 (6.6.2.3, derived image items of type grid).
"""

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from PIL import Image

from tests.support.images import encode

SIDE: Final = 65_500
_LONG: Final = 4


def png_chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, *, bits: int = 8, interlaced: bool = False, before: bytes = b"") -> bytes:
    """A black grey-scale PNG that ends after 2,000 rows. `before` are chunks to put before the pixels."""
    row = bytes(1 + -(-width * bits // 8))
    deflate = zlib.compressobj(9)
    pixels = b"".join(deflate.compress(row) for _ in range(min(height, 2000))) + deflate.flush()
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, interlaced)
    chunks = png_chunk(b"IHDR", head) + before + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def text_png(count: int = 8, size: int = 50_000_000) -> bytes:
    """A PNG whose header holds `count` compressed texts of `size` bytes each."""
    return png(16, 16, before=png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(size), 9)) * count)


def progressive_jpeg(side: int = SIDE, padding: int = 300_000) -> bytes:
    """A progressive JPEG that claims to be `side` x `side`, with the scans of a small one and padding."""
    small = encode(Image.new("RGB", (64, 64), (90, 120, 40)), "JPEG", progressive=True)
    frame = small.index(b"\xff\xc2") + 5
    return small[:frame] + struct.pack(">HH", side, side) + small[frame + 4 :] + bytes(padding)


def jpeg_scans(count: int, side: int = 8000) -> bytes:
    """A progressive grey JPEG of `count` scans that cover every pixel and change none."""

    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(body)) + body

    def packed(bits: str) -> bytes:
        bits += "1" * (-len(bits) % 8)
        return int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")

    blocks = (-(-side // 8)) ** 2
    one_code = bytes([1] + [0] * 15)  # a Huffman table whose only code is a zero
    # DC differences of no bits; for AC the symbol that ends 2**14 blocks and as many more as 14 bits say.
    tables = segment(0xC4, b"\0" + one_code + b"\0") + segment(0xC4, b"\x10" + one_code + b"\xe0")
    tables += segment(0xDB, b"\0" + bytes([1] * 64))
    frame = segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\x01\x11\0")
    first = segment(0xDA, b"\x01\x01\0\0\0\0") + bytes(-(-blocks // 8))
    scan = segment(0xDA, b"\x01\x01\0\x01\x3f\0") + packed(("0" + "1" * 14) * -(-blocks // 32_767))
    return b"\xff\xd8" + tables + frame + first + scan * (count - 1) + b"\xff\xd9"


def gif_frames(count: int, width: int = 1, height: int = 1) -> bytes:
    """A GIF of `count` frames of one pixel each on a canvas of this size."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes([0, 0, 0, 255, 255, 255])
    frame = b"!\xf9\x04\x04\x01\0\0\0," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return head + frame * count + b";"


def large_gif(side: int = 30_000) -> bytes:
    """A GIF with a single frame of `side` x `side` pixels and the data of one pixel."""
    head = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes([0, 0, 0, 255, 255, 255])
    return head + b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02\x44\x01\0;"


def _tiff(directories: Sequence[Sequence[tuple[int, int, int]]], data: bytes) -> bytes:
    """A little-endian TIFF: directories of (tag, type, value) one after another, and then `data`."""
    out, at = bytearray(struct.pack("<2sHI", b"II", 42, 8)), 8
    for number, fields in enumerate(directories):
        at += 2 + 12 * len(fields) + 4
        out += struct.pack("<H", len(fields))
        for tag, kind, value in fields:
            out += struct.pack("<HHII", tag, kind, 1, value)
        out += struct.pack("<I", at if number + 1 < len(directories) else 0)
    return bytes(out) + data


def _grey_tiff(
    width: int, height: int, pages: int = 1, *, tile: int | None = None, compression: int = 1
) -> bytes:
    fields = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, compression), (262, 3, 1)]
    if tile is None:
        fields += [(273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, 64)]
    else:
        fields += [(277, 3, 1), (322, 4, tile), (323, 4, tile), (324, 4, 8), (325, 4, 64)]
    return _tiff([fields] * pages, bytes(4096))


def tiff_fields(more: Mapping[int, tuple[int, int]], pages: int = 1) -> bytes:
    """A grey TIFF of 16 x 16 pixels with `more` fields on each of its pages. `more` maps a tag to the type
    and the size in bytes of its values; all fields share the same values at the end of the file.
    """
    pixels, each = bytes(256), 9 + len(more)
    at = 8 + pages * (2 + 12 * each + 4)
    out = bytearray(struct.pack("<2sHI", b"II", 42, 8))
    fields = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 273: at, 277: 1, 278: 16, 279: len(pixels)}
    entries = {tag: (4, 1, value) for tag, value in fields.items()}
    for tag, (kind, size) in more.items():
        entries[tag] = (kind, size // 4 if kind == _LONG else size, at + len(pixels))
    for page in range(pages):
        out += struct.pack("<H", len(entries))
        for tag, entry in sorted(entries.items()):
            out += struct.pack("<HHII", tag, *entry)
        out += struct.pack("<I", len(out) + 4 if page + 1 < pages else 0)
    values = max((size for _, size in more.values()), default=0)
    return bytes(out) + pixels + b"a" * (values - 1) + b"\0"


def webp_frames(count: int) -> bytes:
    """An animated WebP of `count` frames of 16 x 16 pixels."""
    image = encode(Image.new("RGB", (16, 16), (1, 2, 3)), "WEBP", lossless=True)[12:]
    frame = bytes(6) + b"\x0f\0\0\x0f\0\0\x64\0\0\0" + image
    chunks = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0\x0f\0\0\x0f\0\0" + b"ANIM" + struct.pack("<I", 6)
    chunks += bytes(6) + (b"ANMF" + struct.pack("<I", len(frame)) + frame + bytes(len(frame) % 2)) * count
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + name + body


def _full(name: bytes, *parts: bytes, version: int = 0) -> bytes:
    return _box(name, struct.pack(">I", version << 24), *parts)


def avif_grid(
    rows: int = 15,
    columns: int = 15,
    side: int = 1024,
    *,
    shown: tuple[int, int] | None = None,
    aperture: tuple[int, int] | None = None,
) -> bytes:
    """An AVIF of `rows` x `columns` tiles, which are all the same image of `side` x `side` pixels.

    The grid shows the top left `shown` (width and height) of them, and the file a clean `aperture` of that.
    """
    tile = encode(Image.new("RGB", (side, side), (90, 120, 40)), "AVIF", quality=50)
    start = tile.index(b"av1C") - 4
    settings = tile[start : start + int.from_bytes(tile[start : start + 4])]
    at = tile.index(b"mdat") - 4
    payload = tile[at + 8 : at + int.from_bytes(tile[at : at + 4])]
    width, height = shown or (columns * side, rows * side)
    grid = struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, width, height)
    items = [
        _full(b"infe", struct.pack(">HH", n, 0), kind, b"\0", version=2)
        for n, kind in ((1, b"grid"), (2, b"av01"))
    ]
    properties = _box(
        b"ipco",
        _full(b"ispe", struct.pack(">II", width, height)),
        _full(b"ispe", struct.pack(">II", side, side)),
        settings,
        _full(b"pixi", b"\3\x08\x08\x08"),
        # Width, height and the two offsets of the centre, as fractions.
        *(
            [_box(b"clap", struct.pack(">8I", aperture[0], 1, aperture[1], 1, 0, 1, 0, 1))]
            if aperture
            else []
        ),
    )
    # Item 1 has the properties 1, 4 and, if there is one, 5, item 2 has 2, 3 (essential) and 4.
    first = b"\0\1\3\x01\x04\x85" if aperture else b"\0\1\2\x01\x04"
    has = _full(b"ipma", struct.pack(">I", 2), first, b"\0\2\3\x02\x83\x04")
    tiles = rows * columns
    refers = struct.pack(f">HH{tiles}H", 1, tiles, *[2] * tiles)

    def meta(offset: int) -> bytes:
        where = struct.pack(">BBH", 0x44, 0, 2)
        where += struct.pack(">HHHHII", 1, 1, 0, 1, 0, len(grid))
        where += struct.pack(">HHHHII", 2, 0, 0, 1, offset, len(payload))
        return _full(
            b"meta",
            _full(b"hdlr", bytes(4) + b"pict" + bytes(13)),
            _full(b"pitm", struct.pack(">H", 1)),
            _full(b"iloc", where, version=1),
            _full(b"iinf", struct.pack(">H", 2), *items),
            _full(b"iref", _box(b"dimg", refers)),
            _box(b"iprp", properties, has),
            _box(b"idat", grid),
        )

    kind = _box(b"ftyp", b"avif\0\0\0\0avifmif1miaf")
    return kind + meta(len(kind) + len(meta(0)) + 8) + _box(b"mdat", payload)


BOMBS: Final[Mapping[str, Callable[[], bytes]]] = MappingProxyType(
    {
        "png-65500": lambda: png(SIDE, SIDE),
        "png-65500-interlaced": lambda: png(SIDE, SIDE, bits=1, interlaced=True),
        "png-text": text_png,
        "png-chunks": lambda: png(16, 16, before=png_chunk(b"tEXt", b"a\0b") * 20_000),
        "jpeg-65500-progressive": progressive_jpeg,
        "jpeg-2000-scans": lambda: jpeg_scans(2000),
        "gif-100000-frames": lambda: gif_frames(100_000),
        "gif-30000": large_gif,
        "tiff-lies": lambda: _grey_tiff(200_000, 200_000),
        "tiff-lies-tile": lambda: _grey_tiff(48_000, 2_000, tile=8192, compression=8),
        "tiff-pages": lambda: _grey_tiff(8, 8, pages=65_000),
        "webp-frames": lambda: webp_frames(100_000),
        "avif-grid": avif_grid,
        "avif-grid-corner": lambda: avif_grid(shown=(100, 100)),
        "avif-grid-aperture": lambda: avif_grid(aperture=(100, 100)),
    }
)
"""All of them by name."""
