"""The option ``pages``: which frames of an animation a result has."""

import re
from typing import Any

from vipsrv.options.bounds import INTEGER_BOUNDS
from vipsrv.options.checks import shown

ALL_PAGES = "all"

PAGES_PATTERN = r"all|[0-9]{1,10}-[0-9]{1,10}"
"""The form of the option's text."""

_RANGE = re.compile(r"([0-9]{1,10})-([0-9]{1,10})", re.ASCII)


def read_pages(name: str, value: Any) -> str | None:
    """Return the text of an option: ``all``, or the first and the last frame, counted from 0, as ``0-9``.

    Raises ``ValueError``.
    """
    if value is None or value == ALL_PAGES:
        return value  # type: ignore[no-any-return]
    found = _RANGE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{name}: must be all, or first and last like 0-9, not {shown(value)}")
    first, last = int(found[1]), int(found[2])
    if not first <= last <= INTEGER_BOUNDS["page"][1]:
        raise ValueError(
            f"{name}: {first}-{last} must begin with the lower number and end at most at "
            f"{INTEGER_BOUNDS['page'][1]}"
        )
    return f"{first}-{last}"


def page_range(pages: str) -> tuple[int, int | None]:
    """Return the first and the last page of a text that ``read_pages`` returned; ``None`` for the last one of
    the image.
    """
    if pages == ALL_PAGES:
        return 0, None
    first, _, last = pages.partition("-")
    return int(first), int(last)
