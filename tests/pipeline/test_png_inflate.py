"""A PNG whose pixels are inflated at once: the same results, and the same refusals, as row by row."""

import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence

import pytest
from PIL import Image

from tests.pipeline.run import refusal, run
from tests.support.images import adobe_rgb_profile, alpha_photo, encode, grey16_png, interlaced_png, photo
from vipsrv.errors import CorruptImage
from vipsrv.options import Format, Keep, ResizeOptions
from vipsrv.pipeline import Upload
from vipsrv.pipeline.formats import png
from vipsrv.pipeline.formats.png.inflate import row_bytes, stored
from vipsrv.pipeline.probe import read_header

SIZE = 640, 480
MAGIC = b"\x89PNG\r\n\x1a\n"


def chunks(image: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(MAGIC)
    while position < len(image):
        length, name = struct.unpack_from(">I4s", image, position)
        yield name, image[position + 8 : position + 8 + length]
        position += 12 + length


def joined(parts: Sequence[tuple[bytes, bytes]]) -> bytes:
    whole = [
        struct.pack(">I4s", len(data), name) + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    ]
    return MAGIC + b"".join(whole)


def noisy(mode: str = "RGB") -> bytes:
    """An image whose file is nearly as large as its pixels."""
    scene = (alpha_photo if mode == "RGBA" else photo)(*SIZE)
    noise = Image.frombytes("L", SIZE, random.Random(1).randbytes(SIZE[0] * SIZE[1]))
    return encode(Image.blend(scene, noise.convert(scene.mode), 0.2).convert(mode), "PNG")


def is_inflated(image: bytes) -> bool:
    """Whether the pixels of the image are inflated at once."""
    upload = Upload.from_memory(image)
    assert png.PNG.reader is not None
    return png.PNG.reader.reopen(upload, read_header(upload), 0, SIZE) is not None  # type: ignore[union-attr,misc]


@pytest.fixture
def run_row_by_row(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, ResizeOptions], bytes]:
    def make(image: bytes, options: ResizeOptions) -> bytes:
        with monkeypatch.context() as patch:
            patch.setattr(png, "_MIN_INFLATED", png._MAX_INFLATED + 1)
            return run(image, options).outputs[0].data

    return make


OPTIONS = {
    "jpeg": ResizeOptions(width=200, height=150),
    "webp": ResizeOptions(width=200, height=150, format=Format.WEBP),
    "png": ResizeOptions(width=99, height=200, format=Format.PNG),
    "enlarged": ResizeOptions(width=800, height=600),
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P"])
def test_results_are_the_same(
    mode: str, options: ResizeOptions, run_row_by_row: Callable[[bytes, ResizeOptions], bytes]
) -> None:
    image = noisy(mode)
    assert is_inflated(image)
    assert run(image, options).outputs[0].data == run_row_by_row(image, options)


def test_profile_and_text_are_kept() -> None:
    scene = photo(*SIZE)
    image = encode(scene, "PNG", icc_profile=adobe_rgb_profile(), compress_level=0)
    assert is_inflated(image)
    result = run(image, ResizeOptions(width=320, height=240, format=Format.PNG, keep=Keep.ICC)).outputs[0]
    assert b"iCCP" in [name for name, _ in chunks(result.data)]


def test_the_pixels_may_be_in_any_number_of_chunks() -> None:
    parts = list(chunks(noisy()))
    pixels = b"".join(data for name, data in parts if name == b"IDAT")
    pieces = [(b"IDAT", pixels[start : start + 999]) for start in range(0, len(pixels), 999)]
    image = joined([parts[0], *pieces, (b"IDAT", b""), (b"tEXt", b"a\0b"), parts[-1]])
    whole = stored(memoryview(image), row_bytes(memoryview(image)) or 0)
    assert whole is not None
    found = list(chunks(whole))
    assert joined(found) == whole
    assert [name for name, _ in found] == [b"IHDR", b"IDAT", b"tEXt", b"IEND"]
    assert zlib.decompress(found[1][1]) == zlib.decompress(pixels)


@pytest.mark.parametrize("make", [lambda: grey16_png(*SIZE), lambda: interlaced_png(*SIZE)])
def test_deep_and_interlaced_images_are_read_row_by_row(make: Callable[[], bytes]) -> None:
    assert not is_inflated(make())


def test_a_flat_image_is_read_row_by_row() -> None:
    assert not is_inflated(encode(Image.new("RGB", SIZE, (1, 2, 3)), "PNG"))


def broken(image: bytes, kind: str) -> bytes:
    parts = list(chunks(image))
    first = next(number for number, (name, _) in enumerate(parts) if name == b"IDAT")
    pixels = b"".join(data for name, data in parts if name == b"IDAT")
    before, after = parts[:first], [parts[-1]]
    match kind:
        case "truncated":
            return image[: len(image) // 2]
        case "checksum of a chunk":
            whole = bytearray(image)
            whole[image.index(b"IDAT") + 100] ^= 1
            return bytes(whole)
        case "checksum of the stream":
            return joined([*before, (b"IDAT", pixels[:-4] + bytes(4)), *after])
        case "too few rows":
            rows = zlib.decompress(pixels)
            return joined([*before, (b"IDAT", zlib.compress(rows[: len(rows) // 2], 0)), *after])
        case _:
            raise ValueError(kind)


@pytest.mark.parametrize(
    "kind", ["truncated", "checksum of a chunk", "checksum of the stream", "too few rows"]
)
def test_a_broken_image_is_not_inflated(kind: str) -> None:
    image = broken(noisy(), kind)
    size = row_bytes(memoryview(image))
    assert size is not None
    assert stored(memoryview(image), size) is None
    if kind != "checksum of the stream":  # libpng does not read as far as that
        assert isinstance(refusal(image), CorruptImage)


def test_more_rows_than_the_header_says_are_left_to_libpng() -> None:
    parts = list(chunks(noisy()))
    rows = zlib.decompress(b"".join(data for name, data in parts if name == b"IDAT"))
    image = joined([parts[0], (b"IDAT", zlib.compress(rows * 2, 0)), parts[-1]])
    assert stored(memoryview(image), len(rows)) is None


@pytest.mark.parametrize("length", [0, 8, 20, 33, 40])
def test_a_header_without_pixels_is_not_inflated(length: int) -> None:
    data = memoryview(noisy()[:length])
    size = row_bytes(data)
    assert size is None or stored(data, size) is None
