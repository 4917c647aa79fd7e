"""Checks which layers confine the workers, as they report them in their handshake."""

import logging
import os
import re
from collections.abc import Collection

_ESSENTIAL = ("landlock", "seccomp")
"""Landlock covers files and network connections, seccomp every other system call. The other layers add to
these, except that a server which runs as root needs ``own-uid`` as well."""

_log = logging.getLogger(__name__)


def missing_layers(layers: Collection[str], *, root: bool) -> list[str]:
    """Return the essential layers that are not among ``layers`` (``landlock-7`` is a version of one).

    ``root`` says whether the server runs as root.
    """
    held = {re.sub(r"-\d+$", "", layer) for layer in layers}
    needed = (*_ESSENTIAL, "own-uid") if root else _ESSENTIAL
    return [layer for layer in needed if layer not in held]


def log_confinement(layers: Collection[str]) -> None:
    """Log a warning if an essential layer is missing. The server's first line has all that hold."""
    root = os.geteuid() == 0
    missing = missing_layers(layers, root=root)
    if not missing:
        return
    _log.warning(
        "workers are not fully confined, without %s (%s): an image that takes over a decoder could do much "
        "that %s may do; see SECURITY.md",
        ", ".join(missing),
        f"only {', '.join(layers)}" if layers else "no layer holds",
        "root" if root and "own-uid" not in layers else "this user",
    )
