"""ZSoft PCX: black and white, 2, 4, 16 and 256 colours in planes or packed, grey and true colour.

The first byte alone is no magic number, so a PCX is recognised by a header in which every field makes sense,
and only if no other reader claims the file. Source: ZSoft, "PCX Technical Reference Manual", revision 5.
"""

import re
import struct
from dataclasses import dataclass

import numpy as np
import pyvips
from numpy.typing import NDArray

from vipsrv.errors import CorruptImage, TooLarge, UnsupportedFormat
from vipsrv.pipeline.formats.base import (
    MEGA,
    BuiltinImage,
    BuiltinReader,
    DecodeCost,
    DecodeRequest,
    ImageFormat,
    Signature,
    streamed_rows_cost,
)
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.raw_rows import RowLayout, read_rows, to_colours
from vipsrv.pipeline.vips.stopping import StopCheck, stop_if_asked

MAX_DECODED = 1 << 27
"""Bytes of the decoded rows of all planes: 33 million pixels of four planes."""

_PIECE = 1 << 18
"""Encoded bytes that are decoded at once: some 10 ms, and 8 MB if all are runs."""

_SECONDS_PER_MEGABYTE = 0.03
"""CPU seconds for a million encoded bytes, as measured."""

_HEADER = struct.Struct("<4B4H4x48sxBH")
_OFFSET = 128
_IS_COUNT, _COUNT = 0xC0, 0x3F
_PALETTE_MARK = 0x0C
_PALETTE = 768
_WITHOUT_PALETTE = 3
"""The version whose 16 colours are those of the EGA card."""

_EGA = bytes.fromhex(
    "0000000000aa00aa0000aaaaaa0000aa00aaaa5500aaaaaa5555555555ff55ff5555ffffff5555ff55ffffff55ffffff"
)
_BLACK_AND_WHITE = (b"\0", b"\xff")
_PACKED = {(1, 1), (2, 1), (4, 1), (8, 1)}
_PLANES = {(1, 2), (1, 3), (1, 4), (8, 3), (8, 4)}
_INDEXED_BITS = 8

_PATTERN = re.compile(
    rb"\x0a[\0\x02-\x05][\0\x01][\x01\x02\x04\x08].{8}.{52}.[\x01-\x04](?!\0\0)..", re.DOTALL
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PcxHeader:
    """``stride`` is the bytes of a row of one plane. ``palette`` is that of the header, 16 colours."""

    version: int
    is_encoded: bool
    bits: int
    planes: int
    width: int
    height: int
    stride: int
    palette: bytes

    @property
    def size(self) -> int:
        """Bytes of the rows of all planes."""
        return self.stride * self.planes * self.height

    @property
    def has_alpha(self) -> bool:
        """Whether there is a fourth plane beside the colours."""
        return (self.bits, self.planes) == (8, 4)


def open_pcx(upload: Upload, *, tolerant: bool, watch: StopCheck | None) -> BuiltinImage:
    """Read a file's header. Raises ``CorruptImage``, ``UnsupportedFormat`` and ``TooLarge``."""
    header = parse_header(upload.head(_OFFSET))
    return BuiltinImage(
        width=header.width,
        height=header.height,
        has_alpha=header.has_alpha,
        build=lambda: _build(upload, header, tolerant=tolerant, watch=watch),
    )


def parse_header(data: bytes) -> PcxHeader:
    """Parse the first 128 bytes of a file. Raises ``CorruptImage``, ``UnsupportedFormat``, ``TooLarge``."""
    if len(data) < _OFFSET:
        raise CorruptImage("this pcx ends within its header")
    _, version, encoding, bits, left, top, right, bottom, palette, planes, stride = _HEADER.unpack_from(data)
    width, height = right - left + 1, bottom - top + 1
    if width < 1 or height < 1:
        raise CorruptImage(f"this pcx has an impossible size of {width} x {height}")
    if (bits, planes) not in _PACKED | _PLANES:
        raise UnsupportedFormat(f"this pcx has {planes} planes of {bits} bits, which vipsrv does not read")
    if stride < (width * bits + 7) // 8:
        raise CorruptImage(f"this pcx has rows of {stride} bytes for {width} pixels of {bits} bits")
    header = PcxHeader(
        version=version,
        is_encoded=encoding != 0,
        bits=bits,
        planes=planes,
        width=width,
        height=height,
        stride=stride,
        palette=_EGA if version == _WITHOUT_PALETTE else palette,
    )
    if header.is_encoded and header.size > MAX_DECODED:
        raise TooLarge(f"the rows of this pcx take {header.size} bytes; {MAX_DECODED} are allowed")
    return header


def _build(upload: Upload, header: PcxHeader, *, tolerant: bool, watch: StopCheck | None) -> pyvips.Image:
    view = upload.view()[_OFFSET:]
    width = header.stride * header.planes
    if header.is_encoded:
        rows = pyvips.Image.new_from_memory(
            decode_runs(view, header.size, tolerant=tolerant, watch=watch).data,
            width,
            header.height,
            1,
            "uchar",
        )
    else:
        layout = RowLayout(offset=0, stride=width, used=width, height=header.height)
        rows = read_rows(view, layout, "pcx", tolerant=tolerant)
    used = (header.width * header.bits + 7) // 8
    planes = [rows.crop(plane * header.stride, 0, used, header.height) for plane in range(header.planes)]
    if header.bits == _INDEXED_BITS and header.planes > 1:
        return planes[0].bandjoin(planes[1:]).copy(interpretation="srgb")
    if header.planes > 1:
        return _planes_of_bits(planes, header)
    if header.bits == 1:
        return to_colours(planes[0], 1, header.width, _BLACK_AND_WHITE).copy(interpretation="b-w")
    if header.bits < _INDEXED_BITS:
        colours = _colours(header.palette, 1 << header.bits)
        return to_colours(planes[0], header.bits, header.width, colours).copy(interpretation="srgb")
    palette = bytes(view[-_PALETTE - 1 :])
    if len(palette) <= _PALETTE or palette[0] != _PALETTE_MARK:
        return planes[0].copy(interpretation="b-w")
    return to_colours(planes[0], 8, header.width, _colours(palette[1:], 256)).copy(interpretation="srgb")


def _planes_of_bits(planes: list[pyvips.Image], header: PcxHeader) -> pyvips.Image:
    """Each plane has one bit of every index, the first one the lowest."""
    bits = [
        to_colours(plane, 1, header.width, (b"\0", bytes((1 << number,))))
        for number, plane in enumerate(planes)
    ]
    indices = bits[0]
    for more in bits[1:]:
        indices |= more
    colours = _colours(header.palette, 1 << header.planes)
    return to_colours(indices, 8, header.width, colours).copy(interpretation="srgb")


def _colours(palette: bytes, count: int) -> list[bytes]:
    return [palette[at : at + 3] for at in range(0, 3 * count, 3)]


def decode_runs(
    data: memoryview, size: int, *, tolerant: bool, watch: StopCheck | None = None
) -> NDArray[np.uint8]:
    """Return the first ``size`` bytes that the data stand for.

    A byte of 0xC0 or more is a count, and the next byte is repeated so often; any other byte stands for
    itself. Data that end early raise ``CorruptImage``; if ``tolerant``, what is missing is 0. Raises the
    reason of ``watch`` to stop.
    """
    decoded = np.zeros(size, np.uint8)
    done = at = 0
    while done < size and at < len(data):
        stop_if_asked(watch)
        piece = np.frombuffer(data[at : at + _PIECE], np.uint8)
        counts = _find_counts(piece)
        # A count at the end belongs to the next piece, with its value.
        used = len(piece) - int(counts[-1])
        if used == 0:
            break
        piece, counts = piece[:used], counts[:used]
        repeats = np.ones(used, np.uint8)
        repeats[1:][counts[:-1]] = piece[:-1][counts[:-1]] & _COUNT
        run = np.repeat(piece[~counts], repeats[~counts])[: size - done]
        decoded[done : done + len(run)] = run
        done += len(run)
        at += used
    if done < size and not tolerant:
        raise CorruptImage(f"this pcx is truncated: its data have {done} of {size} bytes")
    return decoded


def _find_counts(piece: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which bytes are counts: of each group of bytes that look like one, every other, from the first
    on, because the byte behind a count is its value.
    """
    high = piece >= _IS_COUNT
    numbers = np.arange(len(piece), dtype=np.int32)
    first = high.copy()
    first[1:] &= ~high[:-1]
    began = np.maximum.accumulate(np.where(first, numbers, 0))
    is_even: NDArray[np.bool_] = (numbers - began) % 2 == 0
    return high & is_even


def _recognises(_upload: Upload, head: bytes) -> bool:
    if not _PATTERN.match(head):
        return False
    try:
        parse_header(head[:_OFFSET])
    except (CorruptImage, UnsupportedFormat):
        return False
    except TooLarge:
        pass
    return True


def _decode_cost(request: DecodeRequest) -> DecodeCost:
    header = parse_header(request.upload.head(_OFFSET))
    if not header.is_encoded:
        return streamed_rows_cost(request)
    parsing = min(request.upload.size, 2 * header.size) / MEGA * _SECONDS_PER_MEGABYTE
    return DecodeCost(held=header.size + 64 * _PIECE, parsing=parsing)


PCX = ImageFormat(
    name="pcx",
    order=880,
    signatures=(Signature("PCX", _PATTERN),),
    reader=BuiltinReader(recognises=_recognises, open=open_pcx, has_magic=False, decode_cost=_decode_cost),
)

FORMATS = (PCX,)
