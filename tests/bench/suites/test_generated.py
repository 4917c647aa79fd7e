"""Images that are generated while they are sent."""

import io
from collections.abc import Callable

import pytest
import pyvips
from PIL import Image

from bench.suites.generated import Generated, jpeg, tiff


def sent(image: Generated) -> bytes:
    data = b"".join(image.pieces())
    assert len(data) == image.size
    return data


def rows(image: pyvips.Image, top: int, height: int) -> bytes:
    return bytes(image.crop(0, top, image.width, height).write_to_memory())


@pytest.mark.parametrize("size", [1, 10_000, 1_000_000, 7_000_000])
def test_a_tiff_has_about_the_size_and_decodes_without_a_warning(size: int) -> None:
    made = tiff(size)
    data = sent(made)
    assert size == 1 or abs(len(data) / size - 1) < 0.02
    decoded = pyvips.Image.new_from_buffer(data, "", fail_on="warning")
    assert (decoded.width, decoded.height, decoded.bands) == (made.width, made.height, 3)
    with Image.open(io.BytesIO(data)) as opened:  # which reads it without libtiff
        assert opened.tobytes() == bytes(decoded.write_to_memory())
    repeated = 64
    if decoded.height > 2 * repeated:
        assert rows(decoded, 0, repeated) == rows(decoded, repeated, repeated)


@pytest.mark.parametrize("pixels", [1, 20_000, 400_000, 3_000_000])
def test_a_jpeg_has_about_the_pixels_and_decodes_without_a_warning(pixels: int) -> None:
    made = jpeg(pixels)
    assert pixels == 1 or abs(made.pixels / pixels - 1) < 0.1
    decoded = pyvips.Image.new_from_buffer(sent(made), "", fail_on="warning")
    assert (decoded.width, decoded.height, decoded.bands) == (made.width, made.height, 3)
    # The band of 512 rows comes again; where two bands meet, their colours are smoothed into each other.
    height = min(decoded.height - 512, 512) - 32
    if height > 0:
        assert rows(decoded, 16, height) == rows(decoded, 512 + 16, height)


def test_the_largest_images_are_described_without_being_made() -> None:
    assert tiff(4 * 10**9).size == pytest.approx(4e9, rel=0.001)
    assert jpeg(10**9).pixels == pytest.approx(1e9, rel=0.001)


@pytest.mark.parametrize(("make", "size"), [(tiff, 5 * 10**9), (jpeg, 10**10)])
def test_what_a_format_cannot_hold_is_refused(make: Callable[[int], Generated], size: int) -> None:
    with pytest.raises(ValueError, match="bits"):
        make(size)
