"""Choose the files for results, and refuse to overwrite the source image."""

import errno
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vipsrv.client import ResizedImage
from vipsrv.options import Format, ResizeOptions

_ENDINGS = {
    Format.JPEG: ".jpg",
    Format.PNG: ".png",
    Format.WEBP: ".webp",
    Format.AVIF: ".avif",
    Format.TIFF: ".tif",
    Format.GIF: ".gif",
    Format.JXL: ".jxl",
}

UNKNOWN_ENDING = ".bin"
"""The ending of a result whose format is unknown here; only ``auto`` leaves the choice to the server."""


@dataclass(frozen=True, slots=True)
class OutputFile:
    """The file for a result. ``given`` states whether the user chose its name.

    Where the user did, a symbolic link is followed, and a device or a pipe is written to, as a shell does for
    ``>``. A name that is made from that of the source may be known to others, who could place a link there:
    what has such a name is replaced.
    """

    path: Path
    given: bool

    def check(self, origin: Path | int) -> None:
        """Refuse to overwrite the image that is at ``origin``, which is a path or a descriptor.

        Raises ``ValueError``, and ``OSError`` if a result cannot be saved here.
        """
        if self.given:
            check_output_file(origin, self.path)
            return
        try:
            there = self.path.lstat()
        except FileNotFoundError:
            return
        if os.path.samestat(there, os.stat(origin)):  # noqa: PTH116 - or a descriptor
            raise _is_the_source(self.path)

    def save(self, result: ResizedImage) -> Path:
        """Write the result and return the path. Raises ``OSError``."""
        return result.save(self.path, follow_symlinks=self.given)


def ending_of(asked: Format, made: str) -> str:
    """Return the ending of a result's name, such as ``.jpg``: that of the format that was ``asked`` for.

    Only for ``auto`` it is that of the format that the server has ``made``, if that is a known one.
    """
    if asked is not Format.AUTO:
        return _ENDINGS[asked]
    return next((ending for format_, ending in _ENDINGS.items() if format_ == made), UNKNOWN_ENDING)


def check_output_file(origin: Path | int, output: Path) -> None:
    """Check before anything is sent that a result can be saved at ``output``, which the user named.

    Raises ``ValueError`` if it is the image that is at ``origin``, a path or a descriptor, and ``OSError`` if
    its folder is missing or not writable.
    """
    if output.exists() and os.path.samestat(output.stat(), os.stat(origin)):  # noqa: PTH116 - or a descriptor
        raise _is_the_source(output)
    if output.is_dir():
        check_folder(output)
    elif output.is_file() or not output.exists():  # not a device or a pipe
        check_folder((output.resolve() if output.is_symlink() else output).parent)


def check_folder(output: Path, option: str = "--output") -> None:
    """Raise ``OSError`` if it is not a folder or not writable. ``option`` is that which names another one."""
    if not output.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "no such folder to save to", str(output))
    if not os.access(output, os.W_OK | os.X_OK):
        text = f"the folder is not writable; name another one with {option}"
        raise PermissionError(errno.EACCES, text, str(output))


def output_folder(output: Path | None, output_dir: Path | None) -> Path | None:
    """Return the folder for the results of many images: ``--output-dir``, or an ``--output`` that is one.

    Raises ``ValueError`` for an ``--output`` that is for one image.
    """
    if output is None:
        return output_dir
    if output_dir is not None:
        raise ValueError("--output and --output-dir exclude each other")
    if not output.is_dir():
        raise ValueError(
            f"--output {output} is for the result of one image; name a folder with --output-dir for many"
        )
    return output


def output_file(source: Path, output: Path | None, ending: str, size: str = "") -> OutputFile:
    """Return the file for a result.

    This is ``output`` if it is not a folder, otherwise ``processed_<stem>`` with the ``ending``, in the
    folder ``output`` or beside the source. ``size`` distinguishes several results.
    """
    name = f"processed_{source.stem}{size and '_' + size}{ending}"
    if output is None:
        return OutputFile(source.with_name(name), given=False)
    if output.is_dir():
        return OutputFile(output / name, given=False)
    return OutputFile(output, given=True)


def output_files(
    source: Path, output: Path | None, asked: Sequence[ResizeOptions], results: Sequence[ResizedImage]
) -> list[OutputFile]:
    """Return a file for each of several results, with its width and height in the name.

    If two results have the same size, the later one is numbered.
    """
    files: list[OutputFile] = []
    for options, result in zip(asked, results, strict=True):
        ending = ending_of(options.format, result.format)
        size = f"{result.width}x{result.height}"
        file = output_file(source, output, ending, size)
        number = 2
        while file in files:
            file = output_file(source, output, ending, f"{size}_{number}")
            number += 1
        files.append(file)
    return files


def _is_the_source(output: Path) -> ValueError:
    return ValueError(
        f"{output} is the source image, which is never overwritten; name another file with --output"
    )


def write_all(data: bytes, stream: BinaryIO | io.RawIOBase) -> None:
    """Write all of ``data``: an unbuffered stream may accept only a part at a time. Raises ``OSError``."""
    left = memoryview(data)
    while left:
        written = stream.write(left)
        if written is None:  # a non-blocking stream that is full
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        left = left[written:]
    stream.flush()
