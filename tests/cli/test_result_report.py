"""The report of a resize, also when Pillow cannot open the files."""

import base64
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, features

from vipsrv.cli.demo_image import tiff_head
from vipsrv.cli.result_report import Dimensions, ResultReport, measure
from vipsrv.cli.upload import UploadImage
from vipsrv.client import ResizedImage, ResizeResults, Version1Result
from vipsrv.options import ImageInfo, Timings

SOURCE = ImageInfo(format="heif", width=40, height=30, pages=1, has_alpha=False, orientation=1, size=6)


def output(data: bytes = b"opaque, too", width: int = 8, height: int = 6, kind: str = "jpeg") -> ResizedImage:
    return ResizedImage(
        data=data, width=width, height=height, format=kind, quality=85, ratio=round(6 / len(data), 3)
    )


def report(
    path: Path,
    *outputs: ResizedImage,
    saved: list[Path | None] | None = None,
    listed: bool = False,
) -> ResultReport:
    outputs = outputs or (output(),)
    path.write_bytes(b"opaque")
    results = ResizeResults(
        outputs=outputs,
        source=SOURCE,
        timings=Timings(receive=1.0, queue=2.0, process=3.0, total=6.0),
        ratio=6 / sum(len(output.data) for output in outputs),
        sent=18,
        received=15,
        elapsed=0.25,
    )
    return ResultReport.of(
        UploadImage.of_file(path),
        results,
        saved=saved or [None] * len(outputs),
        server="there",
        embedded=False,
        listed=listed,
    )


def test_dimensions_stated_by_the_server_are_marked_as_such(tmp_path: Path) -> None:
    text = "\n".join(report(tmp_path / "image").lines())
    assert "original dimensions   40 x 30  (as stated by the server: Pillow cannot open it)" in text
    assert "processed dimensions  8 x 6  (as stated by the server: Pillow cannot open it)" in text
    assert "saved                 standard output" in text
    assert "total time            250.0 ms" in text
    assert "compression ratio     0.55 : 1" in text


def test_what_version_1_does_not_state_is_unknown(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"opaque")
    result = Version1Result(
        data=b"opaque, too",
        width=8,
        height=6,
        format="jpeg",
        quality=85,
        ratio=0.545,
        sent=18,
        received=15,
        elapsed=0.25,
    )
    known = ResultReport.of(UploadImage.of_file(image), result, saved=[None], server="there", embedded=False)
    text = "\n".join(known.lines())
    assert "original dimensions   unknown" in text
    assert "server processing     unknown: version 1 of the protocol does not state it" in text
    assert known.to_json()["original"] is None
    assert known.to_json()["server_ms"] is None


def test_a_giant_is_measured_without_reading_its_pixels(tmp_path: Path) -> None:
    path = tmp_path / "giant.tif"
    with path.open("wb") as file:
        file.write(tiff_head(37_000, 38_000))
        file.truncate(len(tiff_head(37_000, 38_000)) + 37_000 * 38_000 * 3)
    limit = Image.MAX_IMAGE_PIXELS
    assert measure(path) == Dimensions(37_000, 38_000, "Pillow")
    assert limit == Image.MAX_IMAGE_PIXELS


def encoded(width: int, height: int, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "#345678").save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "avif", "tiff", "gif"])
def test_the_dimensions_of_every_format_are_read_from_the_file(tmp_path: Path, kind: str) -> None:
    if kind == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    saved = tmp_path / "result"
    saved.write_bytes(encoded(30, 20, kind))
    # The server states other dimensions, so that it shows which ones are used.
    known = report(tmp_path / "image", output(kind=kind), saved=[saved])
    assert known.to_json()["processed"] == {"width": 30, "height": 20, "by": "Pillow"}


def test_several_results_are_a_list(tmp_path: Path) -> None:
    outputs = (output(encoded(30, 20, "png"), kind="png"), output())
    saved: list[Path | None] = []
    for number, one in enumerate(outputs):
        path = tmp_path / f"result {number}"
        path.write_bytes(one.data)
        saved.append(path)
    known = report(tmp_path / "image", *outputs, saved=saved, listed=True)
    told = known.to_json()
    assert "listed" not in told
    assert told["result_bytes"] == len(outputs[0].data) + len(outputs[1].data)
    assert told["outputs"] == (
        {
            "result_bytes": len(outputs[0].data),
            "ratio": outputs[0].ratio,
            "format": "png",
            "quality": 85,
            "frames": 1,
            "saved": str(saved[0]),
            "processed": {"width": 30, "height": 20, "by": "Pillow"},
        },
        {
            "result_bytes": 11,
            "ratio": 0.545,
            "format": "jpeg",
            "quality": 85,
            "frames": 1,
            "saved": str(saved[1]),
            "processed": {"width": 8, "height": 6, "by": "server"},
        },
    )
    text = "\n".join(known.lines())
    assert "(all 2 results together)" in text
    assert f"saved                 {saved[0]}\n  dimensions          30 x 20\n" in text
    assert "  size                11 bytes, 0.55 : 1" in text


def test_a_list_of_one_result_is_a_list(tmp_path: Path) -> None:
    known = report(tmp_path / "image", listed=True)
    assert len(known.to_json()["outputs"]) == 1
    assert "together" not in "\n".join(known.lines())


def test_a_path_that_is_not_utf_8_is_identified_by_its_bytes(tmp_path: Path) -> None:
    names = [os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9" + ending) for ending in (b".jpg", b"2.jpg")]
    image, saved = map(Path, names)
    text = json.dumps(report(image, saved=[saved]).to_json())
    assert text.encode().decode() == text
    figures = json.loads(text)
    assert figures["image"] == f"{tmp_path}/caf\\xe9.jpg"
    assert figures["saved"] == f"{tmp_path}/caf\\xe92.jpg"
    for name, path in (("image", image), ("saved", saved)):
        figures[name].encode()
        assert base64.b64decode(figures[f"{name}_base64"]) == os.fsencode(path)
    listed = report(image, output(), output(), saved=[saved, None], listed=True).to_json()["outputs"]
    assert base64.b64decode(listed[0]["saved_base64"]) == os.fsencode(saved)
    assert (listed[1]["saved"], "saved_base64" in listed[1]) == (None, False)
    assert all(line.isprintable() for line in report(image, saved=[saved]).lines())


def test_a_path_that_is_utf_8_is_stated_once(tmp_path: Path) -> None:
    image = tmp_path / "caf\u00e9\n.jpg"
    figures = report(image).to_json()
    assert figures["image"] == str(image)
    assert "image_base64" not in figures
