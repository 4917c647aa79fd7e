"""The values of the line that a server logs when it has started: what it is, and what it allows."""

import math
import os
import platform
import re
from collections.abc import Iterable
from typing import Any

from vipsrv.address import Address
from vipsrv.server.settings import ServerSettings
from vipsrv.version import __version__
from vipsrv.workers.channel import Ready

_LIBVIPS = re.compile(r"libvips \S+ (\S+)")

_SERVER_LIMITS = (
    "connections",
    "queue",
    "deadline",
    "idle_timeout",
    "receive_timeout",
    "spool_memory",
    "spool_disk",
    "decode_memory",
)
_WORKER_LIMITS = ("max_upload", "max_pixels", "max_output_pixels", "job_memory")


def start_fields(settings: ServerSettings, ready: Ready, listeners: Iterable[Address]) -> dict[str, Any]:
    """Return the values; ``ready`` is the handshake of a worker. Limits are bytes, pixels and seconds, and
    ``None`` for an infinite time, for which JSON has no number.
    """
    config = settings.worker_config()
    limits = {name: getattr(config, name) for name in _WORKER_LIMITS}
    for name in _SERVER_LIMITS:
        value = getattr(settings, name)
        if not isinstance(value, float):
            limits[name] = int(value)
        else:
            limits[name] = value if math.isfinite(value) else None
    return {
        "version": __version__,
        "libvips": libvips_version(ready),
        "python": platform.python_version(),
        "pid": os.getpid(),
        "workers": settings.workers,
        "limits": limits,
        "sandbox": list(ready.layers),
        "listeners": [str(address) for address in listeners],
    }


def libvips_version(ready: Ready) -> str:
    """Return the version of libvips, which each of its readers tells."""
    versions = (match[1] for library in ready.readers.values() if (match := _LIBVIPS.match(library)))
    return next(versions, "unknown")
