"""Find out which samples are black and white, where the numbers themselves do not say it.

- A file may say it: SMinSampleValue and SMaxSampleValue.
- Whole numbers of 32 bits and signed ones may fill their type. Measured values (heights, counts, Hounsfield
  units) do not; they are shown from the least to the greatest.
- Floats are from 0 to 1 by convention. RGB without a profile is light, without gamma (as Photoshop and
  libvips take it), and may be brighter than white. Others are shown from the least to the greatest.
"""

import math
from dataclasses import dataclass

import pyvips

from vipsrv.pipeline.formats.tiff.directory import Tag
from vipsrv.pipeline.formats.tiff.page import Numbers, Page, Photometric

_FILLS = 0.5
"""Numbers that reach this part of the range of their type are taken to use it all."""

_NEARLY = 0.05
"""So far beyond 0 and 1 a value may be, from resampling."""

_BRIGHT = 4.0
"""RGB whose mean is at most this is light, with highlights above 1; otherwise numbers such as 0 to 255."""

_FEW_LEVELS = 16
"""An image of signed bytes has at least so many levels."""

_LARGEST = 3.0e38
"""Floats beyond it are no values: infinite, or the number that many programs write for a missing one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The samples that are black and white. ``is_light``: they have no gamma. ``alpha_top`` is the sample of
    an opaque pixel; ``largest`` is the largest value that is no mistake.
    """

    low: float
    high: float
    is_light: bool = False
    alpha_top: float
    largest: float = _LARGEST

    @property
    def width(self) -> float:
        """The distance between black and white; 1 if there is none."""
        return self.high - self.low or 1.0


def stated_range(page: Page) -> Range | None:
    """Return the range that the file states, if it does."""
    lows, highs = page.decimals(Tag.MIN_SAMPLE), page.decimals(Tag.MAX_SAMPLE)
    if not lows or not highs:
        return None
    low, high = min(lows[: page.colours]), max(highs[: page.colours])
    if not (math.isfinite(low) and math.isfinite(high) and low < high) or high - low > _LARGEST:
        return None
    is_light = _may_be_light(page) and (low, high) == (0, 1)
    return Range(low=low, high=high, is_light=is_light, alpha_top=_alpha_top(page, high))


def find_range(colours: pyvips.Image, page: Page) -> Range:
    """Return the range of all pixels. They are decoded for it. Raises ``pyvips.Error``."""
    low, high, mean = _statistics(colours, no_data(page))
    if page.numbers_are == Numbers.FLOAT:
        is_rgb = page.photometric in {Photometric.RGB, Photometric.YCBCR}
        fits = mean <= _BRIGHT if is_rgb else (low >= -_NEARLY and high <= 1 + _NEARLY)
        if fits:
            low, high = 0.0, 1.0
        is_light = fits and _may_be_light(page)
        return Range(low=low, high=high, is_light=is_light, alpha_top=1.0 if fits else _alpha_top(page, high))
    signed = page.numbers_are == Numbers.SIGNED
    top = float((1 << (page.bits - signed)) - 1)
    bottom = -top - 1 if signed and low < 0 else 0.0
    if high - (low if bottom else 0) >= _FILLS * (top - bottom) or page.photometric == Photometric.CMYK:
        low, high = bottom, top
    return Range(low=low, high=high, alpha_top=top)


def is_really_unsigned(colours: pyvips.Image) -> bool:
    """Whether 8-bit numbers that the file calls signed are bytes from 0 to 255, as some programs write them.

    Read in the wrong way, neighbours on both sides of the middle (or of 0) differ by nearly everything. Where
    it makes no difference, or nearly nothing would be seen, they are bytes. All pixels are decoded for it.
    Raises ``pyvips.Error``.
    """
    bands = colours.bands
    both = colours.bandjoin(colours.copy(format="uchar")).cast("short")
    steps = (both - both.embed(1, 1, both.width, both.height, extend="copy")).abs()
    table = both.bandjoin(steps).stats().numpy()[1:]
    is_flat = table[:bands, 1].max() - table[:bands, 0].min() < _FEW_LEVELS
    signed, unsigned = table[2 * bands : 3 * bands, 4].sum(), table[3 * bands :, 4].sum()
    return bool(is_flat or unsigned <= signed)


def no_data(page: Page) -> float | None:
    """Return the number that stands for a missing value in the files of GDAL."""
    entry = page.entries.get(Tag.NO_DATA)
    if entry is None or entry.count > 64:  # noqa: PLR2004 - characters
        return None
    data = entry.value
    if entry.count > len(data):
        data = page.upload.read(page.tiff.start(data), entry.count)
    try:
        number = float(data[: entry.count].split(b"\0")[0].decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        return None
    return number if math.isfinite(number) else None


def _may_be_light(page: Page) -> bool:
    return page.photometric == Photometric.RGB and Tag.PROFILE not in page.entries


def _alpha_top(page: Page, high: float) -> float:
    """Return the alpha of an opaque pixel: the greatest whole number; for floats 1, or white if above."""
    if page.numbers_are == Numbers.FLOAT:
        return max(1.0, high)
    return float((1 << (page.bits - (page.numbers_are == Numbers.SIGNED))) - 1)


def _statistics(colours: pyvips.Image, missing: float | None) -> tuple[float, float, float]:
    """Return least, greatest and mean of all values that are no mistakes, in one decode; zeros if all are."""
    valid = (colours >= -_LARGEST) & (colours <= _LARGEST)
    if missing is not None:
        valid &= colours != missing
    bands = colours.bands
    several = (
        valid.ifthenelse(colours, _LARGEST)
        .bandjoin(valid.ifthenelse(colours, -_LARGEST))
        .bandjoin(valid.ifthenelse(colours, 0))
        .bandjoin(valid)
    )
    table = several.stats().numpy()[1:]
    low = float(table[:bands, 0].min())
    high = float(table[bands : 2 * bands, 1].max())
    count = float(table[3 * bands :, 2].sum()) / 255
    if not count:
        return 0.0, 0.0, 0.0
    return low, high, float(table[2 * bands : 3 * bands, 2].sum()) / count
