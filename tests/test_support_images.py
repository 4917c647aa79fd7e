import io
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image, ImageCms, ImageFilter, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from tests.support.image_comparison import mean_abs_difference, open_exact, reference, ssim
from tests.support.images import (
    BOTTOM_LEFT,
    BOTTOM_RIGHT,
    HEIGHT,
    SAMPLES,
    TOP_LEFT,
    TOP_RIGHT,
    WIDTH,
    adobe_rgb_profile,
    alpha_photo,
    animated,
    damaged,
    encode,
    garbage,
    interlaced_png,
    jpeg,
    large_strip_scene,
    large_strip_tiff,
    matrix_profile,
    oriented_jpeg,
    photo,
    swapped_profile,
    tiled_tiff,
    truncated,
)

Colour = tuple[int, int, int]


def near(image: Image.Image, place: tuple[int, int], colour: Colour, tolerance: int = 40) -> bool:
    seen = image.convert("RGB").getpixel(place)
    assert isinstance(seen, tuple)
    return all(abs(have - want) <= tolerance for have, want in zip(seen, colour, strict=True))


def corners_are_right(image: Image.Image) -> bool:
    right, bottom = image.width - 3, image.height - 3
    places = {
        (2, 2): TOP_LEFT,
        (right, 2): TOP_RIGHT,
        (2, bottom): BOTTOM_LEFT,
        (right, bottom): BOTTOM_RIGHT,
    }
    return all(near(image, place, colour) for place, colour in places.items())


# The scene


def test_the_scene_is_the_same_every_time_and_another_with_another_seed() -> None:
    assert photo(100, 80).tobytes() == photo(100, 80).tobytes()
    assert mean_abs_difference(photo(100, 80), photo(100, 80, seed=2)) > 2


def test_the_scene_has_its_colours_in_its_corners() -> None:
    assert corners_are_right(photo())
    assert not corners_are_right(photo().transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert not corners_are_right(photo().transpose(Image.Transpose.FLIP_TOP_BOTTOM))


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (3, 2)])
def test_the_scene_can_be_tiny(size: tuple[int, int]) -> None:
    assert photo(*size).size == size


def test_the_scene_compresses_like_a_photograph() -> None:
    # 1 to 3 bits a pixel at quality 85 to 90, where noise takes over 5 and a drawing below 0.5.
    assert 1.0 < 8 * len(jpeg(800, 600)) / (800 * 600) < 3.0


# The samples


# In grey levels. Colours stored for sRGB and shown as Adobe RGB are not meant to look the same.
TOLERANCES = {"jpeg-adobe-rgb": 14}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_shows_the_scene_in_its_size(name: str) -> None:
    data = SAMPLES[name]()
    assert data == SAMPLES[name]()
    seen = reference(data, WIDTH, HEIGHT)
    expected = photo()
    if "alpha" in name and "grey" not in name:
        expected = reference(encode(alpha_photo(), "PNG"), WIDTH, HEIGHT)
    elif "swapped" in name:
        expected = Image.merge("RGB", [photo().getchannel(band) for band in "BRG"])
    if any(grey in name for grey in ("grey", "1bit")):
        expected = expected.convert("L")
    # Dots of black and white are grey only from afar.
    factor = 10 if "1bit" in name else 1
    seen, expected = seen.reduce(factor), expected.reduce(factor)
    assert mean_abs_difference(seen, expected) < TOLERANCES.get(name, 4)
    assert ssim(seen, expected) > 0.9


@pytest.mark.parametrize(
    ("name", "kind", "mode"),
    [
        ("jpeg", "JPEG", "RGB"),
        ("jpeg-grey", "JPEG", "L"),
        ("jpeg-cmyk", "JPEG", "CMYK"),
        ("png-alpha", "PNG", "RGBA"),
        ("png-palette", "PNG", "P"),
        ("png-grey-alpha", "PNG", "LA"),
        ("png-grey16", "PNG", "I;16"),
        ("png-1bit", "PNG", "1"),
        ("gif", "GIF", "P"),
        ("webp-alpha", "WEBP", "RGBA"),
        ("avif", "AVIF", "RGB"),
        ("avif-alpha", "AVIF", "RGBA"),
        ("tiff-tiled", "TIFF", "RGB"),
    ],
)
def test_a_sample_is_what_its_name_says(name: str, kind: str, mode: str) -> None:
    image = open_exact(SAMPLES[name]())
    assert (image.format, image.mode) == (kind, mode)


def test_a_progressive_jpeg_is_progressive() -> None:
    assert "progressive" in open_exact(SAMPLES["jpeg-progressive"]()).info
    assert "progressive" not in open_exact(SAMPLES["jpeg"]()).info


@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (1, 1), (4, 3), (9, 17)])
def test_an_interlaced_png_is_interlaced_and_lossless(size: tuple[int, int]) -> None:
    image = open_exact(interlaced_png(*size))
    assert image.info["interlace"] == 1
    assert image.tobytes() == photo(*size).tobytes()


@pytest.mark.parametrize("deflate", [False, True])
def test_a_tiled_tiff_is_tiled_and_lossless(deflate: bool) -> None:  # noqa: FBT001 - a test's case
    image = open_exact(tiled_tiff(deflate=deflate))
    assert isinstance(image, TiffImageFile)
    assert image.tag_v2[322] == image.tag_v2[323] == 64
    assert image.tag_v2[259] == (8 if deflate else 1)
    assert image.tobytes() == photo().tobytes()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_several_frames_are_several(kind: str) -> None:
    assert getattr(open_exact(animated(kind, 40, 30, frames=4)), "n_frames", 1) == 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_oriented_jpeg_is_upright_only_once_its_orientation_is_applied(orientation: int) -> None:
    data = oriented_jpeg(orientation)
    stored = open_exact(data)
    assert stored.getexif()[0x0112] == orientation
    assert stored.size == ((HEIGHT, WIDTH) if orientation >= 5 else (WIDTH, HEIGHT))
    assert corners_are_right(stored) == (orientation == 1)
    assert corners_are_right(reference(data, WIDTH, HEIGHT))


# Colour profiles


def test_a_matrix_profile_is_read_as_it_was_made() -> None:
    primaries = ((0.5, 0.25, 0.0625), (0.25, 0.625, 0.125), (0.125, 0.0625, 0.5))
    profile = ImageCms.ImageCmsProfile(io.BytesIO(matrix_profile(primaries))).profile
    assert profile.profile_description == "made for a test"
    assert profile.xcolor_space == "RGB "
    read = (profile.red_colorant, profile.green_colorant, profile.blue_colorant)
    for colorant, primary in zip(read, primaries, strict=True):
        assert colorant is not None
        assert colorant[0] == pytest.approx(primary, abs=1e-4)


def test_adobe_rgb_shows_a_green_that_srgb_has_not() -> None:
    green = Image.new("RGB", (16, 16), (100, 200, 100))
    seen = reference(encode(green, "PNG", icc_profile=adobe_rgb_profile()), 16, 16)
    # By the matrices of both: linear red is 1.398 * 0.128 - 0.398 * 0.586 < 0, which is cut off.
    assert near(seen, (8, 8), (0, 201, 93), 4)


def test_the_swapped_profile_changes_places_of_the_colours() -> None:
    red = Image.new("RGB", (16, 16), (255, 0, 0))
    plain = reference(encode(red, "PNG"), 16, 16)
    swapped = reference(encode(red, "PNG", icc_profile=swapped_profile()), 16, 16)
    assert near(plain, (8, 8), (255, 0, 0), 2)
    assert near(swapped, (8, 8), (0, 255, 0), 12)


# Large and broken ones


def test_a_large_strip_tiff_shows_its_scene(tmp_path: Path) -> None:
    path = tmp_path / "large.tif"
    for width, height in ((640, 333), (30_000, 7), (5, 1000), (1, 1)):
        large_strip_tiff(path, width, height)
        assert open_exact(path.read_bytes()).tobytes() == large_strip_scene(width, height).tobytes()


def test_a_large_strip_tiff_is_written_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.tif"
    tracemalloc.start()
    try:
        large_strip_tiff(path, 6000, 4000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 72_000_000
    assert peak < 8_000_000


def test_a_strip_tiff_of_4_gib_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 GiB"):
        large_strip_tiff(tmp_path / "large.tif", 40_000, 40_000)
    assert not list(tmp_path.iterdir())


def test_a_truncated_image_begins_as_the_whole_one_and_does_not_decode() -> None:
    whole = jpeg()
    half = truncated(whole)
    assert whole.startswith(half)
    assert len(half) == len(whole) // 2
    with pytest.raises(OSError, match="truncated"):
        open_exact(half)


def test_a_damaged_image_opens_and_differs() -> None:
    whole = encode(photo(), "TIFF", compression=None)
    changed = damaged(whole, count=10)
    assert sum(a != b for a, b in zip(whole, changed, strict=True)) == 10
    assert whole[:1024] == changed[:1024]
    with Image.open(io.BytesIO(damaged(jpeg()))) as image:
        assert image.size == (WIDTH, HEIGHT)


def test_garbage_is_no_image() -> None:
    assert garbage() == garbage()
    assert garbage() != garbage(seed=2)
    with pytest.raises(UnidentifiedImageError):
        open_exact(garbage())


# Looks


def test_the_difference_is_the_mean_over_pixels_and_bands() -> None:
    black, white = Image.new("RGB", (20, 10)), Image.new("RGB", (20, 10), (255, 255, 255))
    assert mean_abs_difference(black, black) == 0
    assert mean_abs_difference(black, white) == 255
    assert mean_abs_difference(black, Image.new("RGB", (20, 10), (0, 30, 0))) == pytest.approx(10)
    half = black.copy()
    half.paste((255, 255, 255), (0, 0, 10, 10))
    assert mean_abs_difference(half, white) == pytest.approx(127.5)


def test_ssim_falls_with_what_is_seen() -> None:
    scene = photo()
    brighter = scene.point([min(255, value + 10) for value in range(256)] * 3)
    blurred = scene.filter(ImageFilter.GaussianBlur(3))
    turned = scene.transpose(Image.Transpose.ROTATE_180)
    assert ssim(scene, scene) == pytest.approx(1)
    assert 1 > ssim(scene, brighter) > ssim(scene, blurred) > ssim(scene, turned)
    assert ssim(scene, turned) < 0.5
    assert ssim(scene, blurred) == pytest.approx(ssim(blurred, scene))


def test_ssim_of_flat_images_is_its_formula() -> None:
    # Without variance only the luminance term is left: (2 * 100 * 150 + C1) / (100**2 + 150**2 + C1).
    flat, brighter = Image.new("L", (16, 16), 100), Image.new("L", (16, 16), 150)
    assert ssim(flat, brighter) == pytest.approx((30_000 + 6.5025) / (32_500 + 6.5025), abs=1e-4)


def test_images_of_different_sizes_are_not_compared() -> None:
    for compare in (mean_abs_difference, ssim):
        with pytest.raises(ValueError, match="cannot be compared"):
            compare(photo(20, 10), photo(10, 20))


def test_open_exact_refuses_what_follows_a_image() -> None:
    assert open_exact(jpeg()).size == (WIDTH, HEIGHT)
    with pytest.raises(AssertionError):
        open_exact(jpeg() + b"\0")


def test_the_reference_lays_on_white_without_fringes() -> None:
    # Black that nobody sees lies beside the opaque yellow: any dark pixel between it and white is a fringe.
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((255, 255, 0, 255), (0, 0, 30, 64))
    small = reference(encode(image, "PNG"), 21, 21)
    assert near(small, (3, 10), (255, 255, 0), 4)
    assert near(small, (17, 10), (255, 255, 255), 4)
    lowest = [band[0] for band in small.getextrema()[:2] if isinstance(band, tuple)]
    assert min(lowest) > 240


def test_the_alpha_photo_has_a_hole_that_is_white_when_seen() -> None:
    place = (int(0.15 * WIDTH), HEIGHT // 2)
    assert alpha_photo().getpixel(place) == (0, 0, 0, 0)
    assert near(reference(encode(alpha_photo(), "PNG"), WIDTH, HEIGHT), place, (255, 255, 255), 2)
    assert near(alpha_photo(), (2, 2), TOP_LEFT)


def test_the_reference_stretches() -> None:
    for size in ((100, 20), (20, 100), (500, 400)):
        seen = reference(jpeg(), *size)
        assert (seen.mode, seen.size) == ("RGB", size)
        assert corners_are_right(seen)
