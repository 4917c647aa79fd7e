"""The factor of shrink-on-load is seen in a result."""

from pathlib import Path

import pytest
import pyvips

from bench.image_quality import decode
from bench.shrink_on_load import shrink_factor
from tests.support.images import photo


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "scene.jpg"
    photo(1000, 800).save(path, quality=92)
    return path


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_the_factor_of_the_decode_is_found(image: Path, factor: int) -> None:
    decoded = pyvips.Image.jpegload(str(image), shrink=factor)
    small = decoded.resize(200 / decoded.width, vscale=160 / decoded.height, gap=0)
    assert shrink_factor(decode(small.jpegsave_buffer(Q=85)), image) == factor


def test_the_factor_is_not_told_where_all_are_equally_far(image: Path) -> None:
    noise = pyvips.Image.gaussnoise(200, 160, mean=128, sigma=80, seed=1).cast("uchar")
    other = noise.bandjoin([noise, noise]).copy(interpretation="srgb")
    assert shrink_factor(decode(other.jpegsave_buffer(Q=85)), image) is None


def test_other_formats_have_no_factor(tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    photo(100, 80).save(path)
    assert shrink_factor(decode(path.read_bytes()), path) is None
