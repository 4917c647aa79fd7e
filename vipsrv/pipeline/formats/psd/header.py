"""Read and check the header of a Photoshop file, and find what belongs to its merged image.

A file has a header, the colour table, the image resources, the layers, and at last the merged image. All
sections but the last begin with their length, so that a few short reads find the way through a file of any
size. A large document (PSB) has some lengths of 8 bytes. All numbers are big-endian.

Source: Adobe, "Adobe Photoshop File Formats Specification" (2019).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from vipsrv.errors import CorruptImage, UnsupportedFormat
from vipsrv.pipeline.upload import Upload


class Mode(IntEnum):
    """The colour mode of a document."""

    BITMAP = 0
    GREY = 1
    INDEXED = 2
    RGB = 3
    CMYK = 4
    MULTICHANNEL = 7
    DUOTONE = 8
    LAB = 9


class Compression(IntEnum):
    """How the merged image is stored."""

    RAW = 0
    PACKBITS = 1
    ZIP = 2
    ZIP_PREDICTED = 3


BITMAP_BITS, FLOAT_BITS = 1, 32

_HEADER = struct.Struct(">4sH6xHIIHH")
_LARGE_DOCUMENT = 2
_MAX_SIDES = {1: 30_000, 2: 300_000}
_MAX_CHANNELS = 56
_MAX_BLOCKS = 20_000
"""Image resources, and blocks behind the layers. Photoshop writes some dozens; 20,000 take 30 ms."""

_MAX_PROFILE = 4 << 20
_PALETTE = 768
_COLOURS = {
    Mode.BITMAP: 1,
    Mode.GREY: 1,
    Mode.INDEXED: 1,
    Mode.RGB: 3,
    Mode.CMYK: 4,
    Mode.DUOTONE: 1,
    Mode.LAB: 3,
}
_DEPTHS = {
    Mode.BITMAP: {BITMAP_BITS},
    Mode.INDEXED: {8},
    Mode.DUOTONE: {8, 16},
    Mode.RGB: {8, 16, FLOAT_BITS},
    Mode.GREY: {8, 16, FLOAT_BITS},
}
_USUAL_DEPTHS = {8, 16}

_CHANNEL_NAMES, _VERSION_INFO, _PROFILE_ID, _TRANSPARENT_INDEX = 1006, 1057, 1039, 1047
_LAYERS = {b"Lr16", b"Lr32", b"Layr"}
_MERGED_TRANSPARENCY = {b"Mtrn", b"Mt16", b"Mt32"}
_LONG_KEYS = _LAYERS | _MERGED_TRANSPARENCY | {
    b"LMsk", b"Alph", b"FMsk", b"lnk2", b"FEid", b"FXid", b"PxSD", b"cinf",
}  # fmt: skip
"""Blocks of a large document whose length has 8 bytes."""


class Alpha(IntEnum):
    """What the first channel after those of the colours is."""

    NONE = 0
    STRAIGHT = 1
    OVER_WHITE = 2
    """Transparency; the colours have been composited over white, as Photoshop stores a merged image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PsdHeader:
    """``colours`` is the number of channels that make the colour, in order; one for alpha may follow.

    ``offset`` is where the merged image's data begin, after the number of its compression. ``is_merged``:
    the file says that the image is one; Photoshop saves a white one if it was told to save none.
    """

    width: int
    height: int
    channels: int
    bits: int
    mode: Mode
    is_large: bool
    colours: int
    alpha: Alpha
    palette: bytes
    transparent_index: int | None
    profile: tuple[int, int] | None
    is_merged: bool
    compression: Compression
    offset: int

    @property
    def has_alpha(self) -> bool:
        """Whether the image has transparency."""
        return self.alpha is not Alpha.NONE or self.transparent_index is not None

    @property
    def planes(self) -> int:
        """The channels that are read, from the first on."""
        return self.colours + (1 if self.alpha is not Alpha.NONE else 0)

    @property
    def row(self) -> int:
        """Bytes of a row of one channel."""
        return (self.width * self.bits + 7) // 8


@dataclass(slots=True)
class _Found:
    """What the sections say: ``names`` the channels beyond the colours, ``layers`` their number, negative if
    the merged image has transparency, ``None`` without layers.
    """

    names: bool = False
    is_merged: bool = True
    profile: tuple[int, int] | None = None
    transparent_index: int | None = None
    layers: int | None = None
    keys: set[bytes] = field(default_factory=set)


def parse_header(upload: Upload) -> PsdHeader:
    """Read the header, and the sections as far as needed. Raises ``CorruptImage``, ``UnsupportedFormat``."""
    try:
        return _parse(upload)
    except struct.error:
        raise CorruptImage("this psd ends before its merged image") from None


def _parse(upload: Upload) -> PsdHeader:
    _, version, channels, height, width, bits, number = _HEADER.unpack(upload.head(_HEADER.size))
    if version not in _MAX_SIDES or not 1 <= channels <= _MAX_CHANNELS:
        raise CorruptImage(f"this psd has the unknown version {version}, or {channels} channels")
    if not (0 < width <= _MAX_SIDES[version] and 0 < height <= _MAX_SIDES[version]):
        raise CorruptImage(f"this psd has an impossible size of {width} x {height}")
    try:
        mode = Mode(number)
    except ValueError:
        raise CorruptImage(f"this psd has the unknown colour mode {number}") from None
    if bits not in _DEPTHS.get(mode, _USUAL_DEPTHS):
        raise UnsupportedFormat(
            f"this psd has {bits} bits in the mode {mode.name}, which vipsrv does not read"
        )
    colours = _COLOURS.get(mode) or (min(channels, 4) if channels > 2 else 1)  # noqa: PLR2004 - inks, or one
    if channels < colours:
        raise CorruptImage(f"this psd has {channels} channels; its mode {mode.name} needs {colours}")
    is_large = version == _LARGE_DOCUMENT
    table = _HEADER.size
    resources = table + 4 + _number(upload, table, 4)
    layers = resources + 4 + _number(upload, resources, 4)
    length = 8 if is_large else 4
    data = layers + length + _number(upload, layers, length)
    found = _Found()
    _read_resources(upload, resources + 4, min(layers, upload.size), found)
    _read_layers(upload, layers + length, min(data, upload.size), length, found)
    palette = upload.read(table + 4, _PALETTE) if mode is Mode.INDEXED else b""
    if mode is Mode.INDEXED and _number(upload, table, 4) < _PALETTE:
        raise CorruptImage("this psd has indexed colours without a colour table")
    kind = _number(upload, data, 2)
    if kind not in list(Compression):
        raise CorruptImage(f"this psd has the unknown compression {kind}")
    return PsdHeader(
        width=width,
        height=height,
        channels=channels,
        bits=bits,
        mode=mode,
        is_large=is_large,
        colours=colours,
        alpha=_alpha(mode, channels - colours, found),
        palette=palette,
        transparent_index=found.transparent_index if mode is Mode.INDEXED else None,
        profile=found.profile,
        is_merged=found.is_merged,
        compression=Compression(kind),
        offset=data + 2,
    )


def _alpha(mode: Mode, extra: int, found: _Found) -> Alpha:
    """Tell transparency from a saved selection, which is stored in the same place."""
    if extra == 0 or mode in {Mode.BITMAP, Mode.INDEXED, Mode.MULTICHANNEL}:
        return Alpha.NONE
    if (found.layers or 0) < 0 or found.keys & _MERGED_TRANSPARENCY:
        return Alpha.OVER_WHITE
    # Photoshop names each selection. Other programs write one more channel for alpha, without a name.
    return Alpha.NONE if found.names else Alpha.STRAIGHT


def _number(upload: Upload, start: int, size: int) -> int:
    data = upload.read(start, size)
    if len(data) < size:
        raise struct.error("the end of the file")
    return int.from_bytes(data)


def _read_resources(upload: Upload, start: int, end: int, found: _Found) -> None:
    at = start
    for _ in range(_MAX_BLOCKS):
        head = upload.read(at, 7)
        if at + len(head) >= end or head[:3] == b"\0\0\0":
            return
        identity = int.from_bytes(head[4:6])
        at += 6 + (head[6] + 2) // 2 * 2
        size = _number(upload, at, 4)
        at += 4
        if identity == _PROFILE_ID and 0 < size <= min(_MAX_PROFILE, end - at):
            found.profile = at, size
        elif identity == _CHANNEL_NAMES:
            found.names = size > 0
        elif identity == _VERSION_INFO and size > 4:  # noqa: PLR2004 - its version comes first
            found.is_merged = _number(upload, at + 4, 1) != 0
        elif identity == _TRANSPARENT_INDEX and size == 2:  # noqa: PLR2004 - bytes of an index
            found.transparent_index = _number(upload, at, 2)
        at += size + size % 2


def _read_layers(upload: Upload, start: int, end: int, length: int, found: _Found) -> None:
    if end - start < length:
        return
    size = _number(upload, start, length)
    if size >= 2 and start + length + 2 <= end:  # noqa: PLR2004 - bytes of the number of layers
        found.layers = _signed(upload, start + length)
    mask = start + length + size
    if end - mask < 4:  # noqa: PLR2004 - bytes of a length
        return
    for key, at in _blocks(upload, mask + 4 + _number(upload, mask, 4), end, is_large=length > 4):  # noqa: PLR2004
        found.keys.add(key)
        if key in _LAYERS and at + 2 <= end and not found.layers:
            found.layers = _signed(upload, at)


def _signed(upload: Upload, at: int) -> int:
    return int.from_bytes(upload.read(at, 2), signed=True)


def _blocks(upload: Upload, start: int, end: int, *, is_large: bool) -> Iterator[tuple[bytes, int]]:
    """Yield the key of each tagged block, and where its data begin."""
    at = start
    for _ in range(_MAX_BLOCKS):
        head = upload.read(at, 8) if at + 8 < end else b""
        if head[:4] not in {b"8BIM", b"8B64"}:
            return
        key = head[4:]
        length = 8 if is_large and key in _LONG_KEYS else 4
        size = _number(upload, at + 8, length)
        yield key, at + 8 + length
        at += 8 + length + (size + 3) // 4 * 4
