"""Photoshop documents: each mode, depth and compression gives the right pixels, and a saved selection is no
transparency.
"""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.pipeline.run import LIMITS, info, refusal, sample
from tests.pipeline.test_tga import decoded
from tests.support.image_comparison import mean_abs_difference
from tests.support.images import adobe_rgb_profile, alpha_photo, photo
from tests.support.rare_formats import Array, psd, resource
from vipsrv import pipeline
from vipsrv.errors import CorruptImage, TooLarge, UnsupportedFormat
from vipsrv.options import ResizeOptions
from vipsrv.pipeline.cost import predict
from vipsrv.pipeline.formats.psd import header as psd_header
from vipsrv.pipeline.probe import read_header

WIDTH, HEIGHT = 40, 23
BITMAP, GREY, INDEXED, RGB, CMYK, MULTICHANNEL, DUOTONE, LAB = 0, 1, 2, 3, 4, 7, 8, 9
RAW, PACKBITS, ZIP, PREDICTED = range(4)
COMPRESSIONS = {"raw": RAW, "packed": PACKBITS, "zip": ZIP, "zip with prediction": PREDICTED}
CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
NAMES = resource(1006, b"\x07Alpha 1")
NOT_MERGED = resource(1057, struct.pack(">IB", 1, 0) + bytes(8))


def planes_of(image: Image.Image) -> Array:
    """The channels of an image, each an array of rows."""
    pixels: Array = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def scene(mode: str = "RGB") -> Image.Image:
    """Pixels that all differ, and runs."""
    image = (alpha_photo if "A" in mode else photo)(WIDTH, HEIGHT).convert(mode)
    image.paste(image.getpixel((3, 3)), (8, 4, 30, 9))  # type: ignore[arg-type]
    return image


def difference(data: bytes, wanted: Image.Image) -> float:
    found = decoded(data)
    return mean_abs_difference(found.convert(wanted.mode), wanted)


def over_white(image: Image.Image) -> Array:
    """The channels as Photoshop stores them: colours over white, and alpha."""
    pixels = np.asarray(image.convert("RGBA")).astype(float)
    alpha = pixels[..., 3:] / 255
    colours = pixels[..., :3] * alpha + 255 * (1 - alpha)
    stored: Array = np.rint(np.dstack([colours, pixels[..., 3]])).astype(np.uint8)
    return stored.transpose(2, 0, 1)


@pytest.mark.parametrize("large", [False, True], ids=["psd", "psb"])
@pytest.mark.parametrize("compression", COMPRESSIONS.values(), ids=COMPRESSIONS)
@pytest.mark.parametrize("bits", [8, 16])
def test_every_compression_gives_every_pixel(bits: int, compression: int, *, large: bool) -> None:
    planes = planes_of(scene())
    stored = planes if bits == 8 else planes.astype(np.uint16) * 257
    data = psd(stored, RGB, bits, compression=compression, large=large)
    assert (info(data).format, info(data).width, info(data).height) == ("psd", WIDTH, HEIGHT)
    assert not info(data).has_alpha
    assert difference(data, scene()) < 0.01


def test_pillow_reads_the_same() -> None:
    for mode, number in (("RGB", RGB), ("L", GREY), ("L", DUOTONE)):
        data = psd(planes_of(scene(mode)), number, 8)
        with Image.open(io.BytesIO(data)) as image:
            assert difference(data, image.convert("RGB")) < 0.01


@pytest.mark.parametrize("compression", COMPRESSIONS.values(), ids=COMPRESSIONS)
def test_floats_are_linear_light(compression: int) -> None:
    light = (planes_of(scene()) / 255 + 0.055) / 1.055
    for mode, planes in ((RGB, light**2.4), (GREY, light[:1] ** 2.4)):
        wanted = scene() if mode == RGB else Image.fromarray(planes_of(scene())[0]).convert("RGB")
        assert difference(psd(planes, mode, 32, compression=compression), wanted) < 2


def test_light_beyond_white_is_cut_off() -> None:
    planes = np.full((3, HEIGHT, WIDTH), [[[5.0]], [[-1.0]], [[0.0]]])
    assert decoded(psd(planes, RGB, 32)).getpixel((3, 3)) == (255, 0, 0)
    assert refusal(psd(np.full_like(planes, np.nan), RGB, 32)) is None


@pytest.mark.parametrize("compression", [RAW, PACKBITS])
def test_a_bit_that_is_set_is_black(compression: int) -> None:
    bits = np.random.default_rng(1).integers(0, 256, (1, HEIGHT, 5), np.uint8)
    wanted = Image.fromarray(255 * (1 - np.unpackbits(bits[0], axis=1)))
    assert difference(psd(bits, BITMAP, 1, compression=compression), wanted.convert("L")) < 0.01


def test_indexed_colours_and_a_transparent_one() -> None:
    image = scene().quantize(64)
    palette = bytes(image.getpalette() or b"").ljust(768, b"\0")[:768]
    stored = b"".join(palette[band::3] for band in range(3))
    planes = planes_of(image)
    assert difference(psd(planes, INDEXED, 8, palette=stored), image.convert("RGB")) < 0.01
    index = int(planes[0, 0, 0])
    data = psd(planes, INDEXED, 8, palette=stored, resources=resource(1047, struct.pack(">H", index)))
    assert info(data).has_alpha
    alpha = np.asarray(decoded(data).getchannel("A"))
    assert ((alpha == 0) == (planes[0] == index)).all()


def test_ink_is_stored_as_light() -> None:
    with Image.open(io.BytesIO(sample("jpeg-cmyk"))) as jpeg:
        ink = jpeg.resize((WIDTH, HEIGHT))
    buffer = io.BytesIO()
    ink.save(buffer, "TIFF")
    planes = 255 - planes_of(ink)
    wanted = decoded(buffer.getvalue())
    assert difference(psd(planes, CMYK, 8), wanted.convert("RGB")) < 1
    assert difference(psd(planes.astype(np.uint16) * 257, CMYK, 16), wanted.convert("RGB")) < 1


@pytest.mark.parametrize("bits", [8, 16])
def test_lab(bits: int) -> None:
    lab = ImageCms.applyTransform(
        scene(),
        ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"),
    )
    assert lab is not None
    # Pillow's a and b are signed bytes.
    planes = planes_of(lab) ^ np.array([0, 128, 128], np.uint8)[:, None, None]
    stored = planes if bits == 8 else planes.astype(np.uint16) * 257
    assert difference(psd(stored, LAB, bits), scene()) < 2


def test_spot_colours_are_read_as_inks() -> None:
    planes = planes_of(scene())
    assert difference(psd(planes, MULTICHANNEL, 8), scene()) < 0.01
    assert difference(psd(planes[:2], MULTICHANNEL, 8), Image.fromarray(planes[0])) < 0.01


@pytest.mark.parametrize(
    ("layers", "blocks"),
    [(-2, b""), (None, b"8BIMMt16" + bytes(4)), (None, b"8BIMLr16" + struct.pack(">Ih", 4, -1) + bytes(2))],
    ids=["negative number", "a mark", "layers of 16 bits"],
)
@pytest.mark.parametrize("bits", [8, 16])
def test_transparency_over_white_is_undone(bits: int, layers: int | None, blocks: bytes) -> None:
    image = scene("RGBA")
    stored = over_white(image)
    if bits == 16:
        stored = stored.astype(np.uint16) * 257
    data = psd(stored, RGB, bits, layers=layers, blocks=blocks, resources=NAMES)
    assert info(data).has_alpha
    found, wanted = np.asarray(decoded(data)).astype(int), np.asarray(image).astype(int)
    assert abs(found[..., 3] - wanted[..., 3]).max() <= 1
    solid = wanted[..., 3] > 128
    assert abs(found - wanted)[solid].max() <= 2


def test_a_saved_selection_is_no_transparency() -> None:
    planes = planes_of(scene("RGBA"))
    for layers in (None, 3):
        data = psd(planes, RGB, 8, layers=layers, resources=NAMES)
        assert not info(data).has_alpha
        assert difference(data, scene("RGBA").convert("RGB")) < 0.01


def test_a_channel_without_a_name_is_straight_alpha() -> None:
    data = psd(planes_of(scene("RGBA")), RGB, 8)
    assert info(data).has_alpha
    assert difference(data, scene("RGBA")) < 0.01


def test_more_channels_are_ignored() -> None:
    planes = np.concatenate([over_white(scene("RGBA")), np.zeros((3, HEIGHT, WIDTH), np.uint8)])
    for compression in COMPRESSIONS.values():
        data = psd(planes, RGB, 8, layers=-1, compression=compression)
        assert decoded(data).mode == "RGBA"
        assert abs(np.asarray(decoded(data).getchannel("A")) - planes[3].astype(int)).max() <= 1


def test_a_profile_is_applied() -> None:
    image = photo(WIDTH, HEIGHT)
    profile = adobe_rgb_profile()
    data = psd(planes_of(image), RGB, 8, resources=resource(1039, profile))
    png = io.BytesIO()
    image.save(png, "PNG", icc_profile=profile)
    assert difference(data, decoded(png.getvalue()).convert("RGB")) < 1
    assert difference(data, image) > 1


def test_a_document_without_a_merged_image_is_refused() -> None:
    white = np.full((3, HEIGHT, WIDTH), 255, np.uint8)
    refused = refusal(psd(white, RGB, 8, layers=2, resources=NOT_MERGED))
    assert isinstance(refused, UnsupportedFormat)
    assert "no merged image" in str(refused)
    # Some programs say so of an image that is there, and others have white images.
    assert difference(psd(planes_of(scene()), RGB, 8, resources=NOT_MERGED), scene()) < 0.01
    assert refusal(psd(white, RGB, 8)) is None


@pytest.mark.parametrize("compression", COMPRESSIONS.values(), ids=COMPRESSIONS)
def test_a_truncated_file_is_corrupt(compression: int) -> None:
    data = psd(planes_of(photo(64, 64)), RGB, 8, compression=compression)
    for keep in (0.4, 0.95):
        assert isinstance(refusal(data[: int(len(data) * keep)]), CorruptImage)
    for length in range(0, 60, 7):
        assert refusal(data[:length]) is not None


@pytest.mark.parametrize(
    ("start", "value", "error"),
    [
        (4, b"\0\3", CorruptImage),
        (12, b"\0\2", CorruptImage),
        (12, b"\0\x39", CorruptImage),
        (14, b"\0\0\x75\x31", CorruptImage),
        (22, b"\0\7", UnsupportedFormat),
        (24, b"\0\5", CorruptImage),
        (26, b"\xff\xff\xff\xff", CorruptImage),
        (34, b"\xff\xff\xff\xff", CorruptImage),
    ],
    ids=["version", "channels", "too many channels", "height", "depth", "mode", "table", "layers"],
)
def test_a_header_that_lies_is_refused(start: int, value: bytes, error: type[Exception]) -> None:
    data = psd(planes_of(scene()), RGB, 8)
    assert isinstance(refusal(data[:start] + value + data[start + len(value) :]), error)


def test_what_is_held_is_predicted() -> None:
    upload = pipeline.Upload.from_memory(psd(planes_of(photo(400, 300)), RGB, 8, compression=ZIP))
    packed = pipeline.Upload.from_memory(psd(planes_of(photo(400, 300)), RGB, 8))
    options = [ResizeOptions(width=10, height=10)]
    costs = [predict(one, read_header(one), options).memory for one in (upload, packed)]
    assert costs[0] > costs[1] + 2 * 400 * 300 * 3 - packed.size
    huge = bytearray(psd(planes_of(scene()), RGB, 8, large=True, compression=ZIP))
    huge[14:22] = struct.pack(">II", 9000, 9000)
    with pytest.raises(TooLarge):
        pipeline.resize(pipeline.Upload.from_memory(bytes(huge)), options, config=LIMITS)


def test_many_resources_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psd_header, "_MAX_BLOCKS", 3)
    profile = resource(1039, adobe_rgb_profile())
    few, many = (psd(planes_of(scene()), RGB, 8, resources=resource(1, b"") * n + profile) for n in (2, 3))
    found = [psd_header.parse_header(pipeline.Upload.from_memory(data)).profile for data in (few, many)]
    assert found[0] is not None
    assert found[1] is None


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not beside the repository (../shared/corpus)")
def test_the_files_of_the_corpus() -> None:
    for path in CORPUS.rglob("*.psd"):
        with Image.open(path) as image:
            assert difference(path.read_bytes(), image.convert("RGB")) < 2
