"""What the directory of a TIFF page says about its pixels, and whether libvips decodes such pixels rightly.

Sources: TIFF revision 6.0 (1992); Adobe's TIFF Technical Notes (1995) for CIELab and ICCLab; libtiff's tags.
"""

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import islice

from vipsrv.errors import CorruptImage, TooLarge, UnsupportedFormat
from vipsrv.pipeline.formats.tiff.directory import TYPE_BYTES, Tag, TiffStructure, directories
from vipsrv.pipeline.upload import Upload

MAX_SAMPLES = 64
"""Samples of a pixel of a page that is rearranged here. Each may become a band or a plane of its own."""

_MAX_TILES_ACROSS = 1 << 12
"""Tiles in a row. For each tile libvips looks through all of its row: 4 rows of 16,000 tiles take 7 s, of
4,000 0.3 s."""


class Photometric(IntEnum):
    """What the colours of a page are."""

    WHITE_IS_ZERO = 0
    BLACK_IS_ZERO = 1
    RGB = 2
    PALETTE = 3
    MASK = 4
    CMYK = 5
    YCBCR = 6
    CIELAB = 8
    ICCLAB = 9
    ITULAB = 10


class Numbers(IntEnum):
    """What the bits of a sample are: the field SampleFormat."""

    UNSIGNED = 1
    SIGNED = 2
    FLOAT = 3
    UNDEFINED = 4
    COMPLEX_INTEGER = 5
    COMPLEX = 6


class Extra(IntEnum):
    """What a sample beyond the colours is: the field ExtraSamples."""

    UNSPECIFIED = 0
    ASSOCIATED_ALPHA = 1
    ALPHA = 2


class Compression(IntEnum):
    """The compressions that matter here."""

    NONE = 1
    OLD_JPEG = 6
    JPEG = 7
    JPEG_2000_YCC = 33_003
    JPEG_2000_RGB = 33_005
    JPEG_2000 = 34_712


JPEG_2000 = {Compression.JPEG_2000_YCC, Compression.JPEG_2000_RGB, Compression.JPEG_2000}
_GREY = {Photometric.WHITE_IS_ZERO, Photometric.BLACK_IS_ZERO, Photometric.MASK}
_LABS = {Photometric.CIELAB, Photometric.ICCLAB, Photometric.ITULAB}
_COLOURS = {
    Photometric.WHITE_IS_ZERO: 1,
    Photometric.BLACK_IS_ZERO: 1,
    Photometric.RGB: 3,
    Photometric.PALETTE: 1,
    Photometric.MASK: 1,
    Photometric.CMYK: 4,
    Photometric.YCBCR: 3,
    Photometric.CIELAB: 3,
    Photometric.ICCLAB: 3,
    Photometric.ITULAB: 3,
}
_USUAL_BITS = {
    Photometric.RGB: {8, 16},
    Photometric.PALETTE: {1, 2, 4, 8},
    Photometric.CMYK: {8},
}
_MAX_ENTRIES_OF_LISTS = 1 << 16
_ALLOWED: dict[int, Collection[int]] = {
    Tag.ORIENTATION: range(1, 9),
    Tag.RESOLUTION_UNIT: range(1, 4),
    Tag.INK_NAMES: (),
}
_SEPARATE = 2
_READ_BITS: dict[int, Collection[int]] = {
    Numbers.UNSIGNED: (*range(1, 33), 40, 48, 56, 64),
    Numbers.SIGNED: (8, 16, 32, 64),
    Numbers.FLOAT: (16, 24, 32, 64),
}
_NAMES: dict[int, str] = {
    Numbers.UNSIGNED: "samples",
    Numbers.SIGNED: "signed numbers",
    Numbers.FLOAT: "floating point numbers",
}
_COMPLEX = {Numbers.COMPLEX, Numbers.COMPLEX_INTEGER}


@dataclass(frozen=True, slots=True)
class Entry:
    """A field of a directory: its type, how many values, and the values or the position where they are."""

    kind: int
    count: int
    value: bytes


class Page:
    """The fields of one page that say how its pixels are to be read."""

    def __init__(self, upload: Upload, tiff: TiffStructure, position: int) -> None:
        self.upload = upload
        self.tiff = tiff
        every = [
            (tag, Entry(kind, count, value)) for tag, kind, count, value in tiff.entries(upload, position)
        ]
        self.entries = {tag: entry for tag, entry in every if tag and entry.kind in TYPE_BYTES}
        self.entries = self._sound_entries()
        self.is_sound = len(self.entries) == len(every)
        self.width = self.number(Tag.WIDTH, 0)
        self.height = self.number(Tag.LENGTH, 0)
        self.samples = self.number(Tag.SAMPLES, 1)
        self.compression = self.number(Tag.COMPRESSION, Compression.NONE)
        self.is_planar = self.number(Tag.PLANAR, 1) == _SEPARATE and self.samples > 1
        self.is_tiled = Tag.TILE_WIDTH in self.entries and Tag.TILE_LENGTH in self.entries

    def _sound_entries(self) -> dict[int, Entry]:
        """Return the entries without those of which libtiff says that they are wrong, and without which the
        pixels are the same.
        """
        wrong = {
            tag
            for tag, allowed in _ALLOWED.items()
            if tag in self.entries and self.number(tag, 0) not in allowed
        }
        return {tag: entry for tag, entry in self.entries.items() if tag not in wrong}

    def number(self, tag: int, default: int) -> int:
        """Return the first integer of a field."""
        return next(iter(self.numbers(tag)), default)

    def numbers(self, tag: int, limit: int = _MAX_ENTRIES_OF_LISTS) -> Sequence[int]:
        """Return the integers of a field; none if it is missing, truncated, or has more than ``limit``."""
        entry = self.entries.get(tag)
        return (
            ()
            if entry is None
            else self.tiff.integers(self.upload, entry.kind, entry.count, entry.value, limit)
        )

    def decimals(self, tag: int) -> Sequence[float]:
        """Return the numbers of a field that holds integers, fractions or floats; none if it is missing."""
        entry = self.entries.get(tag)
        if entry is None or entry.count > MAX_SAMPLES:
            return ()
        return self.tiff.decimals(self.upload, entry.kind, entry.count, entry.value)

    @cached_property
    def photometric(self) -> int:
        """The colours; if the file does not say, what other readers assume. Black and white is a fax."""
        stated = self.number(Tag.PHOTOMETRIC, -1)
        if stated >= 0:
            return stated
        if Tag.COLOUR_MAP in self.entries and self.samples == 1:
            return Photometric.PALETTE
        if self.samples >= 3:  # noqa: PLR2004 - red, green, blue
            is_jpeg = self.compression in {Compression.JPEG, Compression.OLD_JPEG}
            return Photometric.YCBCR if is_jpeg and self.samples == 3 else Photometric.RGB  # noqa: PLR2004
        return Photometric.WHITE_IS_ZERO if self.bits == 1 else Photometric.BLACK_IS_ZERO

    @cached_property
    def bits(self) -> int:
        """Bits of a sample; 0 if the samples differ."""
        bits = set(self.numbers(Tag.BITS)[: self.samples]) or {1}
        return bits.pop() if len(bits) == 1 else 0

    @cached_property
    def numbers_are(self) -> int:
        """The kind of all samples; 0 if they differ."""
        kinds = set(self.numbers(Tag.SAMPLE_FORMAT)[: self.samples]) or {Numbers.UNSIGNED}
        kind = kinds.pop() if len(kinds) == 1 else 0
        return Numbers.UNSIGNED if kind == Numbers.UNDEFINED else kind

    @cached_property
    def colours(self) -> int:
        """Samples of a pixel that are colours; 0 if it is not known."""
        return _COLOURS.get(Photometric(self.photometric), 0) if self.is_known else 0

    @property
    def is_known(self) -> bool:
        """Whether the colours are of a kind that is known here."""
        return self.photometric in list(Photometric)

    @cached_property
    def alpha(self) -> int | None:
        """The number of the sample that is alpha: the first that ExtraSamples names so.

        A file that has one sample more and does not say what it is means alpha, as all readers take it.
        """
        kinds = self.extras
        return next((self.colours + at for at, kind in enumerate(kinds) if kind in _ALPHAS), None)

    @cached_property
    def extras(self) -> Sequence[int]:
        """What each sample beyond the colours is."""
        count = self.samples - self.colours
        if Tag.EXTRA_SAMPLES not in self.entries:
            return (Extra.ALPHA,) if count == 1 else (Extra.UNSPECIFIED,) * max(0, count)
        return tuple(self.numbers(Tag.EXTRA_SAMPLES))[: max(0, count)]

    @property
    def is_associated(self) -> bool:
        """Whether the colours are multiplied by alpha."""
        return self.alpha is not None and self.extras[self.alpha - self.colours] == Extra.ASSOCIATED_ALPHA

    @property
    def subsampling(self) -> tuple[int, int]:
        """How many pixels share a chroma sample, across and down."""
        across, down = (*self.numbers(Tag.SUBSAMPLING, 2), 2, 2)[:2]
        return across, down

    @property
    def is_lab(self) -> bool:
        """Whether the colours are L*a*b*."""
        return self.photometric in _LABS


_ALPHAS = {Extra.ASSOCIATED_ALPHA, Extra.ALPHA}


def read_page(upload: Upload, number: int) -> Page | None:
    """Return a page, counted from 0; ``None`` if there is no such directory."""
    found = next(islice(directories(upload), number, None), None)
    if found is None:
        return None
    position, tiff = found
    try:
        return Page(upload, tiff, position)
    except struct.error:
        return None


def is_usual(page: Page, *, but_sound: bool = False) -> bool:
    """Whether libvips decodes the page, and rightly; of broken pages, too, libvips says what is wrong. With
    ``but_sound``: whether it would without the fields that are wrong.
    """
    if not (page.width and page.height) or page.samples > MAX_SAMPLES or page.samples < 1:
        return True
    if page.compression == Compression.OLD_JPEG:
        return False
    if page.compression in JPEG_2000 or not page.is_known:
        return Tag.PHOTOMETRIC in page.entries
    return (
        Tag.PHOTOMETRIC in page.entries
        and (page.is_sound or but_sound)
        and page.numbers_are == Numbers.UNSIGNED
        and not (page.is_planar and page.is_tiled)
        and _has_usual_samples(page)
    )


def _has_usual_samples(page: Page) -> bool:
    extra = page.samples - page.colours
    if extra < 0:
        return True
    if extra > 1 or (extra == 1 and page.alpha is None):
        return False
    if page.photometric in _GREY:
        # libvips mixes up the planes of grey and alpha.
        return (page.bits in {8, 16} and not page.is_planar) or (page.bits in {1, 2, 4} and page.samples == 1)
    if page.photometric == Photometric.YCBCR:
        return page.compression == Compression.JPEG and not page.is_planar
    if page.photometric == Photometric.PALETTE and extra:
        return False
    return page.bits in _USUAL_BITS.get(Photometric(page.photometric), ())


def check_readable(page: Page) -> None:
    """Raise ``UnsupportedFormat``, with the reason, for an unusual page that is not read."""
    bits, kind = page.bits, page.numbers_are
    what = None
    if not page.is_known:
        what = f"colours of the unknown kind {page.photometric}"
    elif bits == 0:
        what = f"samples of {', '.join(map(str, page.numbers(Tag.BITS)[:8]))} bits"
    elif kind not in _READ_BITS:
        what = "complex numbers" if kind in _COMPLEX else "samples of different or unknown kinds"
    elif bits not in _READ_BITS[kind]:
        what = f"{_NAMES[kind]} of {bits} bits"
    if what is not None:
        raise UnsupportedFormat(f"this tiff has {what}, which vipsrv does not read")
    if page.samples < page.colours:
        raise CorruptImage(f"this tiff has {page.samples} samples a pixel; its colours need {page.colours}")


def check_tiles(page: Page) -> None:
    """Raise ``TooLarge`` for more tiles in a row than libvips decodes in a short time."""
    if not page.is_tiled:
        return
    across = -(-page.width // max(1, page.number(Tag.TILE_WIDTH, 1)))
    if across > _MAX_TILES_ACROSS:
        raise TooLarge(f"this tiff has {across} tiles in a row; {_MAX_TILES_ACROSS} are allowed")
