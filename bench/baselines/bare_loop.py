"""What libvips recommends: ``thumbnail_buffer`` and ``jpegsave_buffer`` in a bare loop.

The operation cache is off, because the requests of a server differ.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyvips

from bench.baselines.loop import AnyFormatLoop
from vipsrv.options import DEFAULT_QUALITY

_SAVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("jpegsave_buffer", {}),
    "webp": ("webpsave_buffer", {}),
    "avif": ("heifsave_buffer", {"compression": "av1"}),
}


class BareLoop(AnyFormatLoop):
    """The bare loop as a baseline."""

    name = "bare-loop"
    what = "thumbnail_buffer and jpegsave_buffer, one process a core, no server"
    work = __name__


def prepare(
    image: str, width: int, height: int, form: str = "jpeg", quality: int = DEFAULT_QUALITY
) -> Callable[[], bytes]:
    """Return the function that makes one result of the image at this path; ``form`` is its format."""
    data = Path(image).read_bytes()
    saver, options = _SAVERS[form]
    pyvips.cache_set_max(0)

    def make() -> bytes:
        image = pyvips.Image.thumbnail_buffer(data, width, height=height, size="force")
        result: bytes = getattr(image, saver)(Q=quality, keep="none", **options)
        return result

    return make
