"""What is said of a result, above all where the files cannot be verified."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, features

from vipsrv.cli.figures import Dimensions, Figures, measure
from vipsrv.cli.striped_tiff import _head
from vipsrv.client import ResizedImage, ResizeResults
from vipsrv.options import ImageInfo

SOURCE = ImageInfo(format="heif", width=40, height=30, pages=1, has_alpha=False, orientation=1, size=6)


def output(data: bytes = b"opaque, too", width: int = 8, height: int = 6, kind: str = "jpeg") -> ResizedImage:
    return ResizedImage(
        data=data, width=width, height=height, format=kind, quality=85, ratio=round(6 / len(data), 3)
    )


def figures(
    path: Path,
    source: ImageInfo | None,
    *outputs: ResizedImage,
    saved: list[Path | None] | None = None,
    listed: bool = False,
) -> Figures:
    outputs = outputs or (output(),)
    path.write_bytes(b"opaque")
    results = ResizeResults(
        outputs=outputs,
        source=source,
        timings=None,
        ratio=6 / sum(len(output.data) for output in outputs),
        sent=18,
        received=15,
        elapsed=0.25,
    )
    return Figures.of(
        path, results, saved=saved or [None] * len(outputs), server="there", embedded=False, listed=listed
    )


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


def picture(width: int, height: int, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "#345678").save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "avif", "tiff", "gif"])
def test_dimensions_of_every_format_come_from_the_file(tmp_path: Path, kind: str) -> None:
    if kind == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    saved = tmp_path / "result"
    saved.write_bytes(picture(30, 20, kind))
    # The server's figures are other ones, so that it is seen whose are shown.
    known = figures(tmp_path / "picture", SOURCE, output(kind=kind), saved=[saved])
    assert known.to_json()["processed"] == {"width": 30, "height": 20, "by": "Pillow"}


def test_several_results_are_a_list(tmp_path: Path) -> None:
    outputs = (output(picture(30, 20, "png"), kind="png"), output())
    saved: list[Path | None] = []
    for number, one in enumerate(outputs):
        path = tmp_path / f"result {number}"
        path.write_bytes(one.data)
        saved.append(path)
    known = figures(tmp_path / "picture", SOURCE, *outputs, saved=saved, listed=True)
    told = known.to_json()
    assert "listed" not in told
    assert told["result_bytes"] == len(outputs[0].data) + len(outputs[1].data)
    assert told["outputs"] == (
        {
            "result_bytes": len(outputs[0].data),
            "ratio": outputs[0].ratio,
            "format": "png",
            "quality": 85,
            "saved": str(saved[0]),
            "processed": {"width": 30, "height": 20, "by": "Pillow"},
        },
        {
            "result_bytes": 11,
            "ratio": 0.545,
            "format": "jpeg",
            "quality": 85,
            "saved": str(saved[1]),
            "processed": {"width": 8, "height": 6, "by": "server"},
        },
    )
    text = "\n".join(known.lines())
    assert "(all 2 results together)" in text
    assert f"saved                 {saved[0]}\n  dimensions          30 x 20\n" in text
    assert "  size                11 bytes, 0.55 : 1" in text


def test_a_list_of_one_is_a_list(tmp_path: Path) -> None:
    known = figures(tmp_path / "picture", SOURCE, listed=True)
    assert len(known.to_json()["outputs"]) == 1
    assert "together" not in "\n".join(known.lines())
