"""Opens a source or a destination by its path or URL."""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vipsrv.batch.stores.folder_destination import FolderDestination
from vipsrv.batch.stores.folder_source import FolderSource
from vipsrv.batch.stores.interface import Destination, Source


def open_source(where: str | os.PathLike[str], *, destination: str | os.PathLike[str] = "") -> Source:
    """Open a source of images; what a batch writes to ``destination`` is not taken for one.

    Raises ``StorageFailed`` if there is nothing at ``where``, and ``ValueError`` if ``where`` is no path or
    URL that is known, or the same as ``destination``.
    """
    place = _local(where)
    skip = _inside(_resolved(place), _resolved(_local(destination))) if destination else None
    return FolderSource(place, skip=() if skip is None else (skip,))


def open_destination(where: str | os.PathLike[str]) -> Destination:
    """Open a destination of results. A folder is made with the first result.

    Raises ``StorageFailed``, and ``ValueError`` if ``where`` is no path or URL that is known.
    """
    return FolderDestination(_local(where))


def _local(where: str | os.PathLike[str]) -> str:
    text = os.fspath(where)
    if text.startswith("file://"):
        return unquote(urlsplit(text).path)
    if "://" in text:
        raise ValueError(f"{text}: no storage is known for {text.partition('://')[0]}://")
    return text


def _resolved(folder: str) -> str:
    return str(Path(folder).expanduser().resolve())


def _inside(source: str, destination: str) -> str | None:
    """Return the prefix of the keys of ``source`` that are in ``destination``, if it is inside."""
    if source.rstrip("/") == destination.rstrip("/"):
        raise ValueError(f"{source} is the source and the destination; name another destination")
    start = source.rstrip("/") + "/"
    return destination.rstrip("/").removeprefix(start) + "/" if destination.startswith(start) else None
