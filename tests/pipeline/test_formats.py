"""Which formats are read and by which library, and what happens to truncated images if they are tolerated."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import pyvips
from PIL import Image

from tests.pipeline.run import LIMITS, info, refusal, resize, run, sample
from tests.support.bitmaps import bitmap, icon
from tests.support.image_comparison import mean_abs_difference, open_exact, reference
from tests.support.images import encode, jpeg, photo, truncated
from vipsrv import pipeline
from vipsrv.errors import CorruptImage, StartFailed, UnsupportedFormat
from vipsrv.options import ResizeOptions
from vipsrv.pipeline.vips import setup
from vipsrv.version import __version__
from vipsrv.worker_config import WorkerConfig

WHEEL = ["jpeg", "png", "webp", "tiff", "gif", "avif"]
OWN = ["bmp", "pnm", "ico", "psd", "dds", "qoi", "sgi", "hdr", "pcx", "dib", "tga"]
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><rect width="40" height="40"/></svg>'
TOLERANT = WorkerConfig(
    max_pixels=LIMITS.max_pixels,
    max_output_pixels=LIMITS.max_output_pixels,
    tolerate_truncated=True,
    quality=90,
)


@pytest.fixture
def narrowed() -> Iterator[None]:
    """Switch all formats on again after the test."""
    yield
    pipeline.start()


def has(loader: str) -> bool:
    return bool(pyvips.type_find("VipsForeignLoad", loader))


def test_each_format_is_listed_with_its_library(formats: tuple[pipeline.FormatInfo, ...]) -> None:
    names = [one.name for one in formats]
    assert set(WHEEL + OWN) <= set(names)
    assert len(set(names)) == len(names)
    for one in formats:
        if one.name in OWN:
            assert (one.library, one.version) == ("vipsrv", __version__)
        else:
            assert one.library.startswith("libvips ")
            assert one.version == pipeline.version()
    assert "libvips jpegload" in {one.library for one in formats}


def test_an_old_libvips_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        pyvips, "at_least_libvips", lambda major, minor: (major, minor) < setup.OLDEST_LIBVIPS
    )
    with pytest.raises(StartFailed, match=rf"libvips {pipeline.version()} is too old: .*pip install"):
        pipeline.start()


@pytest.mark.usefixtures("narrowed")
def test_formats_can_be_narrowed() -> None:
    assert [one.name for one in pipeline.start(["png", "bmp"])] == ["png", "bmp"]
    assert info(sample("png")).format == "png"
    assert info(sample("bmp")).format == "bmp"
    with pytest.raises(
        UnsupportedFormat, match="looks like JPEG, which this server does not read; send one of: png, bmp"
    ):
        info(jpeg())
    with pytest.raises(UnsupportedFormat, match="looks like PNM"):
        info(sample("pnm"))


@pytest.mark.skipif(not has("svgload_source"), reason="this libvips has no reader for SVG")
@pytest.mark.usefixtures("narrowed")
def test_formats_can_be_widened_to_what_libvips_marks_as_untrusted() -> None:
    with pytest.raises(UnsupportedFormat, match="SVG"):
        info(SVG)
    assert "svg" in [one.name for one in pipeline.start(["jpeg", "svg"])]
    assert info(SVG).format == "svg"
    assert max(high for _, high in resize(SVG, 30, 30).getextrema()) < 5  # type: ignore[misc]


@pytest.mark.usefixtures("narrowed")
def test_a_format_that_cannot_be_read_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match=r"^formats: xyz is unknown; known are jpeg, "):
        pipeline.start(["jpeg", "xyz"])
    missing = [
        name for name, loader in [("pdf", "pdfload_source"), ("jp2", "jp2kload_source")] if not has(loader)
    ]
    if missing:
        with pytest.raises(ValueError, match=rf"does not read {missing[0]} \(it has no loader for it\)"):
            pipeline.start(["jpeg", missing[0]])


@pytest.mark.usefixtures("narrowed")
def test_a_loader_without_a_decoder_is_refused_at_the_start() -> None:
    if not has("heifload_source") or "heic" in [one.name for one in pipeline.start()]:
        pytest.skip("this libvips reads HEIC, or no AVIF either")
    with pytest.raises(ValueError, match=r"heic \(its loader is there, but cannot decode a test image\)"):
        pipeline.start(["jpeg", "heic"])


@pytest.mark.parametrize(
    ("name", "loader", "saver", "options"),
    [
        ("heic", "heifload_source", "heifsave_buffer", {"compression": "hevc"}),
        ("jxl", "jxlload_source", "jxlsave_buffer", {}),
        ("jp2", "jp2kload_source", "jp2ksave_buffer", {}),
    ],
)
@pytest.mark.usefixtures("narrowed")
def test_a_format_of_a_libvips_with_more_loaders(
    name: str, loader: str, saver: str, options: dict[str, object]
) -> None:
    if not has(loader) or not pyvips.type_find("VipsForeignSave", saver):
        pytest.skip(f"this libvips has no reader or no writer for {name}")
    scene = photo(200, 150)
    image = pyvips.Image.new_from_memory(scene.tobytes(), 200, 150, 3, "uchar").copy(interpretation="srgb")
    try:
        encoded = pyvips.Operation.call(saver, image, **options)
    except pyvips.Error:
        pytest.skip(f"this libvips has no encoder for {name}")
    assert name in [one.name for one in pipeline.start(["jpeg", name])]
    assert info(encoded).format == name
    wanted = scene.resize((100, 75), Image.Resampling.LANCZOS)
    assert mean_abs_difference(resize(encoded, 100, 75), wanted) < 6


@pytest.mark.parametrize(
    "name", ["jpeg", "png", "webp", "tiff-strip", "gif", "bmp", "pnm", "jpeg-progressive", "tiff-tiled"]
)
def test_a_truncated_image_can_be_tolerated(name: str) -> None:
    image = truncated(sample(name), 0.9)
    assert isinstance(refusal(image), CorruptImage)
    options = ResizeOptions(width=160, height=120)
    try:
        result = pipeline.resize(pipeline.Upload.from_memory(image), [options], config=TOLERANT)
    except CorruptImage:
        # libwebp gives nothing of a lossy image whose end is missing, and of a TIFF libvips before 8.17.
        assert name == "webp" or (name.startswith("tiff") and pyvips.version(1) < 17)
        return
    seen, wanted = open_exact(result.outputs[0].data), reference(sample(name), 160, 120)
    # A bitmap begins with its lowest row.
    there = (0, 80, 160, 120) if name == "bmp" else (0, 0, 160, 40)
    assert mean_abs_difference(seen.crop(there), wanted.crop(there)) < 16


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_ycbcr_without_jpeg_compression_is_right(compression: str | None) -> None:
    options = {"compression": compression} if compression else {}
    image = encode(photo().convert("YCbCr"), "TIFF", **options)
    assert mean_abs_difference(resize(image, 160, 120), reference(image, 160, 120)) < 3


def test_ycbcr_without_jpeg_is_right_on_any_page() -> None:
    pages = [photo(), photo(seed=2).convert("YCbCr"), photo(seed=3)]
    image = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    for page, scene in enumerate(pages):
        result = open_exact(run(image, ResizeOptions(width=160, height=120, page=page)).outputs[0].data)
        wanted = scene.convert("RGB").resize((160, 120), Image.Resampling.LANCZOS)
        assert mean_abs_difference(result, wanted) < 3


def test_ycbcr_with_jpeg_is_right() -> None:
    image = encode(photo().convert("YCbCr"), "TIFF", compression="jpeg")
    assert mean_abs_difference(resize(image, 160, 120), reference(image, 160, 120)) < 3


def test_the_mapping_of_a_bitmap_ends_with_the_job(tmp_path: Path) -> None:
    path = tmp_path / "large.bmp"
    path.write_bytes(bitmap(photo(1200, 900), 24))

    def mapped() -> bool:
        maps = Path("/proc/self/maps")
        return maps.exists() and str(path) in maps.read_text()

    descriptor = os.open(path, os.O_RDONLY)
    try:
        upload = pipeline.Upload.from_descriptor(descriptor, path.stat().st_size)
        options = ResizeOptions(width=160, height=120)
        result = pipeline.resize(upload, [options], config=LIMITS)
    finally:
        os.close(descriptor)
    wanted = photo(1200, 900).resize((160, 120), Image.Resampling.LANCZOS)
    assert mean_abs_difference(open_exact(result.outputs[0].data), wanted) < 3
    assert not mapped()


@pytest.mark.parametrize("name", ["gif", "ico"])
def test_the_info_of_a_truncated_image_can_be_tolerated(name: str) -> None:
    whole = (
        encode(photo(200, 150).quantize(64), "GIF")
        if name == "gif"
        else icon([(200, 150, 32, encode(photo(200, 150), "PNG"))])
    )
    image = truncated(whole, 0.8)
    with pytest.raises(CorruptImage):
        pipeline.read_info(pipeline.Upload.from_memory(image))
    seen = pipeline.read_info(pipeline.Upload.from_memory(image), tolerant=True)
    assert (seen.format, seen.width, seen.height) == (name, 200, 150)
