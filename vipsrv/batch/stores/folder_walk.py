"""Lists the files of a folder and of the folders in it, in bounded memory."""

import os
import stat
from collections.abc import Callable, Iterator

from vipsrv.batch.images import ListedImage
from vipsrv.batch.stores.folder_root import FolderRoot
from vipsrv.batch.stores.keys import is_text
from vipsrv.batch.stores.left_out import LeftOut
from vipsrv.batch.stores.os_faults import storage_failure
from vipsrv.errors import StorageFailed

MOST_LEVELS = 200
"""Folders within folders. Each level has a descriptor open while the listing is below it."""

Enters = Callable[[str], bool]
"""Decides by the key of a folder, with a ``/`` at its end, whether the listing goes into it."""


class FolderWalk:
    """Lists files in the order of the file system; nothing is sorted.

    A folder is entered where it is met, so that the listing holds one open folder a level, and neither the
    names of a large folder nor those of many folders. Links to files are files; links to folders are not
    entered, because they may lead back. What cannot be listed is counted in ``left_out``.
    """

    def __init__(self, root: FolderRoot, left_out: LeftOut, enters: Enters) -> None:
        self._root = root
        self._left_out = left_out
        self._enters = enters

    def files(self, start: str = "") -> Iterator[ListedImage]:
        """Yield the files below the folder with the key ``start``. Raises ``StorageFailed``."""
        levels: list[tuple[str, Iterator[os.DirEntry[str]]]] = []
        self._open(start, levels)
        try:
            while levels:
                folder, entries = levels[-1]
                try:
                    entry = next(entries, None)
                except OSError as error:
                    self._cannot_list(folder, error)
                    entry = None
                if entry is None:
                    levels.pop()
                elif not is_text(entry.name):
                    shown = os.fsencode(entry.name).decode(errors="backslashreplace")
                    self._left_out.add(f"{folder}{shown}: the name is not UTF-8", fault=True)
                elif entry.is_dir(follow_symlinks=False):
                    self._open(f"{folder}{entry.name}/", levels)
                else:
                    image = self._file(folder, entry)
                    if image is not None:
                        yield image
        finally:
            for _, entries in levels:
                _close(entries)

    def _open(self, folder: str, levels: list[tuple[str, Iterator[os.DirEntry[str]]]]) -> None:
        if folder and not self._enters(folder):
            return
        if len(levels) >= MOST_LEVELS:
            self._left_out.add(f"{folder}: more than {MOST_LEVELS} folders within each other", fault=True)
            return
        try:
            levels.append((folder, os.scandir(self._root.path / folder)))
        except OSError as error:
            self._cannot_list(folder, error)

    def _cannot_list(self, folder: str, error: OSError) -> None:
        failure = storage_failure(self._root.url, error)
        if failure is not None:
            raise failure from error
        self._root.require()  # a folder may go; the root may not
        if not folder:
            raise StorageFailed(self._root.url, f"the folder cannot be listed: {error.strerror}") from error
        if not isinstance(error, FileNotFoundError):
            self._left_out.add(f"{folder}: the folder cannot be listed: {error.strerror}", fault=True)

    def _file(self, folder: str, entry: os.DirEntry[str]) -> ListedImage | None:
        key = folder + entry.name
        try:
            found = entry.stat()
        except OSError as error:
            failure = storage_failure(self._root.url, error)
            if failure is not None:
                raise failure from error
            # Opening it will tell what is wrong, as a row. Only what went while it was listed is no image.
            if isinstance(error, FileNotFoundError) and not entry.is_symlink():
                return None
            return ListedImage(key=key)
        if stat.S_ISREG(found.st_mode):
            return ListedImage(key=key, size=found.st_size, modified=found.st_mtime_ns)
        if stat.S_ISDIR(found.st_mode):
            self._left_out.add(f"{key}: links to folders are not followed")
        else:
            self._left_out.add(f"{key}: not a regular file")
        return None


def _close(entries: Iterator[os.DirEntry[str]]) -> None:
    close = getattr(entries, "close", None)
    if close is not None:
        close()
