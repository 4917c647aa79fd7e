"""The cases of ``bench.tools.compare``: drawn images, and photographs of a corpus beside the repository.

The photographs are not ours to copy. They are used where the folder is there: ``../shared/corpus``, or that
of ``VIPSRV_BENCH_CORPUS``.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import ROOT
from bench.baselines import Request
from bench.images import image_file

CORPUS_VARIABLE = "VIPSRV_BENCH_CORPUS"


@dataclass(frozen=True, slots=True)
class Case:
    """An image, as a name in ``IMAGES`` or as a file in the corpus, and what it is turned into."""

    image: str
    width: int = 800
    height: int = 600
    format: str = "jpeg"
    quality: int = 85
    photograph: bool = False

    def missing(self) -> str | None:
        """Why there is no such file, in one line."""
        if not self.photograph or (corpus() / self.image).is_file():
            return None
        return f"no {corpus() / self.image}: set {CORPUS_VARIABLE} to the corpus"

    def request(self) -> Request:
        """The request; a drawn image is made now if it is missing."""
        path = corpus() / self.image if self.photograph else image_file(self.image)
        return Request(path, self.width, self.height, self.format, self.quality)


CASES: Mapping[str, Case] = {
    "12 MP": Case("jpeg-12mp.jpg"),
    "photo, Galaxy 12 MP": Case("photos/galaxy-s7-12mp.jpg", photograph=True),
    "photo, Canon 13 MP": Case("photos/canon-5d-13mp-portrait.jpg", 400, 600, photograph=True),
    "photo, iPhone 8 MP": Case("photos/iphone-6-8mp.jpg", photograph=True),
    "6 MP": Case("jpeg-6mp.jpg"),
    "1600 × 1200": Case("jpeg-1.9mp.jpg"),
    "640 × 480": Case("jpeg-0.3mp.jpg", 200, 150),
    "12 MP progressive": Case("progressive-12mp.jpg"),
    "3 MP PNG": Case("png-3mp.png"),
    "6 MP WebP": Case("webp-6mp.webp"),
    "6 MP to WebP": Case("jpeg-6mp.jpg", format="webp"),
    # imgproxy's default quality; the effort is every server's default.
    "6 MP to AVIF": Case("jpeg-6mp.jpg", format="avif", quality=63),
    "24 MP TIFF": Case("strip-24mp.tif"),
}
"""By the names of the table's rows."""

QUICK = ("12 MP", "photo, Galaxy 12 MP", "1600 × 1200", "640 × 480", "12 MP progressive")


def corpus() -> Path:
    """The folder of the photographs, which may not be there."""
    return Path(os.environ.get(CORPUS_VARIABLE) or ROOT.parent / "shared" / "corpus")
