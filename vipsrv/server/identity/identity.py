"""An identity: the name of a client that has logged in, and its limits."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from vipsrv.printable import printable

MOST_PRIORITY = 100.0
"""The largest priority, and the reciprocal of the smallest."""

MAX_NAME = 64
"""Characters of the longest name."""

_MOST = 2.0**53
"""The largest limit: up to here every whole number is a float."""

FORMATS = frozenset(
    {
        *("jpeg", "png", "webp", "tiff", "gif", "avif", "bmp", "pnm", "ico", "tga"),
        *("psd", "dds", "qoi", "sgi", "hdr", "pcx", "dib", "heic", "jxl", "jp2", "svg", "pdf"),
    }
)
"""The formats that a limit may name: those that some build of libvips or vipsrv itself reads or writes."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityLimits:
    """What an identity may use, over all its connections together; ``None`` is no limit of its own.

    ``requests_per_second`` and ``bytes_per_second`` (of uploads) are long-term rates, see ``usage``.
    ``in_flight`` is requests at the same time. ``max_pixels`` is the pixels of the largest image that is
    decoded, and of all results of one request together. ``formats`` are the formats that may be uploaded and
    asked for. ``priority`` is the weight in the fair queue: an identity with 2 gets twice the worker time of
    one with 1 while both have requests waiting.

    Raises ``ValueError``, with a message that starts with the name of the limit, for an invalid value.
    """

    requests_per_second: float | None = None
    bytes_per_second: float | None = None
    in_flight: int | None = None
    max_pixels: int | None = None
    formats: frozenset[str] | None = None
    priority: float = 1.0

    def __post_init__(self) -> None:
        _check_number("requests_per_second", self.requests_per_second, 1 / 86_400, _MOST)
        _check_number("bytes_per_second", self.bytes_per_second, 1, _MOST)
        _check_whole("in_flight", self.in_flight)
        _check_whole("max_pixels", self.max_pixels)
        _check_number("priority", self.priority, 1 / MOST_PRIORITY, MOST_PRIORITY)
        if self.priority is None:
            raise ValueError("priority: must be a number")
        if self.formats is not None and not self.formats:
            raise ValueError("formats: must name at least one format")
        for name in sorted(self.formats or ()):
            if name not in FORMATS:
                raise ValueError(
                    f"formats: {printable(name)!r} is unknown; known are {', '.join(sorted(FORMATS))}"
                )

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Self:
        """Read limits from a table of TOML. Raises ``ValueError`` for unknown names and invalid values."""
        known = [limit.name for limit in fields(cls)]
        values = dict(table)
        for name in values:
            if name not in known:
                raise ValueError(f"{printable(name)}: is no limit; limits are {', '.join(known)}")
        if (formats := values.get("formats")) is not None:
            if not isinstance(formats, list) or not all(isinstance(one, str) for one in formats):
                raise ValueError('formats: must be a list of names, for example ["jpeg", "png"]')
            values["formats"] = frozenset("jpeg" if one == "jpg" else one for one in formats)
        return cls(**values)

    def to_table(self) -> dict[str, Any]:
        """Return the table that ``from_table`` reads, without the limits that are not set."""
        table = {name: value for name, value in asdict(self).items() if value is not None}
        if self.priority == 1:
            del table["priority"]
        if self.formats is not None:
            table["formats"] = sorted(self.formats)
        return table


@dataclass(frozen=True, slots=True)
class Identity:
    """A client that has logged in with the token ``token_id``.

    Several tokens may share a name: they are one identity.
    """

    name: str
    limits: IdentityLimits = field(default_factory=IdentityLimits)
    token_id: str = ""


def check_name(name: str) -> str:
    """Return the name of an identity. Raises ``ValueError`` if it is not valid.

    A name goes into logs and metrics, so it is short and has no space or control character.
    """
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise ValueError(
            f"{printable(name[:MAX_NAME])!r} is not a valid name: up to {MAX_NAME} letters and digits of "
            "ASCII, and after the first character also . _ @ and -"
        )
    return name


def _check_number(name: str, value: Any, least: float, most: float) -> None:
    if value is None:
        return
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{name}: must be a number")
    if not least <= value <= most:
        raise ValueError(f"{name}: must be from {least:.6g} to {most:.6g}, not {value:.6g}")


def _check_whole(name: str, value: Any) -> None:
    if value is None:
        return
    if type(value) is not int:
        raise ValueError(f"{name}: must be a whole number")
    if not 1 <= value <= _MOST:
        raise ValueError(f"{name}: must be from 1 to {_MOST:.0f}, not {value}")
