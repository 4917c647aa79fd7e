"""vipsrv: a high-throughput image backend on libvips.

The names below are loaded on first use, so that a worker process, which imports this package too,
starts without the clients and what they need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vipsrv.version import __version__

if TYPE_CHECKING:
    from vipsrv.client import (
        AsyncClient,
        Client,
        ResizedImage,
        ResizeResult,
        ResizeResults,
        ServerInfo,
        Timeout,
    )
    from vipsrv.options import Fit, Format, ImageInfo, Keep, Position, ResizeOptions, Timings

__all__ = [
    "AsyncClient",
    "Client",
    "Fit",
    "Format",
    "ImageInfo",
    "Keep",
    "Position",
    "ResizeOptions",
    "ResizeResult",
    "ResizeResults",
    "ResizedImage",
    "ServerInfo",
    "Timeout",
    "Timings",
    "__version__",
]

_HOME = {
    "AsyncClient": "vipsrv.client",
    "Client": "vipsrv.client",
    "ResizeResult": "vipsrv.client",
    "ResizeResults": "vipsrv.client",
    "ResizedImage": "vipsrv.client",
    "ServerInfo": "vipsrv.client",
    "Timeout": "vipsrv.client",
    "Fit": "vipsrv.options",
    "Format": "vipsrv.options",
    "ImageInfo": "vipsrv.options",
    "Keep": "vipsrv.options",
    "Position": "vipsrv.options",
    "ResizeOptions": "vipsrv.options",
    "Timings": "vipsrv.options",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
