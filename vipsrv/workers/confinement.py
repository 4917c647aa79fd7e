"""Says which layers confine the workers, as they report them in their handshake."""

import logging
import os
from collections.abc import Collection

_ESSENTIAL = ("landlock", "seccomp")
"""Landlock covers files and network connections, seccomp every other system call. The other layers add to
these."""

_log = logging.getLogger(__name__)


def missing_layers(layers: Collection[str]) -> list[str]:
    """Return the essential layers that are not among ``layers`` (``landlock-7`` is a version of one)."""
    held = {layer.partition("-")[0] for layer in layers}
    return [layer for layer in _ESSENTIAL if layer not in held]


def log_confinement(layers: Collection[str]) -> None:
    """Log the layers that hold, as a warning if an essential one is missing."""
    missing = missing_layers(layers)
    if not missing:
        _log.info("workers are confined: %s", ", ".join(layers))
        return
    _log.warning(
        "workers are not fully confined, without %s (%s): an image that takes over a decoder could do much "
        "that %s may do; see SECURITY.md",
        " and ".join(missing),
        f"only {', '.join(layers)}" if layers else "no layer holds",
        "root" if os.geteuid() == 0 and "own-uid" not in layers else "this user",
    )
