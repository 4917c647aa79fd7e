"""Giving up in the middle of a decode."""

from collections.abc import Callable
from typing import Any

import pyvips

from vipsrv.errors import RequestError

Watch = Callable[[], RequestError | None]
"""Asked many times a second while libvips computes: the reason to stop, if there is one. Must be cheap."""


def stop_now_if(watch: Watch | None) -> None:
    """Raise the reason to stop, if there is one: between two pieces of work that libvips does not ask in."""
    reason = watch() if watch else None
    if reason is not None:
        raise reason


def stop_when(image: pyvips.Image, watch: Watch) -> None:
    """Let libvips ask ``watch`` as it computes ``image``, and stop when told so.

    The computation then fails with a ``pyvips.Error``. libvips asks between pieces of the result of some 128
    rows each, never before the first: not in a loader that has to decode the whole picture at once, nor
    before a picture is turned by its EXIF orientation.
    """

    def check(killable: pyvips.Image, _progress: Any) -> None:
        if watch() is not None:
            killable.set_kill(True)

    image.set_progress(True)
    image.signal_connect("eval", check)
