"""DirectDraw surfaces: blocks and masks give the right pixels, mostly as Pillow reads them."""

import io
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.run import info, refusal
from tests.pipeline.test_tga import decoded
from tests.support.image_comparison import mean_abs_difference
from tests.support.images import alpha_photo, photo
from tests.support.rare_formats import dds
from vipsrv.errors import Cancelled, CorruptImage, RequestError, TooLarge, UnsupportedFormat
from vipsrv.pipeline.formats.dds import blocks
from vipsrv.pipeline.formats.dds.header import Blocks

WIDTH, HEIGHT = 21, 14
AREA, BLOCKS = WIDTH * HEIGHT, 6 * 4
RGB_FLAG, LUMINANCE_FLAG, ALPHA_FLAG, INDEXED_FLAG = 0x40, 0x20000, 0x1, 0x20
BGRA = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)


def random_blocks(size: int) -> bytes:
    """Blocks of all kinds: with the first colour above the second one, below it, and equal."""
    data = np.random.default_rng(size).integers(0, 256, (BLOCKS, size), np.uint8)
    data[::5, :2] = data[::5, 2:4]
    return data.tobytes()


def pillow(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image


@pytest.mark.parametrize(
    ("letters", "dxgi", "size"),
    [
        (b"DXT1", 71, 8),
        (b"DXT3", 74, 16),
        (b"DXT5", 77, 16),
        (b"ATI1", 80, 8),
        (b"ATI2", 83, 16),
        (b"BC5S", 84, 16),
    ],
)
def test_blocks_are_decompressed_as_by_pillow(letters: bytes, dxgi: int, size: int) -> None:
    data = random_blocks(size)
    by_letters = dds(WIDTH, HEIGHT, data, letters=letters)
    wanted = pillow(by_letters)
    found = decoded(by_letters)
    assert found.size == (WIDTH, HEIGHT)
    if wanted.mode != "RGBA":
        wanted = wanted.convert("RGB")
    assert found.mode == wanted.mode
    seen = [np.asarray(image).astype(int) for image in (found, wanted)]
    assert abs(seen[0] - seen[1]).max() <= 1
    if dxgi != 74:  # Pillow does not know this one
        assert decoded(dds(WIDTH, HEIGHT, data, dxgi=dxgi)).tobytes() == found.tobytes()


def test_signed_and_unsigned_values_differ_by_their_highest_bit() -> None:
    data = random_blocks(8)
    flipped = bytearray(data)
    for at in range(0, len(data), 8):
        flipped[at] ^= 128
        flipped[at + 1] ^= 128
    signed = dds(WIDTH, HEIGHT, bytes(flipped), letters=b"BC4S")
    assert decoded(signed).tobytes() == decoded(dds(WIDTH, HEIGHT, data, letters=b"BC4U")).tobytes()


def test_dxt1_has_alpha_only_if_a_pixel_is_transparent() -> None:
    opaque = struct.pack("<HHI", 0xFFFF, 0, 0xFFFFFFFF) * BLOCKS
    clear = struct.pack("<HHI", 0, 0xFFFF, 0x00000003) + opaque[8:]
    assert not info(dds(WIDTH, HEIGHT, opaque, letters=b"DXT1")).has_alpha
    data = dds(WIDTH, HEIGHT, clear, letters=b"DXT1")
    assert info(data).has_alpha
    alpha = np.asarray(decoded(data).getchannel("A"))
    assert np.flatnonzero(alpha == 0).tolist() == [0]


@pytest.mark.parametrize(("letters", "plain"), [(b"DXT2", b"DXT3"), (b"DXT4", b"DXT5")])
def test_colours_that_are_multiplied_by_alpha_are_divided_by_it(letters: bytes, plain: bytes) -> None:
    data = random_blocks(16)
    stored = np.asarray(decoded(dds(WIDTH, HEIGHT, data, letters=plain))).astype(int)
    found = np.asarray(decoded(dds(WIDTH, HEIGHT, data, letters=letters))).astype(int)
    alpha = stored[..., 3:]
    solid = alpha[..., 0] > 60
    wanted = np.minimum(255, stored[..., :3] * 255 // np.maximum(alpha, 1))
    assert abs(found[..., :3] - wanted)[solid].max() <= 1


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_what_pillow_writes(mode: str) -> None:
    image = (alpha_photo if "A" in mode else photo)(WIDTH, HEIGHT).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "DDS")
    found = decoded(buffer.getvalue())
    assert mean_abs_difference(found, image.convert(found.mode)) < 0.01


@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (16, (0xF800, 0x07E0, 0x001F, 0)),
        (16, (0x7C00, 0x03E0, 0x001F, 0x8000)),
        (16, (0x0F00, 0x00F0, 0x000F, 0xF000)),
        (24, (0xFF, 0xFF00, 0xFF0000, 0)),
        (32, BGRA),
        (32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
        (32, (0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000)),
        (8, (0xE0, 0x1C, 0x03, 0)),
    ],
)
def test_masks(bits: int, masks: tuple[int, int, int, int]) -> None:
    numbers = np.random.default_rng(1).integers(0, 1 << bits, AREA, np.uint64)
    stored = numbers.astype("<u8").view(np.uint8).reshape(-1, 8)[:, : bits // 8].tobytes()
    flags = RGB_FLAG | (ALPHA_FLAG if masks[3] else 0)
    data = dds(WIDTH, HEIGHT, stored, flags=flags, bits=bits, masks=masks)
    bands = [
        ((numbers & np.uint64(mask)) // np.uint64(mask & -mask)) * 255.0 / (mask // (mask & -mask))
        for mask in masks
        if mask
    ]
    wanted = np.stack(bands, axis=1).reshape(HEIGHT, WIDTH, -1)
    assert info(data).has_alpha == bool(masks[3])
    assert abs(np.asarray(decoded(data)) - wanted).max() <= 0.51


@pytest.mark.parametrize(
    ("dxgi", "bits", "masks"),
    [
        (28, 32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
        (87, 32, BGRA),
        (88, 32, (*BGRA[:3], 0)),
        (85, 16, (0xF800, 0x07E0, 0x001F, 0)),
        (115, 16, (0x0F00, 0x00F0, 0x000F, 0xF000)),
    ],
)
def test_formats_by_number(dxgi: int, bits: int, masks: tuple[int, int, int, int]) -> None:
    stored = np.random.default_rng(2).bytes(AREA * bits // 8)
    flags = RGB_FLAG | (ALPHA_FLAG if masks[3] else 0)
    wanted = decoded(dds(WIDTH, HEIGHT, stored, flags=flags, bits=bits, masks=masks))
    found = decoded(dds(WIDTH, HEIGHT, stored, dxgi=dxgi))
    assert (found.mode, found.tobytes()) == (wanted.mode, wanted.tobytes())


def test_a_palette() -> None:
    palette = np.random.default_rng(3).integers(0, 256, (256, 4), np.uint8)
    indices = np.random.default_rng(4).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    data = dds(WIDTH, HEIGHT, palette.tobytes() + indices.tobytes(), flags=INDEXED_FLAG, bits=8)
    assert (np.asarray(decoded(data)) == palette[indices]).all()


def test_alpha_alone_covers_black() -> None:
    values = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    found = np.asarray(decoded(dds(WIDTH, HEIGHT, values.tobytes(), dxgi=65)))
    assert (found[..., 3] == values).all()
    assert not found[..., :3].any()


def test_only_the_first_surface_is_read() -> None:
    data = random_blocks(8)
    smaller = dds(WIDTH, HEIGHT, data + random_blocks(16), letters=b"ATI1")
    assert decoded(smaller).tobytes() == decoded(dds(WIDTH, HEIGHT, data, letters=b"ATI1")).tobytes()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (dds(WIDTH, HEIGHT, random_blocks(8)[:-1], letters=b"DXT1"), CorruptImage),
        (dds(WIDTH, HEIGHT, bytes(AREA * 4 - 1), dxgi=28), CorruptImage),
        (dds(WIDTH, HEIGHT, bytes(1000), flags=INDEXED_FLAG, bits=8), CorruptImage),
        (dds(WIDTH, HEIGHT, b"", letters=b"DXT1")[:100], CorruptImage),
        (dds(WIDTH, HEIGHT, b"", dxgi=28)[:140], CorruptImage),
        (dds(0, 5, b"", letters=b"DXT1"), CorruptImage),
        (dds(2**31, 2**31, b"", letters=b"DXT1"), TooLarge),
        (dds(10_000, 10_000, bytes(100), letters=b"DXT5"), CorruptImage),
        (dds(5, 5, bytes(100), flags=RGB_FLAG, bits=32, masks=(0xFF, 0xFF, 0xFF, 0)), CorruptImage),
        (dds(5, 5, bytes(100), flags=RGB_FLAG, bits=16, masks=(0xFF0000, 0xFF, 0xFF00, 0)), CorruptImage),
        (dds(5, 5, bytes(100), flags=RGB_FLAG, bits=32), CorruptImage),
        (dds(5, 5, bytes(100), flags=RGB_FLAG, bits=24, masks=(0xFFF, 0xFFF000, 0, 0)), UnsupportedFormat),
        (dds(5, 5, bytes(100), flags=RGB_FLAG, bits=12, masks=(0xF, 0xF0, 0xF00, 0)), UnsupportedFormat),
        (dds(5, 5, bytes(100), letters=b"UYVY"), UnsupportedFormat),
        (dds(5, 5, bytes(100), flags=0), UnsupportedFormat),
        (dds(5, 5, bytes(100), dxgi=98), UnsupportedFormat),
    ],
)
def test_what_is_broken_or_unknown_is_refused(data: bytes, error: type[Exception]) -> None:
    assert type(refusal(data, 4, 4)) is error


def test_blocks_stop_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_AT_ONCE", 6)
    answers: Iterator[RequestError | None] = iter([None, None, Cancelled("enough")])

    data = memoryview(random_blocks(8))
    with pytest.raises(Cancelled):
        blocks.decompress(data, Blocks.BC1, (WIDTH, HEIGHT), tolerant=False, watch=lambda: next(answers))
    whole = blocks.decompress(data, Blocks.BC1, (WIDTH, HEIGHT), tolerant=False)
    half = blocks.decompress(data[: len(data) // 2], Blocks.BC1, (WIDTH, HEIGHT), tolerant=True)
    assert (half[:8] == whole[:8]).all()
    assert not half[8:].any()
