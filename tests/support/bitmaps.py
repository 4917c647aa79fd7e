"""Write bitmaps, icons and Netpbm images, including the many kinds that Pillow reads but cannot write."""

import struct
from collections.abc import Sequence
from typing import Final

from PIL import Image

CORE: Final = 12
INFO: Final = 40
V4: Final = 108
V5: Final = 124

# Masks of red, green, blue and alpha.
RGB555: Final = (0x7C00, 0x03E0, 0x001F, 0)
RGB565: Final = (0xF800, 0x07E0, 0x001F, 0)
ARGB1555: Final = (0x7C00, 0x03E0, 0x001F, 0x8000)
ARGB4444: Final = (0x0F00, 0x00F0, 0x000F, 0xF000)
XRGB8888: Final = (0xFF0000, 0xFF00, 0xFF, 0)
ARGB8888: Final = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
RGBA8888: Final = (0xFF000000, 0xFF0000, 0xFF00, 0xFF)
A2RGB10: Final = (0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000)


def bitmap(
    image: Image.Image,
    bits: int,
    *,
    header: int = INFO,
    masks: Sequence[int] | None = None,
    compression: int | None = None,
    top_down: bool = False,
    colours: int = 0,
    profile: bytes = b"",
    gap: int = 0,
) -> bytes:
    """``image`` as a BMP of ``bits`` per pixel with a header of ``header`` bytes.

    Up to 8 bits the image must have mode P, otherwise RGB or RGBA. ``compression`` 1 and 2 are run-length
    encodings. ``colours`` is how many entries of the palette are stored, 0 for all. ``gap`` is the number of
    unused bytes before the pixels.
    """
    width, height = image.size
    if compression is None:
        compression = 3 if masks and header != CORE else 0
    stored = image if top_down else image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if compression in (1, 2):
        pixels = _runs(stored, half=compression == 2)
    else:
        pixels = b"".join(_row(stored, row, bits, masks) for row in range(height))
    palette = _palette(image, colours or 1 << bits, 3 if header == CORE else 4) if bits <= 8 else b""
    after_header = b""
    if masks and compression == 3 and header == INFO:
        after_header = struct.pack("<3I", *masks[:3])
    offset = 14 + header + len(after_header) + len(palette) + gap
    signed = -height if top_down else height
    if header == CORE:
        fields = struct.pack("<IHHHH", CORE, width, height, 1, bits)
    else:
        fields = struct.pack(
            "<IiiHHIIiiII", header, width, signed, 1, bits, compression, len(pixels), 0, 0, colours, 0
        )
        if header > INFO:
            fields += struct.pack("<4I", *(masks or (0, 0, 0, 0)))
        if header == V5 and profile:
            fields = fields.ljust(56, b"\0") + b"DEBM"
            fields = fields.ljust(112, b"\0") + struct.pack("<II", offset - 14 + len(pixels), len(profile))
        fields = fields[:header].ljust(header, b"\0")
    body = fields + after_header + palette + bytes(gap) + pixels + profile
    return struct.pack("<2sIHHI", b"BM", 14 + len(body), 0, 0, offset) + body


def _palette(image: Image.Image, count: int, entry: int) -> bytes:
    colours = image.getpalette() or []
    table = [bytes(colours[start : start + 3]).ljust(3, b"\0") for start in range(0, 3 * count, 3)]
    return b"".join(colour[::-1].ljust(entry, b"\0") for colour in table)


def _row(image: Image.Image, row: int, bits: int, masks: Sequence[int] | None) -> bytes:
    line = image.crop((0, row, image.width, row + 1))
    if bits <= 8:
        number = 0
        numbers = line.tobytes()
        for value in numbers:
            number = number << bits | value
        size = (len(numbers) * bits + 7) // 8
        data = (number << size * 8 - len(numbers) * bits).to_bytes(size, "big")
    elif bits == 24:
        data = line.convert("RGB").tobytes("raw", "BGR")
    else:
        masks = masks or (RGB555 if bits == 16 else XRGB8888)
        pixels = line.convert("RGBA").tobytes()
        data = b"".join(
            _packed(pixels[start : start + 4], masks).to_bytes(bits // 8, "little")
            for start in range(0, len(pixels), 4)
        )
    return data + bytes(-len(data) % 4)


def _packed(pixel: bytes, masks: Sequence[int]) -> int:
    number = 0
    for value, mask in zip(pixel, masks, strict=True):
        if mask:
            lowest = mask & -mask
            number |= round(value * (mask // lowest) / 255) * lowest
    return number


def _runs(image: Image.Image, *, half: bool) -> bytes:
    """Runs of equal pixels; pixels that differ are stored uncompressed in groups."""
    data = bytearray()
    for row in range(image.height):
        line = image.crop((0, row, image.width, row + 1)).tobytes()
        at = 0
        while at < len(line):
            end = at
            while end < len(line) and end - at < 255 and line[end] == line[at]:
                end += 1
            if end - at < 3 and len(line) - at >= 5:
                group = line[at : at + 5]
                at += 5
                stored = group
                if half:
                    stored = bytes((group[0] << 4 | group[1], group[2] << 4 | group[3], group[4] << 4))
                data += bytes((0, 5)) + stored + bytes(len(stored) % 2)
            else:
                data += bytes((end - at, line[at] * 17 if half else line[at]))
                at = end
        data += b"\0\0"
    return bytes(data) + b"\0\1"


def icon(images: Sequence[tuple[int, int, int, bytes]]) -> bytes:
    """An ICO of images: width, height, bits, and a PNG or a bitmap (with mask, without file header)."""
    head, body = struct.pack("<HHH", 0, 1, len(images)), b""
    start = len(head) + 16 * len(images)
    for width, height, bits, data in images:
        head += struct.pack(
            "<BBBBHHII", width % 256, height % 256, 0, 0, 1, bits, len(data), start + len(body)
        )
        body += data
    return head + body


def icon_bitmap(image: Image.Image, bits: int, clear: Image.Image) -> bytes:
    """A bitmap as an icon holds it. ``clear`` is of mode 1, and white where the icon is transparent."""
    data = bytearray(bitmap(image, bits, masks=ARGB8888 if bits == 32 else None, compression=0)[14:])
    data[8:12] = struct.pack("<i", 2 * image.height)
    flipped = clear.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    rows = (flipped.crop((0, row, clear.width, row + 1)).tobytes() for row in range(clear.height))
    return bytes(data) + b"".join(row + bytes(-len(row) % 4) for row in rows)


def netpbm(kind: int, width: int, height: int, numbers: Sequence[int], maximum: int = 255) -> bytes:
    """A file of kind P1 to P6 with these numbers, row by row. Rows of P4 are padded to whole bytes."""
    head = f"P{kind}\n# made for a test\n{width} {height}\n" + ("" if kind in (1, 4) else f"{maximum}\n")
    if kind <= 3:
        lines = (numbers[start : start + 12] for start in range(0, len(numbers), 12))
        return (head + "\n".join(" ".join(map(str, line)) for line in lines) + "\n").encode()
    if kind == 4:
        body = b""
        for start in range(0, len(numbers), width):
            row = "".join(map(str, numbers[start : start + width]))
            row += "0" * (-len(row) % 8)
            body += int(row, 2).to_bytes(len(row) // 8, "big")
        return head.encode() + body
    size = 1 if maximum < 256 else 2
    return head.encode() + b"".join(number.to_bytes(size, "big") for number in numbers)
