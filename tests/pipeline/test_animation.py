"""Frames of animations: which, how they look, how long they are shown, and what they may cost."""

import io
import random
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from tests.pipeline.run import LIMITS, info, run
from tests.support.animations import (
    DELAYS,
    SIZE,
    animation,
    apng,
    chunk,
    control,
    pictures,
    pixels,
    seen,
    timing,
)
from tests.support.images import SAMPLES
from vipsrv import pipeline
from vipsrv.errors import BadRequest, CorruptImage, RequestError, TooLarge
from vipsrv.options import Format, ResizeOptions
from vipsrv.pipeline import cost
from vipsrv.pipeline.formats.gif.screen import check_frames

KINDS = ("GIF", "WEBP", "PNG")
RESULTS = ("gif", "webp")


def difference(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two images over white and over black, so that alpha counts."""
    assert one.size == other.size
    found = []
    for ground in ("white", "black"):
        shown = [
            Image.alpha_composite(Image.new("RGBA", image.size, ground), image).convert("RGB")
            for image in (one, other)
        ]
        found += ImageStat.Stat(ImageChops.difference(*shown)).mean
    return max(found)


def reduced(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")


def animate(data: bytes, **options: Any) -> pipeline.Output:
    (output,) = run(
        data, ResizeOptions(**{"width": 30, "height": 20, "pages": "all", "format": "webp", **options})
    ).outputs
    return output


def refusal(data: bytes, config: Any = LIMITS, **options: Any) -> RequestError:
    wanted = ResizeOptions(**{"width": 30, "height": 20, "pages": "all", "format": "webp", **options})
    with pytest.raises(RequestError) as refused:
        pipeline.resize(pipeline.Upload.from_memory(data), [wanted], config=config)
    return refused.value


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_frame_looks_like_its_own(kind: str, result: str, *, alpha: bool) -> None:
    data = animation(kind, pictures(alpha=alpha), disposal=2 if kind == "GIF" else 0)
    output = animate(data, format=result, lossless=result == "webp")
    frames = seen(output.data)
    assert (output.info.frames, len(frames)) == (4, 4)
    # Transparency of a GIF is all or nothing, and a reduced border is neither.
    most = 6 if result == "gif" and alpha else 3
    for frame, source in zip(frames, seen(data), strict=True):
        assert difference(frame, reduced(source, (30, 20))) < most


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("kind", KINDS)
def test_delays_and_plays(kind: str, result: str) -> None:
    delays, plays = timing(animate(animation(kind, loop=3), format=result).data)
    assert delays == list(DELAYS)
    # A GIF counts the repetitions, the others the plays.
    assert plays == 3 + (result == "webp") * (kind == "GIF") - (result == "gif") * (kind != "GIF")
    assert timing(animate(animation(kind, loop=0), format=result).data)[1] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_range_of_frames(kind: str) -> None:
    data = animation(kind)
    output = animate(data, pages="1-2", lossless=True)
    frames = seen(output.data)
    assert (output.info.frames, len(frames), timing(output.data)[0]) == (2, 2, [120, 30])
    for frame, source in zip(frames, seen(data)[1:3], strict=True):
        assert difference(frame, reduced(source, (30, 20))) < 2


@pytest.mark.parametrize("kind", KINDS)
def test_one_frame_is_a_still_image_in_any_format(kind: str) -> None:
    data = animation(kind)
    for options in ({"pages": "2-2"}, {"pages": None, "page": 2}):
        output = animate(data, format="png", **options)
        assert (output.info.frames, info(data).pages) == (1, 4)
        (frame,) = seen(output.data)
        assert difference(frame, reduced(seen(data)[2], (30, 20))) < 2


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize(
    "options",
    [{"rotate": 30}, {"grey": True}, {"rounded": 6}, {"blur": 1.5}, {"pad": 3}, {"crop": [5, 5, 40, 30]}],
)
def test_operations_are_those_of_a_still_image(options: dict[str, Any], *, alpha: bool) -> None:
    data = animation("GIF", pictures(alpha=alpha), disposal=2 if alpha else 0)
    frames = seen(animate(data, lossless=True, **options).data)
    for number, frame in enumerate(frames):
        (still,) = seen(animate(data, pages=None, page=number, format="png", **options).data)
        assert difference(frame, still) < 1


@pytest.mark.parametrize(
    "options", [{"fit": "contain"}, {"fit": "cover"}, {"fit": "inside"}, {"flip": "both"}]
)
def test_a_frame_is_made_as_a_still_image(options: dict[str, Any]) -> None:
    data = animation("WEBP", pictures(alpha=True))
    size: dict[str, Any] = {"width": 24, "height": 24, "background": "#204060", **options}
    frames = seen(animate(data, lossless=True, **size).data)
    for number, frame in enumerate(frames):
        (still,) = seen(animate(data, pages=None, page=number, format="png", **size).data)
        assert difference(frame, still) < 1


def test_a_crop_keeps_its_part_of_each_frame() -> None:
    data = animation("PNG")
    frames = seen(animate(data, lossless=True, crop=[10, 5, 30, 20]).data)
    for frame, source in zip(frames, seen(data), strict=True):
        assert difference(frame, source.crop((10, 5, 40, 25))) == 0


def test_cover_by_content_does_not_jump() -> None:
    wide = [Image.new("RGB", (90, 30), (0, 0, 0)) for _ in range(3)]
    wide[0].paste((255, 60, 0), (60, 0, 90, 30))
    wide[1].paste((0, 255, 0), (0, 0, 30, 30))
    frames = seen(
        animate(
            animation("GIF", wide), width=30, height=30, fit="cover", position="attention", lossless=True
        ).data
    )
    assert difference(frames[0], wide[0].crop((60, 0, 90, 30)).convert("RGBA")) < 2
    assert difference(frames[1], wide[1].crop((60, 0, 90, 30)).convert("RGBA")) < 2


def test_no_frame_runs_into_the_next() -> None:
    flat = [Image.new("RGB", (64, 64), colour) for colour in ((255, 0, 0), (0, 0, 255), (0, 255, 0))]
    frames = seen(animate(animation("WEBP", flat), width=13, height=13, lossless=True).data)
    assert [frame.convert("RGB").getcolors() for frame in frames] == [
        [(169, (255, 0, 0))],
        [(169, (0, 0, 255))],
        [(169, (0, 255, 0))],
    ]


def test_several_results_of_one_decode() -> None:
    data = animation("GIF")
    sizes = [(30, 20), (15, 10), (60, 40)]
    wanted = [
        *(
            ResizeOptions(width=width, height=height, pages="all", format=Format.WEBP)
            for width, height in sizes
        ),
        ResizeOptions(width=30, height=20, format=Format.JPEG),
    ]
    outputs = run(data, *wanted).outputs
    assert [one.info.frames for one in outputs] == [4, 4, 4, 1]
    assert [seen(one.data)[3].size for one in outputs[:3]] == sizes


@pytest.mark.parametrize(("kind", "kept"), [("GIF", "gif"), ("WEBP", "webp"), ("PNG", "webp")])
def test_auto_keeps_the_frames(kind: str, kept: str) -> None:
    output = animate(animation(kind), format="auto")
    assert (output.info.format, output.info.frames) == (kept, 4)


def test_a_lost_frame_is_told() -> None:
    data = animation("GIF")
    assert animate(data, format="auto", pages=None).info.frames == 1
    assert animate(SAMPLES["jpeg"](), format="auto", pages=None).info.frames is None


def test_equal_frames_of_a_webp_become_one() -> None:
    first, second, *_ = pictures()
    data = animation("PNG", [first, second], delays=[50, 70])
    twice = animation("GIF", [first, second, first], delays=[50, 70, 30])
    assert animate(data).info.frames == 2
    assert animate(twice, format="gif").info.frames == 3


def test_max_bytes_lowers_the_quality_of_all_frames() -> None:
    noise = [Image.frombytes("RGB", (64, 64), random.Random(n).randbytes(64 * 64 * 3)) for n in range(3)]
    data = animation("PNG", noise)
    whole = animate(data, width=64, height=64, quality=90)
    small = animate(data, width=64, height=64, quality=90, max_bytes=whole.info.size // 2)
    assert small.info.size <= whole.info.size // 2
    assert (small.info.frames, small.info.quality < 90) == (3, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "jpeg"}, "format: jpeg cannot hold the 4 frames of 'pages'; choose one of: webp, gif"),
        ({"format": "avif"}, "format: avif cannot hold the 4 frames"),
        ({"pages": "2-4"}, "pages: 4 is beyond the last; this gif has 4 pages, counted from 0"),
        ({"trim": 5}, "trim: "),
        ({"format": "gif", "max_bytes": 9000}, "max_bytes: gif has no quality to lower"),
    ],
)
def test_bad_requests(options: dict[str, Any], message: str) -> None:
    error = refusal(animation("GIF"), **options)
    assert isinstance(error, BadRequest)
    assert error.message.startswith(message)


def test_pages_of_a_document_are_no_animation() -> None:
    data = animation("TIFF")
    error = refusal(data)
    assert isinstance(error, BadRequest)
    assert error.message == (
        "pages: no animation is made of the 4 pages of this tiff; choose one with 'page'"
    )


def test_all_frames_of_a_still_image() -> None:
    output = animate(SAMPLES["jpeg"](), format="auto")
    assert (output.info.format, output.info.frames) == ("jpeg", 1)


def test_frames_of_a_gif_are_shown_on_its_screen() -> None:
    # libnsgif takes no notice of this screen, paints what no frame covers black, and clears to a colour.
    red, blue = Image.new("RGB", (40, 30), (255, 0, 0)), Image.new("RGB", (10, 10), (0, 0, 255))
    data = _gif_of_boxes((640, 480), [(red, (100, 60), 2), (blue, (300, 200), 1)])
    frames = seen(animate(data, width=640, height=480, lossless=True).data)
    assert [frame.getpixel((0, 0)) for frame in frames] == [(0, 0, 0, 0)] * 2
    assert [frame.getpixel((120, 80)) for frame in frames] == [(255, 0, 0, 255), (0, 0, 0, 0)]
    assert [frame.getpixel((305, 205)) for frame in frames] == [(0, 0, 0, 0), (0, 0, 255, 255)]


def _gif_of_boxes(size: tuple[int, int], boxes: list[tuple[Image.Image, tuple[int, int], int]]) -> bytes:
    """A GIF of frames of one colour at their places, with their disposal."""
    data = b"GIF89a" + struct.pack("<HHBBB", *size, 0, 0, 0)
    for image, (left, top), disposal in boxes:
        file = io.BytesIO()
        image.quantize(2).save(file, "GIF")
        one = file.getvalue()
        palette = one[13 : 13 + 6]
        begin = one.index(b"\x2c\0\0\0\0") + 10
        place = struct.pack("<HHHHB", left, top, *image.size, 0x80)
        data += bytes([0x21, 0xF9, 4, disposal << 2, 5, 0, 0, 0, 0x2C]) + place + palette + one[begin:-1]
    return data + b";"


# Costs


def test_all_frames_together_are_limited() -> None:
    data = animation("GIF")
    area = SIZE[0] * SIZE[1]
    error = refusal(data, replace(LIMITS, max_pixels=3 * area))
    assert isinstance(error, TooLarge)
    assert error.message.startswith("the 4 frames have 9600 pixels (60 x 40 each); max-pixels allows")
    error = refusal(data, replace(LIMITS, max_output_pixels=3 * 600))
    assert error.message.startswith("the 4 frames of the result take 2400 pixels together")


def test_frames_cost_memory_and_time() -> None:
    predicted = []
    for count in (4, 40):
        data = animation("GIF", pictures(count, (400, 300)), delays=[50] * count)
        upload = pipeline.Upload.from_memory(data)
        wanted = ResizeOptions(width=200, height=150, pages="all", format=Format.WEBP)
        header = pipeline.probe.open_frames(upload, pipeline.probe.read_header(upload), "all")
        predicted.append(cost.predict(upload, header, [wanted]))
    few, many = predicted
    assert many.memory - few.memory > 36 * 200 * 150 * 3
    assert 5 * few.seconds < many.seconds < 20 * few.seconds


def _webp_of(count: int) -> bytes:
    still = animation("WEBP", [Image.new("RGBA", (2, 2))])
    bitstream = still[still.index(b"VP8L") :]
    frame = b"\0" * 6 + b"\1\0\0" * 2 + b"\x64\0\0\0" + bitstream
    body = b"VP8X" + struct.pack("<I", 10) + b"\x12\0\0\0" + b"\1\0\0" * 2
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += (b"ANMF" + struct.pack("<I", len(frame)) + frame) * count
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _gif_of(count: int) -> bytes:
    frame = b"\x21\xf9\x04\0\x05\0\0\0\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0x80, 0, 0) + bytes(6) + frame * count + b";"


def _apng_of(count: int) -> bytes:
    one = Image.new("RGBA", (1, 1))
    beginning = apng((1, 1), [(one, (0, 0), 0, 0)], stated=count)[:-12]
    frame = control(1, (0, 0, 1, 1)) + chunk(b"fdAT", struct.pack(">I", 2) + pixels(one))
    return beginning + frame * (count - 1) + chunk(b"IEND", b"")


@pytest.mark.parametrize("make", [_gif_of, _webp_of, _apng_of])
def test_a_million_frames_are_refused_at_once(make: Any) -> None:
    data = make(1_000_000)
    started = time.process_time()
    error = refusal(data)
    assert time.process_time() - started < 0.3
    assert isinstance(error, TooLarge)
    assert "frames" in error.message


def test_frames_behind_comments_are_counted() -> None:
    # The comments are where a fixed choice of samples would look.
    data, count = _gif_of(80_000 * 8), 8
    head, frames = data[:19], data[19:-1]
    comment = b"\x21\xfe" + (b"\xff" + b"x" * 255) * 66 + b"\0"
    part = len(frames) // count
    hidden = b"".join(comment + frames[start : start + part] for start in range(0, len(frames), part))
    with pytest.raises(TooLarge, match="more than 10000 pages or frames"):
        check_frames(pipeline.Upload.from_memory(head + hidden + b";"))


def test_palettes_behind_the_pixels_of_a_png_are_no_part_of_its_frames() -> None:
    data = broken()
    place = data.index(b"fcTL", data.index(b"IDAT")) - 4
    many = data[:place] + chunk(b"PLTE", bytes(768)) * 20_000 + data[place:]
    started = time.process_time()
    frames = seen(animate(many, width=10, height=10, lossless=True).data)
    assert time.process_time() - started < 1
    wanted = seen(animate(data, width=10, height=10, lossless=True).data)
    for frame, expected in zip(frames, wanted, strict=True):
        assert difference(frame, expected) == 0


# Animated PNG


def square(colour: tuple[int, int, int, int], side: int = 10) -> Image.Image:
    return Image.new("RGBA", (side, side), colour)


@pytest.mark.parametrize("dispose", [0, 1, 2])
@pytest.mark.parametrize("blend", [0, 1])
def test_frames_of_a_png_are_drawn_in_every_way(dispose: int, blend: int) -> None:
    ground, half, veil = (250, 0, 0, 200), (0, 250, 0, 128), (0, 0, 250, 60)
    drawn = [
        (square(ground, 20), (0, 0), 0, 0),
        (square(half), (3, 4), dispose, blend),
        (square(veil), (8, 8), dispose, blend),
        (square((90, 90, 90, 255), 3), (0, 0), 0, blend),
    ]
    frames = seen(animate(apng((20, 20), drawn), width=20, height=20, lossless=True).data)
    assert len(frames) == 4
    for frame, expected in zip(frames, _drawn((20, 20), drawn), strict=True):
        assert difference(frame, expected) < 1


def _drawn(
    size: tuple[int, int], frames: list[tuple[Image.Image, tuple[int, int], int, int]]
) -> Iterator[Image.Image]:
    """The frames by Pillow: not by its reader, which blends translucent pixels in another way."""
    canvas = Image.new("RGBA", size)
    for image, place, dispose, blend in frames:
        before = canvas.copy()
        if blend:
            canvas.alpha_composite(image, place)
        else:
            canvas.paste(image, place)
        yield canvas.copy()
        if dispose == 1:
            canvas.paste((0, 0, 0, 0), (*place, place[0] + image.width, place[1] + image.height))
        elif dispose == 2:
            canvas = before


def test_nothing_is_restored_before_the_first_frame() -> None:
    data = apng((10, 10), [(square((250, 0, 0, 255)), (0, 0), 2, 0), (square((0, 0, 0, 0)), (0, 0), 0, 1)])
    frames = seen(animate(data, width=10, height=10, lossless=True).data)
    assert frames[1].getpixel((5, 5))[3] == 0  # type: ignore[index]


def test_long_delays_and_many_plays_are_cut_to_what_the_format_holds() -> None:
    data = broken().replace(control(0, (0, 0, 10, 10)), control(0, (0, 0, 10, 10), delay=(65535, 1)))
    data = data.replace(
        chunk(b"acTL", struct.pack(">II", 2, 0)), chunk(b"acTL", struct.pack(">II", 2, 2**31))
    )
    assert timing(animate(data, format="gif").data) == ([655_350, 100], 65_534)
    assert timing(animate(data).data) == ([2**24 - 1, 100], 65_535)


def test_a_default_image_is_no_frame() -> None:
    frames = [(square(colour), (0, 0), 0, 0) for colour in ((250, 0, 0, 255), (0, 250, 0, 255))]
    data = apng((10, 10), frames, default=square((0, 0, 250, 255)))
    assert info(data).pages == 2
    found = [frame.getpixel((5, 5)) for frame in seen(animate(data, lossless=True).data)]
    assert found == [(250, 0, 0, 255), (0, 250, 0, 255)]
    (default,) = seen(animate(data, pages=None, format="png").data)
    assert default.getpixel((5, 5)) == (0, 0, 250, 255)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1"])
def test_every_kind_of_png(mode: str) -> None:
    frames = [image.convert("L").convert(mode) for image in pictures()]
    data = animation("PNG", frames)
    assert info(data).pages == 4
    results = seen(animate(data, width=60, height=40, lossless=True).data)
    for frame, source in zip(results, frames, strict=True):
        assert difference(frame, source.convert("RGBA")) < 1


def test_a_png_of_16_bits() -> None:
    first, second = bytes([250, 7] * 3 + [255] * 2), bytes([20, 9] * 3 + [128, 0])
    rows = [zlib.compress((b"\0" + pixel * 10) * 10) for pixel in (first, second)]
    parts = [
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 10, 16, 6, 0, 0, 0)),
        chunk(b"acTL", struct.pack(">II", 2, 0)) + control(0, (0, 0, 10, 10)) + chunk(b"IDAT", rows[0]),
        control(1, (0, 0, 10, 10), blend=1) + chunk(b"fdAT", struct.pack(">I", 2) + rows[1]),
        chunk(b"IEND", b""),
    ]
    frames = seen(animate(b"".join(parts), width=10, height=10, lossless=True).data)
    assert frames[0].getpixel((5, 5)) == (250, 250, 250, 255)
    assert frames[1].getpixel((5, 5)) == pytest.approx((135, 135, 135, 255), abs=1)


def broken(**changes: Any) -> bytes:
    frames = [(square((250, 0, 0, 255)), (0, 0), 0, 0), (square((0, 9, 0, 255), 5), (2, 2), 0, 0)]
    return apng((10, 10), frames, **changes)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (broken(stated=3), "this png has 2 frames with pixels; its header states 3"),
        (broken()[:-40], "this png has 1 frames with pixels; its header states 2"),
        (broken().replace(b"\0\0\0\2x", b"\0\0\0\3x"), "the frames of this png are out of sequence"),
        (
            apng((10, 10), [(square((1, 2, 3, 4)), (0, 0), 0, 0), (square((1, 2, 3, 4)), (1, 0), 0, 0)]),
            "frame 1 of this png lies outside of its canvas",
        ),
        (
            apng((10, 10), [(square((1, 2, 3, 4)), (0, 0), 0, 0), (square((1, 2, 3, 4)), (0, 0), 3, 0)]),
            "frame 1 of this png is drawn in an unknown way",
        ),
    ],
)
def test_broken_frames_of_a_png(data: bytes, message: str) -> None:
    error = refusal(data)
    assert isinstance(error, CorruptImage)
    assert error.message.startswith(message)


def test_pixels_of_a_frame_that_cannot_be_decoded() -> None:
    good = broken()
    begin = good[: good.index(b"fdAT") - 4]
    bad = begin + chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(b"no rows")) + chunk(b"IEND", b"")
    error = refusal(bad)
    assert isinstance(error, CorruptImage)
    assert error.message.startswith("frame 1 of this png cannot be decoded")


def test_a_png_that_lies_about_its_frames_is_a_still_image() -> None:
    data = broken(stated=2**31)
    assert info(data).pages == 1
    assert animate(data, pages=None, format="png").info.frames is None
