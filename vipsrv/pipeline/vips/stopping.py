"""Stop a job in the middle of its computation."""

from collections.abc import Callable
from typing import Any

import pyvips

from vipsrv.errors import RequestError

StopCheck = Callable[[], RequestError | None]
"""Returns the reason to stop, or ``None`` to go on. It is called many times a second and must be cheap."""


def stop_if_asked(watch: StopCheck | None) -> None:
    """Raise the reason to stop, if there is one. For use between two pieces of work."""
    reason = watch() if watch else None
    if reason is not None:
        raise reason


def stop_while_computing(image: pyvips.Image, watch: StopCheck) -> None:
    """Make libvips call ``watch`` while it computes ``image``, and stop if there is a reason.

    The computation then fails with a ``pyvips.Error``. libvips checks between pieces of the result of some
    128 rows each, never before the first one: not inside a loader that decodes the whole image at once, and
    not before an image is rotated by its EXIF orientation.
    """

    def check(killable: pyvips.Image, _progress: Any) -> None:
        if watch() is not None:
            killable.set_kill(True)

    image.set_progress(True)
    image.signal_connect("eval", check)
