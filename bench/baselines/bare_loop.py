"""What libvips recommends: ``thumbnail_buffer`` and ``jpegsave_buffer`` in a bare loop.

The operation cache is off, because the requests of a server differ.
"""

from collections.abc import Callable
from pathlib import Path

import pyvips

from bench.baselines.loop import Loop
from vipsrv.options import DEFAULT_QUALITY


class BareLoop(Loop):
    """The bare loop as a baseline."""

    name = "bare-loop"
    what = "thumbnail_buffer and jpegsave_buffer, one process a core, no server"
    work = __name__


def prepare(image: str, width: int, height: int) -> Callable[[], bytes]:
    """Return the function that makes one result of the image at this path."""
    data = Path(image).read_bytes()
    pyvips.cache_set_max(0)

    def make() -> bytes:
        image = pyvips.Image.thumbnail_buffer(data, width, height=height, size="force")
        result: bytes = image.jpegsave_buffer(Q=DEFAULT_QUALITY, keep="none")
        return result

    return make
