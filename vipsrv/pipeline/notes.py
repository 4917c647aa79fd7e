"""What vipsrv itself reads in a file before libvips opens it, because libvips does not tell or apply it."""

from collections.abc import Callable
from dataclasses import dataclass

import pyvips

from vipsrv.pipeline.colour.space import ColourSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """Frames that libvips does not read.

    ``file`` returns a file of the same format with one of them only, and raises ``CorruptImage`` and
    ``TooLarge``; ``decoded`` is how many are decoded to show it. Both take its number, counted from 0.
    ``has_still``: libvips reads the first frame in the file itself.
    """

    count: int
    file: Callable[[int], bytes]
    decoded: Callable[[int], int]
    has_still: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FileNotes:
    """The ``colours``, if they are not those of sRGB or of an embedded profile; ``correct``, which returns
    the opened image corrected; and the ``film``, if there is one that libvips does not read.
    """

    colours: ColourSpace | None = None
    correct: Callable[[pyvips.Image], pyvips.Image] | None = None
    film: Film | None = None

    def corrected(self, image: pyvips.Image) -> pyvips.Image:
        """Return the opened image as it should have been read."""
        return image if self.correct is None else self.correct(image)


NOTHING = FileNotes()
"""The notes of nearly all files."""
