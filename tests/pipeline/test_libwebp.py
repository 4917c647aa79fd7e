"""WebP by libwebp itself, against libvips, which does it where the system has no libwebp."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pyvips
from PIL import Image

from tests.pipeline.run import sample
from tests.support.images import adobe_rgb_profile, encode, photo
from vipsrv import pipeline
from vipsrv.errors import CorruptImage
from vipsrv.options import Fit, Format, Keep, ResizeOptions
from vipsrv.pipeline import libwebp
from vipsrv.worker_config import WorkerConfig

pytestmark = pytest.mark.skipif(not libwebp.is_available(), reason="this system has no libwebp.so.7")

ORIENTATION = 0x0112  # EXIF 2.3

REQUESTS = {
    "half": ResizeOptions(width=165, height=125, format=Format.PNG),
    "stretched": ResizeOptions(width=100, height=100, format=Format.PNG),
    "uneven": ResizeOptions(width=97, fit=Fit.INSIDE, format=Format.PNG),
    "one-pixel": ResizeOptions(width=1, height=1, format=Format.PNG),
    "same-size": ResizeOptions(width=330, height=250, format=Format.PNG),
    "enlarged": ResizeOptions(width=500, height=400, format=Format.PNG),
    "cropped": ResizeOptions(width=80, height=80, fit=Fit.COVER, format=Format.PNG),
    "flattened": ResizeOptions(width=90, height=70, background="#336699"),
}

Make = Callable[[bytes, ResizeOptions], pipeline.Output]


def made(data: bytes, options: ResizeOptions) -> pipeline.Output:
    upload = pipeline.Upload.from_memory(data)
    return pipeline.resize(upload, [options], config=WorkerConfig()).outputs[0]


@pytest.fixture
def made_by_libvips(monkeypatch: pytest.MonkeyPatch) -> Make:
    def make(data: bytes, options: ResizeOptions) -> pipeline.Output:
        with monkeypatch.context() as patch:
            patch.setattr(libwebp, "is_available", lambda: False)
            return made(data, options)

    return make


def difference(one: bytes, other: bytes) -> float:
    """The mean difference of two results, in grey levels."""
    first, second = (pyvips.Image.new_from_buffer(data, "") for data in (one, other))
    return float((first - second).abs().avg())


def oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encode(photo(), "WEBP", quality=90, exif=exif)


@pytest.mark.parametrize("name", ["webp", "webp-alpha", "webp-lossless", "webp-animated"])
@pytest.mark.parametrize("options", REQUESTS.values(), ids=REQUESTS)
def test_results_are_those_of_libvips(name: str, options: ResizeOptions, made_by_libvips: Make) -> None:
    own, other = made(sample(name), options), made_by_libvips(sample(name), options)
    assert (own.info.width, own.info.height) == (other.info.width, other.info.height)
    # libvips reduces a rounded side a second time, by a part of a pixel.
    assert difference(own.data, other.data) < 0.7


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_applied(orientation: int, made_by_libvips: Make) -> None:
    image, options = oriented(orientation), ResizeOptions(width=60, height=90, format=Format.PNG)
    assert difference(made(image, options).data, made_by_libvips(image, options).data) < 0.7


def test_a_profile_is_applied_or_kept(made_by_libvips: Make) -> None:
    image = encode(photo(), "WEBP", quality=90, icc_profile=adobe_rgb_profile())
    options = ResizeOptions(width=165, height=125, format=Format.PNG)
    kept = replace(options, keep=Keep.ICC)
    assert difference(made(image, options).data, made_by_libvips(image, options).data) < 0.7
    assert difference(made(image, kept).data, made_by_libvips(image, kept).data) < 0.7
    assert difference(made(image, options).data, made(image, kept).data) > 2
    assert pyvips.Image.new_from_buffer(made(image, kept).data, "").get("icc-profile-data")


def test_metadata_are_kept() -> None:
    result = made(oriented(6), ResizeOptions(width=60, keep=Keep.ALL, fit=Fit.INSIDE))
    assert pyvips.Image.new_from_buffer(result.data, "").get_typeof("exif-data")


def test_several_results_come_from_one_decode(made_by_libvips: Make) -> None:
    outputs = [ResizeOptions(width=width, fit=Fit.INSIDE, format=Format.PNG) for width in (200, 100, 50)]
    upload = pipeline.Upload.from_memory(sample("webp"))
    results = pipeline.resize(upload, outputs, config=WorkerConfig()).outputs
    assert [one.info.width for one in results] == [200, 100, 50]
    for result, options in zip(results, outputs, strict=True):
        assert difference(result.data, made_by_libvips(sample("webp"), options).data) < 3


def test_an_upload_in_a_file_gives_the_same(tmp_path: Path) -> None:
    path = tmp_path / "image.webp"
    path.write_bytes(sample("webp"))
    with path.open("rb") as file:
        upload = pipeline.Upload.from_descriptor(file.fileno(), path.stat().st_size)
        results = pipeline.resize(upload, [REQUESTS["half"]], config=WorkerConfig()).outputs
    assert results[0].data == made(sample("webp"), REQUESTS["half"]).data


@pytest.mark.parametrize("tolerant", [False, True])
def test_corrupt_pixels_are_refused(tolerant: bool) -> None:  # noqa: FBT001 - a parameter of the test
    image = bytearray(sample("webp"))
    # The sizes of the partitions: the first one then ends beyond the file.
    image[20:23] = (0xFFFFF0 | image[20] & 0x0F).to_bytes(3, "little")
    upload = pipeline.Upload.from_memory(bytes(image))
    with pytest.raises(CorruptImage):
        pipeline.resize(upload, [REQUESTS["half"]], config=WorkerConfig(tolerate_truncated=tolerant))


def riff(body: bytes) -> bytes:
    return b"RIFF" + (4 + len(body)).to_bytes(4, "little") + b"WEBP" + body


def chunk(name: bytes, data: bytes) -> bytes:
    return name + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2)


def test_nothing_is_read_beyond_the_image(made_by_libvips: Make) -> None:
    image = sample("webp")
    pixels = image[20 : 20 + int.from_bytes(image[16:20], "little")]
    # The chunk with the image ends early, and another one holds the rest.
    short = riff(chunk(b"VP8 ", pixels[:-1000]) + chunk(b"REST", pixels[-1000:]))
    for make in (made, made_by_libvips):
        assert make(riff(chunk(b"VP8 ", pixels)), REQUESTS["half"]).data
        with pytest.raises(CorruptImage):
            make(short, REQUESTS["half"])


@pytest.mark.parametrize("count", [1, 40])
def test_unknown_chunks_may_precede_the_image(count: int, made_by_libvips: Make) -> None:
    image = sample("webp-alpha")
    head, chunks = image[12:30], image[30:]
    assert head[:4] == b"VP8X"
    many = riff(head + chunk(b"ABCD", b"hello") * count + chunks)
    own = made(many, REQUESTS["half"]).data
    assert difference(own, made_by_libvips(many, REQUESTS["half"]).data) == 0
    assert difference(own, made(image, REQUESTS["half"]).data) == 0


@pytest.mark.parametrize("name", ["webp", "webp-alpha", "jpeg"])
@pytest.mark.parametrize("quality", [1, 60, 100])
def test_an_encoded_result_is_that_of_libvips(name: str, quality: int, made_by_libvips: Make) -> None:
    options = ResizeOptions(width=150, height=110, format=Format.WEBP, quality=quality)
    own, other = made(sample(name), options).data, made_by_libvips(sample(name), options).data
    assert abs(len(own) - len(other)) <= len(other) / 50
    assert difference(own, other) < 1
    assert pyvips.Image.new_from_buffer(own, "").hasalpha() == ("alpha" in name)


def test_a_grey_result_is_written() -> None:
    image = encode(photo().convert("L"), "PNG")
    result = made(image, ResizeOptions(width=90, height=70, format=Format.WEBP))
    assert pyvips.Image.new_from_buffer(result.data, "").bands == 3


def test_a_decoder_of_another_interface_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libwebp, "_DECODER_ABI", 0x0109)
    libwebp.is_available.cache_clear()
    try:
        assert not libwebp.is_available()
    finally:
        monkeypatch.undo()
        libwebp.is_available.cache_clear()
