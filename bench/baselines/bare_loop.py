"""What libvips recommends: ``thumbnail_buffer`` and ``jpegsave_buffer`` in a bare loop.

The operation cache is off, because the requests of a server differ.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyvips

from bench.baselines.interface import Request
from bench.baselines.loop import Loop
from vipsrv.options import DEFAULT_QUALITY

_SAVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("jpegsave_buffer", {}),
    "webp": ("webpsave_buffer", {}),
    "avif": ("heifsave_buffer", {"compression": "av1"}),
}


class BareLoop(Loop):
    """The bare loop as a baseline."""

    name = "bare-loop"
    what = "thumbnail_buffer and jpegsave_buffer, one process a core, no server"
    work = __name__

    def serves(self, request: Request) -> bool:  # noqa: ARG002 - it reads what vipsrv reads
        """See ``Baseline``."""
        return True

    def arguments(self, request: Request) -> dict[str, Any]:
        """See ``Loop``."""
        return super().arguments(request) | {"form": request.format, "quality": request.quality}


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
