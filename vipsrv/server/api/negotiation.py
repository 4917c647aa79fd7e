"""What a client accepts (RFC 9110, 12.5.1): the format of ``auto``, and how several results are sent."""

import re
from collections.abc import Collection, Iterator

from vipsrv.options import Format

ZIP = "application/zip"
MIXED = "multipart/mixed"

_MAX_RANGES = 64
"""More than any browser sends; the rest of the header is ignored."""

_RANGE = re.compile(r"\s*([a-z0-9!#$&^_.+*-]+)/([a-z0-9!#$&^_.+*-]+)\s*((?:;[^;]*)*)", re.ASCII)
_WEIGHT = re.compile(r"\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*", re.ASCII)

_PREFERRED = (Format.AVIF, Format.JXL, Format.WEBP)
"""The formats that ``auto`` chooses if a client accepts both equally, the smallest first."""

_STILL = (Format.AVIF, Format.JXL)
"""Those of them that hold only one frame here."""


def preferred_format(accept: str, allowed: Collection[str], *, animated: bool = False) -> Format | None:
    """Return AVIF, JPEG XL or WebP if a client names it as one of the image types that it likes best.

    A wildcard names no format: clients that know neither send ``*/*``, too. ``allowed`` are the formats that
    may be written. A result that may be ``animated`` is WebP, which holds all of its frames.
    """
    weights = {range_: weight for range_, weight in _ranges(accept) if range_.startswith(("image/", "*/"))}
    if animated:
        for format_ in _STILL:
            weights.pop(f"image/{format_}", None)
    best = max(weights.values(), default=0.0)
    for format_ in _PREFERRED:
        weight = weights.get(f"image/{format_}", 0.0)
        if 0 < weight == best and format_ in allowed:
            return format_
    return None


def prefers_zip(accept: str) -> bool:
    """Whether a client names zip files, and likes them better than parts of a message."""
    weights = dict(_ranges(accept))
    mixed = weights.get(MIXED, weights.get("multipart/*", weights.get("*/*", 0.0)))
    wanted = weights.get(ZIP, 0.0)
    return wanted > 0 and (wanted > mixed or (wanted == mixed and MIXED not in weights))


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    """Yield the media ranges and their weights. What is no range is ignored."""
    for part in accept.lower().split(",")[:_MAX_RANGES]:
        match = _RANGE.fullmatch(part)
        if match is None:
            continue
        weight = 1.0
        for parameter in match[3].split(";")[1:]:
            if found := _WEIGHT.fullmatch(parameter):
                weight = float(found[1])
                break
        yield f"{match[1]}/{match[2]}", weight
