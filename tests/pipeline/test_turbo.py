"""libjpeg-turbo and the SIMD reduction give what libvips gives, and leave to it what they cannot do."""

import contextlib
import io
from typing import Any

import pytest
from PIL import Image, ImageOps

from tests.pipeline.run import resize, run
from tests.support.image_comparison import mean_abs_difference, open_exact, reference, ssim
from tests.support.images import adobe_rgb_profile, encode, photo, truncated
from vipsrv.errors import CorruptImage
from vipsrv.options import Fit, Format, Keep, ResizeOptions
from vipsrv.pipeline import Upload, turbo
from vipsrv.pipeline.formats.jpeg.shrink import direct_shrink
from vipsrv.pipeline.probe import read_header
from vipsrv.pipeline.turbo import codec

needs_turbo = pytest.mark.skipif(not turbo.AVAILABLE, reason="simplejpeg or cykooz-resizer is not installed")


def stretched(width: int, height: int, mode: str = "RGB") -> Image.Image:
    return photo().resize((width, height), Image.Resampling.LANCZOS).convert(mode)


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each call of the decoder: whether it decoded the image."""
    calls = []
    decode = codec.decode

    def counting(*arguments: Any) -> Any:
        calls.append(False)
        pixels = decode(*arguments)
        calls[-1] = True
        return pixels

    monkeypatch.setattr(codec, "decode", counting)
    return calls


@needs_turbo
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}]
)
def test_a_jpeg_is_decoded_by_libjpeg_turbo(decodes: list[bool], mode: str, options: dict[str, Any]) -> None:
    image = encode(stretched(800, 600, mode), "JPEG", quality=92, **options)
    result = resize(image, 200, 150, quality=95)
    assert decodes == [True]
    assert ssim(result, reference(image, 200, 150)) > 0.97


@needs_turbo
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied(decodes: list[bool], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = encode(stretched(640, 320), "JPEG", quality=92, exif=exif)
    size = (90, 180) if orientation > 4 else (180, 90)
    assert mean_abs_difference(resize(image, *size, quality=95), reference(image, *size)) < 2
    assert decodes == [True]


@needs_turbo
def test_a_cmyk_image_is_left_to_libvips(decodes: list[bool]) -> None:
    assert resize(encode(stretched(400, 300, "CMYK"), "JPEG"), 100, 75).size == (100, 75)
    assert decodes == []


@needs_turbo
def test_a_truncated_image_is_refused_as_libvips_refuses_it(
    decodes: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = truncated(encode(stretched(400, 300), "JPEG"))
    with pytest.raises(CorruptImage) as refusal:
        resize(image, 100, 75)
    assert decodes == [False]
    monkeypatch.setattr(turbo, "AVAILABLE", False)
    with pytest.raises(CorruptImage) as by_libvips:
        resize(image, 100, 75)
    assert str(refusal.value) == str(by_libvips.value)


@needs_turbo
@pytest.mark.parametrize("source", [(1601, 1201), (407, 407), (2725, 301), (1607, 1207), (1599, 1199)])
@pytest.mark.parametrize("factor", [2, 3.7, 8])
def test_an_odd_side_keeps_its_last_columns(source: tuple[int, int], factor: float) -> None:
    # A ramp: a column that is lost, or counted twice, changes the brightness of the edge.
    ramp = Image.linear_gradient("L").rotate(90).resize(source, Image.Resampling.BICUBIC).convert("RGB")
    image = encode(ramp, "JPEG", quality=98)
    width, height = (round(side / factor) for side in source)
    result, wanted = resize(image, width, height, quality=98), reference(image, width, height)
    for edge in [(width - 2, 0, width, height), (0, height - 2, width, height)]:
        assert mean_abs_difference(result.crop(edge), wanted.crop(edge)) < 1.5


@needs_turbo
def test_an_odd_side_is_decoded_as_small_as_an_even_one() -> None:
    for odd, even, target in [
        ((1601, 1201), (1600, 1200), (800, 600)),
        ((2725, 2225), (2724, 2224), (681, 556)),
        ((3999, 2999), (4000, 3000), (400, 300)),
    ]:
        assert first_shrink(odd, target) == first_shrink(even, target) != 1
    assert first_shrink((1599, 1199), (800, 600)) == 2
    assert first_shrink((1580, 1180), (800, 600)) == 1
    assert first_shrink((11, 843), (1, 105)) == 1  # 3 of 11 columns would count as 8
    assert direct_shrink((100, 100), (101, 100)) is None
    assert direct_shrink((40_000, 40_000), (4000, 4000)) is None


def first_shrink(size: tuple[int, int], target: tuple[int, int]) -> int | None:
    found = direct_shrink(size, target)
    return None if found is None else found.first


@needs_turbo
@pytest.mark.parametrize(
    ("size", "border", "shrinks"),
    [
        ((407, 400), None, [8]),
        ((407, 400), (250, 120, 120), [8, 4]),
        ((400, 407), (250, 120, 120), [8, 4]),
        ((400, 400), (250, 120, 120), [8]),
        ((457, 457), (250, 120, 120), [8]),  # the last pixel is the mean of equal columns
    ],
)
def test_only_an_image_with_a_border_is_decoded_larger(
    size: tuple[int, int],
    border: tuple[int, int, int] | None,
    shrinks: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = stretched(*size)
    if border is not None:
        image = ImageOps.expand(image.crop((3, 3, size[0] - 3, size[1] - 3)), 3, border)
    used, decode = [], codec.decode

    def noted(data: Any, size: tuple[int, int], shrink: int) -> Any:
        used.append(shrink)
        return decode(data, size, shrink)

    monkeypatch.setattr(codec, "decode", noted)
    data = encode(image, "JPEG", quality=90)
    result = resize(data, 50, 50)
    assert used == shrinks
    if border is not None:
        wanted = reference(encode(image, "PNG"), 50, 50)
        for edge in [(49, 5, 50, 45), (5, 49, 45, 50)]:
            assert mean_abs_difference(result.crop(edge), wanted.crop(edge)) < 20


@pytest.mark.parametrize("is_available", [pytest.param(True, marks=needs_turbo), False])
@pytest.mark.parametrize(
    "options",
    [
        {"format": Format.PNG},
        {"format": Format.WEBP, "keep": Keep.ALL},
        {"fit": Fit.COVER, "width": 150},
        {"fit": Fit.CONTAIN, "width": 300},
        {"quality": 95},
        {"keep": Keep.EXIF},
        {"max_bytes": 9000},
    ],
)
def test_every_operation_gives_the_same_in_both_ways(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], *, is_available: bool
) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = 6
    image = encode(stretched(600, 800), "JPEG", quality=95, exif=exif)
    wanted = ResizeOptions(**{"width": 200, "height": 150, **options})
    monkeypatch.setattr(turbo, "AVAILABLE", False)
    by_libvips = run(image, wanted).outputs[0]
    monkeypatch.setattr(turbo, "AVAILABLE", is_available)
    result = run(image, wanted).outputs[0]
    one, other = open_exact(result.data), open_exact(by_libvips.data)
    assert one.size == other.size
    assert ssim(one.convert("RGB"), other.convert("RGB")) > 0.97
    assert dict(one.getexif()) == dict(other.getexif())
    if wanted.max_bytes is not None:
        assert len(result.data) <= wanted.max_bytes


@needs_turbo
@pytest.mark.parametrize(("quality", "sampling"), [(89, 2), (90, 0)])
def test_colours_are_stored_as_libvips_stores_them(quality: int, sampling: int) -> None:
    from PIL import JpegImagePlugin  # noqa: PLC0415 - only its one function is needed

    image = encode(stretched(400, 300), "JPEG")
    data = run(image, ResizeOptions(width=100, height=75, quality=quality)).outputs[0].data
    assert JpegImagePlugin.get_sampling(Image.open(io.BytesIO(data))) == sampling


def lossless(width: int, height: int) -> bytes:
    """A grey image as a lossless JPEG (ITU-T T.81, annex H): every difference to the pixel before it is 0."""
    frame = (
        b"\x08"
        + height.to_bytes(2)
        + width.to_bytes(2)
        + b"\x03"
        + b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    )
    table = b"\0\x01" + bytes(15) + b"\0"  # one code, a single bit, for a difference of 0
    scan = b"\x03\x01\0\x02\0\x03\0\x01\0\0"  # the pixel to the left is the prediction
    segments = [(0xC3, frame), (0xC4, table), (0xDA, scan)]
    head = b"".join(bytes([0xFF, marker]) + (len(data) + 2).to_bytes(2) + data for marker, data in segments)
    return b"\xff\xd8" + head + bytes(width * height * 3 // 8) + b"\x7f\xff\xd9"


@needs_turbo
def test_a_lossless_image_never_reaches_libjpeg_turbo(decodes: list[bool]) -> None:
    # Asked for an eighth of it, libjpeg-turbo 3.1 decodes all of it, and overruns the memory for an eighth.
    image = lossless(640, 480)
    header = read_header(Upload.from_memory(image))
    assert (header.info.width, header.info.height) == (640, 480)
    with contextlib.suppress(CorruptImage):
        assert resize(image, 80, 60).size == (80, 60)
    assert decodes == []


@needs_turbo
def test_bytes_between_the_segments_are_left_to_libvips(decodes: list[bool]) -> None:
    image = encode(stretched(400, 300), "JPEG", icc_profile=adobe_rgb_profile())
    table = image.index(b"\xff\xdb")
    assert resize(image, 100, 75).size == (100, 75)
    assert decodes == [True]
    assert resize(image[:table] + b"\0\x01\0" + image[table:], 100, 75).size == (100, 75)
    assert decodes == [True]
