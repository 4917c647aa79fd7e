"""Says which layers confine the workers, as they report them in their handshake."""

import logging
import os
from collections.abc import Collection

_log = logging.getLogger(__name__)


def log_confinement(layers: Collection[str]) -> None:
    """Log the layers that hold; without any, warn if this process is root, whose workers may do anything."""
    if layers:
        _log.info("workers are confined: %s", ", ".join(layers))
    elif os.geteuid() == 0:
        _log.warning(
            "workers run as root and are not confined: an image that takes over a decoder could do anything; "
            "run the server as an unprivileged user, and see SECURITY.md"
        )
    else:
        _log.info("workers are not confined: an image that takes over a decoder could do what this user may")
