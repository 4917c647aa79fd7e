"""crop, trim, flip, rotate, focus and pad: sizes right to the pixel, and their order, against Pillow."""

import io
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.pipeline.run import LIMITS, run
from vipsrv import pipeline
from vipsrv.errors import BadRequest, RequestError, TooLarge
from vipsrv.options import Fit, Flip, Format, Keep, ResizeOptions
from vipsrv.pipeline.header import ImageHeader
from vipsrv.pipeline.view import part_of

SIZES = [(60, 40), (41, 77), (1, 50), (50, 1), (200, 151), (333, 5), (97, 97)]
FORMATS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 97, "subsampling": 0},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "BMP": {},
}
_MOST_DIFFERENCE = 9  # grey levels on average, for resizes by other kernels; half a turn is over 60


def drawn(width: int, height: int) -> Image.Image:
    """An image in which no part looks like another, nor like itself mirrored or turned."""
    down, across = np.mgrid[0:height, 0:width]
    bands = (
        across * 255 // max(1, width - 1),
        down * 255 // max(1, height - 1),
        ((across // 8 + down // 8) % 2) * 200,
    )
    return Image.fromarray(np.dstack(bands).astype("u1"))


def encoded(image: Image.Image, kind: str = "PNG", orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, kind, **FORMATS[kind], **({} if kind == "BMP" else {"exif": exif}))
    return file.getvalue()


def shown(options: ResizeOptions, image: bytes) -> Image.Image:
    (output,) = run(image, options).outputs
    result = Image.open(io.BytesIO(output.data))
    assert result.size == (output.info.width, output.info.height)
    return result


def pixel(image: Image.Image, x: int = 0, y: int = 0) -> tuple[int, ...]:
    value = image.getpixel((x, y))
    assert isinstance(value, tuple)
    return value


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one.convert("RGB"), int) - np.asarray(other.convert("RGB"), int)).mean())


def modelled(image: Image.Image, orientation: int, options: dict[str, Any]) -> Image.Image:
    """What is seen before the resize, by Pillow: upright, cropped, mirrored and turned, in this order."""
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(image, "PNG", orientation))))
    if "crop" in options:
        left, top, width, height = options["crop"]
        upright = upright.crop((left, top, left + width, top + height))
    if options.get("flip") in ("horizontal", "both"):
        upright = ImageOps.mirror(upright)
    if options.get("flip") in ("vertical", "both"):
        upright = ImageOps.flip(upright)
    return upright.rotate(-options.get("rotate", 0), expand=True)


@st.composite
def views(draw: st.DrawFn, *, quarters: bool = True) -> tuple[tuple[int, int], int, dict[str, Any]]:
    size = draw(st.sampled_from(SIZES))
    orientation = draw(st.integers(1, 8))
    width, height = size if orientation < 5 else size[::-1]
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        across, down = draw(st.integers(1, width)), draw(st.integers(1, height))
        left, top = draw(st.integers(0, width - across)), draw(st.integers(0, height - down))
        options["crop"] = (left, top, across, down)
    if draw(st.booleans()):
        options["flip"] = draw(st.sampled_from(Flip)).value
    angles = st.sampled_from([90, 180, 270]) if quarters else st.integers(0, 359)
    if draw(st.booleans()):
        options["rotate"] = draw(angles)
    return size, orientation, options


@given(view=views(), kind=st.sampled_from(sorted(FORMATS)), scale=st.sampled_from([1, 0.5, 0.3, 1.5]))
@settings(max_examples=150, deadline=None)
def test_views_look_as_pillow_makes_them_in_this_order(
    view: tuple[tuple[int, int], int, dict[str, Any]], kind: str, scale: float
) -> None:
    size, orientation, options = view
    orientation = 1 if kind == "BMP" and "crop" not in options else orientation
    if kind == "BMP" and orientation != 1:
        kind = "PNG"
    wanted = modelled(drawn(*size), orientation, options)
    width, height = max(1, round(wanted.width * scale)), max(1, round(wanted.height * scale))
    asked = ResizeOptions(width=width, height=height, format=Format.PNG, **options)
    result = shown(asked, encoded(drawn(*size), kind, orientation))
    assert result.size == (width, height)
    if min(wanted.size) > 2:  # of thinner ones kernels make anything
        assert difference(result, wanted.resize((width, height), Image.Resampling.LANCZOS)) < _MOST_DIFFERENCE


def rotated_size(width: int, height: int, degrees: int) -> tuple[int, int]:
    if degrees % 90 == 0:
        return (height, width) if degrees % 180 else (width, height)
    across, along = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    return math.ceil(width * across + height * along - 1e-6), math.ceil(
        width * along + height * across - 1e-6
    )


@given(
    view=views(quarters=False),
    fit=st.sampled_from(Fit),
    box=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    given=st.sampled_from(["both", "width", "height"]),
    pad=st.none() | st.tuples(*[st.integers(0, 20)] * 4),
    enlarge=st.booleans(),
)
@settings(max_examples=150, deadline=None)
@example(((1, 50), 6, {"rotate": 37}), Fit.COVER, (90, 1), "both", (1, 2, 3, 4), True)
@example(((333, 5), 1, {"rotate": 1}), Fit.FILL, (1, 90), "both", None, False)
def test_sizes_are_right_to_the_pixel(
    view: tuple[tuple[int, int], int, dict[str, Any]],
    fit: Fit,
    box: tuple[int, int],
    given: str,
    pad: tuple[int, int, int, int] | None,
    enlarge: bool,  # noqa: FBT001 - drawn by hypothesis
) -> None:
    size, orientation, options = view
    width, height = size if orientation < 5 else size[::-1]
    if "crop" in options:
        width, height = options["crop"][2:]
    width, height = rotated_size(width, height, options.get("rotate", 0))
    asked: dict[str, Any] = {"fit": fit, "enlarge": enlarge}
    if given == "both" or fit is Fit.FILL or given == "width":
        asked["width"] = box[0]
    if given == "both" or fit is Fit.FILL or given == "height":
        asked["height"] = box[1]
    wanted = expected_size(width, height, **asked)
    if wanted[0] * wanted[1] > 250_000:
        return  # a thin image that 'outside' or one side makes long: right, but slow
    if pad is not None:
        wanted = wanted[0] + pad[1] + pad[3], wanted[1] + pad[0] + pad[2]
    result = shown(
        ResizeOptions(format=Format.PNG, pad=pad, **asked, **options),
        encoded(drawn(*size), "PNG", orientation),
    )
    assert result.size == wanted


def expected_size(
    own_width: int,
    own_height: int,
    *,
    fit: Fit,
    enlarge: bool,
    width: int | None = None,
    height: int | None = None,
) -> tuple[int, int]:
    """The size of a result, by the definition of each fit in fractions."""

    def half_up(value: float) -> int:
        return max(1, math.floor(value + 0.5))

    if fit is Fit.FILL:
        assert width is not None
        assert height is not None
        return (width, height) if enlarge else (min(width, own_width), min(height, own_height))
    scales = [side / own for side, own in ((width, own_width), (height, own_height)) if side is not None]
    larger = fit in {Fit.COVER, Fit.OUTSIDE}
    scale = max(scales) if larger else min(scales)
    by_width = width is not None and (height is None or (width * own_height > height * own_width) == larger)
    if width is not None and height is not None and width * own_height == height * own_width:
        by_width = True
    scaled = (
        (width, half_up(own_height * width / own_width))
        if by_width and width is not None
        else (half_up(own_width * (height or 1) / own_height), height or 1)
    )
    if not enlarge and (scaled[0] > own_width or scaled[1] > own_height):
        scaled = own_width, own_height
    assert scale > 0
    if width is not None and height is not None:
        if fit is Fit.CONTAIN:
            return width, height
        if fit is Fit.COVER:
            return min(scaled[0], width), min(scaled[1], height)
    return scaled


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_any_angle_looks_as_pillow_rotates(kind: str) -> None:
    image = drawn(200, 151)
    for degrees in (1, 30, 45, 137, 290):
        wanted = image.rotate(-degrees, expand=True, resample=Image.Resampling.BICUBIC, fillcolor="#ff8000")
        asked = ResizeOptions(
            width=wanted.width, height=wanted.height, format=Format.PNG, rotate=degrees, background="#ff8000"
        )
        assert difference(shown(asked, encoded(image, kind)), wanted) < _MOST_DIFFERENCE


def test_a_rotation_uncovers_transparency_only_if_the_image_has_it() -> None:
    image = drawn(90, 60)
    opaque = ResizeOptions(width=80, fit=Fit.INSIDE, format=Format.PNG, rotate=45, background="#00ff00")
    assert shown(opaque, encoded(image)).mode == "RGB"
    assert shown(opaque, encoded(image)).getpixel((0, 0)) == (0, 255, 0)
    image.putalpha(255)
    assert pixel(shown(opaque, encoded(image)))[3] == 0
    asked = [
        ResizeOptions(width=80, fit=Fit.INSIDE, format=kind, rotate=45) for kind in (Format.PNG, Format.JPEG)
    ]
    both = run(encoded(image), *asked).outputs
    assert pixel(Image.open(io.BytesIO(both[0].data)))[3] == 0
    corner = pixel(Image.open(io.BytesIO(both[1].data)))
    assert min(corner) > 250


def test_several_results_have_views_of_their_own() -> None:
    views_of_each: list[dict[str, Any]] = [
        {},
        {"crop": (10, 5, 100, 80)},
        {"rotate": 90},
        {"crop": (10, 5, 100, 80), "flip": "horizontal"},
        {"trim": 1},
        {"crop": (10, 5, 100, 80)},
    ]
    image = drawn(200, 151)
    for kind in ("PNG", "JPEG", "WEBP", "TIFF"):
        asked = [
            ResizeOptions(width=60, height=40, format=Format.PNG, **options) for options in views_of_each
        ]
        for output, options in zip(run(encoded(image, kind), *asked).outputs, views_of_each, strict=True):
            wanted = modelled(image, 1, options).resize((60, 40), Image.Resampling.LANCZOS)
            assert difference(Image.open(io.BytesIO(output.data)), wanted) < _MOST_DIFFERENCE


@pytest.mark.parametrize("size", [(2400, 1800), (1607, 1205)])
def test_a_part_of_a_large_jpeg_is_where_it_should_be(size: tuple[int, int]) -> None:
    """Its decoder reduces it, by fractions of which the part's edges are no multiples."""
    width, height = size
    image = drawn(width // 8, height // 8).resize(size, Image.Resampling.BICUBIC)
    data = encoded(image, "JPEG")
    for crop in ((101, 53, 1203, 901), (3, 1001, 1501, 203), (width - 801, height - 203, 801, 203)):
        for target in ((150, 113), (300, 200), (401, 301)):
            wanted = image.crop((crop[0], crop[1], crop[0] + crop[2], crop[1] + crop[3])).resize(
                target, Image.Resampling.LANCZOS
            )
            for kind in (Format.PNG, Format.JPEG):
                asked = ResizeOptions(width=target[0], height=target[1], format=kind, crop=crop, quality=95)
                assert difference(shown(asked, data), wanted) < 4


@pytest.mark.parametrize("tile", [None, 64])
def test_a_part_of_a_tiff_is_right_in_strips_and_tiles(tile: int | None) -> None:
    pyvips = pytest.importorskip("pyvips")
    image = drawn(700, 500)
    whole = pyvips.Image.new_from_array(np.asarray(image))
    tiling = {} if tile is None else {"tile": True, "tile_width": tile, "tile_height": tile}
    data = whole.tiffsave_buffer(compression="lzw", **tiling)
    for crop in ((300, 200, 90, 70), (650, 450, 50, 50)):
        asked = ResizeOptions(width=crop[2], height=crop[3], format=Format.PNG, crop=crop)
        wanted = image.crop((crop[0], crop[1], crop[0] + crop[2], crop[1] + crop[3]))
        assert difference(shown(asked, data), wanted) == 0


def test_fractions_are_rounded_and_never_empty() -> None:
    image = drawn(10, 7)

    def part(crop: tuple[float, float, float, float]) -> tuple[int, int]:
        asked = ResizeOptions(width=1000, fit=Fit.INSIDE, enlarge=False, format=Format.PNG, crop=crop)
        return shown(asked, encoded(image)).size

    assert part((0.0, 0.0, 1.0, 1.0)) == (10, 7)
    assert part((0.25, 0.0, 0.5, 1.0)) == (5, 7)
    assert part((0.999, 0.999, 0.001, 0.001)) == (1, 1)
    assert part((0.0, 0.0, 1e-9, 1e-9)) == (1, 1)
    # Neighbours meet: no column is missing or there twice.
    assert part((0.0, 0.0, 1 / 3, 1.0))[0] + part((1 / 3, 0.0, 1 / 3, 1.0))[0] + part(
        (2 / 3, 0.0, 1 / 3, 1.0)
    )[0] == (10)


def test_the_first_pixel_and_the_whole_image_in_one_request() -> None:
    image = drawn(60, 40)
    both = [
        ResizeOptions(width=60, height=40, format=Format.PNG, crop=crop)
        for crop in [(0, 0, 1, 1), (0.0, 0.0, 1.0, 1.0)]
    ]
    first, whole = (Image.open(io.BytesIO(output.data)) for output in run(encoded(image), *both).outputs)
    assert first.getextrema() == tuple((one, one) for one in pixel(image))
    assert difference(whole, image) == 0


def refused(image: bytes, **options: Any) -> RequestError:
    started = time.monotonic()
    with pytest.raises(RequestError) as error:
        run(image, ResizeOptions(**{"width": 10, "height": 10, **options}))
    assert time.monotonic() - started < 0.3
    return error.value


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"crop": (0, 0, 61, 40)}, BadRequest, "crop: reaches beyond the page, which has 60 x 40 pixels"),
        ({"crop": (60, 0, 1, 1)}, BadRequest, "crop: reaches beyond the page"),
        ({"crop": (2**31, 2**31, 2**31, 2**31)}, BadRequest, "crop: reaches beyond the page"),
        ({"crop": (0, 0, 2**32 - 1, 1)}, BadRequest, "crop: reaches beyond the page"),
        ({"pad": (2**31, 0, 0, 0)}, TooLarge, "the result has"),
        ({"pad": (0, 2**32 - 1, 0, 2**32 - 1)}, TooLarge, "the result has"),
        ({"focus": (0.5, 0.5)}, BadRequest, "focus: chooses what 'cover' keeps; the fit is 'fill'"),
        (
            {"focus": (0, 0), "fit": "cover", "position": "top"},
            BadRequest,
            "focus: chooses what 'cover' keeps, as",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(
    options: dict[str, Any], kind: type[RequestError], message: str
) -> None:
    error = refused(encoded(drawn(60, 40)), **options)
    assert isinstance(error, kind)
    assert str(error).startswith(message)


def test_a_border_counts_for_the_largest_result() -> None:
    config_most = LIMITS.max_output_pixels
    side = math.isqrt(config_most)
    error = refused(encoded(drawn(60, 40)), pad=(side, side, side, side))
    assert "max-output-pixels" in str(error)


def bordered(colour: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    """A drawing of 50 × 30 with a border of 7, 11, 3 and 20 pixels: top, right, bottom and left."""
    canvas = Image.new(mode, (50 + 31, 30 + 10), colour)
    canvas.paste(drawn(50, 30).point(lambda level: level // 2 + 20).convert(mode), (20, 7))
    return canvas


NATURAL: dict[str, Any] = {"width": 1000, "fit": "inside", "enlarge": False, "format": "png"}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_trim_removes_borders_however_the_image_is_stored(kind: str, orientation: int) -> None:
    result = shown(ResizeOptions(**NATURAL, trim=10), encoded(bordered((250, 250, 250)), kind, orientation))
    assert result.size == ((50, 30) if orientation < 5 else (30, 50))


def test_trim_finds_the_border_of_a_jpeg_and_what_the_threshold_says() -> None:
    result = shown(ResizeOptions(**NATURAL, trim=40), encoded(bordered((255, 255, 255)), "JPEG"))
    assert abs(result.width - 50) <= 2
    assert abs(result.height - 30) <= 2
    noisy = bordered((250, 250, 250))
    noisy.putpixel((3, 3), (250, 244, 250))
    assert shown(ResizeOptions(**NATURAL, trim=6), encoded(noisy)).size == (50, 30)
    assert shown(ResizeOptions(**NATURAL, trim=5), encoded(noisy)).size != (50, 30)


def test_trim_counts_alpha_and_not_the_hidden_colours() -> None:
    image = bordered((1, 2, 3, 0), "RGBA")
    image.putpixel((70, 38), (200, 0, 0, 0))
    assert shown(ResizeOptions(**NATURAL, trim=0), encoded(image)).size == (50, 30)
    same_colour = Image.new("RGBA", (60, 40), (90, 90, 90, 0))
    same_colour.paste((90, 90, 90, 255), (10, 10, 30, 20))
    assert shown(ResizeOptions(**NATURAL, trim=10), encoded(same_colour)).size == (20, 10)


def test_trim_leaves_an_image_of_one_colour() -> None:
    for size in ((60, 40), (1, 1), (300, 1)):
        assert shown(ResizeOptions(**NATURAL, trim=10), encoded(Image.new("RGB", size, "red"))).size == size


def test_trim_comes_after_crop_and_before_rotate() -> None:
    image = bordered((250, 250, 250))
    cropped = ResizeOptions(**NATURAL, trim=10, crop=(0, 0, 45, 40), rotate=90)
    assert shown(cropped, encoded(image)).size == (30, 25)


def test_trim_of_a_large_image_is_streamed() -> None:
    image = Image.new("RGB", (4100, 3000), "white")
    image.paste((10, 20, 30), (500, 400, 2500, 1400))
    for kind in ("JPEG", "PNG"):
        result = shown(ResizeOptions(width=200, fit="inside", format="png", trim=30), encoded(image, kind))  # type: ignore[arg-type]
        assert result.size == (200, 100)


def test_an_error_in_the_pixels_is_found_by_trim() -> None:
    whole = encoded(drawn(300, 300))
    error = refused(whole[: len(whole) // 2], trim=10)
    assert error.status == 422


@pytest.mark.parametrize(
    ("focus", "left"), [((0.5, 0.5), 40), ((0.0, 0.0), 0), ((1.0, 1.0), 80), ((0.25, 0.5), 10)]
)
def test_focus_is_as_close_to_the_centre_as_it_can(focus: tuple[float, float], left: int) -> None:
    image = drawn(120, 40)
    asked = ResizeOptions(width=40, height=40, fit=Fit.COVER, format=Format.PNG, focus=focus)
    assert difference(shown(asked, encoded(image)), image.crop((left, 0, left + 40, 40))) == 0


def test_pad_is_around_the_result_and_has_the_background() -> None:
    image = drawn(40, 30)
    asked = ResizeOptions(
        width=40, height=30, format=Format.PNG, pad=(1, 2, 3, 4), background="#123456", rotate=180
    )
    result = shown(asked, encoded(image))
    assert result.size == (46, 34)
    assert result.getpixel((0, 0)) == result.getpixel((45, 33)) == (0x12, 0x34, 0x56)
    assert difference(result.crop((4, 1, 44, 31)), image.rotate(180)) == 0


def test_the_file_of_a_view_has_no_orientation_left() -> None:
    for options in ({"rotate": 270}, {"crop": (2, 2, 30, 20)}, {"flip": "vertical"}):
        asked = ResizeOptions(width=20, height=20, format=Format.JPEG, keep="all", **options)  # type: ignore[arg-type]
        for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
            result = shown(asked, encoded(drawn(60, 40), kind, 6))
            assert result.getexif().get(0x0112, 1) == 1


def test_a_crop_at_the_top_does_not_need_the_rest_of_the_file() -> None:
    """Rows below the part are not decoded: of a file that ends there, the part is whole."""
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (900, 300, 3), np.uint8))
    data = encoded(noise)
    asked = ResizeOptions(width=30, height=10, format=Format.PNG, crop=(0, 0, 300, 60))
    result = pipeline.resize(pipeline.Upload.from_memory(data[: len(data) * 2 // 3]), [asked], config=LIMITS)
    assert result.outputs[0].info.width == 30


def test_a_turned_jpeg_is_not_enlarged_from_a_smaller_decode() -> None:
    stripes = np.zeros((40, 160, 3), "u1")
    stripes[:, ::16] = stripes[:, 1::16] = stripes[:, 2::16] = stripes[:, 3::16] = 255
    image = encoded(Image.fromarray(stripes).convert("CMYK"), "JPEG")  # libvips decodes it
    upright = shown(ResizeOptions(width=160, fit=Fit.INSIDE, format=Format.PNG), image)
    turned = shown(ResizeOptions(width=40, rotate=90, fit=Fit.INSIDE, format=Format.PNG), image)
    assert difference(turned, upright.rotate(-90, expand=True)) < 1


def test_a_rotation_that_is_stretched_counts_as_what_is_rotated() -> None:
    image = encoded(Image.new("RGB", (20_000, 1)))
    began = time.monotonic()
    with pytest.raises(TooLarge, match=r"^rotate: .* are rotated and then stretched to 14000 x 10"):
        run(image, ResizeOptions(width=14_000, height=10, fit=Fit.FILL, rotate=45))
    assert time.monotonic() - began < 1


def test_views_that_are_trimmed_are_kept_only_as_far_as_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    framed = ImageOps.expand(drawn(200, 151), 10, "white")
    monkeypatch.setattr("vipsrv.pipeline.cost._TRIM_HELD", 220 * 171 * 3)
    kept: list[bool] = []

    def counted(*values: Any, **named: Any) -> ImageHeader:
        kept.append(named["held"] is not None)
        return part_of(*values, **named)

    monkeypatch.setattr("vipsrv.pipeline.trim.part_of", counted)
    asked = [ResizeOptions(width=200, fit=Fit.INSIDE, trim=trim, format=Format.PNG) for trim in (1, 2, 3)]
    outputs = run(encoded(framed), *asked).outputs
    assert [(one.info.width, one.info.height) for one in outputs] == [(200, 151)] * 3
    assert kept == [True, False, False]


def test_views_of_a_built_in_format_are_not_all_in_memory_for_their_profile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dropped: list[ImageHeader] = []
    original = ImageHeader.drop_built

    def drop_built(header: ImageHeader) -> None:
        dropped.append(header)
        original(header)
        assert not any(one._image for one in dropped)

    monkeypatch.setattr(ImageHeader, "drop_built", drop_built)
    asked = [
        ResizeOptions(width=50, fit=Fit.INSIDE, flip=flip, keep=Keep.ICC, format=Format.PNG)
        for flip in (Flip.HORIZONTAL, Flip.VERTICAL)
    ]
    assert len(run(encoded(drawn(60, 40), "BMP"), *asked).outputs) == len(asked)
    assert dropped
