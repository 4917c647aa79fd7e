"""What the boxes of an AVIF say and libvips does not apply: the frames of a film, premultiplied alpha."""

import contextlib
import io
import random
import struct
from typing import Final

import pytest
from PIL import Image, features

from tests.pipeline.run import info, run
from tests.support.image_comparison import open_exact
from tests.support.images import adobe_rgb_profile
from vipsrv.errors import BadRequest, CorruptImage, RequestError, TooLarge
from vipsrv.options import Format, Keep, ResizeOptions
from vipsrv.pipeline.formats.heif.av1 import StreamColours, stream_colours
from vipsrv.pipeline.formats.heif.items import shown_image
from vipsrv.pipeline.formats.heif.sequence import read_film
from vipsrv.pipeline.upload import Upload

pytestmark = pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")

FRAMES: Final = 5
SIZE: Final = (64, 48)


def _colour(number: int) -> tuple[int, int, int]:
    return (number * 40, 100, 200 - number * 40)


def film(*, has_alpha: bool = False, brand: bytes = b"avis") -> bytes:
    """Frames of one colour each; those after the first depend on it."""
    images = [
        Image.new("RGBA", SIZE, (*_colour(number), 50 + 40 * number))
        if has_alpha
        else Image.new("RGB", SIZE, _colour(number))
        for number in range(FRAMES)
    ]
    file = io.BytesIO()
    images[0].save(file, "AVIF", save_all=True, append_images=images[1:], quality=90)
    return file.getvalue().replace(b"ftypavis", b"ftyp" + brand, 1)


def page(data: bytes, number: int) -> Image.Image:
    """A frame as PNG."""
    options = ResizeOptions(width=32, height=24, format=Format.PNG, page=number)
    return open_exact(run(data, options).outputs[0].data)


@pytest.mark.parametrize("has_alpha", [False, True])
@pytest.mark.parametrize("has_still", [True, False])
def test_each_frame_is_a_page(has_alpha: bool, has_still: bool) -> None:  # noqa: FBT001
    data = film(has_alpha=has_alpha)
    if not has_still:
        data = data.replace(b"meta", b"free", 1)
    facts = info(data)
    assert (facts.format, facts.width, facts.height, facts.pages) == ("avif", *SIZE, FRAMES)
    assert facts.has_alpha is has_alpha
    for number in range(FRAMES):
        shown = page(data, number)
        pixel = shown.getpixel((16, 12))
        assert isinstance(pixel, tuple)
        wanted = (*_colour(number), 50 + 40 * number) if has_alpha else _colour(number)
        # At a fifth of opacity a step of the premultiplied colour is five levels.
        assert pixel == pytest.approx(wanted, abs=9 if has_alpha else 4), number
    with pytest.raises(BadRequest, match="page: 5 is beyond the last"):
        page(data, FRAMES)


def test_several_frames_in_one_request() -> None:
    outputs = [ResizeOptions(width=32, height=24, format=Format.PNG, page=number) for number in (3, 0, 3)]
    shown = [open_exact(output.data).getpixel((5, 5)) for output in run(film(), *outputs).outputs]
    assert shown[0] == shown[2] == pytest.approx(_colour(3), abs=5)
    assert shown[1] == pytest.approx(_colour(0), abs=5)


def test_a_still_image_with_a_film_beside_it_is_one_page() -> None:
    assert info(film(brand=b"avif")).pages == 1


def test_a_film_without_readable_tables_is_its_still_image_or_refused() -> None:
    for name in (b"stsz", b"stsc", b"stco", b"stsd", b"tkhd", b"mdia", b"av1C"):
        whole = film()
        start = whole.index(b"moov")
        data = whole[:start] + whole[start:].replace(name, b"free", 1)
        assert read_film(Upload.from_memory(data), has_still=True) is None
        # libheif reads the tables as well, and refuses most of such files.
        with contextlib.suppress(CorruptImage):
            assert page(data, 0).getpixel((5, 5)) == pytest.approx(_colour(0), abs=5)
        with pytest.raises(RequestError):
            info(data.replace(b"meta", b"free", 1))


def _with_number(data: bytes, box: bytes, place: int, value: int) -> bytes:
    """The file with another number in a box of its film."""
    at = data.index(box, data.index(b"moov")) + 4 + place
    return data[:at] + struct.pack(">I", value) + data[at + 4 :]


def test_tables_that_lie() -> None:
    data = film()
    with pytest.raises(TooLarge, match="10000"):
        info(_with_number(data, b"stsz", 8, 2**32 - 1))
    six = Upload.from_memory(_with_number(data, b"stsz", 8, 6))
    assert read_film(six, has_still=True) is None, "its table has five sizes"
    for bad in (
        _with_number(data, b"stco", 8, 2**32 - 1),  # where the frames begin
        _with_number(data, b"stsz", 12, 2**31),  # the size of the first one
        _with_number(data, b"stsz", 4, 2**20),  # the size of each
        _with_number(data, b"stss", 8, 5),  # the frame that stands alone
    ):
        with pytest.raises(CorruptImage):
            page(bad, 1)
    # One chunk, and the whole file again and again for each frame.
    again = _with_number(_with_number(data, b"stsz", 4, len(data) - 1), b"stco", 8, 0)
    with pytest.raises(CorruptImage):
        page(again, 4)


def test_damaged_films_are_refused_or_read() -> None:
    generator = random.Random(5)
    whole = film(has_alpha=True)
    start, end = whole.index(b"moov"), whole.index(b"mdat")
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(3):
            data[generator.randrange(start, end)] = generator.randrange(256)
        upload = Upload.from_memory(bytes(data))
        try:
            found = read_film(upload, has_still=True)
            if found is not None:
                for number in {0, found.count - 1}:
                    assert len(found.file(number)) < 3 * len(data)
        except RequestError:
            continue


def _premultiplied(data: bytes) -> bytes:
    """The file with a reference that says so, from item 1 to item 2, before the one for alpha."""
    reference = struct.pack(">I4sHHH", 14, b"prem", 1, 1, 2)
    iref, meta = data.index(b"iref"), data.index(b"meta")
    grown = bytearray(data[: iref + 8] + reference + data[iref + 8 :])
    for place in (iref, meta):
        size = struct.unpack_from(">I", grown, place - 4)[0]
        struct.pack_into(">I", grown, place - 4, size + len(reference))
    iloc = data.index(b"iloc")
    assert data[iloc + 4] == 0, "its version"
    for item in range(2):
        # Number, reference, count of extents; then the place.
        place = iloc + 12 + item * 14 + 6
        struct.pack_into(">I", grown, place, struct.unpack_from(">I", grown, place)[0] + len(reference))
    return bytes(grown)


def test_premultiplied_alpha_is_undone_once() -> None:
    image = Image.new("RGBA", SIZE, (110, 15, 30, 128))
    image.paste((0, 0, 0, 0), (0, 0, 32, 48))
    file = io.BytesIO()
    image.save(file, "AVIF", quality=100, subsampling="4:4:4")
    plain = file.getvalue()
    upload = Upload.from_memory(_premultiplied(plain))
    shown = shown_image(upload)
    assert shown is not None
    assert shown.is_premultiplied
    for data, wanted in ((plain, (110, 15, 30, 128)), (_premultiplied(plain), (219, 30, 60, 128))):
        for kind in (Format.PNG, Format.WEBP):
            options = ResizeOptions(width=32, height=24, format=kind, lossless=True)
            result = open_exact(run(data, options).outputs[0].data).convert("RGBA")
            assert result.getpixel((24, 12)) == pytest.approx(wanted, abs=6)
            assert result.getpixel((4, 12)) == (0, 0, 0, 0)
        flat = open_exact(run(data, ResizeOptions(width=32, height=24, quality=100)).outputs[0].data)
        mixed = [(one + 255) / 2 for one in wanted[:3]]
        assert flat.getpixel((24, 12)) == pytest.approx(tuple(mixed), abs=5)
        assert flat.getpixel((4, 12)) == pytest.approx((255, 255, 255), abs=3)


def test_a_profile_counts_before_the_numbers() -> None:
    file = io.BytesIO()
    image = Image.new("RGB", SIZE, (60, 200, 60))
    image.save(file, "AVIF", quality=95, icc_profile=adobe_rgb_profile())
    data = file.getvalue()
    place = data.index(b"colrnclx") + 8
    other = data[:place] + struct.pack(">HH", 9, 16) + data[place + 4 :]
    for keep in (Keep.NONE, Keep.ICC):
        options = ResizeOptions(width=32, height=24, format=Format.PNG, keep=keep)
        one, two = (open_exact(run(each, options).outputs[0].data) for each in (data, other))
        assert one.getpixel((9, 9)) == two.getpixel((9, 9))
        assert ("icc_profile" in two.info) is (keep is Keep.ICC)


@pytest.mark.parametrize("mode", ["L", "LA"])
@pytest.mark.parametrize("has_box", [True, False])
def test_narrow_range_of_a_monochrome_image(mode: str, has_box: bool) -> None:  # noqa: FBT001
    for grey in (0, 100, 255):
        file = io.BytesIO()
        image = Image.new(mode, SIZE, grey if mode == "L" else (grey, 128))
        image.save(file, "AVIF", quality=95, range="limited", subsampling="4:0:0")
        data = file.getvalue() if has_box else file.getvalue().replace(b"colrnclx", b"freenclx")
        wanted = (grey, grey, grey) if mode == "L" else (grey, grey, grey, 128)
        assert page(data, 0).getpixel((5, 5)) == pytest.approx(wanted, abs=3)


def test_the_header_of_a_stream() -> None:
    # With timing, a decoder model, two operating points and ten bits, as the specification lays them out.
    def bits(*fields: tuple[int, int]) -> str:
        return "".join(f"{value:0{count}b}" for value, count in fields)

    point = [(0, 12), (9, 5), (1, 1), (1, 1), (5, 12), (6, 12), (0, 1), (1, 1), (3, 4)]
    stream = bits(
        *[(0, 3), (0, 1), (0, 1), (1, 1), (1, 32), (30, 32), (1, 1), (1, 1)],
        *[(1, 1), (11, 5), (1, 32), (9, 5), (9, 5), (1, 1), (1, 5)],
        *point,
        *[(0, 12), (3, 5), (0, 1), (0, 1)],
        *[(9, 4), (8, 4), (639, 10), (399, 9), (1, 1), (3, 4), (2, 3), (7, 3)],
        *[(0, 4), (1, 1), (3, 2), (0, 1), (1, 1), (0, 1), (1, 1), (6, 3), (7, 3)],
        *[(1, 1), (0, 1), (1, 1), (9, 8), (16, 8), (9, 8), (0, 1)],
    )
    body = int(stream.ljust(-(-len(stream) // 8) * 8, "0"), 2).to_bytes(-(-len(stream) // 8))
    unit = bytes([0x12, 0, 0x0A, len(body)]) + body
    assert stream_colours(unit) == StreamColours(primaries=9, transfer=16, is_narrow=True)
    for length in range(len(unit) - 4):
        assert stream_colours(unit[:length]) is None
    assert stream_colours(b"\xff" * 300) is None
    assert stream_colours(bytes(300)) is None
