"""Several results of one upload: each as if it were the only one, in the order of the request."""

from typing import Any

import pytest
from PIL import Image

from tests.pipeline.run import LIMITS, run, sample
from tests.support.image_comparison import mean_abs_difference, open_exact, ssim
from tests.support.images import (
    HEIGHT,
    WIDTH,
    alpha_photo,
    animated,
    encode,
    jpeg,
    photo,
    swapped_profile,
    truncated,
)
from vipsrv import pipeline
from vipsrv.errors import BadRequest, Cancelled, CorruptImage, TooLarge
from vipsrv.options import Fit, Format, Keep, Position, ResizeOptions
from vipsrv.worker_config import WorkerConfig


def asked(width: int, height: int | None = None, **more: Any) -> ResizeOptions:
    return ResizeOptions(width=width, height=height, **{"fit": Fit.INSIDE, "quality": 95, **more})


WIDTHS = [asked(width) for width in (40, 320, 80, 160, 240)]
SHAPES = [
    asked(200, 50, fit=Fit.FILL),
    asked(50, 200, fit=Fit.FILL),
    asked(100, 100, fit=Fit.COVER, position=Position.LEFT),
    asked(100, 100, fit=Fit.COVER, position=Position.ATTENTION),
    asked(100, 100, fit=Fit.CONTAIN, background="#204080"),
    asked(64, 64, fit=Fit.OUTSIDE),
]
NEARLY_EQUAL = [asked(300 - number) for number in range(16)]
ENLARGED = [asked(600), asked(100), asked(500, 90, fit=Fit.FILL), asked(600, enlarge=False)]
FORMATS = [asked(120, format=kind) for kind in Format if kind is not Format.JXL]  # not in the wheel
BACKGROUNDS = [asked(120, background=colour) for colour in ("#ff0000", "#ffffff")]
BOTH = [asked(120, background="#ff0000"), asked(90, format=Format.PNG), asked(60, format=Format.WEBP)]
KEPT = [asked(120, keep=keep, format=Format.PNG, background="#4060a0") for keep in Keep]


@pytest.mark.parametrize(
    ("encoded", "outputs"),
    [
        (jpeg(1000, 750), WIDTHS),
        (jpeg(1000, 750), SHAPES),
        (jpeg(1000, 750), NEARLY_EQUAL),
        (jpeg(), ENLARGED),
        (sample("jpeg-orientation-6"), WIDTHS),
        (encode(alpha_photo(), "PNG"), FORMATS),
        (encode(alpha_photo(), "WEBP"), BACKGROUNDS),
        (encode(alpha_photo(), "TIFF"), BOTH),
        (jpeg(icc_profile=swapped_profile()), KEPT),
        (jpeg(icc_profile=swapped_profile()), [asked(120), asked(90), asked(30, keep="icc")]),
        (encode(alpha_photo(), "PNG", icc_profile=swapped_profile()), [*KEPT, *BACKGROUNDS, *BOTH]),
    ],
    ids=[
        "widths",
        "shapes",
        "nearly-equal",
        "enlarged",
        "turned",
        "formats",
        "backgrounds",
        "both",
        "kept",
        "one-kept",
        "all",
    ],
)
def test_each_result_is_like_that_of_a_single_request(encoded: bytes, outputs: list[ResizeOptions]) -> None:
    together = run(encoded, *outputs)
    assert len(together.outputs) == len(outputs)
    for options, output in zip(outputs, together.outputs, strict=True):
        (alone,) = run(encoded, options).outputs
        assert (output.info.width, output.info.height) == (alone.info.width, alone.info.height)
        assert (output.info.format, output.info.quality) == (alone.info.format, alone.info.quality)
        assert output.info.size == len(output.data)
        one, other = open_exact(output.data), open_exact(alone.data)
        assert one.mode == other.mode
        assert one.info.get("icc_profile") == other.info.get("icc_profile")
        grey = (128, 128, 128, 255)
        shown, should = (
            Image.alpha_composite(Image.new("RGBA", image.size, grey), image.convert("RGBA"))
            for image in (one, other)
        )
        # Loose, because both are lossy files of a very small image.
        assert ssim(shown, should) > 0.96, options
        assert mean_abs_difference(shown, should) < 5, options


def test_several_results_are_as_close_to_a_full_decode_as_single_ones() -> None:
    scene = photo(1600, 1200)
    image = encode(scene, "JPEG", quality=92)
    outputs = [asked(width, format=Format.PNG) for width in (640, 639, 600, 512, 400, 320, 160, 80)]
    for output in run(image, *outputs).outputs:
        made = open_exact(output.data)
        wanted = scene.resize(made.size, Image.Resampling.LANCZOS)
        (alone,) = run(image, asked(made.width, format=Format.PNG)).outputs
        assert ssim(made, wanted) > ssim(open_exact(alone.data), wanted) - 0.01


def test_the_source_is_reported_once() -> None:
    result = run(animated("TIFF"), asked(40, page=2), asked(50))
    assert (result.source.width, result.source.height, result.source.pages) == (WIDTH, HEIGHT, 3)


def test_several_pages_in_one_request() -> None:
    outputs = [asked(165, page=page) for page in (2, 0, 1, 2)]
    result = run(animated("GIF"), *outputs)
    for options, output in zip(outputs, result.outputs, strict=True):
        wanted = photo(seed=options.page + 1).resize((165, 125), Image.Resampling.LANCZOS)
        assert mean_abs_difference(open_exact(output.data), wanted) < 6


def test_one_refused_result_refuses_all() -> None:
    with pytest.raises(BadRequest, match=r"^lossless: "):
        run(jpeg(), asked(40), asked(50, lossless=True))
    with pytest.raises(CorruptImage):
        run(truncated(jpeg()), asked(40), asked(50))


def test_the_limits_count_all_results_together() -> None:
    half = asked(5000, 5000, fit=Fit.FILL)
    more = asked(5001, 5000, fit=Fit.FILL)
    with pytest.raises(TooLarge) as refused:
        run(jpeg(), half, more)
    assert refused.value.message == (
        "the 2 results take 50005000 pixels together; max-output-pixels allows 50000000"
    )


def test_the_limits_count_cropped_pixels() -> None:
    strip = asked(8000, 100, fit=Fit.COVER)  # of 8000 x 6061 pixels
    assert run(jpeg(), strip).outputs[0].info.width == 8000
    with pytest.raises(TooLarge, match="the 2 results take 96976000 pixels together"):
        run(jpeg(), strip, strip)


def test_the_shared_image_is_limited() -> None:
    wide, tall = asked(2000, 10, fit=Fit.FILL), asked(10, 2000, fit=Fit.FILL)
    image = encode(Image.new("RGB", (2000, 2000)), "PNG")
    limits = WorkerConfig(max_pixels=LIMITS.max_pixels, max_output_pixels=3_000_000)
    with pytest.raises(TooLarge, match=r"^the results together need a decode of 2000 x 2000 pixels; "):
        pipeline.resize(pipeline.Upload.from_memory(image), (wide, tall), config=limits)


def test_several_results_stop_when_asked() -> None:
    image = encode(Image.new("RGB", (2500, 2000), (9, 90, 200)), "PNG", compress_level=1)
    reason = Cancelled("enough")
    with pytest.raises(Cancelled) as stopped:
        pipeline.resize(
            pipeline.Upload.from_memory(image),
            [asked(800), asked(400)],
            config=LIMITS,
            watch=lambda: reason,
        )
    assert stopped.value is reason


def test_small_results_stop_between_two_of_them() -> None:
    # None of them is long enough to be watched by libvips.
    asked_for = 0

    def watch() -> Cancelled | None:
        nonlocal asked_for
        asked_for += 1
        return Cancelled("enough") if asked_for == 3 else None

    upload = pipeline.Upload.from_memory(jpeg())
    with pytest.raises(Cancelled):
        pipeline.resize(upload, [asked(40)] * 5, config=LIMITS, watch=watch)
    assert asked_for == 3
