"""The pipeline called as briefly as its tests want it."""

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
    """A picture of ``SAMPLES``, made once."""
    return SAMPLES[name]()


def resize(
    picture: bytes, width: int, height: int, *, quality: int | None = None, background: str = "#ffffff"
) -> Image.Image:
    """The result for a picture in memory, decoded by Pillow."""
    options = ResizeOptions(width=width, height=height, quality=quality, background=background)
    (output,) = run(picture, options).outputs
    return open_exact(output.data)


def run(picture: bytes, *outputs: ResizeOptions) -> pipeline.Result:
    """The whole result for a picture in memory."""
    return pipeline.resize(pipeline.Upload.from_memory(picture), outputs, config=LIMITS)


def refusal(picture: bytes, width: int = 100, height: int = 80) -> RequestError | None:
    """How a picture is refused; ``None`` where it gives a result of the exact size."""
    try:
        assert resize(picture, width, height).size == (width, height)
    except RequestError as error:
        return error
    return None


def info(picture: bytes) -> ImageInfo:
    """What the header says."""
    return pipeline.read_info(pipeline.Upload.from_memory(picture))
