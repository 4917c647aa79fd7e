"""The image that ``vipsrv-client`` uploads: checks beforehand, and a progress bar."""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import typer

from vipsrv.client.sources import OnSent

LONG_UPLOAD = 8_000_000
"""Bytes: a progress bar is shown for images of at least this size."""


def check_image(image: Path) -> None:
    """Refuse a path that is not a file with content, before anything is sent. Raises ``OSError``."""
    status = image.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(image))
    if not stat.S_ISREG(status.st_mode):
        text = "not a regular file, so its size is unknown; save its content to a file first"
        raise OSError(errno.EINVAL, text, str(image))
    if not status.st_size:
        raise OSError(errno.EINVAL, "the file is empty", str(image))


@contextmanager
def upload_progress(image: Path, *, quiet: bool) -> Iterator[OnSent | None]:
    """Show a progress bar for a long upload if standard error is a terminal."""
    size = image.stat().st_size
    if quiet or size < LONG_UPLOAD or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    with ExitStack() as stack:
        shown = 0
        bar = None

        def on_sent(sent: int) -> None:
            nonlocal bar, shown
            if bar is None:  # no bar before a server has accepted the connection
                bar = stack.enter_context(
                    typer.progressbar(length=size, label=f"sending {image.name}", file=sys.stderr)
                )
            bar.update(sent - shown)
            shown = sent

        yield on_sent
