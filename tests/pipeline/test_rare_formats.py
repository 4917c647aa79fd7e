"""PCX, SGI, QOI, Radiance HDR and DIB: every kind gives the right pixels, and what lies is refused soon."""

import io
import struct
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from fuzz.seeds import IMAGES
from tests.pipeline.run import LIMITS, info, refusal, sample
from tests.pipeline.test_tga import decoded
from tests.support.image_comparison import mean_abs_difference, open_exact
from tests.support.images import alpha_photo, photo
from tests.support.rare_formats import Array, hdr, pcx, rgbe, sgi
from vipsrv import pipeline
from vipsrv.errors import Cancelled, CorruptImage, RequestError, TooLarge, UnsupportedFormat
from vipsrv.options import ResizeOptions
from vipsrv.pipeline.formats import hdr as hdr_format
from vipsrv.pipeline.formats import pcx as pcx_format
from vipsrv.pipeline.formats import qoi as qoi_format
from vipsrv.pipeline.formats import sgi as sgi_format
from vipsrv.worker_config import WorkerConfig

WIDTH, HEIGHT = 37, 19
TOLERANT = WorkerConfig(
    max_pixels=LIMITS.max_pixels,
    max_output_pixels=LIMITS.max_output_pixels,
    quality=90,
    tolerate_truncated=True,
)


def scene(mode: str = "RGB") -> Image.Image:
    """Pixels that all differ, and runs, also of the highest values."""
    image = (alpha_photo if "A" in mode else photo)(WIDTH, HEIGHT).convert(mode)
    image.paste(image.getpixel((3, 3)), (8, 4, 30, 9))  # type: ignore[arg-type]
    image.paste(tuple([255] * len(image.getbands())), (2, 12, 30, 14))
    return image


def pixels_of(data: bytes) -> Array:
    return np.asarray(decoded(data).convert("RGB")).astype(int)


def written(image: Image.Image, format_: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_)
    return buffer.getvalue()


def stopping(after: int) -> Iterator[RequestError | None]:
    yield from [None] * after
    yield Cancelled("enough")


# What Pillow writes


@pytest.mark.parametrize(
    ("format_", "name", "modes"),
    [
        ("PCX", "pcx", ["1", "L", "P", "RGB"]),
        ("SGI", "sgi", ["L", "RGB", "RGBA"]),
        ("QOI", "qoi", ["RGB", "RGBA"]),
        ("DIB", "dib", ["1", "L", "P", "RGB"]),
    ],
)
def test_what_pillow_writes(format_: str, name: str, modes: list[str]) -> None:
    for mode in modes:
        image = scene().quantize(200) if mode == "P" else scene(mode)
        data = written(image, format_)
        assert info(data).format == name
        assert info(data).has_alpha == (mode == "RGBA")
        found = decoded(data)
        assert mean_abs_difference(found, image.convert(found.mode)) == 0


@pytest.mark.parametrize("name", ["pcx", "sgi", "qoi", "hdr", "dib", "dds", "psd"])
def test_every_seed_gives_a_result_and_a_cut_one_an_error(name: str) -> None:
    for data in IMAGES[name]():
        assert refusal(data, 3, 2) is None
        for length in (5, len(data) // 2):
            assert isinstance(refusal(data[:length], 3, 2), CorruptImage | UnsupportedFormat | None)
        facts = info(data)
        options = ResizeOptions(width=3, height=2)
        try:
            cut = pipeline.Upload.from_memory(data[: len(data) * 9 // 10])
            result = pipeline.resize(cut, [options], config=TOLERANT)
        except CorruptImage:
            continue
        assert open_exact(result.outputs[0].data).size == (3, 2)
        assert (result.source.width, result.source.height) == (facts.width, facts.height)


# PCX


@pytest.mark.parametrize("encoded", [True, False])
@pytest.mark.parametrize(("bits", "planes"), [(1, 2), (1, 3), (1, 4), (2, 1), (4, 1)])
def test_pcx_of_few_colours(bits: int, planes: int, *, encoded: bool) -> None:
    count = 1 << bits * planes
    palette = np.random.default_rng(1).integers(0, 256, (16, 3), np.uint8)
    indices = np.random.default_rng(2).integers(0, count, (HEIGHT, WIDTH), np.uint8)
    indices[3:9] = count - 1
    rows = []
    for row in indices:
        padded = np.pad(row, (0, -WIDTH % 16))
        if planes > 1:
            rows.append([np.packbits(padded >> plane & 1).tobytes() for plane in range(planes)])
        else:
            digits = np.unpackbits(padded[:, None], axis=1)[:, -bits:]
            rows.append([np.packbits(digits.reshape(-1)).tobytes()])
    data = pcx(WIDTH, rows, bits, encoded=encoded, palette=palette.tobytes())
    assert (pixels_of(data) == palette[indices]).all()
    without = pixels_of(pcx(WIDTH, rows, bits, encoded=encoded, palette=palette.tobytes(), version=3))
    # Version 3 has no palette: the colours are those of the EGA card, and the first one is black.
    assert (without[indices == 0] == 0).all()
    assert {0, 85, 170, 255} >= set(np.unique(without).tolist())


def test_pcx_runs_may_cross_rows_and_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    pairs = [
        bytes((0xC0 | count, value)) if count else bytes((value & 0x7F,))
        for count, value in zip(
            rng.integers(0, 64, 400).tolist(), rng.integers(0, 256, 400).tolist(), strict=True
        )
    ]
    wanted = b"".join(pair[1:] * (pair[0] & 63) if len(pair) > 1 else pair for pair in pairs)
    data = memoryview(b"".join(pairs))
    for piece in (3, 7, 1 << 18):
        monkeypatch.setattr(pcx_format, "_PIECE", piece)
        found = pcx_format.decode_runs(data, len(wanted) - 5, tolerant=False)
        assert found.tobytes() == wanted[:-5]
    with pytest.raises(CorruptImage, match=f"its data have {len(wanted)} of"):
        pcx_format.decode_runs(data, len(wanted) + 1, tolerant=False)
    watch = stopping(0)
    with pytest.raises(Cancelled):
        pcx_format.decode_runs(data, 5, tolerant=False, watch=lambda: next(watch))


def test_a_pcx_with_a_wrong_stride_is_refused() -> None:
    data = bytearray(written(scene(), "PCX"))
    data[66:68] = struct.pack("<H", WIDTH - 2)
    assert isinstance(refusal(bytes(data)), CorruptImage | UnsupportedFormat)


# SGI


@pytest.mark.parametrize("encoded", [True, False])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("bits", [8, 16])
def test_sgi(bits: int, channels: int, *, encoded: bool) -> None:
    pixels = np.asarray(scene("RGBA"))
    pixels = np.dstack([pixels[..., :1], pixels[..., 3:]]) if channels == 2 else pixels
    pixels = np.dstack([pixels, pixels[..., 0]])[..., :channels]
    stored = pixels.astype(np.uint16) * 257 if bits == 16 else pixels
    data = sgi(stored, encoded=encoded)
    assert info(data).has_alpha == (channels in {2, 4, 5})
    found = decoded(data)
    if channels < 3:
        pixels = np.dstack([pixels[..., :1]] * 3 + ([pixels[..., 1:]] if channels == 2 else []))
    assert abs(np.asarray(found).astype(int) - pixels[..., :4]).max() <= 1


def test_sgi_rows_may_be_at_the_same_place_but_not_overlap() -> None:
    pixels = np.repeat(np.asarray(scene())[:1], 8, axis=0)
    data = bytearray(sgi(pixels))
    table = struct.unpack_from(">24I", data, 512)
    data[512 : 512 + 96] = struct.pack(">24I", *(table[number // 8 * 8] for number in range(24)))
    assert (pixels_of(bytes(data)) == pixels).all()
    one = b"\x81\x07" * 3000
    head = struct.pack(">HBBHHHHII", 474, 1, 1, 2, 1000, 1000, 1, 0, 255).ljust(512, b"\0")
    places = struct.pack(">1000I", *range(8512, 8512 + 2000, 2)) + bytes(4000)
    with pytest.raises(CorruptImage, match="overlap"):
        decoded(head + places + one)


def test_an_sgi_stops_when_asked() -> None:
    data = sgi(np.asarray(scene()))
    header = sgi_format.parse_header(data[:512])
    watch = stopping(3)
    with pytest.raises(Cancelled):
        sgi_format.decode_rows(memoryview(data), header, tolerant=False, watch=lambda: next(watch))


# QOI


def test_every_chunk_of_a_qoi() -> None:
    chunks = [
        (b"\xfe\x0a\x14\x1e", [(10, 20, 30, 255)]),
        (b"\xff\x01\x02\x03\x80", [(1, 2, 3, 128)]),
        (b"\x40", [(255, 0, 1, 128)]),  # 2 less of each
        (b"\xbf\xf0", [(37, 31, 24, 128)]),  # 31 more green; red 7 more than that, blue 8 less
        (bytes([(10 * 3 + 20 * 5 + 30 * 7 + 255 * 11) % 64]), [(10, 20, 30, 255)]),
        (b"\xc3", [(10, 20, 30, 255)] * 4),
    ]
    wanted = [pixel for _, pixels in chunks for pixel in pixels]
    data = b"".join(chunk for chunk, _ in chunks)
    head = struct.pack(">4sIIBB", b"qoif", len(wanted), 1, 4, 0)
    assert list(decoded(head + data + bytes(7) + b"\1").get_flattened_data()) == wanted


def test_a_qoi_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(scene("RGBA"), "QOI")
    wanted = decoded(data).tobytes()
    monkeypatch.setattr(qoi_format, "_PIECE", 7)
    assert decoded(data).tobytes() == wanted
    watch = stopping(2)
    with pytest.raises(Cancelled):
        qoi_format.decode(memoryview(data)[14:], WIDTH * HEIGHT, tolerant=False, watch=lambda: next(watch))


# Radiance HDR


def light_of(image: Image.Image) -> Array:
    """The linear light of an sRGB image, from 0 to 1."""
    codes = np.asarray(image) / 255
    light: Array = np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)
    return light


@pytest.mark.parametrize("encoded", ["channels", "pixels", "plain"])
def test_hdr_is_linear_light(encoded: str) -> None:
    data = hdr(rgbe(light_of(scene())), encoded=encoded)
    assert (info(data).format, info(data).width, info(data).height) == ("hdr", WIDTH, HEIGHT)
    assert not info(data).has_alpha
    assert abs(pixels_of(data) - np.asarray(scene())).mean() < 1


def test_what_is_brighter_than_white_is_white() -> None:
    assert pixels_of(hdr(rgbe(np.full((5, 9, 3), 1000.0)))).min() == 255
    assert pixels_of(hdr(np.full((5, 9, 4), 255, np.uint8))).min() == 255
    assert pixels_of(hdr(rgbe(np.zeros((5, 9, 3))))).max() == 0


def test_hdr_by_xyz() -> None:
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    data = hdr(rgbe(light_of(scene()) @ matrix.T), kind="xyze")
    assert abs(pixels_of(data) - np.asarray(scene())).mean() < 3


@pytest.mark.parametrize(
    ("size", "turn"),
    [
        ("-Y {height} +X {width}", lambda a: a),
        ("-Y {height} -X {width}", lambda a: a[:, ::-1]),
        ("+Y {height} +X {width}", lambda a: a[::-1]),
        ("+Y {height} -X {width}", lambda a: a[::-1, ::-1]),
        ("+X {height} -Y {width}", lambda a: a.swapaxes(0, 1)),
        ("-X {height} -Y {width}", lambda a: a.swapaxes(0, 1)[:, ::-1]),
        ("+X {height} +Y {width}", lambda a: a.swapaxes(0, 1)[::-1]),
        ("-X {height} +Y {width}", lambda a: a.swapaxes(0, 1)[::-1, ::-1]),
    ],
)
def test_hdr_is_made_upright(size: str, turn: "type[Array]") -> None:
    pixels = rgbe(light_of(scene()))
    for encoded in ("channels", "plain"):
        data = hdr(pixels, size=size, encoded=encoded)
        assert (pixels_of(data) == turn(pixels_of(hdr(pixels)))).all()


def test_long_repeats_of_an_hdr_have_several_digits() -> None:
    pixels = np.zeros((2, 100_000, 4), np.uint8)
    pixels[:, 5:, 0], pixels[..., 3] = 200, 128
    head = hdr_format.parse_header(hdr(pixels, encoded="pixels"))
    data = memoryview(hdr(pixels, encoded="pixels"))[head.offset :]
    assert len(data) < 60
    assert bytes(hdr_format.decode_rows(data, 100_000, 2, tolerant=False)) == pixels.tobytes()


# Bombs


def _head(magic: bytes, numbers: str, *values: int) -> bytes:
    return magic + struct.pack(numbers, *values)


def _sgi_head(side: int, channels: int) -> bytes:
    return _head(b"\x01\xda", ">BBHHHHII", 1, 1, 3, side, side, channels, 0, 255).ljust(512, b"\0")


def _pcx_head(right: int, bottom: int, stride: int) -> bytes:
    head = _head(b"\x0a\5\1\x08", "<4H", 0, 0, right, bottom).ljust(65, b"\0")
    return head + struct.pack("<BH60x", 3, stride)


BOMBS = {
    "sgi larger than its file": _sgi_head(65535, 4),
    "sgi of empty rows": _sgi_head(5000, 3)
    + struct.pack(">15000I", *range(120512, 150512, 2)) + bytes(90000),
    "pcx with a long stride": _pcx_head(0, 65534, 65535),
    "pcx of empty runs": _pcx_head(5999, 5999, 6000) + b"\xc0\0" * 500_000,
    "qoi without data": _head(b"qoif", ">IIBB", 5000, 5000, 4, 0),
    "qoi of a side of 2^31": _head(b"qoif", ">IIBB", 1 << 31, 1 << 31, 4, 0),
    "hdr without data": b"#?RADIANCE\n\n-Y 5000 +X 5000\n\2\2\x13\x88",
    "hdr of a side of 2e9": b"#?RADIANCE\n\n-Y 2000000000 +X 2000000000\n",
    "hdr of empty repeats": b"#?RADIANCE\n\n-Y 5000 +X 5000\n" + b"\1\1\1\0" * 200_000,
    "hdr with an endless header": b"#?RADIANCE\n" + b"a" * 5_000_000,
    "dib without data": struct.pack("<IiiHHIIiiII", 40, 10000, 9999, 1, 32, 0, 0, 0, 0, 0, 0) + bytes(100),
}  # fmt: skip


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_soon(data: bytes) -> None:
    started = time.process_time()
    assert isinstance(refusal(data), CorruptImage | TooLarge | UnsupportedFormat)
    assert time.process_time() - started < 0.3


# Recognition


def test_what_only_begins_like_a_weak_format_is_not_taken_for_it() -> None:
    for head in (b"\x0a\5\1\x08", b"\x28\0\0\0", b"\x0c\0\0\0"):
        with pytest.raises(UnsupportedFormat):
            info(head + np.random.default_rng(7).bytes(500))
    with pytest.raises(UnsupportedFormat):
        info(b"\x0a\5\1\x08" + b"text\n" * 100)


def test_a_bitmap_is_the_same_without_its_file_header() -> None:
    for name in ("bmp", "bmp-palette", "bmp-1bit"):
        whole = sample(name)
        assert info(whole[14:]).format == "dib"
        assert decoded(whole[14:]).tobytes() == decoded(whole).tobytes()
