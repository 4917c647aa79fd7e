"""Choose the files for results, and refuse to overwrite the source image."""

import errno
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from vipsrv.client import ResizedImage

_ENDINGS = {"jpeg": ".jpg", "tiff": ".tif"}


def check_output_file(source: Path, output: Path) -> None:
    """Check before anything is sent that a result can be saved at ``output``.

    Raises ``ValueError`` if it is the source itself, ``OSError`` if its folder is missing or not writable.
    """
    if output.exists() and output.samefile(source):
        raise ValueError(
            f"{output} is the source image, which is never overwritten; name another file with --output"
        )
    if output.is_dir():
        check_folder(output)
    elif output.is_file() or not output.exists():  # not a device or a pipe
        check_folder((output.resolve() if output.is_symlink() else output).parent)


def check_folder(output: Path) -> None:
    """Raise ``OSError`` if it is not a folder or not writable."""
    if not output.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "no such folder to save to", str(output))
    if not os.access(output, os.W_OK | os.X_OK):
        text = "the folder is not writable; name another one with --output"
        raise PermissionError(errno.EACCES, text, str(output))


def output_file(source: Path, output: Path | None, format_: str, size: str = "") -> Path:
    """Return the file for a result in a format.

    This is ``output`` if it is not a folder, otherwise ``processed_<stem>`` with the usual ending of the
    format, in the folder ``output`` or beside the source. ``size`` distinguishes several results.
    """
    name = f"processed_{source.stem}{size and '_' + size}{_ENDINGS.get(format_, '.' + format_)}"
    if output is None:
        return source.with_name(name)
    return output / name if output.is_dir() else output


def output_files(source: Path, output: Path | None, results: Sequence[ResizedImage]) -> list[Path]:
    """Return a file for each of several results, with its width and height in the name.

    If two results have the same size, the later one is numbered. Raises ``ValueError`` if one of the files is
    the source itself.
    """
    paths: list[Path] = []
    for result in results:
        size = f"{result.width}x{result.height}"
        path = output_file(source, output, result.format, size)
        number = 2
        while path in paths:
            path = output_file(source, output, result.format, f"{size}_{number}")
            number += 1
        check_output_file(source, path)
        paths.append(path)
    return paths


def write_all(data: bytes, stream: BinaryIO | io.RawIOBase) -> None:
    """Write all of ``data``: an unbuffered stream may accept only a part at a time. Raises ``OSError``."""
    left = memoryview(data)
    while left:
        written = stream.write(left)
        if written is None:  # a non-blocking stream that is full
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        left = left[written:]
    stream.flush()
