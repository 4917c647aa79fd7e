"""Netpbm images: PBM, PGM and PPM, plain and raw, and PAM, with 1 to 16 bits per sample.

If a file holds several images, the first one is read. Sources: the descriptions of the formats by the Netpbm
project (pbm(5), pgm(5), ppm(5), pam(5)).
"""

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import pyvips

from vipsrv.errors import CorruptImage, TooLarge
from vipsrv.pipeline.formats.base import (
    BuiltinImage,
    BuiltinReader,
    DecodeCost,
    DecodeRequest,
    ImageFormat,
    check_sides,
    parsed_file_cost,
    signature,
    streamed_rows_cost,
)
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.raw_rows import RowLayout, read_rows, to_colours, to_numbers
from vipsrv.pipeline.vips.stopping import StopCheck, stop_if_asked

MAX_PLAIN = 1 << 24
"""Maximum numbers of a plain (text) image. They are read one by one, some 0.1 µs each."""

_MAX_HEADER = 65_536  # bytes; comments may be long
PIECE = 1 << 20  # bytes of text parsed at once; a list of numbers takes some 30 times as much
_PAM_FIELDS = {b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"}
_BYTE = 255
_SHORT = 65_535
_WIDE = 16  # bits
_COLOURS = 3
_MAX_BANDS = 4
_WITH_ALPHA = (2, 4)
_MAX_DIGITS = 10
_NUMBER_CHARACTERS = b"0123456789 \t\r\n\v\f"
_DIGIT_VALUES = bytes.maketrans(b"01", b"\0\1")
_COMMENT = re.compile(rb"#[^\r\n]*[\r\n]")
_TOKEN = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*+([0-9]{1,10})(?=[\s#])")


@dataclass(frozen=True, slots=True, kw_only=True)
class PnmHeader:
    """``maximum`` is the number that stands for white; the pixels begin at the byte ``offset``."""

    width: int
    height: int
    bands: int
    maximum: int
    bits: int
    plain: bool
    offset: int

    @property
    def has_alpha(self) -> bool:
        """Whether the last band is alpha."""
        return self.bands in _WITH_ALPHA


def open_pnm(upload: Upload, *, tolerant: bool, watch: StopCheck | None) -> BuiltinImage:
    """Read a file's header. Raises ``CorruptImage`` and ``TooLarge``."""
    head = upload.head(_MAX_HEADER)
    header = _parse_pam(head) if head.startswith(b"P7") else _parse(head)
    if header.width <= 0 or header.height <= 0 or not 1 <= header.maximum <= _SHORT:
        raise CorruptImage(
            f"this pnm has an impossible size of {header.width} x {header.height}, "
            f"or an impossible maximum of {header.maximum}"
        )
    check_sides("pnm", header.width, header.height)
    return BuiltinImage(
        width=header.width,
        height=header.height,
        has_alpha=header.has_alpha,
        build=lambda: (
            _plain_image(upload.view(), header, tolerant=tolerant, watch=watch)
            if header.plain
            else _raw_image(upload.view(), header, tolerant=tolerant)
        ),
    )


def _parse(head: bytes) -> PnmHeader:
    kind = int(head[1:2])
    bitmap = kind in (1, 4)
    numbers, at = [], 2
    for _ in range(2 if bitmap else 3):
        token = _TOKEN.match(head, at)
        if token is None:
            raise CorruptImage("the header of this pnm cannot be read: a number is missing")
        numbers.append(int(token[1]))
        at = token.end()
    # A single white space ends the header, or a comment with the end of its line.
    comment = _COMMENT.match(head, at)
    at = comment.end() if comment else at + 1
    maximum = 1 if bitmap else numbers[2]
    return PnmHeader(
        width=numbers[0],
        height=numbers[1],
        bands=_COLOURS if kind in (3, 6) else 1,
        maximum=maximum,
        bits=1 if bitmap else 8 if maximum <= _BYTE else _WIDE,
        plain=kind <= 3,  # noqa: PLR2004 - P1, P2 and P3 are text
        offset=at,
    )


def _parse_pam(head: bytes) -> PnmHeader:
    fields = {}
    text, end, _ = head.partition(b"\nENDHDR\n")
    for line in text.split(b"\n")[1:]:
        name, _, value = line.strip().partition(b" ")
        if name in _PAM_FIELDS and value.strip().isdigit() and len(value) <= _MAX_DIGITS:
            fields[name] = int(value)
    if not end or fields.keys() != _PAM_FIELDS or not 1 <= fields[b"DEPTH"] <= _MAX_BANDS:
        raise CorruptImage("the header of this pam cannot be read, or it has more than 4 bands")
    return PnmHeader(
        width=fields[b"WIDTH"],
        height=fields[b"HEIGHT"],
        bands=fields[b"DEPTH"],
        maximum=fields[b"MAXVAL"],
        bits=8 if fields[b"MAXVAL"] <= _BYTE else _WIDE,
        plain=False,
        offset=len(text) + len(end),
    )


def _raw_image(view: memoryview, header: PnmHeader, *, tolerant: bool) -> pyvips.Image:
    stride = (header.width * header.bands * header.bits + 7) // 8
    pixel = header.bands * max(1, header.bits // 8)
    layout = RowLayout(offset=header.offset, stride=stride, used=stride, height=header.height, pixel=pixel)
    rows = read_rows(view, layout, "pnm", tolerant=tolerant)
    if header.bits == 1:
        return to_colours(rows, 1, header.width, (b"\xff", b"\0")).copy(interpretation="b-w")
    if header.bits == _WIDE:
        rows = to_numbers(rows, 2, "big")
    return _scale(rows, header)


def _plain_image(
    view: memoryview, header: PnmHeader, *, tolerant: bool, watch: StopCheck | None
) -> pyvips.Image:
    count = header.width * header.height * header.bands
    if count > MAX_PLAIN:
        raise TooLarge(
            f"this plain pnm has {count} numbers; {MAX_PLAIN} are allowed (a raw pnm may have more)"
        )
    read = read_bits if header.bits == 1 else read_numbers
    try:
        numbers = read(view[header.offset :], count, watch)
    except (ValueError, OverflowError):
        raise CorruptImage(
            "this plain pnm holds something that is not a number, or a number that is too high"
        ) from None
    if len(numbers) < count:
        if not tolerant:
            raise CorruptImage(f"this plain pnm is truncated: it has {len(numbers)} of {count} numbers")
        numbers.extend([0] * (count - len(numbers)))
    image = pyvips.Image.new_from_memory(
        memoryview(numbers).cast("B"), header.width, header.height, header.bands, "ushort"
    )
    if header.bits == 1:
        # 1 is black.
        return image.linear(-_BYTE, _BYTE, uchar=True).copy(interpretation="b-w")
    if max(numbers) > header.maximum:
        raise CorruptImage(f"this plain pnm has a number above its maximum of {header.maximum}")
    return _scale(image if header.bits == _WIDE else image.cast("uchar"), header)


def read_numbers(text: memoryview, count: int, watch: StopCheck | None = None) -> "array[int]":
    """Read up to ``count`` numbers. Raises ``ValueError`` and ``OverflowError``."""
    numbers = array("H")
    for block in _blocks(text, b" \n\t\r", watch):
        numbers.extend(map(int, block.split()))
        if len(numbers) >= count:
            break
    return numbers[:count]


def read_bits(text: memoryview, count: int, watch: StopCheck | None = None) -> "array[int]":
    """Read up to ``count`` bits, with or without space between them. Raises ``ValueError``."""
    numbers = array("H")
    for block in _blocks(text, b"", watch):
        digits = block.translate(_DIGIT_VALUES, b" \t\r\n\v\f")
        if digits.translate(None, b"\0\1"):
            raise ValueError
        numbers.extend(digits)
        if len(numbers) >= count:
            break
    return numbers[:count]


def _blocks(text: memoryview, separators: bytes, watch: StopCheck | None) -> Iterator[bytes]:
    """Yield the text in pieces without comments. Each piece ends at one of ``separators``, if any are given.

    Raises ``ValueError`` for anything but numbers and white space, and the reason of ``watch`` to stop.
    """
    begun = b""  # a number that continues in the next piece
    in_comment = False
    for start in range(0, len(text), PIECE):
        stop_if_asked(watch)
        piece = bytes(text[start : start + PIECE])
        if in_comment:
            _, ended, piece = piece.partition(b"\n")
            in_comment = not ended
        piece = _COMMENT.sub(b" ", piece)
        before, hash_, _ = piece.partition(b"#")
        if hash_:
            in_comment, piece = True, before + b" "
        piece = begun + piece
        if piece.translate(None, _NUMBER_CHARACTERS):
            raise ValueError
        cut = 1 + max((piece.rfind(one) for one in separators), default=len(piece))
        piece, begun = piece[:cut], piece[cut:]
        if len(begun) > _MAX_DIGITS:
            raise ValueError
        yield piece
    yield begun


def _scale(image: pyvips.Image, header: PnmHeader) -> pyvips.Image:
    """Scale the samples so that the maximum becomes white."""
    colour = header.bands >= _COLOURS
    if header.bits == _WIDE:
        if header.maximum != _SHORT:
            image = image.linear(_SHORT / header.maximum, 0.5).cast("ushort")
        return image.copy(interpretation="rgb16" if colour else "grey16")
    if header.maximum != _BYTE:
        image = image.linear(_BYTE / header.maximum, 0.5, uchar=True)
    return image.copy(interpretation="srgb" if colour else "b-w")


def _decode_cost(request: DecodeRequest) -> DecodeCost:
    is_plain = request.upload.head(2)[1:] in b"123"
    return parsed_file_cost(request) if is_plain else streamed_rows_cost(request)


_BEGINNING = re.compile(rb"P([1-6][\s#]|7\n)")

PNM = ImageFormat(
    name="pnm",
    order=210,
    signatures=(
        signature("XV thumbnail", rb"P7 332", is_read=False),
        signature("PNM", rb"P[1-7][\s#]"),
        signature("PFM", rb"P[fF]\s", is_read=False),
    ),
    reader=BuiltinReader(
        recognises=lambda _upload, head: _BEGINNING.match(head), open=open_pnm, decode_cost=_decode_cost
    ),
)

FORMATS = (PNM,)
