"""``vipsrv demo``, and the image that it draws."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from tests.client.fake_server import SECONDS
from vipsrv.cli import demo
from vipsrv.cli.demo_image import rows, tiff_size, write_tiff
from vipsrv.cli.exit_codes import ExitCode


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VIPSRV_")}
    return subprocess.run(
        [sys.executable, "-m", "vipsrv", "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
        env=kept | {"TMPDIR": str(folder), "TEMP": str(folder)},
    )


def test_the_demonstration(tmp_path: Path) -> None:
    done = run(tmp_path, "--width", "1200", "--height", "900")
    assert (done.returncode, done.stderr) == (0, "")
    assert "a TIFF of 1200 x 900 pixels, 3 MB" in done.stdout
    assert "original dimensions   1200 x 900" in done.stdout
    said = re.search(r"the result stays in (.*)$", done.stdout, re.MULTILINE)
    assert said
    result = Path(said[1])
    with Image.open(result) as image:
        assert (image.format, image.size) == ("JPEG", (800, 600))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [result]


def test_an_image_larger_than_a_tiff_can_be(tmp_path: Path) -> None:
    done = run(tmp_path, "--width", "100000", "--height", "100000")
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.startswith("vipsrv demo: 100000 x 100000 pixels take 30")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_refused_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=5))
    with pytest.raises(OSError, match="has 5 free bytes and the image takes 6; draw a smaller one"):
        demo.check_room(tmp_path, 6)
    demo.check_room(tmp_path, 5)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (331, 257), (300, 2000), (100_000, 3)])
def test_the_drawn_file_is_a_valid_tiff(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "photo.tif"
    write_tiff(path, *size)
    assert path.stat().st_size == tiff_size(*size)
    with Image.open(path) as image:
        assert (image.mode, image.size) == ("RGB", size)
        assert image.tobytes() == b"".join(map(bytes, rows(*size)))


def test_the_image_is_worth_looking_at() -> None:
    drawn = Image.frombytes("RGB", (300, 200), b"".join(map(bytes, rows(300, 200))))
    for band in drawn.split():
        darkest, brightest = band.getextrema()
        assert isinstance(darkest, int)
        assert isinstance(brightest, int)
        assert brightest - darkest > 80
        assert darkest > 0
        assert brightest < 255
