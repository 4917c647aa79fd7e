"""TGA: every kind gives the right pixels, and nothing else is taken for a TGA."""

import io
import itertools
import random
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.pipeline.run import LIMITS, info, refusal, sample
from tests.support.image_comparison import mean_abs_difference, open_exact
from tests.support.images import SAMPLES, alpha_photo, encode, photo
from vipsrv import pipeline
from vipsrv.errors import Cancelled, CorruptImage, RequestError, TooLarge, UnsupportedFormat
from vipsrv.options import Format, ResizeOptions
from vipsrv.pipeline.formats import tga
from vipsrv.worker_config import WorkerConfig

WIDTH, HEIGHT = 23, 11
FOOTER = bytes(8) + b"TRUEVISION-XFILE.\0"
CORPUS = Path(__file__).parents[3] / "shared" / "corpus" / "pillow"
ORIGINS = {"bottom left": 0x00, "bottom right": 0x10, "top left": 0x20, "top right": 0x30}


def make_tga(
    rows: list[list[bytes]],
    kind: int,
    bits: int,
    *,
    descriptor: int = 0x20,
    encoded: bool = False,
    image_id: bytes = b"",
    colour_map: tuple[int, int, bytes] | None = None,
) -> bytes:
    """A TGA of ``rows`` from the top left, a list of pixels each, stored as the ``descriptor`` says.

    ``colour_map``: index of the first colour, bits of each, and their bytes.
    """
    if descriptor & 0x10:
        rows = [row[::-1] for row in rows]
    if not descriptor & 0x20:
        rows = rows[::-1]
    first, map_bits, colours = colour_map or (0, 0, b"")
    length = len(colours) // ((map_bits + 7) // 8) if map_bits else 0
    head = struct.pack(
        "<BBBHHBHHHHBB",
        len(image_id),
        1 if colour_map else 0,
        kind + 8 if encoded else kind,
        first,
        length,
        map_bits,
        0,
        0,
        len(rows[0]),
        len(rows),
        bits,
        descriptor,
    )
    pixels = [pixel for row in rows for pixel in row]
    return head + image_id + colours + b"".join(packets(pixels) if encoded else pixels)


def packets(pixels: list[bytes]) -> Iterator[bytes]:
    """Runs of equal pixels, and all others as they are; both across the ends of rows."""
    for is_run, group in itertools.groupby(
        ((pixel, len(list(same))) for pixel, same in itertools.groupby(pixels)), lambda one: one[1] > 1
    ):
        if is_run:
            for pixel, count in group:
                for start in range(0, count, 128):
                    yield bytes([0x80 | (min(128, count - start) - 1)]) + pixel
        else:
            single = [pixel for pixel, _ in group]
            for start in range(0, len(single), 128):
                part = single[start : start + 128]
                yield bytes([len(part) - 1]) + b"".join(part)


def scene(mode: str) -> Image.Image:
    """Runs beside pixels that all differ."""
    image = (alpha_photo if "A" in mode else photo)(WIDTH, HEIGHT).convert(mode)
    image.paste(image.getpixel((3, 3)), (5, 2, WIDTH, 6))  # type: ignore[arg-type]
    return image


def pixel_rows(image: Image.Image, order: tuple[int, ...]) -> list[list[bytes]]:
    data, bands = image.tobytes(), len(image.getbands())
    pixels = [bytes(data[at + band] for band in order) for at in range(0, len(data), bands)]
    return [pixels[at : at + image.width] for at in range(0, len(pixels), image.width)]


def decoded(data: bytes, config: WorkerConfig = LIMITS) -> Image.Image:
    """The image in its own size, without loss."""
    facts = info(data)
    options = ResizeOptions(width=facts.width, height=facts.height, format=Format.PNG)
    upload = pipeline.Upload.from_memory(data)
    return open_exact(pipeline.resize(upload, (options,), config=config).outputs[0].data)


def pixels_of(image: Image.Image, mode: str = "RGB") -> tuple[tuple[int, int], bytes]:
    return image.size, image.convert(mode).tobytes()


@pytest.mark.parametrize("descriptor", ORIGINS.values(), ids=ORIGINS)
@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize(
    ("mode", "kind", "bits", "order", "attribute_bits"),
    [
        ("RGB", 2, 24, (2, 1, 0), 0),
        ("RGBA", 2, 32, (2, 1, 0, 3), 8),
        ("L", 3, 8, (0,), 0),
        ("LA", 3, 16, (0, 1), 8),
    ],
)
def test_every_pixel_is_right_and_as_pillow_reads_it(
    mode: str,
    kind: int,
    bits: int,
    order: tuple[int, ...],
    attribute_bits: int,
    descriptor: int,
    *,
    encoded: bool,
) -> None:
    image = scene(mode)
    data = make_tga(
        pixel_rows(image, order), kind, bits, descriptor=descriptor | attribute_bits, encoded=encoded
    )
    facts = info(data)
    assert (facts.format, facts.width, facts.height) == ("tga", WIDTH, HEIGHT)
    assert facts.has_alpha == ("A" in mode)
    shown = "RGBA" if "A" in mode else "RGB"
    assert pixels_of(decoded(data), shown) == pixels_of(image, shown)
    assert pixels_of(Image.open(io.BytesIO(data)), shown) == pixels_of(image, shown)


def five_bits(pixel: bytes, alpha: int = 0) -> bytes:
    red, green, blue = (value >> 3 for value in pixel)
    return (alpha << 15 | red << 10 | green << 5 | blue).to_bytes(2, "little")


def in_five_bits(image: Image.Image) -> Image.Image:
    return image.point([round((value >> 3) * 255 / 31) for value in range(256)] * len(image.getbands()))


@pytest.mark.parametrize("bits", [15, 16])
@pytest.mark.parametrize("encoded", [False, True])
def test_five_bits_a_colour(bits: int, *, encoded: bool) -> None:
    image = scene("RGB")
    rows = [[five_bits(pixel, alpha=1) for pixel in row] for row in pixel_rows(image, (0, 1, 2))]
    data = make_tga(rows, 2, bits, encoded=encoded)
    assert not info(data).has_alpha
    assert pixels_of(decoded(data)) == pixels_of(in_five_bits(image))


def test_one_bit_of_alpha() -> None:
    image = scene("RGB")
    rows = [
        [five_bits(pixel, alpha=(x + y) % 2) for x, pixel in enumerate(row)]
        for y, row in enumerate(pixel_rows(image, (0, 1, 2)))
    ]
    result = decoded(make_tga(rows, 2, 16, descriptor=0x21))
    assert pixels_of(result) == pixels_of(in_five_bits(image))
    checks = bytes(255 * ((x + y) % 2) for y in range(HEIGHT) for x in range(WIDTH))
    assert result.getchannel("A").tobytes() == checks


@pytest.mark.parametrize(("kind", "mode", "bits"), [(2, "RGBA", 32), (3, "LA", 16)])
def test_alpha_counts_only_with_attribute_bits(kind: int, mode: str, bits: int) -> None:
    image = scene(mode)
    order = (2, 1, 0, 3) if mode == "RGBA" else (0, 1)
    opaque = make_tga(pixel_rows(image, order), kind, bits)
    assert not info(opaque).has_alpha
    assert pixels_of(decoded(opaque)) == pixels_of(image)


def palette_image() -> tuple[Image.Image, list[bytes], list[list[int]]]:
    image = scene("RGB").quantize(40)
    numbers = list(image.tobytes())
    colours = image.palette.colors if image.palette else {}
    by_number = sorted(colours, key=colours.__getitem__)
    rows = [numbers[at : at + WIDTH] for at in range(0, len(numbers), WIDTH)]
    return image, [bytes(colour[:3]) for colour in by_number], rows


@pytest.mark.parametrize("descriptor", ORIGINS.values(), ids=ORIGINS)
@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("first", [0, 7])
@pytest.mark.parametrize("bits", [8, 16])
def test_colour_maps(descriptor: int, bits: int, first: int, *, encoded: bool) -> None:
    image, colours, numbers = palette_image()
    rows = [[(number + first).to_bytes(bits // 8, "little") for number in row] for row in numbers]
    colour_map = first, 24, b"".join(colour[::-1] for colour in colours)
    data = make_tga(rows, 1, bits, descriptor=descriptor, encoded=encoded, colour_map=colour_map)
    assert pixels_of(decoded(data)) == pixels_of(image)
    if bits == 8 and first == 0:
        assert pixels_of(Image.open(io.BytesIO(data))) == pixels_of(image)


@pytest.mark.parametrize(("bits", "attribute_bits"), [(15, 0), (16, 0), (16, 1), (32, 0), (32, 8)])
def test_colours_of_other_depths_in_the_map(bits: int, attribute_bits: int) -> None:
    image, colours, numbers = palette_image()
    alphas = [index % 2 for index in range(len(colours))]
    entries = (
        [colour[::-1] + bytes([255 * alpha]) for colour, alpha in zip(colours, alphas, strict=True)]
        if bits == 32
        else [five_bits(colour, alpha) for colour, alpha in zip(colours, alphas, strict=True)]
    )
    rows = [[bytes([number]) for number in row] for row in numbers]
    data = make_tga(rows, 1, 8, descriptor=0x20 | attribute_bits, colour_map=(0, bits, b"".join(entries)))
    result = decoded(data)
    wanted = image.convert("RGB")
    assert pixels_of(result) == pixels_of(wanted if bits == 32 else in_five_bits(wanted))
    assert info(data).has_alpha == (attribute_bits > 0)
    if attribute_bits:
        seen = list(result.getchannel("A").tobytes())
        assert seen == [255 * alphas[number] for row in numbers for number in row]


def test_indices_without_a_colour_are_black() -> None:
    for bits in (8, 16):
        rows = [[number.to_bytes(bits // 8, "little") for number in (0, 1, 2, 200)]]
        data = make_tga(rows, 1, bits, colour_map=(1, 24, b"\x10\x20\x30"))
        pixels = [(0, 0, 0), (0x30, 0x20, 0x10), (0, 0, 0), (0, 0, 0)]
        result = decoded(data).convert("RGB")
        assert [result.getpixel((x, 0)) for x in range(4)] == pixels


def test_colours_beyond_the_largest_index_are_ignored() -> None:
    rows = [[number.to_bytes(2, "little") for number in (65_534, 65_535)]]
    data = make_tga(rows, 1, 16, colour_map=(65_534, 24, bytes(range(9))))
    result = decoded(data).convert("RGB")
    assert [result.getpixel((x, 0)) for x in range(2)] == [(2, 1, 0), (5, 4, 3)]


def test_an_image_id_and_an_unused_colour_map_are_skipped() -> None:
    image = scene("RGB")
    data = make_tga(pixel_rows(image, (2, 1, 0)), 2, 24, image_id=b"an id", colour_map=(0, 24, bytes(30)))
    assert pixels_of(decoded(data)) == pixels_of(image)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
@pytest.mark.parametrize("compression", [None, "tga_rle"])
def test_what_pillow_writes(mode: str, compression: str | None) -> None:
    image = alpha_photo(160, 120) if mode == "RGBA" else photo(160, 120).convert(mode)
    data = encode(image, "TGA", compression=compression)
    shown = "RGBA" if mode == "RGBA" else "RGB"
    assert pixels_of(decoded(data), shown) == pixels_of(image, shown)


def test_a_large_tga_is_resized_from_a_file(tmp_path: Path) -> None:
    image = photo(800, 600)
    (tmp_path / "image").write_bytes(encode(image, "TGA"))
    with (tmp_path / "image").open("rb") as file:
        upload = pipeline.Upload.from_descriptor(file.fileno(), (tmp_path / "image").stat().st_size)
        result = pipeline.resize(upload, (ResizeOptions(width=200, height=150, quality=95),), config=LIMITS)
    wanted = image.resize((200, 150), Image.Resampling.LANCZOS)
    assert mean_abs_difference(open_exact(result.outputs[0].data), wanted) < 3


def test_packets_that_are_longer_than_the_image_are_cut() -> None:
    head = make_tga([[b"\x50"] * 3] * 2, 3, 8, encoded=True)[:18]
    assert decoded(head + b"\xff\x50").convert("L").tobytes() == b"\x50" * 6
    assert decoded(head + b"\x7f" + bytes(range(128))).convert("L").tobytes() == bytes(range(6))


TOLERANT = replace(LIMITS, tolerate_truncated=True)


@pytest.mark.parametrize("encoded", [False, True])
def test_truncated_files_are_refused_unless_that_is_tolerated(*, encoded: bool) -> None:
    image = scene("RGB")
    data = make_tga(pixel_rows(image, (2, 1, 0)), 2, 24, encoded=encoded)
    for cut in (data[:-1], data[: len(data) // 2]):
        assert isinstance(refusal(cut), CorruptImage)
        result = decoded(cut, TOLERANT)
        top = (0, 0, WIDTH, 3)
        assert pixels_of(result.crop(top)) == pixels_of(image.crop(top))
        assert result.convert("RGB").getpixel((WIDTH - 1, HEIGHT - 1)) != image.getpixel(
            (WIDTH - 1, HEIGHT - 1)
        )
    assert isinstance(refusal(data[:18]), CorruptImage)


def test_a_colour_map_that_is_cut_off_is_refused() -> None:
    data = make_tga([[b"\0"]], 1, 8, colour_map=(0, 24, bytes(768)))
    assert isinstance(refusal(data[:300]), CorruptImage)


def test_run_lengths_have_a_limit_of_pixels() -> None:
    head = bytearray(make_tga([[b"\0"]], 3, 8, encoded=True)[:18])
    struct.pack_into("<HH", head, 12, 8192, 4097)
    with pytest.raises(TooLarge, match="has 33562624 pixels"):
        decoded(bytes(head) + b"\xff\0" * (8192 * 4097 // 128))


def test_memory_and_expansion_are_predicted() -> None:
    data = make_tga([[b"\x50"] * 2000] * 2000, 3, 8, encoded=True)
    options = (ResizeOptions(width=20, height=20),)
    for limits in (replace(LIMITS, job_memory=16 << 20), replace(LIMITS, max_pixels=3_999_999)):
        with pytest.raises(TooLarge):
            pipeline.resize(pipeline.Upload.from_memory(data), options, config=limits)
    pipeline.resize(pipeline.Upload.from_memory(data), options, config=replace(LIMITS, job_memory=64 << 20))


def test_much_run_length_data_make_a_job_heavy() -> None:
    rows = [[bytes([x % 256]) for x in range(3000)]] * 2000
    options = (ResizeOptions(width=20, height=20),)
    for encoded, is_heavy in ((True, True), (False, False)):
        upload = pipeline.Upload.from_memory(make_tga(rows, 3, 8, encoded=encoded))
        if is_heavy:
            with pytest.raises(pipeline.NeedsHeavyLane):
                pipeline.resize(upload, options, config=LIMITS, heavy_ok=False)
        else:
            pipeline.resize(upload, options, config=LIMITS, heavy_ok=False)


def test_packets_ask_whether_to_stop() -> None:
    data = memoryview(b"\x00\x01" * 200_000)
    header = tga.parse_header(
        make_tga([[b"\0"]], 3, 8, encoded=True)[:12] + struct.pack("<HHBB", 1000, 200, 8, 0x20)
    )
    asked: list[int] = []

    def watch() -> RequestError | None:
        asked.append(len(asked))
        return Cancelled("the client is gone") if len(asked) == 3 else None

    with pytest.raises(Cancelled):
        tga.decode_packets(data, header, tolerant=False, watch=watch)
    assert len(asked) == 3


# Recognition


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_other_formats_stay_what_they_are(name: str) -> None:
    assert info(sample(name)).format != "tga"


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (1, 2),  # a kind of colour map that does not exist
        (2, 0),  # no image
        (2, 32),  # compressed in a way that nobody writes
        (3, 1),  # a colour map that is not there
        (7, 24),
        (12, 0),  # no width
        (14, 0),  # no height
        (16, 23),  # depths that do not exist
        (16, 8),
        (17, 0x23),  # attribute bits that do not suit the depth
        (17, 0x60),  # interleaved
    ],
)
def test_a_header_that_makes_no_sense_is_not_taken_for_a_tga(offset: int, value: int) -> None:
    data = bytearray(make_tga([[b"abc"] * 3] * 3, 2, 24))
    assert info(bytes(data)).format == "tga"
    data[offset] = value
    assert isinstance(refusal(bytes(data)), UnsupportedFormat)


def test_with_a_footer_the_header_may_be_less_tidy() -> None:
    untidy = bytearray(make_tga([[b"abc"] * 3] * 3, 2, 24))
    untidy[3:8] = bytes([1, 0, 2, 0, 24])  # a description of a colour map that is not there
    assert isinstance(refusal(bytes(untidy)), UnsupportedFormat)
    assert info(bytes(untidy) + FOOTER).format == "tga"
    untidy[16] = 23
    assert isinstance(refusal(bytes(untidy) + FOOTER), UnsupportedFormat)


def test_random_bytes_are_not_taken_for_a_tga() -> None:
    generator = random.Random(7)
    for _ in range(2000):
        head = bytes([generator.randrange(256), generator.randrange(2), generator.randrange(12)])
        data = head + generator.randbytes(200)
        assert isinstance(refusal(data), UnsupportedFormat | None)
    for data in (b"", b"\0", bytes(18), bytes(1000), b"\xff" * 100, b"text " * 40):
        assert isinstance(refusal(data), UnsupportedFormat)


def test_tga_can_be_switched_off() -> None:
    data = encode(photo(64, 64), "TGA")
    try:
        pipeline.start(["jpeg"])
        with pytest.raises(UnsupportedFormat, match="looks like TGA, which this server does not read"):
            info(data)
    finally:
        pipeline.start()


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not beside the repository (../shared/corpus)")
@pytest.mark.parametrize(
    "name",
    [
        "rgb32rle.tga",
        "tga__common__1x1_l_tl_rle.tga",
        "tga__common__200x32_p_bl_rle.tga",
        "tga__common__200x32_p_tl_rle.tga",
    ],
)
def test_tga_files_of_others(name: str) -> None:
    path = CORPUS / f"Tests__images__{name}"
    result, wanted = decoded(path.read_bytes()), Image.open(path).convert("RGB")
    assert mean_abs_difference(result, wanted) == 0


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not beside the repository (../shared/corpus)")
@pytest.mark.parametrize("name", ["p_8.tga", "dilation4.lut"])
def test_files_of_others_that_only_resemble_one(name: str) -> None:
    # A colour map of 8 bits per colour, which does not exist; and a table of bytes.
    assert isinstance(refusal((CORPUS / f"Tests__images__{name}").read_bytes()), UnsupportedFormat)
