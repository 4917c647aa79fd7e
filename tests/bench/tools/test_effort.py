"""The table of efforts: how two curves are compared, and a run over a small image."""

from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from bench.tools.effort import Point, at_likeness, main
from tests.support.images import jpeg


def point(milliseconds: float, size: int, likeness: float) -> Point:
    return Point(milliseconds, size, likeness, colour=1.0)


CURVE = {40: point(10, 1000, 0.90), 60: point(20, 4000, 0.94), 80: point(40, 9000, 0.98)}


def test_a_point_between_two_of_a_curve() -> None:
    found = at_likeness(CURVE, 0.92)
    assert found is not None
    # Bytes grow by the same factor for each step of quality: halfway from 1000 to 4000 is 2000.
    assert found == pytest.approx((50, 2000, 15))
    assert at_likeness(CURVE, 0.94) == pytest.approx((60, 4000, 20))


@pytest.mark.parametrize("likeness", [0.89, 0.99])
def test_nothing_is_said_beyond_a_curve(likeness: float) -> None:
    assert at_likeness(CURVE, likeness) is None


def run(*arguments: str) -> tuple[int, str]:
    app = Typer()
    app.command()(main)
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.output


def test_the_tables_of_an_image(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg(160, 120))
    (tmp_path / "notes.txt").write_text("no image")
    status, output = run(
        str(tmp_path), "--format", "webp", "--ways", "4,0,default+smart_subsample=1",
        "--qualities", "20,60,95", "--width", "80", "--height", "60", "--rounds", "1", "--each",
    )  # fmt: skip
    assert status == 0, output
    lines = output.splitlines()
    assert sum(line.startswith("photo.jpg") for line in lines) == 9
    assert "1 images in 80 x 60 as webp, medians of 1 rounds" in lines
    # Of the first way all ratios are 1.
    first = next(line.split() for line in lines if line.startswith("4 "))
    assert first[:2] == ["4", "20"]
    assert first[3] == first[5] == "1.000"
    after = lines[lines.index("At the SSIM of 4, medians over the images (and the worst of bytes):") :]
    assert any(line.startswith("0 ") for line in after)


def test_lossless_results_have_one_quality(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg(160, 120))
    size = ["--width", "80", "--height", "60"]
    status, output = run(str(tmp_path), "--format", "webp", "--ways", "0,6", "--lossless", *size)
    assert status == 0, output
    rows = [line.split() for line in output.splitlines() if line.startswith(("0 ", "6 "))]
    assert [row[1] for row in rows] == ["100", "100"]
    assert {row[6] for row in rows} == {"1.0000"}


def test_qualities_that_are_none_and_a_folder_without_images_are_refused(tmp_path: Path) -> None:
    status, output = run(str(tmp_path), "--qualities", "60,best")
    assert (status, "is no list of qualities" in output) == (2, True)
    assert run(str(tmp_path), "--qualities", "0")[0] == 2
    status, output = run(str(tmp_path))
    assert (status, "no file there ends with .avif" in output) == (2, True)


def test_an_effort_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg(160, 120))
    status, output = run(str(tmp_path), "--ways", "3,best")
    assert status == 2
    assert "'best' is no effort from 0 to 9" in output
