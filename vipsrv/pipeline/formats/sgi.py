"""SGI images (RGB, BW): grey or colour with or without alpha, 8 or 16 bits, raw or run-length encoded.

Channels are stored one after the other, rows from the bottom. An encoded file has a table of the places of
its rows. All numbers are big-endian. Source: Paul Haeberli, "The SGI Image File Format", version 1.00.
"""

import struct
from dataclasses import dataclass

import numpy as np
import pyvips

from vipsrv.errors import CorruptImage, TooLarge, UnsupportedFormat
from vipsrv.pipeline.formats.base import (
    BuiltinImage,
    BuiltinReader,
    DecodeCost,
    DecodeRequest,
    ImageFormat,
    signature,
    streamed_rows_cost,
)
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.raw_rows import RowLayout, read_rows, to_numbers
from vipsrv.pipeline.vips.stopping import StopCheck, stop_if_asked

MAX_DECODED = 1 << 27
"""Bytes of the decoded rows of all channels that are read: 33 million pixels of four channels."""

_HEADER = struct.Struct(">HBBHHHH92xI")
_OFFSET = 512
_COLOUR_MAP_NONE = 0
_MAX_CHANNELS = 4
_ALPHA_CHANNELS = {2, 4}
_COLOURS = 3
_WIDE = 2
_SPACES = {(1, True): "b-w", (1, False): "srgb", (2, True): "grey16", (2, False): "rgb16"}
"""By the bytes of a sample, and whether it is grey."""

_IS_LITERAL, _COUNT = 0x80, 0x7F

_SECONDS_PER_PACKET = 4e-7
"""CPU seconds, as measured; a packet takes two bytes at least, and gives one sample at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SgiHeader:
    """``sample`` is the bytes of a sample, ``stored`` the number of channels in the file, of which
    ``channels`` are read.
    """

    width: int
    height: int
    stored: int
    channels: int
    sample: int
    is_encoded: bool

    @property
    def row(self) -> int:
        """Bytes of a row of one channel."""
        return self.width * self.sample

    @property
    def size(self) -> int:
        """Bytes of the rows of all channels that are read."""
        return self.row * self.height * self.channels


def open_sgi(upload: Upload, *, tolerant: bool, watch: StopCheck | None) -> BuiltinImage:
    """Read a file's header. Raises ``CorruptImage``, ``UnsupportedFormat`` and ``TooLarge``."""
    header = parse_header(upload.head(_OFFSET))
    return BuiltinImage(
        width=header.width,
        height=header.height,
        has_alpha=header.channels in _ALPHA_CHANNELS,
        build=lambda: _build(upload.view(), header, tolerant=tolerant, watch=watch),
    )


def parse_header(data: bytes) -> SgiHeader:
    """Parse the first 512 bytes of a file. Raises ``CorruptImage``, ``UnsupportedFormat``, ``TooLarge``."""
    if len(data) < _OFFSET:
        raise CorruptImage("this sgi ends within its header")
    _, storage, sample, dimensions, width, height, stored, colour_map = _HEADER.unpack_from(data)
    if storage > 1 or sample not in {1, 2} or dimensions not in {1, 2, 3}:
        raise CorruptImage(
            f"this sgi has the storage {storage}, {sample} bytes a sample, {dimensions} dimensions"
        )
    if dimensions == 1:
        height = 1
    if dimensions < _COLOURS:
        stored = 1
    if not width or not height or not stored:
        raise CorruptImage(f"this sgi has an impossible size of {width} x {height} x {stored}")
    if colour_map != _COLOUR_MAP_NONE:
        raise UnsupportedFormat(f"this sgi has a colour map of kind {colour_map}, which vipsrv does not read")
    header = SgiHeader(
        width=width,
        height=height,
        stored=stored,
        channels=min(stored, _MAX_CHANNELS),
        sample=sample,
        is_encoded=storage == 1,
    )
    if header.is_encoded and header.size > MAX_DECODED:
        raise TooLarge(f"the rows of this sgi take {header.size} bytes; {MAX_DECODED} are allowed")
    return header


def _build(view: memoryview, header: SgiHeader, *, tolerant: bool, watch: StopCheck | None) -> pyvips.Image:
    if header.is_encoded:
        rows = memoryview(decode_rows(view, header, tolerant=tolerant, watch=watch))
    else:
        rows = view[_OFFSET:]
    plane = header.row * header.height
    layout = RowLayout(
        offset=0, stride=header.row, used=header.row, height=header.height, pixel=header.sample
    )
    planes = []
    for number in range(header.channels):
        part = rows[number * plane : (number + 1) * plane]
        if number and tolerant and len(part) < header.row:
            planes.append(pyvips.Image.black(header.width, header.height, bands=header.sample))
        else:
            planes.append(read_rows(part, layout, "sgi", tolerant=tolerant))
    if header.sample == _WIDE:
        planes = [to_numbers(one, 2, "big") for one in planes]
    image = planes[0].bandjoin(planes[1:]) if len(planes) > 1 else planes[0]
    space = _SPACES[header.sample, header.channels < _COLOURS]
    return image.flip("vertical").copy(interpretation=space)


def decode_rows(
    view: memoryview, header: SgiHeader, *, tolerant: bool, watch: StopCheck | None = None
) -> bytearray:
    """Return the rows of an encoded file, as they would be stored without encoding.

    A row that ends early raises ``CorruptImage``; if ``tolerant``, what is missing is 0. So do rows that
    overlap, so that a small file cannot take long; several may be at the same place. Raises the reason of
    ``watch`` to stop.
    """
    count = header.height * header.channels
    places = view[_OFFSET : _OFFSET + 4 * count]
    if len(places) < 4 * count:
        raise CorruptImage("this sgi ends within the places of its rows")
    table = np.frombuffer(places, ">u4")
    rows = bytearray(header.size)
    done: dict[int, int] = {}
    left = len(view)
    for number, start in enumerate(table.tolist()):
        at = number * header.row
        if start in done:
            first = done[start]
            rows[at : at + header.row] = rows[first : first + header.row]
            continue
        stop_if_asked(watch)
        row, used = _decode_row(view[start : start + 4 * header.row + 4], header.sample, header.row)
        left -= used
        if left < 0:
            raise CorruptImage("the rows of this sgi overlap")
        if len(row) < header.row and not tolerant:
            raise CorruptImage(f"this sgi is damaged: its row {number} has {len(row)} of {header.row} bytes")
        rows[at : at + len(row)] = row
        done[start] = at
    return rows


def _decode_row(view: memoryview, size: int, wanted: int) -> tuple[bytes, int]:
    """Return up to ``wanted`` bytes of samples of ``size`` bytes, and how many were read for them.

    A packet is a count with a sample to be repeated, or a count with that many samples; a count of 0 ends the
    row.
    """
    data = bytes(view)
    parts, done, at, end = [], 0, 0, len(data) - size
    last = size - 1
    while done < wanted and at <= end:
        head = data[at + last]
        amount = (head & _COUNT) * size
        at += size
        if amount == 0:
            break
        if head & _IS_LITERAL:
            part = data[at : at + amount]
            at += amount
        else:
            part = data[at : at + size] * (head & _COUNT)
            at += size
        parts.append(part)
        done += amount
    return b"".join(parts)[:wanted], at


def _decode_cost(request: DecodeRequest) -> DecodeCost:
    header = parse_header(request.upload.head(_OFFSET))
    extra = header.width * 2_200 * 4 if header.sample == _WIDE else 0
    if not header.is_encoded:
        return DecodeCost(held=extra, seconds=streamed_rows_cost(request).seconds)
    packets = min(header.size // header.sample, request.upload.size // (2 * header.sample))
    return DecodeCost(held=header.size + extra, parsing=packets * _SECONDS_PER_PACKET)


SGI = ImageFormat(
    name="sgi",
    order=260,
    signatures=(signature("SGI", rb"\x01\xda[\0\x01][\x01\x02]\0[\x01-\x03]"),),
    reader=BuiltinReader(
        recognises=lambda _upload, head: head.startswith(b"\x01\xda"), open=open_sgi, decode_cost=_decode_cost
    ),
)

FORMATS = (SGI,)
