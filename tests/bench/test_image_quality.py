import io
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageFilter

from bench.image_quality import Pixels, colour_difference, decode, reference, ssim
from tests.support import image_comparison
from tests.support.images import SAMPLES, encode, jpeg, photo

SIZE = (97, 61)
"""Not a multiple of SSIM's windows."""


def pixels(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"))


def test_equal_images_are_alike_and_unrelated_ones_are_not() -> None:
    one, other = pixels(photo(*SIZE)), pixels(photo(*SIZE).rotate(180))
    assert ssim(one, one) == pytest.approx(1)
    assert colour_difference(one, one) == 0
    assert ssim(one, other) < 0.4


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (8, 8), SIZE])
def test_ssim_is_that_of_the_tests(size: tuple[int, int]) -> None:
    sharp = photo(*size)
    blurred = sharp.filter(ImageFilter.GaussianBlur(1))
    wanted = image_comparison.ssim(sharp, blurred)
    assert ssim(pixels(sharp), pixels(blurred)) == pytest.approx(wanted, abs=0.002)


def test_a_loss_of_colour_is_seen_by_the_difference_of_colours_alone() -> None:
    image = photo(*SIZE)
    grey = image.convert("L")
    assert ssim(pixels(image), pixels(grey)) > 0.99
    assert colour_difference(pixels(image), pixels(grey)) > 5
    # ITU-R BT.601: pure blue has Cb 255 and Cr 107, grey has 128 of both.
    blue = Image.new("RGB", (4, 4), (0, 0, 255))
    assert colour_difference(pixels(blue), pixels(blue.convert("L"))) == pytest.approx((127 + 21) / 2, abs=1)


def test_images_of_different_sizes_are_not_compared() -> None:
    for measure in (ssim, colour_difference):
        with pytest.raises(ValueError, match="cannot be compared"):
            measure(pixels(photo(*SIZE)), pixels(photo(*reversed(SIZE))))


@pytest.mark.parametrize(
    "name",
    [
        "jpeg",
        "jpeg-adobe-rgb",
        "jpeg-grey",
        "jpeg-orientation-6",
        "png-alpha",
        "png-grey16",
        "png-palette",
        "webp-alpha",
        "tiff-tiled",
    ],
)
def test_the_reference_is_that_of_the_tests(name: str, tmp_path: Path) -> None:
    source = SAMPLES[name]()
    path = tmp_path / "source"
    path.write_bytes(source)
    wanted = pixels(image_comparison.reference(source, *SIZE))
    made = reference(path, *SIZE)
    assert made.shape == (SIZE[1], SIZE[0], 3)
    assert ssim(made, wanted) > 0.98
    assert colour_difference(made, wanted) < 2


def test_the_whole_result_is_decoded(tmp_path: Path) -> None:
    data = jpeg(*SIZE)
    assert decode(data).shape == (SIZE[1], SIZE[0], 3)
    with pytest.raises(ValueError, match="do not end"):
        decode(data + b"more")
    with pytest.raises(OSError, match="truncated"):
        decode(encode(photo(*SIZE), "PNG")[:-200])
    with pytest.raises(pyvips.Error):
        reference(tmp_path / "missing", *SIZE)


def test_a_lossless_result_is_decoded_exactly() -> None:
    with io.BytesIO() as file:
        photo(*SIZE).save(file, "PNG")
        assert np.array_equal(decode(file.getvalue()), pixels(photo(*SIZE)))
