"""What the header of a JPEG says: its size, chroma subsampling, quality and kind of Huffman tables.

The reference tables are not written down here: they are taken from JPEGs that Pillow, and so libjpeg, makes
of one grey block at each quality.
"""

import io
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from PIL import Image

_START = b"\xff\xd8"

# Markers of ITU-T T.81, table B.1.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_HUFFMAN = 0xC4
_SCAN = 0xDA
_QUANTISATION = 0xDB
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}

_FRAME_SIZE, _COMPONENT_SIZE = 6, 3
"""Bytes of a frame's header, whose last one is the number of components, and of each component."""

# Horizontal and vertical sampling factors of the components, by the usual names.
_NAMES = {
    ((1, 1),): "grey",
    ((1, 1), (1, 1), (1, 1)): "4:4:4",
    ((2, 1), (1, 1), (1, 1)): "4:2:2",
    ((2, 2), (1, 1), (1, 1)): "4:2:0",
}

Tables = Mapping[int, bytes]
"""Each table by its number, as it is in the file."""


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """The header up to the first scan."""

    width: int
    height: int
    progressive: bool
    factors: tuple[tuple[int, int], ...]
    """Horizontal and vertical sampling factor of each component."""
    quantisation: Tables = field(repr=False)
    huffman: Tables = field(repr=False)

    @property
    def subsampling(self) -> str:
        """The usual name, such as ``4:2:0``, else the factors."""
        return _NAMES.get(self.factors, " ".join(f"{across}x{down}" for across, down in self.factors))

    @property
    def quality(self) -> int | None:
        """The quality at which libjpeg writes these quantisation tables; ``None`` for other tables."""
        tables = dict(self.quantisation)
        for quality in range(100, 0, -1):
            known = _made_by_libjpeg(quality).quantisation
            if tables and all(known.get(number) == table for number, table in tables.items()):
                return quality
        return None

    @property
    def optimised(self) -> bool:
        """Whether the Huffman tables were computed for this image, and are not those of the standard."""
        known = _made_by_libjpeg(85).huffman
        return any(known.get(number) != table for number, table in self.huffman.items())


def read_header(data: bytes) -> JpegHeader:
    """Read the header of a JPEG. Raises ``ValueError`` where there is none."""
    quantisation: dict[int, bytes] = {}
    huffman: dict[int, bytes] = {}
    frame: tuple[int, bytes] | None = None
    for marker, body in _segments(data):
        if marker == _QUANTISATION:
            quantisation |= _quantisation_tables(body)
        elif marker == _HUFFMAN:
            huffman |= _huffman_tables(body)
        elif marker in _FRAMES:
            frame = marker, body
        elif marker == _SCAN:
            break
    if frame is None:
        raise ValueError("no frame before the first scan")
    kind, body = frame
    if len(body) < _FRAME_SIZE or len(body) < _FRAME_SIZE + _COMPONENT_SIZE * body[_FRAME_SIZE - 1]:
        raise ValueError("the frame is cut short")
    _, height, width, components = struct.unpack_from(">BHHB", body)
    factors = tuple((body[7 + 3 * number] >> 4, body[7 + 3 * number] & 15) for number in range(components))
    return JpegHeader(width, height, kind in _PROGRESSIVE, factors, quantisation, huffman)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and body of each segment, the first scan's included."""
    if not data.startswith(_START):
        raise ValueError("this is no JPEG")
    place = len(_START)
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            raise ValueError(f"no marker at byte {place}")
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
        elif marker in _WITHOUT_LENGTH:
            place += 2
        else:
            (length,) = struct.unpack_from(">H", data, place + 2)
            yield marker, data[place + 4 : place + 2 + length]
            if marker == _SCAN:
                return
            place += 2 + length
    raise ValueError("the header ends early")


def _quantisation_tables(body: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place < len(body):
        size = 128 if body[place] >> 4 else 64
        yield body[place] & 15, body[place + 1 : place + 1 + size]
        place += 1 + size


def _huffman_tables(body: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place < len(body):
        size = 16 + sum(body[place + 1 : place + 17])
        yield body[place], body[place + 1 : place + 1 + size]
        place += 1 + size


@cache
def _made_by_libjpeg(quality: int) -> JpegHeader:
    made = io.BytesIO()
    Image.new("RGB", (8, 8)).save(made, "JPEG", quality=quality, optimize=False)
    return read_header(made.getvalue())
