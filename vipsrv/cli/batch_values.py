"""Values of the command line of ``vipsrv batch``: sizes and formats, moments, and shares."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from vipsrv.cli.result_options import outputs_for, parse_sizes
from vipsrv.options import Fit, Format, ResizeOptions

_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_formats(text: str) -> list[Format]:
    """Parse formats such as ``avif,webp,jpg``. Raises ``ValueError``, also for one that is given twice."""
    formats: list[Format] = []
    for word in text.split(","):
        try:
            format_ = Format(word.strip())
        except ValueError:
            raise ValueError(f"--format: {word.strip()!r} is not one of {', '.join(Format)}") from None
        if format_ in formats:
            raise ValueError(f"--format: {format_} is given twice")
        formats.append(format_)
    return formats


def result_options(sizes: str, formats: str, *, fit: Fit | None, **options: Any) -> tuple[ResizeOptions, ...]:
    """Return the options of all results of an image: each size in each format. Raises ``ValueError``."""
    wanted = parse_sizes(sizes, option="--sizes")
    return tuple(
        one
        for format_ in parse_formats(formats)
        for one in outputs_for((None, None), wanted, fit=fit, format=format_, **options)
    )


def parse_moment(option: str, text: str, now: datetime | None = None) -> datetime:
    """Parse a date, a date and time, or how long ago it was, such as ``36h`` or ``7d``.

    A time without a zone is that of this machine. Raises ``ValueError`` that names the ``option``.
    """
    ago = re.fullmatch(r"(\d{1,6})\s*(s|min|h|d|w)", text.strip(), re.ASCII)
    if ago is not None:
        return (now or datetime.now(UTC)) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError):
        raise ValueError(
            f"{option}: {text!r} is no moment; write 2026-01-31, 2026-01-31T18:00, 36h or 7d"
        ) from None


def nanoseconds(moment: datetime) -> int:
    """Return a moment as nanoseconds since the epoch, exactly."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def parse_share(option: str, text: str) -> float:
    """Parse a share such as ``0.05`` or ``5%``, from 0 to 1.

    Raises ``ValueError`` that names the ``option``.
    """
    number = text.strip().removesuffix("%")
    try:
        share = float(number) / (100 if number != text.strip() else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"{option}: {text!r} is no share; write 0.05 or 5%")
    return share
