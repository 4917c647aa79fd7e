"""Which of the listed images a batch takes: by name, size and time.

A pattern matches as in a shell: ``*`` is any text and ``?`` any character without ``/``, ``[a-z]`` and
``[!a-z]`` are characters, ``{jpg,png}`` are alternatives, and ``**`` between two ``/`` is any number of
folders, none included. A pattern without ``/`` is matched against the name in any folder, one with ``/``
against the whole key; ``/`` at its start only says so, and ``/`` at its end means all that is in that folder.
Case counts.
"""

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import cached_property

from vipsrv.batch.images import ListedImage
from vipsrv.batch.stores.interface import Source
from vipsrv.batch.stores.key_list_source import KeyListSource
from vipsrv.batch.stores.left_out import LeftOut
from vipsrv.client import ImageSource
from vipsrv.client.image_endings import IMAGE_ENDINGS


@dataclass(frozen=True)
class Filters:
    """What an image must have to be taken.

    Without ``include`` an image has one of ``IMAGE_ENDINGS``, in any case of letters; ``any_ending`` takes
    all others, too. What matches ``exclude`` is never taken. ``min_bytes`` and ``max_bytes`` are inclusive.
    ``since`` is nanoseconds since the epoch, and the image was modified then or later. A size or a time that
    the source does not know excludes nothing.

    Raises ``ValueError`` for a pattern that cannot be.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_bytes: int | None = None
    max_bytes: int | None = None
    since: int | None = None
    any_ending: bool = False

    def __post_init__(self) -> None:
        _ = self._included, self._excluded  # a wrong pattern is an error now, not after the listing has begun

    def accepts(self, image: ListedImage) -> bool:
        """Whether the image is taken."""
        return (
            self._accepts_key(image.key) and _within(self.since, image.modified, None) and self._fits(image)
        )

    def _fits(self, image: ListedImage) -> bool:
        return _within(self.min_bytes, image.size, self.max_bytes)

    def _accepts_key(self, key: str) -> bool:
        if self._excluded is not None and self._excluded.fullmatch(key):
            return False
        if self._included is not None:
            return self._included.fullmatch(key) is not None
        return self.any_ending or has_image_ending(key)

    @cached_property
    def _included(self) -> re.Pattern[str] | None:
        return _any_of(self.include)

    @cached_property
    def _excluded(self) -> re.Pattern[str] | None:
        return _any_of(self.exclude)


class FilteredSource:
    """A source without the images that some filters exclude.

    What a list of keys names is taken whatever its ending is, unless a pattern is given.
    """

    def __init__(self, source: Source, filters: Filters) -> None:
        self._source = source
        self._filters = replace(filters, any_ending=True) if isinstance(source, KeyListSource) else filters

    @property
    def url(self) -> str:
        """That of the source."""
        return self._source.url

    @property
    def left_out(self) -> LeftOut:
        """What the source could not list. What the filters exclude is not counted."""
        return self._source.left_out

    async def images(self) -> AsyncIterator[ListedImage]:
        """List the images that the filters accept."""
        async for image in self._source.images():
            if self._filters.accepts(image):
                yield image

    def open(self, image: ListedImage) -> AbstractAsyncContextManager[ImageSource]:
        """Open one image of the source."""
        return self._source.open(image)

    async def close(self) -> None:
        """Close the source."""
        await self._source.close()


def has_image_ending(key: str) -> bool:
    """Whether the key ends as that of an image does."""
    name, dot, ending = key.rpartition(".")
    return bool(dot and name) and ending.lower() in IMAGE_ENDINGS


def _within(least: int | None, value: int | None, most: int | None) -> bool:
    return value is None or ((least is None or value >= least) and (most is None or value <= most))


def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    return re.compile("|".join(_regex(one) for one in patterns), re.DOTALL) if patterns else None


_PIECE = re.compile(r"\*+|\?|\[!?\]?[^\]]*\]|[\[{},]|[^*?\[{},]+")
"""Stars, a question mark, a class of characters, a character with a meaning, or plain text."""


def _regex(pattern: str) -> str:
    """Return the regular expression of a pattern. Raises ``ValueError``."""
    if not pattern.strip("/"):
        raise ValueError(f"the pattern {pattern!r} matches nothing")
    whole = "/" in pattern
    parts = (pattern.removeprefix("/") + ("**" if pattern.endswith("/") else "")).split("/")
    text = "" if whole else "(?:.*/)?"
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**" and whole:
            text += ".+" if last else "(?:.*/)?"
        else:
            text += _part(part, pattern) + ("" if last else "/")
    return text


def _part(part: str, pattern: str) -> str:
    text = ""
    braces = 0
    for piece in _PIECE.findall(part):
        if piece[0] == "*":
            text += "[^/]*"
        elif piece == "?":
            text += "[^/]"
        elif piece == "{":
            braces += 1
            text += "(?:"
        elif piece == "}" and braces:
            braces -= 1
            text += ")"
        elif piece == "," and braces:
            text += "|"
        elif piece[0] == "[" and len(piece) > 1:
            text += _class(piece, pattern)
        elif piece == "[":
            raise ValueError(f"the pattern {pattern!r} has '[' without ']'")
        else:
            text += re.escape(piece)
    if braces:
        raise ValueError(f"the pattern {pattern!r} has '{{' without '}}' in the same part")
    return text


def _class(piece: str, pattern: str) -> str:
    """Return the expression for ``[a-z]`` or ``[!a-z]``: of characters that are no ``/``."""
    inner = piece[1:-1]
    negated = inner.startswith("!")
    escaped = inner[negated:].replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]").replace("^", r"\^")
    text = f"(?!/)[{'^' if negated else ''}{escaped}]"
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"the pattern {pattern!r} has {piece}, which is no range of characters") from error
    return text
