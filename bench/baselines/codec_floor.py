"""The cost of libvips' codecs alone: the decode that the target needs, and the encode of a result of its
size.

There is no resize between the two; the image that is encoded was made once, before the loop. No server with
this libvips can take less. A JPEG is decoded at the smallest of 1/1, 1/2, 1/4 and 1/8 that is not smaller
than the target, a WebP at the smallest scale that is not, because its decoder reduces by any factor, and all
other formats whole. The pixels go to memory.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyvips

from bench.baselines import bare_loop
from bench.baselines.loop import Loop
from vipsrv.options import DEFAULT_QUALITY


class CodecFloor(Loop):
    """The floor of libvips' codecs as a baseline."""

    name = "codec-floor"
    what = "libvips' decode at the scale that is needed, and its encode, nothing between"
    work = __name__
    makes_result = False


def decode_scale(width: int, height: int, target_width: int, target_height: int) -> int:
    """Shrink factor (1, 2, 4, 8) for decoding a JPEG to no less than the target; all sizes in pixels."""
    fitting = (
        scale for scale in (8, 4, 2) if scale * target_width <= width and scale * target_height <= height
    )
    return next(fitting, 1)


def prepare(image: str, width: int, height: int) -> Callable[[], bytes]:
    """Return the function that decodes the image at this path and encodes an image of the target's size."""
    data = Path(image).read_bytes()
    header = pyvips.Image.new_from_buffer(data, "")
    options: dict[str, Any] = {"access": "sequential"}
    loader = header.get("vips-loader")
    if loader.startswith("webpload"):
        options["scale"] = min(1.0, max(width / header.width, height / header.height))
    elif loader.startswith("jpegload"):
        options["shrink"] = decode_scale(header.width, header.height, width, height)
    result = pyvips.Image.new_from_buffer(bare_loop.prepare(image, width, height)(), "").copy_memory()

    def make() -> bytes:
        pyvips.Image.new_from_buffer(data, "", **options).copy_memory()
        encoded: bytes = result.jpegsave_buffer(Q=DEFAULT_QUALITY, keep="none")
        return encoded

    return make
