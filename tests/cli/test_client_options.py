"""``vipsrv-client`` with the options of version 2 and several results: its requests, files and output.

The server is a fake that answers with images of the requested sizes and formats.
"""

import io
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tests.client.fake_server import FakeServer, Peer, Script, every
from tests.support.images import jpeg
from tests.support.running_server import RunningServer
from vipsrv.cli.client import app
from vipsrv.cli.exit_codes import ExitCode
from vipsrv.errors import BadRequest, TooLarge
from vipsrv.version import __version__

PHOTO = jpeg(400, 300)


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("VIPSRV_"):
            monkeypatch.delenv(name)
    path = tmp_path / "photo.jpg"
    path.write_bytes(PHOTO)
    return path


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port on which nothing listens, for options that are refused before anything is sent."""
    with socket.socket() as taken:  # bound, so that nobody else gets it, but not listening
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def invoke(port: int, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["--host", "127.0.0.1", "--port", str(port), *map(str, arguments)])


def painted(options: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """Return an image as requested, from a 4:3 PNG, and its entry in the reply."""
    width = options.get("width") or round(options["height"] * 4 / 3)
    height = options.get("height") or round(options["width"] * 3 / 4)
    kind = options.get("format", "jpeg").replace("auto", "png")
    file = io.BytesIO()
    Image.new("RGB", (width, height), "#345678").save(file, kind)
    data = file.getvalue()
    quality = options.get("quality", 85)
    return data, {"width": width, "height": height, "format": kind, "quality": quality, "size": len(data)}


def painting(seen: list[dict[str, Any]]) -> Script:
    """Records the meta of the request and answers with the requested images."""

    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        seen.append(head.meta)
        results = [painted(options) for options in head.meta.get("outputs", [head.meta])]
        peer.reply(head, body=b"".join(data for data, _ in results), outputs=[told for _, told in results])

    return script


def asked(photo: Path, *arguments: object) -> dict[str, Any]:
    """Return the meta of the request that these arguments make."""
    seen: list[dict[str, Any]] = []
    with FakeServer(painting(seen)) as fake:
        done = invoke(fake.port, photo, "--quiet", *arguments)
    assert (done.exit_code, done.output) == (0, "")
    return seen[0]


def assert_refused(done: Result, code: ExitCode, *words: str) -> None:
    """Check that the command ended with this code and one line with these words."""
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    assert done.stderr.startswith("vipsrv-client: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


# What it asks for


@pytest.mark.parametrize(
    ("arguments", "meta"),
    [
        ([], {"width": 800, "height": 600}),
        (["--width", 80, "--height", 60], {"width": 80, "height": 60}),
        (["--width", 80], {"width": 80, "fit": "inside"}),
        (["--height", 60], {"height": 60, "fit": "inside"}),
        (["--height", 60, "--fit", "cover"], {"height": 60, "fit": "cover"}),
        (["--fit", "contain"], {"width": 800, "height": 600, "fit": "contain"}),
        (
            ["--fit", "cover", "--position", "right top"],
            {"width": 800, "height": 600, "fit": "cover", "position": "right top"},
        ),
        (
            ["--format", "webp", "--quality", 80],
            {"width": 800, "height": 600, "format": "webp", "quality": 80},
        ),
        (
            ["--format", "avif", "--effort", 0],
            {"width": 800, "height": 600, "format": "avif", "effort": 0},
        ),
        (["--format", "auto"], {"width": 800, "height": 600, "format": "auto"}),
        (["--format", "jpg"], {"width": 800, "height": 600}),
        (
            ["--format", "webp", "--lossless"],
            {"width": 800, "height": 600, "format": "webp", "lossless": True},
        ),
        (["--max-bytes", "100KB"], {"width": 800, "height": 600, "max_bytes": 100_000}),
        (["--background", "#102030"], {"width": 800, "height": 600, "background": "#102030"}),
        (["--progressive"], {"width": 800, "height": 600, "progressive": True}),
        (["--no-progressive"], {"width": 800, "height": 600, "progressive": False}),
        (["--chroma", "4:4:4"], {"width": 800, "height": 600, "chroma": "4:4:4"}),
        (
            ["--format", "png", "--palette", "--quality", 40],
            {"width": 800, "height": 600, "format": "png", "palette": True, "quality": 40},
        ),
        (["--optimize"], {"width": 800, "height": 600, "optimize": True}),
        (["--min-ssim", 0.97], {"width": 800, "height": 600, "min_ssim": 0.97}),
        (["--keep", "icc"], {"width": 800, "height": 600, "keep": "icc"}),
        (["--page", 2], {"width": 800, "height": 600, "page": 2}),
        (["--crop", "1,2,30,40"], {"width": 800, "height": 600, "crop": [1, 2, 30, 40]}),
        (["--crop", "0,0,.5,1"], {"width": 800, "height": 600, "crop": [0.0, 0.0, 0.5, 1.0]}),
        (["--trim", 10, "--flip", "both"], {"width": 800, "height": 600, "trim": 10, "flip": "both"}),
        (["--rotate", 90], {"width": 800, "height": 600, "rotate": 90}),
        (
            ["--fit", "cover", "--focus", "0.5,0.25"],
            {"width": 800, "height": 600, "fit": "cover", "focus": [0.5, 0.25]},
        ),
        (["--modulate", "1.5,0"], {"width": 800, "height": 600, "modulate": [1.5, 0]}),
        (["--grey", "--blur", 2], {"width": 800, "height": 600, "grey": True, "blur": 2.0}),
        (["--sharpen", "true"], {"width": 800, "height": 600, "sharpen": True}),
        (["--sharpen", "1.5"], {"width": 800, "height": 600, "sharpen": 1.5}),
        (
            ["--watermark", "logo", "--watermark-position", "left top", "--watermark-scale", 0.5],
            {
                "width": 800,
                "height": 600,
                "watermark": "logo",
                "watermark_position": "left top",
                "watermark_scale": 0.5,
            },
        ),
        (
            ["--watermark-opacity", 0.25, "--rounded", 9],
            {"width": 800, "height": 600, "watermark_opacity": 0.25, "rounded": 9},
        ),
        (["--pad", 7], {"width": 800, "height": 600, "pad": [7, 7, 7, 7]}),
        (["--pad", "1,2,3,4"], {"width": 800, "height": 600, "pad": [1, 2, 3, 4]}),
        (
            ["--format", "gif", "--pages", "0-3"],
            {"width": 800, "height": 600, "format": "gif", "pages": "0-3"},
        ),
        (["--no-enlarge"], {"width": 800, "height": 600, "enlarge": False}),
        (["--enlarge"], {"width": 800, "height": 600}),
        (["--deadline", 2.5], {"width": 800, "height": 600, "deadline_ms": 2500}),
        (["--output-sizes", "320x"], {"width": 320, "fit": "inside"}),
        (
            ["--output-sizes", "320x,x48,80x60", "--format", "png", "--deadline", 1],
            {
                "outputs": [
                    {"width": 320, "fit": "inside", "format": "png"},
                    {"height": 48, "fit": "inside", "format": "png"},
                    {"width": 80, "height": 60, "format": "png"},
                ],
                "deadline_ms": 1000,
            },
        ),
        (
            ["--output-sizes", "320x240,80x60", "--fit", "cover", "--position", "attention", "--keep", "all"],
            {
                "outputs": [
                    {"width": width, "height": height, "fit": "cover", "position": "attention", "keep": "all"}
                    for width, height in ((320, 240), (80, 60))
                ]
            },
        ),
    ],
    ids=str,
)
def test_the_request_for_each_option(photo: Path, arguments: list[object], meta: dict[str, Any]) -> None:
    assert asked(photo, *arguments) == meta


# What it saves and says


@pytest.mark.parametrize(
    ("kind", "ending"),
    [("jpeg", "jpg"), ("png", "png"), ("webp", "webp"), ("tiff", "tif"), ("gif", "gif"), ("auto", "png")],
)
def test_a_saved_result_has_the_ending_of_its_format(photo: Path, kind: str, ending: str) -> None:
    asked(photo, "--width", 80, "--height", 60, "--format", kind)
    saved = photo.with_name(f"processed_photo.{ending}")
    with Image.open(saved) as image:
        assert image.size == (80, 60)
    assert sorted(photo.parent.iterdir()) == sorted([photo, saved])


def test_several_results_are_saved_and_listed(photo: Path) -> None:
    seen: list[dict[str, Any]] = []
    with FakeServer(painting(seen)) as fake:
        done = invoke(fake.port, photo, "--output-sizes", "320x,x60,50x50", "--format", "png")
    assert done.exit_code == 0, done.output
    sizes = [(320, 240), (80, 60), (50, 50)]
    paths = [photo.with_name(f"processed_photo_{width}x{height}.png") for width, height in sizes]
    for path, size in zip(paths, sizes, strict=True):
        with Image.open(path) as image:
            assert (image.format, image.size) == ("PNG", size)
        assert f"saved                 {path}\n  dimensions          {size[0]} x {size[1]}\n" in done.stdout
    assert sorted(photo.parent.iterdir()) == sorted([photo, *paths])
    assert "(all 3 results together)" in done.stdout
    assert "original dimensions   400 x 300\n" in done.stdout


def test_json_of_several_results(photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with FakeServer(painting([])) as fake:
        done = invoke(
            fake.port, photo, "--output-sizes", "320x,x60", "--quality", 70, "--json", "--output", folder
        )
    figures = json.loads(done.stdout)
    first, second = figures.pop("outputs")
    path = folder / "processed_photo_320x240.jpg"
    assert first == {
        "result_bytes": path.stat().st_size,
        "ratio": pytest.approx(len(PHOTO) / path.stat().st_size, abs=1e-3),
        "format": "jpeg",
        "quality": 70,
        "frames": 1,
        "saved": str(path),
        "processed": {"width": 320, "height": 240, "by": "Pillow"},
    }
    assert second["saved"] == str(folder / "processed_photo_80x60.jpg")
    assert figures["result_bytes"] == first["result_bytes"] + second["result_bytes"]
    assert set(figures) == {
        "image",
        "server",
        "embedded",
        "original_bytes",
        "sent_bytes",
        "resumed_bytes",
        "received_bytes",
        "attempts",
        "server_ms",
        "total_seconds",
        "result_bytes",
        "ratio",
        "original",
        "pages",
    }


def test_two_results_of_one_size_are_both_saved(photo: Path) -> None:
    asked(photo, "--output-sizes", "80x,80x60")
    names = [path.name for path in sorted(photo.parent.iterdir())]
    assert names == ["photo.jpg", "processed_photo_80x60.jpg", "processed_photo_80x60_2.jpg"]


def test_another_format_to_standard_output(photo: Path) -> None:
    with FakeServer(painting([])) as fake:
        done = invoke(fake.port, photo, "--format", "png", "--output", "-")
    with Image.open(io.BytesIO(done.stdout_bytes)) as image:
        assert (image.format, image.size) == ("PNG", (800, 600))
    assert "compression ratio" in done.stderr
    assert list(photo.parent.iterdir()) == [photo]


@pytest.mark.parametrize(
    ("name", "arguments", "kind"),
    [
        ("x.png", [], "PNG"),
        ("x.PNG", [], "PNG"),
        ("x.webp", [], "WEBP"),
        ("x.tif", [], "TIFF"),
        ("x.tiff", [], "TIFF"),
        ("x.gif", [], "GIF"),
        ("x.jpg", [], "JPEG"),
        ("x.jpeg", ["--format", "jpg"], "JPEG"),
        ("x.dat", [], "JPEG"),
        ("x", ["--format", "png"], "PNG"),
        ("x.png", ["--format", "png"], "PNG"),
        ("x.png", ["--format", "auto"], "PNG"),
    ],
)
def test_the_ending_of_the_output_chooses_the_format(
    photo: Path, tmp_path: Path, name: str, arguments: list[str], kind: str
) -> None:
    asked(photo, "--output", tmp_path / name, *arguments)
    with Image.open(tmp_path / name) as image:
        assert image.format == kind


def test_a_folder_with_an_ending_chooses_no_format(photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results.png"
    folder.mkdir()
    asked(photo, "--output", folder)
    with Image.open(folder / "processed_photo.jpg") as image:
        assert image.format == "JPEG"


# What it refuses


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output-sizes", "320"], ["--output-sizes: '320' is not a size"]),
        (["--output-sizes", ""], ["--output-sizes: '' is not a size"]),
        (["--output-sizes", "8x6,8x6"], ["--output-sizes: 8x6 is given twice"]),
        (["--output-sizes", "0x6"], ["width: must be from 1"]),
        (["--output-sizes", "8x", "--width", 8], ["--output-sizes replaces --width"]),
        (["--output-sizes", "8x,6x", "--output", "-"], ["--output - takes one result"]),
        (["--output-sizes", "8x", "--fit", "fill"], ["height: is missing; the fit 'fill' needs both"]),
        (["--width", 8, "--fit", "fill"], ["height: is missing; the fit 'fill' needs both"]),
        (["--max-bytes", "much"], ["--max-bytes: 'much' is not a size"]),
        (["--max-bytes", "0"], ["max_bytes: must be from 1"]),
        (
            ["--format", "webp", "--output", "x.png"],
            ["--format webp contradicts --output x.png, whose ending means png"],
        ),
        (["--format", "jpeg", "--output", "x.tif"], ["--format jpeg contradicts --output x.tif"]),
        (["--protocol", 1, "--output", "x.png"], ["--format: version 1 of the protocol has only"]),
        (["--background", "red"], ["background: must look like #ffffff"]),
        (
            ["--protocol", 1, "--output-sizes", "8x6,4x3"],
            ["--output-sizes: version 1 of the protocol returns one result"],
        ),
        (
            ["--protocol", 1, "--format", "png"],
            ["--format: version 1 of the protocol has only a width and a height"],
        ),
        (["--protocol", 1, "--width", 8], ["version 1 of the protocol needs both --width and --height"]),
    ],
    ids=str,
)
def test_invalid_options_are_refused_before_anything_is_sent(
    photo: Path, unused_port: int, arguments: list[object], words: list[str]
) -> None:
    assert_refused(invoke(unused_port, photo, *arguments), ExitCode.USAGE, *words)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fit", "bent"],
        ["--format", "bmp"],
        ["--keep", "some"],
        ["--position", "left-top"],
        ["--page", "-1"],
        ["--deadline", "0"],
    ],
    ids=str,
)
def test_usage(photo: Path, unused_port: int, arguments: list[str]) -> None:
    done = invoke(unused_port, photo, *arguments)
    assert done.exit_code == ExitCode.USAGE
    assert arguments[0] in done.stderr


def test_several_results_need_a_folder(photo: Path, unused_port: int, tmp_path: Path) -> None:
    for output in (tmp_path / "none", photo):
        done = invoke(unused_port, photo, "--output-sizes", "8x,6x", "--output", output)
        assert_refused(done, ExitCode.FILE, f"{output}: no such folder to save to")


def test_none_of_several_results_overwrites_the_image(photo: Path) -> None:
    os.link(photo, photo.with_name("processed_photo_80x60.jpg"))
    with FakeServer(painting([])) as fake:
        done = invoke(fake.port, photo, "--output-sizes", "40x,80x")
    assert_refused(done, ExitCode.USAGE, "never overwritten")
    assert photo.read_bytes() == PHOTO


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            BadRequest("lossless: a JPEG cannot be lossless"),
            ["the server answered 400 bad_request: lossless: a JPEG cannot be lossless"],
        ),
        (TooLarge("outputs: 40 of them; at most 16"), ["413 too_large: outputs: 40 of them", "ask for less"]),
    ],
    ids=["a mix", "too many"],
)
def test_a_refusal_is_one_line(photo: Path, error: BadRequest | TooLarge, words: list[str]) -> None:
    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.refuse(head, error)

    with FakeServer(script) as fake:
        done = invoke(fake.port, photo, "--lossless", "--output-sizes", "8x,6x")
    assert_refused(done, ExitCode.REFUSED, *words)
    assert list(photo.parent.iterdir()) == [photo]


def test_inconsistent_results_are_not_saved(photo: Path) -> None:
    with FakeServer(every) as fake:
        done = invoke(fake.port, photo, "--output-sizes", "8x,6x")
    assert_refused(done, ExitCode.NO_SERVER, "the request has 2 results and the server announced 1")
    assert list(photo.parent.iterdir()) == [photo]


# Questions


def test_info(server: RunningServer, photo: Path) -> None:
    done = invoke(server.port, photo, "--info")
    assert done.stdout.splitlines() == [
        "format                jpeg",
        "width                 400",
        "height                300",
        "pages                 1",
        "has alpha             False",
        "orientation           1",
        f"size                  {len(PHOTO)}",
    ]
    assert json.loads(invoke(server.port, photo, "--info", "--json").stdout)["width"] == 400
    assert list(photo.parent.iterdir()) == [photo]


def test_formats(server: RunningServer, photo: Path) -> None:
    del photo  # asked for only because it clears the environment
    told = json.loads(invoke(server.port, "--formats", "--json").stdout)
    assert set(told) == {
        "server",
        "reads",
        "writes",
        "fits",
        "max_upload",
        "max_pixels",
        "max_output_pixels",
        "deadline_ms",
        "workers",
        "queue_per_client",
    }
    assert told["server"] == f"vipsrv/{__version__}"
    done = invoke(server.port, "--formats")
    assert f"reads                 {', '.join(told['reads'])}\n" in done.stdout
    assert "png" in told["reads"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["the image is missing"]),
        (["--info"], ["the image is missing"]),
        (["PHOTO", "--formats"], ["--formats describes the server and takes no image"]),
        (["PHOTO", "--info", "--width", 8], ["--info resizes nothing, so --width has no meaning"]),
        (["PHOTO", "--info", "--output", "x"], ["--info resizes nothing, so --output has no meaning"]),
        (["--formats", "--info"], ["--formats resizes nothing, so --info has no meaning"]),
        (["--formats", "--protocol", 1], ["version 1 of the protocol has no --formats"]),
    ],
    ids=str,
)
def test_invalid_info_commands(
    photo: Path, unused_port: int, arguments: list[object], words: list[str]
) -> None:
    given = [photo if argument == "PHOTO" else argument for argument in arguments]
    assert_refused(invoke(unused_port, *given), ExitCode.USAGE, *words)
