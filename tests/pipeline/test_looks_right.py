"""Every kind of image gives a result of the exact size that looks like Pillow's reference."""

import io
from collections.abc import Callable

import pytest
from PIL import Image

from tests.pipeline.run import info, resize, sample
from tests.support.image_comparison import mean_abs_difference, reference, ssim
from tests.support.images import (
    BOTTOM_LEFT,
    BOTTOM_RIGHT,
    HEIGHT,
    SAMPLES,
    TOP_LEFT,
    TOP_RIGHT,
    WIDTH,
    alpha_photo,
    encode,
    jpeg,
    photo,
    swapped_profile,
)

# Reduced on both sides, on one, and enlarged.
SIZES = [(160, 120), (WIDTH, 125), (WIDTH // 2, HEIGHT), (400, 300)]

# CMYK without a profile is converted by a print profile; Pillow takes 255 minus ink.
OTHER_COLOURS = {"jpeg-cmyk"}

# A pattern of single pixels: bicubic and the reference's Lanczos enlarge it differently.
NOT_ENLARGED = {"png-1bit", "bmp-1bit", "pnm-1bit"}


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("name", sorted(SAMPLES.keys() - OTHER_COLOURS))
def test_every_sample_looks_like_the_reference(name: str, width: int, height: int) -> None:
    if name in NOT_ENLARGED and width > WIDTH:
        width, height = WIDTH, HEIGHT
    image = sample(name)
    result = resize(image, width, height, quality=95)
    assert (result.size, result.mode) == ((width, height), "RGB")
    wanted = reference(image, width, height)
    assert mean_abs_difference(result, wanted) < 3
    assert ssim(result, wanted) > 0.95


def test_cmyk_keeps_its_hues() -> None:
    result = resize(sample("jpeg-cmyk"), 160, 120)
    assert (result.size, result.mode) == ((160, 120), "RGB")
    corners = [(0, 0), (159, 0), (0, 119), (159, 119)]
    for place, colour in zip(corners, [TOP_LEFT, TOP_RIGHT, BOTTOM_LEFT, BOTTOM_RIGHT], strict=True):
        seen = result.getpixel(place)
        assert isinstance(seen, tuple)
        assert seen.index(max(seen)) == colour.index(max(colour))


@pytest.mark.parametrize(
    ("kind", "scene"),
    [
        ("JPEG", photo),
        *((kind, scene) for kind in ["PNG", "WEBP", "TIFF", "AVIF"] for scene in (photo, alpha_photo)),
    ],
)
def test_width_and_height_are_those_that_a_viewer_sees(kind: str, scene: Callable[[], Image.Image]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = encode(scene(), kind, exif=exif)
    result = resize(image, 100, 160, quality=95)
    assert result.size == (100, 160)
    assert mean_abs_difference(result, reference(image, 100, 160)) < 6


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(("width", "height"), [(165, 125), (330, 125), (165, 250), (330, 250), (330, 60)])
def test_hidden_black_gives_no_dark_fringe(kind: str, width: int, height: int) -> None:
    # White with a transparent hole whose hidden colour is black, flattened onto white, must be all white.
    canvas = Image.new("RGBA", (330, 250), (255, 255, 255, 255))
    canvas.paste((0, 0, 0, 0), (100, 61, 203, 190))
    darkest = min(low for low, _ in resize(encode(canvas, kind, lossless=True), width, height).getextrema())  # type: ignore[misc]
    assert darkest > 250


@pytest.mark.parametrize("sample", ["png-alpha", "webp-alpha", "tiff-alpha", "avif-alpha", "png-grey-alpha"])
@pytest.mark.parametrize("background", ["#ff0000", "#FFFFFF", "#123456"])
def test_transparency_is_flattened_onto_the_background(sample: str, background: str) -> None:
    clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    kind, mode = sample.split("-", maxsplit=1)[0].upper(), "LA" if "grey" in sample else "RGBA"
    seen = resize(encode(clear.convert(mode), kind), 20, 10, background=background, quality=100).getpixel(
        (9, 5)
    )
    assert isinstance(seen, tuple)
    wanted = bytes.fromhex(background[1:])
    assert all(abs(have - want) <= 2 for have, want in zip(seen, wanted, strict=True))


@pytest.mark.parametrize("background", ["#ffffff", "#808080"])
def test_a_profile_is_applied_to_an_image_with_transparency(background: str) -> None:
    # Stored as green, which this profile shows as red.
    stored = Image.new("RGBA", (40, 40), (0, 200, 0, 255))
    stored.paste((0, 0, 0, 0), (0, 0, 20, 40))
    result = resize(encode(stored, "PNG", icc_profile=swapped_profile()), 20, 20, background=background)
    left, right = result.getpixel((3, 10)), result.getpixel((16, 10))
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    assert max(abs(seen - want) for seen, want in zip(left, bytes.fromhex(background[1:]), strict=True)) <= 3
    assert right[2] > 150
    assert max(right[:2]) < 60


def test_a_corrupt_profile_is_ignored() -> None:
    image = jpeg(icc_profile=b"this is no profile at all" * 20)
    plain = jpeg()
    assert mean_abs_difference(resize(image, 160, 120), resize(plain, 160, 120)) < 1


def test_a_profile_for_another_kind_of_image_is_ignored() -> None:
    grey = encode(photo().convert("L"), "JPEG", icc_profile=swapped_profile())
    plain = encode(photo().convert("L"), "JPEG")
    assert mean_abs_difference(resize(grey, 160, 120), resize(plain, 160, 120)) < 1


def test_the_result_contains_no_metadata() -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    image = jpeg(exif=exif, icc_profile=swapped_profile(), comment=b"a comment")
    result = resize(image, 160, 120)
    assert not {"exif", "icc_profile", "comment", "xmp"} & result.info.keys()


def test_the_quality_is_that_of_the_options_or_the_default() -> None:
    def tables(image: Image.Image) -> object:
        return image.quantization  # type: ignore[attr-defined]

    def pillows(quality: int) -> Image.Image:
        return Image.open(io.BytesIO(jpeg(quality=quality)))

    assert tables(resize(jpeg(), 160, 120)) == tables(pillows(90))
    assert tables(resize(jpeg(), 160, 120, quality=40)) == tables(pillows(40))


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_image_info_has_the_stored_size(name: str) -> None:
    told = info(sample(name))
    turned = name in {f"jpeg-orientation-{value}" for value in (5, 6, 7, 8)}
    assert (told.width, told.height) == ((HEIGHT, WIDTH) if turned else (WIDTH, HEIGHT))
    assert told.format == name.split("-", maxsplit=1)[0]
    # An animation may have transparency in any frame, and reports it for all.
    assert told.has_alpha == ("alpha" in name or name in {"gif-animated", "webp-animated"})
    assert told.pages == (3 if name.endswith(("-animated", "-pages")) else 1)
    assert told.orientation == (int(name[-1]) if "orientation" in name else 1)
    assert told.size == len(sample(name))
