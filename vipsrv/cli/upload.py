"""The image that ``vipsrv-client`` uploads: a file or standard input, checked beforehand; its progress."""

import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from vipsrv.client import SeekableReader, spool
from vipsrv.client.sources import OnSent
from vipsrv.printable import printable

STANDARD_INPUT = Path("-")

LONG_UPLOAD = 8_000_000
"""Bytes: a progress bar is shown for images of at least this size."""

LINE_SECONDS = 10.0
"""Seconds between two lines that tell of a resumed upload, where there is no terminal."""


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


class UploadProgress:
    """What a user sees of an upload: nothing."""

    on_sent: OnSent | None = None
    """For a client, which calls it with the number of bytes sent so far."""

    def on_resumed(self, offset: int) -> None:
        """Show that the upload goes on, and that the server has so many bytes already."""


class UploadLines(UploadProgress):
    """Writes a line to standard error when an upload is resumed, not more often than ``LINE_SECONDS``.

    Not if nothing is left to be sent: then nothing goes on, and the report says so.
    """

    def __init__(self, program: str, size: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._program = program
        self._size = size
        self._clock = clock
        self._next: float | None = None

    def on_resumed(self, offset: int) -> None:
        """Write a line if it is time for one."""
        now = self._clock()
        if offset < self._size and (self._next is None or now >= self._next):
            self._next = now + LINE_SECONDS
            typer.echo(f"{self._program}: {resumed_at(offset, self._size)}", err=True)


class UploadBar(UploadProgress):
    """A bar on standard error, which is a terminal; its label says where the upload was resumed."""

    def __init__(self, stack: ExitStack, image: UploadImage) -> None:
        self._stack = stack
        self._size = image.size
        self._label = f"sending {printable(image.named.name)}"
        self._resumed = ""
        self._shown = 0
        self._bar: Any = None
        self.on_sent = self._show

    def on_resumed(self, offset: int) -> None:
        """Show it in the label, and the bytes that the server has as sent."""
        self._resumed = f" ({resumed_at(offset, self._size)})"
        self._show(offset)

    def _show(self, sent: int) -> None:
        label = self._label + self._resumed
        bar = self._bar
        if bar is None:  # no bar before a server has accepted the connection
            opened = typer.progressbar(length=self._size, label=label, file=sys.stderr)
            bar = self._bar = self._stack.enter_context(opened)
        bar.label = label
        if sent >= self._shown:
            bar.update(sent - self._shown)
        else:  # bytes on their way were lost; a bar does not draw a step back by itself
            bar.finished = False
            bar.pos = sent
            bar.render_progress()
        self._shown = sent


def resumed_at(offset: int, size: int) -> str:
    """Return the words for an upload that goes on, with whole percent of the image."""
    return f"resumed at {100 * offset // size} %"


@contextmanager
def upload_progress(program: str, image: UploadImage, *, quiet: bool) -> Iterator[UploadProgress]:
    """Show the progress of an upload on standard error: a bar for a long one, if that is a terminal."""
    if quiet or sys.stderr is None:
        yield UploadProgress()
    elif image.size < LONG_UPLOAD or not sys.stderr.isatty():
        yield UploadLines(program, image.size)
    else:
        with ExitStack() as stack:
            yield UploadBar(stack, image)
