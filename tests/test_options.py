import dataclasses
import json
from enum import StrEnum
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.protocol.wire import json_values
from vipsrv.options import (
    BY_CONTENT,
    DEFAULT_QUALITY,
    INTEGER_BOUNDS,
    MAX_DIMENSION,
    WATERMARK_PATTERN,
    Chroma,
    Fit,
    FitName,
    Flip,
    FlipName,
    Format,
    FormatName,
    ImageInfo,
    Keep,
    KeepName,
    OutputInfo,
    Position,
    PositionName,
    ResizeOptions,
    ResizeReport,
    ResizeRequest,
    Timings,
    UploadSlot,
)

OPTION_NAMES = [option.name for option in dataclasses.fields(ResizeOptions)]
REQUEST_NAMES = [*OPTION_NAMES, "deadline_ms", "outputs", "upload"]

# The words of the wire; the code may not gain, lose or rename one unnoticed.
WORDS: dict[type[StrEnum], str] = {
    Flip: "horizontal vertical both",
    Fit: "fill contain cover inside outside",
    Position: "centre,top,right top,right,right bottom,bottom,left bottom,left,left top,entropy,attention",
    Format: "jpeg png webp avif tiff gif auto",
    Keep: "none icc exif all",
}

dimensions = st.integers(1, MAX_DIMENSION)
int64 = st.integers(1, 2**63 - 1)


fractions = st.floats(0, 1)
pixel_regions = st.tuples(
    st.integers(0, MAX_DIMENSION), st.integers(0, MAX_DIMENSION), dimensions, dimensions
)


@st.composite
def fraction_regions(draw: st.DrawFn) -> tuple[float, float, float, float]:
    left, top = draw(st.floats(0, 0.99)), draw(st.floats(0, 0.99))
    return left, top, draw(st.floats(1e-9, 1 - left)), draw(st.floats(1e-9, 1 - top))


@st.composite
def resize_options(draw: st.DrawFn) -> ResizeOptions:
    fit = draw(st.sampled_from(Fit))
    width, height = draw(dimensions), draw(dimensions)
    missing = draw(st.sampled_from(["width", "height", "none"])) if fit is not Fit.FILL else "none"
    return ResizeOptions(
        width=None if missing == "width" else width,
        height=None if missing == "height" else height,
        fit=fit,
        position=draw(st.sampled_from(Position)),
        format=draw(st.sampled_from(Format)),
        quality=draw(st.none() | st.integers(1, 100)),
        effort=draw(st.none() | st.integers(0, 9)),
        lossless=draw(st.booleans()),
        max_bytes=draw(st.none() | int64),
        background=draw(st.from_regex(r"#[0-9a-fA-F]{6}", fullmatch=True)),
        keep=draw(st.sampled_from(Keep)),
        page=draw(st.integers(0, 2**31 - 1)),
        enlarge=draw(st.booleans()),
        crop=draw(st.none() | pixel_regions | fraction_regions()),
        trim=draw(st.none() | st.integers(0, 255)),
        flip=draw(st.none() | st.sampled_from(Flip)),
        rotate=draw(st.integers(0, 359)),
        focus=draw(st.none() | st.tuples(fractions, fractions)),
        modulate=draw(st.none() | st.tuples(st.floats(0, 10), st.floats(0, 10))),
        grey=draw(st.booleans()),
        blur=draw(st.none() | st.floats(0.3, 250)),
        sharpen=draw(st.booleans() | st.floats(0.3, 10)),
        watermark=draw(st.none() | st.from_regex(WATERMARK_PATTERN, fullmatch=True)),
        watermark_position=draw(st.sampled_from(sorted(set(Position) - BY_CONTENT))),
        watermark_scale=draw(st.floats(0.01, 1)),
        watermark_opacity=draw(st.floats(0, 1)),
        rounded=draw(st.none() | dimensions),
        pad=draw(st.none() | st.tuples(*[st.integers(0, MAX_DIMENSION)] * 4).filter(any)),
        progressive=draw(st.none() | st.booleans()),
        chroma=draw(st.sampled_from(Chroma)),
        palette=draw(st.booleans()),
        optimize=draw(st.none() | st.booleans()),
        min_ssim=draw(st.none() | fractions),
    )


@st.composite
def upload_slots(draw: st.DrawFn) -> UploadSlot:
    size = draw(int64)
    return UploadSlot(
        id=draw(st.from_regex(r"[0-9a-f]{32}", fullmatch=True)),
        size=size,
        offset=draw(st.integers(0, size)),
    )


requests = st.builds(
    ResizeRequest,
    outputs=st.lists(resize_options(), min_size=1, max_size=3).map(tuple[ResizeOptions, ...]),
    deadline_ms=st.none() | st.integers(1, 2**31 - 1),
    upload=st.none() | upload_slots(),
)

counts = st.integers(0, 2**63 - 1)
milliseconds = st.floats(0, 1e9)
image_infos = st.builds(
    ImageInfo,
    format=st.text(max_size=8),
    width=counts,
    height=counts,
    pages=counts,
    has_alpha=st.booleans(),
    orientation=st.integers(1, 8),
    size=counts,
)
output_infos = st.builds(
    OutputInfo, width=counts, height=counts, format=st.text(max_size=8), quality=counts, size=counts
)
reports = st.builds(
    ResizeReport,
    source=image_infos,
    outputs=st.lists(output_infos, min_size=1, max_size=3).map(tuple[OutputInfo, ...]),
    ms=st.builds(Timings, receive=milliseconds, queue=milliseconds, process=milliseconds, total=milliseconds),
    ratio=milliseconds,
)


def _through_json(meta: dict[str, Any]) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(json.dumps(meta, allow_nan=False))
    return decoded


def _deepest_list() -> Any:
    """Nested as deep as json reads at this depth of the stack, so deeper than repr can follow from below."""
    fits, too_deep = 1, 200_000
    while too_deep - fits > 1:
        depth = (fits + too_deep) // 2
        try:
            json.loads("[" * depth + "]" * depth)
        except RecursionError:
            too_deep = depth
        else:
            fits = depth
    return json.loads("[" * fits + "]" * fits)


def test_no_name_of_the_protocol_is_lost() -> None:
    for kind, words in WORDS.items():
        names = words.split("," if "," in words else " ")
        assert [member.value for member in kind if member.value in names] == names


def test_the_defaults_are_those_of_the_protocol() -> None:
    options = ResizeOptions(width=800, height=600)
    assert DEFAULT_QUALITY == 85
    assert dataclasses.asdict(options) == {
        "width": 800,
        "height": 600,
        "fit": "fill",
        "position": "centre",
        "format": "jpeg",
        "quality": None,
        "effort": None,
        "lossless": False,
        "max_bytes": None,
        "background": "#ffffff",
        "keep": "none",
        "page": 0,
        "pages": None,
        "enlarge": True,
        "crop": None,
        "trim": None,
        "flip": None,
        "rotate": 0,
        "focus": None,
        "modulate": None,
        "grey": False,
        "blur": None,
        "sharpen": False,
        "watermark": None,
        "watermark_position": "right bottom",
        "watermark_scale": 0.25,
        "watermark_opacity": 1.0,
        "rounded": None,
        "pad": None,
        "progressive": None,
        "chroma": "auto",
        "palette": False,
        "optimize": None,
        "min_ssim": None,
    }


def test_defaults_are_not_sent() -> None:
    assert ResizeOptions(width=800, height=600).to_meta() == {"width": 800, "height": 600}
    assert ResizeOptions(width=8, fit=Fit.INSIDE, quality=85).to_meta() == {
        "width": 8,
        "fit": "inside",
        "quality": 85,
    }


@given(resize_options())
def test_options_are_the_same_after_json(options: ResizeOptions) -> None:
    assert ResizeOptions.from_meta(_through_json(options.to_meta())) == options


@given(requests)
def test_a_request_is_the_same_after_json(request: ResizeRequest) -> None:
    assert ResizeRequest.from_meta(_through_json(request.to_meta())) == request


@given(reports)
def test_a_report_is_the_same_after_json(report: ResizeReport) -> None:
    assert ResizeReport.from_meta(_through_json(report.to_meta())) == report


def test_a_list_of_one_output_is_the_same_request() -> None:
    flat = ResizeRequest.from_meta({"width": 8, "height": 6, "deadline_ms": 50})
    listed = ResizeRequest.from_meta({"outputs": [{"width": 8, "height": 6}], "deadline_ms": 50})
    assert flat == listed == ResizeRequest(outputs=(ResizeOptions(width=8, height=6),), deadline_ms=50)


class Whole:
    """A whole number of another type, as ``numpy.int64`` is."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


def test_whole_numbers_of_other_types_become_int() -> None:
    options: Any = {name: Whole(7) for name in INTEGER_BOUNDS}
    request = ResizeRequest(outputs=(ResizeOptions(**options),), deadline_ms=Whole(7))  # type: ignore[arg-type]
    assert request.to_meta() == dict.fromkeys([*options, "deadline_ms"], 7)
    assert all(type(value) is int for value in request.to_meta().values())


def test_jpg_is_another_name_of_jpeg() -> None:
    options = ResizeOptions.from_meta({"width": 8, "height": 6, "format": "jpg"})
    assert options.format is Format.JPEG
    assert options == ResizeOptions(width=8, height=6)


@pytest.mark.parametrize(
    ("names", "kind"),
    [(FitName, Fit), (FlipName, Flip), (PositionName, Position), (FormatName, Format), (KeepName, Keep)],
)
def test_the_literal_types_have_the_names_of_the_members(names: Any, kind: type[StrEnum]) -> None:
    assert {kind(name) for name in get_args(names)} == set(kind)
    assert len(get_args(names)) == len(kind) + (kind is Format)  # jpg is the one other name


def test_strings_become_enum_members() -> None:
    options = ResizeOptions.from_meta({"width": 8, "fit": "cover", "position": "right top", "keep": "icc"})
    assert options.fit is Fit.COVER
    assert options.position is Position.RIGHT_TOP
    assert options.format is Format.JPEG
    assert options.keep is Keep.ICC


def test_a_region_of_whole_numbers_is_pixels_and_any_fraction_makes_it_fractions() -> None:
    pixels = ResizeOptions(width=8, height=6, crop=[0, 0, 1, 1])  # type: ignore[arg-type]
    assert pixels.crop is not None
    assert all(type(one) is int for one in pixels.crop)
    fractions = ResizeOptions.from_meta(_through_json({"width": 8, "height": 6, "crop": [0, 0, 0.5, 1]}))
    assert fractions.crop is not None
    assert all(type(one) is float for one in fractions.crop)
    assert ResizeOptions.from_meta({"width": 8, "height": 6, "crop": [0.7, 0, 0.3, 1]}).crop


def test_the_whole_image_as_fractions_is_not_its_first_pixel() -> None:
    first, whole = (ResizeOptions(width=8, height=6, crop=crop) for crop in [(0, 0, 1, 1), (0.0, 0, 1, 1)])
    assert first != whole
    assert whole.crop is None


def test_one_number_is_the_border_on_all_sides_and_zero_is_none() -> None:
    assert ResizeOptions.from_meta({"width": 8, "height": 6, "pad": 3}).pad == (3, 3, 3, 3)
    assert ResizeOptions.from_meta({"width": 8, "height": 6, "pad": [0, 0, 0, 0]}).pad is None


GOOD = {"width": 8, "height": 6}
UPLOAD = {"id": "0" * 32, "size": 10, "offset": 0}


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({}, "width: is missing, and height as well"),
        ({"width": 8}, "height: is missing; the fit 'fill' needs both"),
        ({"height": 8}, "width: is missing; the fit 'fill' needs both"),
        ({"fit": "inside"}, "width: is missing, and height as well"),
        ({"width": 0, "height": 6}, "width: must be from 1 to 4294967295, not 0"),
        ({"width": 8, "height": 2**32}, "height: must be from 1 to 4294967295, not 4294967296"),
        ({"width": 8, "height": 10**999}, "height: must be from 1 to 4294967295, not a number of 3319 bits"),
        ({"width": -8, "height": 6}, "width: must be from 1 to 4294967295, not -8"),
        ({"width": True, "height": 6}, "width: must be a whole number, not true"),
        ({"width": 8.0, "height": 6}, "width: must be a whole number, not 8.0"),
        ({"width": "8", "height": 6}, 'width: must be a whole number, not "8"'),
        ({"width": [8], "height": 6}, "width: must be a whole number, not a list"),
        ({**GOOD, "quality": 0}, "quality: must be from 1 to 100, not 0"),
        ({**GOOD, "effort": -1}, "effort: must be from 0 to 9, not -1"),
        ({**GOOD, "effort": 10}, "effort: must be from 0 to 9, not 10"),
        ({**GOOD, "effort": "best"}, 'effort: must be a whole number, not "best"'),
        ({**GOOD, "quality": 101}, "quality: must be from 1 to 100, not 101"),
        ({**GOOD, "max_bytes": 0}, "max_bytes: must be from 1"),
        ({**GOOD, "page": -1}, "page: must be from 0"),
        ({**GOOD, "page": None}, "page: must be a whole number, not null"),
        ({**GOOD, "lossless": 1}, "lossless: must be true or false, not 1"),
        ({**GOOD, "enlarge": None}, "enlarge: must be true or false, not null"),
        ({**GOOD, "fit": "squeeze"}, "fit: must be one of fill, contain, cover, inside, outside, not"),
        ({**GOOD, "fit": None}, "fit: must be one of fill, contain, cover, inside, outside, not null"),
        ({**GOOD, "position": "center"}, "position: must be one of centre, top, right top"),
        ({**GOOD, "format": "JPEG"}, f"format: must be one of {', '.join(Format)}, not"),
        (
            {**GOOD, "format": {}},
            f"format: must be one of {', '.join(Format)}, not an object",
        ),
        ({**GOOD, "keep": "gps"}, "keep: must be one of none, icc, exif, all, not"),
        ({**GOOD, "background": "white"}, 'background: must look like #ffffff, not "white"'),
        ({**GOOD, "background": "#ffffff\n"}, 'background: must look like #ffffff, not "#ffffff\\n"'),
        ({**GOOD, "background": 0xFFFFFF}, "background: must look like #ffffff, not 16777215"),
        ({**GOOD, "crop": [0, 0, 1]}, "crop: must be a list of 4 numbers, not of 3"),
        ({**GOOD, "crop": "1,2,3,4"}, "crop: must be a list of 4 numbers, not"),
        ({**GOOD, "crop": [0, 0, 0, 1]}, "crop: width and height must be from 1, not 0"),
        ({**GOOD, "crop": [0.0, 0, 0, 1]}, "crop: width and height must be more than 0"),
        (
            {**GOOD, "crop": [0, 0, 10.0, 10]},
            "crop: four whole numbers are pixels, fractions are from 0 to 1",
        ),
        ({**GOOD, "crop": [0.5, 0, 0.6, 1]}, "crop: left + width must be at most 1, not 1.1"),
        ({**GOOD, "crop": [0, 0.5, 1, 0.6]}, "crop: top + height must be at most 1, not 1.1"),
        ({**GOOD, "crop": [-1, 0, 1, 1]}, "crop: must be from 0 to 4294967295, not -1"),
        ({**GOOD, "crop": [0, 0, 2**32, 1]}, "crop: must be from 0 to 4294967295, not 4294967296"),
        ({**GOOD, "crop": [0, 0, float("nan"), 1]}, "crop: must be from 0 to 4294967295, not NaN"),
        ({**GOOD, "crop": [0, 0, True, 1]}, "crop: must be a number, not true"),
        ({**GOOD, "trim": 256}, "trim: must be from 0 to 255, not 256"),
        ({**GOOD, "flip": "left"}, "flip: must be one of horizontal, vertical, both, not"),
        ({**GOOD, "rotate": 360}, "rotate: must be from 0 to 359, not 360"),
        ({**GOOD, "rotate": 0.5}, "rotate: must be a whole number, not 0.5"),
        ({**GOOD, "focus": [0, 1.5]}, "focus: must be from 0 to 1, not 1.5"),
        ({**GOOD, "focus": 0.5}, "focus: must be a list of 2 numbers, not 0.5"),
        ({**GOOD, "modulate": [1]}, "modulate: must be a list of 2 numbers, not"),
        ({**GOOD, "modulate": [1, 11]}, "modulate: must be from 0 to 10, not 11"),
        ({**GOOD, "grey": 1}, "grey: must be true or false, not 1"),
        ({**GOOD, "blur": 0}, "blur: must be from 0.3 to 250, not 0"),
        ({**GOOD, "blur": True}, "blur: must be a number, not true"),
        ({**GOOD, "sharpen": 11}, "sharpen: must be from 0.3 to 10, not 11"),
        ({**GOOD, "sharpen": None}, "sharpen: must be a number, not null"),
        ({**GOOD, "watermark": "../logo"}, "watermark: must be 1 to 32 lower-case letters, digits"),
        ({**GOOD, "watermark": 1}, "watermark: must be 1 to 32"),
        ({**GOOD, "watermark_position": "entropy"}, "watermark_position: must be a corner, a side or"),
        ({**GOOD, "watermark_scale": 0}, "watermark_scale: must be from 0.01 to 1, not 0"),
        ({**GOOD, "watermark_opacity": 1.1}, "watermark_opacity: must be from 0 to 1, not 1.1"),
        ({**GOOD, "rounded": 0}, "rounded: must be from 1 to 4294967295, not 0"),
        ({**GOOD, "progressive": 1}, "progressive: must be true or false, not 1"),
        ({**GOOD, "optimize": "yes"}, 'optimize: must be true or false, not "yes"'),
        ({**GOOD, "palette": None}, "palette: must be true or false, not null"),
        ({**GOOD, "chroma": "4:2:2"}, "chroma: must be one of auto, 4:2:0, 4:4:4, not"),
        ({**GOOD, "min_ssim": 1.01}, "min_ssim: must be from 0 to 1, not 1.01"),
        ({**GOOD, "min_ssim": float("nan")}, "min_ssim: must be from 0 to 1, not NaN"),
        ({**GOOD, "min_ssim": "0.9"}, 'min_ssim: must be a number, not "0.9"'),
        ({**GOOD, "pad": [1, 2]}, "pad: must be a list of 4 numbers, not of 2"),
        ({**GOOD, "pad": 1.5}, "pad: must be whole numbers of pixels, not 1.5"),
        ({**GOOD, "pad": True}, "pad: must be a number, not true"),
        ({**GOOD, "pad": "7"}, 'pad: must be a list of 4 numbers, not "7"'),
        ({**GOOD, "pad": [1, 2, 3, 4.5]}, "pad: must be whole numbers of pixels, not 4.5"),
        ({**GOOD, "deadline_ms": 0}, "deadline_ms: must be from 1"),
        ({**GOOD, "deadline_ms": 0.5}, "deadline_ms: must be a whole number"),
        ({**GOOD, "colour": "red"}, "colour: is not an option of RESIZE"),
        ({**GOOD, "a\x1b\ud800" + "b" * 99: 1}, "a\\u001b\\ud800bbb"),
        ({"outputs": [GOOD], "width": 8}, "width: belongs inside each object of outputs, not outside"),
        ({"outputs": []}, "outputs: must be a list of one or more objects"),
        ({"outputs": GOOD}, "outputs: must be a list of one or more objects"),
        ({"outputs": [GOOD, 3]}, "outputs: must be a list of one or more objects"),
        ({"outputs": [GOOD, {**GOOD, "quality": 0}]}, "quality: must be from 1 to 100, not 0"),
        ({"outputs": [{**GOOD, "deadline_ms": 5}]}, "deadline_ms: is not an option of RESIZE"),
        ({**GOOD, "upload": None}, "upload: must be an object of id, size and offset"),
        ({**GOOD, "upload": {**UPLOAD, "name": "x"}}, "upload: must be an object of id, size and offset"),
        ({**GOOD, "upload": {**UPLOAD, "id": "0" * 31}}, "upload: id must be 32 lower-case hex digits"),
        ({**GOOD, "upload": {**UPLOAD, "id": "F" * 32}}, "upload: id must be 32 lower-case hex digits"),
        ({**GOOD, "upload": {**UPLOAD, "size": None}}, "upload: size: must be a whole number, not null"),
        ({**GOOD, "upload": {**UPLOAD, "offset": 11}}, "upload: offset: must be from 0 to 10, not 11"),
    ],
    ids=lambda value: None if isinstance(value, str) else ascii(value)[:50],
)
def test_an_invalid_value_is_refused_by_name(meta: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the beginning is compared below
        ResizeRequest.from_meta(meta)
    assert str(error.value).startswith(message)


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(REQUEST_NAMES, json_values))
    | st.tuples(st.sampled_from(REQUEST_NAMES), json_values).map(lambda pair: {**GOOD, pair[0]: pair[1]})
)
@example({"fit": "inside", "width": 10**4000})
@example({"width": float("inf"), "height": 1})
def test_any_json_is_a_request_or_a_value_error_that_names_the_option(meta: dict[str, Any]) -> None:
    try:
        request = ResizeRequest.from_meta(meta)
    except ValueError as error:
        message = str(error)
        assert message.partition(":")[0] in REQUEST_NAMES
        assert len(message) < 200
    else:
        assert ResizeRequest.from_meta(_through_json(request.to_meta())) == request


@given(st.text(max_size=60).filter(lambda name: name not in REQUEST_NAMES), json_values)
def test_an_unknown_name_is_printable_in_the_message(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match="is not an option of RESIZE") as error:
        ResizeRequest.from_meta({**GOOD, name: value})
    assert str(error.value).isascii()
    assert str(error.value).isprintable()
    if name.isascii() and name.isidentifier():
        assert str(error.value).startswith(name[:40])


@pytest.mark.parametrize("name", REQUEST_NAMES)
def test_a_value_nested_as_deep_as_json_allows_is_refused_by_name(name: str) -> None:
    nested = _deepest_list()
    with pytest.raises(ValueError, match=rf"^{name}: must "):
        ResizeRequest.from_meta({**({} if name == "outputs" else GOOD), name: nested})


def test_the_constructors_check_as_well() -> None:
    with pytest.raises(ValueError, match="quality: must be from 1 to 100, not 101"):
        ResizeOptions(width=8, height=6, quality=101)
    with pytest.raises(ValueError, match="deadline_ms: must be from 1"):
        ResizeRequest(outputs=(ResizeOptions(width=8, height=6),), deadline_ms=0)
    with pytest.raises(ValueError, match="outputs: must be one or more"):
        ResizeRequest(outputs=())


REPORT = ResizeReport(
    source=ImageInfo(format="png", width=9, height=8, pages=1, has_alpha=True, orientation=1, size=1000),
    outputs=(OutputInfo(width=3, height=2, format="jpeg", quality=85, size=400),),
    ms=Timings(receive=1.5, queue=0, process=2.5, total=4),
    ratio=2.5,
).to_meta()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": None}, "source: must be an object, not null"),
        ({"source": {**REPORT["source"], "width": "9"}}, 'source: width: must be a whole number, not "9"'),
        ({"source": {**REPORT["source"], "width": -9}}, "source: width: must be from 0"),
        ({"source": {**REPORT["source"], "has_alpha": 1}}, "source: has_alpha: must be a bool, not 1"),
        ({"source": {"format": "png"}}, "source: width: must be a whole number, not null"),
        ({"outputs": []}, "outputs: must be a list of one or more objects"),
        ({"outputs": {}}, "outputs: must be a list of one or more objects, not an object"),
        ({"outputs": ["x"]}, 'outputs: must be an object, not "x"'),
        ({"ms": {**REPORT["ms"], "queue": float("inf")}}, "ms: queue: must be a number from 0, not Infinity"),
        ({"ms": {**REPORT["ms"], "queue": True}}, "ms: queue: must be a number from 0, not true"),
        ({"ratio": "2.5"}, 'ratio: must be a number from 0, not "2.5"'),
        ({"ratio": 10**400}, "ratio: must be a number from 0, not a number of 1329 bits"),
        ({"ratio": -1}, "ratio: must be a number from 0, not -1"),
    ],
)
def test_an_invalid_report_is_refused(change: dict[str, Any], message: str) -> None:
    ResizeReport.from_meta(REPORT)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the beginning is compared below
        ResizeReport.from_meta({**REPORT, **change})
    assert str(error.value).startswith(message)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "source": json_values,
            "outputs": json_values | st.lists(json_values, max_size=2),
            "ms": json_values,
            "ratio": json_values,
        },
    )
)
def test_any_json_is_a_report_or_a_value_error(change: dict[str, Any]) -> None:
    try:
        report = ResizeReport.from_meta({**REPORT, **change})
    except ValueError as error:
        named = str(error).partition(":")[0]
    else:
        named = "ratio"
        assert ResizeReport.from_meta(_through_json(report.to_meta())) == report
    assert named in {"source", "outputs", "ms", "ratio"}


def test_unknown_names_in_a_report_are_ignored() -> None:
    newer = {**REPORT, "energy": 3, "source": {**REPORT["source"], "camera": "x"}}
    assert ResizeReport.from_meta(newer) == ResizeReport.from_meta(REPORT)


@pytest.mark.parametrize("outputs", [None, [], 3, [None]])
def test_outputs_that_are_no_list_of_objects_are_named_even_beside_other_options(outputs: object) -> None:
    with pytest.raises(ValueError, match="outputs: must be a list"):
        ResizeRequest.from_meta({"width": 3, "outputs": outputs})
