"""Opens a source or a destination by its path or URL."""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vipsrv.batch.stores.folder_destination import FolderDestination
from vipsrv.batch.stores.folder_source import FolderSource
from vipsrv.batch.stores.interface import Destination, Source
from vipsrv.batch.stores.object_destination import ObjectDestination
from vipsrv.batch.stores.object_place import SCHEMES
from vipsrv.batch.stores.object_source import ObjectSource


def open_source(where: str | os.PathLike[str], *, destination: str | os.PathLike[str] = "") -> Source:
    """Open a source of images; what a batch writes to ``destination`` is not taken for one.

    Raises ``StorageFailed`` if there is nothing at ``where``, ``ValueError`` if ``where`` is no path or URL
    that is known, or the same as ``destination``, and ``BatchError`` if an extra of vipsrv is missing.
    """
    place = _place(where)
    skip = _inside(place, _place(destination)) if os.fspath(destination) else None
    skipped = () if skip is None else (skip,)
    match _scheme(place):
        case "":
            return FolderSource(place, skip=skipped)
        case scheme if scheme in SCHEMES:
            return ObjectSource(place, skip=skipped)
        case scheme:
            raise ValueError(f"{place}: no storage is known for {scheme}://")


def open_destination(where: str | os.PathLike[str]) -> Destination:
    """Open a destination of results. A folder is made with the first result.

    Raises ``StorageFailed``, ``ValueError`` if ``where`` is no path or URL that is known, and ``BatchError``
    if an extra of vipsrv is missing.
    """
    place = _place(where)
    match _scheme(place):
        case "":
            return FolderDestination(place)
        case scheme if scheme in SCHEMES:
            return ObjectDestination(place)
        case scheme:
            raise ValueError(f"{place}: no storage is known for {scheme}://")


def _scheme(place: str) -> str:
    scheme, found, _ = place.partition("://")
    return scheme if found else ""


def _place(where: str | os.PathLike[str]) -> str:
    """Return a URL, or an absolute path without links, so that two names of a place are equal."""
    text = os.fspath(where)
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    return text if _scheme(text) else str(Path(text).expanduser().resolve())


def _inside(source: str, destination: str) -> str | None:
    """Return the prefix of the keys of ``source`` that are in ``destination``, if it is inside."""
    if source.rstrip("/") == destination.rstrip("/"):
        raise ValueError(f"{source} is the source and the destination; name another destination")
    start = source.rstrip("/") + "/"
    return destination.rstrip("/").removeprefix(start) + "/" if destination.startswith(start) else None
