"""The image that ``vipsrv-client`` uploads: a file or standard input, checked beforehand; a progress bar."""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from vipsrv.client import SeekableReader, spool
from vipsrv.client.sources import OnSent
from vipsrv.printable import printable

STANDARD_INPUT = Path("-")

LONG_UPLOAD = 8_000_000
"""Bytes: a progress bar is shown for images of at least this size."""


@dataclass(frozen=True, slots=True)
class UploadImage:
    """An image of ``size`` bytes.

    ``content`` is what is sent. ``shown`` is the name in reports. The names of results are made from
    ``named``. ``origin`` is the file that no result may overwrite, as a path or as a descriptor.
    """

    content: Path | SeekableReader
    size: int
    shown: str
    named: Path
    origin: Path | int

    @classmethod
    def of_file(cls, path: Path) -> "UploadImage":
        """The image in a file. Raises ``OSError`` for a path that is not a file with content."""
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            text = "not a regular file, so its size is unknown; pass - and its content as standard input"
            raise OSError(errno.EINVAL, text, str(path))
        if not status.st_size:
            raise OSError(errno.EINVAL, "the file is empty", str(path))
        return cls(path, status.st_size, str(path), path, path)


@contextmanager
def open_upload(path: Path) -> Iterator[UploadImage]:
    """Open the image at a path, or that on standard input if the path is ``-``.

    Standard input is copied first, because its size is unknown. Raises ``OSError``.
    """
    if path != STANDARD_INPUT:
        yield UploadImage.of_file(path)
        return
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    if sys.stdin.isatty():
        raise OSError(errno.EINVAL, "standard input is a terminal; redirect an image into it")
    try:
        copy = spool(sys.stdin.buffer)
    except ValueError as error:
        raise OSError(errno.EFBIG, f"standard input: {error}") from None
    with copy:
        size = copy.seek(0, os.SEEK_END)
        copy.seek(0)
        if not size:
            raise OSError(errno.EINVAL, "standard input is empty")
        yield UploadImage(copy, size, str(STANDARD_INPUT), Path("stdin"), 0)


@contextmanager
def upload_progress(image: UploadImage, *, quiet: bool) -> Iterator[OnSent | None]:
    """Show a progress bar for a long upload if standard error is a terminal."""
    if quiet or image.size < LONG_UPLOAD or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    with ExitStack() as stack:
        shown = 0
        bar = None

        def on_sent(sent: int) -> None:
            nonlocal bar, shown
            if bar is None:  # no bar before a server has accepted the connection
                label = f"sending {printable(image.named.name)}"
                bar = stack.enter_context(typer.progressbar(length=image.size, label=label, file=sys.stderr))
            bar.update(sent - shown)
            shown = sent

        yield on_sent
