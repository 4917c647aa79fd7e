"""TIFFs that libvips refuses or gets wrong: their channels, numbers, colours and layouts."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.pipeline.run import LIMITS, info, run
from tests.support.image_comparison import open_exact
from tests.support.tiffs import FLOAT, FRACTION, LONG, SHORT, Array, Fields, tiff, tiff_of
from vipsrv import pipeline
from vipsrv.errors import CorruptImage, RequestError, TooLarge, UnsupportedFormat
from vipsrv.options import Fit, Format, ResizeOptions

WIDTH, HEIGHT = 96, 64


def _colours(number: int) -> Fields:
    return {262: (SHORT, [number])}


GREY, RGB, CMYK, YCBCR = (_colours(number) for number in (1, 2, 5, 6))
ALPHA, ASSOCIATED, UNSPECIFIED = 2, 1, 0


def _scene() -> Array:
    down, across = np.mgrid[0:HEIGHT, 0:WIDTH]
    scene = np.dstack(
        [across * 255 / (WIDTH - 1), down * 255 / (HEIGHT - 1), 255 - across * 255 / (WIDTH - 1)]
    )
    scene[40:50, 10:30], scene[50:60, 10:30] = 255, 0
    return scene.round().astype(np.uint8)


SCENE = _scene()
PLAIN = SCENE[:, :, 1:2]
OPACITY = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
OPACITY[:16], OPACITY[16:24] = 128, 0
SELECTION = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
SELECTION[:, :48] = 255


def extra(*kinds: int) -> Fields:
    return {338: (SHORT, list(kinds))}


def made(image: bytes, **options: Any) -> Image.Image:
    asked = ResizeOptions(**{"width": WIDTH, "height": HEIGHT, "format": "png", **options})
    return open_exact(run(image, asked).outputs[0].data)


def check(image: bytes, wanted: Array, opacity: Array | None = None, *, most: float = 3) -> None:
    result = made(image)
    assert (result.mode in {"RGBA", "LA"}) is (opacity is not None)
    pixels = np.asarray(result.convert("RGBA")).astype(int)
    alpha = np.full((HEIGHT, WIDTH, 1), 255) if opacity is None else opacity
    seen = alpha[:, :, 0] > 0
    assert np.percentile(abs(pixels[:, :, :3] - wanted.astype(int))[seen], 99) <= most
    assert abs(pixels[:, :, 3:] - alpha.astype(int)).max() <= 2


def light(scene: Array) -> Array:
    code = scene / 255
    linear: Array = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    return linear


def as_numbers(scene: Array, kind: str, *, is_light: bool = False) -> Array:
    number = np.dtype(kind)
    if number.kind == "f":
        return (light(scene) if is_light else scene / 255).astype(number)
    limits = np.iinfo(number)
    span = float(limits.max) - float(limits.min)
    values = scene / 255 * span * (1 - 2**-20) + float(limits.min)
    return values.astype(number)


NUMBERS = ["u1", "u2", "u4", "u8", "i2", "i4", "i8", "f2", "f4", "f8"]
LAYOUTS = [("<", 0, False), (">", 0, True), ("<", 32, False), (">", 32, True)]


@pytest.mark.parametrize(("order", "tile", "planar"), LAYOUTS)
@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_of_any_kind(kind: str, order: str, tile: int, *, planar: bool) -> None:
    is_light = kind[0] == "f"
    colours = as_numbers(SCENE, kind, is_light=is_light)
    alphas = OPACITY / 255 * (1 if is_light else np.iinfo(kind).max * (1 - 2**-20))
    both = np.dstack([colours, alphas.astype(kind)])
    check(tiff_of(colours, RGB, order=order, tile=tile, planar=planar), SCENE)
    check(tiff_of(both, {**RGB, **extra(ALPHA)}, order=order, tile=tile, planar=planar), SCENE, OPACITY)
    check(tiff_of(as_numbers(PLAIN, kind), GREY, order=order, tile=tile), PLAIN)


@pytest.mark.parametrize("bits", [1, 3, 4, 6, 10, 12, 14, 17, 31])
def test_packed_bits(bits: int) -> None:
    top = (1 << bits) - 1
    codes = (SCENE / 255 * top).round().astype(np.uint32)
    wanted = (codes * 255.0 / top).round()
    for tile in (0, 32):
        fields = {339: (SHORT, [1])}
        check(tiff_of(codes, {**RGB, **fields}, bits=bits, tile=tile), wanted)
        check(tiff_of(codes[:, :, 1:2], {**GREY, **fields}, bits=bits, tile=tile), wanted[:, :, 1:2])


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(
    ("kinds", "has_alpha"),
    [
        ([ALPHA, UNSPECIFIED], True),
        ([UNSPECIFIED, ALPHA], True),
        ([UNSPECIFIED], False),
        ([UNSPECIFIED, UNSPECIFIED], False),
        ([ASSOCIATED, UNSPECIFIED], True),
    ],
)
def test_alpha_is_the_sample_that_the_file_names(kinds: list[int], *, has_alpha: bool, planar: bool) -> None:
    for colours, fields in ((SCENE, RGB), (PLAIN, GREY)):
        stored = colours * (OPACITY / 255) if ASSOCIATED in kinds else colours
        samples = [stored, *(OPACITY if kind else SELECTION for kind in kinds)]
        image = tiff_of(
            np.dstack(samples).round().astype(np.uint8), {**fields, **extra(*kinds)}, planar=planar
        )
        check(image, colours, OPACITY if has_alpha else None)


def test_a_saved_selection_is_not_flattened() -> None:
    samples = np.dstack([SCENE, OPACITY, SELECTION])
    result = made(tiff_of(samples, {**RGB, **extra(ALPHA, UNSPECIFIED)}), format="jpeg", quality=95)
    right = result.getpixel((80, 40))
    assert isinstance(right, tuple)
    assert np.allclose(right, SCENE[40, 80], atol=8)


@pytest.mark.parametrize(
    ("least", "greatest", "kind"),
    [(0, 3000, "f4"), (-500, 800, "f8"), (0, 4000, "u4"), (-1024, 3071, "i2"), (-20, 60, "i1")],
)
def test_measured_values_are_shown_from_the_least_to_the_greatest(
    least: int, greatest: int, kind: str
) -> None:
    values = (PLAIN / 255 * (greatest - least) + least).astype(kind)
    check(tiff_of(values, GREY), PLAIN, most=5)


def test_the_range_that_a_file_states() -> None:
    values = (PLAIN / 255 * 10).astype("f4")
    stated: Fields = {340: (FLOAT, [0.0]), 341: (FLOAT, [20.0])}
    check(tiff_of(values, {**GREY, **stated}), PLAIN / 2)
    # A part of the page has the range of all of it, of the file or of the data.
    for fields in ({**GREY, **stated}, GREY):
        whole = np.asarray(made(tiff_of(values, fields)).convert("L"))
        part = made(tiff_of(values, fields), crop=(0, 32, WIDTH, 32), height=32)
        assert np.abs(np.asarray(part.convert("L")).astype(int) - whole[32:]).max() <= 1


@pytest.mark.parametrize("missing", [float("nan"), float("inf"), -9999.0])
def test_missing_values_do_not_count(missing: float) -> None:
    values = (PLAIN / 255 * 3000).astype("f4")
    values[:4] = missing
    wanted = PLAIN.copy()
    wanted[:4] = 0
    check(tiff_of(values, {**GREY, 42113: (2, b"-9999\0")}), wanted)


def test_bytes_that_claim_to_be_signed() -> None:
    check(tiff_of(PLAIN.view("i1"), GREY), PLAIN)
    check(tiff_of((PLAIN.astype(int) - 128).astype("i1"), GREY), PLAIN)


def test_floats_with_a_profile_have_its_gamma() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    check(tiff_of((SCENE / 255).astype("f4"), {**RGB, 34675: (7, profile)}), SCENE)


def test_highlights_are_white() -> None:
    values = light(SCENE).astype("f4")
    values[40:50, 10:30] = 50
    check(tiff_of(values, RGB), SCENE)


@pytest.mark.parametrize("name", ["cielab-8", "cielab-16", "icclab-8", "icclab-16"])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_lab(name: str, *, has_alpha: bool) -> None:
    # (L*, a*, b*) of D50: red, green, blue and grey of sRGB.
    colours = {
        (54.29, 80.81, 69.89): (255, 0, 0),
        (87.82, -79.27, 80.99): (0, 255, 0),
        (29.57, 68.30, -112.03): (0, 0, 255),
        (53.59, 0.0, 0.0): (128, 128, 128),
    }
    lab = np.zeros((HEIGHT, WIDTH, 3))
    wanted = np.zeros((HEIGHT, WIDTH, 3))
    for number, (colour, seen) in enumerate(colours.items()):
        lab[number * 16 : number * 16 + 16], wanted[number * 16 : number * 16 + 16] = colour, seen
    unit, kind = (1, "u1") if name.endswith("8") else (256, "u2")
    if name.startswith("cie"):
        top = np.iinfo(kind).max
        stored = np.dstack([lab[:, :, 0] / 100 * top, lab[:, :, 1:] * unit]).round().astype("i8").astype(kind)
    else:
        stored = np.dstack([lab[:, :, 0] * 2.55 * unit, (lab[:, :, 1:] + 128) * unit]).round().astype(kind)
    fields: Fields = {262: (SHORT, [8 if name.startswith("cie") else 9])}
    if has_alpha:
        stored = np.dstack([stored, OPACITY.astype(kind) * (257 if unit > 1 else 1)])
        fields = {**fields, **extra(ALPHA)}
    check(tiff_of(stored, fields), wanted, OPACITY if has_alpha else None, most=12)


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_cmyk_with_alpha_and_more(kind: str) -> None:
    ink = np.dstack([255 - SCENE, np.zeros_like(PLAIN)])
    wanted = np.asarray(made(tiff_of(ink, CMYK)).convert("RGB"))
    for samples, kinds, opacity in (
        ([ink, OPACITY, SELECTION], (ALPHA, UNSPECIFIED), OPACITY),
        ([ink, SELECTION], (UNSPECIFIED,), None),
    ):
        stored = np.dstack(samples).astype(kind) * (257 if kind == "u2" else 1)
        check(tiff_of(stored.astype(kind), {**CMYK, **extra(*kinds)}), wanted, opacity)


def _ycbcr(scene: Array, *, is_video: bool) -> Array:
    red, green, blue = (scene[:, :, band].astype(float) for band in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = [luma, (blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128]
    if is_video:
        planes = [luma * 219 / 255 + 16, *((plane - 128) * 112 / 127 + 128 for plane in planes[1:])]
    return np.dstack(planes).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("is_video", [False, True])
@pytest.mark.parametrize(("tile", "planar"), [(0, False), (0, True), (32, False), (32, True)])
def test_ycbcr_of_full_resolution(tile: int, *, planar: bool, is_video: bool) -> None:
    limits = [16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1]
    fields: Fields = {**YCBCR, 530: (SHORT, [1, 1]), **({532: (FRACTION, limits)} if is_video else {})}
    soft = (SCENE // 2 + 60).astype(np.uint8)
    check(tiff_of(_ycbcr(soft, is_video=is_video), fields, tile=tile, planar=planar), soft, most=4)


@pytest.mark.parametrize(("across", "down"), [(2, 1), (2, 2), (4, 2)])
def test_ycbcr_of_less_chroma(across: int, down: int) -> None:
    soft = (np.mgrid[0:HEIGHT, 0:WIDTH][1][:, :, None] + np.array([20, 60, 100])).astype(np.uint8)
    stored = _ycbcr(soft, is_video=False)
    blocks = stored.reshape(HEIGHT // down, down, WIDTH // across, across, 3).transpose(0, 2, 1, 3, 4)
    luma = blocks[..., 0].reshape(HEIGHT // down, WIDTH // across, -1)
    units = np.concatenate([luma, blocks[:, :, 0, 0, 1:]], axis=-1)
    fields = {258: (SHORT, [8] * 3), 277: (SHORT, [3]), 530: (SHORT, [across, down]), 259: (SHORT, [8])}
    image = tiff(WIDTH, HEIGHT, {**YCBCR, **fields, 278: (SHORT, [HEIGHT])}, [zlib.compress(units.tobytes())])
    check(image, soft, most=6)


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_a_palette_with_alpha(bits: int) -> None:
    index = np.add.outer(np.arange(HEIGHT) // 8, np.arange(WIDTH) // 8)[:, :, None] % 16
    colours = np.zeros((1 << bits, 3), int)
    colours[:16] = np.random.default_rng(1).integers(0, 256, (16, 3))
    top = (1 << bits) - 1
    opacity = (OPACITY > 200) * 255
    samples = np.dstack([index, opacity // 255 * top])
    fields: Fields = {262: (SHORT, [3]), 320: (SHORT, (colours * 257).T.ravel().tolist()), **extra(ALPHA)}
    stored = samples.astype("u2" if bits == 16 else "u1")
    check(tiff_of(stored, fields, bits=0 if bits >= 8 else bits), colours[index[:, :, 0]], opacity)


@pytest.mark.parametrize(
    "field",
    [
        {65001: (0, b"abcd")},
        {65001: (19, b"abcd")},
        {65002: (1, b"")},
        {296: (SHORT, [7])},
        {274: (SHORT, [99])},
        {333: (2, b"x")},
        {34675: (7, b"no profile")},
    ],
)
def test_fields_that_do_not_matter(field: Fields) -> None:
    check(tiff_of(SCENE, {**RGB, **field}), SCENE)


@pytest.mark.parametrize("samples", [PLAIN, SCENE, np.dstack([SCENE, OPACITY])])
def test_a_file_without_its_colours(samples: Array) -> None:
    count = samples.shape[2]
    image = tiff_of(samples, extra(ALPHA) if count > 3 else {})
    check(image, samples[:, :, :3], OPACITY if count > 3 else None)


def _old_jpeg(way: str, subsampling: int) -> bytes:
    soft = Image.fromarray((SCENE // 2 + 60).astype(np.uint8))
    rows = HEIGHT // 2 if way == "strips" else HEIGHT
    files = []
    for top in range(0, HEIGHT, rows):
        file = io.BytesIO()
        soft.crop((0, top, WIDTH, top + rows)).save(file, "JPEG", quality=95, subsampling=subsampling)
        files.append(file.getvalue())
    factor = 2 if subsampling else 1
    fields = {
        **YCBCR,
        258: (SHORT, [8] * 3),
        259: (SHORT, [6]),
        277: (SHORT, [3]),
        278: (SHORT, [rows]),
        512: (SHORT, [1]),
        530: (SHORT, [factor, factor]),
    }
    if way == "a file":
        return tiff(WIDTH, HEIGHT, {**fields, 513: (LONG, [8]), 514: (LONG, [len(files[0])])}, files)
    tables: dict[int, list[bytes]] = {519: [], 520: [], 521: []}
    scans = []
    for number, file_ in enumerate(files):
        at = 2
        while True:
            marker, size = file_[at + 1], int.from_bytes(file_[at + 2 : at + 4], "big")
            body, at = file_[at + 4 : at + 2 + size], at + 2 + size
            if marker == 0xDB and not number:
                tables[519] += [body[1:65]] if len(body) < 130 else [body[1:65], body[66:130]]
            while marker == 0xC4 and body and not number:
                end = 17 + sum(body[1:17])
                tables[520 if body[0] < 16 else 521].append(body[1:end])
                body = body[end:]
            if marker == 0xDA:
                break
        scans.append(file_[at:-2])
    parts = [*scans, *(table for kind in tables.values() for table in kind)]
    positions = np.cumsum([8, *(len(part) + len(part) % 2 for part in parts)]).tolist()[len(scans) :]
    for number, tag in enumerate(tables):
        first, second = positions[2 * number : 2 * number + 2]
        fields[tag] = (LONG, [first, second, second])
    where = np.cumsum([8, *(len(part) + len(part) % 2 for part in scans)]).tolist()[: len(scans)]
    fields |= {273: (LONG, where), 279: (LONG, [len(scan) for scan in scans])}
    return tiff(WIDTH, HEIGHT, fields, parts)


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("way", ["a file", "fields", "strips"])
def test_old_style_jpeg(way: str, subsampling: int) -> None:
    check(_old_jpeg(way, subsampling), SCENE // 2 + 60, most=24 if subsampling else 8)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({339: (SHORT, [6] * 3)}, "complex"),
        ({258: (SHORT, [8, 8, 16])}, "8, 8, 16"),
        ({258: (SHORT, [128] * 3)}, "128 bits"),
        ({259: (SHORT, [34887])}, "LERC"),
    ],
)
def test_what_is_not_read_is_said(fields: Fields, reason: str) -> None:
    with pytest.raises(UnsupportedFormat, match=reason):
        made(tiff_of(SCENE, {**RGB, **fields}))


def test_errors_of_other_pages_do_not_matter() -> None:
    file = io.BytesIO()
    scene = Image.fromarray(SCENE)
    scene.save(file, "tiff", save_all=True, append_images=[scene])
    data = bytearray(file.getvalue())
    at = data.rindex(struct.pack("<HHI", 284, SHORT, 1))  # of the last page
    data[at + 2 : at + 4] = b"\x63\0"  # an unknown type
    check(bytes(data), SCENE)
    assert info(bytes(data)).pages == 2
    at = data.index(struct.pack("<HHI", 284, SHORT, 1))
    data[at + 2 : at + 4] = b"\x63\0"
    check(bytes(data), SCENE)


@pytest.mark.parametrize(("across", "down", "tile"), [(2, 2, 32), (4, 1, 16)])
def test_tiles_of_less_chroma_that_libtiff_refuses(across: int, down: int, tile: int) -> None:
    size = tile // across * (tile // down) * (across * down + 2)
    fields = {
        **YCBCR,
        258: (SHORT, [8] * 3),
        277: (SHORT, [3]),
        322: (SHORT, [tile]),
        323: (SHORT, [tile]),
        530: (SHORT, [across, down]),
    }
    with pytest.raises(UnsupportedFormat, match=f"tiles of {tile} x {tile}"):
        made(tiff(tile, tile, fields, [bytes(size)]))


def test_a_row_of_very_many_tiles() -> None:
    count = 16_390
    tiles = {322: (SHORT, [16]), 323: (SHORT, [16]), 324: (LONG, [0] * count), 325: (LONG, [0] * count)}
    fields = {**RGB, 258: (SHORT, [8] * 3), 277: (SHORT, [3]), **tiles}
    with pytest.raises(TooLarge, match="16390 tiles in a row"):
        made(tiff(16 * count, 16, fields, []))


def test_what_is_broken_is_said() -> None:
    whole = tiff_of(as_numbers(SCENE, "f4"), RGB)
    cut = bytearray(whole)
    at = cut.index(struct.pack("<HHI", 273, LONG, 4))
    start = struct.unpack_from("<I", cut, at + 8)[0]
    struct.pack_into("<I", cut, start + 4, len(whole) * 2)
    with pytest.raises(CorruptImage):
        made(bytes(cut))


def test_hostile_fields_are_refused() -> None:
    image = tiff_of(as_numbers(SCENE, "u8"), RGB, planar=True, order=">")
    generator = np.random.default_rng(4)
    directory = int.from_bytes(image[4:8], "big")
    for _ in range(150):
        broken = bytearray(image)
        for place in generator.integers(directory, len(image), 3):
            broken[place] = generator.integers(0, 256)
        try:
            made(bytes(broken), width=20, height=20)
        except RequestError as error:
            assert error.message  # noqa: PT017 - some are still images


def test_a_large_file_is_not_copied(tmp_path: Path) -> None:
    data = tiff_of(as_numbers(SCENE, "f8", is_light=True), RGB, planar=True, tile=32)
    (tmp_path / "image").write_bytes(data)
    with (tmp_path / "image").open("rb") as file:
        upload = pipeline.Upload.from_descriptor(file.fileno(), len(data))
        asked = [ResizeOptions(width=width, fit=Fit.INSIDE, format=Format.PNG) for width in (WIDTH, 48)]
        outputs = pipeline.resize(upload, asked, config=LIMITS).outputs
    pixels = np.asarray(open_exact(outputs[0].data).convert("RGB")).astype(int)
    assert abs(pixels - SCENE).max() <= 3
