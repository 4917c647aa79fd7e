"""An image in memory and the same image in a file give the same results."""

import os
from pathlib import Path

import pytest

from tests.pipeline.run import LIMITS, info, sample
from tests.support.image_comparison import mean_abs_difference, open_exact
from tests.support.images import SAMPLES, garbage, large_strip_scene, large_strip_tiff, truncated
from vipsrv import pipeline
from vipsrv.errors import CorruptImage, UnsupportedFormat
from vipsrv.options import ResizeOptions

OPTIONS = (ResizeOptions(width=160, height=120),)


def from_memory(data: bytes | bytearray | memoryview) -> pipeline.Result:
    return pipeline.resize(pipeline.Upload.from_memory(data), OPTIONS, config=LIMITS)


def from_file(path: Path, *, offset: int = 0) -> pipeline.Result:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.lseek(descriptor, offset, os.SEEK_SET)
        upload = pipeline.Upload.from_descriptor(descriptor, path.stat().st_size)
        result = pipeline.resize(upload, OPTIONS, config=LIMITS)
        os.fstat(descriptor)  # it is still open
    finally:
        os.close(descriptor)
    return result


@pytest.mark.parametrize("offset", [0, 5, 1 << 20])
@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_file_gives_the_same_as_memory_at_any_offset(name: str, offset: int, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(sample(name))
    assert from_file(path, offset=offset) == from_memory(sample(name))


@pytest.mark.parametrize(
    "wrap", [bytes, bytearray, lambda data: memoryview(bytearray(data + b"more"))[: len(data)]]
)
def test_any_kind_of_memory_is_accepted(wrap: type[bytes]) -> None:
    image = sample("webp-alpha")
    assert from_memory(wrap(image)) == from_memory(image)


def test_memory_can_be_reused_for_the_next_image() -> None:
    memory = bytearray(1 << 20)
    for name in ("jpeg", "png-interlaced", "tiff-tiled", "webp-animated", "jpeg-orientation-6"):
        image = sample(name)
        memory[: len(image)] = image
        assert from_memory(memoryview(memory)[: len(image)]) == from_memory(image)


def test_a_bad_file_is_refused_like_bad_memory(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(garbage())
    with pytest.raises(UnsupportedFormat):
        from_file(path)
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(UnsupportedFormat, match="ZIP"):
        from_file(path, offset=50)
    path.write_bytes(truncated(sample("jpeg")))
    with pytest.raises(CorruptImage):
        from_file(path)


def test_a_large_file_looks_right(tmp_path: Path) -> None:
    path = tmp_path / "large.tif"
    large_strip_tiff(path, 6000, 5000)
    result = from_file(path)
    assert (result.source.width, result.source.height) == (6000, 5000)
    assert mean_abs_difference(open_exact(result.outputs[0].data), large_strip_scene(160, 120)) < 6


def test_the_header_of_a_file_is_the_same_as_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(sample("gif-animated"))
    with path.open("rb") as file:
        told = pipeline.read_info(pipeline.Upload.from_descriptor(file.fileno(), path.stat().st_size))
    assert told == info(sample("gif-animated"))
