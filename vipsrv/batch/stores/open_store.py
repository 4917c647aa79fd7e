"""Opens a source or a destination by its path or URL."""

import os
from collections.abc import Collection
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vipsrv.batch.stores.folder_destination import FolderDestination
from vipsrv.batch.stores.folder_source import FolderSource
from vipsrv.batch.stores.fsspec_stores import FsspecDestination, FsspecSource
from vipsrv.batch.stores.interface import Destination, Source
from vipsrv.batch.stores.key_entries import ListFormat, format_by_ending
from vipsrv.batch.stores.key_list_source import STANDARD_INPUT, KeyListSource, list_url
from vipsrv.batch.stores.object_destination import ObjectDestination
from vipsrv.batch.stores.object_place import SCHEMES
from vipsrv.batch.stores.object_source import ObjectSource
from vipsrv.errors import StorageFailed

Where = str | os.PathLike[str]


def open_source(
    where: Where, *, destination: Where = "", base: Where = "", list_format: ListFormat | None = None
) -> Source:
    """Open a source of images: a folder, a bucket, another store, or a list of keys (``is_key_list``).

    What a batch writes to ``destination`` is not taken for an image. The keys of a list are relative to
    ``base``, by default the folder of the list, or the current one for standard input.

    Raises ``StorageFailed`` if there is nothing at ``where``, ``ValueError`` if ``where`` is no path or URL
    that is known, or the same as ``destination``, and ``BatchError`` if an extra of vipsrv is missing.
    """
    if (again := list_url(os.fspath(where))) is not None:
        return KeyListSource(*again, opens=_open)
    if is_key_list(where, list_format):
        return _open_list(where, base, list_format)
    if os.fspath(base):
        raise ValueError(f"{os.fspath(where)} is no list of keys, so there is nothing relative to {base!s}")
    place = _place(where)
    return _open(place, _skipped(place, destination))


def open_destination(where: Where) -> Destination:
    """Open a destination of results. A folder is made with the first result.

    Raises ``StorageFailed``, ``ValueError`` if ``where`` is no path or URL that is known, and ``BatchError``
    if an extra of vipsrv is missing.
    """
    place = _place(where)
    scheme = _scheme(place)
    if not scheme:
        return FolderDestination(place)
    return ObjectDestination(place) if scheme in SCHEMES else FsspecDestination(place)


def is_key_list(where: Where, list_format: ListFormat | None = None) -> bool:
    """Whether a source is a list of keys: ``list_format`` is given, or it ends as a list does.

    The endings are .txt, .jsonl, .ndjson and .parquet. ``-`` is a list on standard input. A folder with such
    an ending is a folder.
    """
    text = os.fspath(where)
    if list_format is not None or text == STANDARD_INPUT or list_url(text) is not None:
        return True
    return format_by_ending(text) is not None and (bool(_scheme(text)) or not Path(_place(text)).is_dir())


def _open_list(where: Where, base: Where, format_: ListFormat | None) -> Source:
    text = os.fspath(where)
    if text == STANDARD_INPUT:
        if format_ is ListFormat.PARQUET:
            raise ValueError("a list in Parquet cannot be read from standard input; save it to a file first")
        place, default_base = text, _place(".")
    else:
        place = _place(where)
        if not _scheme(place) and not Path(place).is_file():
            raise StorageFailed(place, "there is no such list of keys")
        default_base = place.rpartition("/")[0] or "/"
    chosen = format_ or format_by_ending(place) or ListFormat.TEXT
    return KeyListSource(place, chosen, _place(base) if os.fspath(base) else default_base, opens=_open)


def _open(place: str, skip: Collection[str] = ()) -> Source:
    scheme = _scheme(place)
    if not scheme:
        return FolderSource(place, skip=skip)
    return ObjectSource(place, skip=skip) if scheme in SCHEMES else FsspecSource(place, skip=skip)


def _scheme(place: str) -> str:
    scheme, found, _ = place.partition("://")
    return scheme if found else ""


def _place(where: Where) -> str:
    """Return a URL, or an absolute path without links, so that two names of a place are equal."""
    text = os.fspath(where)
    if text.startswith(("file://", "local://")):  # the second name is that of fsspec
        text = unquote(urlsplit(text).path)
    return text if _scheme(text) else str(Path(text).expanduser().resolve())


def _skipped(source: str, destination: Where) -> tuple[str, ...]:
    """Return the prefix of the keys of ``source`` that are in ``destination``, if it is inside."""
    if not os.fspath(destination):
        return ()
    inner, outer = _place(destination).rstrip("/"), source.rstrip("/")
    if inner == outer:
        raise ValueError(f"{source} is the source and the destination; name another destination")
    return (inner.removeprefix(outer + "/") + "/",) if inner.startswith(outer + "/") else ()


def images_in_destination(source: str, destination: str) -> str | None:
    """Return the prefix that the images of a source have as keys of a destination; ``None`` if none is in it.

    Both are URLs of a ``Source`` and a ``Destination``. The images of a list are those in its base.
    """
    listed = list_url(source)
    inner, outer = (source if listed is None else listed[2]).rstrip("/") + "/", destination.rstrip("/") + "/"
    return inner.removeprefix(outer) if inner.startswith(outer) else None
