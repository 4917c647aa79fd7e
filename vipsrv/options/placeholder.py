"""What stands for an image until it is loaded: which of them a request asks for, and what a reply states."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from vipsrv.options.checks import read_choice, shown


class Placeholder(StrEnum):
    """What a request may ask for: a tiny blurred image as a short text, or one colour."""

    THUMBHASH = "thumbhash"
    BLURHASH = "blurhash"
    DOMINANT = "dominant"
    AVERAGE = "average"


PlaceholderName = Literal["thumbhash", "blurhash", "dominant", "average"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placeholders:
    """What stands for an image; ``None`` for what was not asked.

    ``thumbhash`` is a ThumbHash in base64, ``blurhash`` a BlurHash, ``dominant`` and ``average`` are colours,
    ``#rrggbb``.
    """

    thumbhash: str | None = None
    blurhash: str | None = None
    dominant: str | None = None
    average: str | None = None

    def to_meta(self) -> dict[str, str]:
        """Return the JSON object of a reply: what there is, in the order of ``Placeholder``."""
        found = ((one.value, getattr(self, one)) for one in Placeholder)
        return {name: value for name, value in found if value is not None}


def read_placeholders(value: Any) -> tuple[Placeholder, ...]:
    """Return what a request asks for, each once. Raises ``ValueError``."""
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Iterable):
        message = f"placeholder: must be a list of {', '.join(Placeholder)}, not {shown(value)}"
        raise ValueError(message)  # noqa: TRY004 - one error type
    return tuple(dict.fromkeys(read_choice("placeholder", Placeholder, one) for one in value))
