"""``min_ssim``: the lowest quality whose result looks well enough, and how that is measured."""

import contextlib
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.pipeline.run import LIMITS, run, sample
from tests.support.image_comparison import open_exact, ssim
from tests.support.images import alpha_photo, animated, encode, jpeg, photo
from vipsrv import pipeline
from vipsrv.errors import BadRequest, Cancelled, RequestError, TooLarge
from vipsrv.options import ResizeOptions
from vipsrv.pipeline.cost import Cost, max_encodes, predict
from vipsrv.pipeline.formats import registry
from vipsrv.pipeline.likeness import Likeness
from vipsrv.pipeline.probe import read_header

WIDTH, HEIGHT = 200, 150
LOSSY = ("jpeg", "webp", "avif", "png")


def asked(kind: str = "jpeg", min_ssim: float | None = 0.9, **options: Any) -> ResizeOptions:
    values: dict[str, Any] = {"width": WIDTH, "height": HEIGHT, "format": kind}
    values |= {"min_ssim": min_ssim, "palette": kind == "png"}
    return ResizeOptions(**(values | options))


def made(kind: str = "jpeg", min_ssim: float | None = 0.9, **options: Any) -> pipeline.Output:
    (output,) = run(sample("jpeg"), asked(kind, min_ssim, **options)).outputs
    return output


def refusal(*outputs: ResizeOptions, **arguments: Any) -> RequestError:
    upload = pipeline.Upload.from_memory(sample("jpeg"))
    with pytest.raises(RequestError) as caught:
        pipeline.resize(upload, outputs, config=LIMITS, **arguments)
    return caught.value


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image).reshape(image.height, image.width, -1)


# The search


@pytest.mark.parametrize(
    ("kind", "min_ssim"),
    [*((kind, one) for kind in LOSSY for one in (0.8, 0.93)), ("jpeg", 0.97), ("avif", 0.97)],
)
def test_the_lowest_quality_that_reaches_it(kind: str, min_ssim: float) -> None:
    result = made(kind, min_ssim)
    assert result.info.ssim is not None
    assert min_ssim <= result.info.ssim <= 1
    original = open_exact(made("png", None, palette=False).data)
    assert ssim(open_exact(result.data).convert("RGB"), original) == pytest.approx(result.info.ssim, abs=0.02)
    # The next lower quality does not reach it, by the same measure.
    if kind != "png" and result.info.quality > 1:
        lower = refusal(asked(kind, min_ssim, quality=result.info.quality - 1))
        assert isinstance(lower, TooLarge)
        assert lower.message.startswith(
            f"min_ssim: at quality {result.info.quality - 1} the {kind} has an SSIM"
        )


def test_more_likeness_takes_more_bytes() -> None:
    results = [made("webp", one) for one in (0.8, 0.9, 0.95, 0.98)]
    sizes = [len(one.data) for one in results]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 2 * sizes[0]


def test_the_result_is_that_of_its_quality() -> None:
    result = made("jpeg", 0.95)
    assert result.data == made("jpeg", None, quality=result.info.quality).data
    assert made("jpeg", None).info.ssim is None


def test_other_options_hold_during_the_search() -> None:
    image = open_exact(made("jpeg", 0.95, chroma="4:4:4", progressive=True).data)
    assert image.info.get("progressive")


def test_a_likeness_that_no_quality_has() -> None:
    error = refusal(asked("jpeg", 1))
    assert isinstance(error, TooLarge)
    assert error.message.startswith("min_ssim: at quality 100 the jpeg has an SSIM of 0.99")
    error = refusal(asked("jpeg", 0.99, quality=20))
    assert error.message.startswith("min_ssim: at quality 20 the jpeg has an SSIM of 0.")


def test_with_max_bytes_both_must_hold() -> None:
    result = made("jpeg", 0.95)
    size = len(result.data)
    assert made("jpeg", 0.95, max_bytes=size).data == result.data
    error = refusal(asked("jpeg", 0.95, max_bytes=size - 1))
    assert isinstance(error, TooLarge)
    assert error.message == (
        f"max_bytes: at quality {result.info.quality}, the lowest that reaches min_ssim, the jpeg has "
        f"{size} bytes; {size - 1} are allowed"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "gif"}, "min_ssim: gif has no quality to lower; choose one of: jpeg"),
        ({"kind": "tiff"}, "min_ssim: tiff has no quality to lower"),
        ({"kind": "png", "palette": False}, "min_ssim: png has no quality to lower"),
        ({"kind": "webp", "lossless": True}, "min_ssim: a lossless result has no quality to lower"),
    ],
)
def test_where_it_is_refused(options: dict[str, Any], message: str) -> None:
    error = refusal(asked(**options))
    assert isinstance(error, BadRequest)
    assert error.message.startswith(message)


def test_an_animation_has_no_likeness() -> None:
    upload = pipeline.Upload.from_memory(animated("WEBP", 64, 48))
    with pytest.raises(BadRequest, match=r"^min_ssim: is for a single image; leave out min_ssim or pages$"):
        pipeline.resize(upload, (asked("webp", pages="all"),), config=LIMITS)


def test_a_server_that_cannot_decode_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    others = tuple(one for one in registry.active_formats() if one.name != "webp")
    monkeypatch.setattr(registry, "active_formats", lambda: others)
    error = refusal(asked("webp"))
    assert error.message == "min_ssim: webp cannot be decoded by this server, so its SSIM is not known"


def test_transparency_counts() -> None:
    image = encode(alpha_photo(WIDTH, HEIGHT), "PNG")
    (result,) = run(image, asked("webp", 0.95)).outputs
    assert result.info.ssim is not None
    assert result.info.ssim >= 0.95
    assert open_exact(result.data).mode == "RGBA"


def test_several_results_have_their_own() -> None:
    outputs = [asked("jpeg", 0.9), asked("jpeg", None), asked("webp", 0.97, width=100, height=75)]
    infos = [one.info for one in run(sample("jpeg"), *outputs).outputs]
    assert [one.ssim is None for one in infos] == [False, True, False]


# What it costs


def cost(**options: Any) -> Cost:
    upload = pipeline.Upload.from_memory(jpeg(64, 48))
    return predict(upload, read_header(upload), [asked(**options)])


def test_no_more_encodes_than_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("vipsrv.pipeline.steps.encode")
    write, calls = module._write, []

    def counting(*arguments: Any) -> Any:
        calls.append(arguments)
        return write(*arguments)

    monkeypatch.setattr(module, "_write", counting)
    for quality in (None, 1, 2, 64, 100):
        for min_ssim in (0, 0.5, 0.8, 0.95, 1):
            calls.clear()
            options = asked("jpeg", min_ssim, quality=quality, width=48, height=32)
            with contextlib.suppress(TooLarge):
                run(sample("jpeg"), options)
            assert max_encodes(options) - 1 <= len(calls) <= max_encodes(options)


@pytest.mark.parametrize("kind", ["jpeg", "webp", "avif"])
def test_the_cost_of_the_search_is_predicted(kind: str) -> None:
    once, search = (cost(kind=kind, min_ssim=one, width=1000, height=1000) for one in (None, 0.9))
    assert search.seconds > once.seconds
    assert search.at_worst > once.at_worst + 6 * 0.004
    assert search.memory - once.memory >= 15 * 1_000_000


def test_a_search_that_cannot_meet_its_deadline_is_refused() -> None:
    options = asked("avif", 0.9, width=4000, height=3000)
    error = refusal(options, seconds=2)
    assert isinstance(error, TooLarge)
    assert "its deadline allows 2.00 s" in error.message


def test_the_search_stops_when_it_is_asked_to() -> None:
    asked_times = 0

    def watch() -> RequestError | None:
        nonlocal asked_times
        asked_times += 1
        return Cancelled("the client has gone") if asked_times > 8 else None

    assert isinstance(refusal(asked("webp"), watch=watch), Cancelled)


# The measure


def _plainly(one: Image.Image, other: Image.Image) -> float:
    """SSIM as in the paper, window by window."""
    x, y = (np.asarray(image.convert("L"), np.float64) for image in (one, other))
    values = []
    for top in range(0, x.shape[0] - 7, 4):
        for left in range(0, x.shape[1] - 7, 4):
            a, b = x[top : top + 8, left : left + 8], y[top : top + 8, left : left + 8]
            means = 2 * a.mean() * b.mean() + 6.5025
            both = 2 * ((a - a.mean()) * (b - b.mean())).mean() + 58.5225
            values.append(
                means * both / ((a.mean() ** 2 + b.mean() ** 2 + 6.5025) * (a.var() + b.var() + 58.5225))
            )
    return float(np.mean(values))


@pytest.mark.parametrize("quality", [5, 40, 90])
@pytest.mark.parametrize("size", [(64, 48), (200, 120), (8, 8), (300, 8)])
def test_it_is_the_ssim_of_the_paper(size: tuple[int, int], quality: int) -> None:
    one = photo(*size)
    other = open_exact(encode(one, "JPEG", quality=quality))
    assert Likeness(pixels(one)).of(pixels(other)) == pytest.approx(_plainly(one, other), abs=0.002)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (7, 9), (65, 63)])
def test_any_size_has_one(size: tuple[int, int]) -> None:
    image = photo(*size)
    inverted = image.point(lambda value: 255 - value)
    assert Likeness(pixels(image)).of(pixels(image)) == pytest.approx(1)
    assert Likeness(pixels(image)).of(pixels(inverted)) < 0.96


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.point(lambda value: max(0, value - 40)),
        lambda image: Image.merge(
            "RGBA", (*image.split()[:3], image.getchannel("A").point(lambda a: a // 2))
        ),
    ],
    ids=["colours", "alpha"],
)
def test_changes_of_a_transparent_image_are_seen(change: Callable[[Image.Image], Image.Image]) -> None:
    image = alpha_photo(64, 48)
    likeness = Likeness(pixels(image))
    assert likeness.of(pixels(image)) == pytest.approx(1)
    assert likeness.of(pixels(change(image))) < 0.98


def test_what_is_under_full_transparency_is_not_seen() -> None:
    clear, other = (Image.new("RGBA", (40, 40), (*colour, 0)) for colour in ((0, 0, 0), (90, 200, 10)))
    assert Likeness(pixels(clear)).of(pixels(other)) == pytest.approx(1)


def test_white_on_transparency_is_seen_before_black() -> None:
    white = Image.new("RGBA", (40, 40), (255, 255, 255, 0))
    drawn = white.copy()
    drawn.paste((255, 255, 255, 255), (10, 10, 30, 30))
    assert Likeness(pixels(drawn)).of(pixels(white)) < 0.9


@pytest.mark.parametrize("kind", LOSSY)
def test_a_tiny_result_is_read_back_without_a_word(kind: str) -> None:
    # An error that is logged meanwhile would refuse a TIFF, whose decoder logs errors and goes on.
    (output,) = run(encode(photo(40, 30), "TIFF"), asked(kind, width=9, height=7)).outputs
    assert open_exact(output.data).size == (9, 7)


def test_an_encoder_may_drop_what_is_opaque() -> None:
    opaque = photo(40, 30).convert("RGBA")
    assert Likeness(pixels(opaque)).of(pixels(opaque.convert("RGB"))) == pytest.approx(1)
    assert Likeness(pixels(opaque.convert("RGB"))).of(pixels(opaque)) == pytest.approx(1)


def test_grey_is_its_own_luma() -> None:
    grey = photo(40, 30).convert("L")
    assert Likeness(pixels(grey)).of(pixels(grey.convert("RGB"))) == pytest.approx(1, abs=1e-6)


def test_another_size_is_no_result() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        Likeness(pixels(photo(40, 31))).of(pixels(photo(40, 30)))
