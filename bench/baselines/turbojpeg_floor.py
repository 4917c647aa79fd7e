"""The floor of the codecs by libjpeg-turbo itself: the cost of JPEG without libvips and without a resize.

It is the libjpeg-turbo that the server uses, in the package simplejpeg. It decodes to the smallest of 1/1,
1/2, 1/4 and 1/8 that is not smaller than the target, always into the same memory, and encodes an image of the
target's size with the server's settings.
"""

import importlib.metadata
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from bench.baselines import bare_loop
from bench.baselines.codec_floor import decode_scale
from bench.baselines.loop import Loop
from vipsrv.options import DEFAULT_QUALITY

_PACKAGE = "simplejpeg"


class TurboJpegFloor(Loop):
    """The floor of libjpeg-turbo as a baseline, for JPEG only."""

    name = "turbojpeg-floor"
    what = "libjpeg-turbo's decode at the scale that is needed, and its encode, without libvips"
    work = __name__
    makes_result = False

    def missing(self) -> str | None:
        """See ``Baseline``."""
        try:
            importlib.metadata.version(_PACKAGE)
        except importlib.metadata.PackageNotFoundError:
            return f"{_PACKAGE} is not installed"
        return None

    def version(self) -> str:
        """See ``Baseline``."""
        return f"{_PACKAGE} {importlib.metadata.version(_PACKAGE)}"

    def reads(self, image: Path) -> bool:
        """See ``Baseline``."""
        return image.suffix == ".jpg"


def prepare(image: str, width: int, height: int) -> Callable[[], bytes]:
    """Return the function that decodes the image at this path and encodes an image of the target's size."""
    import simplejpeg  # noqa: PLC0415 - the package may be missing

    data = Path(image).read_bytes()
    with Image.open(io.BytesIO(data)) as source:
        scale = decode_scale(*source.size, width, height)
        columns, rows = (-(-side // scale) for side in source.size)
    decoded = bytearray(columns * rows * 3)
    with Image.open(io.BytesIO(bare_loop.prepare(image, width, height)())) as result:
        pixels = np.asarray(result.convert("RGB"))

    def make() -> bytes:
        simplejpeg.decode_jpeg(data, "RGB", min_width=columns, min_height=rows, buffer=decoded)
        encoded: bytes = simplejpeg.encode_jpeg(pixels, DEFAULT_QUALITY, "RGB", "420", fastdct=False)
        return encoded

    return make
