"""Where a result is saved, and how: whole or not at all, and never over its source."""

import errno
import io
import os
import secrets
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from vipsrv.client import ResizedImage

ENDINGS = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "avif": ".avif", "tiff": ".tif", "gif": ".gif"}


def check_target(source: Path, output: Path) -> None:
    """Refuse before anything is sent what could not be saved afterwards.

    Raises ``ValueError`` if it is the source itself, ``OSError`` if there is no such folder or it cannot be
    written.
    """
    if output.exists() and output.samefile(source):
        raise ValueError(
            f"{output} is the source itself, which is never overwritten; name another with --output"
        )
    if output.is_dir():
        check_folder(output)
    elif output.is_file() or not output.exists():  # neither a device nor a pipe
        check_folder((output.resolve() if output.is_symlink() else output).parent)


def check_folder(output: Path) -> None:
    """Raises ``OSError`` if it is no folder, or none that a file can be made in."""
    if not output.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "no such folder to save in", str(output))
    if not os.access(output, os.W_OK | os.X_OK):
        text = "the folder cannot be written; name another place with --output"
        raise PermissionError(errno.EACCES, text, str(output))


def target(source: Path, output: Path | None, kind: str, size: str = "") -> Path:
    """The file for a result of a format: ``output``, or ``processed_<stem>`` with the format's own ending in
    the folder ``output`` or beside the source. ``size`` tells apart the results of one source.
    """
    name = f"processed_{source.stem}{size and '_' + size}{ENDINGS.get(kind, '.' + kind)}"
    if output is None:
        return source.with_name(name)
    return output / name if output.is_dir() else output


def targets(source: Path, output: Path | None, results: Sequence[ResizedImage]) -> list[Path]:
    """A file for each of several results, with its width and height in the name.

    A picture's proportions can give two results the same size; the later one is numbered. Raises
    ``ValueError`` if one is the source itself.
    """
    paths: list[Path] = []
    for result in results:
        size = f"{result.width}x{result.height}"
        path = target(source, output, result.format, size)
        number = 2
        while path in paths:
            path = target(source, output, result.format, f"{size}_{number}")
            number += 1
        check_target(source, path)
        paths.append(path)
    return paths


def save(data: bytes, path: Path) -> None:
    """Write a file: the name holds either what it held before or all of ``data``, with the mode that it had.

    Raises ``OSError``.
    """
    if path.exists() and not path.is_file():
        # A device or a pipe: there is nothing to replace. By its own name, for /dev/stdout of a pipe leads to
        # one that is no path.
        try:
            path.write_bytes(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        return
    path = path.resolve()
    part = path.with_name(f".vipsrv-{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            if path.exists():
                part.chmod(stat.S_IMODE(path.stat().st_mode))
            file.write(data)
        os.replace(part, path)  # noqa: PTH105 - Path.replace names only one of both in its error
    except BaseException as error:
        with suppress(OSError):  # where it could not be made, what prevented that is what has to be told
            part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_all(data: bytes, stream: BinaryIO | io.RawIOBase) -> None:
    """Write all of it, or raise ``OSError``: an unbuffered stream may take a part at a time."""
    left = memoryview(data)
    while left:
        written = stream.write(left)
        if written is None:  # what a stream says that does not block
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        left = left[written:]
    stream.flush()
