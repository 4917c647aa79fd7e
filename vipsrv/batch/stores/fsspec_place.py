"""A file system of fsspec: the calls that vipsrv needs of it, in threads, and what their errors mean."""

import posixpath
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from typing import Any, BinaryIO, TypeVar

from vipsrv.batch.images import ListedImage
from vipsrv.batch.stores.blocking_calls import BlockingCalls
from vipsrv.batch.stores.extras import needs
from vipsrv.batch.stores.folder_walk import MOST_LEVELS
from vipsrv.batch.stores.interface import READ_WHOLE
from vipsrv.batch.stores.keys import is_text
from vipsrv.batch.stores.left_out import LeftOut
from vipsrv.batch.stores.os_faults import storage_failure
from vipsrv.batch.stores.whole_file import temporary_name
from vipsrv.errors import BatchError, StorageFailed

T = TypeVar("T")

_PIECE = 2**20

_THREADS = 8
_ONE_THREAD = {"ftp"}
"""Schemes whose file system uses one connection that cannot be shared."""

_THREADS_OF_ANY_HOST = 64
"""For a list of URLs of many hosts, some of which are slow."""

WEB = {"http", "https"}
"""Schemes with as many servers as there are URLs: that one of them is down says nothing of the others."""

_RENAMES = {"local", "sftp", "ssh", "ftp", "smb", "hdfs", "webhdfs", "dbfs"}
"""Schemes where a file can be seen while it is written, and renaming one is cheap. In the others, which are
object stores, a file appears when it is whole, and renaming it would copy it."""


class FsspecPlace:
    """A folder of a file system. The methods raise ``StorageFailed``, or ``OSError`` about one file."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._scheme = url.partition("://")[0]
        with needs("fsspec"):
            import fsspec  # noqa: PLC0415 - only batches with such URLs load it
        try:
            # Without a cache of listings, which would hold all of a large store.
            self._fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        except ImportError as error:
            raise BatchError(f"{url}: {error}") from error
        except ValueError as error:
            raise ValueError(f"{url}: {error}") from error
        except Exception as error:  # file systems have errors of their own kinds
            raise StorageFailed(url, f"it cannot be opened: {_reason(error)}") from error
        any_host = root.endswith("://")
        self._root: str = root[:-1] if any_host else root.rstrip("/")
        threads = _THREADS_OF_ANY_HOST if any_host else _THREADS
        self.calls = BlockingCalls(1 if self._scheme in _ONE_THREAD else threads, "fsspec")

    def files(self, start: str, left_out: LeftOut, enters: Callable[[str], bool]) -> Iterator[ListedImage]:
        """Yield the files below the folder ``start``; the entries of one folder a level are held."""
        levels = [iter(self._entries(start, left_out))]
        while levels:
            entry = next(levels[-1], None)
            if entry is None:
                levels.pop()
                continue
            name = entry["name"].rstrip("/")
            key = name.removeprefix(self._root + "/")
            if key == name or not is_text(key):
                left_out.add(f"{name!r}: it is not within {self.url}, or not UTF-8", fault=True)
            elif entry["type"] == "directory":
                if entry.get("islink"):
                    left_out.add(f"{key}: links to folders are not followed")
                elif len(levels) >= MOST_LEVELS:
                    left_out.add(f"{key}: more than {MOST_LEVELS} folders within each other", fault=True)
                elif enters(key + "/"):
                    levels.append(iter(self._entries(key + "/", left_out)))
            elif entry["type"] in {"file", "link"}:
                yield _listed(key, entry)
            else:
                left_out.add(f"{key}: not a regular file")

    def content(self, key: str, size: int | None) -> bytes | FileIO:
        """Return the bytes of a small file, or an unnamed temporary file that the caller closes."""
        if size is not None and size <= READ_WHOLE:
            return self.read(key)
        return self._tell(key, lambda: self._spooled(key))

    def read(self, key: str) -> bytes:
        """Return what is stored."""

        def call() -> bytes:
            data: bytes = self._fs.cat_file(self._path(key))
            return data

        return self._tell(key, call)

    def write(self, key: str, data: bytes) -> None:
        """Store ``data`` as a whole or not at all."""
        self._tell(key, lambda: self._write(self._path(key), data), writing=True)

    def remove(self, key: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError):
            self._tell(key, lambda: self._fs.rm_file(self._path(key)), writing=True)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}".rstrip("/") or "/"

    def _entries(self, folder: str, left_out: LeftOut) -> list[dict[str, Any]]:
        try:
            entries: list[dict[str, Any]] = self._tell(
                folder, lambda: self._fs.ls(self._path(folder), detail=True)
            )
        except OSError as error:
            if not folder:
                raise StorageFailed(self.url, f"it cannot be listed: {_reason(error)}") from error
            if not isinstance(error, FileNotFoundError):
                left_out.add(f"{folder}: the folder cannot be listed: {_reason(error)}", fault=True)
            return []
        return [entry for entry in entries if entry["name"].rstrip("/") != self._path(folder)]

    def _spooled(self, key: str) -> bytes | FileIO:
        with self._fs.open(self._path(key), "rb") as file:
            first = _read(file, READ_WHOLE + 1)
            if len(first) <= READ_WHOLE:
                return first
            copy = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - the caller closes it
            try:
                piece = first
                while piece:
                    left = memoryview(piece)
                    while left:
                        left = left[copy.write(left) :]
                    piece = _read(file, _PIECE)
                copy.seek(0)
            except BaseException:
                copy.close()
                raise
        return copy

    def _write(self, path: str, data: bytes) -> None:
        folder = path.rpartition("/")[0]
        renames = self._scheme in _RENAMES
        part = posixpath.join(folder, temporary_name()) if renames else path
        try:
            try:
                self._fs.pipe_file(part, data)
            except FileNotFoundError:
                self._fs.makedirs(folder, exist_ok=True)
                self._fs.pipe_file(part, data)
            if renames:
                self._fs.mv(part, path)
        except BaseException:
            if renames:
                with suppress(Exception):  # the error to tell is the first one
                    self._fs.rm_file(part)
            raise

    def _tell(self, key: str, call: Callable[[], T], *, writing: bool = False) -> T:
        """Return what the call returns, or raise the error that tells what its failure is about."""
        try:
            return call()
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            # What HTTP's file system cannot reach is not found for it, for the reason that is the cause.
            if isinstance(error.__cause__, OSError):
                raise OSError(None, _reason(error.__cause__), key) from error
            raise type(error)(error.errno, _reason(error), key) from error
        except Exception as error:  # file systems have errors of their own kinds
            reason = _reason(error)
            if isinstance(error, OSError) and (failure := storage_failure(self.url, error, writing=writing)):
                raise failure from error
            if self._scheme not in WEB and (writing or not self._answers()):
                raise StorageFailed(
                    self.url, f"{reason}; make it available again, then run the same command again"
                ) from error
            raise OSError(None, reason, key) from error

    def _answers(self) -> bool:
        try:
            self._fs.info(self._root or "/")
        except FileNotFoundError:
            return True  # a store without folders has no root either
        except Exception:  # noqa: BLE001 - whatever it is, it does not answer
            return False
        return True


def _listed(key: str, entry: dict[str, Any]) -> ListedImage:
    etag = entry.get("ETag") or entry.get("etag")
    return ListedImage(
        key=key,
        size=entry.get("size"),
        modified=_nanoseconds(
            next(
                (entry[name] for name in ("mtime", "LastModified", "last_modified") if entry.get(name)), None
            )
        ),
        etag=etag.strip('"') if isinstance(etag, str) else None,
    )


def _nanoseconds(value: object) -> int | None:
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return round(value * 10**6) * 1000 if isinstance(value, (int, float)) else None


def _read(file: BinaryIO, size: int) -> bytes:
    """Read ``size`` bytes, or all that there are: a stream may give fewer at a time."""
    pieces = []
    while size and (piece := file.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _reason(error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return " ".join(text.split()) or type(error).__name__
