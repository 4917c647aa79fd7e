"""The parameters of /resize: their names, their values, and the options that they mean."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from vipsrv.errors import BadRequest
from vipsrv.options import (
    LIST_LENGTHS,
    Chroma,
    Fit,
    Flip,
    Format,
    Keep,
    Position,
    ResizeOptions,
    ResizeRequest,
)
from vipsrv.server.api.parameters import PARAMETERS, ResizeParameters
from vipsrv.workers.channel import MAX_OUTPUTS


def meta(auto: Format | None = None, /, **given: str) -> dict[str, Any]:
    parameters = ResizeParameters()
    for name, value in given.items():
        parameters.add(name, value)
    return parameters.meta(auto)


def options(**given: str) -> ResizeOptions:
    (one,) = ResizeRequest.from_meta(meta(**given)).outputs
    return one


def refusal(*given: tuple[str, str]) -> str:
    parameters = ResizeParameters()
    *before, (last, value) = given
    for name, other in before:
        parameters.add(name, other)
    with pytest.raises(BadRequest) as refused:
        parameters.add(last, value)
    return refused.value.message


def test_every_option_of_a_resize_is_a_parameter() -> None:
    assert set(PARAMETERS) == {
        *ResizeOptions.__dataclass_fields__,
        *("withoutEnlargement", "flop", "deadline_ms", "outputs", "placeholder"),
    }


def test_all_options() -> None:
    assert options(
        width="800",
        height="600",
        fit="cover",
        position="right top",
        format="webp",
        quality="70",
        effort="2",
        lossless="false",
        max_bytes="9000",
        background="%23aabbcc".replace("%23", "#"),
        keep="icc",
        page="1",
        enlarge="0",
        crop="1,2,30,40",
        trim="9",
        flip="both",
        rotate="90",
        focus="0.5,.25",
        modulate="1.5,0",
        grey="true",
        blur="2.5",
        sharpen="true",
        watermark="logo",
        watermark_position="southeast",
        watermark_scale="0.5",
        watermark_opacity=".5",
        rounded="12",
        pad="1,2,3,4",
        progressive="true",
        chroma="4:2:0",
        palette="false",
        optimize="0",
        min_ssim="0.97",
    ) == ResizeOptions(
        width=800,
        height=600,
        fit=Fit.COVER,
        position=Position.RIGHT_TOP,
        format=Format.WEBP,
        quality=70,
        effort=2,
        max_bytes=9000,
        background="#aabbcc",
        keep=Keep.ICC,
        page=1,
        enlarge=False,
        crop=(1, 2, 30, 40),
        trim=9,
        flip=Flip.BOTH,
        rotate=90,
        focus=(0.5, 0.25),
        modulate=(1.5, 0),
        grey=True,
        blur=2.5,
        sharpen=True,
        watermark="logo",
        watermark_scale=0.5,
        watermark_opacity=0.5,
        rounded=12,
        pad=(1, 2, 3, 4),
        progressive=True,
        chroma=Chroma.HALF,
        optimize=False,
        min_ssim=0.97,
    )


def test_pages() -> None:
    assert options(width="8", pages="all").pages == "all"
    assert options(width="8", pages="00-9").pages == "0-9"
    assert refusal(("pages", "3")).startswith("pages: must be all")
    assert refusal(("pages", "3-2")).startswith("pages: 3-2 must begin")


def test_the_default_fit_is_that_of_the_clients() -> None:
    assert options(width="8").fit is Fit.INSIDE
    assert options(height="8").fit is Fit.INSIDE
    assert options(width="8", height="8").fit is Fit.FILL
    assert options(width="8", height="8", fit="inside").fit is Fit.INSIDE


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"gravity": "north"}, {"position": "top"}),
        ({"chromaSubsampling": "4:4:4"}, {"chroma": "4:4:4"}),
        ({"optimiseCoding": "true"}, {"optimize": True}),
        ({"min_ssim": "1"}, {"min_ssim": 1}),
        ({"position": "northeast"}, {"position": "right top"}),
        ({"position": "center"}, {"position": "centre"}),
        ({"position": "top right"}, {"position": "right top"}),
        ({"gravity": "attention"}, {"position": "attention"}),
        ({"toFormat": "jpg"}, {"format": "jpeg"}),
        ({"format": "tif"}, {"format": "tiff"}),
        ({"withoutEnlargement": "true"}, {"enlarge": False}),
        ({"withoutEnlargement": "false"}, {"enlarge": True}),
        ({"extract": "0,0,0.5,1.0"}, {"crop": [0, 0, 0.5, 1.0]}),
        ({"flip": "true"}, {"flip": "vertical"}),
        ({"flip": "false"}, {"flip": None}),
        ({"flop": "true"}, {"flip": "horizontal"}),
        ({"flip": "true", "flop": "true"}, {"flip": "both"}),
        ({"flip": "vertical", "flop": "false"}, {"flip": "vertical"}),
        ({"extend": "5"}, {"pad": 5}),
        ({"background": "AABBCC"}, {"background": "#AABBCC"}),
    ],
)
def test_names_and_values_of_sharp(given: dict[str, str], expected: dict[str, object]) -> None:
    assert meta(width="8", **given) == {"width": 8, "fit": "inside", **expected}


def test_several_results_share_the_other_parameters() -> None:
    assert meta(outputs="320x,640x480,x1280", quality="70", deadline_ms="500") == {
        "deadline_ms": 500,
        "outputs": [
            {"width": 320, "quality": 70, "fit": "inside"},
            {"width": 640, "height": 480, "quality": 70, "fit": "fill"},
            {"height": 1280, "quality": 70, "fit": "inside"},
        ],
    }
    assert meta(outputs="8x", fit="outside")["outputs"] == [{"width": 8, "fit": "outside"}]


def test_auto_becomes_what_the_client_prefers() -> None:
    assert meta(Format.AVIF, width="8", format="auto")["format"] == "avif"
    assert meta(None, width="8", format="auto")["format"] == "auto"
    assert meta(Format.AVIF, width="8", format="png")["format"] == "png"
    assert meta(Format.WEBP, outputs="8x", format="auto")["outputs"][0]["format"] == "webp"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([("w", "8")], "w: is no parameter; there are width, height, fit,"),
        ([("", "8")], "a parameter without a name: is no parameter"),
        ([("\x1b", "8")], "\\x1b: is no parameter"),
        ([("width", "8"), ("width", "8")], "width: is given twice"),
        ([("format", "png"), ("toFormat", "png")], "toFormat: is given twice, before as format"),
        ([("enlarge", "1"), ("withoutEnlargement", "1")], "is given twice, before as enlarge"),
        ([("width", "")], 'width: must be a whole number, not ""'),
        ([("width", "-1")], "width: must be a whole number"),
        ([("width", "+1")], "width: must be a whole number"),
        ([("width", " 1")], "width: must be a whole number"),
        ([("width", "1.0")], "width: must be a whole number"),
        ([("width", "٣")], "width: must be a whole number"),
        ([("width", "0")], "width: must be from 1 to"),
        ([("width", "9" * 5000)], "width: must be a whole number"),
        ([("quality", "101")], "quality: must be from 1 to 100"),
        ([("fit", "Cover")], "fit: must be one of fill, contain,"),
        ([("crop", "1,2,3")], 'crop: must be 4 numbers with commas, not "1,2,3"'),
        ([("crop", "1,2,3,-4")], 'crop: must be a number such as 12 or 0.5, not "-4"'),
        ([("crop", "1,2,3,1e3")], "crop: must be a number such as 12 or 0.5"),
        ([("crop", f"1,2,3,{'9' * 20}")], "crop: must be from 0 to 4294967295"),
        ([("focus", "2,0")], "focus: must be from 0 to 1, not"),
        ([("modulate", "1")], 'modulate: must be 2 numbers with commas, not "1"'),
        ([("blur", "0.2")], "blur: must be from 0.3 to 250"),
        ([("sharpen", "1"), ("sharpen", "2")], "sharpen: is given twice"),
        ([("sharpen", "yes")], "sharpen: must be a number such as"),
        ([("watermark", "A/b")], "watermark: must be 1 to 32 lower-case letters"),
        ([("watermark_position", "entropy")], "watermark_position: must be one of centre, top,"),
        ([("greyscale", "true"), ("grey", "true")], "grey: is given twice, before as greyscale"),
        ([("pad", "1,2")], "pad: must be one number or four with commas"),
        ([("flip", "left")], "flip: must be one of horizontal, vertical, both, not"),
        ([("rotate", "-90")], "rotate: must be a whole number"),
        ([("flip", "both"), ("flop", "1")], "flop: leave it out; flip is 'both'"),
        ([("crop", "1,2,3,4"), ("extract", "1,2,3,4")], "extract: is given twice, before as crop"),
        ([("lossless", "yes")], "lossless: must be true or false"),
        ([("lossless", "")], "lossless: must be true or false"),
        ([("background", "white")], "background: must look like"),
        ([("deadline_ms", "0")], "deadline_ms: must be from 1"),
        ([("outputs", "")], "outputs: must be sizes like"),
        ([("outputs", "x")], "outputs: must be sizes like"),
        ([("outputs", "8x,")], "outputs: must be sizes like"),
        ([("outputs", "8X8")], "outputs: must be sizes like"),
        ([("outputs", "0x8")], "outputs: a width must be from 1"),
        ([("outputs", "8x99999999999")], "outputs: must be sizes like"),
        ([("outputs", "8x9999999999")], "outputs: a height must be from 1"),
        ([("outputs", ",".join(["8x"] * (MAX_OUTPUTS + 1)))], f"{MAX_OUTPUTS} are allowed"),
        ([("outputs", "8x"), ("height", "8")], "outputs: has all sizes"),
        ([("height", "8"), ("outputs", "8x")], "outputs: has all sizes"),
        ([("request_id", "8")], "request_id: is no parameter"),
    ],
)
def test_an_invalid_parameter_is_refused(given: list[tuple[str, str]], message: str) -> None:
    found = refusal(*given)
    assert message in found
    assert found.isprintable()
    assert len(found) < 600


@given(st.sampled_from(sorted(PARAMETERS)), st.data())
def test_a_schema_accepts_what_is_accepted(name: str, data: st.DataObject) -> None:
    parameter = PARAMETERS[name]
    # As a client writes the values of a schema into a query.
    value, text = data.draw(_values(parameter.schema))
    valid = Draft202012Validator(parameter.schema).is_valid(value)
    try:
        parameter.read(text)
    except BadRequest:
        # A pattern has no range: not every number of ten digits is a side.
        assert not valid or name in {"outputs", "pages", "sharpen", *LIST_LENGTHS}
    else:
        assert valid


def _values(schema: dict[str, Any]) -> st.SearchStrategy[tuple[Any, str]]:
    if schema["type"] == "integer":
        edges = st.sampled_from([schema["minimum"], schema["maximum"]])
        numbers = st.one_of(st.integers(0, 2**64), edges, edges.map(lambda edge: edge + 1), st.just(0))
        return numbers.map(lambda number: (number, str(number)))
    if schema["type"] == "number":
        least, most = schema["minimum"], schema["maximum"]
        decimals = st.decimals(0, 2 * most, places=3).map(float)
        return st.one_of(decimals, st.sampled_from([least, most])).map(lambda one: (one, f"{one:.3f}"))
    if schema["type"] == "boolean":
        return st.booleans().map(lambda one: (one, str(one).lower()))
    if "enum" in schema:
        texts = st.one_of(st.sampled_from(schema["enum"]), st.text(max_size=9))
    else:
        texts = st.one_of(
            st.from_regex(schema["pattern"].replace("$", r"\Z")), st.text("0123456789x,#abf", max_size=12)
        )
    return texts.map(lambda text: (text, text))
