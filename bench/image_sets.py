"""Folders of many image files, for what is measured on more than one file.

A set has a few drawn images, and its files are copies of them in turn: a program sees many files, and drawing
does not take longer than measuring.
"""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path

from bench.images import IMAGES, Recipe, cache_folder, drawn_file

_SCREENS = 8
"""Different images of a set of one kind."""

_MIXED = (
    *("jpeg-0.3mp.jpg", "jpeg-1mp.jpg", "jpeg-1.9mp.jpg") * 2,
    *("jpeg-6mp.jpg", "jpeg-12mp.jpg", "progressive-12mp.jpg", "png-3mp.png", "webp-6mp.webp"),
)
"""Mostly images of web pages and screens, some of cameras, and not only JPEG."""


def _seeds(name: str, count: int) -> dict[str, Recipe]:
    return {
        f"{seed}-{name}": dataclasses.replace(IMAGES[name], seed=seed) for seed in range(101, 101 + count)
    }


SETS: Mapping[str, Mapping[str, Recipe]] = {
    "screens": _seeds("jpeg-1.9mp.jpg", _SCREENS),
    "tiny": _seeds("jpeg-tiny.jpg", _SCREENS),
    "mixed": {f"{place}-{name}": IMAGES[name] for place, name in enumerate(_MIXED)},
}
"""The drawn images of each set. ``screens``: 1600 × 1200 JPEG of 0.3 MB. ``tiny``: 160 × 120 JPEG of 6 KB."""


def make_set(name: str, count: int, folder: Path) -> list[Path]:
    """Fill an empty or new folder with ``count`` files of a set and return them, in order of their names.

    Raises ``KeyError`` for an unknown set, ``OSError``, and ``pyvips.Error``.
    """
    kept = cache_folder() / "sets"
    drawn = [drawn_file(file, recipe, kept) for file, recipe in SETS[name].items()]
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(count):
        original = drawn[number % len(drawn)]
        made.append(folder / f"{number:06}{original.suffix}")
        shutil.copyfile(original, made[-1])
    return made
