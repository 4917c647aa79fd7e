"""Public test files: what Pillow reads is resized correctly, or the reason is known."""

import csv
import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image, ImageCms

from tests.support.image_comparison import mean_abs_difference, open_exact, reference

ROOT = Path(__file__).parents[2]
CORPUS = ROOT.parent / "shared" / "corpus"
FORMATS = {"jpeg", "png", "webp", "tiff", "gif", "avif", "bmp", "pnm", "ico", "tga", "psd"}
REFUSALS = {"CorruptImage", "UnsupportedFormat", "TooLarge"}
MOST_MEMORY = 512 << 20  # bytes
MOST_SECONDS = 3
MOST_DIFFERENCE = 6

# Takes 400 MB and more for its 100 megapixels, which a limit of pixels alone does not catch.
WHOLE_IN_MEMORY = {"bombs/10K.gif"}

pytestmark = pytest.mark.skipif(
    not (CORPUS / "index.csv").is_file(), reason="the corpus is not beside the repository (../shared/corpus)"
)

# Files that Pillow reads and that are refused, by the end of their names.
REFUSED = {
    "gif__corpus__f0b77c77d2e77924a475ab99413536b1403a56b7-2": "ends within its first frame",
    "png__corpus__5c3ed56ce71be1412d4d679d15d4b0c081385cfe-3": "a damaged chunk",
    "crashers__badcrc.png": "a chunk with a wrong checksum",
    "tiff__corpus__f57321e11d92e5baa5d6dd9fbd5eae9495948f87-1": "its second page lies behind its end",
    "crash-0da013a13571cc8eb457a39fee8db18f8a3c7127.tif": "damaged CCITT data",
    "crash-74d2a78403a5a59db1fb0a2b8735ac068a75f6e3.tif": "damaged CCITT data",
    "hopper_lzma.tif": "TIFF compressed with LZMA",
    "65536-uint32-limit.png": "more pixels than allowed",
    **dict.fromkeys(("10K-rgb.jpeg", "10K-rgb.png", "10K-rgb.tiff"), "300 MB out of a few hundred KB"),
    "hopper.p7": "an XV thumbnail, which is no PAM",
}

_TRNS = "Pillow compares the transparent grey of a PNG of 2 and 4 bits with the scaled pixels, and misses it"
_CMYK = "CMYK without a profile: converted by that of a press, where Pillow takes 255 minus ink"
_XMP = "Pillow turns by an orientation that is in XMP or in text only"
_RUNS = "damaged runs: what lies outside of its row is dropped, where Pillow goes on in the next"
_FRAME = "a GIF's frame smaller than its canvas: transparent around it, where Pillow takes its background"
_SIGNED = "signed 16-bit grey: the greatest number is white, where the reference takes them for unsigned"

# Files whose results differ from those of Pillow, by parts of their names.
DIFFERENT = {
    "testpngs__gray-2": _TRNS,
    "testpngs__gray-4": _TRNS,
    "i_trns.png": "Pillow's reference knows no transparency beside 16-bit grey",
    "cicp-display-p3_reencoded.png": "Pillow does not apply cICP",
    "xmp_tags_orientation": _XMP,
    "exif_imagemagick_orientation.png": _XMP,
    "pil_sample_cmyk.jpg": _CMYK,
    "tiff_strip_cmyk_16l_jpeg.tif": _CMYK,
    "tiff_tiled_cmyk_jpeg.tif": _CMYK,
    "CMYK_color_no_profile.jpg": _CMYK,
    "artificial-gif__background-color.gif": _FRAME,
    "artificial-gif__metadata-empty.gif": _FRAME,
    "artificial-gif__metadata-full.gif": _FRAME,
    "artificial-gif__small-frame-interlaced.gif": _FRAME,
    "b/badrle": _RUNS,
    "16bit.s.tif": _SIGNED,
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of one file: ``data`` is the result, ``refused`` the class of the error."""

    path: str
    format: str
    pillow_reads: bool
    size: tuple[int, int]
    refused: str | None
    message: str
    seconds: float
    data: bytes


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Outcome], int]:
    """The outcome of each file of the corpus, all in one process, and the peak of its memory in bytes.

    Nothing is enlarged, because a few enlarged pixels show the filter and not how they were read.
    """
    with (CORPUS / "index.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["path"] not in WHOLE_IN_MEMORY]
    folder = tmp_path_factory.mktemp("corpus")
    # If the size is not known, use that of the images of bmpsuite.
    sizes = [(min(320, int(row["width"] or 127)), min(240, int(row["height"] or 64))) for row in rows]
    listed = [(str(CORPUS / row["path"]), *size) for row, size in zip(rows, sizes, strict=True)]
    (folder / "list.json").write_text(json.dumps(listed))
    # As in a worker: each additional thread has its own rows in memory.
    environment = {**os.environ, "VIPS_CONCURRENCY": "1", "MALLOC_ARENA_MAX": "2"}
    command = [sys.executable, "-m", "tests.pipeline.run_over", str(folder / "list.json"), str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr
    told, peak = json.loads(done.stdout)
    outcomes = [
        Outcome(
            path=row["path"],
            format=row["format"],
            pillow_reads=row["pillow"] == "ok",
            size=size,
            refused=refused,
            message=message,
            seconds=seconds,
            data=b"" if refused else (folder / str(place)).read_bytes(),
        )
        for place, (row, size, (refused, message, seconds)) in enumerate(zip(rows, sizes, told, strict=True))
    ]
    return outcomes, peak


def test_no_image_takes_too_much_time_or_memory(outcomes: tuple[list[Outcome], int]) -> None:
    told, peak = outcomes
    assert len(told) > 1000
    assert peak < MOST_MEMORY
    assert [one.path for one in told if one.seconds > MOST_SECONDS] == []


def test_every_refusal_has_a_known_reason(outcomes: tuple[list[Outcome], int]) -> None:
    told, _ = outcomes
    assert {one.refused for one in told} <= {None, *REFUSALS}
    readable = [one for one in told if one.format in FORMATS and one.pillow_reads]
    assert len(readable) > 700
    refused = {one.path: one.message for one in readable if one.refused}
    assert {path: message for path, message in refused.items() if not path.endswith(tuple(REFUSED))} == {}


def test_every_result_has_the_exact_size(outcomes: tuple[list[Outcome], int]) -> None:
    for one in outcomes[0]:
        if not one.refused:
            assert open_exact(one.data).size == one.size, one.path


def test_results_look_like_those_of_pillow(
    outcomes: tuple[list[Outcome], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    compared, different = 0, {}
    for one in outcomes[0]:
        if one.refused or not one.pillow_reads or one.format not in FORMATS:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about metadata
            try:
                wanted = reference((CORPUS / one.path).read_bytes(), *one.size)
            except ImageCms.PyCMSError:
                continue  # a profile that Pillow cannot apply gives no reference
        compared += 1
        difference = mean_abs_difference(open_exact(one.data), wanted)
        if difference >= MOST_DIFFERENCE and not any(part in one.path for part in DIFFERENT):
            different[one.path] = round(difference, 1)
    assert different == {}
    assert compared > 700


def test_bmpsuite(outcomes: tuple[list[Outcome], int]) -> None:
    suite = {one.path: one for one in outcomes[0] if one.path.startswith("bmpsuite/")}
    good = [one for path, one in suite.items() if path.startswith("bmpsuite/g/")]
    assert len(good) > 15
    assert [one.path for one in good if one.refused] == []
    # Pillow cannot read these. They show the same as another file, with fewer bits.
    for name, like, most in [
        ("q/pal8os2v2-16.bmp", "g/pal8.bmp", 1),
        ("q/rgb16-3103.bmp", "g/rgb24pal.bmp", 12),
        ("q/rgb32-7187.bmp", "g/rgb24pal.bmp", 6),
        ("q/rgba16-1924.bmp", "q/rgba32h56.bmp", 60),
        ("q/rgba16-4444.bmp", "q/rgba32h56.bmp", 6),
        ("q/rgba32-1010102.bmp", "q/rgba32h56.bmp", 6),
        ("q/rgba32-81284.bmp", "q/rgba32h56.bmp", 6),
    ]:
        seen, wanted = (open_exact(suite[f"bmpsuite/{one}"].data) for one in (name, like))
        assert mean_abs_difference(seen, wanted) < most, name
