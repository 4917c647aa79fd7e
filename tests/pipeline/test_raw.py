from PIL import Image

from tests.pipeline.run import run, sample
from tests.support.image_comparison import mean_abs_difference, open_exact
from vipsrv.options import Format, ResizeOptions


def test_the_result_is_the_pixels_alone() -> None:
    (raw,) = run(sample("jpeg"), ResizeOptions(width=64, height=48, format=Format.RAW)).outputs
    (png,) = run(sample("jpeg"), ResizeOptions(width=64, height=48, format=Format.PNG)).outputs
    image = Image.frombytes("RGB", (64, 48), raw.data)
    assert mean_abs_difference(image, open_exact(png.data).convert("RGB")) == 0
