"""The cases of the suites: images of ``bench.images``, or every file of a folder."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bench.image_quality import Pixels, colour_difference, decode, reference, ssim
from bench.images import image_file


@dataclass(frozen=True, slots=True)
class Case:
    """An image, by its name in ``IMAGES`` or as a file, and the size of the result in pixels."""

    name: str
    width: int
    height: int
    file: Path | None = None

    @property
    def path(self) -> Path:
        """The image's file, made now if it is missing."""
        return self.file or image_file(self.name)

    @property
    def id(self) -> str:
        """Identifies the case in the names of rows."""
        return f"{self.name}-{self.width}x{self.height}"


PAGE = Case("jpeg-0.3mp.jpg", 200, 150)
"""50 KB."""
SCREEN = Case("jpeg-1.9mp.jpg", 800, 600)
"""0.3 MB."""
PHONE = Case("jpeg-12mp.jpg", 800, 600)
"""2.7 MB."""
SPOOLED = Case("strip-16mp.tif", 800, 600)
"""48 MB: large enough for the server to store it in a file."""
GIANTS = (Case("strip-400mp.tif", 800, 600), Case("tiled-deflate-400mp.tif", 800, 600))

QUICK = (PAGE, SCREEN, PHONE, Case("png-3mp.png", 800, 600), Case("webp-6mp.webp", 800, 533))
"""One image of each kind that differs in cost; all are made in half a minute on two cores."""

FULL = (
    *QUICK,
    Case("jpeg-1mp.jpg", 400, 300),
    Case("jpeg-6mp.jpg", 800, 533),
    Case("jpeg-12mp.jpg", 1600, 1200),
    Case("jpeg-50mp.jpg", 800, 533),
    Case("progressive-12mp.jpg", 800, 600),
    Case("avif-6mp.avif", 800, 533),
    SPOOLED,
)


def of_folder(folder: Path) -> list[Case]:
    """A case for every file below ``folder``, 800 × 600. Raises ``NotADirectoryError``."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [Case(str(path.relative_to(folder)), 800, 600, path.absolute()) for path in files]


def quality(case: Case, result: bytes) -> dict[str, float]:
    """``ssim`` and ``colour_difference`` of a result to its reference (``bench.image_quality``).

    Raises ``pyvips.Error`` for an image that libvips cannot read.
    """
    made, wanted = decode(result), _reference(case)
    return {"ssim": ssim(made, wanted), "colour_difference": colour_difference(made, wanted)}


@lru_cache(maxsize=32)
def _reference(case: Case) -> Pixels:
    return reference(case.path, case.width, case.height)
