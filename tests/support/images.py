"""Small test images made by code: one scene in many formats, and images that are broken in known ways.

All of them show the same scene, `photo`. Each of its corners has its own colour, so a test can tell from the
pixels whether an image was rotated, mirrored or decoded with wrong colours. Formats that Pillow cannot write
(interlaced PNG, tiled TIFF, colour profiles) are written here from their specifications.
"""

import io
import math
import random
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFilter

# The colours towards the corners of every `photo`, at the top and at the bottom, from left to right.
TOP_LEFT: Final = (200, 40, 40)
TOP_RIGHT: Final = (40, 170, 60)
BOTTOM_LEFT: Final = (40, 70, 200)
BOTTOM_RIGHT: Final = (230, 210, 60)

# Left, top, right and bottom of the hole in an `alpha_photo`, as parts of its width and height.
HOLE: Final = (0.1, 0.3, 0.2, 0.7)

# The size of the samples in pixels: not square, and no multiple of a JPEG's or a tile's blocks.
WIDTH: Final = 330
HEIGHT: Final = 250

# EXIF orientation (tag 0x0112) -> the transposition from the displayed image to the stored rows.
_STORED_AS: Final[Mapping[int, Image.Transpose | None]] = MappingProxyType(
    {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
)


# The scene


def photo(width: int = WIDTH, height: int = HEIGHT, *, seed: int = 1) -> Image.Image:
    """The scene, RGB: a gradient between four corner colours, soft shapes and fine texture inside.

    The same arguments give the same pixels. Shapes stay in the middle, so the corners keep their colours.
    """
    rng = random.Random(seed)
    corners = Image.new("RGB", (2, 2))
    for place, colour in zip(
        ((0, 0), (1, 0), (0, 1), (1, 1)), (TOP_LEFT, TOP_RIGHT, BOTTOM_LEFT, BOTTOM_RIGHT), strict=True
    ):
        corners.putpixel(place, colour)
    scene = corners.resize((width, height), Image.Resampling.BILINEAR)
    brush = ImageDraw.Draw(scene)
    for _ in range(12):
        centre_x, centre_y = rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.7) * height
        half_width, half_height = rng.uniform(0.02, 0.15) * width, rng.uniform(0.02, 0.15) * height
        box = (centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height)
        colour = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        if rng.random() < 0.5:
            brush.ellipse(box, fill=colour)
        else:
            brush.rectangle(box, fill=colour)
    scene = scene.filter(ImageFilter.GaussianBlur(0.7))
    coarse = (max(1, width // 4), max(1, height // 4))
    cells = Image.frombytes("L", coarse, rng.randbytes(coarse[0] * coarse[1]))
    texture = cells.resize((width, height), Image.Resampling.BICUBIC).convert("RGB")
    return Image.blend(scene, texture, 0.08)


def alpha_photo(width: int = WIDTH, height: int = HEIGHT, *, seed: int = 1) -> Image.Image:
    """The scene, RGBA: opaque on the left with a hole in it (`HOLE`), fading out towards the right edge.

    Where it is fully transparent the colour is black, which shows as a dark fringe where the colours of a
    reduced image were not weighted by alpha.
    """
    fade = Image.linear_gradient("L").transpose(Image.Transpose.ROTATE_270).resize((width, height))
    # The gradient of twice its slope, so that the left half is opaque.
    alpha = fade.point([min(255, 2 * value) for value in range(256)])
    hole = [round(part * side) for part, side in zip(HOLE, (width, height) * 2, strict=True)]
    ImageDraw.Draw(alpha).rectangle((hole[0], hole[1], hole[2] - 1, hole[3] - 1), fill=0)
    scene = photo(width, height, seed=seed)
    scene.paste((0, 0, 0), mask=alpha.point([255 if value == 0 else 0 for value in range(256)]))
    scene.putalpha(alpha)
    return scene


def encode(image: Image.Image, kind: str, /, **save_options: Any) -> bytes:
    """The bytes of `image` in Pillow's format `kind`, such as "JPEG", with Pillow's options for it."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **save_options)
    return buffer.getvalue()


# JPEG


def jpeg(width: int = WIDTH, height: int = HEIGHT, *, seed: int = 1, **save_options: Any) -> bytes:
    """The scene as a JPEG of quality 90 where the options do not say otherwise."""
    return encode(photo(width, height, seed=seed), "JPEG", **{"quality": 90, **save_options})


def oriented_jpeg(orientation: int, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """A JPEG that shows the scene in `width` x `height` once EXIF's orientation, 1 to 8, is applied."""
    stored_as = _STORED_AS[orientation]
    scene = photo(width, height)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = scene if stored_as is None else scene.transpose(stored_as)
    return encode(stored, "JPEG", quality=90, exif=exif)


# PNG


def grey16_png(width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """The scene in 16-bit grey: black 0, white 65535."""
    grey = photo(width, height).convert("L").tobytes()
    # A grey level v of 255 is 257 * v of 65535, both bytes v.
    doubled = bytearray(2 * len(grey))
    doubled[0::2] = doubled[1::2] = grey
    return encode(Image.frombytes("I;16", (width, height), bytes(doubled)), "PNG")


# Adam7: first column, first row, step across, step down of each pass (PNG specification, section 8.2).
_ADAM7: Final = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


def interlaced_png(width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """The scene as an Adam7-interlaced RGB PNG, its rows unfiltered."""
    pixels = photo(width, height).tobytes()
    rows = [pixels[start : start + 3 * width] for start in range(0, len(pixels), 3 * width)]
    data = bytearray()
    for left, top, across, down in _ADAM7:
        if left >= width:
            continue
        for row in rows[top::down]:
            chosen = bytearray(3 * len(range(left, width, across)))
            for band in range(3):
                chosen[band::3] = row[3 * left + band :: 3 * across]
            data += b"\0" + chosen
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


# Several frames


def animated(
    kind: str, width: int = WIDTH, height: int = HEIGHT, *, frames: int = 3, **options: Any
) -> bytes:
    """Several frames or pages, the scene first, then those of other seeds: GIF, WEBP, PNG or TIFF."""
    first, *others = (photo(width, height, seed=seed) for seed in range(1, frames + 1))
    return encode(first, kind, save_all=True, append_images=others, **options)


# TIFF (revision 6.0): a little-endian file with one directory of these fields.

_SHORT: Final = 3
_LONG: Final = 4
_CODES: Final[Mapping[int, str]] = MappingProxyType({_SHORT: "H", _LONG: "I"})
_TIFF_LIMIT: Final = 2**32
_DEFLATE: Final = 8


def _tiff_head(fields: Iterable[tuple[int, int, Sequence[int]]]) -> bytes:
    """The header and the directory of (tag, type, values), with the longer values behind it."""
    entries = sorted(fields)
    values_at = 8 + 2 + 12 * len(entries) + 4
    directory, behind = struct.pack("<H", len(entries)), b""
    for tag, kind, values in entries:
        packed = struct.pack(f"<{len(values)}{_CODES[kind]}", *values)
        if len(packed) > 4:
            packed, behind = struct.pack("<I", values_at + len(behind)), behind + packed
        directory += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    return struct.pack("<2sHI", b"II", 42, 8) + directory + struct.pack("<I", 0) + behind


def _rgb_fields(width: int, height: int, compression: int) -> list[tuple[int, int, Sequence[int]]]:
    return [
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [8, 8, 8]),
        (259, _SHORT, [compression]),
        (262, _SHORT, [2]),  # RGB
        (277, _SHORT, [3]),
        (284, _SHORT, [1]),  # the bands of a pixel lie together
    ]


def _placed(fields: list[tuple[int, int, Sequence[int]]], offsets_tag: int, sizes: Sequence[int]) -> bytes:
    """The head of a file whose strips or tiles of these sizes follow it one after another."""

    def head(offsets: Sequence[int]) -> bytes:
        # The tag of the byte counts is the next for tiles; for strips 278 lies between the two.
        counts_tag = {273: 279, 324: 325}[offsets_tag]
        return _tiff_head([*fields, (offsets_tag, _LONG, offsets), (counts_tag, _LONG, sizes)])

    # The head's own length does not depend on what the offsets are.
    offsets, position = [], len(head(sizes))
    for size in sizes:
        offsets.append(position)
        position += size
    return head(offsets)


def tiled_tiff(width: int = WIDTH, height: int = HEIGHT, *, tile: int = 64, deflate: bool = False) -> bytes:
    """The scene as a TIFF in square tiles of side `tile`, a multiple of 16; the last padded with black."""
    scene = photo(width, height)
    tiles = [
        scene.crop((left, top, left + tile, top + tile)).tobytes()
        for top in range(0, height, tile)
        for left in range(0, width, tile)
    ]
    if deflate:
        tiles = [zlib.compress(data) for data in tiles]
    fields = _rgb_fields(width, height, _DEFLATE if deflate else 1)
    fields += [(322, _LONG, [tile]), (323, _LONG, [tile])]
    return _placed(fields, 324, [len(data) for data in tiles]) + b"".join(tiles)


# The bands of colour in a `large_strip_tiff`, from top to bottom.
_BANDS: Final = 16


def _large_row(width: int, band: int) -> bytes:
    """One row: red rises from left to right, green from band to band, blue falls from left to right."""
    ramp = bytes(255 * column // max(1, width - 1) for column in range(width))
    row = bytearray(3 * width)
    row[0::3] = ramp
    row[1::3] = bytes([255 * band // (_BANDS - 1)]) * width
    row[2::3] = ramp[::-1]
    return bytes(row)


def large_strip_scene(width: int, height: int) -> Image.Image:
    """What a `large_strip_tiff` shows, drawn at this size: a reference for a large one reduced."""
    rows = (_large_row(width, _BANDS * row // height) for row in range(height))
    return Image.frombytes("RGB", (width, height), b"".join(rows))


def large_strip_tiff(path: Path, width: int, height: int) -> None:
    """Write `large_strip_scene` as an uncompressed RGB strip TIFF of any size under 4 GiB, in little memory.

    Raises ValueError where the file would not fit into a TIFF's 32-bit offsets.
    """
    row_bytes = 3 * width
    rows_per_strip = max(1, min(height, 65536 // row_bytes))
    starts = range(0, height, rows_per_strip)
    sizes = [row_bytes * min(rows_per_strip, height - start) for start in starts]
    # The head is 8 bytes a strip and some fields.
    if row_bytes * height + 8 * len(sizes) + 1024 >= _TIFF_LIMIT:
        raise ValueError(f"{width} x {height} pixels do not fit into a TIFF of less than 4 GiB")
    fields = [*_rgb_fields(width, height, 1), (278, _LONG, [rows_per_strip])]
    with path.open("wb") as file:
        file.write(_placed(fields, 273, sizes))
        for band in range(_BANDS):
            row = _large_row(width, band)
            # The rows whose _BANDS * row // height is this band.
            left = -(-(band + 1) * height // _BANDS) - -(-band * height // _BANDS)
            at_once = max(1, (1 << 20) // row_bytes)
            block = row * min(left, at_once)
            while left > 0:
                now = min(left, at_once)
                file.write(block[: now * row_bytes])
                left -= now


# The cells of a `coloured_cells_tiff`, in each direction.
_CELLS: Final = 8


def coloured_cells_tiff(size: int, seed: int = 0) -> tuple[bytearray, list[list[tuple[int, int, int]]]]:
    """An uncompressed RGB strip TIFF of about `size` bytes, and the colours of its 8 x 8 equal cells by rows.

    Bytes that are missing, or in the wrong place, change the colours from there on. It is filled piece by
    piece, so that other threads run meanwhile.
    """
    chance = random.Random(seed)
    side = max(_CELLS, math.isqrt(size // 3) // _CELLS * _CELLS)
    colours = [
        [(chance.randrange(256), chance.randrange(256), chance.randrange(256)) for _ in range(_CELLS)]
        for _ in range(_CELLS)
    ]
    row_bytes, rows_per_strip = 3 * side, max(1, 65536 // (3 * side))
    sizes = [row_bytes * min(rows_per_strip, side - start) for start in range(0, side, rows_per_strip)]
    head = _placed([*_rgb_fields(side, side, 1), (278, _LONG, [rows_per_strip])], 273, sizes)
    image = bytearray(len(head) + row_bytes * side)
    image[: len(head)] = head
    for number, row in enumerate(colours):
        pixels = b"".join(bytes(colour) * (side // _CELLS) for colour in row)
        at_once = max(1, (1 << 20) // row_bytes)
        first, last = number * (side // _CELLS), (number + 1) * (side // _CELLS)
        for start in range(first, last, at_once):
            block = pixels * (min(start + at_once, last) - start)
            position = len(head) + start * row_bytes
            image[position : position + len(block)] = block
    return image, colours


# Colour profiles

# The primaries as XYZ under D50, from Bruce Lindbloom's tables (RGB/XYZ matrices, Bradford-adapted).
_SRGB_PRIMARIES: Final = (
    (0.4360747, 0.2225045, 0.0139322),
    (0.3850649, 0.7168786, 0.0971045),
    (0.1430804, 0.0606169, 0.7141733),
)
_ADOBE_RGB_PRIMARIES: Final = (
    (0.6097559, 0.3111242, 0.0194811),
    (0.2052401, 0.6256560, 0.0608902),
    (0.1492240, 0.0632197, 0.7448387),
)
_D50: Final = (0.9642, 1.0, 0.8249)


def matrix_profile(primaries: Sequence[Sequence[float]], gamma: float = 563 / 256) -> bytes:
    """An ICC profile, version 2.4 (ICC.1:2001-04), of an RGB display with one gamma.

    `primaries` are XYZ of red, green and blue, under D50.
    """

    def xyz(values: Sequence[float]) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    name = b"made for a test\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(4 + 4 + 2 + 1 + 67)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    red, green, blue = primaries
    tags = {
        b"desc": description,
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": xyz(_D50),
        b"rXYZ": xyz(red),
        b"gXYZ": xyz(green),
        b"bXYZ": xyz(blue),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, body = struct.pack(">I", len(tags)), b""
    body_at = 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", body_at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4sI4s4s4s6H4s4sI4s4sQI3i",
        body_at + len(body),
        b"none",
        0x02400000,
        b"mntr",
        b"RGB ",
        b"XYZ ",
        *(2001, 4, 1, 0, 0, 0),
        b"acsp",
        *(b"none", 0, b"none", b"none", 0, 0),
        *(round(value * 65536) for value in _D50),
    )
    return header.ljust(128, b"\0") + table + body


def adobe_rgb_profile() -> bytes:
    """A profile with the primaries and the gamma of Adobe RGB (1998): greens are wider than in sRGB."""
    return matrix_profile(_ADOBE_RGB_PRIMARIES)


def swapped_profile() -> bytes:
    """A profile whose red is sRGB's green, whose green is its blue and whose blue is its red.

    Nobody can overlook whether it was applied: a stored (r, g, b) is seen as about (b, r, g).
    """
    red, green, blue = _SRGB_PRIMARIES
    return matrix_profile((green, blue, red))


# Every intact image, named after what is special about it. All show the scene at WIDTH x HEIGHT.


def _scene(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    return encode(photo().convert(mode), kind, **options)


def _see_through(kind: str, **options: Any) -> bytes:
    return encode(alpha_photo(), kind, **options)


SAMPLES: Final[Mapping[str, Callable[[], bytes]]] = MappingProxyType(
    {
        "jpeg": jpeg,
        "jpeg-progressive": partial(jpeg, progressive=True),
        "jpeg-444": partial(jpeg, subsampling="4:4:4"),
        "jpeg-grey": partial(_scene, "JPEG", "L", quality=90),
        "jpeg-cmyk": partial(_scene, "JPEG", "CMYK", quality=90),
        "jpeg-adobe-rgb": lambda: jpeg(icc_profile=adobe_rgb_profile()),
        "jpeg-swapped-profile": lambda: jpeg(icc_profile=swapped_profile()),
        **{f"jpeg-orientation-{value}": partial(oriented_jpeg, value) for value in _STORED_AS},
        "png": partial(_scene, "PNG"),
        "png-interlaced": interlaced_png,
        "png-alpha": partial(_see_through, "PNG"),
        "png-palette": lambda: encode(photo().quantize(256), "PNG"),
        "png-grey": partial(_scene, "PNG", "L"),
        "png-grey-alpha": partial(_scene, "PNG", "LA"),
        "png-grey16": grey16_png,
        "png-1bit": partial(_scene, "PNG", "1"),
        "gif": partial(_scene, "GIF"),
        "gif-animated": partial(animated, "GIF", duration=100),
        "webp": partial(_scene, "WEBP", quality=85),
        "webp-alpha": partial(_see_through, "WEBP", quality=85),
        "webp-lossless": partial(_scene, "WEBP", lossless=True),
        "webp-animated": partial(animated, "WEBP", duration=100),
        "avif": partial(_scene, "AVIF", quality=80, speed=9),
        "avif-alpha": partial(_see_through, "AVIF", quality=80, speed=9),
        "tiff-strip": partial(_scene, "TIFF"),
        "tiff-deflate": partial(_scene, "TIFF", compression="tiff_adobe_deflate"),
        "tiff-lzw": partial(_scene, "TIFF", compression="tiff_lzw"),
        "tiff-pages": partial(animated, "TIFF"),
        "tiff-tiled": tiled_tiff,
        "tiff-tiled-deflate": partial(tiled_tiff, deflate=True),
        "tiff-alpha": partial(_see_through, "TIFF"),
        "bmp": partial(_scene, "BMP"),
        "bmp-palette": lambda: encode(photo().quantize(256), "BMP"),
        "bmp-1bit": partial(_scene, "BMP", "1"),
        "pnm": partial(_scene, "PPM"),
        "pnm-grey": partial(_scene, "PPM", "L"),
        "pnm-1bit": partial(_scene, "PPM", "1"),
    }
)


# Broken images


def truncated(data: bytes, keep: float = 0.5) -> bytes:
    """The first `keep` of a file, 0 to 1: an upload that stopped."""
    return data[: int(len(data) * keep)]


def damaged(data: bytes, *, seed: int = 1, count: int = 64, spare: int = 1024) -> bytes:
    """The file with `count` bytes changed at random, none of its first `spare`, so that it opens at first."""
    rng = random.Random(seed)
    changed = bytearray(data)
    for place in rng.sample(range(spare, len(data)), count):
        changed[place] ^= rng.randrange(1, 256)
    return bytes(changed)


def garbage(length: int = 4096, *, seed: int = 1) -> bytes:
    """Random bytes that no decoder recognises as an image."""
    return b"\0" + random.Random(seed).randbytes(length - 1)
