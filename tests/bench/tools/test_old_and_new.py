"""Two servers take turns, and a line of the table says what each of them did."""

from pathlib import Path

import pytest
import typer

from bench import ROOT
from bench.tools import old_and_new
from tests.support.images import jpeg, oriented_jpeg
from vipsrv.options import Format


def test_a_tree_against_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(jpeg(1200, 900))
    old_and_new.main(ROOT, [path], format_=Format.WEBP, rounds=1, requests=1)
    *_, line = capsys.readouterr().out.splitlines()
    name, old_ms, old_size, old_ssim, new_ms, new_size, new_ssim, _ = line.strip("| ").split(" | ")
    assert name == "image.jpg → 800 × 600 webp"
    assert (old_size, old_ssim) == (new_size, new_ssim)
    assert float(old_ms) > 0 < float(new_ms)
    assert float(new_ssim) > 0.9


def test_the_result_has_the_proportions_that_a_viewer_sees(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(oriented_jpeg(6, 300, 200))
    assert old_and_new.target(path) == (800, 533)


def test_a_refusal_ends_the_comparison(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    image = jpeg(1200, 900)
    path.write_bytes(image[: len(image) // 2])
    with pytest.raises((SystemExit, typer.Exit), match="answered"):
        old_and_new.main(ROOT, [path], rounds=1, requests=1)
