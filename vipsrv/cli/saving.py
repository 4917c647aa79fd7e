"""Where a result is saved, and how: whole or not at all, and never over its source."""

import os
import secrets
from pathlib import Path

ENDINGS = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "avif": ".avif", "tiff": ".tif", "gif": ".gif"}


def check_target(source: Path, output: Path) -> None:
    """Refuse before anything is sent what could not be saved afterwards.

    Raises ``ValueError`` if it is the source itself, ``OSError`` if there is no such folder.
    """
    if output.exists() and output.samefile(source):
        raise ValueError(
            f"{output} is the source itself, which is never overwritten; name another with --output"
        )
    folder = output if output.is_dir() else output.parent
    if not folder.is_dir():
        raise NotADirectoryError(20, "no such folder to save in", str(folder))


def target(source: Path, output: Path | None, kind: str) -> Path:
    """The file for a result of a format: ``output``, or ``processed_<stem>`` with the format's own ending in
    the folder ``output`` or beside the source.
    """
    name = f"processed_{source.stem}{ENDINGS.get(kind, '.' + kind)}"
    if output is None:
        return source.with_name(name)
    return output / name if output.is_dir() else output


def save(data: bytes, path: Path) -> None:
    """Write a file: the name holds either what it held before or all of ``data``. Raises ``OSError``."""
    path = path.resolve()
    if path.exists() and not path.is_file():
        path.write_bytes(data)  # a device or a pipe: there is nothing to replace
        return
    part = path.with_name(f".vipsrv-{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
        os.replace(part, path)  # noqa: PTH105 - Path.replace names only one of both in its error
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
