"""What each option does to the result that a viewer sees, and which options exclude each other."""

import io
import struct
from collections.abc import Iterator
from typing import Any

import pytest
import pyvips
from PIL import ExifTags, Image

from tests.pipeline.run import LIMITS, run, sample
from tests.support.image_comparison import mean_abs_difference, open_exact, reference, ssim
from tests.support.images import (
    BOTTOM_LEFT,
    BOTTOM_RIGHT,
    HEIGHT,
    TOP_LEFT,
    TOP_RIGHT,
    WIDTH,
    adobe_rgb_profile,
    alpha_photo,
    animated,
    encode,
    jpeg,
    oriented_jpeg,
    photo,
    swapped_profile,
)
from vipsrv import pipeline
from vipsrv.errors import BadRequest, Cancelled, RequestError, TooLarge
from vipsrv.options import Fit, Format, ImageInfo, Keep, Position, ResizeOptions
from vipsrv.pipeline import output_format
from vipsrv.pipeline.steps import metadata

WRITTEN = ("jpeg", "png", "webp", "avif", "tiff", "gif")
WITH_ALPHA = ("png", "webp", "avif", "tiff", "gif")
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def make(encoded: bytes, **asked: Any) -> Image.Image:
    """The single result, decoded by Pillow; 90 × 60 if no size is given."""
    if not {"width", "height"} & asked.keys():
        asked |= {"width": 90, "height": 60}
    (output,) = run(encoded, ResizeOptions(**asked)).outputs
    image = open_exact(output.data)
    assert image.size == (output.info.width, output.info.height)
    assert len(output.data) == output.info.size
    assert str(image.format).lower() == output.info.format
    return image


def refused(image: bytes, **asked: Any) -> RequestError:
    with pytest.raises(RequestError) as refusal:
        make(image, **asked)
    return refusal.value


def like(seen: Any, wanted: tuple[int, ...], tolerance: int = 12) -> bool:
    return all(abs(have - want) <= tolerance for have, want in zip(seen, wanted, strict=True))


def stripes(width: int, height: int, *, upright: bool) -> bytes:
    """Red, green and blue stripes of the same width, from left to right or from top to bottom."""
    small = Image.new("RGB", (3, 1) if upright else (1, 3))
    for number, colour in enumerate((RED, GREEN, BLUE)):
        small.putpixel((number, 0) if upright else (0, number), colour)
    return encode(small.resize((width, height), Image.Resampling.NEAREST), "PNG")


# Sizes and positions


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"fit": "inside", "width": 90, "height": 90}, (90, 68)),
        ({"fit": "outside", "width": 90, "height": 90}, (119, 90)),
        ({"fit": "inside", "height": 50}, (66, 50)),
        ({"fit": "cover", "width": 90, "height": 90}, (90, 90)),
        ({"fit": "contain", "width": 90, "height": 90}, (90, 90)),
        ({"fit": "fill", "width": 400, "height": 90, "enlarge": False}, (330, 90)),
        ({"fit": "inside", "width": 400, "enlarge": False}, (330, 250)),
        ({"fit": "inside", "width": 400}, (400, 303)),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_size_is_the_one_that_a_viewer_sees(
    asked: dict[str, Any], size: tuple[int, int], orientation: int
) -> None:
    assert make(oriented_jpeg(orientation), **asked).size == size


@pytest.mark.parametrize("kind", ["inside", "outside"])
def test_the_image_keeps_its_proportions(kind: str) -> None:
    result = make(jpeg(), fit=kind, width=100, height=100, quality=95)
    assert ssim(result, reference(jpeg(), *result.size)) > 0.95


@pytest.mark.parametrize(
    ("position", "across", "down"),
    [
        ("centre", GREEN, GREEN),
        ("top", GREEN, RED),
        ("right top", BLUE, RED),
        ("right", BLUE, GREEN),
        ("right bottom", BLUE, BLUE),
        ("bottom", GREEN, BLUE),
        ("left bottom", RED, BLUE),
        ("left", RED, GREEN),
        ("left top", RED, RED),
    ],
)
@pytest.mark.parametrize("file_format", ["jpeg", "webp"])
def test_cover_keeps_the_part_at_the_position(
    position: str, across: tuple[int, ...], down: tuple[int, ...], file_format: str
) -> None:
    asked = {"fit": "cover", "position": position, "width": 30, "height": 30, "format": file_format}
    for upright, wanted, size in ((True, across, (270, 90)), (False, down, (90, 270))):
        result = make(stripes(*size, upright=upright), **asked, quality=95)
        # The centre, because the chroma of an edge bleeds.
        assert like(result.convert("RGB").getpixel((15, 15)), wanted)


@pytest.mark.parametrize("position", [place for place in Position if place not in {"entropy", "attention"}])
def test_contain_places_the_image(position: Position) -> None:
    image = encode(Image.new("RGB", (60, 60), GREEN), "PNG")
    left = {"left": 0, "right": 60}.get(position.split(" ")[0], 30)
    top = {"top": 0, "bottom": 60}.get(position.split(" ")[-1], 30)
    for size, box in (((120, 60), (left, 0)), ((60, 120), (0, top))):
        asked = {"width": size[0], "height": size[1], "position": position, "background": "#0000ff"}
        result = make(image, fit="contain", format="png", **asked).convert("RGB")
        wanted = Image.new("RGB", size, BLUE)
        wanted.paste(GREEN, (*box, box[0] + 60, box[1] + 60))
        assert mean_abs_difference(result, wanted) < 1


@pytest.mark.parametrize("position", ["entropy", "attention"])
@pytest.mark.parametrize("orientation", [1, 3])
def test_cover_by_content_finds_the_subject(position: str, orientation: int) -> None:
    # The subject is at one end of a flat background.
    canvas = Image.new("RGB", (600, 150), (120, 120, 120))
    canvas.paste(photo(120, 120), (460, 15))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = encode(canvas, "PNG", exif=exif)
    result = make(image, fit="cover", position=position, width=100, height=100, format="png")
    assert result.size == (100, 100)
    # The green at the top right of the photo is in the result.
    assert any(like(pixel, TOP_RIGHT, 45) for _, pixel in result.convert("RGB").getcolors(10_000) or [])
    middle = make(image, fit="cover", width=100, height=100, format="png")
    assert mean_abs_difference(result, middle) > 5


@pytest.mark.parametrize(("width", "height"), [(165, 125), (400, 300), (330, 100)])
@pytest.mark.parametrize("file_format", ["png", "webp", "avif", "tiff"])
def test_every_format_shows_the_image(file_format: str, width: int, height: int) -> None:
    result = make(jpeg(), width=width, height=height, format=file_format, quality=95)
    assert result.mode == "RGB"
    assert mean_abs_difference(result, reference(jpeg(), width, height)) < 3


def test_a_gif_shows_the_image_in_256_colours() -> None:
    result = make(jpeg(), format="gif").convert("RGB")
    assert mean_abs_difference(result, reference(jpeg(), 90, 60)) < 8


@pytest.mark.parametrize("name", ["png-1bit", "png-grey16", "jpeg-cmyk", "png-palette", "tiff-tiled"])
def test_results_are_eight_bit_rgb(name: str) -> None:
    assert make(sample(name), format="png").mode == "RGB"


# Formats and transparency


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("jpeg", "jpeg"),
        ("jpeg-cmyk", "jpeg"),
        ("png", "png"),
        ("webp", "webp"),
        ("avif", "avif"),
        ("tiff-strip", "tiff"),
        ("gif-animated", "gif"),
        ("webp-alpha", "webp"),
    ],
)
def test_auto_keeps_the_format(name: str, wanted: str) -> None:
    assert make(sample(name), format="auto").format == wanted.upper()


@pytest.mark.parametrize(("has_alpha", "wanted"), [(True, Format.PNG), (False, Format.JPEG)])
def test_auto_for_a_format_that_cannot_be_written(*, has_alpha: bool, wanted: Format) -> None:
    source = ImageInfo(format="bmp", width=9, height=9, pages=1, has_alpha=has_alpha, orientation=1, size=99)
    assert output_format.find_writer(Format.AUTO, source).format is wanted


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("file_format", WITH_ALPHA)
def test_transparency_is_kept(kind: str, file_format: str) -> None:
    encoded = encode(alpha_photo(), kind)
    result = make(encoded, width=110, height=83, format=file_format, quality=95).convert("RGBA")
    wanted = alpha_photo().resize((110, 83), Image.Resampling.LANCZOS)
    if file_format == "gif":  # all or nothing
        assert [result.getpixel(place)[3] for place in ((2, 2), (16, 41), (108, 40))] == [255, 0, 0]  # type: ignore[index]
        return
    assert mean_abs_difference(*(image.getchannel("A") for image in (result, wanted))) < 3
    ground = Image.new("RGBA", result.size, (128, 128, 128, 255))
    shown, should = (Image.alpha_composite(ground, image) for image in (result, wanted))
    assert mean_abs_difference(shown, should) < 4


@pytest.mark.parametrize("file_format", ["png", "webp"])
@pytest.mark.parametrize(("width", "height"), [(165, 125), (330, 125), (165, 250), (330, 250), (500, 125)])
def test_kept_transparency_has_no_dark_fringe(file_format: str, width: int, height: int) -> None:
    canvas = Image.new("RGBA", (330, 250), (255, 255, 255, 255))
    canvas.paste((0, 0, 0, 0), (100, 61, 203, 190))
    asked = {"width": width, "height": height, "format": file_format, "lossless": True}
    result = make(encode(canvas, "PNG"), **asked)
    assert result.mode == "RGBA"
    shown = Image.alpha_composite(Image.new("RGBA", result.size, (255, 255, 255, 255)), result)
    assert min(low for low, _ in shown.getextrema()) > 250  # type: ignore[misc]
    # And the hole is transparent.
    assert result.getpixel((width * 150 // 330, height // 2))[3] == 0  # type: ignore[index]


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_image_with_transparency_is_rotated(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    canvas = Image.new("RGBA", (60, 30), (*BLUE, 255))
    canvas.paste((*RED, 255), (0, 0, 30, 30))
    canvas.paste((0, 0, 0, 0), (0, 0, 15, 15))
    width, height = (30, 60) if orientation == 6 else (60, 30)
    result = make(encode(canvas, "PNG", exif=exif), width=width, height=height, format="png")
    wanted = canvas.transpose(Image.Transpose.ROTATE_270 if orientation == 6 else Image.Transpose.ROTATE_180)
    assert result.tobytes() == wanted.tobytes()


def test_the_canvas_of_contain_is_opaque() -> None:
    clear = encode(Image.new("RGBA", (40, 40), (0, 0, 0, 0)), "PNG")
    result = make(clear, width=80, height=40, fit="contain", format="png", background="#ff0000")
    assert (result.getpixel((5, 20)), result.getpixel((40, 20))[3]) == ((*RED, 255), 0)  # type: ignore[index]
    flat = make(clear, width=80, height=40, fit="contain", background="#ff0000", quality=95)
    assert like(flat.getpixel((40, 20)), RED)


# Quality


@pytest.mark.parametrize("file_format", ["webp", "avif"])
def test_lossless_preserves_every_pixel(file_format: str) -> None:
    exact = make(jpeg(), format="png")
    assert make(jpeg(), format=file_format, lossless=True).tobytes() == exact.tobytes()
    assert make(jpeg(), format=file_format).tobytes() != exact.tobytes()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"format": "jpeg"}, 90),
        ({"format": "webp", "quality": 40}, 40),
        ({"format": "webp", "lossless": True}, 100),
        ({"format": "png", "quality": 40}, 100),
        ({"format": "gif"}, 100),
    ],
)
def test_the_quality_is_reported(asked: dict[str, Any], told: int) -> None:
    (output,) = run(jpeg(), ResizeOptions(width=90, height=60, **asked)).outputs
    assert output.info.quality == told


@pytest.mark.parametrize("file_format", ["jpeg", "webp", "avif"])
def test_a_lower_quality_takes_fewer_bytes(file_format: str) -> None:
    def size(quality: int) -> int:
        asked = ResizeOptions(width=160, height=120, format=Format(file_format), quality=quality)
        return run(jpeg(), asked).outputs[0].info.size

    assert size(20) < size(60) < size(95)


@pytest.mark.parametrize(("file_format", "most"), [("jpeg", 2500), ("webp", 1500), ("avif", 2500)])
def test_max_bytes_gives_the_highest_quality_that_fits(file_format: str, most: int) -> None:
    asked: dict[str, Any] = {"width": 160, "height": 120, "format": Format(file_format)}
    (output,) = run(jpeg(), ResizeOptions(**asked, max_bytes=most)).outputs
    assert output.info.size <= most
    assert 1 < output.info.quality < 90
    (plain,) = run(jpeg(), ResizeOptions(**asked, quality=output.info.quality)).outputs
    (better,) = run(jpeg(), ResizeOptions(**asked, quality=output.info.quality + 1)).outputs
    assert plain.data == output.data
    assert better.info.size > most


def test_a_generous_max_bytes_changes_nothing() -> None:
    asked: dict[str, Any] = {"width": 160, "height": 120, "quality": 70}
    (plain,) = run(jpeg(), ResizeOptions(**asked)).outputs
    (output,) = run(jpeg(), ResizeOptions(**asked, max_bytes=plain.info.size)).outputs
    assert (output.data, output.info.quality) == (plain.data, 70)


def test_max_bytes_that_no_quality_can_meet() -> None:
    error = refused(jpeg(), width=160, height=120, max_bytes=300)
    assert isinstance(error, TooLarge)
    assert error.message.startswith("max_bytes: at quality 1 the jpeg still has ")


# Metadata


def tagged(kind: str, **more: Any) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "a camera"
    return encode(photo(), kind, exif=exif, **more)


@pytest.mark.parametrize("file_format", ["jpeg", "png", "webp", "avif"])
@pytest.mark.parametrize(
    ("keep", "has_exif", "has_icc"),
    [("none", False, False), ("icc", False, True), ("exif", True, False), ("all", True, True)],
)
def test_metadata_that_are_kept(file_format: str, keep: str, *, has_exif: bool, has_icc: bool) -> None:
    image = tagged("JPEG", icc_profile=swapped_profile(), comment=b"a comment")
    result = make(image, width=60, height=90, format=file_format, keep=keep)
    exif = result.getexif()
    assert exif.get(ExifTags.Base.Make) == ("a camera" if has_exif else None)
    # The orientation has been applied.
    assert exif.get(ExifTags.Base.Orientation, 1) == 1
    assert ("icc_profile" in result.info) is has_icc
    if has_icc:
        assert result.info["icc_profile"] == swapped_profile()


def xmp(orientation: str) -> bytes:
    """An XMP packet with the orientation in its description or after it."""
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="a camera" {orientation}'
        "</rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
    ).encode()


TIFF_PROPERTIES = "http://ns.adobe.com/tiff/1.0/"
XMP_FORMS = {
    "an attribute": f'xmlns:tiff="{TIFF_PROPERTIES}" tiff:Orientation="%d"/>',
    "single quotes": f"xmlns:tiff = '{TIFF_PROPERTIES}' tiff:Orientation = '%d' />",
    "an element": f'xmlns:tiff="{TIFF_PROPERTIES}"><tiff:Orientation>%d</tiff:Orientation></rdf:Description>',
    "spaces": f'xmlns:tiff="{TIFF_PROPERTIES}"><tiff:Orientation >\n%d</tiff:Orientation ></rdf:Description>',
    "another prefix": f'xmlns:t-1="{TIFF_PROPERTIES}" t-1:Orientation="%d"/>',
}


@pytest.mark.parametrize("form", XMP_FORMS.values(), ids=XMP_FORMS)
@pytest.mark.parametrize("file_format", ["jpeg", "png", "webp", "avif", "tiff"])
def test_an_applied_orientation_is_removed_from_xmp(file_format: str, form: str) -> None:
    image = tagged("JPEG", xmp=xmp(form % 6))
    asked = ResizeOptions(width=60, height=90, format=Format(file_format), keep=Keep.ALL)
    result = pyvips.Image.new_from_buffer(run(image, asked).outputs[0].data, "")
    assert (result.width, result.height) == (60, 90)
    assert result.get("xmp-data") == xmp(form % 1)


def test_other_properties_in_xmp_stay() -> None:
    # Another namespace, another name, no number.
    others = 'xmlns:a="urn:a" a:Orientation="6" tiff:Orientations="6" tiff:Orientation="six"/>'
    for packet in (xmp(others), xmp(f'xmlns:tiff="{TIFF_PROPERTIES}" {others}'), b"", b"no XML", bytes(99)):
        assert metadata.without_orientation(packet) == packet


def test_a_packet_too_large_to_search_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    packet = xmp(XMP_FORMS["an attribute"] % 6)
    asked = ResizeOptions(width=60, height=90, keep=Keep.ALL)
    for most, kept in ((len(packet), True), (len(packet) - 1, False)):
        monkeypatch.setattr(metadata, "MAX_XMP", most)
        data = run(tagged("JPEG", xmp=packet), asked).outputs[0].data
        assert (b"xmpmeta" in data) is kept
        assert b"a camera" in data


def exif_with_thumbnail(thumbnail: bytes) -> bytes:
    """EXIF (TIFF 6.0, EXIF 2.3 section 4.5) of the maker's name in IFD 0 and a JPEG thumbnail in IFD 1."""
    maker, first, second = b"a camera", 8, 8 + 2 + 12 + 4 + 8
    thumbnail_at = second + 2 + 3 * 12 + 4
    return (
        struct.pack("<6s2sHI", b"Exif", b"II", 42, first)
        + struct.pack("<HHHIII", 1, 0x010F, 2, len(maker), second - 8, second)
        + maker
        + struct.pack("<H", 3)
        + struct.pack("<HHIHH", 0x0103, 3, 1, 6, 0)
        + struct.pack("<HHII", 0x0201, 4, 1, thumbnail_at)
        + struct.pack("<HHII", 0x0202, 4, 1, len(thumbnail))
        + struct.pack("<I", 0)
        + thumbnail
    )


@pytest.mark.parametrize("keep", ["exif", "all"])
def test_the_exif_thumbnail_is_removed(keep: str) -> None:
    # The thumbnail shows what may have been cropped.
    small = jpeg(40, 30, seed=9, quality=50)
    image = jpeg(exif=exif_with_thumbnail(small))
    assert small[20:200] in image
    (output,) = run(image, ResizeOptions(width=90, height=60, keep=Keep(keep))).outputs
    assert b"a camera" in output.data
    assert small[20:200] not in output.data


@pytest.mark.parametrize("keep", ["none", "icc", "exif", "all"])
@pytest.mark.parametrize("image", [photo(), alpha_photo()], ids=["opaque", "transparent"])
@pytest.mark.parametrize("profile", [swapped_profile(), adobe_rgb_profile()], ids=["swapped", "adobe"])
def test_the_colours_look_the_same_whatever_is_kept(keep: str, image: Image.Image, profile: bytes) -> None:
    data = encode(image, "PNG", icc_profile=profile)
    result = make(data, format="png", keep=keep)
    buffer = io.BytesIO()
    result.save(buffer, "PNG", icc_profile=result.info.get("icc_profile"))
    assert mean_abs_difference(reference(buffer.getvalue(), 90, 60), reference(data, 90, 60)) < 2


def test_a_kept_profile_leaves_the_pixels_as_they_are() -> None:
    stored = encode(Image.new("RGB", (40, 40), (0, 200, 0)), "PNG", icc_profile=swapped_profile())
    assert make(stored, format="png", keep="icc").getpixel((9, 9)) == (0, 200, 0)
    seen = make(stored, format="png", keep="none").getpixel((9, 9))
    assert isinstance(seen, tuple)
    assert seen.index(max(seen)) != 1


@pytest.mark.parametrize("fit", [Fit.FILL, Fit.CONTAIN])
def test_a_background_has_its_colour_in_a_kept_profile_as_well(fit: Fit) -> None:
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    image = encode(clear, "PNG", icc_profile=swapped_profile())
    result = make(image, keep="icc", fit=fit, background="#c02010", quality=100)
    buffer = io.BytesIO()
    result.save(buffer, "PNG", icc_profile=result.info["icc_profile"])
    assert like(reference(buffer.getvalue(), *result.size).getpixel((3, 30)), (0xC0, 0x20, 0x10), 5)


@pytest.mark.parametrize(
    "image",
    [
        jpeg(icc_profile=b"this is no profile at all" * 20),
        encode(photo().convert("L"), "JPEG", icc_profile=swapped_profile()),
        sample("jpeg-cmyk"),
        jpeg(),
    ],
    ids=["broken", "of-another-kind", "cmyk", "none"],
)
@pytest.mark.parametrize("keep", ["icc", "all"])
def test_images_without_an_rgb_profile_become_srgb(image: bytes, keep: str) -> None:
    result = make(image, keep=keep)
    assert result.mode == "RGB"
    assert "icc_profile" not in result.info


def test_gif_and_tiff_keep_what_they_can_hold() -> None:
    image = tagged("JPEG", icc_profile=swapped_profile())
    assert make(image, format="tiff", keep="all").info["icc_profile"] == swapped_profile()
    # GIF cannot hold the profile, so its colours are sRGB.
    plain, kept = (make(image, format="gif", keep=keep) for keep in ("none", "all"))
    assert mean_abs_difference(plain, kept) < 1
    assert make(sample("gif-animated"), format="auto", keep="icc").format == "GIF"


# Pages


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP"])
@pytest.mark.parametrize("page", [0, 1, 2])
@pytest.mark.parametrize("file_format", ["jpeg", "png"])
def test_the_requested_page_is_decoded(kind: str, page: int, file_format: str) -> None:
    result = make(animated(kind), width=165, height=125, page=page, format=file_format, quality=95)
    wanted = reference(encode(photo(seed=page + 1), "PNG"), 165, 125)
    assert mean_abs_difference(result.convert("RGB"), wanted) < 6
    other = reference(encode(photo(seed=(page + 1) % 3 + 1), "PNG"), 165, 125)
    assert mean_abs_difference(result.convert("RGB"), other) > 6


def test_a_page_of_an_avif() -> None:
    frames = [pyvips.Image.new_from_buffer(encode(photo(seed=seed), "PNG"), "") for seed in (1, 2)]
    tall = frames[0].join(frames[1], "vertical").copy()
    tall.set_type(pyvips.GValue.gint_type, "page-height", HEIGHT)
    data = tall.heifsave_buffer(compression="av1", effort=0, Q=90)
    result = make(data, width=165, height=125, page=1, quality=95)
    assert mean_abs_difference(result, reference(encode(photo(seed=2), "PNG"), 165, 125)) < 6


def test_pages_of_different_sizes() -> None:
    pages = [photo(200, 100), photo(50, 300)]
    image = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert make(image, width=20, fit="inside", page=0).size == (20, 10)
    assert make(image, width=20, fit="inside", page=1).size == (20, 120)


def test_pages_that_halve_in_size_are_not_a_pyramid() -> None:
    pages = [Image.new("RGB", (400 >> level, 300 >> level), (RED, GREEN, BLUE)[level]) for level in range(3)]
    image = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    for page, wanted in ((0, RED), (1, GREEN), (2, BLUE)):
        assert like(make(image, width=20, height=15, page=page).getpixel((9, 9)), wanted)


@pytest.mark.parametrize(("name", "count"), [("jpeg", "1 page"), ("tiff-pages", "3 pages")])
def test_a_page_after_the_last_is_refused(name: str, count: str) -> None:
    error = refused(sample(name), page=3)
    assert isinstance(error, BadRequest)
    assert error.message.startswith("page: 3 is beyond the last; this ")
    assert count in error.message


# Refusals


@pytest.mark.parametrize(
    "asked",
    [
        {"lossless": True},
        {"lossless": True, "format": "jpeg"},
        {"lossless": True, "format": "gif"},
        {"lossless": True, "format": "auto"},
        {"max_bytes": 5000, "format": "png"},
        {"max_bytes": 5000, "format": "tiff"},
        {"max_bytes": 5000, "format": "gif"},
        {"max_bytes": 5000, "format": "webp", "lossless": True},
        {"keep": "exif", "format": "tiff"},
        {"keep": "exif", "format": "gif"},
        {"keep": "icc", "format": "gif"},
        {"position": "top", "fit": "fill"},
        {"position": "entropy", "fit": "inside"},
        {"position": "attention", "fit": "contain"},
    ],
    ids=str,
)
def test_options_that_exclude_each_other_are_refused_by_name(asked: dict[str, Any]) -> None:
    error = refused(jpeg(), **asked)
    assert isinstance(error, BadRequest)
    assert error.message.startswith(f"{next(iter(asked))}: ")
    assert error.message.isascii()


@pytest.fixture
def without_avif_encoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    call = pyvips.Operation.call

    def failing(name: str, *arguments: object, **options: object) -> object:
        if name == "heifsave_buffer":
            raise pyvips.Error("no encoder")
        return call(name, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(pyvips.Operation, "call", failing)
        output_format.try_writers()
    yield
    output_format.try_writers()


@pytest.mark.usefixtures("without_avif_encoder")
def test_a_format_that_cannot_be_written_here_is_refused() -> None:
    assert "avif" not in pipeline.written_formats()
    assert refused(jpeg(), format="avif").message.startswith("format: avif cannot be written by this ")
    assert make(sample("avif"), format="auto").format == "JPEG"


@pytest.mark.parametrize(("file_format", "most"), [("webp", 16_383), ("avif", 16_384), ("gif", 65_535)])
def test_a_side_that_a_format_cannot_have_is_refused(file_format: str, most: int) -> None:
    image = encode(Image.new("RGB", (8, 8)), "PNG")
    assert make(image, width=most, height=1, format=file_format).size == (most, 1)
    error = refused(image, width=1, height=most + 1, format=file_format)
    assert isinstance(error, TooLarge)
    assert f"a {file_format} has at most {most} pixels on a side" in error.message


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"fit": "outside", "width": 10_000, "height": 10}, "the result has 75760000 pixels"),
        ({"fit": "cover", "width": 10_000, "height": 10}, "the result is cropped from 75760000 pixels"),
        ({"fit": "inside", "width": 10_000}, "the result has 75760000 pixels"),
    ],
)
def test_the_limit_counts_what_is_computed(asked: dict[str, Any], words: str) -> None:
    error = refused(jpeg(), **asked)
    assert isinstance(error, TooLarge)
    assert error.message.startswith(words)
    assert "max-output-pixels allows 50000000" in error.message


def test_the_search_for_a_quality_stops_when_asked() -> None:
    reason = Cancelled("enough")
    with pytest.raises(Cancelled) as stopped:
        pipeline.resize(
            pipeline.Upload.from_memory(jpeg()),
            [ResizeOptions(width=160, height=120, max_bytes=2500)],
            config=LIMITS,
            watch=lambda: reason,
        )
    assert stopped.value is reason


def test_corners_are_where_they_belong() -> None:
    result = make(oriented_jpeg(8), width=WIDTH, fit="inside", format="webp", quality=95)
    assert result.size == (WIDTH, HEIGHT)
    corners = [(2, 2), (WIDTH - 3, 2), (2, HEIGHT - 3), (WIDTH - 3, HEIGHT - 3)]
    for place, colour in zip(corners, [TOP_LEFT, TOP_RIGHT, BOTTOM_LEFT, BOTTOM_RIGHT], strict=True):
        assert like(result.getpixel(place), colour, 30)


def test_keep_is_all_that_decides_on_metadata() -> None:
    for kept in Keep:
        (output,) = run(tagged("JPEG"), ResizeOptions(width=60, height=90, keep=kept)).outputs
        assert (b"a camera" in output.data) is (kept in {Keep.EXIF, Keep.ALL})
