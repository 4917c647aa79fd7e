"""Figures as text for people."""

import math
from datetime import UTC, datetime

UNKNOWN = "unknown"
"""What is told of a time that cannot be; another program has written it."""

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
_MINUTE = 60
_HOUR = 3600
_DAY = 86_400
_THREE_DIGITS = 100


def size_text(count: float) -> str:
    """Return bytes with three digits: ``12.3 MB`` (decimal units)."""
    value, unit = float(count), 0
    while round(value) >= 1000 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - the step between two units
        value, unit = value / 1000, unit + 1
    return f"{_three_digits(value) if unit else round(value)} {_UNITS[unit]}"


def share_text(share: float) -> str:
    """Return a share as a percentage with about two digits: ``1.9 %``."""
    percent = share * 100
    digits = 0 if percent >= 10 else 1 if percent >= 1 else 2  # noqa: PLR2004 - two digits in any case
    return f"{percent:,.{digits}f} %"


def ratio_text(ratio: float) -> str:
    """Return how many times smaller results are than their images, with three digits: ``2.31``."""
    return f"{ratio:.3g}" if ratio < 1000 else f"{ratio:,.0f}"  # noqa: PLR2004 - where %g changes its form


def ms_text(ms: float) -> str:
    """Return milliseconds in the unit that fits: ``12.5 ms``, ``3.2 s``, ``5 min 12 s``."""
    if ms < 1000:  # noqa: PLR2004 - a second
        return f"{_three_digits(ms)} ms"
    seconds = ms / 1000
    if seconds < _MINUTE:
        return f"{_three_digits(seconds)} s"
    return duration_text(seconds)


def duration_text(seconds: float) -> str:
    """Return seconds as days, hours, minutes and seconds, the two largest of them."""
    if not math.isfinite(seconds):
        return UNKNOWN
    left = round(seconds)
    parts: list[str] = []
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min"), (1, "s")):
        count, left = divmod(left, unit)
        if count or (unit == 1 and not parts):
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])


def time_text(ms: int) -> str:
    """Return milliseconds since the epoch as a date and a time in UTC."""
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):  # no year of the calendar
        return UNKNOWN


def count_text(count: int, one: str, several: str | None = None) -> str:
    """Return a number with its noun: ``1 image``, ``2,000 images``."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= _THREE_DIGITS else f"{value:.3g}"
