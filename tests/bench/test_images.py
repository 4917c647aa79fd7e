"""The test images are like photographs in what the time of a codec and the size of a file depend on."""

import array
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import pyvips

from bench.images import image_file

CORPUS = Path(__file__).parents[3] / "shared" / "corpus" / "photos"


@dataclass(frozen=True)
class Texture:
    """Bits a pixel of the file; entropy in bits of the grey levels, and of the differences of neighbours in a
    row, which is what is left to encode once the coarse is known; and the contrast of each octave, from the
    finest on, by that of the octave before.
    """

    file_bits: float
    grey_bits: float
    difference_bits: float
    octave_ratios: list[float]


def texture(path: Path) -> Texture:
    image = pyvips.Image.new_from_file(str(path))
    grey = image.colourspace("b-w").cast("uchar").copy_memory()
    left = grey.crop(0, 0, grey.width - 1, grey.height)
    right = grey.crop(1, 0, grey.width - 1, grey.height)
    contrasts: list[float] = []
    coarse = grey
    while len(contrasts) < 4:
        halved = coarse.shrink(2, 2).copy_memory()
        width, height = min(halved.width * 2, coarse.width), min(halved.height * 2, coarse.height)
        fine = coarse.crop(0, 0, width, height) - halved.zoom(2, 2).crop(0, 0, width, height)
        contrasts.append(fine.deviate())
        coarse = halved
    return Texture(
        file_bits=8 * path.stat().st_size / (image.width * image.height),
        grey_bits=entropy(grey),
        difference_bits=entropy((right - left + 255).cast("ushort")),
        octave_ratios=[b / a for a, b in itertools.pairwise(contrasts)],
    )


def entropy(image: pyvips.Image) -> float:
    counts = array.array("I", bytes(image.hist_find().write_to_memory()))
    total = sum(counts)
    return -sum(count / total * math.log2(count / total) for count in counts if count)


def like_a_photograph(seen: Texture) -> list[str]:
    """In what it is not, by bounds that seven photographs of phones and cameras, of 8 to 16 megapixels, keep:
    0.9 to 2.7, 5.4 to 7.8 and 1.6 to 4.3 bits, and ratios of 1.0 to 1.8.
    """
    found = []
    if not 0.8 <= seen.file_bits <= 2.8:
        found.append(f"{seen.file_bits:.2f} bits a pixel of the file")
    if not 5.2 <= seen.grey_bits <= 7.8:
        found.append(f"{seen.grey_bits:.2f} bits of grey")
    if not 1.5 <= seen.difference_bits <= 4.6:
        found.append(f"{seen.difference_bits:.2f} bits of differences")
    if not all(0.9 <= ratio <= 1.9 for ratio in seen.octave_ratios):
        found.append("octaves by the one before: " + ", ".join(f"{x:.2f}" for x in seen.octave_ratios))
    return found


@pytest.mark.parametrize("name", ["jpeg-0.3mp.jpg", "jpeg-1mp.jpg", "jpeg-1.9mp.jpg"])
def test_a_generated_image_is_like_a_photograph(name: str, tmp_path: Path) -> None:
    assert like_a_photograph(texture(image_file(name, tmp_path))) == []


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not beside the repository (../shared/corpus)")
def test_photographs_are_like_photographs() -> None:
    photos = sorted(CORPUS.glob("*.jpg"))
    assert photos
    assert {photo.name: like_a_photograph(texture(photo)) for photo in photos} == {
        photo.name: [] for photo in photos
    }


def test_noise_a_gradient_and_a_drawing_are_not_like_photographs(tmp_path: Path) -> None:
    noise = pyvips.Image.gaussnoise(400, 300, mean=128, sigma=30, seed=1).cast("uchar")
    gradient = (pyvips.Image.xyz(400, 300)[0] * 0.6).cast("uchar")
    drawing = (pyvips.Image.black(400, 300) + 255).draw_rect(0, 100, 50, 120, 90, fill=True).cast("uchar")
    found = {}
    for name, image in {"noise": noise, "gradient": gradient, "drawing": drawing}.items():
        path = tmp_path / f"{name}.jpg"
        image.copy(interpretation="b-w").jpegsave(str(path), Q=85)
        found[name] = len(like_a_photograph(texture(path)))
    assert min(found.values()) >= 2, found
