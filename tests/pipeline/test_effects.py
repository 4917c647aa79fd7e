"""What the effects do to a result: modulate, grey, blur, sharpen, watermark and rounded."""

import io
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms, ImageDraw, ImageFilter

from tests.pipeline.run import LIMITS, run
from tests.support.image_comparison import mean_abs_difference, open_exact
from tests.support.images import adobe_rgb_profile, alpha_photo, encode, grey16_png, jpeg, photo
from vipsrv import pipeline
from vipsrv.errors import BadRequest
from vipsrv.options import Position, ResizeOptions
from vipsrv.pipeline.cost import predict
from vipsrv.pipeline.probe import read_header
from vipsrv.pipeline.watermarks import use_watermarks

SIZE: dict[str, Any] = {"width": 90, "height": 60}
WITH_ALPHA = ("png", "webp", "avif", "tiff", "gif")
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
EFFECTS: tuple[dict[str, Any], ...] = (
    {"modulate": (1.2, 0.5)},
    {"grey": True},
    {"blur": 2},
    {"blur": 60},
    {"sharpen": True},
    {"sharpen": 1.5},
    {"watermark": "dot"},
    {"watermark": "dot", "watermark_opacity": 0.5},
    {"rounded": 9},
    {
        "modulate": (0.9, 1.5),
        "grey": True,
        "blur": 1,
        "sharpen": True,
        "watermark": "dot",
        "rounded": 500,
    },
)


@pytest.fixture(autouse=True)
def _watermarks() -> Iterator[None]:
    """A green square of 20 pixels, ``box``, and a blue disc with transparent corners, ``dot``."""
    pipeline.start()
    dot = Image.new("RGBA", (40, 40))
    ImageDraw.Draw(dot).ellipse((0, 0, 39, 39), BLUE)
    marks = {"box": Image.new("RGBA", (20, 20), GREEN), "dot": dot}
    images = {
        name: pyvips.Image.new_from_array(np.asarray(mark), interpretation="srgb")
        for name, mark in marks.items()
    }
    use_watermarks(images)
    yield
    use_watermarks({})


def make(encoded: bytes, **asked: Any) -> Image.Image:
    (output,) = run(encoded, ResizeOptions(**{**SIZE, "format": "png", **asked})).outputs
    image = open_exact(output.data)
    assert image.size == (output.info.width, output.info.height)
    return image


def flat(colour: tuple[int, ...], width: int = 90, height: int = 60) -> bytes:
    return encode(Image.new("RGB" if len(colour) == 3 else "RGBA", (width, height), colour), "PNG")


@cache
def samples() -> tuple[bytes, ...]:
    """Images without and with transparency, and one of 16-bit grey."""
    return jpeg(), encode(alpha_photo(), "PNG"), grey16_png()


def colour(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    found = image.convert("RGB").getpixel((x, y))
    assert isinstance(found, tuple)
    return found


def near(found: tuple[int, ...], wanted: tuple[int, ...], tolerance: int = 2) -> bool:
    return all(abs(one - other) <= tolerance for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("effect", EFFECTS, ids="-".join)
@pytest.mark.parametrize("format_", ["jpeg", *WITH_ALPHA])
def test_every_effect_gives_every_format_with_and_without_transparency(
    format_: str, effect: dict[str, Any]
) -> None:
    for image in samples():
        assert make(image, format=format_, **effect).size == (90, 60)


@pytest.mark.parametrize(
    "off",
    [{"modulate": (1, 1)}, {"sharpen": False}, {"grey": False}, {"watermark": "box", "watermark_opacity": 0}],
)
def test_an_effect_that_is_off_changes_nothing(off: dict[str, Any]) -> None:
    plain = run(jpeg(), ResizeOptions(width=90, height=60)).outputs[0].data
    assert mean_abs_difference(open_exact(plain), make(jpeg(), format="jpeg", **off)) < 0.5


@pytest.mark.parametrize("opacity", [255, 200, 128])
@pytest.mark.parametrize("effect", [{"blur": 1}, {"blur": 40}, {"sharpen": True}, {"sharpen": 1}])
def test_one_translucent_colour_stays_the_same(effect: dict[str, Any], opacity: int) -> None:
    found = make(flat((201, 99, 51, opacity)), **effect).convert("RGBA").getpixel((45, 30))
    assert isinstance(found, tuple)
    assert near(found, (201, 99, 51, opacity), 1)


@pytest.mark.parametrize(
    ("given", "factors", "wanted"),
    [
        ((100, 50, 200), (1.5, 1), (150, 75, 255)),
        ((100, 50, 200), (1, 0), (71, 71, 71)),  # the luma of Rec. 709
        ((100, 50, 200), (0, 1), (0, 0, 0)),
        ((100, 50, 200), (1, 2), (129, 29, 255)),
        ((77, 77, 77), (1, 3.3), (77, 77, 77)),
        ((201, 201, 201), (1, 0.31), (201, 201, 201)),
    ],
)
def test_modulate_is_css_brightness_and_saturate(
    given: tuple[int, int, int], factors: tuple[float, float], wanted: tuple[int, int, int]
) -> None:
    assert near(colour(make(flat(given), modulate=factors), 5, 5), wanted, 1)


def test_every_grey_stays_grey_and_the_same() -> None:
    ramp = encode(Image.fromarray(np.arange(256, dtype=np.uint8)[None, :].repeat(4, 0)).convert("RGB"), "PNG")
    made = np.asarray(make(ramp, width=256, height=4, modulate=(1, 1.37)))
    assert (made == np.arange(256)[None, :, None]).all()


@pytest.mark.parametrize(("given", "wanted"), [(RED, 127), (GREEN, 220), (BLUE, 76), ((90, 90, 90), 90)])
def test_grey_has_the_lightness_of_the_colour_in_one_band(given: tuple[int, int, int], wanted: int) -> None:
    made = make(flat(given), grey=True)
    assert made.mode == "L"
    # libvips' weights are those of Rec. 709 rounded to 0.2, 0.7 and 0.1.
    assert abs(made.getpixel((5, 5)) - wanted) <= 12  # type: ignore[operator]
    see_through = make(flat((*given, 100)), grey=True)
    assert see_through.mode == "LA"
    assert see_through.getpixel((5, 5))[1] == 100  # type: ignore[index]


def test_a_grey_result_is_smaller() -> None:
    def size(**asked: Any) -> int:
        return run(jpeg(), ResizeOptions(**SIZE, **asked)).outputs[0].info.size

    assert size(grey=True) < 0.9 * size()


@pytest.mark.parametrize("sigma", [0.5, 0.7, 1, 2, 5, 11.5, 30, 250])
def test_blur_is_a_gaussian(sigma: float) -> None:
    plain = np.asarray(make(jpeg(400, 300), width=200, height=150), np.float64)
    made = np.asarray(make(jpeg(400, 300), width=200, height=150, blur=sigma), np.float64)
    wanted = _gaussian(plain, sigma)
    assert abs(made - wanted).mean() < (0.6 if sigma < 24 else 4)
    assert abs((made - wanted).mean()) < (0.1 if sigma < 24 else 3)


def _gaussian(pixels: Any, sigma: float) -> Any:
    reach = int(4 * sigma) + 1
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    for axis in (0, 1):
        padded = np.pad(pixels, [(reach, reach) if axis == one else (0, 0) for one in range(3)], mode="edge")
        pixels = np.apply_along_axis(np.convolve, axis, padded, weights / weights.sum(), "valid")
    return pixels


def test_blur_does_not_show_the_colour_of_what_is_transparent() -> None:
    image = Image.new("RGBA", (90, 60), (*GREEN, 0))
    image.paste((*RED, 255), (0, 0, 45, 60))
    made = make(encode(image, "PNG"), blur=4)
    pixel = made.getpixel((44, 30))
    assert isinstance(pixel, tuple)
    assert near(pixel[:3], RED, 6)
    assert 100 < pixel[3] < 200


@pytest.mark.parametrize("sharpen", [True, 0.6, 1.5, 6])
def test_sharpen_raises_contrast_at_an_edge_and_keeps_what_is_flat(sharpen: float) -> None:
    image = Image.new("RGB", (90, 60), (90, 90, 90))
    image.paste((160, 160, 160), (45, 0, 90, 60))
    for see_through in (False, True):
        given = image.convert("RGBA") if see_through else image
        made = make(encode(given, "PNG"), sharpen=sharpen).convert("RGB")
        assert colour(made, 44, 30)[0] < 88
        assert colour(made, 45, 30)[0] > 162
        assert near(colour(made, 2, 30), (90, 90, 90), 1)
        assert near(colour(made, 87, 30), (160, 160, 160), 1)


def test_sharpen_keeps_the_alpha_and_the_colours_at_its_edge() -> None:
    image = Image.new("RGBA", (90, 60), (0, 0, 0, 0))
    image.paste((200, 100, 50, 255), (20, 20, 70, 50))
    given = encode(image, "PNG")
    made = make(given, sharpen=True)
    assert np.array_equal(np.asarray(made)[..., 3], np.asarray(image)[..., 3])
    assert near(colour(make(given, sharpen=True, format="png"), 20, 20), (200, 100, 50), 2)


PLACES = {
    Position.LEFT_TOP: (10, 10),
    Position.TOP: (45, 10),
    Position.RIGHT_TOP: (80, 10),
    Position.LEFT: (10, 30),
    Position.CENTRE: (45, 30),
    Position.RIGHT: (80, 30),
    Position.LEFT_BOTTOM: (10, 50),
    Position.BOTTOM: (45, 50),
    Position.RIGHT_BOTTOM: (80, 50),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_watermark_is_where_it_was_placed_and_nowhere_else(place: Position) -> None:
    made = make(flat(RED), watermark="box", watermark_position=place, watermark_scale=20 / 90)
    for other, (x, y) in PLACES.items():
        assert colour(made, x, y) == (GREEN if other is place else RED)


def test_the_scale_of_a_watermark_is_a_part_of_the_width_and_it_fits() -> None:
    made = make(flat(RED), watermark="box", watermark_scale=0.1, watermark_position="left top")
    assert [colour(made, *at) for at in ((8, 8), (9, 8), (8, 9))] == [GREEN, RED, RED]
    made = make(flat(RED), watermark="box", watermark_scale=1, watermark_position="left top")
    assert [colour(made, *at) for at in ((59, 59), (60, 30))] == [GREEN, RED]  # 60 pixels high, as the result


def test_the_opacity_of_a_watermark() -> None:
    made = make(flat(RED), watermark="box", watermark_opacity=0.25)
    assert near(colour(made, 85, 55), (191, 64, 0))


def test_a_watermark_keeps_its_own_transparency() -> None:
    made = make(flat(RED), watermark="dot", watermark_position="centre", watermark_scale=40 / 90)
    assert colour(made, 45, 30) == BLUE
    assert colour(made, 26, 11) == RED  # a corner of it


def test_a_watermark_over_a_transparent_image_is_seen() -> None:
    made = make(flat((*RED, 0)), watermark="box", watermark_opacity=0.5)
    pixel = made.getpixel((85, 55))
    assert isinstance(pixel, tuple)
    assert near(pixel, (*GREEN, 128), 3)
    assert made.getpixel((5, 5))[3] == 0  # type: ignore[index]


def test_a_watermark_has_its_colour_on_a_grey_result() -> None:
    assert colour(make(flat(RED), grey=True, watermark="box"), 85, 55) == GREEN


def test_a_watermark_has_its_colour_in_the_profile_that_the_result_keeps() -> None:
    image = encode(Image.new("RGB", (90, 60), (128, 128, 128)), "PNG", icc_profile=adobe_rgb_profile())
    made = make(image, watermark="box", keep="icc")
    assert made.info["icc_profile"]
    assert colour(made, 85, 55)[0] > 120  # the green of sRGB in Adobe RGB
    profile = ImageCms.ImageCmsProfile(io.BytesIO(made.info["icc_profile"]))
    seen = ImageCms.profileToProfile(made, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert seen is not None
    assert near(colour(seen, 85, 55), GREEN, 6)


@pytest.mark.parametrize(
    "options", [{"watermark_position": "top"}, {"watermark_scale": 0.5}, {"watermark_opacity": 0.5}]
)
def test_the_place_of_a_watermark_needs_a_watermark(options: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=f"^{next(iter(options))}: there is no watermark"):
        make(flat(RED), **options)


def test_an_unknown_watermark_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(BadRequest, match=r"^watermark: this server has no logo; it has box, dot$"):
        make(flat(RED), watermark="logo")
    use_watermarks({})
    with pytest.raises(BadRequest, match=r"^watermark: this server has no logo; it has none$"):
        make(flat(RED), watermark="logo")


@pytest.mark.parametrize("radius", [1, 7, 30, 31, 5000])
@pytest.mark.parametrize(("width", "height"), [(90, 60), (61, 91), (90, 1), (1, 1), (60, 60)])
def test_rounded_corners_cover_what_they_should(width: int, height: int, radius: int) -> None:
    made = make(flat(RED), rounded=radius, width=width, height=height)
    covered = np.asarray(made)[..., 3].sum() / 255
    radius_used = min(radius, width / 2, height / 2)
    assert abs(covered - (width * height - (4 - np.pi) * radius_used**2)) < 2 + 0.02 * width * height
    alpha = np.asarray(made)[..., 3]
    assert np.array_equal(alpha, alpha[::-1])
    assert np.array_equal(alpha, alpha[:, ::-1])
    assert colour(made, width // 2, height // 2) == RED


def test_rounded_corners_get_the_background_where_there_is_no_transparency() -> None:
    made = make(flat(RED), rounded=20, format="jpeg", background="#0000ff")
    assert near(colour(made, 0, 0), BLUE, 8)
    assert near(colour(made, 45, 30), RED, 8)
    grey = make(flat(RED), rounded=20, format="jpeg", background="#0000ff", grey=True)
    assert near(colour(grey, 89, 59), BLUE, 8)
    assert make(flat(RED), rounded=20, format="jpeg", grey=True).mode == "L"


def test_rounded_corners_and_the_transparency_of_the_image_are_both_there() -> None:
    made = make(flat((*RED, 100)), rounded=20)
    assert made.getpixel((0, 0))[3] == 0  # type: ignore[index]
    assert made.getpixel((45, 30))[3] == 100  # type: ignore[index]


def test_the_order_is_fixed() -> None:
    made = make(flat(RED), watermark="box", watermark_position="left top", watermark_scale=1, rounded=30)
    assert made.getpixel((0, 0))[3] == 0  # type: ignore[index]  # the watermark's corners are rounded as well
    blurred = make(flat(RED), blur=3, watermark="box", watermark_scale=20 / 90)
    assert colour(blurred, 71, 50) == GREEN  # its edge is not blurred


@pytest.mark.parametrize("effect", EFFECTS, ids="-".join)
def test_a_kept_profile_stays_with_its_pixels(effect: dict[str, Any]) -> None:
    grey = Image.new("RGB", (90, 60), (120, 120, 120))
    image = encode(grey, "JPEG", icc_profile=adobe_rgb_profile(), quality=95)
    made = make(image, keep="icc", format="jpeg", **effect)
    assert made.info["icc_profile"] == adobe_rgb_profile()
    assert made.mode == "RGB"


def test_several_results_have_their_own_effects() -> None:
    plain, grey, blurred = run(
        jpeg(),
        ResizeOptions(**SIZE),
        ResizeOptions(**SIZE, grey=True),
        ResizeOptions(**SIZE, blur=3),
    ).outputs
    assert open_exact(plain.data).mode == "RGB"
    assert open_exact(grey.data).mode == "L"
    wanted = open_exact(plain.data).filter(ImageFilter.GaussianBlur(3))
    assert mean_abs_difference(open_exact(blurred.data), wanted) < 3


def test_effects_have_their_cost() -> None:
    upload = pipeline.Upload.from_memory(encode(photo(1000, 800), "PNG"))
    header = read_header(upload, tolerant=False)

    def cost(**effect: Any) -> Any:
        return predict(upload, header, [ResizeOptions(width=1000, height=800, **effect)])

    plain = cost()
    for effect in EFFECTS:
        assert cost(**effect).seconds > plain.seconds
    assert cost(blur=5).memory >= plain.memory + 1000 * 800 * 3
    assert cost(blur=250).seconds < plain.seconds + 0.2


def test_an_effect_that_was_told_to_stop_stops() -> None:
    asked = iter([None] * 3)

    class Stopped(BadRequest):
        pass

    def watch() -> Stopped | None:
        return next(asked, Stopped("stop"))

    with pytest.raises(Stopped):
        pipeline.resize(
            pipeline.Upload.from_memory(io.BytesIO(jpeg()).getvalue()),
            (ResizeOptions(width=2000, height=1500, blur=20, sharpen=5.0, watermark="box"),),
            config=LIMITS,
            watch=watch,
        )


def test_the_border_of_a_grey_result_has_its_colour() -> None:
    made = make(flat(RED), grey=True, pad=5, background="#0000ff", width=80, height=50)
    assert made.size == (90, 60)
    assert colour(made, 1, 1) == BLUE
    assert make(flat(RED), grey=True, pad=5).mode == "L"
    assert make(flat((*RED, 9)), grey=True, pad=5).mode == "LA"
