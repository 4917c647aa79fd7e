"""Which images and requests are refused, with which error and message, and how early."""

import gc
import importlib
import struct
import zlib
from typing import Any

import pytest
import pyvips
from PIL import Image

from tests.pipeline.run import LIMITS, info, refusal, resize, run, sample
from tests.support.images import SAMPLES, damaged, encode, garbage, jpeg, photo, truncated
from vipsrv import pipeline
from vipsrv.errors import (
    Cancelled,
    CorruptImage,
    InternalError,
    RequestError,
    TooLarge,
    UnsupportedFormat,
)
from vipsrv.options import Format, ResizeOptions
from vipsrv.pipeline import limits, plan
from vipsrv.worker_config import WorkerConfig

resize_module = importlib.import_module("vipsrv.pipeline.resize")

# Only the first frame or page is decoded, and these may still have all of it.
FIRST_OF_SEVERAL = {"gif-animated", "webp-animated", "tiff-pages"}


@pytest.mark.parametrize("keep", [0.95, 0.5, 0.1])
@pytest.mark.parametrize("name", sorted(SAMPLES.keys() - FIRST_OF_SEVERAL))
def test_a_truncated_image_is_corrupt(name: str, keep: float) -> None:
    assert isinstance(refusal(truncated(sample(name), keep)), CorruptImage)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_damaged_image_is_corrupt_or_has_the_exact_size(name: str, seed: int) -> None:
    assert isinstance(refusal(damaged(sample(name), seed=seed)), CorruptImage | None)


@pytest.mark.parametrize("image", [b"", b"\0", b"\xff", garbage(), garbage(100_000), b"hello\n" * 100])
def test_data_that_are_not_an_image_are_refused(image: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match=r"not an image of a known format; send one of: jpeg, png, "):
        info(image)
    assert isinstance(refusal(image), UnsupportedFormat)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (encode(photo(), "JPEG2000"), "JPEG 2000"),
        (b"P7 332\n" + bytes(100), "XV thumbnail"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "HEIC"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100), "JPEG XL"),
        (b"\xff\x0a" + bytes(100), "JPEG XL"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "SVG"),
        (b"<svg width='9' height='9' xmlns='http://www.w3.org/2000/svg'></svg>", "SVG"),
        (b"%PDF-1.7\n" + bytes(100), "PDF"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\x76\x2f\x31\x01" + bytes(100), "OpenEXR"),
        (b"PK\x03\x04" + bytes(100), "ZIP"),
    ],
)
def test_an_unread_format_is_named_in_the_refusal(
    head: bytes, name: str, formats: tuple[pipeline.FormatInfo, ...]
) -> None:
    names = [one.name for one in formats]
    if name.lower() in names:
        pytest.skip(f"this libvips reads {name}")
    with pytest.raises(UnsupportedFormat) as refused:
        info(head)
    assert f"looks like {name}, which this server does not read" in refused.value.message
    assert refused.value.message.endswith(f"send one of: {', '.join(names)}")


@pytest.mark.parametrize(
    "head", [b"\xff\xd8\xff\xe0" + bytes(40), b"\x89PNG\r\n\x1a\n" + bytes(40), b"GIF89a"]
)
def test_a_known_format_without_a_header_is_corrupt(head: bytes) -> None:
    with pytest.raises(CorruptImage, match="cannot be read"):
        info(head)


def png_head(width: int, height: int) -> bytes:
    """A grey PNG of this size without pixels: only its header can be read."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))]
    chunks.append(
        struct.pack(">I", 4) + b"IDAT" + bytes(4) + struct.pack(">I", zlib.crc32(b"IDAT" + bytes(4)))
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_too_many_pixels_are_refused_by_the_header_alone() -> None:
    with pytest.raises(TooLarge) as refused:
        resize(png_head(20_000, 5_001), 100, 80)
    assert refused.value.message == (
        "the image has 100020000 pixels (20000 x 5001); max-pixels allows 100000000"
    )
    # One pixel row less is within the limit, so that the missing pixels are found.
    assert isinstance(refusal(png_head(20_000, 5_000)), CorruptImage)


def test_a_result_of_too_many_pixels_is_refused() -> None:
    with pytest.raises(TooLarge) as refused:
        resize(jpeg(), 10_000, 5_001)
    assert refused.value.message == (
        "the result has 50010000 pixels (10000 x 5001); max-output-pixels allows 50000000"
    )


@pytest.mark.parametrize(("width", "height"), [(65_501, 1), (1, 65_501)])
def test_a_side_that_jpeg_cannot_have_is_refused(width: int, height: int) -> None:
    with pytest.raises(TooLarge, match="a jpeg has at most 65500 pixels on a side"):
        resize(jpeg(), width, height)


@pytest.mark.parametrize(("width", "height"), [(65_500, 1), (1, 65_500), (1, 1)])
def test_sizes_at_the_limit_are_made(width: int, height: int) -> None:
    assert resize(jpeg(), width, height).size == (width, height)


@pytest.mark.parametrize("name", sorted(FIRST_OF_SEVERAL))
def test_an_image_without_its_first_frame_is_corrupt(name: str) -> None:
    assert isinstance(refusal(truncated(sample(name), 0.1)), CorruptImage)


@pytest.mark.parametrize("file_format", ["jpeg", "webp"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_failing_encoder_does_not_blame_the_image(
    monkeypatch: pytest.MonkeyPatch, file_format: str, count: int
) -> None:
    def any_side(
        width: int, height: int, format_: Format, _max_side: int | None, config: WorkerConfig
    ) -> None:
        limits.check_result(width, height, format_, None, config)

    monkeypatch.setattr(plan, "check_result", any_side)  # so that the encoder itself fails
    options = [ResizeOptions(width=66_000, height=2, format=Format(file_format))] * count
    with pytest.raises(InternalError, match=r"^the result could not be written: .*\S"):
        run(jpeg(), *options)
    with pytest.raises(CorruptImage, match=r"^this jpeg cannot be decoded: "):
        run(truncated(jpeg()), *options)
    assert refusal(jpeg()) is None


def test_a_stopped_job_is_not_decoded_again() -> None:
    opened = []

    class Counting(pipeline.Upload):
        def head(self, count: int) -> bytes:
            opened.append(count)
            return super().head(count)

    watch = Counter(stop_at=2)
    # Of an error in a JPEG it is not known whether it is the decoder's.
    asked, image = ResizeOptions(width=800, height=600), encode(photo(2500, 2000), "JPEG")
    with pytest.raises(Cancelled):
        pipeline.resize(Counting.from_memory(image), [asked], config=LIMITS, watch=watch)
    given_up = len(opened)
    with pytest.raises(CorruptImage):
        pipeline.resize(Counting.from_memory(truncated(image)), [asked], config=LIMITS)
    assert len(opened) - given_up > given_up


@pytest.mark.parametrize(("name", "times"), [("jpeg", 2), ("png", 1), ("tiff-tiled", 1), ("avif", 1)])
def test_a_corrupt_image_is_decoded_again_only_if_its_error_leaves_a_doubt(
    monkeypatch: pytest.MonkeyPatch, name: str, times: int
) -> None:
    decoded = []
    decode = resize_module._decode

    def counting(*arguments: Any) -> Any:
        decoded.append(decode)
        return decode(*arguments)

    monkeypatch.setattr(resize_module, "_decode", counting)
    assert isinstance(refusal(truncated(sample(name), 0.8)), CorruptImage)
    assert len(decoded) == times


def test_the_first_decode_is_over_before_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[int] = []
    decode = resize_module._decode

    def counting(*arguments: Any) -> Any:
        assert isinstance(arguments[0].header.image, pyvips.Image)
        alive.append(sum(isinstance(one, pyvips.Image) for one in gc.get_objects()))
        return decode(*arguments)

    monkeypatch.setattr(resize_module, "_decode", counting)
    gc.collect()
    assert isinstance(refusal(truncated(sample("jpeg"), 0.8)), CorruptImage)
    first, second = alive
    assert second == first


def test_a_refusal_does_not_repeat_the_one_before() -> None:
    first = refusal(truncated(sample("tiff-strip")))
    second = refusal(truncated(sample("png")))
    assert isinstance(first, CorruptImage)
    assert isinstance(second, CorruptImage)
    assert "tiff" in first.message
    assert "tiff" not in second.message


def test_errors_of_one_image_do_not_affect_the_next() -> None:
    # Damaged so that libvips logs an error and goes on.
    assert refusal(damaged(jpeg(), seed=0)) is None
    refused = refusal(truncated(sample("webp")))
    assert refused is not None
    assert "webp" in refused.message
    assert "jpeg" not in refused.message.lower()


def test_messages_are_short_and_printable() -> None:
    for name in SAMPLES:
        for keep in (0.02, 0.5):
            refused = refusal(truncated(sample(name), keep))
            if refused is not None:
                assert refused.message.isascii()
                assert refused.message.isprintable()
                assert len(refused.message) < 200


class Counter:
    """A stop check that gives its reason at the n-th call."""

    def __init__(self, stop_at: float) -> None:
        self.asked = 0
        self.stop_at = stop_at
        self.reason = Cancelled("enough")

    def __call__(self) -> RequestError | None:
        self.asked += 1
        return self.reason if self.asked >= self.stop_at else None


def big_png() -> bytes:
    return encode(Image.new("RGB", (2500, 2000), (9, 90, 200)), "PNG", compress_level=1)


def run_watched(image: bytes, watch: Counter) -> pipeline.Result:
    most = WorkerConfig(max_pixels=10**8, max_output_pixels=10**8)
    options = ResizeOptions(width=800, height=600)
    return pipeline.resize(pipeline.Upload.from_memory(image), (options,), config=most, watch=watch)


def test_a_long_job_stops_when_asked() -> None:
    watch = Counter(stop_at=2)
    with pytest.raises(Cancelled) as stopped:
        run_watched(big_png(), watch)
    assert stopped.value is watch.reason


def test_a_long_job_checks_whether_to_stop() -> None:
    watch = Counter(stop_at=float("inf"))
    assert run_watched(big_png(), watch).outputs[0].info.width == 800
    assert watch.asked > 5


def test_a_stopped_job_does_not_affect_the_next() -> None:
    with pytest.raises(Cancelled):
        run_watched(big_png(), Counter(stop_at=1))
    assert run_watched(big_png(), Counter(stop_at=float("inf"))).outputs[0].info.size > 0
