"""Short ways to call the pipeline in tests."""

from functools import cache

from PIL import Image

from tests.support.image_comparison import open_exact
from tests.support.images import SAMPLES
from vipsrv import pipeline
from vipsrv.errors import RequestError
from vipsrv.options import ImageInfo, ResizeOptions
from vipsrv.worker_config import WorkerConfig

LIMITS = WorkerConfig(max_pixels=100_000_000, max_output_pixels=50_000_000, quality=90)


@cache
def sample(name: str) -> bytes:
    """An image of ``SAMPLES``, encoded once."""
    return SAMPLES[name]()


def resize(
    image: bytes, width: int, height: int, *, quality: int | None = None, background: str = "#ffffff"
) -> Image.Image:
    """The result for an image in memory, decoded by Pillow."""
    options = ResizeOptions(width=width, height=height, quality=quality, background=background)
    (output,) = run(image, options).outputs
    return open_exact(output.data)


def run(image: bytes, *outputs: ResizeOptions) -> pipeline.Result:
    """The whole result for an image in memory."""
    return pipeline.resize(pipeline.Upload.from_memory(image), outputs, config=LIMITS)


def refusal(image: bytes, width: int = 100, height: int = 80) -> RequestError | None:
    """The error with which an image is refused; ``None`` if it gives a result of the exact size."""
    try:
        assert resize(image, width, height).size == (width, height)
    except RequestError as error:
        return error
    return None


def info(image: bytes) -> ImageInfo:
    """The facts in an image's header."""
    return pipeline.read_info(pipeline.Upload.from_memory(image))
