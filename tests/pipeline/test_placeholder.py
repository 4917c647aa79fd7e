"""ThumbHash, BlurHash, dominant and average colour: by vectors of other code, and by what they are for."""

import base64
import json
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.run import LIMITS
from tests.support.images import alpha_photo, encode, jpeg, oriented_jpeg
from vipsrv import pipeline
from vipsrv.options import Format, Placeholder, Placeholders, ResizeOptions
from vipsrv.pipeline.placeholder import placeholders

ALL = tuple(Placeholder)

# Made by the npm packages thumbhash 0.1.1 and blurhash 2.0.5 from `scene`: width, height, both texts.
VECTORS = [
    (100, 75, "Y+gJDZR/eIiOiIiIh4eId36P+BeI", "LqHL|+|#wzspl*j]jtfkgKfQfQfQ"),
    (75, 100, "Y+gJFRSPeI+Ih4iHiHiIeI+J+BiI", "TqHVbP|}wyl*j]fQgLfQfQkVjufQ"),
    (100, 100, "Y+gJFxR/eIiOiHiIiId4iHh4+MeIf4EI", "UqHL^x|#wzspl*j]fQfkgLfQfQfQkVjufQfQ"),
    (40, 100, "Y+gJGxR+j4d4iIiIf4f4F4g=", "SsHe{@||l+j]gLfjkVj["),
    (64, 48, "Y+gJDZSPiIiOeIiHiIeId46P9xh4", "LrHVeW|}wzxGqBj]jtfkgKfjfQj@"),
    (7, 5, "ZtgJFZSPeHiNd4iHiIiIeI+f9xh4", "L{I$Au}u,u%L*Gxtspoyl6oyj[f*"),
]

_PEERS = """
import(require.resolve("thumbhash")).then(({ rgbaToThumbHash }) => {
  const { encode } = require("blurhash");
  const texts = JSON.parse(require("fs").readFileSync(0)).map(([width, height, data, across, down]) => {
    const pixels = Buffer.from(data, "base64");
    const hash = Buffer.from(rgbaToThumbHash(width, height, pixels)).toString("base64");
    return [hash, encode(new Uint8ClampedArray(pixels), width, height, across, down)];
  });
  console.log(JSON.stringify(texts));
});
"""


def scene(width: int, height: int) -> Any:
    """Pixels with alpha, opaque, without symmetry, brighter at the left and top than anywhere else."""
    down, across = np.mgrid[0:height, 0:width].astype(np.int64)
    noise = (across * 7919 + down * 104729 + across * down * 31) % 41
    red = 250 - across * 190 // width - noise
    green = 240 - down * 160 // height - noise // 2
    blue = 200 - (across + down) * 120 // (width + height) - noise // 3
    opaque = np.full((height, width), 255)
    return np.stack([red, green, blue, opaque], -1).astype(np.uint8)


def made(pixels: Any) -> Placeholders:
    height, width, _ = pixels.shape
    return placeholders(pixels.tobytes(), width, height, ALL)


def described(image: bytes, *outputs: ResizeOptions, asked: tuple[Placeholder, ...] = ALL) -> Placeholders:
    upload = pipeline.Upload.from_memory(image)
    result, found = pipeline.resize_and_describe(upload, outputs, asked, config=LIMITS)
    assert len(result.outputs) == len(outputs)
    assert found is not None
    return found


def flat(colour: tuple[int, ...], size: tuple[int, int] = (60, 40)) -> bytes:
    return encode(Image.new("RGB" if len(colour) == 3 else "RGBA", size, colour), "PNG")


@pytest.mark.parametrize(("width", "height", "thumbhash", "blurhash"), VECTORS)
def test_the_vectors_of_the_reference_code(width: int, height: int, thumbhash: str, blurhash: str) -> None:
    found = made(scene(width, height))
    assert (found.thumbhash, found.blurhash) == (thumbhash, blurhash)


def test_the_same_as_the_packages_of_npm() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    asked = [(width, height) for width, height, *_ in VECTORS]
    cases = []
    for width, height in asked:
        across, down = (max(1, int(4 * side / max(width, height) + 0.5)) for side in (width, height))
        cases.append((width, height, base64.b64encode(scene(width, height).tobytes()).decode(), across, down))
    ended = subprocess.run(
        [node, "-e", _PEERS], input=json.dumps(cases), capture_output=True, text=True, check=False
    )
    if "MODULE_NOT_FOUND" in ended.stderr:
        pytest.skip("the packages thumbhash and blurhash are not where NODE_PATH says")
    texts = json.loads(ended.stdout)
    found = [made(scene(*size)) for size in asked]
    assert [[one.thumbhash, one.blurhash] for one in found] == texts


def test_the_colours() -> None:
    image = Image.new("RGB", (90, 30), (200, 40, 40))
    image.paste((0, 0, 255), (0, 0, 30, 30))
    found = described(encode(image, "PNG"))
    assert found.dominant == "#c82828"
    assert found.average is not None
    red, green, blue = bytes.fromhex(found.average[1:])
    assert abs(red - 133) <= 2
    assert abs(green - 27) <= 2
    assert abs(blue - 112) <= 2


def test_what_is_transparent_has_no_colour() -> None:
    image = Image.new("RGBA", (60, 40), (0, 255, 0, 0))
    image.paste((10, 20, 200, 255), (0, 0, 20, 40))
    found = described(encode(image, "PNG"))
    assert found.dominant == found.average == "#0a14c8"
    empty = described(flat((0, 255, 0, 0)))
    assert empty.dominant == empty.average == "#ffffff"


def test_a_thumbhash_says_whether_there_is_transparency_and_the_proportions() -> None:
    def head(image: bytes) -> bytes:
        found = described(image).thumbhash
        assert found is not None
        return base64.b64decode(found)

    assert not head(jpeg(400, 300))[2] & 0x80
    assert head(encode(alpha_photo(), "PNG"))[2] & 0x80
    assert head(jpeg(400, 100))[4] & 0x80  # landscape
    assert not head(jpeg(100, 400))[4] & 0x80


@pytest.mark.parametrize(("pages", "wanted"), [("all", "#ff0000"), ("1-2", "#00ff00")])
def test_the_first_frame_of_an_animation_is_described(pages: str, wanted: str) -> None:
    colours = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    first, *others = (Image.new("RGB", (30, 20), one) for one in colours)
    data = encode(first, "GIF", save_all=True, append_images=others, duration=50)
    found = described(data, ResizeOptions(width=10, height=7, pages=pages, format=Format.GIF))
    assert (found.dominant, found.average) == (wanted, wanted)


def test_the_image_is_upright() -> None:
    assert described(oriented_jpeg(6)).average == described(oriented_jpeg(1)).average
    turned, upright = (described(oriented_jpeg(one)).thumbhash for one in (6, 1))
    assert turned is not None
    assert upright is not None
    difference = zip(base64.b64decode(turned), base64.b64decode(upright), strict=True)
    assert all(abs(one - other) % 16 <= 2 or abs(one - other) % 16 >= 14 for one, other in difference)


def test_results_are_the_same_with_and_without_it() -> None:
    options = (ResizeOptions(width=90, height=60), ResizeOptions(width=300, height=200, format="png"))  # type: ignore[arg-type]
    upload = pipeline.Upload.from_memory(jpeg(400, 300))
    result, found = pipeline.resize_and_describe(upload, options, (Placeholder.AVERAGE,), config=LIMITS)
    assert [(one.info.width, one.info.height) for one in result.outputs] == [(90, 60), (300, 200)]
    assert found is not None
    assert found.to_meta().keys() == {"average"}


def test_it_is_of_the_whole_image_whatever_is_cropped() -> None:
    image = Image.new("RGB", (90, 30), (200, 40, 40))
    image.paste((0, 0, 255), (0, 0, 30, 30))
    asked = ResizeOptions(width=10, height=10, crop=(0, 0, 30, 30))
    assert described(encode(image, "PNG"), asked).dominant == "#c82828"


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 2)])
def test_small_and_thin_images(size: tuple[int, int]) -> None:
    found = described(flat((12, 200, 77), size))
    assert found.dominant == found.average == "#0cc84d"
    assert found.blurhash is not None
    assert len(found.blurhash) >= 6
