"""What is said of a result, above all where the files cannot be verified."""

from pathlib import Path

from PIL import Image

from vipsrv.cli.figures import Dimensions, Figures, measure
from vipsrv.cli.striped_tiff import _head
from vipsrv.client import ResizeResult
from vipsrv.options import ImageInfo

SOURCE = ImageInfo(format="heif", width=40, height=30, pages=1, has_alpha=False, orientation=1, size=6)


def figures(path: Path, source: ImageInfo | None) -> Figures:
    path.write_bytes(b"opaque")
    result = ResizeResult(
        data=b"opaque, too",
        width=8,
        height=6,
        format="jpeg",
        quality=85,
        source=source,
        timings=None,
        ratio=6 / 11,
        sent=18,
        received=15,
        elapsed=0.25,
    )
    return Figures.of(path, result, saved=None, server="there", embedded=False)


def test_where_pillow_cannot_open_a_file_the_server_s_figures_are_marked(tmp_path: Path) -> None:
    text = "\n".join(figures(tmp_path / "picture", SOURCE).lines())
    assert "original dimensions   40 x 30  (the server's figures: Pillow cannot open it)" in text
    assert "processed dimensions  8 x 6  (the server's figures: Pillow cannot open it)" in text
    assert "saved                 standard output" in text
    assert "total time            250.0 ms" in text
    assert "compression ratio     0.55 : 1" in text


def test_where_nobody_knows_that_is_said(tmp_path: Path) -> None:
    known = figures(tmp_path / "picture", None)
    assert "original dimensions   not known" in "\n".join(known.lines())
    assert known.to_json()["original"] is None


def test_the_header_of_a_giant_is_read_without_its_pixels(tmp_path: Path) -> None:
    path = tmp_path / "giant.tif"
    with path.open("wb") as file:
        file.write(_head(37_000, 38_000))
        file.truncate(len(_head(37_000, 38_000)) + 37_000 * 38_000 * 3)
    limit = Image.MAX_IMAGE_PIXELS
    assert measure(path) == Dimensions(37_000, 38_000, "Pillow")
    assert limit == Image.MAX_IMAGE_PIXELS
