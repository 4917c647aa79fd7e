"""Pictures that others made: what Pillow reads, the pipeline resizes, or the reason is known."""

import csv
from pathlib import Path

import pytest

from tests.pipeline.run import refusal
from vipsrv.errors import CorruptImage, TooLarge, UnsupportedFormat

CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
FORMATS = {"jpeg", "png", "webp", "tiff", "gif", "avif"}

pytestmark = pytest.mark.skipif(
    not (CORPUS / "index.csv").is_file(), reason="the corpus is not beside the repository (../shared/corpus)"
)

# Files that Pillow reads and libvips does not, by the end of their names.
REASONS = {
    "gif__corpus__f0b77c77d2e77924a475ab99413536b1403a56b7-2": "ends within its first frame",
    "png__corpus__5c3ed56ce71be1412d4d679d15d4b0c081385cfe-3": "a damaged chunk",
    "crashers__badcrc.png": "a chunk with a wrong checksum",
    "tiff__corpus__f57321e11d92e5baa5d6dd9fbd5eae9495948f87-1": "its second page lies behind its end",
    "12bit.cropped.tif": "TIFF of 12 bits a sample",
    "avif__star.avifs": "an AVIF that is a film only",
    "crash-0da013a13571cc8eb457a39fee8db18f8a3c7127.tif": "damaged CCITT data",
    "crash-74d2a78403a5a59db1fb0a2b8735ac068a75f6e3.tif": "damaged CCITT data",
    "hopper.Lab.tif": "TIFF in CIELAB",
    "lab.tif": "TIFF in CIELAB",
    "lab-red.tif": "TIFF in CIELAB",
    "hopper_lzma.tif": "TIFF compressed with LZMA",
    "separate_planar_extra_samples.tiff": "planar TIFF with a plane that is missing",
    "65536-uint32-limit.png": "more pixels than allowed",
    **dict.fromkeys(("10K-rgb.jpeg", "10K-rgb.png", "10K-rgb.tiff"), "300 MB out of a few hundred KB"),
    "tiff.tif": "TIFF without its photometric interpretation",
}


def rows() -> list[dict[str, str]]:
    with (CORPUS / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_pillow_reads_gets_the_exact_size() -> None:
    readable = [row["path"] for row in rows() if row["format"] in FORMATS and row["pillow"] == "ok"]
    assert len(readable) > 600
    refused = {
        path: refused for path in readable if (refused := refusal((CORPUS / path).read_bytes(), 320, 240))
    }
    unexplained = {path: str(error) for path, error in refused.items() if not path.endswith(tuple(REASONS))}
    assert unexplained == {}


def test_everything_else_is_resized_or_refused_by_its_kind() -> None:
    for row in rows():
        if row["format"] not in FORMATS or row["pillow"] != "ok":
            refused = refusal((CORPUS / row["path"]).read_bytes(), 320, 240)
            assert isinstance(refused, CorruptImage | UnsupportedFormat | TooLarge | None), row["path"]
